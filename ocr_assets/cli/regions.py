"""Commands of the climate-risk wing."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ocr_assets import deployment_stages as stages
from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    OneRiskType,
    OneRiskTypeOption,
    PlatformOption,
    RiskType,
    RiskTypeOption,
    app,
    console,
    errors,
    print_table,
    regions_app,
    settings_from,
)
from ocr_assets.deployment import Deployment, DeploymentError
from resources.progress import ConsoleProgress
from resources.settings import Settings

if TYPE_CHECKING:
    from ocr_assets.cli.launch import Launcher


class RegionState(StrEnum):
    """Where a region stands."""

    done = "done"
    stale = "stale"
    failed = "failed"
    missing = "missing"


Wipe = Annotated[
    bool,
    typer.Option("--wipe", help="First forget what this environment holds (qa and staging only)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before wiping.")]


@app.command()
def run(
    region_id: Annotated[
        list[str] | None,
        typer.Option(
            "--region-id", "-r", metavar="ID", help="Region to compute, like y9_x16; repeatable."
        ),
    ] = None,
    all_region_ids: Annotated[
        bool, typer.Option("--all-region-ids", help="Compute every valid region of the grid.")
    ] = False,
    platform: PlatformOption = None,
    risk_type: RiskTypeOption = RiskType.fire,
    summary_stats: Annotated[
        bool,
        typer.Option(
            "--summary-stats",
            "--write-regional-stats",
            help="Also summarise risk for block, tract, county, state and nation: tables, files "
            "for analysis, tiles.",
        ),
    ] = False,
    create_pyramid: Annotated[
        bool, typer.Option("--create-pyramid", help="Also build the multiscale pyramid.")
    ] = False,
    wipe: Wipe = False,
    yes: Yes = False,
    process_retries: Annotated[
        int, typer.Option(min=0, help="How often failed regions are tried again.")
    ] = 2,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute also regions that are done.")
    ] = False,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Compute regions, then everything that is made from them."""
    if bool(region_id) == all_region_ids:
        raise typer.BadParameter("give --region-id (repeatable) or --all-region-ids, not both")
    settings = settings_from(env_file, debug=debug, platform=platform)
    deployment = Deployment(settings)
    chosen = list(deployment.grid.valid) if all_region_ids else list(dict.fromkeys(region_id or []))
    for id_ in chosen:
        deployment.grid.require_valid(id_)
    deployment.catalog  # noqa: B018 - no catalog: say so before anything else
    if wipe:
        _wipe([deployment.of(name) for name in risk_type.names], yes=yes)
    from ocr_assets.deployment_runs import materialize_deployment

    launcher = _launcher(settings, deployment)
    try:
        for risk_name in risk_type.names:
            materialize_deployment(
                launcher.of(risk_name),
                chosen,
                statistics=summary_stats,
                pyramid=create_pyramid,
                retries=process_retries,
                recompute=recompute,
            )
    finally:
        print_materialized(launcher)


@app.command("process-region")
def process_region(
    region_id: Annotated[str, typer.Argument(help="Region to compute, like y9_x16.")],
    platform: PlatformOption = None,
    risk_type: RiskTypeOption = RiskType.fire,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute the region also if it is done.")
    ] = False,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Compute one region: its raster and its buildings."""
    settings = settings_from(env_file, debug=debug, platform=platform)
    deployment = Deployment(settings)
    deployment.grid.require_valid(region_id)
    deployment.catalog  # noqa: B018 - no catalog: say so before anything else
    launcher = _launcher(settings, deployment)
    try:
        for risk_name in risk_type.names:
            of_type = launcher.of(risk_name)
            of_type.materialize(*stages.TEMPLATE)
            of_type.materialize_regions([region_id], recompute=recompute)
    finally:
        print_materialized(launcher)


def _stage(names: tuple[str, ...], summary: str, label: str, *assets: str) -> None:
    """Add one command, under each of ``names``, that materializes ``assets``."""

    def command(
        platform: PlatformOption = None,
        risk_type: RiskTypeOption = RiskType.fire,
        debug: Debug = False,
        env_file: EnvFile = None,
    ) -> None:
        settings = settings_from(env_file, debug=debug, platform=platform)
        launcher = _launcher(settings, Deployment(settings))
        try:
            for risk_name in risk_type.names:
                launcher.of(risk_name).materialize(label, *assets)
        finally:
            print_materialized(launcher)

    command.__doc__ = summary
    app.command(names[0])(command)
    for alias in names[1:]:
        app.command(alias, help=f"{summary} The same as `ocr {names[0]}`.")(command)


_stage(
    ("partition-buildings", "aggregate"),
    "Partition the buildings of all regions by state and county.",
    *stages.BUILDINGS,
)
_stage(
    ("aggregate-region-risk-summary-stats", "aggregate-regional-risk"),
    "Summarise risk for block, tract, county, state and nation.",
    *stages.STATISTICS,
)
_stage(
    ("write-aggregated-region-analysis-files",),
    "Write the summaries as GeoParquet, CSV, GeoJSON and GeoPackage.",
    *stages.ANALYSIS_FILES,
)
_stage(
    ("create-regional-pmtiles",),
    "Tile the summaries of counties, tracts, blocks, states and the nation.",
    *stages.REGIONAL_TILES,
)
_stage(
    ("create-building-pmtiles", "create-pmtiles"),
    "Tile the footprints of all buildings.",
    *stages.BUILDING_TILES,
)
_stage(
    ("create-building-centroid-pmtiles",),
    "Tile the centroids of buildings at risk.",
    *stages.CENTROID_TILES,
)
_stage(("create-pyramid",), "Build the multiscale pyramid of the risk rasters.", *stages.PYRAMID)


@regions_app.command("status")
def status(
    state: Annotated[
        list[RegionState] | None,
        typer.Option("--state", help="Show only regions in this state; repeatable."),
    ] = None,
    risk_type: OneRiskTypeOption = OneRiskType.fire,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show which regions are done, stale, failed or missing, by version and code."""
    from ocr_assets.cli.instance import failed_partitions

    deployment = Deployment(settings_from(env_file)).of(risk_type.value)
    deployment.catalog  # noqa: B018 - no catalog: say so before anything else
    valid = deployment.grid.valid
    rows = deployment.region_status(failed_partitions(deployment.key("region_buildings"), valid))
    counts: Counter[str] = Counter(row.state for row in rows)
    if state:
        rows = [row for row in rows if row.state in state]
    if as_json:
        document = {"counts": counts, "regions": [asdict(row) for row in rows]}
        console.print_json(json.dumps(document))
        return
    print_table(
        f"{risk_type.value}, {deployment.grid.name}, {deployment.settings.environment} "
        f"{deployment.settings.version_label}",
        ["region", "state", "version", "code", "buildings", "reason"],
        [
            [
                row.region_id,
                row.state,
                row.version or "",
                row.code_version or "",
                "" if row.buildings is None else row.buildings,
                row.reason,
            ]
            for row in rows
        ],
        right={"buildings"},
    )
    console.print(", ".join(f"{counts[name]} {name}" for name in RegionState))


@regions_app.command("compare")
def compare(
    version_a: Annotated[
        str, typer.Argument(metavar="VERSION_A", help="Like 1.2.3, v1.2.3_r2, latest or dev.")
    ],
    version_b: Annotated[str, typer.Argument(metavar="VERSION_B", help="Compared with it.")],
    risk_type: OneRiskTypeOption = OneRiskType.fire,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Every difference as a table, .csv or .parquet."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="A map of the differences, .png.")
    ] = None,
    all_variables: Annotated[
        bool, typer.Option("--all", help="Show also what did not change.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show what changed from one version to another, by variable and geography."""
    from ocr_assets.region_comparison import Version, changed, pieces
    from ocr_assets.region_comparison import compare as compare_versions

    settings = settings_from(env_file)
    before, after = (Version.of(settings, name, risk_type.value) for name in (version_a, version_b))
    label = f"compare {before.label} with {after.label}"
    with ConsoleProgress(errors).task(label, pieces(before, after)) as advance:
        found = compare_versions(before, after, table=output, picture=picture, progress=advance)
    shown = found if all_variables else changed(found)
    if as_json:
        document = {
            "risk_type": risk_type.value,
            "before": before.label,
            "after": after.label,
            "changes": [asdict(change) for change in shown],
        }
        console.print_json(json.dumps(document))
        return
    if shown:
        print_table(
            f"{risk_type.value}, {settings.environment}: {after.label} minus {before.label}",
            _CHANGE_COLUMNS,
            [
                [
                    change.geography,
                    change.variable,
                    *(f"{n:,}" for n in (change.compared, change.changed)),
                    *(f"{n:,}" for n in (change.added, change.removed)),
                    *(
                        "" if value is None else f"{value:.6g}"
                        for value in (change.mean_difference, change.max_difference)
                    ),
                    change.place,
                ]
                for change in shown
            ],
            right=set(_CHANGE_COLUMNS[2:8]),
        )
    console.print(f"{len(changed(found))} of {len(found)} variables differ")


_CHANGE_COLUMNS = [
    "geography",
    "variable",
    "compared",
    "changed",
    "added",
    "removed",
    "mean difference",
    "max difference",
    "at",
]


def _launcher(settings: Settings, deployment: Deployment) -> Launcher:
    from ocr_assets.cli.launch import Launcher

    return Launcher(deployment, ConsoleProgress(errors), debug=settings.debug)


def _wipe(parts: list[Deployment], *, yes: bool) -> None:
    for part in parts:
        for line in part.describe_wipe():
            errors.print(f"wipe: {line}")
    if not yes and errors.is_terminal and not typer.confirm("Delete this?", err=True):
        raise DeploymentError("nothing was wiped and nothing was run")
    for part in parts:
        part.wipe()


def print_materialized(launcher: Launcher) -> None:
    """Print what a command materialized, a row for each asset."""
    root = launcher.deployment.settings.storage_root
    rows = [
        [
            row.asset,
            row.partitions,
            f"{row.count:,} {row.unit}" if row.unit else "",
            f"{row.size:,}",
            f"{row.seconds:.1f}",
            row.path.removeprefix(f"{root}/"),
        ]
        for row in launcher.materialized.values()
    ]
    if rows:
        elapsed = time.perf_counter() - launcher.started
        print_table(
            f"Materialized in {elapsed:.1f} s, below {root}",
            ["asset", "partitions", "amount", "bytes", "seconds", "path"],
            rows,
            right={"partitions", "amount", "bytes", "seconds"},
        )
    for line in launcher.failed_checks:
        errors.print(f"warning: {line}")
