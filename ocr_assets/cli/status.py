"""The command that shows on one screen where all wings stand."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_assets.cli.app import EnvFile, app, console, print_table, settings_from
from ocr_assets.regions.risk_type import RISK_NAMES, risk_group

if TYPE_CHECKING:
    import dagster as dg

    from ocr_assets.deployment import Deployment
    from ocr_assets.volume_library import VolumeLibrary

_LATEST_JOBS = 5
_STATES = ("done", "stale", "failed", "running", "missing")


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until interrupted.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks with --watch.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, on one line for each look with --watch.")
    ] = False,
    env_file: EnvFile = None,
) -> None:
    """Show all wings on one screen: partitions, jobs, runs at work, daemon, latest errors."""
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.definitions import build_defs
    from ocr_assets.deployment import Deployment
    from ocr_assets.volume_library import VolumeLibrary

    settings = settings_from(env_file)
    prepare_home()
    graph = build_defs(Deployment(settings)).resolve_asset_graph()
    with dg.DagsterInstance.get() as instance:
        while True:
            # Made anew for each look: what they have read stays with them.
            deployment, library = Deployment(settings), VolumeLibrary(settings)
            found = overview(instance, graph, deployment, library)
            if as_json and watch:
                console.out(json.dumps(found), highlight=False)
            elif as_json:
                console.print_json(json.dumps(found))
            else:
                if watch:
                    console.clear()
                _print(found)
            if not watch:
                return
            time.sleep(every)


def overview(
    instance: dg.DagsterInstance,
    graph: dg.AssetGraph,
    deployment: Deployment,
    library: VolumeLibrary,
) -> dict[str, Any]:
    """Where everything stands, as plain values."""
    from ocr_assets import run_overview

    settings = deployment.settings
    wings: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(graph.materializable_asset_keys, key=lambda key: key.path):
        asset = graph.get(key)
        if asset.is_partitioned:
            counts = run_overview.partition_counts(instance, key)
            row = {"asset": key.to_user_string(), **counts}
            wings.setdefault(asset.group_name, []).append(row)
    notes: dict[str, str] = {}
    for risk_name in RISK_NAMES:
        wing = risk_group(risk_name)
        if wing in wings:
            wings[wing] = _regions(deployment.of(risk_name), wing, wings[wing], notes)
    return {
        "environment": settings.environment,
        "version": settings.version_label,
        "platform": settings.platform,
        "daemon": asdict(run_overview.daemon_state(instance)),
        "wings": wings,
        "notes": notes,
        "jobs": _jobs(instance, library),
        "runs": [asdict(row) for row in run_overview.runs_at_work(instance)],
        "queued": run_overview.queued_runs(instance),
        "errors": [asdict(row) for row in run_overview.latest_errors(instance)],
    }


def _regions(
    deployment: Deployment, wing: str, rows: list[dict[str, Any]], notes: dict[str, str]
) -> list[dict[str, Any]]:
    """States of the regions: the ledger of the store decides what is done, not the instance."""
    from ocr_assets.cli.instance import failed_partitions
    from resources.catalog import CatalogError

    try:
        deployment.catalog  # noqa: B018 - no catalog: there are no regions to speak of
        asset = deployment.key("region_buildings")
        failed = failed_partitions(asset, deployment.grid.valid)
        states = Counter(row.state for row in deployment.region_status(failed))
    except CatalogError as error:
        notes[wing] = " ".join(str(error).split())
        return rows
    running = max(row["running"] for row in rows)
    found = {state: states.get(state, 0) for state in ("done", "stale", "failed", "missing")}
    return [{"asset": deployment.key("regions"), **found, "running": running}]


def _jobs(instance: dg.DagsterInstance, library: VolumeLibrary) -> list[dict[str, Any]]:
    """The latest jobs of volumes."""
    from ocr_assets.cli.volume_runs import job_attempts, job_tasks
    from ocr_assets.volume_jobs import is_canceled, list_jobs
    from ocr_assets.volumes.ledger import FAILED, FINISHED, job_state

    rows = []
    for job in list_jobs(library.storage)[-_LATEST_JOBS:]:
        tasks = job_tasks(library, job, job_attempts(instance, job))
        rows.append(
            {
                "job": job.key,
                "job_type": job.job_type,
                "state": job_state(tasks, canceled=is_canceled(library.storage, job)).value,
                "done": sum(task.state in FINISHED for task in tasks),
                "failed": sum(task.state in FAILED for task in tasks),
                "volumes": len(tasks),
            }
        )
    return rows


def _print(found: dict[str, Any]) -> None:
    rows = [
        [wing, row["asset"], *(row.get(state, "") for state in _STATES)]
        for wing, assets in found["wings"].items()
        for row in assets
    ]
    title = f"{found['environment']} {found['version']}, platform {found['platform']}"
    print_table(title, ["wing", "partitions of", *_STATES], rows, right=set(_STATES))
    for wing, note in found["notes"].items():
        console.print(f"{wing}: {note}", highlight=False, markup=False)
    if found["jobs"]:
        columns = list(found["jobs"][0])
        print_table(
            "Jobs of volumes",
            [name.replace("_", " ") for name in columns],
            [[row[name] for name in columns] for row in found["jobs"]],
            right={"done", "failed", "volumes"},
        )
    if found["runs"]:
        columns = ["run_id", "what", "partitions", "status", "since"]
        print_table(
            "Runs at work",
            ["run", *columns[1:]],
            [
                [row["run_id"][:8], *(row[name] or "" for name in columns[1:])]
                for row in found["runs"]
            ],
            right=set(),
        )
    daemon = found["daemon"]
    heard = daemon["last_heartbeat"] or "never"
    lines = [
        f"{len(found['runs'])} runs at work, {found['queued']} queued",
        f"daemon {'running' if daemon['running'] else 'not running'}, last heard of: {heard}",
    ]
    if found["errors"]:
        lines.append("latest errors:")
    for row in found["errors"]:
        what = f"{row['what']} {row['partitions']}".strip()
        lines.append(f"  {row['since']} {row['run_id'][:8]} {what}: {row['error']}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
