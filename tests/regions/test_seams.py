"""Seams: borders are found once each, smooth fields pass, a step across a border is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.regions.seams import LIMIT, borders, seam_ratio

WHOLE = RegionGrid("test", Window(0, 30, 0, 40), 10, 10, ())
GRID = RegionGrid("test", WHOLE.window, 10, 10, tuple(WHOLE))


def test_each_border_of_two_finished_regions_comes_once() -> None:
    found = list(borders(GRID, set(GRID.valid)))
    assert len(found) == 3 * 3 + 2 * 4
    assert len({(one, other) for one, other, _ in found}) == len(found)
    assert ("y0_x0", "y1_x0", Window(8, 12, 0, 10)) in found
    assert ("y0_x0", "y0_x1", Window(0, 10, 8, 12)) in found


def test_a_region_without_finished_neighbours_has_no_border() -> None:
    assert list(borders(GRID, {"y0_x0", "y1_x1", "y2_x3"})) == []
    assert [pair[:2] for pair in borders(GRID, {"y1_x2", "y1_x3"})] == [("y1_x2", "y1_x3")]


def test_the_strip_has_two_lines_on_either_side() -> None:
    lines = np.arange(30)
    for _, other, window in borders(GRID, set(GRID.valid)):
        rows, cols = window.slices_in(GRID.window)
        start = GRID.region_window(other)
        if window.shape[0] == 4:
            assert list(lines[rows]) == [start.row_start + step for step in (-2, -1, 0, 1)]
        else:
            assert window.shape == (10, 4)
            assert cols.start + 2 == start.col_start


@given(st.floats(-5, 5), st.floats(0.01, 5), st.booleans())
def test_an_even_slope_has_no_seam(start: float, slope: float, across: bool) -> None:
    strip = np.repeat(start + slope * np.arange(4.0)[:, None], 9, axis=1).astype(np.float32)
    ratio = seam_ratio(strip if across else strip.T)
    assert ratio == pytest.approx(1, rel=0.01)
    assert ratio < LIMIT


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_step_is_measured_against_the_steps_beside_it(step: float, beside: float) -> None:
    line = np.cumsum([0, beside, step, beside / 2])
    strip = np.repeat(line[:, None], 7, axis=1).astype(np.float32)
    assert seam_ratio(strip) == pytest.approx(step / beside, rel=1e-4)


def test_missing_values_are_left_out() -> None:
    strip = np.repeat(np.arange(4.0)[:, None], 6, axis=1).astype(np.float32)
    strip[:, 0] = np.nan
    strip[1, 3] = np.nan
    assert seam_ratio(strip) == pytest.approx(1)
    assert seam_ratio(np.full((4, 6), np.nan, np.float32)) == 0
    strip[2:] = np.nan
    assert seam_ratio(strip) == 0


def test_flat_fields() -> None:
    flat = np.ones((4, 5), np.float32)
    assert seam_ratio(flat) == 0
    flat[2:] = 2
    assert seam_ratio(flat) == np.inf
    assert seam_ratio(flat.T) == np.inf
