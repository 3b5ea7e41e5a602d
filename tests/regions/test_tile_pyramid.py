"""Tiles of buildings: nothing is lost at the highest zoom, no tile below it is too large."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray
from tile_archives import LARGEST_TILE, decoded, tile_sizes

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import tile_features, tile_pyramid
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geojson_lines import TileInputError
from ocr_assets.regions.mercator import WORLD, degrees, hilbert_cell, hilbert_index, world_steps
from ocr_assets.regions.pmtiles import (
    ArchiveError,
    TileFile,
    read_header,
    read_metadata,
    tile_lengths,
    write_archive,
)
from ocr_assets.regions.tile_features import (
    FeatureSorter,
    TileFeatures,
    point_features,
    polygon_features,
)
from ocr_assets.regions.tile_pyramid import HIGHEST_ZOOM, TileLayer, write_tiles
from ocr_assets.regions.vector_tiles import building_tiles

Features = dict[int, list[Any]]


def make(folder: Path, *batches: TileFeatures, low: int = 6, high: int = 12) -> Path:
    scratch = folder / "scratch"
    scratch.mkdir()
    sorter = FeatureSorter(scratch)
    for batch in batches:
        sorter.add(batch)
    layer = TileLayer("test", "risk", batches[0].values.shape[1], low, high)
    features = sorter.finish()
    # What is mapped still would keep its disk, although its name is gone.
    assert f"{scratch}/run-" not in Path("/proc/self/maps").read_text()
    write_tiles(features, layer, folder / "out.pmtiles", scratch)
    return folder / "out.pmtiles"


def points(xy: NDArray[np.float64], properties: int = 2, seed: int = 0) -> TileFeatures:
    values = np.random.default_rng(seed).random((len(xy), properties), np.float32)
    return point_features(shapely.points(xy), values)


def towns(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Synthetic places in clusters around 40 N, 105 W."""
    random = np.random.default_rng(seed)
    middle = random.uniform((-106, 39), (-104, 41), (30, 2))
    return middle[random.integers(0, 30, count)] + random.normal(0, 0.03, (count, 2))


def by_number(archive: Path, zoom: int) -> Features:
    found: Features = {}
    for tile in decoded(archive, zoom).values():
        for feature in tile:
            found.setdefault(feature["id"], []).append(feature)
    return found


def test_the_curve_is_the_one_of_the_archive_format_and_nested() -> None:
    # Tiles of zoom 1 in the order of their ids, by the PMTiles specification: 1 to 4.
    assert [hilbert_cell(i, 1) for i in range(4)] == [(0, 0), (0, 1), (1, 1), (1, 0)]
    for zoom in (2, 3, 6):
        cells = [hilbert_cell(i, zoom) for i in range(4**zoom)]
        assert len(set(cells)) == 4**zoom
        assert np.abs(np.diff(cells, axis=0)).sum(axis=1).max() == 1, "each cell beside the next"
        for i, (x, y) in enumerate(cells):
            assert hilbert_index(x, y, zoom) == i
            assert hilbert_index(x >> 1, y >> 1, zoom - 1) == i >> 2


def test_every_point_is_once_at_the_highest_zoom_and_lower_zooms_show_some_of_these(
    tmp_path: Path,
) -> None:
    xy = towns(3000)
    xy[1000:1100] = xy[1000]
    xy[:4] = [(180, 10), (-180, 10), (10, 89.9), (10, -90)]
    features = points(xy)
    archive = make(tmp_path, features, low=0)
    shown: Features = {}
    for zoom in range(13):
        found = by_number(archive, zoom)
        assert all(len(copies) == 1 for copies in found.values())
        assert shown.keys() <= found.keys()
        shown = found
    # Places far apart are seen at the lowest zoom.
    assert len(by_number(archive, 0)) >= 5
    assert sorted(shown) == list(range(1, 3001))
    step = 360 / 4096 / 2**12
    for number, (feature,) in shown.items():
        values = [feature["properties"][key] for key in "01"]
        assert np.array_equal(np.float32(values), features.values[number - 1])
        at = np.array(feature["geometry"]["coordinates"])
        if number > 4:
            # Half a step, but a whole one at the far edges of a tile.
            assert np.abs(at - xy[number - 1]).max() < step
    # The map ends at 85.05 degrees; a point beyond is at its edge.
    edge = [shown[number][0]["geometry"]["coordinates"][1] for number in (3, 4)]
    assert edge == pytest.approx([85.0511, -85.0511], abs=1e-3)


def test_a_value_that_is_missing_is_no_property(tmp_path: Path) -> None:
    values = np.array([[np.nan, 1], [0, np.inf], [-0.0, 3e38]], np.float32)
    archive = make(tmp_path, point_features(shapely.points(towns(3)), values))
    found = {number: feature["properties"] for number, (feature,) in by_number(archive, 12).items()}
    assert found == {1: {"1": 1}, 2: {"0": 0}, 3: {"0": 0, "1": np.float32(3e38)}}
    (layer,) = read_metadata(archive)["vector_layers"]
    assert layer["fields"] == {"0": "Number", "1": "Number"}
    assert (layer["minzoom"], layer["maxzoom"]) == (6, 12)


def test_an_archive_of_many_tiles_has_directories_below_its_root(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    archive = make(tmp_path, points(random.uniform((-120, 30), (-80, 45), (6000, 2))))
    header = read_header(archive)
    assert header.root_offset + header.root_length <= 16_384
    sizes = tile_sizes(archive)
    assert len(sizes) == header.addressed_tiles > 10_000
    assert tile_lengths(archive).tolist() == sizes
    (tiles_offset,) = np.frombuffer(archive.read_bytes()[56:64], "<u8").tolist()
    assert sum(sizes) == archive.stat().st_size - tiles_offset
    assert len(decoded(archive, 6, 12)) == len(sizes)


def test_directories_take_no_memory_by_the_number_of_tiles(tmp_path: Path) -> None:
    (tmp_path / "tiles").write_bytes(b"")
    lengths = np.random.default_rng(0).integers(100, 100_000, 200_000)
    level = TileFile(tmp_path / "tiles", 9, np.arange(len(lengths)), lengths)
    tracemalloc.start()
    write_archive(tmp_path / "out.pmtiles", "test", {}, [level], (-180, -85, 180, 85))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tile_lengths(tmp_path / "out.pmtiles").tolist() == lengths.tolist()
    # A column of them is 1.6 MB.
    assert peak < 40e6


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 8], ids=["empty", "zero", "ones"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_a_damaged_directory_is_told(tmp_path: Path, content: bytes, packed: bool) -> None:
    archive = make(tmp_path, points(towns(100)))
    header, data = read_header(archive), bytearray(archive.read_bytes())
    # Ten bytes are the head of gzip; what is behind them is damaged, or holds no entries.
    for place, size in (
        (header.root_offset, header.root_length),
        (header.metadata_offset, header.metadata_length),
    ):
        inner = gzip.compress(content) if packed else data[place : place + 10] + content
        data[place : place + size] = (inner + b"\xff" * size)[:size]
    archive.write_bytes(data)
    with pytest.raises(ArchiveError, match="its directory cannot be read"):
        tile_lengths(archive)
    with pytest.raises(ArchiveError, match="its metadata cannot be read"):
        read_metadata(archive)


def test_no_tile_is_larger_than_the_limit(tmp_path: Path) -> None:
    """Synthetic points, the emptiest of them closest together, so that the first guess is wrong."""
    random = np.random.default_rng(1)
    wide = random.uniform((-105.4, 39.4), (-104.1, 40.4), (40_000, 2))
    close = random.uniform((-104.99, 39.99), (-104.97, 40), (15_000, 2))
    empty = point_features(shapely.points(close), np.full((len(close), 4), np.nan, np.float32))
    archive = make(tmp_path, points(wide, 4), empty, low=7, high=12)
    sizes = tile_sizes(archive)
    assert len(sizes) == read_header(archive).addressed_tiles
    assert max(sizes) <= LARGEST_TILE
    assert max(sizes) > 0.3 * LARGEST_TILE, "as much as fits is shown"
    assert len(by_number(archive, 12)) == 55_000
    shown = by_number(archive, 7).keys()
    assert 5000 < len(shown) < 50_000
    assert shown <= by_number(archive, 8).keys()


def test_one_feature_of_a_cell_is_shown_and_lies_anywhere_in_it() -> None:
    """The first of each would draw the grid into a town that is thinned."""
    random = np.random.default_rng(7)
    keys = np.sort(random.integers(0, 1 << 62, 20_000))
    numbers = random.permutation(len(keys))
    hidden = tile_pyramid._hidden_bits(keys, numbers)
    hashes = np.array([tile_pyramid._hash(number) for number in numbers.tolist()], np.uint64)
    for bits in (1, 9, 10, 20, 63):
        cell = keys >> (62 - bits) if bits < 62 else keys
        order = np.lexsort((hashes, cell))
        least = order[np.append(True, np.diff(cell[order]) > 0)]
        assert np.flatnonzero(hidden < bits).tolist() == np.sort(least).tolist()
    shown = keys[hidden < 10]
    assert len(shown) == 1024
    # Along the curve through the cell; 1024 uniform shares have a mean within 0.03 of a half.
    assert np.mean((shown & ((1 << 52) - 1)) / (1 << 52)) == pytest.approx(0.5, abs=0.04)


def test_what_cannot_be_told_apart_raises_the_highest_zoom_and_is_kept(tmp_path: Path) -> None:
    same = np.full((15_000, 2), (-105.1, 40.1))
    archive = make(tmp_path, points(same, 8), low=12, high=13)
    assert read_header(archive).max_zoom == HIGHEST_ZOOM
    assert len(by_number(archive, HIGHEST_ZOOM)) == 15_000
    assert len(by_number(archive, 12)) == 1


def test_the_bytes_do_not_depend_on_how_much_fits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xy = towns(2000)
    xy[500:900] = xy[500]
    boxes = shapely.box(*xy.T, *(xy + 2e-4).T)
    batches = [
        polygon_features(boxes[at : at + 250], np.full((250, 1), at, np.float32))
        for at in range(0, 2000, 250)
    ]
    made = []
    for name, run, block in (("at once", 1 << 20, 1 << 18), ("in runs", 600, 100)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tile_features, "RUN_FEATURES", run)
        monkeypatch.setattr(tile_pyramid, "_BLOCK", block)
        made.append(make(tmp_path / name, *batches, low=0).read_bytes())
    assert made[0] == made[1]


def test_polygons_are_whole_in_every_tile_that_they_reach(tmp_path: Path) -> None:
    step = 360 / 4096 / 2**12
    # On the corner of four tiles of zoom 12, and one that has a hole and a second part.
    corner = np.array(degrees(np.array([WORLD * 850 / 4096]), np.array([WORLD * 1550 / 4096])))
    lon, lat = corner.ravel()
    court = shapely.box(lon + 0.02, lat + 0.02, lon + 0.03, lat + 0.03)
    court = court.difference(shapely.box(lon + 0.023, lat + 0.023, lon + 0.027, lat + 0.027))
    two = shapely.union(court, shapely.box(lon + 0.031, lat + 0.02, lon + 0.034, lat + 0.03))
    cross = shapely.box(lon - 0.001, lat - 0.002, lon + 0.003, lat + 0.001)
    archive = make(tmp_path, polygon_features(np.array([cross, two]), np.ones((2, 1), np.float32)))
    tiles = decoded(archive, 12)
    assert Counter(f["id"] for tile in tiles.values() for f in tile) == {1: 4, 2: 1}
    for tile in tiles.values():
        for feature in tile:
            shape = shapely.geometry.shape(feature["geometry"])
            given = (cross, two)[feature["id"] - 1]
            assert shape.is_valid
            assert shapely.hausdorff_distance(shape, given) < 1.5 * step
    assert two.geom_type == "MultiPolygon"


def test_a_polygon_wider_than_half_a_tile_is_cut(tmp_path: Path) -> None:
    """A ring of 30 tiles: tiles in its hole have nothing of it."""
    around = shapely.Point(-105, 40).buffer(0.35)
    ring = around.difference(shapely.Point(-105, 40).buffer(0.25))
    archive = make(tmp_path, polygon_features(np.array([ring]), np.ones((1, 1), np.float32)))
    tiles = decoded(archive, 12)
    assert 30 < len(tiles) < 80
    parts = [shapely.geometry.shape(f["geometry"]) for tile in tiles.values() for f in tile]
    assert max(part.bounds[2] - part.bounds[0] for part in parts) < 0.1
    whole = shapely.union_all(shapely.make_valid(parts))
    assert shapely.area(shapely.symmetric_difference(whole, ring)) < 0.002 * ring.area


def test_small_polygons_are_a_pixel_where_they_are_shown_from_afar(tmp_path: Path) -> None:
    xy = towns(400)
    boxes = shapely.box(*xy.T, *(xy + 1e-4).T)
    archive = make(tmp_path, polygon_features(boxes, np.ones((400, 1), np.float32)), high=14)
    pixel = 360 / 512
    for zoom in (6, 9):
        for feature, *_ in by_number(archive, zoom).values():
            west, south, east, north = shapely.geometry.shape(feature["geometry"]).bounds
            assert east - west == pytest.approx(pixel / 2**zoom, rel=1e-3)
            assert north - south == pytest.approx((east - west) * np.cos(np.radians(40)), rel=0.05)


def test_an_outline_around_the_world_is_refused(tmp_path: Path) -> None:
    boxes = np.array([shapely.box(0, 0, 1e-4, 1e-4), shapely.box(-179.9, 51, 179.9, 51.001)])
    values = {name: np.ones(2, np.float32) for name in FIRE.tiled}
    table = pa.table(values | {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)})
    write_geoparquet(table, tmp_path / "in.parquet", {})
    with pytest.raises(TileInputError, match=r"in\.parquet, rows 0 to 1: .* 359\.8 degrees wide"):
        building_tiles(FIRE, [tmp_path / "in.parquet"], tmp_path / "out.pmtiles")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_positions_are_web_mercator() -> None:
    lon, lat = np.array([-180.0, 0, 179.9999, -105]), np.array([85.05112878, 0, -85.05112878, 40])
    x, y = world_steps(lon, lat).T
    assert np.allclose(x / WORLD, (lon + 180) / 360, atol=1e-9)
    # EPSG:3857 of 40 N: 4,865,942.28 m of a half circumference of 20,037,508.34 m.
    assert np.allclose(y / WORLD, [0, 0.5, 1, 0.5 - 4_865_942.28 / 40_075_016.68], atol=1e-7)
    back = np.column_stack(degrees(x.astype(float), y.astype(float)))
    assert np.abs(back - np.column_stack([lon, lat])).max() < 2e-7
