"""ALTO 4.4 of a page.

Belongs here: the elements of that format. Does not belong here: what it shares with others (see
``markup``), and where files go.

A string is a syllable; blanks between syllables are ``SP`` elements, and strings without one
between them are joined. As the format wants, running heads, page numbers and notes that lie around
the text are in the margins, which come before it in the file; ``ReadingOrder`` has the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent

from ocr_assets.volumes.markup import (
    SOFTWARE,
    Writing,
    confidence,
    inside,
    orientation,
    outline,
    points,
    to_bytes,
    union,
)
from ocr_assets.volumes.results import Box, LineResult, PageResult, Region, regions

if TYPE_CHECKING:
    from ocr_assets.volumes.line_kinds import LineKind

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
SCHEMA_VERSION = "4.4"

_SPACES = ("TopMargin", "LeftMargin", "RightMargin", "BottomMargin", "PrintSpace")
_LABELS: dict[LineKind, str] = {
    "text": "text",
    "running_head": "running head",
    "page_number": "page number",
    "margin": "margin note",
}


def alto(page: PageResult, writing: Writing, number: int) -> bytes:
    """A page as an ALTO document; ``number`` is its place in the volume, from 1."""
    root = Element("alto", {"xmlns": NAMESPACE, "SCHEMAVERSION": SCHEMA_VERSION})
    _description(root, page, writing)
    found = regions(page)
    if found:
        tags = SubElement(root, "Tags")
        for kind in sorted({region.kind for region in found}):
            tag = {"ID": f"tag_{kind}", "TYPE": "kind", "LABEL": _LABELS[kind]}
            SubElement(tags, "StructureTag", tag)
        order = SubElement(root, "ReadingOrder")
        group = SubElement(order, "OrderedGroup", {"ID": "reading_order"})
        for index, _ in enumerate(found, 1):
            reference = {"ID": f"order_{index}", "REF": f"block_{index}"}
            SubElement(group, "ElementRef", reference)
    attributes = {
        "ID": "page",
        "PHYSICAL_IMG_NR": str(number),
        "WIDTH": str(page.width),
        "HEIGHT": str(page.height),
        "ROTATION": f"{orientation(page):g}",
        "LANG": writing.language_tag,
    }
    if page.confidence is not None:
        attributes["PC"] = confidence(page.confidence)
    layout = SubElement(SubElement(root, "Layout"), "Page", attributes)
    text = [line.box for region in found if region.kind == "text" for line in region.lines]
    body = inside(union(text), page) if text else (0, 0, page.width, page.height)
    spaces: dict[str, list[tuple[int, Region]]] = {name: [] for name in _SPACES}
    for index, region in enumerate(found, 1):
        spaces[_space(region, body)].append((index, region))
    for name, blocks in spaces.items():
        if name != "PrintSpace" and not blocks:
            continue
        boxes = [line.box for _, region in blocks for line in region.lines]
        box = body if name == "PrintSpace" else inside(union(boxes), page)
        element = SubElement(layout, name, _place(box))
        for index, region in blocks:
            _block(element, index, region, page)
    indent(root, " ")
    return to_bytes(root)


def _description(root: Element, page: PageResult, writing: Writing) -> None:
    description = SubElement(root, "Description")
    SubElement(description, "MeasurementUnit").text = "pixel"
    source = SubElement(description, "sourceImageInformation")
    SubElement(source, "fileName").text = page.image
    SubElement(source, "fileIdentifier", {"fileIdentifierLocation": "sha256"}).text = page.sha256
    if page.etag is not None:
        SubElement(source, "fileIdentifier", {"fileIdentifierLocation": "etag"}).text = page.etag
    step = SubElement(description, "Processing", {"ID": "recognition"})
    SubElement(step, "processingCategory").text = "contentGeneration"
    settings = "; ".join(f"{name}={value}" for name, value in writing.settings.items())
    SubElement(step, "processingStepSettings").text = settings
    software = SubElement(step, "processingSoftware")
    SubElement(software, "softwareName").text = SOFTWARE
    SubElement(software, "softwareVersion").text = writing.version


def _space(region: Region, body: Box) -> str:
    """Where a region belongs: in a margin if it is no text and its middle lies outside the text."""
    if region.kind == "text":
        return "PrintSpace"
    x, y, width, height = union(line.box for line in region.lines)
    middle_x, middle_y = x + width / 2, y + height / 2
    left, top, wide, high = body
    if middle_y < top:
        return "TopMargin"
    if middle_y > top + high:
        return "BottomMargin"
    if middle_x < left:
        return "LeftMargin"
    return "RightMargin" if middle_x > left + wide else "PrintSpace"


def _block(parent: Element, number: int, region: Region, page: PageResult) -> None:
    box = inside(union(line.box for line in region.lines), page)
    attributes = {"ID": f"block_{number}", "TAGREFS": f"tag_{region.kind}", **_place(box)}
    block = SubElement(parent, "TextBlock", attributes)
    for index, line in enumerate(region.lines, region.first):
        _line(block, index, line, page)


def _line(parent: Element, number: int, line: LineResult, page: PageResult) -> None:
    box = inside(line.box, page)
    attributes = {"ID": f"line_{number}", **_place(box)}
    if len(line.headline) > 1:
        attributes["BASELINE"] = points(line.headline, page)
    element = SubElement(parent, "TextLine", attributes)
    shape = SubElement(element, "Shape")
    SubElement(shape, "Polygon", {"POINTS": points(outline(line), page)})
    blank = False
    strings = 0
    for syllable in line.syllables:
        content = syllable.text.strip()
        if content:
            if strings and (blank or syllable.text[:1].isspace()):
                SubElement(element, "SP")
            blank = False
            strings += 1
            string = {"ID": f"string_{number}_{strings}", **_place(inside(syllable.box, page))}
            string |= {"CONTENT": content, "WC": confidence(syllable.confidence)}
            SubElement(element, "String", string)
        blank = blank or syllable.text[-1:].isspace()
    if not strings:
        # The schema wants a string in each line, also in one whose syllables are not known.
        string = {"ID": f"string_{number}_1", **_place(box), "CONTENT": line.text}
        SubElement(element, "String", string | {"WC": confidence(line.confidence)})


def _place(box: Box) -> dict[str, str]:
    names = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
    return {name: str(value) for name, value in zip(names, box, strict=True)}
