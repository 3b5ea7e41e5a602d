"""The region grid: constants, pixel arithmetic, and which region a point is in."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.regions.grid import (
    CONUS,
    CONUS_COLS,
    CONUS_ROWS,
    CONUS_WINDOW,
    SOUTH,
    STEP,
    WEST,
    RegionGrid,
    UnknownRegionError,
    Window,
    col_longitude,
    pixel_of,
    row_latitude,
)

SMALL = RegionGrid(
    "small", Window(100, 107, 50, 61), 3, 4, ("y0_x0", "y0_x2", "y1_x0", "y2_x1", "y2_x2")
)
"""Its last row of regions has 1 pixel row, its last column 3 pixel columns."""


@st.composite
def grids(draw: st.DrawFn) -> RegionGrid:
    """Small grids anywhere in CONUS, cut into regions of any size, all of them valid."""
    row = draw(st.integers(0, CONUS_ROWS - 40))
    col = draw(st.integers(0, CONUS_COLS - 40))
    window = Window(row, row + draw(st.integers(1, 40)), col, col + draw(st.integers(1, 40)))
    grid = RegionGrid("drawn", window, draw(st.integers(1, 45)), draw(st.integers(1, 45)), ())
    return replace(grid, valid=tuple(grid))


def test_conus_has_405_valid_regions_of_799() -> None:
    assert CONUS.window.shape == (97_579, 208_881)
    assert CONUS.shape == (17, 47)
    assert len(list(CONUS)) == 799
    assert len(CONUS.valid) == len(set(CONUS.valid)) == 405
    per_row = Counter(int(region_id[1:].split("_")[0]) for region_id in CONUS.valid)
    counts = (5, 6, 17, 24, 30, 34, 35, 36, 39, 41, 42, 38, 32, 26)
    assert per_row == dict(enumerate(counts, start=1))
    cols = [int(region_id.split("_x")[1]) for region_id in CONUS.valid]
    assert (min(cols), max(cols)) == (2, 44)


def test_regions_have_the_published_size() -> None:
    assert CONUS.region_window("y9_x16").shape == (6000, 4500)
    assert CONUS.region_window("y16_x46").shape == (1579, 1881)


def test_bounds_of_a_known_region() -> None:
    window = CONUS.region_window("y5_x14")
    assert window == Window(30_000, 36_000, 63_000, 67_500)
    expected = (-108.98394187791843, 31.667930580724892, -107.59796942495319, 33.515893851345204)
    assert window.bounds == pytest.approx(expected, rel=0, abs=1e-12)


def test_pixel_centres_ascend_and_are_centres() -> None:
    window = Window(10, 13, 20, 22)
    west, south, east, north = window.bounds
    assert window.latitude == pytest.approx(south + STEP * np.array([0.5, 1.5, 2.5]))
    assert window.longitude == pytest.approx(west + STEP * np.array([0.5, 1.5]))
    assert north == pytest.approx(south + 3 * STEP)
    assert east == pytest.approx(west + 2 * STEP)


def test_every_pixel_centre_is_in_its_pixel() -> None:
    rows, cols = np.arange(CONUS_ROWS), np.arange(CONUS_COLS)
    assert (pixel_of(np.full(CONUS_ROWS, -100.0), row_latitude(rows))[0] == rows).all()
    assert (pixel_of(col_longitude(cols), np.full(CONUS_COLS, 40.0))[1] == cols).all()


@given(
    st.integers(0, CONUS_ROWS - 1),
    st.integers(0, CONUS_COLS - 1),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_a_point_belongs_to_the_pixel_that_contains_it(
    row: int, col: int, up: float, right: float
) -> None:
    longitude, latitude = np.array(WEST + (col + right) * STEP), np.array(SOUTH + (row + up) * STEP)
    found = pixel_of(longitude, latitude)
    assert (int(found[0]), int(found[1])) == (row, col)


def test_an_edge_belongs_to_the_pixel_north_and_east_of_it() -> None:
    assert [int(index) for index in pixel_of(np.array(WEST), np.array(SOUTH))] == [0, 0]
    just_outside = np.nextafter(WEST, -np.inf), np.nextafter(SOUTH, -np.inf)
    assert [int(index) for index in pixel_of(*map(np.array, just_outside))] == [-1, -1]


def test_points_that_are_nowhere() -> None:
    longitude = np.array([np.nan, -100.0, -200.0, 0.0, -100.0, -100.0])
    latitude = np.array([40.0, np.nan, 40.0, 40.0, -80.0, 89.0])
    row, col = pixel_of(longitude, latitude)
    assert (row[:2] == -1).all()
    assert (col[:2] == -1).all()
    assert (CONUS.region_at(longitude, latitude) == -1).all()


@given(grids(), st.data())
def test_each_point_of_a_grid_has_exactly_one_region(grid: RegionGrid, data: st.DataObject) -> None:
    window = grid.window
    row = data.draw(st.integers(window.row_start - 3, window.row_stop + 2))
    col = data.draw(st.integers(window.col_start - 3, window.col_stop + 2))
    up, right = data.draw(st.floats(0.01, 0.99)), data.draw(st.floats(0.01, 0.99))
    point = np.array(WEST + (col + right) * STEP), np.array(SOUTH + (row + up) * STEP)
    holding = [
        number
        for number, region_id in enumerate(grid)
        if (part := grid.region_window(region_id)).row_start <= row < part.row_stop
        and part.col_start <= col < part.col_stop
    ]
    inside = window.row_start <= row < window.row_stop and window.col_start <= col < window.col_stop
    assert len(holding) == inside
    assert int(grid.region_at(*point)) == (holding[0] if holding else -1)


@given(grids())
def test_regions_tile_the_window_without_gap_or_overlap(grid: RegionGrid) -> None:
    covered = np.zeros(grid.window.shape, int)
    for region_id in grid:
        covered[grid.region_window(region_id).slices_in(grid.window)] += 1
    assert (covered == 1).all()


@given(grids())
def test_a_description_as_json_gives_the_same_grid(grid: RegionGrid) -> None:
    assert RegionGrid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid


def test_conus_survives_json() -> None:
    assert RegionGrid.from_dict(json.loads(json.dumps(CONUS.to_dict()))) == CONUS


def test_regions_in_a_box_are_those_that_share_area_with_it() -> None:
    west, south, east, north = SMALL.region_window("y0_x0").bounds
    assert SMALL.regions_in((west, south, east, north)) == ["y0_x0"]
    assert SMALL.regions_in((west, south, east, north + STEP)) == ["y0_x0", "y1_x0"]
    assert SMALL.regions_in((west - 9, south - 9, west, south)) == []
    assert SMALL.regions_in(SMALL.window.bounds) == list(SMALL.valid)
    assert CONUS.regions_in((-105.3, 40.0, -105.2, 40.1)) == ["y9_x16"]


def test_buffers_and_intersections() -> None:
    window = Window(10, 20, 30, 40)
    assert window.buffer(2, 3) == Window(8, 22, 27, 43)
    assert window.buffer(2, 3, Window(9, 50, 0, 41)) == Window(9, 22, 27, 41)
    assert window.slices_in(Window(5, 25, 30, 60)) == (slice(5, 15), slice(0, 10))
    with pytest.raises(ValueError, match="do not overlap"):
        window.intersection(Window(20, 30, 30, 40))
    with pytest.raises(ValueError, match="is not inside"):
        window.slices_in(Window(11, 25, 30, 60))


@pytest.mark.parametrize(
    "region_id",
    ["", "y9", "y9x16", "Y9_x16", "y9_x16 ", "y09_x16", "y-1_x0", "y17_x0", "y0_x47", "x16_y9"],
)
def test_an_unknown_region_is_named_with_an_example(region_id: str) -> None:
    with pytest.raises(UnknownRegionError) as error:
        CONUS.require_valid(region_id)
    assert repr(region_id) in str(error.value)
    assert "y0_x0 to y16_x46" in str(error.value)
    assert "'y9_x16'" in str(error.value)


def test_a_region_without_data_is_told_from_an_unknown_one() -> None:
    with pytest.raises(UnknownRegionError, match=r"'y0_x0' holds no data in grid 'conus'"):
        CONUS.require_valid("y0_x0")
    assert CONUS.require_valid("y9_x16") == "y9_x16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region_rows": 0}, "region size must be positive, found 0 x 4"),
        ({"valid": ("y9_x9",)}, "lists 'y9_x9' as valid but has 3 x 3 regions"),
        ({"valid": ("y1_x0", "y0_x0")}, "out of order"),
        ({"valid": ("y0_x0", "y0_x0")}, "repeat"),
        ({"window": Window(0, CONUS_ROWS + 1, 0, 5)}, "is not inside"),
        ({"window": Window(5, 5, 0, 5)}, "do not overlap"),
    ],
)
def test_a_grid_that_contradicts_itself_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"name": "x", "window": {}, "region_rows": 1, "region_cols": 1, "valid": []},
        {"name": "x", "window": [1, 2], "region_rows": 1, "region_cols": 1, "valid": []},
        {**SMALL.to_dict(), "valid": 3},
        {**SMALL.to_dict(), "region_rows": "many"},
        {**SMALL.to_dict(), "window": {**CONUS.to_dict()["window"], "row_start": "south"}},
    ],
)
def test_a_wrong_description_is_one_clear_error(description: dict) -> None:
    with pytest.raises(ValueError, match=r"grid|window|region|invalid"):
        RegionGrid.from_dict(description)


def test_the_window_of_the_whole_grid_is_its_own() -> None:
    assert CONUS_WINDOW.slices_in(CONUS_WINDOW) == (slice(0, CONUS_ROWS), slice(0, CONUS_COLS))
