"""The sample world's imagery: what a real catalogue would list, and the same every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from scene_folders import GRID

from ocr_assets.sample.imagery import (
    CLOUDINESS,
    DEFAULT_TILES,
    SampleImageryError,
    build_sample_imagery,
)
from ocr_assets.tiles import elevation, sentinel1, sentinel2
from ocr_assets.tiles.grid import Tile, TileGrid

COLLECTIONS = (elevation.COLLECTION, sentinel1.COLLECTION, sentinel2.COLLECTION)


def items(folder: Path, collection: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{collection}.json").read_text())[
        "features"
    ]
    return found


def band(folder: Path, item: dict[str, Any], asset: str) -> Any:
    with rasterio.open(folder / item["assets"][asset]["href"]) as source:
        return source.read(1)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_items_are_valid_and_their_files_are_cloud_optimized(
    sample_imagery: Path, collection: str
) -> None:
    for item in items(sample_imagery, collection):
        parsed = pystac.Item.from_dict(item)
        assert parsed.collection_id == collection
        assert parsed.datetime is not None
        for asset in item["assets"].values():
            with rasterio.open(sample_imagery / asset["href"]) as source:
                assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert source.tags()["NOTICE"].startswith("Synthetic")


def test_the_tiles_are_neighbours_of_the_grid() -> None:
    west, east = map(Tile.parse, DEFAULT_TILES)
    assert west in TileGrid.load()
    assert east in TileGrid.load()
    assert (east.x - west.x, east.y - west.y) == (1, 0)


def test_optical_dates_reach_the_last_day_and_one_has_two_scenes(sample_imagery: Path) -> None:
    scenes = items(sample_imagery, sentinel2.COLLECTION)
    days = [item["properties"]["datetime"][:10] for item in scenes]
    assert days[0] == "2023-01-04"
    assert days[-1] == "2023-12-31"
    assert len(days) == 7
    assert len(set(days)) == 6
    for item in scenes:
        assert set(item["assets"]) == {names[0] for names in sentinel2.ASSETS.values()}


def test_clouds_are_about_as_many_as_planned(sample_imagery: Path) -> None:
    scenes = {
        item["properties"]["datetime"][:10]: item["properties"]["eo:cloud_cover"] / 100
        for item in items(sample_imagery, sentinel2.COLLECTION)
    }
    for (day, share), planned in zip(scenes.items(), CLOUDINESS, strict=False):
        assert share == pytest.approx(planned, abs=0.12), day
    assert min(scenes.values()) == 0


def test_classes_and_bands_agree(sample_imagery: Path) -> None:
    item = next(
        item
        for item in items(sample_imagery, sentinel2.COLLECTION)
        if 10 < item["properties"]["eo:cloud_cover"] < 60
    )
    with rasterio.open(sample_imagery / item["assets"]["swir16"]["href"]) as source:
        left, top = source.transform.c, source.transform.f
        rows, cols = source.shape
    with rasterio.open(sample_imagery / item["assets"]["scl"]["href"]) as source:
        row, col = source.index(left + 10, top - 10)
        classes = source.read(1)[row : row + rows, col : col + cols]
    blue = band(sample_imagery, item, "blue")[::2, ::2].astype(float)
    offset = 0 if item["properties"]["earthsearch:boa_offset_applied"] else 1000
    blue = (blue - offset) / 10_000
    assert blue[classes == 9].min() > 0.3
    assert np.median(blue[classes == 4]) < 0.06
    nir = (band(sample_imagery, item, "nir")[::2, ::2].astype(float) - offset) / 10_000
    assert np.median(nir[classes == 4]) > 4 * np.median(blue[classes == 4])
    assert {3, 4, 9} <= set(np.unique(classes))


def test_radar_and_terrain_are_plausible(sample_imagery: Path) -> None:
    scenes = items(sample_imagery, sentinel1.COLLECTION)
    assert len(scenes) == 16
    assert {item["properties"]["sat:orbit_state"] for item in scenes} == {
        "ascending",
        "descending",
    }
    vv, vh = (band(sample_imagery, scenes[0], name) for name in ("vv", "vh"))
    assert 0.02 < np.median(vv) < 0.3
    assert np.median(vh) < np.median(vv) / 2
    (cell,) = items(sample_imagery, elevation.COLLECTION)
    height = band(sample_imagery, cell, "data")
    assert 100 < height.min() < height.max() < 1200


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_sample_imagery(tmp_path / name, [GRID], optical_dates=1)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 3 + 1 + 32 + 11
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_tiles_at_the_corner_of_four_cells(tmp_path: Path) -> None:
    # 15 degrees east is the middle of zone 33; 45 degrees north is at 4,982,950 m.
    grid = GeoBox((64, 64), Affine(10, 0, 499_680, 0, -10, 4_983_280), "EPSG:32633")
    build_sample_imagery(tmp_path, [grid], optical_dates=1)
    assert sorted(item["id"][-12:-4] for item in items(tmp_path, elevation.COLLECTION)) == [
        "N44_E014",
        "N44_E015",
        "N45_E014",
        "N45_E015",
    ]


def test_tiles_of_several_zones_are_refused(tmp_path: Path) -> None:
    other = GeoBox(GRID.shape, GRID.affine, "EPSG:32634")
    for tiles in ([], [GRID, other]):
        with pytest.raises(SampleImageryError, match="one UTM zone, at least one"):
            build_sample_imagery(tmp_path, tiles)
