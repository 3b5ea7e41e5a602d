"""What is wrong with a request: collected, each problem once, with how often it occurs.

Belongs here: the kinds of problems, collecting them, and how foreign text is shown.
Does not belong here: finding them (``requests.py``, ``request_polygons.py``).
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ocr_assets.tiles.grid import YEARS

# "2024", and what tables make of it: "2024.0". A date counts by its year.
_YEAR = re.compile(r"\s*([0-9]{4})(?:\.0*)?\s*")
_DATE = re.compile(r"\s*([0-9]{4})(?:\.0*|-[0-9]{2}(?:-[0-9]{2}(?:[T ][0-9:.+Z -]*)?)?)?\s*")

_SHOWN = 60


class RequestError(ValueError):
    """A request of which nothing can be used: the message says what is wrong and the mend."""


class ProblemKind(StrEnum):
    """Why a part of a request was left out, or what was mended in it."""

    not_a_tile = "not a tile id"
    not_in_grid = "not in the grid"
    misplaced = "not where the grid has it"
    bad_year = "not a usable year"
    malformed = "not of the right form"
    no_geometry = "no geometry"
    bad_geometry = "unusable geometry"
    no_tile = "touches no tile"
    no_polygons = "no polygons"
    repaired = "geometry repaired"
    antimeridian = "read as crossing the antimeridian"

    @property
    def lost(self) -> bool:
        """Whether what has the problem was left out. If not, it was mended and used."""
        return self not in (ProblemKind.repaired, ProblemKind.antimeridian)


@dataclass(frozen=True)
class Problem:
    """Something in a request that was left out or mended.

    Attributes:
        subject: the offending text, or the feature; safe to print.
        where: the first place that has it.
        count: how often it occurs.
        reason: what is wrong, where the kind does not say it all.
    """

    kind: ProblemKind
    subject: str
    where: str
    count: int
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        times = f", {self.count} times" if self.count > 1 else ""
        return f"{self.where}: {self.subject}: {self.kind}{reason}{times}"


class ProblemLog:
    """Collects problems; the same problem in several places is one."""

    def __init__(self) -> None:
        self._found: dict[tuple[ProblemKind, str, str], tuple[str, int]] = {}

    def add(
        self, kind: ProblemKind, subject: str, where: str, reason: str = "", count: int = 1
    ) -> None:
        """Record that ``subject`` has a problem at ``where``, ``count`` times."""
        key = kind, subject, reason
        first, before = self._found.get(key, (where, 0))
        self._found[key] = first, before + count

    def problems(self) -> tuple[Problem, ...]:
        """Each problem once: what was left out before what was mended, by kind, as found."""
        kinds = list(ProblemKind)
        return tuple(
            Problem(kind, subject, where, count, reason)
            for (kind, subject, reason), (where, count) in sorted(
                self._found.items(), key=lambda item: kinds.index(item[0][0])
            )
        )


def shown(value: Any) -> str:
    """Foreign text as it is safe to print: quoted, control characters escaped, cut if long."""
    scalar = value is None or isinstance(value, str | int | float | datetime.date)
    text = str(value) if scalar else f"a {type(value).__name__}"
    short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ascii(short) if any(not sign.isprintable() for sign in short) else repr(short)


def usable_year(value: Any, latest: int, *, date: bool = False) -> int | None:
    """The year that ``value`` says if tiles can be asked for it, else None.

    Args:
        value: a whole number or text of four digits.
        latest: last year that is usable.
        date: whether a date stands for its year.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | datetime.date):
        return None
    found = (_DATE if date else _YEAR).fullmatch(str(value))
    year = int(found[1]) if found else 0
    return year if YEARS.start <= year <= min(latest, YEARS[-1]) else None


def year_range(latest: int) -> str:
    """The usable years in words."""
    return f"years are {YEARS.start} to {min(latest, YEARS[-1])}"
