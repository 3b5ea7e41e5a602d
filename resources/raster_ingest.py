"""Input rasters on their way into an Icechunk repository, chunk by chunk.

Belongs here: the stored form of an input raster, writing it piece by piece so that a killed run
goes on, and showing it to readers all at once. Does not belong here: what the values are.

A raster is written on a branch of its own, named by what it is made from, a commit for each piece.
When all pieces are there ``main`` moves to the end of that branch in one step. Readers of ``main``
see the raster before or the new one, never a part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import icechunk
import numpy as np
import pyproj
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from resources.icechunk_branch import IcechunkBranch, NotInitializedError
from resources.storage import Storage

Piece = tuple[slice, slice]
"""Row and column slices of whole chunks, half-open, without a step."""

_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)
_COORDINATES = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=8)


@dataclass(frozen=True)
class RasterForm:
    """The stored form of an input raster: float32 variables over two axes.

    Attributes:
        axes: name and cell centres of rows and columns: ``y``, ``x`` or ``latitude``,
            ``longitude``.
        crs: coordinate system of the centres, anything pyproj reads.
        chunks: rows and columns of a chunk.
        variables: attributes of each variable.
        attributes: of the whole, JSON-ready.
    """

    axes: tuple[tuple[str, NDArray[np.float64]], tuple[str, NDArray[np.float64]]]
    crs: str
    chunks: tuple[int, int]
    variables: Mapping[str, Mapping[str, Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.axes[0][1].size, self.axes[1][1].size

    @property
    def digest(self) -> str:
        """Hash of the form: equal forms have equal digests."""
        told = [self.crs, list(self.chunks), dict(self.variables), dict(self.attributes)]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name, centres in self.axes:
            digest.update(name.encode() + centres.tobytes())
        return digest.hexdigest()

    def create(self, store: Any) -> None:
        """Write the arrays and coordinates into an empty store; no values yet."""
        root = zarr.open_group(store, mode="w", attributes=dict(self.attributes))
        names = tuple(name for name, _ in self.axes)
        for name, attributes in self.variables.items():
            root.create_array(
                name,
                shape=self.shape,
                chunks=tuple(min(pair) for pair in zip(self.chunks, self.shape, strict=True)),
                dtype="float32",
                fill_value=np.nan,
                compressors=[_CODEC],
                dimension_names=names,
                attributes={**attributes, "grid_mapping": "spatial_ref"},
            )
        for name, centres in self.axes:
            root.create_array(
                name,
                data=centres,
                chunks=centres.shape,
                compressors=[_COORDINATES],
                dimension_names=(name,),
            )
        root.create_array(
            "spatial_ref",
            shape=(),
            dtype="int64",
            fill_value=0,
            attributes=pyproj.CRS.from_user_input(self.crs).to_cf(),
        )


@dataclass
class VariableSummary:
    """Range of a variable and how many of its cells have a value."""

    minimum: float | None = None
    maximum: float | None = None
    valid: int = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values in."""
        count = int(np.count_nonzero(~np.isnan(values)))
        if not count:
            return
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        self.minimum = low if self.minimum is None else min(low, self.minimum)
        self.maximum = high if self.maximum is None else max(high, self.maximum)
        self.valid += count


@dataclass(frozen=True)
class RasterWritten:
    """What was written.

    Attributes:
        snapshot: that readers see now.
        pieces: all pieces; ``written`` of them by this call, the others before.
        variables: range and number of valid cells of each variable.
        skipped: the raster was there already.
    """

    snapshot: str
    pieces: int
    written: int
    variables: Mapping[str, VariableSummary]
    skipped: bool


ReadPiece = Callable[[Piece], Iterable[tuple[str, NDArray[np.float32]]]]
"""Gives the variables of a piece one after the other, so that one is in memory at a time; none for
a piece without any value."""


def ingest_raster(
    storage: Storage,
    form: RasterForm,
    pieces: Sequence[Piece],
    read: ReadPiece,
    lineage: Mapping[str, Any],
    *,
    verify: Callable[[Mapping[str, VariableSummary]], None] = lambda _: None,
    advance: Callable[[str], None] = lambda _: None,
) -> RasterWritten:
    """Write a raster into the repository at ``storage`` and show it on ``main`` when it is whole.

    Pieces that an earlier, broken-off call with the same form and lineage wrote are not read
    again; a raster that is whole already is left alone.

    Args:
        storage: root of the repository.
        form: arrays to write into.
        pieces: disjoint and made of whole chunks.
        read: see :data:`ReadPiece`.
        lineage: how the raster comes to be, JSON-ready.
        verify: is given the summary of all variables before readers see them; raises to refuse.
        advance: is called with the name of each finished piece.

    Raises:
        resources.keys.StorageError: the store failed; ``main`` is as it was.
    """
    recipe = _recipe(form.digest, lineage)
    main, head = _main(storage)
    if head.metadata.get("recipe") == recipe:
        summary = _summaries(head.metadata["variables"])
        return RasterWritten(head.id, len(pieces), 0, summary, skipped=True)
    work = _begin(main, form, f"ingest-{recipe}")
    done = dict(_pieces(work))
    variables = {name: VariableSummary() for name in form.variables}
    written = 0
    for piece in pieces:
        name = piece_name(piece)
        if name not in done:
            done[name] = _write(work, piece, name, read(piece))
            written += 1
        for variable, part in done[name].items():
            _merge(variables[variable], part)
        advance(name)
    verify(variables)
    told = {name: asdict(summary) for name, summary in variables.items()}
    session = work.writable()
    root = zarr.open_group(session.store, mode="r+")
    root.attrs["lineage"] = dict(lineage)
    snapshot = work.commit(
        session, "All pieces are there", {"kind": "whole", "recipe": recipe, "variables": told}
    )
    with main.committing(), main.explained("publish"):
        main.repository.reset_branch("main", snapshot)
        main.repository.delete_branch(work.branch)
    return RasterWritten(snapshot, len(pieces), written, variables, skipped=False)


def is_published(storage: Storage, lineage: Mapping[str, Any]) -> bool:
    """Whether readers see what :func:`publish_dataset` wrote with this lineage."""
    return bool(_main(storage)[1].metadata.get("recipe") == _recipe("dataset", lineage))


def publish_dataset(storage: Storage, dataset: xr.Dataset, lineage: Mapping[str, Any]) -> str:
    """Write a raster that fits into memory in one commit; return the snapshot id.

    Readers see what was there before or the new one.
    """
    main, _ = _main(storage)
    session = main.writable()
    with main.explained("write"):
        # How the values were stored where they come from does not hold here.
        told = dataset.drop_encoding().assign_attrs(lineage=dict(lineage))
        told.to_zarr(session.store, zarr_format=3, consolidated=False, mode="w")
    return main.commit(
        session, "A whole raster", {"kind": "whole", "recipe": _recipe("dataset", lineage)}
    )


def _recipe(form: str, lineage: Mapping[str, Any]) -> str:
    told = json.dumps([form, dict(lineage)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _main(storage: Storage) -> tuple[IcechunkBranch, icechunk.SnapshotInfo]:
    """The branch that readers see, made if it is not there, and its head."""
    main = IcechunkBranch(storage, "main")
    main.create(_empty, "empty")
    return main, next(iter(main.repository.ancestry(branch="main")))


def piece_name(piece: Piece) -> str:
    """The name of a piece in messages and in the record of what is done."""
    rows, cols = piece
    return f"rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop}"


def _empty(store: Any) -> None:
    zarr.open_group(store, mode="a")


def _begin(main: IcechunkBranch, form: RasterForm, name: str) -> IcechunkBranch:
    """The working branch, made and given its empty arrays if it is not there."""
    work = IcechunkBranch(main.storage, name)
    work.repository = main.repository
    with main.committing(), main.explained("write"):
        for other in main.repository.list_branches():
            # What another recipe left half done would never be finished.
            if other.startswith("ingest-") and other != name:
                main.repository.delete_branch(other)
        if name not in main.repository.list_branches():
            empty = main.last_commit_of("empty")
            if empty is None:
                raise NotInitializedError(f"{main.storage.root} is not a repository of ours")
            main.repository.create_branch(name, empty)
    if next(iter(main.repository.ancestry(branch=name))).metadata.get("kind") == "empty":
        session = work.writable()
        form.create(session.store)
        work.commit(session, "Arrays without values", {"kind": "arrays"})
    return work


def _pieces(work: IcechunkBranch) -> Iterator[tuple[str, dict[str, VariableSummary]]]:
    """The pieces that are committed on the working branch, with what is in them."""
    for snapshot in work.repository.ancestry(branch=work.branch):
        if snapshot.metadata.get("kind") == "piece":
            yield snapshot.metadata["piece"], _summaries(snapshot.metadata["variables"])


def _summaries(told: Any) -> dict[str, VariableSummary]:
    return {name: VariableSummary(**values) for name, values in told.items()}


def _write(
    work: IcechunkBranch,
    piece: Piece,
    name: str,
    values: Iterable[tuple[str, NDArray[np.float32]]],
) -> dict[str, VariableSummary]:
    """Write one piece in one commit; a piece without any value needs none."""
    session: icechunk.Session | None = None
    found: dict[str, VariableSummary] = {}
    for variable, array in values:
        summary = VariableSummary()
        summary.add(array)
        if not summary.valid:
            continue
        found[variable] = summary
        session = session or work.writable()
        with work.explained("write"):
            target: Any = zarr.open_array(session.store, path=variable, mode="r+")
            target[piece] = array
    if session is not None:
        told = {variable: asdict(summary) for variable, summary in found.items()}
        work.commit(session, f"Write {name}", {"kind": "piece", "piece": name, "variables": told})
    return found


def _merge(whole: VariableSummary, part: VariableSummary) -> None:
    if part.minimum is None or part.maximum is None:
        return
    whole.minimum = part.minimum if whole.minimum is None else min(whole.minimum, part.minimum)
    whole.maximum = part.maximum if whole.maximum is None else max(whole.maximum, part.maximum)
    whole.valid += part.valid
