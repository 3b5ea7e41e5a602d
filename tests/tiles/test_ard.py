"""Files of analysis-ready data: what is written comes back, and the same is written again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scene_folders import GRID, pixels

from ocr_assets.tiles import ard
from ocr_assets.tiles.ard import ArdError, Elevation, Quarter, Sentinel1, Sentinel2

DAYS = (date(2024, 2, 29), date(2024, 12, 30), date(2024, 12, 31))
LINEAGE = {"code_version": "0123", "inputs": {"scenes": "4567"}}


def optical(days: tuple[date, ...] = DAYS) -> Sentinel2:
    random = np.random.default_rng(1)
    rows, cols = GRID.shape
    count = len(days)
    return Sentinel2(
        days,
        random.integers(0, 65536, (count, rows, cols, 4), np.uint16),
        random.integers(0, 65536, (count, rows // 2, cols // 2, 6), np.uint16),
        random.integers(0, 12, (count, rows // 2, cols // 2), np.uint8),
        tuple((f"S2A_{day:%Y%m%d}", f"S2B_{day:%Y%m%d}") for day in days),
        tuple(0.01 * index for index in range(count)),
        False,
        GRID,
        ("a remark",),
    )


def paths(folder: Path, source: str) -> dict[str, Path]:
    return {name: folder / path.format(tag="1X2Y") for name, path in ard.FILES[source].items()}


def test_optical_images_come_back(tmp_path: Path) -> None:
    value = optical()
    ard.write_sentinel2(paths(tmp_path, "sentinel2"), value, LINEAGE)
    found = ard.read_sentinel2(paths(tmp_path, "sentinel2"))
    for name in ("bands10", "bands20", "scl"):
        np.testing.assert_array_equal(getattr(found, name), getattr(value, name))
    for name in ("dates", "scenes", "clouds", "partial", "geobox", "remarks"):
        assert getattr(found, name) == getattr(value, name), name


def test_every_band_says_its_date_and_name(tmp_path: Path) -> None:
    value = optical()
    files = paths(tmp_path, "sentinel2")
    ard.write_sentinel2(files, value, LINEAGE)
    with rasterio.open(files["s2_10"]) as source:
        assert source.crs == "EPSG:32633"
        assert source.transform == GRID.affine
        assert source.nodata == 0
        assert source.descriptions[4:6] == ("2024-12-30 B2", "2024-12-30 B3")
        np.testing.assert_array_equal(source.read(12), value.bands10[2, ..., 3])
    with rasterio.open(files["s2_20"]) as source:
        assert source.descriptions[17] == "2024-12-31 B12"
        assert source.transform == pixels(20).affine
        np.testing.assert_array_equal(source.read(7), value.bands20[1, ..., 0])


def test_radar_composites_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    grid = ard.coarser(GRID, 4)
    quarters = (
        Quarter((date(2024, 1, 15), date(2024, 2, 8)), "ascending", 1.0),
        Quarter((), "ascending", 0.0),
        Quarter((date(2024, 7, 15),), "ascending", 0.25),
        Quarter((date(2024, 12, 15),), "ascending", 0.5),
    )
    value = Sentinel1(random.integers(0, 65536, (4, *grid.shape, 2), np.uint16), quarters, grid)
    ard.write_sentinel1(paths(tmp_path, "sentinel1"), value, LINEAGE)
    found = ard.read_sentinel1(paths(tmp_path, "sentinel1"))
    np.testing.assert_array_equal(found.backscatter, value.backscatter)
    assert found.quarters == quarters
    assert found.geobox == grid
    assert [quarter.ok for quarter in found.quarters] == [True, False, True, True]


def test_terrain_comes_back(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    value = Elevation(
        random.normal(500, 90, GRID.shape).astype(np.float32),
        random.uniform(0, 60, GRID.shape).astype(np.float32),
        GRID,
    )
    ard.write_elevation(paths(tmp_path, "elevation"), value, LINEAGE)
    found = ard.read_elevation(paths(tmp_path, "elevation"))
    np.testing.assert_array_equal(found.height, value.height)
    np.testing.assert_array_equal(found.slope, value.slope)
    assert found.geobox == GRID


def test_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (paths(tmp_path / name, "sentinel2") for name in "ab")
    ard.write_sentinel2(first, optical(), LINEAGE)
    ard.write_sentinel2(second, optical(), dict(reversed(LINEAGE.items())))
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name
        assert ard.read_lineage(path) == LINEAGE


def test_files_that_were_not_made_together_are_refused(tmp_path: Path) -> None:
    files, others = paths(tmp_path / "a", "sentinel2"), paths(tmp_path / "b", "sentinel2")
    ard.write_sentinel2(files, optical(), LINEAGE)
    ard.write_sentinel2(others, optical(DAYS[:2]), LINEAGE)
    with pytest.raises(ArdError, match="not made together"):
        ard.read_sentinel2({**files, "scl": others["scl"]})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    files = paths(tmp_path, "sentinel2")
    ard.write_sentinel2(files, optical(), LINEAGE)
    content = files["s2_20"].read_bytes()
    files["s2_20"].write_bytes(content[: len(content) // 2])
    with pytest.raises(ArdError, match=r"s2_20/1X2Y\.tif is missing or damaged"):
        ard.read_sentinel2(files)
    with pytest.raises(ArdError, match=r"dem_1X2Y\.tif is missing or damaged"):
        ard.read_elevation(paths(tmp_path, "elevation"))


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    from scene_folders import write_geotiff

    files = paths(tmp_path, "sentinel1")
    write_geotiff(files["s1"], 5, GRID, "uint8", 0)
    with pytest.raises(ArdError, match="holds uint8, expected uint16"):
        ard.read_sentinel1(files)
    with pytest.raises(ArdError, match="does not say its lineage"):
        ard.read_lineage(files["s1"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dates": DAYS[:2]}, "do not belong together"),
        ({"dates": (DAYS[1], DAYS[0], DAYS[2])}, "ascending order"),
        ({"dates": (DAYS[0], DAYS[0], DAYS[2])}, "none is there twice"),
        ({"bands10": np.zeros((3, 48, 64, 4), np.float32)}, "bands10 is float32"),
        ({"bands20": np.zeros((3, 48, 64, 6), np.uint16)}, "bands20 is uint16 of shape"),
        ({"scl": np.zeros((2, 24, 32), np.uint8)}, "scl is uint8 of shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(optical(), **change)


def test_quarters_without_an_image_are_known() -> None:
    assert optical().empty_quarters == (2, 3)


def test_grids_nest_only_where_pixels_do() -> None:
    assert ard.coarser(GRID, 4) == pixels(40)
    with pytest.raises(ValueError, match="48 x 64 pixels cannot be grouped 5 by 5"):
        ard.coarser(GRID, 5)


def test_the_layout_is_the_published_one() -> None:
    assert ard.tile_folder(2023, 1035, 727) == "2023/raw/1035/727/raw"
    assert ard.tile_folder(None, 1035, 727) == "raw/1035/727/raw"
