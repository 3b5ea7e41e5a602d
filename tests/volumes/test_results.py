"""Page results: made from the steps before, clean text, failures and whether to try again."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from page_results import ODD_TEXT, synthetic_page

from ocr_assets.volumes.archive import ImageEntry
from ocr_assets.volumes.images import PageFailure, PageImage
from ocr_assets.volumes.page_lines import find_lines
from ocr_assets.volumes.recognise import RecognisedLine, Syllable
from ocr_assets.volumes.results import (
    FailedPage,
    LineResult,
    failed_to_load,
    failed_to_read,
    page_result,
    regions,
    writable,
)

ENTRY = ImageEntry("I1KG00010001.tif", etag="e" * 32)


def _drawn_page() -> NDArray[np.bool_]:
    """A synthetic page of five lines of one letter: a level head and two legs."""
    ink = np.zeros((800, 1200), bool)
    for top in range(120, 650, 110):
        for x in range(100, 1060, 46):
            ink[top : top + 8, x : x + 36] = True
            ink[top : top + 50, x + 26 : x + 34] = True
            ink[top : top + 26, x + 3 : x + 9] = True
    return ink


def test_a_page_is_put_together_from_image_lines_and_readings() -> None:
    pixels = _drawn_page()
    page = PageImage(ENTRY, 1, pixels, "ab" * 32, 0.0, 0.0)
    found = find_lines(pixels)
    assert len(found.lines) == 5
    readings = [
        RecognisedLine(
            "ཀ་ཁ", 0.9, (Syllable("ཀ་", 0.8, 5.0, 100.5), Syllable("ཁ", 0.7, 100.5, 1e6))
        )
        for _ in found.lines
    ]
    result = page_result(page, found, readings)
    assert (result.image, result.frame, result.etag) == (ENTRY.name, 1, ENTRY.etag)
    assert (result.width, result.height) == (1200, 800)
    assert result.text == "\n".join(["ཀ་ཁ"] * len(found.lines))
    assert result.confidence == pytest.approx(0.9)
    for line, source in zip(result.lines, found.lines, strict=True):
        assert line.box == source.box
        x, y, width, height = line.box
        first, second = (syllable.box for syllable in line.syllables)
        assert first[0] < second[0]
        assert second[0] + second[2] == x + width
        assert first[1] >= y
        assert first[1] + first[3] <= y + height
    with pytest.raises(ValueError, match="zip"):
        page_result(page, found, readings[1:])


@given(ODD_TEXT)
def test_writable_text_is_one_line_that_every_format_takes(text: str) -> None:
    clean = writable(text)
    assert len(clean.splitlines()) <= 1
    assert clean.encode().decode() == clean
    assert not re.search("[\x00-\x1f\x7f-\x9f\ufffe\uffff]", clean)
    assert writable(clean) == clean


def test_writable_keeps_what_is_text() -> None:
    text = "༄༅། །ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ། < & > \u0f39 \U0001f600"
    assert writable(text) == text
    assert writable("ཀ\nཁ\tག\x00ང") == "ཀ ཁ གང"


def test_lines_without_text_are_in_no_text_and_no_mean() -> None:
    def line(text: str, confidence: float) -> LineResult:
        return LineResult(text, confidence, "text", 0, (0, 0, 9, 9), (), (), ())

    page = replace(synthetic_page(1), lines=(line("ཀཁག", 0.9), line("", 0.0), line("ང", 0.5)))
    assert page.text == "ཀཁག\nང"
    assert page.confidence == pytest.approx(0.8)
    assert replace(page, lines=(line("", 0.0),)).confidence is None


def test_regions_follow_blocks_and_kinds_in_order() -> None:
    found = regions(synthetic_page(1, lines=8))
    assert [(region.kind, region.first, len(region.lines)) for region in found] == [
        ("running_head", 1, 1),
        ("page_number", 2, 1),
        ("text", 3, 5),
        ("margin", 8, 1),
    ]


@pytest.mark.parametrize(
    ("stage", "error_type", "retryable"),
    [
        ("fetch", "TimeoutError", True),
        ("fetch", "StorageError", True),
        ("fetch", "MissingImageError", False),
        ("fetch", "ValueError", False),
        ("decode", "ImageError", False),
    ],
)
def test_only_what_may_pass_is_tried_again(stage: str, error_type: str, retryable: bool) -> None:
    failure = PageFailure(ENTRY, 0, stage, error_type, "why", "ab" * 32)  # type: ignore[arg-type]
    failed = failed_to_load(failure, attempt=2)
    assert (failed.retryable, failed.attempt, failed.stage) == (retryable, 2, stage)


def test_errors_while_reading_are_kept_with_their_kind() -> None:
    page = PageImage(ENTRY, 0, np.zeros((2, 2), bool), "ab" * 32, 0.0, 0.0)
    memory = failed_to_read(page, "recognition", MemoryError("x" * 5000))
    assert (memory.error_type, memory.retryable, len(memory.reason)) == ("MemoryError", True, 1000)
    assert not failed_to_read(page, "lines", ValueError("empty")).retryable


def test_messages_and_names_are_clean() -> None:
    failed = FailedPage("a\x01\ud800.tif", 0, '"\n"', None, "fetch", "E", "a\nb\x00", True)
    assert (failed.image, failed.etag, failed.reason) == ("a.tif", '" "', "a b")
