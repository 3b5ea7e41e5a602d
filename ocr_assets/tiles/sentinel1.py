"""Radar composites of a tile: terrain-corrected Sentinel-1 backscatter of four seasons.

Belongs here: which days of which orbit make a seasonal composite, and the composite. Does not
belong here: where the scenes come from (an :class:`~ocr_assets.tiles.scenes.Imagery`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from ocr_assets.tiles.ard import POLARISATIONS, QUARTERS, SCALE, Quarter, Sentinel1, coarser
from ocr_assets.tiles.scenes import (
    Day,
    Imagery,
    NoScenesError,
    Place,
    Reading,
    Scene,
    by_day,
    search_year,
)

COLLECTION = "sentinel-1-rtc"
ASSETS = {"VV": ("vv", "VV"), "VH": ("vh", "VH")}

Orbit = Literal["auto", "ascending", "descending", "both"]
ORBITS = ("ascending", "descending")

SEASONS = (
    ((1, 15), (3, 15)),
    ((4, 15), (6, 15)),
    ((7, 15), (9, 15)),
    ((10, 15), (12, 15)),
)
"""First and last month and day of each composite; both belong to it."""

FULL_COVERAGE = 0.95
MOST_DAYS = 3

_GRID_FACTOR = 4


@dataclass(frozen=True)
class Choice:
    """Days of each season, and the orbit that they are of."""

    orbit: str
    days: tuple[tuple[Day, ...], ...]

    @property
    def scenes(self) -> list[Scene]:
        """All scenes that are read."""
        return [scene for season in self.days for day in season for scene in day.scenes]


def find_days(imagery: Imagery, place: Place, year: int) -> dict[str, list[Day]]:
    """Days of a year with scenes in both polarisations, for each orbit.

    Raises:
        NoScenesError: there is none.
        SceneError: a scene does not say its orbit.
    """
    orbits: dict[str, list[Scene]] = {orbit: [] for orbit in ORBITS}
    for scene in search_year(imagery, place.area, year):
        orbit = scene.text("sat:orbit_state").lower()
        if orbit in orbits and all(any(n in scene.assets for n in ASSETS[p]) for p in ASSETS):
            orbits[orbit].append(scene)
    days = {
        orbit: by_day(scenes, place.longitude, place.area, year) for orbit, scenes in orbits.items()
    }
    if not any(days.values()):
        raise NoScenesError(
            f"{imagery.place} has no Sentinel-1 scene of tile {place.tile} in {year} with VV and "
            "VH; choose another year"
        )
    return days


def season_of(day: date) -> int | None:
    """Index of the season that a day belongs to, if any."""
    for index, (first, last) in enumerate(SEASONS):
        if date(day.year, *first) <= day <= date(day.year, *last):
            return index
    return None


def choose_days(days: Mapping[str, Sequence[Day]], orbit: Orbit = "auto") -> Choice:
    """Choose the days of each season.

    Of ``auto`` orbits the one that gives most days with full coverage counts, at most three in a
    season; then the one with more scenes; then the ascending one. A season takes its three days of
    best coverage that are full, or else its best day.
    """
    name: str = orbit
    if orbit == "auto":
        name = max(ORBITS, key=lambda one: _merit(days[one]))  # the first of equals
    seasons = []
    chosen = ORBITS if name == "both" else (name,)
    for season in _seasons([day for one in chosen for day in days[one]]):
        ranked = sorted(season, key=lambda day: (-round(day.coverage, 4), day.day))
        full = [day for day in ranked if day.coverage >= FULL_COVERAGE]
        best = full[:MOST_DAYS] or ranked[:1]
        seasons.append(tuple(sorted(best, key=lambda day: day.day)))
    return Choice(name, tuple(seasons))


def _seasons(days: Sequence[Day]) -> list[list[Day]]:
    seasons: list[list[Day]] = [[] for _ in SEASONS]
    for day in days:
        index = season_of(day.day)
        if index is not None:
            seasons[index].append(day)
    return seasons


def _merit(days: Sequence[Day]) -> tuple[int, int]:
    """Full days, at most three in a season, and the number of scenes."""
    full = [sum(day.coverage >= FULL_COVERAGE for day in season) for season in _seasons(days)]
    scenes = sum(len(day.scenes) for season in _seasons(days) for day in season)
    return sum(min(MOST_DAYS, count) for count in full), scenes


def make_sentinel1(imagery: Imagery, place: Place, choice: Choice) -> Sentinel1:
    """Read the chosen days and make a composite of each season: the median of the days.

    A season without days is 0 throughout and its quarter is not ``ok``.
    """
    geobox = coarser(place.geobox, _GRID_FACTOR)
    backscatter = np.zeros((QUARTERS, *geobox.shape, len(POLARISATIONS)), np.uint16)
    rasters = imagery.read(_readings(choice, geobox))
    quarters = []
    for index, days in enumerate(choice.days):
        if days:
            stack = np.stack([_day(day, rasters, geobox) for day in days])
            backscatter[index] = quantise(median_of_data(stack))
        covered = float((backscatter[index] > 0).all(axis=-1).mean())
        quarters.append(Quarter(tuple(day.day for day in days), choice.orbit, covered))
    return Sentinel1(backscatter, tuple(quarters), geobox)


def _readings(choice: Choice, geobox: GeoBox) -> Iterator[Reading]:
    for scene in choice.scenes:
        for polarisation in POLARISATIONS:
            yield Reading(scene, ASSETS[polarisation], geobox, "float32", "bilinear")


def _day(day: Day, rasters: Iterator[NDArray[Any]], geobox: GeoBox) -> NDArray[np.float32]:
    """The scenes of a day laid on another, ``(h, w, 2)``, NaN where there is no data."""
    merged = np.full((*geobox.shape, len(POLARISATIONS)), np.nan, np.float32)
    for _ in day.scenes:
        image = np.stack([next(rasters) for _ in POLARISATIONS], axis=-1).astype(np.float32)
        image[~(image > 0)] = np.nan
        np.copyto(merged, image, where=np.isnan(merged))
    return merged


def median_of_data(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median over the first axis of what is not NaN; NaN where nothing is."""
    ordered = np.sort(stack, axis=0)  # NaN comes last
    count = (~np.isnan(stack)).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    low, high = (np.minimum(index, len(stack) - 1) for index in (low, high))
    ends = (np.take_along_axis(ordered, index[None], axis=0)[0] for index in (low, high))
    median = sum(ends) / np.float32(2)
    return np.where(count > 0, median, np.float32(np.nan))


def quantise(backscatter: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Linear backscatter times 65535, clipped to 1. NaN is 0; data is never 0."""
    scaled = np.clip(np.rint(np.nan_to_num(backscatter, nan=0.0) * SCALE), 1, SCALE)
    return np.where(np.isnan(backscatter), 0, scaled).astype(np.uint16)
