"""Many published tiles as one raster: a virtual one, or one Cloud-Optimized GeoTIFF.

Belongs here: laying tiles side by side. Does not belong here: finding out which tiles there are,
and storing the result.

Memory does not grow with the number of tiles: GDAL reads blocks as it needs them. Where tiles
overlap, which those of one maker do not, the one that is last in order shows.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.coords import BoundingBox

from ocr_assets.tiles.product import (
    BLOCK,
    CRS,
    PIXELS_PER_DEGREE,
    PixelBox,
    colour_table,
    finish_cog,
    plain_profile,
)
from ocr_assets.tiles.tree_cover import NODATA

# Bytes that GDAL keeps of what it has read; its own default is a share of the machine's memory.
_CACHE = 128 * 1024 * 1024

# Pixels. Edges that lie this near the lattice are on it.
_ON_LATTICE = 1e-3


class MosaicError(ValueError):
    """A file that cannot be part of a mosaic, or nothing to make one of."""


@dataclass(frozen=True)
class _Source:
    name: str
    bounds: BoundingBox
    rows: int
    columns: int


def write_mosaic_vrt(sources: Sequence[str | Path], path: Path) -> PixelBox:
    """Write a virtual raster that shows the tiles side by side.

    Args:
        sources: what GDAL opens: files, or `/vsis3/…`. Local ones are named relative to ``path``.
        path: file to write; its folder is made.

    Returns:
        Where the mosaic lies.

    Raises:
        MosaicError: there are no sources, or one is unreadable or no tree-cover tile.
    """
    described, box = _described(sources)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(_vrt(described, box, path.parent, coloured=True))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return box


def write_mosaic_cog(
    sources: Sequence[str | Path], path: Path, lineage: Mapping[str, Any]
) -> PixelBox:
    """Write one Cloud-Optimized GeoTIFF of all tiles, that appears only when it is complete.

    The same tiles and lineage give the same bytes, whatever the order of ``sources``. Beside
    ``path`` there must be room for the result twice.

    Args:
        sources, path: see :func:`write_mosaic_vrt`.
        lineage: JSON-ready description of how it came to be, kept in the tag ``LINEAGE``.

    Returns:
        Where the mosaic lies.

    Raises:
        MosaicError: see :func:`write_mosaic_vrt`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
    ):
        described, box = _described([_absolute(source) for source in sources])
        virtual, plain = Path(folder) / "all.vrt", Path(folder) / "plain.tif"
        # Colours come last: overviews of a coloured raster would be means of colours.
        virtual.write_bytes(_vrt(described, box, Path(folder), coloured=False))
        options = plain_profile(box)
        creation = {name: options[name] for name in ("compress", "bigtiff")}
        try:
            rasterio.shutil.copy(
                virtual, plain, driver="GTiff",
                tiled=True, blockxsize=BLOCK, blockysize=BLOCK, **creation,
            )  # fmt: skip
        except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
            raise MosaicError(
                f"a tile of the mosaic cannot be read ({error}); make the tile again"
            ) from error
        finish_cog(plain, path, lineage)
    return box


def _described(sources: Sequence[str | Path]) -> tuple[list[_Source], PixelBox]:
    described = [_describe(source) for source in sorted(map(str, sources))]
    if not described:
        raise MosaicError("there are no tiles to make a mosaic of; check the year and the tiles")
    return described, _union(described)


def _absolute(source: str | Path) -> str:
    return str(source) if str(source).startswith("/vsi") else str(Path(source).absolute())


def _describe(source: str) -> _Source:
    try:
        with rasterio.open(source) as file:
            problems = [
                (file.count != 1 or file.dtypes[0] != "uint8", "it is not one band of uint8"),
                (file.crs != CRS, f"it is not in {CRS}"),
                (file.nodata != NODATA, f"its no-data value is not {NODATA}"),
                (bool(file.transform.b or file.transform.d), "it is rotated"),
            ]
            for found, problem in problems:
                if found:
                    raise MosaicError(f"{source} is no tree-cover tile: {problem}; leave it out")
            return _Source(source, file.bounds, *file.shape)
    except rasterio.errors.RasterioError as error:
        raise MosaicError(f"{source} cannot be read ({error}); make the tile again") from error


def _union(sources: Sequence[_Source]) -> PixelBox:
    """The least box of the lattice that holds all sources."""
    edges = list(zip(*(source.bounds for source in sources), strict=True))
    west, south = (
        math.floor(min(edge) * PIXELS_PER_DEGREE + _ON_LATTICE) for edge in edges[:2]
    )  # fmt: skip
    east, north = (math.ceil(max(edge) * PIXELS_PER_DEGREE - _ON_LATTICE) for edge in edges[2:])
    return PixelBox(west, south, east, north)


def _vrt(sources: Sequence[_Source], box: PixelBox, folder: Path, *, coloured: bool) -> bytes:
    rows, columns = box.shape
    root = ElementTree.Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
    ElementTree.SubElement(root, "SRS", dataAxisToSRSAxisMapping="2,1").text = CRS
    transform = ElementTree.SubElement(root, "GeoTransform")
    transform.text = ", ".join(repr(float(value)) for value in box.transform.to_gdal())
    band = ElementTree.SubElement(
        root, "VRTRasterBand", dataType="Byte", band="1",
        blockXSize=str(BLOCK), blockYSize=str(BLOCK),
    )  # fmt: skip
    ElementTree.SubElement(band, "NoDataValue").text = str(NODATA)
    if coloured:
        ElementTree.SubElement(band, "ColorInterp").text = "Palette"
        colours = ElementTree.SubElement(band, "ColorTable")
        for colour in colour_table().values():
            numbers = {f"c{index}": str(value) for index, value in enumerate(colour, 1)}
            ElementTree.SubElement(colours, "Entry", numbers)
    for source in sources:
        _add_source(band, source, box, folder)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _add_source(band: ElementTree.Element, source: _Source, box: PixelBox, folder: Path) -> None:
    element = ElementTree.SubElement(band, "ComplexSource", resampling="nearest")
    remote = source.name.startswith("/vsi")
    name = source.name if remote else os.path.relpath(source.name, folder)
    ElementTree.SubElement(
        element, "SourceFilename", relativeToVRT=str(int(not remote))
    ).text = name
    ElementTree.SubElement(element, "SourceBand").text = "1"
    # With its size and type known, GDAL opens a source only when its pixels are asked for.
    ElementTree.SubElement(
        element, "SourceProperties", DataType="Byte",
        RasterXSize=str(source.columns), RasterYSize=str(source.rows),
        BlockXSize=str(BLOCK), BlockYSize=str(BLOCK),
    )  # fmt: skip
    part = {"xOff": 0, "yOff": 0, "xSize": source.columns, "ySize": source.rows}
    west, south, east, north = (edge * PIXELS_PER_DEGREE for edge in source.bounds)
    place = {
        "xOff": west - box.west,
        "yOff": box.north - north,
        "xSize": east - west,
        "ySize": north - south,
    }
    ElementTree.SubElement(element, "SrcRect", {k: str(v) for k, v in part.items()})
    ElementTree.SubElement(element, "DstRect", {k: _pixels(v) for k, v in place.items()})
    ElementTree.SubElement(element, "NODATA").text = str(NODATA)


def _pixels(value: float) -> str:
    whole = round(value)
    return str(whole) if abs(value - whole) < _ON_LATTICE else repr(value)
