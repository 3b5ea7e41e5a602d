"""Quality of volumes, their status, and the review queue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from page_results import failure, image_name, synthetic_page

from ocr_assets.volumes.quality import (
    QUALITY_SCHEMA,
    QualityTally,
    VolumeQuality,
    quality_table,
    review_queue,
    volume_status,
)
from ocr_assets.volumes.results import FailedPage, LineResult, PageResult
from ocr_assets.volumes.tables import TableWriter, VolumeTables


def line(text: str, confidence: float, box: tuple[int, int, int, int]) -> LineResult:
    return LineResult(text, confidence, "text", 0, box, (), (), ())


def page(number: int, *lines: LineResult) -> PageResult:
    return replace(synthetic_page(number), width=1000, height=800, lines=lines)


def tally(*pages: PageResult | FailedPage) -> VolumeQuality:
    counted = QualityTally()
    for item in pages:
        counted.add(item)
    return counted.quality()


BOX = (10, 10, 100, 40)


def test_quality_counts_pages_lines_and_confidence() -> None:
    quality = tally(
        page(1, line("ཀཁག", 0.9, BOX), line("ང", 0.5, BOX), line("", 0.0, BOX)),
        page(2),
        failure(3),
        failure(4, retryable=True),
    )
    assert quality == VolumeQuality(
        status="partial",
        pages=4,
        failed_pages=2,
        retryable_pages=1,
        blank_pages=1,
        lines=3,
        characters=4,
        mean_confidence=pytest.approx(0.8),
        low_confidence_share=pytest.approx(2 / 3),
        loop_score=0.0,
        looping_pages=0,
    )


def test_loops_are_counted_by_page() -> None:
    mantra = line("ཨོཾ་མ་ཎི་" * 100, 0.9, BOX)
    quality = tally(page(1, mantra), synthetic_page(2))
    assert quality.looping_pages == 1
    assert quality.loop_score > 0.9


@pytest.mark.parametrize(
    ("pages", "failed", "status"),
    [(3, 0, "success"), (3, 1, "partial"), (3, 3, "failed"), (0, 0, "failed")],
)
def test_status(pages: int, failed: int, status: str) -> None:
    assert volume_status(pages, failed) == status


def test_a_volume_of_failures_has_no_means() -> None:
    quality = tally(failure(1))
    assert quality.status == "failed"
    assert quality.mean_confidence is None
    assert quality.low_confidence_share is None


def test_the_table_has_a_row_for_each_volume_in_order() -> None:
    good, bad = tally(synthetic_page(1)), tally(failure(1))
    table = quality_table(
        {("b", "W2-I2", "aaaaaa"): bad, ("a", "W9-I9", "bbbbbb"): good, ("b", "W1-I1", "c"): good}
    )
    assert table.schema == QUALITY_SCHEMA
    assert table["volume"].to_pylist() == ["W9-I9", "W1-I1", "W2-I2"]
    assert table["status"].to_pylist() == ["success", "success", "failed"]
    assert table["mean_confidence"].to_pylist()[2] is None


def tables(folder: Path, *pages: PageResult | FailedPage) -> VolumeTables:
    folder.mkdir()
    with TableWriter(folder, {}) as writer:
        for item in pages:
            writer.write(item)
    return VolumeTables(folder)


def test_the_least_certain_lines_come_first_whatever_their_volume(tmp_path: Path) -> None:
    one = tables(
        tmp_path / "one",
        failure(1),
        page(2, line("ཀ", 0.75, BOX), line("ཁ", 0.25, (0, 790, 1000, 10))),
    )
    two = tables(tmp_path / "two", page(1, line("ག", 0.5, BOX), line("ང", 1.0, BOX)))
    volumes = [("W1-I1", one), ("W2-I2", two)]
    queue = review_queue(volumes, most=10)
    assert [item.text for item in queue] == ["ཁ", "ག", "ཀ"]
    assert [item.text for item in review_queue(volumes, most=1)] == ["ཁ"]
    assert [item.text for item in review_queue(volumes, most=9, below=0.5)] == ["ཁ"]
    first, _, last = queue
    assert (first.volume, first.page, first.line, first.image) == ("W1-I1", 2, 2, image_name(2))
    assert first.crop == (0, 788, 1000, 12), "held within the page"
    assert last.crop == (0, 0, 120, 60)


def test_lines_of_one_confidence_keep_their_order(tmp_path: Path) -> None:
    lines = [line(text, 0.5, BOX) for text in "ཀཁགང"]
    volume = tables(tmp_path / "one", page(1, *lines[:2]), page(2, *lines[2:]))
    queue = review_queue([("W1-I1", volume)], most=3)
    assert [item.text for item in queue] == list("ཀཁག")
