"""Partition arithmetic: contiguous ranges hold exactly the keys that were asked for."""

from __future__ import annotations

import itertools

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.partitions import (
    TILES,
    YEARS,
    contiguous_ranges,
    region_partitions,
    tile_year_partitions,
    tile_year_tags,
)
from ocr_assets.regions.grid import CONUS
from ocr_assets.tiles.grid import Tile

ORDER = [f"k{index}" for index in range(40)]


def keys_of(ranges: list[tuple[str, str]]) -> list[list[str]]:
    return [ORDER[ORDER.index(first) : ORDER.index(last) + 1] for first, last in ranges]


@given(st.lists(st.sampled_from(ORDER)), st.integers(1, 50))
def test_ranges_hold_each_key_once_and_no_other(keys: list[str], longest: int) -> None:
    parts = keys_of(contiguous_ranges(keys, ORDER, longest))
    assert list(itertools.chain(*parts)) == sorted(set(keys), key=ORDER.index)
    assert all(1 <= len(part) <= longest for part in parts)


@given(st.lists(st.sampled_from(ORDER)), st.integers(1, 50))
def test_no_two_ranges_could_be_one(keys: list[str], longest: int) -> None:
    parts = keys_of(contiguous_ranges(keys, ORDER, longest))
    for one, other in itertools.pairwise(parts):
        touching = ORDER.index(one[-1]) + 1 == ORDER.index(other[0])
        assert not touching or len(one) == longest


def test_known_ranges() -> None:
    keys = ["k3", "k1", "k2", "k7", "k2"]
    assert contiguous_ranges(keys, ORDER, 10) == [("k1", "k3"), ("k7", "k7")]
    assert contiguous_ranges(keys, ORDER, 2) == [("k1", "k2"), ("k3", "k3"), ("k7", "k7")]
    assert contiguous_ranges([], ORDER, 3) == []


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ValueError, match="unknown partition 'k99'"):
        contiguous_ranges(["k1", "k99"], ORDER, 3)


def test_region_partitions_are_the_valid_regions_in_order() -> None:
    assert region_partitions(CONUS).get_partition_keys() == list(CONUS.valid)


def test_a_backfill_of_conus_in_runs_of_the_default_size() -> None:
    """405 regions are contiguous in partition order: the runs are as few as they can be."""
    ranges = contiguous_ranges(CONUS.valid, CONUS.valid, 45)
    assert len(ranges) == 9
    assert ranges[0][0] == CONUS.valid[0]
    assert ranges[-1][1] == CONUS.valid[-1]


def test_partitions_of_tiles_and_years() -> None:
    assert YEARS.get_partition_keys() == [str(year) for year in range(2015, 2041)]
    assert TILES.name == "tiles"
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("tiles", ["1035X727Y", "999X988Y"])
        partitions = tile_year_partitions()
        keys = partitions.get_partition_keys(dynamic_partitions_store=instance)
        assert len(keys) == 2 * 26
        tags = tile_year_tags(2024, Tile(1035, 727))
        assert tags == {
            "dagster/partition": "1035X727Y|2024",
            "dagster/partition/tile": "1035X727Y",
            "dagster/partition/year": "2024",
        }
        assert tags["dagster/partition"] in keys
