"""The table of tiles that a request becomes, filled while the request is read.

Belongs here: taking up entries of a request, recording what is wrong with them, and the table.
Does not belong here: the shapes of requests (``requests.py`` and the modules it reads with).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from ocr_assets.tiles.grid import YEARS, Tile, TileGrid
from ocr_assets.tiles.request_problems import (
    Problem,
    ProblemKind,
    ProblemLog,
    shown,
    usable_year,
    year_range,
)

COLUMNS = ("Year", "X", "Y", "Y_tile", "X_tile")
"""Columns of a table of tiles, in this order."""


@dataclass(frozen=True, eq=False)
class Request:
    """The tiles that were asked for: sorted by year, then ``x``, then ``y``, each once.

    Attributes:
        year, x, y: columns of equal length, int64.
        problems: what was left out or mended, each once.
        entries: entries read, those with problems among them: tiles of a list, or polygons.
        repeated: how many of the tiles that were found were named, or touched, already.
    """

    year: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    problems: tuple[Problem, ...] = ()
    entries: int = 0
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.year)

    def __iter__(self) -> Iterator[tuple[int, Tile]]:
        for year, x, y in zip(self.year.tolist(), self.x.tolist(), self.y.tolist(), strict=True):
            yield year, Tile(x, y)

    @property
    def lost(self) -> int:
        """How many entries were left out."""
        return sum(problem.count for problem in self.problems if problem.kind.lost)


@dataclass
class RequestRows:
    """Tiles as they are read, and the problems on the way.

    Attributes:
        latest: last year that is usable.
        entries: entries so far, those that were refused among them.
        parts: tiles that are in the grid, arrays of year, ``x``, ``y``, shape ``(3, n)``.
    """

    grid: TileGrid
    latest: int
    log: ProblemLog = field(default_factory=ProblemLog)
    entries: int = 0
    parts: list[NDArray[np.int64]] = field(default_factory=list)

    def year(self, value: Any, where: str, count: int = 1) -> int | None:
        """The year that ``value`` says; an unusable one is recorded for ``count`` entries."""
        found = usable_year(value, self.latest)
        if found is None:
            self.refuse(ProblemKind.bad_year, shown(value), where, year_range(self.latest), count)
        return found

    def refuse(
        self, kind: ProblemKind, subject: str, where: str, reason: str = "", count: int = 1
    ) -> None:
        """Record ``count`` entries that are left out."""
        self.entries += count
        self.log.add(kind, subject, where, reason, count)

    def add(self, table: NDArray[np.int64], where: Callable[[int], str]) -> None:
        """Take up entries; those that are not in the grid are recorded.

        Args:
            table: year, ``x`` and ``y``, shape ``(3, n)``.
            where: tells the place of an entry by its position in ``table``.
        """
        known = self.grid.contains(table[1], table[2])
        for row in np.flatnonzero(~known):
            tile = Tile(int(table[1, row]), int(table[2, row]))
            self.log.add(ProblemKind.not_in_grid, tile.key, where(int(row)))
        self.entries += table.shape[1]
        self.parts.append(table[:, known])

    def request(self) -> Request:
        """All that was read."""
        every = np.concatenate([np.zeros((3, 0), np.int64), *self.parts], axis=1)
        extent = YEARS.stop, 8 * len(self.grid.members), self.grid.members.shape[1]
        kept = np.unique(np.ravel_multi_index(tuple(every), extent))
        year, x, y = (column.astype(np.int64) for column in np.unravel_index(kept, extent))
        repeated = every.shape[1] - len(kept)
        return Request(year, x, y, self.log.problems(), self.entries, repeated)


def write_tiles_csv(request: Request, grid: TileGrid, out: IO[bytes]) -> None:
    """Write the table of tiles: :data:`COLUMNS`, one tile of one year on each line.

    ``X`` and ``Y`` are the longitude and latitude of the centre in degrees. The same request gives
    the same bytes.
    """
    longitude, latitude = grid.centres(request.x, request.y)
    values = (request.year, longitude, latitude, request.y, request.x)
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    out.write(f"{','.join(COLUMNS)}\n".encode())
    pa.csv.write_csv(pa.table(dict(zip(COLUMNS, values, strict=True))), out, options)
