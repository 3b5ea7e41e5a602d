"""What a type of risk is: its variables, scores and inputs, and how it is computed.

Belongs here: the form in which every type of risk describes itself, so that regions, buildings,
statistics, pyramid, tiles and map treat all alike. Does not belong here: any one type; each has a
module of its own, and ``risk_types.py`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ocr_assets.regions.kernels import Method

if TYPE_CHECKING:
    import xarray as xr

    from ocr_assets.regions.grid import RegionGrid

RISK_NAMES = ("fire", "wind")
"""Names of all types. What belongs to the first has no prefix: it was there before the others."""

NO_SCORE = 255
"""Score, or class, of a pixel or building without one."""

SCORES = 11
"""Scores 0 to 10."""

Values = NDArray[np.float32]


class EmptyRegionError(ValueError):
    """A region in which the inputs of a risk have no value at all."""


@dataclass(frozen=True)
class RiskVariable:
    """A variable of the store and of the buildings.

    Attributes:
        long_name, units: as the store says them.
        low, high: valid range, both ends included.
        summarised: whether a mean and quantiles of it have a meaning, and are published.
        values: all that it can be, of a variable without a mean; the pyramid counts these.
    """

    long_name: str
    units: str
    low: float
    high: float
    summarised: bool = True
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Classes:
    """A column of buildings with the class of one of their variables, counted by geography.

    Attributes:
        name: of the column; its counts are in the column ``{name}_hist``.
        variable: what is classified.
        count: how many classes there are, from 0.
        classify: class of each value, :data:`NO_SCORE` where there is none.
    """

    name: str
    variable: str
    count: int
    classify: Callable[[Values, Method], NDArray[np.uint8]]


@dataclass(frozen=True)
class MapRow:
    """A row of the table that the map shows of a building: one variable for each view, or one."""

    label: str
    unit: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class MapText:
    """What the map says.

    Attributes:
        title: of the page.
        noun: what is scored, as in "Mean risk".
        quantity: what the score is of, with its unit.
        views_title: what tells the views apart.
        views: one for each score of the type.
        edges: values at which scores 2 to 10 begin, and the highest value of 10.
        rows: of a building's table.
        region_row: label and unit of the mean and the median in a geography's table.
    """

    title: str
    noun: str
    quantity: str
    views_title: str
    views: tuple[str, ...]
    edges: tuple[float, ...]
    rows: tuple[MapRow, ...]
    region_row: tuple[str, str]


Rasters = Mapping[str, "xr.Dataset"]


@dataclass(frozen=True, eq=False)
class RiskType:
    """A type of risk.

    Attributes:
        name: as commands call it.
        title, summary, sources: as the store says them.
        variables: of the store, in order; all float32.
        scores: the scores 0 to 10 of the variables that stand for the risk as a whole.
        categories: further classes.
        kept: variables that must have a value, but around gaps, wherever these others have one.
        seamless: continuous variables, which make no step at the border of two regions.
        rasters: names of the input rasters, out of those that the catalog has.
        compute: the variables over a region, from the opened rasters.
        map: what the map says.
    """

    name: str
    title: str
    summary: str
    sources: str
    variables: Mapping[str, RiskVariable]
    scores: tuple[Classes, ...]
    categories: tuple[Classes, ...]
    kept: Mapping[str, tuple[str, ...]]
    seamless: tuple[str, ...]
    rasters: Callable[[Collection[str]], tuple[str, ...]]
    compute: Callable[[Rasters, RegionGrid, str, Method], dict[str, Values]]
    map: MapText

    @property
    def classes(self) -> tuple[Classes, ...]:
        """Scores and categories, in the order of their columns."""
        return (*self.scores, *self.categories)

    @property
    def scored(self) -> tuple[str, ...]:
        """The variables that stand for the risk as a whole."""
        return tuple(score.variable for score in self.scores)

    @property
    def summarised(self) -> tuple[str, ...]:
        """Variables with a mean, a median and percentiles, in column order."""
        return tuple(name for name, variable in self.variables.items() if variable.summarised)

    @property
    def tiled(self) -> tuple[str, ...]:
        """Variables of the statistics and of buildings in vector tiles, in order."""
        return (*self.summarised, *(one.variable for one in self.categories))

    def key(self, name: str) -> str:
        """An asset or place of this type, by the name that it has in every type."""
        return risk_key(self.name, name)


def risk_group(risk_name: str) -> str:
    """Group of the assets of a type."""
    return "_".join(reversed(risk_key(risk_name, "regions").split("/")))


def risk_key(risk_name: str, name: str) -> str:
    """An asset or place of the type called ``risk_name``; see :meth:`RiskType.key`."""
    return name if risk_name == RISK_NAMES[0] else f"{risk_name}/{name}"
