"""Rasters on their own cells and on the pixel grid, against GDAL's own nearest neighbour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from published_inputs import ALBERS, GRID, cells, field_of, geotiff

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.grid import CONUS, Window
from ocr_assets.regions.warp import (
    NearestCells,
    RasterFileError,
    cell_windows,
    open_raster_file,
    raise_to,
)

ESRI_ALBERS = (
    'PROJCS["USA_Contiguous_Albers_Equal_Area_Conic_USGS_version",GEOGCS["GCS_North_American_1983",'
    'DATUM["D_North_American_1983",SPHEROID["GRS_1980",6378137.0,298.257222101]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],PROJECTION["Albers"],'
    'PARAMETER["False_Easting",0.0],PARAMETER["False_Northing",0.0],'
    'PARAMETER["Central_Meridian",-96.0],PARAMETER["Standard_Parallel_1",29.5],'
    'PARAMETER["Standard_Parallel_2",45.5],PARAMETER["Latitude_Of_Origin",23.0],UNIT["Meter",1.0]]'
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    transform, rows, cols = cells(30)
    made = tmp_path_factory.mktemp("raster") / "a.tif"
    made.write_bytes(geotiff(field_of(rows, cols, 1, 1.0), transform))
    return str(made)


def by_gdal(path: str, window: Window) -> np.ndarray:
    west, _, _, north = window.bounds
    values = np.full(window.shape, np.nan, np.float32)
    with rasterio.open(path) as source:
        rasterio.warp.reproject(
            rasterio.band(source, 1),
            values,
            dst_transform=Affine(region_grid.STEP, 0, west, 0, -region_grid.STEP, north),
            dst_crs=region_grid.CRS,
            dst_nodata=np.nan,
            resampling=rasterio.warp.Resampling.nearest,
            tolerance=0.0,
        )
    return values[::-1]


def test_the_nearest_cell_is_the_one_that_gdal_takes(path: str) -> None:
    raster = open_raster_file(path, ALBERS)
    found = NearestCells(raster, GRID.window).read(raster)
    expected = by_gdal(path, GRID.window)
    assert not np.isnan(found).any()
    # A centre within two centimetres of a border may fall to either side.
    assert np.mean(found != expected) < 2e-3


@settings(max_examples=20)
@given(st.integers(0, 80), st.integers(0, 120), st.integers(1, 40), st.integers(1, 40))
def test_a_pixel_does_not_depend_on_its_window(
    path: str, row: int, col: int, rows: int, cols: int
) -> None:
    raster = open_raster_file(path, ALBERS)
    whole = NearestCells(raster, GRID.window).read(raster)
    south, west = GRID.window.row_start + row, GRID.window.col_start + col
    part = Window(south, south + rows, west, west + cols)
    np.testing.assert_array_equal(
        NearestCells(raster, part).read(raster), whole[part.slices_in(GRID.window)]
    )


def test_outside_the_raster_there_is_nothing(path: str) -> None:
    raster = open_raster_file(path, ALBERS)
    assert not NearestCells(raster, CONUS.region_window("y2_x20"))
    beside = GRID.window.buffer(0, 400)
    values = NearestCells(raster, beside).read(raster)
    assert np.isnan(values[:, :100]).all()
    assert not np.isnan(values[:, 400:-400]).any()


def test_no_data_reads_as_nan_and_integers_as_numbers(tmp_path: Path) -> None:
    transform, rows, cols = cells(90)
    classes = np.arange(rows * cols, dtype=np.uint8).reshape(rows, cols) % 5
    (tmp_path / "a.tif").write_bytes(geotiff(classes, transform, nodata=0))
    raster = open_raster_file(str(tmp_path / "a.tif"), ALBERS)
    values = raster.read(slice(0, 3), slice(2, 9))
    expected = np.where(classes == 0, np.nan, classes)[:3, 2:9]
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert values.dtype == np.float32
    assert raster.y[0] > raster.y[-1]
    assert raster.x[1] - raster.x[0] == 90


def test_other_spellings_of_a_system_are_known(tmp_path: Path) -> None:
    transform, rows, cols = cells(270)
    (tmp_path / "a.tif").write_bytes(geotiff(field_of(rows, cols, 1, 1.0), transform, ESRI_ALBERS))
    assert open_raster_file(str(tmp_path / "a.tif"), ALBERS).crs == ALBERS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:3310"}, "is in .*California Albers.*expected EPSG:5070"),
        ({"crs": None}, "declares no coordinate system"),
        ({"transform": Affine(30, 1, 0, 0, -30, 0)}, "not a north-up raster"),
        ({"transform": Affine(30, 0, 0, 0, 30, 0)}, "not a north-up raster"),
    ],
)
def test_other_rasters_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    values = np.zeros((5, 5), np.float32)
    given = {"transform": Affine(30, 0, 1000, 0, -30, 2000), "crs": ALBERS} | options
    (tmp_path / "a.tif").write_bytes(geotiff(values, given.pop("transform"), **given))
    with pytest.raises(RasterFileError, match=message):
        open_raster_file(str(tmp_path / "a.tif"), ALBERS)


def test_a_damaged_file_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.tif").write_bytes(Path(path).read_bytes()[:-60_000])
    raster = open_raster_file(str(tmp_path / "a.tif"), ALBERS)
    with pytest.raises(RasterFileError, match="cannot read rows"):
        raster.read(slice(0, raster.shape[0]), slice(0, raster.shape[1]))
    (tmp_path / "b.tif").write_text("no raster")
    with pytest.raises(RasterFileError, match="cannot read the raster"):
        open_raster_file(str(tmp_path / "b.tif"), ALBERS)


def test_rasters_of_one_look_up_have_the_same_cells(path: str, tmp_path: Path) -> None:
    transform, rows, cols = cells(270)
    (tmp_path / "a.tif").write_bytes(geotiff(field_of(rows, cols, 1, 1.0), transform))
    raster, other = (open_raster_file(str(one), ALBERS) for one in (path, tmp_path / "a.tif"))
    with pytest.raises(RasterFileError, match="has other cells"):
        NearestCells(raster, GRID.window).read(other)


def test_cell_windows_cover_everything_once() -> None:
    seen = np.zeros((7, 10), int)
    for rows, cols in cell_windows((7, 10), (3, 4)):
        assert rows.start % 3 == 0
        assert cols.start % 4 == 0
        seen[rows, cols] += 1
    assert (seen == 1).all()


def test_values_are_raised_to_a_bound() -> None:
    values = np.array([-1, 0, np.nan, 2], np.float32)
    np.testing.assert_array_equal(raise_to(values.copy(), 0.0), [0, 0, np.nan, 2])
    np.testing.assert_array_equal(raise_to(values.copy(), None), values)
