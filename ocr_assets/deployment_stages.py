"""Stages of a deployment of regions: what each is called, and the assets that it materializes.

Apart from what runs them, so that a command which runs nothing starts without Dagster.
"""

TEMPLATE = ("region template", "region_template")
BUILDINGS = ("buildings", "buildings")
STATISTICS = (
    "statistics",
    *(f"risk_statistics/{level}" for level in ("block", "tract", "county", "state", "nation")),
)
REGIONAL_TILES = ("regional tiles", "regional_pmtiles")
BUILDING_TILES = ("building tiles", "building_pmtiles")
CENTROID_TILES = ("centroid tiles", "building_centroid_pmtiles")
PYRAMID = ("pyramid", "pyramid")
