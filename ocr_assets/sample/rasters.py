"""The sample world's rasters: made-up values on the true grids of the input datasets.

Belongs here: the lattices of the real datasets, and synthetic rasters on them under a window.
Does not belong here: buildings, geographies, and the shape of the fields themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.grid import Window
from ocr_assets.regions.inputs import (
    BURN_PROBABILITY_30M,
    CELL_270M,
    CONDITIONAL_RISK,
    PROJECTED_CRS,
)
from ocr_assets.regions.resample import SourceRaster, nearest
from ocr_assets.regions.risk import CLIMATES
from ocr_assets.sample import fields
from ocr_assets.sample.fields import Axis

WIND_CRS = (
    "+proj=lcc +lat_1=30 +lat_2=50 +lat_0=39.1 +lon_0=-97.9 +x_0=0 +y_0=0 +R=6370000 +units=m "
    "+no_defs"
)
"""Lambert conformal conic on a sphere, as the CONUS404 weather model uses it."""

WIND_CELL = 4_000.0
ALBERS_WEST, ALBERS_NORTH = -2_362_395.0, 3_267_405.0
"""Outer corner of the national 30 m and 270 m cells in EPSG:5070 metres."""

MARGIN_DEGREES = 0.2
"""How far the coarse rasters reach beyond the window, more than any region's halo."""

TOWN_BUILDINGS = 40
"""Buildings in one 270 m cell from which the cell counts as built-up and cannot burn."""

BURNABLE, WATER, TOWN, ROCK = 0, 1, 2, 3

# Metres per degree near 40 N: good enough to give made-up fields a natural scale.
METRES_PER_LONGITUDE, METRES_PER_LATITUDE = 85_300.0, 111_000.0


@dataclass(frozen=True)
class DataEdge:
    """A straight border in longitude and latitude beyond which rasters hold no data.

    Runs from (``west``, ``north``) to (``east``, ``south``); what is north-east of it is empty.
    """

    west: float
    south: float
    east: float
    north: float

    def beyond(
        self, longitude: NDArray[np.float64], latitude: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether points (degrees, broadcast together) lie beyond the border."""
        across = (longitude - self.west) / (self.east - self.west)
        up = (latitude - self.south) / (self.north - self.south)
        return across + up > 1


@dataclass(frozen=True)
class CoarseRasters:
    """Burn probability at 270 m and wind in fire weather at 4 km, as opened inputs look."""

    burn_probability: dict[int, xr.Dataset]
    land: NDArray[np.uint8]
    wind: xr.Dataset


def coarse_rasters(
    window: Window,
    longitude: NDArray[np.float64],
    latitude: NDArray[np.float64],
    edge: DataEdge | None,
    seed: int,
) -> CoarseRasters:
    """Rasters on their native grids over ``window`` and :data:`MARGIN_DEGREES` around it.

    ``longitude`` and ``latitude`` are points of the buildings: where they crowd, nothing burns.
    """
    west, south, east, north = window.bounds
    bounds = (
        west - MARGIN_DEGREES,
        south - MARGIN_DEGREES,
        east + MARGIN_DEGREES,
        north + MARGIN_DEGREES,
    )
    to_albers = Transformer.from_crs(region_grid.CRS, PROJECTED_CRS, always_xy=True)
    left, bottom, right, top = to_albers.transform_bounds(*bounds, densify_pts=101)
    cols = _cells((left - ALBERS_WEST) / CELL_270M, (right - ALBERS_WEST) / CELL_270M)
    rows = _cells((ALBERS_NORTH - top) / CELL_270M, (ALBERS_NORTH - bottom) / CELL_270M)
    x = ALBERS_WEST + (cols + 0.5) * CELL_270M
    y = ALBERS_NORTH - (rows + 0.5) * CELL_270M
    built = to_albers.transform(longitude, latitude)
    land = _land(rows, cols, x, y, built, seed)
    probability = fields.burn_probability(x, y, seed)
    for climate, values in probability.items():
        values[land != BURNABLE] = 0
        # A few cells burn in one climate only.
        values[fields.scatter(rows, cols, seed + climate) < 0.001] = 0
        if edge is not None:
            grid_x, grid_y = np.meshgrid(x, y)
            lon, lat = to_albers.transform(grid_x, grid_y, direction="INVERSE")
            values[edge.beyond(lon, lat)] = np.nan
    return CoarseRasters(
        {
            climate: _dataset({"BP": (("y", "x"), values)}, {"y": y, "x": x}, PROJECTED_CRS)
            for climate, values in probability.items()
        },
        land,
        _wind(bounds, seed),
    )


def _cells(low: float, high: float) -> NDArray[np.int64]:
    return np.arange(int(np.floor(low)), int(np.ceil(high)) + 1)


def _land(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    x: Axis,
    y: Axis,
    built: tuple[NDArray[np.float64], NDArray[np.float64]],
    seed: int,
) -> NDArray[np.uint8]:
    land = np.full((y.size, x.size), BURNABLE, np.uint8)
    land[fields.scatter(rows, cols, seed) < 0.004] = ROCK
    land[fields.Waves(seed + 4, 1_500, 15_000).on_grid(x, y) > 1.7] = WATER
    col = np.floor((built[0] - (x[0] - CELL_270M / 2)) / CELL_270M).astype(np.int64)
    row = np.floor(((y[0] + CELL_270M / 2) - built[1]) / CELL_270M).astype(np.int64)
    inside = (col >= 0) & (col < x.size) & (row >= 0) & (row < y.size)
    count = np.bincount(row[inside] * x.size + col[inside], minlength=land.size)
    land[count.reshape(land.shape) >= TOWN_BUILDINGS] = TOWN
    return land


def _wind(bounds: tuple[float, float, float, float], seed: int) -> xr.Dataset:
    to_wind = Transformer.from_crs(region_grid.CRS, WIND_CRS, always_xy=True)
    left, bottom, right, top = to_wind.transform_bounds(*bounds, densify_pts=101)
    cols = _cells(left / WIND_CELL, right / WIND_CELL)
    rows = _cells(bottom / WIND_CELL, top / WIND_CELL)
    x, y = cols * WIND_CELL, rows * WIND_CELL
    share = fields.wind_directions(x, y, seed)
    # Some cells never had fire weather: their shares are all zero.
    calm = fields.scatter(rows, cols, seed) < 0.01
    share[calm] = 0
    angle = np.arange(share.shape[2]) * np.pi / 4
    hours, wind = fields.fire_weather(x, y, seed)
    hazard = {
        "fire_weather_share": np.where(calm, 0, hours),
        "fire_weather_wind_p99": np.where(calm, 0, wind),
        "dominant_direction": np.where(calm, -1, 45 * share.argmax(axis=2)),
        "dominant_share": share.max(axis=2),
        "direction_strength": np.abs((share * np.exp(1j * angle)).sum(axis=2)),
    }
    return _dataset(
        {
            "wind_direction_distribution": (("y", "x", "wind_direction"), share),
            **{name: (("y", "x"), values.astype(np.float32)) for name, values in hazard.items()},
        },
        {"y": y, "x": x},
        WIND_CRS,
    )


def fine_rasters(
    window: Window, coarse: CoarseRasters, edge: DataEdge | None, seed: int
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Values over ``window`` at 30 m, by input dataset and variable.

    Variables are ``BP`` of each climate, and ``CRPS`` and ``RPS`` of the conditional risk. Burn
    probability is the 270 m one, resampled to the nearest cell. Both risks are percent.
    """
    longitude, latitude = window.longitude, window.latitude
    x, y = longitude * METRES_PER_LONGITUDE, latitude * METRES_PER_LATITUDE
    values = {
        (BURN_PROBABILITY_30M[climate], "BP"): _resample(dataset, dataset["BP"].values, window)
        for climate, dataset in coarse.burn_probability.items()
    }
    land = _resample(coarse.burn_probability[CLIMATES[0]], coarse.land.astype(np.float32), window)
    risk = fields.conditional_risk(x, y, seed)
    risk[land == WATER] = 0
    risk[land == TOWN] *= 0.6
    if edge is not None:
        risk[edge.beyond(longitude[None, :], latitude[:, None])] = np.nan
    values[CONDITIONAL_RISK, "RPS"] = values[BURN_PROBABILITY_30M[CLIMATES[0]], "BP"] * risk
    return {**values, (CONDITIONAL_RISK, "CRPS"): risk}


def _resample(source: xr.Dataset, values: NDArray[np.float32], to: Window) -> NDArray[np.float32]:
    raster = SourceRaster(values, source["x"].values, source["y"].values, PROJECTED_CRS)
    return nearest(raster, to)


def _dataset(
    variables: dict[str, tuple[tuple[str, ...], NDArray[np.float32]]],
    coordinates: dict[str, Axis],
    crs: str,
) -> xr.Dataset:
    reference = ((), 0, {"crs_wkt": CRS.from_user_input(crs).to_wkt()})
    return xr.Dataset(variables, {**coordinates, "spatial_ref": reference})
