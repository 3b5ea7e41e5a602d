"""Upwind fire-spread kernels: their geometry on the pixel grid, and where each set applies.

Belongs here: pixel sizes, the elliptical kernels of the eight wind directions, their decomposition
into runs, and the latitude bands that share one set of kernels.
Does not belong here: any array of data; the convolution itself is in ``spread``.

A kernel says from which pixels fire reaches a target: an ellipse of 400 m by 200 m semi-axes, its
long axis along the wind, its centre moved 110 m upwind of the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ocr_assets.regions.grid import CONUS_WINDOW, STEP, Window, row_latitude

Method = Literal["corrected", "published"]
"""``published`` reproduces the published figures; ``corrected`` mends the known faults."""

METHODS: tuple[Method, ...] = ("corrected", "published")

DIRECTIONS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
"""Where the wind comes from, in the order of the wind-direction distribution."""

ITERATIONS = 3
"""Times each kernel is applied: fire reaches about 1.5 km beyond burnable land."""

EARTH_RADIUS = 6_371_000.0
"""Metres, of the sphere on which pixels are measured."""

KERNEL_SIZE = 81
SEMI_MAJOR, SEMI_MINOR, UPWIND_SHIFT = 400.0, 200.0, 110.0
"""Ellipse of one spread step, metres."""

BAND_ROWS = 512
"""Pixel rows that share one kernel set under the corrected method.

Across a band (0.158 degrees) the width of a pixel changes by at most 0.36 % (at 52 N). The edge of
a kernel, at most 25 pixels from its target, therefore lies within 0.05 pixels of where its own row
would put it. Bands twice as tall would save 4 % of the work.
"""

PUBLISHED_BUFFER = 487
"""Pixels (0.15 degrees) by which the published pipeline widens a region on every side."""

_UPWIND = {"N": (1, 0), "NE": (1, 1), "E": (0, 1), "SE": (-1, 1)}
_UPWIND |= {"S": (-1, 0), "SW": (-1, -1), "W": (0, -1), "NW": (1, -1)}


def require_method(method: str) -> None:
    """Raise ValueError if ``method`` is not one of :data:`METHODS`."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: use 'corrected' or 'published'")


def haversine(longitude: float, latitude: float, longitude2: float, latitude2: float) -> float:
    """Great-circle distance in metres between two points in degrees."""
    lon, lat, lon2, lat2 = map(math.radians, (longitude, latitude, longitude2, latitude2))
    half_chord = (
        math.sin((lat2 - lat) / 2) ** 2
        + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    )
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(half_chord))


def pixel_size(latitude: float) -> tuple[float, float]:
    """Height and width in metres of a grid pixel centred on ``latitude`` (degrees)."""
    height = haversine(0.0, latitude, 0.0, latitude + STEP)
    return height, haversine(0.0, latitude, STEP, latitude)


def upwind_mask(
    direction: str, pixel_height: float, pixel_width: float, method: Method
) -> NDArray[np.bool_]:
    """Pixels from which wind out of ``direction`` carries fire to the target.

    Boolean, ``(81, 81)``, rows south to north, target at index 40 of both axes; pixel sizes in
    metres. The edge of the ellipse is inside. The published method reads 81 offsets from -41 to 40
    pixels, which stretches every kernel by 1.25 % and puts the target half a pixel off centre.
    Raises ValueError for an unknown direction or method, or if the ellipse does not cover between
    200 and 500 pixels, which means that the pixels are not about 30 m.
    """
    require_method(method)
    if direction not in _UPWIND:
        raise ValueError(f"unknown wind direction {direction!r}: use one of {DIRECTIONS}")
    half = KERNEL_SIZE // 2
    first = -half - 1 if method == "published" else -half
    axis = np.linspace(first, half, KERNEL_SIZE)
    north, east = _UPWIND[direction]
    shift = UPWIND_SHIFT / math.hypot(north, east)
    dy = axis[:, None] * pixel_height - north * shift
    dx = axis[None, :] * pixel_width - east * shift
    if north and east:
        along = (dx + dy * (north * east)) / math.sqrt(2)
        across = (dy - dx * (north * east)) / math.sqrt(2)
    else:
        along, across = (dy, dx) if north else (dx, dy)
    mask = (along / SEMI_MAJOR) ** 2 + (across / SEMI_MINOR) ** 2 <= 1
    if not 200 < (count := int(mask.sum())) < 500:
        raise ValueError(
            f"the {direction} kernel covers {count} pixels of {pixel_height:.1f} x "
            f"{pixel_width:.1f} m, expected 200 to 500: pixels must be about 30 m"
        )
    return mask


@dataclass(frozen=True, eq=False)
class Kernel:
    """A binary convex kernel as runs of pixels, one run per row or one per column.

    ``runs`` is int64 ``(n, 3)``: the row (or column) offset from the target, and the first and last
    offset of the run in it, inclusive. Along rows or along columns, whichever needs fewer runs.
    """

    count: int
    row_reach: tuple[int, int]
    col_reach: tuple[int, int]
    along_rows: bool
    runs: NDArray[np.int64]

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> Kernel:
        """Decompose a square mask with its target in the middle; ValueError if it has a gap."""
        half = mask.shape[0] // 2
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        along_rows = rows.size <= cols.size
        lines, offsets = (mask, rows) if along_rows else (mask.T, cols)
        runs = np.array(
            [(line, *np.flatnonzero(lines[line])[[0, -1]]) for line in offsets], np.int64
        )
        if int((runs[:, 2] - runs[:, 1] + 1).sum()) != (count := int(mask.sum())):
            raise ValueError("the kernel is not convex: a row or column of it has a gap")
        return cls(
            count=count,
            row_reach=(int(rows[0]) - half, int(rows[-1]) - half),
            col_reach=(int(cols[0]) - half, int(cols[-1]) - half),
            along_rows=along_rows,
            runs=runs - half,
        )


@dataclass(frozen=True, eq=False)
class Band:
    """Absolute pixel rows (half-open) that share one kernel per direction."""

    row_start: int
    row_stop: int
    kernels: tuple[Kernel, ...]


@lru_cache(maxsize=512)
def kernel_set(latitude: float, method: Method) -> tuple[Kernel, ...]:
    """The kernels of :data:`DIRECTIONS` for pixels at ``latitude`` degrees."""
    height, width = pixel_size(latitude)
    return tuple(
        Kernel.from_mask(upwind_mask(direction, height, width, method)) for direction in DIRECTIONS
    )


def kernel_bands(rows: Window, region: Window, method: Method) -> Iterator[Band]:
    """Kernel sets for the pixel rows of ``rows``, south to north.

    Corrected: bands of :data:`BAND_ROWS` absolute rows, each with the kernels of its middle, so
    that they do not depend on ``region``. Published: one set for the whole region, that of the
    centre pixel of ``region`` widened by :data:`PUBLISHED_BUFFER` and cut at the grid's edge.
    """
    require_method(method)
    if method == "published":
        widened = region.buffer(PUBLISHED_BUFFER, PUBLISHED_BUFFER, CONUS_WINDOW)
        centre = widened.row_start + widened.shape[0] // 2
        yield Band(rows.row_start, rows.row_stop, kernel_set(float(row_latitude(centre)), method))
        return
    for start in range(rows.row_start // BAND_ROWS * BAND_ROWS, rows.row_stop, BAND_ROWS):
        middle = float(row_latitude(start) + (BAND_ROWS - 1) / 2 * STEP)
        yield Band(
            max(start, rows.row_start),
            min(start + BAND_ROWS, rows.row_stop),
            kernel_set(middle, method),
        )


def reach(bands: list[Band]) -> tuple[int, int]:
    """Rows and columns from which :data:`ITERATIONS` steps of any kernel may draw, per side."""
    kernels = [kernel for band in bands for kernel in band.kernels]
    return (
        ITERATIONS * max(max(abs(offset) for offset in kernel.row_reach) for kernel in kernels),
        ITERATIONS * max(max(abs(offset) for offset in kernel.col_reach) for kernel in kernels),
    )
