"""The assets through Dagster: what the UI shows, what is skipped, what fails and what does not."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xarray as xr
from matplotlib.image import imread
from sample_worlds import REGION_ASSETS, FinishedWorld, World, execute, materializations

from ocr_assets.regions import inputs
from ocr_assets.regions.buildings import BuildingReport, building_schema
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.regions.risk import VARIABLES
from ocr_assets.sample.world import UNBUILT_REGION
from resources.manifest import sha256_bytes
from resources.storage import Storage

BP_30M = inputs.BURN_PROBABILITY_30M[2011]
STATISTICS = tuple(f"risk_statistics/{level}" for level in LEVELS)
FILES = tuple(f"region_analysis_files/{level}" for level in LEVELS)
TILES = ("building_pmtiles", "building_centroid_pmtiles", "regional_pmtiles")
SINGLE = ("region_template", "buildings", *STATISTICS, *FILES, *TILES, "pyramid")
"""Assets without partitions."""

Shown = dict[tuple[str, str | None], dict[str, Any]]


@pytest.fixture(scope="module")
def shown(finished_world: FinishedWorld) -> Shown:
    """What the UI shows of each materialization of the whole graph, by asset and partition."""
    found: Shown = {}
    with finished_world.instance() as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id, dg.DagsterEventType.ASSET_MATERIALIZATION):
                made = entry.asset_materialization
                assert made is not None
                key = made.asset_key.to_user_string(), made.partition
                assert key not in found, f"{key} was recorded twice"
                found[key] = {name: value.value for name, value in made.metadata.items()}
    return found


def statuses(instance: dg.DagsterInstance, world: World, asset: str) -> dict[str, str]:
    """What Dagster knows of each region of an asset; nothing of those never tried."""
    valid = list(world.grid.valid)
    found = instance.get_status_by_partition(
        dg.AssetKey(asset), valid, dg.StaticPartitionsDefinition(valid)
    )
    return {key: status.value for key, status in (found or {}).items() if status is not None}


def stored(storage: Storage) -> dict[str, str]:
    """Hash of each object of a version."""
    return {info.key: sha256_bytes(storage.read_bytes(info.key)) for info in storage.list()}


def test_everything_was_materialized(finished_world: FinishedWorld, shown: Shown) -> None:
    valid = finished_world.deployment.grid.valid
    regions = {(asset, region_id) for asset in REGION_ASSETS for region_id in valid}
    assert shown.keys() == regions | {(asset, None) for asset in SINGLE}
    for metadata in shown.values():
        assert metadata["seconds" if "seconds" in metadata else "rows"] >= 0
        assert metadata["path"].startswith(str(finished_world.root / "qa"))


def test_a_region_shows_picture_summary_and_lineage(
    finished_world: FinishedWorld, shown: Shown
) -> None:
    deployment = finished_world.deployment
    for region_id, entry in deployment.ledger().items():
        risk = shown["region_risk", region_id]
        assert risk["pixels"] == 300 * 240
        assert risk["bytes"] == 300 * 240 * 4 * 8
        assert risk["seconds"] > 0
        assert not risk["skipped"]
        assert risk["snapshot"] == deployment.regions.snapshot_id
        assert risk["lineage"] == deployment.region_lineage
        assert all(f"| {name} |" in risk["summary"] for name in VARIABLES)
        head, _, data = risk["risk in 2011"].partition(",")
        assert head == "![risk](data:image/png;base64"
        picture = imread(io.BytesIO(base64.b64decode(data.removesuffix(")"))))
        assert picture.shape[0] > 20
        buildings = shown["region_buildings", region_id]
        assert buildings["rows"] == buildings["dagster/row_count"] == entry["buildings"]["rows"]
        assert buildings["bytes"] == entry["buildings"]["bytes"]
        assert buildings["report"] == entry["report"]
        assert buildings["path"].endswith(entry["buildings"]["key"])


def test_counts_agree_from_region_to_nation(finished_world: FinishedWorld, shown: Shown) -> None:
    deployment = finished_world.deployment
    total = sum(shown["region_buildings", id_]["rows"] for id_ in deployment.grid.valid)
    assert total > 5000
    buildings = shown["buildings", None]
    assert buildings["rows"] == total
    assert buildings["regions"] == len(deployment.grid.valid)
    assert buildings["regions not done"] == 0
    for level in LEVELS:
        table = pq.read_table(deployment.storage.source(f"statistics/{level}.parquet"))
        assert table.num_rows == shown[f"risk_statistics/{level}", None]["rows"]
        assert sum(table["building_count"].to_pylist()) == total
    assert shown["building_pmtiles", None]["features"] == total
    assert shown["building_centroid_pmtiles", None]["features"] <= total


def test_analysis_files_have_the_rows_of_the_statistics(
    finished_world: FinishedWorld, shown: Shown
) -> None:
    storage = finished_world.deployment.storage
    folders = ("block", "tracts", "counties", "states", "nation")
    for level, folder in zip(LEVELS, folders, strict=True):
        rows = shown[f"risk_statistics/{level}", None]["rows"]
        assert shown[f"region_analysis_files/{level}", None]["rows"] == rows
        text = storage.read_bytes(f"region-analysis/{folder}/stats.csv").decode()
        assert "# notice: Buildings: Overture Maps Foundation" in text
        assert "synthetic" in text.lower()
        assert len([line for line in text.splitlines() if not line.startswith("# ")]) == rows + 1
        record = json.loads(storage.read_bytes(f"region-analysis/{folder}.lineage.json"))
        assert record["inputs"].keys() == {level}
        assert record["files"] == {
            f"stats.{kind}": sha256_bytes(
                storage.read_bytes(f"region-analysis/{folder}/stats.{kind}")
            )
            for kind in ("parquet", "csv", "geojson", "gpkg")
        }


def test_the_store_and_the_pyramid(finished_world: FinishedWorld, shown: Shown) -> None:
    deployment = finished_world.deployment
    template = shown["region_template", None]
    assert template["grid"] == "sample"
    assert template["regions"] == 11
    assert template["variables"] == list(VARIABLES)
    dataset = deployment.regions.dataset()
    # The region that holds no data, and the pixels beyond the edge in two others, are missing.
    assert 0 < np.isnan(dataset["rps_2011"].values).mean() < 0.25
    pyramid = shown["pyramid", None]
    assert pyramid["levels"] > 2
    assert pyramid["lineage"]["inputs"].keys() == set(deployment.grid.valid)
    folder = json.loads(deployment.storage.read_bytes("pyramid/current.json"))["folder"]
    place = deployment.storage.local_path(folder)
    coarse = xr.open_zarr(place, group="1", chunks=None)
    assert set(coarse.data_vars) == set(VARIABLES)
    np.testing.assert_allclose(
        float(coarse["bp_2047"][10, 10]),
        dataset["bp_2047"][20:22, 20:22].values.mean(),
        rtol=1e-6,
    )
    assert xr.open_zarr(place).attrs["license_name"] == "CC-BY-4.0"


def test_whatever_is_stored_says_how_it_came_to_be(finished_world: FinishedWorld) -> None:
    deployment = finished_world.deployment
    keys = {info.key for info in deployment.storage.list()}
    files = [
        key
        for key in keys
        if key.endswith((".pmtiles", ".parquet"))
        and "fips" not in key
        # These have one record for a folder.
        and not key.startswith("region-analysis/")
    ]
    named = {entry["buildings"]["key"] for entry in deployment.ledger().values()}
    for key in set(files) - named:
        record = json.loads(deployment.storage.read_bytes(f"{key}.lineage.json"))
        assert record["sha256"] == sha256_bytes(deployment.storage.read_bytes(key))
        assert record["environment"] == "qa"
        assert record["code_version"]
        assert record["inputs"]
    assert {key for key in files if key.startswith("regions/")} == named
    manifest = deployment.storage.manifest("buildings")
    assert manifest is not None
    assert manifest.metadata["inputs"] == {
        region_id: entry["buildings"]["sha256"] for region_id, entry in deployment.ledger().items()
    }
    tables = [key for key in keys if key.startswith("buildings/") and key.endswith(".parquet")]
    assert sorted(tables) == sorted(file.key for file in manifest.files)
    pointer = json.loads(deployment.storage.read_bytes("pyramid/current.json"))
    assert pointer["configuration"] == {"grid": "sample"}


def test_a_region_without_buildings_has_a_complete_empty_table(
    finished_world: FinishedWorld, shown: Shown
) -> None:
    deployment = finished_world.deployment
    key = deployment.ledger()[UNBUILT_REGION]["buildings"]["key"]
    table = pq.read_table(deployment.storage.source(key))
    assert table.num_rows == 0
    assert table.schema.equals(building_schema(FIRE))
    assert shown["region_buildings", UNBUILT_REGION]["rows"] == 0


def test_a_second_run_skips_what_is_done(
    finished_copy: World, instance: dg.DagsterInstance
) -> None:
    deployment = finished_copy.deployment()
    before = deployment.regions.snapshot_id
    result = execute(deployment, REGION_ASSETS, instance, regions=("y0_x0", "y2_x2"))
    assert result.success
    found = materializations(result, instance)
    assert len(found) == 22
    assert all(metadata["skipped"] for metadata in found.values())
    assert all("risk in 2011" not in metadata for metadata in found.values())
    assert deployment.regions.snapshot_id == before
    assert set(statuses(instance, finished_copy, "region_risk").values()) == {"MATERIALIZED"}


def test_recomputing_is_asked_for(finished_copy: World, instance: dg.DagsterInstance) -> None:
    deployment = finished_copy.deployment()
    files, entries = stored(deployment.storage), deployment.ledger()
    result = execute(
        deployment, REGION_ASSETS, instance, regions=("y0_x1", "y0_x2"), recompute=True
    )
    assert result.success
    assert not any(metadata["skipped"] for metadata in materializations(result, instance).values())
    assert deployment.ledger() == entries
    assert stored(deployment.storage) == files


def test_making_everything_again_changes_no_byte(
    finished_copy: World, instance: dg.DagsterInstance
) -> None:
    deployment = finished_copy.deployment()
    before = stored(deployment.storage)
    result = execute(deployment, SINGLE, instance)
    assert result.success
    assert stored(deployment.storage) == before


def test_one_region_fails_and_the_others_are_materialized(
    world: World, instance: dg.DagsterInstance
) -> None:
    assert execute(world.deployment(), ["region_template"], instance).success
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    deployment = world.deployment()
    result = execute(
        deployment, [*REGION_ASSETS, "buildings"], instance, regions=("y0_x0", "y0_x2")
    )
    assert not result.success
    for asset in REGION_ASSETS:
        assert statuses(instance, world, asset) == {
            "y0_x0": "MATERIALIZED",
            "y0_x1": "FAILED",
            "y0_x2": "MATERIALIZED",
        }
    assert set(deployment.ledger()) == {"y0_x0", "y0_x2"}
    found = materializations(result, instance)
    assert found.keys() == {
        (asset, region_id) for asset in REGION_ASSETS for region_id in ("y0_x0", "y0_x2")
    }
    assert found["region_risk", "y0_x0"]["pixels"] == 300 * 240
    # What is made from the regions did not run.
    assert not deployment.storage.exists("buildings/_manifest.json")
    (failure,) = result.get_step_failure_events()
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert told.description is not None
    assert told.description.startswith("1 of 3 regions failed; y0_x1: ")
    assert set(told.metadata["failed"].value) == {"y0_x1"}  # type: ignore[arg-type]

    # Mended, the same range completes.
    world.doctor_region(BP_30M, "BP", "y0_x1", 0.01)
    mended = world.deployment()
    again = execute(mended, [*REGION_ASSETS, "buildings"], instance, regions=("y0_x0", "y0_x2"))
    assert again.success
    assert set(statuses(instance, world, "region_buildings").values()) == {"MATERIALIZED"}
    assert {row.state for row in mended.region_status() if row.region_id < "y0_x3"} == {"done"}
    assert mended.storage.exists("buildings/_manifest.json")


def test_a_retry_computes_only_what_failed(world: World, instance: dg.DagsterInstance) -> None:
    """The footprints of one region cannot be read for a while; the file itself is as before."""
    place = world.doctor_table(inputs.BUILDINGS, lambda table: table)
    deployment = world.deployment()
    assert execute(deployment, ["region_template"], instance).success
    assert execute(deployment, REGION_ASSETS, instance, regions=("y0_x0", "y0_x1")).success
    content = place.read_bytes()
    place.write_bytes(content[:-100])
    broken = world.deployment()
    # The lineage is that of the whole file: what is done stays done while it cannot be read.
    broken.__dict__["region_lineage"] = deployment.region_lineage
    result = execute(broken, REGION_ASSETS, instance, regions=("y0_x0", "y0_x2"))
    assert not result.success
    assert statuses(instance, world, "region_risk") == {
        "y0_x0": "MATERIALIZED",
        "y0_x1": "MATERIALIZED",
        "y0_x2": "FAILED",
    }
    place.write_bytes(content)
    again = execute(world.deployment(), REGION_ASSETS, instance, regions=("y0_x0", "y0_x2"))
    found = materializations(again, instance)
    computed = {key for key, metadata in found.items() if not metadata["skipped"]}
    assert computed == {(asset, "y0_x2") for asset in REGION_ASSETS}


def test_the_published_method_is_another_artefact(
    world: World, instance: dg.DagsterInstance
) -> None:
    assert execute(world.deployment(), ["region_template"], instance).success
    found = {}
    for method in ("corrected", "published"):
        deployment = world.deployment(method=method)
        result = execute(deployment, REGION_ASSETS, instance, regions=("y1_x1", "y1_x1"))
        assert result.success
        metadata = materializations(result, instance)["region_risk", "y1_x1"]
        assert not metadata["skipped"], "the other method's result was taken for current"
        assert metadata["lineage"]["configuration"]["method"] == method
        window = deployment.regions.regions["y1_x1"]
        found[method] = deployment.regions.dataset(window)["bp_2011"].values
    assert not np.array_equal(found["corrected"], found["published"])


def test_some_regions_are_enough_to_go_on(world: World, instance: dg.DagsterInstance) -> None:
    deployment = world.deployment()
    assert execute(deployment, ["region_template"], instance).success
    assert execute(deployment, REGION_ASSETS, instance, regions=("y1_x1", "y1_x1")).success
    result = execute(deployment, ["buildings", *STATISTICS], instance)
    assert result.success
    found = materializations(result, instance)
    assert found["buildings", None]["regions"] == 1
    assert found["buildings", None]["regions not done"] == 10
    report = BuildingReport(**deployment.ledger()["y1_x1"]["report"])
    assert found["buildings", None]["rows"] == report.written
    assert found["risk_statistics/nation", None]["rows"] == 1


def test_a_county_that_lost_its_buildings_disappears(
    finished_copy: World, instance: dg.DagsterInstance
) -> None:
    before = {
        info.key.rsplit("/", 1)[0] for info in finished_copy.deployment().storage.list("buildings")
    }
    finished_copy.doctor_table(
        inputs.BUILDINGS,
        lambda table: table.filter(pc.invert(pc.starts_with(table["GEOID"], "56"))),
    )
    deployment = finished_copy.deployment()
    valid = deployment.grid.valid
    assert execute(deployment, REGION_ASSETS, instance, regions=(valid[0], valid[-1])).success
    assert execute(deployment, ["buildings"], instance).success
    after = {info.key.rsplit("/", 1)[0] for info in deployment.storage.list("buildings")}
    assert {folder for folder in before if "state_fips=56" in folder}
    assert after == {folder for folder in before if "state_fips=56" not in folder}
