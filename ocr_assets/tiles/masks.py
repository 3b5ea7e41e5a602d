"""Morphology of masks over the pixels of a tile.

Belongs here: erosion, dilation, distances and closing of two-dimensional arrays.
Does not belong here: what a mask means.

What lies beyond the edges of the tile is unknown: nothing grows in from there, and nothing is
eroded from there.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def dilate(mask: Mask, steps: int) -> Mask:
    """Grow by ``steps`` pixels along rows and columns (a diamond)."""
    return cv2.dilate(mask.view(np.uint8), _CROSS, iterations=steps).view(np.bool_)


def erode(mask: Mask, steps: int) -> Mask:
    """Shrink by ``steps`` pixels along rows and columns."""
    return cv2.erode(mask.view(np.uint8), _CROSS, iterations=steps).view(np.bool_)


def open_mask(mask: Mask, shrink: int, grow: int) -> Mask:
    """Remove what is narrower than ``2 * shrink`` pixels, then grow the rest by ``grow``."""
    return dilate(erode(mask, shrink), grow)


def distance(mask: Mask) -> NDArray[np.float32]:
    """Euclidean distance, in pixels, to the nearest pixel of ``mask``; infinite without one."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    outside = np.logical_not(mask).view(np.uint8)
    return np.asarray(
        cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32
    )


def within(mask: Mask, radius: float) -> Mask:
    """Pixels at most ``radius`` pixels from ``mask``."""
    return distance(mask) <= radius


def count_nearby(mask: Mask) -> NDArray[np.uint8]:
    """How many of the 3 x 3 pixels around each are set, itself included."""
    ones = mask.view(np.uint8)
    count = cv2.boxFilter(ones, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(count, np.uint8)


def close_grey(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Grey closing with a square of ``size`` pixels: no value falls, narrow valleys are filled."""
    square = np.ones((size, size), np.uint8)
    # The two anchors mirror each other, or squares of even size would shift the values.
    anchor, mirrored = size // 2, size - 1 - size // 2
    raised = cv2.dilate(values, square, anchor=(anchor, anchor))
    return np.asarray(cv2.erode(raised, square, anchor=(mirrored, mirrored)), np.float32)
