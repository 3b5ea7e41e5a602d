"""What Dagster's daemon does with a sensor, step by step, so that it can be stopped at any of them.

The order is the daemon's: evaluate, add partitions, store the reserved runs together with the
cursor, then create and launch the runs, of which a key that is known is passed over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG

PLACE = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ocr_assets"), "__repository__")


class KilledError(Exception):
    """The daemon was killed here."""


@dataclass
class Daemon:
    """A daemon that runs one sensor."""

    sensor: dg.SensorDefinition
    resources: dict[str, Any]
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    cursor: str | None = None
    reserved: list[dg.RunRequest] = field(default_factory=list)
    dies_at: str = ""
    result: dg.SensorResult | None = None

    def tick(self, dies_at: str = "") -> list[str]:
        """One tick; the keys of the runs that it launched. A tick that was cut off is resumed."""
        try:
            if not self.reserved:
                self._evaluate(dies_at)
            return self._submit(dies_at)
        except KilledError:
            return []

    def _evaluate(self, dies_at: str) -> None:
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources=self.resources,
            sensor_name=self.sensor.name,
        ) as context:
            result: Any = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        _die(dies_at, "evaluated")
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        _die(dies_at, "partitioned")
        self.result, self.cursor = result, result.cursor
        self.reserved = list(result.run_requests or ())

    def _submit(self, dies_at: str) -> list[str]:
        _die(dies_at, "reserved")
        launched = []
        while self.reserved:
            request = self.reserved[0]
            tags = {**request.tags, SENSOR_NAME_TAG: self.sensor.name}
            if request.run_key:
                tags[RUN_KEY_TAG] = request.run_key
            if not self.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: str(request.run_key)})):
                run = dg.DagsterRun(
                    job_name=str(request.job_name),
                    run_id=str(uuid.uuid4()),
                    tags=tags,
                    status=dg.DagsterRunStatus.QUEUED,
                    remote_job_origin=RemoteJobOrigin(PLACE, str(request.job_name)),
                )
                self.instance.add_run(run)
                launched.append(str(request.run_key))
            self.reserved.pop(0)
            _die(dies_at, "launched one")
        return launched

    @property
    def told(self) -> str:
        """What the last tick that launched nothing said."""
        assert self.result is not None
        assert self.result.skip_reason is not None
        return str(self.result.skip_reason.skip_message)

    def waiting(self) -> list[dg.DagsterRun]:
        """Runs in the queue, the oldest first."""
        status = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])
        return list(self.instance.get_runs(status))[::-1]

    def finish(self, succeeds: Callable[[dg.DagsterRun], bool] = lambda run: True) -> list[str]:
        """Run what is in the queue; the keys of those runs."""
        runs = self.waiting()
        for run in runs:
            kind = (
                dg.DagsterEventType.RUN_SUCCESS
                if succeeds(run)
                else dg.DagsterEventType.RUN_FAILURE
            )
            event = dg.DagsterEvent(event_type_value=kind.value, job_name=run.job_name)
            self.instance.report_dagster_event(event, run.run_id)
        return [run.tags[RUN_KEY_TAG] for run in runs]

    def run_keys(self) -> list[str]:
        """Keys of all runs that there ever were."""
        return sorted(run.tags[RUN_KEY_TAG] for run in self.instance.get_runs())


def _die(dies_at: str, here: str) -> None:
    if dies_at == here:
        raise KilledError(here)
