"""Partitions of the graph, and the arithmetic that runs need on their keys.

A partition is the unit a person re-runs: a region of the grid, a tile in a year, a volume read by
a job type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from ocr_assets.regions.grid import RegionGrid
from ocr_assets.tiles import grid as tile_grid

PARTITION = "dagster/partition"
"""Tag of a run that materializes one partition."""

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Tags of a run that materializes a contiguous range of partitions."""


def region_partitions(grid: RegionGrid) -> dg.StaticPartitionsDefinition:
    """One partition for each region that holds data, neighbours side by side."""
    return dg.StaticPartitionsDefinition(list(grid.valid))


VOLUMES = dg.DynamicPartitionsDefinition(name="volumes")
"""One partition for each volume that somebody asked for, like ``W22084-I0886``."""

JOB_TYPE, VOLUME = "job_type", "volume"
"""Dimensions of the partitions of volumes that are read."""


def reading_partitions(job_types: Iterable[str]) -> dg.MultiPartitionsDefinition:
    """One partition for each volume and job type that reads it."""
    types = dg.StaticPartitionsDefinition(list(job_types))
    return dg.MultiPartitionsDefinition({JOB_TYPE: types, VOLUME: VOLUMES})


def reading_tags(job_type: str, volume: str) -> dict[str, str]:
    """Tags of a run that reads a volume by a job type."""
    return _tags(dg.MultiPartitionKey({JOB_TYPE: job_type, VOLUME: volume}))


TILES = dg.DynamicPartitionsDefinition(name="tiles")
"""One partition for each tile that somebody asked for, like ``1035X727Y``."""

YEARS = dg.StaticPartitionsDefinition([str(year) for year in tile_grid.YEARS])
"""One partition for each year that can be asked for."""

TILE, YEAR = "tile", "year"
"""Dimensions of the partitions of tiles, in the order of their keys: ``1035X727Y|2024``."""


def tile_year_partitions() -> dg.MultiPartitionsDefinition:
    """One partition for each tile and year."""
    return dg.MultiPartitionsDefinition({TILE: TILES, YEAR: YEARS})


def tile_partitions(source: str) -> dg.PartitionsDefinition[str]:
    """Partitions of a source, or of the tree cover, of tiles: terrain belongs to no year."""
    return TILES if source == "elevation" else tile_year_partitions()


def tile_year_tags(year: int, tile: tile_grid.Tile) -> dict[str, str]:
    """Tags of a run that makes a tile of one year."""
    return _tags(dg.MultiPartitionKey({TILE: tile.key, YEAR: str(year)}))


def _tags(key: dg.MultiPartitionKey) -> dict[str, str]:
    dimensions = key.keys_by_dimension.items()
    return {PARTITION: str(key)} | {f"{PARTITION}/{name}": value for name, value in dimensions}


def run_partitions(
    instance: dg.DagsterInstance,
    tags: Mapping[str, str],
    definition: dg.PartitionsDefinition[str],
) -> list[str] | None:
    """Keys of the partitions that the tags of a run name; None if they name none.

    Raises:
        DagsterError: an end of a range is no partition, or is none any more.
    """
    if PARTITION in tags:
        return [tags[PARTITION]]
    if RANGE_START not in tags or RANGE_END not in tags:
        return None
    asked = dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return list(definition.get_partition_keys_in_range(asked))


def contiguous_ranges(
    keys: Iterable[str], order: Sequence[str], longest: int
) -> list[tuple[str, str]]:
    """Cut ``keys`` into inclusive ranges that are contiguous in ``order``.

    A run covers one contiguous range of partitions. No range is longer than ``longest``; a key
    that is not in ``order`` raises ValueError.
    """
    position = {key: index for index, key in enumerate(order)}
    chosen = set(keys)
    if unknown := sorted(chosen - position.keys()):
        raise ValueError(f"unknown partition {unknown[0]!r}")
    ranges: list[list[int]] = []
    for index in sorted(position[key] for key in chosen):
        if ranges and index == ranges[-1][1] + 1 and index - ranges[-1][0] < longest:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return [(order[first], order[last]) for first, last in ranges]
