"""Reading a raster onto a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy as copy_raster
from scene_folders import GRID, pixels, write_geotiff

from ocr_assets.tiles.rasters import RasterTypeError, read_raster


def test_pixels_that_coincide_are_copied(tmp_path: Path) -> None:
    wide = GRID.pad(10)
    values = np.arange(wide.shape.y * wide.shape.x, dtype=np.uint16).reshape(wide.shape)
    write_geotiff(tmp_path / "a.tif", values, wide, "uint16", 0)
    for resampling in ("nearest", "bilinear"):
        found = read_raster(str(tmp_path / "a.tif"), GRID, "uint16", resampling)
        np.testing.assert_array_equal(found, values[10:-10, 10:-10])


def test_what_lies_outside_or_has_no_data_is_empty(tmp_path: Path) -> None:
    part = GRID[10:30, 20:40]
    values = np.full(part.shape, 7, np.float32)
    values[0, 0] = -32768
    write_geotiff(tmp_path / "a.tif", values, part, "float32", -32768)
    found = read_raster(str(tmp_path / "a.tif"), GRID, "float32", "bilinear")
    assert np.isnan(found).sum() == found.size - values.size + 1
    assert np.isnan(found[10, 20])
    assert found[10, 21] == 7
    away = GeoBox((4, 4), Affine(10, 0, 600_000, 0, -10, 5_000_000), GRID.crs)
    assert np.isnan(read_raster(str(tmp_path / "a.tif"), away, "float32", "nearest")).all()


def test_another_zone_is_warped(tmp_path: Path) -> None:
    # A plane in degrees is the same plane in any projection.
    degrees = GeoBox((300, 300), Affine(0.0002, 0, 14.52, 0, -0.0002, 45.9), "EPSG:4326")
    lat = 45.9 - 0.0002 * (np.arange(300) + 0.5)
    values = np.repeat((lat[:, None] - 45) * 1000, 300, axis=1).astype(np.float32)
    write_geotiff(tmp_path / "a.tif", values, degrees, "float32", None)
    found = read_raster(str(tmp_path / "a.tif"), GRID, "float32", "bilinear")
    from pyproj import Transformer

    x = GRID.affine.c + 10 * (np.arange(64) + 0.5)
    y = GRID.affine.f - 10 * (np.arange(48) + 0.5)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    _, expected = to_degrees.transform(*np.meshgrid(x, y))
    np.testing.assert_allclose(found, (expected - 45) * 1000, atol=2e-3)


def test_coarse_grids_read_overviews(tmp_path: Path) -> None:
    fine = pixels(2.5)
    values = np.zeros(fine.shape, np.uint16)
    write_geotiff(tmp_path / "a.tif", values, fine, "uint16", None)
    copy_raster(tmp_path / "a.tif", tmp_path / "b.tif", driver="COG", blocksize=128)
    with rasterio.open(tmp_path / "b.tif") as source:
        assert source.overviews(1) == [2]
    # Overviews that differ from the image show that they are what is read.
    with rasterio.open(tmp_path / "b.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as source:
        source.write(values + 9, 1)
    assert (read_raster(str(tmp_path / "b.tif"), pixels(5), "uint16", "nearest") == 0).all()
    assert (read_raster(str(tmp_path / "b.tif"), pixels(20), "uint16", "nearest") == 0).all()
    assert (read_raster(str(tmp_path / "b.tif"), fine, "uint16", "nearest") == 9).all()


@pytest.mark.parametrize(
    ("stored", "wanted"), [("float32", "uint16"), ("int16", "uint16"), ("uint16", "uint8")]
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, stored: str, wanted: str) -> None:
    write_geotiff(tmp_path / "a.tif", 1, GRID, stored, None)
    with pytest.raises(RasterTypeError, match=f"holds {stored}, expected {wanted}"):
        read_raster(str(tmp_path / "a.tif"), GRID, wanted, "nearest")  # type: ignore[arg-type]


def test_a_raster_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", dtype="uint8", count=1, height=4, width=4
    ) as target:
        target.write(np.zeros((4, 4), np.uint8), 1)
    with pytest.raises(rasterio.errors.RasterioIOError, match="no coordinate system"):
        read_raster(str(tmp_path / "a.tif"), GRID, "uint8", "nearest")


def test_other_formats_are_not_opened(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", 1, GRID, "uint8", None)
    copy_raster(tmp_path / "a.tif", tmp_path / "b.vrt", driver="VRT")
    with pytest.raises(rasterio.errors.RasterioIOError):
        read_raster(str(tmp_path / "b.vrt"), GRID, "uint8", "nearest")
