"""The sample world's places: made-up geographies and towns of building footprints.

Belongs here: synthetic census polygons, nested exactly, and synthetic buildings along streets.
Does not belong here: real footprints and borders, files, and which building lies in which block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import bbox_array, wkb_array
from ocr_assets.regions.footprints import Footprints
from ocr_assets.regions.geographies import (
    CODE_LENGTH,
    LEVELS,
    NATION,
    STATES,
    Level,
    geography_schema,
)
from ocr_assets.regions.grid import Window
from ocr_assets.sample.rasters import METRES_PER_LATITUDE, METRES_PER_LONGITUDE
from ocr_assets.vector import Bounds

Floats = NDArray[np.float64]

# Blocks to a side of a tract, tracts to a side of a county, county rows and columns.
_BLOCKS, _TRACTS, _COUNTY_ROWS, _COUNTY_COLS = 4, 3, 2, 3

# Real state codes, because readers refuse others, with county codes that no real county has.
_STATES = ("08", "56")
_FIRST_COUNTY = 901
_COUNTY_NAMES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir")

_LOT, _STREET, _SETBACK = 24.0, 76.0, 18.0
_LOT_AREA = _LOT * _STREET / 2
_RURAL_SHARE = 0.08
_L_SHAPES = 0.1
_TOWN_INSET = 0.06


def synthetic_geographies(window: Window, seed: int) -> dict[Level, pa.Table]:
    """Blocks, tracts, counties, two states and a nation that tile ``window`` without gaps.

    Tables of :func:`ocr_assets.regions.geographies.geography_schema` by level, in order of GEOID.
    Neighbours share their vertices, and each polygon is the union of those one level below.
    """
    rows, cols = _BLOCKS * _TRACTS * _COUNTY_ROWS, _BLOCKS * _TRACTS * _COUNTY_COLS
    west, south, east, north = window.bounds
    corners = np.stack(
        np.meshgrid(np.linspace(west, east, cols + 1), np.linspace(south, north, rows + 1)), -1
    )
    reach = 0.3 * np.array([(east - west) / cols, (north - south) / rows])
    shift = np.random.default_rng(seed).uniform(-1, 1, corners.shape) * reach
    corners[1:-1, 1:-1] += shift[1:-1, 1:-1]
    rings = np.stack(
        [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2
    )
    blocks = np.asarray(shapely.polygons(shapely.linearrings(rings.reshape(-1, 4, 2))))
    codes = np.array([_block_code(row, col) for row in range(rows) for col in range(cols)])
    order = np.argsort(codes)
    shapes, codes = blocks[order], codes[order]
    tables = {}
    for level in LEVELS:
        parents, first = np.unique(
            [code[: CODE_LENGTH[level]] for code in codes], return_index=True
        )
        if level != "block":
            shapes = np.array(
                [shapely.coverage_union_all(group) for group in np.split(shapes, first[1:])]
            )
        codes = parents
        tables[level] = _geography_table(level, codes, shapes)
    return tables


def _block_code(row: int, col: int) -> str:
    tract_row, tract_col = row // _BLOCKS, col // _BLOCKS
    county_row, county_col = tract_row // _TRACTS, tract_col // _TRACTS
    # The last column of counties is the second state.
    state = int(county_col == _COUNTY_COLS - 1)
    in_state = county_row if state else county_row * (_COUNTY_COLS - 1) + county_col
    tract = (tract_row % _TRACTS) * _TRACTS + tract_col % _TRACTS + 1
    block = (row % _BLOCKS) * _BLOCKS + col % _BLOCKS
    county = _FIRST_COUNTY + 2 * in_state
    return f"{_STATES[state]}{county:03d}{tract * 100:06d}{1000 + block:04d}"


def _geography_table(
    level: Level, codes: NDArray[np.str_], shapes: NDArray[np.object_]
) -> pa.Table:
    columns: dict[str, Any] = {
        "GEOID": [NATION] if level == "nation" else codes.tolist(),
        "geometry": wkb_array(shapes),
        "bbox": bbox_array(shapes),
    }
    if level == "county":
        columns["NAME"] = [f"Synthetic {name}" for name in _COUNTY_NAMES[: len(codes)]]
    elif level in ("state", "nation"):
        columns["NAME"] = [f"Synthetic {code or NATION}" for code in codes.tolist()]
    if level == "state":
        columns["STUSPS"] = [STATES[code] for code in codes.tolist()]
    schema = geography_schema(level)
    return pa.table([columns[name] for name in schema.names], schema=schema)


@dataclass(frozen=True)
class _Town:
    longitude: float
    latitude: float
    buildings: int

    @property
    def radius(self) -> float:
        """Metres from the centre to the last street."""
        return float(np.sqrt(self.buildings * _LOT_AREA * 1.3 / np.pi))


def synthetic_buildings(
    window: Window,
    crossings: Sequence[tuple[float, float]],
    count: int,
    seed: int,
    unbuilt: Bounds | None = None,
) -> Footprints:
    """About ``count`` footprints in ``window``: towns with streets, and scattered houses.

    Rotated rectangles and some L-shapes, in degrees, with ids but no codes. ``crossings`` are
    places (longitude, latitude) that get the first towns, such as corners where regions meet; none
    may be in or near ``unbuilt``, where nothing is built.
    """
    random = np.random.default_rng(seed)
    scattered = round(count * _RURAL_SHARE)
    towns = _towns(window, crossings, count - scattered, unbuilt, random)
    west, south, east, north = window.bounds
    x = [random.uniform(west, east, scattered)]
    y = [random.uniform(south, north, scattered)]
    angle = [random.uniform(0, np.pi, scattered)]
    for town in towns:
        east_m, north_m, turned = _lots(town, random)
        x.append(town.longitude + east_m / METRES_PER_LONGITUDE)
        y.append(town.latitude + north_m / METRES_PER_LATITUDE)
        angle.append(np.full(town.buildings, turned))
    shapes = _outlines(np.concatenate(x), np.concatenate(y), np.concatenate(angle), random)
    if unbuilt is not None:
        shapes = shapes[~shapely.intersects(shapes, shapely.box(*unbuilt))]
    unknown = pa.nulls(len(shapes), pa.string())
    return Footprints(shapes, _identifiers(len(shapes), random), unknown, unknown, unknown, 0, 0)


def _identifiers(count: int, random: np.random.Generator) -> pa.Array:
    digits = random.bytes(16 * count).hex()
    # The form of a random UUID, as the identifiers of the real footprints have it.
    return pa.array(
        f"{one[:8]}-{one[8:12]}-4{one[13:16]}-a{one[17:20]}-{one[20:]}"
        for one in (digits[start : start + 32] for start in range(0, 32 * count, 32))
    )


def _towns(
    window: Window,
    crossings: Sequence[tuple[float, float]],
    count: int,
    unbuilt: Bounds | None,
    random: np.random.Generator,
) -> list[_Town]:
    number = max(len(crossings), 1, count // 600)
    weights = random.lognormal(0, 0.6, number)
    sizes = np.diff(np.round(np.cumsum(np.concatenate([[0], weights])) / weights.sum() * count))
    west, south, east, north = window.bounds
    reserved = shapely.box(*unbuilt) if unbuilt is not None else shapely.Point()
    towns: list[_Town] = []
    while len(towns) < number:
        if len(towns) < len(crossings):
            longitude, latitude = crossings[len(towns)]
        else:
            across, up = random.uniform(_TOWN_INSET, 1 - _TOWN_INSET, 2)
            longitude, latitude = west + across * (east - west), south + up * (north - south)
        town = _Town(longitude, latitude, int(sizes[len(towns)]))
        reach = town.radius / METRES_PER_LONGITUDE
        if not shapely.dwithin(shapely.Point(longitude, latitude), reserved, reach):
            towns.append(town)
    return towns


def _lots(town: _Town, random: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Metres east and north of the town centre for each building, and the streets' direction."""
    reach = int(np.ceil(town.radius / _LOT)) + 2
    along = np.arange(-reach, reach + 1)
    along = along[along % 8 != 0] * _LOT
    streets = int(np.ceil(town.radius / _STREET)) + 1
    centre_lines = np.arange(-streets, streets + 1) * _STREET
    across = np.concatenate([centre_lines - _SETBACK, centre_lines + _SETBACK])
    lot_x, lot_y = (axis.ravel() for axis in np.meshgrid(along, across))
    # The town thins out towards its edge.
    order = np.argsort(np.hypot(lot_x, lot_y) * random.uniform(0.8, 1.2, lot_x.size))
    chosen = order[: town.buildings]
    lot_x = lot_x[chosen] + random.uniform(-2, 2, chosen.size)
    lot_y = lot_y[chosen] + random.uniform(-2, 2, chosen.size)
    turned = random.uniform(0, np.pi / 2)
    cos, sin = np.cos(turned), np.sin(turned)
    return lot_x * cos - lot_y * sin, lot_x * sin + lot_y * cos, float(turned)


def _outlines(
    x: Floats, y: Floats, angle: Floats, random: np.random.Generator
) -> NDArray[np.object_]:
    half_length, half_width = random.uniform(4.5, 8, x.size), random.uniform(3.5, 5.5, x.size)
    angle = angle + random.normal(0, 0.03, x.size)
    rectangle = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    l_shape = np.array([(-1, -1), (1, -1), (1, 0), (0.1, 0), (0.1, 1), (-1, 1)], float)
    l_shaped = random.random(x.size) < _L_SHAPES
    shapes = np.empty(x.size, object)
    for mask, outline in ((~l_shaped, rectangle), (l_shaped, l_shape)):
        along = half_length[mask, None] * outline[:, 0]
        across = half_width[mask, None] * outline[:, 1]
        cos, sin = np.cos(angle[mask, None]), np.sin(angle[mask, None])
        east = x[mask, None] + (along * cos - across * sin) / METRES_PER_LONGITUDE
        north = y[mask, None] + (along * sin + across * cos) / METRES_PER_LATITUDE
        shapes[mask] = shapely.polygons(shapely.linearrings(np.stack([east, north], -1)))
    return shapes
