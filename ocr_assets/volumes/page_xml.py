"""PAGE XML of a page, in the form of 15 July 2019.

Belongs here: the elements of that format. Does not belong here: what it shares with others (see
``markup``), and where files go.

The baseline of a Tibetan line is given as its headline, the line that its letters hang from, as is
the custom for scripts of this kind. A word is a syllable. No clock time is recorded, so that equal
results give equal files: the two dates that the schema demands are the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent

from ocr_assets.volumes.markup import (
    SOFTWARE,
    Writing,
    confidence,
    corners,
    orientation,
    outline,
    points,
    to_bytes,
    union,
)
from ocr_assets.volumes.results import LineResult, PageResult, Region, regions

if TYPE_CHECKING:
    from ocr_assets.volumes.line_kinds import LineKind

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"

_EPOCH = "1970-01-01T00:00:00Z"
_TYPES: dict[LineKind, str] = {
    "text": "paragraph",
    "running_head": "header",
    "page_number": "page-number",
    "margin": "marginalia",
}
_LANGUAGES = {"bo": "Tibetan", "dz": "Dzongkha"}
_SCRIPTS = {"unicode": "Tibt - Tibetan", "wylie": "Latn - Latin"}


def page_xml(page: PageResult, writing: Writing) -> bytes:
    """A page as a PAGE XML document."""
    root = Element("PcGts", {"xmlns": NAMESPACE})
    _metadata(root, page, writing)
    attributes = {
        "imageFilename": page.image,
        "imageWidth": str(page.width),
        "imageHeight": str(page.height),
        "orientation": f"{orientation(page):g}",
        "primaryScript": _SCRIPTS[writing.encoding],
        "readingDirection": "left-to-right",
        "textLineOrder": "top-to-bottom",
        "type": "content" if page.text else "blank",
    }
    if writing.language in _LANGUAGES:
        attributes["primaryLanguage"] = _LANGUAGES[writing.language]
    if page.confidence is not None:
        attributes["conf"] = confidence(page.confidence)
    body = SubElement(root, "Page", attributes)
    found = regions(page)
    if found:
        order = SubElement(body, "ReadingOrder")
        group = SubElement(order, "OrderedGroup", {"id": "reading_order"})
        for number, _ in enumerate(found, 1):
            reference = {"index": str(number - 1), "regionRef": f"region_{number}"}
            SubElement(group, "RegionRefIndexed", reference)
    for number, region in enumerate(found, 1):
        _region(body, number, region, page)
    indent(root, " ")
    return to_bytes(root)


def _metadata(root: Element, page: PageResult, writing: Writing) -> None:
    metadata = SubElement(root, "Metadata")
    SubElement(metadata, "Creator").text = f"{SOFTWARE} {writing.version}".strip()
    SubElement(metadata, "Created").text = _EPOCH
    SubElement(metadata, "LastChange").text = _EPOCH
    SubElement(metadata, "Comments").text = "The dates are placeholders; see the version instead."
    source = {"sha256": page.sha256, "etag": page.etag, "frame": str(page.frame)}
    for name, value in source.items():
        if value is not None:
            item = {"type": "imageProperties", "name": name, "value": value}
            SubElement(metadata, "MetadataItem", item)
    for name, value in writing.settings.items():
        item = {"type": "processingStep", "name": name, "value": value}
        SubElement(metadata, "MetadataItem", item)


def _region(parent: Element, number: int, region: Region, page: PageResult) -> None:
    attributes = {"id": f"region_{number}", "type": _TYPES[region.kind]}
    element = SubElement(parent, "TextRegion", attributes)
    _coords(element, corners(union(line.box for line in region.lines)), page)
    for place, line in enumerate(region.lines):
        _line(element, region.first + place, place, line, page)
    _text(element, "\n".join(line.text for line in region.lines if line.text), None)


def _line(parent: Element, number: int, place: int, line: LineResult, page: PageResult) -> None:
    attributes = {"id": f"line_{number}", "index": str(place)}
    element = SubElement(parent, "TextLine", attributes)
    _coords(element, outline(line), page)
    if len(line.headline) > 1:
        SubElement(element, "Baseline", {"points": points(line.headline, page)})
    for index, syllable in enumerate(line.syllables, 1):
        word = SubElement(element, "Word", {"id": f"word_{number}_{index}"})
        _coords(word, corners(syllable.box), page)
        _text(word, syllable.text.strip(), syllable.confidence)
    _text(element, line.text, line.confidence)


def _coords(parent: Element, path: tuple[tuple[int, int], ...], page: PageResult) -> None:
    SubElement(parent, "Coords", {"points": points(path, page)})


def _text(parent: Element, text: str, sureness: float | None) -> None:
    attributes = {} if sureness is None else {"conf": confidence(sureness)}
    SubElement(SubElement(parent, "TextEquiv", attributes), "Unicode").text = text
