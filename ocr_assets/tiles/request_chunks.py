"""Cutting a table of tiles into smaller ones.

Belongs here: the sizes of chunks, and chunks that keep header and lines as they are.
Does not belong here: what the lines mean (``request_lists.py``), and where chunks are written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from ocr_assets.tiles.request_lists import LARGEST_CSV
from ocr_assets.tiles.request_problems import RequestError

FIRST_CHUNK = 100
"""Lines of the first chunk by default; each further one has twice as many."""


def chunk_sizes(sizes: Sequence[int] = ()) -> Iterator[int]:
    """Lines of one chunk after the other: these sizes, the last of them for ever.

    Without any, 100, 200, 400, 800, 1600 and so on: what is wrong shows in a small first chunk,
    and the number of chunks stays small.

    Raises:
        RequestError: a size is not positive.
    """
    if any(size <= 0 for size in sizes):
        raise RequestError(f"{min(sizes)} is not a number of lines")
    for index in count():
        yield sizes[min(index, len(sizes) - 1)] if sizes else FIRST_CHUNK << index


def split_table(path: Path, sizes: Sequence[int] = ()) -> Iterator[str]:
    """The text of each chunk: the header of the table, then its next lines, all as they are.

    Raises:
        RequestError: the file is too large, is no CSV of UTF-8 text, has no header of a request,
            or holds nothing below it.
    """
    if path.stat().st_size > LARGEST_CSV:
        raise RequestError(f"{path} is larger than {LARGEST_CSV} bytes")
    records = _records(path)
    header = next(records, "")
    names = {name.strip() for name in next(csv.reader([header]), [])}
    if not names & {"X_tile", "project_id"}:
        raise RequestError(f"{path} does not begin with the header of a table of tiles")
    empty = True
    for size in chunk_sizes(sizes):
        lines = list(islice(records, size))
        if not lines:
            break
        empty = False
        yield header + "".join(lines)
    if empty:
        raise RequestError(f"{path} holds no line below its header: there is nothing to split")


def _records(path: Path) -> Iterator[str]:
    """The text of each row that has any cell, each ending with its line."""
    taken: list[str] = []

    def feed() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line in file:
                taken.append(line)
                yield line

    reader = csv.reader(feed(), strict=True)
    try:
        for cells in reader:
            text = "".join(taken)
            taken.clear()
            if cells:
                yield text if text.endswith("\n") else f"{text}\n"
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(
            f"{path} is no CSV of UTF-8 text: line {reader.line_num + 1}: {error}"
        ) from error
