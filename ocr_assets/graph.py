"""The assets of every wing with their checks, and the resources that they ask for.

Belongs here: what a run needs. Does not belong here: jobs and sensors, which only the daemon and
the UI need (``ocr_assets.definitions``).

A wing is imported when it is asked for, so that a command of one wing starts without the others.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.tile_library import TileLibrary
from ocr_assets.volume_library import VolumeLibrary
from resources.cluster import Cluster, cluster_for
from resources.io_managers import (
    FileIOManager,
    FilesIOManager,
    FolderIOManager,
    TableIOManager,
)
from resources.progress import LogProgress, ProgressReporter
from resources.scratch import scratch

WINGS = ("regions", "tiles", "volumes")


def build_graph(
    deployment: Deployment,
    progress: ProgressReporter | None = None,
    cluster: Cluster | None = None,
    wings: Collection[str] = WINGS,
) -> dg.Definitions:
    """Assets, checks and resources of the wings asked for, for one deployment."""
    tiles, volumes = TileLibrary(deployment.settings), VolumeLibrary(deployment.settings)
    assets: list[Any] = []
    checks: list[dg.AssetChecksDefinition] = []
    if "regions" in wings:
        from ocr_assets.regions.assets import region_wing
        from ocr_assets.regions.checks import region_checks

        assets += region_wing(deployment)
        checks += region_checks()
    if "tiles" in wings:
        from ocr_assets.tiles.assets import tile_wing
        from ocr_assets.tiles.checks import tile_checks

        assets += tile_wing(tiles)
        checks += tile_checks()
    if "volumes" in wings:
        from ocr_assets.volumes.assets import volume_wing
        from ocr_assets.volumes.checks import volume_checks

        assets += volume_wing(volumes)
        checks += volume_checks()
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        resources={
            "deployment": deployment,
            "tiles": tiles,
            "volumes": volumes,
            "scratch": scratch,
            "progress": progress or LogProgress(),
            "cluster": cluster or cluster_for(deployment.settings),
            "files": FileIOManager(deployment.root, deployment.require_unpublished),
            "file_sets": FilesIOManager(deployment.root, deployment.require_unpublished),
            "tables": TableIOManager(deployment.root, deployment.require_unpublished),
            "folders": FolderIOManager(deployment.root, deployment.require_unpublished),
            "volume_files": FileIOManager(volumes.storage),
        },
        # A process per step would cost more than most steps; a run is one process.
        executor=dg.in_process_executor,
    )
