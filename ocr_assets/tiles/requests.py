"""Requests: whatever shape they come in, they become tiles of years, and nothing gets lost.

Belongs here: recognising the shape of a request, reading it, and the table of tiles it becomes.
Does not belong here: mending polygons (``request_polygons.py``), and what is made of the tiles.

A request is one of

* JSON of the monitoring platform, ``{project: {"2024": {"missing_tiles": ["1035X727Y", …]}}}``;
* JSON of failed jobs, ``[{"tile_info": {"year": 2024, "X_tile": 1035, "Y_tile": 727}}, …]``;
* CSV with the columns ``Year``, ``X_tile``, ``Y_tile`` and perhaps ``X``, ``Y``;
* CSV with the columns ``project_id``, ``plantstart_year``, beside a file of the projects' polygons;
* polygons as GeoJSON, GeoPackage, Shapefile or GeoParquet;
* a bounding box.

Requests come from outside: sizes are limited, every entry is checked, and text of a request is
shown in messages only, quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ocr_assets.tiles.grid import CELL, DATA_CELLS, YEARS, TileGrid
from ocr_assets.tiles.request_lists import (
    CsvLine,
    add_jobs,
    add_projects,
    add_table,
    load_json,
    open_csv,
    whole_rows,
)
from ocr_assets.tiles.request_polygons import PLANTSTART, PROJECT, Areas, read_areas
from ocr_assets.tiles.request_problems import (
    ProblemKind,
    RequestError,
    shown,
    usable_year,
    year_range,
)
from ocr_assets.tiles.request_rows import COLUMNS, Request, RequestRows

MOST_CANDIDATES = 30_000_000
"""Tiles in the bounding boxes of all polygons together, at most; ten times the grid."""

_GEOJSON_TYPES = {
    "FeatureCollection",
    "Feature",
    "Polygon",
    "MultiPolygon",
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "GeometryCollection",
    "Topology",
}

_POLYGON_FILES = (b"SQLite format 3\x00", b"PAR1", b"\x00\x00\x27\x0a")
"""How GeoPackage, GeoParquet and Shapefile begin."""

_BLANK = b" \t\r\n\xef\xbb\xbf"


def next_year() -> int:
    """The last year that requests may name by default: preparations for it may begin."""
    return min(date.today().year + 1, YEARS[-1])


def read_request(
    path: Path,
    grid: TileGrid,
    *,
    year: int | None = None,
    from_plantstart: bool = False,
    polygons: Path | None = None,
    layer: str | None = None,
    latest: int | None = None,
) -> Request:
    """Read a request of any shape but a bounding box.

    Args:
        year: for which year, if the request is polygons.
        from_plantstart: instead of ``year``: of each polygon the year before its planting began,
            from its column ``plantstart_year`` or ``plantstart`` (a year or a date).
        polygons: file with the polygons of the projects that a CSV of projects names.
        layer: layer of a polygon file that has several.
        latest: last year that is usable; :func:`next_year` if left out.

    Raises:
        RequestError: nothing of the request can be used: it is malformed, empty, too large, of no
            known shape, or does not say for which year.
        ocr_assets.vector.VectorFileError: polygons cannot be read or lack a reference system.
        OSError: the file cannot be read.
    """
    rows = RequestRows(grid, next_year() if latest is None else latest)
    with path.open("rb") as file:
        head = file.read(4096)
    text = head.lstrip(_BLANK)
    if not text:
        raise RequestError(f"{path} is empty: it asks for nothing")
    document = load_json(path) if text[:1] in (b"{", b"[") else None
    geojson = isinstance(document, dict) and str(document.get("type")) in _GEOJSON_TYPES
    if geojson or head.startswith(_POLYGON_FILES):
        if (year is None) != from_plantstart:
            raise RequestError(
                f"{path} holds polygons: say for which year, or that it follows from the start of "
                "planting, one of the two"
            )
        if year is not None:
            _require_year(year, rows)
        areas = read_areas(path, rows.log, layer=layer)
        _add_years(rows, areas, _years(rows, areas, year, path), str(path))
        return rows.request()
    if year is not None or from_plantstart:
        raise RequestError(f"{path} names its years itself: leave out the year")
    if isinstance(document, dict):
        add_projects(rows, document, path)
    elif isinstance(document, list):
        add_jobs(rows, document, path)
    else:
        _add_csv(rows, path, polygons, layer)
    return rows.request()


def request_box(
    bounds: tuple[float, float, float, float],
    year: int,
    grid: TileGrid,
    *,
    latest: int | None = None,
) -> Request:
    """The tiles of ``year`` that touch a box of west, south, east, north in degrees.

    A box whose west is larger than its east crosses the antimeridian.

    Raises:
        RequestError: the box is not one, or the year is not usable.
    """
    west, south, east, north = bounds
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south < north <= 90) or west == east:
        raise RequestError(
            f"{bounds} is no box of west, south, east, north in degrees: longitudes are within "
            "-180 and 180, latitudes within -90 and 90, south before north"
        )
    rows = RequestRows(grid, next_year() if latest is None else latest)
    _require_year(year, rows)
    halves = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    boxes = np.array([shapely.box(a, south, b, north) for a, b in halves])
    areas = Areas(pa.table({}), np.array([shapely.union_all(boxes)]), ["the box"])
    _add_years(rows, areas, np.array([year]), "the box")
    return rows.request()


def _add_csv(rows: RequestRows, path: Path, polygons: Path | None, layer: str | None) -> None:
    header, lines = open_csv(path)
    if "X_tile" in header:
        add_table(rows, header, lines, path)
    elif not {PROJECT, PLANTSTART[0]} <= set(header):
        raise RequestError(
            f"{path} has the columns {', '.join(map(shown, header))}; a table of tiles has "
            f"{', '.join(COLUMNS)}, one of projects {PROJECT}, {PLANTSTART[0]}"
        )
    elif polygons is None:
        raise RequestError(f"{path} names projects: give the file of their polygons too")
    else:
        _add_planted_projects(rows, header, lines, path, polygons, layer)


def _add_planted_projects(
    rows: RequestRows,
    header: list[str],
    lines: Iterator[CsvLine],
    path: Path,
    polygons: Path,
    layer: str | None,
) -> None:
    """A CSV of projects and the year each was planted, and polygons that name their project."""
    years: dict[str, dict[int, str]] = {}
    for number, cells in whole_rows(rows, header, lines, path):
        where = f"line {number}"
        project = cells[header.index(PROJECT)].strip()
        year = _before_planting(rows, cells[header.index(PLANTSTART[0])], shown(project), where)
        if year:
            years.setdefault(project, {}).setdefault(year, where)
    areas = read_areas(polygons, rows.log, layer=layer, projects=set(years))
    owned: dict[str, list[int]] = {}
    for row, owner in enumerate(areas.table[PROJECT].to_pylist()):
        owned.setdefault(str(owner), []).append(row)
    chosen, wanted = [], []
    for project, places in years.items():
        for year, where in places.items():
            if project not in owned:
                reason = f"in {polygons}"
                rows.refuse(ProblemKind.no_polygons, shown(project), where, reason)
            chosen += owned.get(project, [])
            wanted += [year] * len(owned.get(project, []))
    _add_years(rows, areas.take(np.array(chosen, np.intp)), np.array(wanted, int), str(polygons))


def _years(rows: RequestRows, areas: Areas, year: int | None, path: Path) -> NDArray[np.int64]:
    """The year of each area; 0 where it is not usable, which is recorded."""
    if year is not None:
        return np.full(len(areas.names), year)
    column = next((name for name in PLANTSTART if name in areas.table.column_names), None)
    if column is None:
        raise RequestError(f"{path} has no column {' or '.join(PLANTSTART)}")
    return np.array(
        [
            0 if shape is None else _before_planting(rows, value, name, str(path)) or 0
            for shape, value, name in zip(
                areas.geometry, areas.table[column].to_pylist(), areas.names, strict=True
            )
        ]
    )


def _require_year(year: int, rows: RequestRows) -> None:
    if usable_year(year, rows.latest) is None:
        raise RequestError(f"{year} is not a usable year: {year_range(rows.latest)}")


def _before_planting(rows: RequestRows, value: Any, subject: str, where: str) -> int | None:
    started = usable_year(value, rows.latest + 1, date=True)
    year = None if started is None else usable_year(started - 1, rows.latest)
    if year is None:
        reason = f"planting began {shown(value)}, {year_range(rows.latest)}"
        rows.refuse(ProblemKind.bad_year, subject, where, reason)
    return year


def _add_years(rows: RequestRows, areas: Areas, year: NDArray[np.int64], where: str) -> None:
    """Take up the tiles of each area in its year; a year of 0 is one that was refused."""
    usable = np.array([shape is not None for shape in areas.geometry], bool)
    rows.entries += int((~usable | (year > 0)).sum())
    chosen = np.flatnonzero(usable & (year > 0))
    shapes = areas.geometry[chosen]
    if rows.grid.count_candidates(shapes) > MOST_CANDIDATES:
        raise RequestError(f"{where}: the polygons span too much of the Earth: cut the request up")
    index, x, y = rows.grid.tiles_of(shapes)
    for row in np.flatnonzero(np.bincount(index, minlength=len(chosen)) == 0):
        rows.log.add(ProblemKind.no_tile, areas.names[chosen[row]], where, _extent(rows.grid))
    rows.parts.append(np.stack([year[chosen][index], x, y]))


def _extent(grid: TileGrid) -> str:
    reach = DATA_CELLS * CELL
    south, north = np.nanmin(grid.latitude) - reach, np.nanmax(grid.latitude) + reach
    return f"tiles are on land from {south:.2f} to {north:.2f} degrees of latitude"
