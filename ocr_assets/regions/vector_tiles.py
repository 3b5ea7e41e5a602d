"""Vector tiles of buildings, building centroids and regional statistics, as PMTiles archives.

Belongs here: which features and properties go into which layer at which zooms.
Does not belong here: making tiles of buildings (``tile_pyramid``) and of geographies
(``tippecanoe``), reading an archive (``pmtiles``), serving or drawing it.

Buildings are many, small and apart: sorted along the curve of tiles they become tiles one after
the other. Geographies are few and share their borders, which have to be simplified together.
Either stream a batch of rows at a time, so memory does not grow with their number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import GeoParquetError, Source, open_geoparquet, row_batches
from ocr_assets.regions import geojson_lines as geojson
from ocr_assets.regions.geographies import Level
from ocr_assets.regions.geojson_lines import TileInputError
from ocr_assets.regions.pmtiles import read_header, tile_lengths, write_empty
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.tile_features import (
    FeatureSorter,
    TileFeatures,
    point_features,
    polygon_features,
)
from ocr_assets.regions.tile_pyramid import TileLayer, write_tiles
from ocr_assets.regions.tippecanoe import make_archive

BUILDING_LAYER = "risk"

CENTROID_DIGITS = 3
"""Significant digits of a centroid's risk. Decimal places would turn the smallest into zero."""


@dataclass(frozen=True, slots=True)
class RegionLayer:
    """How one level of geography appears in the regional archive."""

    name: str
    min_zoom: int
    top_zoom: int
    names: tuple[str, ...]
    """Columns with a name, the last properties."""


REGION_LAYERS: dict[Level, RegionLayer] = {
    "nation": RegionLayer("nation", 0, 6, ("NAME",)),
    "state": RegionLayer("states", 0, 7, ("NAME", "STUSPS")),
    "county": RegionLayer("counties", 0, 9, ("NAME",)),
    "tract": RegionLayer("tracts", 6, 11, ()),
    "block": RegionLayer("blocks", 10, 12, ()),
}
"""Layers in drawing order. Finer levels start where single geographies can be told apart, and an
archive ends at the zoom that its finest level needs: a step of 14 m at 40 N is enough for a
county, and each zoom more would draw the whole country four times as often."""

_BUILDING_ZOOM, _CENTROID_ZOOM = 14, 12
"""Highest zooms: steps of 0.5 and 1.8 m at 40 N. Fixed, so that a region's tiles and the nation's
fit the same map."""

_WIDEST = 1.0
"""Degrees. No building comes near."""

_KEEP_ALL_POLYGONS = (
    "--drop-smallest-as-needed",
    "--extend-zooms-if-still-dropping",
    "--no-tiny-polygon-reduction-at-maximum-zoom",
)
"""A full tile at a lower zoom loses its smallest polygons, the highest zoom loses none."""

_BATCH_ROWS = 8192

Progress = Callable[[int], None]
"""Called with the number of features encoded so far."""


@dataclass(frozen=True, slots=True)
class TileReport:
    """What an archive holds.

    Attributes:
        features: features in the archive; all of them are there at ``max_zoom``.
        left_out: rows that are not features: without a geometry, or centroids without risk.
        layers: features by layer.
        bytes: size of the archive.
        min_zoom: lowest zoom with tiles.
        max_zoom: highest zoom with tiles.
        largest_tile: bytes of the largest tile, as a browser loads it.
        bounds: west, south, east, north in degrees; the world if there are no features.
    """

    features: int
    left_out: int
    layers: dict[str, int]
    bytes: int
    min_zoom: int
    max_zoom: int
    largest_tile: int
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Input[Encoded: Sized]:
    """A table, the columns it must have, and how its rows become features."""

    layer: str
    source: Source | pa.Table
    columns: tuple[str, ...]
    encode: Callable[[pa.Table], Encoded]


def region_columns(risk: RiskType) -> tuple[str, ...]:
    """Columns of the properties that every level of geography has, but code and bounding box."""
    return (
        "building_count",
        *(f"{name}_mean" for name in risk.scored),
        *(f"{name}_median" for name in risk.scored),
        *(f"{score.name}_hist" for score in risk.scores),
    )


def building_tiles(
    risk: RiskType,
    building_files: Sequence[Source],
    output: Path,
    progress: Progress | None = None,
) -> TileReport:
    """Write the archive of footprints: layer ``risk``, with the tiled variables of the type.

    The key of a property is the position of its variable. Values are float32, unrounded.

    Args:
        risk: the type of risk of the buildings.
        building_files: region building tables (GeoParquet, polygons in longitude and latitude).
            Their order, and the order of their rows, decide the feature ids: 1, 2, 3...
        output: the archive to write. It appears complete or not at all.
        progress: called as features are encoded.

    Returns:
        The report. Without any building the archive is valid and holds no feature.

    Raises:
        GeoParquetError: a file is unreadable, truncated or lacks a column.
        TileInputError: a geometry is not a polygon, not in longitude and latitude, or wider than
            :data:`_WIDEST` degrees.
    """

    def encode(rows: pa.Table) -> TileFeatures:
        rows, geometry = geojson.polygons(rows)
        _require_narrow(geometry)
        geometry = geojson.thicken(geometry, _BUILDING_ZOOM)
        return polygon_features(geometry, _values(rows, risk.tiled))

    layer = TileLayer("building", BUILDING_LAYER, len(risk.tiled), 6, _BUILDING_ZOOM)
    return _tile_buildings(output, layer, risk.tiled, building_files, encode, progress)


def building_centroid_tiles(
    risk: RiskType,
    building_files: Sequence[Source],
    output: Path,
    progress: Progress | None = None,
) -> TileReport:
    """Write the archive of centroids: layer ``risk``, with the scored variables of the type.

    Only buildings with all of these above zero have a centroid. Values keep
    :data:`CENTROID_DIGITS` significant digits. Arguments, result and errors are those of
    :func:`building_tiles`.
    """
    shown = risk.scored

    def encode(rows: pa.Table) -> TileFeatures:
        risky = reduce(pc.and_, (pc.greater(rows[name], 0) for name in shown))
        rows, geometry = geojson.polygons(rows.filter(risky))
        rounded = geojson.significant(_values(rows, shown), CENTROID_DIGITS)
        return point_features(shapely.centroid(geometry), rounded.astype(np.float32))

    layer = TileLayer("centroid", BUILDING_LAYER, len(shown), 0, _CENTROID_ZOOM)
    return _tile_buildings(output, layer, shown, building_files, encode, progress)


def regional_tiles(
    risk: RiskType,
    statistics: Mapping[Level, Source | pa.Table],
    output: Path,
    progress: Progress | None = None,
) -> TileReport:
    """Write the archive of regional statistics, one layer per level (:data:`REGION_LAYERS`).

    The key of a property is its position: number of buildings, then the mean of each scored
    variable, their medians, their histograms (JSON text), GEOID, bounding box (JSON text: west,
    south, east, north), then names. For fire: "0" count, "1" and "2" mean RPS 2011 and 2047, "3"
    and "4" median RPS, "5" and "6" histograms, "7" GEOID, "8" bounding box, names from "9" on.

    Args:
        risk: the type of risk of the statistics.
        statistics: level to its table, or the GeoParquet file that holds it, with outlines.
            Levels that are not given have no layer.
        output: the archive to write. It appears complete or not at all.
        progress: called as features are encoded.

    Returns:
        The report. Without any geography the archive is valid and holds no feature.

    Raises:
        GeoParquetError: see :func:`building_tiles`.
        TileInputError: a geometry is not a polygon or not in longitude and latitude, a table lacks
            a column, or there is no layer for a level.
        TileError: the tile maker is missing or failed.
    """
    if unknown := sorted(set(statistics) - set(REGION_LAYERS)):
        raise TileInputError(
            f"no layer for the level {unknown[0]!r}; levels are {', '.join(REGION_LAYERS)}."
        )
    filled = [
        layer.top_zoom
        for level, layer in REGION_LAYERS.items()
        if level in statistics and _row_count(statistics[level])
    ]
    top = max(filled, default=0)
    inputs = []
    for level, layer in REGION_LAYERS.items():
        if level in statistics:
            columns = (*region_columns(risk), "GEOID", *layer.names, "geometry")
            encode = _region_encoder(risk, layer, top)
            inputs.append(_Input(layer.name, statistics[level], columns, encode))
    options = [
        "--minimum-zoom=0",
        f"--maximum-zoom={top}",
        *_KEEP_ALL_POLYGONS,
        # Neighbours then share their simplified borders, without slivers between them. Shared
        # nodes, which would be found for all tiles at once, take 3 kB of memory for each block.
        "--detect-shared-borders",
    ]
    # Code and bounding box are beside the columns.
    keys = len(region_columns(risk)) + 2
    layers = {layer.name: keys + len(layer.names) for layer in REGION_LAYERS.values()}
    return _make_regional(output, layers, inputs, options, progress)


def _region_encoder(risk: RiskType, layer: RegionLayer, top: int) -> Callable[[pa.Table], pa.Array]:
    place = f',"tippecanoe":{{"layer":"{layer.name}","minzoom":{layer.min_zoom}}}'

    def encode(rows: pa.Table) -> pa.Array:
        rows, geometry = geojson.polygons(rows)
        # Six decimals of a degree are a tenth of a metre.
        edges = np.round(shapely.bounds(geometry), 6).ravel()
        columns = [
            *(
                geojson.lists(rows[name], pa.int64())
                if name.endswith("_hist")
                else geojson.numbers(rows[name])
                for name in region_columns(risk)
            ),
            geojson.texts(rows["GEOID"]),
            geojson.lists(pa.FixedSizeListArray.from_arrays(pa.array(edges), 4), pa.float64()),
            *(geojson.texts(rows[name]) for name in layer.names),
        ]
        return geojson.features(geojson.thicken(geometry, top), columns, place)

    return encode


def _tile_buildings(
    output: Path,
    layer: TileLayer,
    properties: tuple[str, ...],
    files: Sequence[Source],
    encode: Callable[[pa.Table], TileFeatures],
    progress: Progress | None,
) -> TileReport:
    """Make the archive of one layer of buildings, whose properties are columns of ``files``."""
    inputs = [_Input(layer.name, file, (*properties, "geometry"), encode) for file in files]
    for item in inputs:
        _check_columns(item)
    count = left_out = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".tiles-") as folder:
        sorter = FeatureSorter(Path(folder))
        for item in inputs:
            for encoded, rows in _encoded(item):
                left_out += rows - len(encoded)
                if len(encoded):
                    count += len(encoded)
                    sorter.add(encoded)
                    if progress:
                        progress(count)
        if count:
            write_tiles(sorter.finish(), layer, output, Path(folder))
        else:
            write_empty(output, layer.archive, {layer.name: layer.keys})
    return _report(output, {layer.name: count}, left_out)


def _make_regional(
    output: Path,
    layers: Mapping[str, int],
    inputs: Sequence[_Input[pa.Array]],
    options: Sequence[str],
    progress: Progress | None,
) -> TileReport:
    """Make the archive with ``layers`` (and their number of properties) of ``inputs``."""
    for item in inputs:
        _check_columns(item)
    counts = dict.fromkeys(layers, 0)
    left_out = 0

    def lines() -> Iterator[memoryview]:
        nonlocal left_out
        for item in inputs:
            for encoded, rows in _encoded(item):
                left_out += rows - len(encoded)
                if len(encoded):
                    counts[item.layer] += len(encoded)
                    yield geojson.text_of(encoded)
                    if progress:
                        progress(sum(counts.values()))

    output.parent.mkdir(parents=True, exist_ok=True)
    stream = lines()
    first = next(stream, None)
    if first is None:
        keys = {layer: tuple(map(str, range(count))) for layer, count in layers.items()}
        write_empty(output, "regions", keys)
    else:
        make_archive(chain([first], stream), ["--name=regions", *options], output)
    return _report(output, counts, left_out)


def _report(output: Path, layers: dict[str, int], left_out: int) -> TileReport:
    header = read_header(output)
    return TileReport(
        features=sum(layers.values()),
        left_out=left_out,
        layers=layers,
        bytes=output.stat().st_size,
        min_zoom=header.min_zoom,
        max_zoom=header.max_zoom,
        largest_tile=int(tile_lengths(output).max()),
        bounds=header.bounds,
    )


def _require_narrow(geometry: NDArray[np.object_]) -> None:
    """Refuse outlines that are no buildings, as they would fill tiles by the million."""
    edges = shapely.bounds(geometry)
    width = (edges[:, 2:] - edges[:, :2]).max(initial=0)
    if width > _WIDEST:
        raise TileInputError(
            f"an outline is {width:g} degrees wide, more than {_WIDEST:g}. "
            "Cut it if it crosses the antimeridian, else mend it."
        )


def _values(rows: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    """Columns side by side, NaN where missing, shape ``(rows, names)``."""
    return np.column_stack([rows[name].to_numpy().astype(np.float32) for name in names])


def _row_count(source: Source | pa.Table) -> int:
    if isinstance(source, pa.Table):
        return source.num_rows
    with open_geoparquet(source) as file:
        return file.metadata.num_rows


def _check_columns(item: _Input[Any]) -> None:
    if not isinstance(item.source, pa.Table):
        open_geoparquet(item.source, item.columns).close()
    elif missing := [name for name in item.columns if name not in item.source.column_names]:
        raise TileInputError(f"the table for {item.layer} has no column {missing[0]!r}.")


def _encoded[Encoded: Sized](item: _Input[Encoded]) -> Iterator[tuple[Encoded, int]]:
    """Features of each batch of rows, and how many rows it had."""
    row = 0
    for batch in _batches(item.source, item.columns):
        try:
            encoded = item.encode(batch)
        except TileInputError as error:
            table = isinstance(item.source, pa.Table)
            place = f"the table for {item.layer}" if table else str(item.source)
            last = row + batch.num_rows - 1
            raise TileInputError(f"{place}, rows {row} to {last}: {error}") from error
        yield encoded, batch.num_rows
        row += batch.num_rows


def _batches(source: Source | pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    if isinstance(source, pa.Table):
        for start in range(0, source.num_rows, _BATCH_ROWS):
            yield source.select(list(columns)).slice(start, _BATCH_ROWS)
        return
    with open_geoparquet(source, columns) as file:
        try:
            for batch in row_batches(file, _BATCH_ROWS, list(columns)):
                yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise GeoParquetError(f"cannot read the rows of {source}: {error}") from error
