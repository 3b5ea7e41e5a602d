"""Stages of a deployment of regions: what each is called, and the assets that it materializes.

Apart from what runs them, so that a command which runs nothing starts without Dagster.
"""

TEMPLATE = ("region template", "region_template")
BUILDINGS = ("buildings", "buildings")
_LEVELS = ("block", "tract", "county", "state", "nation")
STATISTICS = ("statistics", *(f"risk_statistics/{level}" for level in _LEVELS))
ANALYSIS_FILES = ("analysis files", *(f"region_analysis_files/{level}" for level in _LEVELS))
REGIONAL_TILES = ("regional tiles", "regional_pmtiles")
BUILDING_TILES = ("building tiles", "building_pmtiles")
CENTROID_TILES = ("centroid tiles", "building_centroid_pmtiles")
PYRAMID = ("pyramid", "pyramid")

ANALYSIS_FOLDERS = {
    "block": "block",
    "tract": "tracts",
    "county": "counties",
    "state": "states",
    "nation": "nation",
}
"""Folder of the analysis files of each level: the names that readers of published files know."""
