"""Spread and smoothing: known values, and the same pixels however an array is cut."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_assets.regions import spread
from ocr_assets.regions.kernels import DIRECTIONS, kernel_set
from ocr_assets.regions.spread import (
    SMOOTHING_RADIUS,
    SMOOTHING_SIGMA,
    add_weighted,
    fill_non_burnable,
    normalised_weights,
    smooth,
    smoothing_taps,
)

HALF_GAUSSIAN = (
    0.13801118,
    0.13004515,
    0.10880122,
    0.08082266,
    0.05330799,
    0.03121844,
    0.01623266,
    0.00749425,
    0.00307204,
)


def composite_of(layers: NDArray[np.float64], weights: list[float]) -> NDArray[np.float64]:
    total = np.zeros(layers.shape[1:])
    shares = normalised_weights(np.array([weights], np.float32))
    cells = np.zeros(total.shape, np.int32)
    for direction in range(8):
        add_weighted(total, layers[direction], shares, direction, cells)
    return total


@pytest.mark.parametrize(
    ("step", "first", "weights", "expected"),
    [
        (1.0, 0.0, [0.10, 0.05, 0.15, 0.20, 0.05, 0.10, 0.25, 0.10], 3.85),
        (1.0, 0.0, [1.0] * 8, 3.5),
        (0.01, 0.01, [1 / 8] * 8, 0.045),
        (1.0, 0.0, [0.0] * 8, np.nan),
        (1.0, 0.0, [np.nan] + [0.5] * 7, np.nan),
    ],
)
def test_composite(step: float, first: float, weights: list[float], expected: float) -> None:
    layers = np.broadcast_to((first + step * np.arange(8))[:, None, None], (8, 3, 4)).copy()
    found = composite_of(layers, weights)
    np.testing.assert_allclose(found, np.full((3, 4), expected), rtol=1e-6)


def test_weights_add_up_to_one_or_are_missing() -> None:
    distribution = np.random.default_rng(0).random((4, 5, 8)).astype(np.float32)
    distribution[1, 2] = 0
    distribution[3, 0, 7] = np.nan
    shares = normalised_weights(distribution)
    missing = np.isnan(shares).all(axis=-1)
    assert sorted(zip(*np.nonzero(missing), strict=True)) == [(1, 2), (3, 0)]
    assert not np.isnan(shares[~missing]).any()
    np.testing.assert_allclose(shares[~missing].sum(axis=-1), 1, atol=1e-6)


def test_negative_weight_names_its_cell() -> None:
    distribution = np.full((4, 5, 8), 0.125, np.float32)
    distribution[2, 3, 6] = -0.25
    with pytest.raises(ValueError, match=r"cell \(2, 3\), direction 6, is negative \(-0.25\)"):
        normalised_weights(distribution)


def land(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Synthetic burn probability: mostly above zero, with patches of zero and of NaN."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(1e-4, 0.05, shape).astype(np.float32)
    for value in (0, 0, 0, np.nan):
        row, col = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(1, 1 + np.array(shape) // 2)
        values[row : row + height, col : col + width] = value
    return values


def test_only_zeros_are_filled_and_missing_stays_missing() -> None:
    values = land((120, 130), seed=4)
    weights = normalised_weights(np.random.default_rng(1).random((1, 8)))
    cells = np.zeros(values.shape, np.int32)
    found = fill_non_burnable(
        values, (0, 120, 0, 130), kernel_set(38.0, "corrected"), weights, cells
    )
    kept = values != 0
    assert np.array_equal(found[kept], values[kept], equal_nan=True)
    assert 0 < (values == 0).mean() < 1
    assert (found[~kept] > 0).any()
    assert (found[~kept] < np.nanmax(values)).all()


def test_zero_without_wind_becomes_missing() -> None:
    values = land((60, 70), seed=4)
    weights = np.array([[0.125] * 8, [np.nan] * 8], np.float32)
    cells = np.zeros(values.shape, np.int32)
    cells[:, 30:50], cells[:, 50:] = 1, -1
    found = fill_non_burnable(values, (0, 60, 0, 70), kernel_set(38.0, "corrected"), weights, cells)
    expected = np.isnan(values) | ((values == 0) & (cells != 0))
    assert (expected & (values == 0)).any()
    assert np.array_equal(np.isnan(found), expected)


def test_fire_comes_from_where_the_wind_comes() -> None:
    values = np.zeros((200, 200), np.float32)
    values[:, :100] = 0.02
    kernels = kernel_set(38.0, "corrected")
    reached = {}
    for name in ("W", "E"):
        weights = np.zeros((1, 8), np.float32)
        weights[0, DIRECTIONS.index(name)] = 1
        cells = np.zeros(values.shape, np.int32)
        found = fill_non_burnable(values, (0, 200, 0, 200), kernels, weights, cells)
        reached[name] = int((found[100] > 0).sum()) - 100
    # Burnable land lies to the west; three steps reach 3 x 510 m from it, or 3 x 290 m.
    assert reached == {"W": 54, "E": 30}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_result_does_not_depend_on_tiles(data: st.DataObject) -> None:
    values = land((200, 210), seed=data.draw(st.integers(0, 50)))
    kernels = kernel_set(45.0, "corrected")
    weights = normalised_weights(np.random.default_rng(2).random((6, 8)))
    cells = (np.arange(200)[:, None] // 70 + np.arange(210) // 110 * 3).astype(np.int32)
    whole = fill_non_burnable(values, (0, 200, 0, 210), kernels, weights, cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread, "TILE_ROWS", data.draw(st.integers(20, 200)))
        patch.setattr(spread, "TILE_COLS", data.draw(st.integers(20, 200)))
        tiled = fill_non_burnable(values, (0, 200, 0, 210), kernels, weights, cells)
    assert np.array_equal(tiled, whole, equal_nan=True)
    part = fill_non_burnable(values, (31, 150, 17, 203), kernels, weights, cells[31:150, 17:203])
    assert np.array_equal(part, whole[31:150, 17:203], equal_nan=True)


def test_gaussian_weights() -> None:
    assert SMOOTHING_RADIUS == 8
    assert pytest.approx(2.9) == SMOOTHING_SIGMA
    taps = smoothing_taps()
    assert taps.size == 17
    assert np.array_equal(taps, taps[::-1])
    np.testing.assert_allclose(taps[8:], HALF_GAUSSIAN, atol=5e-9)
    np.testing.assert_allclose(taps, cv2.getGaussianKernel(17, 0, cv2.CV_32F)[:, 0], rtol=1e-6)


def test_smoothing_of_one_pixel() -> None:
    values = np.zeros((50, 60), np.float32)
    values[25, 30] = 1
    found = smooth(values, (0, 50, 0, 60))
    assert found.dtype == np.float32
    assert np.count_nonzero(found) == 289
    assert found.max() == found[25, 30] == pytest.approx(0.019047087, rel=1e-6)
    assert found.sum() == pytest.approx(1, rel=1e-5)


def test_missing_pixel_spreads_to_289() -> None:
    values = np.ones((50, 60), np.float32)
    values[25, 30] = np.nan
    missing = np.isnan(smooth(values, (0, 50, 0, 60)))
    assert missing.sum() == 289
    assert missing[17:34, 22:39].all()


def test_smoothing_same_as_opencv_and_of_any_part() -> None:
    values = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    whole = smooth(values, (0, 70, 0, 90))
    expected = cv2.GaussianBlur(values, (17, 17), 0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(whole, expected, rtol=1e-6)
    assert np.array_equal(smooth(values, (3, 40, 81, 90)), whole[3:40, 81:90])
    inner = smooth(values[10:60, 20:80], (8, 42, 8, 52))
    assert np.array_equal(inner, whole[18:52, 28:72])
