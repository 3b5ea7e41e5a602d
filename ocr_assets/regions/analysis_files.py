"""Statistics as files for analysis: GeoParquet, CSV, GeoJSON and GeoPackage with the same rows.

Belongs here: how a table of statistics looks in each format, and the metadata and licence notices
that go with it. Does not belong here: computing statistics (``statistics.py``), storing files.

Rows stream from the table a batch at a time and are encoded a column at a time, so memory does not
grow with their number. The same rows and metadata give the same bytes.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyogrio
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import (
    GeoParquetError,
    GeoParquetWriter,
    Source,
    open_geoparquet,
    row_batches,
)
from ocr_assets.regions import geojson_lines as geojson
from ocr_assets.regions.risk_type import RiskType

STEM = "stats"

BUILDINGS_NOTICE = (
    "Buildings: Overture Maps Foundation, overturemaps.org. Contains information from "
    "OpenStreetMap, made available under the Open Database License. © OpenStreetMap contributors."
)
"""What the licence of the footprints asks of everything that is made from them."""

_BATCH_ROWS = 8192

_CRS = "EPSG:4326"

_CENTROID = ("longitude", "latitude")

# Six decimals of a degree are a tenth of a metre.
_CENTROID_DECIMALS = 6

_GEOPACKAGE_DATE = "2000-01-01T00:00:00Z"
"""Every GeoPackage says when it was changed; always the same, so that its bytes are."""


@dataclass(frozen=True, slots=True)
class AnalysisReport:
    """The files of one level, by format, and how many rows each has."""

    files: dict[str, Path]
    rows: int


def file_metadata(
    risk: RiskType, version: str, notices: Sequence[str], lineage: Mapping[str, Any]
) -> dict[str, str]:
    """What every file of statistics says of itself.

    Statistics are made from footprints under the Open Database License, and stay under it.

    Args:
        risk: the type of risk.
        version: label of the version.
        notices: of the inputs, in order; empty ones are left out.
        lineage: JSON-ready lineage of the files.
    """
    return {
        "title": risk.title,
        "version": version,
        "provider": "ocr-assets",
        "terms_of_access": (
            "Free to use, share and adapt with attribution; databases made from it keep its "
            "licence. Provided as it is, without warranty."
        ),
        "data_sources": risk.sources,
        "license_name": "ODbL-1.0",
        "license_url": "https://opendatacommons.org/licenses/odbl/1-0/",
        "notice": " ".join(filter(None, (BUILDINGS_NOTICE, *notices))),
        "lineage": _compact(lineage),
    }


def write_analysis_files(
    source: Source, folder: Path, metadata: Mapping[str, str], lineage: Mapping[str, Any]
) -> AnalysisReport:
    """Write a table of statistics in every format, as ``stats.{parquet,csv,geojson,gpkg}``.

    Args:
        source: GeoParquet with columns of
            :func:`ocr_assets.regions.statistics.statistics_schema`. Rows without an outline stay.
        folder: where the files appear, each complete or not at all.
        metadata: of :func:`file_metadata`.
        lineage: kept in the GeoParquet file.

    Raises:
        GeoParquetError: the table is unreadable or has no outlines.
    """
    with open_geoparquet(source, ("GEOID", "geometry", "bbox")) as file:
        schema, rows = file.schema_arrow.remove_metadata(), file.metadata.num_rows
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[Path], None]] = {
        "parquet": lambda path: _write_parquet(source, schema, path, metadata, lineage),
        "csv": lambda path: _write_csv(source, path, metadata),
        "geojson": lambda path: _write_geojson(source, path, metadata),
        "gpkg": lambda path: _write_geopackage(source, path, metadata),
    }
    files = {}
    for kind, write in writers.items():
        files[kind] = folder / f"{STEM}.{kind}"
        aside = folder / f".{STEM}.partial.{kind}"
        try:
            write(aside)
            os.replace(aside, files[kind])
        finally:
            aside.unlink(missing_ok=True)
    return AnalysisReport(files, rows)


def _write_parquet(
    source: Source,
    schema: pa.Schema,
    path: Path,
    metadata: Mapping[str, str],
    lineage: Mapping[str, Any],
) -> None:
    with GeoParquetWriter(path, schema, lineage, attributes=metadata) as writer:
        for batch in _batches(source):
            writer.write(batch)


def _write_csv(source: Source, path: Path, metadata: Mapping[str, str]) -> None:
    """Lines ``# key: value``, the names of columns, then a line for each row, without outline."""
    with path.open("wb") as file:
        for key, value in metadata.items():
            file.write(f"# {key}: {' '.join(value.split())}\n".encode())
        head = True
        for batch in _batches(source):
            outline = _outlines(batch)
            table = _flat(batch)
            for name, values in zip(_CENTROID, _centroids(outline), strict=True):
                table = table.append_column(name, pa.array(values, from_pandas=True))
            options = pyarrow.csv.WriteOptions(include_header=head, quoting_style="needed")
            pyarrow.csv.write_csv(table, file, options)
            head = False


def _write_geojson(source: Source, path: Path, metadata: Mapping[str, str]) -> None:
    """A feature collection with a member ``metadata``, one feature a line."""
    with path.open("wb") as file:
        head = {"type": "FeatureCollection", "metadata": dict(metadata)}
        text = json.dumps(head, ensure_ascii=False)
        file.write(f'{text[:-1]}, "features": ['.encode())
        before = "\n"
        for batch in _batches(source):
            # RFC 7946, section 3.1.6: outer rings turn counter-clockwise.
            outline = shapely.orient_polygons(_outlines(batch), exterior_cw=False)
            properties = {
                field.name: _json(batch[field.name], field.type)
                for field in batch.schema
                if field.name not in ("geometry", "bbox")
            }
            lines = geojson.features(outline, list(properties.values()), "", list(properties))
            # A line ends with its line break; the comma goes before the next one.
            encoded = bytes(geojson.text_of(lines)).rstrip(b"\n").replace(b"\n", b",\n")
            file.write(before.encode() + encoded)
            before = ",\n"
        file.write(b"\n]}\n")


def _write_geopackage(source: Source, path: Path, metadata: Mapping[str, str]) -> None:
    """One layer ``stats`` of multipolygons; lists are JSON text."""
    batches = (_geopackage_rows(batch) for batch in _batches(source))
    first = next(batches)

    def stream() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for batch in batches:
            yield from batch.to_batches()

    with _gdal_options(OGR_CURRENT_DATE=_GEOPACKAGE_DATE, OGR_GPKG_ALLOW_THREADED_RTREE="NO"):
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(first.schema, stream()),
            path,
            layer=STEM,
            driver="GPKG",
            geometry_name="geometry",
            geometry_type="MultiPolygon",
            crs=_CRS,
            layer_metadata=dict(metadata),
            layer_options={"GEOMETRY_NAME": "geometry"},
        )


def _geopackage_rows(batch: pa.Table) -> pa.Table:
    outline = _outlines(batch)
    single = shapely.get_type_id(outline) == shapely.GeometryType.POLYGON
    if single.any():
        outline = outline.copy()
        outline[single] = shapely.multipolygons(
            outline[single], indices=np.arange(np.count_nonzero(single))
        )
    wkb = pa.array(shapely.to_wkb(outline, byte_order=1, flavor="iso"), pa.binary())
    return _flat(batch).append_column("geometry", wkb)


_OPTIONS_LOCK = threading.Lock()


@contextmanager
def _gdal_options(**options: str) -> Iterator[None]:
    # GDAL has one set of options for all threads, and levels are written by several.
    with _OPTIONS_LOCK:
        before = {name: pyogrio.get_gdal_config_option(name) for name in options}
        pyogrio.set_gdal_config_options(options)
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options(before)


def _batches(source: Source) -> Iterator[pa.Table]:
    """Rows in order; of a table without any, one batch without rows."""
    with open_geoparquet(source) as file:
        try:
            empty = True
            for batch in row_batches(file, _BATCH_ROWS):
                empty = False
                yield pa.Table.from_batches([batch])
            if empty:
                yield file.schema_arrow.empty_table()
        except (OSError, pa.ArrowException) as error:
            raise GeoParquetError(f"cannot read the rows of {source}: {error}") from error


def _outlines(batch: pa.Table) -> NDArray[np.object_]:
    try:
        return shapely.from_wkb(batch["geometry"].to_numpy())
    except shapely.errors.GEOSException as error:
        raise GeoParquetError(f"an outline is not readable as WKB: {error}") from error


def _centroids(outline: NDArray[np.object_]) -> NDArray[np.float64]:
    """Longitude and latitude of centroids, shape ``(2, n)``, NaN without an outline."""
    points = shapely.centroid(outline)
    return np.round([shapely.get_x(points), shapely.get_y(points)], _CENTROID_DECIMALS)


def _flat(batch: pa.Table) -> pa.Table:
    """The columns without outlines, lists as JSON text."""
    columns: dict[str, Any] = {}
    for field in batch.schema:
        if field.name not in ("geometry", "bbox"):
            column = batch[field.name]
            is_list = pa.types.is_list(field.type)
            columns[field.name] = geojson.lists(column, pa.int64()) if is_list else column
    return pa.table(columns)


def _json(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """The JSON text of each value."""
    if pa.types.is_list(kind):
        return geojson.lists(column, pa.int64())
    return geojson.texts(column) if pa.types.is_string(kind) else geojson.numbers(column)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
