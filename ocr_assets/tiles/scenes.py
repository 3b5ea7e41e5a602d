"""Scenes: satellite images as a catalogue lists them, and the days that they belong to.

Belongs here: what a catalogue's item must say about a scene, footprints, solar days, how much of a
tile a day covers. Does not belong here: asking a catalogue, reading pixels (they are handed in as
an :class:`Imagery`), and what the sources make of their scenes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from ocr_assets.tiles.rasters import DType, Resampling

DEGREES_PER_HOUR = 15.0

_WORLD = shapely.box(-180, -90, 180, 90)


class SceneError(ValueError):
    """An item of a catalogue that does not say what a scene has to; names scene and field."""


class NoScenesError(ValueError):
    """No scene of a tile at all; the message names source, tile and time."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A satellite image.

    Attributes:
        id: its identifier in the catalogue.
        time: when it was taken, UTC.
        footprint: outline in degrees; may lie beyond 180 where it crosses the antimeridian.
        properties: what the catalogue says about it.
        assets: address of each of its files, by name.
    """

    id: str
    time: datetime
    footprint: BaseGeometry
    properties: Mapping[str, Any] = field(repr=False)
    assets: Mapping[str, str] = field(repr=False)

    def number(self, name: str) -> float:
        """A property that has to be a finite number.

        Raises:
            SceneError: it is missing or anything else.
        """
        value = self.properties.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise SceneError(f"scene {self.id}: {name} is {value!r}, expected a number")
        return float(value)

    def text(self, name: str) -> str:
        """A property that has to be text; raises SceneError if it is anything else."""
        value = self.properties.get(name)
        if not isinstance(value, str) or not value:
            raise SceneError(f"scene {self.id}: {name} is {value!r}, expected text")
        return value

    def asset(self, names: Sequence[str]) -> str:
        """Address of the first of ``names`` that the scene has; raises SceneError."""
        for name in names:
            if name in self.assets:
                return self.assets[name]
        raise SceneError(f"scene {self.id} has no asset {' or '.join(names)}")

    def solar_day(self, longitude: float) -> date:
        """The day by the sun at ``longitude``: an overpass never falls on two of them."""
        return (self.time + timedelta(hours=longitude / DEGREES_PER_HOUR)).date()


@dataclass(frozen=True)
class Reading:
    """One raster of a scene, to be read onto a grid.

    ``assets`` are the names that the raster may have; the first that the scene has counts.
    Without data a pixel is 0 in integers, NaN in floats.
    """

    scene: Scene
    assets: tuple[str, ...]
    geobox: GeoBox
    dtype: DType
    resampling: Resampling = "nearest"


class Imagery(Protocol):
    """Scenes of one kind, wherever they come from."""

    @property
    def place(self) -> str:
        """Where they come from, for messages and lineage."""
        ...

    @property
    def notice(self) -> str:
        """What everybody has to know who sees anything made of them; mostly nothing."""
        ...

    def search(self, area: BaseGeometry, first: date | None, last: date | None) -> list[Scene]:
        """Scenes that touch ``area`` and were taken from ``first`` to ``last``, in order of time.

        ``area`` is in degrees, days are by UTC and inclusive. Every scene comes once.
        """
        ...

    def read(self, readings: Iterable[Reading]) -> Iterator[NDArray[Any]]:
        """The rasters, in order, each ``(H, W)`` of its reading's grid and type."""
        ...


def scene_from_item(item: Any) -> Scene:
    """The scene that an item of a catalogue (a STAC Item as JSON) describes.

    Raises:
        SceneError: the item lacks what a scene needs, or it is of another type.
    """
    if not isinstance(item, dict) or item.get("type") != "Feature":
        raise SceneError(f"found {_shown(item)} where a STAC item should be")
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise SceneError(f"found an item whose id is {name!r}")
    properties, assets = item.get("properties"), item.get("assets")
    if not isinstance(properties, dict):
        raise SceneError(f"scene {name}: properties are {_shown(properties)}, expected an object")
    if not isinstance(assets, dict):
        raise SceneError(f"scene {name}: assets are {_shown(assets)}, expected an object")
    addresses = {}
    for asset, about in assets.items():
        href = about.get("href") if isinstance(about, dict) else None
        if not isinstance(href, str) or not href:
            raise SceneError(f"scene {name}: asset {asset} has no address")
        addresses[asset] = href
    return Scene(name, _time(name, properties), _footprint(name, item), properties, addresses)


def _time(name: str, properties: Mapping[str, Any]) -> datetime:
    text = properties.get("datetime") or properties.get("start_datetime")
    try:
        time = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise SceneError(f"scene {name}: datetime is {text!r}, expected RFC 3339") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _footprint(name: str, item: Mapping[str, Any]) -> BaseGeometry:
    try:
        shape = shapely.geometry.shape(item["geometry"])
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        shape = None
    if shape is None or shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon"):
        raise SceneError(f"scene {name}: geometry is not an outline")
    west, south, east, north = shape.bounds
    if not (-180 <= west <= east <= 360 and -90 <= south <= north <= 90):
        raise SceneError(f"scene {name}: geometry is not in degrees")
    if east - west > 180:
        # An outline across the antimeridian whose corners jump from one end to the other.
        shape = shapely.transform(shape, _eastward)
    return shape if shape.is_valid else shapely.make_valid(shape)


def _eastward(corners: NDArray[Any]) -> NDArray[Any]:
    corners = corners.copy()
    corners[corners[:, 0] < 0, 0] += 360
    return corners


def _shown(value: Any) -> str:
    return type(value).__name__ if isinstance(value, dict | list) else repr(value)[:60]


@dataclass(frozen=True, eq=False)
class Place:
    """A tile as the sources need it.

    Attributes:
        tile: its id.
        longitude: of its centre, degrees.
        area: its box in degrees.
        survey_area: the larger box in which clouds are surveyed; may reach beyond 180 degrees.
        geobox: its 10 m grid.
    """

    tile: str
    longitude: float
    area: BaseGeometry
    survey_area: BaseGeometry
    geobox: GeoBox

    @cached_property
    def extent(self) -> BaseGeometry:
        """Outline in degrees of the pixel grid, which reaches a little beyond the box."""
        outline = outline_points(self.geobox.pad(2))
        to_degrees = Transformer.from_crs(str(self.geobox.crs), "EPSG:4326", always_xy=True)
        x, y = to_degrees.transform(*outline.T)
        near = (x - self.longitude + 180) % 360 - 180 + self.longitude
        return shapely.Polygon(np.column_stack([near, y]))


def outline_points(geobox: GeoBox) -> NDArray[np.float64]:
    """Points along the edge of a grid, ``(n, 2)``, close enough to be reprojected."""
    corners = geobox.extent.geom
    return shapely.get_coordinates(shapely.segmentize(corners, corners.length / 64))


def around_the_world(area: BaseGeometry) -> BaseGeometry:
    """``area`` in degrees with whatever lies beyond the antimeridian put on the other side."""
    if area.bounds[0] >= -180 and area.bounds[2] <= 180:
        return area
    parts = [shapely.intersection(part, _WORLD) for part in _turned(area)]
    return shapely.union_all([part for part in parts if part.area > 0])


def _turned(shape: BaseGeometry) -> list[BaseGeometry]:
    """The shape, and where it lies when longitude is counted a full turn less or more."""
    return [translate(shape, turn) for turn in (-360, 0, 360)]


def coverage(scenes: Iterable[Scene], area: BaseGeometry) -> float:
    """Share of ``area`` that the footprints of ``scenes`` cover together."""
    shapes = [shape for scene in scenes for shape in _turned(scene.footprint)]
    near = [shape for shape in shapes if shape.intersects(area)]
    covered = shapely.intersection(shapely.union_all(near), area).area if near else 0.0
    return min(1.0, float(covered / area.area))


@dataclass(frozen=True, eq=False)
class Day:
    """The scenes of one solar day over an area, in the order in which they are laid on another."""

    day: date
    scenes: tuple[Scene, ...]
    area: BaseGeometry = field(repr=False)

    @cached_property
    def coverage(self) -> float:
        """Share of the area that the scenes cover, 0 to 1."""
        return coverage(self.scenes, self.area)


def by_day(
    scenes: Iterable[Scene], longitude: float, area: BaseGeometry, year: int | None = None
) -> list[Day]:
    """Group scenes by solar day, in order; with ``year``, only the days of that year.

    The scene that covers most of ``area`` comes first; of the same image processed twice the
    newer one, by processing baseline. Scenes that do not touch ``area`` are left out.
    """
    groups: dict[date, list[tuple[float, str, str, Scene]]] = {}
    for scene in scenes:
        day = scene.solar_day(longitude)
        share = coverage([scene], area)
        if share > 0 and (year is None or day.year == year):
            baseline = str(scene.properties.get("s2:processing_baseline", ""))
            groups.setdefault(day, []).append((round(share, 4), baseline, scene.id, scene))
    return [
        Day(day, tuple(scene for *_, scene in sorted(groups[day], key=_rank, reverse=True)), area)
        for day in sorted(groups)
    ]


def _rank(entry: tuple[float, str, str, Scene]) -> tuple[float, str, str]:
    return entry[:3]


def search_year(imagery: Imagery, area: BaseGeometry, year: int) -> list[Scene]:
    """Scenes whose solar day may lie in ``year``: by UTC that is up to half a day more."""
    first, last = date(year, 1, 1) - timedelta(1), date(year, 12, 31) + timedelta(1)
    return imagery.search(around_the_world(area), first, last)
