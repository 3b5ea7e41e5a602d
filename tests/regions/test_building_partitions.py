from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from building_tables import building_table, write_region

from ocr_assets.geoparquet import GeoParquetError, hilbert_order
from ocr_assets.regions import building_partitions
from ocr_assets.regions.building_partitions import (
    UNKNOWN,
    open_buildings,
    partition_buildings,
)
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.grid import CONUS_WINDOW

COUNTIES = ("08013", "08014", "56001")


def codes(count: int, seed: int) -> list[str | None]:
    rng = np.random.default_rng(seed)
    return [f"{COUNTIES[i]}0121011{j:03}" for i, j in rng.integers(0, 3, (count, 2))]


def content(files: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


def test_rows_are_filed_under_their_county_in_spatial_order(tmp_path: Path) -> None:
    tables = [building_table(codes(400, seed), seed) for seed in range(3)]
    regions = {
        f"y0_x{i}": write_region(table, tmp_path / f"{i}.parquet") for i, table in enumerate(tables)
    }
    files, report = partition_buildings(FIRE, regions, tmp_path / "out", {"made": "so"})
    assert list(files) == [
        f"state_fips={c[:2]}/county_fips={c[2:]}/part-0.parquet" for c in COUNTIES
    ]
    assert (report.rows_in, report.rows_out, report.without_county, report.counties) == (
        1200,
        1200,
        0,
        3,
    )
    everything = pa.concat_tables(tables)
    for name, county in zip(files, COUNTIES, strict=True):
        expected = everything.filter(pc.starts_with(everything["GEOID"], county))
        expected = expected.take(hilbert_order(expected, CONUS_WINDOW.bounds, "building_id"))
        assert pq.ParquetFile(files[name]).read().equals(expected)
        assert pq.read_schema(files[name]).metadata[b"lineage"] == b'{"made":"so"}'
    # Nothing else is left where the files are.
    assert {p for p in (tmp_path / "out").rglob("*") if p.is_file()} == set(files.values())


def test_files_do_not_depend_on_how_the_grid_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = building_table(codes(500, 1))
    one = {"y0_x0": write_region(table, tmp_path / "one.parquet")}
    many = {
        f"y0_x{i}": write_region(table.slice(start, 130), tmp_path / f"{i}.parquet")
        for i, start in enumerate((390, 0, 260, 130))
    }
    first, _ = partition_buildings(FIRE, one, tmp_path / "first", {})
    monkeypatch.setattr(building_partitions, "_BATCH_ROWS", 37)
    second, _ = partition_buildings(FIRE, many, tmp_path / "second", {})
    assert content(first) == content(second)


def test_large_county_has_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = {"y0_x0": write_region(building_table(["08013"] * 250), tmp_path / "0.parquet")}
    whole, _ = partition_buildings(FIRE, regions, tmp_path / "whole", {})
    monkeypatch.setattr(building_partitions, "PART_ROWS", 100)
    files, report = partition_buildings(FIRE, regions, tmp_path / "parts", {})
    assert [name.rpartition("/")[2] for name in files] == [f"part-{i}.parquet" for i in range(3)]
    assert report.rows_out == 250
    parts = pa.concat_tables(pq.ParquetFile(path).read() for path in files.values())
    assert parts.equals(pq.ParquetFile(*whole.values()).read())


def test_rows_without_county_are_kept_where_readers_see_null(tmp_path: Path) -> None:
    table = building_table([None, "08", "08013", "080130121011001"])
    regions = {"y0_x0": write_region(table, tmp_path / "0.parquet")}
    files, report = partition_buildings(FIRE, regions, tmp_path / "out", {})
    assert (report.rows_out, report.without_county, report.counties) == (4, 2, 1)
    assert next(iter(files)) == f"state_fips={UNKNOWN}/county_fips={UNKNOWN}/part-0.parquet"
    dataset = open_buildings(FIRE, [str(path) for path in files.values()], str(tmp_path / "out"))
    keys = dataset.to_table(columns=["GEOID", "state_fips", "county_fips"]).to_pylist()
    assert {tuple(row.values()) for row in keys} == {
        (None, None, None),
        ("08", "08", None),
        ("08013", "08", "013"),
        ("080130121011001", "08", "013"),
    }


def test_no_regions_and_empty_regions_give_no_files(tmp_path: Path) -> None:
    assert partition_buildings(FIRE, {}, tmp_path / "a", {})[0] == {}
    empty = {"y0_x0": write_region(building_schema(FIRE).empty_table(), tmp_path / "0.parquet")}
    files, report = partition_buildings(FIRE, empty, tmp_path / "b", {})
    assert files == {}
    assert report.rows_in == report.rows_out == 0
    dataset = open_buildings(FIRE, [], str(tmp_path / "b"))
    assert dataset.count_rows() == 0


def test_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stale.parquet").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        partition_buildings(FIRE, {}, tmp_path, {})


def test_damaged_region_file_is_named_and_leaves_no_spill(tmp_path: Path) -> None:
    good = write_region(building_table(codes(100, 0)), tmp_path / "good.parquet")
    bad = write_region(building_table(codes(100, 1)), tmp_path / "bad.parquet")
    column = pq.read_metadata(bad).row_group(0).column(3)
    with bad.open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(bytes(column.total_compressed_size))
    with pytest.raises(GeoParquetError, match=r"bad\.parquet of region y0_x1"):
        partition_buildings(FIRE, {"y0_x0": good, "y0_x1": bad}, tmp_path / "out", {})
    assert list((tmp_path / "out").iterdir()) == []
    bad.write_bytes(bad.read_bytes()[:1000])
    with pytest.raises(GeoParquetError, match=r"bad\.parquet"):
        partition_buildings(FIRE, {"y0_x1": bad}, tmp_path / "out", {})
    lacking = write_region(
        building_table(["08013"]).drop_columns(["rps_2047"]), tmp_path / "lacking.parquet"
    )
    with pytest.raises(GeoParquetError, match=r"lacking\.parquet has no column 'rps_2047'"):
        partition_buildings(FIRE, {"y0_x2": lacking}, tmp_path / "out", {})
