"""The region raster store: one Icechunk repository in which a region is whole or absent.

Belongs here: creating the store from a template, writing regions, the ledger of finished regions,
and read-only views. Does not belong here: which grid or variables there are, how a region is
computed, and whether an environment may be wiped.

A region is done if, and only if, the ledger holds an entry for it, and a region's pixels and its
ledger entry always arrive in the same commit. Files that belong to a region (its buildings) are
stored beforehand under content-addressed keys; the entry names them, so the commit makes raster
and files visible together.

Two writers of different regions both land: the later commit is rebased on the earlier one. Of two
writers of the same region the last commit wins as a whole, because every writer writes every chunk
of the region and its ledger cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from resources.icechunk_branch import IcechunkBranch, NotInitializedError, RegionStoreError
from resources.raster_template import (
    GridMismatchError,
    RasterTemplate,
    RegionSlices,
    create_arrays,
    geo_transform,
)
from resources.storage import Storage

__all__ = [
    "GridMismatchError",
    "InvalidRegionError",
    "NotInitializedError",
    "RasterTemplate",
    "RegionBatch",
    "RegionStore",
    "RegionStoreError",
    "RegionWrite",
]


class InvalidRegionError(ValueError):
    """A region that does not fit the store; nothing of it was written."""


@dataclass(frozen=True, slots=True)
class RegionWrite:
    """A finished region: float32 arrays over its window by variable, and its ledger entry."""

    arrays: Mapping[str, NDArray[np.float32]]
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a store was initialised with, as far as writing needs it."""

    step: float
    variables: tuple[str, ...]
    regions: dict[str, RegionSlices]
    ledger_row: dict[str, int]


class RegionStore:
    """The repository at a storage root, seen through one branch."""

    def __init__(self, storage: Storage, branch: str) -> None:
        self._branch = IcechunkBranch(storage, branch)

    @property
    def place(self) -> str:
        """Where the store is, for messages."""
        return f"{self._branch.storage.root} (branch {self._branch.branch})"

    @property
    def snapshot_id(self) -> str:
        """The snapshot at the head of the branch."""
        return self._branch.readonly().snapshot_id

    @property
    def regions(self) -> dict[str, RegionSlices]:
        """Row and column slices of every region the store can hold, in partition order."""
        return dict(self._layout.regions)

    @cached_property
    def _layout(self) -> _Layout:
        ledger = self._ledger(self._branch.readonly())
        ids = [str(region_id) for region_id in ledger["region_id"][:]]
        windows = ledger["window"][:].tolist()
        return _Layout(
            ledger.attrs["template"]["step"],
            tuple(ledger.attrs["template"]["variables"]),
            {
                region_id: (slice(south, north), slice(west, east))
                for region_id, (south, north, west, east) in zip(ids, windows, strict=True)
            },
            {region_id: row for row, region_id in enumerate(ids)},
        )

    def _ledger(self, session: icechunk.Session) -> Any:
        root = zarr.open_group(session.store, mode="r")
        if "ledger" not in root:
            raise self._branch.not_initialized()
        return root["ledger"]

    def initialize(self, template: RasterTemplate) -> str:
        """Create the repository, the branch and its empty variables; return the head snapshot.

        Does nothing if that was done before, and completes what a crash left half done.

        Raises:
            GridMismatchError: the branch was initialised with another template.
            StorageError: the store cannot be reached or written.
        """
        self._branch.create(
            lambda store: create_arrays(zarr.open_group(store, mode="a"), template), "template"
        )
        session = self._branch.readonly()
        template.require_match(self._ledger(session).attrs["template"], self.place)
        return session.snapshot_id

    def write(
        self, batch: Mapping[str, RegionWrite], metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Write regions with their ledger entries in one commit and return its snapshot id.

        ``metadata`` is added to the commit's own (kind and region ids).

        Raises:
            InvalidRegionError: a region does not fit; nothing was written.
            StorageError: the store failed; nothing became visible.
        """
        for region_id, region in batch.items():
            self.check(region_id, region)
        writer = RegionBatch(self, metadata or {})
        for region_id, region in batch.items():
            writer.add(region_id, region)
        return writer.commit()

    @contextmanager
    def open_batch(self, metadata: Mapping[str, Any] | None = None) -> Iterator[RegionBatch]:
        """A batch that takes one region at a time, so that memory never holds more than one.

        Leaving the context commits what was added since the last :meth:`RegionBatch.commit`;
        leaving it by an exception, or being killed, makes nothing of that visible.
        """
        batch = RegionBatch(self, metadata or {})
        yield batch
        batch.commit()

    def check(self, region_id: str, region: RegionWrite) -> None:
        """Raise :class:`InvalidRegionError` if a region does not fit the store."""
        rows, cols = self._require_region(region_id)
        variables = self._layout.variables
        if region.arrays.keys() != set(variables):
            missing = sorted(set(variables) - region.arrays.keys())
            unknown = sorted(region.arrays.keys() - set(variables))
            raise InvalidRegionError(
                f"region {region_id} must have the variables {', '.join(variables)}; "
                f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
            )
        expected = (rows.stop - rows.start, cols.stop - cols.start)
        for name, array in region.arrays.items():
            if array.shape != expected or array.dtype != np.float32:
                raise InvalidRegionError(
                    f"{name} of region {region_id} must be float32 of shape {expected}, found "
                    f"{array.dtype} of shape {array.shape}"
                )
        _encode(region_id, region.entry)

    def write_apart(self, region_id: str, region: RegionWrite) -> icechunk.ForkSession:
        """Write a region, its pixels and ledger entry, into a session that sees itself only.

        The session can be pickled, so that another process than the one that commits may write:
        :meth:`RegionBatch.merge` takes it in. Until then, nothing of it is visible.

        Raises:
            InvalidRegionError: the region does not fit; nothing was written.
            StorageError: the store failed.
        """
        self.check(region_id, region)
        session = self._branch.writable().fork()
        with self._branch.explained("write"):
            self._fill(self._arrays(session), region_id, region)
        return session

    def _arrays(self, session: icechunk.Session) -> dict[str, Any]:
        root: Any = zarr.open_group(session.store, mode="r+")
        # Every chunk is written, also an all-NaN one, so that a later commit replaces them all.
        return {
            name: root[name].with_config({"write_empty_chunks": True})
            for name in (*self._layout.variables, "ledger/entry")
        }

    def _fill(self, arrays: Mapping[str, Any], region_id: str, region: RegionWrite) -> None:
        layout = self._layout
        for name in layout.variables:
            arrays[name][layout.regions[region_id]] = region.arrays[name]
        entry = _encode(region_id, region.entry)
        arrays["ledger/entry"][layout.ledger_row[region_id]] = entry

    def _require_region(self, region_id: str) -> RegionSlices:
        regions = self._layout.regions
        if region_id not in regions:
            raise InvalidRegionError(
                f"the store at {self.place} has no region {region_id!r}; it holds "
                f"{len(regions)} regions, from {next(iter(regions))} to {next(reversed(regions))}"
            )
        return regions[region_id]

    def forget(self, region_ids: Iterable[str]) -> str:
        """Make regions undone: remove their ledger entries and pixels in one commit.

        Raises:
            InvalidRegionError: the store has no such region; nothing was changed.
        """
        windows = {region_id: self._require_region(region_id) for region_id in region_ids}
        session = self._branch.writable()
        with self._branch.explained("write"):
            root: Any = zarr.open_group(session.store, mode="r+")
            for region_id, window in windows.items():
                for name in self._layout.variables:
                    # An all-NaN chunk is dropped, as if it had never been written.
                    root[name].with_config({"write_empty_chunks": False})[window] = np.nan
                root["ledger/entry"][self._layout.ledger_row[region_id]] = ""
        message = f"Forget {_names(windows)}"
        return self._branch.commit(session, message, {"kind": "forget", "regions": list(windows)})

    def wipe(self) -> str:
        """Move the branch back to its empty template, in one step; return that snapshot id.

        Tags and other branches keep what they hold. A writer at work meanwhile gets an error.
        """
        template = self._branch.last_commit_of("template")
        if template is None:
            raise self._branch.not_initialized()
        with self._branch.committing(), self._branch.explained("wipe"):
            self._branch.repository.reset_branch(self._branch.branch, template)
        return template

    def tag(self, name: str, snapshot_id: str | None = None) -> str:
        """Give a snapshot (the branch's head by default) a fixed name; return the snapshot id.

        Raises:
            RegionStoreError: the name stands for another snapshot already; tags never move.
        """
        snapshot_id = snapshot_id or self.snapshot_id
        self._branch.tag(name, snapshot_id)
        return snapshot_id

    def untag(self, names: Iterable[str]) -> None:
        """Remove tags; names without a tag are passed over."""
        self._branch.untag(names)

    def expire(self, older_than: datetime) -> int:
        """Forget the history before a time and free its chunks; bytes that became free.

        The head of every branch and every tag keep all that they hold.
        """
        return self._branch.expire(older_than)

    def ledger(self, at: str | None = None) -> dict[str, dict[str, Any]]:
        """The entries of all finished regions, at the head or at a tag or snapshot."""
        with self._branch.explained("read"):
            ledger = self._ledger(self._branch.readonly(at))
            ids, entries = ledger["region_id"][:], ledger["entry"][:]
        return {
            str(region_id): json.loads(entry)
            for region_id, entry in zip(ids, entries, strict=True)
            if entry
        }

    def dataset(self, window: RegionSlices | None = None, at: str | None = None) -> xr.Dataset:
        """The variables, lazily, at the head or at a tag or snapshot.

        Dimensions ``latitude`` and ``longitude`` ascend; pixels of unfinished regions are NaN. The
        CRS is in the coordinate ``spatial_ref``.
        """
        with self._branch.explained("read"):
            session = self._branch.readonly(at)
            step = self._ledger(session).attrs["template"]["step"]
            dataset = xr.open_zarr(
                session.store, consolidated=False, zarr_format=3, chunks=None, decode_coords="all"
            )
        if window is None:
            return dataset
        dataset = dataset.isel(latitude=window[0], longitude=window[1])
        transform = geo_transform(dataset["latitude"].values, dataset["longitude"].values, step)
        spatial_ref = dataset["spatial_ref"].assign_attrs(GeoTransform=transform)
        return dataset.assign_coords(spatial_ref=spatial_ref)


class RegionBatch:
    """Regions on their way into one commit; made by :meth:`RegionStore.open_batch`."""

    def __init__(self, store: RegionStore, metadata: Mapping[str, Any]) -> None:
        self._store = store
        self._metadata = dict(metadata)
        self._session: icechunk.Session | None = None
        self._broken = False
        self.pending: list[str] = []
        """Ids of the regions added since the last commit."""

    def add(self, region_id: str, region: RegionWrite) -> None:
        """Write a region into the batch; it becomes visible with the next commit.

        Raises:
            InvalidRegionError: the region does not fit; the batch stays as it was.
            StorageError: the store failed in the middle; the batch can no longer be committed.
        """
        store = self._store
        store.check(region_id, region)
        session = self._open()
        self._broken = True
        with store._branch.explained("write"):
            store._fill(store._arrays(session), region_id, region)
        self._broken = False
        self.pending.append(region_id)

    def merge(self, region_id: str, written: icechunk.ForkSession) -> None:
        """Take in a region from :meth:`RegionStore.write_apart`, by whichever process.

        Raises:
            StorageError: the store failed; the batch can no longer be committed.
        """
        session = self._open()
        self._broken = True
        with self._store._branch.explained("write"):
            session.merge(written)
        self._broken = False
        self.pending.append(region_id)

    def _open(self) -> icechunk.Session:
        self._require_whole()
        if self._session is None:
            self._session = self._store._branch.writable()
        return self._session

    def commit(self) -> str:
        """Make the added regions visible, all at once; return the snapshot id.

        Raises:
            StorageError: the store failed, or a write failed before; nothing became visible.
        """
        self._require_whole()
        if self._session is None:
            return self._store.snapshot_id
        metadata = {**self._metadata, "kind": "regions", "regions": self.pending}
        self._broken = True
        snapshot_id = self._store._branch.commit(
            self._session, f"Write {_names(self.pending)}", metadata
        )
        self._session, self._broken, self.pending = None, False, []
        return snapshot_id

    def _require_whole(self) -> None:
        if self._broken:
            raise RegionStoreError(
                f"a write to {self._store.place} failed before, so this batch is dropped; run its "
                f"regions again: {', '.join(self.pending) or 'the one that failed'}"
            )


def _encode(region_id: str, entry: Mapping[str, Any]) -> str:
    if not entry:
        raise InvalidRegionError(f"the ledger entry of region {region_id} is empty")
    try:
        return json.dumps(dict(entry), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRegionError(
            f"the ledger entry of region {region_id} is not plain JSON: {error}"
        ) from error


def _names(region_ids: Iterable[str]) -> str:
    ids = list(region_ids)
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
