"""One pass over hourly weather: equal to sorting everything, however it is cut, and restartable."""

from __future__ import annotations

import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray as xr
from engines import wait_until

from ocr_assets.regions import wind_climate as module
from ocr_assets.regions.fire_weather import (
    FIRE_WEATHER,
    axis_angle,
    direction_class,
    earth_wind,
    fosberg_index,
    index_form,
    relative_humidity,
    wind_from_direction,
    wind_speed,
)
from ocr_assets.regions.kernels import METHODS, Method
from ocr_assets.regions.wind_climate import (
    HOURLY,
    WindClimateError,
    blocks,
    top_count,
    wind_climate,
)
from ocr_assets.sample.rasters import WIND_CRS

HOURS, ROWS, COLS = 2_117, 5, 7


@pytest.fixture(scope="module")
def hourly() -> xr.Dataset:
    """Synthetic weather of three months, far from the grid's centre, with gaps of every kind."""
    random = np.random.default_rng(404)
    shape = HOURS, ROWS, COLS
    temperature = 295 + 8 * random.standard_normal(shape)
    # Some dew points are above the temperature.
    dew_point = temperature - random.gamma(2, 8, shape) + 1
    wind = 6 * random.standard_normal((2, *shape))
    temperature[random.random(shape) < 0.01] = np.nan
    temperature[:, 0, 0] = np.nan  # no hour at all
    temperature[9:, 0, 1] = np.nan  # a few hours
    wind[..., 1, 1] *= 0.01  # always calm
    temperature[:, 2, 2], dew_point[:, 2, 2], wind[:, :, 2, 2] = 300, 270, 9  # all hours alike
    values = (temperature, dew_point, *wind)
    return xr.Dataset(
        {
            name: (("time", "y", "x"), array.astype(np.float32))
            for name, array in zip(HOURLY, values, strict=True)
        },
        {
            "y": -1_000_000 + 4_000.0 * np.arange(ROWS),
            "x": 1_500_000 + 4_000.0 * np.arange(COLS),
            "spatial_ref": ((), 0, {"crs_wkt": pyproj.CRS(WIND_CRS).to_wkt()}),
        },
    )


def sorted_out(hourly: xr.Dataset, method: Method) -> dict[str, np.ndarray]:
    """The same statistics from everything at once, by plain numpy."""
    temperature, dew_point, along_x, along_y = (hourly[n].values.astype(float) for n in HOURLY)
    humidity = relative_humidity(temperature, dew_point, method)
    speed = wind_speed(along_x, along_y)
    index = fosberg_index(humidity, temperature, speed, index_form(method)).astype(np.float32)
    standard = fosberg_index(humidity, temperature, speed, "standard")
    angle = axis_angle(*np.meshgrid(hourly["x"], hourly["y"]), pyproj.CRS(WIND_CRS))
    east, north = earth_wind(along_x, along_y, np.cos(angle), np.sin(angle))
    direction = direction_class(wind_from_direction(east, north))
    hours = (~np.isnan(index)).sum(axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        threshold = np.nanquantile(index.astype(float), 0.99, axis=0)
        fire = standard > FIRE_WEATHER
        gusts = np.nanquantile(np.where(fire, speed.astype(np.float32), np.nan), 0.99, axis=0)
    above = index > threshold
    shares = np.stack([(above & (direction == k)).sum(axis=0) for k in range(8)], axis=-1)
    shares = shares / np.maximum(shares.sum(axis=-1, keepdims=True), 1)
    by_direction = np.stack([(fire & (direction == k)).sum(axis=0) for k in range(8)], axis=-1)
    count = fire.sum(axis=0)
    mean_vector = [
        np.where(fire, part / np.where(speed > 0, speed, 1), 0).sum(axis=0) / np.maximum(count, 1)
        for part in (east, north)
    ]
    found = {
        "ffwi_p99": threshold,
        "fire_weather_share": count / np.maximum(hours, 1),
        "fire_weather_wind_p99": np.where(count > 0, gusts, 0),
        "dominant_direction": np.where(count > 0, 45 * by_direction.argmax(axis=-1), -1),
        "dominant_share": by_direction.max(axis=-1) / np.maximum(count, 1),
        "direction_strength": np.hypot(*mean_vector),
    }
    found = {name: np.where(hours > 0, values, np.nan) for name, values in found.items()}
    return {"wind_direction_distribution": shares, **found}


@pytest.mark.parametrize("method", METHODS)
def test_the_pass_equals_sorting_everything(
    hourly: xr.Dataset, method: Method, tmp_path: Path
) -> None:
    found = wind_climate(hourly, tmp_path, method)
    expected = sorted_out(hourly, method)
    assert set(found.data_vars) == set(expected)
    for name, values in expected.items():
        dims = ("y", "x", "wind_direction")[: values.ndim]
        assert (found[name].dims, found[name].dtype) == (dims, np.float32)
        np.testing.assert_allclose(
            found[name].values, values.astype(np.float32), rtol=2e-7, atol=1e-7, err_msg=name
        )
    # The counted ones are equal to the last bit.
    for name in ("wind_direction_distribution", "ffwi_p99", "dominant_share"):
        np.testing.assert_array_equal(found[name].values, expected[name].astype(np.float32))
    shares = found["wind_direction_distribution"].values.sum(axis=-1)
    assert set(np.unique(shares.round(6))) == {0.0, 1.0}
    assert shares[0, 0] == 0, "no hour"
    assert shares[2, 2] == 0, "no hour is above a quantile of hours that are all alike"
    assert found["fire_weather_share"].values[1, 1] == 0, "calm"
    assert found["dominant_direction"].values[1, 1] == -1
    assert found["fire_weather_wind_p99"].values[1, 1] == 0
    assert found["direction_strength"].values[2, 2] == pytest.approx(1)
    assert found["ffwi_p99"].attrs["form"] == index_form(method)


def test_saturated_hours_are_what_methods_differ_in(hourly: xr.Dataset, tmp_path: Path) -> None:
    wet = hourly.isel(y=[3], x=[3]).copy(deep=True)
    wet["TD2"][:1_000] = wet["T2"][:1_000] + 1
    shares = {
        method: wind_climate(wet, tmp_path / method, method)["fire_weather_share"].item()
        for method in METHODS
    }
    fire = shares["corrected"] * int(wet["T2"].notnull().sum())
    assert fire == pytest.approx(round(fire), abs=1e-3), "saturated hours are hours"
    assert shares["published"] > 1.5 * shares["corrected"], "they are not"


def test_quantiles_are_those_of_numpy_for_any_number_of_hours() -> None:
    random = np.random.default_rng(1)
    for count in (1, 2, 3, 50, 99, 100, 101, 102, 199, 201, 367, 1_000):
        values = random.standard_normal(count).astype(np.float32)
        kept = np.sort(values)[-top_count(count) :][None]
        found = module._quantiles(kept, np.array([count]))
        assert found[0] == np.quantile(values.astype(float), 0.99), count
    assert top_count(376_945) == 3_771
    assert top_count(0) == 0


def stored(hourly: xr.Dataset, place: Path, **chunks: int) -> xr.Dataset:
    encoding: Any = {
        name: {"chunks": tuple(chunks[axis] for axis in ("time", "y", "x"))} for name in HOURLY
    }
    hourly.to_zarr(place, encoding=encoding, zarr_format=2, consolidated=False)
    return xr.open_zarr(place, chunks=None, consolidated=False, decode_coords="all")


def test_chunks_and_pieces_do_not_matter(
    hourly: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = wind_climate(hourly, tmp_path / "whole")
    monkeypatch.setattr(module, "STEP_BYTES", 4 * 250 * 6)
    short = stored(hourly, tmp_path / "short.zarr", time=100, y=2, x=3)
    long = stored(hourly, tmp_path / "long.zarr", time=HOURS, y=4, x=2)
    for name, dataset in (("short", short), ("long", long)):
        steps: list[str] = []
        found = wind_climate(dataset, tmp_path / name, advance=steps.append)
        assert steps == [block.name for block in blocks(dataset)]
        xr.testing.assert_equal(found, whole.assign_coords(found.coords))


def test_blocks_keep_their_state_in_bounds(
    hourly: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored(hourly, tmp_path / "z", time=100, y=5, x=7)
    assert [block.shape for block in blocks(dataset)] == [(5, 7)]
    monkeypatch.setattr(module, "STATE_BYTES", 9 * top_count(HOURS) * 15)
    cut = blocks(dataset)
    assert [block.shape for block in cut] == [(2, 7), (2, 7), (1, 7)]
    monkeypatch.setattr(module, "STATE_BYTES", 1)
    assert len(blocks(dataset)) == ROWS * COLS
    # The real one: 43 years, chunks of 144 hours and 175 x 175 cells.
    year = xr.Variable(("time", "y", "x"), np.broadcast_to(np.float32(0), (376_945, 1015, 1367)))
    year.encoding["chunks"] = 144, 175, 175
    monkeypatch.undo()
    real = blocks(xr.Dataset({"T2": year}))
    assert len(real) == 48
    assert max(9 * top_count(376_945) * b.shape[0] * b.shape[1] for b in real) <= 1_200_000_000


def test_a_broken_pass_goes_on(
    hourly: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored(hourly, tmp_path / "z", time=500, y=2, x=7)
    expected = wind_climate(dataset, tmp_path / "other")

    def broken(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wind_climate(dataset, tmp_path / "parts", advance=broken)
    (part,) = (tmp_path / "parts").iterdir()
    before = part.stat().st_mtime_ns
    read: list[str] = []
    pieces = module._pieces
    monkeypatch.setattr(module, "_pieces", lambda d, b: (read.append(b.name), pieces(d, b))[1])
    states: list[weakref.ref[Any]] = []
    empty = module._State.empty

    def lone(*arguments: Any) -> Any:
        """A state, when there is no other: memory is measured out for one."""
        wait_until("the state before", lambda: all(state() is None for state in states))
        states.append(weakref.ref(state := empty(*arguments)))
        return state

    monkeypatch.setattr(module._State, "empty", lone)
    xr.testing.assert_identical(wind_climate(dataset, tmp_path / "parts"), expected)
    assert len(states) == 3
    # A cell of the second block has fire weather all the time: its block is read twice.
    _, second, third = (block.name for block in blocks(dataset))
    assert read == [second, second, third]
    assert part.stat().st_mtime_ns == before


def test_the_dataset_may_bring_its_rotation(hourly: xr.Dataset, tmp_path: Path) -> None:
    angle = axis_angle(*np.meshgrid(hourly["x"], hourly["y"]), pyproj.CRS(WIND_CRS))
    brought = hourly.drop_vars("spatial_ref").assign(
        COSALPHA=(("y", "x"), np.cos(angle)), SINALPHA=(("y", "x"), np.sin(angle))
    )
    found = wind_climate(brought, tmp_path / "a")
    expected = wind_climate(hourly, tmp_path / "b")
    xr.testing.assert_equal(found, expected.drop_vars("spatial_ref"))


def test_unusable_weather_is_told(hourly: xr.Dataset, tmp_path: Path) -> None:
    for wrong, message in (
        (hourly.drop_vars("V10"), "no variable 'V10'"),
        (hourly.isel(time=0), "T2 has dimensions"),
        (hourly.isel(time=slice(0, 0)), "is empty"),
        (hourly.drop_vars("spatial_ref"), "neither COSALPHA and SINALPHA nor"),
        (hourly.assign(T2=hourly["T2"] - 273.15), "T2 is about .* expected 150 to 350 K"),
    ):
        with pytest.raises(WindClimateError, match=message):
            wind_climate(wrong, tmp_path)
