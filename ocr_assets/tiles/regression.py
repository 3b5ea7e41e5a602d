"""What a date would show under its clouds, by regression on the composite of the year.

Belongs here: choosing pixels to learn from, and non-negative least squares.
Does not belong here: the composite, masks, blending.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from ocr_assets.tiles.indices import evi
from ocr_assets.tiles.masks import Mask
from ocr_assets.tiles.reflectance import B2, B4, B8

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows and columns."""

_ENOUGH = 40_000
"""Clear pixels up to which the neighbouring dates help out."""

_MOST = 90_000
_STRATA = 5

_REPEATS = 10
"""How often the sparsest and the densest vegetation is put in."""

_LEAST_FEATURE = 0.005
"""Reflectance to which features that have been predicted already are raised."""


def fitted(
    cube: NDArray[np.float32],
    weights: NDArray[np.float32],
    date: int,
    composite: NDArray[np.float32],
    snow: NDArray[np.float32],
    land: Mask,
    pixels: Pixels,
    seed: int,
) -> NDArray[np.float32]:
    """Reflectance of one date at ``pixels`` as the composite lets expect, ``[10, pixels]``.

    Each band is a sum of the bands of the composite and its snow, with weights that are not
    negative. They are learnt from land that is clear on the date, and around it if that is too
    little; without any, the composite itself is the answer.

    Args:
        cube: reflectance ``[date, 10, H, W]``.
        weights: soft masks ``[date, H, W]``.
        date: index of the date.
        composite: reflectance ``[10, H, W]``.
        snow: 0..1, ``[H, W]``.
        land: pixels to learn from, ``[H, W]``.
        pixels: where to predict.
        seed: of the choice of pixels to learn from.
    """
    expected = composite[:, *pixels]
    dates, learnt = _clear_land(weights, date, land)
    if not len(learnt):
        return expected
    flat = composite.reshape(len(composite), -1)
    greenness = evi(flat[B2, learnt], flat[B4, learnt], flat[B8, learnt])
    chosen = _stratified(greenness, np.random.default_rng([seed, date]))
    dates, learnt = dates[chosen], learnt[chosen]
    features = np.vstack([flat[:, learnt], snow.reshape(-1)[learnt]]).astype(np.float64)
    inputs = np.vstack([expected, snow[pixels]])
    images = cube.reshape(*cube.shape[:2], -1)
    result = np.empty_like(expected)
    products = features @ features.T
    for band in range(len(result)):
        target = images[dates, band, learnt].astype(np.float64)
        factors = _non_negative(features, target, products)
        np.matmul(factors.astype(np.float32), inputs, out=result[band])
        np.maximum(inputs[band], _LEAST_FEATURE, out=inputs[band])
        if features[band].min() < _LEAST_FEATURE:
            np.maximum(features[band], _LEAST_FEATURE, out=features[band])
            products = features @ features.T
    return result


def _clear_land(
    weights: NDArray[np.float32], date: int, land: Mask
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Dates and flat indices of the pixels to learn from; none if the date itself has none."""
    here = np.flatnonzero((weights[date] == 0) & land)
    if not len(here) or len(here) > _ENOUGH:
        return np.full(len(here), date), here
    start = max(0, min(date - 1, len(weights) - 3))
    around = range(start, min(start + 3, len(weights)))
    parts = [np.flatnonzero((weights[other] == 0) & land) for other in around]
    dates = np.concatenate([
        np.full(len(part), other) for part, other in zip(parts, around, strict=True)
    ])  # fmt: skip
    return dates, np.concatenate(parts)


def _stratified(greenness: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of as many pixels from each fifth of ``greenness``, the extremes more often."""
    edges = np.percentile(greenness, np.linspace(0, 100, _STRATA + 1)[1:-1])
    strata = np.searchsorted(edges, greenness, side="right")
    parts = []
    for stratum in range(_STRATA):
        members = np.flatnonzero(strata == stratum)
        if len(members) > _MOST // _STRATA:
            members = rng.choice(members, _MOST // _STRATA, replace=False)
        parts.append(members)
    chosen = np.concatenate(parts)
    sparse, dense = np.percentile(greenness[chosen], [2, 98])
    extreme = chosen[(greenness[chosen] < sparse) | (greenness[chosen] >= dense)]
    pool = np.concatenate([chosen, np.repeat(extreme, _REPEATS - 1)])
    picked: NDArray[np.intp] = rng.permutation(pool)[: len(chosen)]
    return picked


def _non_negative(
    features: NDArray[np.float64], target: NDArray[np.float64], products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Factors of non-negative least squares, given the products of the features with each other.

    The Cholesky factor of the products is a problem of as few rows as there are features, and
    has the same solution.
    """
    # A feature that is 0 throughout, such as snow without any, would have no factor.
    ridge = 1e-9 * np.trace(products) / len(products)
    factor = np.linalg.cholesky(products + ridge * np.eye(len(products)))
    solution, _ = nnls(factor.T, np.linalg.solve(factor, features @ target))
    return solution
