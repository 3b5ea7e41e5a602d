"""Outlines of the US Census, from the published shapefiles to GeoParquet.

Belongs here: which states there are, and turning zipped shapefiles of one level into one table.
Does not belong here: fetching the zips, and reading the tables for their use (``geographies.py``).

The published coordinates are NAD 83. They are taken as WGS 84 without a shift: the two differ by
less than two metres, which is less than the outlines' own error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyogrio
import pyproj
import shapely

from ocr_assets.geoparquet import BBOX_TYPE, GeoParquetWriter, bbox_array, wkb_array
from ocr_assets.regions.geographies import NATION, STATES, Level, require_geoids, state_fips
from ocr_assets.vector import VectorFileError

_BEYOND = frozenset({"02", "15", "60", "66", "69", "72", "74", "78"})

CONTIGUOUS = tuple(code for code in STATES if code not in _BEYOND)
"""Codes of the 48 contiguous states and the District of Columbia."""

_NAMES = (
    "Alabama|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|District of Columbia|"
    "Florida|Georgia|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|"
    "Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|"
    "New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|"
    "Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|"
    "West Virginia|Wisconsin|Wyoming"
)

STATE_NAMES: dict[str, str] = dict(zip(CONTIGUOUS, _NAMES.split("|"), strict=True))
"""Code to name of the contiguous states."""

NATION_BOX = (-125.0, 24.0, -66.0, 50.0)
"""West, south, east, north in degrees, to which the outline of the nation is cut."""

_ROWS_AT_ONCE = 65_536

# Of the coarse outlines only these columns are of use; of the others all are kept.
_COLUMNS: Mapping[Level, tuple[str, ...]] = {
    "state": ("GEOID", "STUSPS", "NAME"),
    "nation": ("GEOID", "NAME"),
}


class UnknownStateError(ValueError):
    """A state that is not one of the contiguous United States."""


@dataclass(frozen=True)
class OutlineReport:
    """What became of the outlines that were read: ``read == elsewhere + written``.

    Attributes:
        read: rows of the shapefiles.
        elsewhere: rows of states that are not wanted.
        written: rows of the table.
    """

    read: int
    elsewhere: int
    written: int

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def state_codes(states: Iterable[str]) -> tuple[str, ...]:
    """Codes of contiguous states, in order and each once.

    A state is given by its code (``06``), postal abbreviation (``CA``) or name (``California``).
    Raises :class:`UnknownStateError` for any other text.
    """
    known = {code: code for code in CONTIGUOUS}
    known |= {STATES[code].lower(): code for code in CONTIGUOUS}
    known |= {name.lower(): code for code, name in STATE_NAMES.items()}
    codes = set()
    for state in states:
        if state.strip().lower() not in known:
            raise UnknownStateError(
                f"{state!r} is not a contiguous state of the United States; give a name like "
                "California, an abbreviation like CA or a code like 06"
            )
        codes.add(known[state.strip().lower()])
    return tuple(sorted(codes))


def write_outlines(
    zips: Sequence[Path],
    level: Level,
    states: Sequence[str],
    target: Path,
    lineage: Mapping[str, Any],
) -> OutlineReport:
    """Write the outlines of one level into one GeoParquet file, in order of code.

    One shapefile is in memory at a time, as encoded geometries. The code is in the column
    ``GEOID``; columns of the source stay, but states keep code, abbreviation and name only, and
    the nation code and name. The nation is cut to :data:`NATION_BOX`.

    Args:
        zips: zipped shapefiles, of one state each in order of code, or of all states.
        states: codes of the wanted states; counties and states of others are left out.
        target: file to write; it appears when it is whole.
        lineage: see :class:`ocr_assets.geoparquet.GeoParquetWriter`.

    Raises:
        VectorFileError: a file is damaged, in other coordinates, or has other columns than the
            first.
        ocr_assets.regions.geographies.GeographyError: a code is wrong for its level or repeats.
    """
    schema = _read(zips[0], level, limit=0).schema.append(pa.field("bbox", BBOX_TYPE))
    schema = schema.set(schema.get_field_index("geometry"), pa.field("geometry", pa.binary()))
    read = 0
    with GeoParquetWriter(target, schema, lineage) as writer:
        for path in zips:
            table = _read(path, level)
            read += table.num_rows
            if missing := [name for name in schema.names[:-1] if name not in table.schema.names]:
                raise VectorFileError(f"{path} has no column {missing[0]!r}; {zips[0]} has")
            if level != "nation":
                table = table.filter(pc.is_in(state_fips(table["GEOID"]), pa.array(list(states))))
            require_geoids(table["GEOID"].combine_chunks(), level, path)
            order = pc.sort_indices(table["GEOID"])
            for start in range(0, table.num_rows, _ROWS_AT_ONCE):
                rows = table.take(order[start : start + _ROWS_AT_ONCE])
                writer.write(_with_boxes(rows, level))
    return OutlineReport(read, read - writer.rows, writer.rows)


def _read(path: Path, level: Level, limit: int | None = None) -> pa.Table:
    """Rows of a zipped shapefile: GEOID, the other columns that are kept, and encoded geometry."""
    try:
        meta, table = pyogrio.read_arrow(path, max_features=limit)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError) as error:
        raise VectorFileError(f"cannot read {path}: {error}; download it again") from error
    if meta["crs"] is None or not pyproj.CRS.from_user_input(meta["crs"]).is_geographic:
        raise VectorFileError(f"{path} is in {meta['crs']}, expected longitude and latitude")
    shape = meta["geometry_name"] or "wkb_geometry"
    code = next((name for name in ("GEOID", "GEOID20") if name in table.schema.names), None)
    if code is None:
        raise VectorFileError(f"{path} has no column 'GEOID'; it has {table.schema.names}")
    wanted = _COLUMNS.get(level, table.schema.names)
    kept = [name for name in table.schema.names if name in wanted and name not in (shape, code)]
    geoid = pa.repeat(NATION, table.num_rows) if level == "nation" else table[code]
    # One array may hold more bytes than 32-bit offsets can count.
    return pa.table(
        {
            "GEOID": geoid.cast(pa.string()),
            **{name: table[name] for name in kept},
            "geometry": table[shape].cast(pa.large_binary()),
        }
    )


def _with_boxes(rows: pa.Table, level: Level) -> pa.Table:
    geometry = shapely.from_wkb(rows["geometry"].to_numpy())
    if level == "nation":
        outline = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
        geometry = shapely.intersection(outline, shapely.box(*NATION_BOX))
    place = rows.schema.get_field_index("geometry")
    rows = rows.set_column(place, "geometry", wkb_array(geometry))
    return rows.append_column("bbox", bbox_array(geometry))
