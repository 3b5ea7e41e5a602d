"""One region from opened inputs to results: complete, repeatable, accounted for."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from sample_worlds import World

from ocr_assets.deployment import Deployment
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.grid import UnknownRegionError
from ocr_assets.regions.inputs import BUILDINGS
from ocr_assets.regions.process import RegionResult, process_region, summarise
from ocr_assets.regions.risk import VARIABLES


def process(deployment: Deployment, region_id: str, method: str = "corrected") -> RegionResult:
    return process_region(
        FIRE,
        deployment.rasters,
        deployment.footprints,
        deployment.grid,
        region_id,
        method,  # type: ignore[arg-type]
    )


def test_a_region_has_everything(world: World) -> None:
    result = process(world.deployment(), "y1_x1")
    assert tuple(result.arrays) == VARIABLES
    for name, values in result.arrays.items():
        assert values.dtype == np.float32
        assert values.shape == (300, 240)
        assert not np.isnan(values).any(), name
    assert result.buildings.schema == building_schema(FIRE)
    assert result.report.balanced
    assert result.report.written == result.buildings.num_rows > 100
    assert result.preview.startswith(b"\x89PNG")
    summary = result.summary
    assert summary["pixels"] == 300 * 240
    assert summary["bytes"] == 300 * 240 * 4 * 8
    risk = summary["variables"]["rps_2011"]
    assert risk["maximum"] == pytest.approx(float(result.arrays["rps_2011"].max()))
    assert risk["minimum"] == pytest.approx(float(result.arrays["rps_2011"].min()))


def test_a_second_time_gives_the_same(world: World) -> None:
    one, other = (process(world.deployment(), "y0_x0") for _ in range(2))
    for name in VARIABLES:
        assert one.arrays[name].tobytes() == other.arrays[name].tobytes()
    assert one.buildings.equals(other.buildings)
    assert (one.summary, one.report, one.preview) == (other.summary, other.report, other.preview)


def test_buildings_carry_the_pixel_they_stand_on(world: World) -> None:
    result = process(world.deployment(), "y1_x3")
    table, arrays = result.buildings, result.arrays
    assert set(table["region_id"].to_pylist()) == {"y1_x3"}
    for name in VARIABLES:
        values = table[name].to_numpy()
        assert not np.isnan(values).any()
        assert np.isin(values, arrays[name]).all()
    assert result.report.no_data > 0, "the sample world has buildings beyond the edge of the data"


def test_every_building_of_the_world_is_in_one_region(world: World) -> None:
    deployment = world.deployment()
    ids: list[str] = []
    dropped = 0
    for region_id in deployment.grid.valid:
        result = process(deployment, region_id)
        ids += result.buildings["building_id"].to_pylist()
        dropped += result.report.no_data
    assert len(ids) == len(set(ids))
    table = pq.read_table(deployment.catalog.open_table(BUILDINGS).path, columns=["geometry"])
    centroid = shapely.centroid(shapely.from_wkb(table["geometry"].to_numpy()))
    number = deployment.grid.region_at(shapely.get_x(centroid), shapely.get_y(centroid))
    regions = list(deployment.grid)
    expected = sum(regions[index] in deployment.grid.valid for index in number)
    assert len(ids) + dropped == expected < table.num_rows


def test_methods_differ_where_they_should(world: World) -> None:
    deployment = world.deployment()
    corrected = process(deployment, "y0_x1").arrays
    published = process(deployment, "y0_x1", "published").arrays
    for name in VARIABLES:
        computed = name in ("rps_2011", "rps_2047", "bp_2011", "bp_2047")
        assert (corrected[name].tobytes() != published[name].tobytes()) == computed, name


@pytest.mark.parametrize("region_id", ["y2_x3", "y9_x16", "somewhere"])
def test_a_region_that_holds_no_data_is_refused(world: World, region_id: str) -> None:
    deployment = world.deployment()
    with pytest.raises(UnknownRegionError, match=region_id):
        process(deployment, region_id)


def test_summary_of_arrays_with_missing_values() -> None:
    arrays = {
        "some": np.array([[1, np.nan], [-2, 4]], np.float32),
        "none": np.full((2, 2), np.nan, np.float32),
    }
    assert summarise(arrays) == {
        "pixels": 4,
        "bytes": 32,
        "variables": {
            "some": {"nan_share": 0.25, "minimum": -2.0, "maximum": 4.0},
            "none": {"nan_share": 1.0, "minimum": None, "maximum": None},
        },
    }
