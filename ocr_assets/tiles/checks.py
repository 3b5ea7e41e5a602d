"""Asset checks of the tiles wing: its conscience.

A check looks at the tiles of its run, or at all that were made if it is run by itself. It fails
with the tiles that it finds wrong in its metadata.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date

import dagster as dg
import numpy as np
import rasterio

from ocr_assets.partitions import PARTITION, RANGE_END, RANGE_START, TILES, tile_year_partitions
from ocr_assets.tile_library import SOURCES, TREE_COVER, Source, SourceKey, TileLibrary
from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M, ArdError, coarser, read_header
from ocr_assets.tiles.assets import source_key
from ocr_assets.tiles.grid import tile_geobox
from ocr_assets.tiles.product import CRS, pixel_box
from ocr_assets.tiles.tree_cover import NODATA
from resources.gdal_storage import gdal_access, gdal_path
from resources.keys import StorageError

MOST_WITHOUT_DATA = 0.5
"""Share of a published tile without data from which a person should look at it."""

HEIGHTS = (-500.0, 9000.0)
"""Metres; land lies within, with a margin for errors of the elevation model."""

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
    """A check that examines one tile after the other."""

    @dg.asset_check(asset=source, name=name, description=description, blocking=blocking)
    def check(
        context: dg.AssetCheckExecutionContext, tiles: dg.ResourceParam[TileLibrary]
    ) -> dg.AssetCheckResult:
        keys = _partitions(context, source)
        wrong: dict[str, str] = {}
        with gdal_access(tiles.storage):
            for partition in keys:
                problem = _problem(tiles, source_key(source, partition), examine)
                if problem is not None:
                    wrong[partition] = problem
        return dg.AssetCheckResult(
            passed=not wrong,
            description=_told(wrong, len(keys)),
            metadata={"looked at": len(keys), "wrong": dg.MetadataValue.json(wrong)},
        )

    return check


def _partitions(context: dg.AssetCheckExecutionContext, source: Source) -> list[str]:
    """Partitions that the run materialized, or all that were if it did not say."""
    tags = context.run.tags
    if PARTITION in tags:
        return [tags[PARTITION]]
    if RANGE_START in tags and RANGE_END in tags:
        definition = TILES if source == "elevation" else tile_year_partitions()
        asked = dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])
        with dg.partition_loading_context(dynamic_partitions_store=context.instance):
            return list(definition.get_partition_keys_in_range(asked))
    return sorted(context.instance.get_materialized_partitions(dg.AssetKey(source)))


def _problem(tiles: TileLibrary, key: SourceKey, examine: Examine) -> str | None:
    try:
        record = tiles.record(key)
        if record is None:
            return "nothing is stored, or not all of it"
        files = {name: gdal_path(tiles.storage, file["key"]) for name, file in record.files.items()}
        return examine(tiles, key, files)
    except (ArdError, StorageError, rasterio.errors.RasterioError) as error:
        return str(error)


def _told(wrong: Mapping[str, str], looked_at: int) -> str | None:
    if not wrong:
        return None
    partition, problem = next(iter(wrong.items()))
    return f"{len(wrong)} of {looked_at} tiles; {partition}: {problem}"


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
    ]
