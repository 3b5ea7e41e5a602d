"""The searchable PDF, read back by PDFium: text, places, images, and the same bytes each time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pytest
from numpy.typing import NDArray
from page_results import synthetic_page

from ocr_assets.volumes.results import LineResult, PageResult, SyllableResult
from ocr_assets.volumes.searchable_pdf import DOTS_PER_INCH, SearchablePdf

WIDTH, HEIGHT = 1200, 600


def ink() -> NDArray[np.bool_]:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[100:200, 300:500] = True
    return pixels


def page(
    text: str, box: tuple[int, int, int, int], headline: tuple[tuple[int, int], ...]
) -> PageResult:
    syllable = SyllableResult(text, 0.9, box)
    line = LineResult(text, 0.9, "text", 0, box, (), headline, (syllable,))
    return PageResult("a.tif", 0, None, "ab" * 32, WIDTH, HEIGHT, 0.0, 0, (line,))


def write(path: Path, pixels: NDArray[np.bool_] | NDArray[np.uint8], *pages: PageResult) -> Path:
    with path.open("wb") as file, SearchablePdf(file, "bo") as pdf:
        for item in pages:
            pdf.add(pixels, item)
    return path


def test_text_comes_back_line_by_line(tmp_path: Path) -> None:
    source = synthetic_page(1)
    blank = np.zeros((source.height, source.width), bool)
    path = write(tmp_path / "a.pdf", blank, source, replace(source, lines=source.lines[2:4]))
    with pdfium.PdfDocument(path) as document:
        assert len(document) == 2
        for number, expected in enumerate((source.lines, source.lines[2:4])):
            found = document[number].get_textpage().get_text_bounded()
            for line in expected:
                assert line.text in found.replace("\r\n", "\n"), line.kind


@pytest.mark.parametrize("text", ["ཧཱུྃ་", "སྒྲུབ། །", "bla ma\\(x)", "ཀ\U0001f600ཁ"])
def test_any_text_can_be_searched(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.pdf", ink(), page(text, (300, 100, 200, 100), ()))
    with pdfium.PdfDocument(path) as document:
        found = document[0].get_textpage()
        assert found.get_text_bounded().strip() == text.strip()


@pytest.mark.parametrize(
    "headline",
    [((300, 110), (500, 112)), ((490, 100), (488, 200)), ((500, 190), (300, 190)),
     ((310, 200), (312, 100))],
    ids=["level", "downwards", "upside down", "upwards"],
)  # fmt: skip
def test_text_lies_in_its_box_whichever_way_it_runs(
    tmp_path: Path, headline: tuple[tuple[int, int], ...]
) -> None:
    path = write(tmp_path / "a.pdf", ink(), page("ཀཁགང", (300, 100, 200, 100), headline))
    scale = DOTS_PER_INCH / 72
    with pdfium.PdfDocument(path) as document:
        found = document[0].get_textpage()
        boxes = np.array([found.get_charbox(i, loose=True) for i in range(4)]) * scale
        assert found.get_text_range() == "ཀཁགང"
    left, bottom, right, top = boxes.T
    assert left.min() == pytest.approx(300, abs=4)
    assert right.max() == pytest.approx(500, abs=4)
    assert HEIGHT - top.max() == pytest.approx(100, abs=4)
    assert HEIGHT - bottom.min() == pytest.approx(200, abs=4)


@pytest.mark.parametrize("kind", ["bilevel", "grey"])
def test_the_image_is_there_and_the_text_is_not_seen(tmp_path: Path, kind: str) -> None:
    pixels = ink()
    shown = pixels if kind == "bilevel" else np.where(pixels, 30, 220).astype(np.uint8)
    path = write(tmp_path / "a.pdf", shown, page("ཀཁགང", (700, 300, 400, 200), ()))
    with pdfium.PdfDocument(path) as document:
        rendered = document[0].render(scale=DOTS_PER_INCH / 72, grayscale=True).to_numpy()
    rendered = rendered.reshape(HEIGHT, WIDTH)
    expected = np.where(pixels, 0, 255) if kind == "bilevel" else shown
    assert np.abs(rendered.astype(int) - expected).max() <= (0 if kind == "bilevel" else 12)


def test_same_pages_same_bytes_and_a_page_without_result(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        with (tmp_path / name).open("wb") as file, SearchablePdf(file, "bo") as pdf:
            pdf.add(ink())
            pdf.add(ink(), page("ཀ", (0, 0, 9, 9), ()))
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    with pdfium.PdfDocument(tmp_path / "a.pdf") as document:
        assert document[0].get_textpage().get_text_bounded() == ""


def test_a_result_of_another_image_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="1900 x 1400"),
        SearchablePdf(io.BytesIO(), "bo") as pdf,
    ):
        pdf.add(ink(), synthetic_page(1))
