"""How far the tree cover of a polygon may be off.

Belongs here: the terms of the error, how they are combined, and the tables that two of them are
looked up in. Does not belong here: measuring tree cover.

Terms are shares of the tree cover: how it changes when the polygon is moved by a pixel, what is
known of small sites, and what was found for the land cover and the region that the polygon is in.
The last two come from tables of the user. A term that is not known is left out of the sum.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SMALL_SITE = 0.5
"""Hectares up to which a site counts as small."""

_SMALL_SITE_ERRORS = ((10.0, 3.6386), (40.0, 16.68), (100.0, 23.468))
"""Percent of tree cover up to which an error of so many percent points holds."""

CLASS_COLUMN = "class"
INTERVAL_COLUMNS = ("p_lower95", "p_upper95", "r_lower95", "r_upper95")
"""95 % confidence intervals of precision and of recall."""


class ErrorTableError(ValueError):
    """A table of confidence intervals that cannot be used."""


@dataclass(frozen=True)
class Interval:
    """95 % confidence intervals of precision (p) and recall (r) in one class."""

    p_lower95: float
    p_upper95: float
    r_lower95: float
    r_upper95: float

    @property
    def lower(self) -> float:
        """How far below the truth may be, as a numerator over the tree cover in percent."""
        return self.p_upper95 - self.r_lower95

    @property
    def upper(self) -> float:
        """How far above it may be."""
        return self.r_upper95 - self.p_lower95


ErrorTable = Mapping[str, Interval]
"""Intervals by class, such as a kind of land cover or a region."""


@dataclass(frozen=True)
class Terms:
    """Terms of one polygon in percent points of tree cover, None where unknown.

    ``land_cover`` and ``region`` are the numerators of :class:`Interval`, lower and upper.
    """

    shift: float | None = None
    small_site: float | None = None
    land_cover: tuple[float, float] | None = None
    region: tuple[float, float] | None = None

    def combined(self) -> tuple[float, float]:
        """Error to below and above in percent points, both positive.

        The root of the sum of squares; of shift and small site, which have no direction, half on
        either side.
        """
        even = sum(((term or 0.0) / 2) ** 2 for term in (self.shift, self.small_site))
        below, above = (
            math.sqrt(
                even + sum(term[side] ** 2 for term in (self.land_cover, self.region) if term)
            )
            for side in (0, 1)
        )
        return below, above


def small_site_error(area: float, tree_cover: float) -> float:
    """Error of a small site in percent points.

    Args:
        area: hectares; 0 beyond :data:`SMALL_SITE`.
        tree_cover: percent.
    """
    if area > SMALL_SITE:
        return 0.0
    return next(
        (points for highest, points in _SMALL_SITE_ERRORS if tree_cover <= highest),
        _SMALL_SITE_ERRORS[-1][1],
    )


def shift_error(tree_cover: float, shifted: NDArray[np.float64]) -> float | None:
    """Root mean square change of a polygon's tree cover when it is moved, in percent points.

    Args:
        tree_cover: percent, of the polygon in its place.
        shifted: of the polygon moved in each direction; NaN, where there is no tree cover, is left
            out.
    """
    known = shifted[np.isfinite(shifted)]
    return float(np.sqrt(np.mean((known - tree_cover) ** 2))) if len(known) else None


def share(points: float | None, tree_cover: float) -> float | None:
    """Percent points as a share of the tree cover; None of none."""
    return None if points is None or tree_cover <= 0 else points / tree_cover


def read_error_table(path: Path) -> dict[str, Interval]:
    """Read a CSV table with the columns ``class`` and :data:`INTERVAL_COLUMNS`.

    Raises:
        ErrorTableError: the file cannot be read, lacks a column, names a class twice, or has a
            bound that is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            wanted = (CLASS_COLUMN, *INTERVAL_COLUMNS)
            missing = [name for name in wanted if name not in (rows.fieldnames or ())]
            if missing:
                raise ErrorTableError(
                    f"{path} has no column {missing[0]!r}; it needs {', '.join(wanted)}"
                )
            table: dict[str, Interval] = {}
            for row in rows:
                name = (row[CLASS_COLUMN] or "").strip()
                if not name or name in table:
                    problem = "twice" if name else "without a class"
                    raise ErrorTableError(f"{path}, line {rows.line_num}: {name!r} {problem}")
                bounds = [_number(row[column]) for column in INTERVAL_COLUMNS]
                if not np.isfinite(bounds).all():
                    raise ErrorTableError(
                        f"{path}, line {rows.line_num}: a bound of {name!r} is not a number"
                    )
                table[name] = Interval(*bounds)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ErrorTableError(f"cannot read the error table {path}: {error}") from error
    return table


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan
