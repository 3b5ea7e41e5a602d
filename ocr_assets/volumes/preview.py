"""A small picture of a page with its lines, for the UI.

Belongs here: drawing it. Does not belong here: finding the lines.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

_LARGEST_SIDE = 640
_BOX_COLOUR = (40, 40, 210)


def page_preview(
    pixels: NDArray[np.bool_] | NDArray[np.uint8], boxes: Iterable[tuple[int, int, int, int]]
) -> bytes:
    """A page with boxes drawn on it, as PNG.

    Args:
        pixels: bool ``[h, w]`` with True for ink, or uint8 grey ``[h, w]``.
        boxes: (x, y, width, height) in its pixels.
    """
    grey = np.where(pixels, np.uint8(0), np.uint8(255)) if pixels.dtype == np.bool_ else pixels
    height, width = grey.shape
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(grey.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    for x, y, box_width, box_height in boxes:
        corner = round(x * scale), round(y * scale)
        opposite = round((x + box_width) * scale), round((y + box_height) * scale)
        cv2.rectangle(picture, corner, opposite, _BOX_COLOUR, 1)
    return cv2.imencode(".png", picture)[1].tobytes()
