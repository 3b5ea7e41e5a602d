"""The wind hazard: its score, its pixels, and that every type of risk describes itself alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from pyproj import CRS, Transformer
from sample_worlds import World

from ocr_assets.map_page.subject import page_subject
from ocr_assets.regions import inputs
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.kernels import METHODS
from ocr_assets.regions.process import process_region
from ocr_assets.regions.raster_cuts import (
    GridError,
    InputError,
    MissingInputError,
    ValueRangeError,
)
from ocr_assets.regions.risk_type import (
    NO_SCORE,
    RISK_NAMES,
    SCORES,
    EmptyRegionError,
    RiskType,
    risk_group,
)
from ocr_assets.regions.risk_types import RISK_TYPES
from ocr_assets.regions.statistics import statistics_schema
from ocr_assets.regions.wind_risk import (
    SCORE_EDGES,
    WIND_RISK,
    direction_classes,
    region_wind,
    wind_hazard,
    wind_score,
)

WIND, LAND = inputs.WIND, inputs.CONDITIONAL_RISK
REGION, CUT = "y1_x1", "y1_x3"
"""Regions of the sample world; the second is cut by the border of its data."""

Datasets = dict[str, xr.Dataset]


def test_the_hazard_is_hours_weighted_by_wind() -> None:
    share, wind = np.float32([0, 0.01, 0.01, np.nan]), np.float32([0, 10, 20, 5])
    found = wind_hazard(share, wind)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 87.66, 175.32, np.nan], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_scores(method: str) -> None:
    below = np.nextafter(np.float32(SCORE_EDGES), np.float32(0))
    assert wind_score(np.float32(SCORE_EDGES), method).tolist() == list(range(2, 11))
    assert wind_score(below, method).tolist() == list(range(1, 10))
    assert wind_score(np.float32([0, 1e-9, 1e6, np.nan]), method).tolist() == [0, 1, 10, NO_SCORE]
    with pytest.raises(ValueError, match=r"wind hazard is negative \(-1\)"):
        wind_score(np.float32([3, -1, np.nan]))


def test_directions_are_classes() -> None:
    degrees = np.float32([0, 45, 90, 315, -1, np.nan])
    assert direction_classes(degrees).tolist() == [0, 1, 2, 7, NO_SCORE, NO_SCORE]


@pytest.fixture
def datasets(world: World) -> Datasets:
    catalog = world.catalog
    return {name: catalog.open_raster(name).load() for name in (WIND, LAND)}


def test_a_pixel_has_the_values_of_the_cell_under_it(world: World, datasets: Datasets) -> None:
    found = region_wind(datasets, world.grid, CUT, "corrected")
    assert tuple(found) == tuple(WIND_RISK.variables)
    window = world.grid.region_window(CUT)
    wind, land = datasets[WIND], datasets[LAND]
    project = Transformer.from_crs(
        "EPSG:4326", CRS.from_wkt(wind["spatial_ref"].attrs["crs_wkt"]), always_xy=True
    )
    x, y = project.transform(*np.meshgrid(window.longitude, window.latitude))
    cells = wind.sel(
        x=xr.DataArray(x, dims=("row", "col")),
        y=xr.DataArray(y, dims=("row", "col")),
        method="nearest",
    )
    beyond = np.isnan(
        land["CRPS"]
        .sel(latitude=window.latitude, longitude=window.longitude, method="nearest")
        .values
    )
    assert 0 < beyond.mean() < 1
    for name in inputs.WIND_HAZARD.variables:
        expected = np.where(beyond, np.nan, cells[name].values)
        # Within 2 cm of the edge of a cell the neighbour may be found.
        differing = ~np.isclose(found[name], expected, rtol=0, equal_nan=True)
        assert differing.mean() < 1e-4, name
        assert found[name].dtype == np.float32
    hazard = wind_hazard(found["fire_weather_share"], found["fire_weather_wind_p99"])
    np.testing.assert_array_equal(found["wind_hazard"], hazard)


def test_regions_fit_together(world: World, datasets: Datasets) -> None:
    one, other = (
        region_wind(datasets, world.grid, id_, "corrected")["wind_hazard"]
        for id_ in ("y1_x1", "y1_x2")
    )
    window = world.grid.region_window("y1_x1")
    moved = type(world.grid)(
        "moved",
        type(window)(
            window.row_start, window.row_stop, window.col_start + 100, window.col_stop + 100
        ),
        window.shape[0],
        window.shape[1],
        ("y0_x0",),
    )
    across = region_wind(datasets, moved, "y0_x0", "corrected")["wind_hazard"]
    np.testing.assert_array_equal(across[:, :-100], one[:, 100:])
    np.testing.assert_array_equal(across[:, -100:], other[:, :100])


def test_buildings_carry_hazard_score_and_direction(world: World) -> None:
    deployment = world.deployment().of("wind")
    result = process_region(
        WIND_RISK, deployment.rasters, deployment.footprints, world.grid, REGION, "corrected"
    )
    table = result.buildings
    assert table.schema == building_schema(WIND_RISK)
    assert result.report.balanced
    assert table.num_rows == result.report.written > 300
    hazard = table["wind_hazard"].to_numpy()
    np.testing.assert_array_equal(table["wind_score"].to_numpy(), wind_score(hazard))
    direction = table["dominant_direction"].to_numpy()
    np.testing.assert_array_equal(table["wind_direction"].to_numpy(), direction_classes(direction))
    assert result.preview.startswith(b"\x89PNG")


def test_inputs_that_cannot_be_used_are_told(world: World, datasets: Datasets) -> None:
    def changed(change: Callable[[xr.Dataset], xr.Dataset]) -> Datasets:
        return {**datasets, WIND: change(datasets[WIND])}

    old = changed(lambda wind: wind[["wind_direction_distribution"]])
    fast = changed(lambda wind: wind.assign(fire_weather_wind_p99=wind["dominant_share"] + 200))
    deep = changed(lambda wind: wind.assign(dominant_share=wind["wind_direction_distribution"]))
    far = changed(lambda wind: wind.assign_coords(x=wind["x"] + 4e6))
    empty = changed(lambda wind: wind.assign(fire_weather_share=wind["dominant_share"] * np.nan))
    cases: list[tuple[Datasets, type[InputError], str]] = [
        ({LAND: datasets[LAND]}, MissingInputError, f"input '{WIND}' is missing"),
        (old, MissingInputError, "'fire_weather_share' is missing, .*run-all conus404"),
        (fast, ValueRangeError, "fire_weather_wind_p99 runs from 200"),
        (deep, GridError, "dominant_share has dimensions"),
        (far, GridError, "the region needs"),
        (empty, InputError, "fire_weather_share has no value"),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            region_wind(given, world.grid, REGION, "corrected")


def test_wind_that_misses_the_land_is_told(world: World, datasets: Datasets) -> None:
    """Cells have values, but none of them lies under a pixel with data."""
    west, south, east, north = world.grid.region_window(REGION).bounds
    land = datasets[LAND].copy(deep=True)
    rows = np.flatnonzero((land["latitude"] > south) & (land["latitude"] < north))
    cols = np.flatnonzero((land["longitude"] > west) & (land["longitude"] < east))
    land["CRPS"].values[np.ix_(rows, cols)] = np.nan
    land["CRPS"].values[rows[0], cols[0]] = 1
    wind = datasets[WIND].copy(deep=True)
    cells = region_wind({**datasets, LAND: land}, world.grid, REGION, "corrected")
    assert np.isfinite(cells["wind_hazard"]).sum() == 1
    here = wind["fire_weather_share"].values == cells["fire_weather_share"][0, 0]
    assert here.sum() == 1
    wind["fire_weather_share"].values[here] = np.nan
    with pytest.raises(EmptyRegionError, match="no value under the data of region y1_x1"):
        region_wind({LAND: land, WIND: wind}, world.grid, REGION, "corrected")


def test_the_types_are_the_named_ones() -> None:
    assert tuple(RISK_TYPES) == RISK_NAMES
    assert [risk.key("buildings") for risk in RISK_TYPES.values()] == [
        "buildings",
        "wind/buildings",
    ]
    assert [risk_group(name) for name in RISK_NAMES] == ["regions", "regions_wind"]


@pytest.mark.parametrize("risk", RISK_TYPES.values(), ids=RISK_TYPES)
def test_a_type_agrees_with_itself(risk: RiskType) -> None:
    names = set(risk.variables)
    assert risk.scores
    assert len(risk.scores) == len(risk.map.views)
    assert {one.variable for one in risk.classes} <= names
    assert all(score.count == SCORES for score in risk.scores)
    assert set(risk.scored) <= set(risk.summarised), "what is scored has a mean"
    for one in risk.categories:
        values = np.float32([v for v in risk.variables[one.variable].values if v >= 0])
        found = one.classify(values, "corrected").tolist()
        assert found == list(range(one.count)), "the values of a category are its classes"
    assert set(risk.seamless) <= names
    assert {*risk.kept, *(name for others in risk.kept.values() for name in others)} <= names
    for variable in risk.variables.values():
        assert variable.low < variable.high
        assert len(variable.long_name) > 20
    columns = building_schema(risk).names
    assert len(set(columns)) == len(columns)
    for one in risk.classes:
        assert f"{one.name}_hist" in statistics_schema(risk, "county").names


@pytest.mark.parametrize("risk", RISK_TYPES.values(), ids=RISK_TYPES)
def test_the_map_and_the_scores_have_the_same_breaks(risk: RiskType) -> None:
    subject = page_subject(risk)
    breaks = np.float32(subject.breaks)
    assert len(breaks) == SCORES - 1
    score = risk.scores[0]
    assert score.classify(breaks, "corrected").tolist() == [0, *range(2, SCORES)]
    middle = np.sqrt(np.maximum(breaks[:-1], 1e-6) * breaks[1:])
    assert score.classify(middle, "corrected").tolist() == list(range(1, SCORES - 1))


def test_where_the_map_finds_its_values() -> None:
    """Fire keeps the keys that readers of its tiles know; wind has one view."""
    fire, wind = (page_subject(risk) for risk in RISK_TYPES.values())
    assert fire.building_keys == ("0", "1")
    assert [row.keys for row in fire.building_rows] == [("0", "1"), ("2", "3"), ("5", "6"), ("4",)]
    assert (fire.region_keys, fire.histogram_keys) == (("1", "2"), ("5", "6"))
    assert [row.keys for row in fire.region_rows] == [("1", "2"), ("3", "4")]
    assert (fire.count_key, fire.code_key, fire.name_keys) == ("0", "7", ("9", "10"))
    assert wind.building_keys == ("0",)
    assert [row.keys for row in wind.building_rows] == [
        (str(key),) for key in (0, 1, 2, 5, 3, 4)
    ], "the direction comes after what is summarised"
    assert (wind.region_keys, wind.histogram_keys, wind.code_key) == (("1",), ("3",), "4")
