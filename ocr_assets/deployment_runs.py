"""A deployment as a run: the job `deploy_regions`, and how one is asked for.

A run of the job coordinates. One after the other it launches runs of assets in its own process,
the same that `ocr run` launches: first the wipe, if one is wanted, then the regions in ranges,
then everything that is made from them, and it publishes the version if that is wanted. Its step
holds the one place of the pool `deployment_<environment>` from beginning to end, so that an
environment has one deployment at a time, however many are asked for.

The version travels with the run. A code server is loaded for one version; the graph that a
deployment materializes is built within the run, for the settings that :func:`target` gives.

Whoever wants a deployment (a sensor, a command, the launchpad) takes the same way:
:func:`deployment_request` checks a :class:`DeployConfig` and gives the run request, whose
``run_config`` and ``tags`` also start the job without a sensor. Commands that stay in their own
process call :func:`materialize_deployment` and :func:`publish_version`.
"""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from ocr_assets import deployment_stages as stages
from ocr_assets.deployment import Deployment, DeploymentError
from ocr_assets.launch import GraphLauncher, LaunchError, Materialized
from ocr_assets.regions.risk_type import RISK_NAMES
from ocr_assets.releases import Publication, Release
from ocr_assets.run_processes import close_abandoned_runs
from resources.progress import ProgressReporter
from resources.settings import Settings

DEPLOY_JOB, DEPLOY_OP = "deploy_regions", "deploy"
"""Name of the job, and of its only step."""

ENVIRONMENT_TAG, VERSION_TAG = "ocr/environment", "ocr/version"
"""Tags of a deployment's run: where it writes, and which version."""

DEPLOYMENT_TAG = "ocr/deployment"
"""Tag of the runs that a deployment launched: the id of the run that coordinates them."""

WIPED_TAG = "ocr/wiped"
"""Tag of a run whose deployment has wiped its environment; its value is the first attempt's id."""

FAILED, RETRY = "failed", "retry"
"""Metadata of a failed deployment: its failed regions, and the command that tries those again."""

CHECKED = ("region_risk", "region_buildings", "buildings")
_STATISTICS_KEY = "statistics/nation.parquet"

Graph = Callable[[Deployment, ProgressReporter], dg.Definitions]
"""Builds the definitions of a deployment."""


class DeployConfig(dg.Config):
    """What a deployment computes; the form in the launchpad."""

    region_ids: list[str] = Field(default=[], description="Regions to compute, like y9_x16.")
    all_region_ids: bool = Field(
        default=False, description="Compute every valid region of the grid."
    )
    risk_types: list[str] = Field(
        default=[RISK_NAMES[0]], description=f"Types of risk: {', '.join(RISK_NAMES)}."
    )
    wipe: bool = Field(
        default=False, description="First forget what this version holds (qa and staging only)."
    )
    write_regional_stats: bool = Field(
        default=False,
        description="Also summarise risk for block, tract, county, state and nation, as files too.",
    )
    create_pyramid: bool = Field(default=False, description="Also build the multiscale pyramid.")
    version: str | None = Field(
        default=None, description="Semantic version to write; the configured one if not set."
    )
    revision: int | None = Field(
        default=None, description="Revision of the version; the configured one if not set."
    )
    process_retries: int = Field(
        default=2, ge=0, description="How often failed regions are tried again."
    )
    publish: bool = Field(
        default=False, description="Give the version to its readers if its blocking checks pass."
    )


def target(settings: Settings, config: DeployConfig) -> Deployment:
    """The deployment that ``config`` asks for, below the settings of this process.

    Raises:
        DeploymentError: the choice of regions is none or two, there is no such type of risk, or
            production would be wiped.
        SettingsError: the version is not a semantic one.
        ValueError: a region is not one of the grid's.
    """
    changes: dict[str, Any] = {}
    if config.version is not None:
        changes = {"version": config.version, "revision": config.revision or 1}
    elif config.revision is not None:
        changes = {"revision": config.revision}
    deployment = Deployment(settings.changed(**changes) if changes else settings)
    if bool(config.region_ids) == config.all_region_ids:
        raise DeploymentError("give region_ids or all_region_ids: one of the two, not both")
    for region_id in config.region_ids:
        deployment.grid.require_valid(region_id)
    for risk_name in config.risk_types:
        deployment.of(risk_name)
    if not config.risk_types:
        raise DeploymentError("name a type of risk in risk_types")
    if config.wipe and settings.environment == "production":
        raise DeploymentError("production is never wiped; deploy without wipe")
    return deployment


def deployment_request(
    settings: Settings,
    config: DeployConfig,
    *,
    run_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.RunRequest:
    """The run request of a deployment.

    Args:
        settings: those of this process; they name the environment.
        config: what is to be computed.
        run_key: identity of what asked for it: a sensor launches one run for a key, ever.
        tags: further tags of the run.

    Raises:
        DeploymentError, SettingsError, ValueError: see :func:`target`.
    """
    label = target(settings, config).settings.version_label
    return dg.RunRequest(
        run_key=run_key,
        job_name=DEPLOY_JOB,
        run_config={"ops": {DEPLOY_OP: {"config": config.model_dump(exclude_defaults=True)}}},
        tags={ENVIRONMENT_TAG: settings.environment, VERSION_TAG: label, **(tags or {})},
    )


def materialize_deployment(
    launcher: GraphLauncher,
    region_ids: Sequence[str],
    *,
    statistics: bool,
    pyramid: bool,
    retries: int,
    recompute: bool = False,
) -> None:
    """Materialize regions of one type of risk, then everything that is made from them.

    Args:
        launcher: executes the runs; its deployment says which type of risk.
        region_ids: valid regions; those that are done are skipped.
        statistics: also summarise risk by geography, write the summaries as files, and tile them.
        pyramid: also build the multiscale pyramid.
        retries: how often failed regions are tried again, with growing pauses.
        recompute: compute also regions that are done.

    Raises:
        LaunchError: a run failed; of regions, it names those that failed at the last attempt.
    """
    launcher.materialize(*stages.TEMPLATE)
    launcher.materialize_regions(region_ids, retries=retries, recompute=recompute)
    if pyramid:
        launcher.materialize(*stages.PYRAMID)
    launcher.materialize(*stages.BUILDINGS)
    if statistics:
        launcher.materialize(*stages.STATISTICS)
        launcher.materialize(*stages.ANALYSIS_FILES)
        launcher.materialize(*stages.REGIONAL_TILES)
    launcher.materialize(*stages.BUILDING_TILES)
    launcher.materialize(*stages.CENTROID_TILES)


def publish_version(launcher: GraphLauncher) -> Release:
    """Run the checks of the version, and give it to its readers if the blocking ones pass.

    Raises:
        DeploymentError: a product is missing or older than what it is made from.
        LaunchError: a blocking check failed.
    """
    publication = Publication(launcher.deployment)
    publication.products()  # what is missing is said before the checks, which take long
    passed = 0
    for part in publication.parts:
        assets: tuple[str, ...] = CHECKED
        if part.storage.exists(_STATISTICS_KEY):
            assets = (*CHECKED, "risk_statistics/nation")
        passed += launcher.of(part.risk_name).check("checks", *assets)
    return publication.publish(passed)


def retry_command(settings: Settings, region_ids: Sequence[str], config: DeployConfig) -> str:
    """The command that computes exactly these regions of a deployment, and what follows them."""
    place = ["--environment", settings.environment]
    if settings.version:
        place += ["--version", settings.version]
    wanted = {
        "--write-regional-stats": config.write_regional_stats,
        "--create-pyramid": config.create_pyramid,
        "--publish": config.publish,
    }
    options = [option for option, given in wanted.items() if given]
    chosen = region_options(region_ids, config.risk_types)
    return command_line(settings, "deploy", "run", *place, *chosen, *options)


def region_options(region_ids: Sequence[str], risk_names: Collection[str]) -> list[str]:
    """Options of a command that computes these regions for these types of risk."""
    options = [part for id_ in region_ids for part in ("--region-id", id_)]
    names = set(risk_names)
    if names != {RISK_NAMES[0]}:
        options += ["--risk-type", "all" if len(names) > 1 else names.pop()]
    return options


def command_line(settings: Settings, *arguments: str) -> str:
    """A command of ours for a shell; variables name the place where no option does."""
    place = {
        "--environment": ("OCR_ENVIRONMENT", settings.environment),
        "--version": ("OCR_VERSION", settings.version),
        "--revision": ("OCR_REVISION", settings.revision if settings.revision > 1 else None),
    }
    variables = [
        f"{name}={value}"
        for option, (name, value) in place.items()
        if value and option not in arguments
    ]
    return shlex.join([*variables, "ocr", *arguments])


def deploy_job(settings: Settings, graph: Graph) -> dg.JobDefinition:
    """The job that deploys regions, for the environment of ``settings``."""

    @dg.op(name=DEPLOY_OP, pool=settings.deployment_pool)
    def deploy(
        context: dg.OpExecutionContext,
        config: DeployConfig,
        deployment: dg.ResourceParam[Deployment],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> None:
        """Wipe if wanted, compute the regions, then what is made from them, and publish."""
        chosen = target(deployment.settings, config)
        chosen.catalog  # noqa: B018 - no catalog: say so before anything else
        if config.publish and chosen.is_published:
            # An attempt that ended after publishing, or the same version asked for again.
            _report(context, Publication(chosen).publish(0), [])
            return
        # Of an attempt that was killed; their places in the pools would be held for ever.
        close_abandoned_runs(context.instance)
        job = graph(chosen, progress).resolve_implicit_global_asset_job_def()
        launcher = GraphLauncher(
            chosen, progress, context.instance, job, tags=_child_tags(context, chosen)
        )
        if config.wipe:
            _wipe_once(context, chosen, config.risk_types)
        region_ids = list(chosen.grid.valid) if config.all_region_ids else config.region_ids
        try:
            for risk_name in dict.fromkeys(config.risk_types):
                materialize_deployment(
                    launcher.of(risk_name),
                    list(dict.fromkeys(region_ids)),
                    statistics=config.write_regional_stats,
                    pyramid=config.create_pyramid,
                    retries=config.process_retries,
                )
            release = publish_version(launcher) if config.publish else None
        except LaunchError as error:
            raise _failure(error, chosen.settings, config) from error
        for line in launcher.failed_checks:
            context.log.warning(line)
        _report(context, release, list(launcher.materialized.values()))

    @dg.job(
        name=DEPLOY_JOB,
        description=(
            f"Compute regions of {settings.environment} and everything made from them, as one "
            "deployment; an environment has one at a time."
        ),
    )
    def deploy_regions() -> None:
        deploy()

    return deploy_regions


def _child_tags(context: dg.OpExecutionContext, deployment: Deployment) -> dict[str, str]:
    settings = deployment.settings
    return {
        DEPLOYMENT_TAG: context.run.run_id,
        ENVIRONMENT_TAG: settings.environment,
        VERSION_TAG: settings.version_label,
    }


def _wipe_once(
    context: dg.OpExecutionContext, deployment: Deployment, risk_names: Sequence[str]
) -> None:
    """Wipe, unless an earlier attempt of this deployment has done so.

    A crash between the wipe and its tag repeats the wipe, before anything was computed.
    """
    first = context.run.root_run_id or context.run.run_id
    root = context.instance.get_run_by_id(first)
    attempts = [context.run, *([root] if root else [])]
    if any(run.tags.get(WIPED_TAG) == first for run in attempts):
        context.log.info("wiped by an earlier attempt of this deployment")
        return
    for part in map(deployment.of, risk_names):
        for line in part.describe_wipe():
            context.log.info(f"wipe: {line}")
        part.wipe()
    for run in attempts:
        context.instance.add_run_tags(run.run_id, {WIPED_TAG: first})


def _failure(error: LaunchError, settings: Settings, config: DeployConfig) -> dg.Failure:
    if not error.partitions:
        return dg.Failure(str(error), allow_retries=False)
    command = retry_command(settings, error.partitions, config)
    return dg.Failure(
        f"{error}; try those again with: {command}",
        metadata={FAILED: dg.MetadataValue.json(list(error.partitions)), RETRY: command},
        allow_retries=False,
    )


def _report(
    context: dg.OpExecutionContext, release: Release | None, made: Sequence[Materialized]
) -> None:
    metadata: dict[str, Any] = {}
    if made:
        rows = [
            f"| {row.asset} | {row.partitions} | {row.count:,} {row.unit} | {row.size:,} |"
            for row in made
        ]
        head = ["| asset | partitions | amount | bytes |", "|---|---|---|---|"]
        metadata["materialized"] = dg.MetadataValue.md("\n".join([*head, *rows]))
    if release:
        metadata["published"] = release.label
    context.add_output_metadata(metadata)
