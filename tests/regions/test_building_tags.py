"""Census codes of all buildings: one row each, whatever the tiles, every row accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from published_inputs import BOUNDS, blocks, outlines, shapefile

from ocr_assets.geoparquet import bbox_array, hilbert_order, wkb_array, write_geoparquet
from ocr_assets.regions import building_tags
from ocr_assets.regions.building_tags import (
    TAGGED_SCHEMA,
    TablePlace,
    TagError,
    TagReport,
    spatial_tiles,
    tag_all_buildings,
)
from ocr_assets.regions.census import write_outlines
from ocr_assets.regions.footprints import read_buildings
from ocr_assets.regions.geographies import geography_schema
from ocr_assets.regions.grid import CONUS_WINDOW
from ocr_assets.regions.overture import RowGroups

WEST, SOUTH, EAST, NORTH = BOUNDS
COUNTIES = pa.table(
    {
        "GEOID": ["08013", "56021"],
        "NAME": ["Boulder", "Laramie"],
        "geometry": pa.nulls(2, pa.binary()),
        "bbox": pa.nulls(2, geography_schema("county").field("bbox").type),
    }
)


def footprints(count: int = 500, seed: int = 3) -> np.ndarray:
    """Small houses, many of them across the borders of blocks."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(WEST - 0.002, EAST + 0.002, count)
    y = rng.uniform(SOUTH, NORTH, count)
    x[: count // 4] = WEST + (EAST - WEST) / 4 - 1e-4
    return shapely.box(x, y, x + 3e-4, y + 2e-4)


def write_buildings(path: Path, shapes: np.ndarray, ids: list[str] | None = None) -> TablePlace:
    names = ids or [f"id-{at:05d}" for at in range(len(shapes))]
    table = pa.table({"id": names, "geometry": wkb_array(shapes), "bbox": bbox_array(shapes)})
    if len(shapes):
        table = table.take(hilbert_order(table, CONUS_WINDOW.bounds, "id"))
    pq.write_table(
        table.replace_schema_metadata(
            {"geo": '{"primary_column":"geometry","columns":{"geometry":{"encoding":"WKB"}}}'}
        ),
        path,
        row_group_size=50,
    )
    return TablePlace(str(path))


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> TablePlace:
    folder = tmp_path_factory.mktemp("census")
    (folder / "blocks.zip").write_bytes(shapefile(outlines(blocks()), "blocks", folder))
    write_outlines([folder / "blocks.zip"], "block", ("08", "56"), folder / "b.parquet", {})
    return TablePlace(str(folder / "b.parquet"))


def tag(
    folder: Path, buildings: TablePlace, census: TablePlace, name: str = "out", **options: int
) -> tuple[pa.Table, TagReport]:
    target = folder / f"{name}.parquet"
    report = tag_all_buildings(
        buildings, census, COUNTIES, folder / f"work-{name}", target, {"made": "up"}, **options
    )
    return pq.read_table(target), report


def test_every_building_is_one_row_with_the_block_of_its_point(
    tmp_path: Path, census: TablePlace
) -> None:
    shapes = footprints()
    table, report = tag(tmp_path, write_buildings(tmp_path / "in.parquet", shapes), census)
    assert report.balanced
    assert (report.read, report.written, report.duplicates) == (500, 500, 0)
    assert sorted(table["id"].to_pylist()) == [f"id-{at:05d}" for at in range(500)]
    assert table.schema.remove_metadata().names == TAGGED_SCHEMA.names
    # Brute force: each block asks each point.
    points = shapely.point_on_surface(shapes)
    expected = {}
    for at, point in enumerate(points):
        holding = [geoid for geoid, shape in blocks().items() if shape.intersects(point)]
        expected[f"id-{at:05d}"] = min(holding, default=None)
    found = dict(zip(table["id"].to_pylist(), table["block_geoid"].to_pylist(), strict=True))
    assert found == expected
    crossing = [sum(s.intersects(shape) for s in blocks().values()) for shape in shapes]
    assert max(crossing) >= 2, "some footprints cross a border"
    assert report.without_code == list(expected.values()).count(None) > 0


def test_the_parts_of_a_code_are_cut_at_the_right_places(
    tmp_path: Path, census: TablePlace
) -> None:
    point = blocks()["560210123032003"].centroid
    shape = np.array([point.buffer(1e-5)])
    table, _ = tag(tmp_path, write_buildings(tmp_path / "in.parquet", shape), census)
    (row,) = table.drop_columns(["geometry", "bbox"]).to_pylist()
    assert row == {
        "id": "id-00000",
        "block_geoid": "560210123032003",
        "block_group_geoid": "560210123032",
        "tract_geoid": "56021012303",
        "county_geoid": "56021",
        "state_fips": "56",
        "county_fips": "021",
        "tract_fips": "012303",
        "block_group_fips": "2",
        "block_fips": "2003",
        "state_abbrev": "WY",
        "county_name": "Laramie",
    }


def test_the_tiles_do_not_matter(tmp_path: Path, census: TablePlace) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints())
    whole, one = tag(tmp_path, buildings, census, "one")
    parts, many = tag(tmp_path, buildings, census, "many", rows_per_tile=20)
    assert len(list((tmp_path / "work-many").iterdir())) > 4
    assert len(list((tmp_path / "work-one").iterdir())) == 1
    assert one == many
    assert whole.sort_by("id").equals(parts.sort_by("id"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, census: TablePlace) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints())
    for name in ("a", "b"):
        tag(tmp_path, buildings, census, name, rows_per_tile=50)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_duplicates_and_unusable_shapes_are_reported(tmp_path: Path, census: TablePlace) -> None:
    shapes = footprints(20)
    shapes[3] = shapely.LineString([(WEST, SOUTH), (EAST, NORTH)])
    west, south, east, north = shapes[4].bounds
    bow_tie = [(west, south), (east, north), (east, south), (west, north), (west, south)]
    shapes[4] = shapely.Polygon(bow_tie)
    shapes[6] = shapes[5]
    ids = [f"id-{at:05d}" for at in range(20)]
    ids[6] = ids[5]
    table, report = tag(tmp_path, write_buildings(tmp_path / "in.parquet", shapes, ids), census)
    assert report.to_dict() == {
        "read": 20,
        "duplicates": 1,
        "invalid_geometry": 1,
        "written": 18,
        "without_code": table["block_geoid"].null_count,
        "repaired": 1,
    }
    assert len(set(table["id"].to_pylist())) == 18


def test_finished_tiles_are_not_done_again(
    tmp_path: Path, census: TablePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints())
    read, count = building_tags.tagged_table, 0

    def counted(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(building_tags, "tagged_table", counted)
    with pytest.raises(KeyboardInterrupt):
        tag(tmp_path, buildings, census, rows_per_tile=50)
    assert not (tmp_path / "out.parquet").exists()
    done = len(list((tmp_path / "work-out").iterdir()))
    assert done == 2
    count = 10
    table, report = tag(tmp_path, buildings, census, rows_per_tile=50)
    tiles = len(list((tmp_path / "work-out").iterdir()))
    assert count - 10 == tiles - done
    assert report.read == table.num_rows == 500


def test_lost_rows_are_an_error(
    tmp_path: Path, census: TablePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints())
    monkeypatch.setattr(
        building_tags, "spatial_tiles", lambda *_: [(WEST - 1, SOUTH, EAST + 1, NORTH - 0.02)]
    )
    with pytest.raises(TagError, match="has 500 buildings, but the account is"):
        tag(tmp_path, buildings, census)
    assert not (tmp_path / "out.parquet").exists()


def test_no_buildings_are_an_empty_table(tmp_path: Path, census: TablePlace) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints(0))
    table, report = tag(tmp_path, buildings, census)
    assert table.num_rows == 0
    assert report == TagReport()


def test_the_graph_reads_the_table(tmp_path: Path, census: TablePlace) -> None:
    buildings = write_buildings(tmp_path / "in.parquet", footprints())
    tag(tmp_path, buildings, census)
    found = read_buildings(tmp_path / "out.parquet", bounds=BOUNDS)
    assert found.building_id[0].as_py().startswith("id-")
    assert {"08", "56"} <= {code[:2] for code in found.geoid.drop_null().to_pylist()}


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(-125, -67), st.floats(25, 49), st.floats(0, 4), st.floats(0, 4)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 500),
)
def test_every_point_is_in_exactly_one_tile(groups: list, most: int) -> None:
    corners = np.array([(x, x + w, y, y + h) for x, y, w, h in groups])
    rows = np.full(len(groups), 100, np.int64)
    tiles = spatial_tiles(RowGroups(rows, corners), most)
    for low_x, high_x, low_y, high_y in corners:
        for x, y in ((low_x, low_y), (high_x, high_y), (low_x, high_y)):
            inside = [w <= x < e and s <= y < n for w, s, e, n in tiles]
            assert sum(inside) == 1


def test_written_tables_are_whole_geoparquet(tmp_path: Path, census: TablePlace) -> None:
    table, _ = tag(tmp_path, write_buildings(tmp_path / "in.parquet", footprints(5)), census)
    write_geoparquet(table.select(TAGGED_SCHEMA.names), tmp_path / "again.parquet", {})
    assert b"geo" in pq.read_schema(tmp_path / "out.parquet").metadata
