"""The tile grid: ids, look-up, the tiles of a geometry, and the pixel grid of a tile."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st

from ocr_assets.tiles.grid import (
    SURVEY_CELLS,
    Tile,
    TileGrid,
    UnknownTileError,
    tile_geobox,
    utm_zone,
)

GRID = TileGrid.load()

CENTRES = {
    "1035X727Y": (-52.5278, -13.1389),
    "1000X871Y": (-54.4722, -5.1389),
    "999X988Y": (-54.5278, 1.3611),
}

NOT_IDS = [
    "",
    "X",
    "XY",
    "1035x727y",
    "1035X727",
    "1035X727Y.tif",
    "1035X 727Y",
    "1035 X727Y",
    "+1035X727Y",
    "--1X2Y",
    "1.0X2Y",
    "1e3X2Y",
    "0x40BX2Y",
    "1_035X727Y",
    "1035X727Y 1035X728Y",
    "1035X727Y\x00",
    "\N{ARABIC-INDIC DIGIT ONE}X2Y",
    f"{'9' * 5000}X1Y",
    "../1035X727Y",
    "1035X727Y/../../etc/passwd",
    "/1035X727Y",
    "s3://bucket/1035X727Y",
    "1035X727Y'; DROP TABLE tiles; --",
    "1035X727Y OR 1=1",
    "$(reboot)X2Y",
    "1035X727Y\n; rm -rf /",
]


@given(st.integers(-999_999_999, 999_999_999), st.integers(-999_999_999, 999_999_999))
def test_a_key_names_its_tile(x: int, y: int) -> None:
    tile = Tile(x, y)
    assert tile.key == str(tile) == f"{x}X{y}Y"
    assert Tile.parse(tile.key) == tile
    assert Tile.parse(f" \t{tile.key}\n") == tile


@given(st.text(alphabet="0123456789XYxy- +.\n/'\\٣", max_size=12) | st.text(max_size=20))
@example("1X2Y\n")
@example("-0X00Y")
def test_what_parses_is_an_id_and_nothing_else(text: str) -> None:
    right = re.fullmatch(r"\s*-?[0-9]{1,9}X-?[0-9]{1,9}Y\s*", text)
    try:
        tile = Tile.parse(text)
    except UnknownTileError:
        assert not right
    else:
        assert right
        # Its key is safe as a file name, whatever was around it.
        assert re.fullmatch(r"-?\d+X-?\d+Y", tile.key, re.ASCII)


@pytest.mark.parametrize("index", range(len(NOT_IDS)))
def test_no_id(index: int) -> None:
    with pytest.raises(UnknownTileError, match="is not a tile id like 1035X727Y") as caught:
        Tile.parse(NOT_IDS[index])
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_tiles_are_ordered_values() -> None:
    tiles = [Tile(2, 1), Tile(1, 10), Tile(1, 9)]
    assert sorted(tiles) == [Tile(1, 9), Tile(1, 10), Tile(2, 1)]
    assert len({Tile(1, 2), Tile(1, 2)}) == 1
    with pytest.raises(AttributeError):
        Tile(1, 2).x = 3  # type: ignore[misc]


@pytest.mark.parametrize("key", CENTRES)
def test_check_points(key: str) -> None:
    tile = Tile.parse(key)
    assert tile in GRID
    assert GRID.centre(tile) == CENTRES[key]


def test_size_and_ends() -> None:
    assert len(GRID) == 2_943_795
    assert TileGrid.load() is GRID
    x = np.flatnonzero(np.isfinite(GRID.longitude))
    assert (x[0], x[-1], len(x)) == (0, 7294, 4899)
    assert not np.isfinite(GRID.longitude[2604:5000]).any()
    assert (np.nanmin(GRID.longitude), np.nanmax(GRID.longitude)) == (-116.9722, 179.9722)
    # The phases share numbers but not latitudes.
    assert (GRID.latitude[0, 230], GRID.latitude[1, 230]) == (-40.75, -37.0278)


def test_the_published_grid_agrees_in_every_row(shared_data: Path) -> None:
    table = pq.read_table(shared_data / "tiles" / "tiledb.parquet")
    x, y, longitude, latitude = (table[name].to_numpy() for name in ("X_tile", "Y_tile", "X", "Y"))
    assert len(x) == len(GRID)
    found = GRID.centres(x, y)
    np.testing.assert_array_equal(found[0], longitude)
    np.testing.assert_array_equal(found[1], latitude)
    # The shipped file is what the documented way makes of the published one.
    made = TileGrid.from_columns(x, y, longitude, latitude)
    np.testing.assert_array_equal(made.longitude, GRID.longitude)
    np.testing.assert_array_equal(made.latitude, GRID.latitude)
    np.testing.assert_array_equal(made.members, GRID.members)


def test_a_grid_is_saved_the_same_every_time(tmp_path: Path) -> None:
    GRID.save(tmp_path / "a.npz")
    GRID.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (tmp_path / "a.npz").stat().st_size < 200_000


def test_centres_that_form_no_rows_and_columns_are_refused() -> None:
    x, y = np.array([1, 1]), np.array([1, 2])
    with pytest.raises(ValueError, match="rows and columns"):
        TileGrid.from_columns(x, y, np.array([5.0, 5.1]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    "tile",
    [
        Tile(-1, 727),
        Tile(1035, -1),
        Tile(7295, 727),
        Tile(1035, 1921),
        Tile(3000, 727),
        Tile(0, 0),
        Tile(999_999_999, 999_999_999),
    ],
    ids=str,
)
def test_tiles_outside(tile: Tile) -> None:
    assert tile not in GRID
    with pytest.raises(UnknownTileError, match=f"tile {tile} is not in the grid"):
        GRID.centre(tile)


def test_only_tiles_are_members() -> None:
    assert "1035X727Y" not in GRID
    assert (1035, 727) not in GRID


def test_boxes() -> None:
    tile = Tile(1035, 727)
    west, south, east, north = GRID.bbox(tile)
    assert (east - west, north - south) == pytest.approx((1 / 18, 1 / 18))
    assert ((west + east) / 2, (south + north) / 2) == pytest.approx(GRID.centre(tile))
    west, south, east, north = GRID.bbox(tile, SURVEY_CELLS)
    assert (east - west) / 2 == pytest.approx(0.4166667)


def touching(bounds: tuple[float, float, float, float]) -> list[Tile]:
    """Every tile whose box touches bounds, found the long way."""
    member = np.unpackbits(GRID.members, axis=0)[: len(GRID.longitude)].astype(bool)
    x, y = np.nonzero(member)
    longitude, latitude = GRID.centres(x, y)
    west, south, east, north = bounds
    reach = 10 / 360
    near = (
        (longitude + reach >= west)
        & (longitude - reach <= east)
        & (latitude + reach >= south)
        & (latitude - reach <= north)
    )
    return sorted(map(Tile, x[near].tolist(), y[near].tolist()))


@pytest.mark.parametrize(
    "bounds",
    [
        (-52.6, -13.2, -52.4, -13.0),
        (-52.53, -13.14, -52.52, -13.13),
        (14.0, 45.5, 14.3, 46.0),
        (50.5, 30.0, 51.5, 30.5),  # where the phases of the grid meet
        (178.0, -18.5, 180.0, -16.5),
        (142.0, -40.6, 148.5, -37.0),  # rows of both phases
        (100.0, 60.0, 110.0, 70.0),
        (-180.0, -90.0, 180.0, -54.0),
    ],
    ids=str,
)
def test_tiles_of_a_box_are_those_found_the_long_way(
    bounds: tuple[float, float, float, float],
) -> None:
    assert GRID.tiles_in(shapely.box(*bounds)) == touching(bounds)


def test_tiles_of_a_triangle_leave_out_its_corner() -> None:
    west, south, east, north = -55.0, -10.0, -54.0, -9.0
    triangle = shapely.Polygon([(west, south), (east, south), (west, north)])
    found = GRID.tiles_in(triangle)
    around = touching((west, south, east, north))
    boxes = {tile: shapely.box(*GRID.bbox(tile)) for tile in around}
    assert found == [tile for tile in around if shapely.intersects(boxes[tile], triangle)]
    assert 0.4 < len(found) / len(around) < 0.65


def test_many_geometries_at_once_and_a_hole_in_the_sea() -> None:
    sea = shapely.box(-30.0, -10.0, -29.0, -9.0)
    land = shapely.box(-55.0, -10.0, -54.9, -9.9)
    index, x, y = GRID.tiles_of([sea, land, shapely.Point(-52.5278, -13.1389)])
    assert set(index.tolist()) == {1, 2}
    assert list(map(Tile, x[index == 2].tolist(), y[index == 2].tolist())) == [Tile(1035, 727)]
    assert sorted(map(Tile, x[index == 1].tolist(), y[index == 1].tolist())) == GRID.tiles_in(land)
    assert GRID.tiles_in(shapely.Polygon()) == []
    assert [len(column) for column in GRID.tiles_of([])] == [0, 0, 0]


def test_batches_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [shapely.box(x, -10.0, x + 1.5, -9.2) for x in (-60.0, -55.0, 20.0)]
    whole = GRID.tiles_of(shapes)
    monkeypatch.setattr("ocr_assets.tiles.grid._BOXES", 50)
    again = GRID.tiles_of(shapes)
    assert (np.diff(again[0]) >= 0).all()
    assert set(zip(*again, strict=True)) == set(zip(*whole, strict=True))
    assert len(again[0]) == len(whole[0])
    assert GRID.count_candidates(np.array(shapes)) >= len(whole[0])


@pytest.mark.parametrize(
    "key", ["1035X727Y", "999X988Y", "0X1522Y", "7294X594Y", "6930X0Y", "1506X1920Y"]
)
def test_pixels_cover_the_tile_and_nest(key: str) -> None:
    tile = Tile.parse(key)
    box = tile_geobox(GRID, tile)
    longitude, latitude = GRID.centre(tile)
    assert box.crs.epsg == utm_zone(longitude, latitude)
    assert abs(box.resolution.x) == abs(box.resolution.y) == 10
    assert (box.height % 4, box.width % 4) == (0, 0)
    left, bottom, right, top = box.boundingbox
    assert [edge % 40 for edge in (left, bottom, right, top)] == [0, 0, 0, 0]
    coarse = box.zoom_out(4)
    assert coarse.shape == (box.height // 4, box.width // 4)
    assert coarse.boundingbox == box.boundingbox

    # Every point of the tile's outline is inside, and no more than 40 m and the tilt are spare.
    outline = shapely.get_coordinates(shapely.segmentize(shapely.box(*GRID.bbox(tile)), 0.001))
    to_utm = pyproj.Transformer.from_crs(4326, box.crs.epsg, always_xy=True)
    x, y = to_utm.transform(outline[:, 0], outline[:, 1])
    spare = np.array([x.min() - left, y.min() - bottom, right - x.max(), top - y.max()])
    assert (spare >= -0.01).all()
    assert (spare <= 41).all()


@pytest.mark.parametrize(
    ("longitude", "latitude", "epsg"),
    [
        (-52.5, -13.1, 32722),
        (-54.6, 1.4, 32621),
        (-180.0, 10.0, 32601),
        (179.97, -16.0, 32760),
        (180.0, 16.0, 32660),
        (14.5, 46.0, 32633),
        (0.0, 0.0, 32631),
        (-0.01, -0.01, 32730),
    ],
)
def test_utm_zones(longitude: float, latitude: float, epsg: int) -> None:
    assert utm_zone(longitude, latitude) == epsg


def test_the_pixels_of_a_tile_that_is_none() -> None:
    with pytest.raises(UnknownTileError, match="3000X727Y"):
        tile_geobox(GRID, Tile(3000, 727))
