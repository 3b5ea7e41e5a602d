"""Formulas of one hour: values worked out independently, edges of classes, forms of the index."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest

from ocr_assets.regions.fire_weather import (
    FIRE_WEATHER,
    NO_DIRECTION,
    axis_angle,
    direction_class,
    earth_wind,
    fosberg_index,
    index_form,
    modal_direction,
    relative_humidity,
    wind_from_direction,
    wind_speed,
)
from ocr_assets.sample.rasters import WIND_CRS


def test_relative_humidity() -> None:
    temperature = np.array([283.15, 300.0, 310.0, 265.0])
    dew_point = np.array([282.15, 280.0, 290.0, 260.0])
    found = relative_humidity(temperature, dew_point)
    expected = [93.49366993, 28.04145748, 30.81059545, 67.22104769]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-9)
    assert relative_humidity(290.0, 290.0) == 100


def test_saturated_air_counts_or_not_by_method() -> None:
    assert relative_humidity(290.0, 290.1, "corrected") == 100
    assert np.isnan(relative_humidity(290.0, 290.1, "published"))
    assert np.isnan(relative_humidity(np.nan, 290.0))
    assert np.isnan(relative_humidity(290.0, np.nan))


@pytest.mark.parametrize(
    ("humidity", "temperature", "speed", "expected"),
    [
        (5, 300, 10, 9.266215064663921),
        (10, 300, 10, 8.393661647106997),
        (30, 305, 8, 5.403373614078058),
        (50, 295, 5, 2.5424471341206476),
        (80, 285, 3, 0.8532707434200683),
        (100, 283.15, 0, 0.05669035838479358),
        (0, 310, 12, 12.015693957184103),
        (101, 300, 5, np.nan),
        (-1, 300, 5, np.nan),
    ],
)
def test_published_index(
    humidity: float, temperature: float, speed: float, expected: float
) -> None:
    found = fosberg_index(humidity, temperature, speed, "published")
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_standard_index_is_100_without_moisture_in_a_wind_of_30_mph() -> None:
    mph = 30 * 1609.344 / 3600
    # Bone-dry air leaves 0.03 % of moisture in fuel, which takes 0.2 % of the index.
    assert float(fosberg_index(0, 300, mph)) == pytest.approx(100, rel=0.003)
    assert float(fosberg_index(0, 300, 2 * mph)) > 190, "it is not cut off"
    published = fosberg_index(20, 305, 12.0, "published") / np.sqrt(1 + 12.0**2)
    scaled = published * np.sqrt(1 + (12.0 * 3600 / 1609.344) ** 2) / 0.3002
    assert float(fosberg_index(20, 305, 12.0)) == pytest.approx(float(scaled), rel=1e-14)


def test_each_method_has_its_form() -> None:
    assert (index_form("corrected"), index_form("published")) == ("standard", "published")


def test_fire_weather_is_dry_and_windy() -> None:
    # 15 % humidity and 25 mph at 32 C: what red flag warnings are about.
    assert float(fosberg_index(15, 305, 11.2)) > FIRE_WEATHER
    assert float(fosberg_index(15, 305, 5.0)) < FIRE_WEATHER
    assert float(fosberg_index(70, 305, 11.2)) < FIRE_WEATHER


def test_wind_speed_and_direction() -> None:
    u, v = np.array([3.0, 0, -4, 0, 0.1, 0.3]), np.array([4.0, -5, 0, 0, 0.1, 0.4])
    np.testing.assert_allclose(wind_speed(u, v)[:3], [5, 5, 4])
    found = wind_from_direction(u, v)
    np.testing.assert_allclose(found, [216.86989765, 360, 90, 0, 0, 216.86989765], atol=5e-9)


@pytest.mark.parametrize("x", [-2_200_000.0, 0.0, 1_900_000.0])
@pytest.mark.parametrize("y", [-1_500_000.0, 1_200_000.0])
def test_wind_along_the_grid_is_turned_to_the_earth(x: float, y: float) -> None:
    """Against two points a little apart along the grid's x axis."""
    crs = pyproj.CRS(WIND_CRS)
    to_earth = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    (lon, lon2), (lat, lat2) = to_earth.transform([x - 50, x + 50], [y, y])
    east, north = (lon2 - lon) * np.cos(np.radians((lat + lat2) / 2)), lat2 - lat
    angle = axis_angle(x, y, crs)
    u, v = earth_wind(7.0, 0.0, np.cos(angle), np.sin(angle))
    length = 7 / np.hypot(east, north)
    np.testing.assert_allclose([u, v], [east * length, north * length], rtol=1e-4, atol=1e-4)
    assert wind_speed(u, v) == pytest.approx(7)


def test_direction_classes() -> None:
    classes: dict[int, list[float]] = {
        0: [0, 0.1, 22.4, 337.5, 337.6, 359.9, 360, 720],
        1: [22.5, 22.6, 45, 405, -315],
        2: [67.5, 90],
        3: [112.5],
        4: [157.5],
        5: [202.5],
        6: [247.5],
        7: [292.5, 315, 337.4, -45],
        NO_DIRECTION: [np.nan],
    }
    for expected, directions in classes.items():
        assert direction_class(directions).tolist() == [expected] * len(directions)


def test_modal_direction() -> None:
    one_hot = np.eye(8)[4]
    distributions = [
        [0.5, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0],
        one_hot,
        np.full(8, 0.125),
        np.zeros(8),
        [0.2] * 5 + [0] * 3,
    ]
    np.testing.assert_array_equal(modal_direction(distributions), [0, 4, 0, np.nan, 0])
    with pytest.raises(ValueError, match="has 8 shares, not 7"):
        modal_direction(np.ones((3, 7)))
