"""Which pixels of which dates are usable: clouds, their shadows and haze.

Belongs here: putting the tests together, soft masks, and dropping dates that show nothing.
Does not belong here: the tests themselves, filling what is masked.

The thresholds are those of surface reflectance. On reflectance at the top of the atmosphere,
which is brighter in blue, tests that compare dates still hold; those of darkness find less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles import cloud_tests
from ocr_assets.tiles.masks import Mask, close_grey, distance
from ocr_assets.tiles.reflectance import B2, B3, B4, LEAST_DATES
from ocr_assets.tiles.shadows import believable, inverse_blue_shadows, shadows, water

ROUNDS = 3
"""How often dates may be dropped and the rest looked at again."""

MOST_MASKED = 0.9
"""Share of masked pixels above which a date is dropped."""

_FEATHER = np.float32(12)
"""Pixels over which a soft mask fades."""

_CLOSED_FOR_PRUNING, _CLOSED_FOR_BLENDING = 15, 20


@dataclass(frozen=True, eq=False)
class CloudMasks:
    """What was found on each date, ``[date, row, col]``.

    Attributes:
        cloud: clouds; all of a hazy date.
        shadow: shadows that are no clouds.
        masked: clouds, shadows, and pixels without data.
    """

    cloud: Mask
    shadow: Mask
    masked: Mask


@dataclass(frozen=True)
class DateQuality:
    """What became of one date.

    Attributes:
        cloud: share of its pixels under cloud or haze.
        shadow: share in shadows of clouds.
        masked: share that was not used.
        dropped: why it was not used at all; empty if it was.
    """

    cloud: float
    shadow: float
    masked: float
    dropped: str = ""


def detect(
    cube: NDArray[np.float32],
    missing: Mask,
    slope: NDArray[np.float32],
    *,
    compat: bool = False,
) -> CloudMasks:
    """Clouds and shadows on three dates or more.

    Args:
        cube: reflectance ``[date, 10, H, W]``.
        missing: pixels without data, ``[date, H, W]``.
        slope: degrees, ``[H, W]``.
        compat: let what rejects a cloud reach into neighbouring dates.
    """
    if len(cube) < LEAST_DATES:
        raise ValueError(f"clouds cannot be told from bright ground on {len(cube)} dates")
    wet = water(cube, missing)
    shadow = shadows(cube, missing, wet, slope)
    cloud = cloud_tests.clouds(cube, missing, shadow, wet, compat=compat)
    for date, bands in enumerate(cube):
        shadow[date] = believable(shadow[date], cloud[date], slope)
        masked = shadow[date] | cloud[date] | missing[date]
        shadow[date] |= inverse_blue_shadows(bands, masked, wet)
    masked = cloud | shadow | missing
    total = cube[:, B2] + cube[:, B3] + cube[:, B4]
    hazy = cloud_tests.hazy_dates(total, cube, masked)
    cloud[hazy] = True
    masked[hazy] = True
    shadow &= ~cloud
    return CloudMasks(cloud, shadow, masked)


def soft_mask(masked: Mask, closing: int = _CLOSED_FOR_BLENDING) -> NDArray[np.float32]:
    """Weights of 1 on masked pixels that fade to 0 over about ten pixels around them."""
    weights = np.float32(1) - distance(masked) / _FEATHER
    weights[weights < 0.2] = 0
    return close_grey(weights, closing)


def usable_dates(
    cube: NDArray[np.float32],
    missing: Mask,
    slope: NDArray[np.float32],
    *,
    compat: bool = False,
) -> tuple[list[int], NDArray[np.float32], list[DateQuality]]:
    """Drop the dates that are masked nearly everywhere, and mask the others.

    Dates that remain move to the front of ``cube`` and ``missing``.

    Returns:
        Indices of the dates that remain, at least three; their soft masks ``[date, H, W]``; and
        what became of each date.
    """
    kept = list(range(len(cube)))
    quality: dict[int, DateQuality] = {}
    for turn in range(ROUNDS + 1):
        found = detect(cube[: len(kept)], missing[: len(kept)], slope, compat=compat)
        shares = np.array([
            float((soft_mask(mask, _CLOSED_FOR_PRUNING) == 1).mean()) for mask in found.masked
        ])  # fmt: skip
        for index, date in enumerate(kept):
            quality[date] = DateQuality(
                float(found.cloud[index].mean()),
                float(found.shadow[index].mean()),
                float(shares[index]),
            )
        dropped = _too_cloudy(shares) if turn < ROUNDS else []
        if not dropped:
            break
        for index in dropped:
            seen = quality[kept[index]]
            quality[kept[index]] = DateQuality(seen.cloud, seen.shadow, seen.masked, "cloudy")
        remain = [index for index in range(len(kept)) if index not in dropped]
        keep_dates(remain, cube, missing)
        kept = [kept[index] for index in remain]
    weights = np.stack([soft_mask(mask) for mask in found.masked])
    return kept, weights, [quality[date] for date in range(len(quality))]


def keep_dates(dates: list[int], *arrays: NDArray) -> None:  # type: ignore[type-arg]
    """Move the planes of ``dates``, in ascending order, to the front of each array."""
    for array in arrays:
        for position, date in enumerate(dates):
            if position != date:
                array[position] = array[date]


def _too_cloudy(shares: NDArray[np.float64]) -> list[int]:
    """Dates above the limit, the cloudiest first, as far as three remain."""
    order = np.argsort(-shares, kind="stable")[: max(len(shares) - LEAST_DATES, 0)]
    return [int(date) for date in order if shares[date] > MOST_MASKED]
