"""What the three page formats have in common: geometry inside the image, and who wrote them.

Belongs here: what PAGE XML, ALTO and hOCR would otherwise each do for themselves. Does not belong
here: the elements of any one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ocr_assets.volumes.results import Box, LineResult, PageResult, Point, writable

if TYPE_CHECKING:
    from ocr_assets.volumes.wylie import Encoding

SOFTWARE = "ocr-assets"


@dataclass(frozen=True)
class Writing:
    """What a document says of its text and of how it came to be.

    Attributes:
        encoding: of the text.
        language: BCP 47 tag of the language, without its script.
        version: of the software.
        settings: names and values that decided the text: job type, models and their hashes.
    """

    encoding: Encoding
    language: str
    version: str
    settings: Mapping[str, str]

    @classmethod
    def of(cls, encoding: Encoding, language: str, lineage: Mapping[str, Any]) -> Writing:
        """From a lineage record: all of it that is short, so the inputs are left out."""
        settings: dict[str, str] = {}
        for name, value in lineage.items():
            if isinstance(value, Mapping):
                if name == "configuration":
                    settings |= {str(key): _shown(item) for key, item in value.items()}
            elif name != "package_version":
                settings[name] = _shown(value)
        ordered = {writable(name): writable(settings[name]) for name in sorted(settings)}
        return cls(encoding, language, str(lineage.get("package_version", "")), ordered)

    @property
    def language_tag(self) -> str:
        """BCP 47 tag with the script where it is not the usual one."""
        return f"{self.language}-Latn" if self.encoding == "wylie" else self.language


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def inside(box: Box, page: PageResult) -> Box:
    """A box cut off at the edges of the image."""
    left, top = _inside((box[0], box[1]), page)
    right, bottom = _inside((box[0] + box[2], box[1] + box[3]), page)
    return left, top, right - left, bottom - top


def _inside(point: Point, page: PageResult) -> Point:
    return min(max(point[0], 0), page.width), min(max(point[1], 0), page.height)


def points(path: Iterable[Point], page: PageResult) -> str:
    """A path as ``x1,y1 x2,y2 ...``, held within the image."""
    return " ".join(f"{x},{y}" for x, y in (_inside(point, page) for point in path))


def corners(box: Box) -> tuple[Point, ...]:
    """The corners of a box, clockwise from the upper left."""
    x, y, width, height = box
    return (x, y), (x + width, y), (x + width, y + height), (x, y + height)


def outline(line: LineResult) -> tuple[Point, ...]:
    """The polygon of a line, or its box where there are too few points for one."""
    return line.polygon if len(line.polygon) > 2 else corners(line.box)


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around some boxes, of which there is at least one."""
    edges = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    left, top = min(edge[0] for edge in edges), min(edge[1] for edge in edges)
    return left, top, max(e[2] for e in edges) - left, max(e[3] for e in edges) - top


def orientation(page: PageResult) -> float:
    """Degrees clockwise by which the page has to be turned to be level, above -180 up to 180.

    The same number is the rotation of its text anticlockwise.
    """
    turn = math.fmod(-(page.turned + page.angle), 360.0)
    if turn <= -180:
        turn += 360
    return round(turn, 3) + 0.0


def confidence(value: float) -> str:
    """A confidence with four decimals."""
    return f"{min(1.0, max(0.0, value)):.4f}"


def to_bytes(root: ElementTree.Element, *, doctype: str = "") -> bytes:
    """An XML document in UTF-8 that ends with a line break."""
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}{body}\n'.encode()
