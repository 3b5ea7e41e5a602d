"""The Parquet tables of a volume: pages, lines and syllables, and its list of errors.

Belongs here: their columns, writing them page by page, and reading them back to page results.
Does not belong here: other forms of the results, and where the files go.

The same pages and lineage give the same bytes. Coordinates are int32, in pixels of the original
image; columns that say why a page failed are null for pages that were read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ocr_assets.volumes.normalise import loop_score
from ocr_assets.volumes.results import FailedPage, LineResult, PageResult, SyllableResult

PAGES, LINES, SYLLABLES = TABLES = ("pages.parquet", "lines.parquet", "syllables.parquet")
"""File names of the tables."""

PAGES_PER_ROW_GROUP = 64
"""Pages that are held in memory before they are written."""


class TableError(ValueError):
    """Files that are not the tables of a volume."""


def _field(
    name: str, kind: pa.DataType, about: str, unit: str = "", null: bool = False
) -> pa.Field:
    notes = {"description": about} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, null, notes)


_PATH = pa.list_(pa.struct([pa.field("x", pa.int32(), False), pa.field("y", pa.int32(), False)]))
_PAGE = _field("page", pa.int32(), "place of the page in the volume, from 1")
_LINE = _field("line", pa.int32(), "place of the line on its page in reading order, from 1")
_TEXT = _field("text", pa.string(), "what it says")
_SURE = _field("confidence", pa.float32(), "geometric mean over characters, 0 to 1", "1")
_BOX = [
    _field("x", pa.int32(), "left edge in the original image", "pixel"),
    _field("y", pa.int32(), "upper edge in the original image", "pixel"),
    _field("width", pa.int32(), "of the box", "pixel"),
    _field("height", pa.int32(), "of the box", "pixel"),
]

SCHEMAS: dict[str, pa.Schema] = {
    PAGES: pa.schema(
        [
            _PAGE,
            _field("image", pa.string(), "file name"),
            _field("frame", pa.int32(), "page of the image file, from 0"),
            _field("etag", pa.string(), "entity tag of the image file", null=True),
            _field("sha256", pa.string(), "of the image file, null if it was not had", null=True),
            _field("ok", pa.bool_(), "whether the page was read"),
            _field("width", pa.int32(), "of the original image", "pixel", null=True),
            _field("height", pa.int32(), "of the original image", "pixel", null=True),
            _field("turned", pa.int32(), "turn anticlockwise that was needed", "degree", null=True),
            _field("angle", pa.float32(), "skew that was undone after it", "degree", null=True),
            _field("lines", pa.int32(), "number of lines", "1", null=True),
            _field("text", pa.string(), "lines in reading order", null=True),
            _field("confidence", pa.float32(), "mean over characters", "1", null=True),
            _field("loop_score", pa.float32(), "share of repeated runs", "1", null=True),
            _field("error_stage", pa.string(), "where reading failed", null=True),
            _field("error_type", pa.string(), "kind of error", null=True),
            _field("error_message", pa.string(), "why reading failed", null=True),
            _field("retryable", pa.bool_(), "whether to try a failed page again", null=True),
            _field("attempt", pa.int32(), "attempt that failed, from 1", "1", null=True),
        ]
    ),
    LINES: pa.schema(
        [
            _PAGE,
            _LINE,
            _field("block", pa.int32(), "lines with one number stand together"),
            _field("kind", pa.string(), "text, running_head, page_number or margin"),
            _TEXT,
            _SURE,
            *_BOX,
            _field("polygon", _PATH, "outline in the original image", "pixel"),
            _field("headline", _PATH, "curve the letters hang from", "pixel"),
        ]
    ),
    SYLLABLES: pa.schema(
        [
            _PAGE,
            _LINE,
            _field("syllable", pa.int32(), "place of the syllable in its line, from 1"),
            _TEXT,
            _SURE,
            *_BOX,
        ]
    ),
}
"""Columns of each table, with descriptions and units."""


class TableWriter:
    """Writes the tables of a volume into a folder, page by page, in bounded memory.

    Use it as a context manager. The files are complete when the context ends without an error.

    Args:
        folder: an existing folder.
        metadata: JSON-ready values to keep in each file, among them the lineage.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        notes = {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for name, value in sorted(metadata.items())
        }
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._files: dict[str, pq.ParquetWriter] = {}
        for name in TABLES:
            schema = SCHEMAS[name].with_metadata(notes)
            self._files[name] = pq.ParquetWriter(
                folder / name, schema, compression="zstd", compression_level=6
            )
        self._page = 0

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
        finally:
            for file in self._files.values():
                file.close()

    def write(self, page: PageResult | FailedPage) -> None:
        """Add the next page of the volume."""
        self._page += 1
        self._rows[PAGES].append({"page": self._page, **_page_row(page)})
        if isinstance(page, PageResult):
            for number, line in enumerate(page.lines, 1):
                place = {"page": self._page, "line": number}
                self._rows[LINES].append(place | _line_row(line))
                self._rows[SYLLABLES] += [
                    place | {"syllable": index} | _syllable_row(syllable)
                    for index, syllable in enumerate(line.syllables, 1)
                ]
        if self._page % PAGES_PER_ROW_GROUP == 0:
            self._flush()

    def _flush(self) -> None:
        for name, rows in self._rows.items():
            if rows:
                self._files[name].write_table(
                    pa.Table.from_pylist(rows, self._files[name].schema), row_group_size=len(rows)
                )
                rows.clear()


def _page_row(page: PageResult | FailedPage) -> dict[str, Any]:
    row = {"image": page.image, "frame": page.frame, "etag": page.etag, "sha256": page.sha256}
    if isinstance(page, FailedPage):
        return row | {
            "ok": False,
            "error_stage": page.stage,
            "error_type": page.error_type,
            "error_message": page.reason,
            "retryable": page.retryable,
            "attempt": page.attempt,
        }
    text = page.text
    return row | {
        "ok": True,
        "width": page.width,
        "height": page.height,
        "turned": page.turned,
        "angle": page.angle,
        "lines": len(page.lines),
        "text": text,
        "confidence": page.confidence,
        "loop_score": loop_score(text),
    }


def _line_row(line: LineResult) -> dict[str, Any]:
    return {
        "block": line.block,
        "kind": line.kind,
        "text": line.text,
        "confidence": line.confidence,
        **_box_row(line.box),
        "polygon": [{"x": x, "y": y} for x, y in line.polygon],
        "headline": [{"x": x, "y": y} for x, y in line.headline],
    }


def _syllable_row(syllable: SyllableResult) -> dict[str, Any]:
    row = {"text": syllable.text, "confidence": syllable.confidence}
    return row | _box_row(syllable.box)


def _box_row(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("x", "y", "width", "height"), box, strict=True))


def error_line(page: FailedPage, source: str) -> str:
    """A failed page as one line of ``errors.jsonl``; ``source`` says where the image was sought."""
    row = {
        "source": source,
        "image": page.image,
        "frame": page.frame,
        "etag": page.etag,
        "stage": page.stage,
        "error_type": page.error_type,
        "message": page.reason,
        "retryable": page.retryable,
        "attempt": page.attempt,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


class VolumeTables:
    """The tables of a volume, read back.

    Args:
        folder: where they are, under their own names.

    Raises:
        TableError: a file is missing, is no Parquet file or has other columns.
    """

    def __init__(self, folder: Path) -> None:
        self.pages, self.lines, self.syllables = (_read(folder / name, name) for name in TABLES)
        """The tables themselves, rows in order of page, line and syllable."""
        self._starts = {
            LINES: _starts(self.lines, len(self.pages)),
            SYLLABLES: _starts(self.syllables, len(self.pages)),
        }
        self._of_image: dict[str, list[int]] = {}
        for column in ("sha256", "etag"):
            for index, key in enumerate(self.pages[column].to_pylist()):
                if key is not None:
                    self._of_image.setdefault(f"{column}:{key}", []).append(index)

    def __len__(self) -> int:
        return len(self.pages)

    def __iter__(self) -> Iterator[PageResult | FailedPage]:
        """The pages in order."""
        return (self.page(index) for index in range(len(self)))

    @property
    def metadata(self) -> dict[str, str]:
        """What was kept with the tables, the lineage as JSON text among it."""
        kept = self.pages.schema.metadata or {}
        return {key.decode(): value.decode() for key, value in kept.items()}

    def of_image(
        self, *, sha256: str | None = None, etag: str | None = None
    ) -> list[PageResult | FailedPage]:
        """The pages of an image file with this content, or this entity tag, one for each frame.

        Where several files are the same, the pages of the first count. Empty if there are none.
        """
        key = f"etag:{etag}" if sha256 is None else f"sha256:{sha256}"
        found: dict[int, PageResult | FailedPage] = {}
        for index in self._of_image.get(key, ()):
            page = self.page(index)
            found.setdefault(page.frame, page)
        return [found[frame] for frame in sorted(found)]

    def page(self, index: int) -> PageResult | FailedPage:
        """A page by its place, from 0."""
        row = self.pages.slice(index, 1).to_pylist()[0]
        if not row["ok"]:
            return FailedPage(
                row["image"],
                row["frame"],
                row["etag"],
                row["sha256"],
                row["error_stage"],
                row["error_type"],
                row["error_message"],
                row["retryable"],
                row["attempt"],
            )
        syllables: dict[int, list[SyllableResult]] = {}
        for item in self._rows(SYLLABLES, index):
            syllable = SyllableResult(item["text"], item["confidence"], _box(item))
            syllables.setdefault(item["line"], []).append(syllable)
        lines = tuple(
            LineResult(
                item["text"],
                item["confidence"],
                item["kind"],
                item["block"],
                _box(item),
                tuple((point["x"], point["y"]) for point in item["polygon"]),
                tuple((point["x"], point["y"]) for point in item["headline"]),
                tuple(syllables.get(item["line"], ())),
            )
            for item in self._rows(LINES, index)
        )
        return PageResult(
            row["image"],
            row["frame"],
            row["etag"],
            row["sha256"],
            row["width"],
            row["height"],
            row["angle"],
            row["turned"],
            lines,
        )

    def _rows(self, name: str, index: int) -> list[dict[str, Any]]:
        start, stop = self._starts[name][index : index + 2]
        table = self.lines if name == LINES else self.syllables
        return table.slice(int(start), int(stop - start)).to_pylist()


def _read(path: Path, name: str) -> pa.Table:
    try:
        # A file of its own, not a dataset: folder names must not become columns.
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path} is no readable table of a volume: {error}") from error
    if not table.schema.equals(SCHEMAS[name]):
        raise TableError(
            f"{path} does not have the columns of {name}; it was written by another version: "
            "read the volume again"
        )
    return table.combine_chunks()


def _starts(table: pa.Table, pages: int) -> NDArray[np.int64]:
    """Row at which each page begins, and the number of rows: int64 ``[pages + 1]``."""
    numbers = table["page"].to_numpy()
    return np.searchsorted(numbers, np.arange(1, pages + 2))


def _box(row: Mapping[str, int]) -> tuple[int, int, int, int]:
    return row["x"], row["y"], row["width"], row["height"]
