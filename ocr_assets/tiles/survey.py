"""Choosing the dates of a year: which Sentinel-2 days are clear enough to be worth reading.

Belongs here: what the scene classification says about cloud, scores of surveyed days, the choice
of dates and of the scenes for them. Does not belong here: reading the classification.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ocr_assets.tiles.scenes import Day

VEGETATION, BARE, WATER, CIRRUS = 4, 5, 6, 10
CLEAR = (VEGETATION, BARE, WATER)
"""Classes of the scene classification that show the ground. All others, no data too, do not."""

CENTRE_PIXELS = 30
MOST_BAD, MOST_SCORE, MOST_WORSE = 0.50, 0.40, 0.20
LOCAL_FROM, GLOBAL_WEIGHT = 0.30, 0.25
DATES_PER_MONTH, MOST_DATES = 2, 24

FULL_COVERAGE = 0.95
SEARCH_DAYS = 3
"""A date without scenes over the tile takes those of a day less than this far away."""

_IS_BAD = np.ones(256, bool)
_IS_BAD[list(CLEAR)] = False


@dataclass(frozen=True)
class Surveyed:
    """A day of the survey.

    Attributes:
        day: the solar day.
        overall: share of the surveyed area that does not show the ground.
        local: the same for the 30 x 30 pixels in its centre.
    """

    day: date
    overall: float
    local: float

    @property
    def score(self) -> float:
        """The lower, the clearer; where the area is cloudy, its centre decides most."""
        if self.overall <= LOCAL_FROM:
            return self.overall
        return GLOBAL_WEIGHT * self.overall + (1 - GLOBAL_WEIGHT) * self.local


def bad_share(classes: NDArray[np.uint8]) -> float:
    """Share of pixels whose class does not show the ground."""
    return float(_IS_BAD[classes].mean())


def survey_day(day: date, classes: NDArray[np.uint8]) -> Surveyed:
    """Measure the classification of the survey area, ``(h, w)``."""
    rows, cols = classes.shape
    side = (min(CENTRE_PIXELS, rows), min(CENTRE_PIXELS, cols))
    top, left = (rows - side[0]) // 2, (cols - side[1]) // 2
    centre = classes[top : top + side[0], left : left + side[1]]
    return Surveyed(day, bad_share(classes), bad_share(centre))


def select_dates(surveyed: Sequence[Surveyed]) -> list[date]:
    """Choose up to 24 clear days of a year, in order; none where all are cloudy.

    A day is out if more than half of the area is bad, if its score is above 0.40, or if another
    day of its month, be that one out as well, is clearer by more than 0.20 in the centre. Of the
    rest the two best of each month are taken, then the best of what is left up to 24 in all.
    """
    clearest: dict[int, float] = {}
    for one in surveyed:
        clearest[one.day.month] = min(one.local, clearest.get(one.day.month, 1.0))
    good = [
        one
        for one in surveyed
        if one.overall <= MOST_BAD
        and one.score <= MOST_SCORE
        and one.local - clearest[one.day.month] <= MOST_WORSE
    ]
    ranked = sorted(good, key=lambda one: (one.score, one.day))
    taken: dict[int, int] = defaultdict(int)
    first: list[Surveyed] = []
    rest: list[Surveyed] = []
    for one in ranked:
        taken[one.day.month] += 1
        (first if taken[one.day.month] <= DATES_PER_MONTH else rest).append(one)
    return sorted(one.day for one in (first + rest)[:MOST_DATES])


def match_days(dates: Sequence[date], days: Sequence[Day]) -> list[Day]:
    """Days over the tile for chosen dates of the survey, in order, none twice.

    The nearest day less than three days away counts. Where it covers less than 0.95 of the tile,
    a day next to the date that covers that much is taken instead.
    """
    matched: dict[date, Day] = {}
    for wanted in dates:

        def distance(day: Day, wanted: date = wanted) -> tuple[int, float, date]:
            return abs((day.day - wanted).days), -day.coverage, day.day

        near = sorted((day for day in days if distance(day)[0] < SEARCH_DAYS), key=distance)
        if not near:
            continue
        full = [day for day in near if distance(day)[0] <= 1 and day.coverage >= FULL_COVERAGE]
        best = near[0] if near[0].coverage >= FULL_COVERAGE or not full else full[0]
        matched[best.day] = best
    return [matched[day] for day in sorted(matched)]


def cirrus_mask(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the classification says cirrus, less single pixels that are so on every date.

    Args:
        classes: scene classification, ``(T, h, w)``. The published masks have pixels of 160 m.
    """
    cirrus = classes == CIRRUS
    if not len(cirrus):
        return cirrus
    around = ndimage.convolve(cirrus.view(np.uint8), np.ones((1, 3, 3), np.uint8), mode="constant")
    fixed = cirrus.all(axis=0)  # roofs and other bright ground, not cloud
    return cirrus & ~(fixed & (around == 1))
