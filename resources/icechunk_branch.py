"""One branch of an Icechunk repository on our storage: open it, commit to it, move it.

Belongs here: how to reach a repository, safe commits by several writers, tags, and errors that name
place and mend. Does not belong here: what the repository holds.

Icechunk's local storage does not protect concurrent commits, so there a file lock lets one process
commit at a time; writing chunks needs no lock, because every chunk gets a new name. Object stores
protect commits by conditional writes.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import icechunk

from resources.keys import StorageError
from resources.locks import file_lock
from resources.storage import Storage

_COMMIT_TRIES = 30
_NO_SPACE = ("No space left on device", "File too large", "Disk quota exceeded")

# A chunk up to the threshold travels inside the manifest, so one read fetches a whole ledger.
_CONFIG = icechunk.RepositoryConfig(
    inline_chunk_threshold_bytes=4096,
    storage=icechunk.StorageSettings(
        retries=icechunk.StorageRetriesSettings(
            max_tries=6, initial_backoff_ms=200, max_backoff_ms=5_000
        )
    ),
)


class RegionStoreError(StorageError):
    """The store cannot be used as asked; the message names the mend."""


class NotInitializedError(RegionStoreError):
    """There is no repository, or no such branch, or it holds nothing yet."""


class IcechunkBranch:
    """A branch of the repository at a storage root."""

    def __init__(self, storage: Storage, branch: str) -> None:
        self.storage = storage
        self.branch = branch

    def _connect(self) -> icechunk.Storage:
        # Icechunk warns at every open that local commits are unsafe; the lock makes them safe.
        icechunk.set_logs_filter("error")
        if self.storage.is_local:
            return icechunk.local_filesystem_storage(self.storage.root)
        bucket, prefix = self.storage.bucket_and_prefix
        s3 = self.storage.s3
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix or None,
            region=s3.region,
            endpoint_url=s3.endpoint_url,
            allow_http=s3.allow_http,
            force_path_style=s3.endpoint_url is not None,
            anonymous=s3.anonymous or None,
            from_env=not s3.anonymous or None,
        )

    @cached_property
    def repository(self) -> icechunk.Repository:
        """The open repository; raises :class:`NotInitializedError` if there is none."""
        with self.explained("open"):
            try:
                return icechunk.Repository.open(self._connect(), config=_CONFIG)
            except icechunk.RepositoryNotFoundError as error:
                raise self.not_initialized() from error

    def not_initialized(self) -> NotInitializedError:
        """The error of a branch that holds nothing."""
        return NotInitializedError(
            f"there is no region store at {self.storage.root} on branch {self.branch!r}; "
            "initialise it from a template first"
        )

    def readonly(self, at: str | None = None) -> icechunk.Session:
        """A session on the head of the branch, or on a tag or snapshot id."""
        with self.explained("open"):
            try:
                if at is None:
                    return self.repository.readonly_session(branch=self.branch)
                if at in self.repository.list_tags():
                    return self.repository.readonly_session(tag=at)
                return self.repository.readonly_session(snapshot_id=at)
            except (icechunk.NotFoundError, icechunk.InvalidInputError) as error:
                if at is None:
                    raise self.not_initialized() from error
                raise RegionStoreError(
                    f"the store at {self.storage.root} has no tag or snapshot {at!r}"
                ) from error

    def writable(self) -> icechunk.Session:
        """A session that writes on top of the head of the branch."""
        with self.explained("open"):
            try:
                return self.repository.writable_session(self.branch)
            except icechunk.NotFoundError as error:
                raise self.not_initialized() from error

    def create(self, fill: Callable[[Any], None], kind: str) -> None:
        """Make the repository and the branch where missing, and let ``fill`` write the first state.

        ``fill`` gets the store of a session and is called only if no commit of that ``kind`` is on
        the branch. A crash at any point is completed by the next call.
        """
        with self.committing(), self.explained("create"):
            try:
                repository = icechunk.Repository.open_or_create(
                    self._connect(), config=_CONFIG, check_clean_root=False
                )
            except (icechunk.AlreadyExistsError, icechunk.ConflictError):
                repository = icechunk.Repository.open(self._connect(), config=_CONFIG)
            if self.branch not in repository.list_branches():
                first = list(repository.ancestry(branch="main"))[-1].id
                with suppress(icechunk.AlreadyExistsError):
                    repository.create_branch(self.branch, first)
            self.repository = repository
            if self.last_commit_of(kind) is None:
                session = repository.writable_session(self.branch)
                fill(session.store)
                # Another process that was faster made the same state, or one the caller refuses.
                with suppress(icechunk.ConflictError):
                    session.commit(f"Create {kind}", {"kind": kind})
            self._hold(kind)

    def _hold(self, kind: str) -> None:
        """Tag the commit of a kind, so that expiring the history does not lose it."""
        name = f"{kind}.{self.branch}"
        if name not in self.repository.list_tags() and (made := self.last_commit_of(kind)):
            with suppress(icechunk.AlreadyExistsError):
                self.repository.create_tag(name, made)

    def last_commit_of(self, kind: str) -> str | None:
        """Snapshot id of the last commit of a kind, or None."""
        if f"{kind}.{self.branch}" in self.repository.list_tags():
            return str(self.repository.lookup_tag(f"{kind}.{self.branch}"))
        for snapshot in self.repository.ancestry(branch=self.branch):
            if snapshot.metadata.get("kind") == kind:
                return snapshot.id
        return None

    def commit(self, session: icechunk.Session, message: str, metadata: dict[str, Any]) -> str:
        """Commit on top of whatever others committed meanwhile; return the snapshot id.

        Where another commit wrote a chunk that this session wrote as well, this session's is kept.

        Raises:
            RegionStoreError: the branch was moved meanwhile, or too many writers were faster.
            StorageError: the store failed. Nothing became visible in any of these cases.
        """
        metadata = {**metadata, "write_id": uuid.uuid4().hex}
        base = session.snapshot_id
        solver = icechunk.BasicConflictSolver(on_chunk_conflict=icechunk.VersionSelection.UseOurs)
        with self.committing(), self.explained("commit to"):
            for attempt in range(_COMMIT_TRIES):
                try:
                    return session.commit(message, metadata)
                except icechunk.ConflictError:
                    pause = min(0.02 * 2**attempt, 2.0)
                    time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                    self._require_on_branch(base)
                    session.rebase(solver)
                    base = session.snapshot_id
                except icechunk.StorageError:
                    # The answer may be lost although the commit arrived.
                    if landed := self._find(metadata["write_id"]):
                        return landed
                    raise
        raise RegionStoreError(
            f"other writers committed to {self.storage.root} first, {_COMMIT_TRIES} times in a "
            "row; nothing was written, run again with fewer writers at once"
        )

    def _require_on_branch(self, base: str) -> None:
        if all(commit.id != base for commit in self.repository.ancestry(branch=self.branch)):
            raise RegionStoreError(
                f"branch {self.branch!r} of {self.storage.root} was wiped while regions were being "
                "written; nothing of them was kept, run them again"
            )

    def _find(self, write_id: str) -> str | None:
        for snapshot in self.repository.ancestry(branch=self.branch):
            if snapshot.metadata.get("write_id") == write_id:
                return snapshot.id
        return None

    def tag(self, name: str, snapshot_id: str) -> None:
        """Give a snapshot a fixed name.

        Raises:
            RegionStoreError: the name stands for another snapshot already; tags never move.
        """
        with self.committing(), self.explained("tag"):
            try:
                self.repository.create_tag(name, snapshot_id)
            except icechunk.AlreadyExistsError as error:
                if self.repository.lookup_tag(name) != snapshot_id:
                    raise RegionStoreError(
                        f"tag {name!r} of the store at {self.storage.root} stands for another "
                        "snapshot; choose a new version"
                    ) from error

    def untag(self, names: Iterable[str]) -> None:
        """Remove tags; names without a tag are passed over. A removed tag is never made again."""
        with self.committing(), self.explained("untag"):
            for name in sorted(set(names) & self.repository.list_tags()):
                self.repository.delete_tag(name)

    def expire(self, older_than: datetime) -> int:
        """Forget the history before a time, and free what nothing refers to; bytes that freed.

        Heads of branches and tagged snapshots stay, whatever their age. Objects that are younger
        stay as well: a writer at work has not committed its own yet.
        """
        with self.committing(), self.explained("expire"):
            self.repository.expire_snapshots(older_than)
            return int(self.repository.garbage_collect(older_than).bytes_deleted)

    def committing(self) -> AbstractContextManager[None]:
        """Keep other processes of this machine from committing, where the store does not."""
        if not self.storage.is_local:
            return nullcontext()
        return file_lock(Path(f"{self.storage.root}.lock"))

    @contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn Icechunk's storage errors into ours, with the place and the mend."""
        try:
            yield
        except (icechunk.StorageError, OSError) as error:
            if any(text in str(error) for text in _NO_SPACE):
                raise StorageError(
                    f"no space left to {action} {self.storage.root}: nothing became visible; free "
                    "some space or choose another store, then run again"
                ) from error
            mend = "" if self.storage.is_local else "; check the endpoint, bucket and credentials"
            raise StorageError(
                f"cannot {action} {self.storage.root}: {str(error).strip().splitlines()[0]}{mend}"
            ) from error
