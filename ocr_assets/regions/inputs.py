"""Input datasets: what they are called, and what the rasters among them must look like.

Belongs here: names, variables, coordinate systems and units of the input datasets.
Does not belong here: the checks of opened datasets (``raster_cuts.py``), and which of them a type
of risk reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.geographies import Level
from ocr_assets.regions.raster_cuts import RasterSchema, Variable

BURN_PROBABILITY_270M = {
    2011: "riley-et-al-2025-2011-270m-5070",
    2047: "riley-et-al-2025-2047-270m-5070",
}
BURN_PROBABILITY_30M = {
    2011: "riley-et-al-2025-2011-30m-4326",
    2047: "riley-et-al-2025-2047-30m-4326",
}
CONDITIONAL_RISK = "scott-et-al-2024-30m-4326"
WIND = "conus404-ffwi-p99-wind-direction-distribution"
WIND_30M = "conus404-ffwi-p99-wind-direction-distribution-30m-4326"
"""The same distribution resampled to the pixel grid; read only where :data:`WIND` is missing."""

BUILDINGS = "conus-overture-region-id-tagged-buildings"
GEOGRAPHIES: dict[Level, str] = {
    "block": "us-census-blocks",
    "tract": "us-census-tracts",
    "county": "us-census-counties",
    "state": "us-census-states",
    "nation": "us-census-nation",
}

PROJECTED_CRS = "EPSG:5070"
CELL_270M = 270.0

DESCRIPTIONS: Mapping[str, str] = {
    **{
        name: f"Burn probability on the 270 m Albers grid, climate of {climate}; Riley et al. 2025."
        for climate, name in BURN_PROBABILITY_270M.items()
    },
    **{
        name: f"Burn probability resampled to 30 m, climate of {climate}; Riley et al. 2025."
        for climate, name in BURN_PROBABILITY_30M.items()
    },
    CONDITIONAL_RISK: "Conditional risk and risk to structures, 30 m, percent; Scott et al. 2024.",
    WIND: "Wind in fire weather on the 4 km grid: how often, how strong, from where; CONUS404.",
    BUILDINGS: "Building footprints with their census codes; Overture Maps and TIGER blocks.",
    **{name: f"Outlines of level {level}; US Census." for level, name in GEOGRAPHIES.items()},
}
"""What each input dataset is."""


_PROBABILITY = Variable("1", 0.0, 1.0, 1e-6)
_PERCENT = Variable("percent", 0.0, 100.0, 1e-3)

_SHARES = Variable("1", 0.0, 1.0, 1e-4, per_direction=True)

RASTERS: Mapping[str, RasterSchema] = {
    **{
        name: RasterSchema({"BP": _PROBABILITY}, PROJECTED_CRS, CELL_270M)
        for name in BURN_PROBABILITY_270M.values()
    },
    **{
        name: RasterSchema({"BP": _PROBABILITY}, region_grid.CRS)
        for name in BURN_PROBABILITY_30M.values()
    },
    CONDITIONAL_RISK: RasterSchema({"CRPS": _PERCENT, "RPS": _PERCENT}, region_grid.CRS),
    WIND: RasterSchema({"wind_direction_distribution": _SHARES}, None),
    WIND_30M: RasterSchema({"wind_direction_distribution": _SHARES}, region_grid.CRS),
}
"""Every input raster of the fire risk, by dataset name."""

WIND_HAZARD = RasterSchema(
    {
        "fire_weather_share": Variable("1", 0.0, 1.0, 1e-6),
        "fire_weather_wind_p99": Variable("m s-1", 0.0, 100.0, 1e-3),
        "dominant_direction": Variable("degree", -1.0, 315.0, 0.0),
        "dominant_share": Variable("1", 0.0, 1.0, 1e-6),
        "direction_strength": Variable("1", 0.0, 1.0, 1e-6),
    },
    None,
    hint=(
        "bring in one that has it with `ocr ingest-data run-all conus404`, or name the right "
        "variable under `variables` in the catalog"
    ),
)
"""What the wind hazard needs of :data:`WIND`: variables of the same pass over hourly weather."""
