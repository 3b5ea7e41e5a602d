"""Connected pieces, and the counts over whole pages that replace OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from ocr_assets.volumes.binarise import reduced
from ocr_assets.volumes.components import find_pieces
from ocr_assets.volumes.profiles import strip_profiles

INK = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@given(INK)
def test_pieces_are_those_of_opencv(ink: NDArray[np.bool_]) -> None:
    pieces = find_pieces(ink)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ink.view(np.uint8))
    assert np.array_equal(pieces.labels, labels)
    assert np.array_equal(pieces.stats[1:], stats[1:])


def test_pieces_are_picked_and_measured() -> None:
    ink = np.zeros((6, 9), bool)
    ink[1, 1:4] = ink[2, 4] = True  # one piece, by its corner
    ink[4:6, 6:9] = True
    pieces = find_pieces(ink)
    assert len(pieces) == 3
    assert (pieces.left[1], pieces.top[1], pieces.width[1], pieces.height[1]) == (1, 1, 4, 2)
    assert pieces.area[1:].tolist() == [4, 6]
    mask = pieces.mask(np.array([True, False, True]))
    assert mask.sum() == 6
    assert mask[4:6, 6:9].all()
    left = np.zeros_like(ink)
    left[:, :7] = True
    assert pieces.overlap(left)[1:].tolist() == [4, 2]


@given(INK, st.integers(1, 9))
def test_reduced_ink_is_the_mean_of_whole_cells(ink: NDArray[np.bool_], factor: int) -> None:
    small = reduced(ink, factor)
    if min(ink.shape) < factor:
        assert small.size == max(1, ink.shape[0] // factor) * max(1, ink.shape[1] // factor)
        return
    height, width = (side // factor * factor for side in ink.shape)
    cells = ink[:height, :width].reshape(height // factor, factor, width // factor, factor)
    assert np.abs(small - 255 * (1 - cells.mean(axis=(1, 3)))).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("factor", [2, 3, 5, 16, 40])
def test_reduced_ink_is_rounded_as_by_opencv(factor: int) -> None:
    ink = np.random.default_rng(factor).random((200, 330)) < 0.4
    size = (330 // factor, 200 // factor)
    whole = ink[: size[1] * factor, : size[0] * factor].view(np.uint8) * np.uint8(255)
    assert np.array_equal(
        reduced(ink, factor), 255 - cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    )


@given(INK, st.integers(1, 24))
def test_strip_profiles_count_each_row(ink: NDArray[np.bool_], count: int) -> None:
    count = min(count, ink.shape[1])
    step = ink.shape[1] // count
    profiles = strip_profiles(ink, count)
    assert profiles.shape == (count, ink.shape[0])
    strips = ink[:, : count * step].reshape(ink.shape[0], count, step)
    assert np.abs(profiles.T - 255 * strips.mean(axis=2)).max() <= 0.5 + 1e-3
