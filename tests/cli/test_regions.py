"""Commands of the regions wing: they run the same assets, record them, and tell what happened."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from sample_worlds import FinishedWorld, Outcome, World

from ocr_assets import launch, region_writer
from ocr_assets.launch import Materialized
from ocr_assets.regions import inputs

Ocr = Callable[..., Outcome]
BP_30M = inputs.BURN_PROBABILITY_30M[2011]


def table(text: str) -> dict[str, list[str]]:
    """Rows of the closing table by asset: partitions, amount, unit, bytes, seconds, path."""
    lines = [line.strip() for line in text.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("───"))
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if line}


def runs(world: World) -> list[dg.DagsterRun]:
    with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
        return list(instance.get_runs())


def statuses(ocr: Ocr) -> dict[str, Any]:
    done = ocr("regions", "status", "--json")
    assert done.status == 0
    return json.loads(done.out)


def test_the_closing_table_has_every_asset(finished_world: FinishedWorld) -> None:
    output = finished_world.output
    assert re.match(rf"Materialized in \d+\.\d s, below {finished_world.root} *\n", output)
    rows = table(output)
    levels = ("block", "tract", "county", "state", "nation")
    assert list(rows) == [
        "region_template",
        "region_risk",
        "region_buildings",
        "pyramid",
        "buildings",
        *(f"risk_statistics/{level}" for level in levels),
        *(f"region_analysis_files/{level}" for level in levels),
        "regional_pmtiles",
        "building_pmtiles",
        "building_centroid_pmtiles",
    ]
    assert rows["region_risk"][:3] == ["11", "792,000", "pixels"]
    assert rows["region_risk"][3] == "25,344,000"
    assert rows["region_risk"][5:] == ["qa/icechunk/region-risk", "(branch", "qa)"]
    assert rows["region_buildings"][1:3] == rows["buildings"][1:3]
    assert rows["region_buildings"][5] == "qa/dev/regions"
    assert rows["building_pmtiles"][2] == "features"
    assert rows["building_pmtiles"][5] == "qa/dev/pmtiles/buildings.pmtiles"
    assert rows["risk_statistics/nation"][1:3] == ["1", "rows"]


def test_the_ui_knows_what_the_command_did(finished_world: FinishedWorld) -> None:
    with finished_world.instance() as instance:
        found = instance.get_runs()
        assert {run.status for run in found} == {dg.DagsterRunStatus.SUCCESS}
        (regions,) = (run for run in found if "dagster/asset_partition_range_start" in run.tags)
        assert regions.tags["dagster/asset_partition_range_start"] == "y0_x0"
        assert regions.tags["dagster/asset_partition_range_end"] == "y2_x2"
        valid = list(finished_world.deployment.grid.valid)
        counts = instance.get_status_by_partition(
            dg.AssetKey("region_risk"), valid, dg.StaticPartitionsDefinition(valid)
        )
        assert counts is not None
        assert set(counts.values()) == {dg.AssetPartitionStatus.MATERIALIZED}


def test_one_region_and_its_status(ocr: Ocr, world: World) -> None:
    done = ocr("process-region", "y1_x1")
    assert done.status == 0
    assert list(table(done.out)) == ["region_template", "region_risk", "region_buildings"]
    assert "y1_x1" in done.err, "no progress was shown"

    document = statuses(ocr)
    assert document["counts"] == {"done": 1, "missing": 10}
    rows = {row["region_id"]: row for row in document["regions"]}
    assert list(rows) == list(world.grid.valid)
    assert rows["y1_x1"]["state"] == "done"
    assert rows["y1_x1"]["version"] == "dev"
    assert rows["y1_x1"]["code_version"] == world.deployment().region_lineage["code_version"]
    assert rows["y1_x1"]["buildings"] > 100
    assert rows["y1_x0"] == {
        "region_id": "y1_x0",
        "state": "missing",
        "reason": "never computed",
        "version": None,
        "code_version": None,
        "buildings": None,
    }

    shown = ocr("regions", "status", "--state", "done")
    assert shown.out.startswith("fire, sample, qa dev")
    assert re.search(r"\n +y1_x1 +done +dev ", shown.out)
    assert "y1_x0" not in shown.out
    assert shown.out.rstrip().endswith("1 done, 0 stale, 0 failed, 10 missing")

    other = ocr("regions", "status", "--state", "stale", OCR_VERSION="1.0.0")
    assert re.search(r"\n +y1_x1 +stale .*changed: version", other.out)


def test_stages_one_by_one(ocr: Ocr) -> None:
    """The long way of `ocr run`, by the names of the field."""
    assert ocr("process-region", "y1_x1").status == 0
    for command, assets in (
        ("aggregate", ["buildings"]),
        (
            "aggregate-regional-risk",
            [f"risk_statistics/{name}" for name in ("block", "tract", "county", "state", "nation")],
        ),
        ("create-pyramid", ["pyramid"]),
    ):
        done = ocr(command)
        assert done.status == 0, done.err
        assert list(table(done.out)) == assets


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("create-pyramid", "there is no region store at"),
        ("aggregate-region-risk-summary-stats", "materialize buildings first"),
        ("create-regional-pmtiles", "materialize risk_statistics/block first"),
        ("write-aggregated-region-analysis-files", "materialize risk_statistics/block first"),
        ("create-building-pmtiles", "materialize buildings first"),
        ("create-building-centroid-pmtiles", "materialize buildings first"),
    ],
)
def test_a_stage_before_its_turn_names_what_comes_first(
    ocr: Ocr, command: str, message: str
) -> None:
    assert message in ocr(command).complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["process-region", "y9_x16"], "unknown region 'y9_x16': grid 'sample' has y0_x0 to y2_x3"),
        (["process-region", "y2_x3"], "region 'y2_x3' holds no data in grid 'sample'"),
        (["run", "-r", "y0_x0", "-r", "boulder"], "unknown region 'boulder'"),
        (["run", "-r", "y0_x0", "--env-file", "/no/qa.env"], "env file '/no/qa.env' does not"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(
    ocr: Ocr, world: World, arguments: list[str], message: str
) -> None:
    assert message in ocr(*arguments).complaint
    assert not world.root.exists()
    assert not runs(world)


@pytest.mark.parametrize("command", [["run", "--all-region-ids"], ["regions", "status"]])
def test_without_a_catalog_the_mend_is_told(ocr: Ocr, world: World, command: list[str]) -> None:
    done = ocr(*command, OCR_CATALOG=str(world.folder / "none.json"))
    assert "run `ocr sample`" in done.complaint
    assert "OCR_CATALOG" in done.complaint


def test_settings_may_come_from_a_file(ocr: Ocr, world: World) -> None:
    file = world.folder / "staging.env"
    file.write_text("OCR_ENVIRONMENT=staging\nOCR_VERSION=v1.2.3\n")
    done = ocr("process-region", "y0_x3", "--env-file", str(file))
    assert table(done.out)["region_buildings"][5].startswith("staging/v1.2.3/regions/")
    deployment = world.deployment(environment="staging", version="1.2.3")
    assert list(deployment.current_ledger()) == ["y0_x3"]


def test_one_bad_region_beside_good_ones(
    ocr: Ocr, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.0)
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    chosen = ["--region-id", "y0_x0", "--region-id", "y0_x1", "--region-id", "y0_x2"]
    done = ocr("run", *chosen, "--process-retries", "1")
    assert done.complaint == (
        f"1 of 3 regions failed (y0_x1): y0_x1: {BP_30M}: BP runs from 2 to 2 in region y0_x1, "
        "expected 0 to 1 (1); is its no-data value declared?"
    )
    rows = table(done.out)
    assert list(rows) == ["region_template", "region_risk", "region_buildings"]
    assert rows["region_risk"][0] == "2"
    # Two runs of regions: the first of all, the second of the one that failed.
    ranges = [
        (run.tags["dagster/asset_partition_range_start"], run.status.value)
        for run in runs(world)
        if "dagster/asset_partition_range_start" in run.tags
    ]
    assert sorted(ranges) == [("y0_x0", "FAILURE"), ("y0_x1", "FAILURE")]
    assert statuses(ocr)["counts"] == {"done": 2, "failed": 1, "missing": 8}
    assert not world.deployment().storage.exists("buildings/_manifest.json")

    world.doctor_region(BP_30M, "BP", "y0_x1", 0.01)
    assert statuses(ocr)["counts"] == {"stale": 2, "failed": 1, "missing": 8}
    assert ocr("process-region", "y0_x1").status == 0
    assert statuses(ocr)["counts"] == {"done": 1, "stale": 2, "missing": 8}


def test_a_failed_recomputation_is_not_forgotten(
    ocr: Ocr, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old state of the region holds on, so the ledger alone does not show the failure."""
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.0)
    assert ocr("process-region", "y0_x1").status == 0

    def fail(*_: Any) -> Any:
        raise ValueError("the footprints are locked by another program")

    monkeypatch.setattr(region_writer, "process_region", fail)
    done = ocr("run", "-r", "y0_x1", "--recompute", "--process-retries", "1")
    assert "1 of 1 regions failed (y0_x1): y0_x1: the footprints are locked" in done.complaint


@pytest.mark.parametrize("retries", ["0", "2"])
def test_a_failed_check_is_not_retried_away(
    ocr: Ocr, world: World, monkeypatch: pytest.MonkeyPatch, retries: str
) -> None:
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.0)
    process = region_writer.process_region

    def spoilt(*arguments: Any) -> Any:
        result = process(*arguments)
        result.summary["variables"]["bp_2047"]["maximum"] = 1.2
        return result

    monkeypatch.setattr(region_writer, "process_region", spoilt)
    done = ocr("run", "-r", "y0_x0", "-r", "y0_x1", "--process-retries", retries)
    assert done.complaint == (
        "check values_in_range of region_risk failed: 2 of 2 regions have values out of range"
    )
    assert not world.deployment().storage.exists("buildings/_manifest.json")


def test_a_check_that_does_not_stop_is_told(ocr: Ocr, world: World) -> None:
    def spoil(dataset: Any) -> Any:
        dataset["wind_direction_distribution"].values[0, 0] = 0.5
        return dataset

    world.doctor_raster(inputs.WIND, spoil)
    done = ocr("process-region", "y0_x0")
    assert done.status == 0
    assert "warning: check wind_direction_weights of region_risk failed: 1 of " in " ".join(
        done.err.split()
    )


def test_wiping_says_what_and_begins_anew(finished_copy: World, ocr: Ocr) -> None:
    assert statuses(ocr)["counts"] == {"done": 11}
    done = ocr("run", "-r", "y0_x3", "--wipe", "--yes")
    assert done.status == 0
    text = " ".join(done.err.split())
    assert f"wipe: 11 regions on branch qa of {finished_copy.root}" in text
    assert re.search(r"wipe: \d+ objects, \d+\.\d MB, in ", text)
    assert statuses(ocr)["counts"] == {"done": 1, "missing": 10}
    deployment = finished_copy.deployment()
    assert deployment.storage.list("statistics") == []
    assert len(deployment.storage.list("pmtiles")) == 4


def test_production_is_never_wiped(ocr: Ocr, world: World) -> None:
    done = ocr(
        "run", "-r", "y0_x0", "--wipe", "-y", OCR_ENVIRONMENT="production", OCR_VERSION="1.0.0"
    )
    assert "production is never wiped" in done.complaint
    assert not world.root.exists()


def test_the_common_folder_of_what_was_made() -> None:
    made = Materialized("region_buildings")
    for place in ("s3://bucket/a/region_id=y0_x0/1", "s3://bucket/a/region_id=y0_x1/1"):
        made.add({"path": dg.MetadataValue.path(place), "rows": dg.MetadataValue.int(3)})
    assert made.path == "s3://bucket/a"
    assert (made.partitions, made.count, made.unit) == (2, 6, "rows")
