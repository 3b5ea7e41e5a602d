"""Smooth random fields: the made-up values of the sample world's rasters.

Belongs here: values as functions of position and seed. A value depends on the place alone, never
on the window it is computed in, so any two cuts of the world agree.
Does not belong here: real data, files, and the grids the values are put on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.floating[Any]]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Waves:
    """A sum of plane waves, about normally distributed with mean 0 and variance 1.

    Wavelengths are drawn log-uniformly from ``shortest`` to ``longest`` (metres); long waves carry
    more power, so the field looks like terrain.
    """

    seed: int
    shortest: float
    longest: float
    count: int = 24

    def on_grid(self, x: Axis, y: Axis) -> Floats:
        """The field on a grid of ``x`` and ``y`` in metres, shape ``(len(y), len(x))``."""
        random = np.random.default_rng(self.seed)
        length = np.exp(random.uniform(np.log(self.shortest), np.log(self.longest), self.count))
        angle, phase = random.uniform(0, 2 * np.pi, (2, self.count))
        amplitude = np.sqrt(length)
        amplitude *= np.sqrt(2 / np.sum(amplitude**2))
        along_x = np.outer(2 * np.pi * np.cos(angle) / length, x) + phase[:, None]
        along_y = np.outer(2 * np.pi * np.sin(angle) / length, y)
        # cos(a + b) parts into products of one-axis terms: two matrix products make the grid.
        cos_x = (amplitude[:, None] * np.cos(along_x)).astype(np.float32)
        sin_x = (amplitude[:, None] * np.sin(along_x)).astype(np.float32)
        cos_y, sin_y = np.cos(along_y).astype(np.float32), np.sin(along_y).astype(np.float32)
        field: Floats = cos_y.T @ cos_x
        field -= sin_y.T @ sin_x
        return field


def scatter(rows: NDArray[np.int64], cols: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Uniform values in [0, 1) without spatial structure, one per cell of absolute indices.

    Shape ``(len(rows), len(cols))``. A multiply-xorshift hash of the indices and the seed.
    """
    with np.errstate(over="ignore"):
        key = rows.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
        key = key ^ (cols.astype(np.uint64)[None, :] * np.uint64(0xC2B2AE3D27D4EB4F))
        key = key + np.uint64(seed) * np.uint64(0x165667B19E3779F9)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            key = (key ^ (key >> np.uint64(shift))) * np.uint64(factor)
        key = key ^ (key >> np.uint64(31))
    return (key >> np.uint64(11)).astype(np.float64) / 2.0**53


def burn_probability(x: Axis, y: Axis, seed: int) -> dict[int, Floats]:
    """Annual burn probability of the climates 2011 and 2047 at ``x``, ``y`` metres.

    Log-normal, held within 1e-4 and 0.05; 2047 is mostly higher.
    """
    today = np.exp(-6.2 + 1.1 * Waves(seed, 2_000, 60_000).on_grid(x, y))
    later = today * np.exp(0.35 + 0.25 * Waves(seed + 1, 8_000, 80_000).on_grid(x, y))
    return {2011: np.clip(today, 1e-4, 0.05), 2047: np.clip(later, 1e-4, 0.05)}


def conditional_risk(x: Axis, y: Axis, seed: int) -> Floats:
    """Conditional risk to potential structures, percent, 5 to 95, with detail down to 150 m."""
    coarse = Waves(seed + 2, 1_000, 20_000).on_grid(x, y)
    coarse *= 14
    coarse += 40
    coarse += 4 * Waves(seed + 3, 150, 900).on_grid(x, y)
    return np.clip(coarse, 5, 95, out=coarse)


def fire_weather(x: Axis, y: Axis, seed: int) -> tuple[Floats, Floats]:
    """Share of hours that are fire weather, and the 99th percentile of wind in them, m/s.

    Both have shape ``(len(y), len(x))``. Windy places have more fire weather.
    """
    wind = Waves(seed + 20, 12_000, 120_000).on_grid(x, y)
    dryness = Waves(seed + 21, 20_000, 200_000).on_grid(x, y)
    share = np.exp(-5.4 + 0.9 * wind + 0.6 * dryness)
    return np.clip(share, 1e-5, 0.2), np.clip(13 + 3 * wind, 6, 35)


def wind_directions(x: Axis, y: Axis, seed: int) -> Floats:
    """Shares of eight wind directions (N, NE, ... NW) in fire weather, mostly westerly.

    Shape ``(len(y), len(x), 8)``; sums to 1 over the last axis.
    """
    prevailing = np.array([0.0, -0.6, -0.8, -0.5, 0.0, 0.7, 1.4, 0.9], np.float32)
    layers = [
        Waves(seed + 10 + index, 30_000, 300_000, 12).on_grid(x, y) * 0.6 + bias
        for index, bias in enumerate(prevailing)
    ]
    share = np.exp(np.stack(layers, axis=-1))
    share /= share.sum(axis=-1, keepdims=True)
    return share
