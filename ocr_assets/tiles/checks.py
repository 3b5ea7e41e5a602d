"""Asset checks of the tiles wing: its conscience.

A check looks at the tiles of its run, or at all that were made if it is run by itself. It fails
with the tiles that it finds wrong in its metadata.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import dagster as dg
import numpy as np
import rasterio
from rasterio.windows import Window

from ocr_assets.partitions import YEARS, run_partitions, tile_partitions
from ocr_assets.tile_library import SOURCES, TREE_COVER, Source, SourceKey, TileLibrary
from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M, ArdError, coarser, read_header
from ocr_assets.tiles.assets import source_key
from ocr_assets.tiles.grid import tile_geobox
from ocr_assets.tiles.product import CRS, PIXELS_PER_DEGREE, pixel_box
from ocr_assets.tiles.tree_cover import NODATA
from resources.gdal_storage import gdal_access, gdal_path
from resources.keys import StorageError

MOST_WITHOUT_DATA = 0.5
"""Share of a published tile without data from which a person should look at it."""

HEIGHTS = (-500.0, 9000.0)
"""Metres; land lies within, with a margin for errors of the elevation model."""

COMPARED_TILES = 16
"""Of a mosaic; to read all of them again would take as long as to make it."""

_DIFFERING = 0.02
"""Share of a tile's pixels that the mosaic may show otherwise: tiles of other makers overlap."""

_LOOKS_AT_ONCE = 8

_COARSER = {"s2_20": 2, "scl": 2, "s1": 4}
"""Files whose pixels are longer than 10 m: how many times."""

_IMAGE_BANDS = {"s2_10": len(BANDS_10M), "s2_20": len(BANDS_20M), "scl": 1}

Files = Mapping[str, str]
"""What GDAL opens for each file of a source, by its name."""

Examine = Callable[[TileLibrary, SourceKey, Files], str | None]
"""Says what is wrong with one tile, None if nothing is."""


def _check(
    source: Source, name: str, description: str, examine: Examine, *, blocking: bool
) -> dg.AssetChecksDefinition:
    """A check that examines each tile by itself."""

    @dg.asset_check(asset=source, name=name, description=description, blocking=blocking)
    def check(
        context: dg.AssetCheckExecutionContext, tiles: dg.ResourceParam[TileLibrary]
    ) -> dg.AssetCheckResult:
        keys = _partitions(context, source, tile_partitions(source))

        def look(partition: str) -> str | None:
            return _problem(tiles, source_key(source, partition), examine)

        # On an object store a look is mostly waiting.
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            found = dict(zip(keys, pool.map(look, keys), strict=True))
        return _result(found, "tiles")

    return check


def _result(found: Mapping[str, str | None], what: str) -> dg.AssetCheckResult:
    """The result of a check that found this in its partitions, None where nothing is wrong."""
    wrong = {partition: problem for partition, problem in found.items() if problem is not None}
    first = next((f"{partition}: {problem}" for partition, problem in wrong.items()), None)
    return dg.AssetCheckResult(
        passed=not wrong,
        description=first and f"{len(wrong)} of {len(found)} {what}; {first}",
        metadata={"looked at": len(found), "wrong": dg.MetadataValue.json(wrong)},
    )


def _partitions(
    context: dg.AssetCheckExecutionContext,
    asset: str,
    definition: dg.PartitionsDefinition[str],
) -> list[str]:
    """Partitions that the run materialized, or all that were if it did not say."""
    named = run_partitions(context.instance, context.run.tags, definition)
    if named is not None:
        return named
    return sorted(context.instance.get_materialized_partitions(dg.AssetKey(asset)))


def _problem(tiles: TileLibrary, key: SourceKey, examine: Examine) -> str | None:
    try:
        record = tiles.record(key)
        if record is None:
            return "nothing is stored, or not all of it"
        files = {name: gdal_path(tiles.storage, file["key"]) for name, file in record.files.items()}
        with gdal_access(tiles.storage):
            return examine(tiles, key, files)
    except (ArdError, StorageError, rasterio.errors.RasterioError) as error:
        return str(error)


def _on_the_tile_grid(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    """Pixels that lie elsewhere would be looked at together with others of the ground."""
    expected = tile_geobox(tiles.grid, key.tile)
    for name, path in files.items():
        found = read_header(path).geobox
        if found != coarser(expected, _COARSER.get(name, 1)):
            return f"{name} lies at {found.boundingbox} in {found.crs}, not on the tile's grid"
    return None


def _terrain_plausible(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    with rasterio.open(files["dem"]) as file:
        height, slope = file.read()
    if not (np.isfinite(height).all() and np.isfinite(slope).all()):
        return "there are pixels without height or slope"
    if height.min() < HEIGHTS[0] or height.max() > HEIGHTS[1]:
        return f"heights are {height.min():.0f} to {height.max():.0f} m"
    if slope.min() < 0 or slope.max() >= 90:
        return f"slopes are {slope.min():.1f} to {slope.max():.1f} degrees"
    return None


def _quarters_present(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    quarters = read_header(files["s1"]).about.get("quarters", [])
    silent = [str(n) for n, quarter in enumerate(quarters, 1) if not quarter["coverage"]]
    if len(quarters) != 4:
        return f"there are {len(quarters)} quarters"
    return f"no data in quarter {', '.join(silent)}" if silent else None


def _dates_belong_to_images(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    for name, bands in _IMAGE_BANDS.items():
        header = read_header(files[name])
        told = header.about.get("dates", [])
        days = [date.fromisoformat(day) for day in told]
        if not days or days != sorted(set(days)):
            return f"{name}: the dates are not ascending: {', '.join(told)}"
        if days[0].year != key.year or days[-1].year != key.year:
            return f"{name}: the dates {told[0]} to {told[-1]} are not of {key.year}"
        if len(header.bands) != bands * len(days):
            return f"{name}: {len(days)} dates for {len(header.bands) / bands:g} images"
        if [band.partition(" ")[0] for band in header.bands[::bands]] != told:
            return f"{name}: the images are not in the order of the dates"
    return None


def _images_in_all_quarters(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    days = read_header(files["s2_10"]).about.get("dates", [])
    seen = {(date.fromisoformat(day).month + 2) // 3 for day in days}
    lacking = [str(quarter) for quarter in (1, 2, 3, 4) if quarter not in seen]
    return f"no image in quarter {', '.join(lacking)}" if lacking else None


def _values_in_range(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    with rasterio.open(files["cog"]) as file:
        if file.count != 1 or file.dtypes[0] != "uint8":
            return f"{file.count} bands of {file.dtypes[0]}"
        values = np.bincount(file.read(1).ravel(), minlength=256)
    wrong = np.flatnonzero(values[101:NODATA]) + 101
    return f"{values[wrong].sum()} pixels have values like {wrong[0]}" if len(wrong) else None


def _georeferenced(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    box = pixel_box(tiles.grid, key.tile)
    with rasterio.open(files["cog"]) as file:
        if file.crs != CRS:
            return f"it is in {file.crs}, not {CRS}"
        # A hundredth of a pixel of 1/11124 degree.
        if file.shape != box.shape or not file.transform.almost_equals(box.transform, 1e-6):
            return f"it lies at {tuple(file.bounds)}, not at {box.bounds}"
        if file.nodata != NODATA:
            return f"its no-data value is {file.nodata}, not {NODATA}"
    return None


def _model_named(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    with rasterio.open(files["cog"]) as file:
        lineage = json.loads(file.tags().get("LINEAGE", "{}"))
    model = lineage.get("configuration", {}).get("model", {})
    if not model.get("name") or len(model.get("sha256", "")) != 64:
        return "the file does not name the network and its hash"
    item = json.loads(tiles.storage.read_bytes(tiles.keys(key)["item"]))
    told = item["properties"]
    if any(told.get(f"gri:model_{name}") != value for name, value in model.items()):
        return f"the catalogue item names another network than {model['name']}"
    return None


def _data_share(tiles: TileLibrary, key: SourceKey, files: Files) -> str | None:
    with rasterio.open(files["cog"]) as file:
        share = float((file.read(1) == NODATA).mean())
    return f"{share:.0%} of it are without data" if share > MOST_WITHOUT_DATA else None


@dg.asset_check(
    asset="tree_cover_mosaic",
    name="shows_its_tiles",
    description=(
        "It is made of the tiles that there are, and shows them where they lie: "
        f"{COMPARED_TILES} of them are compared."
    ),
)
def shows_its_tiles(
    context: dg.AssetCheckExecutionContext, tiles: dg.ResourceParam[TileLibrary]
) -> dg.AssetCheckResult:
    """The check of mosaics."""
    years = _partitions(context, "tree_cover_mosaic", YEARS)
    return _result({year: _mosaic_problem(tiles, int(year)) for year in years}, "mosaics")


def _mosaic_problem(tiles: TileLibrary, year: int) -> str | None:
    try:
        return _examine_mosaic(tiles, year)
    except (StorageError, rasterio.errors.RasterioError) as error:
        return str(error)


def _examine_mosaic(tiles: TileLibrary, year: int) -> str | None:
    from ocr_assets.tile_answers import contents_of, mosaic_key, opened, published_tiles

    record = tiles.stored(f"{mosaic_key(year)}.lineage.json")
    if record is None:
        return "nothing is stored, or not all of it"
    there = published_tiles(tiles, year)
    if record.lineage["inputs"] != {"tiles": contents_of(there)}:
        return "it is made of other tiles than there are now; materialize it again"
    chosen = dict(list(there.items())[:: -(-len(there) // COMPARED_TILES)])
    with (
        opened(tiles, chosen) as paths,
        rasterio.open(gdal_path(tiles.storage, mosaic_key(year))) as mosaic,
    ):
        if mosaic.crs != CRS or not np.isclose(mosaic.res, 1 / PIXELS_PER_DEGREE).all():
            return f"its pixels are {mosaic.res} in {mosaic.crs}"
        shares = {tile: _differing(mosaic, path) for tile, path in paths.items()}
    tile = max(shares, key=lambda one: shares[one])
    if shares[tile] > _DIFFERING:
        return f"{shares[tile]:.0%} of the pixels of {tile} are others in it"
    return None


def _differing(mosaic: rasterio.DatasetReader, path: str) -> float:
    """Share of the pixels of a tile that a mosaic shows otherwise."""
    with rasterio.open(path) as file:
        cover = file.read(1)
        column = round((file.bounds.left - mosaic.bounds.left) * PIXELS_PER_DEGREE)
        row = round((mosaic.bounds.top - file.bounds.top) * PIXELS_PER_DEGREE)
    rows, columns = cover.shape
    window = Window(column, row, columns, rows)
    shown = mosaic.read(1, window=window, boundless=True, fill_value=NODATA)
    return float((shown != cover).mean())


def tile_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of this wing."""
    grid = "Its pixels lie on the grid of the tile, so that all sources see the same ground."
    return [
        *(_check(s, "on_the_tile_grid", grid, _on_the_tile_grid, blocking=True) for s in SOURCES),
        _check(
            "elevation",
            "terrain_plausible",
            "Every pixel has a height that land has, and a slope below 90 degrees.",
            _terrain_plausible,
            blocking=True,
        ),
        _check(
            "sentinel1",
            "quarters_present",
            "Every quarter of the year has radar data.",
            _quarters_present,
            blocking=False,
        ),
        _check(
            "sentinel2",
            "dates_belong_to_images",
            "Dates ascend, are of the year, and are as many as images, in the same order.",
            _dates_belong_to_images,
            blocking=True,
        ),
        _check(
            "sentinel2",
            "images_in_all_quarters",
            "Every quarter of the year has an image.",
            _images_in_all_quarters,
            blocking=False,
        ),
        _check(
            TREE_COVER,
            "values_in_range",
            "Tree cover is 0 to 100 percent, or 255 where nothing is known.",
            _values_in_range,
            blocking=True,
        ),
        _check(
            TREE_COVER,
            "georeferenced",
            "The file lies in the box of its tile, in degrees, on the lattice that tiles share.",
            _georeferenced,
            blocking=True,
        ),
        _check(
            TREE_COVER,
            "model_named",
            "File and catalogue item name the same network and its hash.",
            _model_named,
            blocking=True,
        ),
        _check(
            TREE_COVER,
            "no_data_share",
            "Less than half of the tile is without data.",
            _data_share,
            blocking=False,
        ),
        shows_its_tiles,
    ]
