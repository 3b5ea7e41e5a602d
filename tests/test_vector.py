import json
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from ocr_assets.geoparquet import (
    ROW_GROUP_ROWS,
    GeoParquetWriter,
    bbox_array,
    wkb_array,
    write_geoparquet,
)
from ocr_assets.vector import (
    CRSError,
    MissingColumnError,
    VectorFileError,
    read_declared,
    read_features,
    require_columns,
)

SOUTH_WEST = shapely.box(-105.30, 39.96, -105.29, 39.97)
NORTH_EAST = shapely.box(-105.21, 40.01, -105.20, 40.02)
FRAME = geopandas.GeoDataFrame(
    {"name": ["a", "b"]}, geometry=[SOUTH_WEST, NORTH_EAST], crs="EPSG:4326"
)
NEAR_NORTH_EAST = (-105.205, 40.0, -105.0, 40.1)


@pytest.mark.parametrize("suffix", ["parquet", "geojson", "gpkg", "shp"])
def test_every_format_gives_the_same_features(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f.{suffix}"
    FRAME.to_parquet(path) if suffix == "parquet" else FRAME.to_file(path)
    features = read_features(path, ["name", "absent"])
    assert features.table.column_names == ["name"]
    assert features.table["name"].to_pylist() == ["a", "b"]
    assert shapely.equals(features.geometry, FRAME.geometry.to_numpy()).all()
    inside = read_features(path, ["name"], bounds=NEAR_NORTH_EAST)
    assert inside.table["name"].to_pylist() == ["b"]
    assert len(inside.geometry) == 1


def test_layer_and_columns_of_nothing(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "f.gpkg", layer="one")
    FRAME[:1].to_file(tmp_path / "f.gpkg", layer="two")
    assert len(read_features(tmp_path / "f.gpkg", [], layer="two").geometry) == 1
    with pytest.raises(VectorFileError, match=r"cannot read .*f\.gpkg: Layer 'three'"):
        read_features(tmp_path / "f.gpkg", [], layer="three")


def test_folder_of_files_and_a_filesystem(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    FRAME[:1].to_parquet(tmp_path / "in" / "0.parquet")
    FRAME[1:].to_parquet(tmp_path / "in" / "1.parquet")
    assert read_features(tmp_path / "in", ["name"]).table["name"].to_pylist() == ["a", "b"]
    elsewhere = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    assert len(read_features("in", [], filesystem=elsewhere).geometry) == 2


def test_only_row_groups_that_touch_the_bounds_are_read(tmp_path: Path) -> None:
    x = np.linspace(-120, -80, 3 * ROW_GROUP_ROWS)
    geometry = shapely.box(x, 40, x + 1e-4, 40.0001)
    table = pa.table({"geometry": wkb_array(geometry), "bbox": bbox_array(geometry)})
    path = tmp_path / "f.parquet"
    write_geoparquet(table, path, {})
    # Destroy the outlines of the first group: only a reader that opens it can notice.
    column = pq.read_metadata(path).row_group(0).column(0)
    with path.open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(bytes(column.total_compressed_size))
    east = (-85.0, 39.0, -84.0, 41.0)
    found = read_features(path, [], bounds=east)
    assert len(found.geometry) == np.count_nonzero((x + 1e-4 >= east[0]) & (x <= east[2]))
    with pytest.raises(VectorFileError, match=r"cannot read .*f\.parquet"):
        read_features(path, [], bounds=(-120.0, 39.0, -119.0, 41.0))


def test_float32_covering_loses_no_feature(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-105.3, -105.2, 2000)
    geometry = shapely.box(x, 40, x + 1e-6, 40 + 1e-6)
    box = bbox_array(geometry).cast(
        pa.struct([(edge, pa.float32()) for edge in ("xmin", "ymin", "xmax", "ymax")])
    )
    frame = geopandas.GeoDataFrame(geometry=geometry, crs="EPSG:4326")
    frame.to_parquet(tmp_path / "plain.parquet")
    table = pq.read_table(tmp_path / "plain.parquet").append_column("bbox", box)
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=100)
    for west in np.linspace(-105.3, -105.2, 7):
        found = read_features(tmp_path / "f.parquet", [], bounds=(west, 39.0, west + 0.01, 41.0))
        expected = (x + 1e-6 >= west) & (x <= west + 0.01)
        assert len(found.geometry) == expected.sum()


def test_features_without_geometry_are_read_with_any_bounds(tmp_path: Path) -> None:
    geometry = np.array([NORTH_EAST, None, shapely.Polygon(), SOUTH_WEST])
    table = pa.table(
        {
            "name": ["b", "null", "empty", "a"],
            "geometry": wkb_array(geometry),
            "bbox": bbox_array(geometry),
        }
    )
    write_geoparquet(table, tmp_path / "f.parquet", {})
    features = read_features(tmp_path / "f.parquet", ["name"], bounds=NEAR_NORTH_EAST)
    assert features.table["name"].to_pylist() == ["b", "null", "empty"]


def test_declared_system_is_reprojected_with_east_first(tmp_path: Path) -> None:
    FRAME.to_crs("EPSG:5070").to_file(tmp_path / "albers.gpkg")
    found = read_features(tmp_path / "albers.gpkg", ["name"], bounds=NEAR_NORTH_EAST)
    assert found.table["name"].to_pylist() == ["b"]
    assert shapely.equals_exact(found.geometry[0], NORTH_EAST, tolerance=1e-9)
    to_web = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
    assert to_web.transform(*found.geometry[0].centroid.coords[0])[0] < 0


def test_geoparquet_in_another_system_is_refused(tmp_path: Path) -> None:
    FRAME.to_crs("EPSG:5070").to_parquet(tmp_path / "f.parquet")
    with pytest.raises(CRSError, match=r"f\.parquet is in NAD83 / Conus Albers.*EPSG:4326"):
        read_features(tmp_path / "f.parquet", [])
    FRAME.set_crs(None, allow_override=True).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(CRSError, match="unknown"):
        read_features(tmp_path / "f.parquet", [])


def test_geoparquet_without_a_word_is_longitude_latitude(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    del geo["columns"]["geometry"]["crs"]
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "f.parquet")
    assert len(read_features(tmp_path / "f.parquet", []).geometry) == 2


def test_undeclared_system_is_refused(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "f.shp")
    (tmp_path / "f.prj").unlink()
    with pytest.raises(CRSError, match=r"f\.shp does not declare .*\.prj"):
        read_features(tmp_path / "f.shp", [])


def test_metres_said_to_be_degrees_are_refused(tmp_path: Path) -> None:
    wrong = FRAME.to_crs("EPSG:5070").set_crs("EPSG:4326", allow_override=True)
    wrong.to_parquet(tmp_path / "f.parquet")
    with pytest.raises(CRSError, match="feature 0 spans"):
        read_features(tmp_path / "f.parquet", [])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "plain.parquet")
    with pytest.raises(VectorFileError, match=r"plain\.parquet is Parquet but not GeoParquet"):
        read_features(tmp_path / "plain.parquet", [])
    FRAME.to_parquet(tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:500])
    with pytest.raises(VectorFileError, match=r"cannot read .*cut\.parquet as GeoParquet"):
        read_features(tmp_path / "cut.parquet", [])
    (tmp_path / "text.shp").write_text("no shapes here")
    for name in ("text.shp", "none.geojson", "none.parquet"):
        with pytest.raises(VectorFileError, match=rf"cannot read .*{name}"):
            read_features(tmp_path / name, [])
    table = pa.table(
        {"geometry": pa.array([b"\x01\x03"]), "bbox": bbox_array(np.array([SOUTH_WEST]))}
    )
    with GeoParquetWriter(tmp_path / "bad.parquet", table.schema, {}) as writer:
        writer.write(table)
    with pytest.raises(VectorFileError, match=r"bad\.parquet holds a geometry that is not WKB"):
        read_features(tmp_path / "bad.parquet", [])


def test_missing_column_is_named(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "f.parquet")
    features = read_features(tmp_path / "f.parquet", ["name"])
    require_columns(features, "f", ("other", "name"))
    with pytest.raises(MissingColumnError, match=r"f\.parquet has no column 'GEOID' or 'id'"):
        require_columns(features, tmp_path / "f.parquet", ("name",), ("GEOID", "id"))


@pytest.mark.parametrize("suffix", ["parquet", "gpkg", "shp"])
def test_declared_coordinates_are_left_as_they_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f.{suffix}"
    albers = FRAME.to_crs("EPSG:5070")
    albers.to_parquet(path) if suffix == "parquet" else albers.to_file(path)
    features, crs = read_declared(path, ["name"])
    assert crs.name == "NAD83 / Conus Albers"
    assert shapely.equals(features.geometry, albers.geometry.to_numpy()).all()
    assert features.table["name"].to_pylist() == ["a", "b"]


def test_one_malformed_geometry_is_none_beside_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    FRAME.to_parquet(path)
    table = pq.read_table(path)
    whole, cut = table["geometry"].to_pylist()
    at = table.schema.get_field_index("geometry")
    broken = table.set_column(at, "geometry", pa.array([whole, cut[:20]]))
    pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
    features, _ = read_declared(path, [])
    assert [shape is None for shape in features.geometry] == [False, True]
    with pytest.raises(VectorFileError, match="is not WKB"):
        read_features(path, [])
