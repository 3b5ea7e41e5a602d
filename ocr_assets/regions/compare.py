"""What changed between two versions: rasters by region and variable, statistics by geography.

Belongs here: counting and measuring differences, the table of them, and the map of them.
Does not belong here: finding and opening the versions.

Differences are after minus before. Rasters are read one region and variable at a time, statistics
one column at a time, so memory does not grow with the country.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr
from numpy.typing import NDArray

from ocr_assets.geoparquet import Source, open_geoparquet

PIXEL, REGION = "pixel", "region"
"""Geographies of the rasters, beside the levels of the statistics."""

CHANGES = pa.schema(
    [
        ("geography", pa.string()),
        ("place", pa.string()),
        ("variable", pa.string()),
        ("before", pa.float64()),
        ("after", pa.float64()),
        ("difference", pa.float64()),
        ("compared", pa.int64()),
        ("changed", pa.int64()),
        ("added", pa.int64()),
        ("removed", pa.int64()),
        ("max_difference", pa.float64()),
    ]
)
"""A row for each place and variable that differs.

``place`` is a region or the code of a geography. ``before``, ``after`` and ``difference`` are the
values of a geography; of a region, the means over the pixels with data in both versions.
``compared``, ``changed``, ``added`` and ``removed`` count pixels (of a geography: itself) with data
in both, with another value, with data after only, and before only. ``max_difference`` is the
largest without its sign. A mean over nothing is null.
"""


@dataclass(frozen=True, slots=True)
class Change:
    """The differences of one variable over all places of one geography; pixels for rasters.

    ``place`` is where the largest difference is: a region, or the code of a geography; empty if
    nothing differs.
    """

    geography: str
    variable: str
    compared: int
    changed: int
    added: int
    removed: int
    mean_difference: float | None
    max_difference: float | None
    place: str

    @property
    def differs(self) -> bool:
        """Whether anything is not as before."""
        return bool(self.changed or self.added or self.removed)


@dataclass(frozen=True)
class Raster:
    """The rasters of a version, and the regions that are its own; others hold older data."""

    dataset: xr.Dataset
    regions: Collection[str]

    def values(self, region_id: str, window: tuple[slice, slice], name: str) -> NDArray[np.float32]:
        """Values of a variable in a region, NaN where the version has none."""
        shape = tuple(part.stop - part.start for part in window)
        if region_id not in self.regions or name not in self.dataset:
            return np.full(shape, np.nan, np.float32)
        values = self.dataset[name].isel(latitude=window[0], longitude=window[1]).values
        return np.asarray(values, np.float32)


class DifferenceMap:
    """Sums of differences over square blocks of pixels, for a picture of a whole country."""

    def __init__(self, shape: tuple[int, int], names: Sequence[str], max_side: int = 1200) -> None:
        self.names = tuple(names)
        self.side = -(-max(shape) // max_side)
        self.shape = shape
        blocks = (len(names), *(-(-size // self.side) for size in shape))
        self._sums = np.zeros(blocks)
        self._counts = np.zeros(blocks, np.int64)

    def add(self, name: str, window: tuple[slice, slice], difference: NDArray[np.float64]) -> None:
        """Add the differences under ``window``; NaN counts for nothing."""
        if name not in self.names:
            return
        place = self.names.index(name)
        valid = ~np.isnan(difference)
        spans, starts = zip(*(self._blocks(part) for part in window), strict=True)
        for total, values in (
            (self._sums, np.where(valid, difference, 0)),
            (self._counts, valid.astype(np.int64)),
        ):
            rows = np.add.reduceat(values, starts[0], axis=0)
            total[place, spans[0], spans[1]] += np.add.reduceat(rows, starts[1], axis=1)

    def _blocks(self, part: slice) -> tuple[slice, NDArray[np.intp]]:
        """Blocks under a range of pixels, and where each starts in it."""
        first, last = part.start // self.side, (part.stop - 1) // self.side
        starts = np.arange(first, last + 1) * self.side - part.start
        return slice(first, last + 1), np.maximum(starts, 0)

    def means(self, name: str) -> NDArray[np.float64]:
        """Mean difference of each block from the south, NaN without data."""
        place = self.names.index(name)
        sums, counts = self._sums[place], self._counts[place]
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def png(self, title: str, bounds: tuple[float, float, float, float]) -> bytes:
        """A map of each variable: blue where it is less than before, red where it is more.

        Args:
            title: above the maps.
            bounds: west, south, east and north of the pixels, degrees.
        """
        # Slow to load, and wanted by this picture only.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        west, south, east, north = bounds
        figure = Figure(figsize=(6.4 * len(self.names), 5), dpi=150, layout="constrained")
        figure.suptitle(title)
        # The last blocks reach beyond the last pixels.
        rows, cols = self._sums.shape[1:]
        top = south + (north - south) * rows * self.side / self.shape[0]
        right = west + (east - west) * cols * self.side / self.shape[1]
        for number, name in enumerate(self.names):
            axes = figure.add_subplot(1, len(self.names), number + 1)
            axes.set_facecolor("0.85")
            means = self.means(name)
            limit = float(np.nanmax(np.abs(means))) if np.isfinite(means).any() else 0.0
            image = axes.imshow(
                means,
                origin="lower",
                extent=(west, right, south, top),
                cmap="RdBu_r",
                vmin=-limit or -1,
                vmax=limit or 1,
                interpolation="nearest",
            )
            axes.set(title=name, xlabel="longitude", ylabel="latitude")
            axes.set(xlim=(west, east), ylim=(south, north))
            figure.colorbar(image, ax=axes, label="difference", shrink=0.8)
        FigureCanvasAgg(figure)
        file = BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def compare_rasters(
    before: Raster,
    after: Raster,
    windows: Mapping[str, tuple[slice, slice]],
    variables: Sequence[str],
    picture: DifferenceMap | None = None,
) -> Iterator[pa.Table]:
    """Differences of each region that a version has, by variable: :data:`CHANGES`, one table each.

    Args:
        before, after: the versions, on the same grid.
        windows: row and column slices of each region.
        variables: those to compare; a variable that a version lacks counts as without data.
        picture: takes the differences as well.
    """
    for region_id, window in windows.items():
        if region_id not in before.regions and region_id not in after.regions:
            continue
        rows = []
        for name in variables:
            old, new = (side.values(region_id, window, name) for side in (before, after))
            had, has = ~np.isnan(old), ~np.isnan(new)
            both = had & has
            difference = np.where(both, new.astype(np.float64) - old, np.nan)
            if picture is not None:
                picture.add(name, window, difference)
            rows.append(_region_row(region_id, name, old, new, both, difference, had, has))
        yield pa.Table.from_pylist(rows, CHANGES)


def _region_row(
    region_id: str,
    name: str,
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    both: NDArray[np.bool_],
    difference: NDArray[np.float64],
    had: NDArray[np.bool_],
    has: NDArray[np.bool_],
) -> dict[str, Any]:
    shared = difference[both]
    some = bool(shared.size)
    return {
        "geography": REGION,
        "place": region_id,
        "variable": name,
        "before": old[both].mean(dtype=np.float64) if some else None,
        "after": new[both].mean(dtype=np.float64) if some else None,
        "difference": shared.mean() if some else None,
        "compared": shared.size,
        "changed": np.count_nonzero(shared),
        "added": np.count_nonzero(has & ~had),
        "removed": np.count_nonzero(had & ~has),
        "max_difference": np.abs(shared).max() if some else None,
    }


def compare_statistics(before: Source, after: Source, level: str) -> Iterator[tuple[str, pa.Table]]:
    """Each column of the statistics of one level, and its values in both versions.

    Yields:
        The column and, for every code of either version, a row of :data:`CHANGES`. A null of both
        versions is not compared. A histogram counts with its mean class.

    Raises:
        GeoParquetError: a table is unreadable or has no codes.
    """
    with open_geoparquet(before, ("GEOID",)) as one, open_geoparquet(after, ("GEOID",)) as two:
        codes = [_column(file, "GEOID") for file in (one, two)]
        every = pa.concat_arrays(codes).unique()
        every = every.take(pc.sort_indices(every))
        rows = [pc.index_in(every, listed) for listed in codes]
        names = [name for name in one.schema_arrow.names if name in two.schema_arrow.names]
        for name in names:
            if not _is_compared(one.schema_arrow.field(name).type):
                continue
            old, new = (
                _numbers(_column(file, name).take(row))
                for file, row in zip((one, two), rows, strict=True)
            )
            yield name, _geography_rows(level, name, every, old, new)


def _is_compared(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_list(kind)


def _column(file: Any, name: str) -> pa.Array:
    column = file.read(columns=[name])[name]
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    """Float64 with NaN for null; of a histogram, its mean class."""
    if not pa.types.is_list(values.type):
        return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    counts = values.flatten().cast(pa.float64()).to_numpy()
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    row = np.repeat(np.arange(len(values)), lengths)
    classes = np.arange(len(counts)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    total = np.bincount(row, counts, len(values))
    weighted = np.bincount(row, counts * classes, len(values))
    return np.divide(weighted, total, out=np.full(len(values), np.nan), where=total > 0)


def _geography_rows(
    level: str, name: str, codes: pa.Array, old: NDArray[np.float64], new: NDArray[np.float64]
) -> pa.Table:
    had, has = ~np.isnan(old), ~np.isnan(new)
    both = had & has
    difference = np.where(both, new - old, np.nan)
    count = len(codes)
    columns = {
        "geography": pa.repeat(level, count),
        "place": codes,
        "variable": pa.repeat(name, count),
        "before": pa.array(old, mask=~had),
        "after": pa.array(new, mask=~has),
        "difference": pa.array(difference, mask=~both),
        "compared": both.astype(np.int64),
        "changed": (both & (difference != 0)).astype(np.int64),
        "added": (has & ~had).astype(np.int64),
        "removed": (had & ~has).astype(np.int64),
        "max_difference": pa.array(np.abs(difference), mask=~both),
    }
    return pa.table([columns[field] for field in CHANGES.names], CHANGES)


def summary(rows: pa.Table, geography: str, variable: str) -> Change:
    """Sum up the rows of one variable.

    The mean difference is that of all that was compared, also of what did not change.
    """
    compared = rows["compared"].to_numpy()
    weighted = rows["difference"].fill_null(0).to_numpy() * compared
    largest = rows["max_difference"].fill_null(0).to_numpy()
    total = int(compared.sum())
    found = {name: int(pc.sum(rows[name]).as_py() or 0) for name in ("changed", "added", "removed")}
    return Change(
        geography=geography,
        variable=variable,
        compared=total,
        mean_difference=float(weighted.sum() / total) if total else None,
        max_difference=float(largest.max()) if total else None,
        place=rows["place"][int(largest.argmax())].as_py() if total and largest.max() > 0 else "",
        **found,
    )


def by_variable(tables: Iterable[pa.Table], variables: Sequence[str]) -> list[Change]:
    """Sum up the regions of :func:`compare_rasters`: pixels by variable."""
    rows = pa.concat_tables([CHANGES.empty_table(), *tables])
    return [
        summary(rows.filter(pc.equal(rows["variable"], name)), PIXEL, name) for name in variables
    ]


def differing(rows: pa.Table) -> pa.Table:
    """Those of the rows that are not as before."""
    counts = [rows[name] for name in ("changed", "added", "removed")]
    return rows.filter(pc.greater(pc.add(pc.add(counts[0], counts[1]), counts[2]), 0))
