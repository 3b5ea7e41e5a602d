"""Runs that read volumes: launched in this process, and found again in the instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ocr_assets.cli.launch import Launcher
from ocr_assets.launch import Failure, error_text, user_error
from ocr_assets.partitions import PARTITION, VOLUMES, reading_tags
from ocr_assets.volume_jobs import is_canceled
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.ledger import Attempt, Job, Task, TaskState, task
from resources.storage import Storage

JOB_TAG, TASK_TAG = "ocr/job", "ocr/volume"
"""Tags of runs that read a volume: the key of the job, and the volume."""

LISTING, READING = ("volume_manifest",), ("volume_lines", "volume_text")
_STAGE_TAG = "ocr/stage"
_KEYS_AT_ONCE = 5000

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


def add_volumes(instance: dg.DagsterInstance, volumes: Iterable[str]) -> None:
    """Make partitions for volumes that have none."""
    name = str(VOLUMES.name)
    missing = sorted(set(volumes) - set(instance.get_dynamic_partitions(name)))
    for start in range(0, len(missing), _KEYS_AT_ONCE):
        instance.add_dynamic_partitions(name, missing[start : start + _KEYS_AT_ONCE])


class VolumeLauncher(Launcher):
    """Reads volumes one after the other."""

    def read(
        self,
        job_type: str,
        volumes: Sequence[str],
        *,
        job: str | None = None,
        pages_again: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, str]:
        """Read volumes; why some failed, by volume. ``stop`` is asked before each."""
        add_volumes(self.instance, volumes)
        failed: dict[str, str] = {}
        for volume in volumes:
            if stop():
                break
            if failure := self._read_one(job_type, volume, job, pages_again=pages_again):
                failed[volume] = failure.reason
        return failed

    def _read_one(
        self, job_type: str, volume: str, job: str | None, *, pages_again: bool
    ) -> Failure | None:
        tags = {TASK_TAG: volume} | ({JOB_TAG: job} if job else {})
        failure = self._execute(LISTING, {**tags, PARTITION: volume, _STAGE_TAG: "listing"}, {})
        if failure is not None:
            return failure
        config: Mapping[str, Any] = {
            "ops": {"volume_lines": {"config": {"pages_again": pages_again}}}
        }
        return self._execute(
            READING, {**tags, **reading_tags(job_type, volume), _STAGE_TAG: "reading"}, config
        )


def job_attempts(instance: dg.DagsterInstance, job: str) -> list[Attempt]:
    """Attempts at the volumes of a job, the oldest first, as the instance recorded them."""
    records = instance.get_run_records(dg.RunsFilter(tags={JOB_TAG: job}), ascending=True)
    attempts = []
    for record in records:
        run = record.dagster_run
        outcome = _OUTCOMES.get(run.status, "running")
        # Listing the images is the beginning of an attempt: it counts by itself if it failed.
        if outcome == "queued" or (
            run.tags.get(_STAGE_TAG) == "listing" and outcome not in ("failed", "running")
        ):
            continue
        error, terminal = _failure_of(instance, run.run_id) if outcome == "failed" else ("", False)
        attempts.append(
            Attempt(
                run.tags.get(TASK_TAG, ""),
                outcome,
                record.start_time,
                record.end_time,
                error,
                terminal,
            )
        )
    return attempts


def _failure_of(instance: dg.DagsterInstance, run_id: str) -> tuple[str, bool]:
    """Why a run failed, and whether it would again."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        error = user_error(event.step_failure_data.error) if event else None
        if error is not None:
            return error_text(error), error.cls_name in _TERMINAL
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


def run_job(
    launcher: VolumeLauncher,
    storage: Storage,
    job: Job,
    tasks: Sequence[Task],
    states: Iterable[TaskState],
    *,
    pages_again: bool = False,
) -> dict[str, str]:
    """Read the volumes of a job that are in one of ``states``; why some failed, by volume."""
    wanted = set(states)
    return launcher.read(
        job.job_type,
        [task.volume for task in tasks if task.state in wanted],
        job=job.key,
        pages_again=pages_again,
        stop=lambda: is_canceled(storage, job),
    )
