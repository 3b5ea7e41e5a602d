"""Where artefacts live: one root, a local folder or an S3 prefix, with the same behaviour.

Belongs here: keys, atomic writes of single objects, and the atomic publication of an artefact that
has many files. Does not belong here: what an artefact means, or which key it has.

A reader sees a whole object or none. On a local folder a file is written beside its final name,
flushed to the disk and then renamed; on S3 an object appears when its upload completes.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

import obstore
import pyarrow.fs
from obstore import exceptions
from obstore.store import LocalStore, S3Store
from pydantic import BaseModel, ConfigDict

from resources.atomic import write_atomic
from resources.keys import (
    InvalidKeyError,
    MissingObjectError,
    ObjectExistsError,
    StorageError,
    join_key,
)
from resources.locks import file_lock
from resources.manifest import MANIFEST_NAME, Manifest, describe_file

_BLOCK = 8 * 1024 * 1024
_UPLOADS_AT_ONCE = 8
_UPDATE_TRIES = 20
_LOST_RACES = (ObjectExistsError, exceptions.PreconditionError)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_S3_ROOT = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")


class S3Options(BaseModel):
    """How to reach S3. Credentials come from the standard ``AWS_*`` environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: str | None = None
    region: str = "us-east-1"
    anonymous: bool = False

    @property
    def allow_http(self) -> bool:
        """Plain HTTP is used only where the endpoint says so."""
        return (self.endpoint_url or "").startswith("http://")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object: its key under the storage root, size in bytes, and entity tag."""

    key: str
    size: int
    etag: str | None


@dataclass(frozen=True)
class Storage:
    """A root under which objects have keys: a local folder or ``s3://bucket/prefix``."""

    root: str
    s3: S3Options = field(default_factory=S3Options)

    def __post_init__(self) -> None:
        root = self.root.strip()
        if _S3_ROOT.fullmatch(root):
            bucket, _, prefix = root.removeprefix("s3://").rstrip("/").partition("/")
            root = f"s3://{bucket}/{join_key(prefix)}" if prefix else f"s3://{bucket}"
        elif "://" in root or not root:
            raise InvalidKeyError(
                f"{self.root!r} is not a storage root: give a folder like /data/ocr or "
                "s3://bucket/prefix"
            )
        else:
            root = str(Path(root).expanduser().absolute())
        object.__setattr__(self, "root", root)

    def __reduce__(self) -> tuple[Callable[..., Storage], tuple[str, S3Options]]:
        return Storage, (self.root, self.s3)

    @property
    def is_local(self) -> bool:
        """True for a folder, False for S3."""
        return not self.root.startswith("s3://")

    @property
    def bucket_and_prefix(self) -> tuple[str, str]:
        """The S3 bucket and the prefix in it (may be empty)."""
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return bucket, prefix

    @cached_property
    def object_store(self) -> LocalStore | S3Store:
        """The store below, for libraries that read from one."""
        if self.is_local:
            return LocalStore(self.root, automatic_cleanup=True, mkdir=True)
        bucket, prefix = self.bucket_and_prefix
        options: dict[str, Any] = {"endpoint": self.s3.endpoint_url} if self.s3.endpoint_url else {}
        return S3Store(
            bucket,
            prefix=prefix or None,
            region=self.s3.region,
            skip_signature=self.s3.anonymous,
            client_options={"allow_http": self.s3.allow_http, "timeout": timedelta(minutes=5)},
            retry_config={"max_retries": 6, "retry_timeout": timedelta(minutes=2)},
            **options,
        )

    def child(self, prefix: str) -> Storage:
        """The storage whose root is ``prefix`` under this one."""
        return Storage(f"{self.root}/{join_key(prefix)}", self.s3)

    def uri(self, key: str = "") -> str:
        """Path or ``s3://`` address of a key, or of the root."""
        return f"{self.root}/{join_key(key)}" if key else self.root

    def local_path(self, key: str) -> Path:
        """Path of a key on a local storage."""
        if not self.is_local:
            raise StorageError(f"{self.uri(key)} is not a local file; use local_copy")
        return Path(self.root, join_key(key))

    def head(self, key: str) -> ObjectInfo | None:
        """Size and entity tag of an object, or None if there is none."""
        key = join_key(key)
        try:
            with self._explained("look at", key):
                meta = obstore.head(self.object_store, key)
        except MissingObjectError:
            return None
        return ObjectInfo(key, meta["size"], meta["e_tag"])

    def exists(self, key: str) -> bool:
        """Whether there is an object under ``key``."""
        return self.head(key) is not None

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly in the folder ``prefix``, in order."""
        prefix = join_key(prefix) if prefix else ""
        with self._explained("list", prefix):
            found = obstore.list_with_delimiter(self.object_store, prefix or None)
            return sorted(path.rpartition("/")[2] for path in found["common_prefixes"])

    def files(self, prefix: str = "") -> list[ObjectInfo]:
        """The objects directly in the folder ``prefix``, in order of key."""
        prefix = join_key(prefix) if prefix else ""
        if self.is_local and not Path(self.root, prefix).is_dir():
            return []
        with self._explained("list", prefix):
            found = obstore.list_with_delimiter(self.object_store, prefix or None)["objects"]
        listed = [ObjectInfo(meta["path"], meta["size"], meta["e_tag"]) for meta in found]
        return sorted(listed, key=lambda info: info.key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects in the folder ``prefix`` and below, in order of key."""
        prefix = join_key(prefix) if prefix else ""
        if self.is_local and not Path(self.root, prefix).is_dir():
            return []
        with self._explained("list", prefix):
            found = [
                ObjectInfo(meta["path"], meta["size"], meta["e_tag"])
                for batch in obstore.list(self.object_store, prefix=prefix or None)
                for meta in batch
            ]
        return sorted(found, key=lambda info: info.key)

    def read_bytes(self, key: str) -> bytes:
        """The content of an object; raises :class:`MissingObjectError` if there is none."""
        return self._read(join_key(key))[0]

    def _read(self, key: str) -> tuple[bytes, str | None]:
        with self._explained("read", key):
            result = obstore.get(self.object_store, key)
            return bytes(result.bytes()), result.meta["e_tag"]

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes of an object from ``start`` on, or fewer at its end."""
        key = join_key(key)
        with self._explained("read", key):
            return bytes(obstore.get_range(self.object_store, key, start=start, length=length))

    def write_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Store ``data`` under ``key``, atomically.

        Raises:
            ObjectExistsError: with ``if_absent``, there is an object already. Of several writers
                at once at most one succeeds; after a lost answer the object may be the writer's
                own, so put a name of the writer into it and compare.
            StorageError: no space, no permission, or the store cannot be reached.
        """
        key = join_key(key)
        with self._explained("write", key):
            if self.is_local:
                write_atomic(
                    self.local_path(key), lambda file: file.write(data), if_absent=if_absent
                )
            else:
                mode: Any = "create" if if_absent else "overwrite"
                obstore.put(self.object_store, key, data, mode=mode, use_multipart=False)

    def update_bytes(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace an object by what ``change`` makes of its content (None if there is none).

        Nobody's update is lost: on S3 ``change`` is called again if another writer was faster.

        Raises:
            StorageError: other writers were faster again and again, or the store failed.
        """
        key = join_key(key)
        with self._updating(key):
            for attempt in range(_UPDATE_TRIES):
                try:
                    data, etag = self._read(key)
                except MissingObjectError:
                    data, etag = None, None
                try:
                    self._switch(key, change(data), etag)
                    return
                except StorageError as error:
                    lost = isinstance(error.__cause__, _LOST_RACES)
                    if not lost or attempt == _UPDATE_TRIES - 1:
                        raise

    def _updating(self, key: str) -> AbstractContextManager[None]:
        if not self.is_local:
            return nullcontext()
        return file_lock(Path(self.root, f"{key}#0"))

    def put_file(self, key: str, path: Path) -> None:
        """Store the file at ``path`` under ``key``, atomically; to S3 a large file goes in parts.

        Raises:
            StorageError: no space, no permission, or the store cannot be reached.
        """
        key = join_key(key)

        def copy(target: IO[bytes]) -> None:
            shutil.copyfileobj(source, target, _BLOCK)

        with path.open("rb") as source, self._explained("write", key):
            if self.is_local:
                write_atomic(self.local_path(key), copy, if_absent=False)
            else:
                obstore.put(
                    self.object_store, key, source, chunk_size=2 * _BLOCK, max_concurrency=4
                )

    def move(self, key: str, target: str) -> None:
        """Give an object another key; what is there is replaced.

        On S3 it is copied first, so that a crash leaves both.
        """
        key, target = join_key(key), join_key(target)
        with self._explained("move", key):
            obstore.rename(self.object_store, key, target)

    def delete(self, keys: str | Iterable[str]) -> None:
        """Delete objects; keys without an object are passed over."""
        checked = [join_key(key) for key in ([keys] if isinstance(keys, str) else keys)]
        if self.is_local:
            checked = [key for key in checked if self.exists(key)]
        if checked:
            with self._explained("delete", checked[0]):
                obstore.delete(self.object_store, checked)

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """A local file with the content of ``key``, for reading while the context is open.

        The file itself on a local storage, a temporary download from S3.
        """
        key = join_key(key)
        if self.is_local:
            path = self.local_path(key)
            if not path.is_file():
                raise MissingObjectError(f"there is no object at {self.uri(key)}")
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="ocr-") as folder:
            path = Path(folder, PurePosixPath(key).name)
            with self._explained("download", key), path.open("wb") as file:
                for block in obstore.get(self.object_store, key).stream(min_chunk_size=_BLOCK):
                    file.write(block)
            yield path

    def source(self, key: str) -> Path | pyarrow.NativeFile:
        """An object as the readers of Parquet take it: its path, or an open file on S3."""
        if self.is_local:
            return self.local_path(key)
        filesystem, base = self.arrow_filesystem()
        with self._explained("read", key):
            return filesystem.open_input_file(f"{base}/{join_key(key)}")

    def arrow_filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """A PyArrow filesystem, and the path of the root on it, for reading data sets."""
        if self.is_local:
            return pyarrow.fs.LocalFileSystem(), self.root
        options: dict[str, Any] = {}
        if self.s3.endpoint_url:
            scheme, _, host = self.s3.endpoint_url.rpartition("://")
            options = {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
        filesystem = pyarrow.fs.S3FileSystem(
            region=self.s3.region, anonymous=self.s3.anonymous, **options
        )
        return filesystem, self.root.removeprefix("s3://")

    def manifest(self, prefix: str) -> Manifest | None:
        """What is published under ``prefix``, or None if nothing is."""
        return self._manifest(join_key(prefix))[0]

    def _manifest(self, prefix: str) -> tuple[Manifest | None, str | None]:
        try:
            data, etag = self._read(f"{prefix}/{MANIFEST_NAME}")
        except MissingObjectError:
            return None, None
        return Manifest.from_bytes(prefix, data), etag

    def publish(
        self, prefix: str, files: Mapping[str, Path], metadata: Mapping[str, Any]
    ) -> Manifest:
        """Make ``files`` (logical name to local file) the whole content of ``prefix``, at once.

        Files go up under names that carry their content hash; files that are published already
        stay as they are. One atomic write of ``_manifest.json`` then switches readers over, and
        only after it the objects that the manifest does not name are deleted. A crash leaves the
        old state or the new one. ``metadata`` is the lineage, JSON-ready; equal files and metadata
        give equal bytes.

        Readers resolve names through :meth:`manifest`. A reader that keeps an old manifest reads
        every file that did not change; a changed or dropped file raises
        :class:`MissingObjectError`, never wrong content, and the reader takes the new manifest.

        Raises:
            InvalidKeyError: a bad name or prefix.
            StorageError: a file could not be stored, or somebody else published to the same
                prefix meanwhile; the published state is whole in both cases.
        """
        prefix = join_key(prefix)
        manifest = Manifest(
            prefix,
            tuple(describe_file(prefix, name, files[name]) for name in sorted(files)),
            json.loads(json.dumps(dict(metadata))),
        )
        manifest_key = f"{prefix}/{MANIFEST_NAME}"
        with self._updating(manifest_key):
            previous, etag = self._manifest(prefix)
            before = {info.key: info.size for info in self.list(prefix)}
            published = {file.key for file in previous.files} if previous else set()
            upload = [
                file
                for file in manifest.files
                if file.key not in published or before.get(file.key) != file.size
            ]
            with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
                list(pool.map(lambda file: self.put_file(file.key, files[file.name]), upload))
            if manifest != previous:
                self._switch(manifest_key, manifest.to_bytes(), etag)
            wanted = {file.key for file in manifest.files}
            self.delete(sorted(before.keys() - wanted - {manifest_key}))
            if lost := wanted - {info.key for info in self.list(prefix)}:
                raise StorageError(
                    f"{self.uri(min(lost))} vanished while it was published: another writer is "
                    "at work on this artefact; run one at a time, then publish again"
                )
        return manifest

    def _switch(self, key: str, data: bytes, etag: str | None) -> None:
        if self.is_local:
            self.write_bytes(key, data)
            return
        try:
            with self._explained("write", key):
                mode: Any = "create" if etag is None else {"e_tag": etag}
                obstore.put(self.object_store, key, data, mode=mode, use_multipart=False)
        except _LOST_RACES as error:
            raise StorageError(
                f"{self.uri(key)} was replaced by another writer meanwhile; its state is whole. "
                "Run one publication of an artefact at a time, then publish again"
            ) from error

    def check_conditional_put(self) -> None:
        """Refuse a store whose conditional writes do not hold: concurrent writers would lose data.

        Raises:
            StorageError: the store replaced an object that it was told not to replace.
        """
        key = f"conditional-put-check-{secrets.token_hex(8)}"
        self.write_bytes(key, b"first", if_absent=True)
        try:
            self.write_bytes(key, b"second", if_absent=True)
        except ObjectExistsError:
            pass
        else:
            raise StorageError(
                f"the store at {self.root} replaced an object in spite of 'If-None-Match: *', so "
                "concurrent writers would lose data; use a store with conditional writes"
            )
        finally:
            self.delete(key)

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn the errors of the layers below into one that names place and mend."""
        place = self.uri(key)
        try:
            yield
        except (FileExistsError, exceptions.AlreadyExistsError) as error:
            raise ObjectExistsError(f"there is an object at {place} already") from error
        except FileNotFoundError as error:
            if action == "write":
                raise StorageError(f"cannot write {place}: {_first_line(error)}") from error
            raise MissingObjectError(f"there is no object at {place}") from error
        except (
            PermissionError,
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
        ) as error:
            raise StorageError(
                f"not allowed to {action} {place}: check the permissions"
                + ("" if self.is_local else " and the AWS_* credentials")
            ) from error
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise StorageError(
                    f"no space left to {action} {place}: nothing was published; free some space "
                    "or choose another storage root, then run again"
                ) from error
            raise StorageError(f"cannot {action} {place}: {error}") from error
        except exceptions.PreconditionError:
            raise
        except exceptions.BaseError as error:
            raise StorageError(
                f"cannot {action} {place}: {_first_line(error)}; check the endpoint, the bucket "
                "and the AWS_* credentials"
            ) from error


def split_uri(uri: str, s3: S3Options) -> tuple[Storage, str]:
    """The storage of the folder that holds ``uri``, and the name in it."""
    if "://" in uri:
        folder, _, name = uri.rstrip("/").rpartition("/")
        return Storage(folder, s3), name
    path = Path(uri).expanduser().absolute()
    return Storage(str(path.parent), s3), path.name


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
