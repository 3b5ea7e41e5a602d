"""Row profiles of a page: how much of each row is set, in strips side by side.

Belongs here: the sums that skew, bow and orientation are judged by.
Does not belong here: the judging.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def strip_profiles(mask: NDArray[np.bool_], count: int) -> NDArray[np.float32]:
    """Share of set pixels in each row of ``count`` vertical strips, times 255.

    The strips have equal whole widths; fewer columns than a strip has are left out at the right.

    Args:
        mask: bool ``[h, w]``.
        count: number of strips, at most ``w``.

    Returns:
        float32 ``[count, h]``.
    """
    step = mask.shape[1] // count
    levels = np.rint(np.float32(255) * np.arange(step + 1, dtype=np.float32) / np.float32(step))
    return np.asarray(_strip_sums(mask.view(np.uint8), count, step, levels))


@njit(cache=True, nogil=True)
def _strip_sums(mask, count, step, levels):  # type: ignore[no-untyped-def]
    height = mask.shape[0]
    sums = np.empty((count, height), np.float32)
    for y in range(height):
        for strip in range(count):
            total = 0
            for x in range(strip * step, (strip + 1) * step):
                total += mask[y, x]
            sums[strip, y] = levels[total]
    return sums


def upper_edges(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ink pixels with no ink right above: bool ``[h, w]``."""
    edges = ink.copy()
    edges[1:] &= ~ink[:-1]
    return edges


def lower_edges(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ink pixels with no ink right below: bool ``[h, w]``."""
    edges = ink.copy()
    edges[:-1] &= ~ink[1:]
    return edges
