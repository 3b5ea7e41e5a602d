"""From the feature cube of a tile to tree cover in percent.

Belongs here: windows, their mosaic, what is taken back or left open afterwards, and the bytes that
are published. Does not belong here: making features, running networks (one is given), files.

The published method looks at a tile through overlapping windows, weighs each window by its
agreement with the others and by a Gaussian about its middle, and cuts off what is 15 % or less.
A network whose answer depends on nearby pixels only needs none of that: it is given the tile whole.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.normalisation import CHANNELS, FRAMES, normalise

NODATA = 255

LOWEST = 15
"""Percent. What is not above counts as no trees."""

_WINDOWS = 6
_FARTHEST = 100 / 158  # sides of a window, from one start to the next
_GAUSSIAN_SIDE, _GAUSSIAN_SIGMA = 158, 36.0
_LARGEST_MULTIPLIER = 1.5
_ALIGNMENT = 4

_UNSEEN_GROWTH, _UNSEEN_BLOCK, _UNSEEN_SHARE = 6, 40, 0.25
_OPEN_GROWTH = 10
_FULL_COVER = 3.0

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SQUARE = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))

# Far below the step of a percent, far above the error of 32-bit sums.
_ROUNDING = 1e-4


class Network(Protocol):
    """A tree-cover network; see :class:`ocr_assets.tiles.networks.TreeCoverNetwork`."""

    @property
    def input_size(self) -> int:
        """Pixels of a window's side."""

    @property
    def output_size(self) -> int:
        """Pixels of the side of its answer."""

    @property
    def border(self) -> int:
        """Pixels on each side without an answer."""

    @property
    def whole_tile(self) -> bool:
        """Whether a tile may be given whole."""

    @property
    def streams(self) -> int:
        """Calls that may run at the same time."""

    def __call__(self, windows: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Answer 0..1 ``[n, h - 2 b, w - 2 b]`` to normalised ``[n, 5, h, w, 17]``."""


def predict_tree_cover(
    features: NDArray[np.float32],
    network: Network,
    *,
    unseen: NDArray[np.bool_] | None = None,
    compat: bool = False,
) -> NDArray[np.uint8]:
    """Tree cover of a tile in percent.

    Args:
        features: ``[5, h, w, 17]`` in the order of :data:`CHANNELS`, before normalisation. NaN, and
            zero in all of B2, B3, B4 and B8 of every frame, say that there is no image.
        network: a network that is ready to run.
        unseen: pixels that clouds hide on every date, bool ``[h, w]``.
        compat: the numbers of the existing pipeline: six windows on a side whatever the size,
            hidden blocks only in windows inside the tile, cutting off before truncation instead of
            after (so that 15.9 is 15, not 0), and no-data areas that grow along the axes only.

    Returns:
        uint8 ``[h, w]``: 0, or 16 to 100 (from 15 with ``compat``), or :data:`NODATA`.

    Raises:
        ValueError: the cube does not have the shape that a network takes.
    """
    if features.ndim != 4 or (features.shape[0], features.shape[3]) != (FRAMES, len(CHANNELS)):
        raise ValueError(
            f"a feature cube is [{FRAMES}, h, w, {len(CHANNELS)}], not {list(features.shape)}; "
            "make it again"
        )
    unknown = ~np.isfinite(features).all(axis=(0, 3))
    imageless = unknown | ~features[..., :4].any(axis=(0, 3))
    if unknown.any():
        features = np.where(np.isfinite(features), features, np.float32(0))
    keep = bare_ground_factor(features)
    if network.whole_tile and not compat:
        cover = np.round(predict_whole(features, network) * keep, 3)
    else:
        hidden = unseen if compat else None
        cover = predict_windows(features, network, keep, hidden, compat=compat)
    percent = _published(100 * cover, compat=compat)
    if unseen is not None and not compat:
        imageless |= hidden_blocks(unseen)
    shape = _CROSS if compat else _SQUARE
    grown = cv2.dilate(imageless.astype(np.uint8), shape, iterations=_OPEN_GROWTH)
    percent[grown > 0] = NODATA
    return percent


def predict_whole(features: NDArray[np.float32], network: Network) -> NDArray[np.float32]:
    """Answer 0..1 to the whole tile at once, float32 ``[h, w]``, with mirrored surroundings."""
    height, width = features.shape[1:3]
    rows, columns = (
        # Poolings inside the network halve the sides twice.
        mirrored(-network.border, side + network.border + (-side - 2 * network.border) % _ALIGNMENT,
                 side)
        for side in (height, width)
    )  # fmt: skip
    return network(_normalised(features, rows, columns))[0, :height, :width]


def predict_windows(
    features: NDArray[np.float32],
    network: Network,
    keep: NDArray[np.float32],
    hidden: NDArray[np.bool_] | None = None,
    *,
    compat: bool = False,
) -> NDArray[np.float32]:
    """Mosaic of overlapping windows.

    Args:
        features: ``[5, h, w, 17]``.
        network: answers windows of its own size, one by one, as many at a time as it has streams.
        keep: share of the answer that counts, ``[h, w]``, see :func:`bare_ground_factor`.
        hidden: pixels without a clear date; blocks of them become no data in the way of the
            existing pipeline, in windows that do not touch the tile's edge.
        compat: six windows on each side whatever its length.

    Returns:
        float32 ``[h, w]``: 0..1, NaN where no window counts, more than 1 where hidden.
    """
    height, width = features.shape[1:3]
    side = network.output_size
    places = [
        (top, left)
        for top in window_starts(height, side, compat=compat)
        for left in window_starts(width, side, compat=compat)
    ]

    def answer(place: tuple[int, int]) -> NDArray[np.float32]:
        rows, columns = (
            mirrored(start - network.border, start + side + network.border, length)
            for start, length in zip(place, (height, width), strict=True)
        )
        return network(_normalised(features, rows, columns))[0]

    with ThreadPoolExecutor(network.streams) as threads:
        windows = np.stack(list(threads.map(answer, places)))
    for (top, left), window in zip(places, windows, strict=True):
        part = slice(top, top + side), slice(left, left + side)
        kept = keep[part]
        visible = window[: kept.shape[0], : kept.shape[1]]
        visible[:] = np.round(visible * kept, 3)
        inside = 0 < top < height - side and 0 < left < width - side
        if hidden is not None and inside:
            visible[hidden_blocks(hidden[part])] = NODATA / 100
    return _mosaic(windows, places, (height, width))


def window_starts(length: int, side: int, *, compat: bool = False) -> list[int]:
    """Where windows begin along one axis; the last ends with the tile.

    Published tiles of 618 pixels have six windows of 158. Other lengths have as many as overlap by
    a third, with ``compat`` always six. A shorter axis has one, which begins at 0.
    """
    reach = length - side
    if reach <= 0:
        return [0]
    steps = _WINDOWS - 1 if compat else math.ceil(reach / (_FARTHEST * side))
    stride = -(-reach // steps)
    return [*range(0, min(stride * steps, reach), stride), reach]


def mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices ``start`` to ``stop`` of an axis that goes on mirrored about its end pixels."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    index = np.arange(start, stop) % period
    return np.minimum(index, period - index)


def gaussian_weights(side: int = _GAUSSIAN_SIDE) -> NDArray[np.float64]:
    """Weight of each pixel of a window, ``[side, side]``: 1 in the middle, falling outwards."""
    offset = np.arange(side) - (side // 2 - 1)
    sigma = _GAUSSIAN_SIGMA * side / _GAUSSIAN_SIDE
    line = offset**2 / (2 * sigma**2)
    return np.exp(-(line[:, None] + line[None]))


def bare_ground_factor(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the answer that counts: 0 on bright bare ground, 1 from three pixels off.

    Bright and bare is a pixel with B8 / (B11 + 0.01) < 0.9, a mean of B2, B3 and B4 above 0.2 and
    EVI < 0.3 in more than one frame. Float32 ``[h, w]``.
    """
    near_infrared, swir, evi = (features[..., CHANNELS.index(n)] for n in ("B8", "B11", "EVI"))
    bare = near_infrared < 0.9 * (swir + 0.01)
    bare &= features[..., :3].mean(axis=-1) > 0.2
    bare &= evi < 0.3
    often = (bare.sum(axis=0) > 1).astype(np.uint8)
    marked = cv2.dilate(cv2.erode(often, _CROSS, iterations=2), _CROSS)
    if not marked.any():
        return np.ones(marked.shape, np.float32)
    free = (marked == 0).astype(np.uint8)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.minimum(distance, _FULL_COVER) / _FULL_COVER, np.float32)


def hidden_blocks(unseen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks of 40 x 40 pixels of which more than a quarter has no clear date, ``[h, w]``.

    What is too small to matter (less than 13 pixels across) is left out first, the rest grows by 6
    pixels.
    """
    kernel, growth = _SQUARE, _UNSEEN_GROWTH
    lasting = cv2.erode(unseen.astype(np.uint8), kernel, iterations=growth)
    marked = cv2.dilate(lasting, kernel, iterations=2 * growth)
    starts = [np.arange(0, side, _UNSEEN_BLOCK) for side in marked.shape]
    sums = np.add.reduceat(marked.astype(np.float64), starts[0], axis=0)
    sums = np.add.reduceat(sums, starts[1], axis=1)
    sizes = [np.diff([*s, side]) for s, side in zip(starts, marked.shape, strict=True)]
    chosen = sums > _UNSEEN_SHARE * np.outer(*sizes)
    return chosen.repeat(sizes[0], axis=0).repeat(sizes[1], axis=1)


def agreement(
    windows: NDArray[np.float32], places: list[tuple[int, int]], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Multiplier of each window's weight, at most 1.5, smaller the more it differs from the rest.

    It is the median difference of all windows over the own one. The difference of a window is the
    mean of its absolute difference from the mean of the others, where there are others.
    """
    total, count = np.zeros(shape), np.zeros(shape)
    for place, window in zip(places, windows, strict=True):
        part = _part(place, window, shape)
        total[part] += _visible(window, part)
        count[part] += 1
    differences = np.zeros(len(windows))
    for index, (place, window) in enumerate(zip(places, windows, strict=True)):
        part = _part(place, window, shape)
        own, shared = _visible(window, part), count[part] > 1
        if shared.any():
            others = (total[part] - own)[shared] / (count[part][shared] - 1)
            differences[index] = 100 * np.abs(own[shared] - others).mean()
    if not (differences > 0).all():
        return np.ones(len(windows))
    return np.minimum(np.median(differences) / differences, _LARGEST_MULTIPLIER)


def _mosaic(
    windows: NDArray[np.float32], places: list[tuple[int, int]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    gaussian = gaussian_weights(windows.shape[1])
    cover, weight = np.zeros(shape), np.zeros(shape)
    for place, window, multiplier in zip(
        places, windows, agreement(windows, places, shape), strict=True
    ):
        part = _part(place, window, shape)
        own = multiplier * _visible(gaussian, part)
        cover[part] += own * _visible(window, part)
        weight[part] += own
    result = np.full(shape, np.nan, np.float32)
    np.divide(cover, weight, out=result, where=weight > 0, casting="same_kind")
    return result


def _part(
    place: tuple[int, int], window: NDArray[np.floating], shape: tuple[int, int]
) -> tuple[slice, slice]:
    rows, columns = (
        slice(start, min(start + side, length))
        for start, side, length in zip(place, window.shape, shape, strict=True)
    )
    return rows, columns


def _visible[T: np.floating](window: NDArray[T], part: tuple[slice, slice]) -> NDArray[T]:
    """The part of a window that lies on the tile, where the tile is smaller."""
    rows, columns = (p.stop - p.start for p in part)
    return window[:rows, :columns]


def _normalised(
    features: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    return normalise(features[:, rows[:, None], columns])[None]


def _published(percent: NDArray[np.float32], *, compat: bool) -> NDArray[np.uint8]:
    """Whole percents, low ones 0, impossible ones no data."""
    impossible = ~(percent <= 100 + _ROUNDING)
    percent = np.where(impossible, 0, percent)
    if compat:
        result = np.where(percent <= LOWEST + _ROUNDING, 0, percent).astype(np.uint8)
    else:
        result = np.floor(percent + _ROUNDING).astype(np.uint8)
        result[result <= LOWEST] = 0
    result[impossible] = NODATA
    return result
