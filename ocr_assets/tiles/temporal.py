"""From irregular dates to twelve months and four quarters.

Belongs here: medians along time, and the weights by which images of real dates become even steps.
Does not belong here: what the values mean.

Interpolation and smoothing are both linear in the images, so that one matrix does both: a month is
the sum of all images, each times its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numba import njit
from numpy.typing import NDArray

STEP = 15
"""Days between the steps of interpolation: 24 in a year, from the day before its first."""

STEPS = 24
MONTHS = STEPS // 2

SMOOTHING = 100.0
"""Weight of squared second differences against squared residuals."""

_TOLERANCE = 5
"""Days by which an image may lie on the other side of a step."""

_REACH = 100
"""Days from the nearest image from which a second one on the same side no longer counts."""


def day_numbers(dates: Sequence[date]) -> tuple[NDArray[np.int64], int]:
    """Days since the eve of the year, so that 1 January is 1, and the days of that year.

    The year is that of the middle one of ``dates``; days before and after it are real days too.
    """
    year = dates[len(dates) // 2].year
    eve = date(year, 1, 1).toordinal() - 1
    numbers = np.array([day.toordinal() - eve for day in dates], np.int64)
    return numbers, date(year + 1, 1, 1).toordinal() - eve - 1


def resampling_weights(days: NDArray[np.integer], days_in_year: int = 365) -> NDArray[np.float64]:
    """Weights of the images at days 0, 15 ... 345, ``[24, images]``; rows add up to 1.

    Up to two images on each side count, by their distance in time. Where there is none on a side,
    the year is taken to repeat itself if the gap is long, and else the other side stands in.

    Args:
        days: day of the year of each image, ascending.
        days_in_year: 365 or 366.
    """
    weights = np.zeros((STEPS, len(days)))
    for step in range(STEPS):
        before, after = _sides(np.asarray(days), step * STEP, days_in_year)
        nearest = max(before[0][1] + after[0][1], 2)
        for side in (before, after):
            first = abs(1 - side[0][1] / nearest)
            for image, gap in side:
                weights[step, image] += first * side[0][1] / gap
    return weights / weights.sum(axis=1, keepdims=True)


def smoothing_matrix() -> NDArray[np.float64]:
    """Whittaker smoothing of 24 steps, then means of pairs, ``[12, 24]``.

    ``(I + 100 D'D)^-1`` with the matrix D of second differences; Eilers 2003,
    doi:10.1021/ac034173t.
    """
    differences = np.diff(np.eye(STEPS), 2, axis=0)
    smoothed = np.linalg.inv(np.eye(STEPS) + SMOOTHING * differences.T @ differences)
    return (smoothed[0::2] + smoothed[1::2]) / 2


def monthly_weights(dates: Sequence[date]) -> NDArray[np.float32]:
    """Weights of the images of ``dates`` in each of twelve smooth months, ``[12, images]``."""
    days, days_in_year = day_numbers(dates)
    weights = smoothing_matrix() @ resampling_weights(days, days_in_year)
    return weights.astype(np.float32)


def quarters(images: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Medians of the three months of each quarter, ``[4, H, W]``.

    Args:
        images: one band, ``[images, H, W]``; rows and columns of an image lie together in memory.
        weights: of :func:`monthly_weights`.
    """
    count, rows, cols = images.shape
    months = weights @ images.reshape(count, rows * cols)
    first, second, third = months[0::3], months[1::3], months[2::3]
    low, high = np.minimum(first, second), np.maximum(first, second)
    median: NDArray[np.float32] = np.maximum(low, np.minimum(high, third))
    return median.reshape(-1, rows, cols)


def temporal_median(
    images: NDArray[np.float32], excluded: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Median along time, ``[H, W]``; NaN where every date is excluded.

    Args:
        images: finite, ``[dates, H, W]``.
        excluded: values that do not count, of the same shape.
    """
    if excluded is None:
        excluded = np.zeros((1, 1, 1), np.bool_)
    result = np.empty(images.shape[1:], np.float32)
    _median(images, np.broadcast_to(excluded, images.shape), result)
    return result


def _sides(
    days: NDArray[np.integer], day: int, days_in_year: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Images before and after a day with their distance of at least 1, the nearest first."""
    last = len(days) - 1
    before = [i for i in range(last, -1, -1) if days[i] - day < _TOLERANCE][:2]
    after = [i for i in range(last + 1) if days[i] - day >= -_TOLERANCE][:2]
    sides = [
        [
            (image, max(abs(int(days[image]) - day), 1))
            for image in side
            if abs(days[image] - days[side[0]]) < _REACH
        ]
        for side in (before, after)
    ]
    if not before:
        # The last image of the year stands for the one before its first.
        gap = max(abs(int(days[last]) - days_in_year - day), 1)
        sides[0] = [(last, gap)] if days[0] >= 90 else sides[1]
    if not after:
        gap = max(abs(int(days[0]) + days_in_year - day), 1)
        sides[1] = [(0, gap)] if days[last] <= 270 else sides[0]
    return sides[0], sides[1]


@njit(cache=True, nogil=True)
def _median(images, excluded, result):
    dates, rows, cols = images.shape
    series = np.empty((dates, cols), np.float32)
    counts = np.empty(cols, np.int64)
    for i in range(rows):
        counts[:] = 0
        for layer in range(dates):
            for j in range(cols):
                counted = not excluded[layer, i, j]
                series[layer, j] = images[layer, i, j] if counted else np.inf
                counts[j] += counted
        # A sorting network over whole rows: every comparison is one vector instruction.
        for turn in range(dates):
            for layer in range(turn % 2, dates - 1, 2):
                for j in range(cols):
                    first, second = series[layer, j], series[layer + 1, j]
                    series[layer, j] = min(first, second)
                    series[layer + 1, j] = max(first, second)
        for j in range(cols):
            count = counts[j]
            if count == 0:
                result[i, j] = np.nan
            else:
                middle = series[(count - 1) // 2, j] + series[count // 2, j]
                result[i, j] = middle * np.float32(0.5)
