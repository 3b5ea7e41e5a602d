"""What is made from many published tiles of a year: a mosaic, and answers for polygons.

Belongs here: which tiles there are, opening them wherever they are kept, storing what comes of it.
Does not belong here: the science, or Dagster.

Tiles count by their file, also those that another maker put into the same layout.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ocr_assets.lineage import code_version, content_hash, same_origin
from ocr_assets.tile_library import TREE_COVER, SourceKey, SourceRecord, TileLibrary
from ocr_assets.tile_sources import noticed
from ocr_assets.tiles.grid import Tile
from resources.gdal_storage import gdal_access, gdal_path
from resources.manifest import sha256_file
from resources.storage import split_uri

if TYPE_CHECKING:
    import pyarrow as pa

    from ocr_assets.tiles.zonal import Polygons
    from ocr_assets.tiles.zonal_table import Lookup

MOST_PIXELS = 8_000_000_000
"""Of a mosaic: about 145 tiles by 145. A larger one would be mostly empty, and hours in the making.
"""

_MOSAIC = ("grid", "mosaic", "normalisation", "product", "tree_cover")
MOSAIC_MODULES = tuple(f"tiles/{name}.py" for name in _MOSAIC)
"""Source files that decide what a mosaic contains."""

_ANSWER = (
    "grid",
    "normalisation",
    "product",
    "request_polygons",
    "request_problems",
    "tree_cover",
    "zonal",
    "zonal_errors",
    "zonal_table",
)
ANSWER_MODULES = ("geoparquet.py", "vector.py", *(f"tiles/{name}.py" for name in _ANSWER))
"""Source files that decide what an answer contains."""

_AT_ONCE = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PUBLISHED = re.compile(r"(\d+)X(\d+)Y_FINAL\.tif")


class AnswerError(ValueError):
    """A question that cannot be answered; the message says why and the mend."""


@dataclass(frozen=True)
class PublishedTile:
    """A tile that there is: its key, a fingerprint of its content, and what to know of it."""

    key: str
    fingerprint: str
    notice: str = ""


@dataclass(frozen=True)
class ZonalRequest:
    """Polygons whose tree cover is asked for.

    Attributes:
        polygons: file of polygons, a path or ``s3://`` address.
        year: of the tiles.
        name: of the answer; that of the file if empty.
        layer: of a file that has several.
        land_cover_table: CSV of confidence intervals by land cover, with one of the next two.
        land_cover_column: column of the polygons that has their land cover.
        land_cover_raster: raster of classes, whose majority in a polygon is its land cover.
        region_table: CSV of confidence intervals by region, with one of the next two.
        region_column: column of the polygons that has their region.
        region_polygons: file of regions with a column ``name``.
    """

    polygons: str
    year: int
    name: str = ""
    layer: str | None = None
    land_cover_table: str | None = None
    land_cover_column: str | None = None
    land_cover_raster: str | None = None
    region_table: str | None = None
    region_column: str | None = None
    region_polygons: str | None = None

    def __post_init__(self) -> None:
        for what, table, *ways in (
            ("land_cover", self.land_cover_table, self.land_cover_column, self.land_cover_raster),
            ("region", self.region_table, self.region_column, self.region_polygons),
        ):
            given = sum(way is not None for way in ways)
            if given != (table is not None):
                second = "raster" if what == "land_cover" else "polygons"
                raise AnswerError(
                    f"{what}_table goes with one of {what}_column and {what}_{second}: give both "
                    "or neither"
                )
        if not _NAME.fullmatch(self.label):
            raise AnswerError(
                f"{self.label!r} cannot be the name of an answer: give a name of letters, digits, "
                "'.', '_' and '-'"
            )

    @property
    def label(self) -> str:
        """Name of the answer."""
        return self.name or PurePosixPath(self.polygons).stem


@dataclass(frozen=True)
class Answer:
    """What came of a question."""

    record: SourceRecord
    seconds: float
    skipped: bool = False


@dataclass(frozen=True)
class ZonalAnswer(Answer):
    """The answer for polygons: also its table, a row for each."""

    table: pa.Table = None


def published_tiles(
    tiles: TileLibrary, year: int, wanted: Iterable[Tile] | None = None
) -> dict[Tile, PublishedTile]:
    """The published tiles of a year, in order; only those of ``wanted`` if it is given."""
    if wanted is None:
        listed = (info.key.rpartition("/")[2] for info in tiles.storage.list(f"{year}/tiles"))
        found = (_PUBLISHED.fullmatch(name) for name in listed)
        wanted = (Tile(int(match[1]), int(match[2])) for match in found if match)

    def look(tile: Tile) -> tuple[Tile, PublishedTile | None]:
        key = SourceKey(TREE_COVER, tile, year)
        place = tiles.keys(key)["cog"]
        record = tiles.record(key)
        if record is not None:
            notice = str(record.report.get("notice", ""))
            return tile, PublishedTile(place, record.files["cog"]["sha256"], notice)
        info = tiles.storage.head(place)
        return tile, PublishedTile(place, str(info.etag)) if info else None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {tile: there for tile, there in pool.map(look, sorted(set(wanted))) if there}


@contextmanager
def opened(tiles: TileLibrary, found: Mapping[Tile, PublishedTile]) -> Iterator[dict[Tile, str]]:
    """What GDAL opens for each tile, while the context lasts."""
    with gdal_access(tiles.storage):
        yield {tile: gdal_path(tiles.storage, one.key) for tile, one in found.items()}


def mosaic_key(year: int) -> str:
    """Key of the mosaic of a year."""
    return f"{year}/tree_cover.tif"


def contents_of(found: Mapping[Tile, PublishedTile]) -> str:
    """Fingerprint of what tiles hold together."""
    return content_hash({tile.key: one.fingerprint for tile, one in found.items()})


@dataclass(frozen=True)
class Mosaic:
    """A mosaic that there is: its key, and what everybody has to know who sees it."""

    key: str
    notice: str


def mosaics(tiles: TileLibrary) -> dict[int, Mosaic]:
    """The mosaics that there are, by year."""
    years = [int(name) for name in tiles.storage.folders() if re.fullmatch(r"\d{4}", name)]
    keys = {year: mosaic_key(year) for year in years}
    return {
        year: Mosaic(key, _notice(tiles, year))
        for year, key in keys.items()
        if tiles.storage.exists(key)
    }


def _notice(tiles: TileLibrary, year: int) -> str:
    record = tiles.stored(_mosaic_record(year))
    return str(record.report.get("notice", "")) if record else ""


def _mosaic_record(year: int) -> str:
    return f"{mosaic_key(year)}.lineage.json"


def make_mosaic(tiles: TileLibrary, year: int) -> Answer:
    """Make one raster of all tiles of a year, unless it is there and they are the same.

    Raises:
        MosaicError: there is no tile, or one cannot be read.
        AnswerError: the tiles are too far apart for one raster.
        StorageError: the store fails.
    """
    from ocr_assets.tiles.mosaic import write_mosaic_cog

    started = time.perf_counter()
    found = published_tiles(tiles, year)
    lineage = tiles.made_by(
        code_version(*MOSAIC_MODULES),
        {"tiles": contents_of(found)},
        {"year": year, "tiles": len(found)},
    )
    record = tiles.stored(_mosaic_record(year))
    if record is not None and same_origin(record.lineage, lineage):
        return Answer(record, time.perf_counter() - started, skipped=True)
    _require_one_raster(tiles, found)
    with opened(tiles, found) as paths, tempfile.TemporaryDirectory(prefix="ocr-tile-") as folder:
        path = Path(folder, "mosaic.tif")
        box = write_mosaic_cog(list(paths.values()), path, lineage)
        rows, columns = box.shape
        report = {
            "tiles": len(found),
            "pixels": rows * columns,
            "bounds": list(box.bounds),
            **noticed(one.notice for one in found.values()),
        }
        keys = {"mosaic": mosaic_key(year)}
        record = tiles.keep(_mosaic_record(year), keys, {"mosaic": path}, lineage, report)
    return Answer(record, time.perf_counter() - started)


def _require_one_raster(tiles: TileLibrary, found: Mapping[Tile, PublishedTile]) -> None:
    from ocr_assets.tiles.product import pixel_box

    boxes = [pixel_box(tiles.grid, tile) for tile in found if tile in tiles.grid]
    if not boxes:
        return
    width = max(box.east for box in boxes) - min(box.west for box in boxes)
    height = max(box.north for box in boxes) - min(box.south for box in boxes)
    if width * height > MOST_PIXELS:
        raise AnswerError(
            f"{len(boxes)} tiles lie within {width} x {height} pixels, too many for one raster: "
            "make mosaics of parts, or a virtual one, with `ocr tiles mosaic`"
        )


def answer_keys(request: ZonalRequest) -> dict[str, str]:
    """Keys of the answer: GeoParquet and CSV."""
    stem = f"statistics/{request.label}_{request.year}"
    return {"geoparquet": f"{stem}.parquet", "csv": f"{stem}.csv"}


def zonal_answer(tiles: TileLibrary, request: ZonalRequest) -> ZonalAnswer:
    """Measure the tree cover of polygons, and store the table as GeoParquet and CSV.

    Raises:
        VectorFileError, ErrorTableError, AnswerError: bad input, all of them ValueError.
        StorageError: the store fails.
    """
    from ocr_assets.tiles.zonal import SHIFT, read_polygons
    from ocr_assets.tiles.zonal_table import write_table, zonal_statistics

    started = time.perf_counter()
    with ExitStack() as stack:
        places = _local(tiles, request, stack)
        columns = [c for c in (request.land_cover_column, request.region_column) if c is not None]
        polygons = read_polygons(places["polygons"], layer=request.layer, class_columns=columns)
        land_cover, regions = _lookups(request, places, polygons)
        found = published_tiles(tiles, request.year, _tiles_under(tiles, polygons, 1.5 * SHIFT))
        with opened(tiles, found) as paths:
            table = zonal_statistics(
                polygons,
                request.year,
                paths,
                tiles.grid,
                land_cover=land_cover,
                regions=regions,
            )
        inputs = {name: sha256_file(path) for name, path in places.items()}
    inputs["tiles"] = contents_of(found)
    lineage = tiles.made_by(
        code_version(*ANSWER_MODULES),
        inputs,
        {
            "name": request.label,
            "year": request.year,
            "layer": request.layer,
            "land_cover_column": request.land_cover_column,
            "region_column": request.region_column,
        },
    )
    keys = answer_keys(request)
    with tempfile.TemporaryDirectory(prefix="ocr-tile-") as folder:
        files = {name: Path(folder, PurePosixPath(key).name) for name, key in keys.items()}
        for path in files.values():
            write_table(table, path, lineage)
        record_key = f"{keys['geoparquet']}.lineage.json"
        report = {**_figures(table), **noticed(one.notice for one in found.values())}
        record = tiles.keep(record_key, keys, files, lineage, report)
    return ZonalAnswer(record, time.perf_counter() - started, table=table)


def _figures(table: pa.Table) -> dict[str, Any]:
    statuses = table["status"].to_pylist()
    lacking = {tile for row in table["missing_tiles"].to_pylist() for tile in row.split()}
    return {
        "rows": len(table),
        **{status: statuses.count(status) for status in sorted(set(statuses))},
        "missing tiles": sorted(lacking),
    }


def _local(tiles: TileLibrary, request: ZonalRequest, stack: ExitStack) -> dict[str, Path]:
    """Local copies of the files of a request, by what they are."""
    wanted = {
        "polygons": request.polygons,
        "land_cover_table": request.land_cover_table,
        "land_cover_raster": request.land_cover_raster,
        "region_table": request.region_table,
        "region_polygons": request.region_polygons,
    }
    places = {}
    for name, uri in wanted.items():
        if uri is not None:
            storage, key = split_uri(uri, tiles.settings.s3)
            places[name] = stack.enter_context(storage.local_copy(key))
    return places


def _lookups(
    request: ZonalRequest, places: Mapping[str, Path], polygons: Polygons
) -> tuple[Lookup | None, Lookup | None]:
    """Tables of land cover and of regions, with the class of each polygon."""
    from ocr_assets.tiles.zonal import classes_by_place, majority_classes, read_polygons
    from ocr_assets.tiles.zonal_errors import read_error_table
    from ocr_assets.tiles.zonal_table import Lookup

    def of_column(column: str) -> list[str | None]:
        if column not in polygons.classes:
            raise AnswerError(f"{request.polygons} has no column {column!r}")
        return polygons.classes[column]

    land_cover = regions = None
    if table := places.get("land_cover_table"):
        classes = (
            majority_classes(polygons.geometry, places["land_cover_raster"])
            if request.land_cover_column is None
            else of_column(request.land_cover_column)
        )
        land_cover = Lookup(read_error_table(table), classes)
    if table := places.get("region_table"):
        if request.region_column is not None:
            classes = of_column(request.region_column)
        else:
            outlines = read_polygons(places["region_polygons"], class_columns=["name"])
            if "name" not in outlines.classes:
                raise AnswerError(f"{request.region_polygons} has no column 'name'")
            names = outlines.classes["name"]
            classes = classes_by_place(polygons.geometry, outlines.geometry, names)
        regions = Lookup(read_error_table(table), classes)
    return land_cover, regions


def _tiles_under(tiles: TileLibrary, polygons: Polygons, reach: float) -> set[Tile]:
    """Tiles that polygons touch, and their neighbours, whose edges count where they meet."""
    import shapely

    usable = polygons.geometry[~shapely.is_missing(polygons.geometry)]
    _, x, y = tiles.grid.tiles_of(shapely.buffer(usable, reach, quad_segs=1))
    under = {Tile(int(one), int(other)) for one, other in zip(x, y, strict=True)}
    around = (
        Tile(tile.x + dx, tile.y + dy) for tile in under for dx in (-1, 0, 1) for dy in (-1, 0, 1)
    )
    return {tile for tile in around if tile in tiles.grid}
