"""Census geographies: their codes and outlines, and which of them holds a footprint.

Belongs here: the parts of a census code, reading outlines of blocks, tracts, counties, states and
the nation into one form, and tagging footprints that carry no codes.
Does not belong here: statistics of the buildings in a geography (``statistics.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import BBOX_TYPE, bbox_array, wkb_array
from ocr_assets.regions.footprints import Footprints
from ocr_assets.vector import (
    Bounds,
    Features,
    VectorFileError,
    is_parquet,
    read_features,
    require_columns,
)

Level = Literal["block", "tract", "county", "state", "nation"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""From the finest to the coarsest."""

CODE_LENGTH: dict[Level, int] = {"block": 15, "tract": 11, "county": 5, "state": 2, "nation": 0}
"""Digits of a code. A code of one level begins with the codes of the levels above it."""

NATION = "US"
"""Code of the nation."""

_STATES = (
    "01:AL 02:AK 04:AZ 05:AR 06:CA 08:CO 09:CT 10:DE 11:DC 12:FL 13:GA 15:HI 16:ID 17:IL "
    "18:IN 19:IA 20:KS 21:KY 22:LA 23:ME 24:MD 25:MA 26:MI 27:MN 28:MS 29:MO 30:MT 31:NE "
    "32:NV 33:NH 34:NJ 35:NM 36:NY 37:NC 38:ND 39:OH 40:OK 41:OR 42:PA 44:RI 45:SC 46:SD "
    "47:TN 48:TX 49:UT 50:VT 51:VA 53:WA 54:WV 55:WI 56:WY 60:AS 66:GU 69:MP 72:PR 74:UM "
    "78:VI"
)

STATES: dict[str, str] = dict(pair.split(":") for pair in _STATES.split())
"""State code to postal abbreviation: the states, the District of Columbia, the territories."""

_NAMED: tuple[Level, ...] = ("county", "state", "nation")

_CODE = ("GEOID", "GEOID20", "id")


def geography_schema(level: Level) -> pa.Schema:
    """Columns of a geography table: GEOID, STUSPS of states, NAME from counties up, outline."""
    text = [("STUSPS", pa.string())] if level == "state" else []
    text += [("NAME", pa.string())] if level in _NAMED else []
    return pa.schema(
        [
            pa.field("GEOID", pa.string(), nullable=False),
            *text,
            ("geometry", pa.binary()),
            ("bbox", BBOX_TYPE),
        ]
    )


class GeographyError(VectorFileError):
    """A table of geographies with codes that are wrong for its level, or that repeat."""


def state_fips(geoid: pa.Array) -> pa.Array:
    """State code, digits 1-2 of a code."""
    return pc.utf8_slice_codeunits(geoid, 0, 2)


def county_fips(geoid: pa.Array) -> pa.Array:
    """County within its state, digits 3-5 of a code."""
    return pc.utf8_slice_codeunits(geoid, 2, 5)


def tract_fips(geoid: pa.Array) -> pa.Array:
    """Tract within its county, digits 6-11 of a code."""
    return pc.utf8_slice_codeunits(geoid, 5, 11)


def block_group_fips(geoid: pa.Array) -> pa.Array:
    """Block group within its tract, digit 12 of a code."""
    return pc.utf8_slice_codeunits(geoid, 11, 12)


def block_fips(geoid: pa.Array) -> pa.Array:
    """Block within its tract, digits 12-15 of a code; the first is the block group."""
    return pc.utf8_slice_codeunits(geoid, 11, 15)


def read_geographies(
    source: str | Path,
    level: Level,
    *,
    bounds: Bounds | None = None,
    layer: str | None = None,
    filesystem: pyarrow.fs.FileSystem | None = None,
    where: ds.Expression | None = None,
) -> pa.Table:
    """Read the outlines of one level into the columns of :func:`geography_schema`, by GEOID.

    Args:
        source, bounds, layer, filesystem, where: see :func:`ocr_assets.vector.read_features`. The
            code is in ``GEOID``, ``GEOID20`` or ``id``, the name in ``NAME`` or ``name``; the
            nation needs neither.

    Returns:
        Invalid outlines are repaired; an outline that cannot be is null, its code and name stay.

    Raises:
        GeographyError: a code is missing, has the wrong length for ``level``, names no state, or
            repeats.
        ocr_assets.vector.VectorFileError: the file is not readable, or lacks the code column.
    """
    features = read_features(
        source,
        {*_CODE, "NAME", "name", "STUSPS"},
        bounds=bounds,
        layer=layer,
        filesystem=filesystem,
        where=where,
    )
    geometry = shapely.make_valid(features.geometry, method="structure", keep_collapsed=False)
    geometry[shapely.is_empty(geometry)] = None
    if level == "nation":
        geoid = pa.array([NATION] * len(geometry))
    else:
        require_columns(features, source, _CODE)
        geoid = _text(features, *_CODE)
    require_geoids(geoid, level, source)
    columns = {
        "GEOID": geoid,
        "geometry": wkb_array(geometry),
        "bbox": bbox_array(geometry),
        "STUSPS": pc.coalesce(_text(features, "STUSPS"), _postal(geoid)),
        "NAME": _text(features, "NAME", "name"),
    }
    if level == "nation":
        columns["NAME"] = pc.fill_null(columns["NAME"], "United States")
    schema = geography_schema(level)
    return pa.table([columns[name] for name in schema.names], schema=schema).sort_by("GEOID")


@dataclass(frozen=True)
class GeographyFile:
    """Outlines of one level in a file, read a state at a time: those of all blocks fill a machine.

    Other formats than GeoParquet are read whole, once. Attributes, and errors of all that reads:
    see :func:`read_geographies`.
    """

    source: str | Path
    level: Level
    layer: str | None = None
    filesystem: pyarrow.fs.FileSystem | None = None

    def whole(self) -> pa.Table:
        """All outlines."""
        return read_geographies(
            self.source, self.level, layer=self.layer, filesystem=self.filesystem
        )

    def of_state(self, state: str) -> pa.Table:
        """The outlines whose code begins with the code of a state."""
        if self._codes is None:
            return in_state(self._once, state)
        name, states = self._codes
        if state not in states:
            return geography_schema(self.level).empty_table()
        # A colon sorts after every digit.
        where = (ds.field(name) >= state) & (ds.field(name) < f"{state}:")
        return read_geographies(self.source, self.level, filesystem=self.filesystem, where=where)

    @cached_property
    def _once(self) -> pa.Table:
        return self.whole()

    @cached_property
    def _codes(self) -> tuple[str, frozenset[str]] | None:
        """The column of codes and the states in it, if a state's rows can be read alone.

        What has to hold for all codes together is looked at here.
        """
        if self.filesystem is None and not is_parquet(self.source):
            return None
        try:
            dataset = ds.dataset(str(self.source), format="parquet", filesystem=self.filesystem)
            name = next((name for name in _CODE if name in dataset.schema.names), None)
            if name is None or dataset.schema.field(name).type not in (
                pa.string(),
                pa.large_string(),
            ):
                return None
            geoid = dataset.to_table(columns=[name])[name].combine_chunks().cast(pa.string())
        except (OSError, pa.ArrowException) as error:
            raise VectorFileError(f"cannot read {self.source} as GeoParquet: {error}") from error
        require_geoids(geoid, self.level, self.source)
        return name, frozenset(state_fips(geoid).unique().to_pylist())


def in_state(geographies: pa.Table, state: str) -> pa.Table:
    """The rows of a table whose code begins with the code of a state."""
    return geographies.filter(pc.starts_with(geographies["GEOID"], state))


def tag_buildings(footprints: Footprints, geographies: Mapping[Level, pa.Table]) -> Footprints:
    """Give codes, state and county to the footprints that have none.

    A representative point inside the footprint decides, by the finest level that holds it. On a
    shared boundary the smallest code wins. A footprint outside every geography stays without a
    code; :class:`ocr_assets.regions.buildings.BuildingReport` counts it.

    Args:
        geographies: tables of :func:`read_geographies` by level. County names come from the county
            table.
    """
    found = np.full(len(footprints), None, object)
    found[:] = footprints.geoid.to_pylist()
    for level in LEVELS[:-1]:
        open_ = np.array([code is None for code in found], bool)
        if level in geographies and open_.any():
            points = shapely.point_on_surface(footprints.geometry[open_])
            found[open_] = _holders(points, geographies[level])
    geoid = pa.array(found, pa.string())
    county = footprints.county
    if "county" in geographies:
        counties = geographies["county"]
        at = pc.index_in(pc.utf8_slice_codeunits(geoid, 0, 5), counties["GEOID"])
        county = pc.coalesce(county, counties["NAME"].combine_chunks().take(at))
    return replace(
        footprints,
        geoid=geoid,
        state=pc.coalesce(footprints.state, _postal(geoid)),
        county=county,
    )


def _holders(points: NDArray[np.object_], geographies: pa.Table) -> NDArray[np.object_]:
    """Code of the geography that holds each point, None outside all of them."""
    outlines = shapely.from_wkb(geographies["geometry"].to_numpy())
    # Outlines have thousands of vertices and points one, so the outlines do the asking: each is
    # then prepared once for all of its points.
    outline, point = shapely.STRtree(points).query(outlines, predicate="intersects")
    codes = np.full(len(points), None, object)
    # The table is in the order of its codes: writing from the last to the first leaves the
    # smallest.
    order = np.argsort(-outline, kind="stable")
    geoid = geographies["GEOID"].to_numpy()
    codes[point[order]] = geoid[outline[order]]
    return codes


def _postal(geoid: pa.Array) -> pa.Array:
    at = pc.index_in(state_fips(geoid), pa.array(list(STATES)))
    return pa.array(list(STATES.values())).take(at)


def _text(features: Features, *names: str) -> pa.Array:
    for name in names:
        if name in features.table.column_names:
            return features.table[name].combine_chunks().cast(pa.string())
    return pa.nulls(features.table.num_rows, pa.string())


def require_geoids(geoid: pa.Array, level: Level, source: str | Path) -> None:
    """Raise :class:`GeographyError` unless these are codes of one level, each once."""
    length = CODE_LENGTH[level]
    if level == "nation":
        if len(geoid) != 1:
            raise GeographyError(f"{source} holds {len(geoid)} nations, not one")
        return
    suffix = "[A-Z]{0,2}" if level == "block" else ""
    good = pc.match_substring_regex(geoid, rf"^\d{{{length}}}{suffix}$")
    good = pc.and_(good, pc.is_in(state_fips(geoid), pa.array(list(STATES))))
    wrong = geoid.filter(pc.invert(pc.fill_null(good, False)))
    if len(wrong):
        raise GeographyError(
            f"{source} holds {len(wrong)} codes that are no {level} codes of {length} digits with "
            f"a known state, first {wrong[0].as_py()!r}"
        )
    counts = geoid.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise GeographyError(
            f"{source} lists the {level} {repeated.field('values')[0].as_py()} more than once"
        )
