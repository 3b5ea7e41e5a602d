"""Scaling and alignment: known decibels, nested grids, odd sizes, gaps."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage
from synthetic_scenes import grid, optical, radar_images

from ocr_assets.tiles.ard import SCALE, Quarter, Sentinel1, Sentinel2, coarser
from ocr_assets.tiles.reflectance import (
    B2,
    B5,
    B8A,
    B11,
    BANDS,
    complete_dates,
    decibels,
    enlarge,
    from_40m,
    interpolate,
    missing_pixels,
    radar,
    reflectance,
    smooth_slope,
)

SIDE = 16
IMAGE = np.random.default_rng(1).random((12, 14), dtype=np.float32)


def one_date(fill: float = 0.2) -> Sentinel2:
    return optical(np.full((1, 10, SIDE, SIDE), fill, np.float32))


def composites(images: NDArray[np.uint16]) -> Sentinel1:
    """Radar with the same image in both polarisations, ``[quarter, row, col]``."""
    quarter = Quarter((date(2021, 1, 20),), "both", 1.0)
    both = np.repeat(images[..., None], 2, axis=-1)
    return Sentinel1(both, (quarter,) * 4, coarser(grid(images.shape[1] * 4), 4))


@pytest.mark.parametrize(
    ("linear", "scaled"),
    [(0.001, 0), (0.01, 0.09121), (0.05, 0.408683), (0.1, 0.545485), (0.5, 0.863174)],
)
def test_known_decibels(linear: float, scaled: float) -> None:
    stored = np.full((3, 3), round(linear * SCALE), np.uint16)
    # Integers cannot hold these exactly; half a step of them is 0.0033 dB at 0.01.
    np.testing.assert_allclose(decibels(stored), scaled, atol=2e-4)


def test_saturated_backscatter_takes_the_median_and_none_is_not_a_number() -> None:
    stored = np.full((3, 3), round(0.1 * SCALE), np.uint16)
    stored[0, 0], stored[2, 2] = SCALE, 0
    scaled = decibels(stored)
    assert scaled[0, 0] == scaled[1, 1] == pytest.approx(0.545485, abs=1e-4)
    assert np.isnan(scaled[2, 2])
    # Where all is saturated there is no better median.
    assert decibels(np.full((2, 2), SCALE, np.uint16))[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarging_is_bilinear_between_pixel_centres_with_mirrored_edges(factor: int) -> None:
    expected = ndimage.zoom(IMAGE, factor, order=1, mode="mirror", grid_mode=True)
    np.testing.assert_allclose(enlarge(IMAGE, factor), expected, atol=1e-6)


def test_bands_of_40_m_are_means_and_odd_lines_keep_their_values() -> None:
    odd = IMAGE[:11, :13]
    large = from_40m(odd)
    assert large.shape == (22, 26)
    np.testing.assert_array_equal(large[0], odd[0].repeat(2))
    np.testing.assert_array_equal(large[2:, 1], odd[1:, 0].repeat(2))
    mean = odd[1:, 1:].reshape(5, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(large[2:, 2:], enlarge(mean, 4), atol=1e-6)
    np.testing.assert_allclose(
        from_40m(IMAGE), enlarge(IMAGE.reshape(6, 2, 7, 2).mean(axis=(1, 3)), 4), atol=1e-6
    )


def test_each_band_comes_to_its_place() -> None:
    images = one_date()
    for index in range(4):
        images.bands10[..., index] = 1000 * (index + 1)
    for index in range(6):
        images.bands20[..., index] = 10_000 + 1000 * index
    stored = reflectance(images, 0)[:, 3, 5] * SCALE
    expected = [1000, 2000, 3000, 4000, 10_000, 11_000, 12_000, 13_000, 14_000, 15_000]
    np.testing.assert_allclose(stored, expected, rtol=1e-5)
    assert BANDS == ("B2", "B3", "B4", "B8", "B5", "B6", "B7", "B8A", "B11", "B12")
    assert (B2, B5, B8A, B11) == (0, 4, 7, 8)


def test_coarse_bands_lie_where_they_belong() -> None:
    images = one_date()
    ramp = np.arange(SIDE // 2, dtype=np.uint16) * 1000 + 500
    images.bands20[:] = ramp[None, None, :, None]
    bands = reflectance(images, 0) * SCALE
    # The centre of pixel c of 10 m lies at (c + 0.5) / 2 - 0.5 pixels of 20 m.
    expected = ((np.arange(SIDE) + 0.5) / 2 - 0.5) * 1000 + 500
    inner = slice(1, -1)
    np.testing.assert_allclose(bands[B5][4, inner], expected[inner], rtol=1e-4)
    inner = slice(2, -2)
    np.testing.assert_allclose(bands[B11][4, inner], expected[inner], rtol=1e-4)


def test_pixels_without_two_good_bands_are_missing() -> None:
    images = one_date()
    images.bands10[0, 2, 3, 0] = 0  # one band alone
    images.bands10[0, 4, 5, :2] = 0, SCALE
    images.bands20[0, 5, 6, :2] = 0  # four pixels of 10 m
    images.bands10[0, 0, 0, 0] = images.bands20[0, 0, 0, 5] = 0
    rows, cols = np.nonzero(missing_pixels(images, 0))
    assert sorted(zip(rows.tolist(), cols.tolist(), strict=True)) == [
        (0, 0), (4, 5), (10, 12), (10, 13), (11, 12), (11, 13),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ([0, 0.09, 0.092, 0.05], [0, 1, 3]),
        ([0.5, 0.0, 0.2, 0.3, 1.0], [1, 2, 3]),
        ([1.0, 0.4], [1]),
        ([1.0, 1.0], []),
        ([], []),
    ],
)
def test_incomplete_dates_go_while_three_remain(shares: list[float], kept: list[int]) -> None:
    assert complete_dates(np.array(shares)) == kept


def test_slope_loses_its_outliers() -> None:
    slope = np.full((9, 9), 4, np.float32)
    slope[4, 4] = 80
    assert (smooth_slope(slope) == 4).all()


def test_radar_lies_where_its_grid_says() -> None:
    ramp = np.arange(1, 9, dtype=np.uint16) * 6000
    images = composites(np.broadcast_to(ramp, (4, 8, 8)).copy())
    found = radar(images, (32, 32), grid(32).affine)
    assert found.shape == (4, 2, 32, 32)
    in_decibels = decibels(np.broadcast_to(ramp, (8, 8)))[0]
    expected = np.interp((np.arange(32) + 0.5) / 4 - 0.5, np.arange(8), in_decibels)
    np.testing.assert_allclose(found[2, 1, 7], expected, rtol=1e-6)
    # A grid that begins elsewhere is read from where it lies.
    moved = GeoBox((12, 12), grid(32).affine @ Affine.translation(8, 4), "EPSG:32633")
    np.testing.assert_allclose(
        radar(images, (12, 12), moved.affine), found[:, :, 4:16, 8:20], rtol=1e-6
    )


def test_gaps_of_radar_take_the_median_of_the_other_quarters() -> None:
    images = radar_images(32)
    full = radar(images, (32, 32), grid(32).affine)
    images.backscatter[1] = 0
    images.backscatter[:, 5, 5] = 0
    found = radar(images, (32, 32), grid(32).affine)
    assert found[0, 0, 22, 22] < 0.5 * full[0, 0, 22, 22]  # nothing in any quarter
    others = np.stack([decibels(q[..., 0]) for q in images.backscatter[[0, 2, 3]]])
    at = (np.arange(32) + 0.5) / 4 - 0.5
    expected = interpolate(np.median(np.nan_to_num(others), axis=0), at, at)
    np.testing.assert_allclose(found[1, 0], expected, atol=1e-6)


def test_compat_squeezes_radar_into_the_middle() -> None:
    gradient = np.linspace(3000, 60_000, 50).astype(np.uint16)
    images = composites(np.broadcast_to(gradient, (4, 50, 50)).copy())
    found = radar(images, (200, 200), grid(200).affine, compat=True)[0, 0]
    changes = np.flatnonzero(np.diff(found[100]))
    assert (changes.min(), changes.max()) == (75, 123)
    assert (found[:, :75] == found[0, 0]).all()
    # Larger than the tile by four pixels or more: nothing at all.
    assert not radar(images, (46, 46), grid(48).affine, compat=True).any()
    assert radar(images, (47, 47), grid(48).affine, compat=True).all()


def test_interpolation_repeats_the_edges() -> None:
    at = np.array([-3.0, 0.25, 11.0, 40.0])
    found = interpolate(IMAGE, at, np.array([2.5]))[:, 0]
    column = (IMAGE[:, 2] + IMAGE[:, 3]) / 2
    expected = [column[0], 0.75 * column[0] + 0.25 * column[1], column[11], column[11]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shapes_of_another_grid_are_refused() -> None:
    images = one_date()
    with pytest.raises(ValueError, match="bands20"):
        replace(images, bands20=images.bands20[:, 1:])
