"""The whole graph, assembled in one screenful.

`build_defs` returns fresh definitions for a deployment, so that tests and the command line can
swap parts; `defs` is what the daemon and the UI load.
"""

from __future__ import annotations

import dagster as dg

from ocr_assets.dask_jobs import require_sound_dask_jobs, vector_tiles_job
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import deploy_job
from ocr_assets.regions.assets import region_wing
from ocr_assets.regions.checks import region_checks
from ocr_assets.request_jobs import request_jobs
from ocr_assets.tile_library import TileLibrary
from ocr_assets.tiles.assets import tile_wing
from ocr_assets.tiles.checks import tile_checks
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.assets import volume_wing
from ocr_assets.volumes.checks import volume_checks
from resources.cluster import Cluster, cluster_for
from resources.io_managers import (
    FileIOManager,
    FilesIOManager,
    FolderIOManager,
    TableIOManager,
)
from resources.progress import LogProgress, ProgressReporter
from resources.scratch import scratch
from resources.settings import load_settings
from sensors.alerts import alert_sensors
from sensors.github import github_sensors
from sensors.sources import input_sensor
from sensors.tile_requests import tile_request_sensor
from sensors.volume_requests import volume_request_sensor
from sensors.volume_sources import volume_source_sensor


def build_defs(
    deployment: Deployment,
    progress: ProgressReporter | None = None,
    cluster: Cluster | None = None,
) -> dg.Definitions:
    """Definitions of every wing for one deployment."""
    volumes = VolumeLibrary(deployment.settings)
    tiles = TileLibrary(deployment.settings)
    requested = [*tile_wing(tiles), *volume_wing(volumes)]
    requests = request_jobs(requested)
    definitions = dg.Definitions(
        assets=[*region_wing(deployment), *requested],
        asset_checks=[*region_checks(), *tile_checks(), *volume_checks()],
        jobs=[
            deploy_job(deployment.settings, build_defs),
            vector_tiles_job(deployment.settings),
            *requests.values(),
        ],
        sensors=[
            input_sensor(),
            *github_sensors(deployment.settings),
            *alert_sensors(deployment.settings),
            tile_request_sensor(tiles, requests),
            volume_request_sensor(volumes, requests),
            volume_source_sensor(volumes, requests),
        ],
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
    return require_sound_dask_jobs(definitions)


@dg.definitions
def defs() -> dg.Definitions:
    """The graph of the settings in the environment."""
    return build_defs(Deployment(load_settings()))
