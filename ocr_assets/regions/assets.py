"""The assets of the regions wing: wildfire risk, from input rasters to vector tiles.

Belongs here: what depends on what, and the metadata that people see. Does not belong here: science
(the other modules of this package) or where things are stored (the resources).
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from ocr_assets.deployment import Deployment
from ocr_assets.geoparquet import Source
from ocr_assets.lineage import code_version, content_hash
from ocr_assets.partitions import region_partitions
from ocr_assets.region_writer import RegionWriter, WrittenRegion
from ocr_assets.regions import inputs
from ocr_assets.regions.building_partitions import open_buildings, partition_buildings
from ocr_assets.regions.buildings import BUILDING_SCHEMA
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.regions.input_assets import input_assets, input_key, source_assets
from ocr_assets.regions.pyramid import PyramidReport, build_pyramid, level_means_agree
from ocr_assets.regions.risk import VARIABLES
from ocr_assets.regions.statistics import statistics_schema, write_statistics
from ocr_assets.regions.vector_tiles import (
    TileReport,
    building_centroid_tiles,
    building_tiles,
    regional_tiles,
)
from resources.cluster import Cluster
from resources.io_managers import KEY, Artefact, StoredFile, StoredTable
from resources.progress import ProgressReporter
from resources.scratch import Scratch

COMMON: dict[str, Any] = {"group_name": "regions", "owners": ["team:climate-risk"]}


class RegionConfig(dg.Config):
    """Options of a region run."""

    recompute: bool = False


def _inputs(*names: str) -> list[dg.AssetKey]:
    return [input_key(name) for name in names]


RISK_INPUTS = _inputs(
    *inputs.BURN_PROBABILITY_270M.values(),
    *inputs.BURN_PROBABILITY_30M.values(),
    inputs.CONDITIONAL_RISK,
    inputs.WIND,
)
GEOGRAPHY_INPUTS = _inputs(*inputs.GEOGRAPHIES.values())


@dg.asset(kinds={"icechunk"}, **COMMON)
def region_template(deployment: dg.ResourceParam[Deployment]) -> dg.MaterializeResult[None]:
    """The empty region-risk store: grid, eight variables with units, CRS, ledger of regions."""
    started = time.perf_counter()
    snapshot = deployment.regions.initialize(deployment.template)
    rows, cols = deployment.template.shape
    return dg.MaterializeResult(
        metadata={
            "grid": deployment.grid.name,
            "pixels": rows * cols,
            "regions": len(deployment.grid.valid),
            "variables": list(VARIABLES),
            "chunks": list(deployment.template.chunks),
            "snapshot": snapshot,
            "path": dg.MetadataValue.path(deployment.regions.place),
            "seconds": time.perf_counter() - started,
        },
    )


def region_assets(deployment: Deployment) -> dg.AssetsDefinition:
    """Raster and buildings of a region: two assets, one step, one commit."""

    @dg.multi_asset(
        name="regions",
        specs=[
            dg.AssetSpec(
                "region_risk",
                deps=[region_template, *RISK_INPUTS],
                description=(
                    "Wildfire risk of a region: eight rasters at 30 m, written as one region of "
                    "the Icechunk store."
                ),
                kinds={"icechunk", "numba"},
                **COMMON,
            ),
            dg.AssetSpec(
                "region_buildings",
                deps=[region_template, *RISK_INPUTS, *_inputs(inputs.BUILDINGS)],
                description=(
                    "Every building whose centroid lies in the region, with the risk at that "
                    "pixel. It becomes visible in the same commit as the region's raster."
                ),
                kinds={"geoparquet"},
                metadata={"dagster/column_schema": column_schema(BUILDING_SCHEMA)},
                **COMMON,
            ),
        ],
        partitions_def=region_partitions(deployment.grid),
        backfill_policy=dg.BackfillPolicy.multi_run(deployment.settings.regions_per_run),
        pool=deployment.settings.writer_pool,
    )
    def regions(
        context: dg.AssetExecutionContext,
        config: RegionConfig,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> Iterator[dg.MaterializeResult[None]]:
        writer = RegionWriter(deployment, cluster, f"regions-{context.run.run_id}")
        keys = context.partition_keys
        with progress.task("regions", len(keys)) as advance:
            for region_id in writer.write(keys, recompute=config.recompute):
                advance(region_id)
        described = {
            region_id: _describe(deployment, writer.written[region_id])
            for region_id in keys
            if region_id in writer.written
        }
        if writer.failed:
            # A failed run marks all of its partitions failed, but for those logged before.
            for region_id, assets in described.items():
                for asset, metadata in assets.items():
                    context.log_event(
                        dg.AssetMaterialization(asset, partition=region_id, metadata=metadata)
                    )
            failed = {key: writer.failed[key] for key in keys if key in writer.failed}
            region_id, reason = next(iter(failed.items()))
            raise dg.Failure(
                f"{len(failed)} of {len(keys)} regions failed; {region_id}: {reason}",
                metadata={"failed": dg.MetadataValue.json(failed)},
                allow_retries=False,
            )
        for region_id, assets in described.items():
            for asset, metadata in assets.items():
                context.add_asset_metadata(metadata, asset, region_id)
        for asset in ("region_risk", "region_buildings"):
            yield dg.MaterializeResult(asset)

    return regions


def _describe(deployment: Deployment, region: WrittenRegion) -> dict[str, dict[str, Any]]:
    """Metadata of a region's two assets."""
    entry = region.entry
    common: dict[str, Any] = {
        "snapshot": region.snapshot_id,
        "skipped": region.preview is None,
        "lineage": dict(entry["lineage"]),
    }
    risk: dict[str, Any] = {
        **common,
        "pixels": entry["summary"]["pixels"],
        "bytes": entry["summary"]["bytes"],
        "seconds": region.seconds,
        "summary": dg.MetadataValue.md(_summary_table(entry["summary"]["variables"])),
        "path": dg.MetadataValue.path(deployment.regions.place),
    }
    if region.preview is not None:
        picture = base64.b64encode(region.preview).decode()
        risk["risk in 2011"] = dg.MetadataValue.md(f"![risk](data:image/png;base64,{picture})")
    buildings = {
        **common,
        "rows": entry["buildings"]["rows"],
        "dagster/row_count": entry["buildings"]["rows"],
        "bytes": entry["buildings"]["bytes"],
        "report": entry["report"],
        "path": dg.MetadataValue.path(deployment.storage.uri(entry["buildings"]["key"])),
    }
    return {"region_risk": risk, "region_buildings": buildings}


def _summary_table(variables: Mapping[str, Mapping[str, float | None]]) -> str:
    rows = ["| variable | no data | minimum | maximum |", "|---|---|---|---|"]
    for name, values in variables.items():
        low, high = (
            "" if values[end] is None else f"{values[end]:.4g}" for end in ("minimum", "maximum")
        )
        rows.append(f"| {name} | {values['nan_share']:.2%} | {low} | {high} |")
    return "\n".join(rows)


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """An Arrow schema as the UI shows it."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


@dg.asset(
    deps=["region_buildings"],
    io_manager_key="tables",
    kinds={"geoparquet"},
    metadata={KEY: "buildings", "dagster/column_schema": column_schema(BUILDING_SCHEMA)},
    **COMMON,
)
def buildings(
    deployment: dg.ResourceParam[Deployment], scratch: dg.ResourceParam[Scratch]
) -> Artefact:
    """All buildings, partitioned by state and county, in spatial order within each county."""
    started = time.perf_counter()
    ledger = deployment.current_ledger()
    lineage = deployment.lineage(
        code_version("geoparquet.py", "regions/building_partitions.py"),
        {region_id: entry["buildings"]["sha256"] for region_id, entry in ledger.items()},
    )
    sources = {
        region_id: deployment.storage.source(entry["buildings"]["key"])
        for region_id, entry in ledger.items()
    }
    files, report = partition_buildings(sources, scratch.folder() / "buildings", lineage)
    return Artefact(
        files,
        lineage,
        {
            "rows": report.rows_out,
            "dagster/row_count": report.rows_out,
            "regions": len(ledger),
            "regions not done": len(deployment.grid.valid) - len(ledger),
            "report": report.to_dict(),
            "seconds": time.perf_counter() - started,
        },
    )


@dg.multi_asset(
    name="risk_statistics",
    outs={
        level: dg.AssetOut(
            key=["risk_statistics", level],
            io_manager_key="files",
            description=f"Risk statistics of each {level}: counts, mean, quantiles, histogram.",
            kinds={"geoparquet"},
            metadata={
                KEY: f"statistics/{level}.parquet",
                "dagster/column_schema": column_schema(statistics_schema(level)),
            },
            **COMMON,
        )
        for level in LEVELS
    },
    ins={"buildings": dg.AssetIn("buildings")},
    deps=GEOGRAPHY_INPUTS,
    internal_asset_deps={
        level: {dg.AssetKey("buildings"), input_key(inputs.GEOGRAPHIES[level])} for level in LEVELS
    },
)
def risk_statistics(
    buildings: StoredTable,
    deployment: dg.ResourceParam[Deployment],
    scratch: dg.ResourceParam[Scratch],
) -> Iterator[dg.Output[Artefact]]:
    """Risk of the buildings in each block, tract, county and state, and in the nation."""
    folder = scratch.folder()
    method = deployment.settings.method
    for level in LEVELS:
        started = time.perf_counter()
        lineage = deployment.lineage(
            code_version("geoparquet.py", "regions/geographies.py", "regions/statistics.py"),
            {
                "buildings": buildings.fingerprint,
                **deployment.fingerprints(inputs.GEOGRAPHIES[level]),
            },
            {"method": method},
        )
        path = folder / f"{level}.parquet"
        report = write_statistics(
            path,
            open_buildings(*buildings.places()),
            level,
            deployment.geographies(level),
            method,
            lineage,
        )
        metadata = {
            "rows": report.geographies,
            "dagster/row_count": report.geographies,
            "report": report.to_dict(),
            "seconds": time.perf_counter() - started,
        }
        yield dg.Output(Artefact.single(path, lineage, metadata), level)


def _tiles(report: TileReport, started: float) -> dict[str, Any]:
    return {
        "features": report.features,
        "left out": report.left_out,
        "layers": report.layers,
        "zooms": [report.min_zoom, report.max_zoom],
        "bounds": list(report.bounds),
        "seconds": time.perf_counter() - started,
    }


TILE_MODULES = (
    "regions/geojson_lines.py",
    "regions/pmtiles.py",
    "regions/tippecanoe.py",
    "regions/vector_tiles.py",
)


def _building_archive(
    name: str,
    description: str,
    make: Callable[[Sequence[Source], Path], TileReport],
) -> dg.AssetsDefinition:
    """An archive of vector tiles that is made from all buildings."""

    @dg.asset(
        name=f"{name}_pmtiles",
        description=description,
        io_manager_key="files",
        kinds={"pmtiles"},
        metadata={KEY: f"pmtiles/{name}s.pmtiles"},
        **COMMON,
    )
    def archive(
        buildings: StoredTable,
        deployment: dg.ResourceParam[Deployment],
        scratch: dg.ResourceParam[Scratch],
    ) -> Artefact:
        started = time.perf_counter()
        path = scratch.folder() / f"{name}s.pmtiles"
        lineage = deployment.lineage(
            code_version(*TILE_MODULES), {"buildings": buildings.fingerprint}
        )
        return Artefact.single(path, lineage, _tiles(make(buildings.sources(), path), started))

    return archive


building_pmtiles = _building_archive(
    "building",
    "Footprints of all buildings with their risk: layer `risk`, zooms 6 to 14.",
    building_tiles,
)
building_centroid_pmtiles = _building_archive(
    "building_centroid",
    "Centroids of the buildings that have a risk in both climates: layer `risk`.",
    building_centroid_tiles,
)


@dg.asset(
    ins={level: dg.AssetIn(["risk_statistics", level]) for level in LEVELS},
    io_manager_key="files",
    kinds={"pmtiles"},
    metadata={KEY: "pmtiles/regions.pmtiles"},
    **COMMON,
)
def regional_pmtiles(
    deployment: dg.ResourceParam[Deployment],
    scratch: dg.ResourceParam[Scratch],
    **statistics: StoredFile,
) -> Artefact:
    """Risk statistics as tiles: layers `nation`, `states`, `counties`, `tracts` and `blocks`."""
    started = time.perf_counter()
    path = scratch.folder() / "regions.pmtiles"
    lineage = deployment.lineage(
        code_version(*TILE_MODULES),
        {level: statistics[level].fingerprint for level in LEVELS},
    )
    report = regional_tiles({level: statistics[level].source() for level in LEVELS}, path)
    return Artefact.single(path, lineage, _tiles(report, started))


@dg.asset(
    deps=["region_risk"],
    io_manager_key="folders",
    kinds={"zarr"},
    metadata={KEY: "pyramid"},
    check_specs=[
        dg.AssetCheckSpec(
            "level_means_agree",
            asset="pyramid",
            description="Every level stands for the same pixels, and has their mean.",
        )
    ],
    **COMMON,
)
def pyramid(
    deployment: dg.ResourceParam[Deployment],
    scratch: dg.ResourceParam[Scratch],
) -> Iterator[dg.Output[Artefact] | dg.AssetCheckResult]:
    """Risk at ever coarser resolution, as a multiscale Zarr for maps and quick looks."""
    started = time.perf_counter()
    ledger = deployment.current_ledger()
    lineage = deployment.lineage(
        code_version("regions/pyramid.py"),
        {region_id: content_hash(entry) for region_id, entry in ledger.items()},
    )
    folder = scratch.folder() / "pyramid.zarr"
    windows = [deployment.regions.regions[region_id] for region_id in ledger]
    report = build_pyramid(
        deployment.regions.dataset(), folder, attributes={"lineage": lineage}, regions=windows
    )
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    native = report.levels[0]
    metadata = {
        "pixels": native.rows * native.cols,
        "levels": len(report.levels),
        "level means": dg.MetadataValue.md(_level_table(report)),
        "seconds": time.perf_counter() - started,
    }
    yield dg.Output(Artefact(files, lineage, metadata))
    yield dg.AssetCheckResult(passed=level_means_agree(report))


def _level_table(report: PyramidReport) -> str:
    names = list(report.levels[0].means)
    rows = [
        "| level | rows | columns | " + " | ".join(f"mean {name}" for name in names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for level in report.levels:
        means = " | ".join(f"{level.means[name]:.6g}" for name in names)
        rows.append(f"| {level.level} | {level.rows} | {level.cols} | {means} |")
    return "\n".join(rows)


def region_wing(deployment: Deployment) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Everything of this wing, for the grid of a deployment."""
    return [
        *source_assets(),
        *input_assets(),
        region_template,
        region_assets(deployment),
        buildings,
        risk_statistics,
        building_pmtiles,
        building_centroid_pmtiles,
        regional_pmtiles,
        pyramid,
    ]
