"""Windows, mosaic and published percents, against published constants and plain references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ocr_assets.tiles.normalisation import (
    CHANNELS,
    MAXIMUM,
    MINIMUM,
    normalise,
)
from ocr_assets.tiles.tree_cover import (
    NODATA,
    agreement,
    bare_ground_factor,
    gaussian_weights,
    hidden_blocks,
    mirrored,
    predict_tree_cover,
    predict_windows,
    window_starts,
)

SLOPE = CHANNELS.index("slope")


@dataclass
class Echo:
    """Answers with a channel of the median frame, scaled back to 0..1: slope over 0.4."""

    whole_tile: bool = False
    input_size: int = 172
    border: int = 7
    streams: int = 1
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda answer: answer
    calls: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def output_size(self) -> int:
        return self.input_size - 2 * self.border

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls.append(windows.shape)
        inside = slice(self.border, -self.border)
        return self.change((windows[:, 4, inside, inside, SLOPE] + 1) / 2)


def cube(cover: NDArray[np.floating]) -> NDArray[np.float32]:
    """Features for which :class:`Echo` answers ``cover``: dark and green, no bare ground."""
    features = np.full((5, *cover.shape, 17), 0.05, np.float32)
    features[..., CHANNELS.index("EVI")] = 0.5
    features[..., SLOPE] = 0.4 * cover
    return features


def test_features_are_scaled_as_published() -> None:
    values = np.random.default_rng(101).uniform(0, 0.5, (5, 8, 8, 17))
    clipped = np.minimum(np.maximum(values, MINIMUM), MAXIMUM)
    expected = (clipped - (MINIMUM + MAXIMUM) / 2) / ((MAXIMUM - MINIMUM) / 2)
    scaled = normalise(values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=2e-6)
    assert scaled.min() >= -1.000001
    assert scaled.max() <= 1.000001
    # The range of the blue band and of the last index, as published.
    assert normalise(np.full(17, 0.006576638437476157))[0] == pytest.approx(-1, abs=1e-6)
    assert normalise(np.full(17, 0.2691233691920348))[0] == pytest.approx(1, abs=1e-6)
    assert normalise(np.full(17, 0.7602693339366691))[16] == pytest.approx(1, abs=1e-6)


def test_a_published_tile_has_the_published_windows() -> None:
    starts = [0, 92, 184, 276, 368, 460]
    assert window_starts(618, 158) == starts
    assert window_starts(618, 158, compat=True) == starts
    # First, inner and last window with their borders, where they lie on the tile.
    seen = [np.unique(mirrored(start - 7, start + 165, 618)) for start in starts]
    assert [(rows[0], len(rows)) for rows in seen] == [
        (0, 165), (85, 172), (177, 172), (269, 172), (361, 172), (453, 165),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [159, 160, 200, 250, 364, 500, 608, 617, 619, 636, 1000])
def test_windows_cover_tiles_of_any_length(length: int) -> None:
    starts = window_starts(length, 158)
    assert starts[0] == 0
    assert starts[-1] == length - 158
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert steps.max() <= 100


def test_windows_of_tiles_that_are_hardly_larger_than_one() -> None:
    assert window_starts(158, 158) == [0]
    assert window_starts(158, 158, compat=True) == [0]
    assert window_starts(101, 158) == [0]
    assert window_starts(160, 158) == [0, 2]
    assert window_starts(364, 158) == [0, 69, 138, 206]
    assert window_starts(364, 158, compat=True) == [0, 42, 84, 126, 168, 206]


@pytest.mark.parametrize(
    ("length", "before", "after"), [(9, 3, 4), (5, 4, 4), (2, 5, 6), (1, 2, 2)]
)
def test_edges_are_mirrored(length: int, before: int, after: int) -> None:
    axis = np.arange(length)
    expected = np.pad(axis, (before, after), "reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(mirrored(-before, length + after, length), expected)


def test_weights_of_a_window() -> None:
    weights = gaussian_weights()
    assert weights.shape == (158, 158)
    assert weights[0, 0] == pytest.approx(0.009145947, abs=5e-10)
    assert weights[78, 78] == 1
    assert weights[157, 157] == pytest.approx(0.0081024692, abs=5e-11)
    assert weights.sum() == pytest.approx(7690.00278, abs=1e-5)


@pytest.mark.parametrize("shape", [(618, 618), (364, 620), (101, 100)])
@pytest.mark.parametrize("whole", [False, True])
def test_agreeing_windows_give_the_answer_itself(shape: tuple[int, int], whole: bool) -> None:
    cover = np.random.default_rng(0).uniform(0.2, 1, shape).round(3)
    network = Echo(whole_tile=whole, streams=2)
    percent = predict_tree_cover(cube(cover), network)
    assert percent.dtype == np.uint8
    np.testing.assert_array_equal(percent, np.floor(100 * cover + 1e-3))
    if whole:
        ((_, _, rows, columns, _),) = network.calls
        assert rows % 4 == columns % 4 == 0
    else:
        assert set(network.calls) == {(1, 5, 172, 172, 17)}
        assert len(network.calls) == {618: 36, 364: 24, 101: 1}[shape[0]]


def test_low_percents_are_no_trees() -> None:
    cover = np.array([0, 0.149, 0.15, 0.159, 0.16, 0.29, 0.995, 1.0])
    features = cube(np.broadcast_to(cover, (30, 8)))
    ours = predict_tree_cover(features, Echo())
    assert ours[0].tolist() == [0, 0, 0, 0, 16, 29, 99, 100]
    # The existing pipeline cuts off before truncation.
    theirs = predict_tree_cover(features, Echo(), compat=True)
    assert theirs[0, :5].tolist() == [0, 0, 0, 15, 16]


def test_windows_that_disagree_weigh_less() -> None:
    windows = np.zeros((3, 4, 4), np.float32)
    windows[1] += 0.1
    windows[2] += 0.4
    # Three windows over the same place: differences from the mean of the others.
    differences = np.array([0.25, 0.1, 0.35])
    expected = np.minimum(0.25 / differences, 1.5)
    np.testing.assert_allclose(agreement(windows, [(0, 0)] * 3, (4, 4)), expected, rtol=1e-6)
    # One that agrees with the others completely says nothing about the rest.
    windows[1] = 0.2
    np.testing.assert_array_equal(agreement(windows, [(0, 0)] * 3, (4, 4)), [1, 1, 1])
    # Pixels of one window alone do not count: only column 3 is shared here.
    pair = np.zeros((2, 4, 4), np.float32)
    pair[0, :, 0] = 9
    pair[1, :, 0] = 1
    np.testing.assert_allclose(agreement(pair, [(0, 0), (0, 3)], (4, 7)), [1, 1])


def test_the_mosaic_is_the_weighted_mean() -> None:
    levels = iter([0.2, 0.6])
    network = Echo(change=lambda answer: np.full_like(answer, next(levels)))
    features = cube(np.zeros((158, 200)))
    mosaic = predict_windows(features, network, np.ones((158, 200), np.float32))
    weights = gaussian_weights()
    assert mosaic[50, 41] == pytest.approx(0.2)
    assert mosaic[50, 158] == pytest.approx(0.6)
    left, right = weights[50, 100], weights[50, 58]
    assert mosaic[50, 100] == pytest.approx((0.2 * left + 0.6 * right) / (left + right))


def test_bright_bare_ground_has_no_trees() -> None:
    features = cube(np.ones((60, 60)))
    for frame in (0, 3):
        block = features[frame, 20:40, 20:40]
        block[..., :3] = 0.25
        block[..., CHANNELS.index("B8")] = 0.3
        block[..., CHANNELS.index("B11")] = 0.4
        block[..., CHANNELS.index("EVI")] = 0.1
    factor = bare_ground_factor(features)
    # Eroded by two pixels and grown by one, both along the axes.
    bare = np.zeros((60, 60), bool)
    bare[20:40, 20:40] = True
    bare = ndimage.binary_dilation(ndimage.binary_erosion(bare, iterations=2))
    expected = np.minimum(ndimage.distance_transform_edt(~bare), 3) / 3
    np.testing.assert_allclose(factor, expected, atol=1e-6)
    percent = predict_tree_cover(features, Echo())
    assert percent[30, 30] == 0
    assert percent[30, 40] == 66
    assert percent[30, 50] == 100
    # In one frame alone it may be a ploughed field or snow.
    features[3] = features[4]
    assert (bare_ground_factor(features) == 1).all()


def test_no_image_is_no_data() -> None:
    features = cube(np.ones((80, 80)))
    features[:, 40, 40, :4] = 0
    percent = predict_tree_cover(features, Echo())
    expected = np.full((80, 80), 100, np.uint8)
    expected[30:51, 30:51] = NODATA
    np.testing.assert_array_equal(percent, expected)
    # The existing pipeline lets it grow along the axes.
    assert (predict_tree_cover(features, Echo(), compat=True) == NODATA).sum() == 221
    # A frame with an image is enough; a single unknown number is not.
    features[2, 40, 40, 3] = 0.1
    assert (predict_tree_cover(features, Echo()) == 100).all()
    features[1, 10, 70, SLOPE] = np.nan
    expected[:] = 100
    expected[:21, 60:] = NODATA
    np.testing.assert_array_equal(predict_tree_cover(features, Echo()), expected)


def test_places_hidden_on_every_date_are_no_data() -> None:
    unseen = np.zeros((100, 130), bool)
    unseen[2:10, 100:108] = True
    assert not hidden_blocks(unseen).any(), "less than 13 pixels across"
    unseen[44:62, 84:102] = True
    blocks = hidden_blocks(unseen)
    # Grown to 38..67 x 78..107: most of the block 40..79 x 80..119.
    expected = np.zeros((100, 130), bool)
    expected[40:80, 80:120] = True
    np.testing.assert_array_equal(blocks, expected)
    percent = predict_tree_cover(cube(np.ones((100, 130))), Echo(whole_tile=True), unseen=unseen)
    assert (percent[40:80, 80:120] == NODATA).all()
    assert percent[20, 20] == 100
    # The existing pipeline finds them in windows that touch no edge of the tile, of which a tile
    # as small as this has none.
    small = predict_tree_cover(cube(np.ones((100, 130))), Echo(), unseen=unseen, compat=True)
    assert (small == 100).all()
    large = np.zeros((400, 400), bool)
    large[180:240, 180:240] = True
    compat = predict_tree_cover(cube(np.ones((400, 400))), Echo(), unseen=large, compat=True)
    assert (compat[190:230, 190:230] == NODATA).all()
    assert compat[5, 5] == 100


@pytest.mark.parametrize("shape", [(5, 20, 20, 13), (4, 20, 20, 17), (20, 20, 17)])
def test_another_cube_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a feature cube is \[5, h, w, 17\]"):
        predict_tree_cover(np.zeros(shape, np.float32), Echo())
