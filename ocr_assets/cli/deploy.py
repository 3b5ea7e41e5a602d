"""Commands that publish a version, take it back, and keep the store small."""

from __future__ import annotations

from typing import Annotated

import typer

from ocr_assets.cli.app import Debug, EnvFile, app, console, errors, settings_from

deploy_app = typer.Typer(
    help="Publish a version, take it back, prune old ones.", no_args_is_help=True
)
app.add_typer(deploy_app, name="deploy")

PRODUCTS = (
    "region_risk",
    "region_buildings",
    "buildings",
)
STATISTICS = "statistics/nation.parquet"

Version = Annotated[str | None, typer.Option("--version", help="Version; OCR_VERSION if not set.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")]


@deploy_app.command()
def publish(version: Version = None, debug: Debug = False, env_file: EnvFile = None) -> None:
    """Run the checks of a version, and give it to its readers if the blocking ones pass."""
    from ocr_assets.cli.launch import Launcher
    from ocr_assets.deployment import Deployment
    from ocr_assets.releases import Publication
    from resources.progress import ConsoleProgress

    settings = settings_from(env_file, debug=debug)
    if version:
        settings = settings.changed(version=version)
    deployment = Deployment(settings)
    publication = Publication(deployment)
    publication.products()  # what is missing is said before the checks, which take long
    launcher = Launcher(deployment, ConsoleProgress(errors), debug=settings.debug)
    assets = PRODUCTS
    if deployment.storage.exists(STATISTICS):
        assets = (*PRODUCTS, "risk_statistics/nation")
    passed = launcher.check("checks", *assets)
    release = publication.publish(passed)
    for line in launcher.failed_checks:
        errors.print(f"warning: {line}")
    console.print(
        f"{settings.environment} gives its readers {release.label} now: {release.regions} regions, "
        f"{len(release.products)} products, {release.checks} checks passed"
    )


@deploy_app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="A published version, like 1.2.2.")],
    env_file: EnvFile = None,
) -> None:
    """Give readers another published version; nothing else changes."""
    from ocr_assets.releases import Releases, release_order

    settings = settings_from(env_file)
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
    env_file: EnvFile = None,
) -> None:
    """Remove old versions for good, and free what the store keeps for none."""
    from ocr_assets.deployment import Deployment, DeploymentError
    from ocr_assets.releases import Releases
    from ocr_assets.releases import prune as remove

    deployment = Deployment(settings_from(env_file))
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
