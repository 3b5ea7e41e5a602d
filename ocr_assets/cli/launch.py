"""Launch assets from the command line."""

from __future__ import annotations

import dagster as dg

from ocr_assets.cli.app import errors
from ocr_assets.cli.instance import prepare_home
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import DeployConfig, deployment_request
from ocr_assets.graph import build_graph
from ocr_assets.launch import GraphLauncher, LaunchError, error_text, user_error
from ocr_assets.run_processes import close_abandoned_runs, process_tag
from resources.progress import ConsoleProgress, ProgressReporter


class Launcher(GraphLauncher):
    """Executes selections of a wing's assets in the instance that all commands share."""

    wing = "regions"

    def __init__(
        self, deployment: Deployment, progress: ProgressReporter, *, debug: bool = False
    ) -> None:
        prepare_home()
        instance = dg.DagsterInstance.get()
        close_abandoned_runs(instance)
        graph = build_graph(deployment, progress, wings=[self.wing])
        job = graph.resolve_implicit_global_asset_job_def()
        super().__init__(deployment, progress, instance, job, debug)


def run_deployment(
    deployment: Deployment, config: DeployConfig, *, debug: bool = False
) -> str | None:
    """Execute the deployment job in this process; the label that it published, if it did.

    Raises LaunchError if the job fails.
    """
    from ocr_assets.definitions import build_defs

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        close_abandoned_runs(instance)
        request = deployment_request(deployment.settings, config)
        definitions = build_defs(deployment, progress=ConsoleProgress(errors))
        level = "DEBUG" if debug else "CRITICAL"
        result = definitions.get_job_def(str(request.job_name)).execute_in_process(
            instance=instance,
            tags={**request.tags, **process_tag()},
            run_config={
                **request.run_config,
                "loggers": {"console": {"config": {"log_level": level}}},
            },
            raise_on_error=False,
        )
        if not result.success:
            raise LaunchError(_reason(result))
        for event in result.all_events:
            if event.is_successful_output and "published" in event.step_output_data.metadata:
                return str(event.step_output_data.metadata["published"].value)
    return None


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            told = event.step_failure_data.user_failure_data
            if told and told.description:
                return told.description
            if error := user_error(event.step_failure_data.error):
                return error_text(error)
    return "the deployment failed before its first step"
