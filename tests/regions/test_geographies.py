from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from building_tables import footprints

from ocr_assets.regions import geographies as module
from ocr_assets.regions.geographies import (
    STATES,
    GeographyError,
    GeographyFile,
    Level,
    block_fips,
    block_group_fips,
    county_fips,
    geography_schema,
    read_geographies,
    state_fips,
    tag_buildings,
    tract_fips,
)
from ocr_assets.vector import Features, MissingColumnError, VectorFileError, read_features

# Two counties side by side, each of two tracts, the southern tract of the first of two blocks.
OUTLINES: dict[Level, dict[str, shapely.Polygon]] = {
    "block": {
        "080010001001000": shapely.box(0, 0, 0.5, 0.5),
        "080010001001001A": shapely.box(0.5, 0, 1, 0.5),
    },
    "tract": {
        "08001000100": shapely.box(0, 0, 1, 0.5),
        "08001000200": shapely.box(0, 0.5, 1, 1),
        "08003000100": shapely.box(1, 0, 2, 0.5),
        "08003000200": shapely.box(1, 0.5, 2, 1),
    },
    "county": {"08001": shapely.box(0, 0, 1, 1), "08003": shapely.box(1, 0, 2, 1)},
    "state": {"08": shapely.box(0, 0, 2, 1), "56": shapely.box(0, 1, 2, 2)},
}


def geography(folder: Path, level: Level, **columns: object) -> Path:
    codes = OUTLINES[level]
    data = {"GEOID": [*codes], "NAME": [f"name of {code}" for code in codes], **columns}
    frame = geopandas.GeoDataFrame(data, geometry=[*codes.values()], crs="EPSG:4326")
    frame.to_parquet(folder / f"{level}.parquet")
    return folder / f"{level}.parquet"


@pytest.fixture
def geographies(tmp_path: Path) -> dict[Level, pa.Table]:
    return {level: read_geographies(geography(tmp_path, level), level) for level in OUTLINES}


def test_parts_of_a_code() -> None:
    code = pa.array(["080130121011234A"])
    parts = (state_fips, county_fips, tract_fips, block_group_fips, block_fips)
    assert [part(code)[0].as_py() for part in parts] == ["08", "013", "012101", "1", "1234"]


def test_columns_of_each_level(geographies: dict[Level, pa.Table]) -> None:
    for level, table in geographies.items():
        assert table.schema == geography_schema(level)
    assert geographies["state"]["STUSPS"].to_pylist() == ["CO", "WY"]
    assert geographies["county"]["NAME"].to_pylist() == ["name of 08001", "name of 08003"]
    assert "NAME" not in geographies["tract"].column_names


def test_rows_are_in_order_of_code_and_outlines_repaired(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    frame = geopandas.GeoDataFrame(
        {"GEOID": ["56", "08", "01"]},
        geometry=[shapely.box(0, 1, 2, 2), bow_tie, shapely.Polygon()],
        crs="EPSG:4269",
    )
    frame.to_file(tmp_path / "states.gpkg")
    table = read_geographies(tmp_path / "states.gpkg", "state")
    assert table["GEOID"].to_pylist() == ["01", "08", "56"]
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    assert outlines[0] is None
    assert outlines[1].is_valid
    assert outlines[1].area == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (["08001", "08001"], "lists the county 08001 more than once"),
        (["08001", "8003"], "1 codes that are no county codes of 5 digits.* first '8003'"),
        (["08001", "99003"], "first '99003'"),
        (["08001", None], "1 codes .* first None"),
    ],
)
def test_wrong_codes_are_named(tmp_path: Path, codes: list[str | None], message: str) -> None:
    with pytest.raises(GeographyError, match=message):
        read_geographies(geography(tmp_path, "county", GEOID=codes), "county")


@pytest.mark.parametrize("kind", ["parquet", "gpkg"])
def test_a_file_is_read_a_state_at_a_time(tmp_path: Path, kind: str) -> None:
    path = geography(tmp_path, "state")
    if kind == "gpkg":
        frame = geopandas.read_parquet(path)
        path = tmp_path / "states.gpkg"
        frame.to_file(path)
    file = GeographyFile(path, "state")
    whole = file.whole()
    assert whole.equals(read_geographies(path, "state"))
    parts = [file.of_state(state) for state in ("01", "08", "56")]
    assert [part["GEOID"].to_pylist() for part in parts] == [[], ["08"], ["56"]]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_only_the_outlines_of_the_state_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = GeographyFile(geography(tmp_path, "state"), "state")
    read: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Features:
        features = read_features(*arguments, **options)
        read.append(features.table.num_rows)
        return features

    monkeypatch.setattr(module, "read_features", counted)
    for state in ("08", "30", "56"):
        file.of_state(state)
    assert read == [1, 1]


def test_a_wrong_code_of_any_state_is_named(tmp_path: Path) -> None:
    file = GeographyFile(geography(tmp_path, "county", GEOID=["08001", "99003"]), "county")
    with pytest.raises(GeographyError, match="first '99003'"):
        file.of_state("08")
    gone = GeographyFile(tmp_path / "gone.parquet", "county")
    with pytest.raises(VectorFileError, match=r"cannot read .*gone\.parquet as GeoParquet"):
        gone.of_state("08")


def test_missing_code_column_is_named(tmp_path: Path) -> None:
    path = geography(tmp_path, "county")
    geopandas.read_parquet(path).drop(columns="GEOID").to_parquet(path)
    with pytest.raises(MissingColumnError, match="'GEOID' or 'GEOID20' or 'id'"):
        read_geographies(path, "county")
    with pytest.raises(GeographyError, match="2 nations"):
        read_geographies(path, "nation")


def test_finest_geography_that_holds_a_point_gives_the_code(
    geographies: dict[Level, pa.Table],
) -> None:
    x = np.array([0.2, 0.7, 0.2, 1.2, 1.2, 5.0])
    y = np.array([0.2, 0.2, 0.7, 0.2, 1.5, 5.0])
    found = tag_buildings(footprints(x, y), geographies)
    assert found.geoid.to_pylist() == [
        "080010001001000",
        "080010001001001A",
        "08001000200",
        "08003000100",
        "56",
        None,
    ]
    assert found.state.to_pylist() == ["CO", "CO", "CO", "CO", "WY", None]
    assert found.county.to_pylist() == [*["name of 08001"] * 3, "name of 08003", None, None]


def test_shared_boundary_goes_to_the_smallest_code(geographies: dict[Level, pa.Table]) -> None:
    corner = footprints(np.array([1.0, 1.0, 0.5]), np.array([0.25, 0.5, 0.25]))
    only: dict[Level, pa.Table] = {"tract": geographies["tract"], "county": geographies["county"]}
    assert tag_buildings(corner, only).geoid.to_pylist() == ["08001000100"] * 3
    found = tag_buildings(corner, geographies).geoid.to_pylist()
    assert found == ["080010001001001A", "080010001001001A", "080010001001000"]


def test_inside_point_decides_and_not_the_centroid(geographies: dict[Level, pa.Table]) -> None:
    # A ring-shaped building round the corner of a county: its centroid is in its hole.
    hull = shapely.box(0.9, 0.4, 1.5, 0.6)
    ring = shapely.Polygon(hull.exterior, [shapely.box(0.95, 0.41, 1.49, 0.59).exterior])
    found = footprints(np.array([0.0]), np.array([0.0]))
    found.geometry[0] = ring
    inside = shapely.point_on_surface(ring)
    expected = "08001" if inside.x < 1 else "08003"
    assert tag_buildings(found, {"county": geographies["county"]}).geoid.to_pylist() == [expected]


def test_codes_that_are_there_stay(geographies: dict[Level, pa.Table]) -> None:
    found = footprints(np.array([0.2, 0.2]), np.array([0.2, 0.2]), geoid=["56001", None])
    tagged = tag_buildings(found, geographies)
    assert tagged.geoid.to_pylist() == ["56001", "080010001001000"]
    assert tagged.state.to_pylist() == ["WY", "CO"]


def test_nothing_to_tag(geographies: dict[Level, pa.Table]) -> None:
    assert len(tag_buildings(footprints(np.zeros(0), np.zeros(0)), geographies)) == 0


def test_real_counties_states_and_nation(shared_data: Path) -> None:
    path = shared_data / "regions" / "counties-10m.json"
    counties = read_geographies(path, "county", layer="counties")
    assert counties.num_rows == 3231
    names = dict(zip(counties["GEOID"].to_pylist(), counties["NAME"].to_pylist(), strict=True))
    assert names["08013"] == "Boulder"
    outlines = shapely.from_wkb(counties["geometry"].to_numpy())
    assert shapely.is_valid(outlines[~shapely.is_missing(outlines)]).all()
    states = read_geographies(path, "state", layer="states")
    assert set(states["GEOID"].to_pylist()) <= set(STATES)
    assert (
        dict(zip(states["STUSPS"].to_pylist(), states["NAME"].to_pylist(), strict=True))["WY"]
        == "Wyoming"
    )
    nation = read_geographies(path, "nation", layer="nation")
    assert nation.select(["GEOID", "NAME"]).to_pylist() == [
        {"GEOID": "US", "NAME": "United States"}
    ]
