"""One raster file on one grid.

Belongs here: reading only the window and the resolution that a grid needs. Does not belong here:
networks, tries and credentials, and what a raster means.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from rasterio.enums import Resampling as Method
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

Resampling = Literal["nearest", "bilinear"]
DType = Literal["uint8", "uint16", "float32"]

_SHIFT = {"nearest": 0.9, "bilinear": 0.05}
"""Share of a pixel by which grids may be shifted and still count as the same.

Resampled to the nearest, they give the same values whatever the shift is.
"""


_TOLERANCE = 0.001
"""Pixels by which positions may be off; the usual 0.125 would show between neighbours."""


class RasterTypeError(ValueError):
    """A raster of numbers that the wanted type cannot hold."""


def read_raster(address: str, geobox: GeoBox, dtype: DType, resampling: Resampling) -> NDArray[Any]:
    """Read band 1 of a GeoTIFF onto a grid.

    Only the window is read, from the overview that is just finer than the grid. Where pixels of
    file and grid coincide they are copied, otherwise resampled. What the file says is no data, or
    lies outside of it, is 0 in integers and NaN in floats.

    Args:
        address: what GDAL opens.
        geobox: the grid.
        dtype: of the result; integers have to fit in it.
        resampling: how pixels that do not coincide are made.

    Raises:
        rasterio.errors.RasterioError: the file cannot be read.
        RasterTypeError: its numbers do not fit.
    """
    with rasterio.open(address, driver="GTiff", sharing=False) as source:
        if source.crs is None:
            raise rasterio.errors.RasterioIOError("it has no coordinate system")
        if not np.can_cast(source.dtypes[0], dtype, "same_kind" if dtype == "float32" else "safe"):
            raise RasterTypeError(f"holds {source.dtypes[0]}, expected {dtype}")
        overlap = compute_reproject_roi(GeoBox.from_rio(source), geobox, ttol=_SHIFT[resampling])
        level = _overview(source.overviews(1), overlap.read_shrink)
        if level is None:
            if overlap.paste_ok and overlap.read_shrink == 1:
                return _copied(source, overlap.roi_src, overlap.roi_dst, geobox, dtype)
            return _resampled(source, geobox, dtype, resampling)
    with rasterio.open(address, driver="GTiff", sharing=False, overview_level=level) as source:
        return _resampled(source, geobox, dtype, resampling)


def _overview(factors: list[int], shrink: float) -> int | None:
    """Index of the coarsest overview that is not coarser than wanted."""
    fitting = [index for index, factor in enumerate(factors) if factor <= shrink]
    return fitting[-1] if fitting else None


def _fill(dtype: DType) -> float:
    return np.nan if dtype == "float32" else 0


def _copied(source: Any, window: Any, target: Any, geobox: GeoBox, dtype: DType) -> NDArray[Any]:
    values = np.full(geobox.shape, _fill(dtype), dtype)
    found = source.read(1, window=Window.from_slices(*window))
    with_data = np.ones(found.shape, bool)
    if source.nodata is not None:
        with_data = ~np.isnan(found) if np.isnan(source.nodata) else found != source.nodata
    np.copyto(values[target], found, where=with_data, casting="same_kind")
    return values


def _resampled(source: Any, geobox: GeoBox, dtype: DType, resampling: Resampling) -> NDArray[Any]:
    rows, cols = geobox.shape
    with WarpedVRT(
        source,
        crs=str(geobox.crs),
        transform=geobox.affine,
        height=rows,
        width=cols,
        dtype=dtype,
        src_nodata=_fill(dtype) if source.nodata is None else source.nodata,
        nodata=_fill(dtype),
        resampling=Method[resampling],
        tolerance=_TOLERANCE,
    ) as warped:
        return warped.read(1)  # type: ignore[no-any-return]
