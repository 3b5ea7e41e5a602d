"""How well a volume was read: one row for a volume, and which lines a person should look at first.

Belongs here: measures of quality that need no transcript, the status of a volume, the review
queue. Does not belong here: error rates against a transcript (see ``normalise``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from ocr_assets.volumes.normalise import LOOP_THRESHOLD, loop_score
from ocr_assets.volumes.results import Box, FailedPage, PageResult
from ocr_assets.volumes.tables import VolumeTables

LOW_CONFIDENCE = 0.9
"""Lines below this confidence count as doubtful: about one character in ten is."""

VolumeStatus = Literal["success", "partial", "failed"]

_MARGIN = 0.25
_TYPES = {"int": pa.int32(), "float": pa.float64(), "float | None": pa.float64()}


@dataclass(frozen=True)
class VolumeQuality:
    """Quality of a volume.

    Attributes:
        status: ``success`` if every page was read, ``failed`` if none was, else ``partial``.
        pages: of the volume.
        failed_pages: pages that could not be read.
        retryable_pages: those of them that another attempt may read.
        blank_pages: pages that were read and have no text.
        lines: on the pages that were read.
        characters: of their text.
        mean_confidence: of the lines, by characters; None without text.
        low_confidence_share: of the lines, those below :data:`LOW_CONFIDENCE`; None without lines.
        loop_score: the highest of any page, see :func:`~ocr_assets.volumes.normalise.loop_score`.
        looping_pages: pages that are flagged for it.
    """

    status: VolumeStatus
    pages: int
    failed_pages: int
    retryable_pages: int
    blank_pages: int
    lines: int
    characters: int
    mean_confidence: float | None
    low_confidence_share: float | None
    loop_score: float
    looping_pages: int


class QualityTally:
    """Counts pages as they come, in memory that does not grow with them."""

    def __init__(self) -> None:
        self._pages = self._failed = self._retryable = self._blank = self._looping = 0
        self._lines = self._characters = self._low = 0
        self._certainty = 0.0
        self._loop = 0.0

    def add(self, page: PageResult | FailedPage) -> None:
        """Count a page."""
        self._pages += 1
        if isinstance(page, FailedPage):
            self._failed += 1
            self._retryable += page.retryable
            return
        self._lines += len(page.lines)
        self._low += sum(line.confidence < LOW_CONFIDENCE for line in page.lines)
        for line in page.lines:
            self._characters += len(line.text)
            self._certainty += len(line.text) * line.confidence
        text = page.text
        self._blank += not text.strip()
        score = loop_score(text)
        self._loop = max(self._loop, score)
        self._looping += score >= LOOP_THRESHOLD

    def quality(self) -> VolumeQuality:
        """The quality of the pages so far."""
        return VolumeQuality(
            volume_status(self._pages, self._failed),
            self._pages,
            self._failed,
            self._retryable,
            self._blank,
            self._lines,
            self._characters,
            self._certainty / self._characters if self._characters else None,
            self._low / self._lines if self._lines else None,
            self._loop,
            self._looping,
        )


def volume_status(pages: int, failed_pages: int) -> VolumeStatus:
    """``success`` if every page was read, ``failed`` if none was, ``partial`` otherwise."""
    if failed_pages >= pages:
        return "failed"
    return "partial" if failed_pages else "success"


QUALITY_SCHEMA = pa.schema(
    [
        pa.field("job_type", pa.string(), False),
        pa.field("volume", pa.string(), False),
        pa.field("version", pa.string(), False),
        *(
            pa.field(item.name, _TYPES.get(str(item.type), pa.string()), "None" in str(item.type))
            for item in fields(VolumeQuality)
        ),
    ]
)
"""Columns of the table of qualities, one row for each volume that a job type read."""


def quality_table(volumes: Mapping[tuple[str, str, str], VolumeQuality]) -> pa.Table:
    """The qualities of volumes by job type, volume and version, in this order."""
    rows = [
        {"job_type": job_type, "volume": volume, "version": version, **asdict(quality)}
        for (job_type, volume, version), quality in sorted(volumes.items())
    ]
    return pa.Table.from_pylist(rows, QUALITY_SCHEMA)


@dataclass(frozen=True, slots=True)
class ReviewLine:
    """A line for a person to look at.

    ``page`` and ``line`` count from 1, ``frame`` from 0. ``crop`` is the part of the original image
    to show, (x, y, width, height) in pixels: the line with a margin.
    """

    volume: str
    page: int
    line: int
    image: str
    frame: int
    etag: str | None
    text: str
    confidence: float
    crop: Box


def review_queue(
    volumes: Iterable[tuple[str, VolumeTables]], *, most: int, below: float = 1.0
) -> list[ReviewLine]:
    """The least certain lines of some volumes, least certain first.

    Lines of the same confidence come in the order of volumes and pages.

    Args:
        volumes: name and tables of each volume; they are looked at one after the other.
        most: how many lines to give at most.
        below: lines of this confidence or more are left out.
    """
    candidates = (
        line
        for order, (name, tables) in enumerate(volumes)
        for line in _review_lines(order, name, tables, below)
    )
    return [line for _, line in heapq.nsmallest(most, candidates, key=lambda item: item[0])]


def _review_lines(
    order: int, name: str, tables: VolumeTables, below: float
) -> Iterable[tuple[tuple[float, int, int, int], ReviewLine]]:
    pages = tables.pages.select(["image", "frame", "etag", "width", "height"]).to_pylist()
    columns = ["page", "line", "text", "confidence", "x", "y", "width", "height"]
    for row in tables.lines.select(columns).to_pylist():
        if row["confidence"] >= below:
            continue
        page = pages[row["page"] - 1]
        line = ReviewLine(
            name,
            row["page"],
            row["line"],
            page["image"],
            page["frame"],
            page["etag"],
            row["text"],
            row["confidence"],
            _crop(row, page),
        )
        yield (row["confidence"], order, row["page"], row["line"]), line


def _crop(line: Mapping[str, Any], page: Mapping[str, Any]) -> Box:
    """The box of a line with a quarter of its shorter side around it, within the page."""
    margin = max(2, round(_MARGIN * min(line["width"], line["height"])))
    left, top = max(0, line["x"] - margin), max(0, line["y"] - margin)
    right = min(page["width"], line["x"] + line["width"] + margin)
    bottom = min(page["height"], line["y"] + line["height"] + margin)
    return left, top, max(1, right - left), max(1, bottom - top)
