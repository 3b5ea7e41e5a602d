"""From a page image to its lines: where each one is, what it is, and its levelled image.

Belongs here: the steps from an image to lines in reading order, line images, and the way back from
a line image to the original pixels. Does not belong here: how ink, rules, blocks and headlines are
found (modules of those names), and the reading of a line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.baselines import Headlines, find_headlines
from ocr_assets.volumes.binarise import WorkingPage, even_grey, working_page
from ocr_assets.volumes.blocks import Block, find_blocks
from ocr_assets.volumes.bow import bow, straightened
from ocr_assets.volumes.components import find_pieces
from ocr_assets.volumes.line_kinds import LineKind, Segment, segments
from ocr_assets.volumes.rules import find_letters, find_ruling
from ocr_assets.volumes.skew import estimate_skew, headline_contrast, quarter_turns

LINE_HEIGHT = 64
"""Height of line images in pixels unless the caller asks for another."""

BODY_SHARE = 0.19
"""Part of a line image's height that plain letters take, from headline to foot."""

HEADLINE_SHARE = 0.3
"""Where the headline is in a line image, as a part of its height."""

_UPSIDE_DOWN = 0.9
"""Headline contrast below which a page is taken to stand on its head."""

_NO_TEXT = -1
_MIN_LETTER = 5.0
_SPECK, _FEW = 0.02, 8
"""Part of the page's height, and number, below which letters are specks: a lone page number has
about one part in forty."""

_SIDE_MARGIN = 0.3
_AROUND = 1.2

Affine = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of a page.

    ``image`` is uint8 ``[h, w]``: dark upright text on light ground, levelled, other lines' ink
    masked. ``polygon`` int32 ``[n, 2]`` and ``box`` (x, y, width, height) are in original pixels,
    close around the line's ink; ``headline`` float32 ``[n, 2]`` is the curve its letters hang from.
    """

    image: NDArray[np.uint8]
    kind: LineKind
    block: int
    polygon: NDArray[np.int32]
    box: tuple[int, int, int, int]
    headline: NDArray[np.float32]
    _top: NDArray[np.float64] = field(repr=False)
    _down: NDArray[np.float64] = field(repr=False)
    _headline_row: float = field(repr=False)

    def to_original(
        self, x: NDArray[np.float64] | float, y: NDArray[np.float64] | float | None = None
    ) -> NDArray[np.float64]:
        """Original (x, y) of positions in ``image``: float64 ``[..., 2]``.

        Positions are in pixels of the image; without ``y`` they are on the headline.
        """
        x = np.asarray(x, np.float64)
        down = np.asarray(self._headline_row if y is None else y, np.float64)
        columns = np.arange(len(self._top))
        top = np.stack([np.interp(x, columns, self._top[:, axis]) for axis in (0, 1)], axis=-1)
        return top + down[..., None] * self._down

    def span_box(self, start: float, stop: float) -> tuple[int, int, int, int]:
        """Box (x, y, width, height) in original pixels of the columns ``start`` to ``stop``."""
        corners = self.to_original(
            np.array([start, stop, start, stop]), np.array([0, 0, 1, 1.0]) * self.image.shape[0]
        )
        # Bounded by the line's own ink, as the image has room above and below.
        x, y, width, height = self.box
        low = np.maximum(np.floor(corners.min(axis=0)), (x, y))
        high = np.minimum(np.ceil(corners.max(axis=0)), (x + width, y + height))
        size = np.maximum(1, high - low)
        return int(low[0]), int(low[1]), int(size[0]), int(size[1])


@dataclass(frozen=True, slots=True)
class PageLines:
    """Lines of a page in reading order, and how the page lay.

    ``angle`` is the skew in degrees that was undone, positive where lines fell to the right.
    ``turned`` is how the page was turned before, anticlockwise: 0, 90, 180 or 270 degrees.
    """

    lines: tuple[TextLine, ...]
    angle: float
    turned: int


@dataclass(frozen=True, slots=True)
class _View:
    """A block: its ink, all other ink around, and the affine from its pixels to original ones."""

    ink: NDArray[np.bool_]
    other: NDArray[np.bool_]
    to_original: Affine
    size: float


def find_lines(
    image: NDArray[np.bool_] | NDArray[np.uint8],
    line_height: int = LINE_HEIGHT,
    text_mask: NDArray[np.bool_] | None = None,
) -> PageLines:
    """Find the lines of a page.

    Args:
        image: bool ``[h, w]`` with True for ink, or uint8 grey ``[h, w]``.
        line_height: height of the line images in pixels. It holds more than the tallest usual
            letters, so that a line image can be scaled to a model's input height as it is.
        text_mask: bool ``[h, w]``, True where a segmentation model sees text, if there is one.
            Pieces of ink that lie away from it are left out.

    Returns:
        The lines in reading order; none for a page without letters.

    Raises:
        ValueError: the array is neither of the two kinds, or is empty; the mask has another shape.
    """
    page = working_page(image)
    ink = page.ink
    letters = find_letters(ink)
    if text_mask is not None:
        ink = _within(ink, image.shape, text_mask, letters.size)
        letters = find_letters(ink)
    specks = letters.count < _FEW and letters.size < _SPECK * ink.shape[0]
    if letters.size < _MIN_LETTER or specks:
        return PageLines((), 0.0, 0)
    half = (page.factor - 1) / 2
    to_original = np.array([[page.factor, 0, half], [0, page.factor, half]], np.float64)
    turns = quarter_turns(letters.ink, letters.size)
    if turns:
        to_original = _after(to_original, _quarter_turn(ink.shape))
        ink = np.ascontiguousarray(np.rot90(ink))
    angle = estimate_skew(ink)
    if angle:
        ink, level = _rotated(ink, angle)
        to_original = _after(to_original, level)
    ruling = find_ruling(ink, letters.size)
    text = ink & ~ruling.mask
    if headline_contrast(text, letters.size) < _UPSIDE_DOWN:
        to_original = _after(to_original, _half_turn(ink.shape))
        turns += 2
        text = np.ascontiguousarray(text[::-1, ::-1])
        ink = np.ascontiguousarray(ink[::-1, ::-1])
        ruling = ruling.half_turned()
    source = _LineSource(image, page, line_height)
    lines: list[TextLine] = []
    for number, block in enumerate(find_blocks(text, ruling, letters.size)):
        wide = block.grown(round(_AROUND * letters.size), text.shape)
        view = _block_view(ink, text, block, wide, to_original, letters.size)
        lines += _lines_of(view, wide, number, ruling.horizontal, source)
    return PageLines(tuple(lines), angle, 90 * turns)


def _within(
    ink: NDArray[np.bool_], shape: tuple[int, ...], mask: NDArray[np.bool_], size: float
) -> NDArray[np.bool_]:
    """The pieces of ink that lie at least half on a mask or within a mark's height of it."""
    if mask.shape != shape:
        raise ValueError(f"the text mask has shape {mask.shape}, the page {shape}")
    small = cv2.resize(mask.view(np.uint8), ink.shape[::-1], interpolation=cv2.INTER_NEAREST)
    reach = 2 * round(0.35 * size) + 1
    near = cv2.dilate(small, np.ones((reach, reach), np.uint8))
    pieces = find_pieces(ink)
    return pieces.mask(2 * pieces.overlap(np.asarray(near, bool)) >= pieces.area)


def _after(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies ``inner`` first."""
    return outer @ np.vstack([inner, [0, 0, 1]])


def _quarter_turn(shape: tuple[int, ...]) -> Affine:
    """From a page turned anticlockwise by 90 degrees back to the page of ``shape``."""
    return np.array([[0, -1, shape[1] - 1], [1, 0, 0]], np.float64)


def _half_turn(shape: tuple[int, ...]) -> Affine:
    return np.array([[-1, 0, shape[1] - 1], [0, -1, shape[0] - 1]], np.float64)


def _rotated(ink: NDArray[np.bool_], angle: float) -> tuple[NDArray[np.bool_], Affine]:
    """The page levelled, on a canvas that holds all of it, and the affine back."""
    height, width = ink.shape
    forward = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    cos, sin = abs(forward[0, 0]), abs(forward[0, 1])
    size = (round(width * cos + height * sin), round(width * sin + height * cos))
    forward[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
    turned = cv2.warpAffine(ink.view(np.uint8) * np.uint8(255), forward, size)
    return np.asarray(turned) > 127, np.asarray(cv2.invertAffineTransform(forward))


def _block_view(
    ink: NDArray[np.bool_],
    text: NDArray[np.bool_],
    block: Block,
    wide: Block,
    to_original: Affine,
    size: float,
) -> _View:
    """A block cut out with its surroundings; a margin whose text runs upright is turned level."""
    part = np.zeros((wide.bottom - wide.top, wide.right - wide.left), bool)
    rows = slice(block.top - wide.top, block.bottom - wide.top)
    columns = slice(block.left - wide.left, block.right - wide.left)
    part[rows, columns] = text[block.slices]
    other = ink[wide.slices] & ~part
    to_original = _after(to_original, np.array([[1, 0, wide.left], [0, 1, wide.top]], np.float64))
    if block.kind == "text":
        return _View(part, other, to_original, size)
    height, width = block.bottom - block.top, block.right - block.left
    if height > 1.2 * width:
        to_original = _after(to_original, _quarter_turn(part.shape))
        part, other = (np.ascontiguousarray(np.rot90(layer)) for layer in (part, other))
        height = width
        if headline_contrast(part, size) < 1:
            to_original = _after(to_original, _half_turn(part.shape))
            part, other = (np.ascontiguousarray(layer[::-1, ::-1]) for layer in (part, other))
    return _View(part, other, to_original, min(find_letters(part).size or size, float(height)))


def _lines_of(
    view: _View,
    block: Block,
    number: int,
    rules: NDArray[np.int32],
    source: _LineSource,
) -> list[TextLine]:
    shift = bow(view.ink, view.size) if block.kind == "text" else None
    ink, other = view.ink, view.other
    if shift is not None:
        ink, other = straightened(ink, shift), straightened(other, shift)
    headlines = find_headlines(ink, view.size)
    headlines.labels[other] = _NO_TEXT
    lines = []
    for segment in segments(headlines, block, rules, view.size):
        lines.append(_cut(view, shift, headlines, segment, number, source))
    return lines


class _LineSource:
    """Grey levels of a page for line images, at the scale these need."""

    def __init__(
        self,
        image: NDArray[np.bool_] | NDArray[np.uint8],
        page: WorkingPage,
        line_height: int,
    ) -> None:
        self._image = image
        self._inverted = page.inverted
        self._scales = {page.factor: page.grey}
        self.shape = image.shape
        self.line_height = line_height

    def at_least(self, original_height: float) -> tuple[NDArray[np.uint8], int]:
        """Grey page and its factor where a line of ``original_height`` pixels is tall enough."""
        factor = max(1, int(original_height / self.line_height + 0.15))
        if factor not in self._scales:
            self._scales[factor] = even_grey(self._image, factor, inverted=self._inverted)
        return self._scales[factor], factor


def _cut(
    view: _View,
    shift: NDArray[np.float32] | None,
    headlines: Headlines,
    segment: Segment,
    number: int,
    source: _LineSource,
) -> TextLine:
    """Image and geometry of one line."""
    index, y = segment.line, headlines.y[segment.line]
    left, top, right, bottom = segment.box
    # The usual extent of a line, wider where its own ink is.
    height = headlines.body[index] / BODY_SHARE
    first_row = min(y - HEADLINE_SHARE * height, top - 1)
    height = max(y + (1 - HEADLINE_SHARE) * height, bottom + 1) - first_row
    scale = height / source.line_height
    first_col = left - _SIDE_MARGIN * view.size
    width = max(1, round((right + _SIDE_MARGIN * view.size - first_col) / scale))

    columns = first_col + (np.arange(width) + 0.5) * scale - 0.5
    rows = first_row + (np.arange(source.line_height) + 0.5) * scale - 0.5
    bend = _shift_along(shift, y, columns)
    axes = view.to_original
    start = axes[:, :2] @ np.stack([columns, rows[0] + bend]) + axes[:, 2:]
    down = axes[:, 1] * scale

    grey, factor = source.at_least(height * float(np.hypot(*axes[:, 1])))
    offset = (factor - 1) / 2
    steps = np.arange(source.line_height)[:, None]
    x_map = ((start[0] - offset) / factor)[None] + steps * (down[0] / factor)
    y_map = ((start[1] - offset) / factor)[None] + steps * (down[1] / factor)
    image = cv2.remap(
        grey,
        x_map.astype(np.float32),
        y_map.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=255,
    )
    image[_foreign(headlines.labels, index + 1, rows, columns)] = 255

    outline = _outline(view, shift, y, segment.box)
    low = np.clip(np.floor(outline.min(axis=0)), 0, (source.shape[1] - 1, source.shape[0] - 1))
    high = np.clip(np.ceil(outline.max(axis=0)), low + 1, (source.shape[1], source.shape[0]))
    box = (int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
    polygon = np.clip(np.round(outline), low, high).astype(np.int32)
    samples = np.linspace(left, right, 9)
    hang = axes[:, :2] @ np.stack([samples, y + _shift_along(shift, y, samples)]) + axes[:, 2:]
    return TextLine(
        np.asarray(image, np.uint8),
        segment.kind,
        number,
        polygon,
        box,
        hang.T.astype(np.float32),
        np.ascontiguousarray(start.T),
        down,
        float((y - first_row) / scale),
    )


def _shift_along(
    shift: NDArray[np.float32] | None, y: float, columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Displacement of the line at height ``y`` in each column."""
    if shift is None:
        return np.zeros(len(columns))
    row = shift[int(np.clip(y, 0, len(shift) - 1))]
    return np.interp(columns, np.arange(len(row)), row)


def _outline(
    view: _View, shift: NDArray[np.float32] | None, y: float, box: tuple[int, int, int, int]
) -> NDArray[np.float64]:
    """Corners in original pixels of the line's ink: along its top, back along its foot."""
    left, top, right, bottom = box
    count = 2 if shift is None else 9
    columns = np.linspace(left, right, count)
    bend = _shift_along(shift, y, columns)
    x = np.concatenate([columns, columns[::-1]]) - 0.5
    down = np.concatenate([top + bend, bottom + bend[::-1]]) - 0.5
    axes = view.to_original
    return (axes[:, :2] @ np.stack([x, down]) + axes[:, 2:]).T + 0.5


def _foreign(
    labels: NDArray[np.int32],
    own: int,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Pixels of a line image that hold ink of other lines, rules or blocks."""
    low, high = max(0, int(rows[0]) - 2), max(0, int(rows[-1]) + 3)
    left, right = max(0, int(columns[0]) - 2), max(0, int(columns[-1]) + 3)
    part = labels[low:high, left:right]
    kernel = np.ones((3, 3), np.uint8)
    near_others = cv2.dilate(((part != own) & (part != 0)).view(np.uint8), kernel)
    near_own = cv2.dilate((part == own).view(np.uint8), kernel)
    foreign = np.greater(near_others, near_own)
    row = np.clip(np.round(rows).astype(int) - low, 0, part.shape[0] - 1)
    col = np.clip(np.round(columns).astype(int) - left, 0, part.shape[1] - 1)
    return foreign[row][:, col]
