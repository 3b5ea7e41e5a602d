"""What the instance knows about the graph now: partitions of assets, runs, daemon, errors.

Belongs here: questions to the instance, answered as plain rows. Does not belong here: what is
stored, and how rows are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._daemon.controller import get_daemon_statuses

from ocr_assets.launch import error_text, user_error
from ocr_assets.partitions import PARTITION, RANGE_END, RANGE_START

_GLOBAL_JOB = "__ASSET_JOB"


@dataclass(frozen=True)
class DaemonState:
    """Whether the daemon is at work, and when it was last heard of."""

    running: bool
    last_heartbeat: str | None


@dataclass(frozen=True)
class RunRow:
    """A run: what it materializes, of which partitions, and since when it is at work."""

    run_id: str
    what: str
    partitions: str
    status: str
    since: str | None
    error: str = ""


def daemon_state(instance: dg.DagsterInstance) -> DaemonState:
    """State of the daemon; it runs if every part of it that the instance needs is heard of."""
    statuses = get_daemon_statuses(
        instance, instance.get_required_daemon_types(), ignore_errors=True
    ).values()
    beats = [status.last_heartbeat.timestamp for status in statuses if status.last_heartbeat]
    running = bool(statuses) and all(status.healthy for status in statuses)
    return DaemonState(running, _time(max(beats, default=None)))


def partition_counts(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, int]:
    """Partitions of an asset that are done, failed or running, by their latest attempt."""
    events = instance.event_log_storage
    done = events.get_materialized_partitions(asset)
    attempts = events.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset
    )
    run_ids = sorted({run_id for run_id, _ in attempts.values()})
    runs = instance.get_runs(dg.RunsFilter(run_ids=run_ids)) if run_ids else []
    status = {run.run_id: run.status for run in runs}
    latest: dict[str, str] = {}
    for partition, (run_id, _) in attempts.items():
        if status.get(run_id) in IN_PROGRESS_RUN_STATUSES:
            latest[partition] = "running"
        elif status.get(run_id) == dg.DagsterRunStatus.FAILURE:
            latest[partition] = "failed"
    counts = Counter(latest.values())
    return {
        "done": len(done - latest.keys()),
        "failed": counts["failed"],
        "running": counts["running"],
    }


def runs_at_work(instance: dg.DagsterInstance) -> list[RunRow]:
    """Runs in progress, the oldest first."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES), ascending=True
    )
    return [_row(record, record.start_time) for record in records]


def queued_runs(instance: dg.DagsterInstance) -> int:
    """How many runs wait for their turn."""
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))


def latest_errors(instance: dg.DagsterInstance, limit: int = 5) -> list[RunRow]:
    """The latest failed runs with their reasons, the latest first."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=limit
    )
    return [
        _row(record, record.end_time, _reason(instance, record.dagster_run.run_id))
        for record in records
    ]


def _row(record: dg.RunRecord, at: float | None, error: str = "") -> RunRow:
    run = record.dagster_run
    selected: Iterable[dg.AssetKey] = run.asset_selection or ()
    names = ", ".join(sorted(key.to_user_string() for key in selected))
    first, last = run.tags.get(RANGE_START, ""), run.tags.get(RANGE_END, "")
    partitions = run.tags.get(PARTITION) or (first if first == last else f"{first} to {last}")
    return RunRow(
        run.run_id,
        names or ("all assets" if run.job_name == _GLOBAL_JOB else run.job_name),
        partitions,
        run.status.value.lower(),
        _time(at),
        error,
    )


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is None:
            continue
        told = event.step_failure_data.user_failure_data
        if told and told.description:
            return " ".join(told.description.split())
        if error := user_error(event.step_failure_data.error):
            return error_text(error)
    return "the run was killed, or failed before its first step"


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
