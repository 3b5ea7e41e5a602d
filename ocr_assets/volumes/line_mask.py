"""Where a segmentation model sees lines of text on a page.

Belongs here: cutting a page into the tiles that the model takes, and putting its answer together.
Does not belong here: running the network, and making lines out of the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.line_images import WHITE, black_and_white
from ocr_assets.volumes.models import SegmentationModel

_WIDEST, _HIGHEST, _LOWEST = 4096, 2048, 512
_LINE_PROBABILITY, _LAYOUT_PROBABILITY = 0.9, 0.8
_TILES_PER_CALL = 8


def line_mask(
    page: NDArray[np.uint8],
    model: SegmentationModel,
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.bool_]:
    """Mark the lines of a page.

    Args:
        page: uint8 grey ``[h, w]``, dark text on light ground.
        model: description of the model.
        network: the model ready to run, from tiles float32 ``[n, 3, y, x]`` to raw scores float32
            ``[n, class, y, x]``.

    Returns:
        bool ``[h, w]``, true in lines of text.
    """
    height, width = page.shape
    scale = _scale(height, width)
    fitted = cv2.resize(
        page,
        (max(1, round(width * scale)), max(1, round(height * scale))),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    size = model.patch_size
    rows, columns = (-(-side // size) for side in fitted.shape)
    frame = np.full((rows * size, columns * size), WHITE, np.uint8)
    # The whole page at once, so that no seams appear between tiles, nor at the edge of the page.
    frame[: fitted.shape[0], : fitted.shape[1]] = black_and_white(np.asarray(fitted, np.uint8))
    tiles = frame.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, 1, size, size)
    marked = np.concatenate(
        [
            _lines(network(_channels(tiles[start : start + _TILES_PER_CALL])), model)
            for start in range(0, len(tiles), _TILES_PER_CALL)
        ]
    )
    stitched = marked.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(frame.shape)
    mask = stitched[: fitted.shape[0], : fitted.shape[1]].astype(np.uint8)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), bool)


def _scale(height: int, width: int) -> float:
    if width > height and width > _WIDEST:
        return _WIDEST / width
    if height > width and height > _HIGHEST:
        return _HIGHEST / height
    return max(1.0, _LOWEST / height)


def _channels(tiles: NDArray[Any]) -> NDArray[np.float32]:
    return np.repeat(tiles.astype(np.float32) * np.float32(1 / 255), 3, axis=1)


def _lines(scores: NDArray[np.float32], model: SegmentationModel) -> NDArray[np.bool_]:
    if not model.classes:
        # The logistic function of a score is above p where the score is above log(p / (1 - p)).
        return scores[:, 0] > np.log(_LINE_PROBABILITY / (1 - _LINE_PROBABILITY))
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    line = scores[:, model.classes.index("line")]
    return np.asarray(line > _LAYOUT_PROBABILITY * scores.sum(axis=1), bool)
