"""Choosing clear dates, and the scenes for them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest
import shapely

from ocr_assets.tiles.scenes import Day, Scene
from ocr_assets.tiles.survey import (
    Surveyed,
    bad_share,
    cirrus_mask,
    match_days,
    select_dates,
    survey_day,
)

AREA = shapely.box(14, 45, 15, 46)


def on(month: int, day: int) -> date:
    return date(2023, month, day)


def day(when: date, covered: float = 1.0) -> Day:
    footprint = shapely.box(14, 45, 14 + covered, 46)
    time = datetime(when.year, when.month, when.day, 10, tzinfo=UTC)
    return Day(when, (Scene(str(when), time, footprint, {}, {}),), AREA)


def test_only_vegetation_bare_soil_and_water_are_clear() -> None:
    for value in range(12):
        assert bad_share(np.full((4, 4), value, np.uint8)) == (value not in (4, 5, 6)), value
    assert bad_share(np.array([[4, 9], [6, 0]], np.uint8)) == 0.5


def test_the_centre_is_thirty_pixels_wide() -> None:
    classes = np.full((145, 101), 4, np.uint8)
    classes[57:87, 35:65] = 9
    found = survey_day(on(5, 1), classes)
    assert found.local == 1.0
    assert found.overall == pytest.approx(900 / (145 * 101))
    small = survey_day(on(5, 1), np.full((10, 12), 9, np.uint8))
    assert (small.overall, small.local) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("overall", "local", "score"),
    [(0.10, 0.9, 0.10), (0.30, 0.9, 0.30), (0.32, 0.2, 0.23), (0.50, 0.36, 0.395)],
)
def test_score(overall: float, local: float, score: float) -> None:
    assert Surveyed(on(1, 1), overall, local).score == pytest.approx(score)


@pytest.mark.parametrize(
    ("overall", "local", "kept"),
    [
        (0.29, 0.15, True),
        (0.50, 0.30, True),  # score .35
        (0.51, 0.00, False),  # more than half of the area
        (0.50, 0.38, False),  # score .41
        (0.45, 0.38, True),  # score .3975
    ],
)
def test_a_day_by_itself(overall: float, local: float, kept: bool) -> None:
    assert bool(select_dates([Surveyed(on(1, 1), overall, local)])) == kept


def test_a_clearer_day_of_the_month_ousts_another_even_if_it_is_out_itself() -> None:
    hazy = Surveyed(on(3, 1), 0.2, 0.25)
    clear_in_the_centre = Surveyed(on(3, 20), 0.6, 0.0)
    other_month = Surveyed(on(4, 2), 0.6, 0.0)
    assert select_dates([hazy, other_month]) == [on(3, 1)]
    assert select_dates([hazy, clear_in_the_centre]) == []
    assert select_dates([Surveyed(on(3, 1), 0.2, 0.19), clear_in_the_centre]) == [on(3, 1)]


def test_two_of_each_month_then_the_best_of_the_rest() -> None:
    surveyed = [
        Surveyed(on(month, number), month / 100 + number / 1000, 0.0)
        for month in range(1, 13)
        for number in range(1, 5)
    ]
    dates = select_dates(surveyed)
    assert dates == [on(month, number) for month in range(1, 13) for number in (1, 2)]
    few = [one for one in surveyed if one.day.month <= 7]
    # Fourteen dates are the best two of each month, ten more are the best of all others.
    extra = sorted(few, key=lambda one: one.score)
    extra = [one for one in extra if one.day.day > 2][:10]
    expected = sorted([on(m, n) for m in range(1, 8) for n in (1, 2)] + [one.day for one in extra])
    assert select_dates(few) == expected
    assert len(expected) == 24


def test_equal_days_are_taken_in_order() -> None:
    surveyed = [Surveyed(on(6, number), 0.1, 0.1) for number in (9, 3, 7, 5)]
    assert select_dates(surveyed) == [on(6, number) for number in (3, 5, 7, 9)]


def test_a_date_takes_the_nearest_day_over_the_tile() -> None:
    days = [day(on(5, 1)), day(on(5, 8)), day(on(5, 20))]
    matched = match_days([on(5, 2), on(5, 8), on(5, 13), on(5, 18)], days)
    assert [one.day for one in matched] == [on(5, 1), on(5, 8), on(5, 20)]


def test_a_day_that_is_nearest_twice_is_taken_once() -> None:
    matched = match_days([on(5, 1), on(5, 2)], [day(on(5, 2))])
    assert [one.day for one in matched] == [on(5, 2)]


def test_of_equally_near_days_the_one_that_covers_more() -> None:
    days = [day(on(5, 1), 0.96), day(on(5, 3), 0.99)]
    assert [one.day for one in match_days([on(5, 2)], days)] == [on(5, 3)]


def test_a_day_that_covers_little_gives_way_to_its_neighbour() -> None:
    partly, whole = day(on(5, 2), 0.5), day(on(5, 3))
    assert match_days([on(5, 2)], [partly, whole]) == [whole]
    far = day(on(5, 4))
    assert match_days([on(5, 2)], [partly, far]) == [partly]


def test_single_cirrus_pixels_that_are_always_there_are_none() -> None:
    classes = np.full((3, 7, 9), 4, np.uint8)
    classes[:, 2, 2] = 10  # alone, on every date
    classes[:, 0, 8] = 10  # the same in a corner
    classes[1, 5, 5] = 10  # alone, once
    classes[:, 5, 7:9] = 10  # two side by side on every date
    mask = cirrus_mask(classes)
    assert not mask[:, 2, 2].any()
    assert not mask[:, 0, 8].any()
    assert mask[:, 5, 5].tolist() == [False, True, False]
    assert mask[:, 5, 7:9].all()
    assert mask.sum() == 7
    assert cirrus_mask(np.zeros((0, 4, 4), np.uint8)).shape == (0, 4, 4)
