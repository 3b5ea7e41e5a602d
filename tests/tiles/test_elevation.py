"""Terrain: slope on true pixels, the published slope, and cells of the model on a tile's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scene_folders import GRID, SceneFolder, place_of

from ocr_assets.tiles import elevation
from ocr_assets.tiles.elevation import (
    find_cells,
    make_elevation,
    published_slope,
    slope_degrees,
)
from ocr_assets.tiles.scenes import NoScenesError

ARC_SECOND = 1 / 3600


def cell(west: float, south: float, cols: int = 240, rows: int = 240) -> GeoBox:
    """A part of a cell of the model, its corner at whole arc seconds."""
    north = south + rows * ARC_SECOND
    return GeoBox((rows, cols), Affine(ARC_SECOND, 0, west, 0, -ARC_SECOND, north), "EPSG:4326")


def plane(grid: GeoBox, per_degree: tuple[float, float]) -> NDArray[np.float32]:
    """Height that grows evenly with longitude and latitude."""
    rows, cols = grid.shape
    lon = grid.affine.c + ARC_SECOND * (np.arange(cols) + 0.5)
    lat = grid.affine.f - ARC_SECOND * (np.arange(rows) + 0.5)
    height = per_degree[0] * (lon - 14.5)[None] + per_degree[1] * (lat - 45.8)[:, None] + 300
    return height.astype(np.float32)


def folder(path: Path, *cells: tuple[GeoBox, NDArray[np.float32]]) -> SceneFolder:
    made = SceneFolder(path, elevation.COLLECTION)
    for number, (grid, height) in enumerate(cells):
        from scene_folders import in_degrees

        made.add(
            f"cell{number}",
            "2021-04-22T00:00:00Z",
            {"data": (height, grid)},
            dtype="float32",
            nodata=None,
            footprint=in_degrees(grid),
        )
    return made


def test_slope_of_a_plane_is_that_of_the_plane() -> None:
    y, x = np.mgrid[:12, :9].astype(np.float32)
    height = 3 * x - 4 * y
    expected = np.degrees(np.arctan(np.hypot(3 / 20, 4 / 10)))
    np.testing.assert_allclose(slope_degrees(height, (10, 20)), expected, rtol=1e-6)
    assert slope_degrees(height, (10, 20)).shape == (10, 7)
    assert (slope_degrees(np.zeros((4, 5), np.float32), (10, 10)) == 0).all()


def test_published_slope_takes_zoomed_pixels_for_ten_metres() -> None:
    # Three times enlarged, corner on corner, 200 pixels step by 199/599 of a pixel.
    x = np.broadcast_to(np.arange(200, dtype=np.float32), (200, 200))
    found = published_slope(6 * x)
    assert found.shape == (598, 598)
    expected = np.degrees(np.arctan(6 * 199 / 599 / 10))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_published_slope_raises_the_least_slopes() -> None:
    x = np.linspace(0, 0.1, 200, dtype=np.float32)
    found = published_slope(np.broadcast_to(x, (200, 200)).copy())
    assert np.unique(found).tolist() == [np.float32(0.02)]
    assert (published_slope(np.full((8, 8), 5, np.float32)) == 0).all()


def test_slope_uses_true_distances_at_any_latitude(tmp_path: Path) -> None:
    place = place_of()
    grid = cell(14.5, 45.83)
    # 20 m of height for each 100 m to the east: 11.31 degrees.
    per_degree = 0.2 * 111_412 * np.cos(np.radians(45.87))
    imagery = folder(tmp_path, (grid, plane(grid, (per_degree, 0)))).imagery()
    found = make_elevation(imagery, place, find_cells(imagery, place))
    assert found.slope.shape == GRID.shape
    np.testing.assert_allclose(found.slope.mean(), np.degrees(np.arctan(0.2)), atol=0.05)
    # Taken for 10 m, the narrow pixels of the model look less steep than they are.
    published = make_elevation(imagery, place, find_cells(imagery, place), published=True)
    assert published.slope.shape == GRID.shape
    assert published.slope.mean() < 0.75 * found.slope.mean()
    np.testing.assert_array_equal(published.height, found.height)


def test_cells_meet_without_a_seam(tmp_path: Path) -> None:
    # The edge of two cells runs through the tile.
    seam = round(place_of().longitude * 3600) * ARC_SECOND
    left, right = cell(seam - 240 * ARC_SECOND, 45.83), cell(seam, 45.83)
    parts = [(grid, plane(grid, (9000, 4000))) for grid in (left, right)]
    imagery = folder(tmp_path / "two", *parts).imagery()
    cells = find_cells(imagery, place_of())
    assert [one.id for one in cells] == ["cell0", "cell1"]
    both = cell(seam - 240 * ARC_SECOND, 45.83, cols=480)
    whole = folder(tmp_path / "one", (both, plane(both, (9000, 4000)))).imagery()
    found = make_elevation(imagery, place_of(), cells)
    expected = make_elevation(whole, place_of(), find_cells(whole, place_of()))
    np.testing.assert_allclose(found.height, expected.height, atol=2.0)
    assert not np.isnan(found.height).any()
    away = np.abs(found.height - expected.height) < 0.05
    assert away.mean() > 0.9


def test_the_sea_is_level(tmp_path: Path) -> None:
    seam = round(place_of().longitude * 3600) * ARC_SECOND
    land = cell(seam, 45.83)
    imagery = folder(tmp_path, (land, np.full(land.shape, 50, np.float32))).imagery()
    found = make_elevation(imagery, place_of(), find_cells(imagery, place_of()))
    assert set(np.unique(found.height)) == {0.0, 50.0}
    assert (found.height[:, 0] == 0).all()
    assert (found.slope[:, :10] == 0).all()


def test_a_tile_without_a_cell_is_an_error(tmp_path: Path) -> None:
    away = cell(20.0, 45.0)
    imagery = folder(tmp_path, (away, plane(away, (0, 0)))).imagery()
    with pytest.raises(NoScenesError, match=r"has no elevation of tile 1X2Y: .* choose another"):
        find_cells(imagery, place_of())


def test_a_cell_without_data_is_an_error(tmp_path: Path) -> None:
    grid = cell(14.5, 45.83)
    imagery = folder(tmp_path, (grid, np.full(grid.shape, np.nan, np.float32))).imagery()
    with pytest.raises(NoScenesError, match="elevation of tile 1X2Y is empty"):
        make_elevation(imagery, place_of(), find_cells(imagery, place_of()))
