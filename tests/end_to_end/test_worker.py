"""`ocr worker` on engines: Postgres and S3, interrupted and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.execution.backfill import PartitionBackfill
from engines import postgres_server, wait_until
from running_dagster import OCR
from sample_worlds import REGION_ASSETS, World, environment

from ocr_assets.definitions import build_defs
from ocr_assets.run_processes import HOST_TAG
from resources.storage import Storage

pytestmark = pytest.mark.end_to_end
INSTANCE_FILE = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


@pytest.fixture
def variables(world: World, s3_bucket: Storage, s3_server: str) -> Iterator[dict[str, str]]:
    """Settings of a world whose instance is on Postgres and whose logs are on S3."""
    with postgres_server() as postgres:
        yield environment(
            {
                **world.variables(),
                **postgres,
                "OCR_INSTANCE_FILE": str(INSTANCE_FILE),
                "DAGSTER_COMPUTE_LOGS_BUCKET": s3_bucket.bucket_and_prefix[0],
                "AWS_ENDPOINT_URL_S3": s3_server,
            }
        )


class Worker:
    """A running `ocr worker`, and what it printed."""

    def __init__(self, variables: dict[str, str], log: Path, *options: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [OCR, "worker", *options], env=variables, stderr=output, stdout=output
            )

    def family(self) -> list[psutil.Process]:
        """Daemon, code server and runs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> str:
        """Interrupt it, and what it printed until it had ended in order."""
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=90)
        finally:
            left = [process for process in family if process.is_running()]
            for process in left:
                process.kill()
        assert status == 0, self.log.read_text()
        assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
        return self.log.read_text()


def request(instance: dg.DagsterInstance, world: World) -> None:
    """Ask for all regions in the way of the UI's backfill button."""
    graph = build_defs(world.deployment()).resolve_asset_graph()
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id="everything",
            asset_graph=graph,
            partition_names=list(world.grid.valid),
            asset_selection=[dg.AssetKey(name) for name in REGION_ASSETS],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )


def test_interrupted_runs_are_waited_for_or_done_again(
    world: World, variables: dict[str, str], s3_bucket: Storage, tmp_path: Path
) -> None:
    deployment = world.deployment()
    deployment.regions.initialize(deployment.template)
    state = subprocess.run([OCR, "status"], env=variables, capture_output=True, text=True)
    assert "daemon not running" in state.stdout, state.stderr
    os.environ.update(variables)
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        request(instance, world)

        first = Worker(variables, tmp_path / "first.log", "--grace", "0")
        (held,) = wait_until("a run", lambda: instance.get_runs(), 120)
        # The run's process stands still: no grace is long enough for it.
        run_process = wait_until("its process", lambda: process_of(held.run_id), 60)
        run_process.suspend()
        second = subprocess.run([OCR, "worker"], env=variables, capture_output=True, text=True)
        assert second.returncode == 1
        assert "a worker is running for" in second.stderr
        said = first.stop()
        assert f"run {held.run_id} was ended and will be done again" in said
        killed = instance.get_run_by_id(held.run_id)
        assert killed is not None
        assert killed.status == dg.DagsterRunStatus.FAILURE
        assert killed.tags[HOST_TAG]
        assert deployment.ledger() == {}

        again = Worker(variables, tmp_path / "again.log")
        wait_until("the second attempt", lambda: at_work(instance), 120)
        said = again.stop()
        assert "waiting for those at work" in said
        runs = instance.get_runs()
        assert [run.status.value for run in runs] == ["SUCCESS", "FAILURE"], said
    assert set(deployment.ledger()) == set(world.grid.valid)
    logs = [info.key for info in s3_bucket.list("compute-logs")]
    assert any(runs[0].run_id in key for key in logs)


def at_work(instance: dg.DagsterInstance) -> bool:
    return any(run.status == dg.DagsterRunStatus.STARTED for run in instance.get_runs())


def process_of(run_id: str) -> psutil.Process | None:
    """The process that executes a run."""
    with dg.DagsterInstance.get() as instance:
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            metadata = entry.dagster_event.engine_event_data.metadata if entry.dagster_event else {}
            if "pid" in metadata:
                return psutil.Process(int(str(metadata["pid"].value)))
    return None
