"""Alerts: what failed, and which deployments are finished, told to a webhook.

Belongs here: which runs are told of, when a message is tried again, what it says. Does not belong
here: how a message is sent (:mod:`resources.webhook`), or how failed partitions are tried again
(:mod:`sensors.retries`).

A run is told of once: it gets a tag when the webhook took the message, and the cursor goes past it.
Not told of are runs that a deployment launched, since the deployment tells of its end, and failed
runs that Dagster tries again, since only their last attempt counts. A webhook that is down is tried
a few times with growing pauses, then the message is given up. Nothing of that fails the sensor.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import (
    DEPLOY_JOB,
    DEPLOYMENT_TAG,
    ENVIRONMENT_TAG,
    VERSION_TAG,
)
from ocr_assets.launch import error_text, user_error
from resources.settings import Settings
from resources.webhook import WebhookError, plain, send, shortened
from sensors.retries import retry

ALERTED_TAG = "ocr/alerted"
"""Tag of a run that was told of."""

ATTEMPTS, PAUSE_SECONDS, LONGEST_PAUSE = 5, 60.0, 3600.0
"""How often a message is tried; each further attempt waits that much longer."""

RUNS_AT_ONCE = 20
SECONDS_BETWEEN_LOOKS = 30
_UNDECIDED_SECONDS = 30.0
"""How long a failed run may wait for Dagster to say whether it is tried again."""

_PARTITIONS_SHOWN = 10
_LONGEST_COMMAND = 2500
"""Characters of a command that is told whole: the webhook cuts a section soon after."""

_Ending = Literal[dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS]
_FAILURE: _Ending = dg.DagsterEventType.RUN_FAILURE
_SUCCESS: _Ending = dg.DagsterEventType.RUN_SUCCESS


class _Cursor(BaseModel):
    """What the sensor remembers: the last events that it is done with, and a message under way."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1] = 1
    failure: int
    success: int
    attempts: int = 0
    not_before: float = 0.0


@dataclass(frozen=True)
class _News:
    """A run that ended."""

    run: dg.DagsterRun
    failed: bool


def alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that tells a webhook; none where no webhook is set."""
    if settings.alert_webhook_url is None:
        return []
    url = settings.alert_webhook_url

    @dg.sensor(
        name="alerts",
        description="Tells a webhook of failed runs and of finished deployments, once each.",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def alerts(
        context: dg.SensorEvaluationContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.SensorResult:
        return _tick(context, deployment, url)

    return [alerts]


def _tick(
    context: dg.SensorEvaluationContext, deployment: Deployment, url: SecretStr
) -> dg.SensorResult:
    instance, now = context.instance, time.time()
    cursor = _read_cursor(context.cursor)
    if cursor is None:
        return _done("telling what happens from now on", _at_the_end(instance))
    if now < cursor.not_before:
        return _done(f"the webhook is tried again in {cursor.not_before - now:.0f} s", cursor)
    news, after = _news(instance, cursor, now)
    if not news:
        return _done("nothing to tell", after)
    title, sections = _message(instance, deployment, news)
    try:
        send(url, title, sections)
    except WebhookError as error:
        attempts = cursor.attempts + 1
        if attempts >= ATTEMPTS:
            runs = ", ".join(one.run.run_id for one in news)
            context.log.warning(f"{error}; given up telling of {runs}")
            return _done(f"{error}; given up after {attempts} attempts", after)
        pause = min(max(PAUSE_SECONDS * attempts, error.retry_after), LONGEST_PAUSE)
        waiting = cursor.model_copy(update={"attempts": attempts, "not_before": now + pause})
        return _done(f"{error}; attempt {attempts} of {ATTEMPTS}", waiting)
    for one in news:
        # Before the cursor is stored: a daemon that is killed now does not tell it again.
        instance.add_run_tags(one.run.run_id, {ALERTED_TAG: "true"})
    return _done(f"told of {len(news)} runs", after)


def _done(reason: str, cursor: _Cursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.model_dump_json())


def _read_cursor(text: str | None) -> _Cursor | None:
    """The stored cursor; None for a first tick, and if it is damaged."""
    try:
        return _Cursor.model_validate_json(text) if text else None
    except ValidationError:
        return None


def _at_the_end(instance: dg.DagsterInstance) -> _Cursor:
    """A cursor behind everything that has happened."""

    def last(kind: _Ending) -> int:
        records = instance.fetch_run_status_changes(kind, limit=1).records
        return records[0].storage_id if records else 0

    return _Cursor(failure=last(_FAILURE), success=last(_SUCCESS))


def _news(instance: dg.DagsterInstance, cursor: _Cursor, now: float) -> tuple[list[_News], _Cursor]:
    """Runs to tell of, and the cursor behind all that were looked at."""
    told: list[_News] = []
    places = {_FAILURE: cursor.failure, _SUCCESS: cursor.success}
    for kind in (_FAILURE, _SUCCESS):
        for record in instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(kind, after_storage_id=places[kind]),
            limit=RUNS_AT_ONCE,
            ascending=True,
        ).records:
            if len(told) == RUNS_AT_ONCE:
                break
            run = instance.get_run_by_id(record.event_log_entry.run_id)
            if run is not None:
                if _undecided(instance, run, record.timestamp, now):
                    break
                if _is_told(run, failed=kind == _FAILURE):
                    told.append(_News(run, kind == _FAILURE))
            places[kind] = record.storage_id
    return told, _Cursor(failure=places[_FAILURE], success=places[_SUCCESS])


def _undecided(instance: dg.DagsterInstance, run: dg.DagsterRun, ended: float, now: float) -> bool:
    """Whether Dagster has still to say if it will try a failed run again."""
    return (
        instance.run_retries_enabled
        and run.status == dg.DagsterRunStatus.FAILURE
        and WILL_RETRY_TAG not in run.tags
        and now - ended < _UNDECIDED_SECONDS
    )


def _is_told(run: dg.DagsterRun, *, failed: bool) -> bool:
    if ALERTED_TAG in run.tags or DEPLOYMENT_TAG in run.tags:
        return False
    if not failed:
        return run.job_name == DEPLOY_JOB
    # Only a run that a daemon launched is tried again.
    will_retry = run.tags.get(WILL_RETRY_TAG) == "true" and run.remote_job_origin is not None
    return not will_retry


def _message(
    instance: dg.DagsterInstance, deployment: Deployment, news: Sequence[_News]
) -> tuple[str, list[str]]:
    failed = sum(one.failed for one in news)
    parts = [f"{failed} failed"] if failed else []
    if finished := len(news) - failed:
        parts.append(f"{finished} deployments finished" if finished > 1 else "deployment finished")
    title = f"ocr {deployment.settings.environment}: {', '.join(parts)}"
    sections: list[str] = []
    for one in news:
        if one.failed:
            sections += _failure_texts(instance, deployment, one.run)
        else:
            sections.append(_success_text(instance, one.run))
    return title, sections


def _success_text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    record = instance.get_run_record_by_id(run.run_id)
    taken = ""
    if record and record.start_time and record.end_time:
        taken = f" in {(record.end_time - record.start_time) / 60:.1f} min"
    lines = [f"*Deployed {_place(run)}*{taken}", f"run `{run.run_id}`"]
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT):
        if entry.dagster_event:
            metadata = entry.dagster_event.step_output_data.metadata
            if "published" in metadata:
                lines.append(f"readers are given {plain(str(metadata['published'].value))}")
    return "\n".join(lines)


def _place(run: dg.DagsterRun) -> str:
    place = [run.tags[tag] for tag in (ENVIRONMENT_TAG, VERSION_TAG) if tag in run.tags]
    return plain(" ".join(place) or run.job_name)


def _failure_texts(
    instance: dg.DagsterInstance, deployment: Deployment, run: dg.DagsterRun
) -> list[str]:
    """What failed, and in a section of its own how it is tried again."""
    reason, told = _failure_of(instance, run)
    again = retry(instance, deployment, run, told)
    what = f"deployment to {_place(run)}" if run.job_name == DEPLOY_JOB else _assets(run)
    lines = [f"*Failed: {what}*", plain(shortened(reason, 1000)), f"run `{run.run_id}`"]
    if again.partitions:
        shown = ", ".join(again.partitions[:_PARTITIONS_SHOWN])
        more = ", …" if len(again.partitions) > _PARTITIONS_SHOWN else ""
        lines.append(f"{len(again.partitions)} partitions: {plain(shown)}{more}")
    sections = ["\n".join(lines)]
    command = plain(again.command)
    if len(command) > _LONGEST_COMMAND:
        sections.append(f"too many to name in one command; try them again by {again.otherwise}")
    elif command:
        sections.append(f"try exactly these again: `{command}`")
    return sections


def _assets(run: dg.DagsterRun) -> str:
    names = sorted(key.to_user_string() for key in run.asset_selection or ())
    return plain(", ".join(names[:5]) or run.job_name)


def _failure_of(
    instance: dg.DagsterInstance, run: dg.DagsterRun
) -> tuple[str, Mapping[str, dg.MetadataValue[Any]]]:
    """Why a run failed, and what the failed step said about it."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is None:
            continue
        told = event.step_failure_data.user_failure_data
        if told and told.description:
            return told.description, told.metadata
        if error := user_error(event.step_failure_data.error):
            return error_text(error), {}
    return "the run was killed, or failed before its first step", {}
