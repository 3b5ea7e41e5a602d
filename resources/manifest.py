"""The manifest of a published artefact: which files it has, what they hold, how they came to be.

Belongs here: the manifest's form, content hashes and content-addressed names. Does not belong
here: any access to a store.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resources.keys import InvalidKeyError, StorageError, join_key

MANIFEST_NAME = "_manifest.json"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A published file: its logical name, the key that holds it, bytes, and content hash."""

    name: str
    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The published state of an artefact: its files in order of name, and its lineage."""

    prefix: str
    files: tuple[ManifestFile, ...]
    metadata: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The stored form: JSON with keys relative to the prefix, equal for equal manifests."""
        files = [
            {
                "name": file.name,
                "object": file.key.removeprefix(f"{self.prefix}/"),
                "size": file.size,
                "sha256": file.sha256,
            }
            for file in self.files
        ]
        document = {"format": 1, "metadata": self.metadata, "files": files}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, prefix: str, data: bytes) -> Manifest:
        """Read :meth:`to_bytes` back; anything else raises :class:`StorageError`."""
        try:
            document = json.loads(data)
            if document["format"] != 1:
                raise ValueError(f"format {document['format']!r} is not 1")
            files = tuple(
                ManifestFile(
                    file["name"], join_key(prefix, file["object"]), file["size"], file["sha256"]
                )
                for file in document["files"]
            )
            return cls(prefix, files, dict(document["metadata"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{prefix}/{MANIFEST_NAME} is not a manifest ({error}); publish the artefact again"
            ) from error


def sha256_bytes(data: bytes) -> str:
    """Content hash in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Content hash of a file in hexadecimal digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_addressed(name: str, sha256: str) -> str:
    """``a/part-0.parquet`` as ``a/part-0-<16 digits of the hash>.parquet``."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{sha256[:16]}{path.suffix}"))


def describe_file(prefix: str, name: str, path: Path) -> ManifestFile:
    """The manifest's record of a local file that goes under ``name`` below ``prefix``."""
    name = join_key(name)
    if name == MANIFEST_NAME:
        raise InvalidKeyError(f"{name!r} is the name of the manifest itself; choose another")
    digest = sha256_file(path)
    key = join_key(prefix, content_addressed(name, digest))
    return ManifestFile(name, key, path.stat().st_size, digest)
