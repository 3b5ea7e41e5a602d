"""Radar composites: the days of a season, the orbit, the median."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from scene_folders import GRID, in_degrees, place_of, radar_folder

from ocr_assets.tiles.ard import coarser
from ocr_assets.tiles.scenes import Day, NoScenesError, Scene, SceneError
from ocr_assets.tiles.sentinel1 import (
    choose_days,
    find_days,
    make_sentinel1,
    median_of_data,
    quantise,
    season_of,
)

AREA = shapely.box(14, 45, 15, 46)


def day(month: int, number: int, covered: float = 1.0, scenes: int = 1) -> Day:
    when = date(2023, month, number)
    time = datetime(2023, month, number, 16, tzinfo=UTC)
    footprint = shapely.box(14, 45, 14 + covered, 46)
    return Day(when, (Scene(f"{when}", time, footprint, {}, {}),) * scenes, AREA)


def chosen(**days: list[Day]) -> Any:
    return choose_days({"ascending": [], "descending": [], **days})


@pytest.mark.parametrize(
    ("when", "season"),
    [
        ((1, 14), None),
        ((1, 15), 0),
        ((3, 15), 0),
        ((3, 16), None),
        ((4, 15), 1),
        ((6, 15), 1),
        ((7, 15), 2),
        ((9, 15), 2),
        ((10, 15), 3),
        ((12, 15), 3),
        ((12, 16), None),
    ],
)
def test_the_first_and_the_last_day_belong_to_a_season(
    when: tuple[int, int], season: int | None
) -> None:
    assert season_of(date(2024, *when)) == season


def test_a_season_takes_its_three_best_days() -> None:
    days = [day(2, 1, 0.96), day(2, 5, 0.99), day(2, 9, 0.97), day(2, 13, 1.0), day(2, 17, 0.5)]
    choice = chosen(ascending=days)
    assert [one.day.day for one in choice.days[0]] == [5, 9, 13]
    assert choice.days[1:] == ((), (), ())


def test_a_season_without_full_days_takes_its_best() -> None:
    choice = chosen(ascending=[day(5, 1, 0.3), day(5, 9, 0.8), day(5, 20, 0.8)])
    assert [one.day.day for one in choice.days[1]] == [9]


def test_of_equal_days_the_earlier_ones() -> None:
    choice = chosen(ascending=[day(8, number) for number in (25, 1, 13, 7, 19)])
    assert [one.day.day for one in choice.days[2]] == [1, 7, 13]


@pytest.mark.parametrize(
    ("ascending", "descending", "orbit"),
    [
        # Full days count, at most three in a season.
        ([day(2, n) for n in range(1, 9)], [day(2, 1), day(5, 1), day(8, 1), day(11, 1)], "d"),
        # Days that are not full do not count.
        ([day(2, n, 0.9) for n in range(1, 9)], [day(2, 1)], "d"),
        # Of equal orbits the one with more scenes.
        ([day(2, 1)], [day(2, 1, scenes=2)], "d"),
        # Then the ascending one.
        ([day(2, 1)], [day(2, 2)], "a"),
        # Scenes outside of the seasons do not count.
        ([day(2, 1)], [day(2, 2), day(4, 1), day(7, 1)], "a"),
    ],
    ids=range(5),
)
def test_the_better_orbit_is_taken(ascending: list[Day], descending: list[Day], orbit: str) -> None:
    choice = chosen(ascending=ascending, descending=descending)
    assert choice.orbit[0] == orbit


def test_an_orbit_may_be_given() -> None:
    days = {"ascending": [day(2, 1), day(2, 8)], "descending": [day(2, 5)]}
    assert [one.day.day for one in choose_days(days, "descending").days[0]] == [5]
    assert [one.day.day for one in choose_days(days, "both").days[0]] == [1, 5, 8]


def test_the_median_leaves_out_what_has_no_data() -> None:
    nan = np.nan
    stack = np.array(
        [[1, nan, nan, 4, nan], [3, 2, nan, 1, nan], [2, nan, 7, 9, nan], [9, 4, nan, 2, nan]],
        np.float32,
    )
    np.testing.assert_array_equal(median_of_data(stack), [2.5, 3, 7, 3, nan])
    np.testing.assert_array_equal(median_of_data(stack[:3]), [2, 2, 7, 4, nan])
    np.testing.assert_array_equal(median_of_data(stack[:1]), stack[0])


def test_data_never_becomes_no_data() -> None:
    found = quantise(np.array([np.nan, 1e-9, 0.1, 0.5, 1.0, 3.0], np.float32))
    assert found.tolist() == [0, 1, 6554, 32768, 65535, 65535]


def test_composites_of_a_year(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    for number, (when, vv) in enumerate(
        [
            ("2023-01-15T16:40:00Z", 0.10),
            ("2023-02-01T16:40:00Z", 0.30),
            ("2023-03-15T23:00:00Z", 0.20),  # the last day of the season counts to its end
            ("2023-03-16T16:40:00Z", 0.90),
            ("2023-04-20T16:40:00Z", 0.05),
            ("2023-12-15T16:40:00Z", 0.07),
            ("2022-12-01T16:40:00Z", 0.99),
        ]
    ):
        scenes.radar(f"S1A_{number}", when, vv, 0.25 * vv)
    imagery, place = scenes.imagery(), place_of()
    value = make_sentinel1(imagery, place, choose_days(find_days(imagery, place, 2023)))
    assert value.geobox == coarser(GRID, 4)
    assert value.backscatter.shape == (4, 12, 16, 2)
    assert [quarter.days for quarter in value.quarters] == [
        (date(2023, 1, 15), date(2023, 2, 1), date(2023, 3, 15)),
        (date(2023, 4, 20),),
        (),
        (date(2023, 12, 15),),
    ]
    expected = [(0.20, 0.05), (0.05, 0.0125), (0, 0), (0.07, 0.0175)]
    for index, powers in enumerate(expected):
        for band, power in enumerate(powers):
            assert (value.backscatter[index, ..., band] == round(power * 65535)).all()
    # A season without a scene is there, has the shape of the others, and is flagged.
    assert [quarter.ok for quarter in value.quarters] == [True, True, False, True]
    assert {quarter.orbit for quarter in value.quarters} == {"ascending"}


def test_scenes_of_one_day_complete_each_other(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    west, east = GRID[:, :40], GRID[:, 24:]
    blank = np.full((24, 20), 0.2, np.float32)
    blank[:, :4] = np.nan
    scenes.radar("S1A_0", "2023-05-01T16:40:00Z", blank, grid=west)
    scenes.radar("S1A_1", "2023-05-01T16:40:25Z", 0.4, grid=east)
    imagery, place = scenes.imagery(), place_of()
    days = find_days(imagery, place, 2023)
    assert [one.coverage for one in days["ascending"]] == [pytest.approx(1.0)]
    value = make_sentinel1(imagery, place, choose_days(days))
    line = value.backscatter[1, 6, :, 0]
    # Resampled, the edge of the data loses a pixel.
    assert (line[:3] == 0).all()
    assert (line[3:6] == round(0.2 * 65535)).all()
    assert (line[6:] == round(0.4 * 65535)).all()
    assert value.quarters[1].coverage == pytest.approx(13 / 16)


def test_scenes_without_both_polarisations_are_left_out(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    item = scenes.radar("S1A_0", "2023-05-01T16:40:00Z")
    del item["assets"]["vh"]
    with pytest.raises(NoScenesError, match=r"no Sentinel-1 scene of tile 1X2Y in 2023"):
        find_days(scenes.imagery(), place_of(), 2023)


def test_no_scene_in_a_year_is_an_error(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    scenes.radar("S1A_0", "2023-05-01T16:40:00Z")
    with pytest.raises(NoScenesError, match="tile 1X2Y in 2022"):
        find_days(scenes.imagery(), place_of(), 2022)


def test_scenes_elsewhere_do_not_count(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    scenes.radar("S1A_0", "2023-05-01T16:40:00Z", grid=GRID.translate_pix(100, 0))
    with pytest.raises(NoScenesError):
        find_days(scenes.imagery(), place_of(), 2023)
    assert in_degrees(GRID).area > 0


def test_a_scene_that_does_not_say_its_orbit_is_an_error(tmp_path: Path) -> None:
    scenes = radar_folder(tmp_path)
    del scenes.radar("S1A_0", "2023-05-01T16:40:00Z")["properties"]["sat:orbit_state"]
    with pytest.raises(SceneError, match="S1A_0: sat:orbit_state is None"):
        find_days(scenes.imagery(), place_of(), 2023)
