"""Columns and polygons as lines of GeoJSON, encoded a whole column at a time.

Belongs here: the text of features, and what a geometry must be to become one.
Does not belong here: which features and properties there are (``vector_tiles``,
``analysis_files``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

type Column = pa.Array | pa.ChunkedArray


class TileInputError(ValueError):
    """A table that cannot become tiles."""


def polygons(table: pa.Table) -> tuple[pa.Table, NDArray[np.object_]]:
    """The rows of ``table`` that have a geometry, and their polygons, shape ``(rows,)``.

    Args:
        table: with a column ``geometry`` (WKB, longitude and latitude in degrees).

    Raises:
        TileInputError: a geometry is not WKB, not a polygon, or not in degrees.
    """
    try:
        geometry = shapely.from_wkb(table["geometry"].to_numpy())
    except shapely.errors.GEOSException as error:
        raise TileInputError(f"a geometry is not readable as WKB ({error}).") from error
    kept = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    geometry = geometry[kept]
    types = shapely.get_type_id(geometry)
    areal = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
    if (odd := ~np.isin(types, areal)).any():
        found = shapely.GeometryType(int(types[odd][0])).name
        raise TileInputError(f"a geometry is a {found}, not a POLYGON or MULTIPOLYGON.")
    if len(geometry):
        west, south, east, north = shapely.total_bounds(geometry)
        if west < -180 or east > 180 or south < -90 or north > 90:
            raise TileInputError(
                "coordinates are not longitude and latitude, they reach from "
                f"{west:g}, {south:g} to {east:g}, {north:g}. Reproject the table to EPSG:4326."
            )
    return table.filter(pa.array(kept)), geometry


def features(
    geometry: NDArray[np.object_],
    columns: Sequence[pa.Array],
    extra: str,
    keys: Sequence[str] | None = None,
) -> pa.Array:
    """One line of GeoJSON for each geometry, null where missing.

    Args:
        geometry: shape ``(n,)``.
        columns: JSON text of each property, length ``n``.
        extra: members of the feature besides geometry and properties, from the comma on.
        keys: of the properties; the positions "0", "1"... if not given.
    """
    pieces: list[Any] = ['{"type":"Feature"' + extra + ',"geometry":']
    text = pc.fill_null(pa.array(shapely.to_geojson(geometry), pa.string()), "null")
    pieces += [text, ',"properties":{']
    for place, column in enumerate(columns):
        key = json.dumps(keys[place] if keys else str(place))
        pieces += [f"{',' if place else ''}{key}:", column]
    return pc.binary_join_element_wise(*pieces, "}}\n", "")


def text_of(lines: pa.Array) -> memoryview:
    """The characters of all strings one after the other, without a copy."""
    _, offsets, characters = lines.buffers()
    places = np.frombuffer(offsets, np.int32)
    start, end = places[lines.offset], places[lines.offset + len(lines)]
    return memoryview(characters)[start:end]


def numbers(column: Column) -> pa.Array:
    """JSON numbers, null where missing or not finite; the shortest text that reads back exactly."""
    values = _whole(column)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
    return pc.fill_null(pc.cast(values, pa.string()), "null")


def texts(column: Column) -> pa.Array:
    """JSON strings, null where missing; a control character becomes a space."""
    text = pc.cast(_whole(column), pa.string())
    for sign, escaped in (("\\", "\\\\"), ('"', '\\"')):
        text = pc.replace_substring(text, sign, escaped)
    text = pc.replace_substring_regex(text, "[\\x00-\\x1f]", " ")
    return pc.fill_null(pc.binary_join_element_wise('"', text, '"', ""), "null")


def lists(column: Column, kind: pa.DataType) -> pa.Array:
    """JSON arrays of numbers of ``kind``, null where missing."""
    words = pc.cast(pc.cast(_whole(column), pa.list_(kind)), pa.list_(pa.string()))
    text = pc.binary_join_element_wise("[", pc.binary_join(words, ","), "]", "")
    return pc.fill_null(text, "null")


def significant(values: NDArray[np.floating[Any]], digits: int) -> NDArray[np.float64]:
    """Positive numbers rounded to ``digits`` significant digits; none becomes zero."""
    wide = values.astype(np.float64)
    decimals = digits - 1 - np.floor(np.log10(wide)).astype(np.int64)
    # Divide by a whole power of ten: 35 / 1000 is the double nearest to 0.035, 35 * 0.001 is not.
    up = np.power(10.0, np.maximum(decimals, 0))
    down = np.power(10.0, np.maximum(-decimals, 0))
    return np.round(wide * up / down) * down / up


def thicken(geometry: NDArray[np.object_], zoom: int) -> NDArray[np.object_]:
    """Widen polygons too thin for the tile grid at ``zoom``, which would vanish in rounding.

    Twice area over perimeter is the width of a thin shape. A polygon of less than two steps of
    the grid (about one metre at zoom 14) becomes its outline drawn that wide.
    """
    step = 360 / (2**zoom * 4096)
    thin = shapely.area(geometry) <= step * shapely.length(geometry)
    if thin.any():
        geometry = geometry.copy()
        geometry[thin] = shapely.buffer(shapely.boundary(geometry[thin]), step, quad_segs=1)
    return geometry


def _whole(column: Column) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
