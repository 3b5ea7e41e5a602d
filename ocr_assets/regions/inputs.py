"""Input rasters: what they are called, what they must look like, and one region cut out of them.

Belongs here: names, variables, coordinate systems and units of the input datasets; the checks of
opened datasets; cutting the pieces that one region needs.
Does not belong here: opening files or stores, and what is computed from the pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.geographies import Level
from ocr_assets.regions.grid import CONUS_WINDOW, RegionGrid, Window
from ocr_assets.regions.kernels import DIRECTIONS, Method
from ocr_assets.regions.resample import SourceRaster
from ocr_assets.regions.risk import CLIMATES, RegionInputs, halo

BURN_PROBABILITY_270M = {
    2011: "riley-et-al-2025-2011-270m-5070",
    2047: "riley-et-al-2025-2047-270m-5070",
}
BURN_PROBABILITY_30M = {
    2011: "riley-et-al-2025-2011-30m-4326",
    2047: "riley-et-al-2025-2047-30m-4326",
}
CONDITIONAL_RISK = "scott-et-al-2024-30m-4326"
WIND = "conus404-ffwi-p99-wind-direction-distribution"
WIND_30M = "conus404-ffwi-p99-wind-direction-distribution-30m-4326"
"""The same distribution resampled to the pixel grid; read only where :data:`WIND` is missing."""

BUILDINGS = "conus-overture-region-id-tagged-buildings"
GEOGRAPHIES: dict[Level, str] = {
    "block": "us-census-blocks",
    "tract": "us-census-tracts",
    "county": "us-census-counties",
    "state": "us-census-states",
    "nation": "us-census-nation",
}

PROJECTED_CRS = "EPSG:5070"
CELL_270M = 270.0
COORDINATE_TOLERANCE = 1e-9
"""Largest difference in degrees between a 30 m raster's coordinates and the grid's."""


DESCRIPTIONS: Mapping[str, str] = {
    **{
        name: f"Burn probability on the 270 m Albers grid, climate of {climate}; Riley et al. 2025."
        for climate, name in BURN_PROBABILITY_270M.items()
    },
    **{
        name: f"Burn probability resampled to 30 m, climate of {climate}; Riley et al. 2025."
        for climate, name in BURN_PROBABILITY_30M.items()
    },
    CONDITIONAL_RISK: "Conditional risk and risk to structures, 30 m, percent; Scott et al. 2024.",
    WIND: "Share of fire-weather hours by wind direction on the 4 km grid; from CONUS404.",
    BUILDINGS: "Building footprints with their census codes; Overture Maps and TIGER blocks.",
    **{name: f"Outlines of level {level}; US Census." for level, name in GEOGRAPHIES.items()},
}
"""What each input dataset is."""


@dataclass(frozen=True)
class Variable:
    """What a variable must hold: its units and its valid range, both ends included."""

    units: str
    low: float
    high: float
    tolerance: float


@dataclass(frozen=True)
class RasterSchema:
    """What an input raster must hold: variables, and its CRS (None: any that it declares)."""

    variables: Mapping[str, Variable]
    crs: str | None


_PROBABILITY = Variable("1", 0.0, 1.0, 1e-6)
_PERCENT = Variable("percent", 0.0, 100.0, 1e-3)

RASTERS: Mapping[str, RasterSchema] = {
    **{
        name: RasterSchema({"BP": _PROBABILITY}, PROJECTED_CRS)
        for name in BURN_PROBABILITY_270M.values()
    },
    **{
        name: RasterSchema({"BP": _PROBABILITY}, region_grid.CRS)
        for name in BURN_PROBABILITY_30M.values()
    },
    CONDITIONAL_RISK: RasterSchema({"CRPS": _PERCENT, "RPS": _PERCENT}, region_grid.CRS),
    WIND: RasterSchema({"wind_direction_distribution": Variable("1", 0.0, 1.0, 1e-4)}, None),
    WIND_30M: RasterSchema(
        {"wind_direction_distribution": Variable("1", 0.0, 1.0, 1e-4)}, region_grid.CRS
    ),
}
"""Every input raster of the risk step, by dataset name."""


class InputError(ValueError):
    """An input dataset that cannot be used; the message names it, the fault and the mend."""


class MissingInputError(InputError):
    """A dataset or a variable that is not there."""


class CrsError(InputError):
    """A raster in another coordinate system than its dataset promises, or in none."""


class GridError(InputError):
    """A raster whose cells do not lie where they must, or do not cover the region."""


class ValueRangeError(InputError):
    """A raster with values that its variable cannot have."""


class EmptyRasterError(InputError):
    """A raster without a single value in the region."""


def raster_names(available: Mapping[str, object]) -> tuple[str, ...]:
    """The rasters the risk step reads out of ``available``: the wind on its own grid if there."""
    wind = WIND_30M if WIND not in available and WIND_30M in available else WIND
    return (
        *BURN_PROBABILITY_270M.values(),
        *BURN_PROBABILITY_30M.values(),
        CONDITIONAL_RISK,
        wind,
    )


def read_region_inputs(
    datasets: Mapping[str, xr.Dataset], grid: RegionGrid, region_id: str, method: Method
) -> RegionInputs:
    """Check the input rasters and read what one region needs of them.

    ``datasets`` maps the names of :func:`raster_names` to opened, lazy datasets, each with its CRS
    as ``crs_wkt`` in the attributes of a ``spatial_ref`` coordinate. 30 m rasters have dimensions
    ``latitude`` and ``longitude`` (either direction) on exactly the pixel grid; the others have
    ``y`` and ``x``, and the wind also ``wind_direction`` (8, in the order of
    :data:`ocr_assets.regions.kernels.DIRECTIONS`).
    Names, coordinate systems and grids of all are checked before any values are read. Only the
    chunks under the region and its margin are read.

    Raises UnknownRegionError for a region without data and a subclass of :class:`InputError` for
    a raster that cannot be used.
    """
    window = grid.region_window(grid.require_valid(region_id))
    names = raster_names(datasets)
    for name in names:
        _check_schema(name, datasets)
    pixels = {
        name: _pixel_slices(name, datasets[name], window)
        for name in (*BURN_PROBABILITY_30M.values(), CONDITIONAL_RISK)
    }
    margin = window.buffer(*halo(window, method), CONUS_WINDOW)
    cuts = {
        name: _cut_slices(name, datasets[name], margin)
        for name in (*BURN_PROBABILITY_270M.values(), names[-1])
    }
    _check_same_cells(datasets)

    conditional_risk = _read(CONDITIONAL_RISK, "CRPS", datasets, pixels, region_id)
    return RegionInputs(
        burn_probability_270m={
            climate: _source(BURN_PROBABILITY_270M[climate], "BP", datasets, cuts, region_id)
            for climate in CLIMATES
        },
        burn_probability_30m={
            climate: _read(BURN_PROBABILITY_30M[climate], "BP", datasets, pixels, region_id)
            for climate in CLIMATES
        },
        conditional_risk=conditional_risk,
        risk_to_structures=_read(CONDITIONAL_RISK, "RPS", datasets, pixels, region_id),
        wind_direction_distribution=_source(
            names[-1], "wind_direction_distribution", datasets, cuts, region_id
        ),
    )


def input_bytes(inputs: RegionInputs) -> int:
    """Bytes of all arrays of a region's inputs."""
    sources = (*inputs.burn_probability_270m.values(), inputs.wind_direction_distribution)
    arrays = (
        *(source.values for source in sources),
        *inputs.burn_probability_30m.values(),
        inputs.conditional_risk,
        inputs.risk_to_structures,
    )
    return sum(array.nbytes for array in arrays)


def holds_data(conditional_risk: xr.Dataset, window: Window) -> bool:
    """Whether a region is valid: any pixel of the window has a conditional risk (CRPS)."""
    rows, cols = _pixel_slices(CONDITIONAL_RISK, conditional_risk, window)
    values = conditional_risk["CRPS"].isel(latitude=rows, longitude=cols).values
    return not bool(np.isnan(values).all())


def _check_schema(name: str, datasets: Mapping[str, xr.Dataset]) -> None:
    if name not in datasets:
        raise MissingInputError(f"input {name!r} is missing; found {', '.join(sorted(datasets))}")
    dataset = datasets[name]
    schema = RASTERS[name]
    for variable in schema.variables:
        if variable not in dataset.data_vars:
            raise MissingInputError(
                f"{name}: variable {variable!r} is missing, found "
                f"{', '.join(map(str, dataset.data_vars)) or 'none'}; "
                "name the right one under `variables` in the catalog"
            )
        y, x = _dimensions(name, dataset)
        expected = (y, x, "wind_direction") if name in (WIND, WIND_30M) else (y, x)
        found = dataset[variable].dims
        if sorted(map(str, found)) != sorted(expected):
            raise GridError(f"{name}: {variable} has dimensions {found}, expected {expected}")
        if "wind_direction" in found and dataset.sizes["wind_direction"] != len(DIRECTIONS):
            raise GridError(
                f"{name}: {variable} has {dataset.sizes['wind_direction']} wind directions, "
                f"expected {len(DIRECTIONS)} ({', '.join(DIRECTIONS)})"
            )
    crs = _crs(name, dataset)
    # The same Albers or WGS 84 goes under many names, so parameters decide.
    if schema.crs is not None and not crs.equals(CRS(schema.crs), ignore_axis_order=True):
        raise CrsError(f"{name}: coordinate system is {crs.name!r}, expected {schema.crs}")


def _dimensions(name: str, dataset: xr.Dataset) -> tuple[str, str]:
    for y, x in (("y", "x"), ("latitude", "longitude")):
        if y in dataset.sizes and x in dataset.sizes:
            if y in dataset.coords and x in dataset.coords:
                return y, x
            raise GridError(f"{name}: dimensions {y}, {x} have no coordinates")
    raise GridError(
        f"{name}: dimensions are {', '.join(map(str, dataset.sizes))}, "
        "expected y, x or latitude, longitude"
    )


def _crs(name: str, dataset: xr.Dataset) -> CRS:
    reference = dataset.coords.get("spatial_ref")
    if reference is None or "crs_wkt" not in reference.attrs:
        raise CrsError(f"{name}: no coordinate system is declared; add `crs` to it in the catalog")
    return CRS.from_user_input(reference.attrs["crs_wkt"])


def _pixel_slices(name: str, dataset: xr.Dataset, window: Window) -> tuple[slice, slice]:
    """Row and column slices of a 30 m raster, proven to lie on the window's pixels."""
    found = _dimensions(name, dataset)
    if found != ("latitude", "longitude"):
        raise GridError(f"{name}: dimensions are {found}, expected latitude, longitude")
    rows = _axis_slice(name, "latitude", dataset["latitude"].values, window.latitude)
    cols = _axis_slice(name, "longitude", dataset["longitude"].values, window.longitude)
    return rows, cols


def _axis_slice(
    name: str, axis: str, found: NDArray[np.float64], expected: NDArray[np.float64]
) -> slice:
    """Slice of ``found`` that equals ``expected`` (ascending), negative step if it descends."""
    descending = found.size > 1 and found[0] > found[-1]
    ascending = found[::-1] if descending else found
    start = round((expected[0] - ascending[0]) / region_grid.STEP) if found.size else 0
    stop = start + expected.size
    if start < 0 or stop > found.size:
        covered = f"{ascending[0]:.9f}..{ascending[-1]:.9f}" if found.size else "nothing"
        raise GridError(
            f"{name}: {axis} covers {covered}, expected at least "
            f"{expected[0]:.9f}..{expected[-1]:.9f}"
        )
    off = np.abs(ascending[start:stop] - expected)
    worst = int(off.argmax())
    if not off[worst] <= COORDINATE_TOLERANCE:
        raise GridError(
            f"{name}: {axis} is not on the pixel grid, found {ascending[start + worst]!r}, "
            f"expected {expected[worst]!r}; resample it to the grid"
        )
    if not descending:
        return slice(start, stop)
    first, last = found.size - 1 - start, found.size - stop
    return slice(first, last - 1 if last else None, -1)


def _cut_slices(name: str, dataset: xr.Dataset, window: Window) -> tuple[slice, slice]:
    """Row and column slices of a raster on another grid that cover ``window``.

    The edges of the window are curved in a projection, so they are densified before their
    extremes are taken. Two cells are added for nearest-neighbour look-up and gap filling.
    """
    y, x = _dimensions(name, dataset)
    to_source = Transformer.from_crs(region_grid.CRS, _crs(name, dataset), always_xy=True)
    west, south, east, north = to_source.transform_bounds(*window.bounds, densify_pts=101)
    step = CELL_270M if RASTERS[name].crs == PROJECTED_CRS else None
    return (
        _cover_slice(name, y, dataset[y].values, south, north, step),
        _cover_slice(name, x, dataset[x].values, west, east, step),
    )


def _cover_slice(
    name: str,
    axis: str,
    centres: NDArray[np.float64],
    low: float,
    high: float,
    expected_step: float | None,
) -> slice:
    steps = np.diff(centres)
    step = float(steps.mean()) if steps.size else float("nan")
    if not steps.size or step == 0 or np.abs(steps - step).max() > 1e-4 * abs(step):
        raise GridError(f"{name}: coordinate {axis} is not regular")
    if expected_step is not None and abs(abs(step) - expected_step) > 1e-4 * expected_step:
        raise GridError(f"{name}: cells are {abs(step):g} along {axis}, expected {expected_step:g}")
    ends = sorted(((low - centres[0]) / step, (high - centres[0]) / step))
    start = max(0, int(np.floor(ends[0])) - 2)
    stop = min(centres.size, int(np.ceil(ends[1])) + 3)
    if start >= stop:
        raise GridError(
            f"{name}: {axis} covers {min(centres[0], centres[-1]):.1f}.."
            f"{max(centres[0], centres[-1]):.1f}, the region needs {low:.1f}..{high:.1f}"
        )
    return slice(start, stop)


def _check_same_cells(datasets: Mapping[str, xr.Dataset]) -> None:
    for (_, one), (_, other) in itertools.pairwise(sorted(BURN_PROBABILITY_270M.items())):
        for axis in ("y", "x"):
            found, expected = datasets[other][axis].values, datasets[one][axis].values
            if not np.array_equal(found, expected):
                raise GridError(
                    f"{other}: {axis} has {found.size} cells from {found[0]:.9f}, expected those "
                    f"of {one}: {expected.size} from {expected[0]:.9f}"
                )


def _read(
    name: str,
    variable: str,
    datasets: Mapping[str, xr.Dataset],
    slices: Mapping[str, tuple[slice, slice]],
    region_id: str,
) -> NDArray[np.float32]:
    """One variable under a region as contiguous float32 in ``[y, x, ...]``, its values checked."""
    dataset = datasets[name]
    dimensions = _dimensions(name, dataset)
    piece = dataset[variable].isel(dict(zip(dimensions, slices[name], strict=True)))
    try:
        values = np.ascontiguousarray(piece.transpose(*dimensions, ...).values, dtype=np.float32)
    except Exception as error:  # stores and codecs have no common error for damaged data
        raise InputError(
            f"{name}: {variable} cannot be read under region {region_id} ({error}); "
            "get the dataset again"
        ) from error
    allowed = RASTERS[name].variables[variable]
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if np.isnan(low):
        raise EmptyRasterError(
            f"{name}: {variable} has no value in region {region_id}; "
            "take the region out of the grid's valid ones or mend the raster"
        )
    if low < allowed.low - allowed.tolerance or high > allowed.high + allowed.tolerance:
        raise ValueRangeError(
            f"{name}: {variable} runs from {low:g} to {high:g} in region {region_id}, expected "
            f"{allowed.low:g} to {allowed.high:g} ({allowed.units}); is its no-data value declared?"
        )
    if low < allowed.low or high > allowed.high:
        np.clip(values, allowed.low, allowed.high, out=values)
    return values


def _source(
    name: str,
    variable: str,
    datasets: Mapping[str, xr.Dataset],
    slices: Mapping[str, tuple[slice, slice]],
    region_id: str,
) -> SourceRaster:
    dataset = datasets[name]
    y, x = _dimensions(name, dataset)
    rows, cols = slices[name]
    return SourceRaster(
        values=_read(name, variable, datasets, slices, region_id),
        x=dataset[x].values[cols].astype(np.float64),
        y=dataset[y].values[rows].astype(np.float64),
        crs=_crs(name, dataset).to_string(),
    )
