"""Connected pieces of ink: their labels, boxes and areas, and picking some of them out.

Belongs here: passes over all pixels of a page. Does not belong here: judging what a piece is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pieces:
    """The 8-connected pieces of a page, numbered from 1; 0 is what is no ink.

    ``labels`` is int32 ``[h, w]``. ``stats`` is int32 ``[n + 1, 5]``: left, top, width, height and
    area in pixels of each piece; the row of 0 means nothing.
    """

    labels: NDArray[np.int32]
    stats: NDArray[np.int32]

    @property
    def left(self) -> NDArray[np.int32]:
        """Left edge of each piece."""
        return self.stats[:, 0]

    @property
    def top(self) -> NDArray[np.int32]:
        """Upper edge of each piece."""
        return self.stats[:, 1]

    @property
    def width(self) -> NDArray[np.int32]:
        """Width of each piece."""
        return self.stats[:, 2]

    @property
    def height(self) -> NDArray[np.int32]:
        """Height of each piece."""
        return self.stats[:, 3]

    @property
    def area(self) -> NDArray[np.int32]:
        """Number of pixels of each piece."""
        return self.stats[:, 4]

    def __len__(self) -> int:
        """Number of rows of ``stats``."""
        return len(self.stats)

    def mask(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels of the chosen pieces: bool ``[h, w]``; ``chosen`` is bool ``[n + 1]``."""
        return np.asarray(_picked(self.labels, chosen))

    def overlap(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Pixels of each piece on a mask bool ``[h, w]``: int64 ``[n + 1]``."""
        return np.bincount(self.labels[mask], minlength=len(self))


def find_pieces(ink: NDArray[np.bool_]) -> Pieces:
    """The connected pieces of ink bool ``[h, w]``."""
    count, labels = cv2.connectedComponents(ink.view(np.uint8))
    # OpenCV's own statistics take most of the time that they come with: they keep centroids too.
    return Pieces(np.asarray(labels, np.int32), _statistics(labels, count))


@njit(cache=True, nogil=True)
def _statistics(labels, count):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    stats = np.zeros((count, 5), np.int32)
    stats[:, 0] = width
    stats[:, 1] = height
    for y in range(height):
        for x in range(width):
            piece = labels[y, x]
            if piece:
                row = stats[piece]
                if x < row[0]:
                    row[0] = x
                if y < row[1]:
                    row[1] = y
                if x >= row[2]:
                    row[2] = x + 1
                row[3] = y + 1
                row[4] += 1
    for piece in range(count):
        stats[piece, 2] -= stats[piece, 0]
        stats[piece, 3] -= stats[piece, 1]
    return stats


@njit(cache=True, nogil=True)
def _picked(labels, chosen):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    mask = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            piece = labels[y, x]
            if piece:
                mask[y, x] = chosen[piece]
    return mask
