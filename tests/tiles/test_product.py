"""Published tiles: where their pixels lie, the warp, the file, its catalogue item, its picture."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import rasterio
import rasterio.warp
from PIL import Image
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from ocr_assets.tiles.grid import Tile, TileGrid, tile_geobox
from ocr_assets.tiles.product import (
    PIXELS_PER_DEGREE,
    PixelBox,
    colour_table,
    overview_levels,
    pixel_box,
    tree_cover_item,
    tree_cover_preview,
    warp_to_box,
    write_tree_cover_cog,
)
from ocr_assets.tiles.tree_cover import NODATA

TILE = Tile(1035, 727)
BOX = PixelBox(-584628, -146466, -584010, -145848)


@pytest.fixture(scope="module")
def grid() -> TileGrid:
    return TileGrid.load()


def test_a_tile_is_618_pixels_about_its_centre(grid: TileGrid) -> None:
    box = pixel_box(grid, TILE)
    assert box == BOX
    assert box.shape == (618, 618)
    longitude, latitude = grid.centre(TILE)
    west, south, east, north = box.bounds
    half_a_pixel = 0.5 / PIXELS_PER_DEGREE
    assert (west + east) / 2 == pytest.approx(longitude, abs=half_a_pixel)
    assert (south + north) / 2 == pytest.approx(latitude, abs=half_a_pixel)
    assert box.transform @ (0, 0) == pytest.approx((west, north))
    assert box.transform @ (618, 618) == pytest.approx((east, south))


def test_neighbours_abut_exactly(grid: TileGrid) -> None:
    rng = np.random.default_rng(0)
    widths, beside_each_other = [], 0
    for x, y in zip(rng.integers(0, 7290, 3000), rng.integers(0, 1900, 3000), strict=True):
        tile, right, above = (
            Tile(int(x), int(y)),
            Tile(int(x) + 1, int(y)),
            Tile(int(x), int(y) + 1),
        )
        if tile not in grid:
            continue
        box = pixel_box(grid, tile)
        widths.append(box.east - box.west)
        if right in grid and abs(grid.centre(right)[0] - grid.centre(tile)[0]) < 0.06:
            beside_each_other += 1
            assert pixel_box(grid, right).west == box.east
            assert pixel_box(grid, right).south == box.south
        if above in grid and abs(grid.centre(above)[1] - grid.centre(tile)[1]) < 0.06:
            assert pixel_box(grid, above).south == box.north
    assert beside_each_other > 300
    # Centres are rounded to four decimals, so some are a pixel narrower or wider.
    assert set(widths) == {617, 618, 619}
    assert widths.count(618) > 0.75 * len(widths)


def test_the_warp_puts_every_pixel_where_it_lies(grid: TileGrid) -> None:
    """Against GDAL's own warp, on a tile far from its zone's meridian."""
    tile = Tile(1000, 871)
    geobox, box = tile_geobox(grid, tile), pixel_box(grid, tile)
    rng = np.random.default_rng(0)
    cover = rng.integers(0, 101, geobox.shape).astype(np.uint8)
    cover[200:230, 300:320] = NODATA
    warped = warp_to_box(cover, geobox, box)
    expected = np.empty(box.shape, np.uint8)
    rasterio.warp.reproject(
        cover, expected, src_transform=geobox.transform, src_crs=str(geobox.crs),
        dst_transform=box.transform, dst_crs="EPSG:4326", src_nodata=NODATA, dst_nodata=NODATA,
        tolerance=0,
    )  # fmt: skip
    assert (warped == expected).mean() > 0.9995  # but for ties
    # A single pixel keeps its place on Earth.
    cover[:] = 0
    cover[77, 501] = 88
    x, y = geobox.transform @ (501.5, 77.5)
    (longitude,), (latitude,) = rasterio.warp.transform(str(geobox.crs), "EPSG:4326", [x], [y])
    column, row = ~box.transform @ (longitude, latitude)
    warped = warp_to_box(cover, geobox, box)
    assert warped[int(row), int(column)] == 88
    assert (warped == 88).sum() in (1, 2)


def test_the_projected_grid_fills_the_tile(grid: TileGrid) -> None:
    for tile in (TILE, Tile(999, 988), Tile(6000, 1500), Tile(5050, 100)):
        if tile not in grid:
            continue
        geobox, box = tile_geobox(grid, tile), pixel_box(grid, tile)
        cover = np.full(tuple(geobox.shape), 50, np.uint8)
        assert (warp_to_box(cover, geobox, box) == 50).all()
    far = PixelBox(BOX.west + 700, BOX.south, BOX.east + 700, BOX.north)
    geobox = tile_geobox(grid, TILE)
    cover = np.full(tuple(geobox.shape), 50, np.uint8)
    assert (warp_to_box(cover, geobox, far) == NODATA).mean() > 0.9
    with pytest.raises(ValueError, match="does not fit a grid"):
        warp_to_box(cover[1:], geobox, BOX)


def test_the_file_is_a_cloud_optimized_geotiff(tmp_path: Path) -> None:
    cover = np.random.default_rng(0).integers(0, 101, BOX.shape).astype(np.uint8)
    cover[:100, :50] = NODATA
    cover[200:202, 200:202] = [[10, 20], [30, NODATA]]
    cover[300:302, 300:302] = NODATA
    path = tmp_path / "2023" / "a_FINAL.tif"
    write_tree_cover_cog(path, cover, BOX, {"model": "baseline-greenness", "sha256": "00"})
    assert [file.name for file in path.parent.iterdir()] == ["a_FINAL.tif"]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), cover)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), NODATA)
        assert file.block_shapes == [(256, 256)]
        assert file.crs.to_epsg() == 4326
        assert tuple(file.bounds) == pytest.approx(BOX.bounds, abs=1e-12)
        assert file.overviews(1) == [2, 4]
        table = file.colormap(1)
        assert table[0][:3] == table[10][:3] == (240, 247, 240)
        assert table[20][:3] == (225, 241, 224)
        assert table[25][:3] == (217, 238, 216)
        assert table[90][:3] == table[100][:3] == (18, 116, 52)
        assert json.loads(file.tags()["LINEAGE"]) == {"model": "baseline-greenness", "sha256": "00"}
        assert file.descriptions == ("tree cover, percent",)
    with rasterio.open(path, overview_level=0) as file:
        half = file.read(1)
        # Means of percents that are known, not of colours.
        assert half[100, 100] == 20
        assert half[150, 150] == NODATA
        sums = cover[400:500, 400:500].reshape(50, 2, 50, 2).astype(int).sum(axis=(1, 3))
        assert np.abs(half[200:250, 200:250] - sums / 4).max() <= 0.5


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    cover = np.random.default_rng(0).integers(0, 101, BOX.shape).astype(np.uint8)
    for name in ("a.tif", "b.tif"):
        write_tree_cover_cog(tmp_path / name, cover, BOX, {"b": 1, "a": [2]})
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    write_tree_cover_cog(tmp_path / "b.tif", cover, BOX, {"a": [2], "b": 2})
    assert (tmp_path / "a.tif").read_bytes() != (tmp_path / "b.tif").read_bytes()
    with pytest.raises(ValueError, match="does not fit pixels"):
        write_tree_cover_cog(tmp_path / "c.tif", cover[1:], BOX, {})


@pytest.mark.parametrize(
    ("rows", "columns", "levels"),
    [(256, 256, []), (257, 100, [2]), (618, 618, [2, 4]), (100, 1025, [2, 4, 8])],
)
def test_overviews_go_down_to_one_block(rows: int, columns: int, levels: list[int]) -> None:
    assert overview_levels(rows, columns) == levels


def test_colours_are_pale_to_dark_green() -> None:
    table = colour_table()
    assert len(table) == 256
    assert table[NODATA] == (0, 0, 0, 0)
    brightness = [sum(table[value][:3]) for value in range(101)]
    assert all(np.diff(brightness) <= 0)
    assert {table[value][3] for value in range(101)} == {255}


def item_errors(item: dict[str, Any]) -> list[str]:
    """What the STAC schema of items says against ``item``."""
    schemas = get_local_schema_cache()
    registry: Registry[Any] = Registry().with_resources(
        [(name, Resource.from_contents(schema)) for name, schema in schemas.items()]
    )
    name = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    validator = jsonschema.Draft7Validator(schemas[name], registry=registry)
    return [error.message for error in validator.iter_errors(item)]


def test_the_catalogue_item_is_valid() -> None:
    model = {"name": "baseline-greenness", "sha256": "00", "input_size": 172, "output_size": 158}
    item = tree_cover_item(TILE, 2023, BOX, "1035X727Y_FINAL.tif", model, "abc")
    assert item_errors(json.loads(json.dumps(item))) == []
    assert item["id"] == "1035X727Y_2023"
    assert item["bbox"] == list(BOX.bounds)
    properties = item["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2023-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2023-12-31T23:59:59Z"
    assert properties["proj:code"] == "EPSG:4326"
    assert properties["proj:shape"] == [618, 618]
    assert properties["gri:model_name"] == "baseline-greenness"
    assert properties["gri:model_input_size"] == 172
    assert (properties["gri:x_tile"], properties["gri:y_tile"]) == (1035, 727)
    assert item["assets"]["data"]["href"] == "./1035X727Y_FINAL.tif"
    # The schema can tell.
    assert item_errors({**item, "stac_version": "0.9.0"})
    assert item_errors({name: value for name, value in item.items() if name != "assets"})


def test_the_preview_is_a_small_picture() -> None:
    cover = np.full((618, 618), 90, np.uint8)
    cover[:, :206] = NODATA
    cover[:206, 206:412] = 0
    image = Image.open(BytesIO(tree_cover_preview(cover)))
    assert image.size == (320, 320)
    pixels = np.asarray(image.convert("RGBA"))
    assert pixels[160, 50, 3] == 0
    assert tuple(pixels[160, 250]) == (18, 116, 52, 255)
    assert tuple(pixels[20, 150]) == (240, 247, 240, 255)
    # No data has no part in a mean.
    assert tuple(pixels[250, 107]) == (18, 116, 52, 255)
    assert Image.open(BytesIO(tree_cover_preview(cover[:10, 200:230]))).size == (30, 10)
    with pytest.raises(ValueError, match="rows and columns"):
        tree_cover_preview(np.zeros((0, 5), np.uint8))
