"""Whether the images of volumes at their source are those that were listed.

Belongs here: the entity tag that a volume's list of images would have now, as cheaply as its source
allows. Does not belong here: the list itself, and who wants to know.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.archive import (
    MANIFEST_NAME,
    ArchiveVolume,
    ManifestError,
    VolumeId,
    etag_digest,
    image_folder,
    synthetic_etag,
)
from ocr_assets.volumes.local_volumes import StoredFolder
from resources.keys import MissingObjectError


@dataclass
class VolumeSources:
    """Tells the entity tags of sources; of local files it hashes only those that changed."""

    library: VolumeLibrary
    _known: dict[VolumeId, tuple[str, str]] = field(default_factory=dict)

    def etag(self, volume: VolumeId) -> str:
        """Entity tag of the list of a volume's images, as its manifest would have it now.

        Raises:
            ManifestError: there is no such volume, or it has no images.
            StorageError: the source cannot be reached.
        """
        source = self.library.source(volume)
        if isinstance(source, ArchiveVolume):
            return _archive_etag(source)
        if isinstance(source, StoredFolder):  # the store tells the tags with the list
            return source.manifest().etag
        place: Path = source.path  # type: ignore[attr-defined]  # all others are local
        state = _state(place)
        known = self._known.get(volume)
        if known is None or known[0] != state:
            known = state, source.manifest().etag
            self._known[volume] = known
        return known[1]

    def listed_etag(self, volume: VolumeId) -> str | None:
        """Entity tag of the list that is stored; None if there is none."""
        try:
            return self.library.manifest(volume).etag
        except MissingObjectError:
            return None


def _archive_etag(source: ArchiveVolume) -> str:
    key = f"{image_folder(source.volume)}/{MANIFEST_NAME}"
    found = source.store.head(key)
    if found is None:
        raise ManifestError(f"volume {source.volume} has no manifest: there is no object {key}")
    etag = etag_digest(found.etag or "")
    if re.fullmatch(r"[0-9a-f]{32}", etag):
        return etag
    return hashlib.md5(source.store.read_bytes(key), usedforsecurity=False).hexdigest()


def _state(place: Path) -> str:
    """What tells that local files were not touched since: names, sizes and times."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    parts = []
    for file in files:
        found = file.stat()
        parts.append(f"{file.name}:{found.st_size}:{found.st_mtime_ns}")
    return synthetic_etag(*parts)
