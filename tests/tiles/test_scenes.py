"""Items of catalogues, footprints and solar days."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
import shapely
from scene_folders import GRID, in_degrees, place_of

from ocr_assets.tiles.grid import SURVEY_CELLS, Tile, TileGrid, tile_geobox
from ocr_assets.tiles.scenes import (
    Place,
    Scene,
    SceneError,
    around_the_world,
    by_day,
    coverage,
    scene_from_item,
)

BOX = shapely.box(14.0, 45.0, 15.0, 46.0)


def item(**changes: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": "S2A_33TVL_20230704_0_L2A",
        "geometry": shapely.geometry.mapping(BOX),
        "properties": {"datetime": "2023-07-04T10:07:12.345Z", "eo:cloud_cover": 3},
        "assets": {"red": {"href": "red.tif"}, "scl": {"href": "scl.tif"}},
        **changes,
    }


def scene(name: str, time: str, footprint: Any = BOX, **properties: Any) -> Scene:
    return Scene(name, datetime.fromisoformat(time), footprint, properties, {})


def test_an_item_becomes_a_scene() -> None:
    found = scene_from_item(item())
    assert found.id == "S2A_33TVL_20230704_0_L2A"
    assert found.time == datetime(2023, 7, 4, 10, 7, 12, 345000, UTC)
    assert found.footprint.equals(BOX)
    assert found.number("eo:cloud_cover") == 3.0
    assert found.asset(("B04", "red")) == "red.tif"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ([], "found list where a STAC item should be"),
        (item(type="Collection"), "where a STAC item should be"),
        (item(id=7), "an item whose id is 7"),
        (item(properties=None), "properties are None"),
        (item(properties={}), "datetime is None, expected RFC 3339"),
        (item(properties={"datetime": "yesterday"}), "datetime is 'yesterday'"),
        (item(properties={"datetime": 1688464032}), "datetime is 1688464032"),
        (item(assets=None), "assets are None"),
        (item(assets={"red": {}}), "asset red has no address"),
        (item(assets={"red": "red.tif"}), "asset red has no address"),
        (item(geometry=None), "geometry is not an outline"),
        (item(geometry={"type": "Point", "coordinates": [14, 45]}), "is not an outline"),
        (item(geometry={"type": "Polygon", "coordinates": []}), "is not an outline"),
        (item(geometry={"type": "Polygon", "coordinates": "x"}), "is not an outline"),
        (item(geometry={"type": "Ball", "coordinates": []}), "is not an outline"),
        (item(geometry=shapely.geometry.mapping(shapely.box(5e5, 5e6, 6e5, 5.1e6))), "in degrees"),
    ],
    ids=range(16),
)
def test_an_item_that_is_none_is_refused(wrong: Any, problem: str) -> None:
    with pytest.raises(SceneError, match=problem):
        scene_from_item(wrong)


def test_missing_properties_and_assets_are_named() -> None:
    found = scene_from_item(item())
    with pytest.raises(SceneError, match=r"S2A_33TVL_20230704_0_L2A: sat:orbit_state is None"):
        found.text("sat:orbit_state")
    with pytest.raises(SceneError, match=r"eo:cloud_cover is '3', expected a number"):
        scene_from_item(
            item(properties={"datetime": "2023-07-04T10:07:12Z", "eo:cloud_cover": "3"})
        ).number("eo:cloud_cover")
    with pytest.raises(SceneError, match="has no asset nir or B08"):
        found.asset(("nir", "B08"))


def test_an_overpass_near_midnight_of_greenwich_has_one_day() -> None:
    # 10:30 by the sun at 170° E is 23:10 of the day before in UTC, and scenes go on past midnight.
    before, after = (
        scene("a", "2023-06-30T23:59:50+00:00"),
        scene("b", "2023-07-01T00:00:04+00:00"),
    )
    assert before.solar_day(170) == after.solar_day(170) == date(2023, 7, 1)
    assert before.solar_day(-170) == date(2023, 6, 30)


def test_coverage_is_that_of_all_scenes_together() -> None:
    halves = [
        scene("a", "2023-07-01T10:00:00+00:00", shapely.box(13, 44, 14.6, 47)),
        scene("b", "2023-07-01T10:00:20+00:00", shapely.box(14.4, 44, 14.9, 47)),
    ]
    assert coverage(halves[:1], BOX) == pytest.approx(0.6)
    assert coverage(halves, BOX) == pytest.approx(0.9)
    assert coverage([], BOX) == 0


def test_scenes_of_a_day_are_ordered_by_what_they_cover_and_how_new_they_are() -> None:
    small = scene("0", "2023-07-01T10:00:00+00:00", shapely.box(14, 45, 14.3, 46))
    old = scene("1", "2023-07-01T10:00:00+00:00", BOX, **{"s2:processing_baseline": "03.01"})
    new = scene("2", "2023-07-01T10:00:00+00:00", BOX, **{"s2:processing_baseline": "05.09"})
    away = scene("3", "2023-07-01T10:00:00+00:00", shapely.box(20, 45, 21, 46))
    later = scene("4", "2023-12-31T10:00:00+00:00")
    next_year = scene("5", "2024-01-01T10:00:00+00:00")
    days = by_day([later, small, old, away, next_year, new], 14.5, BOX, 2023)
    assert [day.day for day in days] == [date(2023, 7, 1), date(2023, 12, 31)]
    assert [one.id for one in days[0].scenes] == ["2", "1", "0"]
    assert days[0].coverage == 1.0


def test_an_area_beyond_the_antimeridian_is_looked_for_on_both_sides() -> None:
    area = shapely.box(179.5, -17.0, 180.3, -16.5)
    world = around_the_world(area)
    assert world.bounds == (-180, -17.0, 180, -16.5)
    assert world.area == pytest.approx(area.area)
    assert around_the_world(BOX) is BOX


@pytest.mark.parametrize("shift", [0, 360])
def test_footprints_across_the_antimeridian_cover_what_they_cover(shift: float) -> None:
    jumping = [[179.0, -17], [-179.0, -17], [-179.0, -16], [179.0, -16], [179.0, -17]]
    found = scene_from_item(item(geometry={"type": "Polygon", "coordinates": [jumping]}))
    assert found.footprint.bounds == (179.0, -17, 181.0, -16)
    area = shapely.box(179.5 - shift, -16.9, 180.5 - shift, -16.1)
    assert coverage([found], area) == pytest.approx(1.0)
    assert coverage([found], shapely.box(-180, -16.9, -179.9, -16.1)) == pytest.approx(1.0)
    assert coverage([found], shapely.box(0, -16.9, 1, -16.1)) == 0


def test_the_extent_of_a_tile_reaches_beyond_its_pixels() -> None:
    place = place_of()
    assert place.extent.contains(in_degrees(GRID))
    assert place.extent.area < 1.2 * in_degrees(GRID).area


def test_the_easternmost_tile_stays_in_the_east() -> None:
    grid = TileGrid.load()
    x = max(x for x in range(7290, 7295) if grid.contains(*_columns(x)).any())
    y = int(_columns(x)[1][grid.contains(*_columns(x))][0])
    tile = Tile(x, y)
    place = Place(
        tile.key,
        grid.centre(tile)[0],
        shapely.box(*grid.bbox(tile)),
        shapely.box(*grid.bbox(tile, SURVEY_CELLS)),
        tile_geobox(grid, tile),
    )
    west, _, east, _ = place.extent.bounds
    assert 179 < west < east < 180.1
    assert around_the_world(place.survey_area).bounds[0] == -180


def _columns(x: int) -> tuple[Any, Any]:
    import numpy as np

    rows = np.arange(1921)
    return np.full_like(rows, x), rows
