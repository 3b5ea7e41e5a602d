"""Polygons of a request: read from any vector file, and made fit to be compared with the grid.

Belongs here: reprojecting, repairing and cutting polygons, and telling which are of no use.
Does not belong here: years and tiles of the request (``requests.py``).
"""

from __future__ import annotations

import warnings
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from shapely import affinity

from ocr_assets.tiles.request_problems import ProblemKind, ProblemLog, RequestError, shown
from ocr_assets.vector import read_declared, to_longitude_latitude

LARGEST_POLYGON_FILE = 2 * 1024**3
"""Bytes of a polygon file that is still read."""

MOST_VERTICES = 50_000_000
"""Vertices of all polygons of a request, those added for reprojection among them."""

PROJECT = "project_id"
"""Column that tells which project a polygon belongs to."""

PLANTSTART = ("plantstart_year", "plantstart")
"""Columns with the year or date in which planting began, the preferred one first."""

_NAMES = ("poly_id", "uuid", "id", "name")

# Metres. An edge this long that is straight on a map departs from one that is straight in degrees
# by two metres at most; longer ones get vertices in between before they are reprojected.
_STRAIGHT = 10_000.0

# Degrees. An area with an edge of more than half a turn either spans that much or crosses the
# antimeridian. It is taken to cross if it is then no wider than this.
_WIDEST_CROSSING = 90.0

_WORLD = shapely.box(-180, -90, 180, 90)


@dataclass(frozen=True)
class Areas:
    """Polygons of a request in file order.

    Attributes:
        table: columns of the file that requests use, those that it has.
        geometry: valid areas in EPSG:4326, within 180 degrees east and west; None for a feature
            without a usable one. Shape ``(n,)``.
        names: how messages call the features, safe to print.
    """

    table: pa.Table
    geometry: NDArray[np.object_]
    names: list[str]

    def take(self, rows: NDArray[np.intp]) -> Areas:
        """The features at ``rows``."""
        names = [self.names[row] for row in rows]
        return Areas(self.table.take(pa.array(rows)), self.geometry[rows], names)


def read_areas(
    path: Path, log: ProblemLog, *, layer: str | None = None, projects: Set[str] | None = None
) -> Areas:
    """Read the polygons of a file and mend what can be; what cannot goes to ``log``.

    Args:
        layer: layer of a file that has several.
        projects: read only what belongs to one of these.

    Raises:
        RequestError: the file is too large or holds nothing, has several layers and none was
            chosen, or does not tell the projects of its polygons.
        ocr_assets.vector.VectorFileError: it cannot be read, or its coordinate reference system is
            unknown.
    """
    if path.stat().st_size > LARGEST_POLYGON_FILE:
        raise RequestError(f"{path} is larger than {LARGEST_POLYGON_FILE} bytes: cut it up")
    with warnings.catch_warnings():
        # What GDAL warns of, every feature that has it is told with.
        warnings.simplefilter("ignore", RuntimeWarning)
        if layer is None:
            _require_one_layer(path)
        features, crs = read_declared(path, {PROJECT, *PLANTSTART, *_NAMES}, layer=layer)
    if not len(features.geometry):
        raise RequestError(f"{path} holds no feature: it asks for nothing")
    vertices = int(shapely.get_num_coordinates(features.geometry).sum())
    if vertices > MOST_VERTICES:
        raise RequestError(
            f"{path} holds {vertices} vertices, more than {MOST_VERTICES}: cut it up"
        )
    areas = Areas(features.table, features.geometry, _names(features.table, len(features.geometry)))
    if projects is not None:
        if PROJECT not in areas.table.column_names:
            raise RequestError(f"{path} has no column {PROJECT}")
        owners = areas.table[PROJECT].to_pylist()
        areas = areas.take(np.flatnonzero([str(owner) in projects for owner in owners]))
    geometry = prepared(areas.geometry, crs, areas.names, str(path), log)
    return replace(areas, geometry=geometry)


def prepared(
    geometry: NDArray[np.object_],
    crs: pyproj.CRS,
    names: list[str],
    where: str,
    log: ProblemLog,
) -> NDArray[np.object_]:
    """Areas in EPSG:4326 as :class:`Areas` has them, from geometries in ``crs``, shape ``(n,)``."""
    shapes = geometry.copy()

    def leave_out(rows: NDArray[np.bool_], kind: ProblemKind, reason: str) -> None:
        for row in np.flatnonzero(rows & ~shapely.is_missing(shapes)):
            log.add(kind, names[row], where, reason)
        shapes[rows] = None

    for row in np.flatnonzero(shapely.is_missing(shapes)):
        log.add(ProblemKind.no_geometry, names[row], where, "none, or not readable")
    leave_out(shapely.is_empty(shapes), ProblemKind.no_geometry, "empty")
    areal = (-1, shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
    kinds = shapely.get_type_id(shapes)
    for kind in np.unique(kinds[~np.isin(kinds, areal)]):
        name = shapely.GeometryType(int(kind)).name.lower()
        leave_out(kinds == kind, ProblemKind.bad_geometry, f"a {name}, not a polygon")
    leave_out(_not_finite(shapes), ProblemKind.bad_geometry, "coordinates are not numbers")
    if crs.is_projected:
        shapes = _straightened(shapes, crs, where)
    shapes = to_longitude_latitude(shapes, crs)
    leave_out(_not_finite(shapes), ProblemKind.bad_geometry, f"outside of {crs.name}")
    edges = np.nan_to_num(shapely.bounds(shapes).reshape(-1, 4))
    far = (np.abs(edges[:, ::2]) > 540).any(axis=1) | (np.abs(edges[:, 1::2]) > 90).any(axis=1)
    leave_out(far, ProblemKind.bad_geometry, "coordinates are not longitude and latitude")

    around = np.zeros(len(shapes), bool)
    for row in np.flatnonzero(_may_cross(shapes)):
        crossing = _unwrapped(shapes[row], certain=crs.is_projected)
        if crossing is None:
            continue
        # What crosses the antimeridian and the prime meridian too has no inside in degrees.
        around[row] = crs.is_projected and _jumps(crossing)
        if not around[row]:
            shapes[row] = crossing
            log.add(ProblemKind.antimeridian, names[row], where)
    leave_out(around, ProblemKind.bad_geometry, "goes around a pole")
    broken = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    why = shapely.is_valid_reason(shapes[broken])
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    for row, reason in zip(np.flatnonzero(broken), why, strict=True):
        if not shapely.is_empty(shapes[row]):
            log.add(ProblemKind.repaired, names[row], where, reason)
    leave_out(shapely.is_empty(shapes), ProblemKind.bad_geometry, "has no area")
    for row in np.flatnonzero(_beyond(shapes)):
        shapes[row] = _within_the_world(shapes[row])
    return shapes


def _require_one_layer(path: Path) -> None:
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    except (pyogrio.errors.DataSourceError, OSError):
        return  # the reader tells it better, or reads it by other means
    if len(layers) > 1:
        raise RequestError(
            f"{path} holds {len(layers)} layers ({', '.join(map(shown, sorted(layers)))}): choose "
            "one with --layer"
        )


def _names(table: pa.Table, count: int) -> list[str]:
    column = next((name for name in _NAMES if name in table.column_names), None)
    if column is None:
        return [f"feature {row}" for row in range(count)]
    values = table[column].to_pylist()
    return [
        f"feature {row}" if value is None else f"feature {row} {shown(value)}"
        for row, value in enumerate(values)
    ]


def _not_finite(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    xy, index = shapely.get_coordinates(shapes, return_index=True)
    found = np.zeros(len(shapes), bool)
    found[index[~np.isfinite(xy).all(axis=1)]] = True
    return found


def _straightened(shapes: NDArray[np.object_], crs: pyproj.CRS, where: str) -> NDArray[np.object_]:
    """Put vertices into long edges, which bend when they are reprojected."""
    unit = crs.axis_info[0].unit_conversion_factor
    added = float(np.nansum(shapely.length(shapes))) * unit / _STRAIGHT
    if not added <= MOST_VERTICES:
        raise RequestError(f"{where}: the outlines are longer than is possible in {crs.name}")
    return shapely.segmentize(shapes, _STRAIGHT / unit)


def _jumps(shape: Any) -> bool:
    """Whether a ring has an edge of more than half a turn."""
    return any(
        (np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])) > 180).any()
        for ring in shapely.get_rings(shapely.get_parts(shape))
    )


def _may_cross(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        return bounds[:, 2] - bounds[:, 0] > 180


def _unwrapped(shape: Any, *, certain: bool) -> Any | None:
    """The shape with its parts that cross the antimeridian in longitudes of 0 to 360 degrees.

    None if no part crosses it. In degrees a long edge may be meant: an area then crosses only if
    that makes it narrow. Coordinates that were reprojected wrap around, so there it is ``certain``.
    """
    found = False
    parts = []
    for part in shapely.get_parts(shape):
        turned = part
        if _jumps(part):
            turned = shapely.transform(part, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
            # A band around the whole Earth has no width left.
            width = turned.bounds[2] - turned.bounds[0]
            if not certain and not 0 < width <= _WIDEST_CROSSING:
                turned = part
        found |= turned is not part
        parts.append(turned)
    return shapely.multipolygons(parts) if found else None


def _beyond(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        return (np.abs(bounds[:, ::2]) > 180).any(axis=1)


def _within_the_world(shape: Any) -> Any:
    """Cut at 180 degrees, and what lies beyond moved by whole turns."""
    turns = [affinity.translate(shape, turn) for turn in (-360.0, 0.0, 360.0)]
    return shapely.union_all(shapely.intersection(turns, _WORLD))
