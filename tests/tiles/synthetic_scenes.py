"""Synthetic analysis-ready data: a landscape through the seasons, with clouds and their shadows.

For tests and benchmarks of the tiles wing. Fields of vegetation and soil have plausible spectra;
clouds are bright and white, their shadows lie to the south-east of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from ocr_assets.tiles.ard import SCALE, Elevation, Quarter, Sentinel1, Sentinel2, coarser
from ocr_assets.tiles.reflectance import FINE

PLANTS = np.array([0.04, 0.07, 0.05, 0.35, 0.09, 0.25, 0.31, 0.35, 0.18, 0.10], np.float32)
SOIL = np.array([0.09, 0.12, 0.15, 0.24, 0.18, 0.21, 0.23, 0.25, 0.30, 0.25], np.float32)
SHADOW_ROWS, SHADOW_COLS = 25, 30


@dataclass
class Scenes:
    """Reflectance ``[date, 10, n, n]``, where it is truly cloudy and shaded, slope in degrees."""

    cube: NDArray[np.float32]
    cloud: NDArray[np.bool_]
    shadow: NDArray[np.bool_]
    slope: NDArray[np.float32]


def field(rng: np.random.Generator, side: int, width: float) -> NDArray[np.float32]:
    """A smooth random field from 0 to 1."""
    values = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), width)
    return np.asarray((values - values.min()) / (values.max() - values.min()), np.float32)


def synthetic_scenes(
    dates: int = 6, side: int = 128, seed: int = 0, cloudy: tuple[int, ...] = (1, 4)
) -> Scenes:
    """Dates evenly through a growing season, some of them with clouds and shadows."""
    rng = np.random.default_rng(seed)
    greenness, texture = field(rng, side, 12), field(rng, side, 1.5)
    cube = np.empty((dates, len(PLANTS), side, side), np.float32)
    cloud = np.zeros((dates, side, side), np.bool_)
    shadow = np.zeros_like(cloud)
    for index, image in enumerate(cube):
        season = 0.7 + 0.3 * np.sin(index / dates * np.pi)
        cover = np.clip(greenness * 1.6 - 0.3, 0, 1) * season
        mixed = SOIL[:, None, None] * (1 - cover) + PLANTS[:, None, None] * cover
        image[:] = mixed * (0.85 + 0.3 * texture)
        image += rng.normal(size=image.shape).astype(np.float32) * np.float32(0.004)
        if index in cloudy:
            cloud[index] = field(rng, side, 25) > 0.6
            behind = np.roll(cloud[index], (SHADOW_ROWS, SHADOW_COLS), (0, 1))
            shadow[index] = behind & ~cloud[index]
            image[:, shadow[index]] *= np.float32(0.35)
            white = 0.4 + 0.1 * field(rng, side, 3)
            image[:] = np.where(cloud[index], white, image)
    np.clip(cube, 0.001, 0.999, out=cube)
    return Scenes(cube, cloud, shadow, 20 * field(rng, side, 20))


def grid(side: int) -> GeoBox:
    """A grid of 10 m in UTM zone 33 north."""
    return GeoBox((side, side), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")


def stored(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Reflectance or backscatter as integers."""
    return np.round(values * SCALE).clip(0, SCALE).astype(np.uint16)


def optical(cube: NDArray[np.float32], days: tuple[date, ...] | None = None) -> Sentinel2:
    """Analysis-ready images of scenes; by default one on the 15th of each month in turn."""
    count, _, side, _ = cube.shape
    if days is None:
        days = tuple(date(2021, 1 + index * 12 // count, 15) for index in range(count))
    half = side // 2
    coarse = cube[:, FINE:].reshape(count, 6, half, 2, half, 2).mean(axis=(3, 5))
    return Sentinel2(
        dates=days,
        bands10=np.ascontiguousarray(np.moveaxis(stored(cube[:, :FINE]), 1, -1)),
        bands20=np.ascontiguousarray(np.moveaxis(stored(coarse), 1, -1)),
        scl=np.full((count, half, half), 4, np.uint8),
        scenes=((),) * count,
        clouds=(0.0,) * count,
        partial=False,
        geobox=grid(side),
    )


def radar_images(side: int, seed: int = 0) -> Sentinel1:
    """Backscatter of four quarters."""
    rng = np.random.default_rng(seed)
    images = [[0.05 + 0.2 * field(rng, side // 4, 4) for _ in range(2)] for _ in range(4)]
    quarter = Quarter((date(2021, 1, 20),), "both", 1.0)
    return Sentinel1(
        stored(np.moveaxis(np.array(images), 1, -1)), (quarter,) * 4, coarser(grid(side), 4)
    )


def terrain(slope: NDArray[np.float32]) -> Elevation:
    """Terrain with a slope in degrees, without heights."""
    return Elevation(np.zeros_like(slope), slope, grid(len(slope)))
