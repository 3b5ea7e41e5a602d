"""The assets of the tiles wing: from scenes of satellites to analysis-ready data.

Belongs here: what depends on what, and the metadata that people see. Does not belong here: science
(the other modules of this package) or where things are stored (the library and the resources).
"""

import base64
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from ocr_assets.needs import TILE_SOURCE
from ocr_assets.partitions import TILES, tile_year_partitions
from ocr_assets.tile_library import Source, SourceKey, TileLibrary
from ocr_assets.tiles.grid import Tile
from resources.cluster import Cluster, WorkerLostError
from resources.imagery_access import ImageryError
from resources.keys import StorageError
from resources.progress import ProgressReporter

if TYPE_CHECKING:
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
    """Options of a run that makes analysis-ready data."""

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
        partitions_def=TILES if source == "elevation" else tile_year_partitions(),
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
        made: dict[str, Any] = {}
        failed: dict[str, str] = {}
        keys = context.partition_keys
        make = partial(make_partition, tiles, source, config.again)
        with progress.task(source, len(keys)) as advance:
            for key, result in cluster.map(
                make, keys, stage=TILE_SOURCE, name=f"{source}-{context.run.run_id}"
            ):
                if isinstance(result, _BAD_PARTITION):
                    failed[key] = str(result)
                elif isinstance(result, Exception):
                    raise result
                else:
                    made[key] = result
                advance(key)
        described = {key: _describe(tiles, source, made[key]) for key in keys if key in made}
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

    return analysis_ready


def make_partition(tiles: TileLibrary, source: Source, again: bool, key: str) -> "MadeSource":
    """Make the data of a partition key, ``tile`` or ``tile|year``; for the workers of a cluster."""
    from ocr_assets.tile_sources import make_source

    return make_source(tiles, source_key(source, key), again=again)


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
    if made.preview is not None:
        picture = base64.b64encode(made.preview).decode()
        metadata["picture"] = dg.MetadataValue.md(f"![{source}](data:image/png;base64,{picture})")
    return metadata


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table in the UI: lists are joined."""
    return {
        name: ", ".join(value) if isinstance(value, list) else value for name, value in row.items()
    }


def tile_wing(tiles: TileLibrary) -> list[dg.AssetsDefinition]:
    """Everything of this wing."""
    return [source_asset(tiles, source) for source in DESCRIPTIONS]
