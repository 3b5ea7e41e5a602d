"""What networks are given of a line image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_assets.volumes.line_images import (
    ContrastStretch,
    LineBatch,
    PreparedLine,
    ThresholdedFrame,
    batches,
)


def test_stretch_puts_ink_at_minus_one_and_paper_at_one() -> None:
    # A faded print: ink of 90 on paper of 180, in bars of two pixels.
    image = np.full((48, 200), 180, np.uint8)
    image[:, ::8] = image[:, 1::8] = 90
    line = ContrastStretch(48, clipped=True)(image)
    assert line.pixels.shape == (48, 200)
    assert set(np.unique(line.pixels)) == {-1, 1}
    assert (line.start, line.stop, line.scale) == (0, 200, 1)


def test_stretch_cuts_only_what_it_is_told_to_cut() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (48, 300), dtype=np.uint8)
    free = ContrastStretch(48, clipped=False)(image).pixels
    cut = ContrastStretch(48, clipped=True)(image).pixels
    assert free.max() > 1.1
    assert free.min() < -1.1
    np.testing.assert_array_equal(cut, np.clip(free, -1, 1))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_lines_are_finite(value: int) -> None:
    line = ContrastStretch(48, clipped=True)(np.full((60, 90), value, np.uint8))
    assert np.isfinite(line.pixels).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 2000))
def test_any_size_of_line_is_taken(rows: int, columns: int) -> None:
    image = np.full((rows, columns), 200, np.uint8)
    for preparation in (ContrastStretch(48, clipped=True), ThresholdedFrame(80, 640)):
        line = preparation(image)
        assert line.pixels.shape == (preparation.height, preparation.prepared_width(image))
        assert line.pixels.dtype == np.float32
        assert 0 <= line.start < line.stop <= line.pixels.shape[1]
        assert line.scale > 0


def test_an_endless_line_is_squeezed() -> None:
    line = ContrastStretch(48, clipped=True)(np.full((2, 20_000), 255, np.uint8))
    assert line.pixels.shape == (48, 12_000)
    assert line.scale == pytest.approx(0.6)


def test_frame_sets_the_line_left_between_white_squares() -> None:
    image = np.full((40, 200), 255, np.uint8)
    image[18:22, 0:200:10] = 0
    line = ThresholdedFrame(80, 640)(image)
    assert line.pixels.shape == (80, 640)
    assert (line.start, line.stop, line.scale) == (80, 480, 2)
    assert set(np.unique(line.pixels)) == {-1, 1}
    ink = np.flatnonzero((line.pixels < 0).any(axis=0))
    assert 79 <= ink.min() <= 81
    assert ink.max() < 480


def test_frame_scales_long_lines_to_its_width() -> None:
    line = ThresholdedFrame(80, 640)(np.full((80, 2000), 255, np.uint8))
    assert line.stop <= 640
    assert line.scale == pytest.approx(640 / 2160, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=60))
def test_batches_hold_every_line_once_and_little_padding(widths: list[int]) -> None:
    lines = [
        PreparedLine(np.full((4, width), i + 1, np.float32), 0, width, 1)
        for i, width in enumerate(widths)
    ]
    seen = []
    for order in batches(widths, most_lines=8, most_pixels=6000):
        seen += order
        assert len(order) <= 8
        batch = LineBatch.of([lines[index] for index in order])
        assert batch.images.shape[2] == batch.widths.max()
        assert len(order) == 1 or batch.images.shape[0] * batch.images.shape[2] <= 6000
        for index, image, width in zip(order, batch.images, batch.widths, strict=True):
            assert width == widths[index]
            assert (image[:, :width] == index + 1).all()
            assert not image[:, width:].any()
    assert sorted(seen) == list(range(len(widths)))
