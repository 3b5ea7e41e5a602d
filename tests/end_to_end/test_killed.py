"""Killed in the middle: nothing is half visible, and what comes next completes it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from engines import wait_until
from running_dagster import OCR, RunningDagster
from sample_worlds import REGION_ASSETS, World, environment

from ocr_assets.partitions import RANGE_END, RANGE_START

pytestmark = pytest.mark.end_to_end


def wait_for_tables(root: Path, count: int) -> list[Path]:
    """The tables of regions, once so many are stored; none of them need be visible yet."""

    def look() -> list[Path]:
        found = tables(root)
        return found if len(found) >= count else []

    return wait_until(f"{count} tables", look, 120, pause=0.01)


def tables(root: Path) -> list[Path]:
    """The building tables of regions that are stored."""
    return sorted((root / "qa" / "dev" / "regions").glob("*/*.parquet"))


def slots(instance: dg.DagsterInstance) -> set[str]:
    """Runs that hold a place in the writers' pool."""
    return instance.event_log_storage.get_concurrency_info("writer_qa").active_run_ids


def test_a_killed_run_leaves_nothing_half_visible(world: World, tmp_path: Path) -> None:
    variables = environment(world.variables() | {"TMPDIR": str(tmp_path)})
    valid = list(world.grid.valid)

    def states() -> dict[str, Any]:
        done = subprocess.run(
            [OCR, "regions", "status", "--json"], env=variables, capture_output=True, check=True
        )
        return json.loads(done.stdout)["counts"]

    command = [OCR, "run", "--all-region-ids"]
    first = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
    wait_for_tables(world.root, 3)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    left = tables(world.root)
    assert len(left) < len(valid), "it was killed in the middle"

    assert states() == {"missing": len(valid)}
    deployment = world.deployment()
    assert deployment.ledger() == {}
    for name, variable in deployment.regions.dataset().data_vars.items():
        assert np.isnan(variable.values).all(), name
    with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
        (killed,) = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert slots(instance) == {killed}

        subprocess.run(command, env=variables, check=True, capture_output=True, timeout=200)
        assert states() == {"done": len(valid)}
        run = instance.get_run_by_id(killed)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert slots(instance) == set()
    # What the killed run had stored already was taken up, not stored again.
    assert set(left) < set(tables(world.root))
    assert len(tables(world.root)) == len(valid)


@pytest.mark.endurance
def test_after_a_power_cut_the_daemon_completes_its_run(world: World, tmp_path: Path) -> None:
    deployment = world.deployment()
    deployment.regions.initialize(deployment.template)
    valid = world.grid.valid
    variables = world.variables()
    with RunningDagster.start(variables, tmp_path) as running:
        killed = running.launch_run(REGION_ASSETS, {RANGE_START: valid[0], RANGE_END: valid[-1]})
        wait_for_tables(world.root, 3)
        running.kill()
    assert deployment.ledger() == {}
    with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
        assert slots(instance) == {killed}
        with RunningDagster.start(variables, tmp_path) as running:
            running.wait_for(
                "the run to be done again", lambda: len(deployment.ledger()) == len(valid)
            )
            running.wait_for(
                "the second attempt to end",
                lambda: [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"],
            )
        assert slots(instance) == set()
