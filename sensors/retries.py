"""What of a run failed, and the command that tries exactly that again.

Belongs here: reading partitions from a run's tags and from what its failed step said, and putting
them into a command line. Does not belong here: who is told of it (:mod:`sensors.alerts`).
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import FAILED, RETRY, command_line, region_options
from ocr_assets.launch import REGION_ASSETS
from ocr_assets.partitions import (
    JOB_TYPE,
    PARTITION,
    VOLUME,
    region_partitions,
    run_partitions,
    tile_partitions,
)
from ocr_assets.regions.risk_type import RISK_NAMES
from ocr_assets.request_jobs import ASSETS_OF_JOBS
from ocr_assets.tile_library import PRODUCTS
from ocr_assets.tiles.grid import YEARS, Tile, UnknownTileError
from resources.catalog import CatalogError
from resources.keys import StorageError

FAILED_TILES = "failed.csv"
"""File that the command for tiles writes before it uses it."""

_DONE_IS_SKIPPED = "`ocr run` or `ocr deploy run` as before: what is done is skipped"
_OF_A_REQUEST = "`ocr tiles retry REQUEST`, with the table or file that asked for them"


@dataclass(frozen=True)
class Retry:
    """How what failed is tried again.

    Attributes:
        partitions: keys of those that failed.
        command: command line of a shell that tries exactly those again; empty if there is none.
        otherwise: what to do where that line is too long to be told.
    """

    partitions: Sequence[str] = field(default_factory=list)
    command: str = ""
    otherwise: str = _DONE_IS_SKIPPED


def retry(
    instance: dg.DagsterInstance,
    deployment: Deployment,
    run: dg.DagsterRun,
    told: Mapping[str, dg.MetadataValue[Any]],
) -> Retry:
    """The failed partitions of a run, and how exactly those are tried again.

    Args:
        instance: where dynamic partitions are listed.
        deployment: settings and grid of the runs.
        run: a run that failed.
        told: metadata that its failed step gave.
    """
    named = list(told[FAILED].value) if FAILED in told else []
    if RETRY in told:
        return Retry(named, str(told[RETRY].value))
    assets = [key.path for key in run.asset_selection or ()]
    assets = assets or [[name] for name in ASSETS_OF_JOBS.get(run.job_name, ())]
    regions = [path for path in assets if path[-1] in REGION_ASSETS]
    if regions:
        return _retry_regions(
            deployment, named or _region_range(instance, deployment, run.tags), regions
        )
    if sources := [name for name in PRODUCTS if [name] in assets]:
        keys = named or _range(instance, run.tags, tile_partitions(sources[0]))
        return _retry_tiles(deployment, keys, sources)
    job_type, volume = (run.tags.get(f"{PARTITION}/{name}") for name in (JOB_TYPE, VOLUME))
    if job_type and volume:
        arguments = ("volumes", "run", "--type", job_type, volume)
        return Retry([run.tags[PARTITION]], command_line(deployment.settings, *arguments))
    return Retry(named or ([run.tags[PARTITION]] if PARTITION in run.tags else []))


def _retry_regions(
    deployment: Deployment, regions: list[str], assets: Sequence[Sequence[str]]
) -> Retry:
    if not regions:
        return Retry()
    # The assets of every type of risk but the first have its name before theirs.
    risks = {path[0] if len(path) > 1 else RISK_NAMES[0] for path in assets}
    options = region_options(regions, risks)
    return Retry(regions, command_line(deployment.settings, "run", *options))


def _region_range(
    instance: dg.DagsterInstance, deployment: Deployment, tags: Mapping[str, str]
) -> list[str]:
    try:
        definition = region_partitions(deployment.grid)
    except (CatalogError, StorageError):
        return [tags[PARTITION]] if PARTITION in tags else []
    return _range(instance, tags, definition)


def _retry_tiles(deployment: Deployment, keys: list[str], sources: Sequence[str]) -> Retry:
    """Tiles are asked for by a table, so the command writes one first."""
    if not keys:
        return Retry()
    rows = ["Year,X_tile,Y_tile"]
    for key in keys:
        name, _, year = key.partition("|")
        try:
            tile = Tile.parse(name)
        except UnknownTileError:
            return Retry(keys)
        # Terrain belongs to no year, but each row of a table has one.
        rows.append(f"{year or YEARS[0]},{tile.x},{tile.y}")
    table = shlex.quote("".join(f"{row}\\n" for row in rows))
    options = ("tiles", "run", FAILED_TILES, "--sources", ",".join(sources), "--yes")
    command = command_line(deployment.settings, *options)
    return Retry(keys, f"printf {table} > {FAILED_TILES} && {command}", _OF_A_REQUEST)


def _range(
    instance: dg.DagsterInstance,
    tags: Mapping[str, str],
    definition: dg.PartitionsDefinition[str],
) -> list[str]:
    try:
        return run_partitions(instance, tags, definition) or []
    except dg.DagsterError:  # somebody removed the keys meanwhile
        return []
