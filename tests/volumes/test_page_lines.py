"""Lines of pages: synthetic pages drawn here, and real scans where they are at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_assets.volumes.binarise import working_page
from ocr_assets.volumes.bow import bow, straightened
from ocr_assets.volumes.images import decode
from ocr_assets.volumes.page_lines import PageLines, TextLine, find_lines
from ocr_assets.volumes.skew import estimate_skew

Ink = NDArray[np.bool_]

SIZE = 60
"""Height in pixels of a drawn letter."""


def draw_letter(page: Ink, x: int, y: int, kind: int) -> int:
    """Draw a synthetic letter that hangs from row ``y``: a level head, legs, marks at times."""
    width = 36
    page[y : y + 8, x : x + width] = True
    page[y : y + (30 if kind % 3 else 52), x + width - 9 : x + width - 2] = True
    if kind % 2:
        page[y + 24 : y + 30, x + 4 : x + width - 4] = True
        page[y : y + 24, x + 3 : x + 9] = True
    if kind % 5 == 0:
        for step in range(12):
            page[y - 22 + step : y - 16 + step, x + 8 + step : x + 12 + step] = True
    if kind % 7 == 0:
        page[y + 34 : y + 40, x + 5 : x + 25] = True
        page[y + 40 : y + 58, x + 16 : x + 22] = True
    return x + width + (8 if kind % 4 else 30)


def draw_line(page: Ink, y: int, left: int, right: int, seed: int = 0) -> None:
    """Draw a line of synthetic letters whose headline is row ``y``."""
    rng = np.random.default_rng(seed + y)
    x = left
    while x + 40 < right:
        x = draw_letter(page, x, y, int(rng.integers(1, 100)))


def draw_page(lines: int = 12, width: int = 1500, pitch: int = 110) -> tuple[Ink, list[int]]:
    """A synthetic page with full lines, and the rows of their headlines."""
    page = np.zeros((lines * pitch + 240, width), bool)
    rows = [140 + pitch * line for line in range(lines)]
    for y in rows:
        draw_line(page, y, 120, width - 120)
    return page, rows


def moved(page: Ink, shift: NDArray[np.float64]) -> Ink:
    """The page with each pixel ``shift`` rows further down."""
    height, width = page.shape
    x = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    y = np.arange(height, dtype=np.float32)[:, None] - shift
    return cv2.remap(page.view(np.uint8), np.ascontiguousarray(x), y.astype(np.float32), 0) > 0


def rotated(page: Ink, angle: float) -> Ink:
    """The page turned clockwise, so that its lines fall to the right."""
    height, width = page.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -angle, 1)
    return cv2.warpAffine(page.view(np.uint8), matrix, (width, height)) > 0


def headline_rows(found: PageLines) -> list[float]:
    return [float(np.mean(line.headline[:, 1])) for line in found.lines]


def ink_share(page: Ink, line: TextLine) -> float:
    """Part of the page's ink that is inside the line's polygon."""
    inside = cv2.fillPoly(np.zeros(page.shape, np.uint8), [line.polygon], 1) > 0
    return float((page & inside).sum() / page.sum())


def test_straight_page() -> None:
    page, rows = draw_page()
    found = find_lines(page)
    np.testing.assert_allclose(headline_rows(found), rows, atol=4)
    assert {line.kind for line in found.lines} == {"text"}
    assert (found.angle, found.turned) == (0.0, 0)
    shares = [ink_share(page, line) for line in found.lines]
    assert sum(shares) == pytest.approx(1, abs=0.02)


def test_line_image_holds_the_line_alone() -> None:
    page, _ = draw_page(pitch=84)
    for line in find_lines(page, line_height=64).lines[1:-1]:
        assert line.image.dtype == np.uint8
        assert line.image.shape[0] == 64
        rows = np.flatnonzero((line.image < 128).any(axis=1))
        # Ground above the marks and below the feet; nothing of the neighbours.
        assert rows[0] >= 1
        assert rows[-1] <= 62
        columns = np.flatnonzero((line.image < 128).any(axis=0))
        assert columns[0] >= 2


def test_places_in_a_line_image_are_found_on_the_page() -> None:
    page, _ = draw_page()
    for source in (page, rotated(page, 3.0), np.ascontiguousarray(np.rot90(page, 2))):
        for line in find_lines(source).lines[::4]:
            dark = np.argwhere(line.image < 60)
            spots = line.to_original(dark[:, 1].astype(float), dark[:, 0].astype(float))
            x, y = np.round(spots).astype(int).T
            assert source[y, x].mean() > 0.9
            left, top, width, height = line.box
            box = line.span_box(0, line.image.shape[1])
            assert box[0] >= left
            assert box[1] >= top
            assert box[0] + box[2] <= left + width
            assert box[1] + box[3] <= top + height


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.floats(-9, 9))
def test_known_rotation_is_recovered(angle: float) -> None:
    page, _ = draw_page(lines=8, width=1000)
    assert estimate_skew(rotated(page, angle)) == pytest.approx(angle, abs=0.1)


def test_rotated_page_gives_original_places() -> None:
    page, rows = draw_page()
    turned = rotated(page, 4.0)
    found = find_lines(turned)
    assert found.angle == pytest.approx(4.0, abs=0.1)
    assert len(found.lines) == len(rows)
    assert sum(ink_share(turned, line) for line in found.lines) == pytest.approx(1, abs=0.05)


def test_bowed_rulings_are_straightened() -> None:
    """Four lines bowed by 43 pixels run level within four afterwards."""
    height, width = 800, 1600
    page = np.zeros((height, width), bool)
    for y in range(150, 700, 150):
        for x in range(60, width - 60, 40):
            page[y : y + 30, x : x + 28] = True
    across = np.linspace(-1, 1, width)
    bowed = moved(page, np.broadcast_to(43 * (across**2 - 0.5), page.shape))
    shift = bow(bowed, 40.0)
    assert shift is not None
    level = straightened(bowed, shift)
    for y in range(150, 700, 150):
        band = level[y - 60 : y + 80]
        tops = band.argmax(axis=0)[band.any(axis=0)]
        assert np.ptp(tops) <= 4
    assert bow(page, 40.0) is None


def test_bowed_page_is_followed() -> None:
    page, rows = draw_page(width=2000)
    across = np.linspace(-1, 1, page.shape[1])
    bowed = moved(page, np.broadcast_to(40 * across**2, page.shape))
    found = find_lines(bowed)
    assert len(found.lines) == len(rows)
    for line, y in zip(found.lines, rows, strict=True):
        x = line.headline[:, 0]
        expected = y + 40 * (2 * x / page.shape[1] - 1) ** 2
        np.testing.assert_allclose(line.headline[:, 1], expected, atol=6)


def test_frame_and_rules_are_no_text() -> None:
    page, rows = draw_page(lines=6, width=3000)
    for box in ((40, 60), (52, 72)):
        cv2.rectangle(
            page.view(np.uint8), box, (page.shape[1] - box[0], page.shape[0] - box[1]), 1, 5
        )
    found = find_lines(page)
    np.testing.assert_allclose(headline_rows(found), rows, atol=4)
    for line in found.lines:
        assert line.box[0] > 100
        assert line.box[0] + line.box[2] < page.shape[1] - 100


def test_margin_of_a_folio_is_its_own_line() -> None:
    page, rows = draw_page(lines=6, width=3600)
    page[:, :110] = False
    strip = np.zeros((120, 300), bool)
    draw_line(strip, 40, 20, 280)
    small = cv2.resize(strip.view(np.uint8), (150, 60), interpolation=cv2.INTER_NEAREST)
    page[300:450, 20:80] = np.rot90(small, -1)
    page[40:-40, 95:100] = True
    found = find_lines(page)
    assert [line.kind for line in found.lines] == ["margin", *["text"] * len(rows)]
    margin = found.lines[0]
    assert margin.box[3] > 2 * margin.box[2]
    assert margin.image.shape[1] > 1.5 * margin.image.shape[0]


def test_running_head_and_page_number() -> None:
    page, _ = draw_page(lines=12)
    page = np.pad(page, ((160, 160), (0, 0)))
    draw_line(page, 90, 500, 1000)
    page[190:194, 120:-120] = True
    draw_letter(page, 720, page.shape[0] - 110, 1)
    draw_letter(page, 764, page.shape[0] - 110, 2)
    kinds = [line.kind for line in find_lines(page).lines]
    assert kinds == ["running_head", *["text"] * 12, "page_number"]


def test_page_number_beside_the_running_head() -> None:
    page, _ = draw_page(lines=12)
    page = np.pad(page, ((160, 0), (0, 0)))
    draw_line(page, 90, 400, 1000)
    draw_letter(page, 1300, 90, 1)
    kinds = [line.kind for line in find_lines(page).lines]
    assert kinds == ["running_head", "page_number", *["text"] * 12]


def test_short_last_line_of_a_paragraph_is_text() -> None:
    page, _ = draw_page(lines=11)
    page = np.pad(page, ((0, 110), (0, 0)))
    draw_line(page, 140 + 11 * 110, 120, 260)
    kinds = [line.kind for line in find_lines(page).lines]
    assert kinds == ["text"] * 12


def test_spread_is_read_page_by_page() -> None:
    left, rows = draw_page()
    spread = np.hstack([left, np.roll(left, 37, axis=0)])
    found = find_lines(spread)
    assert len(found.lines) == 2 * len(rows)
    middle = spread.shape[1] / 2
    sides = [line.box[0] > middle for line in found.lines]
    assert sides == [False] * len(rows) + [True] * len(rows)


def test_verse_with_aligned_end_strokes_is_not_cut() -> None:
    page = np.zeros((2000, 1500), bool)
    rng = np.random.default_rng(5)
    for y in range(140, 1800, 110):
        draw_line(page, y, 200, int(rng.integers(700, 900)))
        page[y : y + 55, 1100:1108] = True
    found = find_lines(page)
    assert len(found.lines) == len(range(140, 1800, 110))
    assert all(line.box[0] + line.box[2] > 1090 for line in found.lines)


def test_touching_lines_are_parted() -> None:
    page, rows = draw_page(pitch=84)
    for y in rows[:-1]:
        x = 300 + 5 * (y % 160)
        page[y : y + 90, x : x + 6] = True
    assert len(find_lines(page).lines) == len(rows)


def _turned_box(
    box: tuple[int, int, int, int], shape: tuple[int, ...], turned: int
) -> tuple[int, int, int, int]:
    """The box after the page of ``shape`` is turned anticlockwise."""
    x, y, width, height = box
    for _ in range(turned // 90):
        x, y, width, height = y, shape[1] - x - width, height, width
        shape = shape[::-1]
    return x, y, width, height


@pytest.mark.parametrize(("quarters", "turned"), [(2, 180), (-1, 90), (1, 270)])
def test_turned_page_is_read_upright(quarters: int, turned: int) -> None:
    page, rows = draw_page()
    upright = find_lines(page)
    source = np.ascontiguousarray(np.rot90(page, quarters))
    found = find_lines(source)
    assert found.turned == turned
    assert len(found.lines) == len(rows)
    for ours, theirs in zip(upright.lines, found.lines, strict=True):
        assert ours.image.shape == pytest.approx(theirs.image.shape, abs=4)
        assert ours.box == pytest.approx(_turned_box(theirs.box, source.shape, turned), abs=12)


def test_ink_outside_a_text_mask_is_left_out() -> None:
    page, rows = draw_page()
    mask = np.zeros_like(page)
    for y in rows[2:5]:
        mask[y - 5 : y + 40] = True
    assert len(find_lines(page, text_mask=mask).lines) == 3
    with pytest.raises(ValueError, match="text mask"):
        find_lines(page, text_mask=mask[:-1])


@pytest.mark.parametrize(
    "page",
    [
        np.zeros((2000, 3000), bool),
        np.full((2000, 3000), 250, np.uint8),
        np.zeros((1, 1), bool),
        np.ones((1, 1), bool),
        np.zeros((1, 5000), np.uint8),
        np.zeros((3000, 2), np.uint8),
        np.random.default_rng(1).random((1500, 2000)) > 0.5,
        np.random.default_rng(1).integers(200, 255, (1500, 2000), np.uint8),
    ],
    ids=["blank", "grey", "pixel", "ink pixel", "row", "column", "noise", "paper"],
)
def test_pages_without_text_have_no_lines(page: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
    assert find_lines(page).lines == ()


def test_colour_chart_has_no_lines() -> None:
    chart = np.full((1200, 1800), 230, np.uint8)
    for row in range(4):
        for col in range(6):
            x, y = 60 + 290 * col, 60 + 280 * row
            chart[y : y + 240, x : x + 250] = 20 + 10 * (6 * row + col)
    assert find_lines(chart).lines == ()


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="bool or uint8"):
        find_lines(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ValueError, match="bool or uint8"):
        find_lines(np.zeros((0, 10), np.uint8))


def test_dirty_grey_scan_is_read_like_a_clean_one() -> None:
    page, rows = draw_page()
    rng = np.random.default_rng(6)
    y, x = np.mgrid[: page.shape[0], : page.shape[1]]
    stain = 60 * np.exp(-((x - 300) ** 2 + (y - 900) ** 2) / 300**2)
    grey = np.where(page, 70, 190) - stain + rng.normal(0, 6, page.shape)
    scan = np.pad(np.clip(grey, 0, 255), 40, constant_values=8).astype(np.uint8)
    found = find_lines(scan)
    np.testing.assert_allclose(headline_rows(found), np.array(rows) + 40, atol=5)


def test_white_text_on_black() -> None:
    page, rows = draw_page()
    found = find_lines(np.where(page, 230, 20).astype(np.uint8))
    assert len(found.lines) == len(rows)
    assert np.median(found.lines[0].image) > 200


def test_working_page_is_small() -> None:
    page = working_page(np.zeros((7000, 5000), bool))
    assert page.factor == 5
    assert page.ink.shape == (1400, 1000)


LINES_OF_REAL_PAGES = {
    "ngb_v05_out_0014": 6,
    "ngb_v05_out_0292": 6,
    "ngb_v05_out_0342": 6,
    "sample_book1_out_002_2R": 21,
    "sample_book1_out_003_1L": 21,
    "sample_book3_out_002_1L": 23,
    "sample_book3_out_003_2R": 23,
    "taranatha_ocr_0013": 18,
    "taranatha_ocr_0017": 20,
}


@pytest.mark.parametrize("name", LINES_OF_REAL_PAGES)
def test_real_pages(shared_data: Path, name: str) -> None:
    """Counted by eye: lines of text, running heads and page numbers."""
    data = (shared_data / "volumes" / "pages" / f"{name}.tif").read_bytes()
    (page,) = decode(data, name)
    found = find_lines(page)
    lines = [line for line in found.lines if line.kind != "margin"]
    assert len(lines) == LINES_OF_REAL_PAGES[name]
    tops = [line.box[1] for line in lines if line.kind == "text"]
    assert tops == sorted(tops)
