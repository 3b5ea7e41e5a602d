from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from ocr_assets.regions.footprints import content_id, read_buildings
from ocr_assets.vector import MissingColumnError, VectorFileError

SQUARE = shapely.box(-105.25, 40.0, -105.249, 40.001)
BOW_TIE = shapely.Polygon(
    [(-105.25, 40.0), (-105.249, 40.001), (-105.249, 40.0), (-105.25, 40.001)]
)
SPIKE = shapely.Polygon(
    [(-105.25, 40.0), (-105.249, 40.0), (-105.249, 40.001), (-105.249, 40.1), (-105.249, 40.001)]
)
COLLAPSED = shapely.Polygon([(-105.25, 40.0), (-105.249, 40.0), (-105.25, 40.0)])


def source(folder: Path, geometry: list[shapely.Geometry | None], **columns: object) -> Path:
    codes = {"GEOID": "08013", "state": "CO", "county": "Boulder"}
    frame = geopandas.GeoDataFrame(
        {**codes, **columns}, geometry=geometry, index=range(len(geometry)), crs="EPSG:4326"
    )
    frame.to_parquet(folder / "buildings.parquet")
    return folder / "buildings.parquet"


def test_names_of_columns_in_published_sources(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {
            "id": ["overture-1"],
            "block_geoid": ["080130121011001A"],
            "state_abbrev": ["CO"],
            "county_name": ["Boulder"],
        },
        geometry=[SQUARE],
        crs="EPSG:4326",
    )
    frame.to_parquet(tmp_path / "b.parquet")
    found = read_buildings(tmp_path / "b.parquet")
    assert found.building_id.to_pylist() == ["overture-1"]
    assert found.geoid.to_pylist() == ["080130121011001A"]
    assert found.state.to_pylist() == ["CO"]
    assert found.county.to_pylist() == ["Boulder"]


def test_missing_codes_are_an_error_unless_they_are_not_required(tmp_path: Path) -> None:
    path = source(tmp_path, [SQUARE])
    geopandas.read_parquet(path).drop(columns="state").to_parquet(path)
    with pytest.raises(MissingColumnError, match="no column 'state' or 'state_abbrev'"):
        read_buildings(path)
    assert read_buildings(path, require_codes=False).state.to_pylist() == [None]


@pytest.mark.parametrize("code", ["8013", "0801", "CO013", "080130121011001a"])
def test_malformed_codes_are_refused(tmp_path: Path, code: str) -> None:
    path = source(tmp_path, [SQUARE, SQUARE], GEOID=["08013", code])
    with pytest.raises(VectorFileError, match=f"1 values that are no census codes, first '{code}'"):
        read_buildings(path)


def test_empty_code_is_no_code(tmp_path: Path) -> None:
    path = source(tmp_path, [SQUARE, SQUARE], GEOID=["", None])
    assert read_buildings(path).geoid.to_pylist() == [None, None]


def test_geometry_is_repaired_or_left_out_and_counted(tmp_path: Path) -> None:
    geometry = [
        SQUARE,
        BOW_TIE,
        SPIKE,
        COLLAPSED,
        None,
        shapely.Polygon(),
        SQUARE.centroid,
        shapely.force_3d(shapely.MultiPolygon([SQUARE]), 5.0),
    ]
    found = read_buildings(source(tmp_path, geometry, id=[*"abcdefgh"]))
    assert found.building_id.to_pylist() == ["a", "b", "c", "h"]
    assert (found.invalid, found.repaired, len(found)) == (4, 2, 4)
    assert shapely.is_valid(found.geometry).all()
    assert not shapely.has_z(found.geometry).any()
    assert found.geometry[1].area == pytest.approx(5e-7)
    assert found.geometry[2].area == pytest.approx(5e-7)


def test_content_id_depends_on_shape_and_place_only() -> None:
    same = shapely.Polygon(np.roll(shapely.get_coordinates(SQUARE)[:-1], 2, axis=0)[::-1])
    moved = shapely.affinity.translate(SQUARE, 1e-7)
    first, second, third = content_id(np.array([SQUARE, same, moved]))
    assert first == second != third
    assert len(first) == 32
    # Ids are published: another release must give the same ones.
    assert first == "34962c57b43a05fab44cb36d3b9c07d3"


def test_rows_without_id_get_one(tmp_path: Path) -> None:
    found = read_buildings(source(tmp_path, [SQUARE, BOW_TIE], id=["x", None]))
    assert found.building_id.to_pylist() == ["x", *content_id(found.geometry[1:])]
    numbered = read_buildings(source(tmp_path, [SQUARE], id=[7]))
    assert numbered.building_id.to_pylist() == ["7"]


def test_bounds_select_what_touches_them(tmp_path: Path) -> None:
    path = source(tmp_path, [SQUARE, shapely.box(-100, 40, -99.9, 40.1)])
    assert len(read_buildings(path, bounds=(-105.2495, 39.0, -105.0, 41.0))) == 1
    assert len(read_buildings(path, bounds=(-90.0, 39.0, -89.0, 41.0))) == 0


def test_boulder_has_13491_usable_footprints(shared_data: Path) -> None:
    found = read_buildings(shared_data / "regions" / "boulder_buildings.shp", require_codes=False)
    assert (len(found), found.invalid) == (13_491, 0)
    assert len(found.building_id.unique()) == 13_491
