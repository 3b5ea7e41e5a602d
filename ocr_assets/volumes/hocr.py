"""hOCR 1.2 of a page, as XHTML.

Belongs here: the elements of that format. Does not belong here: what it shares with others (see
``markup``), and where files go.

A word is a syllable. The text of a line element is the text of the line, blanks included. The
baseline is the headline that Tibetan letters hang from, as a straight line; a line that runs
upright has none. A line on which nothing was read holds a blank, since an empty element is not the
same in XML and HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from ocr_assets.volumes.markup import SOFTWARE, Writing, inside, to_bytes, union
from ocr_assets.volumes.results import Box, LineResult, PageResult, Region, regions

if TYPE_CHECKING:
    from ocr_assets.volumes.line_kinds import LineKind

NAMESPACE = "http://www.w3.org/1999/xhtml"
DOCTYPE = "<!DOCTYPE html>\n"

_CAPABILITIES = (
    "ocr_page ocr_carea ocr_par ocr_line ocr_header ocr_pageno ocr_textfloat ocrx_word ocrp_wconf"
)
_CLASSES: dict[LineKind, str] = {
    "text": "ocr_line",
    "running_head": "ocr_header",
    "page_number": "ocr_pageno",
    "margin": "ocr_textfloat",
}


def hocr(page: PageResult, writing: Writing, number: int) -> bytes:
    """A page as an hOCR document; ``number`` is its place in the volume, from 1."""
    language = writing.language_tag
    root = Element("html", {"xmlns": NAMESPACE, "xml:lang": language, "lang": language})
    head = SubElement(root, "head")
    SubElement(head, "title").text = page.image
    SubElement(head, "meta", {"charset": "utf-8"})
    script = "Tibt" if writing.encoding == "unicode" else "Latn"
    for name, content in (
        ("ocr-system", f"{SOFTWARE} {writing.version}".strip()),
        ("ocr-capabilities", _CAPABILITIES),
        ("ocr-number-of-pages", "1"),
        ("ocr-langs", writing.language),
        ("ocr-scripts", script),
        ("image-sha256", page.sha256),
        *writing.settings.items(),
    ):
        SubElement(head, "meta", {"name": name, "content": content})
    name = page.image.replace('"', "'")
    title = f'image "{name}"; {_bbox((0, 0, page.width, page.height))}; ppageno {number - 1}'
    body = SubElement(
        SubElement(root, "body"), "div", {"class": "ocr_page", "id": "page", "title": title}
    )
    for index, region in enumerate(regions(page), 1):
        _region(body, index, region, page)
    return to_bytes(root, doctype=DOCTYPE)


def _region(parent: Element, number: int, region: Region, page: PageResult) -> None:
    title = _bbox(inside(union(line.box for line in region.lines), page))
    area = SubElement(
        parent, "div", {"class": "ocr_carea", "id": f"block_{number}", "title": title}
    )
    paragraph = SubElement(area, "p", {"class": "ocr_par", "id": f"par_{number}", "title": title})
    for index, line in enumerate(region.lines, region.first):
        _line(paragraph, index, region.kind, line, page)


def _line(parent: Element, number: int, kind: LineKind, line: LineResult, page: PageResult) -> None:
    box = inside(line.box, page)
    title = f"{_bbox(box)}{_baseline(line, box)}"
    attributes = {"class": _CLASSES[kind], "id": f"line_{number}", "title": title}
    element = SubElement(parent, "span", attributes)
    element.tail = "\n"
    if not (line.syllables and line.text):
        element.text = line.text or " "
        return
    before: Element | None = None
    for index, syllable in enumerate(line.syllables, 1):
        content = syllable.text.strip()
        lead, _, trail = syllable.text.partition(content) if content else (syllable.text, "", "")
        if before is None:
            element.text = (element.text or "") + lead
        else:
            before.tail = (before.tail or "") + lead
        if not content:
            continue
        sure = round(100 * min(1.0, max(0.0, syllable.confidence)))
        title = f"{_bbox(inside(syllable.box, page))}; x_wconf {sure}"
        attributes = {"class": "ocrx_word", "id": f"word_{number}_{index}", "title": title}
        before = SubElement(element, "span", attributes)
        before.text, before.tail = content, trail


def _bbox(box: Box) -> str:
    return f"bbox {box[0]} {box[1]} {box[0] + box[2]} {box[1] + box[3]}"


def _baseline(line: LineResult, box: Box) -> str:
    """Slope and height of the headline, from the lower left corner of the line's box."""
    if len(line.headline) < 2:
        return ""
    x, y = np.array(line.headline, np.float64).T
    if np.ptp(x) <= np.ptp(y):
        return ""
    away = x - x.mean()
    slope = away @ y / (away @ away)
    height = y.mean() + slope * (box[0] - x.mean()) - (box[1] + box[3])
    return f"; baseline {slope:.4f} {height:.1f}"
