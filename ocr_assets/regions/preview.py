"""Previews: the score of a region as a small picture.

Belongs here: the score palette, and turning an array of risk into the bytes of an image.
Does not belong here: where a score's breaks lie, which its type of risk says, and showing or
storing the picture.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numba import njit
from numpy.typing import NDArray
from PIL import Image

from ocr_assets.regions.risk_type import NO_SCORE, Classes

PALETTE = (
    "#a9b2bd",
    "#f4e67e",
    "#f9cb35",
    "#fba60b",
    "#f57f14",
    "#e4572e",
    "#c43c4e",
    "#9b2964",
    "#6f196e",
    "#430a68",
    "#170b3b",
)
"""Colour of each risk score 0 to 10, the same as on the map page.

Score 0 is grey, so that "no risk" differs from "no data", which is transparent. From 1 to 10 the
colours only grow darker, also as seen with any common colour blindness.
"""


def score_preview(score: Classes, values: NDArray[np.float32], max_side: int = 320) -> bytes:
    """PNG of a score, north up, at most ``max_side`` pixels on its longer side.

    Args:
        score: 0 to 10 of the values.
        values: of its variable, shape ``(rows from the south, cols)``, NaN = no data.
        max_side: a larger region is reduced to the mean of square blocks of pixels. The mean shows
            what the area is like; a maximum would paint whole regions in the colour of few pixels.

    A block with any data is coloured by the score of its mean, a block without is transparent.

    Raises:
        ValueError: there are no pixels or not two dimensions, or the score refuses a value.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a preview needs rows and columns of pixels, found shape {values.shape}")
    side = -(-max(values.shape) // max_side)
    means = _block_means(np.ascontiguousarray(values, np.float32), side)
    scores = score.classify(means, "corrected")
    indices = np.where(scores == NO_SCORE, len(PALETTE), scores).astype(np.uint8)
    image = Image.fromarray(indices[::-1])
    image.putpalette(bytes.fromhex("".join(colour[1:] for colour in PALETTE)) + bytes(3))
    file = BytesIO()
    image.save(file, "PNG", transparency=len(PALETTE))
    return file.getvalue()


@njit(cache=True, nogil=True)
def _block_means(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Mean without NaN of each block of ``side`` x ``side``, smaller at the far edges."""
    rows, cols = values.shape
    means = np.empty((-(-rows // side), -(-cols // side)), np.float32)
    # Column sums first: this inner loop has no dependency, so the compiler vectorises it.
    sums = np.empty(cols, np.float32)
    counts = np.empty(cols, np.float32)
    for block_row in range(means.shape[0]):
        sums[:] = 0
        counts[:] = 0
        for row in range(block_row * side, min(rows, (block_row + 1) * side)):
            for col in range(cols):
                value = values[row, col]
                valid = value == value
                sums[col] += value if valid else np.float32(0)
                counts[col] += np.float32(1) if valid else np.float32(0)
        for block_col in range(means.shape[1]):
            total = 0.0
            count = 0.0
            for col in range(block_col * side, min(cols, (block_col + 1) * side)):
                total += sums[col]
                count += counts[col]
            means[block_row, block_col] = total / count if count else np.nan
    return means
