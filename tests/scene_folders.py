"""Scenes that tests make up: small GeoTIFFs in a folder, with the list of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from ocr_assets.tiles import sentinel1, sentinel2
from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M
from ocr_assets.tiles.scenes import Place, outline_points
from resources.stac import StacImagery

GRID = GeoBox((48, 64), Affine(10, 0, 465_160, 0, -10, 5_080_280), "EPSG:32633")
"""A small tile near 14.55° E, 45.87° N."""

Values = NDArray[Any] | float


def place_of(grid: GeoBox = GRID, survey_metres: float = 3_200) -> Place:
    """A tile whose box is its grid, with clouds surveyed that far around it."""
    area = in_degrees(grid)
    centre = area.centroid
    wide = in_degrees(grid.pad(round(survey_metres / grid.affine.a)))
    return Place("1X2Y", centre.x, area, wide, grid)


def in_degrees(grid: GeoBox) -> shapely.Polygon:
    """Outline of a grid."""
    to_degrees = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True)
    return shapely.Polygon(np.column_stack(to_degrees.transform(*outline_points(grid).T)))


def pixels(metres: float, grid: GeoBox = GRID, margin: float = 0) -> GeoBox:
    """The extent of a grid and a margin, in other pixels."""
    box = grid.boundingbox
    shape = round((box.span_y + 2 * margin) / metres), round((box.span_x + 2 * margin) / metres)
    corner = box.left - margin, box.top + margin
    return GeoBox(shape, Affine(metres, 0, corner[0], 0, -metres, corner[1]), grid.crs)


class SceneFolder:
    """A folder of imagery in the making."""

    def __init__(self, folder: Path, collection: str) -> None:
        self.folder, self.collection = folder, collection
        self.items: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        time: str,
        assets: dict[str, tuple[Values, GeoBox]],
        *,
        dtype: str = "uint16",
        nodata: float | None = 0,
        footprint: Any = None,
        **properties: Any,
    ) -> dict[str, Any]:
        """Write a scene and list it; returns its item, which may be changed before :meth:`save`."""
        hrefs = {}
        for asset, (values, grid) in assets.items():
            path = f"{self.collection}/{name}_{asset}.tif"
            kind = "uint8" if asset == "scl" else dtype
            write_geotiff(self.folder / path, values, grid, kind, nodata)
            hrefs[asset] = {"href": path}
        outline = footprint or in_degrees(next(iter(assets.values()))[1])
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": self.collection,
            "links": [],
            "geometry": shapely.geometry.mapping(outline),
            "bbox": list(outline.bounds),
            "properties": {
                "datetime": time,
                **{key.replace("__", ":"): v for key, v in properties.items()},
            },
            "assets": hrefs,
        }
        self.items.append(item)
        return item

    def optical(
        self,
        name: str,
        time: str,
        number: Values = 3000,
        scl: Values = 4,
        grid: GeoBox = GRID,
        **properties: Any,
    ) -> dict[str, Any]:
        """A Sentinel-2 scene: the same number in all bands, the same class everywhere."""
        half = pixels(20, grid)
        wide = pixels(20, grid, margin=4000) if np.isscalar(scl) else half
        assets: dict[str, tuple[Values, GeoBox]] = {"scl": (scl, wide)}
        for names, own in ((BANDS_10M, grid), (BANDS_20M, half)):
            assets |= {sentinel2.ASSETS[band][0]: (number, own) for band in names}
        about = {"eo__cloud_cover": 1.0, "s2__processing_baseline": "03.01"}
        return self.add(name, time, assets, footprint=in_degrees(grid), **{**about, **properties})

    def radar(
        self,
        name: str,
        time: str,
        vv: Values = 0.1,
        vh: Values = 0.02,
        *,
        orbit: str = "ascending",
        grid: GeoBox = GRID,
    ) -> dict[str, Any]:
        """A Sentinel-1 scene in pixels of 20 m."""
        own = pixels(20, grid)
        return self.add(
            name,
            time,
            {"vv": (vv, own), "vh": (vh, own)},
            dtype="float32",
            nodata=-32768,
            footprint=in_degrees(grid),
            sat__orbit_state=orbit,
        )

    def save(self) -> Path:
        """Write the list; returns the folder."""
        document = {"type": "FeatureCollection", "features": self.items}
        (self.folder / f"{self.collection}.json").write_text(json.dumps(document))
        return self.folder

    def imagery(self) -> StacImagery:
        """What there is so far, as imagery."""
        return StacImagery(str(self.save()), self.collection)


def optical_folder(folder: Path) -> SceneFolder:
    """A folder for Sentinel-2 scenes."""
    return SceneFolder(folder, sentinel2.COLLECTION)


def radar_folder(folder: Path) -> SceneFolder:
    """A folder for Sentinel-1 scenes."""
    return SceneFolder(folder, sentinel1.COLLECTION)


def write_geotiff(
    path: Path, values: Values, grid: GeoBox, dtype: str, nodata: float | None
) -> None:
    """Write one band, constant if ``values`` is a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, cols = grid.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=dtype,
        count=1,
        height=rows,
        width=cols,
        crs=str(grid.crs),
        transform=grid.affine,
        nodata=nodata,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="zstd",
    ) as target:
        target.write(np.broadcast_to(np.asarray(values, dtype), grid.shape), 1)
