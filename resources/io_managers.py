"""Persistence of artefacts that assets return: one IO manager for each kind of artefact.

Belongs here: where a value is stored, atomically and with its lineage, and how it is loaded back.
Does not belong here: region rasters and their buildings, which have to become visible together
and are written by :class:`resources.icechunk_store.RegionStore`.

Assets return an :class:`Artefact`: local files in a scratch folder, and how they came to be.
Downstream assets receive a :class:`StoredFile` or :class:`StoredTable`, never a path of their own.
"""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow
import pyarrow.fs

from resources.keys import MissingObjectError
from resources.manifest import Manifest, sha256_bytes, sha256_file
from resources.storage import Storage

KEY = "ocr/key"
"""Definition metadata of an asset: the key of its artefact under the root of its IO manager."""


@dataclass(frozen=True)
class Artefact:
    """Files made by an asset. A single file has the empty name; metadata is shown in the UI."""

    files: Mapping[str, Path]
    lineage: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def single(
        cls, path: Path, lineage: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> Artefact:
        """An artefact of one file."""
        return cls({"": path}, lineage, metadata or {})


@dataclass(frozen=True)
class Stored:
    """An artefact that its IO manager has stored, in this process or a worker's: what to tell."""

    uri: str
    size: int
    lineage: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class StoredFile:
    """A stored artefact of one file, and the hash of its content."""

    storage: Storage
    key: str
    fingerprint: str

    def source(self) -> Path | pyarrow.NativeFile:
        """The file for readers of Parquet."""
        return self.storage.source(self.key)


@dataclass(frozen=True)
class StoredTable:
    """A stored table of many GeoParquet files, in hive partitions."""

    storage: Storage
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all files."""
        return sha256_bytes(json.dumps([file.sha256 for file in self.manifest.files]).encode())

    def sources(self) -> list[Path | pyarrow.NativeFile]:
        """The files for readers of Parquet, in order of name."""
        return [self.storage.source(file.key) for file in self.manifest.files]

    def places(self) -> tuple[list[str], str, pyarrow.fs.FileSystem]:
        """Paths of the files, the path of the folder they are in, and the filesystem of both."""
        filesystem, base = self.storage.arrow_filesystem()
        paths = [f"{base}/{file.key}" for file in self.manifest.files]
        return paths, f"{base}/{self.manifest.prefix}", filesystem


class StorageIOManager(dg.IOManager):
    """Stores below a root, which may refuse: ``require_open`` raises where nothing may change."""

    def __init__(self, storage: Storage, require_open: Callable[[], None] = lambda: None) -> None:
        self._storage = storage
        self._require_open = require_open

    @abstractmethod
    def store(self, key: str, artefact: Artefact) -> Stored:
        """Store an artefact under a key, atomically, where it is: also on a worker."""

    def handle_output(self, context: dg.OutputContext, obj: Artefact | Stored) -> None:
        """Store an artefact that is not stored yet, free the scratch space, show it in the UI."""
        if isinstance(obj, Artefact):
            stored = self.store(str(context.definition_metadata[KEY]), obj)
            for path in obj.files.values():
                path.unlink()
        else:
            stored = obj
        context.add_output_metadata(
            {
                **stored.metadata,
                "bytes": stored.size,
                "path": dg.MetadataValue.path(stored.uri),
                "lineage": dict(stored.lineage),
            }
        )


class FileIOManager(StorageIOManager):
    """One file under a fixed key, its lineage and hash beside it in ``<key>.lineage.json``."""

    def store(self, key: str, artefact: Artefact) -> Stored:
        """Store the file, then what it is."""
        self._require_open()
        path = artefact.files[""]
        digest = sha256_file(path)
        record = {"sha256": digest, **artefact.lineage}
        self._storage.put_file(key, path)
        self._storage.write_bytes(_record_key(key), _json(record))
        return _stored(artefact, self._storage.uri(key), {"sha256": digest})

    def load_input(self, context: dg.InputContext) -> StoredFile:
        """The stored file; raises MissingObjectError if the asset was never materialized."""
        key = _upstream_key(context)
        record = _read_record(self._storage, key, _record_key(key), context)
        return StoredFile(self._storage, key, record["sha256"])


class FilesIOManager(StorageIOManager):
    """A few files with fixed names in a folder, each replaced atomically, for readers of any kind.

    ``<key>.lineage.json`` beside the folder is written last: it has the hash of each file, and of
    all of them together.
    """

    def store(self, key: str, artefact: Artefact) -> Stored:
        """Store the files, then what they are; delete files that are not among them."""
        self._require_open()
        hashes = {name: sha256_file(path) for name, path in sorted(artefact.files.items())}
        digest = sha256_bytes(json.dumps(hashes).encode())
        before = {info.key for info in self._storage.list(key)}
        for name, path in artefact.files.items():
            self._storage.put_file(f"{key}/{name}", path)
        record = {"sha256": digest, "files": hashes, **artefact.lineage}
        self._storage.write_bytes(_record_key(key), _json(record))
        self._storage.delete(before - {f"{key}/{name}" for name in hashes})
        return _stored(artefact, self._storage.uri(key), {"sha256": digest, "files": list(hashes)})

    def load_input(self, context: dg.InputContext) -> Storage:
        """The folder; raises MissingObjectError if there is none."""
        key = _upstream_key(context)
        _read_record(self._storage, key, _record_key(key), context)
        return self._storage.child(key)


class TableIOManager(StorageIOManager):
    """Many GeoParquet files published at once: stale partitions disappear on rewrite."""

    def store(self, key: str, artefact: Artefact) -> Stored:
        """Publish the files."""
        self._require_open()
        self._storage.publish(key, artefact.files, artefact.lineage)
        return _stored(artefact, self._storage.uri(key), {"files": len(artefact.files)})

    def load_input(self, context: dg.InputContext) -> StoredTable:
        """The published table; raises MissingObjectError if there is none."""
        key = _upstream_key(context)
        manifest = self._storage.manifest(key)
        if manifest is None:
            raise _missing(self._storage, key, context)
        return StoredTable(self._storage, manifest)


class FolderIOManager(StorageIOManager):
    """A folder whose file names matter, like a Zarr store.

    Each content has a folder of its own, named by its hash; ``current.json`` names the one that
    holds and is replaced in one write, so a reader that follows it never sees two mixed.
    """

    def store(self, key: str, artefact: Artefact) -> Stored:
        """Store the files in a fresh folder, switch over, delete the folder before it."""
        self._require_open()
        hashes = {name: sha256_file(path) for name, path in sorted(artefact.files.items())}
        digest = sha256_bytes(json.dumps(hashes).encode())
        folder = f"{key}/{digest[:16]}.zarr"
        before = {info.key for info in self._storage.list(key)}
        for name, path in artefact.files.items():
            self._storage.put_file(f"{folder}/{name}", path)
        pointer = f"{key}/current.json"
        self._storage.write_bytes(pointer, _json({"folder": folder, **artefact.lineage}))
        self._storage.delete(
            old for old in before if old != pointer and not old.startswith(f"{folder}/")
        )
        return _stored(artefact, self._storage.uri(folder), {"sha256": digest})

    def load_input(self, context: dg.InputContext) -> Storage:
        """The folder that holds; raises MissingObjectError if there is none."""
        key = _upstream_key(context)
        pointer = _read_record(self._storage, key, f"{key}/current.json", context)
        return self._storage.child(pointer["folder"])


def _upstream_key(context: dg.InputContext) -> str:
    if context.upstream_output is None:
        raise TypeError(f"{context.name} is not the output of an asset")
    return str(context.upstream_output.definition_metadata[KEY])


def _read_record(
    storage: Storage, key: str, record_key: str, context: dg.InputContext
) -> dict[str, Any]:
    """The record that is written once an artefact is stored."""
    try:
        return dict(json.loads(storage.read_bytes(record_key)))
    except MissingObjectError:
        raise _missing(storage, key, context) from None


def _missing(storage: Storage, key: str, context: dg.InputContext) -> MissingObjectError:
    return MissingObjectError(
        f"nothing is stored at {storage.uri(key)}: "
        f"materialize {context.asset_key.to_user_string()} first"
    )


def _record_key(key: str) -> str:
    return f"{key}.lineage.json"


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def _stored(artefact: Artefact, uri: str, more: Mapping[str, Any]) -> Stored:
    size = sum(path.stat().st_size for path in artefact.files.values())
    return Stored(uri, size, dict(artefact.lineage), {**artefact.metadata, **more})


def store_made(
    manager: StorageIOManager, products: Mapping[str, Callable[[Path], Artefact]], key: str
) -> Stored:
    """Make the product with a key in a folder of its own and store it: a piece for a cluster."""
    with tempfile.TemporaryDirectory(prefix="ocr-artefact-") as folder:
        return manager.store(key, products[key](Path(folder)))
