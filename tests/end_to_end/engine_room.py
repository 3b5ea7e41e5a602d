"""Every engine on loopback, what of ours runs on them, and the accidents that befall both.

All are processes of their own: a Postgres server, a server of S3 and SQS, a Dask scheduler and its
workers, a STAC service of synthetic imagery, `ocr worker`, and Dagster's webserver. Only GitHub is
a thread of the test. What is ours knows nothing but its environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psutil
import pytest
import worker_journal
from engines import DaskProcesses, dask_processes, free_port, postgres_server, wait_until
from github_server import REPOSITORY, TOKEN, GitHubServer, release
from running_dagster import RunningDagster
from sample_worlds import OCR, environment
from tile_worlds import WEST

from ocr_assets.cli.instance import prepare_home
from ocr_assets.deployment_runs import DEPLOY_JOB
from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED, VOLUME_FIRST, VOLUME_WANTED
from ocr_assets.request_messages import tile_messages, volume_messages
from ocr_assets.sample.volume import VOLUME
from ocr_assets.tiles.grid import Tile
from ocr_assets.volumes.archive import VolumeId
from resources.model_store import MissingModelError, ModelStore
from resources.request_queue import Kind
from resources.settings import Settings, load_settings
from resources.storage import Storage

CHECKOUT = Path(__file__).parents[2]

LOADED, RELEASED = "1.2.2", "1.2.3"
"""Version that the code server is loaded for, and the one that is released."""

TILE, YEAR = WEST, 2023
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ARTEFACTS, LOGS = "artefacts", "logs"
KINDS: tuple[Kind, ...] = ("tiles", "volumes")
_START_SECONDS, _WORK_SECONDS = 400, 500


@dataclass
class Queue:
    """A queue of requests, and the one for messages that were received too often."""

    client: Any
    url: str
    dead: str

    @classmethod
    def made(cls, client: Any, name: str) -> Queue:
        """A pair of empty queues."""
        dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        asked = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": "5"}
        made = client.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)})
        return cls(client, made["QueueUrl"], dead)

    def send(self, body: bytes) -> None:
        """Send a request."""
        self.client.send_message(QueueUrl=self.url, MessageBody=body.decode())

    def left(self) -> int:
        """Messages that wait, are hidden, or are dead."""
        counted = 0
        for url in (self.url, self.dead):
            asked = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            counted += sum(
                int(asked["Attributes"][f"ApproximateNumberOfMessages{state}"])
                for state in ("", "NotVisible", "Delayed")
            )
        return counted


@dataclass
class Worker:
    """A running `ocr worker`, in the words of its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def daemon(self) -> psutil.Process:
        """The daemon that it has started."""
        for process in psutil.Process(self.process.pid).children():
            if "dagster._daemon" in process.cmdline():
                return process
        raise AssertionError(f"there is no daemon: {self.log.read_text()}")

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(timeout=_WORK_SECONDS)


@dataclass
class EngineRoom:
    """The engines, and what of ours uses them."""

    folder: Path
    variables: dict[str, str]
    """All that our processes know."""
    dask: DaskProcesses
    github: GitHubServer
    queues: dict[Kind, Queue]
    instance: dg.DagsterInstance
    can_read: bool
    """Whether this machine has what it takes to read the sample volume."""
    workers: list[Worker] = field(default_factory=list)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def journal(self) -> list[worker_journal.Line]:
        """What Dask workers wrote down about their work."""
        return worker_journal.read(self.folder / "journal")

    @property
    def settings(self) -> Settings:
        """The settings of our processes."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            return load_settings()

    @property
    def bucket(self) -> Storage:
        """All artefacts."""
        return Storage(f"s3://{ARTEFACTS}", self.settings.s3)

    @property
    def logs(self) -> Storage:
        """What runs have printed."""
        return Storage(f"s3://{LOGS}", self.settings.s3)

    def start_worker(self) -> Worker:
        """Start `ocr worker`; it has time to let its runs end."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = [OCR, "worker", "--grace", str(_WORK_SECONDS)]
        worker = Worker(self._process(command, log), log)
        self.workers.append(worker)
        return worker

    def start_webserver(self) -> RunningDagster:
        """Dagster's UI, without a daemon of its own."""
        port = free_port()
        log = self.folder / "webserver.log"
        program = Path(sys.executable).with_name("dagster-webserver")
        workspace = CHECKOUT / "workspace.yaml"
        command = [program, "-h", "127.0.0.1", "-p", str(port), "-w", workspace]
        return RunningDagster(self._process(command, log), f"http://127.0.0.1:{port}", log)

    def _process(self, command: list[Any], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self.variables),
                stdout=output,
                stderr=output,
            )
        self._started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Whatever lives and knows this instance, the test itself apart."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                home = process.environ().get("DAGSTER_HOME")
                if home == self.variables["DAGSTER_HOME"] and process.pid != os.getpid():
                    found.append(process)
        return found

    def clear(self) -> None:
        """End all that is left, whatever has happened."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for started in self._started:
            started.wait(timeout=60)

    # Requests and events

    def publish_release(self) -> None:
        """Publish the release on GitHub, once the sensor has seen that there was none."""

        def has_looked() -> bool:
            return any(answer.status == 200 for answer in self.github.asked)

        wait_until("the first look at GitHub", has_looked, _START_SECONDS)
        # Times of GitHub have no fractions: in the second of that look it would count as before it.
        later = datetime.now(UTC) + timedelta(seconds=1)
        self.github.releases = [release(1, f"v{RELEASED}", later.strftime("%Y-%m-%dT%H:%M:%SZ"))]

    def ask_for_tile(self) -> None:
        """Send a request for the tile."""
        (body,) = tile_messages([(YEAR, Tile.parse(TILE))])
        self.queues["tiles"].send(body)

    def ask_for_volume(self) -> None:
        """Send a request for the sample volume, where it can be read."""
        (body,) = volume_messages([VolumeId.parse(VOLUME)])
        if self.can_read:
            self.queues["volumes"].send(body)

    # Accidents

    def kill_dask_worker_at_work(self) -> worker_journal.Line:
        """Kill the first Dask worker while it computes a region; what it had begun."""
        victim = psutil.Process(self.dask.workers[0].pid)

        def caught() -> worker_journal.Line | None:
            if self._at_work(victim.pid) is None:
                return None
            # It may finish before the signal comes: only what stands still can be looked at.
            victim.suspend()
            wait_until("a standstill", lambda: victim.status() == psutil.STATUS_STOPPED)
            found = self._at_work(victim.pid)
            if found is None:
                victim.resume()
            return found

        task = wait_until("a region at work", caught, _START_SECONDS)
        self.dask.kill_worker(0)
        return task

    def _at_work(self, pid: int) -> worker_journal.Line | None:
        """The region that a worker has begun and not finished."""
        own = [line for line in self.journal if line.pid == pid and line.work[0] == "regions"]
        return own[-1] if own and own[-1].state == "begun" else None

    def kill_daemon(self) -> None:
        """Kill the daemon, and nothing else, while the deployment is under way."""
        (deployment,) = self.instance.get_runs(dg.RunsFilter(job_name=DEPLOY_JOB))
        assert deployment.status == dg.DagsterRunStatus.STARTED
        self.workers[-1].daemon.kill()

    # What has become of it

    def is_over(self) -> bool:
        """Whether nothing is left to be done: all that was asked for has its runs, all ended."""
        jobs = {DEPLOY_JOB, TILE_FIRST, TILE_WANTED}
        jobs |= {VOLUME_FIRST, VOLUME_WANTED} if self.can_read else set()
        runs = self.instance.get_runs()
        return (
            jobs <= {run.job_name for run in runs}
            and all(run.is_finished for run in runs)
            and not any(queue.left() for queue in self.queues.values())
        )

    def wait_until_it_is_over(self) -> None:
        """Wait for all work, and for two more looks at GitHub that find nothing to do."""
        wait_until("everything to be done", self.is_over, _WORK_SECONDS)
        asked = len(self.github.asked)
        wait_until("two more looks", lambda: len(self.github.asked) > asked + 1, _START_SECONDS)
        wait_until("the end of what they found", self.is_over, _WORK_SECONDS)


@contextmanager
def engine_room(folder: Path, s3_server: str, imagery: str) -> Iterator[EngineRoom]:
    """Start all engines, with the sample world in the bucket; nothing of ours runs yet."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("OCR_")]:
            if name != "OCR_TEST_ARTIFACTS":
                patch.delenv(name)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=s3_server)
        for bucket in (ARTEFACTS, LOGS):
            client.create_bucket(Bucket=bucket)
        places = {
            "OCR_STORAGE_ROOT": f"s3://{ARTEFACTS}/ocr",
            "OCR_S3_ENDPOINT_URL": s3_server,
            "OCR_MODELS_ROOT": str(folder / "models"),
            "DAGSTER_HOME": str(folder / "home"),
        }
        sample = subprocess.Popen(
            [OCR, "sample", "--no-imagery"],
            env=environment(places),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(sample.kill)
        postgres = stack.enter_context(postgres_server())
        sqs = boto3.client("sqs", endpoint_url=s3_server)
        queues = {kind: Queue.made(sqs, kind) for kind in KINDS}
        preload = ("--preload", worker_journal.__file__)
        knows = {**KEYS, worker_journal.VARIABLE: str(folder / "journal")}
        dask = stack.enter_context(dask_processes(folder / "dask", 2, knows, preload))
        github = stack.enter_context(GitHubServer().running())
        variables = {
            **places,
            **KEYS,
            **postgres,
            **_services(s3_server, imagery, queues),
            "OCR_ENVIRONMENT": "production",
            "OCR_VERSION": LOADED,
            "OCR_PLATFORM": "dask",
            "OCR_DASK_SCHEDULER": dask.address,
            "OCR_GITHUB_REPOSITORY": REPOSITORY,
            "OCR_GITHUB_TOKEN": TOKEN,
            "OCR_GITHUB_API_URL": github.url,
            "OCR_GITHUB_SECONDS": "5",
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        prepare_home()
        instance = stack.enter_context(dg.DagsterInstance.get())
        out, told = sample.communicate(timeout=_START_SECONDS)
        assert sample.returncode == 0, out + told
        can_read = "no sample volume" not in told and _has_model(folder)
        room = EngineRoom(folder, variables, dask, github, queues, instance, can_read)
        stack.callback(room.clear)
        yield room


def _services(s3_server: str, imagery: str, queues: Mapping[Kind, Queue]) -> dict[str, str]:
    """Where things come from and go to."""
    return {
        "OCR_INSTANCE_FILE": str(CHECKOUT / "deploy" / "dagster.yaml"),
        "AWS_ENDPOINT_URL_S3": s3_server,
        "DAGSTER_COMPUTE_LOGS_BUCKET": LOGS,
        "OCR_TILE_QUEUE_URL": queues["tiles"].url,
        "OCR_VOLUME_QUEUE_URL": queues["volumes"].url,
        "OCR_SQS_ENDPOINT_URL": s3_server,
        "OCR_REQUEST_SECONDS": "1",
        **{f"OCR_{name}_SOURCE": imagery for name in ("ELEVATION", "SENTINEL1", "SENTINEL2")},
        "OCR_SENTINEL1_ACCESS": "anonymous",
    }


def _has_model(folder: Path) -> bool:
    try:
        ModelStore(folder / "models").find("bod")
    except MissingModelError:
        return False
    return True
