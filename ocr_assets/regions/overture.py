"""Features of Overture Maps inside a box, from its published GeoParquet files.

Belongs here: which row groups can hold features of the box, and writing the features with their
Overture id. Does not belong here: where the release lies, and what the features are used for.

The files of a release are sorted in space and say the bounding box of each row group in their
footer. Row groups outside the box are never fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import (
    BBOX_TYPE,
    GeoParquetError,
    GeoParquetWriter,
    bbox_array,
    hilbert_order,
    open_geoparquet,
    wkb_array,
)
from ocr_assets.regions.grid import CONUS_WINDOW
from ocr_assets.vector import Bounds

FeatureType = Literal["building", "address"]

THEMES: Mapping[FeatureType, str] = {
    "building": "theme=buildings/type=building",
    "address": "theme=addresses/type=address",
}
"""Folder of each feature type in a release."""

COLUMNS: Mapping[FeatureType, tuple[str, ...] | None] = {"building": ("id",), "address": None}
"""Columns that are kept besides the geometry; None keeps all."""

_ROWS_AT_ONCE = 262_144


@dataclass(frozen=True)
class ExtractReport:
    """What became of the rows that were fetched: ``read == outside + without_geometry + written``.

    Attributes:
        row_groups: in the file; ``skipped`` of them lie outside the box and were not fetched.
        read: rows of the other row groups.
        outside: their bounding box does not begin in the box.
        without_geometry: they have no geometry, or an empty one.
        written: rows that were kept.
    """

    row_groups: int
    skipped: int
    read: int
    outside: int
    without_geometry: int
    written: int

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class RowGroups:
    """Where the features of a file's row groups begin.

    Attributes:
        rows: number of rows of each, shape ``(n,)``.
        corners: smallest and largest ``xmin``, then smallest and largest ``ymin`` of the bounding
            boxes of each, in degrees, shape ``(n, 4)``: west, east, south, north. The whole world
            where the file does not say.
    """

    rows: NDArray[np.int64]
    corners: NDArray[np.float64]

    @classmethod
    def of(cls, file: pq.ParquetFile) -> RowGroups:
        """The row groups of an open file, from its footer."""
        metadata = file.metadata
        rows = np.zeros(metadata.num_row_groups, np.int64)
        corners = np.tile([-180.0, 180.0, -90.0, 90.0], (metadata.num_row_groups, 1))
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            rows[number] = group.num_rows
            for index in range(group.num_columns):
                column = group.column(index)
                edge = {"bbox.xmin": 0, "bbox.ymin": 2}.get(column.path_in_schema)
                told = column.statistics
                if edge is not None and told is not None and told.has_min_max:
                    corners[number, edge : edge + 2] = told.min, told.max
        return cls(rows, corners)

    def beginning_in(self, box: Bounds) -> list[int]:
        """Numbers of the row groups that can have a feature that begins in ``box``."""
        west, south, east, north = box
        low_x, high_x, low_y, high_y = self.corners.T
        outside = (low_x > east) | (high_x < west) | (low_y > north) | (high_y < south)
        return [int(number) for number in np.flatnonzero(~outside)]


def extract_features(
    source: str,
    filesystem: pyarrow.fs.FileSystem,
    target: Path,
    box: Bounds,
    lineage: Mapping[str, Any],
    columns: Sequence[str] | None,
) -> ExtractReport:
    """Write the features of one published file that begin in ``box`` to a local GeoParquet file.

    A feature begins at the south-west corner of its bounding box, edges of ``box`` included. Rows
    keep their Overture ``id``; their order is that of the file, along a Hilbert curve within every
    262,144 rows.

    Args:
        source, filesystem: the published file.
        target: file to write; it appears when it is whole.
        box: west, south, east, north in degrees.
        lineage: see :class:`ocr_assets.geoparquet.GeoParquetWriter`.
        columns: columns to keep besides ``geometry`` and ``bbox``; None keeps all.

    Raises:
        GeoParquetError: the file is no GeoParquet, or lacks ``id``, ``geometry`` or ``bbox``.
        OSError: the file cannot be fetched.
    """
    with filesystem.open_input_file(source) as stream:
        file = open_geoparquet(stream, ("id", "geometry", "bbox"))
        kept = [name for name in file.schema_arrow.names if name not in ("geometry", "bbox")]
        if columns is not None:
            kept = list(columns)
            if missing := set(kept) - set(file.schema_arrow.names):
                raise GeoParquetError(f"{source} has no column {min(missing)!r}")
        groups = RowGroups.of(file)
        wanted = groups.beginning_in(box)
        fields = [file.schema_arrow.field(name) for name in kept]
        schema = pa.schema([*fields, ("geometry", pa.binary()), ("bbox", BBOX_TYPE)])
        read = inside = 0
        with GeoParquetWriter(target, schema.remove_metadata(), lineage) as writer:
            for rows in _rows(file, wanted, [*kept, "geometry", "bbox"]):
                read += rows.num_rows
                rows = rows.filter(_begins_in(rows, box))
                inside += rows.num_rows
                if rows.num_rows:
                    writer.write(_sorted(rows, schema))
    return ExtractReport(
        row_groups=len(groups.rows),
        skipped=len(groups.rows) - len(wanted),
        read=read,
        outside=read - inside,
        without_geometry=inside - writer.rows,
        written=writer.rows,
    )


def _rows(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> Iterator[pa.Table]:
    # Row groups are fetched one by one: together they may be larger than memory.
    for number in groups:
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[number], columns=columns):
            yield pa.Table.from_batches([batch])


def _begins_in(rows: pa.Table, box: Bounds) -> pa.ChunkedArray:
    west, south, east, north = box
    x, y = pc.struct_field(rows["bbox"], "xmin"), pc.struct_field(rows["bbox"], "ymin")
    return pc.and_(
        pc.and_(pc.greater_equal(x, west), pc.less_equal(x, east)),
        pc.and_(pc.greater_equal(y, south), pc.less_equal(y, north)),
    )


def _sorted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with a geometry, with exact bounding boxes, in spatial order."""
    geometry = shapely.from_wkb(rows["geometry"].to_numpy())
    there = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    rows, geometry = rows.filter(pa.array(there)), geometry[there]
    columns = {name: rows[name] for name in schema.names if name not in ("geometry", "bbox")}
    table = pa.table(
        {**columns, "geometry": wkb_array(geometry), "bbox": bbox_array(geometry)}, schema=schema
    )
    return table.take(hilbert_order(table, CONUS_WINDOW.bounds, "id"))
