from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from building_tables import WINDOW, footprints, grid
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_assets.regions.buildings import (
    BuildingReport,
    BuildingSource,
    building_pixels,
    building_schema,
    sample_buildings,
    write_region_buildings,
)
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geographies import read_geographies
from ocr_assets.regions.grid import CONUS, STEP, RegionGrid, UnknownRegionError, Window
from ocr_assets.regions.risk import VARIABLES, risk_score

PIXEL_OF_CONUS = np.arange(WINDOW.shape[0] * WINDOW.shape[1], dtype=np.float32).reshape(
    WINDOW.shape
)
WHOLE = grid(60, 80)


def risk_over(window: Window) -> dict[str, np.ndarray]:
    """Every variable holds the number of its pixel in WINDOW, plus the variable's own number."""
    values = PIXEL_OF_CONUS[window.slices_in(WINDOW)]
    return {name: values + i for i, name in enumerate(VARIABLES)}


def balance(report: BuildingReport) -> int:
    return report.read - (
        report.elsewhere
        + report.duplicates
        + report.invalid_geometry
        + report.no_data
        + report.written
    )


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(7, 60), cols=st.integers(7, 80))
@settings(max_examples=30, deadline=None)
def test_every_building_inside_the_grid_has_one_region(seed: int, rows: int, cols: int) -> None:
    rng = np.random.default_rng(seed)
    west, south, east, north = WINDOW.bounds
    n = 60
    lon = rng.uniform(west - 5 * STEP, east + 5 * STEP, n)
    lat = rng.uniform(south - 5 * STEP, north + 5 * STEP, n)
    # Half of them right at region borders, where a gap or an overlap would show.
    edge = rng.integers(0, 80 // cols + 1, n) * cols
    lon = np.where(rng.random(n) < 0.5, west + edge * STEP + rng.normal(0, STEP / 2, n), lon)
    found = footprints(lon, lat)
    cut: RegionGrid = grid(rows, cols)
    centroid = shapely.centroid(found.geometry)
    region = cut.region_at(shapely.get_x(centroid), shapely.get_y(centroid))
    written = {}
    for number, region_id in enumerate(cut):
        window = cut.region_window(region_id)
        table, report = sample_buildings(
            FIRE, found, risk_over(window), cut, region_id, "corrected"
        )
        assert balance(report) == 0
        assert report.written == table.num_rows == np.count_nonzero(region == number)
        for id_, value in zip(
            table["building_id"].to_pylist(), table["rps_2011"].to_pylist(), strict=True
        ):
            assert id_ not in written
            written[id_] = value
    assert len(written) == np.count_nonzero(region >= 0)
    row, col = building_pixels(found.geometry)
    for id_, value in written.items():
        i = int(id_[1:])
        pixel = PIXEL_OF_CONUS[row[i] - WINDOW.row_start, col[i] - WINDOW.col_start]
        assert value == pixel + VARIABLES.index("rps_2011")


def test_columns_and_values_of_the_table() -> None:
    lon, lat = WINDOW.longitude[[3, 3, 70]], WINDOW.latitude[[5, 6, 50]]
    found = footprints(lon, lat, geoid=["080130121011001", None, "08013"])
    table, report = sample_buildings(FIRE, found, risk_over(WINDOW), WHOLE, "y0_x0", "corrected")
    assert table.schema == building_schema(FIRE)
    assert report == BuildingReport(3, 0, 0, 0, 0, 3, 0, 1)
    rows = {row["building_id"]: row for row in table.to_pylist()}
    assert [rows["b00000"][v] for v in VARIABLES] == [5 * 80 + 3 + i for i in range(8)]
    assert rows["b00002"]["GEOID"] == "08013"
    assert rows["b00001"]["region_id"] == "y0_x0"
    rps = np.array([rows["b00000"]["rps_2047"]], np.float32)
    assert rows["b00000"]["risk_score_2047"] == risk_score(rps, "corrected")[0]
    assert shapely.from_wkb(rows["b00002"]["geometry"]).equals(found.geometry[2])
    assert rows["b00002"]["bbox"]["xmin"] == found.geometry[2].bounds[0]


def test_repeated_building_stays_once_with_the_smallest_code() -> None:
    lon, lat = np.repeat(WINDOW.longitude[[3, 9]], 3), np.repeat(WINDOW.latitude[[5, 9]], 3)
    geoid = ["080130002", "080130001", "080130003", None, None, "080130009"]
    geoid = [None if code is None else code.ljust(15, "0") for code in geoid]
    found = footprints(lon, lat, ids=[*"aaabbb"], geoid=geoid)
    table, report = sample_buildings(FIRE, found, risk_over(WINDOW), WHOLE, "y0_x0", "corrected")
    codes = dict(zip(table["building_id"].to_pylist(), table["GEOID"].to_pylist(), strict=True))
    assert codes == {"a": "080130001000000", "b": "080130009000000"}
    assert (report.duplicates, report.written, balance(report)) == (4, 2, 0)


@pytest.mark.parametrize("variable", VARIABLES)
def test_building_without_data_in_any_variable_is_counted(variable: str) -> None:
    found = footprints(WINDOW.longitude[[3, 9]], WINDOW.latitude[[5, 9]])
    risk = risk_over(WINDOW)
    risk[variable] = risk[variable].copy()
    risk[variable][5, 3] = np.nan
    table, report = sample_buildings(FIRE, found, risk, WHOLE, "y0_x0", "corrected")
    assert table["building_id"].to_pylist() == ["b00001"]
    assert (report.no_data, report.written, balance(report)) == (1, 1, 0)


def test_region_without_buildings_gives_a_complete_empty_file(tmp_path: Path) -> None:
    found = footprints(np.zeros(0), np.zeros(0))
    table, report = sample_buildings(FIRE, found, risk_over(WINDOW), WHOLE, "y0_x0", "corrected")
    assert report == BuildingReport(0, 0, 0, 0, 0, 0, 0, 0)
    write_region_buildings(table, tmp_path / "b.parquet", {})
    frame = geopandas.read_parquet(tmp_path / "b.parquet")
    assert [*frame.columns, "bbox"] == building_schema(FIRE).names
    assert len(frame) == 0


def test_order_and_bytes_do_not_depend_on_the_order_of_the_source(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.choice(WINDOW.longitude, 500), rng.choice(WINDOW.latitude, 500)
    shuffled = rng.permutation(500)
    ids = [f"{i:03}" for i in range(500)]
    for name, order in (("a", np.arange(500)), ("b", shuffled)):
        found = footprints(lon[order], lat[order], ids=[ids[i] for i in order])
        table, _ = sample_buildings(FIRE, found, risk_over(WINDOW), WHOLE, "y0_x0", "corrected")
        write_region_buildings(table, tmp_path / name, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_wrong_arrays_and_regions_are_named() -> None:
    found = footprints(WINDOW.longitude[:1], WINDOW.latitude[:1])
    risk = risk_over(WINDOW)
    with pytest.raises(ValueError, match=r"y0_x0: bp_2047 has shape \(2, 2\), its window \(60, 80"):
        sample_buildings(
            FIRE,
            found,
            {**risk, "bp_2047": np.zeros((2, 2), np.float32)},
            WHOLE,
            "y0_x0",
            "corrected",
        )
    del risk["crps_scott"]
    with pytest.raises(ValueError, match="lack 'crps_scott'"):
        sample_buildings(FIRE, found, risk, WHOLE, "y0_x0", "corrected")
    with pytest.raises(UnknownRegionError):
        sample_buildings(FIRE, found, risk, WHOLE, "y9_x9", "corrected")


def test_boulder_is_in_one_region_and_one_county(shared_data: Path, tmp_path: Path) -> None:
    region_id = "y9_x16"
    window = CONUS.region_window(region_id)
    counties = read_geographies(
        shared_data / "regions" / "counties-10m.json", "county", layer="counties"
    )
    source = BuildingSource(
        shared_data / "regions" / "boulder_buildings.shp", geographies={"county": counties}
    )
    values = np.broadcast_to(np.float32(0.25), window.shape)
    table, report = sample_buildings(
        FIRE,
        source.read(window.bounds),
        dict.fromkeys(VARIABLES, values),
        CONUS,
        region_id,
        "corrected",
    )
    assert (report.read, report.written, report.without_code) == (13_491, 13_491, 0)
    for column, value in (("GEOID", "08013"), ("state", "CO"), ("county", "Boulder")):
        assert table[column].unique().to_pylist() == [value]
    neighbour = source.read(CONUS.region_window("y9_x15").bounds)
    assert len(neighbour) == 0
    for name in ("a", "b"):
        write_region_buildings(table, tmp_path / name, {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
