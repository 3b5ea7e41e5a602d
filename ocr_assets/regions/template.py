"""What the region-risk store holds: its variables with their units, and its chunks.

Belongs here: names, attributes and layout of the store. Does not belong here: writing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.regions.risk import CLIMATES, VARIABLES

LARGEST_CHUNK = 1500
"""Pixels of a chunk's side: 9 MB decoded, so that a reader of a town does not fetch a region."""

ATTRIBUTES: Mapping[str, Any] = {
    "title": "Wildfire risk to structures",
    "summary": "Burn probability spread by fire-weather wind, and risk to potential structures.",
    "license_name": "CC-BY-4.0",
    "license_url": "https://creativecommons.org/licenses/by/4.0/",
    "data_sources": (
        "USFS RDS-2020-0016-02 (Scott et al. 2024), USFS RDS-2025-0006 (Riley et al. 2025), "
        "CONUS404 (USGS, NCAR)"
    ),
}


def variable_attributes() -> dict[str, dict[str, str]]:
    """Attributes of each variable of the store, in order: `long_name` and `units`."""
    attributes = {
        "rps_scott": ("Risk to potential structures, published (Scott et al. 2024)", "percent"),
        "crps_scott": ("Conditional risk to potential structures (Scott et al. 2024)", "percent"),
    }
    for year in CLIMATES:
        climate = f"climate of {year}"
        attributes[f"rps_{year}"] = (f"Risk to potential structures, {climate}", "percent")
        attributes[f"bp_{year}"] = (
            f"Annual burn probability with wind-driven spread into non-burnable land, {climate}",
            "1",
        )
        attributes[f"bp_{year}_riley"] = (
            f"Annual burn probability, published (Riley et al. 2025), {climate}",
            "1",
        )
    return {
        name: {"long_name": attributes[name][0], "units": attributes[name][1]} for name in VARIABLES
    }


def chunk_shape(grid: RegionGrid) -> tuple[int, int]:
    """Rows and columns of a chunk: the largest that divide a region, up to LARGEST_CHUNK."""
    return _divisor(grid.region_rows), _divisor(grid.region_cols)


def region_slices(grid: RegionGrid) -> dict[str, tuple[slice, slice]]:
    """Slices of each valid region in arrays over the grid's window."""
    windows: dict[str, Window] = {id_: grid.region_window(id_) for id_ in grid.valid}
    return {id_: window.slices_in(grid.window) for id_, window in windows.items()}


def _divisor(size: int) -> int:
    return next(part for part in range(min(size, LARGEST_CHUNK), 0, -1) if size % part == 0)
