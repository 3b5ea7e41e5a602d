"""Pyramid: the risk rasters at full and at ever coarser resolution, for maps and quick looks.

Belongs here: the levels of a pyramid, how a cell is averaged, and the Zarr folder they are written
to. Does not belong here: opening the region store, and publishing the folder.

Level 0 is the pixel grid. A cell of level ``k`` is the mean of all *pixels* with data among the
``2**k`` x ``2**k`` below it, however few they are; of a variable that has classes and no mean it is
the most frequent value. The published pipeline takes the mean of the
four cells of the level below, which gives a cell with one pixel of data the weight of a full one;
its levels drift apart along every coast. Here sums and counts are carried from level to level, so
that every level has the same mean. No pixel is cut off where a side is odd.

Blocks of pixels are visited in the order of a quadtree: the four blocks below a coarser one come
together. Each pixel is read once, each shard is written once, and memory holds one block of each
level at most.
"""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from ocr_assets.regions.grid import CRS, SOUTH, STEP, WEST, Window, pixel_of
from ocr_assets.regions.raster_cuts import COORDINATE_TOLERANCE

COARSEST_SIDE = 128
"""The coarsest level is the first with at most this many rows and columns: 12 levels for CONUS."""

DIMENSIONS = ("latitude", "longitude")

# A shard is one object. Its side is a whole number of source chunks, so that no chunk is decoded
# twice; 1024 to 4096 cells keep both the objects few and the memory small.
_SHARD_SIDES = range(1024, 4097)
_DEFAULT_SHARD_SIDE = 2048
_CHUNK_SIDES = range(192, 513)
_CHUNK_SIDE = 256

# Browsers inflate zlib by themselves; Zstandard would need a program in every page. Inside Blosc,
# which readers of Zarr v3 know, bytes are shuffled: it takes less than Zstandard at this level, and
# a sixth less than plain gzip in half its time.
_CODEC = BloscCodec(cname="zlib", clevel=1, shuffle="shuffle", typesize=4)
_COORDINATE_CODEC = BloscCodec(cname="zlib", clevel=1, shuffle="shuffle", typesize=8)

_CONVENTIONS = (
    ("multiscales", "d35379db-88df-4056-af3a-620245f8e347"),
    ("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f"),
    ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"),
)

Block = tuple[int, int]
"""Row and column of a block in its level."""


class PyramidError(ValueError):
    """A dataset or destination that no pyramid can be built from or in; says the mend."""


@dataclass(frozen=True)
class LevelReport:
    """One level: its size and, by variable, what its cells stand for.

    ``pixels``: level 0 pixels with data. ``means``, of variables that are averaged: mean over these
    pixels of the values stored in this level, NaN without data.
    """

    level: int
    rows: int
    cols: int
    pixels: dict[str, int]
    means: dict[str, float]


@dataclass(frozen=True)
class PyramidReport:
    """The levels of a pyramid, finest first, and the bytes of its files."""

    levels: tuple[LevelReport, ...]
    bytes: int


def build_pyramid(
    dataset: xr.Dataset,
    destination: Path,
    variables: Mapping[str, Sequence[float]],
    attributes: Mapping[str, Any] | None = None,
    regions: Iterable[tuple[slice, slice]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PyramidReport:
    """Write the pyramid of ``variables`` as a Zarr v3 folder: group ``0``, ``1``, … by level.

    Each group opens with ``xarray.open_zarr(destination, group="0")``. The root group says how the
    levels relate, by the Zarr conventions *multiscales*, *proj* and *spatial*: cell ``i`` of a
    level has its centre at pixel ``scale * i + translation`` of level 0. The same input gives the
    same bytes. Chunks without data are not written.

    Args:
        dataset: on the pixel grid or a window of it; dimensions ``latitude``, ``longitude``, both
            ascending; NaN where there is no data. May be lazy.
        destination: a folder that does not exist yet; it appears when the pyramid is whole.
        variables: names of float32 variables of ``dataset``, each with the values that are its
            classes, or with none if it is averaged. Of classes that are as frequent in a cell the
            first one stands for it.
        attributes: JSON-ready attributes for the root group, such as lineage and licence.
        regions: row and column slices of ``dataset`` outside which there is no data; nothing else
            is read. None reads everything.
        progress: called with the number of blocks done and the number of all.

    Raises:
        PyramidError: ``destination`` exists, a variable is missing, has other dimensions or a value
            that is none of its classes, or ``dataset`` is not on the pixel grid.
    """
    if destination.exists():
        raise PyramidError(f"{destination} exists already; remove it or choose another folder")
    window = _pixel_window(dataset)
    sources = {name: _source(dataset, name) for name in variables}
    if not sources:
        raise PyramidError("no variable to build a pyramid of; name at least one")
    shapes = level_shapes(window.shape)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        root = zarr.open_group(partial, mode="w-", zarr_format=3)
        root.update_attributes({**(attributes or {}), **_conventions(window, shapes)})
        groups = [_level_group(root, level, window, shape) for level, shape in enumerate(shapes)]
        chosen = [(slice(None), slice(None))] if regions is None else list(regions)
        walks = [
            _Walk.of(source, tuple(variables[name]), groups, shapes, chosen)
            for name, source in sources.items()
        ]
        done, total = 0, sum(len(walk.blocks[0]) for walk in walks)

        def advance() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        for walk in walks:
            # The coarsest level fits one block.
            walk.visit(len(shapes) - 1, (0, 0), advance)
        _consolidate(root, groups)
        partial.rename(destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return PyramidReport(
        levels=tuple(
            LevelReport(
                level,
                *shape,
                pixels={str(walk.source.name): walk.pixels[level] for walk in walks},
                means={
                    str(walk.source.name): walk.mean(level) for walk in walks if not walk.classes
                },
            )
            for level, shape in enumerate(shapes)
        ),
        bytes=sum(file.stat().st_size for file in destination.rglob("*") if file.is_file()),
    )


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of each level over ``shape`` pixels; partial blocks make whole cells."""
    shapes = [shape]
    while max(shapes[-1]) > COARSEST_SIDE:
        rows, cols = shapes[-1]
        shapes.append((-(-rows // 2), -(-cols // 2)))
    return shapes


def level_means_agree(report: PyramidReport, tolerance: float = 1e-6) -> bool:
    """Whether every level stands for the same pixels, and has their mean.

    ``tolerance`` is relative to the mean of level 0; rounding to float32 alone is below 1e-7.
    """
    native, *coarser = report.levels
    expected = list(native.means.values())
    return all(
        level.pixels == native.pixels
        and np.allclose(list(level.means.values()), expected, tolerance, 0, equal_nan=True)
        for level in coarser
    )


@dataclass(frozen=True)
class _Walk:
    """The walk over the blocks of one variable, from the coarsest level down and back."""

    source: xr.DataArray
    classes: tuple[float, ...]
    arrays: list[Any]
    shard: tuple[int, int]
    blocks: list[frozenset[Block]]
    pixels: list[int]
    totals: list[float]

    @classmethod
    def of(
        cls,
        source: xr.DataArray,
        classes: tuple[float, ...],
        groups: Sequence[zarr.Group],
        shapes: Sequence[tuple[int, int]],
        regions: Iterable[tuple[slice, slice]],
    ) -> _Walk:
        """Make the arrays of a variable and find the blocks that may hold data."""
        sides = [_sides(size) for size in source.encoding.get("chunks") or (0, 0)]
        shard, chunks = (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])
        attributes = source.attrs | {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
        coarser = {"cell_methods": "area: mode" if classes else "area: mean"}
        arrays = [
            group.create_array(
                str(source.name),
                shape=shape,
                dtype="float32",
                chunks=chunks,
                shards=tuple(
                    min(side, -(-size // chunk) * chunk)
                    for side, size, chunk in zip(shard, shape, chunks, strict=True)
                ),
                fill_value=np.nan,
                compressors=_CODEC,
                dimension_names=DIMENSIONS,
                attributes=attributes | (coarser if level else {}),
            )
            for level, (group, shape) in enumerate(zip(groups, shapes, strict=True))
        ]
        blocks = [frozenset(_blocks_in(regions, shapes[0], shard))]
        for _ in shapes[1:]:
            blocks.append(frozenset((row // 2, col // 2) for row, col in blocks[-1]))
        empty = [0] * len(shapes), [0.0] * len(shapes)
        return cls(source, classes, arrays, shard, blocks, *empty)

    def mean(self, level: int) -> float:
        """Mean of a level's stored values, each counted once for each of its pixels."""
        return self.totals[level] / self.pixels[level] if self.pixels[level] else float("nan")

    def visit(
        self, level: int, block: Block, advance: Callable[[], None]
    ) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Write a block and all below it; its sums and counts of pixels, None without data.

        Sums are those of the values, or of the pixels of each class along a first axis.
        """
        if block not in self.blocks[level]:
            return None
        rows, cols = (
            slice(index * side, min((index + 1) * side, size))
            for index, side, size in zip(block, self.shard, self.arrays[level].shape, strict=True)
        )
        if level == 0:
            values = np.asarray(self.source[rows, cols].values, np.float32)
            counts: NDArray[Any] = ~np.isnan(values)
            sums = self._sums(values, counts)
            advance()
        else:
            sums, counts = self._below(
                level, block, (rows.stop - rows.start, cols.stop - cols.start), advance
            )
            values = self._values(sums, counts)
        if not counts.any():
            return None
        self.arrays[level][rows, cols] = values
        self.pixels[level] += int(counts.sum(dtype=np.int64))
        self.totals[level] += float(
            np.sum(np.where(counts, values, np.float32(0)) * counts, dtype=np.float64)
        )
        return sums, counts

    def _below(
        self, level: int, block: Block, shape: tuple[int, int], advance: Callable[[], None]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sums and counts of the cells of a block, from the four blocks below it."""
        classes = (len(self.classes),) if self.classes else ()
        sums: NDArray[Any] = np.zeros((*classes, *shape), np.int32 if classes else np.float64)
        counts = np.zeros(shape, np.int32)
        for row, col in itertools.product((0, 1), (0, 1)):
            below = self.visit(level - 1, (2 * block[0] + row, 2 * block[1] + col), advance)
            if below is not None:
                top, left = row * self.shard[0] // 2, col * self.shard[1] // 2
                for part, whole in zip(below, (sums, counts), strict=True):
                    summed = _pairs_summed(part, whole.dtype)
                    height, width = summed.shape[-2:]
                    whole[..., top : top + height, left : left + width] = summed
        return sums, counts

    def _sums(self, values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[Any]:
        if not self.classes:
            return np.where(known, values, np.float32(0))
        sums = values == np.array(self.classes, np.float32)[:, None, None]
        if (strange := known & ~sums.any(axis=0)).any():
            raise PyramidError(
                f"{self.source.name} has the value {values[strange][0]}, which is none of its "
                f"classes {', '.join(f'{value:g}' for value in self.classes)}"
            )
        return sums

    def _values(self, sums: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float32]:
        """What a level stores of its sums."""
        if self.classes:
            found = np.array(self.classes, np.float32)[sums.argmax(axis=0)]
            return np.where(counts > 0, found, np.float32(np.nan))
        means = np.full(counts.shape, np.nan, np.float32)
        return np.divide(sums, counts, out=means, where=counts > 0, casting="same_kind")


def _pairs_summed(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Sums of 2 x 2 values of the last two axes; of two or one where a side is odd."""
    rows = values[..., 0::2, :].astype(dtype)
    rows[..., : values.shape[-2] // 2, :] += values[..., 1::2, :]
    sums = rows[..., 0::2].copy()
    sums[..., : values.shape[-1] // 2] += rows[..., 1::2]
    return sums


def _sides(source_chunk: int) -> tuple[int, int]:
    """Side of a shard and of its chunks, for source chunks of this side (0 if there are none)."""
    shard = source_chunk
    while 0 < shard < _SHARD_SIDES.start or shard % 2:
        shard *= 2
    chunks = [side for side in _CHUNK_SIDES if shard and shard % side == 0]
    if shard not in _SHARD_SIDES or not chunks:
        return _sides(_DEFAULT_SHARD_SIDE)
    return shard, min(chunks, key=lambda side: abs(side - _CHUNK_SIDE))


def _blocks_in(
    regions: Iterable[tuple[slice, slice]], shape: tuple[int, int], shard: tuple[int, int]
) -> Iterable[Block]:
    for region in regions:
        spans = []
        for part, size, side in zip(region, shape, shard, strict=True):
            start, stop, _ = part.indices(size)
            spans.append(range(start // side, -(-stop // side)))
        yield from itertools.product(*spans)


def _pixel_window(dataset: xr.Dataset) -> Window:
    """The pixels that ``dataset`` covers, or :class:`PyramidError` if it is not on the grid."""
    missing = [axis for axis in DIMENSIONS if axis not in dataset.indexes or not dataset[axis].size]
    if missing:
        raise PyramidError(f"the dataset has no pixels along, or no coordinate, {missing[0]!r}")
    latitude, longitude = (dataset[axis].values for axis in DIMENSIONS)
    row, col = (int(index) for index in pixel_of(longitude[0], latitude[0]))
    window = Window(row, row + latitude.size, col, col + longitude.size)
    for axis, found, expected in (
        ("latitude", latitude, window.latitude),
        ("longitude", longitude, window.longitude),
    ):
        worst = int(np.abs(found - expected).argmax())
        if not abs(found[worst] - expected[worst]) <= COORDINATE_TOLERANCE:
            raise PyramidError(
                f"{axis} is not on the pixel grid in ascending order: found {found[worst]:.9f} at "
                f"index {worst}, expected {expected[worst]:.9f}"
            )
    return window


def _source(dataset: xr.Dataset, name: str) -> xr.DataArray:
    if name not in dataset.data_vars:
        found = ", ".join(map(str, dataset.data_vars)) or "none"
        raise PyramidError(f"variable {name!r} is missing, found {found}")
    if dataset[name].dims != DIMENSIONS:
        raise PyramidError(
            f"{name} has dimensions {dataset[name].dims}, expected {DIMENSIONS}; transpose it"
        )
    return dataset[name]


def _level_group(
    root: zarr.Group, level: int, window: Window, shape: tuple[int, int]
) -> zarr.Group:
    """The group of a level, with its coordinates and coordinate system."""
    group = root.create_group(str(level))
    scale = 2**level
    for axis, start, origin, size, unit in (
        ("latitude", window.row_start, SOUTH, shape[0], "degrees_north"),
        ("longitude", window.col_start, WEST, shape[1], "degrees_east"),
    ):
        group.create_array(
            axis,
            data=origin + (start + scale * (np.arange(size) + 0.5)) * STEP,
            chunks=(size,),
            compressors=_COORDINATE_CODEC,
            dimension_names=(axis,),
            attributes={
                "standard_name": axis,
                "long_name": f"{axis} of the cell centre",
                "units": unit,
                "axis": "Y" if axis == "latitude" else "X",
            },
        )
    west, south, step = *window.bounds[:2], STEP * scale
    group.create_array(
        "spatial_ref",
        shape=(),
        dtype="int64",
        attributes={
            **pyproj.CRS.from_user_input(CRS).to_cf(),
            "GeoTransform": f"{west!r} {step!r} 0 {south!r} 0 {step!r}",
        },
    )
    return group


def _conventions(window: Window, shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Root attributes that say how the levels relate to each other and to the earth."""
    west, south, east, north = window.bounds
    scales = [2.0**level for level in range(len(shapes))]
    layout: list[dict[str, Any]] = [
        {
            "asset": str(level),
            "transform": {"scale": [scale, scale], "translation": [(scale - 1) / 2] * 2},
            "spatial:shape": list(shape),
            "spatial:transform": [STEP * scale, 0.0, west, 0.0, STEP * scale, south],
        }
        for level, (shape, scale) in enumerate(zip(shapes, scales, strict=True))
    ]
    for entry in layout[1:]:
        entry |= {"derived_from": "0", "resampling_method": "average"}
    return {
        "zarr_conventions": [
            {
                "name": name,
                "uuid": uuid,
                "schema_url": "https://raw.githubusercontent.com/zarr-conventions/"
                f"{name}/refs/tags/v0.1/schema.json",
                "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
            }
            for name, uuid in _CONVENTIONS
        ],
        "multiscales": {"layout": layout, "resampling_method": "average"},
        "proj:code": CRS,
        "spatial:dimensions": list(DIMENSIONS),
        "spatial:bbox": [west, south, east, north],
    }


def _consolidate(root: zarr.Group, groups: Sequence[zarr.Group]) -> None:
    """Let a reader find a level's, or the pyramid's, arrays with one request."""
    with warnings.catch_warnings():
        # Zarr warns that its v3 specification has no consolidated metadata yet; the multiscales
        # convention asks for it, and readers without it open the groups all the same.
        warnings.simplefilter("ignore", ZarrUserWarning)
        for group in (*groups, root):
            zarr.consolidate_metadata(group.store, path=group.path)
