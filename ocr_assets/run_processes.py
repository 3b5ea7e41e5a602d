"""Which process executes a run, and whether it still lives.

Belongs here: the tag by which a run names its process, and closing runs whose process was killed.
"""

from __future__ import annotations

import os
import socket

import dagster as dg
import psutil
from dagster._core.storage.runs import SqliteRunStorage

PROCESS_TAG = "ocr/process"
"""Tag of runs that an `ocr` command executes itself: host, process id and when it started."""

HOST_TAG = "ocr/host"
"""Tag of runs that a daemon launched into processes of its host: the host's name."""

LAUNCHER_TAG = "ocr/launcher"
"""Tag of the same runs: the daemon, as :data:`PROCESS_TAG` names a process."""

CLOCK_MARGIN = 5.0
"""Seconds by which two statements of one process's start may differ, since clocks are adjusted."""


def process_tag() -> dict[str, str]:
    """Tag that names this process, so that a later one can tell whether it still lives."""
    return {PROCESS_TAG: _this_process()}


def launcher_tags() -> dict[str, str]:
    """Tags of a run that this process, a daemon, launches into another process of its host."""
    return {HOST_TAG: socket.gethostname(), LAUNCHER_TAG: _this_process()}


def _this_process() -> str:
    started = psutil.Process().create_time()
    return f"{socket.gethostname()}:{os.getpid()}:{started:.2f}"


def close_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process on this host was killed as failed and free their pool slots.

    After a kill or a power cut such runs would hold the writers' pool and the queue for ever; as
    failed ones they are retried by the daemon, if it had launched them.
    """
    unfinished = [
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    abandoned = []
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        owner = run.tags.get(PROCESS_TAG)
        if _lives(owner) if owner else worker_lives(instance, run):
            continue
        instance.report_run_failed(run, "the process that executed this run was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        abandoned.append(run.run_id)
    return abandoned


def _lives(owner: str) -> bool:
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    created = _created(int(pid))
    return created is not None and abs(created - float(started)) < CLOCK_MARGIN


def worker_lives(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process that a daemon launched for a run may live; True if that is unknown.

    Its events tell its number, once it has started; until then the daemon has to live. Its host is
    in a tag, or this one if the instance is embedded.
    """
    host = run.tags.get(HOST_TAG)
    if host is None and isinstance(instance.run_storage, SqliteRunStorage):
        host = socket.gethostname()
    if host != socket.gethostname():
        return True
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for entry in reversed(events):
        if entry.dagster_event and (
            pid := entry.dagster_event.engine_event_data.metadata.get("pid")
        ):
            created = _created(int(str(pid.value)))
            # A process that is younger than its event got the number of one that has ended.
            return created is not None and created < entry.timestamp + CLOCK_MARGIN
    # It has no process yet: a daemon that was killed before will not give it one.
    launcher = run.tags.get(LAUNCHER_TAG)
    return launcher is None or _lives(launcher)


def _created(pid: int) -> float | None:
    """When a living process was started, in seconds since 1970; None if there is none."""
    try:
        process = psutil.Process(pid)
        # A killed process whose parent does not collect it keeps its number.
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
