"""GeoTIFF files as lazy xarray datasets.

Belongs here: opening a raster file, and reading just the window that is asked for.
Does not belong here: any other format, and what the raster means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from rasterio.windows import Window
from xarray.backends import BackendArray
from xarray.core import indexing


def open_geotiff(path: str, environment: Mapping[str, Any] | None = None) -> xr.Dataset:
    """The bands of a GeoTIFF as variables, read window by window when their values are used.

    ``path`` is what GDAL opens (a file, or ``/vsis3/bucket/key``), under the GDAL options of
    ``environment``. A band is named by its description, or else ``band_1``, ``band_2``, ...; its
    no-data value reads as NaN (integers become float32). Dimensions are ``latitude`` and
    ``longitude`` in a geographic coordinate system, ``y`` and ``x`` in any other. The system is
    ``crs_wkt`` in the attributes of the ``spatial_ref`` coordinate, if the file declares one.

    Raises OSError for a file that cannot be read and ValueError for a rotated raster.
    """
    options = dict(environment or {})
    try:
        with rasterio.Env(**options), rasterio.open(path) as source:
            transform, crs = source.transform, source.crs
            shape = source.shape
            bands = list(zip(source.descriptions, source.dtypes, source.nodatavals, strict=True))
    except rasterio.errors.RasterioIOError as error:
        raise OSError(f"cannot read the GeoTIFF {path}: {error}") from error
    if transform.b or transform.d:
        raise ValueError(f"{path} is rotated; resample it to a north-up raster")
    geographic = crs is not None and crs.is_geographic
    y, x = ("latitude", "longitude") if geographic else ("y", "x")
    variables = {}
    for index, (description, dtype, nodata) in enumerate(bands, start=1):
        lazy = _Band(path, options, index, shape, dtype, nodata)
        variables[description or f"band_{index}"] = xr.Variable(
            (y, x), indexing.LazilyIndexedArray(lazy)
        )
    dataset = xr.Dataset(
        variables,
        {
            y: transform.f + (np.arange(shape[0]) + 0.5) * transform.e,
            x: transform.c + (np.arange(shape[1]) + 0.5) * transform.a,
        },
    )
    if crs is not None:
        dataset = dataset.assign_coords(spatial_ref=((), 0, {"crs_wkt": crs.to_wkt()}))
    return dataset


class _Band(BackendArray):
    """One band of a file, opened anew for each read so that it survives pickling."""

    def __init__(
        self,
        path: str,
        environment: Mapping[str, Any],
        band: int,
        shape: tuple[int, int],
        dtype: str,
        nodata: float | None,
    ) -> None:
        self.path, self.environment, self.band = path, environment, band
        self.shape, self.nodata = shape, nodata
        integer = np.issubdtype(np.dtype(dtype), np.integer)
        self.dtype = np.dtype(np.float32 if integer and nodata is not None else dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        # Slices that arrive here never run backwards: xarray turns the values around itself.
        rows, cols = (
            range(size)[part if isinstance(part, slice) else slice(part, part + 1)]
            for part, size in zip(key, self.shape, strict=True)
        )
        if rows and cols:
            window = Window.from_slices((rows[0], rows[-1] + 1), (cols[0], cols[-1] + 1))
            with rasterio.Env(**self.environment), rasterio.open(self.path) as source:
                values = source.read(self.band, window=window).astype(self.dtype, copy=False)
            if self.nodata is not None and not np.isnan(self.nodata):
                values[values == values.dtype.type(self.nodata)] = np.nan
            values = values[:: rows.step, :: cols.step]
        else:
            values = np.empty((len(rows), len(cols)), self.dtype)
        return values[tuple(slice(None) if isinstance(part, slice) else 0 for part in key)]
