"""Rasters as pictures for the map: square pieces in the web's projection, drawn when asked for.

Belongs here: which piece lies where, its pixels, the legend. Does not belong here: making the
raster, and answering browsers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.coords import disjoint_bounds
from rasterio.enums import Resampling
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from ocr_assets.tiles.product import colour_table, tree_cover_preview
from ocr_assets.tiles.tree_cover import NODATA
from resources.gdal_storage import gdal_access, gdal_path
from resources.storage import Storage

SIDE = 256
MAX_ZOOM = 14
"""Where a piece's pixel is about 10 m; beyond it the browser enlarges."""

_WEB = "EPSG:3857"
_HALF = math.pi * 6_378_137
_LEGEND = (10, 25, 50, 75, 100)


@dataclass(frozen=True)
class TreeCoverPicture:
    """The mosaic of tree cover of a year: a :class:`~ocr_assets.map_page.server.PictureSource`."""

    storage: Storage
    key: str
    year: int

    def describe(self) -> dict[str, Any]:
        """Title, bounds in degrees, highest zoom, and legend.

        Raises:
            RasterioError: the mosaic is gone, or cannot be read.
        """
        with gdal_access(self.storage), rasterio.open(gdal_path(self.storage, self.key)) as file:
            bounds = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        colours = colour_table()
        return {
            "title": f"Tree cover {self.year}",
            "bounds": list(bounds),
            "max_zoom": MAX_ZOOM,
            "legend": [
                {"colour": "#{:02x}{:02x}{:02x}".format(*colours[value][:3]), "text": f"{value} %"}
                for value in _LEGEND
            ],
        }

    def piece(self, zoom: int, x: int, y: int) -> bytes | None:
        """PNG of a piece in the XYZ scheme; None where the mosaic is not.

        A piece of a low zoom is drawn from an overview, whose pixels are means of percents.

        Raises:
            RasterioError: the mosaic is gone, or cannot be read.
        """
        if not (0 <= zoom <= MAX_ZOOM and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
            return None
        pixel = 2 * _HALF / 2**zoom / SIDE
        corner = Affine(pixel, 0, x * SIDE * pixel - _HALF, 0, -pixel, _HALF - y * SIDE * pixel)
        with gdal_access(self.storage):
            path = gdal_path(self.storage, self.key)
            with rasterio.open(path) as file:
                bounds = transform_bounds(_WEB, file.crs, *array_bounds(SIDE, SIDE, corner))
                if disjoint_bounds(bounds, file.bounds):
                    return None
                level = _overview(file, 360 / 2**zoom / SIDE)
            cover = _warped(path, corner, level)
        return None if (cover == NODATA).all() else tree_cover_preview(cover, SIDE)


def _overview(file: rasterio.DatasetReader, pixel: float) -> dict[str, int]:
    """Option that opens the coarsest overview whose pixels are no longer than ``pixel`` degrees."""
    levels = [i for i, n in enumerate(file.overviews(1)) if n * file.res[0] <= pixel]
    return {"overview_level": levels[-1]} if levels else {}


def _warped(path: str, corner: Affine, level: dict[str, int]) -> NDArray[np.uint8]:
    with (
        rasterio.open(path, **level) as file,
        WarpedVRT(
            file, crs=_WEB, transform=corner, width=SIDE, height=SIDE,
            resampling=Resampling.nearest, src_nodata=NODATA, nodata=NODATA,
        ) as piece,
    ):  # fmt: skip
        cover: NDArray[np.uint8] = piece.read(1)
    return cover
