"""Pictures of analysis-ready data."""

from __future__ import annotations

from datetime import date
from io import BytesIO

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image
from scene_folders import GRID

from ocr_assets.tiles.ard import Elevation, Quarter, Sentinel1, Sentinel2, coarser
from ocr_assets.tiles.source_previews import elevation_preview, optical_preview, radar_preview


def opened(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)


def test_slopes_to_the_evening_sun_are_bright() -> None:
    ramp = np.abs(np.arange(64, dtype=np.float32) - 32) * 5
    height = np.broadcast_to(ramp, GRID.shape).copy()
    found = opened(elevation_preview(Elevation(height, height, GRID)))
    # The ridge of this valley's sides: the eastern one faces west, towards the sun.
    assert found.shape == (48, 64, 3)
    assert found[:, 44:60].mean() > 1.3 * found[:, 4:20].mean()
    flat = np.zeros(GRID.shape, np.float32)
    assert opened(elevation_preview(Elevation(flat, flat, GRID))).std(axis=(0, 1)).max() == 0


def test_radar_shows_the_first_season_with_data() -> None:
    grid = coarser(GRID, 4)
    backscatter = np.zeros((4, *grid.shape, 2), np.uint16)
    backscatter[2, :, 8:] = 6000, 1500
    quarters = [Quarter((), "ascending", 0.0)] * 4
    quarters[2] = Quarter((date(2023, 8, 1),), "ascending", 0.5)
    found = opened(radar_preview(Sentinel1(backscatter, tuple(quarters), grid)))
    assert (found[:, :8] == 0).all()
    assert (found[:, 8:] > 40).all()


def test_optical_shows_the_clearest_date_in_natural_colours() -> None:
    grid = GeoBox((480, 640), Affine(10, 0, 465_160, 0, -10, 5_080_280), GRID.crs)
    bands = np.zeros((2, 480, 640, 4), np.uint16)
    bands[0] = 60_000
    bands[1] = np.array([0.02, 0.06, 0.12, 0.4]) * 65535
    value = Sentinel2(
        (date(2023, 5, 1), date(2023, 6, 1)),
        bands,
        np.zeros((2, 240, 320, 6), np.uint16),
        np.zeros((2, 240, 320), np.uint8),
        (("a",), ("b",)),
        (0.4, 0.1),
        False,
        grid,
    )
    found = opened(optical_preview(value))
    assert max(found.shape) <= 240
    red, green, blue = found[0, 0]
    assert red > green > blue > 20
