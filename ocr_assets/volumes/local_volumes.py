"""Volumes outside the archive: a folder, also in an object store, a zip file or a PDF of images.

Belongs here: listing and reading their images, as :class:`~ocr_assets.volumes.archive.VolumeSource`
does. Does not belong here: decoding, and the archive's own layout.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ocr_assets.volumes.archive import (
    ByteStore,
    ImageEntry,
    ManifestError,
    MissingImageError,
    VolumeId,
    VolumeManifest,
    VolumeSource,
    check_file_size,
    is_image_name,
    synthetic_etag,
    version_name,
)


def open_local(path: Path, volume: VolumeId) -> VolumeSource:
    """The source of the volume at ``path``: a folder, a ``.zip`` or a ``.pdf``.

    Raises:
        ManifestError: there is nothing at the path, or something else.
    """
    if path.is_dir():
        return ImageFolder(path, volume)
    if path.suffix.lower() == ".zip" and path.is_file():
        return ImageZip(path, volume)
    if path.suffix.lower() == ".pdf" and path.is_file():
        from ocr_assets.volumes.pdf_volume import ImagePdf

        return ImagePdf(path, volume)
    raise ManifestError(
        f"{path} is no volume: give a folder of images, a .zip or a .pdf that exists"
    )


def reading_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``page2`` before ``page10``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def listed(volume: VolumeId, images: list[ImageEntry], place: str) -> VolumeManifest:
    """A manifest of ``images``, whose version changes when any name, size or tag does.

    Raises:
        ManifestError: there are none.
    """
    if not images:
        raise ManifestError(f"there are no images in {place}")
    etag = synthetic_etag(*(f"{image.name}:{image.size}:{image.etag}" for image in images))
    return VolumeManifest(volume, version_name(etag), etag, tuple(images))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder whose image files are the pages, in the order of their names."""

    path: Path
    volume: VolumeId

    def manifest(self) -> VolumeManifest:
        """List the image files; their entity tags are digests of their content."""
        images = []
        for file in sorted(self.path.iterdir(), key=lambda file: reading_order(file.name)):
            if file.is_file() and is_image_name(file.name) and not file.name.startswith("."):
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
                images.append(ImageEntry(file.name, size=file.stat().st_size, etag=digest))
        return listed(self.volume, images, str(self.path))

    def read(self, image: ImageEntry) -> bytes:
        """The bytes of an image; raises :class:`MissingImageError` if it is gone."""
        check_file_size(image)
        try:
            return (self.path / image.name).read_bytes()
        except FileNotFoundError as error:
            raise MissingImageError(f"there is no file {self.path / image.name}") from error


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder of an object store whose image objects are the pages, in the order of their names.

    The folder is named by the volume.
    """

    store: ByteStore
    volume: VolumeId

    def manifest(self) -> VolumeManifest:
        """List the image objects, with the entity tags that the store has."""
        images = []
        for item in self.store.list(str(self.volume)):
            name = item.key.partition("/")[2]
            if is_image_name(name) and not name.startswith("."):
                tag = (item.etag or synthetic_etag(item.key, str(item.size))).strip('"')
                images.append(ImageEntry(name, size=item.size, etag=tag))
        images.sort(key=lambda image: reading_order(image.name))
        return listed(self.volume, images, f"the folder {self.volume} of the store")

    def read(self, image: ImageEntry) -> bytes:
        """The bytes of an image."""
        check_file_size(image)
        return self.store.read_bytes(f"{self.volume}/{image.name}")


@dataclass(frozen=True, slots=True)
class ImageZip:
    """A zip file whose image members are the pages, in the order of their names."""

    path: Path
    volume: VolumeId

    def manifest(self) -> VolumeManifest:
        """List the image members; their entity tags are checksum and size.

        Raises:
            ManifestError: not a zip file, encrypted, or without images.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError) as error:
            raise ManifestError(f"{self.path} is no readable zip file: {error}") from error
        images = []
        for member in sorted(members, key=lambda member: reading_order(member.filename)):
            folder, _, name = member.filename.rpartition("/")
            if not is_image_name(name) or name.startswith(".") or "__MACOSX" in folder:
                continue
            if member.flag_bits & 1:
                raise ManifestError(f"{member.filename} in {self.path} is encrypted")
            tag = f"{member.CRC:08x}{member.file_size:08x}"
            images.append(ImageEntry(member.filename, size=member.file_size, etag=tag))
        return listed(self.volume, images, str(self.path))

    def read(self, image: ImageEntry) -> bytes:
        """The bytes of a member; raises :class:`MissingImageError` if it is gone."""
        check_file_size(image)
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(image.name)
        except KeyError as error:
            raise MissingImageError(f"there is no {image.name} in {self.path}") from error
