"""The Dagster instance that every `ocr` command and the UI share."""

from __future__ import annotations

import os
import shutil
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import psutil
import yaml
from dagster._core.storage.runs import SqliteRunStorage

from ocr_assets.deployment import DeploymentError
from resources.locks import file_lock
from resources.settings import REPOSITORY, default_data_folder

PROCESS_TAG = "ocr/process"
"""Tag of runs that an `ocr` command executes itself: host, process id and when it started."""

CLOCK_MARGIN = 5.0
"""Seconds by which two statements of one process's start may differ, since clocks are adjusted."""


class InstanceError(DeploymentError):
    """The folder of the Dagster instance cannot be used."""


def instance_file(name: str) -> Path:
    """`dagster.yaml` or `workspace.yaml`: of the checkout, or as installed with the package."""
    for folder in (REPOSITORY, Path(sysconfig.get_path("data"), "share", "ocr-assets")):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from the installation; install ocr-assets again")


def prepare_home() -> Path:
    """Set `DAGSTER_HOME` if it is not set, and initialise the instance there once.

    Several processes that open a fresh embedded instance at the same time would corrupt it, so the
    first opening happens under a lock.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or default_data_folder() / "dagster")
    home = home.expanduser().absolute()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with file_lock(home / ".initialising"):
            if not (home / "dagster.yaml").exists():
                shutil.copyfile(instance_file("dagster.yaml"), home / "dagster.yaml")
            with dg.DagsterInstance.get():
                pass
    except (OSError, dg.DagsterError, yaml.YAMLError) as error:
        # Dagster goes on with everything that it would accept.
        reason, _, _ = str(error).partition(" Expected:")
        raise InstanceError(
            f"there is no usable Dagster instance in {home}: {reason}; mend it, or set "
            "DAGSTER_HOME to another folder"
        ) from error
    return home


def process_tag() -> dict[str, str]:
    """Tag that names this process, so that a later one can tell whether it still lives."""
    started = psutil.Process().create_time()
    return {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}:{started:.2f}"}


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
        if _lives(owner) if owner else _worker_lives(instance, run.run_id):
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


def _worker_lives(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the process that a daemon launched for a run may live; True if that is unknown.

    Its events tell its number but not its host, which is this one only if the instance is embedded.
    """
    if not isinstance(instance.run_storage, SqliteRunStorage):
        return True
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        if entry.dagster_event and (
            pid := entry.dagster_event.engine_event_data.metadata.get("pid")
        ):
            created = _created(int(str(pid.value)))
            # A process that is younger than its event got the number of one that has ended.
            return created is not None and created < entry.timestamp + CLOCK_MARGIN
    return True


def _created(pid: int) -> float | None:
    """When a living process was started, in seconds since 1970; None if there is none."""
    try:
        process = psutil.Process(pid)
        # A killed process whose parent does not collect it keeps its number.
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def failed_partitions(asset: str, partitions: Sequence[str]) -> list[str]:
    """Partitions of an asset whose last attempt failed, as the instance knows them."""
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        statuses = instance.get_status_by_partition(
            dg.AssetKey(asset), list(partitions), dg.StaticPartitionsDefinition(list(partitions))
        )
    return [
        key for key, status in (statuses or {}).items() if status == dg.AssetPartitionStatus.FAILED
    ]
