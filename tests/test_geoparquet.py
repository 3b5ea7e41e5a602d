import errno
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.geoparquet import (
    ROW_GROUP_ROWS,
    GeoParquetError,
    GeoParquetWriter,
    bbox_array,
    geometry_column,
    hilbert_order,
    open_geoparquet,
    row_batches,
    wkb_array,
    write_geoparquet,
)

WORLD = (-180.0, -90.0, 180.0, 90.0)


def table_of(geometry: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "id": [f"{i:08}" for i in range(len(geometry))],
            "value": np.arange(len(geometry), dtype=np.float32),
            "geometry": wkb_array(geometry),
            "bbox": bbox_array(geometry),
        }
    )


def boxes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-120, -80, count), rng.uniform(30, 45, count)
    return shapely.box(x, y, x + 1e-3, y + 1e-3)


def test_geopandas_reads_back_what_was_written(tmp_path: Path) -> None:
    geometry = boxes(50)
    write_geoparquet(table_of(geometry), tmp_path / "a" / "t.parquet", {"inputs": ["x"]})
    frame = geopandas.read_parquet(tmp_path / "a" / "t.parquet")
    assert frame.crs.to_epsg() == 4326
    assert shapely.equals_exact(frame.geometry.to_numpy(), geometry).all()
    assert frame["value"].tolist() == list(range(50))


def test_metadata_says_what_the_file_holds(tmp_path: Path) -> None:
    multi = shapely.multipolygons([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)])
    table = table_of(np.array([shapely.box(-5, -6, -4, -3), multi, None]))
    write_geoparquet(table, tmp_path / "t.parquet", {"b": 1, "a": "é"})
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    geo = json.loads(metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"][geo["primary_column"]]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == [-5, -6, 3, 3]
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert json.loads(metadata[b"lineage"]) == {"a": "é", "b": 1}


def test_types_of_a_sliced_table_are_those_of_the_slice(tmp_path: Path) -> None:
    geometry = np.array([shapely.Point(0, 0), shapely.box(0, 0, 1, 1), shapely.Point(1, 1)])
    write_geoparquet(table_of(geometry).slice(1, 1), tmp_path / "t.parquet", {})
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    assert json.loads(metadata[b"geo"])["columns"]["geometry"]["geometry_types"] == ["Polygon"]


def test_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    table = table_of(boxes(1)).slice(0, 0)
    write_geoparquet(table, tmp_path / "t.parquet", {})
    assert len(geopandas.read_parquet(tmp_path / "t.parquet")) == 0
    assert pq.read_schema(tmp_path / "t.parquet").remove_metadata() == table.schema


def test_same_table_gives_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_geoparquet(table_of(boxes(1000)), tmp_path / name, {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_batches_are_written_in_the_order_given(tmp_path: Path) -> None:
    table = table_of(boxes(300))
    with GeoParquetWriter(tmp_path / "t.parquet", table.schema, {}) as writer:
        for start in (0, 100, 200):
            writer.write(table.slice(start, 100))
    assert writer.rows == 300
    assert pq.read_table(tmp_path / "t.parquet").equals(table)


def test_hilbert_order_lets_a_reader_skip_most_row_groups(tmp_path: Path) -> None:
    table = table_of(boxes(10 * ROW_GROUP_ROWS))
    write_geoparquet(table.take(hilbert_order(table, WORLD, "id")), tmp_path / "t.parquet", {})
    (fragment,) = ds.dataset(tmp_path / "t.parquet").get_fragments()
    assert len(fragment.row_groups) == 10
    read = []
    for x, y in np.random.default_rng(1).uniform((-119, 31), (-81, 44), (50, 2)):
        near = (ds.field("bbox", "xmax") >= x) & (ds.field("bbox", "xmin") <= x + 0.1)
        near &= (ds.field("bbox", "ymax") >= y) & (ds.field("bbox", "ymin") <= y + 0.1)
        read.append(len(fragment.subset(near).row_groups))
    assert min(read) >= 1
    assert np.mean(read) < 2.5


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_order_of_two_rows_does_not_depend_on_the_others(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct places, so that ties occur.
    x, y = rng.integers(-2, 3, count).astype(float), rng.integers(-2, 3, count).astype(float)
    table = table_of(shapely.box(x, y, x + 0.5, y + 0.5))
    chosen = pa.array(np.flatnonzero(rng.random(count) < 0.5))
    whole = table.take(hilbert_order(table, WORLD, "id"))["id"]
    part = table.take(chosen)
    part = part.take(hilbert_order(part, WORLD, "id"))["id"]
    assert whole.filter(pc.is_in(whole, part.combine_chunks())).to_pylist() == part.to_pylist()


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_geoparquet(table_of(boxes(3)), path, {})
    before = path.read_bytes()
    table = table_of(boxes(10))
    wrong = table.set_column(1, "value", pa.array(["text"] * 10))

    def write() -> None:
        with GeoParquetWriter(path, table.schema, {}) as writer:
            writer.write(table)
            writer.write(wrong)

    with pytest.raises(pa.ArrowInvalid):
        write()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    table = table_of(boxes(100_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failure:
            write_geoparquet(table, tmp_path / "t.parquet", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failure.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_table_without_covering_is_refused(tmp_path: Path) -> None:
    schema = table_of(boxes(1)).drop_columns(["bbox"]).schema
    with pytest.raises(GeoParquetError, match=r"t\.parquet lacks the column 'bbox'"):
        GeoParquetWriter(tmp_path / "t.parquet", schema, {})


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_geoparquet(table_of(boxes(1000)), path, {})
    with pytest.raises(GeoParquetError, match="no column 'rps_2011'; it has id, value"):
        open_geoparquet(path, ["id", "rps_2011"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GeoParquetError, match=r"cannot read .*t\.parquet"):
        open_geoparquet(path)
    with pytest.raises(GeoParquetError, match=r"cannot read .*none\.parquet"):
        open_geoparquet(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "not GeoParquet"),
        ({b"geo": b"{"}, "damaged"),
        ({b"geo": b'{"primary_column": "g", "columns": {}}'}, "damaged"),
        (
            {b"geo": b'{"primary_column": "g", "columns": {"g": {"encoding": "polygon"}}}'},
            "'polygon'; write it as WKB",
        ),
    ],
)
def test_metadata_that_is_not_ours_is_refused(
    metadata: dict[bytes, bytes] | None, message: str
) -> None:
    with pytest.raises(GeoParquetError, match=message):
        geometry_column(metadata, "t.parquet")


def test_one_row_group_is_in_memory_at_a_time(tmp_path: Path) -> None:
    path, groups, size = tmp_path / "values.parquet", 20, 1 << 16
    noise = np.random.default_rng(1).integers(0, 1 << 62, groups * size)
    pq.write_table(pa.table({"value": noise, "other": noise}), path, row_group_size=size)

    def most_held(batches: Iterator[pa.RecordBatch]) -> int:
        before, most = pa.total_allocated_bytes(), 0
        at = 0
        for batch in batches:
            assert (batch["value"].to_numpy() == noise[at : at + len(batch)]).all()
            at += len(batch)
            most = max(most, pa.total_allocated_bytes() - before)
        assert at == len(noise)
        return most

    of_a_group = 2 * 8 * size
    with pq.ParquetFile(path) as file:
        assert most_held(row_batches(file, 10_000)) < 4 * of_a_group
    with pq.ParquetFile(path) as file:
        assert most_held(file.iter_batches(10_000)) > 10 * of_a_group, "what it is better than"
    with pq.ParquetFile(path) as file:
        (first, *_) = row_batches(file, 10_000, ["other"])
        assert (first.schema.names, len(first)) == (["other"], 10_000)
