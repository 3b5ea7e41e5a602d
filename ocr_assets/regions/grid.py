"""The region grid: which pixel is where, and which region it belongs to.

Belongs here: pixel and region arithmetic on the 30 m geographic grid, with no data and no I/O.
Does not belong here: anything that reads or writes a raster.

Every window is expressed in *absolute* pixel indices of the CONUS grid, also in a smaller
:class:`RegionGrid`. What is computed for a pixel can therefore depend on where the pixel is, and
never on how the grid was cut into regions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

CRS = "EPSG:4326"

STEP = 0.00030799387843671866
"""Pixel size in degrees on both axes (about 34.25 m north-south, 27.0 m east-west at 38 N)."""

WEST, SOUTH = -128.3875562194317, 22.428114227623333
"""Outer corner of pixel (0, 0) in degrees. Rows ascend northwards."""

CONUS_ROWS, CONUS_COLS = 97_579, 208_881

_REGION_ID = re.compile(r"y(0|[1-9]\d*)_x(0|[1-9]\d*)")

# Region columns that hold data, as inclusive runs for each region row of the CONUS grid.
_CONUS_VALID: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((21, 22), (32, 34)),
    2: ((20, 22), (32, 34)),
    3: ((17, 28), (30, 34)),
    4: ((11, 34),),
    5: ((6, 35),),
    6: ((5, 38),),
    7: ((4, 38),),
    8: ((3, 38),),
    9: ((2, 40),),
    10: ((2, 42),),
    11: ((2, 33), (35, 44)),
    12: ((3, 33), (38, 44)),
    13: ((2, 31), (42, 43)),
    14: ((2, 26), (28, 28)),
}


class UnknownRegionError(ValueError):
    """A region id that does not parse, lies outside the grid, or holds no data."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, half-open, in absolute indices of the CONUS grid."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Pixel-centre latitudes in degrees, ascending, shape ``(rows,)``."""
        return row_latitude(np.arange(self.row_start, self.row_stop))

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Pixel-centre longitudes in degrees, ascending, shape ``(cols,)``."""
        return col_longitude(np.arange(self.col_start, self.col_stop))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Outer pixel edges in degrees as ``(west, south, east, north)``."""
        return (
            WEST + self.col_start * STEP,
            SOUTH + self.row_start * STEP,
            WEST + self.col_stop * STEP,
            SOUTH + self.row_stop * STEP,
        )

    def buffer(self, rows: int, cols: int, within: Window | None = None) -> Window:
        """Grow by ``rows`` and ``cols`` on every side, cut to ``within`` if given."""
        grown = Window(
            self.row_start - rows, self.row_stop + rows, self.col_start - cols, self.col_stop + cols
        )
        return grown if within is None else grown.intersection(within)

    def intersection(self, other: Window) -> Window:
        """The pixels in both; raises ValueError if there are none."""
        window = Window(
            max(self.row_start, other.row_start),
            min(self.row_stop, other.row_stop),
            max(self.col_start, other.col_start),
            min(self.col_stop, other.col_stop),
        )
        if min(window.shape) <= 0:
            raise ValueError(f"windows {self} and {other} do not overlap")
        return window

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Row and column slices that cut this window out of an array covering ``outer``."""
        if self.intersection(outer) != self:
            raise ValueError(f"window {self} is not inside {outer}")
        return (
            slice(self.row_start - outer.row_start, self.row_stop - outer.row_start),
            slice(self.col_start - outer.col_start, self.col_stop - outer.col_start),
        )


CONUS_WINDOW = Window(0, CONUS_ROWS, 0, CONUS_COLS)


def row_latitude(row: NDArray[np.integer[Any]] | int) -> NDArray[np.float64]:
    """Latitude in degrees of the centre of absolute pixel row(s)."""
    return SOUTH + (np.asarray(row) + 0.5) * STEP


def col_longitude(col: NDArray[np.integer[Any]] | int) -> NDArray[np.float64]:
    """Longitude in degrees of the centre of absolute pixel column(s)."""
    return WEST + (np.asarray(col) + 0.5) * STEP


def pixel_of(
    longitude: NDArray[np.float64], latitude: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Absolute ``(row, col)`` of the pixel that contains each point (degrees, any shape).

    A point on a shared edge belongs to the pixel north or east of it. Points outside the grid get
    indices outside it; NaN gets ``(-1, -1)``.
    """
    row = np.floor((np.asarray(latitude, np.float64) - SOUTH) / STEP)
    col = np.floor((np.asarray(longitude, np.float64) - WEST) / STEP)
    missing = np.isnan(row) | np.isnan(col)
    return (
        np.where(missing, -1, row).astype(np.int64),
        np.where(missing, -1, col).astype(np.int64),
    )


@dataclass(frozen=True)
class RegionGrid:
    """A window of the CONUS pixel grid cut into regions of equal size.

    Region ``y{iy}_x{ix}`` counts from the window's south-west corner; the last row and column of
    regions may be smaller. ``valid`` lists the ids that hold data, in partition order (rows of
    regions from the south, each from the west), so that neighbours are re-run together.
    """

    name: str
    window: Window
    region_rows: int
    region_cols: int
    valid: tuple[str, ...]

    def __post_init__(self) -> None:
        self.window.slices_in(CONUS_WINDOW)
        if self.region_rows < 1 or self.region_cols < 1:
            raise ValueError(
                f"region size must be positive, found {self.region_rows} x {self.region_cols}"
            )
        known = {id_: order for order, id_ in enumerate(self)}
        if unknown := [id_ for id_ in self.valid if id_ not in known]:
            raise UnknownRegionError(
                f"grid {self.name!r} lists {unknown[0]!r} as valid but has {self.shape[0]} x "
                f"{self.shape[1]} regions (y0_x0 to y{self.shape[0] - 1}_x{self.shape[1] - 1})"
            )
        if list(self.valid) != sorted(set(self.valid), key=known.__getitem__):
            raise ValueError(f"valid regions of grid {self.name!r} repeat or are out of order")

    @property
    def shape(self) -> tuple[int, int]:
        """Number of region rows and region columns."""
        rows, cols = self.window.shape
        return -(-rows // self.region_rows), -(-cols // self.region_cols)

    def __iter__(self) -> Iterator[str]:
        """Every region id, valid or not, in partition order."""
        rows, cols = self.shape
        return (f"y{iy}_x{ix}" for iy in range(rows) for ix in range(cols))

    @cached_property
    def _valid(self) -> frozenset[str]:
        return frozenset(self.valid)

    def region_window(self, region_id: str) -> Window:
        """Pixels of a region; raises :class:`UnknownRegionError` if it is not in the grid."""
        match = _REGION_ID.fullmatch(region_id)
        iy, ix = (int(part) for part in match.groups()) if match else (-1, -1)
        if not (0 <= iy < self.shape[0] and 0 <= ix < self.shape[1]):
            raise UnknownRegionError(
                f"unknown region {region_id!r}: grid {self.name!r} has y0_x0 to "
                f"y{self.shape[0] - 1}_x{self.shape[1] - 1}; an id looks like 'y9_x16'"
            )
        row = self.window.row_start + iy * self.region_rows
        col = self.window.col_start + ix * self.region_cols
        return Window(row, row + self.region_rows, col, col + self.region_cols).intersection(
            self.window
        )

    def require_valid(self, region_id: str) -> str:
        """Return ``region_id`` if it is in the grid and holds data, else raise."""
        self.region_window(region_id)
        if region_id not in self._valid:
            raise UnknownRegionError(
                f"region {region_id!r} holds no data in grid {self.name!r}; "
                f"its {len(self.valid)} valid regions run from {self.valid[0]} to {self.valid[-1]}"
            )
        return region_id

    def region_at(
        self, longitude: NDArray[np.float64], latitude: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Region of each point (degrees) as ``iy * shape[1] + ix``, or -1 outside the grid.

        Each point inside the grid has exactly one region: the one that holds its pixel.
        """
        row, col = pixel_of(longitude, latitude)
        inside = (
            (row >= self.window.row_start)
            & (row < self.window.row_stop)
            & (col >= self.window.col_start)
            & (col < self.window.col_stop)
        )
        iy = (row - self.window.row_start) // self.region_rows
        ix = (col - self.window.col_start) // self.region_cols
        return np.where(inside, iy * self.shape[1] + ix, -1)

    def regions_in(self, bounds: tuple[float, float, float, float]) -> list[str]:
        """Valid regions that overlap ``(west, south, east, north)`` in degrees."""
        west, south, east, north = bounds
        found = []
        for region_id in self.valid:
            w, s, e, n = self.region_window(region_id).bounds
            if w < east and e > west and s < north and n > south:
                found.append(region_id)
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description that :meth:`from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> RegionGrid:
        """The grid of a :meth:`to_dict` description; a wrong key or value raises ValueError."""
        try:
            return cls(
                name=str(description["name"]),
                window=Window(**description["window"]),
                region_rows=int(description["region_rows"]),
                region_cols=int(description["region_cols"]),
                valid=tuple(description["valid"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a region grid description: {error}") from error


CONUS = RegionGrid(
    name="conus",
    window=CONUS_WINDOW,
    region_rows=6000,
    region_cols=4500,
    valid=tuple(
        f"y{iy}_x{ix}"
        for iy, runs in _CONUS_VALID.items()
        for first, last in runs
        for ix in range(first, last + 1)
    ),
)
