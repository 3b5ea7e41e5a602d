"""From analysis-ready data to the feature cube: what goes where, and what becomes of dates."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from synthetic_scenes import (
    PLANTS,
    Scenes,
    field,
    grid,
    optical,
    radar_images,
    synthetic_scenes,
    terrain,
)

from ocr_assets.tiles.ard import Quarter, Sentinel2
from ocr_assets.tiles.features import FeatureError, Features, feature_cube
from ocr_assets.tiles.indices import INDICES
from ocr_assets.tiles.normalisation import CHANNELS, MEDIAN_FRAME
from ocr_assets.tiles.reflectance import radar
from ocr_assets.tiles.superresolution import SuperResolutionError
from ocr_assets.tiles.temporal import monthly_weights

SIDE = 64


def bilinear(_: NDArray[np.float32], coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    return coarse


def made(
    cube: NDArray[np.float32], days: tuple[date, ...] | None = None, **options: bool | int
) -> Features:
    """Features of reflectance, with flat terrain and the usual radar."""
    side = cube.shape[2]
    flat = terrain(np.full((side, side), 9, np.float32))
    return feature_cube(flat, radar_images(side), optical(cube, days), bilinear, **options)


def clear(dates: int = 6, side: int = SIDE) -> NDArray[np.float32]:
    return synthetic_scenes(dates, side, cloudy=()).cube


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return synthetic_scenes()


def test_channels_are_in_their_places() -> None:
    cube = np.broadcast_to(PLANTS[:, None, None], (4, 10, SIDE, SIDE)).astype(np.float32)
    cube *= field(np.random.default_rng(0), SIDE, 5) + np.float32(0.5)
    result = made(cube)
    assert result.cube.shape == (5, SIDE, SIDE, 17)
    assert result.cube.dtype == np.float32
    assert np.isfinite(result.cube).all()
    assert not result.nodata.any()
    assert not result.unseen.any()
    for frame in result.cube:
        for band in range(4):
            np.testing.assert_allclose(frame[..., band], cube[0, band], atol=2e-5)
        # Coarse bands have lost their detail.
        ratio = frame[..., 4:10] / np.moveaxis(cube[0, 4:], 0, -1)
        assert np.abs(ratio - 1).mean() < 0.02
        np.testing.assert_allclose(frame[..., CHANNELS.index("slope")], 0.1, rtol=1e-6)
    optical_frame = np.moveaxis(result.cube[MEDIAN_FRAME, ..., :10], -1, 0)
    for name, index in INDICES.items():
        for frame in result.cube:
            np.testing.assert_allclose(
                frame[..., CHANNELS.index(name)], index(optical_frame), atol=2e-4
            )
    images = radar(radar_images(SIDE), (SIDE, SIDE), grid(SIDE).affine)
    for position, name in enumerate(("VV", "VH")):
        channel = result.cube[..., CHANNELS.index(name)]
        np.testing.assert_array_equal(channel[:4], images[:, position])
        # The median of the year as if each quarter were three months.
        months = np.repeat(images[:, position], 3, axis=0)
        np.testing.assert_allclose(channel[4], np.median(months, axis=0), rtol=1e-6)


def test_quarters_follow_the_season_and_the_median_does_not_smooth() -> None:
    days = tuple(date(2020, month, 29) for month in range(1, 13))
    cube = np.repeat(clear(1), 12, axis=0)
    season = np.float32(0.75) + 0.25 * np.cos(np.arange(12) / 6 * np.pi, dtype=np.float32)
    cube *= season[:, None, None, None]
    result = made(cube, days)
    months = monthly_weights(days) @ season
    expected = np.median(months.reshape(4, 3), axis=1) / np.median(season)
    ratio = result.cube[:4, ..., 3] / result.cube[4, ..., 3]
    np.testing.assert_allclose(ratio, np.broadcast_to(expected[:, None, None], ratio.shape),
                               rtol=2e-3)  # fmt: skip


def test_clouds_leave_no_trace(scenes: Scenes) -> None:
    result = made(scenes.cube)
    expected = made(synthetic_scenes(cloudy=()).cube)
    assert result.flags == ()
    assert [seen.used for seen in result.dates] == [True] * 6
    assert [seen.cloud > 0.05 for seen in result.dates if seen.cloud is not None] == [
        False, True, False, False, True, False,
    ]  # fmt: skip
    difference = np.abs(result.cube - expected.cube)[..., :10]
    assert difference.mean() < 0.003
    assert np.percentile(difference, 99.9) < 0.03
    assert result.dates[1].as_metadata() == {
        "day": "2021-03-15",
        "missing": 0.0,
        "cloud": result.dates[1].cloud,
        "shadow": result.dates[1].shadow,
        "used": True,
        "dropped": "",
    }


def test_the_same_seed_gives_the_same_bytes(scenes: Scenes) -> None:
    hashes = [
        hashlib.sha256(made(scenes.cube, seed=seed).cube.tobytes()).hexdigest()
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_overcast_dates_are_dropped_and_reported() -> None:
    cube = clear()
    cube[2] = 0.5
    result = made(cube)
    assert [seen.dropped for seen in result.dates] == ["", "", "cloudy", "", "", ""]
    assert [seen.used for seen in result.dates] == [True, True, False, True, True, True]
    assert result.dates[2].cloud == 1
    days = optical(cube).dates
    kept = [0, 1, 3, 4, 5]
    alone = made(cube[kept], tuple(days[index] for index in kept))
    np.testing.assert_array_equal(result.cube, alone.cube)


def test_three_dates_stay_however_cloudy() -> None:
    cube = clear(4)
    cube[1:3] = 0.5
    result = made(cube)
    used = [seen.used for seen in result.dates]
    assert sum(used) == 3
    assert used[0]
    assert used[3]
    assert any("show any ground" in flag for flag in result.flags)
    assert np.isfinite(result.cube).all()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_dates_are_used_as_they_are_and_flagged(count: int) -> None:
    cube = clear(count)
    cube[0, :, 5:9, 5:9] = 0
    result = made(cube)
    assert any("clouds were not looked for" in flag for flag in result.flags)
    assert all(seen.used and seen.cloud is None for seen in result.dates)
    assert np.isfinite(result.cube).all()
    gap = np.zeros((SIDE, SIDE), bool)
    gap[5:9, 5:9] = True
    if count == 1:
        np.testing.assert_array_equal(result.nodata, gap)
        assert not result.cube[:, gap, :10].any()
    else:
        assert not result.nodata.any()
        np.testing.assert_allclose(result.cube[4, gap, 0], cube[1, 0][gap], atol=2e-5)
    assert "no usable image in quarter" in result.flags[-1]


def test_incomplete_dates_are_dropped_and_gaps_filled() -> None:
    cube = clear()
    expected = made(cube[[0, 1, 3, 4, 5]], tuple(optical(cube).dates[i] for i in (0, 1, 3, 4, 5)))
    cube[1, :, :4] = 0
    cube[2, :, :20] = 0
    cube[5, :] = 0
    cube[5, :, 0, 0] = 0.2
    result = made(cube)
    assert [seen.dropped for seen in result.dates] == ["", "", "incomplete", "", "", "incomplete"]
    assert result.dates[2].missing == pytest.approx(20 / SIDE)
    assert not result.nodata.any()
    # What is filled in the gap of the second date is like what was there.
    difference = np.abs(result.cube - expected.cube)[:4, :4, :, :10]
    assert difference.mean() < 0.02


def test_pixels_that_no_date_has_are_nodata() -> None:
    cube = clear()
    cube[:, :, 10:14, 20:24] = 0
    result = made(cube)
    assert result.nodata.sum() == 16
    assert not result.cube[:, 10:14, 20:24, :10].any()
    assert result.cube[:, 20, 20, :10].all()
    # Neighbours of the gap are not taken for clouds.
    assert all(seen.cloud is not None and seen.cloud < 0.01 for seen in result.dates)


def test_flags_of_the_sources_are_passed_on() -> None:
    cube = clear()
    images = optical(cube, tuple(date(2021, 1, 3 + index) for index in range(6)))
    quarter = Quarter((), "both", 0.0)
    silent = radar_images(SIDE)
    silent = replace(silent, quarters=(*silent.quarters[:2], quarter, silent.quarters[3]))
    silent.backscatter[2] = 0
    flat = terrain(np.zeros((SIDE, SIDE), np.float32))
    result = feature_cube(flat, silent, replace(images, partial=True), bilinear)
    assert result.flags == (
        "no Sentinel-1 in quarter 3; the others stand in",
        "all images of the year were too cloudy; these are the cleanest",
        "no usable image in quarter 2, 3, 4",
    )
    assert result.cube[2, ..., 11:13].all()
    cube[:, :, :10] = 0
    assert any("incomplete ones were kept: 2021-01-15" in flag for flag in made(cube).flags)


def test_without_any_image_there_is_nothing_to_make() -> None:
    with pytest.raises(FeatureError, match="none of the 2 dates of Sentinel-2 has any data"):
        made(np.zeros((2, 10, SIDE, SIDE), np.float32))
    with pytest.raises(FeatureError, match="none of the 0 dates"):
        made(np.zeros((0, 10, SIDE, SIDE), np.float32), ())


def shifted(images: Sentinel2) -> Sentinel2:
    moved = GeoBox((SIDE, SIDE), images.geobox.affine @ Affine.translation(1, 0), "EPSG:32633")
    return replace(images, geobox=moved)


def test_sources_on_other_grids_are_refused() -> None:
    images, flat = optical(clear(3)), terrain(np.zeros((SIDE, SIDE), np.float32))
    radar_quarters = radar_images(SIDE)
    with pytest.raises(FeatureError, match="elevation is on"):
        feature_cube(flat, radar_quarters, shifted(images), bilinear)
    box = radar_quarters.geobox
    other_zone = replace(radar_quarters, geobox=GeoBox(box.shape, box.affine, "EPSG:32634"))
    with pytest.raises(FeatureError, match="Sentinel-1 is in EPSG:32634"):
        feature_cube(flat, other_zone, images, bilinear)
    turned = GeoBox(box.shape, box.affine @ Affine.rotation(10), box.crs)
    with pytest.raises(FeatureError, match="Sentinel-1 is not north up"):
        feature_cube(flat, replace(radar_quarters, geobox=turned), images, bilinear)


def test_a_network_without_an_answer_stops_the_tile() -> None:
    images, flat = optical(clear(3)), terrain(np.zeros((SIDE, SIDE), np.float32))
    with pytest.raises(SuperResolutionError, match="inf for B5"):
        feature_cube(flat, radar_images(SIDE), images, lambda _, coarse: coarse + np.inf)


def test_compat_makes_the_known_errors() -> None:
    cube = clear(4, 128)
    flat = terrain(np.zeros((128, 128), np.float32))

    def marked(_: NDArray[np.float32], coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        return coarse + np.float32(0.1)

    inputs = (flat, radar_images(128), optical(cube), marked)
    right, old = feature_cube(*inputs), feature_cube(*inputs, compat=True)
    difference = (right.cube - old.cube)[4, ..., 4]
    # The strip on the right is not sharpened; radar is squeezed into the middle.
    np.testing.assert_allclose(difference[:15, 115:], 0.1, atol=1e-3)
    np.testing.assert_allclose(difference[:15, :105], 0, atol=1e-6)
    vv = CHANNELS.index("VV")
    assert (old.cube[0, :48, :48, vv] == old.cube[0, 0, 0, vv]).all()
    assert np.ptp(right.cube[0, :48, :48, vv]) > 0.01
