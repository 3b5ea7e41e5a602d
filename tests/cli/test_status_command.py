"""One screen over all wings: what it says on worlds whose state is known."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sample_worlds import OCR, FinishedWorld, Outcome, World, environment

from ocr_assets.definitions import build_defs
from ocr_assets.partitions import RANGE_END, RANGE_START
from ocr_assets.regions import inputs
from ocr_assets.run_overview import (
    RunRow,
    daemon_state,
    latest_errors,
    partition_counts,
    runs_at_work,
)
from resources.progress import Advance

Ocr = Callable[..., Outcome]
BP_30M = inputs.BURN_PROBABILITY_30M[2011]


def seen(ocr: Ocr, **variables: str) -> dict[str, Any]:
    done = ocr("status", "--json", **variables)
    assert done.status == 0, done.err
    return json.loads(done.out)


def test_a_finished_world(finished_world: FinishedWorld, world: World, ocr: Ocr) -> None:
    shutil.copytree(finished_world.root, world.root)
    shutil.rmtree(world.folder / "home")
    shutil.copytree(finished_world.folder / "home", world.folder / "home")
    found = seen(ocr)
    assert found["wings"]["regions"] == [
        {"asset": "regions", "done": 11, "stale": 0, "failed": 0, "missing": 0, "running": 0}
    ]
    assert {"asset": "volume_text", "done": 0, "failed": 0, "running": 0} in found["wings"][
        "volumes"
    ]
    assert found["environment"] == "qa"
    assert (found["runs"], found["queued"], found["errors"], found["jobs"]) == ([], 0, [], [])
    assert found["daemon"] == {"running": False, "last_heartbeat": None}
    text = ocr("status").out
    assert "qa dev, platform local" in text
    assert "daemon not running, last heard of: never" in text


def test_failures_are_counted_and_told(ocr: Ocr, world: World) -> None:
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    done = ocr("run", "-r", "y0_x0", "-r", "y0_x1", "--process-retries", "0")
    assert done.status == 1
    found = seen(ocr)
    assert found["wings"]["regions"] == [
        {"asset": "regions", "done": 1, "stale": 0, "failed": 1, "missing": 9, "running": 0}
    ]
    (error,) = found["errors"]
    assert error["what"] == "region_buildings, region_risk"
    assert error["partitions"] == "y0_x0 to y0_x1"
    assert "1 of 2 regions failed; y0_x1" in error["error"]
    assert "BP runs from 2 to 2 in region y0_x1" in error["error"]
    assert "BP runs from 2 to 2 in region y0_x1" in ocr("status").out


def test_without_inputs_the_mend_is_named(ocr: Ocr, tmp_path: Path) -> None:
    found = seen(ocr, OCR_CATALOG=str(tmp_path / "nothing.json"))
    assert "nothing.json" in found["notes"]["regions"]
    assert found["wings"]["regions"][0]["done"] == 0


def test_jobs_of_volumes(ocr: Ocr) -> None:
    volumes = "W1-I1,W1-I2"
    created = ocr("jobs", "create", "--type-id", "1", "--volumes", volumes, "--job-key", "mine")
    assert created.status == 0, created.err
    (job,) = seen(ocr)["jobs"]
    assert (job["job"], job["done"], job["failed"], job["volumes"]) == ("mine", 0, 0, 2)
    assert "mine" in ocr("status").out


def test_a_run_at_work(world: World) -> None:
    """Looked at while the run is computing its regions."""
    assets = [dg.AssetKey("region_buildings"), dg.AssetKey("region_risk")]
    seen: list[tuple[RunRow, dict[str, int]]] = []

    class Look:
        @contextmanager
        def task(self, label: str, total: int) -> Iterator[Advance]:
            yield lambda _: seen.append(
                (runs_at_work(instance)[0], partition_counts(instance, assets[1]))
            )

    deployment = world.deployment()
    deployment.regions.initialize(deployment.template)
    job = build_defs(deployment, progress=Look()).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=assets,
            tags={RANGE_START: "y0_x1", RANGE_END: "y0_x2"},
        )
        assert len(seen) == 2
        row, counts = seen[0]
        assert (row.run_id, row.status) == (result.run_id, "started")
        assert row.what == "region_buildings, region_risk"
        assert row.partitions == "y0_x1 to y0_x2"
        assert counts == {"done": 0, "failed": 0, "running": 2}
        assert runs_at_work(instance) == []
        assert partition_counts(instance, assets[1]) == {"done": 2, "failed": 0, "running": 0}
        assert latest_errors(instance) == []
        assert not daemon_state(instance).running


@pytest.mark.end_to_end
def test_watching_goes_on_until_interrupted(world: World) -> None:
    watching = subprocess.Popen(
        [OCR, "status", "--watch", "--every", "0.1", "--json"],
        env=environment(world.variables()) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=60) == 130
    watching.stdout.close()
    assert looks[0]["wings"] == looks[1]["wings"]
