"""Morphology of masks, against the plain definitions in SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ocr_assets.tiles.masks import (
    close_grey,
    count_nearby,
    dilate,
    distance,
    erode,
    open_mask,
    within,
)

MASK = np.random.default_rng(0).random((60, 71)) < 0.02
BLOBS = ndimage.binary_dilation(MASK, iterations=4)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_dilation_and_erosion_by_a_cross(steps: int) -> None:
    grown = ndimage.binary_dilation(MASK, iterations=steps)
    np.testing.assert_array_equal(dilate(MASK, steps), grown)
    # Nothing is eroded from beyond the edges.
    shrunk = ndimage.binary_erosion(grown, iterations=steps, border_value=1)
    np.testing.assert_array_equal(erode(grown, steps), shrunk)


def test_opening_removes_what_is_narrow() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:9, 5:9] = True  # loses its core in two steps
    mask[18:25, 18:25] = True
    opened = open_mask(mask, 2, 3)
    assert not opened[:12, :12].any()
    assert opened[21, 21]
    assert opened[21, 25]
    np.testing.assert_array_equal(
        opened, ndimage.binary_dilation(ndimage.binary_erosion(mask, iterations=2), iterations=3)
    )


def test_distance_is_euclidean_and_exact() -> None:
    np.testing.assert_allclose(
        distance(BLOBS), ndimage.distance_transform_edt(~BLOBS), rtol=1e-6, atol=0
    )
    assert np.isinf(distance(np.zeros((3, 3), bool))).all()
    one = np.zeros((9, 9), bool)
    one[4, 4] = True
    assert within(one, 3).sum() == 29  # the disc of radius 3 on a grid


def test_neighbours_are_counted_within_the_tile() -> None:
    expected = ndimage.convolve(MASK.astype(int), np.ones((3, 3), int), mode="constant")
    np.testing.assert_array_equal(count_nearby(MASK), expected)


@pytest.mark.parametrize("size", [15, 20])
def test_grey_closing_fills_narrow_valleys_and_lowers_nothing(size: int) -> None:
    values = ndimage.gaussian_filter(MASK.astype(np.float32), 3)
    closed = close_grey(values, size)
    assert (closed >= values).all()
    inner = np.s_[size:-size, size:-size]
    # SciPy's squares of even size lie the other way round, which closes the same valleys.
    np.testing.assert_array_equal(closed[inner], ndimage.grey_closing(values, size)[inner])
