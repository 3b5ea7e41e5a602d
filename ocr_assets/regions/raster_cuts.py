"""Input rasters under a region: their checks, and the pieces that are cut out of them.

Belongs here: what an opened raster must hold to be used, where a region lies in it, and reading
that with its values checked.
Does not belong here: which datasets there are (``inputs.py``), and opening them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.grid import Window
from ocr_assets.regions.kernels import DIRECTIONS
from ocr_assets.regions.resample import SourceRaster

COORDINATE_TOLERANCE = 1e-9
"""Largest difference in degrees between a 30 m raster's coordinates and the grid's."""

Slices = tuple[slice, slice]
"""Row and column slices, the step -1 where an axis descends."""


@dataclass(frozen=True)
class Variable:
    """What a variable must hold: its units and its valid range, both ends included."""

    units: str
    low: float
    high: float
    tolerance: float
    per_direction: bool = False
    """Whether it has a value for each of the eight wind directions, along ``wind_direction``."""


@dataclass(frozen=True)
class RasterSchema:
    """What an input raster must hold.

    Attributes:
        variables: that are read of it.
        crs: its coordinate system; None for any that it declares.
        cell: side of its cells in units of ``crs``; None for any.
        hint: what to do if a variable is missing.
    """

    variables: Mapping[str, Variable]
    crs: str | None
    cell: float | None = None
    hint: str = "name the right one under `variables` in the catalog"


class InputError(ValueError):
    """An input dataset that cannot be used; the message names it, the fault and the mend."""


class MissingInputError(InputError):
    """A dataset or a variable that is not there."""


class CrsError(InputError):
    """A raster in another coordinate system than its dataset promises, or in none."""


class GridError(InputError):
    """A raster whose cells do not lie where they must, or do not cover the region."""


class ValueRangeError(InputError):
    """A raster with values that its variable cannot have."""


class EmptyRasterError(InputError):
    """A raster without a single value in the region."""


@dataclass(frozen=True)
class InputRaster:
    """An opened raster whose names, dimensions and coordinate system are as its schema says."""

    name: str
    dataset: xr.Dataset
    schema: RasterSchema

    @classmethod
    def checked(
        cls, name: str, datasets: Mapping[str, xr.Dataset], schema: RasterSchema
    ) -> InputRaster:
        """The raster ``name`` of ``datasets``; raises a subclass of :class:`InputError`."""
        if name not in datasets:
            raise MissingInputError(
                f"input {name!r} is missing; found {', '.join(sorted(datasets))}"
            )
        raster = cls(name, datasets[name], schema)
        for variable, expected in schema.variables.items():
            raster._check_variable(variable, expected)
        # The same Albers or WGS 84 goes under many names, so parameters decide.
        if schema.crs and not raster.crs.equals(CRS(schema.crs), ignore_axis_order=True):
            raise CrsError(
                f"{name}: coordinate system is {raster.crs.name!r}, expected {schema.crs}"
            )
        return raster

    def _check_variable(self, variable: str, expected: Variable) -> None:
        dataset = self.dataset
        if variable not in dataset.data_vars:
            raise MissingInputError(
                f"{self.name}: variable {variable!r} is missing, found "
                f"{', '.join(map(str, dataset.data_vars)) or 'none'}; {self.schema.hint}"
            )
        dimensions: tuple[str, ...] = self.dimensions
        if expected.per_direction:
            dimensions = (*dimensions, "wind_direction")
        found = dataset[variable].dims
        if sorted(map(str, found)) != sorted(dimensions):
            raise GridError(
                f"{self.name}: {variable} has dimensions {found}, expected {dimensions}"
            )
        if expected.per_direction and dataset.sizes["wind_direction"] != len(DIRECTIONS):
            raise GridError(
                f"{self.name}: {variable} has {dataset.sizes['wind_direction']} wind directions, "
                f"expected {len(DIRECTIONS)} ({', '.join(DIRECTIONS)})"
            )

    @property
    def dimensions(self) -> tuple[str, str]:
        """Names of the axes of rows and columns; raises :class:`GridError` if there are none."""
        dataset = self.dataset
        for y, x in (("y", "x"), ("latitude", "longitude")):
            if y in dataset.sizes and x in dataset.sizes:
                if y in dataset.coords and x in dataset.coords:
                    return y, x
                raise GridError(f"{self.name}: dimensions {y}, {x} have no coordinates")
        raise GridError(
            f"{self.name}: dimensions are {', '.join(map(str, dataset.sizes))}, "
            "expected y, x or latitude, longitude"
        )

    @property
    def crs(self) -> CRS:
        """The coordinate system; raises :class:`CrsError` if none is declared."""
        reference = self.dataset.coords.get("spatial_ref")
        if reference is None or "crs_wkt" not in reference.attrs:
            raise CrsError(
                f"{self.name}: no coordinate system is declared; add `crs` to it in the catalog"
            )
        return CRS.from_user_input(reference.attrs["crs_wkt"])

    def centres(self, axis: str) -> NDArray[np.float64]:
        """Cell centres along an axis."""
        return np.asarray(self.dataset[axis].values, np.float64)

    def pixels(self, window: Window) -> Slices:
        """Where ``window`` is in a 30 m raster, proven to lie on the window's pixels."""
        if self.dimensions != ("latitude", "longitude"):
            raise GridError(
                f"{self.name}: dimensions are {self.dimensions}, expected latitude, longitude"
            )
        return (
            _axis_slice(self.name, "latitude", self.centres("latitude"), window.latitude),
            _axis_slice(self.name, "longitude", self.centres("longitude"), window.longitude),
        )

    def cover(self, window: Window) -> Slices:
        """The part of a raster on another grid that covers ``window``.

        The edges of the window are curved in a projection, so they are densified before their
        extremes are taken. Two cells are added for nearest-neighbour look-up and gap filling.
        """
        y, x = self.dimensions
        to_source = Transformer.from_crs(region_grid.CRS, self.crs, always_xy=True)
        west, south, east, north = to_source.transform_bounds(*window.bounds, densify_pts=101)
        cell = self.schema.cell
        return (
            _cover_slice(self.name, y, self.centres(y), south, north, cell),
            _cover_slice(self.name, x, self.centres(x), west, east, cell),
        )

    def read(self, variable: str, slices: Slices, region_id: str) -> NDArray[np.float32]:
        """A variable as contiguous float32 in ``[y, x, ...]``, its values checked."""
        name, dimensions = self.name, self.dimensions
        piece = self.dataset[variable].isel(dict(zip(dimensions, slices, strict=True)))
        try:
            values = np.ascontiguousarray(
                piece.transpose(*dimensions, ...).values, dtype=np.float32
            )
        except Exception as error:  # stores and codecs have no common error for damaged data
            raise InputError(
                f"{name}: {variable} cannot be read under region {region_id} ({error}); "
                "get the dataset again"
            ) from error
        allowed = self.schema.variables[variable]
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        if np.isnan(low):
            raise EmptyRasterError(
                f"{name}: {variable} has no value in region {region_id}; "
                "take the region out of the grid's valid ones or mend the raster"
            )
        if low < allowed.low - allowed.tolerance or high > allowed.high + allowed.tolerance:
            raise ValueRangeError(
                f"{name}: {variable} runs from {low:g} to {high:g} in region {region_id}, expected "
                f"{allowed.low:g} to {allowed.high:g} ({allowed.units}); is its no-data value "
                "declared?"
            )
        if low < allowed.low or high > allowed.high:
            np.clip(values, allowed.low, allowed.high, out=values)
        return values

    def source(self, variable: str, slices: Slices, region_id: str) -> SourceRaster:
        """A variable with the cell centres of its part."""
        y, x = self.dimensions
        rows, cols = slices
        return SourceRaster(
            values=self.read(variable, slices, region_id),
            x=self.centres(x)[cols],
            y=self.centres(y)[rows],
            crs=self.crs.to_string(),
        )


def _axis_slice(
    name: str, axis: str, found: NDArray[np.float64], expected: NDArray[np.float64]
) -> slice:
    """Slice of ``found`` that equals ``expected`` (ascending), negative step if it descends."""
    descending = found.size > 1 and found[0] > found[-1]
    ascending = found[::-1] if descending else found
    start = round((expected[0] - ascending[0]) / region_grid.STEP) if found.size else 0
    stop = start + expected.size
    if start < 0 or stop > found.size:
        covered = f"{ascending[0]:.9f}..{ascending[-1]:.9f}" if found.size else "nothing"
        raise GridError(
            f"{name}: {axis} covers {covered}, expected at least "
            f"{expected[0]:.9f}..{expected[-1]:.9f}"
        )
    off = np.abs(ascending[start:stop] - expected)
    worst = int(off.argmax())
    if not off[worst] <= COORDINATE_TOLERANCE:
        raise GridError(
            f"{name}: {axis} is not on the pixel grid, found {ascending[start + worst]!r}, "
            f"expected {expected[worst]!r}; resample it to the grid"
        )
    if not descending:
        return slice(start, stop)
    first, last = found.size - 1 - start, found.size - stop
    return slice(first, last - 1 if last else None, -1)


def _cover_slice(
    name: str,
    axis: str,
    centres: NDArray[np.float64],
    low: float,
    high: float,
    expected_step: float | None,
) -> slice:
    steps = np.diff(centres)
    step = float(steps.mean()) if steps.size else float("nan")
    if not steps.size or step == 0 or np.abs(steps - step).max() > 1e-4 * abs(step):
        raise GridError(f"{name}: coordinate {axis} is not regular")
    if expected_step is not None and abs(abs(step) - expected_step) > 1e-4 * expected_step:
        raise GridError(f"{name}: cells are {abs(step):g} along {axis}, expected {expected_step:g}")
    ends = sorted(((low - centres[0]) / step, (high - centres[0]) / step))
    start = max(0, int(np.floor(ends[0])) - 2)
    stop = min(centres.size, int(np.ceil(ends[1])) + 3)
    if start >= stop:
        raise GridError(
            f"{name}: {axis} covers {min(centres[0], centres[-1]):.1f}.."
            f"{max(centres[0], centres[-1]):.1f}, the region needs {low:.1f}..{high:.1f}"
        )
    return slice(start, stop)
