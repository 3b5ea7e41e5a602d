"""Rasters as pictures for the map: square pieces in the web's projection, drawn when asked for.

Belongs here: which piece lies where, its pixels, the legend. Does not belong here: making the
raster, and answering browsers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import rasterio
from affine import Affine
from rasterio.enums import Resampling
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


class PictureSource(Protocol):
    """A raster that the map shows below everything else."""

    def describe(self) -> dict[str, Any]:
        """Title, bounds in degrees, highest zoom, and legend, for the page."""

    def piece(self, zoom: int, x: int, y: int) -> bytes | None:
        """PNG of a piece in the XYZ scheme; None where the raster is not."""


@dataclass(frozen=True)
class TreeCoverPicture:
    """The mosaic of tree cover of a year."""

    storage: Storage
    key: str
    year: int

    def describe(self) -> dict[str, Any]:
        """See :class:`PictureSource`."""
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
        """See :class:`PictureSource`."""
        if not (0 <= zoom <= MAX_ZOOM and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
            return None
        pixel = 2 * _HALF / 2**zoom / SIDE
        corner = Affine(pixel, 0, x * SIDE * pixel - _HALF, 0, -pixel, _HALF - y * SIDE * pixel)
        with (
            gdal_access(self.storage),
            rasterio.open(gdal_path(self.storage, self.key)) as file,
            WarpedVRT(
                file, crs=_WEB, transform=corner, width=SIDE, height=SIDE,
                resampling=Resampling.nearest, src_nodata=NODATA, nodata=NODATA,
            ) as piece,
        ):  # fmt: skip
            cover = piece.read(1)
        return None if (cover == NODATA).all() else tree_cover_preview(cover, SIDE)
