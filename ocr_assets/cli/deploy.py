"""Commands that deploy a version, publish it, take it back, and keep the store small."""

from __future__ import annotations

import json
from typing import Annotated, Any, get_args

import typer

from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    Platform,
    PlatformOption,
    RiskType,
    RiskTypeOption,
    app,
    console,
    errors,
    print_table,
    settings_from,
)
from resources.settings import Environment, Settings

deploy_app = typer.Typer(
    help="Deploy and publish a version, take it back, prune old ones.", no_args_is_help=True
)
app.add_typer(deploy_app, name="deploy")

EnvironmentOption = Annotated[
    str | None,
    typer.Option("--environment", help="qa, staging or production; else OCR_ENVIRONMENT."),
]
Version = Annotated[
    str | None, typer.Option("--version", help="Version, like 1.2.3; else OCR_VERSION.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")]


_ANY = "0.0.0"
"""Stands in where an environment is meant and no version, because production has to have one."""


@deploy_app.command()
def run(
    environment: EnvironmentOption = None,
    version: Version = None,
    region_id: Annotated[
        list[str] | None,
        typer.Option("--region-id", "-r", metavar="ID", help="Region to compute; repeatable."),
    ] = None,
    all_region_ids: Annotated[
        bool, typer.Option("--all-region-ids", help="Compute every valid region of the grid.")
    ] = False,
    wipe: Annotated[
        bool, typer.Option("--wipe", help="First forget what the version holds (not production).")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Compute a published version anew, beside the old one.")
    ] = False,
    summary_stats: Annotated[
        bool, typer.Option("--summary-stats", "--write-regional-stats", help="Also summarise risk.")
    ] = False,
    create_pyramid: Annotated[
        bool, typer.Option("--create-pyramid", help="Also build the pyramid.")
    ] = False,
    risk_type: RiskTypeOption = RiskType.fire,
    platform: PlatformOption = None,
    publish_it: Annotated[
        bool, typer.Option("--publish", help="Give it to readers if its blocking checks pass.")
    ] = False,
    process_retries: Annotated[
        int, typer.Option(min=0, help="How often failed regions are tried again.")
    ] = 2,
    yes: Yes = False,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Deploy: the same job that sensors and the launchpad start, in this process.

    An environment has one deployment at a time; another one waits for its end.
    """
    from ocr_assets.cli.launch import run_deployment
    from ocr_assets.deployment import DeploymentError
    from ocr_assets.deployment_runs import DeployConfig, target
    from ocr_assets.releases import Releases

    settings = _settings(env_file, environment, version, debug=debug, platform=platform)
    releases = Releases.of(settings)
    if releases.find(settings.version_label):
        if not force:
            raise DeploymentError(
                f"{settings.version_label} is published, and a published version never changes; "
                "--force computes it anew as another revision"
            )
        settings = settings.changed(revision=releases.next_revision(settings))
        console.print(f"computing {settings.version_label}, beside what is published")
    config = DeployConfig(
        region_ids=region_id or [],
        all_region_ids=all_region_ids,
        risk_types=list(risk_type.names),
        wipe=wipe,
        write_regional_stats=summary_stats,
        create_pyramid=create_pyramid,
        process_retries=process_retries,
        publish=publish_it,
    )
    deployment = target(settings, config)
    if wipe:
        for risk_name in risk_type.names:
            for line in deployment.of(risk_name).describe_wipe():
                errors.print(f"wipe: {line}")
        if not yes and errors.is_terminal and not typer.confirm("Delete this?", err=True):
            raise DeploymentError("nothing was wiped and nothing was run")
    published = run_deployment(deployment, config, debug=settings.debug)
    where = f"{settings.environment} {settings.version_label}"
    console.print(f"deployed {where}" + (f", published {published}" if published else ""))


@deploy_app.command()
def publish(
    environment: EnvironmentOption = None,
    version: Version = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Run the checks of a version, and give it to its readers if the blocking ones pass."""
    from ocr_assets.cli.launch import Launcher
    from ocr_assets.deployment import Deployment
    from ocr_assets.deployment_runs import publish_version
    from resources.progress import ConsoleProgress

    settings = _settings(env_file, environment, version, debug=debug)
    launcher = Launcher(Deployment(settings), ConsoleProgress(errors), debug=settings.debug)
    release = publish_version(launcher)
    for line in launcher.failed_checks:
        errors.print(f"warning: {line}")
    regions = ", ".join(f"{part.regions} regions of {name}" for name, part in release.risks.items())
    console.print(
        f"{settings.environment} gives its readers {release.label} now: {regions}, "
        f"{len(release.products)} products, {release.checks} checks passed"
    )


@deploy_app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="A published version, like 1.2.2.")],
    environment: EnvironmentOption = None,
    env_file: EnvFile = None,
) -> None:
    """Give readers another published version; nothing else changes."""
    from ocr_assets.releases import Releases, release_order

    settings = _settings(env_file, environment, _ANY)
    releases = Releases.of(settings)
    label = version if version.startswith("v") else f"v{version}"
    release_order(label)
    before = releases.current()
    releases.point_to(label)
    console.print(f"{settings.environment} gives its readers {label} now, instead of {before}")


@deploy_app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many published versions stay.")] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    yes: Yes = False,
    environment: EnvironmentOption = None,
    env_file: EnvFile = None,
) -> None:
    """Remove old versions for good, and free what the store keeps for none."""
    from ocr_assets.deployment import Deployment, DeploymentError
    from ocr_assets.releases import Releases
    from ocr_assets.releases import prune as remove

    deployment = Deployment(_settings(env_file, environment, _ANY))
    labels = Releases.of(deployment.settings).expendable(keep)
    planned = remove(deployment, labels, dry_run=True)
    what = ", ".join(labels) or "no version"
    console.print(
        f"{deployment.settings.environment}: {what} ({planned.objects} objects, "
        f"{planned.size / 1e6:.1f} MB), and history that nothing refers to"
    )
    if dry_run:
        return
    if labels and not yes and not typer.confirm("Remove this for good?", err=True):
        raise DeploymentError("nothing was removed")
    done = remove(deployment, labels)
    console.print(f"removed; {done.freed / 1e6:.1f} MB of the region-risk repository became free")


@deploy_app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show which version each environment gives its readers, and what runs where."""
    settings = settings_from(env_file)
    runs = _running()
    rows = [
        _row(settings, name, [run for run in runs if run["environment"] == name])
        for name in get_args(Environment)
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    print_table(
        f"Deployments below {settings.storage_root}",
        ["environment", "readers have", "published", "at work"],
        [
            [
                row["environment"],
                row["current"] or "nothing",
                ", ".join(row["published"]),
                ", ".join(f"{run['version']} ({run['status']})" for run in row["runs"]),
            ]
            for row in rows
        ],
        right=set(),
    )


def _row(settings: Settings, environment: str, runs: list[dict[str, str]]) -> dict[str, Any]:
    from ocr_assets.releases import Releases

    releases = Releases.of(settings.changed(environment=environment, version=_ANY))
    return {
        "environment": environment,
        "current": releases.current(),
        "published": releases.labels(),
        "runs": runs,
    }


def _running() -> list[dict[str, str]]:
    """Deployments that wait or are at work, oldest first."""
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.deployment_runs import DEPLOY_JOB, ENVIRONMENT_TAG, VERSION_TAG

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        wanted = dg.RunsFilter(
            job_name=DEPLOY_JOB,
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ],
        )
        return [
            {
                "run_id": run.run_id,
                "environment": run.tags.get(ENVIRONMENT_TAG, ""),
                "version": run.tags.get(VERSION_TAG, ""),
                "status": run.status.value.lower(),
            }
            for run in reversed(instance.get_runs(wanted))
        ]


def _settings(
    env_file: Any,
    environment: str | None,
    version: str | None,
    *,
    debug: bool = False,
    platform: Platform | None = None,
) -> Settings:
    """The settings of a command, for the environment and version that it names."""
    settings = settings_from(env_file, debug=debug, platform=platform)
    named = {"environment": environment, "version": version}
    changes = {name: value for name, value in named.items() if value}
    return settings.changed(**changes) if changes else settings
