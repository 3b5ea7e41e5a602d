"""Frames, ruled lines and pictures: ink that is no text.

Belongs here: finding such ink on a levelled page, and the size of the letters it is judged by.
Does not belong here: deciding what the ruled fields of a page mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.components import find_pieces

_LARGE = 0.06
"""Part of the page's height from which a piece may be a field of a chart."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """Ink of rules and pictures, and where the long rules are.

    ``mask`` is bool ``[h, w]``. ``vertical`` and ``horizontal`` hold a row
    ``(x, y, width, height)`` in pixels for each long rule.
    """

    mask: NDArray[np.bool_]
    vertical: NDArray[np.int32]
    horizontal: NDArray[np.int32]

    def half_turned(self) -> Ruling:
        """The ruling of the page turned by 180 degrees."""
        height, width = self.mask.shape

        def turned(boxes: NDArray[np.int32]) -> NDArray[np.int32]:
            x, y, w, h = boxes.T
            return np.stack([width - x - w, height - y - h, w, h], axis=1)

        return Ruling(
            np.ascontiguousarray(self.mask[::-1, ::-1]),
            turned(self.vertical),
            turned(self.horizontal),
        )


@dataclass(frozen=True, slots=True)
class Letters:
    """What looks like letters: ``ink`` bool ``[h, w]``; ``size``, the usual height of a letter
    stack in pixels, or 0.0 where there are none; ``count`` of connected pieces."""

    ink: NDArray[np.bool_]
    size: float
    count: int


def find_letters(ink: NDArray[np.bool_]) -> Letters:
    """The connected pieces of a page that may be letters, and their size.

    The size is the median height of the pieces, each weighted by its area, so that dots count
    little; pieces too long for letters count not at all.
    """
    height, width = ink.shape
    pieces = find_pieces(ink)
    w, h, area = pieces.width, pieces.height, pieces.area
    letter = (h >= 5) & (w >= 2) & (w < 0.3 * width) & (h < 0.5 * height)
    letter &= (w < 8 * h) & (h < 8 * w + 8)
    # Solid fields, as on a colour chart.
    letter &= (area < 0.9 * w * h) | (np.minimum(w, h) < 12) | (h > 3 * w)
    letter[0] = False
    for piece in np.flatnonzero(letter & (h > _LARGE * height)):
        x, y = pieces.left[piece], pieces.top[piece]
        letter[piece] = not _is_box(pieces.labels[y : y + h[piece], x : x + w[piece]] == piece)
    if not letter.any():
        return Letters(np.zeros_like(ink), 0.0, 0)
    h, area = h[letter], area[letter]
    order = np.argsort(h)
    total = np.cumsum(area[order])
    size = float(h[order][np.searchsorted(total, total[-1] / 2)])
    return Letters(pieces.mask(letter), size, int(letter.sum()))


def _is_box(piece: NDArray[np.bool_]) -> bool:
    """Whether a piece fills all four edges of its bounding box, as no letter does."""
    edges = (piece[0], piece[-1], piece[:, 0], piece[:, -1])
    return min(float(edge.mean()) for edge in edges) > 0.8


def find_ruling(ink: NDArray[np.bool_], size: float) -> Ruling:
    """Rules, frames and solid pictures of a level page with letters of ``size`` pixels."""
    vertical_mask, vertical = _rules(ink, size, upright=True)
    horizontal_mask, horizontal = _rules(ink, size, upright=False)
    mask = vertical_mask | horizontal_mask
    mask |= _thin_pieces(ink & ~mask, mask, size)
    return Ruling(mask | _pictures(ink & ~mask, size), vertical, horizontal)


def _pictures(ink: NDArray[np.bool_], size: float) -> NDArray[np.bool_]:
    """Pieces with a solid core larger than any stroke."""
    side = max(3, round(0.9 * size))
    core = cv2.morphologyEx(ink.view(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    if not core.any():
        return np.zeros(ink.shape, bool)
    pieces = find_pieces(ink)
    return pieces.mask(pieces.overlap(np.asarray(core, bool)) > 0)


def _thin_pieces(ink: NDArray[np.bool_], mask: NDArray[np.bool_], size: float) -> NDArray[np.bool_]:
    """Frames and bent rules that no letter touches, and splinters of the rules in ``mask``."""
    pieces = find_pieces(ink)
    width, height, area = pieces.width, pieces.height, pieces.area
    thin = (np.maximum(width, height) > 7 * size) & (area < 0.2 * size * (width + height))
    if mask.any():
        reach = 2 * max(1, round(0.12 * size)) + 1
        near = cv2.dilate(mask.view(np.uint8), np.ones((reach, reach), np.uint8))
        thin |= pieces.overlap(np.asarray(near, bool)) > 0.7 * area
        thin |= (width > 6 * height) & (height < 0.25 * size) & (width > 0.6 * size)
    return pieces.mask(thin)


def _rules(
    ink: NDArray[np.bool_], size: float, *, upright: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Mask and boxes of straight strokes longer than any stroke of a letter."""
    # A scanned rule wavers by a pixel, so strokes are widened across before they are measured.
    run = max(12, round((2.6 if upright else 4.0) * size))
    across = np.ones((1, 3) if upright else (3, 1), np.uint8)
    along = np.ones((run, 1) if upright else (1, run), np.uint8)
    strokes = cv2.morphologyEx(cv2.dilate(ink.view(np.uint8), across), cv2.MORPH_OPEN, along)
    if not strokes.any():
        return np.zeros(ink.shape, bool), np.zeros((0, 4), np.int32)
    pieces = find_pieces(strokes.view(bool))
    length = pieces.height if upright else pieces.width
    thickness = pieces.area / np.maximum(1, length)
    keep = (length >= (4.0 if upright else 7.0) * size) & (thickness <= 0.9 * size)
    keep[0] = False
    return pieces.mask(keep) & ink, pieces.stats[keep][:, :4]
