"""How work on tiles went, as the instance and the store know it.

Belongs here: putting together what is stored and the last attempts. Does not belong here: launching
work, or what a report looks like.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import NamedTuple

import dagster as dg

from ocr_assets.launch import error_text, user_error
from ocr_assets.partitions import PARTITION, TILES
from ocr_assets.tile_library import Source, SourceKey, TileLibrary
from ocr_assets.tiles.grid import Tile
from ocr_assets.tiles.reports import Status, TileTask

Wanted = Sequence[tuple[int, Tile]]
"""Years and tiles that somebody asked for."""

_KEYS_AT_ONCE = 1000
_LOOKS_AT_ONCE = 16
_FAILED_RUNS = 500
"""Latest failed runs that are looked at for the reasons of failures."""


class Attempt(NamedTuple):
    """The last attempt at a partition: when it ended, how long it took, why it failed."""

    ended: float
    seconds: float = 0.0
    skipped: bool = False
    error: str = ""


def partition_key(key: SourceKey) -> str:
    """Partition key of a source of a tile: ``tile`` or ``tile|year``."""
    return key.tile.key if key.year is None else f"{key.tile.key}|{key.year}"


def source_keys(source: Source, wanted: Wanted) -> list[SourceKey]:
    """What there should be of a source, each once, in order."""
    pairs = {(tile, None if source == "elevation" else year) for year, tile in wanted}
    return [
        SourceKey(source, tile, year)
        for tile, year in sorted(pairs, key=lambda pair: (pair[1] or 0, pair[0]))
    ]


def stored(tiles: TileLibrary, keys: Iterable[SourceKey]) -> dict[SourceKey, Status]:
    """Which of ``keys`` are stored, and whether only in part; the others are left out."""

    def look(key: SourceKey) -> tuple[SourceKey, Status | None]:
        record = tiles.record(key)
        if record is None:
            return key, None
        return key, "partial" if record.report.get("partial") else "success"

    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        return {key: status for key, status in pool.map(look, keys) if status}


def add_tiles(instance: dg.DagsterInstance, wanted: Iterable[Tile]) -> None:
    """Make partitions for tiles that have none."""
    name = str(TILES.name)
    there = set(instance.get_dynamic_partitions(name))
    missing = [tile.key for tile in sorted(set(wanted)) if tile.key not in there]
    for chunk in batched(missing, _KEYS_AT_ONCE):
        instance.add_dynamic_partitions(name, list(chunk))


def tile_tasks(
    instance: dg.DagsterInstance, tiles: TileLibrary, wanted: Wanted, sources: Sequence[Source]
) -> list[TileTask]:
    """State of every source of the tiles that are wanted, source by source."""
    failures = _failures(instance, sources)
    tasks = []
    for source in sources:
        keys = source_keys(source, wanted)
        there = stored(tiles, keys)
        made = _materializations(instance, source, [partition_key(key) for key in keys])
        for key in keys:
            tasks.append(_task(key, there.get(key), made, failures))
    return tasks


def _task(
    key: SourceKey,
    there: Status | None,
    made: Mapping[str, Attempt],
    failures: Mapping[tuple[str, str], Attempt],
) -> TileTask:
    name = partition_key(key)
    success, failure = made.get(name), failures.get((key.source, name))
    if failure and (success is None or failure.ended > success.ended):
        return TileTask(
            key.source, key.tile, key.year, "failed", ended=failure.ended, error=failure.error
        )
    if there is None or success is None:
        return TileTask(key.source, key.tile, key.year, there or "missing")
    return TileTask(
        key.source, key.tile, key.year, there, success.seconds, success.ended, success.skipped
    )


def _materializations(
    instance: dg.DagsterInstance, source: Source, keys: Collection[str]
) -> dict[str, Attempt]:
    """The latest materialization of each partition."""
    asset = dg.AssetKey(source)
    found: dict[str, Attempt] = {}
    for chunk in batched(keys, _KEYS_AT_ONCE):
        ids = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION, set(chunk)
        )
        if not ids:
            continue
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset, storage_ids=list(ids.values())), limit=len(ids)
        ).records
        for record in records:
            event = record.asset_materialization
            if event is None or record.partition_key is None:
                continue
            notes = {name: value.value for name, value in event.metadata.items()}
            found[record.partition_key] = Attempt(
                float(str(notes.get("ended", record.timestamp))),
                float(str(notes.get("seconds", 0.0))),
                bool(notes.get("skipped")),
            )
    return found


def _failures(
    instance: dg.DagsterInstance, sources: Sequence[Source]
) -> dict[tuple[str, str], Attempt]:
    """The latest failure of each partition that has one, by source and partition key."""
    found: dict[tuple[str, str], Attempt] = {}
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=_FAILED_RUNS):
        chosen = record.dagster_run.asset_selection
        if chosen is not None and not any(dg.AssetKey(source) in chosen for source in sources):
            continue
        for source, key, attempt in _failed_partitions(instance, record.dagster_run.run_id):
            if (source, key) not in found or found[source, key].ended < attempt.ended:
                found[source, key] = attempt
    return found


def _failed_partitions(
    instance: dg.DagsterInstance, run_id: str
) -> Iterator[tuple[str, str, Attempt]]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        told = data.user_failure_data.metadata.get("failed") if data.user_failure_data else None
        if told is not None:
            reasons: Mapping[str, str] = told.value  # type: ignore[assignment]
            for key, reason in reasons.items():
                yield str(event.step_key), key, Attempt(entry.timestamp, error=reason)
        elif error := user_error(data.error):
            # The step ended before it looked at any tile: its run says which it was to make.
            run = instance.get_run_by_id(run_id)
            partition = run.tags.get(PARTITION) if run else None
            if partition:
                attempt = Attempt(entry.timestamp, error=error_text(error))
                yield str(event.step_key), partition, attempt
