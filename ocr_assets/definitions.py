"""The graph with the jobs and sensors that keep it going, assembled in one screenful.

`build_defs` returns fresh definitions for a deployment, so that tests and the command line can
swap parts; `defs` is what the daemon and the UI load.
"""

from __future__ import annotations

import dagster as dg

from ocr_assets.dask_jobs import require_sound_dask_jobs, vector_tiles_job
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import deploy_job
from ocr_assets.graph import build_graph
from ocr_assets.request_jobs import request_jobs
from ocr_assets.tile_library import TileLibrary
from ocr_assets.volume_library import VolumeLibrary
from resources.cluster import Cluster
from resources.progress import ProgressReporter
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
    settings = deployment.settings
    tiles, volumes = TileLibrary(settings), VolumeLibrary(settings)
    graph = build_graph(deployment, progress, cluster)
    requests = request_jobs(
        asset for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)
    )
    around = dg.Definitions(
        jobs=[
            deploy_job(settings, build_graph),
            vector_tiles_job(settings),
            *requests.values(),
        ],
        sensors=[
            input_sensor(),
            *github_sensors(settings),
            *alert_sensors(settings),
            tile_request_sensor(tiles, requests),
            volume_request_sensor(volumes, requests),
            volume_source_sensor(volumes, requests),
        ],
    )
    return require_sound_dask_jobs(dg.Definitions.merge(graph, around))


@dg.definitions
def defs() -> dg.Definitions:
    """The graph of the settings in the environment."""
    return build_defs(Deployment(load_settings()))
