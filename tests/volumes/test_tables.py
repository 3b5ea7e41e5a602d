"""Tables of a volume: round trips, schemas, determinism, lookup by image."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_results import failure, odd_failures, odd_pages, synthetic_page, synthetic_pages

from ocr_assets.volumes.results import FailedPage, PageResult
from ocr_assets.volumes.tables import (
    LINES,
    PAGES,
    PAGES_PER_ROW_GROUP,
    SYLLABLES,
    TABLES,
    TableError,
    TableWriter,
    VolumeTables,
    error_line,
)

LINEAGE = {"lineage": {"configuration": {"model_sha256": "cd" * 32}}, "volume": "W22084-I0886"}


def write(folder: Path, pages: Iterable[PageResult | FailedPage]) -> VolumeTables:
    folder.mkdir(parents=True, exist_ok=True)
    with TableWriter(folder, LINEAGE) as writer:
        for page in pages:
            writer.write(page)
    return VolumeTables(folder)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pages=st.lists(st.one_of(odd_pages(), odd_failures()), max_size=4))
def test_any_pages_come_back_as_they_were(
    tmp_path: Path, pages: list[PageResult | FailedPage]
) -> None:
    assert list(write(tmp_path, pages)) == pages


def test_pages_come_back_across_row_groups(tmp_path: Path) -> None:
    pages: list[PageResult | FailedPage] = list(synthetic_pages(PAGES_PER_ROW_GROUP + 3))
    pages[5] = failure(6)
    pages[9] = replace(synthetic_page(10), lines=())
    tables = write(tmp_path, pages)
    assert list(tables) == pages
    assert pq.ParquetFile(tmp_path / PAGES).num_row_groups == 2


def test_same_pages_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, synthetic_pages(70))
    # And the same again from pages that were read back.
    write(tmp_path / "three", VolumeTables(tmp_path / "one"))
    for table in TABLES:
        first = (tmp_path / "one" / table).read_bytes()
        assert (tmp_path / "two" / table).read_bytes() == first
        assert (tmp_path / "three" / table).read_bytes() == first


def test_columns_have_units_and_large_coordinates_fit(tmp_path: Path) -> None:
    page = synthetic_page(1)
    far = replace(page.lines[2], box=(70_000, 40_000, 50_000, 90))
    tables = write(tmp_path, [replace(page, lines=(far,))])
    schema = tables.lines.schema
    for name in ("x", "y", "width", "height"):
        assert schema.field(name).type == pa.int32()
        assert schema.field(name).metadata[b"unit"] == b"pixel"
    (row,) = tables.lines.to_pylist()
    assert (row["x"], row["y"], row["width"]) == (70_000, 40_000, 50_000)
    assert json.loads(tables.metadata["lineage"]) == LINEAGE["lineage"]
    assert tables.metadata["volume"] == "W22084-I0886"
    codec = pq.ParquetFile(tmp_path / SYLLABLES).metadata.row_group(0).column(0).compression
    assert codec == "ZSTD"


def test_error_columns_are_null_for_good_pages_and_others_for_bad_ones(tmp_path: Path) -> None:
    tables = write(tmp_path, [synthetic_page(1), failure(2)])
    good, bad = tables.pages.to_pylist()
    errors = {"error_stage", "error_type", "error_message", "retryable", "attempt"}
    reading = {"width", "height", "turned", "angle", "lines", "text", "confidence", "loop_score"}
    assert {name for name, value in good.items() if value is None} == errors
    assert {name for name, value in bad.items() if value is None} == reading
    assert (good["ok"], bad["ok"]) == (True, False)


def test_a_page_is_found_by_the_content_and_the_tag_of_its_image(tmp_path: Path) -> None:
    one = synthetic_page(1)
    frames = [replace(synthetic_page(2), frame=frame) for frame in (0, 1)]
    twin = replace(one, image="twin.tif")
    tables = write(tmp_path, [one, *frames, twin, failure(4)])
    assert tables.of_image(sha256=one.sha256) == [one]
    assert tables.of_image(sha256=frames[0].sha256) == frames
    assert tables.of_image(etag=one.etag) == [one]
    assert tables.of_image(sha256=failure(4).sha256) == [failure(4)]
    assert tables.of_image(sha256="00") == []


def test_an_empty_volume_can_be_read(tmp_path: Path) -> None:
    assert list(write(tmp_path, [])) == []


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_files_that_are_no_tables_are_named(tmp_path: Path, damage: str) -> None:
    write(tmp_path, [synthetic_page(1)])
    path = tmp_path / LINES
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        pq.write_table(pa.table({"page": [1]}), path)
    with pytest.raises(TableError, match=r"lines\.parquet"):
        VolumeTables(tmp_path)


@given(odd_failures())
def test_an_error_is_one_line_of_json(page: FailedPage) -> None:
    text = error_line(page, "s3://archive/x")
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    row = json.loads(text)
    assert (row["source"], row["image"], row["etag"]) == ("s3://archive/x", page.image, page.etag)
    assert (row["stage"], row["message"]) == (page.stage, page.reason)
    assert (row["retryable"], row["attempt"]) == (page.retryable, page.attempt)
