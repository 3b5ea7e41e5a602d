"""Runs that read volumes: launched in this process, and found again in the instance."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import batched
from typing import Any, NamedTuple

import dagster as dg

from ocr_assets.cli.launch import Launcher
from ocr_assets.launch import Failure, error_text, user_error
from ocr_assets.partitions import PARTITION, VOLUMES, reading_tags
from ocr_assets.volume_jobs import is_canceled
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volume_reader import LASTING
from ocr_assets.volumes.ledger import Attempt, Job, Task, TaskState, task

JOB_TAG, TASK_TAG = "ocr/job", "ocr/volume"
"""Tags of runs that read a volume: the key of the job, and the volume."""

LISTING, READING = ("volume_manifest",), ("volume_lines", "volume_text")
_TEXT = dg.AssetKey(READING[-1])
_KEYS_AT_ONCE = 5000
_KEYS_IN_A_QUERY = 500

# Errors of what a user gave: another attempt would fail in the same way.
_TERMINAL = frozenset(
    {
        "CharsetError",
        "InvalidVolumeIdError",
        "JobTypeError",
        "ManifestError",
        "MissingModelError",
        "ModelError",
        "TraineddataError",
    }
)
_OUTCOMES = {
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
    dg.DagsterRunStatus.QUEUED: "queued",
    dg.DagsterRunStatus.NOT_STARTED: "queued",
}


class Problem(NamedTuple):
    """What went wrong: when, in seconds since 1970, with which volume, and why."""

    at: float
    volume: str
    error: str


def add_volumes(instance: dg.DagsterInstance, volumes: Iterable[str]) -> None:
    """Make partitions for volumes that have none."""
    name = str(VOLUMES.name)
    missing = sorted(set(volumes) - set(instance.get_dynamic_partitions(name)))
    for start in range(0, len(missing), _KEYS_AT_ONCE):
        instance.add_dynamic_partitions(name, missing[start : start + _KEYS_AT_ONCE])


class VolumeLauncher(Launcher):
    """Reads volumes one after the other."""

    wing = "volumes"

    def read(
        self,
        job_type: str,
        volumes: Sequence[str],
        *,
        job: str | None = None,
        pages_again: bool = False,
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> dict[str, str]:
        """Read volumes; why some failed, by volume. Before each, ``wanted`` is asked about it."""
        add_volumes(self.instance, volumes)
        failed: dict[str, str] = {}
        for volume in volumes:
            if not wanted(volume):
                continue
            if failure := self._read_one(job_type, volume, job, pages_again=pages_again):
                failed[volume] = failure.reason
        return failed

    def _read_one(
        self, job_type: str, volume: str, job: str | None, *, pages_again: bool
    ) -> Failure | None:
        tags = {TASK_TAG: volume} | ({JOB_TAG: job} if job else {})
        failure = self._execute(LISTING, {**tags, PARTITION: volume}, {})
        if failure is not None:
            return failure
        config: Mapping[str, Any] = {
            "ops": {"volume_lines": {"config": {"pages_again": pages_again}}}
        }
        return self._execute(READING, {**tags, **reading_tags(job_type, volume)}, config)


def job_attempts(
    instance: dg.DagsterInstance, job: Job, volumes: Collection[str] | None = None
) -> list[Attempt]:
    """Attempts at volumes of a job since it was made, the oldest first, as the instance knows them.

    Whoever launched a run, it counts: a command, the daemon, a backfill or a person in the UI.

    Args:
        instance: with the runs.
        job: whose volumes.
        volumes: only these; all of the job if not given.
    """
    keys: dict[str, str] = {}
    for volume in job.volumes if volumes is None else volumes:
        keys |= {volume: volume, reading_tags(job.job_type, volume)[PARTITION]: volume}
    since = datetime.fromtimestamp(job.created, UTC)
    attempts: list[tuple[float, Attempt]] = []
    for chunk in batched(keys, _KEYS_IN_A_QUERY):
        chosen = dg.RunsFilter(tags={PARTITION: list(chunk)}, created_after=since)
        for record in instance.get_run_records(chosen, ascending=True):
            attempt = _attempt(instance, record, keys[record.dagster_run.tags[PARTITION]])
            if attempt is not None:
                attempts.append((record.create_timestamp.timestamp(), attempt))
    return [attempt for _, attempt in sorted(attempts, key=lambda item: item[0])]


def _attempt(instance: dg.DagsterInstance, record: dg.RunRecord, volume: str) -> Attempt | None:
    """A run as an attempt at a volume; None if it is none yet, or only the beginning of one."""
    run = record.dagster_run
    outcome = _OUTCOMES.get(run.status, "running")
    # Listing the images and finding the lines begin an attempt: they count while they run, and if
    # they fail.
    whole = run.asset_selection is None or _TEXT in run.asset_selection
    if outcome == "queued" or (not whole and outcome not in ("failed", "running")):
        return None
    error, terminal = _failure_of(instance, run.run_id) if outcome == "failed" else ("", False)
    return Attempt(volume, outcome, record.start_time, record.end_time, error, terminal)


def _failure_of(instance: dg.DagsterInstance, run_id: str) -> tuple[str, bool]:
    """Why a run failed, and whether it would again."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = entry.dagster_event.step_failure_data if entry.dagster_event else None
        error = user_error(data.error) if data else None
        if data is None or error is None:
            continue
        told = data.user_failure_data.metadata.get(LASTING) if data.user_failure_data else None
        lasting = told is not None and bool(told.value)
        return error_text(error), lasting or error.cls_name in _TERMINAL
    return "the run was killed, or failed before its first step", False


def job_tasks(library: VolumeLibrary, job: Job, attempts: Sequence[Attempt]) -> list[Task]:
    """The volumes of a job with their states."""
    of_volume: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        of_volume.setdefault(attempt.volume, []).append(attempt)
    return [_task(library, job, volume, of_volume.get(volume, [])) for volume in job.volumes]


def _task(library: VolumeLibrary, job: Job, volume: str, attempts: Sequence[Attempt]) -> Task:
    record = library.record(job.job_type, volume)
    if record is None:
        return task(volume, attempts, None, library.page_count(volume), 0)
    quality = record.quality
    return task(volume, attempts, quality.status, quality.pages, quality.failed_pages)


def latest_errors(
    library: VolumeLibrary, job: Job, attempts: Sequence[Attempt], most: int
) -> list[Problem]:
    """The latest errors of a job, the latest first: attempts that failed, and pages that did.

    Pages are those of volumes whose last attempt read only some of them.
    """
    last = {attempt.volume: attempt for attempt in attempts}
    found = [
        Problem(one.ended or 0.0, one.volume, one.error)
        for one in attempts
        if one.outcome == "failed"
    ]
    # Each volume with failed pages has one at least, so that no more of them have to be opened.
    partial = [
        (one, record)
        for one in last.values()
        if one.outcome == "succeeded"
        and (record := library.record(job.job_type, one.volume)) is not None
        and record.quality.status == "partial"
    ]
    partial.sort(key=lambda item: item[0].ended or 0.0)
    for one, record in partial[-most:]:
        for line in library.read_file(record, "errors.jsonl").splitlines()[:most]:
            page = json.loads(line)
            error = f"{page['image']}, {page['stage']}: {page['message']}"
            found.append(Problem(one.ended or 0.0, one.volume, error))
    found.sort(key=lambda problem: -problem.at)
    return found[:most]


def run_job(
    launcher: VolumeLauncher,
    library: VolumeLibrary,
    job: Job,
    tasks: Sequence[Task],
    states: Iterable[TaskState],
    *,
    pages_again: bool = False,
) -> dict[str, str]:
    """Read the volumes of a job that are in one of ``states``; why some failed, by volume.

    Each is looked at again when its turn comes: the job may be canceled by then, or the volume
    taken by another command that works at the same job.
    """
    chosen = set(states)
    stopped = False

    def wanted(volume: str) -> bool:
        nonlocal stopped
        stopped = stopped or is_canceled(library.storage, job)
        if stopped:
            return False
        attempts = job_attempts(launcher.instance, job, [volume])
        return _task(library, job, volume, attempts).state in chosen

    return launcher.read(
        job.job_type,
        [task.volume for task in tasks if task.state in chosen],
        job=job.key,
        pages_again=pages_again,
        wanted=wanted,
    )
