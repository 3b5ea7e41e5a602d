"""The tile grid: which tiles there are, where each lies, and its pixels.

Belongs here: tile ids, the look-up of centres and membership, the tiles a geometry touches, and
the projected pixel grid of a tile.
Does not belong here: how people ask for tiles (``requests.py``), and reading imagery.

The grid is that of the published tree-cover tiles: 2,943,795 squares of 1/18 degree on land, each
named by two whole numbers, like ``1035X727Y``. Numbers follow longitude and latitude but not by
one formula: there are gaps, two phases, and centres rounded to four decimals. So the grid is a
look-up: the longitude of a centre depends on ``x`` alone, its latitude on ``y`` and on the phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

YEARS = range(2015, 2041)
"""Years that can be asked for, from the first Sentinel-2 images on."""

CELL = 1 / 360
"""Degrees. Boxes around a centre are counted in these cells, about 300 m at the equator."""

DATA_CELLS, SURVEY_CELLS = 10, 150
"""Cells from the centre to the edge of a tile, and of the box in which clouds are surveyed."""

PIXEL, COARSEST_PIXEL = 10, 40
"""Metres. The corners of a tile's pixel grid are whole multiples of the coarsest pixel."""

_KEY = re.compile(r"\s*(-?[0-9]{1,9})X(-?[0-9]{1,9})Y\s*")

# From this x on the grid has its second phase: the Eastern Hemisphere beyond 51 degrees.
_SECOND_PHASE = 5000

_SHIPPED = Path(__file__).with_name("grid.npz")

# Boxes that are made at once when geometries are searched; bounds the memory to about 150 MB.
_BOXES = 100_000


class UnknownTileError(ValueError):
    """A text that is no tile id, or a tile that is not in the grid."""


@dataclass(frozen=True, order=True, slots=True)
class Tile:
    """A tile by its two numbers, in the order of ``x``, then ``y``."""

    x: int
    y: int

    @property
    def key(self) -> str:
        """Its id, like ``1035X727Y``."""
        return f"{self.x}X{self.y}Y"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The tile that ``text`` names, spaces around it allowed.

        Raises:
            UnknownTileError: ``text`` is anything else. It says nothing about the grid.
        """
        found = _KEY.fullmatch(text)
        if found is None:
            shown = repr(text if len(text) <= 60 else f"{text[:60]}…")
            raise UnknownTileError(f"{shown} is not a tile id like 1035X727Y")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, eq=False)
class TileGrid:
    """The set of tiles and their centres.

    Attributes:
        longitude: degrees by ``x``, NaN where no tile has that ``x``, float64 ``(7295,)``.
        latitude: degrees by phase and ``y``, NaN where there is none, float64 ``(2, 1921)``.
        members: whether a tile is in the grid, a bit each. Byte ``(x // 8, y)`` holds the tiles of
            eight ``x``, the smallest in its most significant bit; uint8 ``(912, 1921)``.
    """

    longitude: NDArray[np.float64] = field(repr=False)
    latitude: NDArray[np.float64] = field(repr=False)
    members: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def load(cls) -> TileGrid:
        """The grid that this package ships; read once per process."""
        return _shipped()

    @classmethod
    def from_columns(
        cls,
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        longitude: NDArray[np.float64],
        latitude: NDArray[np.float64],
    ) -> TileGrid:
        """Make a grid from a table of its tiles: columns of equal length, one row per tile.

        This is how the shipped file was made, from the columns ``X_tile``, ``Y_tile``, ``X`` and
        ``Y`` of the published ``tiledb.parquet``.

        Raises:
            ValueError: two tiles of the same ``x`` differ in longitude, or two of the same ``y``
                and phase in latitude.
        """
        phase = (x >= _SECOND_PHASE).astype(np.intp)
        by_x = np.full(int(x.max()) + 1, np.nan)
        by_y = np.full((2, int(y.max()) + 1), np.nan)
        by_x[x] = longitude
        by_y[phase, y] = latitude
        if not (np.array_equal(by_x[x], longitude) and np.array_equal(by_y[phase, y], latitude)):
            raise ValueError("the centres of the tiles do not form rows and columns")
        member = np.zeros((len(by_x), len(by_y[0])), bool)
        member[x, y] = True
        return cls(by_x, by_y, np.packbits(member, axis=0))

    def save(self, path: Path) -> None:
        """Write the grid as compressed NumPy arrays; the same grid gives the same bytes."""
        np.savez_compressed(
            path, longitude=self.longitude, latitude=self.latitude, members=self.members
        )

    def __len__(self) -> int:
        return int(np.bitwise_count(self.members).sum(dtype=np.int64))

    def __contains__(self, tile: object) -> bool:
        return isinstance(tile, Tile) and bool(
            self.contains(np.array([tile.x]), np.array([tile.y]))[0]
        )

    def contains(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the tiles ``(x, y)`` are in the grid, shape of ``x``."""
        inside = (x >= 0) & (x < len(self.longitude)) & (y >= 0) & (y < self.members.shape[1])
        column, row = np.where(inside, x, 0), np.where(inside, y, 0)
        bit = (self.members[column >> 3, row] >> (7 - (column & 7)).astype(np.uint8)) & 1
        return inside & (bit == 1)

    def centres(
        self, x: NDArray[np.int64], y: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude in degrees of the centres of tiles that are in the grid.

        Raises:
            UnknownTileError: a tile is not in the grid.
        """
        outside = ~self.contains(x, y)
        if outside.any():
            first = int(np.argmax(outside))
            raise UnknownTileError(f"tile {x[first]}X{y[first]}Y is not in the grid")
        return self.longitude[x], self.latitude[(x >= _SECOND_PHASE).astype(np.intp), y]

    def centre(self, tile: Tile) -> tuple[float, float]:
        """Longitude and latitude in degrees of the centre of ``tile``.

        Raises:
            UnknownTileError: ``tile`` is not in the grid.
        """
        longitude, latitude = self.centres(np.array([tile.x]), np.array([tile.y]))
        return float(longitude[0]), float(latitude[0])

    def bbox(self, tile: Tile, cells: int = DATA_CELLS) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees of the box ``cells`` around the centre of ``tile``.

        With :data:`SURVEY_CELLS` the box of the easternmost tiles reaches beyond 180 degrees.

        Raises:
            UnknownTileError: ``tile`` is not in the grid.
        """
        longitude, latitude = self.centre(tile)
        reach = cells * CELL
        return longitude - reach, latitude - reach, longitude + reach, latitude + reach

    def tiles_in(self, geometry: shapely.Geometry) -> list[Tile]:
        """The tiles whose data box touches ``geometry`` (EPSG:4326, valid), in order."""
        _, x, y = self.tiles_of([geometry])
        return sorted(map(Tile, x.tolist(), y.tolist()))

    def tiles_of(
        self, geometries: Sequence[shapely.Geometry] | NDArray[np.object_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The tiles whose data box touches each of the ``geometries`` (EPSG:4326, valid).

        Returns:
            Position of the geometry, ``x`` and ``y``, one row for each pair that touches, in the
            order of the geometries.
        """
        shapes = np.asarray(geometries, object)
        shapely.prepare(shapes)
        found = [np.zeros((3, 0), np.int64)]
        for which, x, y in self._candidates(shapes):
            longitude, latitude = self.centres(x, y)
            reach = DATA_CELLS * CELL
            boxes = shapely.box(
                longitude - reach, latitude - reach, longitude + reach, latitude + reach
            )
            touching = shapely.intersects(shapes[which], boxes)
            found.append(np.stack([which, x, y])[:, touching])
        index, x, y = np.concatenate(found, axis=1)
        return index, x, y

    def count_candidates(self, geometries: NDArray[np.object_]) -> int:
        """How many boxes :meth:`tiles_of` has to look at, at most."""
        first, last = self._columns(shapely.bounds(geometries))
        low, high = self._rows(shapely.bounds(geometries))
        rows = np.maximum(high - low, 0).max(axis=0, initial=0)
        return int((np.maximum(last - first, 0) * rows).sum())

    @cached_property
    def _known_x(self) -> NDArray[np.int64]:
        """Every ``x`` that tiles have, which is also the order of longitude."""
        return np.flatnonzero(np.isfinite(self.longitude))

    @cached_property
    def _known_y(self) -> list[NDArray[np.int64]]:
        """The same for ``y``, in each phase."""
        return [np.flatnonzero(np.isfinite(latitude)) for latitude in self.latitude]

    def _columns(self, bounds: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Half-open runs in :attr:`_known_x` that touch boxes ``(n, 4)``."""
        return _touching(self.longitude[self._known_x], bounds[:, 0], bounds[:, 2])

    def _rows(self, bounds: NDArray[np.float64]) -> NDArray[Any]:
        """Half-open runs in :attr:`_known_y` that touch boxes, shape ``(2 ends, 2 phases, n)``."""
        runs = [
            _touching(latitude[known], bounds[:, 1], bounds[:, 3])
            for latitude, known in zip(self.latitude, self._known_y, strict=True)
        ]
        return np.stack(runs, axis=1)

    def _candidates(
        self, shapes: NDArray[np.object_]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Tiles near each shape's bounding box, in batches of position, ``x`` and ``y``."""
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        first, last = self._columns(bounds)
        low, high = self._rows(bounds)
        widths = np.maximum(last - first, 0)
        for part in _batches(widths, _BOXES):
            # A strip is one column of tiles within the bounding box of one shape.
            strip_of = part.start + np.repeat(np.arange(len(widths[part])), widths[part])
            x = self._known_x[first[strip_of] + _counted(widths[part])]
            phase = (x >= _SECOND_PHASE).astype(np.intp)
            bottom = low[phase, strip_of]
            heights = np.maximum(high[phase, strip_of] - bottom, 0)
            for strips in _batches(heights, _BOXES):
                tall = heights[strips]
                place = np.repeat(bottom[strips], tall) + _counted(tall)
                which, columns = np.repeat(strip_of[strips], tall), np.repeat(x[strips], tall)
                y = np.where(
                    columns >= _SECOND_PHASE,
                    self._known_y[1].take(place, mode="clip"),
                    self._known_y[0].take(place, mode="clip"),
                )
                member = self.contains(columns, y)
                yield which[member], columns[member], y[member]


@cache
def _shipped() -> TileGrid:
    with np.load(_SHIPPED) as file:
        return TileGrid(file["longitude"], file["latitude"], file["members"])


def _touching(
    centres: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Half-open runs of ascending ``centres`` whose data boxes touch ``low`` to ``high``."""
    reach = DATA_CELLS * CELL
    return (
        np.searchsorted(centres + reach, low, "left"),
        np.searchsorted(centres - reach, high, "right"),
    )


def _counted(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … up to each of ``lengths``, one run after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _batches(sizes: NDArray[np.int64], largest: int) -> Iterator[slice]:
    """Cut into runs of at most ``largest`` in sum, or of a single element that exceeds it."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + largest, "right")), start + 1)
        yield slice(start, stop)
        start = stop


def tile_geobox(grid: TileGrid, tile: Tile) -> GeoBox:
    """The pixel grid of ``tile``: UTM, 10 m, covering its data box.

    Corners are whole multiples of 40 m, so height and width in pixels are multiples of four, and
    grids of 20 m and 40 m made from it share its corners.

    Raises:
        UnknownTileError: ``tile`` is not in the grid.
    """
    from affine import Affine
    from odc.geo.geobox import GeoBox

    epsg = utm_zone(*grid.centre(tile))
    west, south, east, north = _to_utm(epsg).transform_bounds(*grid.bbox(tile), densify_pts=21)
    left, bottom = (np.floor(edge / COARSEST_PIXEL) * COARSEST_PIXEL for edge in (west, south))
    right, top = (np.ceil(edge / COARSEST_PIXEL) * COARSEST_PIXEL for edge in (east, north))
    shape = round((top - bottom) / PIXEL), round((right - left) / PIXEL)
    return GeoBox(shape, Affine(PIXEL, 0, left, 0, -PIXEL, top), f"EPSG:{epsg}")


def utm_zone(longitude: float, latitude: float) -> int:
    """EPSG code of the UTM zone that a point in degrees lies in."""
    zone = min(int((longitude + 180) // 6) + 1, 60)
    return (32600 if latitude >= 0 else 32700) + zone


@cache
def _to_utm(epsg: int) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)
