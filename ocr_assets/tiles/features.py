"""The feature cube: four quarters and the median of the year, as a tree-cover network takes it.

Belongs here: the order of the steps from analysis-ready data to features, and what became of each
date on the way.
Does not belong here: the steps themselves, networks, windows, normalisation.

Only one date at a time is sharpened, and only one band at a time is followed through the year, so
that the images in 32 bits are the largest thing in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.ard import POLARISATIONS, Elevation, Sentinel1, Sentinel2
from ocr_assets.tiles.clouds import keep_dates, usable_dates
from ocr_assets.tiles.composite import fill_masked
from ocr_assets.tiles.indices import INDICES
from ocr_assets.tiles.masks import Mask
from ocr_assets.tiles.normalisation import CHANNELS, FRAMES, MEDIAN_FRAME
from ocr_assets.tiles.reflectance import (
    BANDS,
    LEAST_DATES,
    MOST_MISSING,
    complete_dates,
    missing_pixels,
    radar,
    reflectance,
    smooth_slope,
)
from ocr_assets.tiles.superresolution import SuperResolution, sharpen
from ocr_assets.tiles.temporal import monthly_weights, quarters, temporal_median

_SLOPE_SCALE = np.float32(90)

HIDDEN = 0.33
"""Weight of the mask from which a pixel counts as hidden by clouds."""


class FeatureError(ValueError):
    """Analysis-ready data that no features can be made of; the message says why, and the mend."""


@dataclass(frozen=True)
class DateReport:
    """One date of Sentinel-2, for a person who judges the result.

    Attributes:
        day: the date.
        missing: share of pixels without data.
        cloud: share under cloud or haze; None where it could not be found out.
        shadow: share in shadows of clouds; None where it could not be found out.
        used: whether the features contain it.
        dropped: why not: ``no data``, ``incomplete``, ``cloudy`` or ``nothing clear``.
    """

    day: date
    missing: float
    cloud: float | None = None
    shadow: float | None = None
    used: bool = True
    dropped: str = ""

    def as_metadata(self) -> dict[str, Any]:
        """The same in types that JSON knows."""
        return asdict(self) | {"day": self.day.isoformat()}


@dataclass(frozen=True, eq=False)
class Features:
    """What a tree-cover network takes, and how good it is.

    Attributes:
        cube: float32 ``[5, H, W, 17]``, channels as in ``normalisation.CHANNELS``.
        nodata: pixels without data on every date, ``[H, W]``; all its bands are 0 there.
        unseen: pixels that clouds hide on every date, ``[H, W]``.
        dates: what became of each date, in order.
        flags: what a person should know before trusting the result.
    """

    cube: NDArray[np.float32]
    nodata: Mask
    unseen: Mask
    dates: tuple[DateReport, ...]
    flags: tuple[str, ...]


def feature_cube(
    elevation: Elevation,
    sentinel1: Sentinel1,
    sentinel2: Sentinel2,
    superresolve: SuperResolution,
    *,
    compat: bool = False,
    seed: int = 0,
) -> Features:
    """Make the features of a tile for one year.

    Clouds are looked for, and filled, where there are three dates or more. The median frame is
    that of the dates after filling; the quarters are medians of smoothed months.

    Args:
        elevation: terrain on the grid of 10 m.
        sentinel1: on any grid of the same coordinate system.
        sentinel2: on the grid of 10 m.
        superresolve: network that sharpens the bands of 20 m.
        compat: make the known errors of earlier systems, for comparison; ``docs/tiles.md`` lists
            them.
        seed: of the choice of pixels that fill clouds.

    Raises:
        FeatureError: there is no date with data, or the grids differ.
        SuperResolutionError: the network gives something that is not reflectance.
    """
    _require_one_grid(elevation, sentinel1, sentinel2)
    slope = smooth_slope(elevation.slope)
    cube, missing, shares, used = _images(sentinel2, superresolve, compat=compat)
    nodata = missing.all(axis=0)
    reports = [
        DateReport(day, share, used=index in used, dropped=_why_missing(share, index in used))
        for index, (day, share) in enumerate(zip(sentinel2.dates, shares.tolist(), strict=True))
    ]
    flags = _flags(sentinel1, sentinel2, used, shares)
    if len(used) >= LEAST_DATES:
        cube, unseen, used = _cleared(
            cube, missing, slope, used, reports, flags, compat=compat, seed=seed
        )
    else:
        unseen = nodata
        flags.append(
            f"clouds were not looked for: {len(used)} usable date(s), of {LEAST_DATES} needed"
        )
        _fill_missing(cube, missing)
    np.clip(cube, 0, 1, out=cube)
    days = [sentinel2.dates[index] for index in used]
    empty = sorted({1, 2, 3, 4} - {(day.month + 2) // 3 for day in days})
    if empty:
        flags.append(f"no usable image in quarter {', '.join(map(str, empty))}")
    affine = sentinel2.geobox.affine
    backscatter = radar(sentinel1, slope.shape, affine, compat=compat)  # type: ignore[arg-type]
    features = _stacked(cube, days, slope, backscatter)
    features[..., nodata, : len(BANDS)] = 0
    return Features(features, nodata, unseen, tuple(reports), tuple(flags))


def _require_one_grid(elevation: Elevation, sentinel1: Sentinel1, sentinel2: Sentinel2) -> None:
    if elevation.geobox != sentinel2.geobox:
        raise FeatureError(
            f"elevation is on {elevation.geobox}, but Sentinel-2 on {sentinel2.geobox}; make both "
            "of this tile again"
        )
    if sentinel1.geobox.crs != sentinel2.geobox.crs:
        raise FeatureError(
            f"Sentinel-1 is in {sentinel1.geobox.crs}, but Sentinel-2 in {sentinel2.geobox.crs}; "
            "make sentinel1 of this tile again"
        )
    for name, geobox in (("Sentinel-1", sentinel1.geobox), ("Sentinel-2", sentinel2.geobox)):
        if geobox.affine.b or geobox.affine.d:
            raise FeatureError(f"{name} is not north up; make this source of the tile again")


def _images(
    sentinel2: Sentinel2, superresolve: SuperResolution, *, compat: bool
) -> tuple[NDArray[np.float32], Mask, NDArray[np.float64], list[int]]:
    """Sharpened dates with enough data, their gaps, all dates' shares of gaps, the dates."""
    gaps = np.empty(sentinel2.bands10.shape[:3], np.bool_)
    for index in range(len(gaps)):
        gaps[index] = missing_pixels(sentinel2, index)
    shares = gaps.mean(axis=(1, 2)) if len(gaps) else np.empty(0)
    used = complete_dates(shares)
    if not used:
        raise FeatureError(
            f"none of the {len(gaps)} dates of Sentinel-2 has any data; make sentinel2 of this "
            "tile again, or choose another year"
        )
    keep_dates(used, gaps)
    cube = np.empty((len(used), len(BANDS), *gaps.shape[1:]), np.float32)
    for bands, index in zip(cube, used, strict=True):
        bands[:] = reflectance(sentinel2, index)
        sharpen(bands, superresolve, compat=compat)
    return cube, gaps[: len(used)], shares, used


def _cleared(
    cube: NDArray[np.float32],
    missing: Mask,
    slope: NDArray[np.float32],
    used: list[int],
    reports: list[DateReport],
    flags: list[str],
    *,
    compat: bool,
    seed: int,
) -> tuple[NDArray[np.float32], Mask, list[int]]:
    """Dates with their clouds filled, pixels hidden on every one, and the dates left.

    ``reports`` and ``flags`` are completed.
    """
    kept, weights, quality = usable_dates(cube, missing, slope, compat=compat)
    for index, seen in zip(used, quality, strict=True):
        reports[index] = replace(
            reports[index],
            cloud=seen.cloud,
            shadow=seen.shadow,
            used=not seen.dropped,
            dropped=seen.dropped,
        )
    left = [used[index] for index in kept]
    clear = cube[: len(kept)]
    composite = fill_masked(clear, weights, missing[: len(kept)], seed=seed)
    hidden = weights.min(axis=0) >= HIDDEN
    if not compat:
        hidden |= composite.cloudy
    empty = (weights == 1).all(axis=(1, 2))
    shown = [index for index in range(len(kept)) if not empty[index]]
    if len(shown) < LEAST_DATES:
        spare = [index for index in range(len(kept)) if empty[index]]
        shown = sorted(shown + spare[: LEAST_DATES - len(shown)])
        flags.append(
            f"only {int((~empty).sum())} date(s) show any ground; cloudy ones were kept with them"
        )
    for index in set(range(len(kept))) - set(shown):
        reports[left[index]] = replace(reports[left[index]], used=False, dropped="nothing clear")
    keep_dates(shown, clear)
    return clear[: len(shown)], hidden, [left[index] for index in shown]


def _stacked(
    cube: NDArray[np.float32],
    days: list[date],
    slope: NDArray[np.float32],
    backscatter: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The feature cube of cleared dates, slope in degrees and radar on the same grid."""
    features = np.empty((FRAMES, *slope.shape, len(CHANNELS)), np.float32)
    weights = monthly_weights(days)
    for channel, images in _series(cube):
        features[:MEDIAN_FRAME, ..., channel] = quarters(images, weights)
        features[MEDIAN_FRAME, ..., channel] = temporal_median(images)
    features[..., CHANNELS.index("slope")] = slope / _SLOPE_SCALE
    for index, name in enumerate(POLARISATIONS):
        channel = CHANNELS.index(name)
        features[:MEDIAN_FRAME, ..., channel] = backscatter[:, index]
        features[MEDIAN_FRAME, ..., channel] = np.median(backscatter[:, index], axis=0)
    return features


def _series(cube: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Channel and images ``[date, H, W]`` of each band, then of each index."""
    for band, name in enumerate(BANDS):
        yield CHANNELS.index(name), cube[:, band]
    for name, index in INDICES.items():
        yield CHANNELS.index(name), np.stack([index(bands) for bands in cube])


def _fill_missing(cube: NDArray[np.float32], missing: Mask) -> None:
    """Replace pixels without data by the median of the dates that have them, by 0 without any."""
    rows, cols = np.nonzero(missing.any(axis=0))
    if not len(rows):
        return
    gaps = missing[:, rows, cols]
    for band in range(cube.shape[1]):
        series = np.ascontiguousarray(cube[:, band, rows, cols])
        median = np.nan_to_num(temporal_median(series[:, None], gaps[:, None])[0])
        cube[:, band, rows, cols] = np.where(gaps, median, series)


def _flags(
    sentinel1: Sentinel1, sentinel2: Sentinel2, used: list[int], shares: NDArray[np.float64]
) -> list[str]:
    flags = []
    silent = [str(number) for number, quarter in enumerate(sentinel1.quarters, 1) if not quarter.ok]
    if silent:
        flags.append(f"no Sentinel-1 in quarter {', '.join(silent)}; the others stand in")
    if sentinel2.partial:
        flags.append("all images of the year were too cloudy; these are the cleanest")
    incomplete = [
        sentinel2.dates[index].isoformat() for index in used if shares[index] >= MOST_MISSING
    ]
    if incomplete:
        flags.append(f"too few complete dates; incomplete ones were kept: {', '.join(incomplete)}")
    return flags


def _why_missing(share: float, used: bool) -> str:
    if used:
        return ""
    return "no data" if share == 1 else "incomplete"
