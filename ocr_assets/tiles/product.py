"""The published file of a tile's tree cover: where its pixels lie, and how it is written.

Belongs here: the pixel grid in degrees, the warp to it, the Cloud-Optimized GeoTIFF with its
colours, its catalogue item, and a preview. Does not belong here: tree cover itself, and where
files are stored.

All tiles share one lattice of 1/11124 degree, 618 pixels in a tile of 1/18 degree. Centres of the
grid are rounded, so a tile that would leave a gap of one pixel to its eastern or northern
neighbour, or overlap it by one, is 617 or 619 pixels on that side: neighbours abut exactly, and a
mosaic is made without resampling.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyproj
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.tree_cover import NODATA

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

SIDE = 618
"""Pixels on a side of most tiles."""

PIXELS_PER_DEGREE = 18 * SIDE
"""Of the lattice that all published tiles share; a pixel is about 10 m high."""

CRS = "EPSG:4326"
BLOCK = 256

FILES: Mapping[str, str] = {"cog": "{tag}_FINAL.tif", "item": "{tag}_FINAL.json"}
"""Names of the files of a published tile."""

_LARGEST_GAP = 2

_STOPS = (
    (0, (240, 247, 240)), (10, (240, 247, 240)), (20, (225, 241, 224)), (30, (209, 235, 207)),
    (40, (177, 219, 176)), (50, (144, 202, 145)), (60, (116, 182, 122)), (70, (87, 161, 98)),
    (80, (35, 127, 64)), (90, (18, 116, 52)), (100, (18, 116, 52)),
)  # fmt: skip


@dataclass(frozen=True)
class PixelBox:
    """Pixels of the lattice: edges counted in pixels from 0° E, 0° N, to the east and north."""

    west: int
    south: int
    east: int
    north: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.north - self.south, self.east - self.west

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        west, south, east, north = (
            edge / PIXELS_PER_DEGREE for edge in (self.west, self.south, self.east, self.north)
        )
        return west, south, east, north

    @property
    def transform(self) -> Affine:
        """From column and row, row 0 in the north, to longitude and latitude."""
        pixel = 1 / PIXELS_PER_DEGREE
        return Affine(pixel, 0, self.west * pixel, 0, -pixel, self.north * pixel)


def published_folder(year: int, tile: Tile) -> str:
    """Key of the folder of a published tile."""
    return f"{year}/tiles/{tile.x}/{tile.y}"


def pixel_box(grid: TileGrid, tile: Tile) -> PixelBox:
    """The pixels of a published tile; those of neighbours in the grid abut.

    Raises:
        UnknownTileError: ``tile`` is not in the grid.
    """
    west, south, _, _ = grid.bbox(tile)
    left, bottom = _lattice(west), _lattice(south)
    right = _abutting(grid, Tile(tile.x + 1, tile.y), 0, left + SIDE)
    top = _abutting(grid, Tile(tile.x, tile.y + 1), 1, bottom + SIDE)
    return PixelBox(left, bottom, right, top)


def warp_to_box(cover: NDArray[np.uint8], geobox: GeoBox, box: PixelBox) -> NDArray[np.uint8]:
    """Bring tree cover from a projected pixel grid to the lattice.

    Each pixel takes the value of the projected pixel that its middle lies in, so that no values
    appear that were not predicted. Outside, :data:`NODATA`; but a pixel that misses the edge by
    less than a pixel takes the value there, because grids of neighbours round differently.

    Args:
        cover: percent, uint8 ``[h, w]``, the shape of ``geobox``.
        geobox: where ``cover`` lies.
        box: where the result lies.
    """
    if cover.shape != tuple(geobox.shape):
        raise ValueError(f"tree cover of {cover.shape} does not fit a grid of {geobox.shape}")
    rows, columns = box.shape
    transform = box.transform
    longitude = transform.c + (np.arange(columns) + 0.5) * transform.a
    latitude = transform.f + (np.arange(rows) + 0.5) * transform.e
    project = pyproj.Transformer.from_crs(CRS, str(geobox.crs), always_xy=True)
    x, y = project.transform(*np.meshgrid(longitude, latitude))
    to_pixel = ~geobox.transform
    column = to_pixel.a * x + to_pixel.b * y + to_pixel.c
    row = to_pixel.d * x + to_pixel.e * y + to_pixel.f
    height, width = cover.shape
    near = (column > -1) & (column < width + 1) & (row > -1) & (row < height + 1)
    nearest = (
        np.clip(np.floor(row), 0, height - 1).astype(np.intp),
        np.clip(np.floor(column), 0, width - 1).astype(np.intp),
    )
    return np.where(near, cover[nearest], np.uint8(NODATA))


def colour_table() -> dict[int, tuple[int, int, int, int]]:
    """Red, green, blue, alpha of each value: pale to dark green, no data transparent."""
    values, colours = zip(*_STOPS, strict=True)
    channels = [np.interp(range(101), values, channel) for channel in zip(*colours, strict=True)]
    table = dict.fromkeys(range(NODATA + 1), (0, 0, 0, 0))
    for value in range(101):
        red, green, blue = (int(np.rint(channel[value])) for channel in channels)
        table[value] = red, green, blue, 255
    return table


def write_tree_cover_cog(
    path: Path, cover: NDArray[np.uint8], box: PixelBox, lineage: Mapping[str, Any]
) -> None:
    """Write a Cloud-Optimized GeoTIFF that appears only when it is complete.

    Blocks of 256 pixels, deflate, overviews of the mean, a colour table, no data
    :data:`NODATA`. The same values and lineage give the same bytes.

    Args:
        path: file to write; its folder is made.
        cover: percent, uint8, the shape of ``box``.
        box: where it lies.
        lineage: JSON-ready description of how it came to be, kept in the tag ``LINEAGE``.
    """
    if cover.shape != box.shape:
        raise ValueError(f"tree cover of {cover.shape} does not fit pixels of {box.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        plain = Path(folder) / "plain.tif"
        profile = {**plain_profile(box), "width": box.shape[1], "height": box.shape[0]}
        with rasterio.open(plain, "w", **profile) as file:
            file.write(cover, 1)
        finish_cog(plain, path, lineage)


def plain_profile(box: PixelBox) -> dict[str, Any]:
    """Options of a GeoTIFF that :func:`finish_cog` takes."""
    return {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "crs": CRS,
        "transform": box.transform,
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "width": box.shape[1],
        "height": box.shape[0],
    }


def finish_cog(plain: Path, path: Path, lineage: Mapping[str, Any]) -> None:
    """Make a tiled GeoTIFF in a scratch folder the Cloud-Optimized GeoTIFF ``path``.

    Memory does not grow with the size of the raster. ``plain`` is changed.
    """
    done = plain.with_name("done.tif")
    with rasterio.open(plain, "r+") as file:
        levels = overview_levels(*file.shape)
        # Before there is a colour table: means of colours would not be means of percents.
        file.build_overviews(levels, Resampling.average)
    with rasterio.open(plain, "r+") as file:
        file.write_colormap(1, colour_table())
        file.update_tags(LINEAGE=json.dumps(lineage, sort_keys=True, separators=(",", ":")))
        file.set_band_description(1, "tree cover, percent")
    rasterio.shutil.copy(
        plain,
        done,
        driver="COG",
        compress="deflate",
        blocksize=BLOCK,
        bigtiff="if_safer",
        overviews="force_use_existing" if levels else "none",
    )
    os.replace(done, path)


def overview_levels(rows: int, columns: int) -> list[int]:
    """Factors of the overviews, down to one that fits a block."""
    levels: list[int] = []
    factor = 2
    while max(rows, columns) > BLOCK * factor // 2:
        levels.append(factor)
        factor *= 2
    return levels


def tree_cover_preview(cover: NDArray[np.uint8], max_side: int = 320) -> bytes:
    """PNG of tree cover, at most ``max_side`` pixels on its longer side, no data transparent.

    Args:
        cover: percent, uint8 ``[h, w]``. A larger tile is reduced to means, without no data.

    Raises:
        ValueError: there are no pixels.
    """
    if cover.ndim != 2 or cover.size == 0:
        raise ValueError(f"a preview needs rows and columns of pixels, found {cover.shape}")
    scale = max(1.0, max(cover.shape) / max_side)
    size = [max(1, round(side / scale)) for side in reversed(cover.shape)]
    known = (cover != NODATA).astype(np.float32)
    weight = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(known * cover, size, interpolation=cv2.INTER_AREA)
    mean = np.full(weight.shape, NODATA, np.uint8)
    np.divide(total, weight, out=total, where=weight > 0)
    mean[weight > 0] = np.rint(total[weight > 0]).astype(np.uint8)
    table = np.array(list(colour_table().values()), np.uint8)
    image = Image.fromarray(mean)
    image.putpalette(table[:, :3].tobytes())
    file = BytesIO()
    image.save(file, "PNG", transparency=NODATA)
    return file.getvalue()


def tree_cover_item(
    tile: Tile, year: int, box: PixelBox, asset: str, model: Mapping[str, Any], code_version: str
) -> dict[str, Any]:
    """STAC 1.1.0 item of a published tile.

    Property names with the prefix ``gri:`` are those of existing catalogues of this product.

    Args:
        tile: the tile.
        year: of the imagery.
        box: where its pixels lie.
        asset: name of the GeoTIFF, relative to the item.
        model: ``name``, ``sha256``, ``input_size``, ``output_size`` of the tree-cover network.
        code_version: of the code that made it.
    """
    west, south, east, north = box.bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": f"{tile.key}_{year}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": None,
            "start_datetime": f"{year}-01-01T00:00:00Z",
            "end_datetime": f"{year}-12-31T23:59:59Z",
            "proj:code": CRS,
            "proj:shape": list(box.shape),
            "proj:transform": list(box.transform)[:6],
            "gri:tile_id": tile.key,
            "gri:x_tile": tile.x,
            "gri:y_tile": tile.y,
            "gri:year": year,
            "gri:pipeline_version": code_version,
            **{f"gri:model_{name}": value for name, value in sorted(model.items())},
        },
        "links": [],
        "assets": {
            "data": {
                "href": f"./{asset}",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "title": "Tree cover, percent",
                "roles": ["data"],
                "bands": [
                    {"name": "tree_cover", "data_type": "uint8", "nodata": NODATA, "unit": "%"}
                ],
            }
        },
    }


def _abutting(grid: TileGrid, neighbour: Tile, edge: int, own: int) -> int:
    """Edge of a neighbour, if there is one that begins about where the tile itself would end."""
    if neighbour not in grid:
        return own
    found = _lattice(grid.bbox(neighbour)[edge])
    return found if abs(found - own) <= _LARGEST_GAP else own


def _lattice(degrees: float) -> int:
    return round(degrees * PIXELS_PER_DEGREE)
