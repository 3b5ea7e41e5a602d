"""`ocr dev` as a user starts it: code server, daemon and UI, asked through the UI's own API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from interrupts import heed_interrupts
from sample_worlds import environment

OCR = Path(sys.executable).with_name("ocr")
FINISHED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"}

_READY = """{
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
  workspaceOrError { ... on Workspace { locationEntries { loadStatus
    locationOrLoadError { __typename ... on PythonError { message } } } } }
}"""
_LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
_BACKFILL = """query($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
    status error { message } timestamp endTimestamp
    runs(limit: 1000) { id status creationTime startTime endTime }
  } }
}"""
_LAUNCH_RUN = """mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message }
  }
}"""
_RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@dataclass
class RunningDagster:
    """The processes of `ocr dev`, and questions to its UI."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @classmethod
    @contextmanager
    def start(
        cls, variables: Mapping[str, str], folder: Path, cwd: Path | None = None
    ) -> Iterator[RunningDagster]:
        """Start it with these variables, wait until it is ready, and end it with all it started."""
        heed_interrupts()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        log = folder / "ocr-dev.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [OCR, "dev", "--port", str(port)],
                cwd=cwd or folder,
                env={**environment(variables), "PYTHONUNBUFFERED": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = cls(process, f"http://127.0.0.1:{port}", log)
        try:
            running.wait_for("Dagster to be ready", running._ready, timeout=120)
            yield running
        finally:
            running._stop()

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        finally:
            # Whatever is left of its session: nothing of a test outlives the test.
            with suppress(ProcessLookupError):
                self.kill()

    def _ready(self) -> bool:
        try:
            found = self.query(_READY)
        except OSError:
            return False
        entries = found["workspaceOrError"]["locationEntries"]
        for entry in entries:
            location = entry["locationOrLoadError"]
            assert location is None or location["__typename"] != "PythonError", location["message"]
        daemons = found["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(entry["loadStatus"] == "LOADED" for entry in entries) and all(
            daemon["healthy"] for daemon in daemons if daemon["required"]
        )

    def wait_for[T](
        self, what: str, look: Callable[[], T | None], timeout: float = 90, every: float = 0.5
    ) -> T:
        """Look so often, in seconds, until there is something to see."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            assert self.process.poll() is None, f"ocr dev ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited for {what}: {self.log.read_text()}"
            time.sleep(every)
        return found

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """Data that the UI's API answers to a query or mutation."""
        body = json.dumps({"query": text, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.url}/graphql", body, headers), timeout=60) as answer:
            found = json.load(answer)
        assert not found.get("errors"), found["errors"]
        return found["data"]

    def launch_backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """Launch a backfill as the UI does; its id."""
        params = {
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
            "partitionNames": list(partitions),
            "fromFailure": False,
            "tags": [],
        }
        launched = self.query(_LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def finished_backfill(
        self, backfill_id: str, timeout: float = 120, every: float = 0.5
    ) -> dict[str, Any]:
        """Status, times and runs of a backfill, once it is over."""

        def look() -> dict[str, Any] | None:
            found = self.query(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
            return found if found["status"] in FINISHED else None

        return self.wait_for(f"backfill {backfill_id}", look, timeout, every)

    def launch_run(self, assets: Sequence[str], tags: Mapping[str, str] | None = None) -> str:
        """Put a run of assets into the queue as the UI does; its id."""
        params = {
            "selector": {
                "repositoryLocationName": "ocr_assets",
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": asset.split("/")} for asset in assets],
                "assetCheckSelection": [],
            },
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()]
            },
        }
        launched = self.query(_LAUNCH_RUN, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["id"]

    def materialize(self, asset: str, timeout: float = 120) -> None:
        """Materialize an unpartitioned asset and wait until that is done."""
        run_id = self.launch_run([asset])

        def look() -> bool:
            status = self.query(_RUN, id=run_id)["runOrError"]["status"]
            assert status not in {"FAILURE", "CANCELED"}, self.log.read_text()
            return status == "SUCCESS"

        self.wait_for(f"the run of {asset}", look, timeout)
