"""Clouds and shadows: synthetic truth, single tests on known pixels, real scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from synthetic_scenes import SOIL, Scenes, synthetic_scenes

from ocr_assets.tiles.cloud_tests import (
    brightened,
    brightness_outliers,
    hazy_dates,
    outline,
    reject,
)
from ocr_assets.tiles.clouds import detect, soft_mask, usable_dates
from ocr_assets.tiles.reflectance import B2, B3, B4, B8, B8A, B11
from ocr_assets.tiles.shadows import believable, inverse_blue_shadows, seed_clouds, shadows, water

SIDE = 64
NONE = np.zeros((SIDE, SIDE), bool)
FLAT = np.zeros((SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return synthetic_scenes()


def bare(dates: int = 6) -> NDArray[np.float32]:
    """The same bare soil on every date, ``[date, 10, row, col]``."""
    return np.broadcast_to(SOIL[:, None, None], (dates, 10, SIDE, SIDE)).copy()


def nothing(cube: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.zeros((len(cube), *cube.shape[2:]), bool)


def visible(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    return cube[:, B2] + cube[:, B3] + cube[:, B4]


def test_clouds_and_shadows_are_found_where_they_are(scenes: Scenes) -> None:
    found = detect(scenes.cube, nothing(scenes.cube), scenes.slope)
    cloudy = scenes.cloud.any(axis=(1, 2))
    assert cloudy.tolist() == [False, True, False, False, True, False]
    assert found.masked[~cloudy].mean() < 0.005
    assert found.cloud[scenes.cloud].mean() > 0.99
    assert found.masked[scenes.shadow].mean() > 0.95
    # Fringes are masked too, but ten pixels away nothing is.
    for date in np.flatnonzero(cloudy):
        away = ndimage.distance_transform_edt(~(scenes.cloud | scenes.shadow)[date]) > 12
        assert found.masked[date][away].mean() < 0.02
    assert not (found.cloud & found.shadow).any()


def test_missing_pixels_are_masked_and_mislead_nobody(scenes: Scenes) -> None:
    cube, missing = scenes.cube.copy(), nothing(scenes.cube)
    missing[2, :, :40] = missing[3, :30] = True
    cube.transpose(0, 2, 3, 1)[missing] = 0
    found = detect(cube, missing, scenes.slope)
    assert found.masked[missing].all()
    # Zeros on one date do not make the others look bright.
    assert found.cloud[[0, 5]].mean() < 0.005
    assert found.cloud[2:4][~missing[2:4]].mean() < 0.01


def test_two_dates_are_not_enough(scenes: Scenes) -> None:
    with pytest.raises(ValueError, match="on 2 dates"):
        detect(scenes.cube[:2], nothing(scenes.cube)[:2], scenes.slope)


def test_real_scenes(shared_data: Path) -> None:
    """Top of the atmosphere: a dense cloud, a veil of thin cloud, then three clear dates."""
    scenes = np.load(shared_data / "tiles" / "slovenia" / "reference_scenes.npy")
    order = [1, 2, 3, 7, 4, 5, 6, 8, 11, 12]  # of B01 ... B08, B8A, B09 ... B12
    cube = np.ascontiguousarray(np.moveaxis(scenes[..., order], -1, 1))
    found = detect(cube, nothing(cube), np.zeros(cube.shape[2:], np.float32))
    shares = found.cloud.mean(axis=(1, 2))
    assert shares[0] > 0.99
    assert shares[1] > 0.5
    assert (shares[2:] < 0.02).all()
    assert found.shadow[2:].mean() < 0.01


def test_seed_clouds_are_bright_and_not_ice() -> None:
    image = bare(1)[0]
    image[:, 20:40, 20:40] = 0.4
    found = seed_clouds(image)
    # Two pixels are eroded, ten are added: the square has grown by eight along its sides.
    assert found[30, 12]
    assert not found[30, 11]
    image[B11, 20:40, 20:40] = 0.08  # B6 / B11 of 5
    assert not seed_clouds(image).any()


def test_brightening_is_seen_against_the_dates_around() -> None:
    cube = bare()
    cube[2, :3, 10:30, 10:30] += 0.09  # above all five dates around
    cube[5, :3, 40:50, 40:50] += 0.03  # too little
    found = brightened(cube, nothing(cube), nothing(cube))
    np.testing.assert_array_equal(found[2, 10:30, 10:30], True)
    assert found.sum() == 400
    # What stays bright, such as a new roof, is no cloud.
    cube = bare(9)
    cube[2:, :3, 10:20, 10:20] += 0.09
    found = brightened(cube, nothing(cube), nothing(cube)).any(axis=(1, 2))
    # While the five dates around reach back to the time before it, it is taken for one.
    assert found.tolist() == [False, False, True, True, False, False, False, False, False]


def test_shadows_are_no_reference_of_brightness() -> None:
    cube, shaded = bare(), nothing(bare())
    cube[3, :, 10:25, 10:25] *= 0.3
    assert brightened(cube, nothing(cube), nothing(cube))[2, 20, 20]
    shaded[3, 8:32, 8:32] = True
    assert not brightened(cube, nothing(cube), shaded).any()
    # In shadow on every date: the dates are compared as they are.
    shaded[:] = True
    assert not brightened(bare(), nothing(cube), shaded).any()


def test_the_sensitive_test_adds_at_most_a_little() -> None:
    cube = bare()
    rng = np.random.default_rng(0)
    veil = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8)
    cube[3, :3] += 0.14 + veil / np.ptp(veil) * 0.06
    found = brightened(cube, nothing(cube), nothing(cube))
    safe = (cube[3, :3] - cube[2, :3] > np.array([0.08, 0.08, 0.07])[:, None, None]).all(axis=0)
    assert found[3].mean() <= safe.mean() + 0.075


def test_a_single_bright_flash_is_an_outlier() -> None:
    cube = bare() * np.random.default_rng(0).uniform(0.97, 1.03, (6, 1, SIDE, SIDE))
    cube = cube.astype(np.float32)
    cube[1, :3, 5, 5] *= 2
    cube[2:4, :3, 9, 9] *= 2  # twice: no cloud
    wet = NONE.copy()
    cube[4, :3, 20, 20] *= 2
    wet[20, 20] = True
    found = brightness_outliers(visible(cube), nothing(cube), wet)
    assert list(zip(*(at.tolist() for at in np.nonzero(found)), strict=True)) == [(1, 5, 5)]


def test_what_rejects_clouds() -> None:
    cube, found = bare(), nothing(bare())
    cube[:, B8] = 0.5
    found[2] = True
    cube[2, [B2, B3, B4], 5:15, 5:15] = [[[0.1]], [[0.2]], [[0.3]]]  # coloured
    cube[2, B8, 30:32, 30:32] = 0.1  # bare ground, grown by three pixels
    cube[2, [B2, B3, B4], 50:55, 50:55] = 0.05  # dark, grown by three pixels
    wet = NONE.copy()
    wet[40, 5], cube[2, B11, 40, 5] = True, 0.05  # dark water, grown by ten pixels
    # The ground is not coloured elsewhere.
    plain = np.ones((SIDE, SIDE), bool)
    plain[5:15, 5:15] = plain[50:55, 50:55] = False
    cube[2][:3, plain] = 0.2
    reject(cube, visible(cube), found, nothing(cube), wet)
    kept = found[2]
    assert not kept[7:13, 7:13].any()
    assert not kept[27, 30]
    assert kept[26, 30]
    assert not kept[47, 52]
    assert not kept[40, 15]
    assert kept[40, 16]
    assert kept[20, 40]
    # The loneliest are gone: three of a corner are fewer than five of nine.
    found[2] = False
    found[2, 20:22, 40:42] = True
    reject(cube, visible(cube), found, nothing(cube), wet)
    assert not found.any()


def test_bare_ground_rejects_clouds_of_its_own_date_only_unless_asked() -> None:
    cube, found = bare(), nothing(bare())
    cube[:, :3] = 0.2
    cube[:, B8] = 0.5
    cube[3, B8, 30, 30] = 0.1
    found[:] = True
    leaking = found.copy()
    reject(cube, visible(cube), found, nothing(cube), NONE)
    assert [int((~mask[5:-5, 5:-5]).sum()) for mask in found] == [0, 0, 0, 25, 0, 0]
    reject(cube, visible(cube), leaking, nothing(cube), NONE, compat=True)
    assert [int((~mask[5:-5, 5:-5]).sum()) for mask in leaking] == [1, 5, 13, 25, 13, 5]


def test_outlines_of_large_clouds_are_wider() -> None:
    mask = NONE.copy()
    mask[20:30, 20:30] = True
    # Eroded by 1, of the large rest the corners are not large; 5 and then 3 are added.
    outlined = outline(mask)
    assert outlined[25, 13]
    assert not outlined[25, 12]
    mask = NONE.copy()
    mask[20:23, 20:23] = True  # one pixel is left of it: not large; 1 and then 3 are added
    assert outline(mask)[21].sum() == 9


def test_haze_takes_the_whole_date() -> None:
    rng = np.random.default_rng(0)
    cube = bare() * rng.uniform(0.6, 1.4, (6, 1, SIDE, SIDE)).astype(np.float32)
    cube[2] = cube[2] * np.float32(0.4) + np.float32(0.2)
    hazy = hazy_dates(visible(cube), cube, nothing(cube))
    assert hazy.tolist() == [False, False, True, False, False, False]
    found = detect(cube, nothing(cube), FLAT)
    assert found.cloud[2].all()
    masked = nothing(cube)
    masked[0] = True
    assert not hazy_dates(visible(cube), cube, masked)[0]
    assert not hazy_dates(visible(cube), cube, ~nothing(cube)).any()


@pytest.mark.parametrize(
    ("blue", "nir", "swir", "slope", "found"),
    [
        (0.05, 0.15, 0.20, 0, True),  # darker than the median in all three
        (0.08, 0.15, 0.20, 0, False),  # blue is no darker than usual
        (0.05, 0.15, 0.28, 0, False),  # short-wave infrared is no darker
        (0.02, 0.175, 0.20, 0, True),  # very dark in blue
        (0.05, 0.175, 0.20, 0, False),  # too bright in near infrared
        (0.05, 0.175, 0.20, 30, True),  # but steep
        (0.01, 0.19, 0.10, 30, False),  # brighter than any shadow
    ],
)
def test_shadows_by_their_darkness(
    blue: float, nir: float, swir: float, slope: float, found: bool
) -> None:
    cube = bare()
    square = np.s_[20:40, 20:40]
    for band, value in ((B2, blue), (B3, 0.05), (B4, 0.05), (B8A, nir), (B11, swir)):
        cube[(3, band, *square)] = value
    dark = shadows(cube, nothing(cube), NONE, np.full_like(FLAT, slope))
    assert dark[3, 30, 30] == found
    # Two pixels are eroded, three and then five are added.
    assert dark[3, 30, 14] == found
    assert not dark[3, 30, 13]
    assert not dark[[0, 1, 2, 4, 5]].any()
    # Over water, darkness of the ground says nothing.
    assert not shadows(cube, nothing(cube), ~NONE, np.full_like(FLAT, slope)).any()


def test_shadows_on_water_are_dark_in_blue_and_green() -> None:
    cube = bare()
    cube[:, B8] = 0.01
    cube[:, B8A] = 0.02
    cube[4, B2:B4, 20:40, 20:40] -= 0.06
    wet = water(cube, nothing(cube))
    assert wet.all()
    dark = shadows(cube, nothing(cube), wet, FLAT)
    assert dark[4, 30, 30]
    assert not dark[:4].any()


def test_shadows_without_clouds_must_be_near_one_or_steep() -> None:
    shadow, cloud, slope = NONE.copy(), NONE.copy(), FLAT.copy()
    shadow[:4], shadow[60:] = True, True
    cloud[0, :2] = True
    slope[63, 63] = 30
    # An eighth in shadow, hardly any cloud.
    kept = believable(shadow, cloud, slope)
    assert kept[:4, :50].all()
    assert kept[63, 63]
    assert kept[60:].sum() == 1
    # With clouds enough, all shadows stand.
    cloud[20:30] = True
    np.testing.assert_array_equal(believable(shadow, cloud, slope), shadow)


def test_dark_blue_is_shadow() -> None:
    image = bare(1)[0]
    image[B2] += np.random.default_rng(0).normal(0, 0.002, (SIDE, SIDE))
    image[B2, 10:20, 10:20], image[B8A, 10:20, 10:20] = 0.04, 0.1
    found = inverse_blue_shadows(image, NONE, NONE)
    assert found[11:19, 11:19].all()
    assert not found[25:].any()
    assert not inverse_blue_shadows(image, NONE, ~NONE).any()
    assert not inverse_blue_shadows(image, ~NONE, NONE).any()


def test_soft_masks_fade_over_ten_pixels() -> None:
    mask = NONE.copy()
    mask[:, :10] = True
    weights = soft_mask(mask)
    np.testing.assert_allclose(
        weights[30, 9:22], [1, *(1 - np.arange(1, 10) / 12), 0, 0, 0], atol=1e-6
    )
    assert not soft_mask(NONE).any()
    assert (soft_mask(~NONE) == 1).all()
    # Gaps narrower than the closing are masked like their surroundings.
    mask = ~NONE
    mask[30:38, 30:38] = False
    assert (soft_mask(mask) == 1).all()


def test_dates_under_clouds_are_dropped_while_three_remain() -> None:
    cube = synthetic_scenes(cloudy=()).cube
    white = 0.5 + 0.05 * np.random.default_rng(0).random((2, 1, 128, 128), dtype=np.float32)
    cube[[1, 4]] = white
    missing = nothing(cube)
    missing[5, 0, 0] = True
    slope = np.zeros((128, 128), np.float32)
    clear = cube[[0, 2, 3, 5]].copy()
    kept, weights, quality = usable_dates(cube, missing, slope)
    assert kept == [0, 2, 3, 5]
    assert [seen.dropped for seen in quality] == ["", "cloudy", "", "", "cloudy", ""]
    assert quality[1].cloud > 0.9
    assert weights.shape == (4, 128, 128)
    np.testing.assert_array_equal(cube[:4], clear)
    assert missing[3, 0, 0]

    cube = np.concatenate([clear[:2], white.repeat(10, axis=1)])
    kept, weights, quality = usable_dates(cube, nothing(cube), slope)
    assert len(kept) == 3
    assert {0, 1} < set(kept)
    assert sum(seen.dropped == "cloudy" for seen in quality) == 1
