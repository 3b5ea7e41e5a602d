"""Features of Overture in a box: only their row groups are fetched, and every row is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import shapely
from published_inputs import overture_table

from ocr_assets.geoparquet import GeoParquetError
from ocr_assets.regions.overture import COLUMNS, FeatureType, RowGroups, extract_features
from ocr_assets.vector import Bounds

LOCAL = pyarrow.fs.LocalFileSystem()


@pytest.fixture
def buildings() -> pa.Table:
    return overture_table("building")


def extract(
    table: pa.Table, folder: Path, box: Bounds, kind: FeatureType = "building"
) -> tuple[pa.Table, dict[str, int]]:
    source, target = folder / "in.parquet", folder / "out.parquet"
    pq.write_table(table, source, row_group_size=40)
    report = extract_features(str(source), LOCAL, target, box, {"made": "up"}, COLUMNS[kind])
    return pq.read_table(target), report.to_dict()


def edges(table: pa.Table) -> np.ndarray:
    box = table["bbox"].combine_chunks()
    return np.array([box.field(name).to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")]).T


def middle_third(table: pa.Table) -> Bounds:
    found = edges(table)
    west, east = np.quantile(found[:, 0], [0.4, 0.7])
    return float(west), -90.0, float(east), 90.0


def test_what_begins_in_the_box_is_kept_with_its_id(tmp_path: Path, buildings: pa.Table) -> None:
    box = middle_third(buildings)
    found, report = extract(buildings, tmp_path, box)
    begins = edges(buildings)[:, 0]
    wanted = buildings.filter(pa.array((begins >= box[0]) & (begins <= box[2])))
    assert sorted(found["id"].to_pylist()) == sorted(wanted["id"].to_pylist())
    assert found.schema.names == ["id", "geometry", "bbox"]
    assert report["row_groups"] == 10
    assert report["skipped"] >= 5
    assert report["read"] == 40 * (10 - report["skipped"])
    assert report["read"] == report["outside"] + report["written"]
    assert report["written"] == wanted.num_rows == found.num_rows


def test_boxes_are_exact_and_shapes_unchanged(tmp_path: Path, buildings: pa.Table) -> None:
    found, _ = extract(buildings, tmp_path, (-180, -90, 180, 90))
    shapes = shapely.from_wkb(found["geometry"].to_numpy())
    np.testing.assert_array_equal(edges(found), shapely.bounds(shapes))
    before = dict(zip(buildings["id"].to_pylist(), buildings["geometry"].to_pylist(), strict=True))
    after = dict(zip(found["id"].to_pylist(), shapes, strict=True))
    for id_, shape in after.items():
        assert shape.equals(shapely.from_wkb(before[id_]))


def test_only_the_row_groups_of_the_box_are_read(tmp_path: Path, buildings: pa.Table) -> None:
    """Damage outside the box is never seen."""
    box = middle_third(buildings)
    source = tmp_path / "in.parquet"
    pq.write_table(buildings, source, row_group_size=40)
    expected = extract_features(str(source), LOCAL, tmp_path / "a", box, {}, ("id",))
    data = bytearray(source.read_bytes())
    group = pq.ParquetFile(source).metadata.row_group(0)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    data[start : start + 200] = bytes(200)
    source.write_bytes(data)
    assert extract_features(str(source), LOCAL, tmp_path / "b", box, {}, ("id",)) == expected
    with pytest.raises(OSError, match=r"\w"):
        extract_features(str(source), LOCAL, tmp_path / "c", (-180, -90, 180, 90), {}, ("id",))
    assert not (tmp_path / "c").exists()


def test_rows_without_a_geometry_are_counted(tmp_path: Path, buildings: pa.Table) -> None:
    wkb = buildings["geometry"].to_pylist()
    wkb[300], wkb[301] = None, shapely.to_wkb(shapely.Polygon())
    place = buildings.schema.get_field_index("geometry")
    table = buildings.set_column(place, "geometry", pa.array(wkb, pa.binary()))
    found, report = extract(table, tmp_path, (-180, -90, 180, 90))
    assert report["without_geometry"] == 2
    assert found.num_rows == report["written"] == 398


def test_addresses_keep_all_columns(tmp_path: Path) -> None:
    table = overture_table("address")
    found, report = extract(table, tmp_path, middle_third(table), "address")
    assert found.schema.names == ["id", "version", "sources", "street", "geometry", "bbox"]
    wanted = table.filter(pc.is_in(table["id"], found["id"])).sort_by("id")
    for name in ("street", "version", "sources"):
        assert found.sort_by("id")[name].to_pylist() == wanted[name].to_pylist()
    assert report["written"] == found.num_rows > 100


def test_nothing_in_the_box_is_an_empty_table(tmp_path: Path, buildings: pa.Table) -> None:
    found, report = extract(buildings, tmp_path, (10, 10, 11, 11))
    assert found.num_rows == 0
    assert (report["skipped"], report["read"]) == (10, 0)


def test_a_file_that_is_no_release_is_told(tmp_path: Path, buildings: pa.Table) -> None:
    with pytest.raises(GeoParquetError, match="no column 'id'"):
        extract(buildings.drop_columns(["id"]), tmp_path, (-180, -90, 180, 90))


def test_row_groups_that_say_nothing_could_be_anywhere(tmp_path: Path, buildings: pa.Table) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(buildings, path, row_group_size=100, write_statistics=False)
    with pq.ParquetFile(path) as file:
        groups = RowGroups.of(file)
    assert groups.beginning_in((10, 10, 11, 11)) == [0, 1, 2, 3]
    assert groups.rows.tolist() == [100] * 4
