"""A tiny store of regions, and what holds of any."""

from __future__ import annotations

from typing import Any

import numpy as np

from resources.icechunk_store import (
    RasterTemplate,
    RegionStore,
    RegionWrite,
)

STEP = 0.25
ROWS, COLS, CHUNK = 10, 18, 4
REGIONS = {
    f"y{y}_x{x}": (slice(y * 8, min(y * 8 + 8, ROWS)), slice(x * 8, min(x * 8 + 8, COLS)))
    for y in range(2)
    for x in range(3)
}


def make_template(**changes: Any) -> RasterTemplate:
    """A grid of 10 x 18 pixels in 2 x 3 regions; the last row and column are cut."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "latitude": 30.1 + STEP * np.arange(ROWS),
        "longitude": -100.3 + STEP * np.arange(COLS),
        "step": STEP,
        "crs": "EPSG:4326",
        "chunks": (CHUNK, CHUNK),
        "variables": {"rps": {"units": "%", "long_name": "risk"}, "bp": {"units": "1"}},
        "regions": REGIONS,
        "attrs": {"title": "Synthetic"},
    }
    return RasterTemplate(**{**fields, **changes})


def make_region(region_id: str, value: float, **entry: Any) -> RegionWrite:
    """A region that has one value everywhere, and names it in its entry."""
    rows, cols = REGIONS[region_id]
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    return RegionWrite(
        {name: np.full(shape, value, np.float32) for name in ("rps", "bp")},
        {"value": value, **entry},
    )


def reopen(store: RegionStore) -> RegionStore:
    """The same store, as another process would open it."""
    return RegionStore(store._branch.storage, store._branch.branch)


def assert_consistent(store: RegionStore, at: str | None = None) -> dict[str, float]:
    """Every region is NaN and unlisted, or holds the value its ledger entry names."""
    at = at or store.snapshot_id
    ledger = {region_id: entry["value"] for region_id, entry in store.ledger(at).items()}
    dataset = store.dataset(at=at)
    for name in ("rps", "bp"):
        values = dataset[name].values
        for region_id, window in REGIONS.items():
            np.testing.assert_array_equal(
                values[window],
                np.float32(ledger.get(region_id, np.nan)),
                err_msg=f"{name} of {region_id}",
                strict=False,
            )
    return ledger
