"""Exact kernel means: against OpenCV, at edges, and independent of the part asked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_assets.regions.convolution import Rectangle, directional_means, mirror
from ocr_assets.regions.kernels import DIRECTIONS, Kernel, kernel_set, upwind_mask


def field(shape: tuple[int, int], seed: int, zeros: float = 0.3) -> NDArray[np.float32]:
    """Synthetic burn probability with patches of zero and of NaN."""
    rng = np.random.default_rng(seed)
    values = (rng.random(shape) ** 4).astype(np.float32)
    values[rng.random(shape) < zeros] = 0
    row, col = shape[0] // 3, shape[1] // 4
    values[row : 2 * row, col : 3 * col] = 0
    values[:row, -col:] = np.nan
    return values


def means(
    values: NDArray[np.float32], kernels: tuple[Kernel, ...], bounds: Rectangle | None = None
) -> NDArray[np.float64]:
    area = bounds or (0, values.shape[0], 0, values.shape[1])
    return np.stack([mean.copy() for mean in directional_means(values, area, kernels)])


def opencv_mean(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    kernel = mask.astype(np.float64) / mask.sum()
    array = np.nan_to_num(values).astype(np.float64)
    for _ in range(3):
        share, total = (
            cv2.filter2D(part, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)
            for part in ((array > 0).astype(np.float64), array)
        )
        share[share < 1e-11] = 0
        total[total < 1e-11] = 0
        array = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return array


@pytest.mark.parametrize("method", ["published", "corrected"])
@pytest.mark.parametrize(("height", "width"), [(34.25, 31.0), (34.25, 22.5)])
def test_same_as_opencv_with_mirrored_edges(method: str, height: float, width: float) -> None:
    values = field((150, 170), seed=1)
    for name in DIRECTIONS:
        mask = upwind_mask(name, height, width, method)  # type: ignore[arg-type]
        (found,) = means(values, (Kernel.from_mask(mask),))
        np.testing.assert_allclose(found, opencv_mean(values, mask), rtol=1e-6, atol=1e-12)


def test_sparse_field_same_as_opencv() -> None:
    values = np.zeros((160, 200), np.float32)
    values[20, 30], values[90, 60], values[91, 150] = 0.25, 0.001, 1.0
    mask = upwind_mask("NW", 34.25, 27.0, "published")
    (found,) = means(values, (Kernel.from_mask(mask),))
    np.testing.assert_allclose(found, opencv_mean(values, mask), rtol=1e-6, atol=1e-12)


def test_one_burning_pixel_spreads_at_full_strength_over_the_mirrored_footprint() -> None:
    values = np.zeros((161, 161), np.float32)
    values[80, 80] = 1
    (found,) = means(values, (kernel_set(38.0, "published")[DIRECTIONS.index("W")],))
    rows, cols = np.nonzero(found)
    assert rows.size == 2296
    assert (rows.min() - 80, rows.max() - 80) == (-18, 15)
    assert (cols.min() - 80, cols.max() - 80) == (-33, 54)
    assert np.array_equal(np.unique(found), [0, 1])


def test_centred_kernels_spread_evenly_to_both_sides_of_the_wind() -> None:
    values = np.zeros((161, 161), np.float32)
    values[80, 80] = 1
    west = means(values, (kernel_set(38.0, "corrected")[DIRECTIONS.index("W")],))[0]
    assert np.array_equal(west, west[::-1])
    assert np.flatnonzero(west.any(axis=0)).mean() > 80


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_part_equals_the_whole_bit_for_bit(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 90))
    cols = data.draw(st.integers(1, 90))
    values = field((rows, cols), seed=data.draw(st.integers(0, 99)), zeros=0.6)
    kernels = kernel_set(40.0, "corrected")
    row = sorted(data.draw(st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1))))
    col = sorted(data.draw(st.tuples(st.integers(0, cols - 1), st.integers(0, cols - 1))))
    bounds = (row[0], row[1] + 1, col[0], col[1] + 1)
    part = means(values, kernels, bounds)
    whole = means(values, kernels)
    assert np.array_equal(part, whole[:, bounds[0] : bounds[1], bounds[2] : bounds[3]])


def test_order_of_kernels_does_not_matter() -> None:
    values = field((70, 80), seed=3)
    kernels = kernel_set(33.0, "published")
    assert np.array_equal(means(values, kernels), means(values, kernels[::-1])[::-1])


def test_largest_values_do_not_overflow() -> None:
    found = means(np.ones((60, 60), np.float32), kernel_set(52.0, "corrected"))
    assert (found == 1).all()


def test_nothing_burns_where_nothing_is_above_zero() -> None:
    values = np.full((40, 50), np.nan, np.float32)
    values[10:20] = 0
    assert not means(values, kernel_set(35.0, "corrected")).any()


def test_mirror_matches_numpy() -> None:
    for size in (1, 2, 3, 7):
        expected = np.pad(np.arange(size), 20, mode="reflect") if size > 1 else np.zeros(41)
        assert np.array_equal(mirror(np.arange(-20, size + 20), size), expected)
