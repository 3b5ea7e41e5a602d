"""Canceling a job while a process of its own reads one of its volumes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import wait_until
from sample_worlds import OCR, Outcome, World, environment
from store_proxy import StoreProxy

from resources.storage import Storage


@pytest.fixture
def proxy(s3_server: str) -> Iterator[StoreProxy]:
    made = StoreProxy(s3_server)
    yield made
    made.close()


def test_what_runs_is_finished_and_what_waits_is_not_begun(
    ocr: Callable[..., Outcome],
    world: World,
    pages: Path,
    s3_bucket: Storage,
    proxy: StoreProxy,
    tmp_path: Path,
) -> None:
    for volume in ("W1-I1", "W2-I2"):
        s3_bucket.put_file(f"scans/{volume}/0002.tif", pages / "0002.tif")
    places = {
        "OCR_MODELS_ROOT": str(world.folder / "models"),
        "OCR_VOLUMES_SOURCE": s3_bucket.uri("scans"),
        "OCR_VOLUMES_ENDPOINT_URL": proxy.url,
    }

    def jobs(*arguments: str) -> Outcome:
        return ocr("jobs", *arguments, "--job-key", "J1", **places)

    def status() -> Any:
        return json.loads(jobs("status", "--json").out)

    made = jobs("create", "--type", "printed-unicode", "--volumes", "W1-I1,W2-I2")
    assert made.status == 0, made.err
    proxy.held = "W1-I1/0002.tif"
    variables = {**environment(world.variables()), **places}
    log = tmp_path / "run.log"
    with log.open("wb") as output:
        reading = subprocess.Popen(
            [OCR, "jobs", "run", "--job-key", "J1"], env=variables, stdout=output, stderr=output
        )

    def begun() -> bool:
        assert reading.poll() is None, log.read_text()
        return proxy.waiting.is_set()

    try:
        wait_until("the first volume to be begun", begun, 240)
        found = status()
        assert found["state"] == "running"
        assert (found["tasks"]["running"], found["tasks"]["pending"]) == (1, 1)

        canceled = jobs("cancel")
        assert "1 volumes finish" in canceled.out, canceled.err
        # Nobody else begins the second one, and the first one is still being read.
        assert "is canceled" in jobs("run").complaint
        assert status()["state"] == "running"

        proxy.release.set()
        assert reading.wait(timeout=240) == 0, log.read_text()
    finally:
        proxy.release.set()
        reading.kill()
        reading.wait()
    found = status()
    assert found["state"] == "canceled"
    assert {task["volume"]: task["state"] for task in found["volumes"]} == {
        "W1-I1": "done",
        "W2-I2": "pending",
    }
    read = json.loads(ocr("volumes", "status", "--json", **places).out)
    assert [row["volume"] for row in read] == ["W1-I1"]
