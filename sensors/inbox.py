"""How requests become runs, whatever they ask for.

Belongs here: a tick from taking requests in to putting them aside, and the cursor. Does not belong
here: what a request of a kind says and which runs it needs (``tile_requests.py``,
``volume_requests.py``), and where requests wait (:mod:`resources.request_queue`).

The instance itself is the ledger. A run carries the identity of its work and the number of the
attempt as tags; a tick asks which of the runs that a request needs are there, requests those that
are missing, and puts the request aside, and deletes its message, when none is missing any more.
That is never the tick which requested them: what it requests counts when a later tick finds it. So
a tick that was killed at whatever point is simply taken again, a request that came twice finds its
runs, and one of thousands of partitions goes on where it was.

A tick is bounded in time, in the runs that it requests, and in the runs that may wait in the queue.
The cursor only saves looking twice: without it a tick begins every request at its first partition.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import dagster as dg
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, SENSOR_NAME_TAG, WILL_RETRY_TAG
from pydantic import BaseModel, ConfigDict, ValidationError

from ocr_assets.request_messages import RefusedRequestError
from resources.keys import StorageError
from resources.request_queue import (
    Kind,
    Letter,
    QueueError,
    RequestInbox,
    RequestQueue,
    named_objects,
)
from resources.settings import Settings

IDENTITY_TAG, ATTEMPT_TAG = "ocr/request", "ocr/attempt"
"""Tags of a run that was requested: what it makes, and which attempt at it this is."""

MOST_SECONDS = 30.0
"""How long a tick may work; Dagster gives up after sixty seconds."""

MOST_RUNS = 200
"""Runs that a tick requests at most."""

MOST_WAITING = 500
"""Runs of requests in the queue, beyond which no more are requested."""

MOST_ACCEPTED = 250
"""Requests that are worked on at once; the others wait where they are."""

# Partitions that are looked at with one query, and at most in a request and tick.
_CHUNK, _WINDOW = 100, 400
_LEFT_OUT_SHOWN, _LINES_TOLD = 100, 20


class LeftOutError(ValueError):
    """A part of a request that cannot be used; the message says why."""


@dataclass(frozen=True)
class Work:
    """What a run makes: an identity that changes when there is something new to make."""

    identity: str
    job: str
    tags: Mapping[str, str]

    def request(self, attempt: int) -> dg.RunRequest:
        """The run request of an attempt; the first one's key is the identity itself."""
        again = f":attempt-{attempt}" if attempt > 1 else ""
        return dg.RunRequest(
            run_key=self.identity + again,
            job_name=self.job,
            tags={**self.tags, IDENTITY_TAG: self.identity, ATTEMPT_TAG: str(attempt)},
        )


@dataclass(frozen=True)
class Part:
    """One partition of a request: what makes it, and what has to be made before.

    Attributes:
        key: dynamic partition that both need.
        is_ready: whether what has to be made before is there.
    """

    key: str
    wanted: Work
    first: Work
    is_ready: Callable[[], bool]


class Plan(Protocol):
    """A request that was understood."""

    @property
    def attempt(self) -> int:
        """Which attempt is wanted; more than 1 repeats what failed."""

    @property
    def left_out(self) -> Sequence[str]:
        """What of it cannot be used, in words."""

    def __len__(self) -> int:
        """How many partitions it asks for."""

    def part(self, index: int) -> Part:
        """A partition.

        Raises:
            LeftOutError: it cannot be made, now or later.
            StorageError: whether it can is not known at the moment.
        """


@dataclass(frozen=True)
class Doorway:
    """The requests of one kind: where they come in, what they mean, which partitions they need."""

    kind: Kind
    partitions: dg.DynamicPartitionsDefinition
    read: Callable[[str, bytes], Plan]
    inbox: RequestInbox
    queue: RequestQueue | None


class _Progress(BaseModel):
    """How far a request is: the partitions before ``at`` are dealt with."""

    model_config = ConfigDict(extra="forbid")

    at: int = 0
    lost: int = 0
    left_out: list[str] = []


class _Receipt(BaseModel):
    """What deletes a message of the queue, and until when it is hidden."""

    model_config = ConfigDict(extra="forbid")

    receipt: str
    until: float


class _Cursor(BaseModel):
    model_config = ConfigDict(extra="forbid")

    v: Literal[1] = 1
    progress: dict[str, _Progress] = {}
    receipts: dict[str, _Receipt] = {}

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        """The stored cursor; an empty one if there is none, or it is damaged."""
        try:
            return cls.model_validate_json(text) if text else cls()
        except ValidationError:
            return cls()


def is_configured(settings: Settings, kind: Kind) -> bool:
    """Whether somebody means to send requests: a setting says where, or there is an inbox."""
    if settings.request_inbox or RequestQueue.of(settings, kind):
        return True
    storage = RequestInbox.of(settings, kind).storage
    return storage.is_local and Path(storage.root).is_dir()


def tick(context: dg.SensorEvaluationContext, doorway: Doorway) -> dg.SensorResult:
    """Take requests in, request the runs that are missing, put aside what is complete."""
    return _Tick(context, doorway).take()


@dataclass
class _Tick:
    context: dg.SensorEvaluationContext
    doorway: Doorway
    requests: list[dg.RunRequest] = field(default_factory=list)
    keys: dict[str, None] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + MOST_SECONDS
        self.cursor = _Cursor.read(self.context.cursor)
        self.inbox = self.doorway.inbox
        self.asked: set[str] = set()

    @property
    def is_late(self) -> bool:
        """Whether the rest has to wait for the next tick."""
        return time.monotonic() > self.deadline

    def take(self) -> dg.SensorResult:
        """The whole tick."""
        self._take_in(MOST_ACCEPTED - len(self.inbox.accepted()))
        letters = self.inbox.accepted()
        budget = self._budget()
        for number, letter in enumerate(letters):
            if self.is_late:
                self.told.append("out of time, the rest comes next")
                break
            # Small requests come first and take less than their share, so the rest grows.
            share = max(1, (budget - len(self.requests)) // (len(letters) - number))
            self._work_on(letter, min(len(self.requests) + share, budget))
        at_work = {letter.id for letter in letters}
        self._keep_hidden(at_work)
        for id_ in self.cursor.progress.keys() - at_work:
            del self.cursor.progress[id_]
        return self._result(len(letters))

    def _take_in(self, most: int) -> None:
        if most <= 0:
            return
        try:
            most -= self.inbox.take_files(most, time.time())
        finally:
            # A file that cannot be moved holds up no message.
            self._receive(most)

    def _receive(self, most: int) -> None:
        queue = self.doorway.queue
        if queue is None:
            return
        outdated: list[str] = []
        with self._telling():
            for message in queue.receive(most, self.deadline - MOST_SECONDS / 2):
                id_ = f"sqs-{message.id}"
                named = named_objects(message.body)
                if self.inbox.is_over(id_) or (named is not None and self._is_ours(named)):
                    # A notification: the file that it is about is found in the inbox anyway, and
                    # what was written there by a tick is no request.
                    outdated.append(message.receipt)
                    continue
                if not self.inbox.is_accepted(id_):
                    self.inbox.accept(id_, message.body)
                until = time.time() + queue.hidden_seconds
                self.cursor.receipts[id_] = _Receipt(receipt=message.receipt, until=until)
            queue.delete(outdated)

    def _is_ours(self, named: Sequence[str]) -> bool:
        return all(self.inbox.has(uri) for uri in named)

    def _budget(self) -> int:
        """How many runs may be requested now."""
        waiting = self.context.instance.get_runs_count(
            dg.RunsFilter(
                tags={SENSOR_NAME_TAG: self.context.sensor_name},
                statuses=[dg.DagsterRunStatus.QUEUED],
            )
        )
        if waiting >= MOST_WAITING:
            self._tell(f"{waiting} runs wait in the queue: no more until they are fewer")
        return max(0, min(MOST_RUNS, MOST_WAITING - waiting))

    def _work_on(self, letter: Letter, limit: int) -> None:
        """Request what a request lacks, or put it aside."""
        try:
            body = self.inbox.body(letter.id)
            if named := named_objects(body):
                raise RefusedRequestError(
                    f"a notification about {', '.join(map(repr, named[:_LINES_TOLD]))}: only "
                    f"requests in {self.inbox.storage.uri()} are read"
                )
            plan = self.doorway.read(letter.id, body)
            progress = self.cursor.progress.get(letter.id, _Progress())
            self._advance(plan, progress, limit)
            self.cursor.progress[letter.id] = progress
            if progress.at < len(plan):
                return
            lost = [*plan.left_out, *progress.left_out]
            if progress.lost == len(plan):
                raise RefusedRequestError("; ".join(lost[:_LEFT_OUT_SHOWN]))
            self.inbox.settle(letter.id, _left_out(len(plan.left_out) + progress.lost, lost))
        except RefusedRequestError as error:
            self._tell(f"rejected {letter.id}: {error}")
            self.inbox.reject(letter.id, str(error))
        except StorageError as error:
            self._tell(f"{letter.id} waits: {error}")
            return
        self._forget(letter.id)

    def _advance(self, plan: Plan, progress: _Progress, limit: int) -> None:
        """Go on from the first partition that is not dealt with."""
        last = min(len(plan), progress.at + _WINDOW)
        for start in range(progress.at, last, _CHUNK):
            chunk = range(start, min(start + _CHUNK, last))
            parts: dict[int, Part | LeftOutError] = {}
            for index in chunk:
                if self.is_late:
                    break
                try:
                    parts[index] = plan.part(index)
                except LeftOutError as error:
                    parts[index] = error
            runs = self._runs([one for one in parts.values() if isinstance(one, Part)])
            for index, part in parts.items():
                if isinstance(part, LeftOutError):
                    complete = True
                else:
                    complete = self._request(part, runs, plan.attempt, limit)
                if not (complete and index == progress.at):
                    continue
                progress.at = index + 1
                if isinstance(part, LeftOutError):
                    progress.lost += 1
                    progress.left_out = [*progress.left_out, str(part)][:_LEFT_OUT_SHOWN]
            if self.is_late or len(self.requests) >= limit:
                return

    def _runs(self, parts: Sequence[Part]) -> dict[str, list[dg.DagsterRun]]:
        """The runs of these parts by identity, the newest first.

        Left out are runs that were created and never launched: Dagster launches those, and only
        those, when they are requested again.
        """
        identities = sorted({one.identity for part in parts for one in (part.wanted, part.first)})
        found: dict[str, list[dg.DagsterRun]] = {}
        if identities:
            for run in self.context.instance.get_runs(
                dg.RunsFilter(tags={IDENTITY_TAG: identities})
            ):
                if run.status != dg.DagsterRunStatus.NOT_STARTED:
                    found.setdefault(run.tags[IDENTITY_TAG], []).append(run)
        return found

    def _request(
        self, part: Part, runs: Mapping[str, list[dg.DagsterRun]], attempt: int, limit: int
    ) -> bool:
        """Request what a part lacks; whether it lacks nothing, since its run was found."""
        if _is_there(runs.get(part.wanted.identity, []), attempt):
            return True
        before = runs.get(part.first.identity, [])
        if any(_is_unfinished(run) for run in before) or len(self.requests) >= limit:
            return False
        # If it failed, what is wanted is run all the same: it tells what it lacks.
        over = bool(before) and _attempts(before) >= attempt
        work = part.wanted if over or part.is_ready() else part.first
        if work.identity not in self.asked:
            self.asked.add(work.identity)
            self.requests.append(work.request(attempt))
            self.keys[part.key] = None
        return False

    def _keep_hidden(self, at_work: set[str]) -> None:
        """Renew the messages of what is worked on, and delete those that a killed tick left."""
        receipts, now = self.cursor.receipts, time.time()
        for id_ in sorted(receipts.keys() - at_work):
            if self.inbox.is_over(id_):
                self._forget(id_)
            else:  # somebody took the accepted request away: the message comes again
                del receipts[id_]
        queue = self.doorway.queue
        if queue is None:
            return
        soon = now + queue.hidden_seconds / 2
        renewed = [id_ for id_, kept in receipts.items() if kept.until < soon]
        with self._telling():
            queue.renew(receipts[id_].receipt for id_ in renewed)
            for id_ in renewed:
                receipts[id_].until = now + queue.hidden_seconds

    def _forget(self, id_: str) -> None:
        """What follows when a request was put aside."""
        self.cursor.progress.pop(id_, None)
        kept = self.cursor.receipts.pop(id_, None)
        if kept is not None and self.doorway.queue is not None:
            with self._telling():  # one that cannot be deleted comes again, and is known then
                self.doorway.queue.delete([kept.receipt])

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell of a queue that fails, and go on."""
        try:
            yield
        except QueueError as error:
            self._tell(str(error))

    def _tell(self, line: str) -> None:
        self.context.log.warning(line)
        self.told.append(line)

    def _result(self, letters: int) -> dg.SensorResult:
        partitions = self.doorway.partitions
        lines = self.told[:_LINES_TOLD] or [
            f"{letters} requests at work" if letters else "no requests"
        ]
        return dg.SensorResult(
            run_requests=self.requests or None,
            skip_reason=None if self.requests else "; ".join(lines),
            dynamic_partitions_requests=(
                [partitions.build_add_request(list(self.keys))] if self.keys else []
            ),
            cursor=self.cursor.model_dump_json(),
        )


def _is_there(runs: Sequence[dg.DagsterRun], attempt: int) -> bool:
    """Whether a run needs no further attempt: it succeeded, is at work, or was this attempt."""
    return any(
        run.status == dg.DagsterRunStatus.SUCCESS or _is_unfinished(run) for run in runs
    ) or (bool(runs) and _attempts(runs) >= attempt)


def _is_unfinished(run: dg.DagsterRun) -> bool:
    """Whether a run goes on, or Dagster will try it again."""
    return not run.is_finished or (
        run.status == dg.DagsterRunStatus.FAILURE
        and run.tags.get(WILL_RETRY_TAG) == "true"
        and AUTO_RETRY_RUN_ID_TAG not in run.tags
    )


def _attempts(runs: Sequence[dg.DagsterRun]) -> int:
    return max(int(run.tags.get(ATTEMPT_TAG, "1")) for run in runs)


def _left_out(count: int, told: Sequence[str]) -> dict[str, Any] | None:
    return {"count": count, "left_out": list(told)[:_LEFT_OUT_SHOWN]} if count else None
