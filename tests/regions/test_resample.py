"""Gap filling and nearest cells: known values, exact projection, independence of the cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from ocr_assets.regions.grid import CRS, Window
from ocr_assets.regions.resample import (
    RasterError,
    SourceRaster,
    fill_gaps,
    nearest,
    nearest_cells,
)

ALBERS = "EPSG:5070"
WRF = "+proj=lcc +lat_1=30 +lat_2=50 +lat_0=39.1 +lon_0=-97.9 +a=6370000 +b=6370000 +units=m"
WINDOWS = (
    Window(6000, 6300, 130_000, 130_200),
    Window(60_001, 60_301, 72_013, 72_213),
    Window(89_000, 89_300, 10_000, 10_200),
    Window(84_000, 84_300, 202_000, 202_200),
)


def around(
    window: Window, crs: str, step: float, *, north_up: bool = True, cells: int = 3
) -> SourceRaster:
    """A synthetic raster over a window, each cell with its own number, on a fixed grid."""
    project = Transformer.from_crs(CRS, crs, always_xy=True)
    west, south, east, north = project.transform_bounds(*window.bounds, densify_pts=21)
    x = np.arange(np.floor(west / step) - cells, np.ceil(east / step) + cells) * step + step / 2
    y = np.arange(np.floor(south / step) - cells, np.ceil(north / step) + cells) * step + step / 2
    y = y[::-1] if north_up else y
    values = np.arange(y.size * x.size, dtype=np.float32).reshape(y.size, x.size)
    return SourceRaster(values, x, y, crs)


@pytest.mark.parametrize(
    ("centre", "corner", "expected"),
    [(0, 1, 8 / 9), (np.nan, 1, 1), (0, np.nan, 7 / 8), (0, 0, 7 / 9)],
)
def test_gap_is_the_mean_of_its_neighbourhood(
    centre: float, corner: float, expected: float
) -> None:
    values = np.ones((5, 6), np.float32)
    values[1, 1], values[0, 0] = centre, corner
    filled = fill_gaps(values)
    assert filled[1, 1] == np.float32(expected)
    values[1, 1] = filled[1, 1]
    assert np.array_equal(filled, values, equal_nan=True)


def test_gap_needs_four_rook_neighbours_and_no_edge() -> None:
    values = np.ones((6, 6), np.float32)
    values[0, 2] = values[5, 0] = 0
    values[2, 2] = values[2, 3] = 0
    values[4, 4], values[4, 3] = 0, np.nan
    assert np.array_equal(fill_gaps(values), values, equal_nan=True)
    assert np.array_equal(fill_gaps(values[:2]), values[:2])


@pytest.mark.parametrize("crs", [ALBERS, WRF, "EPSG:32613"])
@pytest.mark.parametrize("window", WINDOWS)
def test_interpolated_projection_errs_by_under_2_cm(window: Window, crs: str) -> None:
    window = Window(
        window.row_start, window.row_start + 64, window.col_start, window.col_start + 64
    )
    project = Transformer.from_crs(CRS, crs, always_xy=True)
    exact_x, exact_y = project.transform(*np.meshgrid(window.longitude, window.latitude))
    # Cells of 10 cm tell where a pixel was taken to be; nothing is ever read from the raster.
    x = np.arange(np.floor(exact_x.min()) - 1, exact_x.max() + 1, 0.1)
    y = np.arange(np.ceil(exact_y.max()) + 1, exact_y.min() - 1, -0.1)
    values = np.broadcast_to(np.float32(0), (y.size, x.size))
    row, col = np.divmod(nearest_cells(SourceRaster(values, x, y, crs), window), x.size)
    assert np.abs(x[col] - exact_x).max() < 0.05 + 0.02
    assert np.abs(y[row] - exact_y).max() < 0.05 + 0.02


@pytest.mark.parametrize("north_up", [True, False])
@pytest.mark.parametrize(("crs", "step"), [(ALBERS, 270.0), (WRF, 4000.0), (CRS, 0.01)])
def test_each_pixel_finds_the_cell_that_holds_it(crs: str, step: float, north_up: bool) -> None:
    window = WINDOWS[1]
    raster = around(window, crs, step, north_up=north_up)
    project = Transformer.from_crs(CRS, crs, always_xy=True)
    exact_x, exact_y = project.transform(*np.meshgrid(window.longitude, window.latitude))
    row, col = np.divmod(nearest_cells(raster, window), raster.x.size)
    slack = step / 2 + (0.02 if step > 1 else 1e-9)
    assert np.abs(raster.x[col] - exact_x).max() <= slack
    assert np.abs(raster.y[row] - exact_y).max() <= slack
    assert np.array_equal(nearest(raster, window), raster.values[row, col])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cell_does_not_depend_on_window_or_piece(data: st.DataObject) -> None:
    window = WINDOWS[3]
    crs, step = data.draw(st.sampled_from([(ALBERS, 270.0), (WRF, 4000.0)]))
    raster = around(window, crs, step, north_up=data.draw(st.booleans()))
    whole = nearest(raster, window)
    rows = sorted(data.draw(st.lists(st.integers(0, 300), min_size=2, max_size=2, unique=True)))
    cols = sorted(data.draw(st.lists(st.integers(0, 200), min_size=2, max_size=2, unique=True)))
    part = Window(
        window.row_start + rows[0],
        window.row_start + rows[1],
        window.col_start + cols[0],
        window.col_start + cols[1],
    )
    y, x = np.divmod(nearest_cells(raster, part), raster.x.size)
    y_cut, x_cut = slice(y.min(), y.max() + 2), slice(x.min(), x.max() + 2)
    piece = SourceRaster(raster.values[y_cut, x_cut], raster.x[x_cut], raster.y[y_cut], crs)
    expected = whole[rows[0] : rows[1], cols[0] : cols[1]]
    assert np.array_equal(nearest(raster, part), expected)
    assert np.array_equal(nearest(piece, part), expected)


def test_raster_on_the_pixel_grid_is_copied() -> None:
    window = WINDOWS[1]
    values = np.random.default_rng(0).random(window.shape, np.float32)
    raster = SourceRaster(values, window.longitude, window.latitude, CRS)
    assert np.array_equal(nearest(raster, window), values)


def test_outside_the_raster_is_missing() -> None:
    window = WINDOWS[1]
    whole = around(window, ALBERS, 270.0)
    half = SourceRaster(whole.values[:, :12], whole.x[:12], whole.y, ALBERS)
    cells, values = nearest_cells(half, window), nearest(half, window)
    beyond = nearest_cells(whole, window) % whole.x.size >= 12
    assert 0 < beyond.mean() < 1
    assert np.array_equal(cells == -1, beyond)
    assert np.array_equal(np.isnan(values), beyond)


def test_a_place_that_a_projection_cannot_hold_is_outside() -> None:
    # This orthographic view sees the other side of the earth.
    axis = np.array([-1e7, 1e7])
    raster = SourceRaster(np.ones((2, 2)), axis, axis, "+proj=ortho +lat_0=-40 +lon_0=80")
    assert (nearest_cells(raster, WINDOWS[0]) == -1).all()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.arange(4.0), np.arange(3.0), r"shape \(4, 4\), expected .* 3 y and 4 x"),
        (np.arange(4.0), np.array([0.0, 1, 2, 5]), "raster y is not regular"),
        (np.full(4, 2.0), np.arange(4.0), "raster x is not regular"),
        (np.array([0, 1, np.nan, 3]), np.arange(4.0), "raster x is not regular"),
    ],
)
def test_bad_coordinates_are_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(RasterError, match=message):
        SourceRaster(np.zeros((4, 4)), x, y, ALBERS)


def test_too_many_cells_are_refused() -> None:
    axis = np.arange(50_000.0)
    raster = SourceRaster(np.broadcast_to(np.float32(0), (50_000, 50_000)), axis, axis, ALBERS)
    with pytest.raises(RasterError, match="2500000000 cells"):
        nearest_cells(raster, WINDOWS[0])


def test_single_cell_has_no_size() -> None:
    with pytest.raises(RasterError, match="raster y has shape"):
        SourceRaster(np.zeros((1, 4)), np.arange(4.0), np.zeros(1), ALBERS)
