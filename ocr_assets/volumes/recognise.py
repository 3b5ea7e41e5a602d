"""Recognition of line images: text, confidence and places.

Belongs here: what happens between line images and text, for many lines at once. Does not belong
here: loading networks (a :class:`LineNetwork` is handed in), finding lines, documents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.charset import Charset
from ocr_assets.volumes.ctc import DecodedOutputs, decode_beam, decode_greedy
from ocr_assets.volumes.job_types import Decoder
from ocr_assets.volumes.line_images import LineBatch, PreparedLine, batches
from ocr_assets.volumes.models import LineModel
from ocr_assets.volumes.normalise import normalise
from ocr_assets.volumes.wylie import Encoding, convert

# What ends a syllable, with the blanks after it: tsheg and shad in all their forms.
_SYLLABLE: dict[Encoding, re.Pattern[str]] = {
    "unicode": re.compile("[^\\s\u0f0b-\u0f14\u0f34\u0f7f]*[\\s\u0f0b-\u0f14\u0f34\u0f7f]*"),
    "wylie": re.compile("[^\\s_/|!;:*\u00a7]*[\\s_/|!;:*\u00a7]*"),
}


class LineNetwork(Protocol):
    """A network that is ready to run. It may be called from several threads at once."""

    @property
    def streams(self) -> int:
        """Calls that it can work on at the same time."""

    def __call__(
        self, images: NDArray[np.float32], widths: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Log-probabilities float32 ``[line, frame, output]`` of ``images`` ``[line, y, x]``."""


@dataclass(frozen=True, slots=True)
class Syllable:
    """A syllable with the tsheg, shad or blanks behind it.

    ``x_start`` and ``x_end`` are pixels of the line image; ``confidence`` is between 0 and 1.
    """

    text: str
    confidence: float
    x_start: float
    x_end: float


@dataclass(frozen=True, slots=True)
class RecognisedLine:
    """What a line says. The texts of its syllables, put together, are its text.

    ``confidence`` is the geometric mean of the probabilities of its characters, 0 for no text.
    """

    text: str
    confidence: float
    syllables: tuple[Syllable, ...]


def recognise_lines(
    images: Sequence[NDArray[np.uint8]],
    model: LineModel,
    network: LineNetwork,
    *,
    encoding: Encoding = "unicode",
    decoder: Decoder = "beam",
) -> list[RecognisedLine]:
    """Read line images, from one page or from many, in their order.

    Args:
        images: uint8 grey ``[height, width]``, upright, dark text on light ground.
        model: description of the model.
        network: the same model, ready to run.
        encoding: of the text to give; it is converted where the model gives another.
        decoder: ``greedy`` takes the best output of each frame, ``beam`` the best reading.

    Raises:
        ValueError: an image is not grey or has no pixels.
    """
    for index, image in enumerate(images):
        if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"line {index} is {image.dtype} of shape {image.shape}; give uint8 images "
                "[height, width] with at least one pixel"
            )
    lines: list[RecognisedLine | None] = [None] * len(images)

    def read(chosen: list[int]) -> None:
        # Prepared when it is their turn: a frame of BDRC's networks takes a megabyte.
        batch = LineBatch.of([model.preparation(images[index]) for index in chosen])
        log_probabilities = network(batch.images, batch.widths)
        for index, line, scores in zip(chosen, batch.lines, log_probabilities, strict=True):
            lines[index] = _read_line(line, scores, batch.images.shape[2], model, encoding, decoder)

    # The widest first, so that no thread is left with them at the end.
    groups = list(batches([model.preparation.prepared_width(image) for image in images]))[::-1]
    if network.streams == 1:
        for group in groups:
            read(group)
    else:
        with ThreadPoolExecutor(network.streams) as pool:
            list(pool.map(read, groups))
    return [line for line in lines if line is not None]


def _read_line(
    line: PreparedLine,
    scores: NDArray[np.float32],
    batch_width: int,
    model: LineModel,
    encoding: Encoding,
    decoder: Decoder,
) -> RecognisedLine:
    frame_width = model.frame_width or batch_width / len(scores)
    first = int(line.start / frame_width)
    # A frame is the text's if it lies on it wholly; where frames share a width, also in part.
    stop = line.stop / frame_width
    scores = scores[first : int(stop) if model.frame_width else max(first + 1, math.ceil(stop))]
    blank = model.charset.blank
    decoded = decode_greedy(scores, blank) if decoder == "greedy" else decode_beam(scores, blank)
    characters = _characters(decoded, model.charset)

    def x(frame: float) -> float:
        pixel = min(max((first + frame) * frame_width, line.start), line.stop)
        return (pixel - line.start) / line.scale

    syllables = [
        Syllable(written, confidence, x(start), x(stop))
        for text, confidence, start, stop in _syllables(characters, len(scores), model.encoding)
        if (written := _written(text, model.encoding, encoding))
    ]
    return RecognisedLine(
        "".join(syllable.text for syllable in syllables),
        _mean_confidence([character.log_confidence for character in characters]),
        tuple(syllables),
    )


# The same syllables come again and again.
@lru_cache(maxsize=1 << 16)
def _written(text: str, source: Encoding, target: Encoding) -> str:
    if source == "unicode":
        text = normalise(text)
    text = convert(text, source, target)
    return normalise(text) if target == "unicode" else text


@dataclass(frozen=True, slots=True)
class _Character:
    text: str
    log_confidence: float
    start: int
    stop: int


def _characters(decoded: DecodedOutputs, charset: Charset) -> list[_Character]:
    """What the outputs spell; a character of several outputs is as sure as the least sure."""
    log_confidence = decoded.log_confidence.tolist()
    starts, stops = decoded.start.tolist(), decoded.stop.tolist()
    return [
        _Character(text, min(log_confidence[first:stop]), starts[first], stops[stop - 1])
        for text, first, stop in charset.spell(decoded.outputs.tolist())
    ]


def _syllables(
    characters: list[_Character], frames: int, encoding: Encoding
) -> list[tuple[str, float, float, float]]:
    """Text, confidence, and first and stop frame of each syllable.

    A network says a character in a few frames somewhere within it. So neighbours meet half way
    between, and the first and last reach as far again outwards as inwards.
    """
    while characters and characters[0].text.isspace():
        characters = characters[1:]
    while characters and characters[-1].text.isspace():
        characters = characters[:-1]
    text = "".join(character.text for character in characters)
    owner = [i for i, character in enumerate(characters) for _ in character.text]
    middles = [(character.start + character.stop) / 2 for character in characters]
    edges = [(a + b) / 2 for a, b in pairwise(middles)]
    if middles:
        reach = (middles[-1] - middles[0]) / max(1, len(middles) - 1) / 2
        edges = [max(0.0, middles[0] - reach), *edges, min(frames, middles[-1] + reach)]
    found = []
    for match in _SYLLABLE[encoding].finditer(text):
        if match.start() == match.end():
            continue
        first, last = owner[match.start()], owner[match.end() - 1]
        confidence = _mean_confidence(
            [character.log_confidence for character in characters[first : last + 1]]
        )
        found.append((match[0], confidence, edges[first], edges[last + 1]))
    return found


def _mean_confidence(log_confidences: list[float]) -> float:
    if not log_confidences:
        return 0.0
    return min(1.0, math.exp(sum(log_confidences) / len(log_confidences)))
