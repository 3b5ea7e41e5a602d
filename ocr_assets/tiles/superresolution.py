"""Bands of 20 m with the detail of 10 m.

Belongs here: running a super-resolution network over a tile.
Does not belong here: the network, interpolation.

The network sees the whole tile at once: its answer at a pixel depends on the pixels around, and
any cut would show as a seam. Dates are run one by one, which bounds the memory.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.reflectance import BANDS, FINE

WINDOW, MARGIN = 110, 4
"""Pixels of the side of the windows that ``compat`` cuts, and of the mirrored edge around each."""


class SuperResolution(Protocol):
    """A super-resolution network, such as ``networks.SuperResolutionNetwork``."""

    def __call__(
        self, bands: NDArray[np.float32], coarse: NDArray[np.float32], /
    ) -> NDArray[np.float32]:
        """Sharpen ``coarse`` ``[n, h, w, 6]`` by ``bands`` ``[n, h, w, 10]``; the same shape."""


class SuperResolutionError(ValueError):
    """A network gave something that is not reflectance; the message says where."""


def sharpen(bands: NDArray[np.float32], network: SuperResolution, *, compat: bool = False) -> None:
    """Replace the six coarse bands of one date by what the network makes of them.

    Args:
        bands: reflectance ``[10, H, W]``, the coarse bands interpolated; changed in place.
        network: takes the bands last.
        compat: run windows of 110 pixels with a mirrored edge of 4, and leave out the strip on
            the right that the windows of the last column alone reach, except in its corner,
            which is sharpened twice where its window overlaps the one before.

    Raises:
        SuperResolutionError: the answer is of another shape or not finite.
    """
    image = np.ascontiguousarray(np.moveaxis(bands, 0, -1))
    if compat:
        _sharpen_windows(image, network)
        bands[FINE:] = np.moveaxis(image[..., FINE:], -1, 0)
    else:
        bands[FINE:] = np.moveaxis(_run(image, network), -1, 0)


def _run(image: NDArray[np.float32], network: SuperResolution) -> NDArray[np.float32]:
    """The six sharpened bands of ``[h, w, 10]``."""
    coarse = np.ascontiguousarray(image[..., FINE:])
    sharp = network(image[None], coarse[None])
    if sharp.shape != (1, *coarse.shape):
        raise SuperResolutionError(
            f"the super-resolution network gave {sharp.shape} for {(1, *coarse.shape)}; choose a "
            "network of the documented contract"
        )
    faults = ~np.isfinite(sharp[0])
    if faults.any():
        row, col, band = (int(index) for index in np.argwhere(faults)[0])
        raise SuperResolutionError(
            f"the super-resolution network gave {sharp[0, row, col, band]} for {BANDS[FINE + band]}"
            f" at row {row}, column {col}; check the file of the network"
        )
    return sharp[0]


def _sharpen_windows(image: NDArray[np.float32], network: SuperResolution) -> None:
    original = image.copy()
    rows, cols = (max(size - WINDOW, 0) for size in image.shape[:2])
    for row in _starts(rows):
        for col in _starts(cols):
            corner = row == rows and col == cols
            if col == cols and not corner:
                continue
            window = np.s_[row : row + WINDOW, col : col + WINDOW]
            # Only the corner is fed what has been sharpened already.
            source = (image if corner else original)[window]
            padded = np.pad(source, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="reflect")
            image[(*window, slice(FINE, None))] = _run(padded, network)[
                MARGIN:-MARGIN, MARGIN:-MARGIN
            ]


def _starts(last: int) -> list[int]:
    return [*range(0, last, WINDOW), last]
