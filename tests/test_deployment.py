"""A deployment: where things are, what is current, and what may be wiped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from sample_worlds import World

from ocr_assets import deployment as deployment_module
from ocr_assets.deployment import Deployment, DeploymentError
from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions import inputs
from ocr_assets.regions.fire_risk import raster_names
from ocr_assets.regions.grid import CONUS
from resources.catalog import CatalogError
from resources.settings import Settings


def write(deployment: Deployment, *region_ids: str) -> None:
    """Compute regions into the deployment's store."""
    deployment.regions.initialize(deployment.template)
    writer = RegionWriter(deployment)
    assert list(writer.write(region_ids)) == list(region_ids)
    assert not writer.failed


def states(deployment: Deployment, *failed: str) -> dict[str, tuple[str, str]]:
    return {
        row.region_id: (row.state, row.reason)
        for row in deployment.region_status(failed)
        if row.state != "missing"
    }


def test_without_a_catalog_the_grid_is_conus_and_reading_says_so(tmp_path: Path) -> None:
    deployment = Deployment(Settings(storage_root=str(tmp_path)))
    assert deployment.grid is CONUS
    with pytest.raises(CatalogError, match="run `ocr sample`"):
        _ = deployment.catalog
    assert deployment.ledger() == {}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "looking wrote something"


def test_with_a_catalog_the_grid_is_its_own(world: World) -> None:
    deployment = world.deployment()
    assert deployment.grid == world.grid
    assert deployment.grid.name == "sample"
    assert deployment.attribution == ("made up by `ocr sample`",)


def test_the_store_has_the_form_of_the_grid(world: World) -> None:
    deployment = world.deployment()
    template = deployment.template
    assert template.shape == deployment.grid.window.shape
    assert tuple(template.regions) == deployment.grid.valid
    assert template.chunks == (300, 240)
    assert "Synthetic" in template.attrs["notice"]
    np.testing.assert_array_equal(template.latitude, deployment.grid.window.latitude)
    deployment.regions.initialize(template)
    dataset = deployment.regions.dataset()
    assert dataset.attrs["license_name"] == "CC-BY-4.0"
    assert dataset["rps_2011"].attrs["units"] == "percent"
    assert dataset["spatial_ref"].attrs["crs_wkt"].startswith("GEOG")


def test_a_region_is_current_until_something_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = world.deployment()
    write(deployment, "y0_x0")
    assert states(deployment) == {"y0_x0": ("done", "")}
    assert states(deployment, "y0_x0", "y0_x1") == {
        "y0_x0": ("done", ""),
        "y0_x1": ("failed", "the last attempt failed"),
    }
    assert deployment.unfinished_regions(["y0_x0", "y0_x1"]) == ["y0_x1"]

    published = world.deployment(method="published")
    assert states(published) == {"y0_x0": ("stale", "changed: configuration")}
    released = world.deployment(version="1.0.0")
    assert states(released) == {"y0_x0": ("stale", "changed: version")}
    assert released.unfinished_regions(["y0_x0"]) == ["y0_x0"]
    assert released.current_ledger() == {}

    more_code = (*deployment_module.REGION_MODULES, "regions/preview.py")
    monkeypatch.setattr(deployment_module, "REGION_MODULES", more_code)
    assert states(world.deployment()) == {"y0_x0": ("stale", "changed: code")}


def test_another_input_makes_regions_stale(world: World) -> None:
    write(world.deployment(), "y0_x0")
    world.doctor_region(inputs.CONDITIONAL_RISK, "CRPS", "y2_x1", 7.0)
    stale = ("stale", f"changed: input {inputs.CONDITIONAL_RISK}")
    assert states(world.deployment()) == {"y0_x0": stale}


def test_geographies_do_not_make_regions_stale(world: World) -> None:
    """Footprints that carry codes are not joined to outlines, so these do not matter."""
    write(world.deployment(), "y0_x0")
    world.doctor_table(inputs.GEOGRAPHIES["tract"], lambda table: table.slice(1))
    assert states(world.deployment()) == {"y0_x0": ("done", "")}


def test_the_ledger_of_a_version_holds_its_own_regions(world: World) -> None:
    write(world.deployment(version="1.0.0"), "y0_x1", "y0_x0")
    write(world.deployment(version="1.1.0"), "y0_x1")
    assert list(world.deployment(version="1.0.0").current_ledger()) == ["y0_x0"]
    assert list(world.deployment(version="1.1.0").current_ledger()) == ["y0_x1"]
    assert list(world.deployment().current_ledger()) == []
    assert set(world.deployment().ledger()) == {"y0_x0", "y0_x1"}


def test_lineage_names_the_deployment(world: World) -> None:
    deployment = world.deployment(environment="staging", version="v1.2.3", method="published")
    record = deployment.region_lineage
    assert record["environment"] == "staging"
    assert record["version"] == "v1.2.3"
    assert record["configuration"] == {"grid": "sample", "method": "published"}
    names = {*raster_names(deployment.catalog.datasets), inputs.BUILDINGS}
    assert record["inputs"].keys() == names
    assert all(fingerprint for fingerprint in record["inputs"].values())
    assert deployment.fingerprints(inputs.WIND, "nothing") == {
        inputs.WIND: record["inputs"][inputs.WIND]
    }
    assert world.deployment(method="corrected").region_lineage != record
    assert json.loads(json.dumps(record)) == record


def test_footprints_without_codes_get_them_from_the_outlines(world: World) -> None:
    given = world.deployment()
    bounds = given.grid.region_window("y1_x1").bounds
    expected = given.footprints.read(bounds)
    place = world.folder / "footprints.geojson"
    features = [
        {
            "type": "Feature",
            "properties": {"id": building_id},
            "geometry": json.loads(shapely.to_geojson(geometry)),
        }
        for building_id, geometry in zip(
            expected.building_id.to_pylist(), expected.geometry, strict=True
        )
    ]
    place.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    world.replace(inputs.BUILDINGS, format="vector", uri=str(place))
    deployment = world.deployment()
    found = deployment.footprints.read(bounds)
    codes = dict(zip(found.building_id.to_pylist(), found.geoid.to_pylist(), strict=True))
    same = [
        codes[building_id] == code
        for building_id, code in zip(
            expected.building_id.to_pylist(), expected.geoid.to_pylist(), strict=True
        )
    ]
    assert len(same) > 100
    assert all(same)
    assert set(inputs.GEOGRAPHIES.values()) < deployment.region_lineage["inputs"].keys()


def test_a_level_may_have_no_outlines(world: World) -> None:
    world.edit_catalog(lambda document: document["datasets"].pop(inputs.GEOGRAPHIES["block"]))
    deployment = world.deployment()
    assert deployment.geographies("block") is None
    counties = deployment.geographies("county")
    assert counties is not None
    assert counties.whole().num_rows > 0


@pytest.mark.parametrize("what", ["describe_wipe", "wipe"])
def test_production_is_never_wiped(world: World, what: str) -> None:
    deployment = world.deployment(environment="production", version="1.0.0")
    write(deployment, "y0_x0")
    with pytest.raises(DeploymentError, match="production is never wiped"):
        getattr(deployment, what)()
    assert set(deployment.ledger()) == {"y0_x0"}
    assert deployment.storage.list()


def test_wiping_forgets_regions_and_this_versions_files_only(world: World) -> None:
    released = world.deployment(version="1.0.0")
    write(released, "y0_x0")
    staging = world.deployment(environment="staging", version="1.0.0")
    write(staging, "y0_x0")
    deployment = world.deployment(version="1.1.0")
    write(deployment, "y0_x1")
    lines = deployment.describe_wipe()
    assert lines[0] == f"2 regions on branch qa of {world.root}/qa/icechunk/region-risk"
    assert lines[1].startswith("1 objects, ")
    assert lines[1].endswith(f"{world.root}/qa/v1.1.0")

    deployment.wipe()
    assert deployment.ledger() == {}
    assert deployment.storage.list() == []
    assert np.isnan(deployment.regions.dataset()["rps_2011"].values).all()
    assert released.storage.list(), "another version's files were deleted"
    assert set(staging.ledger()) == {"y0_x0"}
    assert staging.storage.list()
    assert world.deployment().catalog.datasets, "inputs stay"
    deployment.wipe()
    write(deployment, "y0_x1")
    assert states(deployment) == {"y0_x1": ("done", "")}


def test_wiping_nothing_is_legal(world: World) -> None:
    deployment = world.deployment()
    assert deployment.describe_wipe()[0].startswith("0 regions")
    deployment.wipe()
    assert not world.root.exists()


def test_a_copy_of_everything_elsewhere_works(finished_copy: World, tmp_path: Path) -> None:
    """Nothing that is stored holds the place where it is stored."""
    elsewhere = tmp_path / "elsewhere"
    shutil.move(finished_copy.root, elsewhere)
    moved: Any = finished_copy.deployment(storage_root=str(elsewhere))
    assert all(row.state == "done" for row in moved.region_status())
    entry = moved.ledger()["y1_x1"]
    table = pq.read_table(moved.storage.source(entry["buildings"]["key"]))
    assert table.num_rows == entry["buildings"]["rows"]
