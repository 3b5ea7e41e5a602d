"""Optical images: every date with its own image, reflectance from the metadata, nothing lost."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from scene_folders import GRID, SceneFolder, in_degrees, optical_folder, pixels, place_of

from ocr_assets.tiles import sentinel2
from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M, Sentinel2
from ocr_assets.tiles.scenes import NoScenesError, Place, Scene, SceneError
from ocr_assets.tiles.sentinel2 import (
    boa_offset,
    checked_offset,
    find_images,
    make_sentinel2,
    mask_grid,
    reflectance_table,
    survey_grid,
)

CLOUDY = 9


def make(scenes: SceneFolder, year: int = 2023, place: Place | None = None) -> Sentinel2:
    imagery, where = scenes.imagery(), place or place_of()
    return make_sentinel2(imagery, where, find_images(imagery, where, year))


def scene(**properties: Any) -> Scene:
    about = {name.replace("__", ":"): value for name, value in properties.items()}
    return Scene("S2A_X", datetime(2023, 1, 1, tzinfo=UTC), shapely.box(0, 0, 1, 1), about, {})


@pytest.mark.parametrize(
    ("properties", "offset"),
    [
        ({"s2__processing_baseline": "03.01"}, 0),
        ({"s2__processing_baseline": "04.00"}, -1000),
        ({"s2__processing_baseline": "05.11"}, -1000),
        ({"processing__version": "05.09"}, -1000),
        ({"s2__processing_baseline": "05.09", "earthsearch__boa_offset_applied": True}, 0),
        ({"s2__processing_baseline": "05.09", "earthsearch__boa_offset_applied": False}, -1000),
        ({"s2__processing_baseline": "02.12", "earthsearch__boa_offset_applied": False}, 0),
        ({"earthsearch__boa_offset_applied": True}, 0),
    ],
    ids=range(8),
)
def test_the_offset_is_what_the_metadata_say(properties: dict[str, Any], offset: int) -> None:
    assert boa_offset(scene(**properties)) == offset


def test_a_scene_without_a_baseline_is_an_error() -> None:
    with pytest.raises(SceneError, match="S2A_X has no s2:processing_baseline"):
        boa_offset(scene(earthsearch__boa_offset_applied=False))


def test_reflectance_is_clipped_and_never_becomes_no_data() -> None:
    plain, shifted = reflectance_table(0), reflectance_table(-1000)
    numbers = [0, 1, 1000, 5000, 10_000, 60_000]
    assert plain[numbers].tolist() == [0, 7, 6554, 32768, 65535, 65535]
    assert shifted[[0, 1, 999, 1000, 2000, 11_000]].tolist() == [0, 1, 1, 1, 6554, 65535]


def test_an_offset_that_was_added_already_is_seen_in_the_red() -> None:
    classes = np.full((20, 20), 4, np.uint8)
    about = {"s2__processing_baseline": "05.09", "earthsearch__boa_offset_applied": False}
    dark, bright = (np.full((40, 40), number, np.uint16) for number in (400, 1400))
    offset, remark = checked_offset(scene(**about), classes, dark)
    assert offset == 0
    assert remark is not None
    assert "S2A_X" in remark
    assert checked_offset(scene(**about), classes, bright) == (-1000, None)
    # Water and cloud say nothing, nor do few pixels.
    assert checked_offset(scene(**about), np.full((20, 20), 6, np.uint8), dark) == (-1000, None)
    few = np.zeros((20, 20), np.uint8)
    few[:9, :11] = 4
    assert checked_offset(scene(**about), few, dark) == (-1000, None)


def test_bands_dates_and_scenes_stay_together(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    for index, when in enumerate(("03-05", "06-10", "12-30", "12-31")):
        scenes.optical(f"S2A_{index}", f"2023-{when}T10:05:00Z", 1234 * (index + 1))
    value = make(scenes)
    assert [f"{day:%m-%d}" for day in value.dates] == ["03-05", "06-10", "12-30", "12-31"]
    assert value.scenes == (("S2A_0",), ("S2A_1",), ("S2A_2",), ("S2A_3",))
    for index in range(4):
        expected = round(0.1234 * (index + 1) * 65535)
        assert (value.bands10[index] == expected).all()
        assert (value.bands20[index] == expected).all()
    assert (value.scl == 4).all()
    assert not value.partial
    assert value.empty_quarters == (3,)


def test_every_band_is_where_it_belongs(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    item = scenes.optical("S2A_0", "2023-06-10T10:05:00Z")
    for number, band in enumerate((*BANDS_10M, *BANDS_20M), start=1):
        grid = GRID if band in BANDS_10M else pixels(20)
        other = SceneFolder(tmp_path, scenes.collection)
        name = sentinel2.ASSETS[band][0]
        made = other.add(f"only_{name}", "2023-06-10T10:05:00Z", {name: (100 * number, grid)})
        item["assets"][name] = made["assets"][name]
    value = make(scenes)
    expected = [round(0.01 * number * 65535) for number in range(1, 11)]
    assert value.bands10[0, 5, 5].tolist() == expected[:4]
    assert value.bands20[0, 5, 5].tolist() == expected[4:]


def test_a_leap_year_has_all_its_days(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    for index, when in enumerate(("02-28", "02-29", "03-01", "12-30", "12-31")):
        scenes.optical(f"S2A_{index}", f"2024-{when}T10:05:00Z", 1234 * (index + 1))
    value = make(scenes, 2024)
    assert value.dates == (
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
        date(2024, 12, 30),
        date(2024, 12, 31),
    )
    assert value.bands10[:, 0, 0, 0].tolist() == [
        round(0.1234 * (index + 1) * 65535) for index in range(5)
    ]


def test_a_year_has_the_days_of_its_sun(tmp_path: Path) -> None:
    # At 178.5 degrees east 31 December, 22:40 in UTC is the morning of 1 January.
    grid = GeoBox((48, 64), Affine(10, 0, 662_000, 0, -10, 8_120_000), "EPSG:32760")
    place = place_of(grid)
    assert place.longitude == pytest.approx(178.5, abs=0.1)
    scenes = optical_folder(tmp_path)
    scenes.optical("before", "2022-12-31T22:40:00Z", 1000, grid=grid)
    scenes.optical("within", "2023-07-01T22:40:00Z", 2000, grid=grid)
    scenes.optical("after", "2023-12-31T22:40:00Z", 3000, grid=grid)
    assert make(scenes, 2023, place).dates == (date(2023, 1, 1), date(2023, 7, 2))
    assert make(scenes, 2024, place).dates == (date(2024, 1, 1),)


def test_two_scenes_of_one_day_become_one_image(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    west, east = GRID[:, :40], GRID[:, 24:]
    scl = np.full((24, 20), 4, np.uint8)
    scl[:, -4:] = 0  # no data in the last pixels of the western scene
    scenes.optical("S2A_west", "2023-06-10T10:05:00Z", 1000, scl, grid=west)
    # The eastern scene was processed later, with an offset in its numbers.
    scl = np.full((24, 20), 5, np.uint8)
    scenes.optical(
        "S2A_east",
        "2023-06-10T10:05:14Z",
        3000,
        scl,
        grid=east,
        s2__processing_baseline="05.09",
    )
    scenes.optical("S2A_other", "2023-09-10T10:05:00Z", 4000)
    value = make(scenes, place=place_of(survey_metres=0))
    assert value.dates == (date(2023, 6, 10), date(2023, 9, 10))
    assert sorted(value.scenes[0]) == ["S2A_east", "S2A_west"]
    assert value.scenes[1] == ("S2A_other",)
    first = np.unique(value.bands10[0])
    assert first.tolist() == [round(0.1 * 65535), round(0.2 * 65535)]
    # Bands and classes of a pixel are of the same scene, at both resolutions.
    of_the_west = value.scl[0] == 4
    assert (value.bands20[0][of_the_west] == first[0]).all()
    assert (value.bands20[0][~of_the_west] == first[1]).all()
    assert (value.bands10[0][of_the_west.repeat(2, 0).repeat(2, 1)] == first[0]).all()
    assert of_the_west.any()
    assert not of_the_west.all()
    assert (value.bands10 > 0).all()
    assert (value.bands10[1] == round(0.4 * 65535)).all()


def test_a_scene_that_adds_nothing_is_not_read(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    scenes.optical("S2A_old", "2023-06-10T10:05:00Z", 1000)
    scenes.optical("S2A_new", "2023-06-10T10:05:00Z", 2000, s2__processing_baseline="03.02")
    value = make(scenes)
    assert value.scenes == (("S2A_new",),)
    assert (value.bands10 == round(0.2 * 65535)).all()


def test_cloudy_images_are_dropped(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    scenes.optical("S2A_clear", "2023-06-10T10:05:00Z")
    scenes.optical("S2A_cloudy", "2023-07-10T10:05:00Z", scl=CLOUDY)
    # Clear around the tile, but not over it.
    covered = np.full(pixels(20, margin=4000).shape, 4, np.uint8)
    covered[200:224, 200:207] = CLOUDY
    item = scenes.optical("S2A_here", "2023-08-10T10:05:00Z")
    made = SceneFolder(tmp_path, scenes.collection).add(
        "scl", "2023-08-10T10:05:00Z", {"scl": (covered, pixels(20, margin=4000))}
    )
    item["assets"]["scl"] = made["assets"]["scl"]
    value = make(scenes)
    assert value.scenes == (("S2A_clear",),)
    assert value.clouds == (0.0,)


def test_of_cloudy_images_only_the_three_cleanest_are_kept(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    for month, share in ((1, 0.9), (3, 0.6), (5, 1.0), (8, 0.5), (11, 0.7)):
        scl = np.full((24, 32), 4, np.uint8)
        scl.reshape(-1)[: round(share * scl.size)] = CLOUDY
        scenes.optical(f"S2A_{month}", f"2023-{month:02}-10T10:05:00Z", scl=scl)
    value = make(scenes, place=place_of(survey_metres=0))
    assert value.partial
    assert [day.month for day in value.dates] == [3, 8, 11]
    # Measured in pixels of 160 m, of which the tile has three rows.
    assert value.clouds == pytest.approx((2 / 3, 1 / 3, 2 / 3), abs=1e-5)
    assert len(value.bands10) == 3


def test_scenes_that_the_catalogue_calls_cloudy_are_a_last_resort(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    for month, cloud in ((1, 99), (2, 60), (3, 80), (4, 70)):
        scenes.optical(
            f"S2A_{month}", f"2023-{month:02}-10T10:05:00Z", scl=CLOUDY, eo__cloud_cover=cloud
        )
    value = make(scenes)
    assert value.partial
    assert [day.month for day in value.dates] == [2, 3, 4]
    assert value.clouds == (1.0, 1.0, 1.0)


def test_a_tile_at_the_edge_of_a_swath_has_its_clear_images(tmp_path: Path) -> None:
    # More than half of the surveyed area has no data on any date.
    scenes = optical_folder(tmp_path)
    for month in (5, 6, 7):
        near = pixels(20, margin=700)
        item = scenes.optical(f"S2A_{month}", f"2023-{month:02}-10T10:05:00Z")
        made = SceneFolder(tmp_path, scenes.collection).add(
            f"scl{month}", "2023-06-10T10:05:00Z", {"scl": (4, near)}
        )
        item["assets"]["scl"] = made["assets"]["scl"]
    place = place_of(survey_metres=30_000)
    imagery = scenes.imagery()
    images = find_images(imagery, place, 2023)
    assert not images.partial
    assert [day.day.month for day in images.days] == [5, 6, 7]
    assert images.bad == (0.0, 0.0, 0.0)


def test_no_scene_in_a_year_is_an_error(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    scenes.optical("S2A_0", "2023-06-10T10:05:00Z")
    scenes.optical("S2A_1", "2022-06-10T10:05:00Z", grid=GRID.translate_pix(200, 0))
    for year in (2021, 2022):
        with pytest.raises(NoScenesError, match=f"no Sentinel-2 scene of tile 1X2Y in {year}"):
            find_images(scenes.imagery(), place_of(), year)


def test_a_scene_without_cloud_cover_or_baseline_is_named(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    item = scenes.optical("S2A_0", "2023-06-10T10:05:00Z")
    del item["properties"]["s2:processing_baseline"]
    with pytest.raises(SceneError, match="S2A_0 has no s2:processing_baseline"):
        find_images(scenes.imagery(), place_of(), 2023)
    item["properties"] |= {"eo:cloud_cover": None}
    with pytest.raises(SceneError, match="S2A_0: eo:cloud_cover is None, expected a number"):
        find_images(scenes.imagery(), place_of(), 2023)


def test_a_scene_without_a_band_is_named(tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    del scenes.optical("S2A_0", "2023-06-10T10:05:00Z")["assets"]["swir22"]
    with pytest.raises(SceneError, match="S2A_0 has no asset swir22 or B12"):
        make(scenes)


def test_grids_of_the_survey_and_of_masks() -> None:
    place = place_of(survey_metres=46_300)
    grid = survey_grid(place)
    assert grid.crs == GRID.crs
    assert grid.affine.a == 640
    assert 145 <= grid.shape.x <= 149
    assert in_degrees(grid).contains(in_degrees(GRID))
    assert mask_grid(GRID).shape == (3, 4)
    assert mask_grid(GRID).affine == GRID.affine @ Affine.scale(16)


def test_real_images(shared_data: Path, tmp_path: Path) -> None:
    """Five real dates over Slovenia: the cloudy one is dropped, the others keep their numbers."""
    folder = shared_data / "tiles" / "slovenia"
    reflectance = np.load(folder / "reference_scenes.npy")[:, :96, :96]
    names = ["B1", *(f"B{n}" for n in range(2, 9)), "B8A", *(f"B{n}" for n in range(9, 13))]
    grid = GRID.expand((96, 96))
    scenes = optical_folder(tmp_path)
    numbers = np.rint(reflectance * 10_000).astype(np.uint16)
    for index, month in enumerate((3, 5, 6, 7, 8)):
        # Cloud is bright in the blue, where vegetation is dark.
        blue = reflectance[index, ::2, ::2, names.index("B2")]
        scl = np.where(blue > 0.25, CLOUDY, 4).astype(np.uint8)
        assets: dict[str, Any] = {"scl": (scl, pixels(20, grid))}
        for band in (*BANDS_10M, *BANDS_20M):
            values = numbers[index, ..., names.index(band)] + 1000
            own = grid if band in BANDS_10M else pixels(20, grid)
            step = 1 if band in BANDS_10M else 2
            assets[sentinel2.ASSETS[band][0]] = (values[::step, ::step], own)
        scenes.add(
            f"S2A_{index}",
            f"2016-{month:02}-26T10:01:28Z",
            assets,
            eo__cloud_cover=40.0,
            s2__processing_baseline="05.00",
        )
    value = make(scenes, 2016, place_of(grid, survey_metres=0))
    assert value.dates == tuple(date(2016, month, 26) for month in (5, 6, 7, 8))
    assert value.remarks == ()
    for index in range(4):
        for band, name in enumerate(BANDS_10M):
            expected = reflectance[index + 1, ..., names.index(name)]
            found = value.bands10[index, ..., band] / 65535
            np.testing.assert_allclose(found, expected, atol=6e-5)
    red, nir = value.bands10[..., 2] / 65535, value.bands10[..., 3] / 65535
    assert ((nir - red) / (nir + red)).mean() > 0.5
