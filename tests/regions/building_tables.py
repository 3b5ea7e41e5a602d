"""Synthetic footprints and building tables that several test modules use."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.footprints import Footprints
from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.regions.risk import CLIMATES, VARIABLES, risk_score

WINDOW = Window(60_000, 60_060, 72_000, 72_080)


def grid(rows: int, cols: int) -> RegionGrid:
    """:data:`WINDOW` cut into regions of this size."""
    return RegionGrid("test", WINDOW, rows, cols, ())


def footprints(
    longitude: np.ndarray,
    latitude: np.ndarray,
    ids: Sequence[str] | None = None,
    geoid: Sequence[str | None] | None = None,
) -> Footprints:
    """Small square footprints around the given centroids."""
    n = len(longitude)
    half = 1e-5
    return Footprints(
        geometry=np.asarray(
            shapely.box(longitude - half, latitude - half, longitude + half, latitude + half)
        ),
        building_id=pa.array(ids or [f"b{i:05}" for i in range(n)], pa.string()),
        geoid=pa.array(geoid or [None] * n, pa.string()),
        state=pa.nulls(n, pa.string()),
        county=pa.nulls(n, pa.string()),
        invalid=0,
        repaired=0,
    )


def building_table(geoid: Sequence[str | None], seed: int = 0) -> pa.Table:
    """A region's table with these codes: random risk with many zeros, and scattered places."""
    n = len(geoid)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-106, -105, n), rng.uniform(39, 40, n)
    geometry = np.asarray(shapely.box(x, y, x + 1e-4, y + 1e-4))
    values = {
        name: np.where(rng.random(n) < 0.3, 0, rng.lognormal(-3, 2, n)).astype(np.float32)
        for name in VARIABLES
    }
    return pa.table(
        [
            pa.array([f"{seed}-{i:06}" for i in range(n)]),
            *values.values(),
            *(risk_score(values[f"rps_{year}"], "corrected") for year in CLIMATES),
            pa.array(geoid, pa.string()),
            pa.repeat("CO", n),
            pa.repeat("Boulder", n),
            pa.repeat("y9_x16", n),
            wkb_array(geometry),
            bbox_array(geometry),
        ],
        schema=building_schema(FIRE),
    )


def write_region(table: pa.Table, path: Path) -> Path:
    """Write ``table`` and return ``path``."""
    write_geoparquet(table, path, {})
    return path
