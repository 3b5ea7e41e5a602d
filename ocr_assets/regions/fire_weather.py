"""Fire weather of an hour: humidity, wind over the earth, the Fosberg index, direction classes.

Belongs here: formulas of one hour at one place, the classes of wind directions, and the loop that
counts many hours of many cells in. Every formula is there once, for single values; the public
functions apply them to arrays. The loop is here because Numba, which keeps what it has compiled,
notices changes of the same file only.
Does not belong here: what follows from the counts (``wind_climate.py``), and files.

The Fosberg fire weather index (Fosberg 1978) says how far weather would drive a fire, from the
equilibrium moisture of fine dead fuel and from the wind. It comes in two forms. ``standard`` is the
one in the literature: wind in miles per hour, scaled so that no moisture and 30 mph give 100.
``published`` is that of the published wildfire-risk pipeline: wind in metres per second, not
scaled. Neither is cut off at 100, which would tie the hours that a quantile has to tell apart.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pyproj
from numba import njit
from numpy.typing import ArrayLike, NDArray

from ocr_assets.regions.kernels import DIRECTIONS, Method

Form = Literal["standard", "published"]

CALM = 0.5
"""Metres per second; slower wind has no direction, and is given 0 degrees."""

FIRE_WEATHER = 50.0
"""Standard Fosberg index above which an hour is fire weather for the hazard.

The Storm Prediction Center of the United States takes values of 50 or greater to be significant on
a national scale."""

NO_DIRECTION = 255
"""Class of a direction that is NaN."""

_MPH = 3600.0 / 1609.344
"""Miles per hour in a metre per second."""

_SCALE = 0.3002
_NORMAL_MOISTURE = 30.0


def index_form(method: Method) -> Form:
    """The form of the Fosberg index that a method uses."""
    return "published" if method == "published" else "standard"


def relative_humidity(
    temperature: ArrayLike, dew_point: ArrayLike, method: Method = "corrected"
) -> NDArray[np.float64]:
    """Relative humidity in percent, of air at ``temperature`` with ``dew_point``, both in K.

    The ratio of saturation vapour pressures over water by Sonntag (1990). Where the dew point is
    above the temperature, by rounding or by the model's own saturation, the corrected method gives
    100 %; the published one gives NaN, which takes saturated hours out of all statistics. Arguments
    broadcast.
    """
    clip = method != "published"
    return _elementwise(_humidity_of, clip, temperature, dew_point)


def earth_wind(
    along_x: ArrayLike, along_y: ArrayLike, cosine: ArrayLike, sine: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eastward and northward wind from the wind along the axes of a projected grid.

    ``cosine`` and ``sine`` are of the angle of the grid's x axis above east, counter-clockwise;
    see :func:`axis_angle`. Speeds keep their units; arguments broadcast.
    """
    u, v, cos, sin = (np.asarray(value, np.float64) for value in (along_x, along_y, cosine, sine))
    return u * cos - v * sin, v * cos + u * sin


def axis_angle(x: ArrayLike, y: ArrayLike, crs: pyproj.CRS) -> NDArray[np.float64]:
    """Angle in radians from east, counter-clockwise, of the x axis of ``crs`` at its points."""
    longitude, latitude = pyproj.Transformer.from_crs(
        crs, crs.geodetic_crs, always_xy=True
    ).transform(x, y)
    factors = pyproj.Proj(crs).get_factors(longitude, latitude)
    return -np.radians(np.asarray(factors.meridian_convergence, np.float64))


def wind_speed(eastward: ArrayLike, northward: ArrayLike) -> NDArray[np.float64]:
    """Speed of the wind, in the units of its components."""
    return np.hypot(np.asarray(eastward, np.float64), np.asarray(northward, np.float64))


def wind_from_direction(eastward: ArrayLike, northward: ArrayLike) -> NDArray[np.float64]:
    """Direction the wind comes from, degrees from north clockwise, of components in m/s.

    Wind from due north is 360; 0 stands for wind below :data:`CALM`. Arguments broadcast.
    """
    return _elementwise(_direction_of, True, eastward, northward)


def fosberg_index(
    humidity: ArrayLike, temperature: ArrayLike, speed: ArrayLike, form: Form = "standard"
) -> NDArray[np.float64]:
    """Fosberg fire weather index.

    Args:
        humidity: relative humidity in percent; beyond 0 to 100 the index is NaN.
        temperature: in K.
        speed: wind speed in m/s.
        form: see above.
    """
    published = form == "published"
    return _elementwise(_fosberg_of, published, humidity, temperature, speed)


def direction_class(direction: ArrayLike) -> NDArray[np.uint8]:
    """Index in :data:`DIRECTIONS` of each direction in degrees, :data:`NO_DIRECTION` for NaN.

    A class is 45 degrees wide around its name and includes its lower edge: 22.5 is NE, 337.5 is N.
    """
    degrees = np.asarray(direction, np.float64)
    missing = np.isnan(degrees)
    turned = np.floor(np.mod(np.where(missing, 0.0, degrees) + 22.5, 360.0) / 45.0)
    return np.where(missing, NO_DIRECTION, turned).astype(np.uint8)


def modal_direction(distribution: ArrayLike) -> NDArray[np.float64]:
    """Class with the largest share along the last axis, of several the first; NaN without any."""
    shares = np.asarray(distribution, np.float64)
    if shares.shape[-1] != len(DIRECTIONS):
        raise ValueError(f"a distribution has {len(DIRECTIONS)} shares, not {shares.shape[-1]}")
    return np.where(shares.sum(axis=-1) > 0, shares.argmax(axis=-1), np.nan)


def _elementwise(function: Any, option: bool, *values: ArrayLike) -> NDArray[np.float64]:
    """Apply a formula of two or three numbers and an option to arrays that broadcast."""
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))
    flat = [np.ascontiguousarray(array).ravel() for array in arrays]
    result = np.empty(flat[0].size)
    apply: Any = _apply_2 if len(flat) == 2 else _apply_3
    apply(function, *flat, option, result)
    return result.reshape(arrays[0].shape)


@njit(nogil=True)
def _apply_2(function, first, second, option, result):
    for i in range(result.size):
        result[i] = function(first[i], second[i], option)


@njit(nogil=True)
def _apply_3(function, first, second, third, option, result):
    for i in range(result.size):
        result[i] = function(first[i], second[i], third[i], option)


@njit(cache=True, nogil=True)
def _humidity_of(temperature, dew_point, clip):
    # Of Sonntag's two pressures the constant factors cancel out.
    if dew_point > temperature:
        return 100.0 if clip else np.nan
    inverse = 1.0 / dew_point - 1.0 / temperature
    linear = dew_point - temperature
    squared = dew_point * dew_point - temperature * temperature
    return 100.0 * math.exp(
        -6096.9385 * inverse
        - 2.711193e-2 * linear
        + 1.673952e-5 * squared
        + 2.433502 * math.log(dew_point / temperature)
    )


@njit(cache=True, nogil=True)
def _direction_of(eastward, northward, calm_is_zero):
    if math.sqrt(eastward * eastward + northward * northward) < CALM and calm_is_zero:
        return 0.0
    direction = (270.0 - math.degrees(math.atan2(northward, eastward))) % 360.0
    return direction if direction != 0.0 else 360.0


@njit(cache=True, nogil=True)
def _dampening_of(humidity, temperature):
    """How much of its energy a fuel keeps at its equilibrium moisture: 1 bone-dry, NaN unknown."""
    fahrenheit = (temperature - 273.15) * 1.8 + 32.0
    if humidity < 0.0 or humidity > 100.0 or humidity != humidity:
        return np.nan
    if humidity < 10.0:
        moisture = 0.03229 + 0.281073 * humidity - 0.000578 * humidity * fahrenheit
    elif humidity < 50.0:
        moisture = 2.22749 + 0.160107 * humidity - 0.01478 * fahrenheit
    else:
        moisture = (
            21.0606
            + 0.005565 * humidity * humidity
            - 0.00035 * humidity * fahrenheit
            - 0.483199 * humidity
        )
    m = moisture / _NORMAL_MOISTURE
    return 1.0 - 2.0 * m + 1.5 * m * m - 0.5 * m * m * m


@njit(cache=True, nogil=True)
def _index_of(dampening, speed, published):
    if published:
        return dampening * math.sqrt(1.0 + speed * speed)
    mph = speed * _MPH
    return dampening * math.sqrt(1.0 + mph * mph) / _SCALE


@njit(cache=True, nogil=True)
def _fosberg_of(humidity, temperature, speed, published):
    return _index_of(_dampening_of(humidity, temperature), speed, published)


@njit(cache=True, nogil=True)
def count_hours(
    temperature,
    dew_point,
    along_x,
    along_y,
    cosine,
    sine,
    clip,
    published,
    top,
    classes,
    gusts,
    counts,
    directions,
    vectors,
):
    """Count the hours of some cells into what is known of them.

    ``temperature`` to ``along_y``: ``[time, cell]``, as :data:`wind_climate.HOURLY`; ``cosine`` and
    ``sine``: see :func:`earth_wind`; ``clip`` and ``published``: of the method. The others are the
    state of the cells that :mod:`ocr_assets.regions.wind_climate` describes.
    """
    size, room = top.shape[1], gusts.shape[1]
    for hour in range(temperature.shape[0]):
        for cell in range(temperature.shape[1]):
            t, u, v = np.float64(temperature[hour, cell]), along_x[hour, cell], along_y[hour, cell]
            speed = math.sqrt(np.float64(u) * u + np.float64(v) * v)
            humidity = _humidity_of(t, np.float64(dew_point[hour, cell]), clip)
            dampening = _dampening_of(humidity, t)
            index = np.float32(_index_of(dampening, speed, published))
            if index != index:
                continue
            seen = counts[cell, 0]
            counts[cell, 0] += 1
            fire = _index_of(dampening, speed, False) > FIRE_WEATHER
            high = seen < size or index > top[cell, 0]
            if not (fire or high):
                continue
            east = u * cosine[cell] - v * sine[cell]
            north = v * cosine[cell] + u * sine[cell]
            degrees = _direction_of(east, north, True)
            direction = np.uint8(int((degrees + 22.5) // 45.0) % 8)
            if high:
                _push(top[cell], classes[cell], seen, index, direction)
            if fire:
                found = counts[cell, 1]
                counts[cell, 1] += 1
                if found < room or speed > gusts[cell, 0]:
                    _push(gusts[cell], classes[cell, :0], found, speed, direction)
                directions[cell, direction] += 1
                vectors[cell, 0] += east / speed
                vectors[cell, 1] += north / speed


@njit(cache=True, nogil=True)
def _push(heap, companions, count, value, companion):
    """Put a value into a heap, in place of its smallest if it is full; companions go along."""
    size, paired = heap.size, companions.size > 0
    if count < size:
        place = count
        while place > 0 and heap[(place - 1) // 2] > value:
            parent = (place - 1) // 2
            heap[place] = heap[parent]
            if paired:
                companions[place] = companions[parent]
            place = parent
    else:
        place = 0
        while True:
            child = 2 * place + 1
            if child >= size:
                break
            if child + 1 < size and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= value:
                break
            heap[place] = heap[child]
            if paired:
                companions[place] = companions[child]
            place = child
    heap[place] = value
    if paired:
        companions[place] = companion
