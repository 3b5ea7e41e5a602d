"""What tiles cost: by the published rates, and by what this platform needed before.

Belongs here: the price formula, and estimates from measured seconds.
Does not belong here: where the measurements are kept.

The published formula is that of functions billed by memory and time:
tiles x seconds x gigabytes x dollars per gigabyte-second, summed over sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DOLLARS_PER_GB_SECOND = 0.00001667
"""Price of one gigabyte of memory for one second."""

PUBLISHED_SECONDS: Mapping[str, float] = {
    "elevation": 9.0,
    "sentinel1": 14.0,
    "sentinel2": 62.0,
    "tree_cover": 180.0,
}
"""Seconds for one tile, by source and for the prediction from them."""

LOADER_MEMORY, PREDICTION_MEMORY = 4096, 6144
"""Megabytes of a function that brings one source, and of one that predicts."""

LOADERS = ("elevation", "sentinel1", "sentinel2")
"""Sources of analysis-ready data."""


@dataclass(frozen=True)
class SourceCost:
    """What one source costs for all tiles.

    Attributes:
        tiles: how many.
        seconds: expected for one tile.
        memory: megabytes.
        measured: tiles that ``seconds`` was measured on; 0 for the published figure.
        slow: seconds that one tile in twenty exceeded; the same as ``seconds`` if not measured.
    """

    source: str
    tiles: int
    seconds: float
    memory: int
    measured: int
    slow: float

    @property
    def hours(self) -> float:
        """Hours of one function after the other."""
        return self.tiles * self.seconds / 3600

    @property
    def dollars(self) -> float:
        """Price by the published formula."""
        return self.tiles * self.seconds * self.memory / 1024 * DOLLARS_PER_GB_SECOND


def estimate_cost(
    tiles: Mapping[str, int],
    *,
    memory: int = LOADER_MEMORY,
    history: Mapping[str, Sequence[float]] | None = None,
) -> list[SourceCost]:
    """What tiles cost, by source.

    Args:
        tiles: how many there are of each source; sources are those of :data:`PUBLISHED_SECONDS`.
        memory: megabytes of the functions that bring sources; predictions have
            :data:`PREDICTION_MEMORY` at least.
        history: seconds that single tiles took before, by source. Their mean, which is what sums
            up to a total, takes the place of the published figure.

    Raises:
        ValueError: a source is unknown, a number of tiles or megabytes is not possible, or a
            measured time is none.
    """
    if unknown := sorted(tiles.keys() - PUBLISHED_SECONDS.keys()):
        known = ", ".join(PUBLISHED_SECONDS)
        raise ValueError(f"unknown source {unknown[0]!r}; there are {known}")
    if memory <= 0 or min(tiles.values(), default=0) < 0:
        raise ValueError(f"{dict(tiles)} tiles at {memory} MB cannot be priced")
    costs = []
    for source, published in PUBLISHED_SECONDS.items():
        if source not in tiles:
            continue
        need = memory if source in LOADERS else max(memory, PREDICTION_MEMORY)
        past = np.array((history or {}).get(source, ()), np.float64)
        if not (np.isfinite(past) & (past >= 0)).all():
            raise ValueError(f"measured seconds of {source} are not times")
        seconds = math.fsum(past) / len(past) if len(past) else published
        slow = float(np.quantile(past, 0.95)) if len(past) else published
        costs.append(SourceCost(source, tiles[source], seconds, need, len(past), slow))
    return costs
