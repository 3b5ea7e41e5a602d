"""From opened inputs to everything that is known about one region.

Belongs here: the order of the steps for one region. Does not belong here: the steps themselves,
or where their results are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

from ocr_assets.regions.buildings import BuildingReport, BuildingSource, sample_buildings
from ocr_assets.regions.grid import RegionGrid
from ocr_assets.regions.kernels import Method
from ocr_assets.regions.preview import score_preview
from ocr_assets.regions.risk_type import RiskType


@dataclass(frozen=True)
class RegionResult:
    """Risk rasters of a region, its buildings, and what is worth knowing about both."""

    arrays: dict[str, NDArray[np.float32]]
    buildings: pa.Table
    report: BuildingReport
    summary: dict[str, Any]
    preview: bytes


def process_region(
    risk: RiskType,
    rasters: Mapping[str, xr.Dataset],
    buildings: BuildingSource,
    grid: RegionGrid,
    region_id: str,
    method: Method,
) -> RegionResult:
    """Compute the risk of a region and sample it at the region's buildings.

    Args:
        risk: what is computed.
        rasters: the opened input rasters, by dataset name.
        buildings: the input footprints.
        grid: the region grid.
        region_id: a region of ``grid`` that holds data.
        method: ``corrected``, or ``published`` to reproduce the published numbers.

    Raises:
        InputError: an input is wrong for this region; see :mod:`ocr_assets.regions.raster_cuts`.
        EmptyRegionError: the inputs have no value anywhere in the region.
    """
    window = grid.region_window(grid.require_valid(region_id))
    footprints = buildings.read(window.bounds)  # a bad table is found before the long work
    arrays = risk.compute(rasters, grid, region_id, method)
    table, report = sample_buildings(risk, footprints, arrays, grid, region_id, method)
    shown = risk.scores[0]
    preview = score_preview(shown, arrays[shown.variable])
    return RegionResult(arrays, table, report, summarise(arrays), preview)


def summarise(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Pixels and bytes, and for each variable its share of NaN, minimum and maximum.

    Minimum and maximum are None where every pixel is NaN.
    """
    variables: dict[str, dict[str, float | None]] = {}
    for name, values in arrays.items():
        missing = int(np.count_nonzero(np.isnan(values)))
        empty = missing == values.size
        variables[name] = {
            "nan_share": missing / values.size,
            "minimum": None if empty else float(np.nanmin(values)),
            "maximum": None if empty else float(np.nanmax(values)),
        }
    return {
        "pixels": int(next(iter(arrays.values())).size),
        "bytes": sum(values.nbytes for values in arrays.values()),
        "variables": variables,
    }
