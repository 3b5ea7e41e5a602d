"""Building footprints as they come from a source: read, mended, identified.

Belongs here: reading footprints, repairing their geometry, and giving each a stable id.
Does not belong here: the region of a building and its risk (``buildings.py``), and finding the
geography codes of footprints that carry none (``geographies.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import shapely
from numpy.typing import NDArray

from ocr_assets.vector import Bounds, Features, VectorFileError, read_features, require_columns

# Names under which sources carry what we need, the preferred one first.
_ID = ("id", "building_id")
_GEOID = ("GEOID", "block_geoid", "geoid")
_STATE = ("state", "state_abbrev")
_COUNTY = ("county", "county_name")

_CODE = r"^(\d{2}|\d{5}|\d{11}|\d{12}|\d{15}[A-Z]{0,2})$"


@dataclass(frozen=True)
class Footprints:
    """Usable footprints of one source, columns of equal length ``n``.

    Attributes:
        geometry: valid two-dimensional polygons and multipolygons in degrees, shape ``(n,)``.
        building_id: the source's id, or one made from the footprint's shape (see
            :func:`content_id`).
        geoid: census code of the block (15 digits, perhaps with a suffix) or of a larger geography
            that holds the building; null where unknown.
        state, county: postal abbreviation of the state and name of the county; null where unknown.
        invalid: rows of the source that are left out because they have no usable polygon.
        repaired: rows whose invalid polygon was repaired.
    """

    geometry: NDArray[np.object_]
    building_id: pa.Array
    geoid: pa.Array
    state: pa.Array
    county: pa.Array
    invalid: int
    repaired: int

    def __len__(self) -> int:
        return len(self.geometry)


def read_buildings(
    source: str | Path,
    *,
    bounds: Bounds | None = None,
    layer: str | None = None,
    filesystem: pyarrow.fs.FileSystem | None = None,
    require_codes: bool = True,
) -> Footprints:
    """Read the footprints that touch ``bounds`` (west, south, east, north in degrees).

    Args:
        source, layer, filesystem: see :func:`ocr_assets.vector.read_features`. Columns: ``id`` if
            there is one, ``GEOID`` or ``block_geoid``, ``state`` or ``state_abbrev``, ``county`` or
            ``county_name``.
        bounds: usually those of a region's window. The centroid of a footprint lies in its bounding
            box, so every building of the region is among those read. A row without a geometry is in
            no place: each reading of its file counts it as invalid.
        require_codes: whether a missing code column is an error. Without, its values are null, to
            be found by :func:`ocr_assets.regions.geographies.tag_buildings`.

    Raises:
        ocr_assets.vector.MissingColumnError: a code column is missing and ``require_codes`` is set.
        ocr_assets.vector.VectorFileError: the file is not readable, not in longitude and latitude,
            or holds a malformed code.
    """
    features = read_features(
        source,
        {*_ID, *_GEOID, *_STATE, *_COUNTY},
        bounds=bounds,
        layer=layer,
        filesystem=filesystem,
    )
    if require_codes:
        require_columns(features, source, _GEOID, _STATE, _COUNTY)
    return usable_footprints(features, source)


def usable_footprints(features: Features, source: str | Path) -> Footprints:
    """Footprints out of features of ``source`` that were read already; see :func:`read_buildings`.

    Raises :class:`ocr_assets.vector.VectorFileError` for a malformed code.
    """
    geoid = _text(features, _GEOID)
    _require_codes(geoid, source)
    geometry, repaired = _polygons(features.geometry)
    usable = np.array([polygon is not None for polygon in geometry], bool)
    kept = pa.array(usable)
    geometry = geometry[usable]
    return Footprints(
        geometry=geometry,
        building_id=_building_ids(_text(features, _ID).filter(kept), geometry),
        geoid=geoid.filter(kept),
        state=_text(features, _STATE).filter(kept),
        county=_text(features, _COUNTY).filter(kept),
        invalid=int((~usable).sum()),
        repaired=repaired,
    )


def content_id(geometry: NDArray[np.object_]) -> list[str]:
    """Ids that depend on the shape and place of each footprint only: 32 hexadecimal digits.

    The order of rings and the vertex at which a ring starts do not matter.
    """
    return [
        hashlib.blake2b(wkb, digest_size=16).hexdigest()
        for wkb in shapely.to_wkb(shapely.normalize(geometry), byte_order=1, flavor="iso")
    ]


def _building_ids(ids: pa.Array, geometry: NDArray[np.object_]) -> pa.Array:
    missing = np.asarray(ids.is_null())
    if not missing.any():
        return ids
    made = np.full(len(geometry), None, object)
    made[missing] = content_id(geometry[missing])
    return pc.coalesce(ids, pa.array(made, pa.string()))


def _polygons(geometry: NDArray[np.object_]) -> tuple[NDArray[np.object_], int]:
    """Valid polygonal geometries, None where there is none, and how many were repaired."""
    polygons = geometry.copy()
    broken = ~shapely.is_valid(polygons) & ~shapely.is_missing(polygons)
    # The structure method keeps areas only, so a spike vanishes and does not become a line.
    polygons[broken] = shapely.make_valid(
        polygons[broken], method="structure", keep_collapsed=False
    )
    polygonal = np.isin(
        shapely.get_type_id(polygons),
        (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON),
    )
    polygonal &= ~shapely.is_empty(polygons)
    polygons[~polygonal] = None
    return polygons, int((broken & polygonal).sum())


def _text(features: Features, names: Sequence[str]) -> pa.Array:
    """The first of the columns ``names`` that exists as strings, empty text as null."""
    for name in names:
        if name in features.table.column_names:
            column = features.table[name].combine_chunks().cast(pa.string())
            return pc.if_else(pc.equal(column, ""), None, column)
    return pa.nulls(features.table.num_rows, pa.string())


def _require_codes(geoid: pa.Array, source: str | Path) -> None:
    wrong = geoid.filter(pc.invert(pc.match_substring_regex(geoid, _CODE))).drop_null()
    if len(wrong):
        raise VectorFileError(
            f"{source} holds {len(wrong)} values that are no census codes, first "
            f"{wrong[0].as_py()!r}: a code is text of 2 (state), 5 (county), 11 (tract), 12 (block "
            f"group) or 15 (block) digits, leading zero included"
        )
