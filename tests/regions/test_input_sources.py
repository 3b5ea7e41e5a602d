"""The register of sources: complete, consistent, and cut as asked."""

from __future__ import annotations

import re

import pytest

from ocr_assets.regions import inputs
from ocr_assets.regions.input_sources import (
    CENSUS,
    DESCRIPTIONS,
    OVERTURE,
    OVERTURE_ADDRESSES,
    OVERTURE_BUILDINGS,
    PARENTS,
    SOURCES,
    Choice,
    SourceError,
    source_of,
)


def test_every_input_of_the_graph_has_a_source() -> None:
    for name in inputs.DESCRIPTIONS:
        assert source_of(name) in SOURCES
    every = [dataset for source in SOURCES.values() for dataset in source.datasets]
    assert len(every) == len(set(every)) == 19
    assert set(every) == set(DESCRIPTIONS)
    with pytest.raises(SourceError, match="no source is known"):
        source_of("mars")


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_source_is_consistent(name: str) -> None:
    source = SOURCES[name]
    names = [file.name for file in source.files]
    assert len(names) == len(set(names))
    assert set(source.rasters) <= set(source.datasets)
    for recipe in source.rasters.values():
        assert {band.file for band in recipe.bands.values()} <= set(names)
    for file in source.files:
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    needed = {file.name for file in Choice().files(source)}
    assert needed == set(names), "a file that nothing needs"
    assert source.citation
    assert source.licence
    for parent in source.datasets:
        assert set(PARENTS.get(parent, ())) <= set(DESCRIPTIONS)


def test_two_archives_have_published_hashes() -> None:
    (riley,) = SOURCES["riley-et-al-2025"].files
    (dillon,) = SOURCES["dillon-et-al-2023"].files
    assert (riley.sha256[:8], riley.sha256[-6:]) == ("a92b4f6e", "265825")
    assert (dillon.sha256[:8], dillon.sha256[-6:]) == ("b5313ad0", "dfff73")


def test_addresses() -> None:
    source = SOURCES[CENSUS]
    (counties,) = Choice("counties").files(source)
    assert source.file_url(counties) == (
        "https://www2.census.gov/geo/tiger/TIGER2024/COUNTY/tl_2024_us_county.zip"
    )
    blocks = Choice("blocks", states=("08",)).files(source)
    assert [source.file_url(file) for file in blocks] == [
        "https://www2.census.gov/geo/tiger/TIGER2025/TABBLOCKSUFX/tl_2025_08_tabblocksufx.zip"
    ]
    assert SOURCES[OVERTURE].url == "s3://overturemaps-us-west-2/release/2025-09-24.0"


def test_a_choice_cuts_datasets_and_files() -> None:
    census, overture = SOURCES[CENSUS], SOURCES[OVERTURE]
    assert len(Choice().files(census)) == 101
    assert len(Choice("tracts").files(census)) == 49
    assert len(Choice("all", states=("08", "56")).files(census)) == 7
    assert Choice("nation").datasets(census) == ("us-census-nation",)
    assert Choice(overture="addresses").datasets(overture) == (OVERTURE_ADDRESSES,)
    assert Choice(overture="buildings").datasets(overture) == (
        OVERTURE_BUILDINGS,
        inputs.BUILDINGS,
    )
    # A choice of one source cuts no other.
    riley = SOURCES["riley-et-al-2025"]
    assert Choice("nation", "addresses", ("08",)).datasets(riley) == riley.datasets


def test_a_mirror_of_another_release() -> None:
    moved = SOURCES[OVERTURE].moved(
        address="s3://mirror/{vintage}", vintage="2026-01-21.0", endpoint="http://127.0.0.1:1"
    )
    assert moved.url == "s3://mirror/2026-01-21.0"
    assert moved.endpoint == "http://127.0.0.1:1"
    assert moved.region == "us-west-2"
    other = SOURCES["riley-et-al-2025"].moved(sha256={"RDS-2025-0006.zip": None})
    assert other.files[0].sha256 is None
    with pytest.raises(SourceError, match=r"has no file 'x\.zip'"):
        other.moved(sha256={"x.zip": None})
