"""Fire-weather wind as a type of risk: how much of it there is, how strong, and from where.

Belongs here: the hazard over a region, its score, and how the type describes itself.
Does not belong here: the statistics of hourly weather that it starts from (``wind_climate.py``).

The hazard counts the hours of fire weather in a year and weights them by wind: one hour at 10 m/s
counts 1, at 20 m/s it counts 2. Wind-driven fires spread about in proportion to the wind, at a
tenth of its speed (Cruz and Alexander 2019), so the hazard is in proportion to how far a fire could
run in a year's fire weather. It lives on 4 km cells; a pixel has the values of the cell under it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ocr_assets.regions.grid import RegionGrid
from ocr_assets.regions.inputs import CONDITIONAL_RISK, RASTERS, WIND, WIND_HAZARD
from ocr_assets.regions.kernels import DIRECTIONS, Method
from ocr_assets.regions.raster_cuts import InputRaster
from ocr_assets.regions.resample import nearest_cells
from ocr_assets.regions.risk_type import (
    NO_SCORE,
    SCORES,
    Classes,
    EmptyRegionError,
    MapRow,
    MapText,
    RiskType,
    RiskVariable,
    Values,
)

HOURS_IN_YEAR = 8766.0
REFERENCE_WIND = 10.0
"""Metres per second at which an hour of fire weather counts one."""

SCORE_EDGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Weighted hours in a year at which scores 2 to 10 begin; compared as float32."""

HIGHEST = HOURS_IN_YEAR * 100.0 / REFERENCE_WIND
"""Hazard of a year of nothing but fire weather with the strongest wind that is believed."""


def wind_hazard(share: Values, wind_p99: Values) -> Values:
    """Hours of fire weather in a year, weighted by wind.

    Args:
        share: of all hours, that is fire weather.
        wind_p99: 0.99 quantile of wind speed in those, m/s; 0 without any.
    """
    return np.asarray(share * HOURS_IN_YEAR * wind_p99 / REFERENCE_WIND, np.float32)


def wind_score(hazard: NDArray[np.floating], method: Method = "corrected") -> NDArray[np.uint8]:
    """Score 0 to 10 of a :func:`wind_hazard`, the same in every method.

    0 is no fire weather at all; the others are divided by :data:`SCORE_EDGES`, each of which
    belongs to the score above it. NaN is :data:`NO_SCORE`.

    Raises:
        ValueError: a hazard is negative.
    """
    hours = np.asarray(hazard, np.float32)
    if (hours < 0).any():
        raise ValueError(
            f"wind hazard is negative ({np.nanmin(hours):g}): expected hours, 0 or more"
        )
    score = np.searchsorted(np.asarray(SCORE_EDGES, np.float32), hours, side="right") + 1
    score = np.where(hours == 0, 0, score)
    return np.where(np.isnan(hours), NO_SCORE, score).astype(np.uint8)


def direction_classes(direction: Values, method: Method = "corrected") -> NDArray[np.uint8]:
    """Class of each dominant direction in degrees, :data:`NO_SCORE` without one (-1 or NaN)."""
    known = direction >= 0
    return np.where(known, np.where(known, direction, 0) / 45.0, NO_SCORE).astype(np.uint8)


def region_wind(
    datasets: Mapping[str, xr.Dataset], grid: RegionGrid, region_id: str, method: Method
) -> dict[str, Values]:
    """The variables of :data:`WIND_RISK` over a region, each float32 of its shape.

    A pixel without conditional risk is beyond the data of the grid and has no value.

    Raises:
        UnknownRegionError: the region holds no data.
        ocr_assets.regions.raster_cuts.InputError: a raster cannot be used.
        EmptyRegionError: no pixel with data lies on a cell with a value.
    """
    window = grid.region_window(grid.require_valid(region_id))
    wind = InputRaster.checked(WIND, datasets, WIND_HAZARD)
    land = InputRaster.checked(CONDITIONAL_RISK, datasets, RASTERS[CONDITIONAL_RISK])
    pixels, cover = land.pixels(window), wind.cover(window)
    cells = {name: wind.source(name, cover, region_id) for name in WIND_HAZARD.variables}
    hazard = wind_hazard(cells["fire_weather_share"].values, cells["fire_weather_wind_p99"].values)
    places = nearest_cells(cells["fire_weather_share"], window)
    places[np.isnan(land.read("CRPS", pixels, region_id))] = -1

    def spread(values: Values) -> Values:
        # Index -1, a pixel outside, finds the NaN at the end.
        return np.append(values, np.float32(np.nan))[places]

    risk = {"wind_hazard": spread(hazard)}
    if np.isnan(risk["wind_hazard"]).all():
        raise EmptyRegionError(
            f"{WIND} has no value under the data of region {region_id}; leave it out of the valid "
            "regions or mend the raster"
        )
    return risk | {name: spread(source.values) for name, source in cells.items()}


def _rasters(available: Collection[str]) -> tuple[str, ...]:
    return (WIND, CONDITIONAL_RISK)


WIND_RISK = RiskType(
    name="wind",
    title="Fire-weather wind",
    summary=(
        "How many hours of fire weather there are, how strong its wind is and where it comes from, "
        "1979 to 2022."
    ),
    sources="CONUS404 (USGS, NCAR), USFS RDS-2020-0016-02 (Scott et al. 2024) for its land",
    variables={
        "wind_hazard": RiskVariable(
            "Hours of fire weather in a year, weighted by wind: an hour at 10 m/s counts 1",
            "h",
            0,
            HIGHEST,
        ),
        "fire_weather_share": RiskVariable(
            "Share of hours with a Fosberg index above 50", "1", 0, 1
        ),
        "fire_weather_wind_p99": RiskVariable(
            "0.99 quantile of wind speed in hours of fire weather, 0 without any", "m s-1", 0, 100
        ),
        "dominant_direction": RiskVariable(
            "Most frequent direction wind comes from in fire weather, -1 without any",
            "degree",
            -1,
            315,
            summarised=False,
            values=(-1.0, *(45.0 * direction for direction in range(len(DIRECTIONS)))),
        ),
        "dominant_share": RiskVariable(
            "Share of the most frequent direction in hours of fire weather", "1", 0, 1
        ),
        "direction_strength": RiskVariable(
            "Length of the mean unit vector of wind in hours of fire weather", "1", 0, 1
        ),
    },
    scores=(Classes("wind_score", "wind_hazard", SCORES, wind_score),),
    categories=(
        Classes("wind_direction", "dominant_direction", len(DIRECTIONS), direction_classes),
    ),
    kept={},
    seamless=(),
    rasters=_rasters,
    compute=region_wind,
    map=MapText(
        title="Fire-weather wind at buildings",
        noun="wind hazard",
        quantity="Hours of fire weather in a year, weighted by wind",
        views_title="Years",
        views=("1979 to 2022",),
        edges=(*SCORE_EDGES, HIGHEST),
        rows=(
            MapRow("Fire weather, weighted by wind", "hours per year", ("wind_hazard",)),
            MapRow("Share of hours that are fire weather", "", ("fire_weather_share",)),
            MapRow("Wind in fire weather, 99th percentile", "m/s", ("fire_weather_wind_p99",)),
            MapRow("Most frequent direction", "degrees, from", ("dominant_direction",)),
            MapRow("Its share", "", ("dominant_share",)),
            MapRow("Steadiness of direction", "0 to 1", ("direction_strength",)),
        ),
        region_row=("fire weather, weighted by wind", "hours per year"),
    ),
)
"""Fire-weather wind: the hazard itself, whatever there is to burn."""
