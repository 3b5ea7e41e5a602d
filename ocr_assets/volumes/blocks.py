"""The blocks of a page: fields between rules, columns, pages of a spread, margins.

Belongs here: cutting a levelled page into blocks of one column each, in reading order.
Does not belong here: finding the lines in a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.rules import Ruling

BlockKind = Literal["text", "margin"]

_COLUMN_LINES = 6
"""Lines that a column has at least: a chance gap runs through few lines."""


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of a working page, half-open, in pixels, that holds one column of lines."""

    left: int
    top: int
    right: int
    bottom: int
    kind: BlockKind = "text"

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the block."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, by: int, shape: tuple[int, ...]) -> Block:
        """The block with ``by`` pixels more on every side, within a page of ``shape``."""
        return Block(
            max(0, self.left - by),
            max(0, self.top - by),
            min(shape[1], self.right + by),
            min(shape[0], self.bottom + by),
            self.kind,
        )


def find_blocks(ink: NDArray[np.bool_], ruling: Ruling, size: float) -> list[Block]:
    """Blocks in reading order: down, and columns from the left.

    Args:
        ink: bool ``[h, w]`` of a levelled page, rules removed.
        ruling: the rules that were removed.
        size: letter size in pixels.
    """
    rows = np.flatnonzero(ink.any(axis=1))
    if len(rows) == 0:
        return []
    page = Block(0, int(rows[0]), ink.shape[1], int(rows[-1]) + 1)
    blocks: list[Block] = []
    for field in _ruled_fields(page, ruling, size):
        blocks += _columns(ink, field, size)
    return [block for block in (_fitted(ink, b, size) for b in blocks) if block is not None]


def _ruled_fields(page: Block, ruling: Ruling, size: float) -> list[Block]:
    """Fields between upright rules, one row of fields below the other.

    Rules of frames that stand one below the other bound different fields.
    """
    tall = ruling.vertical[ruling.vertical[:, 3] >= 0.25 * (page.bottom - page.top)]
    if len(tall) == 0:
        return [page]
    spans: list[list[int]] = []
    for top, bottom in sorted((int(y), int(y + h)) for _, y, _, h in tall):
        if spans and top < spans[-1][1] - size:
            spans[-1][1] = max(spans[-1][1], bottom)
        else:
            spans.append([top, bottom])
    cuts = [page.top]
    for (_, end), (start, _) in pairwise(spans):
        cuts.append((end + start) // 2)
    cuts.append(page.bottom)
    fields = []
    for (start, end), low, high in zip(spans, cuts[:-1], cuts[1:], strict=True):
        # Lines above or below the ruled part run across it.
        above = start if start - low > 1.2 * size else low
        below = end if high - end > 1.2 * size else high
        if above > low:
            fields.append(Block(page.left, low, page.right, above))
        edges = [page.left]
        for x, y, w, h in sorted(tall.tolist()):
            if y < end and y + h > start and h > 0.6 * (end - start):
                edges += [x, x + w]
        edges.append(page.right)
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            if right - left > 0.6 * size:
                fields.append(Block(left, above, right, below))
        if below < high:
            fields.append(Block(page.left, below, page.right, high))
    return fields


def _columns(ink: NDArray[np.bool_], field: Block, size: float) -> list[Block]:
    """Cut a field at its gutter, if it has one, and each part again."""
    gutter = _gutter(ink, field, size)
    if gutter is None:
        return [field]
    parts = []
    if gutter.top > field.top:
        parts.append(Block(field.left, field.top, field.right, gutter.top))
    columns = [
        Block(field.left, gutter.top, gutter.left, gutter.bottom),
        Block(gutter.right, gutter.top, field.right, gutter.bottom),
    ]
    for column in columns:
        parts += _columns(ink, column, size)
    if gutter.bottom < field.bottom:
        parts.append(Block(field.left, gutter.bottom, field.right, field.bottom))
    return parts


def _gutter(ink: NDArray[np.bool_], field: Block, size: float) -> Block | None:
    """The white stripe of a field that parts two columns of text, or None."""
    cell = max(2, round(size / 3))
    part = ink[field.slices]
    rows, cols = part.shape[0] // cell, part.shape[1] // cell
    if rows < 6 or cols < 12:
        return None
    cells = part[: rows * cell, : cols * cell].reshape(rows, cell, cols, cell).any(axis=(1, 3))
    text = np.flatnonzero(cells.any(axis=0))
    if len(text) == 0:
        return None
    least = max(24, round(0.3 * rows))
    best: Block | None = None
    group: Block | None = None
    for col in range(max(1, int(text[0])), int(text[-1])):
        top, bottom = max(_runs(~cells[:, col]), key=lambda run: run[1] - run[0], default=(0, 0))
        if group is not None and _same_stripe(group, top, bottom):
            group = Block(group.left, max(top, group.top), col + 1, min(bottom, group.bottom))
        else:
            group = Block(col, top, col + 1, bottom) if bottom - top >= least else None
        if group is not None and _parts_columns(cells, group):
            taller = best is None or group.bottom - group.top > 0.9 * (best.bottom - best.top)
            best = group if taller else best
    if best is None:
        return None
    whole = best.bottom >= rows - 1
    return Block(
        field.left + best.left * cell,
        field.top + best.top * cell,
        field.left + best.right * cell,
        field.bottom if whole else field.top + best.bottom * cell,
    )


def _same_stripe(stripe: Block, top: int, bottom: int) -> bool:
    """Whether the white run ``top`` to ``bottom`` of the next column widens a stripe."""
    height = stripe.bottom - stripe.top
    common = min(bottom, stripe.bottom) - max(top, stripe.top)
    return common > 0.85 * height and bottom - top < 1.2 * height


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open runs of True."""
    padded = np.concatenate([[False], flags, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _parts_columns(cells: NDArray[np.bool_], gutter: Block) -> bool:
    """Whether text on both sides of a stripe is columns, not verse with gaps.

    Columns are wide and mostly full, and their inner edges are straight: most of their lines reach
    the stripe. The strokes that close a verse reach it too, but fill no column.
    """
    sides = (
        cells[gutter.top : gutter.bottom, : gutter.left][:, ::-1],
        cells[gutter.top : gutter.bottom, gutter.right :],
    )
    if gutter.right - gutter.left < 3:
        return False
    spread = _is_spine(cells, gutter)
    for side in sides:
        # Cells beyond the next white stripe are another column's.
        clear = np.flatnonzero(~side.any(axis=0))
        clear = clear[clear > 2]
        width = clear[0] if len(clear) else side.shape[1]
        near = side[:, :width]
        if width < 14 or near.mean() < 0.15:
            return False
        filled = near.mean(axis=1)
        lines = filled > 0.6 * np.quantile(filled, 0.9)
        if len(_runs(lines)) < _COLUMN_LINES:
            return False
        if not spread and near[lines][:, :4].any(axis=1).mean() < 0.55:
            return False
    return True


def _is_spine(cells: NDArray[np.bool_], gutter: Block) -> bool:
    """Whether a stripe is wide, in the middle and as high as a field broader than high."""
    rows, cols = cells.shape
    middle = (gutter.left + gutter.right) / 2 / cols
    return (
        cols > 1.1 * rows
        and 0.4 < middle < 0.6
        and gutter.right - gutter.left >= 8
        and gutter.bottom - gutter.top > 0.95 * rows
    )


def _fitted(ink: NDArray[np.bool_], block: Block, size: float) -> Block | None:
    """The block drawn close around its ink, with its kind; None where it holds dust only."""
    part = ink[block.slices]
    rows = np.flatnonzero(part.any(axis=1))
    if len(rows) == 0:
        return None
    cols = np.flatnonzero(part.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1
    if max(height, width) < 0.5 * size:
        return None
    beside_text = block.right - block.left < 0.12 * ink.shape[1]
    at_edge = block.left < 0.12 * ink.shape[1] or block.right > 0.88 * ink.shape[1]
    kind: BlockKind = "margin" if beside_text and at_edge and ink.shape[1] > 8 * size else "text"
    return Block(
        block.left + int(cols[0]),
        block.top + int(rows[0]),
        block.left + int(cols[-1]) + 1,
        block.top + int(rows[-1]) + 1,
        kind,
    )
