"""The jobs that requests run: what has to be there first, and then what was asked for.

Assets of one run have the same partitions. Terrain belongs to a tile and everything else to a tile
and a year, the list of images belongs to a volume and everything else to a job type and a volume:
so a request is two runs, one after the other.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

TILE_FIRST, TILE_WANTED = "requested_terrain", "requested_tiles"
VOLUME_FIRST, VOLUME_WANTED = "requested_listings", "requested_volumes"
"""Names of the jobs."""

Jobs = Mapping[str, UnresolvedAssetJobDefinition]
"""The jobs of requests by their names."""

_ASSETS = {
    TILE_FIRST: (("elevation",), "Terrain of a tile that was asked for."),
    TILE_WANTED: (
        ("sentinel1", "sentinel2", "tree_cover"),
        "A tile of a year that was asked for, from its images on.",
    ),
    VOLUME_FIRST: (("volume_manifest",), "The images of a volume that was asked for."),
    VOLUME_WANTED: (
        ("volume_lines", "volume_text"),
        "Lines and text of a volume that was asked for, by a job type.",
    ),
}


ASSETS_OF_JOBS: Mapping[str, tuple[str, ...]] = {
    name: assets for name, (assets, _) in _ASSETS.items()
}
"""What each job makes, by its name."""


def request_jobs(assets: Iterable[dg.AssetsDefinition]) -> Jobs:
    """The jobs of requests, of those assets that there are."""
    there = {key.to_user_string() for asset in assets for key in asset.keys}
    return {
        name: dg.define_asset_job(
            name,
            dg.AssetSelection.assets(*(asset for asset in wanted if asset in there)),
            description=description,
        )
        for name, (wanted, description) in _ASSETS.items()
    }
