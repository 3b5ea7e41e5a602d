"""From a page image to a small working page: even ground, and the pixels that are ink.

Belongs here: reduction, background flattening, thresholds, polarity, dark scan borders.
Does not belong here: decoding of files, and anything that knows about lines of text.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.volumes.components import find_pieces

WORKING_PIXELS = 1_200_000
"""A page is reduced by the whole factor that brings it near this many pixels."""

_BACKGROUND_CELLS = 96
_INK_SHARE_OF_INVERTED = 0.6
_DARKEST_PAPER = 0.35
_BILEVEL_THRESHOLD = 144


@dataclass(frozen=True, slots=True)
class WorkingPage:
    """A reduced page. ``grey`` is uint8 ``[h, w]``, ground near 255; ``ink`` is bool ``[h, w]``.

    ``factor`` original pixels make one working pixel, on both axes. ``inverted`` tells that the
    page was light text on dark ground.
    """

    grey: NDArray[np.uint8]
    ink: NDArray[np.bool_]
    factor: int
    inverted: bool = False


def reduction_factor(height: int, width: int, pixels: int = WORKING_PIXELS) -> int:
    """The whole factor by which a page of ``height`` x ``width`` pixels is reduced."""
    return max(1, round((height * width / pixels) ** 0.5))


def working_page(image: NDArray[np.bool_] | NDArray[np.uint8]) -> WorkingPage:
    """Reduce a page and find its ink.

    Args:
        image: bool ``[h, w]`` with True for ink, or uint8 grey ``[h, w]``.

    Raises:
        ValueError: the array is not one of the two, or has no pixels.
    """
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.bool_, np.uint8):
        raise ValueError(
            f"a page is a bool or uint8 array [h, w], found {image.dtype} {image.shape}"
        )
    height, width = image.shape
    factor = reduction_factor(height, width)
    grey = even_grey(image, factor, inverted=False)
    level = _BILEVEL_THRESHOLD if image.dtype == np.bool_ else _threshold(grey)
    ink = grey < level
    inverted = bool(ink.mean() > _INK_SHARE_OF_INVERTED)
    if inverted:
        grey = even_grey(image, factor, inverted=True)
        ink = grey < (level if image.dtype == np.bool_ else _threshold(grey))
    grey, ink = _without_borders(grey, ink)
    return WorkingPage(grey, ink, factor, inverted)


def even_grey(
    image: NDArray[np.bool_] | NDArray[np.uint8], factor: int, *, inverted: bool
) -> NDArray[np.uint8]:
    """The reduced page with its ground made light and, where it is a grey scan, even."""
    grey = reduced(image, factor)
    grey = ~grey if inverted else grey
    return grey if image.dtype == np.bool_ else _flatten(grey)


def reduced(image: NDArray[np.bool_] | NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean grey of ``factor`` x ``factor`` pixels: uint8 ``[h // factor, w // factor]``.

    Of a bool image (True for ink) the ground becomes 255. A side shorter than ``factor`` gives one
    pixel.
    """
    bilevel = image.dtype == np.bool_
    pixels = image.view(np.uint8)
    height, width = (max(1, side // factor) for side in image.shape)
    if bilevel and factor > 2 and min(image.shape) >= factor:
        return np.asarray(_reduced_ink(pixels, factor, _grey_levels(factor * factor)))
    # Two's complement turns 0 and 1 into 0 and 255 in one pass over a large array.
    whole = (np.negative(pixels) if bilevel else pixels)[: height * factor, : width * factor]
    if factor > 1:
        whole = np.asarray(
            cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
    return ~whole if bilevel else whole


def _grey_levels(area: int) -> NDArray[np.uint8]:
    """Grey of so many pixels of ink among ``area``: uint8 ``[area + 1]``, rounded as by OpenCV."""
    ink = np.float32(255) * np.arange(area + 1, dtype=np.float32)
    return (255 - np.rint(ink * np.float32(1 / area))).astype(np.uint8)


@njit(cache=True, nogil=True)
def _reduced_ink(ink, factor, levels):  # type: ignore[no-untyped-def]
    """Twice as fast as OpenCV, and without a copy of a page of tens of millions of pixels."""
    height, width = ink.shape[0] // factor, ink.shape[1] // factor
    grey = np.empty((height, width), np.uint8)
    sums = np.empty(width * factor, np.uint16)
    for y in range(height):
        sums[:] = 0
        for row in range(y * factor, (y + 1) * factor):
            for x in range(width * factor):
                sums[x] += ink[row, x]
        for x in range(width):
            count = 0
            for column in range(x * factor, (x + 1) * factor):
                count += sums[column]
            grey[y, x] = levels[count]
    return grey


def _flatten(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide by the paper's brightness, taken as a high local level of a coarse copy."""
    height, width = grey.shape
    step = max(1, round((height * width) ** 0.5 / _BACKGROUND_CELLS))
    coarse = cv2.resize(
        grey, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA
    )
    paper = cv2.dilate(coarse, np.ones((5, 5), np.uint8))
    paper = cv2.medianBlur(paper, 5) if min(paper.shape) >= 5 else paper
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    # A dark picture is not paper in the shade.
    darkest = max(16.0, _DARKEST_PAPER * float(np.quantile(coarse, 0.9)))
    even = cv2.divide(grey, np.maximum(np.asarray(paper), np.uint8(darkest)), scale=245.0)
    return np.asarray(even, np.uint8)


def _threshold(grey: NDArray[np.uint8]) -> int:
    """Otsu's threshold of a flattened page, kept where ink on paper can be."""
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return int(np.clip(level, 110, 200))


def _without_borders(
    grey: NDArray[np.uint8], ink: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Whiten solid dark bands that touch the image's edge: the scanner bed beyond the page."""
    height, width = ink.shape
    edge = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    if edge.mean() < 0.02:
        return grey, ink
    side = max(3, min(height, width) // 60)
    solid = cv2.morphologyEx(ink.view(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    pieces = find_pieces(solid.view(bool))
    x, y, w, h = pieces.left, pieces.top, pieces.width, pieces.height
    outer = (x <= 1) | (y <= 1) | (x + w >= width - 1) | (y + h >= height - 1)
    outer &= np.maximum(w, h) > 4 * side
    outer[0] = False
    if not outer.any():
        return grey, ink
    band = cv2.dilate(pieces.mask(outer).view(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    return np.where(band, np.uint8(255), grey), ink & ~band
