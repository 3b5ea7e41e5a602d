"""From dates to months: known weights, leap years, the turn of the year, medians."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from scipy.linalg import solve

from ocr_assets.tiles.temporal import (
    STEP,
    day_numbers,
    monthly_weights,
    quarters,
    resampling_weights,
    smoothing_matrix,
    temporal_median,
)

DAYS = np.array([10, 40, 100, 200, 300])

IMPULSE_11 = (-0.018508, 0.003464, 0.028621, 0.05887, 0.091431, 0.114055,
              0.105052, 0.075157, 0.043701, 0.018015, -0.001682, -0.018174)  # fmt: skip
IMPULSE_0 = (0.321872, 0.176618, 0.072332, 0.011342, -0.016472, -0.023707,
             -0.020737, -0.014342, -0.008053, -0.003101, 0.000597, 0.003649)  # fmt: skip


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (0, [0.8, 0.2, 0, 0, 0]),
        (15, [0.9091, 0.0909, 0, 0, 0]),
        (30, [0.3043, 0.6087, 0.087, 0, 0]),
        (60, [0.2105, 0.5263, 0.2632, 0, 0]),
        (120, [0, 0.1667, 0.6667, 0.1667, 0]),
        (195, [0, 0.0297, 0.0485, 0.9218, 0]),
        (300, [0, 0, 0, 0, 1]),
        (345, [0, 0, 0, 0, 1]),
    ],
)
def test_known_weights_of_images(day: int, expected: list[float]) -> None:
    np.testing.assert_allclose(resampling_weights(DAYS)[day // STEP], expected, atol=5e-5)


def test_long_gaps_at_the_turn_of_the_year_are_bridged_around_it() -> None:
    weights = resampling_weights(np.array([120, 250]))
    # Day 0 lies 120 days before the first image, and 115 after the last one of a year before.
    np.testing.assert_allclose(weights[0], [1 - 120 / 235, 1 - 115 / 235])
    # Day 345 is 95 days after the last, and 140 before the first of the next year.
    np.testing.assert_allclose(weights[23], [1 - 140 / 235, 1 - 95 / 235])
    # A leap year has one day more on both ways around.
    leap = resampling_weights(np.array([120, 250]), 366)
    np.testing.assert_allclose(leap[0], [1 - 120 / 236, 1 - 116 / 236])
    np.testing.assert_allclose(leap[23], [1 - 141 / 236, 1 - 95 / 236])


def test_short_gaps_at_the_turn_of_the_year_repeat_the_nearest_images() -> None:
    weights = resampling_weights(np.array([80, 280]))
    np.testing.assert_array_equal(weights[0], [1, 0])
    np.testing.assert_array_equal(weights[23], [0, 1])


@pytest.mark.parametrize("count", [1, 2, 3, 24, 40])
def test_weights_add_up_to_one(count: int) -> None:
    rng = np.random.default_rng(count)
    days = np.sort(rng.choice(np.arange(1, 366), count, replace=False))
    weights = resampling_weights(days)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights >= 0).all()
    assert ((weights > 0).sum(axis=1) <= 4).all()


def test_days_are_real_days() -> None:
    numbers, length = day_numbers([date(2024, 1, 1), date(2024, 2, 29), date(2024, 3, 1)])
    assert (numbers.tolist(), length) == ([1, 60, 61], 366)
    numbers, length = day_numbers([date(2023, 3, 1), date(2023, 12, 31)])
    assert (numbers.tolist(), length) == ([60, 365], 365)
    numbers, length = day_numbers([date(2024, 12, 31)])
    assert (numbers.tolist(), length) == ([366], 366)
    # Neighbouring years are as far away as they are.
    numbers, _ = day_numbers([date(2022, 12, 30), date(2023, 6, 1), date(2024, 1, 2)])
    assert numbers.tolist() == [-1, 152, 367]


def test_the_last_day_of_the_year_keeps_its_image() -> None:
    days = [date(2023, 6, 30), date(2023, 12, 31)]
    # Day 345 lies 20 days before it, and 164 after the other.
    weights = resampling_weights(*day_numbers(days))
    np.testing.assert_allclose(weights[23], [20 / 184, 164 / 184])
    assert monthly_weights(days)[11, 1] > 0.8


def test_smoothing_has_the_known_response() -> None:
    matrix = smoothing_matrix()
    np.testing.assert_allclose(matrix[:, 11], IMPULSE_11, atol=6e-7)
    np.testing.assert_allclose(matrix[:, 0], IMPULSE_0, atol=6e-7)
    np.testing.assert_allclose(matrix @ np.arange(24), np.arange(0.5, 23, 2))
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


def test_one_matrix_does_what_interpolation_and_smoothing_do_in_turn() -> None:
    images = np.random.default_rng(102).uniform(0, 1, (5, 8, 8)).astype(np.float32)
    days = [date(2022, 1, 10), date(2022, 2, 9), date(2022, 4, 10), date(2022, 7, 19),
            date(2022, 10, 27)]  # fmt: skip
    assert day_numbers(days)[0].tolist() == DAYS.tolist()
    steps = np.tensordot(resampling_weights(DAYS), images, 1)
    second = np.diff(np.eye(24), 2, axis=0)
    smooth = solve(np.eye(24) + 100 * second.T @ second, steps.reshape(24, -1))
    months = smooth.reshape(12, 2, 8, 8).mean(axis=1)
    expected = np.median(months.reshape(4, 3, 8, 8), axis=1)
    np.testing.assert_allclose(quarters(images, monthly_weights(days)), expected, atol=1e-6)


def test_whittaker_against_a_direct_solution() -> None:
    series = np.random.default_rng(102).uniform(0, 1, (24, 8, 8, 4))
    second = np.diff(np.eye(24), 2, axis=0)
    smooth = solve(np.eye(24) + 100 * second.T @ second, series.reshape(24, -1))
    expected = (smooth[0::2] + smooth[1::2]) / 2
    np.testing.assert_allclose(smoothing_matrix() @ series.reshape(24, -1), expected, atol=1e-9)


@pytest.mark.parametrize("dates", [1, 2, 5, 12, 25])
def test_median_along_time(dates: int) -> None:
    rng = np.random.default_rng(dates)
    images = rng.random((dates, 9, 33), dtype=np.float32)
    np.testing.assert_allclose(temporal_median(images), np.median(images, axis=0), rtol=1e-6)
    excluded = rng.random(images.shape) < 0.5
    excluded[:, 3, 4] = True
    excluded[:, 5, 6] = False
    known = np.ma.median(np.ma.masked_array(images, excluded), axis=0)
    found = temporal_median(images, excluded)
    assert np.isnan(found[3, 4])
    np.testing.assert_array_equal(np.isnan(found), np.ma.getmaskarray(known))
    np.testing.assert_allclose(np.ma.masked_invalid(found), known, rtol=1e-6)
