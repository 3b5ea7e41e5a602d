"""Satellite imagery of the sample world: scenes over real tiles, with made-up content.

Belongs here: an elevation model, radar and optical scenes as cloud-optimized GeoTIFFs with the
STAC items that list them, so that the whole chain of a tile runs without any service. Does not
belong here: reading them, and which tiles there are.

Everything is synthetic. The grids, the layout of bands, classes, offsets and properties are those
of the real collections, so that nothing downstream can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

from ocr_assets.sample.fields import Waves
from ocr_assets.tiles import elevation, sentinel1, sentinel2
from ocr_assets.tiles.ard import BANDS_10M, coarser
from ocr_assets.tiles.scenes import outline_points

NOTICE = "Synthetic imagery of the sample world. No value says anything about a real place."

DEFAULT_TILES = ("1947X1775Y", "1948X1775Y")
"""Two neighbours in the hills of Slovenia."""

CLOUDINESS = (0.05, 0.0, 0.3, 0.1, 0.8, 0.0, 0.2, 0.02, 0.45, 0.1)
"""Share of cloud of one optical date after the other, over and over."""

OPTICAL_DATES = 20
RADAR_DATES = 3

FOREST, GRASS, CROP, WATER = range(4)

# Surface reflectance in summer and winter, about what spectral libraries give for these covers.
_BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
_SUMMER = np.array(
    [
        [0.020, 0.037, 0.021, 0.063, 0.195, 0.240, 0.265, 0.275, 0.115, 0.050],
        [0.036, 0.068, 0.052, 0.105, 0.225, 0.265, 0.290, 0.305, 0.215, 0.125],
        [0.030, 0.060, 0.038, 0.090, 0.270, 0.335, 0.370, 0.385, 0.190, 0.095],
        [0.045, 0.040, 0.022, 0.018, 0.015, 0.014, 0.012, 0.011, 0.006, 0.004],
    ],
    np.float32,
)
_WINTER = np.array(
    [
        [0.024, 0.035, 0.030, 0.058, 0.125, 0.150, 0.165, 0.175, 0.120, 0.062],
        [0.045, 0.068, 0.072, 0.110, 0.170, 0.190, 0.205, 0.220, 0.240, 0.160],
        [0.070, 0.092, 0.115, 0.140, 0.160, 0.175, 0.190, 0.210, 0.285, 0.235],
        [0.048, 0.045, 0.028, 0.022, 0.018, 0.016, 0.014, 0.013, 0.008, 0.006],
    ],
    np.float32,
)
_CLOUD = np.array([0.52, 0.50, 0.50, 0.51, 0.52, 0.53, 0.54, 0.54, 0.36, 0.30], np.float32)
_SHADOW = 0.45
_SHADOW_SHIFT = (420.0, 560.0)
"""Metres to the west and to the north of the cloud that throws it."""

_BACKSCATTER_DB = {"vv": (-8.0, -11.5, -10.0, -19.0), "vh": (-14.0, -18.5, -17.0, -27.0)}
_LOOKS = 8
_SCL = {"vegetation": 4, "bare": 5, "water": 6, "shadow": 3, "medium": 8, "cloud": 9, "cirrus": 10}
_ARC_SECOND = 1 / 3600
_MARGIN = 32
_SURVEY_REACH = 47_000.0
_SURVEY_PIXEL = 160


Sky = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Opacity of clouds, and of those that throw a shadow, on a grid."""


class SampleImageryError(ValueError):
    """Tiles for which no imagery can be made up."""


def build_sample_imagery(
    folder: Path,
    tiles: Sequence[GeoBox],
    *,
    year: int = 2023,
    optical_dates: int = OPTICAL_DATES,
    seed: int = 2025,
) -> None:
    """Write synthetic scenes of some neighbouring tiles and the lists of them.

    Args:
        folder: gets ``{collection}.json`` for each of the three collections, and their files.
        tiles: 10 m grids of the tiles; scenes cover their common extent. Same UTM zone.
        year: of the radar and optical scenes.
        optical_dates: optical days, spread over the year; the last one is 31 December.
        seed: another one gives another world.

    Raises:
        SampleImageryError: no tile, or tiles in several UTM zones.
    """
    if len({str(tile.crs) for tile in tiles}) != 1:
        raise SampleImageryError("sample imagery is made of tiles of one UTM zone, at least one")
    world = _World(_common_grid(tiles), year, optical_dates, seed)
    for collection, items in (
        (elevation.COLLECTION, world.cells(folder)),
        (sentinel1.COLLECTION, world.radar(folder)),
        (sentinel2.COLLECTION, world.optical(folder)),
    ):
        features = [
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "collection": collection,
                "links": [],
                **item,
            }
            for item in items
        ]
        document = {"type": "FeatureCollection", "notice": NOTICE, "features": features}
        (folder / f"{collection}.json").write_text(json.dumps(document, indent=1) + "\n")


def _common_grid(tiles: Sequence[GeoBox]) -> GeoBox:
    """10 m pixels over all tiles and a margin, a multiple of 16 on each side."""
    boxes = np.array([tuple(tile.boundingbox) for tile in tiles])
    pixel = tiles[0].affine.a
    west, north = boxes[:, 0].min() - _MARGIN * pixel, boxes[:, 3].max() + _MARGIN * pixel
    extent = boxes[:, 2].max() - west, north - boxes[:, 1].min()
    cols, rows = (16 * math.ceil((length / pixel + _MARGIN) / 16) for length in extent)
    return GeoBox((rows, cols), Affine(pixel, 0, west, 0, -pixel, north), tiles[0].crs)


@dataclass(frozen=True)
class _World:
    grid: GeoBox
    year: int
    optical_dates: int
    seed: int

    def _field(self, number: int, grid: GeoBox, shortest: float, longest: float) -> Any:
        """A smooth field on a grid of the zone's metres; ``number`` tells fields apart."""
        return Waves(self.seed * 1000 + number, shortest, longest).on_grid(*_centres(grid))

    def _cover(self, grid: GeoBox) -> NDArray[np.uint8]:
        """Land cover of each pixel."""
        woods = self._field(1, grid, 300, 6_000)
        farms = self._field(2, grid, 150, 2_500)
        lakes = self._field(3, grid, 2_000, 20_000)
        cover = np.where(woods > 0.1, FOREST, np.where(farms > 0, CROP, GRASS))
        return np.where(lakes < -1.6, WATER, cover).astype(np.uint8)

    @cached_property
    def _covers(self) -> Mapping[int, NDArray[np.uint8]]:
        return {factor: self._cover(coarser(self.grid, factor)) for factor in (1, 2)}

    @cached_property
    def _degrees(self) -> Transformer:
        return Transformer.from_crs(str(self.grid.crs), "EPSG:4326", always_xy=True)

    def _outline(self, grid: GeoBox) -> dict[str, Any]:
        """Footprint and bounding box of a grid in degrees."""
        shape = shapely.Polygon(np.column_stack(self._degrees.transform(*outline_points(grid).T)))
        return {
            "geometry": shapely.geometry.mapping(shapely.set_precision(shape, 1e-6)),
            "bbox": [round(value, 6) for value in shape.bounds],
        }

    # Elevation

    def cells(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Cells of one degree, cut to the surroundings of the tiles."""
        x, y = self._degrees.transform(*outline_points(self.grid).T)
        for south in range(math.floor(min(y)), math.floor(max(y)) + 1):
            for west in range(math.floor(min(x)), math.floor(max(x)) + 1):
                edges = (
                    max(west, min(x) - 0.01),
                    max(south, min(y) - 0.01),
                    min(west + 1, max(x) + 0.01),
                    min(south + 1, max(y) + 0.01),
                )
                yield self._cell(folder, west, south, edges)

    def _cell(
        self, folder: Path, west: int, south: int, edges: tuple[float, float, float, float]
    ) -> dict[str, Any]:
        # Whole arc seconds from the corner of the cell, as in the real model.
        left, top = round((edges[0] - west) * 3600), round((south + 1 - edges[3]) * 3600)
        cols = max(1, round((edges[2] - west) * 3600) - left)
        rows = max(1, round((south + 1 - edges[1]) * 3600) - top)
        origin = Affine.translation(west + left * _ARC_SECOND, south + 1 - top * _ARC_SECOND)
        affine = origin @ Affine.scale(_ARC_SECOND, -_ARC_SECOND)
        lon, lat = _centres(GeoBox((rows, cols), affine, "EPSG:4326"))
        metres = 111_320.0
        x, y = lon * metres * math.cos(math.radians(lat.mean())), lat * metres
        hills = Waves(self.seed * 1000 + 4, 1_500, 40_000).on_grid(x, y)
        height = (420 + 130 * hills + 6 * Waves(self.seed, 200, 900).on_grid(x, y)).astype("f4")
        name = f"{'NS'[south < 0]}{abs(south):02d}_{'EW'[west < 0]}{abs(west):03d}"
        name = f"Synthetic_DSM_COG_10_{name}_DEM"
        path = f"{elevation.COLLECTION}/{name}.tif"
        _write(folder / path, height, affine, "EPSG:4326", None, "average")
        bounds = rasterio.transform.array_bounds(rows, cols, affine)
        return {
            "id": name,
            "geometry": shapely.geometry.mapping(shapely.box(*bounds)),
            "bbox": list(bounds),
            "properties": {"datetime": "2021-04-22T00:00:00Z"},
            "assets": {"data": {"href": path}},
        }

    # Radar

    def radar(self, folder: Path) -> Iterator[dict[str, Any]]:
        """In each season some ascending days and one descending."""
        grid = coarser(self.grid, 2)
        random = np.random.default_rng([self.seed, 5])
        for (month, day), _ in sentinel1.SEASONS:
            for number in range(RADAR_DATES + 1):
                orbit = "ascending" if number < RADAR_DATES else "descending"
                hour = 16 if orbit == "ascending" else 5
                time = datetime(self.year, month, day, hour, tzinfo=UTC) + timedelta(12 * number)
                name = f"S1A_SYNTHETIC_{time:%Y%m%dT%H%M%S}_rtc"
                assets = {}
                for asset, decibels in _BACKSCATTER_DB.items():
                    power = 10 ** (np.array(decibels, np.float32)[self._covers[2]] / 10)
                    speckle = random.standard_gamma(_LOOKS, power.shape, np.float32) / _LOOKS
                    path = f"{sentinel1.COLLECTION}/{name}_{asset}.tif"
                    values = power * speckle
                    _write(folder / path, values, grid.affine, str(grid.crs), -32768, "average")
                    assets[asset] = {"href": path}
                yield {
                    "id": name,
                    **self._outline(grid),
                    "properties": {
                        "datetime": f"{time:%Y-%m-%dT%H:%M:%SZ}",
                        "sat:orbit_state": orbit,
                    },
                    "assets": assets,
                }

    # Optical

    def optical(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Days spread over the year; every fifth has two scenes, one beside the other."""
        first, last = date(self.year, 1, 4), date(self.year, 12, 31)
        for number in range(self.optical_dates):
            share = number / max(1, self.optical_dates - 1)
            day = first + timedelta(round(share * (last - first).days))
            yield from self._optical_day(folder, number, day)

    def _optical_day(self, folder: Path, number: int, day: date) -> Iterator[dict[str, Any]]:
        clouds = _Clouds(
            Waves(self.seed * 1000 + 100 + number, 900, 9_000), CLOUDINESS[number % len(CLOUDINESS)]
        )
        summer = (1 - math.cos(2 * math.pi * (day.timetuple().tm_yday - 15) / 365)) / 2
        over = {factor: clouds.over(coarser(self.grid, factor)) for factor in (1, 2)}
        classes = self._classes(clouds, over[2], summer)
        # Until the catalogue adds the offset itself, numbers of new products have it in them.
        applied = number % 2 == 0
        images = {
            name: self._numbers(name, over, summer, number) + (0 if applied else 1000)
            for name in _BANDS
        }
        parts = ((0.0, 0.3), (0.2, 1.0)) if number % 5 == 1 else ((0.0, 1.0),)
        for part, (left, right) in enumerate(parts):
            time = datetime(day.year, day.month, day.day, 10, 5, part, tzinfo=UTC)
            name = f"S2A_SYNTHETIC_{day:%Y%m%d}_{part}_L2A"
            assets: dict[str, dict[str, str]] = {}
            grid = self._survey_grid
            layers: dict[str, NDArray[Any]] = {**images, "SCL": classes}
            for band, values in layers.items():
                asset, path = sentinel2.ASSETS[band][0], f"{sentinel2.COLLECTION}/{name}/{band}.tif"
                full = self._survey_grid if band == "SCL" else self._grid_of(band)
                cut = _columns(full, left, right, self.grid)
                grid = full[:, cut]
                nearest = "nearest" if band == "SCL" else "average"
                _write(folder / path, values[:, cut], grid.affine, str(grid.crs), 0, nearest)
                assets[asset] = {"href": path}
            yield {
                "id": name,
                **self._outline(grid),
                "properties": {
                    "datetime": f"{time:%Y-%m-%dT%H:%M:%SZ}",
                    "eo:cloud_cover": round(100 * float((classes[::8, ::8] > 7).mean()), 2),
                    "s2:processing_baseline": "05.09",
                    "earthsearch:boa_offset_applied": applied,
                },
                "assets": assets,
            }

    def _grid_of(self, band: str) -> GeoBox:
        return self.grid if band in BANDS_10M else coarser(self.grid, 2)

    @cached_property
    def _survey_grid(self) -> GeoBox:
        """20 m pixels over the area in which clouds are surveyed, on the grid of the tiles."""
        step = _SURVEY_PIXEL / self.grid.affine.a
        reach = math.ceil(_SURVEY_REACH / _SURVEY_PIXEL)
        rows, cols = (round(size / step) + 2 * reach for size in self.grid.shape)
        affine = self.grid.affine @ Affine.translation(-reach * step, -reach * step)
        fine = _SURVEY_PIXEL // 20
        return GeoBox((rows * fine, cols * fine), affine @ Affine.scale(2), self.grid.crs)

    def _classes(self, clouds: _Clouds, near_sky: Sky, summer: float) -> NDArray[np.uint8]:
        """Scene classification: at 160 m far from the tiles, at 20 m over them."""
        fine = _SURVEY_PIXEL // 20
        far = coarser(self._survey_grid, fine)
        classes = self._classified(self._cover(far), clouds.over(far), summer)
        classes = classes.repeat(fine, axis=0).repeat(fine, axis=1)
        near = coarser(self.grid, 2)
        top, left = (
            round(steps) for steps in reversed(~self._survey_grid.affine @ near.affine @ (0, 0))
        )
        rows, cols = near.shape
        nearby = self._classified(self._covers[2], near_sky, summer)
        classes[top : top + rows, left : left + cols] = nearby
        return classes

    def _classified(self, cover: NDArray[np.uint8], sky: Sky, summer: float) -> NDArray[np.uint8]:
        ground = np.array(
            [
                _SCL["vegetation"],
                _SCL["vegetation"],
                _SCL["vegetation" if summer > 0.4 else "bare"],
                _SCL["water"],
            ],
            np.uint8,
        )[cover]
        opacity, shadow = sky
        ground[shadow > 0.3] = _SCL["shadow"]
        for name, least in (("cirrus", 0.08), ("medium", 0.3), ("cloud", 0.7)):
            ground[opacity > least] = _SCL[name]
        return ground

    def _numbers(
        self, band: str, over: Mapping[int, Sky], summer: float, number: int
    ) -> NDArray[np.uint16]:
        """Digital numbers of a band without any offset, at least 1."""
        index = _BANDS.index(band)
        factor = 1 if band in BANDS_10M else 2
        cover, (opacity, shadow) = self._covers[factor], over[factor]
        random = np.random.default_rng([self.seed, number, index])
        surface = summer * _SUMMER[:, index] + (1 - summer) * _WINTER[:, index]
        values = surface.astype(np.float32)[cover]
        values *= 1 + np.float32(0.06) * random.standard_normal(values.shape, np.float32)
        values *= 1 - (1 - _SHADOW) * shadow
        values += opacity * (_CLOUD[index] - values)
        return np.clip(np.rint(values * 10_000), 1, 30_000).astype(np.uint16)


@dataclass(frozen=True)
class _Clouds:
    """Clouds of a day as a function of place; ``cover`` is about the share that they hide."""

    field: Waves
    cover: float

    def over(self, grid: GeoBox) -> Sky:
        """Opacity from 0, clear, to 1; and that of the clouds that throw a shadow there."""
        x, y = _centres(grid)
        return self._at(x, y), self._at(x + _SHADOW_SHIFT[0], y - _SHADOW_SHIFT[1])

    def _at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        if not self.cover:
            return np.zeros((len(y), len(x)), np.float32)
        # The field is about normally distributed, so a quantile makes the share.
        threshold = math.sqrt(2) * _inverse_erf(1 - 2 * self.cover)
        return np.clip((self.field.on_grid(x, y) - threshold) / 0.25, 0, 1, dtype=np.float32)


def _inverse_erf(value: float) -> float:
    """Winitzki's approximation, good to 0.002."""
    log = math.log(1 - value * value)
    first = 2 / (math.pi * 0.147) + log / 2
    return math.copysign(math.sqrt(math.sqrt(first * first - log / 0.147) - first), value)


def _centres(grid: GeoBox) -> tuple[NDArray[Any], NDArray[Any]]:
    rows, cols = grid.shape
    affine = grid.affine
    x = affine.c + (np.arange(cols) + 0.5) * affine.a
    return x, affine.f + (np.arange(rows) + 0.5) * affine.e


def _columns(full: GeoBox, left: float, right: float, region: GeoBox) -> slice:
    """Columns of a grid that hold a part of the region's width, to its own edge at the outside."""
    # Whole blocks, so that the edges of all bands are the same.
    step = _SURVEY_PIXEL
    blocks = region.shape[1] * region.affine.a / step
    first, last = (
        round((region.affine.c + round(share * blocks) * step - full.affine.c) / full.affine.a)
        for share in (left, right)
    )
    cols = full.shape[1]
    return slice(0 if left == 0 else first, cols if right == 1 else last)


def _write(
    path: Path,
    values: NDArray[Any],
    affine: Affine,
    crs: str,
    nodata: float | None,
    resampling: str,
) -> None:
    """Write one band as a cloud-optimized GeoTIFF with overviews."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, cols = values.shape
    profile = {
        "driver": "GTiff",
        "dtype": values.dtype,
        "count": 1,
        "height": rows,
        "width": cols,
        "crs": crs,
        "transform": affine,
        "nodata": nodata,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as draft:
            draft.write(values, 1)
            draft.update_tags(NOTICE=NOTICE)
        with memory.open() as draft:
            copy_raster(
                draft,
                path,
                driver="COG",
                blocksize=256,
                compress="zstd",
                level=3,
                predictor="yes" if values.itemsize > 1 else "no",
                overview_resampling=resampling,
            )
