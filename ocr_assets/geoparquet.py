"""GeoParquet 1.1 tables: metadata, spatial order, and writing to a local file all at once.

Belongs here: what every table with a geometry shares: the ``geo`` metadata, the bounding-box
column that readers prune by, the Hilbert order, the encoding, the safe write.
Does not belong here: what the columns of a table mean, reading other formats (``vector.py``), and
publishing a file to where others see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

VERSION = "1.1.0"

ROW_GROUP_ROWS = 32_768
"""Rows in a row group.

Footprints take about 200 bytes, so a group is some 6 MB: a map view of one town reads two or three
groups, and a national table of 150 million rows still has a footer of a few megabytes only.
"""

BBOX_TYPE = pa.struct([(edge, pa.float64()) for edge in ("xmin", "ymin", "xmax", "ymax")])
"""Type of the covering column ``bbox``: degrees, exact, so pruning by it loses no row."""

_GEOMETRY_TYPES = dict(
    enumerate(
        (
            "Point",
            "LineString",
            "Polygon",
            "MultiPoint",
            "MultiLineString",
            "MultiPolygon",
            "GeometryCollection",
        ),
        start=1,
    )
)

type Source = str | Path | pa.NativeFile
"""A local path, or a file that pyarrow has opened."""


class GeoParquetError(ValueError):
    """A file that is not readable GeoParquet, or not in the form that is asked for."""


def wkb_array(geometry: NDArray[np.object_]) -> pa.Array:
    """Two-dimensional little-endian WKB of shapely geometries, null for None, shape ``(n,)``."""
    return pa.array(
        shapely.to_wkb(geometry, output_dimension=2, byte_order=1, flavor="iso"), pa.binary()
    )


def bbox_array(geometry: NDArray[np.object_]) -> pa.StructArray:
    """Bounding boxes of shapely geometries as :data:`BBOX_TYPE`, null for None and empty."""
    edges = shapely.bounds(geometry)
    missing = np.isnan(edges[:, 0]) if len(edges) else np.zeros(0, bool)
    return pa.StructArray.from_arrays(
        [pa.array(np.ascontiguousarray(edge)) for edge in edges.reshape(-1, 4).T],
        fields=list(BBOX_TYPE),
        mask=pa.array(missing),
    )


def hilbert_order(table: pa.Table, bounds: tuple[float, float, float, float], tie: str) -> pa.Array:
    """Row order along a Hilbert curve through the midpoints of ``bbox``.

    Args:
        table: with a ``bbox`` column without nulls.
        bounds: west, south, east and north of the curve's square grid of 65,536 cells a side. Fixed
            bounds make the order of two rows independent of which other rows there are.
        tie: column that orders rows of the same cell.

    Returns:
        Row indices, for ``table.take``.
    """
    west, south, east, north = bounds
    bbox = table["bbox"].combine_chunks()
    edge = {name: np.asarray(bbox.field(name)) for name in ("xmin", "ymin", "xmax", "ymax")}
    midpoints = shapely.points(
        np.clip((edge["xmin"] + edge["xmax"]) / 2, west, east),
        np.clip((edge["ymin"] + edge["ymax"]) / 2, south, north),
    )
    distance = geopandas.GeoSeries(midpoints).hilbert_distance(total_bounds=bounds)
    keys = pa.table({"distance": distance.to_numpy(), "tie": table[tie]})
    return pc.sort_indices(keys, [("distance", "ascending"), ("tie", "ascending")])


@cache
def _projjson(crs: str) -> dict[str, Any]:
    return pyproj.CRS.from_user_input(crs).to_json_dict()


class GeoParquetWriter:
    """Writes one GeoParquet file, batch by batch, that appears only when it is complete.

    Use it as a context manager. Rows go to a hidden file beside ``path``; leaving the block
    normally flushes it to disk and renames it, leaving by an exception (a full disk, a killed
    step) removes it and keeps what was at ``path`` before.

    Args:
        path: local file to write; its folder is made.
        schema: columns of every batch, among them ``geometry`` (binary, WKB) and ``bbox``
            (:data:`BBOX_TYPE`).
        lineage: JSON-ready description of where the rows come from, kept in the file under
            ``lineage``. The same rows and lineage give the same bytes.
        crs: coordinate reference system of the geometry. Coordinates are always x, y.
        attributes: further metadata of the file, such as its licence.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        lineage: Mapping[str, Any],
        crs: str = "EPSG:4326",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        if missing := {"geometry", "bbox"} - set(schema.names):
            raise GeoParquetError(f"a table for {path} lacks the column {min(missing)!r}")
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._schema = schema.remove_metadata()
        self._lineage = json.dumps(lineage, sort_keys=True, separators=(",", ":"))
        self._crs = crs
        self._attributes = attributes or {}
        self._types: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.rows = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_float = {f.name for f in self._schema if pa.types.is_floating(f.type)}
        is_float |= {f"bbox.{edge.name}" for edge in BBOX_TYPE}
        plain = {"geometry", "building_id"}
        self._file = self._partial.open("wb")
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            # With a copy of the Arrow schema in the file, pyarrow would show that copy's metadata
            # in place of the file's, and "geo" is only known when the last row is written.
            store_schema=False,
            # Measured values hardly repeat: splitting their bytes compresses, a dictionary
            # does not. Codes and names repeat within a row group.
            use_dictionary=[
                f.name
                for f in self._schema
                if f.name not in is_float | plain and not pa.types.is_nested(f.type)
            ],
            column_encoding=dict.fromkeys(sorted(is_float), "BYTE_STREAM_SPLIT"),
            # Nobody prunes by the bytes of a geometry, and they would fill the footer.
            write_statistics=[f.name for f in self._schema if f.name not in {"geometry", "bbox"}]
            + [f"bbox.{edge.name}" for edge in BBOX_TYPE],
        )
        return self

    def write(self, batch: pa.Table) -> None:
        """Append rows in the order given, in row groups of :data:`ROW_GROUP_ROWS`."""
        batch = batch.select(self._schema.names).cast(self._schema)
        self._writer.write_table(batch, row_group_size=ROW_GROUP_ROWS)
        self.rows += batch.num_rows
        for chunk in batch["geometry"].chunks:
            self._types |= _geometry_types(chunk)
        for chunk in batch["bbox"].chunks:
            for i, (edge, reduce) in enumerate(
                zip(BBOX_TYPE, (pc.min, pc.min, pc.max, pc.max), strict=True)
            ):
                value = reduce(chunk.field(edge.name).filter(chunk.is_valid())).as_py()
                if value is not None:
                    pick = min if i < 2 else max
                    self._bounds[i] = pick(self._bounds[i], value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._writer.add_key_value_metadata(
                    {
                        **self._attributes,
                        "geo": self._geo_metadata(),
                        "lineage": self._lineage,
                    }
                )
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._partial.replace(self._path)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        # After a failed write the footer cannot be written either; the file goes in any case.
        if not self._file.closed:
            try:
                self._writer.close()
            except OSError:
                pass
            finally:
                self._file.close()
        self._partial.unlink(missing_ok=True)

    def _geo_metadata(self) -> str:
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": _projjson(self._crs),
            "covering": {"bbox": {edge.name: ["bbox", edge.name] for edge in BBOX_TYPE}},
        }
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return json.dumps(
            {"version": VERSION, "primary_column": "geometry", "columns": {"geometry": column}},
            sort_keys=True,
            separators=(",", ":"),
        )


def write_geoparquet(table: pa.Table, path: Path, lineage: Mapping[str, Any]) -> None:
    """Write one table, in the order of its rows; see :class:`GeoParquetWriter`."""
    with GeoParquetWriter(path, table.schema, lineage) as writer:
        writer.write(table)


def merge_geoparquet(parts: Sequence[Path], target: Path, lineage: Mapping[str, Any]) -> int:
    """Write the rows of local files of one schema into one file, in order; how many there are.

    One row group is in memory at a time.
    """
    with open_geoparquet(parts[0]) as first:
        schema = first.schema_arrow
    with GeoParquetWriter(target, schema, lineage) as writer:
        for part in parts:
            with open_geoparquet(part, schema.names) as file:
                for batch in row_batches(file, ROW_GROUP_ROWS):
                    writer.write(pa.Table.from_batches([batch]))
    return writer.rows


def lineage_of(path: Path) -> dict[str, Any] | None:
    """The lineage kept in a local file; None if there is no such file, or it is damaged."""
    try:
        with open_geoparquet(path) as file:
            return kept_lineage(file)
    except GeoParquetError:
        return None


def kept_lineage(file: pq.ParquetFile) -> dict[str, Any] | None:
    """The lineage kept in an open file; None if it has none that can be read."""
    try:
        lineage: dict[str, Any] = json.loads(file.metadata.metadata[b"lineage"])
    except (KeyError, TypeError, ValueError):
        return None
    return lineage


def _geometry_types(wkb: pa.Array) -> set[str]:
    """Type names in an array of little-endian WKB: byte 1 of each value says the type."""
    wkb = wkb.drop_null()
    if not len(wkb):
        return set()
    offsets = np.frombuffer(wkb.buffers()[1], np.int32, len(wkb), wkb.offset * 4)
    codes = np.frombuffer(wkb.buffers()[2], np.uint8)[offsets + 1]
    return {_GEOMETRY_TYPES[int(code)] for code in np.unique(codes)}


def open_geoparquet(source: Source, columns: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a GeoParquet file, checking what can be checked before its rows are read.

    Raises :class:`GeoParquetError`, naming the file, if it is missing, truncated or not Parquet,
    or lacks one of ``columns``.
    """
    try:
        file = pq.ParquetFile(source)
    except FileNotFoundError as error:
        raise GeoParquetError(
            f"cannot read {source} as GeoParquet: there is no such file"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise GeoParquetError(f"cannot read {source} as GeoParquet: {error}") from error
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise GeoParquetError(
            f"{source} has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}"
        )
    return file


def row_batches(
    file: pq.ParquetFile, rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of a file in order, at most ``rows`` at a time, with one row group in memory.

    A reader of several row groups keeps the bytes of each until the last one is read.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=columns)


def geometry_column(
    metadata: Mapping[bytes, bytes] | None, name: str
) -> tuple[str, dict[str, Any]]:
    """The primary geometry column of a GeoParquet file and its description.

    ``metadata`` is the file's key-value metadata, ``name`` the file's name for the error:
    :class:`GeoParquetError` if it is no GeoParquet or its geometry is not encoded as WKB.
    """
    if not metadata or b"geo" not in metadata:
        raise GeoParquetError(f"{name} is Parquet but not GeoParquet: it has no 'geo' metadata")
    try:
        geo = json.loads(metadata[b"geo"])
        primary = geo["primary_column"]
        column = geo["columns"][primary]
        encoding = column["encoding"]
    except (ValueError, KeyError, TypeError) as error:
        raise GeoParquetError(f"{name} has damaged 'geo' metadata: {error!r}") from error
    if encoding != "WKB":
        raise GeoParquetError(f"{name} encodes its geometry as {encoding!r}; write it as WKB")
    return primary, column
