"""The graph in Dagster's own processes: definitions, sensor, backfill, instance."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BACKFILLED
from running_dagster import OCR, RunningDagster
from sample_worlds import REGION_ASSETS, World, environment

pytestmark = pytest.mark.end_to_end

SENSOR = """{
  sensorOrError(sensorSelector: {
    repositoryLocationName: "ocr_assets", repositoryName: "__repository__",
    sensorName: "input_datasets"
  }) { ... on Sensor { sensorState { status ticks { status skipReason cursor } } } }
}"""

INPUTS = """{
  assetNodes { assetKey { path }
    assetMaterializations(limit: 2) { tags { key value } }
  }
}"""

REGION = """query($asset: [String!]!, $region: String!) {
  assetNodeOrError(assetKey: { path: $asset }) { ... on AssetNode {
    staleStatus(partition: $region)
    staleCauses(partition: $region) { key { path } reason }
    assetMaterializations(partitions: [$region]) { runId }
    assetChecksOrError { ... on AssetChecks { checks { name
      executionForLatestMaterialization { status } } } }
  } }
}"""


def test_definitions_load_without_a_warning(world: World, tmp_path: Path) -> None:
    code = (
        "import dagster as dg; from ocr_assets.definitions import build_defs\n"
        "from ocr_assets.deployment import Deployment\n"
        "from resources.settings import load_settings\n"
        "dg.Definitions.validate_loadable(build_defs(Deployment(load_settings())))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(world.variables()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_starts_without_a_warning(running_dagster: RunningDagster) -> None:
    lines = running_dagster.log.read_text().splitlines()
    warnings = [line for line in lines if re.search("warning|error", line, re.IGNORECASE)]
    # On a new instance the daemon says so, once for each kind of event that it follows.
    new = [line for line in warnings if "No cursor for event type" in line]
    assert [line for line in warnings if line not in new] == []
    assert len(new) == 2


def test_the_input_sensor_reports_every_input(
    running_dagster: RunningDagster, running_world: World
) -> None:
    def ticked() -> dict[str, Any] | None:
        state = running_dagster.query(SENSOR)["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING"
        return next(iter(state["ticks"]), None)

    tick = running_dagster.wait_for("a tick of the sensor", ticked)
    catalog = running_world.catalog
    assert tick["skipReason"].startswith(f"reported {len(catalog.datasets)} of")
    found = {
        node["assetKey"]["path"][-1]: [
            {tag["key"]: tag["value"] for tag in event["tags"]}["dagster/data_version"]
            for event in node["assetMaterializations"]
        ]
        for node in running_dagster.query(INPUTS)["assetNodes"]
        if node["assetKey"]["path"][0] == "input" and node["assetMaterializations"]
    }
    expected = {
        name.replace("-", "_"): [catalog.fingerprint(name)] for name in sorted(catalog.datasets)
    }
    assert found == expected


def test_a_backfill_materializes_regions_in_one_run(
    running_dagster: RunningDagster, running_world: World, backfill: dict[str, Any]
) -> None:
    assert backfill["status"] == "COMPLETED_SUCCESS"
    (run,) = backfill["runs"]
    assert run["status"] == "SUCCESS"
    assert set(running_world.deployment().ledger()) == set(BACKFILLED)

    expected = {
        "region_risk": {
            "wind_direction_weights",
            "values_in_range",
            "no_data_share",
            "no_seam",
        },
        "region_buildings": {"buildings_accounted_for", "geometry_valid"},
    }
    for asset in REGION_ASSETS:
        for region in BACKFILLED:
            node = running_dagster.query(REGION, asset=[asset], region=region)["assetNodeOrError"]
            assert [made["runId"] for made in node["assetMaterializations"]] == [run["id"]]
            # The sensor reported the inputs before: that must not make the region stale.
            assert (node["staleStatus"], node["staleCauses"]) == ("FRESH", [])
        checks = {
            check["name"]: check["executionForLatestMaterialization"]["status"]
            for check in node["assetChecksOrError"]["checks"]
        }
        assert checks == dict.fromkeys(expected[asset], "SUCCEEDED")


def test_commands_started_at_once_share_a_fresh_instance(world: World) -> None:
    starting = [
        subprocess.Popen(
            [OCR, "regions", "status"],
            env=environment(world.variables()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    for process in starting:
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 0, text
        assert f"{len(world.grid.valid)} missing" in text
