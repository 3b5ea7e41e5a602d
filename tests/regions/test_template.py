"""What the store holds: every variable described, chunks that divide regions, regions in order."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.grid import CONUS, RegionGrid, Window
from ocr_assets.regions.risk import VARIABLES
from ocr_assets.regions.template import (
    LARGEST_CHUNK,
    attributes,
    chunk_shape,
    region_slices,
    variable_attributes,
)
from ocr_assets.regions.wind_risk import WIND_RISK


def test_every_variable_has_a_name_and_units() -> None:
    described_ones = variable_attributes(FIRE)
    assert tuple(described_ones) == VARIABLES
    for name, described in described_ones.items():
        assert described["units"] == ("1" if name.startswith("bp_") else "percent")
    assert len({described["long_name"] for described in described_ones.values()}) == len(VARIABLES)
    assert "2047" in described_ones["rps_2047"]["long_name"]


def test_the_store_names_its_licence_and_sources() -> None:
    assert attributes(FIRE)["license_name"] == "CC-BY-4.0"
    assert "RDS-2025-0006" in attributes(FIRE)["data_sources"]
    assert "CONUS404" in attributes(WIND_RISK)["data_sources"]


@pytest.mark.parametrize(
    ("rows", "cols", "chunks"),
    [(6000, 4500, (1500, 1500)), (300, 240, (300, 240)), (1501, 3000, (79, 1500)), (1, 7, (1, 7))],
)
def test_chunks_divide_a_region(rows: int, cols: int, chunks: tuple[int, int]) -> None:
    grid = RegionGrid("test", Window(0, 2 * rows, 0, 2 * cols), rows, cols, ("y0_x0",))
    assert chunk_shape(grid) == chunks
    assert max(chunks) <= LARGEST_CHUNK
    assert (rows % chunks[0], cols % chunks[1]) == (0, 0)


def test_regions_are_disjoint_parts_of_the_arrays() -> None:
    grid = RegionGrid("test", Window(50, 57, 90, 99), 3, 4, ("y0_x0", "y1_x2", "y2_x1"))
    covered = np.zeros(grid.window.shape, int)
    slices = region_slices(grid)
    assert tuple(slices) == grid.valid
    for part in slices.values():
        covered[part] += 1
    assert covered.max() == 1
    assert covered.sum() == 3 * 4 + 3 * 1 + 1 * 4


def test_conus_regions_are_the_published_chunks() -> None:
    slices = region_slices(CONUS)
    assert len(slices) == 405
    assert slices["y5_x14"] == (slice(30_000, 36_000), slice(63_000, 67_500))
