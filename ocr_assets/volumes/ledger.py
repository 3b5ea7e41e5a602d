"""Jobs of volumes: what was asked for, and what state that is in.

Belongs here: lists of volumes, the state of a task and of a job, throughput. Does not belong here:
where attempts and artefacts are recorded; they are handed in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ocr_assets.volumes.archive import InvalidVolumeIdError, VolumeId, distinct
from ocr_assets.volumes.quality import VolumeStatus

MAX_ATTEMPTS = 3
"""Attempts at a volume before it counts as failed for good."""

_JOB_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class VolumeListError(ValueError):
    """A list of volumes that cannot be used; the message names the line and the mend."""


class TaskState(StrEnum):
    """Where a volume of a job stands."""

    pending = "pending"
    running = "running"
    done = "done"
    partial = "partial"
    retryable_failed = "retryable_failed"
    terminal_failed = "terminal_failed"


class JobState(StrEnum):
    """Where a job stands."""

    created = "created"
    running = "running"
    completed = "completed"
    failed = "failed"
    canceled = "canceled"


FINISHED = frozenset({TaskState.done, TaskState.partial})
FAILED = frozenset({TaskState.retryable_failed, TaskState.terminal_failed})


@dataclass(frozen=True)
class Job:
    """A named set of volumes for one job type. ``created`` is seconds since 1970."""

    key: str
    job_type: str
    volumes: tuple[str, ...]
    created: float

    def __post_init__(self) -> None:
        if not _JOB_KEY.fullmatch(self.key):
            raise ValueError(
                f"{self.key!r} is not a job key: use up to 100 letters, digits, '.', '_' and '-'"
            )


def default_job_key(job_type: str, volumes: Sequence[VolumeId]) -> str:
    """Key of a job from what it asks for: the same job type and volumes give the same key."""
    asked = json.dumps([job_type, sorted(map(str, volumes))])
    return f"{job_type}-{hashlib.sha256(asked.encode()).hexdigest()[:10]}"


def parse_volumes(text: str) -> list[VolumeId]:
    """Volumes of a comma-separated list like ``W22084-I0886,W1KG4313-I1KG17496``, each once.

    Raises:
        VolumeListError: an item is no volume, or there are none.
    """
    volumes = []
    for number, item in enumerate(text.split(","), 1):
        if item.strip():
            volumes.append(_volume(item, f"volume {number} of the list"))
    return _some(volumes, "the list")


def parse_volume_file(text: str, name: str) -> list[VolumeId]:
    """Volumes of a file, one on a line, each once; ``#`` begins a comment, blank lines are fine.

    Raises:
        VolumeListError: a line is no volume, or there are none.
    """
    volumes = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        item = line.partition("#")[0]
        if item.strip():
            volumes.append(_volume(item, f"{name}, line {number}"))
    return _some(volumes, name)


def _volume(item: str, place: str) -> VolumeId:
    try:
        return VolumeId.parse(item)
    except InvalidVolumeIdError as error:
        raise VolumeListError(f"{place}: {error}") from error


def _some(volumes: list[VolumeId], place: str) -> list[VolumeId]:
    if not volumes:
        raise VolumeListError(f"{place} has no volume; give them like W22084-I0886")
    return distinct(volumes)


@dataclass(frozen=True)
class Attempt:
    """An attempt at a volume, as it is recorded.

    ``outcome`` is ``running``, ``succeeded``, ``failed`` or ``canceled``. Times are seconds since
    1970. ``terminal`` tells that another attempt would fail in the same way.
    """

    volume: str
    outcome: str
    started: float | None = None
    ended: float | None = None
    error: str = ""
    terminal: bool = False


@dataclass(frozen=True)
class Task:
    """A volume of a job: its state, how often it was tried, and pages where they are known."""

    volume: str
    state: TaskState
    attempts: int
    pages: int | None = None
    failed_pages: int = 0
    error: str = ""


def task(
    volume: str,
    attempts: Sequence[Attempt],
    status: VolumeStatus | None,
    pages: int | None,
    failed_pages: int,
) -> Task:
    """The state of a volume.

    Args:
        volume: its id.
        attempts: at this volume in this job, the oldest first.
        status: of its artefacts; None if there are none.
        pages: of the volume, if known.
        failed_pages: pages that could not be read.
    """
    tried = [attempt for attempt in attempts if attempt.outcome != "canceled"]
    failures = 0
    for attempt in reversed(tried):
        if attempt.outcome != "failed":
            break
        failures += 1
    last = tried[-1] if tried else None
    error = ""
    if last is None:
        state = TaskState.pending
    elif last.outcome == "running":
        state = TaskState.running
    elif last.outcome == "failed":
        exhausted = last.terminal or failures >= MAX_ATTEMPTS
        state = TaskState.terminal_failed if exhausted else TaskState.retryable_failed
        error = last.error
    elif status in (None, "failed"):
        state = TaskState.pending
    else:
        state = TaskState.partial if status == "partial" else TaskState.done
    return Task(volume, state, len(tried), pages, failed_pages, error)


def job_state(tasks: Iterable[Task], *, canceled: bool) -> JobState:
    """The state of a job from those of its volumes."""
    states = Counter(task.state for task in tasks)
    if states[TaskState.running]:
        return JobState.running
    if canceled:
        return JobState.canceled
    if states[TaskState.pending] == states.total():
        return JobState.created
    if states[TaskState.pending] or states[TaskState.retryable_failed]:
        return JobState.running
    return JobState.failed if states[TaskState.terminal_failed] else JobState.completed


@dataclass(frozen=True)
class Throughput:
    """Pages that were read in how many seconds of work, and how many seconds are left.

    ``remaining_seconds`` is None where nobody can tell.
    """

    pages: int
    seconds: float
    remaining_pages: int | None
    remaining_seconds: float | None

    @property
    def pages_per_second(self) -> float | None:
        """Speed; None before anything was read."""
        return self.pages / self.seconds if self.pages and self.seconds else None


def throughput(tasks: Sequence[Task], attempts: Sequence[Attempt]) -> Throughput:
    """Speed by pages, and the time that is left.

    Seconds count in which at least one volume was read. Volumes whose pages nobody has counted are
    taken for as long as the mean of the others.
    """
    finished = [task for task in tasks if task.state in FINISHED]
    left = [task for task in tasks if task.state not in FINISHED | {TaskState.terminal_failed}]
    pages = sum(task.pages or 0 for task in finished)
    good = {task.volume for task in finished}
    spans = sorted(
        (attempt.started, attempt.ended)
        for attempt in attempts
        if attempt.volume in good and attempt.started is not None and attempt.ended is not None
    )
    seconds, until = 0.0, float("-inf")
    for start, end in spans:
        seconds += max(0.0, end - max(start, until))
        until = max(until, end)
    known = [task.pages for task in tasks if task.pages is not None]
    if not left:
        return Throughput(pages, seconds, 0, 0.0)
    if not known:
        return Throughput(pages, seconds, None, None)
    mean = sum(known) / len(known)
    remaining = round(sum(mean if task.pages is None else task.pages for task in left))
    time_left = remaining * seconds / pages if pages and seconds else None
    return Throughput(pages, seconds, remaining, time_left)
