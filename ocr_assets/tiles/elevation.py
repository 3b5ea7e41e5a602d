"""Terrain of a tile: height from the Copernicus GLO-30 elevation model, and slope.

Belongs here: laying the one-degree cells of the model on a tile's grid, and slope. Does not belong
here: where the cells come from (an :class:`~ocr_assets.tiles.scenes.Imagery`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from ocr_assets.tiles.ard import Elevation
from ocr_assets.tiles.scenes import (
    Imagery,
    NoScenesError,
    Place,
    Reading,
    Scene,
    around_the_world,
    coverage,
)

COLLECTION = "cop-dem-glo-30"
ASSETS = ("data",)

PUBLISHED_PIXEL = 10.0
PUBLISHED_ZOOM = 3
PUBLISHED_LEAST = 0.02
"""The published slope takes pixels of the zoomed model for 10 m, and raises slopes below 0.02."""

_ARC_SECOND = 1 / 3600


def slope_degrees(height: NDArray[np.float32], pixel: tuple[float, float]) -> NDArray[np.float32]:
    """Steepest slope by central differences.

    Args:
        height: metres, ``(H + 2, W + 2)``: one row or column more on each side.
        pixel: metres from a row to the next, and from a column to the next.

    Returns:
        Degrees, ``(H, W)``: ``atan(hypot(dz/dx, dz/dy))``, after Zevenbergen and Thorne (1987).
    """
    along_y = (height[2:, 1:-1] - height[:-2, 1:-1]) / np.float32(2 * pixel[0])
    along_x = (height[1:-1, 2:] - height[1:-1, :-2]) / np.float32(2 * pixel[1])
    return np.degrees(np.arctan(np.hypot(along_x, along_y)), dtype=np.float32)


def published_slope(height: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slope as the published tiles have it, for comparison.

    The model in degrees is enlarged three times and its pixels are taken for 10 m on both axes,
    which they are at no latitude: they are 10.3 m by 10.3 m times the cosine of latitude.

    Args:
        height: metres on the model's own grid of one arc second, ``(h, w)``.

    Returns:
        Degrees, ``(3 h - 2, 3 w - 2)``. Slopes above 0 and below 0.02 are 0.02.
    """
    rows, cols = height.shape
    size = (cols * PUBLISHED_ZOOM, rows * PUBLISHED_ZOOM)
    # Linear interpolation that keeps the first and the last pixel where they are.
    y = np.linspace(0, rows - 1, size[1], dtype=np.float32)
    x = np.linspace(0, cols - 1, size[0], dtype=np.float32)
    zoomed: NDArray[Any] = cv2.remap(
        height, *np.meshgrid(x, y), interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    slope = slope_degrees(zoomed, (PUBLISHED_PIXEL, PUBLISHED_PIXEL))
    slope[(slope > 0) & (slope < PUBLISHED_LEAST)] = PUBLISHED_LEAST
    return slope


def find_cells(imagery: Imagery, place: Place) -> list[Scene]:
    """The cells of the elevation model that a tile lies in.

    Raises:
        NoScenesError: there is none.
    """
    found = imagery.search(around_the_world(place.extent), None, None)
    cells = [cell for cell in found if coverage([cell], place.extent) > 0]
    if not cells:
        raise NoScenesError(
            f"{imagery.place} has no elevation of tile {place.tile}: the model covers land only; "
            "choose another tile"
        )
    return cells


def make_elevation(
    imagery: Imagery, place: Place, cells: Sequence[Scene], *, published: bool = False
) -> Elevation:
    """Height and slope of a tile from the cells that it lies in.

    Sea has no cells in the model; its height is 0. With ``published`` the slope is that of
    :func:`published_slope`, stretched over the tile's grid as the published tiles do.

    Raises:
        NoScenesError: the cells have no data in the tile.
    """
    geobox = place.geobox
    wide = _mosaic(imagery, cells, geobox.pad(1))
    if np.isnan(wide).all():
        raise NoScenesError(f"the elevation of tile {place.tile} is empty at {imagery.place}")
    wide = np.nan_to_num(wide, nan=0.0)
    height = np.ascontiguousarray(wide[1:-1, 1:-1])
    if not published:
        pixel = (abs(geobox.affine.e), abs(geobox.affine.a))
        return Elevation(height, slope_degrees(wide, pixel), geobox)
    own = np.nan_to_num(_mosaic(imagery, cells, _degree_grid(place)), nan=0.0)
    stretched: NDArray[Any] = cv2.resize(
        published_slope(own), (geobox.shape.x, geobox.shape.y), interpolation=cv2.INTER_LINEAR
    )
    return Elevation(height, stretched, geobox)


def _mosaic(imagery: Imagery, cells: Sequence[Scene], geobox: GeoBox) -> NDArray[np.float32]:
    """Cells on one grid; the first with data counts."""
    mosaic = np.full(geobox.shape, np.nan, np.float32)
    readings = [Reading(cell, ASSETS, geobox, "float32", "bilinear") for cell in cells]
    for heights in imagery.read(readings):
        np.copyto(mosaic, heights, where=np.isnan(mosaic))
    return mosaic


def _degree_grid(place: Place) -> GeoBox:
    """The tile's box on a grid of one arc second."""
    west, south, east, north = place.area.bounds
    shape = round((north - south) / _ARC_SECOND), round((east - west) / _ARC_SECOND)
    return GeoBox(shape, Affine(_ARC_SECOND, 0, west, 0, -_ARC_SECOND, north), "EPSG:4326")
