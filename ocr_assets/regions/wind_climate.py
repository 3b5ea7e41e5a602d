"""Fire-weather wind of many years, in one pass over hourly weather.

Belongs here: what is kept of each cell while its hours stream by, the statistics that follow from
it, and which part of the hourly dataset is read when.
Does not belong here: the formulas of one hour (``fire_weather.py``), where the hourly dataset comes
from, and where the result is stored.

Hourly weather is vast: decades of hours on a million cells. A block of cells is read over all time,
once, a piece of time after the other. The 0.99 quantile and the hours above it need nothing but the
largest hundredth of a cell's values, so a heap of that size per cell makes both exact: equal to
sorting all values, whatever the pieces. For 43 years that is 23 kB per cell, 34 kB at the most, and
blocks are cut so that their state stays below :data:`STATE_BYTES`.

Two kinds of fire weather come out of the pass. The wind-direction distribution is of the hours
above the cell's own 0.99 quantile: the worst hundredth anywhere, which says where the wind comes
from when it matters. The hazard is of the hours above a fixed index, :data:`FIRE_WEATHER`, which
are many in one place and none in another: it says how much fire weather there is.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.fire_weather import (
    FIRE_WEATHER,
    Form,
    axis_angle,
    count_hours,
    index_form,
)
from ocr_assets.regions.kernels import DIRECTIONS, Method

HOURLY = ("T2", "TD2", "U10", "V10")
"""Temperature and dew point at 2 m in K, wind along the grid's x and y at 10 m in m/s."""

QUANTILE = 0.99
"""Of the index over all hours: what is above is the fire weather of the distribution."""

FIRE_SHARE = 0.25
"""Share of hours that may be fire weather in the room that is made for their wind at first. Real
ones stay far below; a block with more is read once more, with room for all."""

STATE_BYTES = 1_200_000_000
"""Most bytes that are kept of a block of cells, besides the piece of time that is read."""

STEP_BYTES = 24_000_000
"""About how many bytes of one variable are read at a time, in whole chunks; two steps are there at
once, of all variables."""

_CELLS_AT_ONCE = 1024
"""Cells whose values are sorted at a time: the copies stay small."""

_PLAUSIBLE = (150.0, 350.0)
"""Kelvin: any air temperature near the ground."""


class WindClimateError(ValueError):
    """Hourly weather that cannot be used; says what was found."""


@dataclass(frozen=True)
class Block:
    """A rectangle of cells that is read over all time, half-open."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def name(self) -> str:
        """For people and for files."""
        return f"rows-{self.row_start}-{self.row_stop}-columns-{self.col_start}-{self.col_stop}"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.row_start, self.row_stop), slice(self.col_start, self.col_stop)


def top_count(hours: int) -> int:
    """How many of the largest of ``hours`` values the quantile and what is above it need."""
    return hours - math.floor(QUANTILE * (hours - 1)) if hours else 0


def blocks(hourly: xr.Dataset) -> list[Block]:
    """The blocks in which :func:`wind_climate` reads a dataset: whole chunks, cut if too large."""
    sizes = hourly.sizes
    _, rows, cols = _chunks(hourly)
    # A value and its direction for the index, a value for the wind speed.
    most = max(1, STATE_BYTES // (9 * max(1, top_count(sizes["time"]))))
    rows = max(1, min(rows, most // min(cols, sizes["x"])))
    cols = min(cols, most)
    return [
        Block(row, min(row + rows, sizes["y"]), col, min(col + cols, sizes["x"]))
        for row, col in itertools.product(range(0, sizes["y"], rows), range(0, sizes["x"], cols))
    ]


def wind_climate(
    hourly: xr.Dataset,
    parts: Path,
    method: Method = "corrected",
    advance: Callable[[str], None] = lambda _: None,
) -> xr.Dataset:
    """Wind in fire weather, for each cell of an hourly dataset.

    Args:
        hourly: :data:`HOURLY` over ``time``, ``y``, ``x``, lazy, with its coordinate system as
            ``crs_wkt`` of the ``spatial_ref`` coordinate. ``COSALPHA`` and ``SINALPHA`` (``y``,
            ``x``), where it has them, turn the wind to the earth; else the coordinate system does.
        parts: a folder for finished blocks. A call that was broken off goes on with what it finds
            there, so the folder must belong to this dataset and method.
        method: the form of the index, and what becomes of saturated hours.
        advance: is called with the name of each finished block of :func:`blocks`.

    Returns:
        float32 on ``y`` and ``x``. An hour counts where the index is not NaN; a cell without such
        an hour is NaN, but for its distribution.

        - ``wind_direction_distribution`` (``y``, ``x``, ``wind_direction``): share of each of
          :data:`DIRECTIONS` in the hours above ``ffwi_p99``; zeros if there is none.
        - ``ffwi_p99``: the 0.99 quantile of the index, in the form of ``method``.
        - ``fire_weather_share``: hours above :data:`FIRE_WEATHER`, standard form, of all hours.
        - ``fire_weather_wind_p99``: 0.99 quantile of wind speed in those, m/s; 0 without any.
        - ``dominant_direction``: their most frequent direction in degrees, -1 without any.
        - ``dominant_share``: its share of them, 0 without any.
        - ``direction_strength``: length of the mean of their unit wind vectors: 1 if the wind
          always comes from one side, 0 if from all alike or if there is none.

    Raises:
        WindClimateError: a variable or dimension is missing, or temperature is not in K.
    """
    _check(hourly)
    cosine, sine = _rotation(hourly)
    parts.mkdir(parents=True, exist_ok=True)
    shape = hourly.sizes["y"], hourly.sizes["x"]
    found: dict[str, NDArray[np.float32]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in blocks(hourly):
            part = parts / f"{block.name}.npz"
            if not part.exists():
                _save(part, _state(hourly, block, method, (cosine, sine), pool).results())
            with np.load(part) as results:
                for name in results.files:
                    values = results[name]
                    whole = found.setdefault(
                        name, np.full((*shape, *values.shape[2:]), np.nan, np.float32)
                    )
                    whole[block.slices] = values
            advance(block.name)
    return _dataset(found, hourly, method)


def _state(
    hourly: xr.Dataset,
    block: Block,
    method: Method,
    rotation: tuple[NDArray[np.float64], NDArray[np.float64]],
    pool: ThreadPoolExecutor,
) -> _State:
    """All hours of a block counted in."""
    hours = hourly.sizes["time"]
    most_fire = math.ceil(FIRE_SHARE * hours)
    state = _counted(hourly, block, method, rotation, pool, most_fire)
    if state.counts[:, 1].max() <= most_fire:
        return state
    # There is memory for one of them.
    del state
    return _counted(hourly, block, method, rotation, pool, hours)


def _counted(
    hourly: xr.Dataset,
    block: Block,
    method: Method,
    rotation: tuple[NDArray[np.float64], NDArray[np.float64]],
    pool: ThreadPoolExecutor,
    most_fire: int,
) -> _State:
    """All hours of a block, of which up to ``most_fire`` are fire weather, counted in."""
    cosine, sine = (values[block.slices].ravel() for values in rotation)
    state = _State.empty(block, hourly.sizes["time"], most_fire, index_form(method))
    for weather in _pieces(hourly, block):
        state.add(weather, (cosine, sine), method, pool)
    return state


def _check(hourly: xr.Dataset) -> None:
    for name in HOURLY:
        if name not in hourly.data_vars:
            raise WindClimateError(f"hourly weather has no variable {name!r}; it needs {HOURLY}")
        if set(hourly[name].dims) != {"time", "y", "x"}:
            raise WindClimateError(
                f"{name} has dimensions {hourly[name].dims}, expected time, y and x"
            )
    if not all(hourly.sizes.values()):
        raise WindClimateError(f"hourly weather is empty: {dict(hourly.sizes)}")


def _rotation(hourly: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of the angle of the grid's x axis above east, ``[y, x]``."""
    if {"COSALPHA", "SINALPHA"} <= set(hourly.variables):
        cosine, sine = (
            hourly[name].transpose("y", "x").values.astype(np.float64)
            for name in ("COSALPHA", "SINALPHA")
        )
        return cosine, sine
    attributes = hourly["spatial_ref"].attrs if "spatial_ref" in hourly.coords else {}
    if "crs_wkt" not in attributes or not {"y", "x"} <= set(hourly.coords):
        raise WindClimateError(
            "hourly weather has neither COSALPHA and SINALPHA nor a coordinate system with y and "
            "x, so its wind cannot be turned to north"
        )
    crs = pyproj.CRS.from_user_input(attributes["crs_wkt"])
    x, y = np.meshgrid(hourly["x"].values, hourly["y"].values)
    angle = axis_angle(x, y, crs)
    return np.cos(angle), np.sin(angle)


def _chunks(hourly: xr.Dataset) -> tuple[int, int, int]:
    """Sides of the stored chunks in time, y and x; moderate ones where nothing is stored."""
    variable = hourly[HOURLY[0]]
    stored = dict(zip(variable.dims, variable.encoding.get("chunks") or (), strict=False))
    sides = (stored.get(axis, side) for axis, side in (("time", 720), ("y", 64), ("x", 64)))
    time, y, x = sides
    return time, y, x


def _pieces(hourly: xr.Dataset, block: Block) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The weather of a block, ``[time, cell]`` of each variable, whole chunks after each other.

    The next piece is read while the last one is worked on.
    """
    rows, cols = block.slices
    cells = math.prod(block.shape)
    chunk, hours = _chunks(hourly)[0], hourly.sizes["time"]
    step = max(1, STEP_BYTES // (4 * cells * chunk)) * chunk

    def read(name: str, start: int) -> NDArray[np.float32]:
        cut = hourly[name].isel(time=slice(start, start + step), y=rows, x=cols)
        values = cut.transpose("time", "y", "x").values
        return np.ascontiguousarray(values, np.float32).reshape(-1, cells)

    with ThreadPoolExecutor(len(HOURLY)) as readers:

        def begin(start: int) -> dict[str, Future[NDArray[np.float32]]]:
            return {name: readers.submit(read, name, start) for name in HOURLY}

        coming = begin(0)
        for start in range(0, hours, step):
            weather = {name: reading.result() for name, reading in coming.items()}
            coming = begin(start + step) if start + step < hours else {}
            if start == 0:
                _check_temperature(weather["T2"])
            yield weather


def _check_temperature(values: NDArray[np.float32]) -> None:
    known = values[np.isfinite(values)]
    low, high = _PLAUSIBLE
    if known.size and not low < float(np.median(known)) < high:
        raise WindClimateError(
            f"T2 is about {np.median(known):.4g}, expected {low:g} to {high:g} K"
        )


@dataclass
class _State:
    """What is known of the cells of a block so far; the first axis of arrays is the cell.

    ``top`` and ``gusts`` are heaps with their smallest value first: of the index, with the classes
    of its hours in ``classes``, and of the wind speed in fire weather.
    """

    block: Block
    form: Form
    top: NDArray[np.float32]
    classes: NDArray[np.uint8]
    gusts: NDArray[np.float32]
    counts: NDArray[np.int64]
    """Hours, and hours of fire weather."""
    directions: NDArray[np.int64]
    """Hours of fire weather by direction."""
    vectors: NDArray[np.float64]
    """Sums of the eastward and northward parts of the unit vectors of wind in fire weather."""

    @classmethod
    def empty(cls, block: Block, hours: int, most_fire: int, form: Form) -> _State:
        cells, size = math.prod(block.shape), top_count(hours)
        return cls(
            block,
            form,
            np.empty((cells, size), np.float32),
            np.empty((cells, size), np.uint8),
            np.empty((cells, top_count(most_fire)), np.float32),
            np.zeros((cells, 2), np.int64),
            np.zeros((cells, len(DIRECTIONS)), np.int64),
            np.zeros((cells, 2)),
        )

    def add(
        self,
        weather: Mapping[str, NDArray[np.float32]],
        turn: tuple[NDArray[np.float64], NDArray[np.float64]],
        method: Method,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Count hours in; cells are shared out among the threads of ``pool``."""
        cells = len(self.counts)
        add: Any = count_hours
        share = max(256, -(-cells // (os.cpu_count() or 1)))

        def add_cells(start: int) -> None:
            part = slice(start, start + share)
            add(
                *(weather[name][:, part] for name in HOURLY),
                *(values[part] for values in turn),
                method != "published",
                self.form == "published",
                self.top[part],
                self.classes[part],
                self.gusts[part],
                self.counts[part],
                self.directions[part],
                self.vectors[part],
            )

        list(pool.map(add_cells, range(0, cells, share)))

    def results(self) -> dict[str, NDArray[np.float32]]:
        """The variables of :func:`wind_climate` over the block."""
        shape = self.block.shape
        hours, fire = self.counts.T
        threshold = _quantiles(self.top, hours)
        shares = np.zeros((len(hours), len(DIRECTIONS)))
        _count_above(self.top, self.classes, hours, threshold, shares)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
        some = fire > 0
        of_fire = np.maximum(fire, 1)
        results = {
            "wind_direction_distribution": shares,
            "ffwi_p99": threshold,
            "fire_weather_share": fire / np.maximum(hours, 1),
            "fire_weather_wind_p99": np.where(some, _quantiles(self.gusts, fire), 0),
            "dominant_direction": np.where(some, 45.0 * self.directions.argmax(axis=1), -1),
            "dominant_share": self.directions.max(axis=1) / of_fire,
            "direction_strength": np.hypot(*self.vectors.T) / of_fire,
        }
        for name, values in results.items():
            if name != "wind_direction_distribution":
                values[hours == 0] = np.nan
        return {
            name: values.astype(np.float32).reshape(*shape, *values.shape[1:])
            for name, values in results.items()
        }


def _quantiles(top: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """:data:`QUANTILE` of ``counts`` values of each cell, of which ``top`` holds the largest.

    Between ranks as numpy interpolates by default, to the last bit; NaN where there is no value.
    """
    result = np.full(len(counts), np.nan)
    for count in np.unique(counts[counts > 0]):
        kept = min(int(count), top.shape[1])
        rank = QUANTILE * (count - 1)
        below = math.floor(rank)
        # Places in the kept part: the value at the rank, and the one above it.
        low_place = kept - (count - below)
        places = sorted({low_place, min(kept - 1, low_place + 1)})
        part = rank - below
        alike = np.flatnonzero(counts == count)
        for start in range(0, alike.size, _CELLS_AT_ONCE):
            cells = alike[start : start + _CELLS_AT_ONCE]
            ordered = np.partition(top[cells, :kept], places, axis=1).astype(np.float64)
            low, high = ordered[:, places[0]], ordered[:, places[-1]]
            result[cells] = (
                low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
            )
    return result


@njit(cache=True, nogil=True)
def _count_above(top, classes, counts, threshold, shares):
    for cell in range(len(counts)):
        for place in range(min(counts[cell], top.shape[1])):
            if top[cell, place] > threshold[cell]:
                shares[cell, classes[cell, place]] += 1


def _save(path: Path, results: Mapping[str, NDArray[np.float32]]) -> None:
    """Write a finished block; it is there as a whole or not at all."""
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez(file, **results)  # type: ignore[arg-type]
    aside.replace(path)


_ATTRIBUTES: Mapping[str, dict[str, Any]] = {
    "wind_direction_distribution": {
        "long_name": "Share of wind directions in the hours with an index above ffwi_p99",
        "units": "1",
        "directions": " ".join(DIRECTIONS),
    },
    "ffwi_p99": {"long_name": "0.99 quantile of the Fosberg fire weather index", "units": "1"},
    "fire_weather_share": {
        "long_name": f"Share of hours with a Fosberg index (standard form) above {FIRE_WEATHER:g}",
        "units": "1",
    },
    "fire_weather_wind_p99": {
        "long_name": "0.99 quantile of wind speed in hours of fire weather, 0 without any",
        "units": "m s-1",
    },
    "dominant_direction": {
        "long_name": "Most frequent direction wind comes from in fire weather, -1 without any",
        "units": "degree",
    },
    "dominant_share": {
        "long_name": "Share of the most frequent direction in hours of fire weather",
        "units": "1",
    },
    "direction_strength": {
        "long_name": "Length of the mean unit vector of wind in hours of fire weather",
        "units": "1",
    },
}


def _dataset(
    found: Mapping[str, NDArray[np.float32]], hourly: xr.Dataset, method: Method
) -> xr.Dataset:
    axes = {name: hourly[name].values for name in ("y", "x") if name in hourly.coords}
    reference = {"spatial_ref": hourly["spatial_ref"]} if "spatial_ref" in hourly.coords else {}
    variables = {
        name: (("y", "x", "wind_direction")[: values.ndim], values, dict(_ATTRIBUTES[name]))
        for name, values in found.items()
    }
    dataset = xr.Dataset(variables, {**axes, **reference})
    dataset["ffwi_p99"].attrs["form"] = index_form(method)
    return dataset
