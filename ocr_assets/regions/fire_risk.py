"""Wildfire risk as a type of risk: its inputs under a region, its variables and its score.

Belongs here: what wildfire risk reads, and how it describes itself. Does not belong here: the
chain of its computation (``risk.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ocr_assets.regions.grid import CONUS_WINDOW, RegionGrid, Window
from ocr_assets.regions.inputs import (
    BURN_PROBABILITY_30M,
    BURN_PROBABILITY_270M,
    CONDITIONAL_RISK,
    RASTERS,
    WIND,
    WIND_30M,
)
from ocr_assets.regions.kernels import Method
from ocr_assets.regions.raster_cuts import GridError, InputRaster
from ocr_assets.regions.risk import (
    CLIMATES,
    SCORE_EDGES,
    VARIABLES,
    RegionInputs,
    halo,
    region_risk,
    risk_score,
)
from ocr_assets.regions.risk_type import (
    SCORES,
    Classes,
    MapRow,
    MapText,
    RiskType,
    RiskVariable,
    Values,
)


def raster_names(available: Collection[str]) -> tuple[str, ...]:
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
    rasters = {name: InputRaster.checked(name, datasets, RASTERS[name]) for name in names}
    pixels = {
        name: rasters[name].pixels(window)
        for name in (*BURN_PROBABILITY_30M.values(), CONDITIONAL_RISK)
    }
    margin = window.buffer(*halo(window, method), CONUS_WINDOW)
    covers = {
        name: rasters[name].cover(margin) for name in (*BURN_PROBABILITY_270M.values(), names[-1])
    }
    _check_same_cells(rasters)

    def read(name: str, variable: str) -> NDArray[np.float32]:
        return rasters[name].read(variable, pixels[name], region_id)

    conditional_risk = read(CONDITIONAL_RISK, "CRPS")
    return RegionInputs(
        burn_probability_270m={
            climate: rasters[name].source("BP", covers[name], region_id)
            for climate, name in BURN_PROBABILITY_270M.items()
        },
        burn_probability_30m={
            climate: read(name, "BP") for climate, name in BURN_PROBABILITY_30M.items()
        },
        conditional_risk=conditional_risk,
        risk_to_structures=read(CONDITIONAL_RISK, "RPS"),
        wind_direction_distribution=rasters[names[-1]].source(
            "wind_direction_distribution", covers[names[-1]], region_id
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
    raster = InputRaster(CONDITIONAL_RISK, conditional_risk, RASTERS[CONDITIONAL_RISK])
    rows, cols = raster.pixels(window)
    values = conditional_risk["CRPS"].isel(latitude=rows, longitude=cols).values
    return not bool(np.isnan(values).all())


def _check_same_cells(rasters: Mapping[str, InputRaster]) -> None:
    for (_, one), (_, other) in itertools.pairwise(sorted(BURN_PROBABILITY_270M.items())):
        for axis in ("y", "x"):
            found, expected = rasters[other].centres(axis), rasters[one].centres(axis)
            if not np.array_equal(found, expected):
                raise GridError(
                    f"{other}: {axis} has {found.size} cells from {found[0]:.9f}, expected those "
                    f"of {one}: {expected.size} from {expected[0]:.9f}"
                )


def _compute(
    datasets: Mapping[str, xr.Dataset], grid: RegionGrid, region_id: str, method: Method
) -> dict[str, Values]:
    inputs = read_region_inputs(datasets, grid, region_id, method)
    return region_risk(inputs, grid.region_window(region_id), method)


def _variables() -> dict[str, RiskVariable]:
    described = {
        "rps_scott": RiskVariable(
            "Risk to potential structures, published (Scott et al. 2024)",
            "percent",
            0,
            100,
            summarised=False,
        ),
        "crps_scott": RiskVariable(
            "Conditional risk to potential structures (Scott et al. 2024)", "percent", 0, 100
        ),
    }
    for year in CLIMATES:
        climate = f"climate of {year}"
        described[f"rps_{year}"] = RiskVariable(
            f"Risk to potential structures, {climate}", "percent", 0, 100
        )
        described[f"bp_{year}"] = RiskVariable(
            f"Annual burn probability with wind-driven spread into non-burnable land, {climate}",
            "1",
            0,
            1,
        )
        described[f"bp_{year}_riley"] = RiskVariable(
            f"Annual burn probability, published (Riley et al. 2025), {climate}", "1", 0, 1
        )
    return {name: described[name] for name in VARIABLES}


FIRE = RiskType(
    name="fire",
    title="Wildfire risk to structures",
    summary="Burn probability spread by fire-weather wind, and risk to potential structures.",
    sources=(
        "USFS RDS-2020-0016-02 (Scott et al. 2024), USFS RDS-2025-0006 (Riley et al. 2025), "
        "CONUS404 (USGS, NCAR)"
    ),
    variables=_variables(),
    scores=tuple(
        Classes(f"risk_score_{year}", f"rps_{year}", SCORES, risk_score) for year in CLIMATES
    ),
    categories=(),
    kept={f"rps_{year}": ("crps_scott", f"bp_{year}_riley") for year in CLIMATES},
    seamless=("bp_2011", "bp_2047"),
    rasters=raster_names,
    compute=_compute,
    map=MapText(
        title="Wildfire risk to buildings",
        noun="risk",
        quantity="Risk to potential structures (RPS), percent",
        views_title="Climate",
        views=tuple(str(year) for year in CLIMATES),
        edges=SCORE_EDGES,
        rows=(
            MapRow("Risk to potential structures (RPS)", "%", ("rps_2011", "rps_2047")),
            MapRow("Burn probability, with spread", "per year", ("bp_2011", "bp_2047")),
            MapRow(
                "Burn probability, wildland only", "per year", ("bp_2011_riley", "bp_2047_riley")
            ),
            MapRow("Conditional risk if it burns (CRPS)", "%", ("crps_scott",)),
        ),
        region_row=("risk to structures (RPS)", "%"),
    ),
)
"""Wildfire risk: burn probability spread by wind, times conditional risk."""
