"""Shadows of clouds: pixels darker than they were on the dates around.

Belongs here: bright clouds as seeds, the tests of darkness, and which shadows are believable.
Does not belong here: clouds themselves.

Reflectance is ``[date, band, row, col]``, masks are ``[date, row, col]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.tiles.indices import normalised_difference
from ocr_assets.tiles.masks import Mask, open_mask, within
from ocr_assets.tiles.reflectance import B2, B3, B4, B6, B8, B8A, B11
from ocr_assets.tiles.temporal import temporal_median

STEEP = 25.0
"""Degrees of slope from which terrain casts shadows of its own."""

_BEFORE, _AFTER, _LEAST = 4, 2, 4


def water(cube: NDArray[np.float32], missing: Mask) -> Mask:
    """Pixels whose median NDWI ``(G - N) / (G + N)`` is positive, ``[row, col]``."""
    wetness = np.stack([normalised_difference(bands[B3], bands[B8]) for bands in cube])
    return np.nan_to_num(temporal_median(wetness, missing)) > 0


def seed_clouds(bands: NDArray[np.float32]) -> Mask:
    """Certain clouds of one date, generously outlined, which are no reference of darkness.

    Hollstein et al. 2016, doi:10.3390/rs8080666.
    """
    thick = bands[B6] < np.float32(4.292) * bands[B11]
    return open_mask((bands[B8A] > 0.166) & (bands[B3] > 0.28) & thick, 2, 10)


def shadows(
    cube: NDArray[np.float32], missing: Mask, wet: Mask, slope: NDArray[np.float32]
) -> Mask:
    """Shadows of clouds on every date.

    Each date is compared with the four dates before and the two after it, seed clouds aside.

    Args:
        cube: reflectance.
        missing: pixels without data.
        wet: of :func:`water`.
        slope: degrees.
    """
    unfit = missing.copy()
    for date, bands in enumerate(cube):
        unfit[date] |= seed_clouds(bands)
    usual_blue = temporal_median(cube[:, B2], missing)
    usual_green = temporal_median(cube[:, B3], missing)
    found = np.zeros(missing.shape, np.bool_)
    for date, bands in enumerate(cube):
        start, stop = _window(date, len(cube))
        dark = np.zeros(wet.shape, np.bool_)
        _darkened(
            cube[start:stop], unfit[start:stop], date - start, slope >= STEEP, dark,
            np.array([B2, B3, B4, B8A, B11]),
        )  # fmt: skip
        dark[wet] = False
        dark |= (
            wet
            & (usual_blue - bands[B2] > 0.05)
            & (usual_green - bands[B3] > 0.05)
            & (bands[B8A] < 0.03)
        )
        found[date] = within(open_mask(dark & ~missing[date], 2, 3), 5)
    return found


def believable(shadow: Mask, cloud: Mask, slope: NDArray[np.float32]) -> Mask:
    """Shadows of one date, less those far from any cloud if there are too many for the clouds."""
    shade, cover = shadow.mean(), cloud.mean()
    too_much = shade > cover + 0.3 and cover < 0.3
    if too_much or (cover < 0.05 and shade > 3 * cover):
        return shadow & (within(cloud, 50) | (slope >= 30))
    return shadow


def inverse_blue_shadows(bands: NDArray[np.float32], masked: Mask, wet: Mask) -> Mask:
    """Shadows of one date by their darkness in blue against the clear pixels of the same date."""
    if masked.mean() >= 0.9:
        return np.zeros_like(masked)
    darkness = 1 / np.maximum(bands[B2], np.float32(1e-3))
    clear = darkness[~masked]
    dark = (darkness > clear.mean() + 2 * clear.std()) & (bands[B8A] < 0.17)
    return open_mask(dark, 2, 2) & ~wet


def _window(date: int, dates: int) -> tuple[int, int]:
    start, stop = max(0, date - _BEFORE), min(dates, date + _AFTER + 1)
    return start, max(stop, min(dates, start + _LEAST))


@njit(cache=True, nogil=True)
def _darkened(cube, unfit, date, steep, dark, bands):
    """Mark the pixels of ``date`` that are darker than the median or the maximum of ``cube``.

    Dates count where they are fit; where none is, the minimum stands for both.
    """
    blue, green, red, nir, swir = bands
    series = np.empty(cube.shape[0], np.float32)
    for i in range(dark.shape[0]):
        for j in range(dark.shape[1]):
            here_nir, here_swir = cube[date, nir, i, j], cube[date, swir, i, j]
            if here_nir >= 0.18:
                continue
            _, highest = _median_max(cube, unfit, nir, i, j, series)
            if not here_nir - highest < -0.04:
                continue
            median_swir, highest = _median_max(cube, unfit, swir, i, j, series)
            if not here_swir - highest < -0.04:
                continue
            here_blue = cube[date, blue, i, j]
            visible = here_blue + cube[date, green, i, j] + cube[date, red, i, j]
            if here_blue < 0.03 or (steep[i, j] and here_blue < 0.07 and visible < 0.28):
                dark[i, j] = True
                continue
            if here_blue >= 0.09 or here_nir >= 0.17 or not here_swir - median_swir < -0.04:
                continue
            median_nir, _ = _median_max(cube, unfit, nir, i, j, series)
            median_blue, _ = _median_max(cube, unfit, blue, i, j, series)
            dark[i, j] = here_nir - median_nir < -0.04 and here_blue - median_blue < -0.02


@njit(cache=True, nogil=True)
def _median_max(cube, unfit, band, i, j, series):
    count = 0
    lowest = np.inf
    for date in range(cube.shape[0]):
        value = cube[date, band, i, j]
        lowest = min(lowest, value)
        if unfit[date, i, j]:
            continue
        at = count
        while at > 0 and series[at - 1] > value:
            series[at] = series[at - 1]
            at -= 1
        series[at] = value
        count += 1
    if count == 0:
        return lowest, lowest
    return (series[(count - 1) // 2] + series[count // 2]) / 2, float(series[count - 1])
