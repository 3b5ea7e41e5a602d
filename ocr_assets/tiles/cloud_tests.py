"""Clouds: pixels brighter than they were on the dates around.

Belongs here: the tests of brightness, what rejects a cloud, and the outlines of clouds.
Does not belong here: shadows, haze, what becomes of a date.

Reflectance is ``[date, band, row, col]``, masks are ``[date, row, col]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.masks import Mask, count_nearby, dilate, erode, within
from ocr_assets.tiles.reflectance import B2, B3, B4, B8, B11
from ocr_assets.tiles.temporal import temporal_median

_VISIBLE = slice(B2, B4 + 1)

_MOST_EXCESS = 0.075
"""Share of pixels that the sensitive test may find beyond the safe one."""

_MARGIN_STEP = 0.0025

_OUTLIER = 3.5
"""Standard deviations."""


def clouds(
    cube: NDArray[np.float32],
    missing: Mask,
    shadow: Mask,
    wet: Mask,
    *,
    compat: bool = False,
) -> Mask:
    """Clouds on every date.

    Args:
        cube: reflectance.
        missing: pixels without data.
        shadow: of ``shadows.shadows``; no reference of brightness.
        wet: water, ``[row, col]``.
        compat: let bright ground of one date also reject the clouds of the dates around.
    """
    found = brightened(cube, missing, shadow)
    total = cube[:, B2] + cube[:, B3]
    total += cube[:, B4]
    found |= brightness_outliers(total, found | shadow | missing, wet)
    reject(cube, total, found, missing, wet, compat=compat)
    for date, mask in enumerate(found):
        found[date] = outline(mask)
    return found


def brightened(cube: NDArray[np.float32], missing: Mask, shadow: Mask) -> Mask:
    """Pixels brighter in blue, green and red than on all dates around, and than on the nearest.

    The first test is safe, against the darkest of five dates. The second is sensitive, against
    the nearest dates, and loses its sensitivity until it adds few pixels to the first.
    """
    visible = cube[:, _VISIBLE]
    unshaded = np.where((shadow | missing)[:, None], np.float32(np.inf), visible)
    found = np.empty(missing.shape, np.bool_)
    for date, image in enumerate(visible):
        start = max(0, min(date - 2, len(cube) - 5))
        stop = min(len(cube), start + 5)
        excess = image - _lowest(unshaded, visible, start, stop)
        safe = (excess[0] > 0.08) & (excess[1] > 0.08) & (excess[2] > 0.07)
        close = _closest(unshaded, visible, date)
        threshold = np.clip(close[0] / 2 + np.float32(0.005), 0.05, 0.10)
        excess = np.subtract(image, close, out=excess)
        excess[:2] -= np.float32(0.01)
        sensitive = _limited(excess.min(axis=0) - threshold, safe.mean() + _MOST_EXCESS)
        sensitive &= image.sum(axis=0) < 0.75
        found[date] = safe | erode(sensitive, 2)
    return found & ~missing


def brightness_outliers(total: NDArray[np.float32], masked: Mask, wet: Mask) -> Mask:
    """Land far brighter than its own median, seen from the other pixels of its date.

    What is an outlier on more dates than one is no cloud.

    Args:
        total: blue, green and red together, ``[date, row, col]``.
        masked: pixels that do not count in medians, means and deviations.
        wet: water.
    """
    usual = temporal_median(total, masked)
    usual[~(usual > 0)] = 1
    found = np.empty(masked.shape, np.bool_)
    for date, image in enumerate(total):
        ratio = image / usual
        ratio[wet] = 1
        clear = ratio[~masked[date]]
        if clear.size:
            limit = clear.mean() + _OUTLIER * clear.std()
            found[date] = (ratio > limit) & ~wet
        else:
            found[date] = False
    found &= found.sum(axis=0) <= 1
    return found


def reject(
    cube: NDArray[np.float32],
    total: NDArray[np.float32],
    found: Mask,
    missing: Mask,
    wet: Mask,
    *,
    compat: bool = False,
) -> None:
    """Remove from ``found`` what is coloured, bare ground, dark water, lonely or dark."""
    known = np.where(missing, np.float32(np.inf), total)
    bare = np.stack([(bands[B8] < 0.75 * (bands[B11] + 0.01)) for bands in cube])
    bare = _grown_in_time(bare, 3) if compat else np.stack([dilate(mask, 3) for mask in bare])
    for date, bands in enumerate(cube):
        start = max(0, min(date - 1, len(cube) - 3))
        clear = known[start : start + 3].min(axis=0) / np.float32(3)
        visible = bands[_VISIBLE]
        spread = visible.max(axis=0) - visible.min(axis=0)
        here = total[date] / np.float32(3)
        rejected = (here < 0.4) & (spread > np.float32(0.5) * here)
        rejected |= bare[date] & ~wet & (here - clear < 0.4)
        rejected |= dilate(wet & (bands[B11] < 0.11), 10)
        cloud = found[date] & ~rejected
        cloud &= count_nearby(cloud) >= 5
        found[date] = cloud & ~dilate(total[date] < 0.21, 3)


def outline(cloud: Mask) -> Mask:
    """Clouds of one date with their fringes; large ones get wider ones."""
    core = erode(cloud, 1)
    large = core & (count_nearby(core) >= 6)
    return within(dilate(large, 5) | dilate(core, 1), 3)


def hazy_dates(total: NDArray[np.float32], cube: NDArray[np.float32], masked: Mask) -> Mask:
    """Dates that are brighter, flatter and whiter than the others throughout, ``[date]``.

    Args:
        total: blue, green and red together, ``[date, row, col]``.
        cube: reflectance.
        masked: clouds, shadows and pixels without data.
    """
    figures = np.full((len(cube), 3), np.nan)
    for date, bands in enumerate(cube):
        clear = ~masked[date]
        if clear.any():
            visible = bands[_VISIBLE]
            brightness = total[date][clear]
            spread = (visible.max(axis=0) - visible.min(axis=0))[clear]
            colour = 3 * spread / np.maximum(brightness, np.float32(1e-6))
            figures[date] = brightness.mean(), brightness.std(), colour.mean()
    known = np.isfinite(figures[:, 0])
    hazy = np.zeros(len(cube), np.bool_)
    if known.any():
        usual = np.median(figures[known], axis=0)
        bright, flat, colour = (figures / np.where(usual > 0, usual, 1)).T
        hazy = (bright >= 1.5) & (flat <= 0.67) & (colour < 1)
        hazy |= (bright >= 1.3) & (flat <= 0.5)
    return hazy


def _limited(excess: NDArray[np.float32], most: float) -> Mask:
    """Pixels above the lowest margin, in steps, that no more than a share of them exceeds."""
    step = 0
    while (found := excess > step * _MARGIN_STEP).mean() > most:
        step += 1
    return found


def _lowest(
    unshaded: NDArray[np.float32], values: NDArray[np.float32], start: int, stop: int
) -> NDArray[np.float32]:
    """Minimum over dates without shadows; the 25th percentile of all where all are in shadow."""
    lowest: NDArray[np.float32] = unshaded[start:stop].min(axis=0)
    rows, cols = np.nonzero(np.isinf(lowest[0]))
    if len(rows):
        lowest[:, rows, cols] = np.percentile(values[start:stop, :, rows, cols], 25, axis=0)
    return lowest


def _closest(
    unshaded: NDArray[np.float32], values: NDArray[np.float32], date: int
) -> NDArray[np.float32]:
    """Minimum over the dates next to ``date``, further ones where those are in shadow."""
    dates = len(values)
    others = [other for other in (date - 1, date + 1) if 0 <= other < dates]
    if date == 0:
        others = [1, 2]
    elif date == dates - 1:
        others = [date - 1, date - 2, date - 3]
    lowest = unshaded[[other for other in others if 0 <= other < dates]].min(axis=0)
    for reach in range(2, 12):
        rows, cols = np.nonzero(np.isinf(lowest[0]))
        if not len(rows):
            return lowest
        for other in (date - reach, date + reach):
            if 0 <= other < dates:
                further = unshaded[other][:, rows, cols]
                lowest[:, rows, cols] = np.minimum(lowest[:, rows, cols], further)
    rows, cols = np.nonzero(np.isinf(lowest[0]))
    lowest[:, rows, cols] = values[:, :, rows, cols].min(axis=0)
    return lowest


def _grown_in_time(masks: Mask, steps: int) -> Mask:
    """Dilation by a cross of rows, columns and dates."""
    grown = masks.copy()
    for distance in range(steps + 1):
        spread = np.stack([dilate(m, steps - distance) if distance < steps else m for m in masks])
        grown[distance:] |= spread[: len(masks) - distance]
        grown[: len(masks) - distance] |= spread[distance:]
    return grown
