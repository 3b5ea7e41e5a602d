"""From stored integers to aligned reflectance, backscatter and slope at 10 m.

Belongs here: scaling, bringing coarser grids onto the 10 m grid, decibels, and which pixels and
dates lack data.
Does not belong here: clouds, what is done along time.

Reflectance of a date is held band by band, ``[band, row, col]``, in the order of :data:`BANDS`.
"""

from __future__ import annotations

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M, QUARTERS, SCALE, Sentinel1, Sentinel2
from ocr_assets.tiles.masks import Mask

BANDS = BANDS_10M + BANDS_20M
"""Order of the bands in every cube of reflectance."""

FINE, COARSE = len(BANDS_10M), len(BANDS_20M)
B2, B3, B4, B8, B5, B6, B7, B8A, B11, B12 = range(len(BANDS))

LEAST_DATES = 3
"""Dates without which clouds cannot be told from bright ground."""

MOST_MISSING = 1 / 11
"""Share of pixels without data from which a date is dropped, while three remain."""

SLOPE_WINDOW = 5
"""Pixels of the side of the median filter of slope."""

DECIBEL_FLOOR = np.float32(-22)
"""Decibels of backscatter that become 0; no attenuation becomes 1."""


def reflectance(sentinel2: Sentinel2, date: int) -> NDArray[np.float32]:
    """Reflectance of one date at 10 m, ``[10, H, W]``, 0 where there is no data.

    B11 and B12 pass through 40 m, which is the resolution that the published networks know.
    """
    rows, cols = sentinel2.bands10.shape[1:3]
    bands = np.empty((len(BANDS), rows, cols), np.float32)
    scale = np.float32(1 / SCALE)
    for band, plane in enumerate(cv2.split(sentinel2.bands10[date])):
        np.multiply(plane, scale, out=bands[band])
    for band, plane in enumerate(cv2.split(sentinel2.bands20[date]), FINE):
        coarse = plane * scale
        bands[band] = from_40m(coarse) if band in (B11, B12) else enlarge(coarse, 2)
    return bands


def missing_pixels(sentinel2: Sentinel2, date: int) -> Mask:
    """Pixels of one date at 10 m where more than one band is empty or saturated."""
    fine = _unusable_bands(sentinel2.bands10[date])
    coarse = _unusable_bands(sentinel2.bands20[date])
    return fine + coarse.repeat(2, axis=0).repeat(2, axis=1) > 1


def complete_dates(missing_shares: NDArray[np.floating]) -> list[int]:
    """Dates with enough data, in order.

    Those with less than :data:`MOST_MISSING` missing; should fewer than three have so much, the
    three that lack least, of those that have any data.
    """
    enough = np.flatnonzero(missing_shares < MOST_MISSING)
    if len(enough) >= LEAST_DATES:
        return enough.tolist()
    by_share = np.argsort(missing_shares, kind="stable")[:LEAST_DATES]
    return sorted(int(date) for date in by_share if missing_shares[date] < 1)


def enlarge(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Bilinear interpolation onto pixels ``factor`` times as small; the outer edges coincide.

    Beyond the outermost pixel centres the image is mirrored.
    """
    rows, cols = image.shape
    size = (cols * factor, rows * factor)
    large = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.float32)
    # OpenCV repeats the outermost value; mirrored are the pixels as far on the other side of it.
    half = factor // 2
    if rows > 1:
        large[:half] = large[half : 2 * half][::-1]
        large[-half:] = large[-2 * half : -half][::-1]
    if cols > 1:
        large[:, :half] = large[:, half : 2 * half][:, ::-1]
        large[:, -half:] = large[:, -2 * half : -half][:, ::-1]
    return large


def from_40m(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A band of 20 m as it looks at 40 m, interpolated to 10 m.

    With an odd number of rows or columns, the first one has no partner at 40 m and keeps its
    values.
    """
    rows, cols = image.shape
    top, left = rows % 2, cols % 2
    inner = image[top:, left:]
    large = np.empty((rows * 2, cols * 2), np.float32)
    if inner.size:
        size = (inner.shape[1] // 2, inner.shape[0] // 2)
        mean = cv2.resize(inner, size, interpolation=cv2.INTER_AREA)
        large[2 * top :, 2 * left :] = enlarge(np.asarray(mean, np.float32), 4)
    if top:
        large[:2] = image[0].repeat(2)
    if left:
        large[:, :2] = image[:, 0].repeat(2)[:, None]
    return large


def smooth_slope(slope: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median of slope over 5 x 5 pixels."""
    return np.asarray(cv2.medianBlur(slope, SLOPE_WINDOW), np.float32)


def decibels(backscatter: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Backscatter of one quarter and polarisation in decibels, -22 to 0 scaled to 0..1.

    ``clip((10 log10(x + 1/65535) + 22) / 22, 0, 1)`` with linear ``x``; saturated pixels take the
    median of the image first. Without data NaN.
    """
    linear = backscatter * np.float32(1 / SCALE)
    linear[backscatter == SCALE] = np.median(linear)
    scaled = np.float32(10) * np.log10(linear + np.float32(1 / SCALE))
    scaled = np.clip((scaled - DECIBEL_FLOOR) / -DECIBEL_FLOOR, 0, 1)
    scaled[backscatter == 0] = np.nan
    return scaled


def radar(
    sentinel1: Sentinel1, shape: tuple[int, int], affine: Affine, *, compat: bool = False
) -> NDArray[np.float32]:
    """Scaled decibels of the four quarters on the 10 m grid, ``[quarter, VV or VH, H, W]``.

    Pixels without data in a quarter take the median of the others, and 0 without any.

    Args:
        sentinel1: on any grid with the same orientation and coordinate system.
        shape: rows and columns of the target grid.
        affine: of the target grid.
        compat: put the pixels of 40 m side by side from the middle and repeat the edges, as if
            they were pixels of 10 m.
    """
    backscatter = sentinel1.backscatter
    images = np.empty((QUARTERS, backscatter.shape[3], *shape), np.float32)
    to_source = ~sentinel1.geobox.affine @ affine
    rows = to_source.e * (np.arange(shape[0]) + 0.5) + to_source.f - 0.5
    cols = to_source.a * (np.arange(shape[1]) + 0.5) + to_source.c - 0.5
    for polarisation in range(images.shape[1]):
        coarse = _filled(np.stack([decibels(q[..., polarisation]) for q in backscatter]))
        for quarter, image in enumerate(coarse):
            images[quarter, polarisation] = (
                _padded(image, shape) if compat else interpolate(image, rows, cols)
            )
    return images


def interpolate(
    image: NDArray[np.float32], rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Bilinear interpolation at the crossings of ``rows`` and ``cols``, counted in pixels.

    Beyond the outermost pixel centres the edge values stand.
    """
    row, row_share = _position(rows, image.shape[0])
    col, col_share = _position(cols, image.shape[1])
    above, below = image[row], image[_next(row, image.shape[0])]
    lines = above + (below - above) * row_share[:, None]
    left, right = lines[:, col], lines[:, _next(col, image.shape[1])]
    return np.asarray(left + (right - left) * col_share, np.float32)


def _position(at: NDArray[np.float64], size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The pixel before each position, and the share of the one after it."""
    inside = np.clip(at, 0, size - 1)
    before = np.floor(inside).astype(np.intp)
    return before, (inside - before).astype(np.float32)


def _next(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    return np.minimum(index + 1, size - 1)


def _unusable_bands(image: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Per pixel of ``[H, W, bands]``, in how many bands the value is 0 or saturated."""
    # Subtracting one takes 0 to the highest value, so that one comparison finds both.
    return np.sum(image - np.uint16(1) >= SCALE - 1, axis=2, dtype=np.uint8)


def _filled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace NaN by the median of the other images, and by 0 where all are NaN."""
    gaps = np.isnan(images)
    if gaps.any():
        rows, cols = np.nonzero(gaps.any(axis=0))
        series = np.sort(images[:, rows, cols], axis=0)  # NaN last
        count = np.maximum((~gaps[:, rows, cols]).sum(axis=0), 1)
        along = np.arange(len(rows))
        median = (series[(count - 1) // 2, along] + series[count // 2, along]) / 2
        images[:, rows, cols] = np.where(
            gaps[:, rows, cols], np.nan_to_num(median), images[:, rows, cols]
        )
    return images


def _padded(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Centre an image on a grid of ``shape``, its edges repeated.

    One that is larger by less than 4 pixels is cut; one that is larger still comes out empty.
    """
    spare = [wanted - found for wanted, found in zip(shape, image.shape, strict=True)]
    if min(spare) <= -4:
        return np.zeros(shape, np.float32)
    padding = [(max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in spare]
    padded = np.pad(image, padding, mode="edge")
    top, left = ((found - wanted) // 2 for found, wanted in zip(padded.shape, shape, strict=True))
    return padded[top : top + shape[0], left : left + shape[1]]
