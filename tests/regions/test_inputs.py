"""Input checks: what is accepted, what is refused and how, and how much is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS, Transformer
from zarr.storage import MemoryStore, WrapperStore

from ocr_assets.regions import inputs
from ocr_assets.regions.fire_risk import (
    holds_data,
    input_bytes,
    raster_names,
    read_region_inputs,
)
from ocr_assets.regions.grid import RegionGrid, UnknownRegionError, Window
from ocr_assets.regions.raster_cuts import (
    CrsError,
    EmptyRasterError,
    GridError,
    MissingInputError,
    ValueRangeError,
)
from ocr_assets.regions.risk import halo
from ocr_assets.sample.rasters import WIND_CRS, coarse_rasters, fine_rasters

BP_270M, BP_30M = inputs.BURN_PROBABILITY_270M[2011], inputs.BURN_PROBABILITY_30M[2011]
RISK, WIND = inputs.CONDITIONAL_RISK, inputs.WIND
WINDOW = Window(57_000, 57_120, 75_000, 75_100)
GRID = RegionGrid("test", WINDOW, 60, 50, ("y0_x0", "y0_x1", "y1_x0"))

Datasets = dict[str, xr.Dataset]


def reference(crs: str) -> tuple[tuple[()], int, dict[str, str]]:
    return (), 0, {"crs_wkt": CRS.from_user_input(crs).to_wkt()}


def pixels(values: Mapping[str, Any], window: Window) -> xr.Dataset:
    return xr.Dataset(
        {name: (("latitude", "longitude"), array) for name, array in values.items()},
        {
            "latitude": window.latitude,
            "longitude": window.longitude,
            "spatial_ref": reference("EPSG:4326"),
        },
    )


@pytest.fixture
def datasets() -> Datasets:
    """The inputs of a small synthetic world, in memory, the 30 m ones with a margin."""
    cover = WINDOW.buffer(10, 7)
    coarse = coarse_rasters(cover, np.empty(0), np.empty(0), None, seed=7)
    fine = fine_rasters(cover, coarse, None, seed=7)
    risk = {name: fine[RISK, name] for name in ("CRPS", "RPS")}
    made = {WIND: coarse.wind, RISK: pixels(risk, cover)}
    for climate in (2011, 2047):
        made[inputs.BURN_PROBABILITY_270M[climate]] = coarse.burn_probability[climate]
        name = inputs.BURN_PROBABILITY_30M[climate]
        made[name] = pixels({"BP": fine[name, "BP"]}, cover)
    return made


def test_pieces_are_those_of_the_region(datasets: Datasets) -> None:
    read = read_region_inputs(datasets, GRID, "y1_x0", "corrected")
    window = GRID.region_window("y1_x0")
    expected = datasets[RISK]["CRPS"].values[window.slices_in(WINDOW.buffer(10, 7))]
    np.testing.assert_array_equal(read.conditional_risk, expected)
    assert read.risk_to_structures.shape == (60, 50)
    assert read.burn_probability_30m[2047].dtype == np.float32
    source = read.burn_probability_270m[2011]
    at = datasets[BP_270M]["BP"].sel(y=source.y, x=source.x)
    np.testing.assert_array_equal(source.values, at.values)
    assert read.wind_direction_distribution.values.shape[2] == 8
    assert input_bytes(read) > 4 * 60 * 50 * 4


@pytest.mark.parametrize("axis", ["latitude", "longitude"])
def test_descending_axis_is_flipped(datasets: Datasets, axis: str) -> None:
    expected = read_region_inputs(datasets, GRID, "y0_x0", "corrected").conditional_risk
    # The window starts at the edge of the raster, where a flipped slice has no stop.
    datasets[RISK] = datasets[RISK].isel(latitude=slice(10, None), longitude=slice(7, None))
    datasets[RISK] = datasets[RISK].isel({axis: slice(None, None, -1)})
    found = read_region_inputs(datasets, GRID, "y0_x0", "corrected").conditional_risk
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


def test_order_of_dimensions_does_not_matter(datasets: Datasets) -> None:
    expected = read_region_inputs(datasets, GRID, "y0_x1", "corrected")
    datasets[RISK] = datasets[RISK].transpose("longitude", "latitude")
    datasets[WIND] = datasets[WIND].transpose("wind_direction", "x", "y")
    found = read_region_inputs(datasets, GRID, "y0_x1", "corrected")
    np.testing.assert_array_equal(found.conditional_risk, expected.conditional_risk)
    np.testing.assert_array_equal(
        found.wind_direction_distribution.values, expected.wind_direction_distribution.values
    )


def test_wind_on_the_pixel_grid_serves_where_the_native_one_is_missing(datasets: Datasets) -> None:
    cover = WINDOW.buffer(200, 200)
    share = np.full((*cover.shape, 8), 0.125, np.float32)
    del datasets[WIND]
    datasets[inputs.WIND_30M] = xr.Dataset(
        {"wind_direction_distribution": (("latitude", "longitude", "wind_direction"), share)},
        {
            "latitude": cover.latitude,
            "longitude": cover.longitude,
            "spatial_ref": reference("EPSG:4326"),
        },
    )
    wind = read_region_inputs(datasets, GRID, "y0_x0", "corrected").wind_direction_distribution
    rows, cols = halo(GRID.region_window("y0_x0"), "corrected")
    assert 60 + 2 * rows < wind.y.size < 60 + 2 * rows + 8
    assert 50 + 2 * cols < wind.x.size < 50 + 2 * cols + 8
    assert CRS(wind.crs).is_geographic


@pytest.mark.parametrize(
    ("crs", "name"), [("EPSG:5070", BP_270M), (WIND_CRS, WIND)], ids=["270m", "wind"]
)
@pytest.mark.parametrize("method", ["corrected", "published"])
def test_cut_covers_the_halo_of_a_wide_region(crs: str, name: str, method: Any) -> None:
    """Parallels bend in a projection: corners alone would miss the middle of a wide region."""
    window = Window(60_000, 60_020, 60_000, 100_000)
    grid = RegionGrid("wide", window, 20, 40_000, ("y0_x0",))
    step = {BP_270M: 270.0, WIND: 4000.0}
    shape = {BP_270M: (16_000, 18_000), WIND: (1015, 1367, 8)}

    def wide(name: str, crs: str) -> xr.Dataset:
        rows, cols = shape[name][:2]
        dims = ("y", "x", "wind_direction")[: len(shape[name])]
        variable = next(iter(inputs.RASTERS[name].variables))
        return xr.Dataset(
            {variable: (dims, np.broadcast_to(np.float32(0.125), shape[name]))},
            {
                "y": (rows // 2 - np.arange(rows)) * step[name] + (name == BP_270M) * 1_500_000,
                "x": (np.arange(cols) - cols // 2) * step[name],
                "spatial_ref": reference(crs),
            },
        )

    half = np.broadcast_to(np.float32(0.5), window.shape)
    datasets = {RISK: pixels({"CRPS": half, "RPS": half}, window), WIND: wide(WIND, WIND_CRS)}
    for climate in (2011, 2047):
        datasets[inputs.BURN_PROBABILITY_270M[climate]] = wide(BP_270M, "EPSG:5070")
        datasets[inputs.BURN_PROBABILITY_30M[climate]] = pixels({"BP": half}, window)
    read = read_region_inputs(datasets, grid, "y0_x0", method)
    source = {
        BP_270M: read.burn_probability_270m[2011],
        WIND: read.wind_direction_distribution,
    }[name]

    around = window.buffer(*halo(window, method))
    edges = np.concatenate(
        [
            np.stack(np.broadcast_arrays(around.longitude, latitude))
            for latitude in (around.latitude[0], around.latitude[-1])
        ],
        axis=1,
    )
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*edges)
    # Two cells more than the points' own, less the half that a cell reaches beyond its centre.
    assert source.x.min() + 1.5 * step[name] <= x.min()
    assert source.x.max() - 1.5 * step[name] >= x.max()
    assert source.y.min() + 1.5 * step[name] <= y.min()
    assert source.y.max() - 1.5 * step[name] >= y.max()
    assert source.y.max() - y.max() < 6 * step[name]
    assert y.min() - source.y.min() < 6 * step[name]


def test_only_the_chunks_of_the_region_are_read(datasets: Datasets) -> None:
    read: set[str] = set()

    class Counting(WrapperStore):
        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            if "/c/" in key:
                read.add(key)
            return await super().get(key, *args, **options)

    memory = MemoryStore()
    cut = datasets[RISK].isel(latitude=slice(10, 130), longitude=slice(7, 107))
    encoding = {name: {"chunks": (30, 25)} for name in ("CRPS", "RPS")}
    cut.to_zarr(memory, zarr_format=3, consolidated=False, encoding=encoding)
    opened = xr.open_zarr(Counting(memory), consolidated=False, chunks=None)
    datasets[RISK] = opened.set_coords("spatial_ref")
    read.clear()
    read_region_inputs(datasets, GRID, "y0_x1", "corrected")
    chunks = {f"{row}/{col}" for row in (0, 1) for col in (2, 3)}
    assert read == {f"{name}/c/{chunk}" for name in ("CRPS", "RPS") for chunk in chunks}


def change(name: str, mutate: Callable[[xr.Dataset], xr.Dataset]) -> Callable[[Datasets], None]:
    def apply(datasets: Datasets) -> None:
        datasets[name] = mutate(datasets[name])

    return apply


def poke(name: str, variable: str, value: float) -> Callable[[Datasets], None]:
    """One bad value in the middle of region y0_x0."""

    def apply(datasets: Datasets) -> None:
        dataset = datasets[name].copy(deep=True)
        if "latitude" in dataset.dims:
            dataset[variable].values[30, 30] = value
        else:
            to_source = Transformer.from_crs(
                "EPSG:4326", dataset["spatial_ref"].attrs["crs_wkt"], always_xy=True
            )
            x, y = to_source.transform(WINDOW.longitude[30], WINDOW.latitude[30])
            row = int(np.abs(dataset["y"].values - y).argmin())
            col = int(np.abs(dataset["x"].values - x).argmin())
            dataset[variable].values[row, col] = value
        datasets[name] = dataset

    return apply


BAD = {
    "dataset missing": (
        lambda datasets: datasets.pop(RISK),
        MissingInputError,
        rf"input '{RISK}' is missing; found conus404",
    ),
    "variable missing": (
        change(RISK, lambda d: d.drop_vars("RPS")),
        MissingInputError,
        rf"{RISK}: variable 'RPS' is missing, found CRPS",
    ),
    "30 m in another CRS": (
        change(BP_30M, lambda d: d.assign_coords(spatial_ref=reference("EPSG:5070"))),
        CrsError,
        rf"{BP_30M}: coordinate system is 'NAD83 / Conus Albers', expected EPSG:4326",
    ),
    "270 m in another CRS": (
        change(BP_270M, lambda d: d.assign_coords(spatial_ref=reference("EPSG:6350"))),
        CrsError,
        rf"{BP_270M}: .*expected EPSG:5070",
    ),
    "no CRS": (
        change(WIND, lambda d: d.drop_vars("spatial_ref")),
        CrsError,
        rf"{WIND}: no coordinate system is declared; add `crs`",
    ),
    "30 m a hair off the grid": (
        change(RISK, lambda d: d.assign_coords(latitude=d["latitude"] + 2e-9)),
        GridError,
        rf"{RISK}: latitude is not on the pixel grid, found .*, expected",
    ),
    "30 m does not reach": (
        change(RISK, lambda d: d.isel(longitude=slice(8, None))),
        GridError,
        rf"{RISK}: longitude covers .*, expected at least",
    ),
    "30 m empty": (
        change(RISK, lambda d: d.isel(latitude=slice(0, 0))),
        GridError,
        rf"{RISK}: latitude covers nothing",
    ),
    "30 m with y and x": (
        change(RISK, lambda d: d.rename(latitude="y", longitude="x")),
        GridError,
        rf"{RISK}: dimensions are \('y', 'x'\)",
    ),
    "unnamed dimensions": (
        change(RISK, lambda d: d.rename(latitude="a", longitude="b")),
        GridError,
        rf"{RISK}: dimensions are a, b",
    ),
    "no coordinates": (
        change(RISK, lambda d: d.drop_vars("latitude")),
        GridError,
        rf"{RISK}: dimensions latitude, longitude have no coordinates",
    ),
    "one dimension too many": (
        change(BP_270M, lambda d: d.expand_dims(time=1)),
        GridError,
        rf"{BP_270M}: BP has dimensions",
    ),
    "cells of 90 m": (
        change(BP_270M, lambda d: d.assign_coords(x=d["x"] / 3)),
        GridError,
        rf"{BP_270M}: cells are 90 along x, expected 270",
    ),
    "irregular cells": (
        change(WIND, lambda d: d.isel(y=[0, 1, 2, 4, 5, 6])),
        GridError,
        rf"{WIND}: coordinate y is not regular",
    ),
    "270 m elsewhere": (
        change(BP_270M, lambda d: d.assign_coords(y=d["y"] + 270 * 1000)),
        GridError,
        rf"{BP_270M}: y covers .*, the region needs",
    ),
    "climates on different cells": (
        change(BP_270M, lambda d: d.isel(x=slice(1, None))),
        GridError,
        r"2047-270m-5070: x has \d+ cells from",
    ),
    "seven wind directions": (
        change(WIND, lambda d: d.isel(wind_direction=slice(0, 7))),
        GridError,
        rf"{WIND}: .* 7 wind directions, expected 8 \(N, NE",
    ),
    "BP above 1": (poke(BP_270M, "BP", 1.01), ValueRangeError, rf"{BP_270M}: BP .* 1\.01 in"),
    "BP below 0": (poke(BP_30M, "BP", -9999), ValueRangeError, rf"{BP_30M}: BP .*-9999 to"),
    "BP infinite": (poke(BP_30M, "BP", np.inf), ValueRangeError, rf"{BP_30M}: BP .* to inf"),
    "CRPS above 100": (poke(RISK, "CRPS", 101), ValueRangeError, r"CRPS .* to 101 .*\(percent\)"),
    "RPS negative": (poke(RISK, "RPS", -1), ValueRangeError, rf"{RISK}: RPS runs from -1"),
    "negative weight": (
        poke(WIND, "wind_direction_distribution", -0.1),
        ValueRangeError,
        rf"{WIND}: wind_direction_distribution runs from -0\.1",
    ),
    "NaN only": (
        change(RISK, lambda d: d.assign(CRPS=d["CRPS"] * np.nan)),
        EmptyRasterError,
        rf"{RISK}: CRPS has no value in region y0_x0",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(
    datasets: Datasets,
    spoil: Callable[[Datasets], Any],
    error: type[Exception],
    message: str,
) -> None:
    spoil(datasets)
    with pytest.raises(error, match=message):
        read_region_inputs(datasets, GRID, "y0_x0", "corrected")


@pytest.mark.parametrize(
    "crs",
    [
        "ESRI:102039",
        CRS("EPSG:5070").to_wkt("WKT1_ESRI"),
        "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=NAD83 +units=m +no_defs",
    ],
    ids=["ESRI code", "ESRI WKT", "PROJ"],
)
def test_the_same_crs_under_another_name_is_accepted(datasets: Datasets, crs: str) -> None:
    datasets[BP_270M] = datasets[BP_270M].assign_coords(spatial_ref=reference(crs))
    read_region_inputs(datasets, GRID, "y0_x0", "corrected")


def test_bad_values_elsewhere_do_not_matter(datasets: Datasets) -> None:
    poke(BP_30M, "BP", -9999)(datasets)
    read_region_inputs(datasets, GRID, "y1_x0", "corrected")


def test_rounding_beyond_the_range_is_cut(datasets: Datasets) -> None:
    poke(BP_30M, "BP", -1e-7)(datasets)
    poke(RISK, "CRPS", 100.0005)(datasets)
    read = read_region_inputs(datasets, GRID, "y0_x0", "corrected")
    assert read.burn_probability_30m[2011].min() == 0
    assert read.conditional_risk.max() == 100


def test_schema_is_checked_before_values_are_read(datasets: Datasets) -> None:
    poke(RISK, "CRPS", 101)(datasets)
    del datasets[WIND]
    with pytest.raises(MissingInputError):
        read_region_inputs(datasets, GRID, "y0_x0", "corrected")


@pytest.mark.parametrize("region_id", ["y1_x1", "y9_x9", "nonsense"])
def test_region_must_hold_data(datasets: Datasets, region_id: str) -> None:
    with pytest.raises(UnknownRegionError, match=region_id):
        read_region_inputs(datasets, GRID, region_id, "corrected")


def test_holds_data(datasets: Datasets) -> None:
    window = GRID.region_window("y0_x0")
    assert holds_data(datasets[RISK], window)
    crps = datasets[RISK]["CRPS"].where(datasets[RISK]["latitude"] > window.bounds[3])
    emptied = datasets[RISK].assign(CRPS=crps)
    assert not holds_data(emptied, window)
    assert holds_data(emptied, GRID.region_window("y1_x0"))


def test_every_input_has_a_schema() -> None:
    assert set(raster_names({})) <= set(inputs.RASTERS)
