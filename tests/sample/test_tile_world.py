"""The sample world of tiles: a request, polygons, and settings that lead to its imagery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely

from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.sample.tile_world import POLYGONS, REQUEST, SETTINGS, YEAR, build_sample_tiles
from ocr_assets.tile_library import SOURCES, TileLibrary
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.requests import read_request
from resources.settings import load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample world with two optical days, its folder named with a blank."""
    return build_sample_tiles(tmp_path_factory.mktemp("my world") / "imagery", optical_dates=2)


def test_the_request_asks_for_the_tiles_that_there_are(folder: Path) -> None:
    found = read_request(folder / REQUEST, TileGrid.load())
    assert [(year, tile.key) for year, tile in found] == [(YEAR, tile) for tile in DEFAULT_TILES]
    assert not found.problems


def test_the_settings_lead_to_the_imagery(folder: Path) -> None:
    settings = load_settings(folder / SETTINGS)
    library = TileLibrary(settings)
    area = library.place(Tile.parse(DEFAULT_TILES[0])).area
    for source in SOURCES:
        assert library.imagery(source).place.startswith(str(folder))
        assert library.imagery(source).search(area, None, None)
    assert {settings.elevation_access, settings.sentinel1_access, settings.sentinel2_access} == {
        "anonymous"
    }


def test_polygons_lie_within_across_and_beyond_the_tiles(folder: Path) -> None:
    document = json.loads((folder / POLYGONS).read_text())
    assert document["notice"].startswith("Synthetic")
    shapes = {
        feature["properties"]["poly_id"]: shapely.geometry.shape(feature["geometry"])
        for feature in document["features"]
    }
    assert all(shape.is_valid for shape in shapes.values())
    touched = {
        name: {tile.key for tile in map(Tile, *found)}
        for name, shape in shapes.items()
        if (found := TileGrid.load().tiles_of([shape])[1:])
    }
    west, east = DEFAULT_TILES
    assert touched == {"within": {west}, "across": {west, east}, "beyond": {east, "1949X1775Y"}}


def test_it_is_built_once_and_replaced_whole(folder: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    build_sample_tiles(folder, optical_dates=2)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    (folder / "recipe.json").write_text("{}")
    (folder / "stale").write_text("")
    build_sample_tiles(folder, optical_dates=1)
    assert not (folder / "stale").exists()
    assert len(json.loads((folder / "sentinel-2-l2a.json").read_text())["features"]) == 1
    assert not list(folder.parent.glob(".building-*"))
