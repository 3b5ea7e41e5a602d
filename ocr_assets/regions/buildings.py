"""The buildings of a region with their risk: which are its own, what they get, their table.

Belongs here: the region of a building, sampling the risk arrays at it, counting every building
that is not written and why, the columns of the table.
Does not belong here: reading footprints (``footprints.py``), computing risk (``risk.py``), and
cutting the table by county (``building_partitions.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import (
    BBOX_TYPE,
    bbox_array,
    hilbert_order,
    wkb_array,
    write_geoparquet,
)
from ocr_assets.regions.footprints import Footprints, read_buildings
from ocr_assets.regions.geographies import Level, tag_buildings
from ocr_assets.regions.grid import CONUS_WINDOW, RegionGrid, pixel_of
from ocr_assets.regions.kernels import Method
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.vector import Bounds


def building_schema(risk: RiskType) -> pa.Schema:
    """Columns of every building table of a type of risk, in order."""
    return pa.schema(
        [
            pa.field("building_id", pa.string(), nullable=False),
            *(pa.field(name, pa.float32(), nullable=False) for name in risk.variables),
            *(pa.field(one.name, pa.uint8(), nullable=False) for one in risk.classes),
            pa.field("GEOID", pa.string()),
            pa.field("state", pa.string()),
            pa.field("county", pa.string()),
            pa.field("region_id", pa.string(), nullable=False),
            pa.field("geometry", pa.binary(), nullable=False),
            pa.field("bbox", BBOX_TYPE, nullable=False),
        ]
    )


@dataclass(frozen=True)
class BuildingReport:
    """What became of the footprints that were read for a region.

    ``read == elsewhere + duplicates + invalid_geometry + no_data + written``.

    Attributes:
        read: rows of the source that may lie in the region.
        elsewhere: their centroid is in another region, which writes them: not a loss.
        duplicates: further rows of a building that the source lists more than once.
        invalid_geometry: no usable polygon, even after repair.
        no_data: at least one of the risk variables is missing at the building.
        written: rows of the region's table.
        repaired: how many of the rows read have a repaired polygon; these are counted above as
            well.
        without_code: how many of the rows written have no GEOID.
    """

    read: int
    elsewhere: int
    duplicates: int
    invalid_geometry: int
    no_data: int
    written: int
    repaired: int
    without_code: int

    @property
    def balanced(self) -> bool:
        """Whether every row that was read is accounted for."""
        dropped = self.elsewhere + self.duplicates + self.invalid_geometry + self.no_data
        return self.read == dropped + self.written

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class BuildingSource:
    """Where footprints come from, and how those without codes get them.

    Attributes:
        source, layer, filesystem: see :func:`ocr_assets.vector.read_features`.
        geographies: tables of :func:`ocr_assets.regions.geographies.read_geographies` by level, for
            a source without code columns. Without them the source has to have the columns.
    """

    source: str | Path
    layer: str | None = None
    filesystem: pyarrow.fs.FileSystem | None = None
    geographies: Mapping[Level, pa.Table] | None = None

    def read(self, bounds: Bounds) -> Footprints:
        """The footprints that touch ``bounds`` (west, south, east, north in degrees)."""
        footprints = read_buildings(
            self.source,
            bounds=bounds,
            layer=self.layer,
            filesystem=self.filesystem,
            require_codes=self.geographies is None,
        )
        if self.geographies is None:
            return footprints
        return tag_buildings(footprints, self.geographies)


def building_pixels(
    geometry: NDArray[np.object_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Absolute ``(row, col)`` of the pixel that holds each building's centroid, shape ``(n,)``.

    The centroid is planar, in degrees. Its pixel alone decides both the building's region and its
    values, so no building is between two regions or in both.
    """
    centroid = shapely.centroid(geometry)
    return pixel_of(shapely.get_x(centroid), shapely.get_y(centroid))


def sample_buildings(
    risk: RiskType,
    footprints: Footprints,
    arrays: Mapping[str, NDArray[np.float32]],
    grid: RegionGrid,
    region_id: str,
    method: Method,
) -> tuple[pa.Table, BuildingReport]:
    """The table of a region's buildings, in spatial order, and the account of the others.

    Args:
        risk: the type of risk.
        footprints: at least the footprints that touch the region.
        arrays: the variables of the type, each over the window of the region.
        method: how values are scored.

    Returns:
        A table of :func:`building_schema`, perhaps without rows, and its report. Of several rows
        with one building id the row with the smallest GEOID stays. The order is along a Hilbert
        curve over the CONUS grid, ties by building id.

    Raises:
        ValueError: a variable is missing or has another shape than the region.
        ocr_assets.regions.grid.UnknownRegionError: the region is not in the grid.
    """
    window = grid.region_window(region_id)
    for name in risk.variables:
        if name not in arrays:
            raise ValueError(f"region {region_id}: the risk arrays lack {name!r}")
        if arrays[name].shape != window.shape:
            raise ValueError(
                f"region {region_id}: {name} has shape {arrays[name].shape}, its window "
                f"{window.shape}"
            )

    row, col = building_pixels(footprints.geometry)
    mine = np.flatnonzero(
        (row >= window.row_start)
        & (row < window.row_stop)
        & (col >= window.col_start)
        & (col < window.col_stop)
    )
    unique = mine[_first_of_each(footprints, mine)]
    pixel = row[unique] - window.row_start, col[unique] - window.col_start
    values = {name: arrays[name][pixel].astype(np.float32, copy=False) for name in risk.variables}
    complete = ~np.isnan([*values.values()]).any(axis=0)
    written = unique[complete]

    kept = {name: column[complete] for name, column in values.items()}
    table = _table(risk, footprints, written, kept, region_id, method)
    report = BuildingReport(
        read=len(footprints) + footprints.invalid,
        elsewhere=len(footprints) - len(mine),
        duplicates=len(mine) - len(unique),
        invalid_geometry=footprints.invalid,
        no_data=len(unique) - len(written),
        written=len(written),
        repaired=footprints.repaired,
        without_code=table["GEOID"].null_count,
    )
    return table, report


def write_region_buildings(table: pa.Table, path: Path, lineage: Mapping[str, Any]) -> None:
    """Write a region's table as GeoParquet; see :func:`ocr_assets.geoparquet.write_geoparquet`."""
    write_geoparquet(table, path, lineage)


def _first_of_each(footprints: Footprints, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions in ``rows``, ascending, of the row of each building id with the smallest GEOID."""
    keys = pa.table(
        {
            "id": footprints.building_id.take(pa.array(rows)),
            "geoid": footprints.geoid.take(pa.array(rows)),
        }
    )
    # A footprint on a block boundary is often listed once per block that it touches.
    order = pc.sort_indices(keys, [("id", "ascending"), ("geoid", "ascending")])
    ids = keys["id"].take(order).combine_chunks()
    first = np.ones(len(rows), bool)
    first[1:] = np.asarray(pc.not_equal(ids[1:], ids[:-1]))
    return np.sort(np.asarray(order)[first])


def _table(
    risk: RiskType,
    footprints: Footprints,
    rows: NDArray[np.intp],
    values: Mapping[str, NDArray[np.float32]],
    region_id: str,
    method: Method,
) -> pa.Table:
    taken = pa.array(rows)
    geometry = footprints.geometry[rows]
    table = pa.table(
        [
            footprints.building_id.take(taken),
            *values.values(),
            *(one.classify(values[one.variable], method) for one in risk.classes),
            footprints.geoid.take(taken),
            footprints.state.take(taken),
            footprints.county.take(taken),
            pa.repeat(region_id, len(rows)),
            wkb_array(geometry),
            bbox_array(geometry),
        ],
        schema=building_schema(risk),
    )
    return table.take(hilbert_order(table, CONUS_WINDOW.bounds, "building_id"))
