"""What of a run failed, and the command that tries exactly that again.

Belongs here: reading partitions from a run's tags and from what its failed step said, and putting
them into a command line. Does not belong here: who is told of it (:mod:`sensors.alerts`).
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import FAILED, RETRY
from ocr_assets.launch import REGION_ASSETS
from ocr_assets.partitions import (
    JOB_TYPE,
    PARTITION,
    RANGE_END,
    RANGE_START,
    TILES,
    VOLUME,
    tile_year_partitions,
)
from ocr_assets.request_jobs import ASSETS_OF_JOBS
from ocr_assets.tile_library import PRODUCTS
from ocr_assets.tiles.grid import YEARS, Tile, UnknownTileError
from resources.catalog import CatalogError
from resources.keys import StorageError
from resources.settings import Settings

FAILED_TILES = "failed.csv"
"""File that the command for tiles writes before it uses it."""

_TERRAIN = "elevation"


def retry(
    instance: dg.DagsterInstance,
    deployment: Deployment,
    run: dg.DagsterRun,
    told: Mapping[str, dg.MetadataValue[Any]],
) -> tuple[list[str], str]:
    """The failed partitions of a run, and the command that tries exactly those again.

    Args:
        instance: where dynamic partitions are listed.
        deployment: settings and grid of the runs.
        run: a run that failed.
        told: metadata that its failed step gave.

    Returns:
        Partition keys, and a command line of a shell; empty where there is none.
    """
    named = list(told[FAILED].value) if FAILED in told else []
    if RETRY in told:
        return named, str(told[RETRY].value)
    assets = [key.path for key in run.asset_selection or ()]
    assets = assets or [[name] for name in ASSETS_OF_JOBS.get(run.job_name, ())]
    regions = [path for path in assets if path[-1] in REGION_ASSETS]
    if regions:
        return _retry_regions(deployment, named or _region_range(deployment, run.tags), regions)
    if sources := [name for name in PRODUCTS if [name] in assets]:
        return _retry_tiles(deployment, named or _tile_range(instance, run.tags, sources), sources)
    job_type, volume = (run.tags.get(f"{PARTITION}/{name}") for name in (JOB_TYPE, VOLUME))
    if job_type and volume:
        command = _command(deployment.settings, "volumes", "run", "--type", job_type, volume)
        return [run.tags[PARTITION]], command
    return named or ([run.tags[PARTITION]] if PARTITION in run.tags else []), ""


def _retry_regions(
    deployment: Deployment, regions: list[str], assets: Sequence[Sequence[str]]
) -> tuple[list[str], str]:
    if not regions:
        return [], ""
    options = [part for region in regions for part in ("--region-id", region)]
    # The assets of a further type of risk have its name before theirs.
    risks = sorted({path[0] for path in assets if len(path) > 1})
    options += [part for risk in risks for part in ("--risk-type", risk)]
    return regions, _command(deployment.settings, "run", *options)


def _region_range(deployment: Deployment, tags: Mapping[str, str]) -> list[str]:
    if PARTITION in tags:
        return [tags[PARTITION]]
    try:
        order = deployment.grid.valid
    except (CatalogError, StorageError):
        return []
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if first not in order or last not in order:
        return []
    return list(order[order.index(first) : order.index(last) + 1])


def _retry_tiles(
    deployment: Deployment, keys: list[str], sources: Sequence[str]
) -> tuple[list[str], str]:
    """Tiles are asked for by a table, so the command writes one first."""
    if not keys:
        return [], ""
    rows = ["Year,X_tile,Y_tile"]
    for key in keys:
        name, _, year = key.partition("|")
        try:
            tile = Tile.parse(name)
        except UnknownTileError:
            return keys, ""
        # Terrain belongs to no year, but each row of a table has one.
        rows.append(f"{year or YEARS[0]},{tile.x},{tile.y}")
    table = shlex.quote("".join(f"{row}\\n" for row in rows))
    options = ("tiles", "run", FAILED_TILES, "--sources", ",".join(sources), "--yes")
    return keys, f"printf {table} > {FAILED_TILES} && {_command(deployment.settings, *options)}"


def _tile_range(
    instance: dg.DagsterInstance, tags: Mapping[str, str], sources: Sequence[str]
) -> list[str]:
    if PARTITION in tags:
        return [tags[PARTITION]]
    if RANGE_START not in tags or RANGE_END not in tags:
        return []
    partitions = TILES if _TERRAIN in sources else tile_year_partitions()
    chosen = dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])
    try:
        with dg.partition_loading_context(dynamic_partitions_store=instance):
            return list(partitions.get_partition_keys_in_range(chosen))
    except dg.DagsterError:  # somebody removed the keys meanwhile
        return []


def _command(settings: Settings, *arguments: str) -> str:
    place = [f"OCR_ENVIRONMENT={settings.environment}"]
    if settings.version:
        place.append(f"OCR_VERSION={settings.version}")
    return shlex.join([*place, "ocr", *arguments])
