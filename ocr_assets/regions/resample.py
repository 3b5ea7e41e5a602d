"""From a raster's own grid to the pixel grid: gap filling and nearest-cell look-up.

Belongs here: a raster piece on its native grid, the mean that fills its gaps, and the search for
the cell that holds each pixel centre.
Does not belong here: reading rasters, and what is done with the resampled values.

Projecting every pixel exactly would take longer than the rest of the risk step. Pixel centres are
projected on a lattice instead and interpolated in between. The lattice is anchored to absolute
pixel indices, so a pixel finds the same cell whatever window it is asked in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pyproj import Transformer

from ocr_assets.regions.grid import CRS, Window, col_longitude, row_latitude

LATTICE_STEP = 32
"""Pixels between exactly projected points; interpolation in between errs by under 2 cm."""

# Fraction of a cell to which a grid's origin is rounded, so that pieces cut out of one raster at
# different cells agree on where its cells lie to the last bit.
_PHASE_UNIT = 2.0**-20


class RasterError(ValueError):
    """A raster whose shape, coordinates or values cannot be used; says what was found."""


@dataclass(frozen=True, eq=False)
class SourceRaster:
    """A piece of a raster on its native grid.

    ``values``: ``[y, x]`` or ``[y, x, 8]``; ``x`` and ``y``: 1-D regular cell centres in the units
    of ``crs``, ascending or descending, at least two each; ``crs``: anything pyproj reads. Raises
    :class:`RasterError` if shapes or coordinates do not fit.
    """

    values: NDArray[Any]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    crs: str
    _cells: tuple[tuple[float, float, int], tuple[float, float, int]] = field(init=False)

    def __post_init__(self) -> None:
        if self.values.ndim not in (2, 3) or self.values.shape[:2] != (self.y.size, self.x.size):
            raise RasterError(
                f"raster values have shape {self.values.shape}, expected [y, x] or [y, x, 8] with "
                f"{self.y.size} y and {self.x.size} x"
            )
        object.__setattr__(self, "_cells", (_axis("y", self.y), _axis("x", self.x)))


def _axis(name: str, centres: NDArray[np.float64]) -> tuple[float, float, int]:
    """Step, phase and first cell number of an axis: ``centre = (number + phase) * step``."""
    if centres.ndim != 1 or centres.size < 2:
        raise RasterError(f"raster {name} has shape {centres.shape}, expected two cells or more")
    step = float(centres[-1] - centres[0]) / (centres.size - 1)
    drift = np.abs(centres - (centres[0] + step * np.arange(centres.size))).max()
    if not step or not drift <= 0.01 * abs(step):
        raise RasterError(
            f"raster {name} is not regular: centres stray {drift:g} from steps of {step:g}"
        )
    origin = float(centres[0]) / step
    first = round(origin)
    return step, round((origin - first) / _PHASE_UNIT) * _PHASE_UNIT, first


def fill_gaps(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Fill single burnable gaps of a 270 m burn probability, ``[y, x]``; NaN is missing.

    A cell that is zero or NaN while its four rook neighbours are all above zero becomes the mean of
    the non-NaN cells of its 3 x 3 neighbourhood, itself included. Cells on the edge of the array
    are never filled.
    """
    values = np.asarray(values, np.float32)
    filled = values.copy()
    if min(values.shape) < 3:
        return filled
    valid = values > 0
    gap = ~valid[1:-1, 1:-1]
    gap &= valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
    y, x = np.nonzero(gap)
    steps = np.arange(3)
    around = values[y[:, None, None] + steps[:, None], x[:, None, None] + steps].astype(np.float64)
    if y.size:
        filled[y + 1, x + 1] = np.nanmean(around.reshape(-1, 9), axis=1)
    return filled


def nearest_cells(raster: SourceRaster, window: Window) -> NDArray[np.int32]:
    """Flat index ``y * x.size + x`` of the cell that holds each pixel centre, -1 outside.

    Shape ``window.shape``. A centre exactly between two cells belongs to the one with the higher
    number. Interpolated as described above, so a centre within 2 cm of a cell's edge may find
    the neighbouring cell. Raises :class:`RasterError` for 2**31 cells or more.
    """
    if (count := raster.y.size * raster.x.size) > np.iinfo(np.int32).max:
        raise RasterError(f"raster has {count} cells: cut it to the window before looking up cells")
    rows = _lattice(window.row_start, window.row_stop)
    cols = _lattice(window.col_start, window.col_stop)
    longitude, latitude = np.meshgrid(col_longitude(cols), row_latitude(rows))
    project = Transformer.from_crs(CRS, raster.crs, always_xy=True)
    x, y = project.transform(longitude, latitude)
    cells = np.empty(window.shape, np.int32)
    (y_step, y_phase, y_first), (x_step, x_phase, x_first) = raster._cells
    _find_cells(
        x / x_step - x_phase,
        y / y_step - y_phase,
        window.row_start - int(rows[0]),
        window.col_start - int(cols[0]),
        float(x_first),
        float(y_first),
        raster.x.size,
        raster.y.size,
        cells,
    )
    return cells


def nearest(raster: SourceRaster, window: Window) -> NDArray[np.float32]:
    """Values of a ``[y, x]`` raster at each pixel centre, float32, NaN outside the raster."""
    values = np.append(np.asarray(raster.values, np.float32), np.float32(np.nan))
    return values[nearest_cells(raster, window)]


def _lattice(start: int, stop: int) -> NDArray[np.int64]:
    first = start // LATTICE_STEP
    return np.arange(first, (stop - 1) // LATTICE_STEP + 2) * LATTICE_STEP


@njit(cache=True, nogil=True)
def _find_cells(u, v, row_offset, col_offset, x_first, y_first, x_size, y_size, cells):
    """Interpolate cell coordinates ``u`` (x) and ``v`` (y) between lattice points."""
    rows, cols = cells.shape
    u_row = np.empty(u.shape[1])
    v_row = np.empty(u.shape[1])
    for i in range(rows):
        node, part = divmod(i + row_offset, LATTICE_STEP)
        north = part / LATTICE_STEP
        for j in range(u.shape[1]):
            u_row[j] = u[node, j] * (1.0 - north) + u[node + 1, j] * north
            v_row[j] = v[node, j] * (1.0 - north) + v[node + 1, j] * north
        for j in range(cols):
            node, part = divmod(j + col_offset, LATTICE_STEP)
            east = part / LATTICE_STEP
            x = np.floor(u_row[node] * (1.0 - east) + u_row[node + 1] * east + 0.5) - x_first
            y = np.floor(v_row[node] * (1.0 - east) + v_row[node + 1] * east + 0.5) - y_first
            # Written so that NaN and infinity, from points a projection cannot hold, are outside.
            if x >= 0.0 and x < x_size and y >= 0.0 and y < y_size:
                cells[i, j] = np.int32(np.int64(y) * x_size + np.int64(x))
            else:
                cells[i, j] = np.int32(-1)
