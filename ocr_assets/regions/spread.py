"""Spread of burn probability into land that does not burn, and its smoothing.

Belongs here: what wind carries into pixels of zero burn probability, and the Gaussian filter, both
on arrays over the pixel grid.
Does not belong here: the geometry of kernels and their convolution, resampling, and the risk that
follows.

Floating-point sums run in one fixed order per pixel (directions N to NW; taps from the lowest index
to the highest), so no result depends on how an array is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.convolution import Rectangle, directional_means, mirror
from ocr_assets.regions.grid import STEP
from ocr_assets.regions.kernels import Kernel
from ocr_assets.regions.resample import RasterError

TILE_ROWS, TILE_COLS = 512, 512
"""Pixels of the tiles in which spread is computed: small enough for a processor's cache."""

SMOOTHING_RADIUS = int(300.0 / (STEP * 111_000.0))
"""Pixels in 300 m: the smoothing kernel has ``2 * 8 + 1`` taps."""

SMOOTHING_SIGMA = 0.3 * (SMOOTHING_RADIUS - 1) + 0.8
"""Pixels: the customary width for that many taps."""


def fill_non_burnable(
    burn_probability: NDArray[np.float32],
    target: Rectangle,
    kernels: tuple[Kernel, ...],
    weights: NDArray[np.float32],
    cells: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Burn probability over ``target``, with what wind carries in where it is exactly zero.

    ``burn_probability``: ``[row, col]`` in [0, 1] or NaN, with at least the kernels' reach around
    ``target``; its own edges are mirrored without repeating the edge pixel. ``kernels`` and the
    columns of ``weights`` ``[cell, direction]`` share one order; ``cells`` gives the row of
    ``weights`` for each pixel of ``target``, or -1 for none. What wind from one direction carries
    in is the mean over its kernel of all pixels above zero, taken three times; NaN pixels count as
    zero there. Returns float32 over ``target``: a zero becomes the sum of the eight means by their
    weights, or NaN where a weight is NaN or missing; all else, NaN too, is kept as it is.
    """
    row_start, row_stop, col_start, col_stop = target
    combined = burn_probability[row_start:row_stop, col_start:col_stop].copy()
    for tile in _tiles(target):
        bounds = _bounds_of_zeros(burn_probability, tile)
        if bounds is None:
            continue
        view = np.s_[
            bounds[0] - row_start : bounds[1] - row_start,
            bounds[2] - col_start : bounds[3] - col_start,
        ]
        composite = np.zeros((bounds[1] - bounds[0], bounds[3] - bounds[2]))
        means = directional_means(burn_probability, bounds, kernels)
        for direction, mean in enumerate(means):
            add_weighted(composite, mean, weights, direction, cells[view])
        part = combined[view]
        np.copyto(part, composite, where=part == 0, casting="same_kind")
    return combined


def normalised_weights(distribution: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Wind-direction weights ``[..., 8]`` that add up to one.

    NaN in all directions where a weight is missing or all are zero. Raises RasterError naming the
    first cell with a negative weight.
    """
    negative = distribution < 0
    if negative.any():
        *cell, direction = (int(index) for index in np.argwhere(negative)[0])
        raise RasterError(
            f"wind-direction weight of cell {tuple(cell)}, direction {direction}, is negative "
            f"({distribution[(*cell, direction)]:g}); weights are shares of time, 0 to 1"
        )
    total = distribution.sum(axis=-1, dtype=np.float64, keepdims=True)
    divisor = np.where(total > 0, total, np.nan).astype(np.float32)
    return (distribution / divisor).astype(np.float32, copy=False)


def smoothing_taps() -> NDArray[np.float32]:
    """The Gaussian weights of one axis, shape ``(17,)``, adding up to one."""
    offsets = np.arange(-SMOOTHING_RADIUS, SMOOTHING_RADIUS + 1)
    taps = np.exp(-(offsets**2) / (2 * SMOOTHING_SIGMA**2))
    return (taps / taps.sum()).astype(np.float32)


def smooth(values: NDArray[np.float32], target: Rectangle) -> NDArray[np.float32]:
    """Gaussian mean of ``values`` over ``target``, float32; NaN spreads over 17 x 17 pixels.

    Edges of ``values`` are mirrored without repeating the edge pixel. Sums run in float64, down
    the columns first, from the lowest index to the highest.
    """
    rows = mirror(
        np.arange(target[0] - SMOOTHING_RADIUS, target[1] + SMOOTHING_RADIUS), values.shape[0]
    )
    cols = mirror(
        np.arange(target[2] - SMOOTHING_RADIUS, target[3] + SMOOTHING_RADIUS), values.shape[1]
    )
    result = np.empty((target[1] - target[0], target[3] - target[2]), np.float32)
    _smooth(values, rows, cols, smoothing_taps().astype(np.float64), result)
    return result


def _tiles(area: Rectangle) -> Iterator[Rectangle]:
    row_start, row_stop, col_start, col_stop = area
    for row in range(row_start, row_stop, TILE_ROWS):
        for col in range(col_start, col_stop, TILE_COLS):
            yield row, min(row + TILE_ROWS, row_stop), col, min(col + TILE_COLS, col_stop)


def _bounds_of_zeros(values: NDArray[np.float32], tile: Rectangle) -> Rectangle | None:
    """The part of ``tile`` that holds all its zeros, None without any."""
    zero = values[tile[0] : tile[1], tile[2] : tile[3]] == 0
    rows, cols = np.flatnonzero(zero.any(axis=1)), np.flatnonzero(zero.any(axis=0))
    if not rows.size:
        return None
    return (
        tile[0] + int(rows[0]),
        tile[0] + int(rows[-1]) + 1,
        tile[2] + int(cols[0]),
        tile[2] + int(cols[-1]) + 1,
    )


@njit(cache=True, nogil=True)
def add_weighted(composite, layer, weights, direction, cells):
    """Add ``weights[cell, direction] * layer`` to ``composite``, NaN where the cell is -1.

    ``composite`` and ``layer`` are float64 of the shape of ``cells``.
    """
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            cell = cells[i, j]
            if cell < 0:
                composite[i, j] = np.nan
            else:
                composite[i, j] += weights[cell, direction] * layer[i, j]


@njit(cache=True, nogil=True)
def _smooth(values, rows, cols, taps, result):
    column_sums = np.empty(values.shape[1])
    line = np.empty(cols.size)
    sums = np.empty(result.shape[1])
    for i in range(result.shape[0]):
        column_sums[:] = 0.0
        for k in range(taps.size):
            weight = taps[k]
            source = values[rows[i + k]]
            for j in range(column_sums.size):
                column_sums[j] += weight * source[j]
        for j in range(line.size):
            line[j] = column_sums[cols[j]]
        sums[:] = 0.0
        for k in range(taps.size):
            weight = taps[k]
            shifted = line[k : k + sums.size]
            for j in range(sums.size):
                sums[j] += weight * shifted[j]
        for j in range(sums.size):
            result[i, j] = sums[j]
