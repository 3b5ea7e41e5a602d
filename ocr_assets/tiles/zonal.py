"""Tree cover of polygons: means over published tiles, weighted by coverage.

Belongs here: reading polygons, matching them with tiles, streaming the tiles, and the table of
answers. Does not belong here: error terms (``zonal_errors.py``), making tiles.

Tiles are read one after the other, each once, in the order of the grid, whatever the number of
polygons. All tiles share one lattice, so a pixel belongs to one tile, and sums over tiles are the
sums over polygons: memory does not grow with the area.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pyproj
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.product import CRS, PIXELS_PER_DEGREE, PixelBox, pixel_box
from ocr_assets.tiles.request_polygons import prepared
from ocr_assets.tiles.request_problems import ProblemLog
from ocr_assets.tiles.tree_cover import NODATA
from ocr_assets.vector import read_declared

EQUAL_AREA = "ESRI:54009"
"""Mollweide, in which areas are measured."""

SHIFT = 0.0001081081
"""Degrees, a little more than a pixel, by which polygons are moved to see what it changes."""

SMALLEST_COVERAGE = 0.05
"""Share of a pixel that a polygon must cover for the pixel to count."""

NOISE_PEAK, NOISE_VALUE = 30, 20
"""Percent. Lower tree cover is noise: without such a peak within a pixel, or below the value."""

_KEPT_TILES = 64

# Degrees between vertices, so that edges keep their course when they are projected.
_STRAIGHT = 0.1

_DIRECTIONS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]
_OPERATIONS = [
    f"total=sum(min_coverage_frac={SMALLEST_COVERAGE})",
    f"pixels=count(min_coverage_frac={SMALLEST_COVERAGE})",
    "known=count",
]


@dataclass(frozen=True)
class Polygons:
    """Polygons to be answered for, in file order.

    Attributes:
        ids: how the user calls each, from the column ``poly_id``, ``uuid``, ``id`` or ``name``, or
            else its number in the file from 0.
        geometry: valid areas in EPSG:4326, None where there is no usable one, shape ``(n,)``.
        problems: what was wrong with the geometry of each, empty where nothing was.
        classes: land cover and region of each by column name, where the file has the columns.
    """

    ids: list[str]
    geometry: NDArray[np.object_]
    problems: list[str]
    classes: Mapping[str, list[str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What the tiles say of polygons; arrays of shape ``(n,)``.

    Attributes:
        tree_cover: mean in percent, NaN where no pixel is known.
        shifted: the same of the polygon moved in eight directions, float64 ``(n, 8)``.
        pixels: sum of the covered shares of the pixels that count.
        coverage: share of the polygon for which tree cover is known.
        area: hectares.
        tiles: that lie under each polygon and were read.
        missing: that lie under it and are not there.
        unreadable: that are there and cannot be read.
    """

    tree_cover: NDArray[np.float64]
    shifted: NDArray[np.float64]
    pixels: NDArray[np.float64]
    coverage: NDArray[np.float64]
    area: NDArray[np.float64]
    tiles: list[list[Tile]]
    missing: list[list[Tile]]
    unreadable: list[list[Tile]]


def read_polygons(
    path: Path, *, layer: str | None = None, class_columns: Sequence[str] = ()
) -> Polygons:
    """Read the polygons of a vector file in any coordinate reference system.

    A geometry that is missing, empty or no area becomes None with its problem; an invalid one is
    repaired.

    Raises:
        ocr_assets.vector.VectorFileError: the file cannot be read, or does not declare its
            coordinate reference system.
    """
    names = ("poly_id", "uuid", "id", "name")
    features, crs = read_declared(path, {*names, *class_columns}, layer=layer)
    count = len(features.geometry)
    log = ProblemLog()
    rows = [str(row) for row in range(count)]
    geometry = prepared(features.geometry, crs, rows, str(path), log)
    problems = [""] * count
    for problem in log.problems():
        row = int(problem.subject)
        text = f"{problem.kind} ({problem.reason})" if problem.reason else str(problem.kind)
        problems[row] = "; ".join(filter(None, (problems[row], text)))
    columns = features.table.column_names
    name = next((name for name in names if name in columns), None)
    values = [None] * count if name is None else features.table[name].to_pylist()
    ids = [row if value is None else str(value) for row, value in zip(rows, values, strict=True)]
    classes = {
        column: [None if v is None else str(v).strip() for v in features.table[column].to_pylist()]
        for column in class_columns
        if column in columns
    }
    return Polygons(ids, geometry, problems, classes)


def measure(
    geometry: NDArray[np.object_], tiles: Mapping[Tile, str | Path], grid: TileGrid
) -> Measured:
    """Tree cover of polygons.

    Args:
        geometry: valid areas in EPSG:4326, or None, shape ``(n,)``.
        tiles: the published tiles that there are, and what GDAL opens for each.
        grid: the tile grid.
    """
    count = len(geometry)
    usable = np.flatnonzero(~shapely.is_missing(geometry))
    # One pixel more, for the polygon that is moved.
    reach = shapely.buffer(geometry[usable], 1.5 * SHIFT, quad_segs=1)
    which, x, y = grid.tiles_of(reach)
    order = np.lexsort((usable[which], y, x))
    sums = np.zeros((3, count, 1 + len(_DIRECTIONS)))
    under: list[list[Tile]] = [[] for _ in range(count)]
    missing: list[list[Tile]] = [[] for _ in range(count)]
    unreadable: list[list[Tile]] = [[] for _ in range(count)]
    reader = _Reader(tiles, grid)
    for tile, rows in _by_tile(usable[which[order]], x[order], y[order]):
        box = pixel_box(grid, tile)
        frame = shapely.box(*box.bounds)
        touched = rows[shapely.area(shapely.intersection(geometry[rows], frame)) > 0]
        values = reader.filtered(tile, box)
        if values is None:
            account = unreadable if tile in tiles else missing
        else:
            account = under
            sums[:, rows] += _sums(values, box, frame, geometry[rows])
        for row in touched:
            account[row].append(tile)
    total, pixels, known = sums
    with np.errstate(invalid="ignore"):
        means = total / pixels
    whole = shapely.area(geometry) * PIXELS_PER_DEGREE**2
    with np.errstate(invalid="ignore"):
        coverage = np.minimum(known[:, 0] / whole, 1)
    return Measured(
        tree_cover=means[:, 0],
        shifted=means[:, 1:],
        pixels=pixels[:, 0],
        coverage=np.nan_to_num(coverage),
        area=equal_area(geometry),
        tiles=under,
        missing=missing,
        unreadable=unreadable,
    )


def equal_area(geometry: NDArray[np.object_]) -> NDArray[np.float64]:
    """Hectares of polygons in EPSG:4326, NaN for None."""
    project = pyproj.Transformer.from_crs(CRS, EQUAL_AREA, always_xy=True)
    flat = shapely.transform(
        shapely.segmentize(geometry, _STRAIGHT),
        lambda xy: np.column_stack(project.transform(xy[:, 0], xy[:, 1])),
    )
    return shapely.area(flat) / 10_000


def without_noise(percent: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tree cover without what is noise: 0 where it is low or has no peak among its neighbours.

    ``percent`` is uint8 ``[h, w]`` with :data:`NODATA`, which stays and is nobody's neighbour.
    """
    open_ = percent == NODATA
    values = np.where(open_, np.uint8(0), percent)
    peak = cv2.dilate(values, np.ones((3, 3), np.uint8))
    values[(peak < NOISE_PEAK) | (values < NOISE_VALUE)] = 0
    values[open_] = NODATA
    return values


def majority_classes(geometry: NDArray[np.object_], raster: str | Path) -> list[str | None]:
    """Most frequent value of a raster of classes in each polygon, as text; None without any.

    Raises:
        OSError: the raster cannot be read.
    """
    usable = np.flatnonzero(~shapely.is_missing(geometry))
    classes: list[str | None] = [None] * len(geometry)
    with rasterio.open(raster) as source:
        frame = geopandas.GeoDataFrame(
            {"row": usable}, geometry=list(geometry[usable]), crs=CRS
        ).to_crs(source.crs)
        found = exact_extract(source, frame, ["mode"], include_cols=["row"], output="pandas")
    for row, value in zip(found["row"], found["mode"], strict=True):
        if np.isfinite(value):
            classes[int(row)] = f"{value:g}"
    return classes


def classes_by_place(
    geometry: NDArray[np.object_], regions: NDArray[np.object_], names: Sequence[str | None]
) -> list[str | None]:
    """Name of the region that holds a point inside each polygon, the first where several do."""
    usable = np.flatnonzero(~shapely.is_missing(geometry))
    points = shapely.point_on_surface(geometry[usable])
    region, point = shapely.STRtree(points).query(regions, predicate="intersects")
    classes: list[str | None] = [None] * len(geometry)
    for index in np.argsort(-region, kind="stable"):
        classes[usable[point[index]]] = names[region[index]]
    return classes


class _Reader:
    """Published tiles with the noise taken out, the latest of them kept."""

    def __init__(self, tiles: Mapping[Tile, str | Path], grid: TileGrid) -> None:
        self._tiles, self._grid = tiles, grid
        self._read = lru_cache(_KEPT_TILES)(self._read_tile)

    def filtered(self, tile: Tile, box: PixelBox) -> NDArray[np.uint8] | None:
        """A tile's values; its neighbours' pixels count as neighbours. None if it is not there."""
        own = self._read(tile)
        if own is None:
            return None
        rows, columns = own.shape
        framed = np.full((rows + 2, columns + 2), NODATA, np.uint8)
        framed[1:-1, 1:-1] = own
        for dx, dy in _DIRECTIONS:
            self._put_edge(framed, box, Tile(tile.x + dx, tile.y + dy))
        return without_noise(framed)[1:-1, 1:-1]

    def _put_edge(self, framed: NDArray[np.uint8], box: PixelBox, neighbour: Tile) -> None:
        if neighbour not in self._tiles or neighbour not in self._grid:
            return
        values = self._read(neighbour)
        if values is None:
            return
        other = pixel_box(self._grid, neighbour)
        west, east = max(box.west - 1, other.west), min(box.east + 1, other.east)
        south, north = max(box.south - 1, other.south), min(box.north + 1, other.north)
        if west >= east or south >= north:
            return
        top, left = box.north + 1 - north, west - box.west + 1
        framed[top : top + north - south, left : left + east - west] = values[
            other.north - north : other.north - south, west - other.west : east - other.west
        ]

    def _read_tile(self, tile: Tile) -> NDArray[np.uint8] | None:
        path = self._tiles.get(tile)
        if path is None:
            return None
        box = pixel_box(self._grid, tile)
        try:
            with rasterio.open(path) as file:
                if file.crs == CRS and file.transform.almost_equals(box.transform, 1e-9):
                    return file.read(1)
                # A tile of another maker; its nearest pixels.
                return _resampled(file, box)
        except rasterio.errors.RasterioError:
            return None


def _resampled(file: rasterio.DatasetReader, box: PixelBox) -> NDArray[np.uint8]:
    rows, columns = box.shape
    with WarpedVRT(
        file, crs=CRS, transform=box.transform, height=rows, width=columns,
        resampling=Resampling.nearest, src_nodata=NODATA, nodata=NODATA,
    ) as warped:  # fmt: skip
        return warped.read(1)


def _by_tile(
    rows: NDArray[np.intp], x: NDArray[np.int64], y: NDArray[np.int64]
) -> Iterator[tuple[Tile, NDArray[np.intp]]]:
    """Polygons of each tile, from columns that are sorted by tile."""
    if not len(rows):
        return
    starts = np.flatnonzero(np.r_[True, (np.diff(x) != 0) | (np.diff(y) != 0)])
    for start, part in zip(starts, np.split(rows, starts[1:]), strict=True):
        yield Tile(int(x[start]), int(y[start])), part


def _sums(
    values: NDArray[np.uint8],
    box: PixelBox,
    frame: shapely.Polygon,
    geometry: NDArray[np.object_],
) -> NDArray[np.float64]:
    """Sum of values, pixels that count, pixels that are known; ``(3, n, 9)``."""
    places = [(0, 0), *_DIRECTIONS]
    moved = np.stack([_moved(geometry, x, y) for x, y in places], axis=1).ravel()
    # Large polygons would be searched as a whole for every tile.
    outside = ~shapely.contains_properly(frame, moved)
    moved[outside] = shapely.intersection(moved[outside], frame)
    inside = np.flatnonzero(shapely.area(moved) > 0)
    sums = np.zeros((3, len(moved)))
    if len(inside):
        found = exact_extract(
            NumPyRasterSource(values, *box.bounds, nodata=NODATA, srs_wkt=_WKT),
            geopandas.GeoDataFrame(geometry=_areas(moved[inside]), crs=CRS),
            _OPERATIONS,
            output="pandas",
        )
        sums[:, inside] = found[["total", "pixels", "known"]].to_numpy(float).T
    return sums.reshape(3, len(geometry), -1)


def _moved(geometry: NDArray[np.object_], x: int, y: int) -> NDArray[np.object_]:
    return shapely.transform(geometry, lambda xy: xy + SHIFT * np.array([x, y]))


def _areas(shapes: NDArray[np.object_]) -> list[shapely.Geometry]:
    """Without the points and lines that a polygon may have in common with a frame's edge."""
    return [
        shape
        if shape.geom_type in ("Polygon", "MultiPolygon")
        else shapely.multipolygons(
            [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
        )
        for shape in shapes
    ]


_WKT = pyproj.CRS.from_user_input(CRS).to_wkt()
