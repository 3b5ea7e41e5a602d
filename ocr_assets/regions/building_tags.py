"""Census codes of every building, for as many buildings as there are.

Belongs here: cutting the country into tiles that fit into memory, finding the block of each
building, the columns of the tagged table, and the account of every row.
Does not belong here: reading Overture (``overture.py``), and tagging a handful of footprints while
a region is computed (``geographies.py``, whose search this uses).

A building belongs to the tile in which its bounding box begins, so each is in exactly one. It
belongs to the block that holds a representative point of its footprint, so that a footprint that
crosses blocks is still one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import shapely

from ocr_assets.geoparquet import (
    BBOX_TYPE,
    bbox_array,
    hilbert_order,
    lineage_of,
    merge_geoparquet,
    open_geoparquet,
    wkb_array,
    write_geoparquet,
)
from ocr_assets.regions import geographies as codes
from ocr_assets.regions.footprints import Footprints, usable_footprints
from ocr_assets.regions.geographies import read_geographies, tag_buildings
from ocr_assets.regions.grid import CONUS_WINDOW
from ocr_assets.regions.overture import RowGroups
from ocr_assets.vector import Bounds, Features

ROWS_PER_TILE = 250_000
"""About how many buildings a tile may have: with their blocks they take some 0.7 GB."""

SMALLEST_TILE = 1 / 64
"""Degrees. Smaller tiles would not make less of a single tower block."""

TAGGED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.string())
            for name in (
                "block_geoid",
                "block_group_geoid",
                "tract_geoid",
                "county_geoid",
                "state_fips",
                "county_fips",
                "tract_fips",
                "block_group_fips",
                "block_fips",
                "state_abbrev",
                "county_name",
            )
        ),
        pa.field("geometry", pa.binary(), nullable=False),
        pa.field("bbox", BBOX_TYPE, nullable=False),
    ]
)
"""Columns of the tagged buildings, in order; ``id`` is Overture's and the key."""


class TagError(ValueError):
    """Buildings that cannot be tagged, or whose account does not balance."""


@dataclass(frozen=True)
class TagReport:
    """What became of the buildings: ``read == duplicates + invalid_geometry + written``.

    Attributes:
        read: rows of the source.
        duplicates: further rows with an id that was there already.
        invalid_geometry: no usable polygon, even after repair.
        written: rows of the tagged table.
        without_code: how many of the rows written lie in no block.
        repaired: how many of the rows written have a repaired polygon.
    """

    read: int = 0
    duplicates: int = 0
    invalid_geometry: int = 0
    written: int = 0
    without_code: int = 0
    repaired: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.read == self.duplicates + self.invalid_geometry + self.written

    def __add__(self, other: TagReport) -> TagReport:
        mine, theirs = asdict(self), asdict(other)
        return TagReport(**{name: mine[name] + theirs[name] for name in mine})

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class TablePlace:
    """A GeoParquet file: its path, and the filesystem it is on (None: the local disk)."""

    path: str
    filesystem: pyarrow.fs.FileSystem | None = None

    def open(self) -> pq.ParquetFile:
        """The open file."""
        if self.filesystem is None:
            return open_geoparquet(self.path)
        return open_geoparquet(self.filesystem.open_input_file(self.path))


def tag_all_buildings(
    buildings: TablePlace,
    blocks: TablePlace,
    counties: pa.Table,
    work: Path,
    target: Path,
    lineage: Mapping[str, Any],
    *,
    rows_per_tile: int = ROWS_PER_TILE,
    advance: Callable[[str], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> TagReport:
    """Give every building the codes of its census block and write one table of all.

    Tile by tile: a tile that an earlier, broken-off call with the same lineage finished is not
    done again. Of blocks that share the point the one with the smallest code wins; of rows with
    the same id in a tile the first one along the Hilbert curve stays.

    Args:
        buildings: with ``id``, ``geometry`` and exact ``bbox``, as
            :func:`ocr_assets.regions.overture.extract_features` writes them.
        blocks: outlines of blocks, as :func:`ocr_assets.regions.census.write_outlines` writes them.
        counties: table of :func:`ocr_assets.regions.geographies.read_geographies`, for names.
        work: local folder for finished tiles.
        target: file to write: columns of :data:`TAGGED_SCHEMA`; it appears when it is whole.
        lineage: JSON-ready; kept in the file.
        rows_per_tile: about how many buildings are in memory at once.
        begin, advance: told the number of tiles, and of each one that is done.

    Raises:
        TagError: rows were lost or counted twice; nothing is written.
        ocr_assets.geoparquet.GeoParquetError: a table is not readable.
    """
    with buildings.open() as file:
        groups = RowGroups.of(file)
        tiles = spatial_tiles(groups, rows_per_tile)
        begin(len(tiles))
        total = TagReport()
        parts = []
        for tile in tiles:
            part = work / f"tile-{'_'.join(f'{edge:.6f}' for edge in tile)}.parquet"
            total += _tile(part, file, groups, tile, blocks, counties, lineage)
            parts.append(part)
            advance(part.stem)
    if total.read != int(groups.rows.sum()) or not total.balanced:
        raise TagError(
            f"{buildings.path} has {int(groups.rows.sum())} buildings, but the account is "
            f"{total.to_dict()}; delete {work} and run again"
        )
    if parts:
        merge_geoparquet(parts, target, lineage)
    else:
        write_geoparquet(TAGGED_SCHEMA.empty_table(), target, lineage)
    return total


def spatial_tiles(groups: RowGroups, most_rows: int) -> list[Bounds]:
    """Cut the area of all features into tiles of about ``most_rows`` features at most.

    Tiles are half-open (west and south edges belong to them), squares of a power of two of
    degrees, and in a fixed order. The number of features of a tile is estimated from the row
    groups, as if each spread its features evenly.
    """
    if not len(groups.rows):
        return []
    west, south = np.floor(np.min(groups.corners[:, [0, 2]], axis=0))
    # The largest corner has to lie inside the half-open tiles.
    span = np.max(groups.corners[:, [1, 3]] - [west, south]) + 1e-9
    size = 2.0 ** np.ceil(np.log2(max(span, 1.0)))
    return [*_split(groups, (west, south, west + size, south + size), most_rows)]


def _split(groups: RowGroups, tile: Bounds, most_rows: int) -> Iterator[Bounds]:
    expected = _expected_rows(groups, tile)
    west, south, east, north = tile
    if expected == 0:
        return
    if expected <= most_rows or east - west <= SMALLEST_TILE:
        yield tile
        return
    x, y = (west + east) / 2, (south + north) / 2
    quarters = (west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north)
    for quarter in quarters:
        yield from _split(groups, quarter, most_rows)


def _expected_rows(groups: RowGroups, tile: Bounds) -> float:
    """Estimated number of features that begin in a tile; 0 only if there can be none."""
    west, south, east, north = tile
    low_x, high_x, low_y, high_y = groups.corners.T
    touching = (low_x < east) & (high_x >= west) & (low_y < north) & (high_y >= south)
    share = np.ones(len(groups.rows))
    for low, high, start, stop in ((low_x, high_x, west, east), (low_y, high_y, south, north)):
        length = high - low
        inside = np.minimum(high, stop) - np.maximum(low, start)
        share *= np.where(length > 0, inside / np.where(length > 0, length, 1), 1)
    # Features on an edge have no width but are there.
    return float((np.maximum(share, 1e-9) * groups.rows)[touching].sum())


def _tile(
    part: Path,
    file: pq.ParquetFile,
    groups: RowGroups,
    tile: Bounds,
    blocks: TablePlace,
    counties: pa.Table,
    lineage: Mapping[str, Any],
) -> TagReport:
    expected = {**lineage, "tile": list(tile)}
    kept = lineage_of(part)
    if kept is not None and {name: kept.get(name) for name in expected} == expected:
        return TagReport(**kept["report"])
    rows = _rows_of(file, groups, tile)
    footprints = usable_footprints(
        Features(rows.select(["id"]), shapely.from_wkb(rows["geometry"].to_numpy())), str(part)
    )
    table = TAGGED_SCHEMA.empty_table()
    unique = 0
    if len(footprints):
        bounds = tuple(float(edge) for edge in shapely.total_bounds(footprints.geometry))
        outlines = read_geographies(
            blocks.path,
            "block",
            bounds=(bounds[0], bounds[1], bounds[2], bounds[3]),
            filesystem=blocks.filesystem,
        )
        table = tagged_table(footprints, outlines, counties)
        unique = table.num_rows
    report = TagReport(
        read=rows.num_rows,
        duplicates=len(footprints) - unique,
        invalid_geometry=footprints.invalid,
        written=unique,
        without_code=table["block_geoid"].null_count,
        repaired=footprints.repaired,
    )
    write_geoparquet(table, part, {**expected, "report": report.to_dict()})
    return report


def _rows_of(file: pq.ParquetFile, groups: RowGroups, tile: Bounds) -> pa.Table:
    """The rows that begin in a tile."""
    west, south, east, north = tile
    found = []
    for number in groups.beginning_in(tile):
        rows = file.read_row_group(number, columns=["id", "geometry", "bbox"])
        x, y = pc.struct_field(rows["bbox"], "xmin"), pc.struct_field(rows["bbox"], "ymin")
        inside = pc.and_(
            pc.and_(pc.greater_equal(x, west), pc.less(x, east)),
            pc.and_(pc.greater_equal(y, south), pc.less(y, north)),
        )
        found.append(rows.filter(inside))
    return pa.concat_tables(found)


def tagged_table(footprints: Footprints, blocks: pa.Table, counties: pa.Table) -> pa.Table:
    """The columns of :data:`TAGGED_SCHEMA` for footprints, each building once, in spatial order.

    Args:
        footprints: with ids; their own codes are kept where they have them.
        blocks, counties: tables of :func:`ocr_assets.regions.geographies.read_geographies`.
    """
    tagged = tag_buildings(footprints, {"block": blocks})
    geoid = tagged.geoid
    county = pc.utf8_slice_codeunits(geoid, 0, 5)
    at = pc.index_in(county, counties["GEOID"].combine_chunks())
    table = pa.table(
        [
            tagged.building_id,
            geoid,
            pc.utf8_slice_codeunits(geoid, 0, 12),
            pc.utf8_slice_codeunits(geoid, 0, 11),
            county,
            codes.state_fips(geoid),
            codes.county_fips(geoid),
            codes.tract_fips(geoid),
            codes.block_group_fips(geoid),
            codes.block_fips(geoid),
            tagged.state,
            counties["NAME"].combine_chunks().take(at),
            wkb_array(tagged.geometry),
            bbox_array(tagged.geometry),
        ],
        schema=TAGGED_SCHEMA,
    )
    table = table.take(hilbert_order(table, CONUS_WINDOW.bounds, "id"))
    return table.take(_first_of_each(table["id"]))


def _first_of_each(ids: pa.ChunkedArray) -> pa.Array:
    """Positions, ascending, of the first row of each id."""
    seen = pa.table({"id": ids, "row": pa.array(np.arange(len(ids)))})
    first = seen.group_by("id").aggregate([("row", "min")])["row_min"]
    return first.combine_chunks().sort()
