"""The fixed form of a region raster store: its pixels, variables, chunks and regions.

Belongs here: what a store is initialised with, checked before anything is written. Does not belong
here: any access to a store, or which grid a project uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

RegionSlices = tuple[slice, slice]
"""Row and column slices of a region in the template's arrays, half-open, without a step."""


class RasterTemplateError(ValueError):
    """A template that contradicts itself."""


class GridMismatchError(ValueError):
    """The store was initialised with another template."""


@dataclass(frozen=True)
class RasterTemplate:
    """A raster of float32 variables on one regular geographic grid, cut into regions.

    ``latitude`` and ``longitude`` are the exact pixel centres in degrees, both ascending.
    ``variables`` maps each name to its attributes (units, long_name and so on). A region starts on
    a chunk border and ends on one, or at the edge of the grid, so that two regions never share a
    chunk and can be written at the same time.
    """

    name: str
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    step: float
    crs: str
    chunks: tuple[int, int]
    variables: Mapping[str, Mapping[str, str]]
    regions: Mapping[str, RegionSlices]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis, centres in (("latitude", self.latitude), ("longitude", self.longitude)):
            if centres.ndim != 1 or centres.size == 0 or centres.dtype != np.float64:
                raise RasterTemplateError(
                    f"{axis} of template {self.name!r} must be a float64 vector, found "
                    f"{centres.dtype} of shape {centres.shape}"
                )
            if np.any(np.abs(np.diff(centres) - self.step) > 1e-6 * self.step):
                raise RasterTemplateError(
                    f"{axis} of template {self.name!r} is not regular with step {self.step}"
                )
        if not self.variables or not self.regions:
            raise RasterTemplateError(f"template {self.name!r} has no variables or no regions")
        owner: dict[tuple[int, int], str] = {}
        for region_id, window in self.regions.items():
            for cell in self._chunks_of(region_id, window):
                if (other := owner.setdefault(cell, region_id)) != region_id:
                    raise RasterTemplateError(
                        f"regions {other} and {region_id} of template {self.name!r} share chunk "
                        f"{cell}; make them disjoint"
                    )

    def _chunks_of(self, region_id: str, window: RegionSlices) -> list[tuple[int, int]]:
        spans = []
        for part, size, chunk in zip(window, self.shape, self.chunks, strict=True):
            inside = 0 <= part.start < part.stop <= size and part.step is None
            if not inside or part.start % chunk or (part.stop % chunk and part.stop != size):
                raise RasterTemplateError(
                    f"region {region_id} covers pixels {part.start} to {part.stop} of {size}, but "
                    f"chunks have {chunk}; choose chunks that divide the region size"
                )
            spans.append(range(part.start // chunk, -(-part.stop // chunk)))
        return [(row, col) for row in spans[0] for col in spans[1]]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.latitude.size, self.longitude.size

    @cached_property
    def region_windows(self) -> NDArray[np.int64]:
        """Row start, row stop, column start, column stop of each region, shape ``(n, 4)``."""
        return np.array(
            [[r.start, r.stop, c.start, c.stop] for r, c in self.regions.values()], np.int64
        )

    @cached_property
    def description(self) -> dict[str, Any]:
        """What two equal templates have in common, JSON-ready."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "crs": self.crs,
            "step": self.step,
            "first_pixel": [float(self.latitude[0]), float(self.longitude[0])],
            "coordinates": _digest(self.latitude.tobytes(), self.longitude.tobytes()),
            "regions": len(self.regions),
            "region_table": _digest(
                json.dumps(list(self.regions)).encode(), self.region_windows.tobytes()
            ),
            "variables": list(self.variables),
        }

    def spatial_ref(self) -> dict[str, Any]:
        """CF grid-mapping attributes of the whole grid, with WKT and GDAL's GeoTransform."""
        return {
            **pyproj.CRS.from_user_input(self.crs).to_cf(),
            "GeoTransform": geo_transform(self.latitude, self.longitude, self.step),
        }

    def require_match(self, found: Mapping[str, Any], place: str) -> None:
        """Raise :class:`GridMismatchError` if a store at ``place`` has another description."""
        if found != self.description:
            differing = [key for key in self.description if found.get(key) != self.description[key]]
            raise GridMismatchError(
                f"the store at {place} was initialised with grid {_line(found)}, but the "
                f"configured grid is {_line(self.description)} (different: "
                f"{', '.join(differing)}); use the grid of the store, or another store or branch"
            )


def geo_transform(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], step: float
) -> str:
    """GDAL's affine coefficients of a grid whose first row is the southernmost, as text."""
    west, south = float(longitude[0]) - step / 2, float(latitude[0]) - step / 2
    return f"{west!r} {step!r} 0 {south!r} 0 {step!r}"


def create_arrays(root: Any, template: RasterTemplate) -> None:
    """Give the empty Zarr group ``root`` the variables, coordinates and ledger; no pixels."""
    root.attrs.update(template.attrs)
    # Byte shuffle and LZ4 pack risk rasters better than plain Zstandard at half its CPU time.
    codec = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)
    for name, attrs in template.variables.items():
        root.create_array(
            name,
            shape=template.shape,
            chunks=template.chunks,
            dtype="float32",
            fill_value=np.nan,
            compressors=[codec],
            dimension_names=("latitude", "longitude"),
            attributes={**attrs, "grid_mapping": "spatial_ref"},
        )
    for name, axis, centres in (
        ("latitude", "Y", template.latitude),
        ("longitude", "X", template.longitude),
    ):
        root.create_array(
            name,
            data=centres,
            chunks=centres.shape,
            dimension_names=(name,),
            attributes={
                "standard_name": name,
                "long_name": f"{name} of the pixel centre",
                "units": "degrees_north" if axis == "Y" else "degrees_east",
                "axis": axis,
            },
        )
    spatial_ref = root.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)
    spatial_ref.attrs.update(template.spatial_ref())
    ledger = root.create_group("ledger", attributes={"template": template.description})
    count = len(template.regions)
    ids = ledger.create_array(
        "region_id", shape=(count,), chunks=(count,), dtype="string", dimension_names=("region",)
    )
    ids[:] = np.array(list(template.regions), dtype=np.dtypes.StringDType())
    ledger.create_array(
        "window",
        data=template.region_windows,
        chunks=(count, 4),
        dimension_names=("region", "edge"),
        attributes={"long_name": "row start, row stop, column start, column stop"},
    )
    ledger.create_array(
        "entry",
        shape=(count,),
        chunks=(1,),
        dtype="string",
        fill_value="",
        dimension_names=("region",),
        attributes={"long_name": "how a finished region came to be, JSON; empty if not finished"},
    )


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def _line(description: Mapping[str, Any]) -> str:
    rows, cols = description["shape"]
    south, west = description["first_pixel"]
    return (
        f"{description['name']!r} ({rows} x {cols} pixels of {description['step']:.6g} degrees "
        f"from {south:.6f}, {west:.6f}, {description['regions']} regions, "
        f"chunks {'x'.join(map(str, description['chunks']))})"
    )
