"""What reading a page gives: its lines and syllables, or why there are none.

Belongs here: the result of a page as plain values, how it is made from the steps before, and its
text. Does not belong here: the steps themselves, and the forms in which results are written.

Coordinates are in pixels of the original image, origin at its upper left corner, and lie on the
edges of pixels: the image ends at (width, height). A box is (x, y, width, height).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    # Who reads results back needs none of what made them.
    from ocr_assets.volumes.images import PageFailure, PageImage
    from ocr_assets.volumes.line_kinds import LineKind
    from ocr_assets.volumes.page_lines import PageLines
    from ocr_assets.volumes.recognise import RecognisedLine

Box = tuple[int, int, int, int]
Point = tuple[int, int]
FailureStage = Literal["fetch", "decode", "lines", "recognition", "missing"]
"""Where a page failed; ``missing`` is a page of the manifest that nobody delivered."""

_MAX_REASON = 1000

# Errors of fetching that a second attempt cannot mend: no such image, or one that is too large.
_TERMINAL = frozenset({"MissingImageError", "FileNotFoundError", "ValueError"})

_BREAKS = re.compile("[\t\n\v\f\r\x85\u2028\u2029]")
# What XML 1.0, section 2.2, does not allow, and the control characters that HTML does not.
_UNWRITABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_EITHER = re.compile(f"{_BREAKS.pattern}|{_UNWRITABLE.pattern}")


def writable(text: str) -> str:
    """Text that fits on one line of every format: breaks and tabs are blanks, control characters,
    lone surrogates and what XML forbids are removed."""
    if not _EITHER.search(text):
        return text
    return _UNWRITABLE.sub("", _BREAKS.sub(" ", text))


def _clean(instance: Any, *names: str) -> None:
    for name in names:
        if (text := getattr(instance, name)) is not None:
            object.__setattr__(instance, name, writable(text))


@dataclass(frozen=True, slots=True)
class SyllableResult:
    """A syllable with the tsheg, shad or blanks behind it; ``confidence`` between 0 and 1."""

    text: str
    confidence: float
    box: Box

    def __post_init__(self) -> None:
        _clean(self, "text")


@dataclass(frozen=True, slots=True)
class LineResult:
    """A line of a page: what it says, how sure that is, and where it is.

    ``polygon`` is its outline. ``headline`` is the curve that its letters hang from, left to right.
    ``confidence`` is between 0 and 1, and 0 for a line on which nothing was read. Lines with the
    same ``block`` stand together on the page.
    """

    text: str
    confidence: float
    kind: LineKind
    block: int
    box: Box
    polygon: tuple[Point, ...]
    headline: tuple[Point, ...]
    syllables: tuple[SyllableResult, ...]

    def __post_init__(self) -> None:
        _clean(self, "text")


@dataclass(frozen=True, slots=True)
class PageResult:
    """A page that was read: its image and its lines in reading order.

    ``frame`` counts the pages of one image file from 0; ``width`` and ``height`` are those of the
    image in pixels; ``etag`` and ``sha256`` are those of the file. ``turned`` (0, 90, 180 or 270
    degrees anticlockwise) and then ``angle`` (degrees anticlockwise) is how the image has to be
    turned for its lines to be level.
    """

    image: str
    frame: int
    etag: str | None
    sha256: str
    width: int
    height: int
    angle: float
    turned: int
    lines: tuple[LineResult, ...]

    def __post_init__(self) -> None:
        _clean(self, "image", "etag")

    @property
    def text(self) -> str:
        """The lines in reading order, one below the other; lines without text are left out."""
        return "\n".join(line.text for line in self.lines if line.text)

    @property
    def confidence(self) -> float | None:
        """Mean confidence of the lines by characters; None for a page without text."""
        characters = sum(len(line.text) for line in self.lines)
        if not characters:
            return None
        return sum(len(line.text) * line.confidence for line in self.lines) / characters


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page that could not be read: at which stage, the kind of error, and why.

    ``retryable`` tells whether another attempt may help; ``attempt`` counts attempts from 1.
    """

    image: str
    frame: int
    etag: str | None
    sha256: str | None
    stage: FailureStage
    error_type: str
    reason: str
    retryable: bool
    attempt: int = 1

    def __post_init__(self) -> None:
        _clean(self, "image", "etag", "error_type", "reason")
        object.__setattr__(self, "reason", self.reason[:_MAX_REASON])


def page_result(
    page: PageImage, found: PageLines, recognised: Sequence[RecognisedLine]
) -> PageResult:
    """Put together what the steps gave for one page.

    Args:
        page: the image.
        found: its lines.
        recognised: what each of them says, in the same order.

    Raises:
        ValueError: there are more or fewer readings than lines.
    """
    lines = []
    for line, reading in zip(found.lines, recognised, strict=True):
        syllables = tuple(
            SyllableResult(
                syllable.text,
                _single(syllable.confidence),
                line.span_box(syllable.x_start, syllable.x_end),
            )
            for syllable in reading.syllables
        )
        lines.append(
            LineResult(
                reading.text,
                _single(reading.confidence),
                line.kind,
                line.block,
                line.box,
                _points(line.polygon),
                _points(line.headline),
                syllables,
            )
        )
    height, width = page.pixels.shape
    return PageResult(
        page.entry.name,
        page.frame,
        page.entry.etag,
        page.sha256,
        width,
        height,
        _single(found.angle),
        found.turned,
        tuple(lines),
    )


def failed_to_load(failure: PageFailure, attempt: int = 1) -> FailedPage:
    """A page whose image could not be had. A damaged file is not tried again."""
    return FailedPage(
        failure.entry.name,
        failure.frame,
        failure.entry.etag,
        failure.sha256,
        failure.stage,
        failure.error_type,
        failure.reason,
        failure.stage == "fetch" and failure.error_type not in _TERMINAL,
        attempt,
    )


def failed_to_read(
    page: PageImage,
    stage: Literal["lines", "recognition"],
    error: BaseException,
    attempt: int = 1,
) -> FailedPage:
    """A page that was decoded and not read. An image that a step refuses is not tried again."""
    return FailedPage(
        page.entry.name,
        page.frame,
        page.entry.etag,
        page.sha256,
        stage,
        type(error).__name__,
        str(error),
        not isinstance(error, ValueError),
        attempt,
    )


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring lines of one block and kind, with the number of the first on its page."""

    kind: LineKind
    first: int
    lines: tuple[LineResult, ...]


def regions(page: PageResult) -> list[Region]:
    """The lines of a page as regions, in reading order."""
    found = []
    first = 1
    for (_, kind), group in groupby(page.lines, key=lambda line: (line.block, line.kind)):
        lines = tuple(group)
        found.append(Region(kind, first, lines))
        first += len(lines)
    return found


def _single(value: float) -> float:
    """The value in single precision, so that it is the same after it was stored."""
    return float(np.float32(value))


def _points(array: np.ndarray[Any, Any]) -> tuple[Point, ...]:
    return tuple((int(x), int(y)) for x, y in np.rint(array))
