"""The lines of a volume between finding and reading them: two Parquet tables.

Belongs here: lines with their images, written page by page and read back in the same order. Does
not belong here: finding and reading lines, and the tables of what was read (see ``tables``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ocr_assets.volumes.archive import ImageEntry
from ocr_assets.volumes.images import PageImage
from ocr_assets.volumes.page_lines import PageLines, TextLine
from ocr_assets.volumes.results import FailedPage
from ocr_assets.volumes.tables import TableError

PAGES, LINES = FOUND_TABLES = ("found_pages.parquet", "found_lines.parquet")
"""File names of the tables."""

_PAGES_PER_ROW_GROUP = 16
_STEP = 16
"""Columns of a line image between the positions that are kept of its upper edge."""

_PATH = pa.list_(pa.float32())
_SCHEMAS = {
    PAGES: pa.schema(
        [
            pa.field("page", pa.int32(), False),
            pa.field("image", pa.string(), False),
            pa.field("frame", pa.int32(), False),
            pa.field("etag", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("ok", pa.bool_(), False),
            pa.field("lines", pa.int32(), False),
            pa.field("row_group", pa.int32(), False),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("turned", pa.int32()),
            pa.field("angle", pa.float64()),
            pa.field("stage", pa.string()),
            pa.field("error_type", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("retryable", pa.bool_()),
            pa.field("attempt", pa.int32()),
        ]
    ),
    LINES: pa.schema(
        [
            pa.field("page", pa.int32(), False),
            pa.field("kind", pa.string(), False),
            pa.field("block", pa.int32(), False),
            pa.field("box", pa.list_(pa.int32()), False),
            pa.field("polygon", pa.list_(pa.int32()), False),
            pa.field("headline", _PATH, False),
            pa.field("upper_edge", _PATH, False),
            pa.field("down", pa.list_(pa.float64()), False),
            pa.field("headline_row", pa.float64(), False),
            pa.field("width", pa.int32(), False),
            pa.field("image", pa.binary(), False),
        ]
    ),
}


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page whose lines were found; ``width`` and ``height`` are those of its image."""

    image: str
    frame: int
    etag: str | None
    sha256: str
    width: int
    height: int
    found: PageLines

    @classmethod
    def of(cls, page: PageImage, found: PageLines) -> FoundPage:
        """From an image and its lines."""
        height, width = page.pixels.shape
        return cls(page.entry.name, page.frame, page.entry.etag, page.sha256, width, height, found)

    def page_image(self) -> PageImage:
        """The page image, of which only the size is left."""
        pixels: NDArray[np.bool_] = np.broadcast_to(np.bool_(False), (self.height, self.width))
        entry = ImageEntry(self.image, etag=self.etag)
        return PageImage(entry, self.frame, pixels, self.sha256, 0.0, 0.0)


class FoundLinesWriter:
    """Writes the tables into an existing folder, page by page, in bounded memory.

    Use it as a context manager. The files are complete when the context ends without an error.
    ``metadata`` is JSON-ready and kept in the file of pages.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        notes = {"lineage": json.dumps(metadata, sort_keys=True)}
        self._pages: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        self._waiting = 0
        self._row_groups = 0
        self._pages_path = folder / PAGES
        self._pages_schema = _SCHEMAS[PAGES].with_metadata(notes)
        self._file = pq.ParquetWriter(
            folder / LINES,
            _SCHEMAS[LINES],
            compression="zstd",
            compression_level=1,
            use_dictionary=["kind"],
            write_statistics=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
                pages = pa.Table.from_pylist(self._pages, self._pages_schema)
                pq.write_table(pages, self._pages_path, compression="zstd")
        finally:
            self._file.close()

    def write(self, page: FoundPage | FailedPage) -> None:
        """Add the next page of the volume."""
        number = len(self._pages) + 1
        head = {"page": number, "image": page.image, "frame": page.frame, "etag": page.etag}
        head |= {"sha256": page.sha256, "row_group": self._row_groups}
        if isinstance(page, FailedPage):
            rest: dict[str, Any] = {
                "ok": False,
                "lines": 0,
                "stage": page.stage,
                "error_type": page.error_type,
            }
            rest |= {"reason": page.reason, "retryable": page.retryable, "attempt": page.attempt}
        else:
            found = page.found
            rest = {"ok": True, "lines": len(found.lines), "width": page.width}
            rest |= {"height": page.height, "turned": found.turned, "angle": found.angle}
            self._lines += [{"page": number} | _line_row(line) for line in found.lines]
        self._pages.append(head | rest)
        self._waiting += 1
        if self._waiting == _PAGES_PER_ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._lines, _SCHEMAS[LINES])
        self._file.write_table(table, row_group_size=max(1, len(table)))
        # A table without rows makes no row group.
        self._row_groups += bool(self._lines)
        self._lines.clear()
        self._waiting = 0


class FoundLines:
    """The tables, read back. Images are held for a row group of pages at a time.

    Raises:
        TableError: a file is missing, is no Parquet file or has other columns.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = _open(folder / LINES, LINES)
        pages = _open(folder / PAGES, PAGES)
        self._pages: list[dict[str, Any]] = pages.read().to_pylist()
        self._of_etag: dict[str, list[int]] = {}
        for index, page in enumerate(self._pages):
            if page["etag"] is not None:
                self._of_etag.setdefault(page["etag"], []).append(index)
        self._group: tuple[int, dict[int, list[TextLine]]] = (-1, {})
        notes = pages.schema_arrow.metadata or {}
        self.metadata: dict[str, Any] = json.loads(notes.get(b"lineage", b"{}"))
        """What was kept with the tables."""

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[FoundPage | FailedPage]:
        """The pages in order."""
        return (self.page(index) for index in range(len(self._pages)))

    @property
    def line_count(self) -> int:
        """Lines of all pages."""
        return sum(page["lines"] for page in self._pages)

    @property
    def failed(self) -> list[FailedPage]:
        """The pages that failed."""
        return [_failed(row) for row in self._pages if not row["ok"]]

    def has(self, etag: str) -> bool:
        """Whether there are pages of an image file with this entity tag."""
        return etag in self._of_etag

    def failures(self, etag: str) -> list[FailedPage]:
        """The failed pages of the first image file with this entity tag."""
        rows = [self._pages[index] for index in self._places(etag)]
        return [_failed(row) for row in rows if not row["ok"]]

    def of_image(self, etag: str) -> Iterator[FoundPage | FailedPage]:
        """The pages of the first image file with this entity tag, one for each frame."""
        return (self.page(index) for index in self._places(etag))

    def _places(self, etag: str) -> list[int]:
        places = self._of_etag.get(etag, [])
        return [i for i in places if self._pages[i]["image"] == self._pages[places[0]]["image"]]

    def page(self, index: int) -> FoundPage | FailedPage:
        """A page by its place, from 0."""
        row = self._pages[index]
        if not row["ok"]:
            return _failed(row)
        lines: list[TextLine] = []
        if row["lines"]:
            if self._group[0] != row["row_group"]:
                self._group = (row["row_group"], self._read_group(row["row_group"]))
            lines = self._group[1][row["page"]]
        return FoundPage(
            row["image"],
            row["frame"],
            row["etag"],
            row["sha256"],
            row["width"],
            row["height"],
            PageLines(tuple(lines), row["angle"], row["turned"]),
        )

    def _read_group(self, number: int) -> dict[int, list[TextLine]]:
        found: dict[int, list[TextLine]] = {}
        for row in self._lines.read_row_group(number).to_pylist():
            found.setdefault(row["page"], []).append(_line(row))
        return found


def _open(path: Path, name: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path} is no readable table of lines: {error}") from error
    if not file.schema_arrow.equals(_SCHEMAS[name]):
        raise TableError(f"{path} does not have the columns of {name}: find the lines again")
    return file


def _failed(row: Mapping[str, Any]) -> FailedPage:
    return FailedPage(
        row["image"],
        row["frame"],
        row["etag"],
        row["sha256"],
        row["stage"],
        row["error_type"],
        row["reason"],
        row["retryable"],
        row["attempt"],
    )


def _line_row(line: TextLine) -> dict[str, Any]:
    width = line.image.shape[1]
    upper = line.to_original(_columns(width), 0.0)
    down = line.to_original(0.0, 1.0) - upper[0]
    headline_row = (line.to_original(0.0) - upper[0]) @ down / (down @ down)
    return {
        "kind": line.kind,
        "block": line.block,
        "box": list(line.box),
        "polygon": line.polygon.ravel(),
        "headline": line.headline.ravel(),
        "upper_edge": upper.astype(np.float32).ravel(),
        "down": down,
        "headline_row": float(headline_row),
        "width": width,
        "image": line.image.tobytes(),
    }


def _line(row: Mapping[str, Any]) -> TextLine:
    width = row["width"]
    kept = np.array(row["upper_edge"], np.float64).reshape(-1, 2)
    columns = np.arange(width)
    upper = np.stack([np.interp(columns, _columns(width), kept[:, i]) for i in (0, 1)], axis=-1)
    x, y, box_width, box_height = row["box"]
    return TextLine(
        np.frombuffer(row["image"], np.uint8).reshape(-1, width),
        row["kind"],
        row["block"],
        np.array(row["polygon"], np.int32).reshape(-1, 2),
        (x, y, box_width, box_height),
        np.array(row["headline"], np.float32).reshape(-1, 2),
        upper,
        np.array(row["down"], np.float64),
        row["headline_row"],
    )


def _columns(width: int) -> NDArray[np.float64]:
    """Columns of a line image whose place is kept: every sixteenth and the last."""
    return np.append(np.arange(0.0, width - 1, _STEP), width - 1.0)
