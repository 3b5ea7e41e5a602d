"""Lines of text in one block: where their headlines run, and which ink is theirs.

Belongs here: arithmetic on the ink of a straightened block of one column.
Does not belong here: cutting the page into blocks, line images, what a line means.

The headline is the level top of the base letters, from which Tibetan letters hang. Heights are told
in letter sizes (:func:`ocr_assets.volumes.rules.letter_size`), about the height of a letter stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.components import Pieces, find_pieces
from ocr_assets.volumes.profiles import lower_edges, upper_edges


@dataclass(frozen=True, slots=True)
class Headlines:
    """Lines of a block, top down.

    ``y`` float64 ``[n]`` are the headlines. ``labels`` int32 ``[h, w]`` is k + 1 for ink of line k,
    0 elsewhere. ``body`` float64 ``[n]`` is how far plain letters reach below the headline, in
    pixels. ``boxes`` int32 ``[n, 4]`` holds left, top, right, bottom of each line's ink, half-open.
    """

    y: NDArray[np.float64]
    labels: NDArray[np.int32]
    body: NDArray[np.float64]
    boxes: NDArray[np.int32]


def _no_lines(shape: tuple[int, ...]) -> Headlines:
    return Headlines(
        np.zeros(0), np.zeros(shape, np.int32), np.zeros(0), np.zeros((0, 4), np.int32)
    )


def find_headlines(ink: NDArray[np.bool_], size: float) -> Headlines:
    """Find the lines of a straight block and share its ink out among them."""
    candidates = _headline_candidates(ink, size)
    if len(candidates) == 0:
        return _no_lines(ink.shape)
    pieces = _split_touching(ink, find_pieces(ink), candidates, size)
    top = pieces.top.astype(float)
    h = pieces.height.astype(float)
    kept = _with_leftovers(candidates, top, h, size)
    while True:
        line = _assign(top, h, kept, size)
        hanging = (h >= 0.4 * size) & (np.abs(top - kept[line]) < 0.8 * size)
        hanging[0] = False
        ink_of = np.bincount(line[1:], pieces.area[1:], minlength=len(kept))
        bodies = np.bincount(line[hanging], minlength=len(kept))
        good = (bodies > 0) & (ink_of >= 0.1 * size * size)
        if good.all() or not good.any():
            break
        kept = kept[good]
    if not good.any():
        return _no_lines(ink.shape)
    lookup = (line + 1).astype(np.int32)
    lookup[0] = 0
    # Dust far from any line belongs to none.
    dust = _off_line(top, h, kept[line], size)
    dust |= (pieces.width < 0.1 * size) & (h < 0.1 * size)
    lookup[dust] = 0
    boxes = _line_boxes(pieces.stats, lookup, len(kept))
    present = boxes[:, 2] > 0
    renumber = np.concatenate([[0], np.cumsum(present) * present])
    lookup = renumber[lookup].astype(np.int32)
    kept, boxes = kept[present], boxes[present]
    body = body_height(ink, kept, size) * _line_scales(pieces.stats, lookup, len(kept), size)
    return Headlines(kept, lookup[pieces.labels], body, boxes)


def _off_line(
    top: NDArray[np.float64], h: NDArray[np.float64], y: NDArray[np.float64], size: float
) -> NDArray[np.bool_]:
    """Pieces too far above or below a headline to belong to it."""
    centre = top + h / 2 - y
    return (centre < -1.2 * size) | (centre > 1.9 * size)


def _with_leftovers(
    y: NDArray[np.float64], top: NDArray[np.float64], h: NDArray[np.float64], size: float
) -> NDArray[np.float64]:
    """Add lines of few letters, such as page numbers, that no candidate explains."""
    left = _off_line(top, h, y[_assign(top, h, y, size)], size) & (h > 0.4 * size)
    left[0] = False
    tops = np.sort(top[left & (h < 3 * size)])
    groups = np.split(tops, np.flatnonzero(np.diff(tops) > 0.5 * size) + 1) if len(tops) else []
    return np.sort(np.concatenate([y, [float(np.median(group)) for group in groups]]))


def _line_boxes(
    stats: NDArray[np.int32], line_of: NDArray[np.int32], count: int
) -> NDArray[np.int32]:
    """Left, top, right, bottom of the pieces of each line; zeros for a line without any."""
    boxes = np.zeros((count, 4), np.int32)
    for line in range(count):
        mine = stats[line_of == line + 1]
        if len(mine):
            boxes[line, :2] = mine[:, :2].min(axis=0)
            boxes[line, 2:] = (mine[:, :2] + mine[:, 2:4]).max(axis=0)
    return boxes


def body_height(ink: NDArray[np.bool_], y: NDArray[np.float64], size: float) -> float:
    """Pixels from the headline to the foot of plain letters, where lower edges lie level."""
    rows = np.count_nonzero(lower_edges(ink), axis=1).astype(float)
    pitch = float(np.median(np.diff(y))) if len(y) > 2 else 2 * size
    first, stop = round(0.3 * size), round(max(0.5 * size, min(1.2 * size, 0.45 * pitch)))
    below = np.zeros(stop + 2)
    for line in y.round().astype(int):
        part = rows[line : line + stop + 2]
        below[: len(part)] += part
    below[:] = cv2.GaussianBlur(below[:, None], (1, 0), 0.1, sigmaY=0.5 + 0.03 * size).ravel()
    foot = first + int(below[first:stop].argmax())
    before, at, after = below[foot - 1], below[foot], below[foot + 1]
    bend = 2 * at - before - after
    return foot + (float(np.clip((after - before) / (2 * bend), -0.5, 0.5)) if bend > 0 else 0.0)


def _line_scales(
    stats: NDArray[np.int32], line_of: NDArray[np.int32], count: int, size: float
) -> NDArray[np.float64]:
    """Letter size of each line against the block's; 1.0 where the line is too short to tell."""
    width, height = stats[:, 2], stats[:, 3]
    letter = (height > 0.4 * size) & (height < 4 * size) & (line_of > 0)
    scales = np.ones(count)
    for line in range(count):
        mine = letter & (line_of == line + 1)
        if mine.sum() >= 8:
            # Both sides of the letters must agree: deep stacks alone make no larger type.
            ratios = [np.median(side[mine]) / np.median(side[letter]) for side in (width, height)]
            if min(ratios) > 1.15 or max(ratios) < 0.87:
                scales[line] = np.sqrt(ratios[0] * ratios[1])
    return scales


def _headline_candidates(ink: NDArray[np.bool_], size: float) -> NDArray[np.float64]:
    """Rows where many upper edges lie level, and more ink is below than above."""
    edges = np.count_nonzero(upper_edges(ink), axis=1).astype(np.float32)
    rows = np.count_nonzero(ink, axis=1)
    level = cv2.GaussianBlur(edges[:, None], (1, 0), 0.1, sigmaY=0.05 * size + 0.4).ravel()
    span = max(2, round(0.45 * size))
    total = np.pad(np.cumsum(rows, dtype=np.float64), (span + 1, 0))
    total = np.pad(total, (0, span), mode="edge")
    at = np.arange(len(rows)) + span
    below = total[at + span] - total[at]
    above = total[at] - total[at - span]
    step = np.maximum(0, below - above) / span
    score = level * np.sqrt(step / max(1.0, step.max()))
    reach = round(0.9 * size)
    least = 0.08 * size * np.sqrt(size / ink.shape[1])
    found: list[int] = []
    taken = np.zeros(len(rows), bool)
    for row in np.argsort(-score, kind="stable"):
        if score[row] < least:
            break
        if not taken[row]:
            found.append(int(row))
            taken[max(0, row - reach) : row + reach + 1] = True
    return _without_marks(np.sort(np.array(found, int)), score)


def _without_marks(rows: NDArray[np.int64], score: NDArray[np.float32]) -> NDArray[np.float64]:
    """Drop weak candidates nearer to a strong one than lines can be: rows of marks."""
    if len(rows) < 3:
        return rows.astype(float)
    strong = rows[score[rows] > 0.35 * score[rows].max()]
    pitch = np.median(np.diff(strong)) if len(strong) > 2 else 0.0
    near = np.abs(rows[:, None] - strong[None]) < 0.55 * pitch
    mark = near & (score[rows][:, None] < 0.35 * score[strong][None])
    return rows[~mark.any(axis=1)].astype(float)


def _assign(
    top: NDArray[np.float64], h: NDArray[np.float64], y: NDArray[np.float64], size: float
) -> NDArray[np.int64]:
    """Index of the line each piece belongs to, by how far it is from hanging on the headline."""
    bottom = top + h
    above = np.maximum(0, y[None] - bottom[:, None]) / (0.6 * size)
    below = np.maximum(0, top[:, None] - y[None]) / (1.1 * size)
    big = (h >= 0.45 * size)[:, None]
    off = np.abs(top[:, None] - y[None]) / size
    hanging = np.where(top[:, None] < y[None], 0.5 * off, off)
    return np.where(big & (above == 0), hanging * 0.8, above + below).argmin(axis=1)


def _split_touching(
    ink: NDArray[np.bool_],
    pieces: Pieces,
    y: NDArray[np.float64],
    size: float,
) -> Pieces:
    """Cut pieces that hang on one headline and reach the next one's letters."""
    top, bottom = pieces.top, pieces.top + pieces.height
    parted = ink.copy()
    for line, next_line in pairwise(y):
        reaching = (top < line + 0.5 * size) & (bottom > next_line + 0.3 * size)
        reaching[0] = False
        low, high = int(line + 0.35 * (next_line - line)), int(next_line)
        for piece in np.flatnonzero(reaching):
            columns = pieces.left[piece] + np.arange(pieces.width[piece])
            window = pieces.labels[low:high, columns[0] : columns[-1] + 1] == piece
            parted[low + _seam(window), columns] = False
    if (parted == ink).all():
        return pieces
    return find_pieces(parted)


def _seam(window: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row in each column of the left-to-right path through the least ink, near the middle."""
    rows, cols = window.shape
    off_middle = np.abs(np.arange(rows) - 0.45 * rows) / rows
    total = window + 0.02 * off_middle[:, None]
    for col in range(1, cols):
        before = np.pad(total[:, col - 1], 1, constant_values=np.inf)
        total[:, col] += np.minimum(np.minimum(before[:-2], before[2:]) + 0.01, before[1:-1])
    path = np.empty(cols, np.int64)
    path[-1] = total[:, -1].argmin()
    for col in range(cols - 1, 0, -1):
        low = max(0, path[col] - 1)
        path[col - 1] = low + total[low : path[col] + 2, col - 1].argmin()
    return path
