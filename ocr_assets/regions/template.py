"""What the region-risk store holds: its variables with their units, and its chunks.

Belongs here: names, attributes and layout of the store. Does not belong here: writing it.
"""

from __future__ import annotations

from typing import Any

from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.regions.risk_type import RiskType

LARGEST_CHUNK = 1500
"""Pixels of a chunk's side: 9 MB decoded, so that a reader of a town does not fetch a region."""


def attributes(risk: RiskType) -> dict[str, Any]:
    """Attributes of the store as a whole."""
    return {
        "title": risk.title,
        "summary": risk.summary,
        "license_name": "CC-BY-4.0",
        "license_url": "https://creativecommons.org/licenses/by/4.0/",
        "data_sources": risk.sources,
    }


def variable_attributes(risk: RiskType) -> dict[str, dict[str, str]]:
    """Attributes of each variable of the store, in order: `long_name` and `units`."""
    return {
        name: {"long_name": variable.long_name, "units": variable.units}
        for name, variable in risk.variables.items()
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
