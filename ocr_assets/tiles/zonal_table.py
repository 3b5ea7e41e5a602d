"""The table of answers for polygons: its columns, and writing it.

Belongs here: putting measures, error terms and problems together, GeoParquet and CSV.
Does not belong here: measuring (``zonal.py``), the terms themselves (``zonal_errors.py``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ocr_assets.geoparquet import BBOX_TYPE, bbox_array, wkb_array, write_geoparquet
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.zonal import Measured, Polygons, measure
from ocr_assets.tiles.zonal_errors import ErrorTable, Terms, shift_error, small_site_error
from ocr_assets.tiles.zonal_errors import share as share_of

COMPLETE = 0.995
"""Share of a polygon from which on its tree cover counts as known."""

SCHEMA = pa.schema(
    [
        pa.field("polygon_id", pa.string(), nullable=False),
        pa.field("year", pa.int16(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        ("tree_cover", pa.float64()),
        ("tree_cover_ha", pa.float64()),
        ("area_ha", pa.float64()),
        ("pixels", pa.float64()),
        ("coverage", pa.float64()),
        ("error_minus", pa.float64()),
        ("error_plus", pa.float64()),
        ("error", pa.float64()),
        ("shift_error", pa.float64()),
        ("small_site_error", pa.float64()),
        ("lulc", pa.string()),
        ("lulc_error_lower", pa.float64()),
        ("lulc_error_upper", pa.float64()),
        ("subregion", pa.string()),
        ("subregion_error_lower", pa.float64()),
        ("subregion_error_upper", pa.float64()),
        pa.field("terms_missing", pa.string(), nullable=False),
        pa.field("tiles", pa.string(), nullable=False),
        pa.field("missing_tiles", pa.string(), nullable=False),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
    ]
)
"""Columns of the answers, one row for each polygon, in the order of the polygons.

``status`` is ``complete``, ``partial`` (tree cover of a part), ``no_data`` (of no part),
``outside_grid`` or ``unusable_geometry``; ``reason`` says more. ``tree_cover`` and the three errors
are percent and percent points, ``shift_error`` and the other terms shares of the tree cover, null
where it is 0. ``error`` is the mean of ``error_minus`` and ``error_plus``. ``terms_missing`` names
the terms that are not in them. Tiles are ids with spaces between.
"""


@dataclass(frozen=True)
class Lookup:
    """A table of intervals, and the class of each polygon in it."""

    table: ErrorTable
    classes: Sequence[str | None]


def zonal_statistics(
    polygons: Polygons,
    year: int,
    tiles: Mapping[Tile, str | Path],
    grid: TileGrid,
    *,
    land_cover: Lookup | None = None,
    regions: Lookup | None = None,
) -> pa.Table:
    """Tree cover of polygons and how far it may be off, columns of :data:`SCHEMA`.

    Args:
        polygons: see :func:`ocr_assets.tiles.zonal.read_polygons`.
        year: of the tiles.
        tiles: the published tiles that there are, and what GDAL opens for each.
        grid: the tile grid.
        land_cover: intervals by kind of land cover.
        regions: intervals by region.
    """
    found = measure(polygons.geometry, tiles, grid)
    rows = [
        _row(row, polygons, year, found, land_cover, regions) for row in range(len(polygons.ids))
    ]
    columns: dict[str, Any] = {
        field.name: [row[field.name] for row in rows] for field in list(SCHEMA)[:-2]
    }
    columns["geometry"] = wkb_array(polygons.geometry)
    columns["bbox"] = bbox_array(polygons.geometry)
    return pa.table(columns, schema=SCHEMA)


def write_table(table: pa.Table, path: Path, lineage: Mapping[str, Any]) -> None:
    """Write the answers as GeoParquet, or as CSV without outlines if ``path`` says so."""
    if path.suffix.lower() != ".csv":
        write_geoparquet(table, path, lineage)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pyarrow.csv.write_csv(table.drop_columns(["geometry", "bbox"]), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _row(
    row: int,
    polygons: Polygons,
    year: int,
    found: Measured,
    land_cover: Lookup | None,
    regions: Lookup | None,
) -> dict[str, Any]:
    cover = _known(found.tree_cover[row])
    area = _known(found.area[row])
    status, reason = _status(row, polygons, found)
    result: dict[str, Any] = {
        "polygon_id": polygons.ids[row],
        "year": year,
        "status": status,
        "reason": reason,
        "tree_cover": cover,
        "tree_cover_ha": None if cover is None or area is None else cover / 100 * area,
        "area_ha": area,
        "pixels": float(found.pixels[row]),
        "coverage": float(found.coverage[row]),
        "lulc": land_cover.classes[row] if land_cover else None,
        "subregion": regions.classes[row] if regions else None,
        "tiles": _ids(found.tiles[row]),
        "missing_tiles": _ids(found.missing[row]),
        "terms_missing": "",
    }
    if cover is None or area is None:
        return {**dict.fromkeys(SCHEMA.names[:-2]), **result}
    terms = Terms(
        shift=shift_error(cover, found.shifted[row]),
        small_site=small_site_error(area, cover),
        land_cover=_interval(land_cover, row),
        region=_interval(regions, row),
    )
    below, above = terms.combined()
    lulc_lower, lulc_upper = terms.land_cover or (None, None)
    region_lower, region_upper = terms.region or (None, None)
    absent = {"shift": terms.shift, "lulc": terms.land_cover, "subregion": terms.region}
    return {
        **result,
        "error_minus": below,
        "error_plus": above,
        "error": (below + above) / 2,
        "shift_error": share_of(terms.shift, cover),
        "small_site_error": share_of(terms.small_site, cover),
        "lulc_error_lower": share_of(lulc_lower, cover),
        "lulc_error_upper": share_of(lulc_upper, cover),
        "subregion_error_lower": share_of(region_lower, cover),
        "subregion_error_upper": share_of(region_upper, cover),
        "terms_missing": " ".join(name for name, term in absent.items() if term is None),
    }


def _status(row: int, polygons: Polygons, found: Measured) -> tuple[str, str]:
    """One word, and what there is to say about it."""
    reasons = [polygons.problems[row]]
    if polygons.geometry[row] is None:
        return "unusable_geometry", "; ".join(filter(None, reasons))
    for problem, tiles in (("missing", found.missing[row]), ("unreadable", found.unreadable[row])):
        if tiles:
            noun = "tile" if len(tiles) == 1 else "tiles"
            reasons.append(f"{len(tiles)} {noun} {problem}: {_ids(tiles)}")
    if not (found.tiles[row] or found.missing[row] or found.unreadable[row]):
        status = "outside_grid"
        reasons.append("no tile of the grid lies under it")
    elif np.isnan(found.tree_cover[row]):
        status = "no_data"
        if found.coverage[row] > 0:
            reasons.append("smaller than a twentieth of a pixel")
        elif found.tiles[row]:
            reasons.append("the tiles hold no data there")
    elif found.coverage[row] < COMPLETE:
        status = "partial"
        reasons.append(f"tree cover is known for {found.coverage[row]:.1%} of its area")
    else:
        status = "complete"
    return status, "; ".join(filter(None, reasons))


def _interval(lookup: Lookup | None, row: int) -> tuple[float, float] | None:
    name = lookup.classes[row] if lookup else None
    interval = lookup.table.get(name) if lookup and name is not None else None
    return (interval.lower, interval.upper) if interval else None


def _known(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _ids(tiles: Sequence[Tile]) -> str:
    return " ".join(tile.key for tile in tiles)
