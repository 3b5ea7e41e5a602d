"""From the image of a line to what a recogniser takes in.

Belongs here: scaling, contrast, thresholding and padding of line images, one way for each family
of networks, and batches of lines. Does not belong here: finding lines on a page, networks, text.

A line image is uint8 grey ``[height, width]``, upright, dark text on light ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

WHITE = 255
_WIDEST = 12_000
"""Pixels of a prepared line; a longer one is squeezed. The longest folios have about 4,000."""


@dataclass(frozen=True)
class PreparedLine:
    """A line as a network takes it: float32 ``[height, width]``.

    Pixel x of the line image is at ``start + x * scale``; the text ends at ``stop``.
    """

    pixels: NDArray[np.float32]
    start: float
    stop: float
    scale: float


class Preparation(Protocol):
    """How a family of networks wants its lines."""

    @property
    def height(self) -> int:
        """Height of a prepared line in pixels."""

    def prepared_width(self, image: NDArray[np.uint8]) -> int:
        """Width of a line image in pixels when it is prepared."""

    def __call__(self, image: NDArray[np.uint8]) -> PreparedLine:
        """Prepare one line image."""


@dataclass(frozen=True)
class ContrastStretch:
    """Lines of any width, stretched so that ink is -1 and paper 1: the way of Tesseract.

    Black and white are the quartiles towards the middle of the local minima and maxima along the
    middle row (``NetworkIO`` of Tesseract 5). ``clipped`` cuts what lies beyond.
    """

    height: int
    clipped: bool

    def prepared_width(self, image: NDArray[np.uint8]) -> int:
        """See :class:`Preparation`."""
        rows, columns = image.shape
        return min(max(1, round(columns * self.height / rows)), _WIDEST)

    def __call__(self, image: NDArray[np.uint8]) -> PreparedLine:
        width, columns = self.prepared_width(image), image.shape[1]
        grey = _resized(image, width, self.height)
        black, white = _ink_and_paper(grey[self.height // 2].astype(np.int16))
        contrast = (white - black) / 2 if white > black else 1.0
        pixels = (grey - np.float32(black)) * np.float32(1 / contrast) - np.float32(1)
        if self.clipped:
            np.clip(pixels, -1, 1, out=pixels)
        return PreparedLine(pixels, 0.0, float(width), width / columns)


@dataclass(frozen=True)
class ThresholdedFrame:
    """Lines fitted into a frame of fixed size and thresholded to -1 and 1: the way of BDRC.

    The line is scaled to fit, with room for a square before and after it, thresholded, and set to
    the left of a white frame.
    """

    height: int
    width: int

    def prepared_width(self, image: NDArray[np.uint8]) -> int:
        """See :class:`Preparation`."""
        del image
        return self.width

    def __call__(self, image: NDArray[np.uint8]) -> PreparedLine:
        rows, columns = image.shape
        scale = min(self.height / rows, self.width / (columns + 2 * rows))
        inner_height = max(1, min(self.height, round(rows * scale)))
        inner_width = max(1, min(self.width, round(columns * scale)))
        start = min(round(rows * scale), self.width - inner_width)
        top = (self.height - inner_height) // 2
        frame = np.full((self.height, self.width), WHITE, np.uint8)
        # Thresholded before it meets the frame: grey paper has an edge against white.
        frame[top : top + inner_height, start : start + inner_width] = black_and_white(
            _resized(image, inner_width, inner_height)
        )
        pixels = frame.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)
        return PreparedLine(pixels, float(start), float(start + inner_width), inner_width / columns)


@dataclass(frozen=True)
class LineBatch:
    """Prepared lines of like width, one above the other.

    Attributes:
        lines: the lines.
        images: float32 ``[line, height, width]``; zero, which is mid-grey, right of a line's end.
        widths: int32 ``[line]``.
    """

    lines: list[PreparedLine]
    images: NDArray[np.float32]
    widths: NDArray[np.int32]

    @classmethod
    def of(cls, lines: list[PreparedLine]) -> Self:
        """Put lines of one height together."""
        widths = np.array([line.pixels.shape[1] for line in lines], np.int32)
        images = np.zeros((len(lines), lines[0].pixels.shape[0], widths.max()), np.float32)
        for image, line, width in zip(images, lines, widths, strict=True):
            image[:, :width] = line.pixels
        return cls(lines, images, widths)


def batches(
    widths: Sequence[int], *, most_lines: int = 16, most_pixels: int = 6_000
) -> Iterator[list[int]]:
    """Group lines by their prepared width, so that little is padding: places in ``widths``.

    A batch has at most ``most_lines`` lines and, unless it is a single line, ``most_pixels`` pixels
    along the text, its padding included. Networks need about 10 KB for each of these pixels.
    """
    group: list[int] = []
    for index in sorted(range(len(widths)), key=lambda i: (widths[i], i)):
        full = len(group) == most_lines or (len(group) + 1) * widths[index] > most_pixels
        if group and full:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def black_and_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0 where a pixel is darker by 13 than the Gaussian mean of the 51 x 51 around it, else 255."""
    return np.asarray(
        cv2.adaptiveThreshold(
            image, WHITE, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 51, 13
        ),
        np.uint8,
    )


def _resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Area means where the image shrinks, linear interpolation where it grows."""
    # Halving is many times faster than other ratios. An odd row or column at the end is lost, less
    # than a pixel of the result.
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        image = _scaled(image[: 2 * rows, : 2 * columns], columns, rows, cv2.INTER_AREA)
    if image.shape == (height, width):
        return image
    shrinks = height < image.shape[0] or width < image.shape[1]
    return _scaled(image, width, height, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _scaled(image: NDArray[np.uint8], width: int, height: int, way: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _ink_and_paper(row: NDArray[np.int16]) -> tuple[float, float]:
    before, here, after = row[:-2], row[1:-1], row[2:]
    falls, rises = here < before, here > before
    level = here == before
    minima = here[(falls & (here <= after)) | (level & (here < after))]
    maxima = here[(rises & (here >= after)) | (level & (here > after))]
    return _quantile(minima, 0.25, 0.0), _quantile(maxima, 0.75, 255.0)


def _quantile(values: NDArray[np.int16], share: float, default: float) -> float:
    # The sorted value itself; numpy's own quantile takes ten times as long on so few values.
    return float(np.sort(values)[int(share * (len(values) - 1))]) if len(values) else default
