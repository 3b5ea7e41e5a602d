"""One clear image of the year, and masked pixels of each date filled from it.

Belongs here: the composite of all dates, and blending it into each date.
Does not belong here: which pixels are masked, the regression that fits the composite to a date.

Reflectance is ``[date, 10, H, W]``, weights are soft masks ``[date, H, W]``: 0 clear, 1 masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.indices import snow
from ocr_assets.tiles.masks import Mask, open_mask
from ocr_assets.tiles.reflectance import B2, B4
from ocr_assets.tiles.regression import fitted
from ocr_assets.tiles.shadows import water

CLEAR = 0.25
"""Weight below which a pixel counts as seen clearly."""

_LEAST_PIXELS = 1000
"""Pixels beyond which a date is brought to the level of the others."""


@dataclass(frozen=True, eq=False)
class Composite:
    """A clear image of the year.

    Attributes:
        bands: reflectance, ``[10, H, W]``.
        snow: share of the clear dates that look like snow, ``[H, W]``.
        land: pixels that are not water, ``[H, W]``.
        cloudy: pixels that look like a cloud that no date was free of, ``[H, W]``.
    """

    bands: NDArray[np.float32]
    snow: NDArray[np.float32]
    land: Mask
    cloudy: Mask


def fill_masked(
    cube: NDArray[np.float32],
    weights: NDArray[np.float32],
    missing: Mask,
    *,
    seed: int = 0,
) -> Composite:
    """Blend into each date of ``cube`` what it would show under its masks, in place.

    Args:
        cube: reflectance.
        weights: soft masks, 1 where there is no data.
        missing: pixels without data.
        seed: of the choice of pixels for the regressions.

    Returns:
        The composite that the dates were filled from.
    """
    composite = compose(cube, weights, missing)
    for date, image in enumerate(cube):
        pixels = np.nonzero(weights[date])
        if not len(pixels[0]):
            continue
        predicted = fitted(
            cube, weights, date, composite.bands, composite.snow, composite.land, pixels, seed
        )
        share = weights[date][pixels]
        for plane, values in zip(image, predicted, strict=True):
            plane[pixels] = plane[pixels] * (1 - share) + values * share
    return composite


def compose(cube: NDArray[np.float32], weights: NDArray[np.float32], missing: Mask) -> Composite:
    """Mean of all dates by their clearness, each brought to the level of the others on land.

    Where no date is clear, the 10th percentile of the dates stands in. No value leaves the range
    of the dates at its pixel.
    """
    land = ~open_mask(water(cube, missing), 2, 5)
    clearness = 1 - weights
    total = clearness.sum(axis=0)
    bands = np.empty(cube.shape[1:], np.float32)
    pixels = [_comparable(weights, date, land) for date in range(len(cube))]
    seen = weights < 1
    others = np.maximum(seen.sum(axis=0) - 1, 1).astype(np.float32)
    rows, cols = np.nonzero(total == 0)
    for band in range(len(bands)):
        images = cube[:, band]
        everything = np.einsum("tij,tij->ij", images, seen, dtype=np.float32)
        bands[band] = 0
        for date, image in enumerate(images):
            gain, offset = _levels(image, everything, others, pixels[date])
            level = np.where(land, gain * image + offset, image)
            bands[band] += clearness[date] * level
        np.divide(bands[band], total, out=bands[band], where=total > 0)
        bands[band, rows, cols] = _low(images[:, rows, cols], missing[:, rows, cols])
        np.clip(bands[band], images.min(axis=0), images.max(axis=0), out=bands[band])
    snowy = np.zeros(land.shape, np.float32)
    for date, image in enumerate(cube):
        snowy += clearness[date] * snow(image)
    np.divide(snowy, total, out=snowy, where=total > 0)
    return Composite(bands, snowy, land, _residual_clouds(bands, weights))


def _comparable(weights: NDArray[np.float32], date: int, land: Mask) -> NDArray[np.intp]:
    """Flat indices of land that is clear on ``date`` and not wholly masked on another."""
    elsewhere = (weights < 1).sum(axis=0) > 1
    return np.flatnonzero((weights[date] < CLEAR) & elsewhere & land)


def _levels(
    image: NDArray[np.float32],
    everything: NDArray[np.float32],
    others: NDArray[np.float32],
    pixels: NDArray[np.intp],
) -> tuple[np.float32, np.float32]:
    """Gain and offset that give ``image`` the spread and the median of the other dates."""
    if len(pixels) <= _LEAST_PIXELS:
        return np.float32(1), np.float32(0)
    here = image.reshape(-1)[pixels]
    there = (everything.reshape(-1)[pixels] - here) / others.reshape(-1)[pixels]
    spread = here.std()
    gain = there.std() / spread if spread > 0 else np.float32(1)
    return gain, np.median(there) - gain * np.median(here)


def _low(series: NDArray[np.float32], missing: Mask) -> NDArray[np.float32]:
    """10th percentile along time of what is there, ``[pixel]``; 0 where nothing is."""
    if not series.size:
        return series[0]
    known = np.where(missing, np.float32(np.inf), series)
    known.sort(axis=0)
    at = 0.1 * np.maximum((~missing).sum(axis=0) - 1, 0)
    below = at.astype(np.intp)
    along = np.arange(series.shape[1])
    low = known[below, along]
    high = known[np.ceil(at).astype(np.intp), along]
    finite = np.isfinite(low)
    result = np.zeros_like(low)
    low, high = low[finite], high[finite]
    result[finite] = low + (at - below)[finite] * (high - low)
    return result


def _residual_clouds(bands: NDArray[np.float32], weights: NDArray[np.float32]) -> Mask:
    """Pixels seen clearly at most once that are brighter than nearly all others."""
    suspect = (weights < CLEAR).sum(axis=0) <= 1
    if suspect.all() or not suspect.any():
        return np.zeros_like(suspect)
    bright = [band > np.percentile(band[~suspect], 99) for band in bands[[B2, B4]]]
    return open_mask(suspect & bright[0] & bright[1], 3, 8)
