"""Published rasters, window by window: on their own cells, or on the pixel grid.

Belongs here: what a raster file is (cells, coordinate system), reading a window of it, and finding
the nearest cell of each pixel of the grid.
Does not belong here: where files come from, and where the windows are written.

Resampling takes the value of the cell that holds a pixel's centre: burn probabilities and classes
keep exactly the values that were published. Memory depends on the window, not on the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.transform import Affine

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.grid import Window
from ocr_assets.regions.resample import SourceRaster, nearest_cells

STRIP_ROWS = 1500
"""Rows of the pixel grid that are resampled at once: 27 MB of values for a region's width."""

_MARGIN = 2
"""Cells read beyond a window's bounds, since its edges are interpolated in the projection."""

_SAME_PLACE = 0.05
"""Largest distance, in cells, by which two spellings of a coordinate system may differ."""


class RasterFileError(ValueError):
    """A raster file that cannot be read, or is not what its dataset promises."""


@dataclass(frozen=True)
class RasterFile:
    """A raster file of one band on regular, north-up cells.

    Attributes:
        path: what GDAL opens.
        shape: rows and columns.
        transform: from columns and rows to coordinates.
        crs: the coordinate system that the dataset promises; the file's own spelling is equal to
            it on the ground.
    """

    path: str
    shape: tuple[int, int]
    transform: Affine
    crs: str

    @property
    def x(self) -> NDArray[np.float64]:
        """Cell centres from west to east, in units of the coordinate system."""
        centres: NDArray[np.float64] = (
            self.transform.c + (np.arange(self.shape[1]) + 0.5) * self.transform.a
        )
        return centres

    @property
    def y(self) -> NDArray[np.float64]:
        """Cell centres from north to south."""
        centres: NDArray[np.float64] = (
            self.transform.f + (np.arange(self.shape[0]) + 0.5) * self.transform.e
        )
        return centres

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Values of a window of cells, float32, NaN where the file has none."""
        window = rasterio.windows.Window.from_slices(rows, cols)
        try:
            with rasterio.open(self.path) as source:
                values = source.read(1, window=window, masked=True)
        except rasterio.errors.RasterioIOError as error:
            raise RasterFileError(
                f"cannot read rows {rows.start} to {rows.stop} of {self.path}: {error}; "
                "delete the file and download it again"
            ) from error
        filled: NDArray[np.float32] = np.asarray(values.data, np.float32)
        if np.ma.is_masked(values):
            filled[values.mask] = np.nan
        return filled


def open_raster_file(path: str, crs: str) -> RasterFile:
    """Look at a raster file whose coordinate system should be ``crs``.

    Publishers spell the same system in many ways; what counts is where the corners and the middle
    of the raster come to lie.

    Raises:
        RasterFileError: the file is damaged, rotated, has several bands, or is in another system.
    """
    try:
        with rasterio.open(path) as source:
            found, shape, transform = source.crs, source.shape, source.transform
            bands = source.count
    except rasterio.errors.RasterioIOError as error:
        raise RasterFileError(f"cannot read the raster {path}: {error}") from error
    if bands != 1 or transform.b or transform.d or transform.e >= 0:
        raise RasterFileError(f"{path} is not a north-up raster of one band")
    if found is None:
        raise RasterFileError(f"{path} declares no coordinate system, expected {crs}")
    rows, cols = shape
    corners = np.array([[0, 0], [cols, 0], [0, rows], [cols, rows], [cols / 2, rows / 2]], float)
    x = transform.c + corners[:, 0] * transform.a
    y = transform.f + corners[:, 1] * transform.e
    moved = Transformer.from_crs(CRS.from_wkt(found.to_wkt()), crs, always_xy=True).transform(x, y)
    if not np.hypot(moved[0] - x, moved[1] - y).max() <= _SAME_PLACE * transform.a:
        raise RasterFileError(f"{path} is in {CRS.from_wkt(found.to_wkt()).name}, expected {crs}")
    return RasterFile(path, (rows, cols), transform, crs)


class NearestCells:
    """Which cell of a raster holds each pixel centre of a window, for all rasters of these cells.

    Rows of the window count from the south. The cell of a pixel does not depend on the window it
    is asked in (see ``resample.py``).
    """

    def __init__(self, raster: RasterFile, window: Window) -> None:
        self._grid = raster.shape, raster.transform
        self._window = window
        self._strips: list[tuple[Window, tuple[slice, slice], NDArray[np.int32]]] = []
        for strip in _strips(window):
            if cover := _cover(raster, strip):
                rows, cols = cover
                shape = rows.stop - rows.start, cols.stop - cols.start
                # Only the place of the cells counts here, so that one value stands for all.
                piece = SourceRaster(
                    np.broadcast_to(np.float32(0), shape),
                    raster.x[cols],
                    raster.y[rows],
                    raster.crs,
                )
                self._strips.append((strip, cover, nearest_cells(piece, strip)))

    def __bool__(self) -> bool:
        """Whether the raster reaches into the window at all."""
        return bool(self._strips)

    def read(self, raster: RasterFile) -> NDArray[np.float32]:
        """Values of a raster at the pixel centres, NaN outside it and where it has none."""
        if (raster.shape, raster.transform) != self._grid:
            raise RasterFileError(f"{raster.path} has other cells than the file before it")
        values = np.full(self._window.shape, np.nan, np.float32)
        for strip, (rows, cols), cells in self._strips:
            piece = np.append(raster.read(rows, cols), np.float32(np.nan))
            values[strip.slices_in(self._window)] = piece[cells]
        return values


def _strips(window: Window) -> Iterator[Window]:
    for start in range(window.row_start, window.row_stop, STRIP_ROWS):
        stop = min(start + STRIP_ROWS, window.row_stop)
        yield Window(start, stop, window.col_start, window.col_stop)


def _cover(raster: RasterFile, window: Window) -> tuple[slice, slice] | None:
    """The cells under a window and a margin, at least two on each axis; None if there are none."""
    project = Transformer.from_crs(region_grid.CRS, raster.crs, always_xy=True)
    west, south, east, north = project.transform_bounds(*window.bounds, densify_pts=101)
    transform = raster.transform
    rows = _span((north - transform.f) / transform.e, (south - transform.f) / transform.e)
    cols = _span((west - transform.c) / transform.a, (east - transform.c) / transform.a)
    cut = tuple(
        slice(max(0, span[0]), min(size, span[1]))
        for span, size in zip((rows, cols), raster.shape, strict=True)
    )
    if any(part.stop - part.start < 1 for part in cut):
        return None
    # A single row or column has no step; its neighbour comes along.
    widened = tuple(
        slice(min(part.start, max(0, size - 2)), max(part.stop, min(size, 2)))
        for part, size in zip(cut, raster.shape, strict=True)
    )
    return widened[0], widened[1]


def _span(low: float, high: float) -> tuple[int, int]:
    return int(np.floor(low)) - _MARGIN, int(np.ceil(high)) + _MARGIN


def cell_windows(shape: tuple[int, int], chunks: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Row and column slices that cut an array of ``shape`` into its chunks."""
    for row in range(0, shape[0], chunks[0]):
        for col in range(0, shape[1], chunks[1]):
            yield (
                slice(row, min(row + chunks[0], shape[0])),
                slice(col, min(col + chunks[1], shape[1])),
            )


def raise_to(values: NDArray[np.float32], lowest: float | None) -> NDArray[Any]:
    """Raise smaller values to ``lowest`` in place, NaN stays; nothing if there is no bound."""
    if lowest is not None:
        np.maximum(values, np.float32(lowest), out=values)
    return values
