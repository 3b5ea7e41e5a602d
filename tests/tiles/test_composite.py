"""Composite and regression: masked pixels are filled with what the date would show."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls
from synthetic_scenes import PLANTS, SOIL, field, synthetic_scenes

from ocr_assets.tiles.clouds import usable_dates
from ocr_assets.tiles.composite import compose, fill_masked
from ocr_assets.tiles.reflectance import B2, B3, B8
from ocr_assets.tiles.regression import fitted

SIDE = 64


def landscape(dates: int = 4) -> NDArray[np.float32]:
    """Plants over soil, the same on every date, ``[date, 10, row, col]``."""
    cover = field(np.random.default_rng(0), SIDE, 4)
    image = SOIL[:, None, None] * (1 - cover) + PLANTS[:, None, None] * cover
    return np.repeat(image[None], dates, axis=0).astype(np.float32)


def no_mask(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros((len(cube), *cube.shape[2:]), np.float32)


def test_dates_are_brought_to_the_level_of_the_others() -> None:
    cube = landscape()
    truth = cube[0].copy()
    # One date with another gain and offset: an affine correction brings it back exactly.
    cube[1] = truth * np.float32(0.9) + np.float32(0.02)
    weights = no_mask(cube)
    weights[[0, 2, 3], :20] = 1
    composite = compose(cube, weights, weights == 1)
    assert composite.land.all()
    # The second date alone is clear in the upper rows, where it stays in the range of the dates.
    np.testing.assert_allclose(composite.bands[:, :20], np.clip(truth, cube.min(0), cube.max(0))
                               [:, :20], atol=2e-3)  # fmt: skip
    assert np.abs(cube[1] - truth)[:, :20].mean() > 5e-3


def test_water_keeps_its_level() -> None:
    cube = landscape()
    cube[:, B3, :, 40:], cube[:, B8, :, 40:] = 0.06, 0.01
    cube[1] *= np.float32(1.1)
    composite = compose(cube, no_mask(cube), no_mask(cube) > 0)
    assert not composite.land[:, 44:].any()
    assert composite.land[:, :34].all()
    expected = 0.01 * (3 + 1.1) / 4
    np.testing.assert_allclose(composite.bands[B8, :, 44:], expected, rtol=1e-5)


def test_where_no_date_is_clear_the_darkest_stand_in() -> None:
    cube = landscape(5)
    cube += np.linspace(0, 0.04, 5, dtype=np.float32)[:, None, None, None]
    weights = no_mask(cube)
    weights[:, :10, :10] = 1
    missing = weights > 0
    missing[1:, :10, :10] = False
    missing[:, 0, 0] = True
    bands = compose(cube, weights, missing).bands
    # The first date has no data there: the 10th percentile of four.
    np.testing.assert_allclose(bands[:, 5, 5], cube[0, :, 5, 5] + 0.013, atol=1e-5)
    np.testing.assert_allclose(bands[:, 0, 0], cube[0, :, 0, 0], atol=1e-6)


def test_snow_and_clouds_of_the_composite() -> None:
    cube = landscape()
    weights = no_mask(cube)
    weights[1:, 20:40, 20:40] = 1
    cube[0, :, 22:38, 22:38] = 0.6  # a cloud that no date is free of
    composite = compose(cube, weights, weights == 1)
    assert composite.cloudy[30, 30]
    assert not composite.cloudy[:12].any()
    assert composite.snow.max() == 0
    cube = landscape()
    cube[:2, :4], cube[:2, 8:] = 0.7, 0.1
    snowy = compose(cube, no_mask(cube), no_mask(cube) > 0).snow
    np.testing.assert_allclose(snowy, 0.5)


def test_clouds_are_filled_with_the_season_of_their_date() -> None:
    truth = synthetic_scenes(cloudy=()).cube
    scenes = synthetic_scenes()
    masked = scenes.cloud | scenes.shadow
    cube = scenes.cube.copy()
    # Noise of another draw: without clouds, both are the same landscape.
    missing = np.zeros_like(masked)
    kept, weights, _ = usable_dates(cube, missing, scenes.slope)
    assert kept == list(range(6))
    fill_masked(cube, weights, missing)
    clear = weights == 0
    np.testing.assert_array_equal(
        cube.transpose(0, 2, 3, 1)[clear], scenes.cube.transpose(0, 2, 3, 1)[clear]
    )
    for date in (1, 4):
        where = masked[date]
        before = np.abs(scenes.cube[date] - truth[date])[:, where].mean()
        after = np.abs(cube[date] - truth[date])[:, where].mean()
        assert after < 0.01 < 0.1 < before


def test_the_same_seed_gives_the_same_bytes() -> None:
    scenes = synthetic_scenes()
    weights = (scenes.cloud | scenes.shadow).astype(np.float32)
    results = []
    for seed in (0, 0, 1):
        cube = scenes.cube.copy()
        fill_masked(cube, weights, weights > 1, seed=seed)
        results.append(cube)
    np.testing.assert_array_equal(results[0], results[1])
    changed = np.abs(results[0] - results[2])
    assert 0 < changed.max() < 0.02
    # Nothing but the mask is touched.
    assert not changed.transpose(0, 2, 3, 1)[weights == 0].any()


def test_regression_is_non_negative_least_squares() -> None:
    composite = landscape()[0]
    rng = np.random.default_rng(3)
    mixing = np.abs(rng.normal(size=(10, 10))) * 0.2
    cube = landscape(3)
    cube[1] = np.einsum("ab,bij->aij", mixing, composite)
    weights = no_mask(cube)
    weights[1, :, 40:] = 1
    snow = np.zeros((SIDE, SIDE), np.float32)
    pixels = np.nonzero(weights[1])
    # Learning from the date alone, of which too few pixels are clear, takes its neighbours in.
    weights[[0, 2]] = 1
    found = fitted(cube, weights, 1, composite, snow, snow == 0, pixels, 0)
    np.testing.assert_allclose(found, cube[1][:, *pixels], atol=1e-4)
    # A relation that needs negative weights gets the best that is not negative.
    cube[1, B2] = np.maximum(0.5 - composite[B8], 0)
    found = fitted(cube, weights, 1, composite, snow, snow == 0, pixels, 0)
    features = composite[:, :, :40].reshape(10, -1).T.astype(np.float64)
    factors, _ = nnls(features, cube[1, B2, :, :40].reshape(-1).astype(np.float64))
    expected = factors @ composite[:, *pixels]
    # The extremes of vegetation weigh more in the one than in the other.
    assert np.abs(found[B2] - expected).mean() < 0.02
    assert (found >= 0).all()


def test_without_clear_pixels_the_composite_is_the_answer() -> None:
    cube = landscape(3)
    weights = no_mask(cube)
    weights[1] = 1
    snow = np.zeros((SIDE, SIDE), np.float32)
    pixels = np.nonzero(weights[1])
    found = fitted(cube, weights, 1, cube[0], snow, snow == 0, pixels, 0)
    np.testing.assert_array_equal(found, cube[0][:, *pixels])


def test_vegetation_is_learnt_in_all_densities() -> None:
    """A few dense plants in wide soil count for more than their share."""
    rng = np.random.default_rng(0)
    composite = SOIL[:, None, None] * rng.uniform(0.95, 1.05, (10, SIDE, SIDE))
    composite[:, 10:16, 10:16] = composite[:, 40:46, 40:46] = PLANTS[:, None, None]
    composite = composite.astype(np.float32)
    # In the season of the dates plants differ from the composite in another way than soil.
    plants = composite[B8] > 0.3
    cube = np.repeat(composite[None], 3, axis=0)
    cube[:, :, plants] *= np.float32(0.8)
    weights = no_mask(cube)
    weights[:, 38:48, 38:48] = 1
    snow = np.zeros((SIDE, SIDE), np.float32)
    pixels = np.nonzero(weights[1])
    found = fitted(cube, weights, 1, composite, snow, snow == 0, pixels, 0)
    dense = plants[pixels]
    assert dense.sum() == 36
    # All clear pixels alike would let the soil decide.
    clear = weights[1] == 0
    features = composite[:, clear].T.astype(np.float64)
    even = np.stack([nnls(features, band[clear])[0] for band in cube[1].astype(np.float64)])
    expected = cube[1][:, *pixels][:, dense]
    error = np.abs(found[:, dense] - expected).mean()
    assert error < 0.75 * np.abs(even @ composite[:, *pixels][:, dense] - expected).mean()


@pytest.mark.parametrize("masked", [0, 1])
def test_nothing_or_everything_masked(masked: int) -> None:
    cube = landscape()
    before = cube.copy()
    composite = fill_masked(cube, no_mask(cube) + masked, no_mask(cube) > 0)
    np.testing.assert_allclose(cube, before, atol=1e-6)
    assert not composite.cloudy.any()
