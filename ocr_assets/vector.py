"""Reading features of any vector file as columns and geometries in longitude and latitude.

Belongs here: GeoParquet and every format that GDAL knows (Shapefile, GeoJSON, TopoJSON,
GeoPackage), their coordinate reference systems, and reading only what lies in a box.
Does not belong here: what the features are, and writing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import GeoParquetError, geometry_column

LONGITUDE_LATITUDE = pyproj.CRS.from_user_input("OGC:CRS84")

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

_COVERING_ERROR = 1e-5
"""Degrees. Published coverings are often float32, which holds a longitude to 0.8e-5 degrees."""

_PARQUET_SUFFIXES = {".parquet", ".geoparquet", ".pq"}

# These formats are longitude and latitude by their definition and often say nothing.
_GEOGRAPHIC_DRIVERS = {"GeoJSON", "GeoJSONSeq", "TopoJSON", "KML"}


class VectorFileError(ValueError):
    """A vector file that cannot be read, lacks something, or is in the wrong place on Earth."""


class CRSError(VectorFileError):
    """A vector file whose coordinate reference system is unknown or not usable as it is."""


class MissingColumnError(VectorFileError):
    """A vector file without a column that its use needs."""


@dataclass(frozen=True)
class Features:
    """Features in file order.

    ``table`` holds the columns that were asked for and found, ``geometry`` the shapely geometries
    in degrees (longitude, latitude), two-dimensional, None where the file has none, shape ``(n,)``.
    """

    table: pa.Table
    geometry: NDArray[np.object_]


def read_features(
    source: str | Path,
    columns: Collection[str],
    *,
    bounds: Bounds | None = None,
    layer: str | None = None,
    filesystem: pyarrow.fs.FileSystem | None = None,
    where: ds.Expression | None = None,
) -> Features:
    """Read the features whose bounding box touches ``bounds``, and those without a geometry.

    Args:
        source: a GeoParquet file, a folder of them, or any vector file GDAL reads. GeoParquet with
            a bounding-box covering is read only in the row groups that can touch ``bounds``; other
            files are read whole.
        columns: names to read; those the file lacks are left out.
        layer: layer of a file that has several.
        filesystem: where ``source`` is, if not on the local disk (GeoParquet only).
        where: further condition on the columns of the file (GeoParquet only).

    Raises:
        CRSError: the coordinate reference system is not declared; or a GeoParquet file is not in
            longitude and latitude (other formats are reprojected).
        VectorFileError: the file is missing, truncated or of no known format, or its coordinates
            are not degrees.
    """
    if filesystem is not None or is_parquet(source):
        features, _ = _read_parquet(str(source), columns, bounds, filesystem, where=where)
    else:
        features, crs = _read_gdal(str(source), columns, layer)
        features = Features(features.table, to_longitude_latitude(features.geometry, crs))
    edges = shapely.bounds(features.geometry).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        far = (np.abs(edges[:, ::2]) > 180.0).any(axis=1) | (np.abs(edges[:, 1::2]) > 90.0).any(
            axis=1
        )
    if far.any():
        row = int(np.flatnonzero(far)[0])
        raise CRSError(
            f"{source} is said to be in longitude and latitude, but feature {row} spans "
            f"{edges[row].tolist()}: declare its coordinate reference system, or reproject it"
        )
    if bounds is None:
        return features
    west, south, east, north = bounds
    outside = (
        (edges[:, 0] > east) | (edges[:, 2] < west) | (edges[:, 1] > north) | (edges[:, 3] < south)
    )
    if not outside.any():
        return features
    return Features(features.table.filter(pa.array(~outside)), features.geometry[~outside])


def read_declared(
    source: str | Path, columns: Collection[str], *, layer: str | None = None
) -> tuple[Features, pyproj.CRS]:
    """Read all features in the coordinates of the file, and the system these are in.

    Rings that do not end where they start are closed; a geometry that is malformed is None.

    Args:
        source, columns, layer: see :func:`read_features`.

    Raises:
        CRSError: the coordinate reference system is not declared.
        VectorFileError: the file is missing, truncated or of no known format.
    """
    if is_parquet(source):
        return _read_parquet(str(source), columns, None, None, declared=True)
    return _read_gdal(str(source), columns, layer, declared=True)


def to_longitude_latitude(geometry: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.object_]:
    """The geometries in degrees, longitude first; vertices that cannot be are infinite."""
    if crs.equals(LONGITUDE_LATITUDE, ignore_axis_order=True):
        return geometry
    to_degrees = pyproj.Transformer.from_crs(crs, LONGITUDE_LATITUDE, always_xy=True)
    return shapely.transform(
        geometry, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1]))
    )


def require_columns(features: Features, source: str | Path, *choices: Collection[str]) -> None:
    """Raise :class:`MissingColumnError` unless one name of each of ``choices`` was found."""
    for names in choices:
        if not set(names) & set(features.table.column_names):
            raise MissingColumnError(
                f"{source} has no column {' or '.join(repr(name) for name in names)}"
            )


def is_parquet(source: str | Path) -> bool:
    """Whether a local file, or a folder of files, is read as GeoParquet."""
    path = Path(source)
    return path.suffix.lower() in _PARQUET_SUFFIXES or (
        path.is_dir() and any(path.rglob("*.parquet"))
    )


def _read_parquet(
    source: str,
    columns: Collection[str],
    bounds: Bounds | None,
    filesystem: pyarrow.fs.FileSystem | None,
    *,
    declared: bool = False,
    where: ds.Expression | None = None,
) -> tuple[Features, pyproj.CRS]:
    try:
        dataset = ds.dataset(source, format="parquet", filesystem=filesystem)
        name, description = geometry_column(dataset.schema.metadata, source)
        crs = _parquet_crs(description.get("crs", LONGITUDE_LATITUDE), source)
        if not declared:
            _require_longitude_latitude(crs, source)
        wanted = [c for c in dataset.schema.names if c in columns and c != name]
        rows = _covering_filter(dataset, description, bounds)
        if where is not None:
            rows = where if rows is None else rows & where
        table = dataset.to_table(columns=[*wanted, name], filter=rows)
    except GeoParquetError as error:
        raise VectorFileError(str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise VectorFileError(f"cannot read {source} as GeoParquet: {error}") from error
    geometry = _geometry(table[name], source, mend=declared)
    return Features(table.select(wanted), geometry), crs


def _covering_filter(
    dataset: ds.Dataset, description: dict[str, Any], bounds: Bounds | None
) -> ds.Expression | None:
    """Rows that can touch ``bounds`` by the file's bounding-box column, or that have no box."""
    if bounds is None:
        return None
    covering = description.get("covering", {}).get("bbox")
    if covering is None and "bbox" in dataset.schema.names:
        covering = {edge: ["bbox", edge] for edge in ("xmin", "ymin", "xmax", "ymax")}
    if covering is None:
        return None
    west, south, east, north = bounds
    edge = {name: ds.field(*path) for name, path in covering.items()}
    overlap = (
        (edge["xmin"] <= east + _COVERING_ERROR)
        & (edge["xmax"] >= west - _COVERING_ERROR)
        & (edge["ymin"] <= north + _COVERING_ERROR)
        & (edge["ymax"] >= south - _COVERING_ERROR)
    )
    return overlap | edge["xmin"].is_null(nan_is_null=True)


def _parquet_crs(crs: Any, source: str) -> pyproj.CRS:
    if crs is None:
        raise CRSError(f"{source} says that its coordinate reference system is unknown")
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise CRSError(f"{source} has a coordinate reference system that is not one") from error


def _require_longitude_latitude(found: pyproj.CRS, source: str) -> None:
    if not found.equals(LONGITUDE_LATITUDE, ignore_axis_order=True):
        raise CRSError(
            f"{source} is in {found.name}; buildings and geographies are read in longitude and "
            f"latitude: reproject it to EPSG:4326"
        )


def _read_gdal(
    source: str, columns: Collection[str], layer: str | None, *, declared: bool = False
) -> tuple[Features, pyproj.CRS]:
    # The whole layer: a spatial filter of GDAL would hide the features without a geometry.
    try:
        info = pyogrio.read_info(source, layer=layer)
        meta, table = pyogrio.read_arrow(
            source,
            layer=layer,
            columns=[name for name in info["fields"] if name in columns],
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError) as error:
        raise VectorFileError(f"cannot read {source}: {error}") from error
    name = meta["geometry_name"] or "wkb_geometry"
    geometry = _geometry(table[name], source, mend=declared)
    return Features(table.drop_columns([name]), geometry), _declared_crs(info, source)


def _declared_crs(info: dict[str, Any], source: str) -> pyproj.CRS:
    if info["crs"] is not None:
        return pyproj.CRS.from_user_input(info["crs"])
    if info["driver"] in _GEOGRAPHIC_DRIVERS:
        return LONGITUDE_LATITUDE
    raise CRSError(
        f"{source} does not declare its coordinate reference system (a Shapefile does so in its "
        f".prj file): add it, for example EPSG:4326"
    )


def _geometry(wkb: pa.ChunkedArray, source: str, *, mend: bool) -> NDArray[np.object_]:
    if isinstance(wkb.type, pa.ExtensionType):
        wkb = pc.cast(wkb, wkb.type.storage_type)
    try:
        geometry = shapely.from_wkb(wkb.to_numpy(), on_invalid="fix" if mend else "raise")
    except shapely.errors.ShapelyError as error:
        raise VectorFileError(f"{source} holds a geometry that is not WKB: {error}") from error
    return shapely.force_2d(geometry)
