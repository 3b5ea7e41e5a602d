"""What the lines of a block are: text, running head, page number, margin.

Belongs here: the rules of printed books by which the place of a line tells what it is.
Does not belong here: finding the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.baselines import Headlines
from ocr_assets.volumes.blocks import Block

LineKind = Literal["text", "running_head", "page_number", "margin"]

_LINES_OF_A_PAGE = 6


@dataclass(frozen=True, slots=True)
class Segment:
    """A line of a block, or the part of one: index of the line, kind, and ``box`` (left, top,
    right, bottom) of its ink in the block's pixels, half-open."""

    line: int
    kind: LineKind
    box: tuple[int, int, int, int]


def segments(
    headlines: Headlines, block: Block, rules: NDArray[np.int32], size: float
) -> list[Segment]:
    """The lines of a block in reading order, with their kinds.

    A page number beside a running head is a line of its own.

    Args:
        headlines: the lines found.
        block: where the block is on the page.
        rules: long level rules of the page, rows of (x, y, width, height) in its pixels.
        size: letter size in pixels.
    """
    boxes = [(int(a), int(b), int(c), int(d)) for a, b, c, d in headlines.boxes]
    if block.kind == "margin":
        return [Segment(line, "margin", box) for line, box in enumerate(boxes)]
    found = [Segment(line, "text", box) for line, box in enumerate(boxes)]
    if len(boxes) < _LINES_OF_A_PAGE:
        return found
    gaps = np.diff(headlines.y)
    pitch = float(np.median(gaps))
    head = _parts(headlines, 0, size)
    apart = gaps[0] > 1.35 * pitch or _ruled(rules, block, headlines.y[0], headlines.y[1], size)
    if apart:
        found[:1] = [
            Segment(0, "page_number" if _is_number(box, size) else "running_head", box)
            for box in head
        ]
    last = len(boxes) - 1
    box = boxes[last]
    width = block.right - block.left
    indented = box[0] > 0.15 * width
    if (gaps[-1] > 1.2 * pitch or indented) and _is_number(box, size) and indented:
        found[-1] = Segment(last, "page_number", box)
    return found


def _is_number(box: tuple[int, int, int, int], size: float) -> bool:
    return box[2] - box[0] <= 4.5 * size


def _ruled(rules: NDArray[np.int32], block: Block, upper: float, lower: float, size: float) -> bool:
    """Whether a rule across the block runs between two headlines."""
    if len(rules) == 0:
        return False
    y = rules[:, 1]
    between = (y > block.top + upper + 0.3 * size) & (y < block.top + lower + 0.2 * size)
    ruled = np.zeros(block.right - block.left, bool)
    for x, _, width, _ in rules[between]:
        ruled[max(0, x - block.left) : max(0, x + width - block.left)] = True
    return bool(ruled.mean() > 0.4)


def _parts(headlines: Headlines, line: int, size: float) -> list[tuple[int, int, int, int]]:
    """Boxes of the parts of a line that wide gaps part, where an outer one may be a number."""
    left, top, right, bottom = (int(v) for v in headlines.boxes[line])
    ink = (headlines.labels[top:bottom, left:right] == line + 1).any(axis=0)
    marks = np.flatnonzero(ink)
    gaps = np.diff(marks)
    parts = []
    start = 0
    for at in np.flatnonzero(gaps > 2.5 * size):
        piece = (left + int(marks[start]), top, left + int(marks[at]) + 1, bottom)
        rest = (left + int(marks[at + 1]), top, right, bottom)
        if (start == 0 and _is_number(piece, size)) or _is_number(rest, size):
            parts.append(piece)
            start = int(at) + 1
    parts.append((left + int(marks[start]), top, right, bottom))
    return [part for part in parts if _is_tall(headlines, line, part, size)] or [parts[0]]


def _is_tall(headlines: Headlines, line: int, box: tuple[int, int, int, int], size: float) -> bool:
    """Whether a part of a line has ink as high as letters are: the rest of a rule has not."""
    left, top, right, bottom = box
    rows = np.flatnonzero((headlines.labels[top:bottom, left:right] == line + 1).any(axis=1))
    return bool(rows[-1] - rows[0] >= 0.35 * size)
