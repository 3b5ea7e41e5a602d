"""The assets of the tiles wing: from scenes of satellites to tree cover and answers for polygons.

Belongs here: what depends on what, and the metadata that people see. Does not belong here: science
(the other modules of this package) or where things are stored (the library and the resources).
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ocr_assets import needs
from ocr_assets.lineage import code_version
from ocr_assets.partitions import YEARS, tile_partitions
from ocr_assets.tile_library import (
    SOURCE_MODULES,
    TREE_COVER,
    Source,
    SourceKey,
    TileLibrary,
)
from ocr_assets.tiles.grid import Tile
from ocr_assets.tiles.zonal_table import SCHEMA
from ocr_assets.ui_metadata import column_schema
from resources.cluster import OTHER_CODE, Cluster, ClusterError, Stage, WorkerLostError
from resources.imagery_access import ImageryError
from resources.keys import StorageError
from resources.progress import ProgressReporter

if TYPE_CHECKING:
    from ocr_assets.tile_answers import Answer
    from ocr_assets.tile_sources import MadeSource

COMMON: dict[str, Any] = {"group_name": "tiles", "owners": ["team:tree-cover"]}

DESCRIPTIONS: Mapping[Source, str] = {
    "elevation": (
        "Terrain of a tile: height of the Copernicus GLO-30 model and slope in degrees, on the "
        "tile's 10 m grid."
    ),
    "sentinel1": (
        "Radar of a tile and year: four seasonal composites of terrain-corrected Sentinel-1 "
        "backscatter, VV and VH, at 40 m."
    ),
    "sentinel2": (
        "Optical images of a tile and year: the clearest Sentinel-2 dates, four bands at 10 m, six "
        "at 20 m, and the scene classification."
    ),
}

_BAD_PARTITION = (ValueError, ImageryError, StorageError, WorkerLostError)
"""What concerns one tile, so that the others go on. Anything else is a mistake in the code."""


class SourceConfig(dg.Config):
    """Options of a run that makes data of tiles."""

    again: bool = False
    """Make it anew of the scenes that the catalogue lists now, even if it is there."""


def source_asset(tiles: TileLibrary, source: Source) -> dg.AssetsDefinition:
    """The asset of one source of analysis-ready data."""

    @dg.multi_asset(
        name=source,
        specs=[
            dg.AssetSpec(
                source, description=DESCRIPTIONS[source], kinds={"stac", "geotiff"}, **COMMON
            )
        ],
        partitions_def=tile_partitions(source),
        backfill_policy=dg.BackfillPolicy.multi_run(tiles.settings.tiles_per_run),
        # One run at a time asks a service, with many requests at once.
        pool=f"imagery_{source}",
    )
    def analysis_ready(
        context: dg.AssetExecutionContext,
        config: SourceConfig,
        tiles: dg.ResourceParam[TileLibrary],
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        make = partial(make_partition, tiles, source, made_by_code(source), config.again)
        return _make_batch(context, tiles, source, make, needs.TILE_SOURCE, cluster, progress)

    return analysis_ready


def tree_cover_asset(tiles: TileLibrary) -> dg.AssetsDefinition:
    """The asset of published tiles."""

    @dg.multi_asset(
        name=TREE_COVER,
        specs=[
            dg.AssetSpec(
                TREE_COVER,
                deps=["elevation", "sentinel1", "sentinel2"],
                description=(
                    "Tree cover of a tile and year in percent: a Cloud-Optimized GeoTIFF in "
                    "degrees, 255 where nothing is known, with its STAC item."
                ),
                kinds={"openvino", "geotiff"},
                **COMMON,
            )
        ],
        partitions_def=tile_partitions(TREE_COVER),
        backfill_policy=dg.BackfillPolicy.multi_run(tiles.settings.tiles_per_run),
        # One run at a time fills the machine, with as many tiles at once as it has room for.
        pool=TREE_COVER,
    )
    def tree_cover(
        context: dg.AssetExecutionContext,
        config: SourceConfig,
        tiles: dg.ResourceParam[TileLibrary],
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        # A network that cannot be used concerns all tiles: say so once, before any work.
        networks = tiles.tree_cover_network, tiles.superresolution_network
        context.log.info("networks: %s", ", ".join(network.name for network in networks))
        make = partial(make_partition, tiles, TREE_COVER, made_by_code(TREE_COVER), config.again)
        return _make_batch(context, tiles, TREE_COVER, make, needs.TREE_COVER, cluster, progress)

    return tree_cover


def _make_batch(
    context: dg.AssetExecutionContext,
    tiles: TileLibrary,
    source: Source,
    make: Callable[[str], "MadeSource"],
    stage: Stage,
    cluster: Cluster,
    progress: ProgressReporter,
) -> dg.MaterializeResult[None]:
    """Make all partitions of a run; those that fail do not take the others along."""
    made: dict[str, MadeSource] = {}
    ended: dict[str, float] = {}
    failed: dict[str, str] = {}
    keys = context.partition_keys
    results = cluster.map(make, keys, stage=stage, name=f"{source}-{context.run.run_id}")
    try:
        with progress.task(source, len(keys)) as advance, closing(results):
            for key, result in results:
                if isinstance(result, _BAD_PARTITION):
                    failed[key] = str(result)
                elif isinstance(result, Exception):
                    raise result
                else:
                    made[key] = result
                    ended[key] = time.time()
                advance(key)
    except ClusterError as error:  # What is made stays; the run tells what is not.
        failed |= {key: str(error) for key in keys if key not in made and key not in failed}
    described = {
        key: _describe(tiles, source, made[key]) | {"ended": dg.MetadataValue.timestamp(ended[key])}
        for key in keys
        if key in made
    }
    if failed:
        # A failed run marks all of its partitions failed, but for those logged before.
        for key, metadata in described.items():
            context.log_event(dg.AssetMaterialization(source, partition=key, metadata=metadata))
        key, reason = next((key, failed[key]) for key in keys if key in failed)
        raise dg.Failure(
            f"{len(failed)} of {len(keys)} tiles failed; {key}: {reason}",
            metadata={"failed": dg.MetadataValue.json(failed)},
            allow_retries=False,
        )
    for key, metadata in described.items():
        context.add_asset_metadata(metadata, source, key)
    return dg.MaterializeResult(source)


def make_partition(
    tiles: TileLibrary, source: Source, code: str, again: bool, key: str
) -> "MadeSource":
    """Make the data of a partition. Runs in the run's process or on a worker of a cluster.

    Args:
        tiles: imagery, networks and store.
        source: what to make.
        code: version of the code that the run expects to make it.
        again: make it anew even if it is there.
        key: partition key, ``tile`` or ``tile|year``.

    Raises:
        ClusterError: this process has other code than the run.
        ValueError, ImageryError, StorageError: of :func:`ocr_assets.tile_sources.make_source` and
            :func:`ocr_assets.tile_products.make_tree_cover`.
    """
    from ocr_assets.tile_products import make_tree_cover
    from ocr_assets.tile_sources import make_source

    if made_by_code(source) != code:
        raise ClusterError(OTHER_CODE)
    make_one = make_tree_cover if source == TREE_COVER else make_source
    return make_one(tiles, source_key(source, key), again=again)


def made_by_code(source: Source) -> str:
    """Version of the code that makes a source or the tree cover of a tile."""
    from ocr_assets.tile_products import TREE_COVER_MODULES

    return code_version(*(TREE_COVER_MODULES if source == TREE_COVER else SOURCE_MODULES[source]))


def source_key(source: Source, key: str) -> SourceKey:
    """What a partition key of a source stands for."""
    tile, _, year = key.partition("|")
    return SourceKey(source, Tile.parse(tile), int(year) if year else None)


def _describe(tiles: TileLibrary, source: Source, made: "MadeSource") -> dict[str, Any]:
    """Metadata of a materialization."""
    report = dict(made.record.report)
    metadata: dict[str, Any] = {
        name: dg.MetadataValue.table([dg.TableRecord(_flat(row)) for row in report.pop(name)])
        for name in ("dates", "quarters")
        if report.get(name)
    }
    files = made.record.files.values()
    metadata |= {
        **report,
        "skipped": made.preview is None,
        "seconds": made.seconds,
        "bytes": sum(file["bytes"] for file in files),
        "files": dg.MetadataValue.table([dg.TableRecord(file) for file in files]),
        "path": dg.MetadataValue.path(tiles.storage.uri(next(iter(files))["key"])),
        "lineage": made.record.lineage,
    }
    if made.phases:
        metadata["phases"] = dict(made.phases)
    if made.preview is not None:
        picture = base64.b64encode(made.preview).decode()
        metadata["picture"] = dg.MetadataValue.md(f"![{source}](data:image/png;base64,{picture})")
    return metadata


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table in the UI: lists are joined."""
    return {
        name: ", ".join(value) if isinstance(value, list) else value for name, value in row.items()
    }


@dg.asset(
    deps=[TREE_COVER],
    partitions_def=YEARS,
    kinds={"geotiff"},
    pool="tree_cover_mosaic",
    **COMMON,
)
def tree_cover_mosaic(
    context: dg.AssetExecutionContext, tiles: dg.ResourceParam[TileLibrary]
) -> dg.MaterializeResult[None]:
    """All tiles of a year side by side, as one Cloud-Optimized GeoTIFF with overviews."""
    from ocr_assets.tile_answers import make_mosaic

    made = make_mosaic(tiles, int(context.partition_key))
    return dg.MaterializeResult(metadata=_answered(tiles, made, "mosaic"))


class ZonalConfig(dg.Config):
    """Polygons whose tree cover is asked for; the form in the launchpad."""

    polygons: str = Field(
        description="GeoJSON, GeoPackage, Shapefile or GeoParquet: a path or s3:// address."
    )
    name: str = Field(default="", description="Name of the answer; that of the file if empty.")
    layer: str | None = Field(default=None, description="Layer of a file that has several.")
    land_cover_table: str | None = Field(
        default=None, description="CSV of confidence intervals by land cover."
    )
    land_cover_column: str | None = Field(
        default=None, description="Column of the polygons that has their land cover."
    )
    land_cover_raster: str | None = Field(
        default=None, description="Raster whose majority in a polygon is its land cover."
    )
    region_table: str | None = Field(
        default=None, description="CSV of confidence intervals by region."
    )
    region_column: str | None = Field(
        default=None, description="Column of the polygons that has their region."
    )
    region_polygons: str | None = Field(
        default=None, description="Polygons of regions with a column `name`."
    )


@dg.asset(
    deps=[TREE_COVER],
    partitions_def=YEARS,
    kinds={"geoparquet", "csv"},
    metadata={"dagster/column_schema": column_schema(SCHEMA)},
    check_specs=[
        dg.AssetCheckSpec(
            "polygons_accounted_for",
            asset="zonal_statistics",
            description="Every polygon has tree cover of 0 to 100 percent, or a reason why not.",
        )
    ],
    **COMMON,
)
def zonal_statistics(
    context: dg.AssetExecutionContext,
    config: ZonalConfig,
    tiles: dg.ResourceParam[TileLibrary],
) -> Iterator[dg.MaterializeResult[None]]:
    """Tree cover of polygons in a year, how far it may be off, and which tiles are missing."""
    from ocr_assets.tile_answers import ZonalRequest, zonal_answer

    request = ZonalRequest(year=int(context.partition_key), **config.model_dump())
    made = zonal_answer(tiles, request)
    unexplained = [
        row["polygon_id"]
        for row in made.table.select(["polygon_id", "tree_cover", "status", "reason"]).to_pylist()
        if not (row["reason"] or (row["status"] == "complete" and 0 <= row["tree_cover"] <= 100))
    ]
    yield dg.MaterializeResult(
        metadata={
            **_answered(tiles, made, "geoparquet"),
            "dagster/row_count": made.record.report["rows"],
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not unexplained,
                check_name="polygons_accounted_for",
                metadata={"wrong": dg.MetadataValue.json(unexplained)},
            )
        ],
    )


def _answered(tiles: TileLibrary, made: "Answer", shown: str) -> dict[str, Any]:
    """Metadata of what is made of many tiles; ``shown`` is its file for people."""
    files = made.record.files
    return {
        **made.record.report,
        "skipped": made.skipped,
        "seconds": made.seconds,
        "bytes": sum(file["bytes"] for file in files.values()),
        "path": dg.MetadataValue.path(tiles.storage.uri(files[shown]["key"])),
        "lineage": made.record.lineage,
    }


def tile_wing(tiles: TileLibrary) -> list[dg.AssetsDefinition]:
    """Everything of this wing."""
    return [
        *(source_asset(tiles, source) for source in DESCRIPTIONS),
        tree_cover_asset(tiles),
        tree_cover_mosaic,
        zonal_statistics,
    ]
