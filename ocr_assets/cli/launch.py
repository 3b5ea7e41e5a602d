"""Launch assets from the command line."""

from __future__ import annotations

import dagster as dg

from ocr_assets.cli.instance import prepare_home
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.launch import GraphLauncher
from ocr_assets.run_processes import close_abandoned_runs
from resources.progress import ProgressReporter


class Launcher(GraphLauncher):
    """Executes selections of the graph's assets in the instance that all commands share."""

    def __init__(
        self, deployment: Deployment, progress: ProgressReporter, *, debug: bool = False
    ) -> None:
        prepare_home()
        instance = dg.DagsterInstance.get()
        close_abandoned_runs(instance)
        definitions = build_defs(deployment, progress=progress)
        job = definitions.resolve_implicit_global_asset_job_def()
        super().__init__(deployment, progress, instance, job, debug)
