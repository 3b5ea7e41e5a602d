"""Requests that list tiles: JSON of the monitoring platform, JSON of failed jobs, and CSV.

Belongs here: reading these texts and checking every entry of theirs.
Does not belong here: telling one shape of request from another (``requests.py``).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ocr_assets.tiles.grid import YEARS, Tile, UnknownTileError
from ocr_assets.tiles.request_problems import ProblemKind, RequestError, shown
from ocr_assets.tiles.request_rows import RequestRows

LARGEST_JSON, LARGEST_CSV = 128 * 1024**2, 512 * 1024**2
"""Bytes of a request that is still read."""

_WHOLE = re.compile(r"\s*(-?[0-9]{1,9})(?:\.0*)?\s*")

# Degrees. Centres in tables are rounded to four decimals, sometimes to three.
_CENTRE_ERROR = 1e-3

# Entries that are held as Python objects at once.
_BATCH = 100_000

CsvLine = tuple[int, list[str]]
"""Line number and cells."""


def load_json(path: Path) -> Any:
    """The document in a file of JSON.

    Raises:
        RequestError: it is too large, not UTF-8, not JSON (line and column are told), or an object
            has a key twice, of which one value would be lost.
    """
    if path.stat().st_size > LARGEST_JSON:
        raise RequestError(f"{path} is larger than {LARGEST_JSON} bytes: cut it up")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise RequestError(f"{path}: an object has the key {shown(name)} more than once")
            found[name] = value
        return found

    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from error
    except RecursionError as error:
        raise RequestError(f"{path} is nested too deeply to be a request") from error
    except RequestError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(f"{path} is not a request: {error}") from error


def add_projects(rows: RequestRows, document: dict[str, Any], path: Path) -> None:
    """``{project: {year: {"missing_tiles": [id, …]}}}``."""
    if not document:
        raise RequestError(f"{path} is an empty object: it asks for nothing")
    form = 'a project holds {"2024": {"missing_tiles": [...]}}'
    for project, years in document.items():
        if not isinstance(years, dict):
            rows.refuse(ProblemKind.malformed, f"project {shown(project)}", str(path), form)
            continue
        for name, entry in years.items():
            where = f"project {shown(project)}, {shown(name)}"
            texts = entry.get("missing_tiles") if isinstance(entry, dict) else None
            if not isinstance(texts, list):
                rows.refuse(ProblemKind.malformed, where, str(path), form)
            elif (year := rows.year(name, where, max(len(texts), 1))) is not None:
                _add_ids(rows, texts, year, where)


def _add_ids(rows: RequestRows, texts: list[Any], year: int, where: str) -> None:
    for batch in batched(texts, _BATCH):
        found = []
        for text in batch:
            try:
                if not isinstance(text, str):
                    raise UnknownTileError
                tile = Tile.parse(text)
            except UnknownTileError:
                rows.refuse(ProblemKind.not_a_tile, shown(text), where)
            else:
                found.append((year, tile.x, tile.y))
        rows.add(_table(found), lambda _: where)


def add_jobs(rows: RequestRows, document: list[Any], path: Path) -> None:
    """``[{"tile_info": {"year": 2024, "X_tile": 1035, "Y_tile": 727}}, …]``."""
    if not document:
        raise RequestError(f"{path} is an empty list: it asks for nothing")
    for batch in batched(enumerate(document), _BATCH):
        found, places = [], []
        for number, job in batch:
            where = f"entry {number}"
            info = job.get("tile_info") if isinstance(job, dict) else None
            if not isinstance(info, dict):
                reason = 'an entry holds {"tile_info": {"year", "X_tile", "Y_tile"}}'
                rows.refuse(ProblemKind.malformed, where, str(path), reason)
                continue
            year = info.get("year", info.get("Year"))
            row = _row(rows, year, info.get("X_tile"), info.get("Y_tile"), where)
            if row is not None:
                found.append(row)
                places.append(where)
        rows.add(_table(found), places.__getitem__)


def _row(rows: RequestRows, year: Any, x: Any, y: Any, where: str) -> tuple[int, int, int] | None:
    """Year, ``x`` and ``y`` as numbers; None if one of them is none, which is recorded."""
    numbers = _whole(x), _whole(y)
    if numbers[0] is None or numbers[1] is None:
        subject = f"{shown(x)}, {shown(y)}"
        rows.refuse(ProblemKind.not_a_tile, subject, where, "X_tile, Y_tile")
        return None
    found = rows.year(year, where)
    return None if found is None else (found, numbers[0], numbers[1])


def open_csv(path: Path) -> tuple[list[str], Iterator[CsvLine]]:
    """Names of the columns, and line number and cells of each row that has any.

    Raises:
        RequestError: the file is too large, or two columns have the same name; or, while its lines
            are read, it is not CSV of UTF-8 text.
    """
    if path.stat().st_size > LARGEST_CSV:
        raise RequestError(f"{path} is larger than {LARGEST_CSV} bytes: cut it up")

    def records() -> Iterator[CsvLine]:
        with path.open("rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except (csv.Error, UnicodeDecodeError) as error:
                raise RequestError(
                    f"{path} is no CSV of UTF-8 text: line {reader.line_num + 1}: {error}"
                ) from error

    lines = records()
    header = [name.strip() for name in next(lines)[1]]
    if len(set(header)) < len(header):
        raise RequestError(f"{path}: two columns have the same name")
    return header, lines


def whole_rows(
    rows: RequestRows, header: list[str], lines: Iterator[CsvLine], path: Path
) -> Iterator[CsvLine]:
    """The lines that have a cell for each column; the others are recorded."""
    for number, cells in lines:
        if len(cells) == len(header):
            yield number, cells
        else:
            reason = f"{len(cells)} cells, not {len(header)}"
            rows.refuse(ProblemKind.malformed, f"line {number}", str(path), reason)


def add_table(rows: RequestRows, header: list[str], lines: Iterator[CsvLine], path: Path) -> None:
    """A CSV of tiles."""
    for name in ("Year", "X_tile", "Y_tile"):
        if name not in header:
            raise RequestError(f"{path} has no column {name}")
    at = [header.index(name) for name in ("Year", "X_tile", "Y_tile")]
    centre = [header.index(name) for name in ("X", "Y")] if {"X", "Y"} <= set(header) else None
    for batch in batched(whole_rows(rows, header, lines, path), _BATCH):
        numbers, cells = zip(*batch, strict=True)
        table, kept = _checked(rows, [[row[column] for row in cells] for column in at], numbers)
        if centre is not None:
            told = [[cells[row][column] for row in kept] for column in centre]
            agree = _agree(rows, table, told, numbers, kept)
            table, kept = table[:, agree], kept[agree]
        lines_of = [numbers[row] for row in kept]
        rows.add(table, partial(_line, lines_of))


def _checked(
    rows: RequestRows, columns: list[list[str]], numbers: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Year, ``x`` and ``y`` of the rows that tell them, ``(3, n)``, and which rows these are."""
    texts = [pa.array(column, pa.string()) for column in columns]
    # Nearly all tables are whole numbers throughout; those are not looked at one by one.
    if all(pc.all(pc.match_substring_regex(text, "^-?[0-9]{1,9}$")).as_py() for text in texts):
        table = np.stack([text.cast(pa.int64()).to_numpy() for text in texts])
        if YEARS.start <= table[0].min() and table[0].max() <= rows.latest:
            return table, np.arange(table.shape[1])
    found = [
        _row(rows, year, x, y, f"line {number}")
        for year, x, y, number in zip(*columns, numbers, strict=True)
    ]
    kept = np.array([row is not None for row in found])
    return _table([row for row in found if row is not None]), np.flatnonzero(kept)


def _agree(
    rows: RequestRows,
    table: NDArray[np.int64],
    told: list[list[str]],
    numbers: Sequence[int],
    kept: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """Which rows have their centre where the grid has it, or tell none; others are recorded."""
    known = rows.grid.contains(table[1], table[2])
    expected = np.full((2, len(kept)), np.nan)
    expected[:, known] = rows.grid.centres(table[1, known], table[2, known])
    try:
        centres = np.stack([pa.array(axis).cast(pa.float64()).to_numpy() for axis in told])
    except pa.ArrowInvalid:
        centres = np.array([[_number(text) for text in axis] for axis in told])
    with np.errstate(invalid="ignore"):
        off = (np.abs(centres - expected) > _CENTRE_ERROR).any(axis=0)
    for row in np.flatnonzero(off):
        key = Tile(int(table[1, row]), int(table[2, row])).key
        here = ", ".join(shown(axis[row]) for axis in told)
        reason = f"its centre is {here} instead of {expected[:, row].tolist()}"
        rows.refuse(ProblemKind.misplaced, key, f"line {numbers[kept[row]]}", reason)
    return ~off


def _line(numbers: Sequence[int], row: int) -> str:
    return f"line {numbers[row]}"


def _table(found: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    return np.array(found, np.int64).reshape(-1, 3).T


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = _WHOLE.fullmatch(str(value))
    return int(found[1]) if found else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan") if not text.strip() else float("inf")
