"""A volume of the scan archive: its ids, its folder, its manifest, its images and their versions.

Belongs here: naming and listing the images of a volume, and reading their bytes through a byte
store that the caller hands in. Does not belong here: how the store is reached, and decoding.

A volume is an image group ``I…`` of a scan set ``W…``. Its folder holds the images and
``dimensions.json``, a gzip-compressed JSON array of ``{filename, width, height, size?}`` in reading
order. The version of a volume comes from the entity tag of that file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

MANIFEST_NAME = "dimensions.json"

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "tif", "tiff", "jp2", "j2k", "jpx"})
"""Suffixes of the files that are taken for images, in lower case."""

MAX_MANIFEST_BYTES = 64 * 2**20
"""Decompressed size beyond which a manifest is refused."""

MAX_IMAGE_BYTES = 512 * 2**20
"""File size beyond which an image is not read."""

_W_ID = re.compile(r"W[0-9A-Z]{1,31}")
_I_ID = re.compile(r"I[0-9A-Z_]{1,31}")
_LEGACY_I_ID = re.compile(r"I\d{4}")
_MD5 = re.compile(r"[0-9a-f]{32}")


class InvalidVolumeIdError(ValueError):
    """Text that names no volume."""


class ManifestError(ValueError):
    """A manifest that is missing, cannot be read, or names no image."""


class MissingImageError(RuntimeError):
    """The manifest names an image that the store does not have."""


@dataclass(frozen=True, slots=True, order=True)
class VolumeId:
    """A volume: image group ``i_id`` of scan set ``w_id``."""

    w_id: str
    i_id: str

    def __post_init__(self) -> None:
        if not (_W_ID.fullmatch(self.w_id) and _I_ID.fullmatch(self.i_id)):
            raise InvalidVolumeIdError(
                f"{self.w_id!r}, {self.i_id!r} are no volume: the first must be W and then digits "
                "or capitals, the second I and then digits, capitals or _, as in W22084-I0886"
            )

    @classmethod
    def parse(cls, text: str) -> VolumeId:
        """The volume of ``W…-I…``; a comma, a slash or blanks may stand for the hyphen.

        Raises:
            InvalidVolumeIdError: the text is not of this form.
        """
        parts = re.split(r"\s*[-,/]\s*|\s+", text.strip(), maxsplit=1)
        if len(parts) != 2:
            raise InvalidVolumeIdError(
                f"{text!r} names no volume: give scan set and image group, as in W22084-I0886"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.w_id}-{self.i_id}"


def image_folder(volume: VolumeId) -> str:
    """Key of a volume's folder in the archive, without a closing slash.

    An image group of I and four digits is written without its I there.
    """
    shard = hashlib.md5(volume.w_id.encode(), usedforsecurity=False).hexdigest()[:2]
    legacy = _LEGACY_I_ID.fullmatch(volume.i_id)
    suffix = volume.i_id[1:] if legacy else volume.i_id
    return f"Works/{shard}/{volume.w_id}/images/{volume.w_id}-{suffix}"


def version_name(etag: str) -> str:
    """Version of a volume: the first six hexadecimal digits of its manifest's entity tag.

    Raises:
        ValueError: the tag, without quotes and part count, does not begin with such digits.
    """
    digest = etag_digest(etag)
    if not re.match(r"[0-9a-f]{6}", digest):
        raise ValueError(f"entity tag {etag!r} does not begin with six hexadecimal digits")
    return digest[:6]


def etag_digest(etag: str) -> str:
    """An entity tag without weakness mark, quotes and part count, in lower case."""
    return etag.removeprefix("W/").strip('"').partition("-")[0].lower()


def synthetic_etag(*parts: str) -> str:
    """Entity tag, 32 hexadecimal digits, of something that has none: MD5 of its joined parts."""
    return hashlib.md5("|".join(parts).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image of a volume, as its manifest and the store's listing have it.

    ``width``, ``height`` (pixels) and ``size`` (bytes) are None where nobody tells. ``etag`` is
    None for an image that the manifest names and the store lacks.
    """

    name: str
    width: int | None = None
    height: int | None = None
    size: int | None = None
    etag: str | None = None

    def disagreement(self, width: int, height: int) -> str | None:
        """What the manifest says wrongly of an image of this size, or None. The image is right."""
        if (
            self.width is None
            or self.height is None
            or (self.width, self.height) == (width, height)
        ):
            return None
        return f"the manifest says {self.width} x {self.height}, the image has {width} x {height}"


@dataclass(frozen=True, slots=True)
class VolumeManifest:
    """The images of a volume in reading order, its version, and what was wrong with its list."""

    volume: VolumeId
    version: str
    etag: str
    images: tuple[ImageEntry, ...]
    remarks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the volume at this version: ``{w_id}-{i_id}-{version}``."""
        return f"{self.volume}-{self.version}"


class VolumeSource(Protocol):
    """Where the images of one volume come from."""

    def manifest(self) -> VolumeManifest:
        """List the images."""

    def read(self, image: ImageEntry) -> bytes:
        """The bytes of an image file."""


class StoredObject(Protocol):
    """What a byte store tells of an object."""

    @property
    def key(self) -> str:
        """Key under the store's root."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def etag(self) -> str | None:
        """Entity tag."""


class ByteStore(Protocol):
    """A store of objects under keys, such as a bucket or a folder."""

    def head(self, key: str) -> StoredObject | None:
        """What the store knows of an object, or None if there is none."""

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """The objects under a prefix."""

    def read_bytes(self, key: str) -> bytes:
        """The content of an object."""


@dataclass(frozen=True, slots=True)
class ArchiveVolume:
    """A :class:`VolumeSource`: a volume of an archive in ``store``."""

    store: ByteStore
    volume: VolumeId

    def manifest(self) -> VolumeManifest:
        """List the images by the volume's manifest, with the entity tags that the store has.

        Raises:
            ManifestError: there is no manifest, or it cannot be used.
        """
        folder = image_folder(self.volume)
        key = f"{folder}/{MANIFEST_NAME}"
        described = self.store.head(key)
        if described is None:
            raise ManifestError(
                f"volume {self.volume} has no manifest: there is no object {key}; check the id, "
                "and that the store is the archive's"
            )
        data = self.store.read_bytes(key)
        images, remarks = parse_manifest(data, str(self.volume))
        etag = etag_digest(described.etag or "")
        if not _MD5.fullmatch(etag):
            # The tag that S3 gives to an object of one part, for stores with tags of other kinds.
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        stored = {item.key.rpartition("/")[2]: item for item in self.store.list(folder)}
        found = []
        for image in images:
            item = stored.get(image.name)
            if item is None:
                remarks.append(f"{image.name}: named by the manifest, missing in the store")
                found.append(image)
                continue
            if image.size is not None and image.size != item.size:
                remarks.append(
                    f"{image.name}: the manifest says {image.size} bytes, there are {item.size}"
                )
            tag = (item.etag or synthetic_etag(item.key, str(item.size))).strip('"')
            found.append(replace(image, size=item.size, etag=tag))
        return VolumeManifest(self.volume, version_name(etag), etag, tuple(found), tuple(remarks))

    def read(self, image: ImageEntry) -> bytes:
        """The bytes of an image.

        Raises:
            MissingImageError: the store lacks it.
            ValueError: it is larger than :data:`MAX_IMAGE_BYTES`.
        """
        if image.etag is None:
            raise MissingImageError(
                f"{image.name} is named by the manifest of {self.volume} but is not in the store"
            )
        check_file_size(image)
        return self.store.read_bytes(f"{image_folder(self.volume)}/{image.name}")


def check_file_size(image: ImageEntry) -> None:
    """Raise ValueError for a file larger than :data:`MAX_IMAGE_BYTES`."""
    if image.size is not None and image.size > MAX_IMAGE_BYTES:
        raise ValueError(
            f"{image.name} has {image.size:,} bytes; files of more than {MAX_IMAGE_BYTES:,} are "
            "not read: split it"
        )


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image: no folder, and a suffix of an image format."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and "/" not in name and suffix.lower() in IMAGE_SUFFIXES


def parse_manifest(data: bytes, volume: str) -> tuple[list[ImageEntry], list[str]]:
    """Images of a manifest in its order, and remarks on the entries that were passed over.

    Entries that are no images are dropped; of entries with one name the first is kept. Data that is
    not compressed is taken as it is, because some clients decompress on the way.

    Raises:
        ManifestError: not gzip or JSON, too large, not an array, or without any image.
    """
    entries = _json_array(data, volume)
    images: dict[str, ImageEntry] = {}
    remarks = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_image_name(name):
            remarks.append(f"entry {number} of the manifest names no image: {str(entry)[:80]}")
        elif name in images:
            remarks.append(f"{name}: named again by entry {number}; the first one counts")
        else:
            width, height = _positive(entry.get("width")), _positive(entry.get("height"))
            if width is None or height is None:
                remarks.append(f"{name}: the manifest gives no width and height")
                width = height = None
            images[name] = ImageEntry(name, width, height, _positive(entry.get("size")))
    if not images:
        raise ManifestError(f"the manifest of {volume} names no image in {len(entries)} entries")
    return list(images.values()), remarks


def _json_array(data: bytes, volume: str) -> list[Any]:
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(
                f"the manifest of {volume} has more than {MAX_MANIFEST_BYTES:,} bytes"
            )
        entries = json.loads(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"the manifest of {volume} is damaged gzip: {error}") from error
    except ValueError as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"the manifest of {volume} is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise ManifestError(
            f"the manifest of {volume} is not a JSON array but {type(entries).__name__}"
        )
    return entries


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def distinct(volumes: Iterable[VolumeId]) -> list[VolumeId]:
    """The volumes in their order, each once."""
    return list(dict.fromkeys(volumes))
