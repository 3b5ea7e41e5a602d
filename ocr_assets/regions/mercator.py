"""The world as a square of whole numbers, and the curve on which map tiles are counted.

Belongs here: Web Mercator as integers of 31 bits, and the Hilbert curve of the PMTiles format.
Does not belong here: features, tiles and their bytes.

The curve is nested: the number of a point's tile at any zoom is a prefix of the point's own
number. Sorted by that number, the features of every tile of every zoom lie next to each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LEVELS = 31
"""Zoom at which a cell of the curve is one step of the world, 1.9 cm at the equator."""

WORLD = 1 << LEVELS
"""Steps from one edge of the world to the other, from west to east and from north to south."""

Floats = NDArray[np.floating[Any]]


def world_steps(longitude: Floats, latitude: Floats) -> NDArray[np.int32]:
    """Web Mercator (EPSG:3857) positions of points in degrees, x and y in steps, shape ``(n, 2)``.

    The square ends at 85.05 degrees; what lies beyond is put on its edge.
    """
    x = (longitude + 180) / 360
    with np.errstate(divide="ignore"):
        y = (1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2
    steps = np.floor(np.column_stack([x, y]) * WORLD)
    return np.clip(steps, 0, WORLD - 1).astype(np.int32)


def degrees(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude of positions in steps."""
    latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / WORLD))))
    return x / WORLD * 360 - 180, latitude


@njit(cache=True, nogil=True)
def hilbert_index(x, y, level):  # type: ignore[no-untyped-def]
    """Place on the curve of cell ``x``, ``y`` of the grid of ``2**level`` cells a side."""
    index = 0
    for bit in range(level - 1, -1, -1):
        right, down = (x >> bit) & 1, (y >> bit) & 1
        index = (index << 2) | ((3 * right) ^ down)
        if not down:
            if right:
                # Only the lower bits count from here on, and these are mirrored.
                x, y = ~x, ~y
            x, y = y, x
    return index


@njit(cache=True, nogil=True)
def hilbert_cell(index, level):  # type: ignore[no-untyped-def]
    """The cell at a place on the curve; the reverse of :func:`hilbert_index`."""
    x = y = 0
    for bit in range(level):
        quarter = (index >> (2 * bit)) & 3
        right = quarter >> 1
        down = (quarter ^ right) & 1
        if not down:
            if right:
                last = (1 << bit) - 1
                x, y = last - x, last - y
            x, y = y, x
        x |= right << bit
        y |= down << bit
    return x, y


def tile_box(index: int, zoom: int) -> tuple[int, int, int, int]:
    """West, north, east and south in steps of the tile at a place on the curve of a zoom."""
    x, y = hilbert_cell(index, zoom)
    side = WORLD >> zoom
    return x * side, y * side, (x + 1) * side, (y + 1) * side


@njit(cache=True, nogil=True)
def hilbert_keys(box):  # type: ignore[no-untyped-def]
    """Places on the curve of the middles of boxes (west, north, east, south), int64 ``(n,)``."""
    keys = np.empty(len(box), np.int64)
    for i in range(len(box)):
        x = (np.int64(box[i, 0]) + np.int64(box[i, 2])) >> 1
        y = (np.int64(box[i, 1]) + np.int64(box[i, 3])) >> 1
        keys[i] = hilbert_index(x, y, LEVELS)
    return keys


@njit(cache=True, nogil=True)
def shared_bits(one, other):  # type: ignore[no-untyped-def]
    """Leading bits that two keys have in common.

    Two bits are a zoom: with 10 bits in common both lie in the same tile of zoom 5.
    """
    differing = one ^ other
    bits = 2 * LEVELS
    while differing > 0:
        differing >>= 1
        bits -= 1
    return bits
