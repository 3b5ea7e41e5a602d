"""The assets that are made from regions: buildings, statistics, tiles and pyramid.

Belongs here: what depends on what, the same for every type of risk, and the metadata that people
see. Does not belong here: the regions themselves (``regions/assets.py``), how a product is made
(``region_products``), or where things are stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.deployment_stages import ANALYSIS_FOLDERS
from ocr_assets.geoparquet import Source
from ocr_assets.input_assets import input_key
from ocr_assets.needs import AGGREGATION, ANALYSIS_FILES, PYRAMID, STATISTICS, VECTOR_TILES
from ocr_assets.region_products import (
    LEVEL_MEANS,
    MEANS_AGREE,
    make_analysis_files,
    make_building_tiles,
    make_buildings,
    make_pyramid,
    make_regional_tiles,
    make_statistics,
)
from ocr_assets.regions import inputs
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.geographies import LEVELS, Level
from ocr_assets.regions.risk_type import RiskType, risk_group
from ocr_assets.regions.statistics import statistics_schema
from ocr_assets.regions.vector_tiles import TileReport, building_centroid_tiles, building_tiles
from ocr_assets.ui_metadata import column_schema
from resources.cluster import Cluster, Stage
from resources.io_managers import (
    KEY,
    Artefact,
    FileIOManager,
    FilesIOManager,
    FolderIOManager,
    StorageIOManager,
    Stored,
    StoredFile,
    StoredTable,
    TableIOManager,
    store_made,
)


def asset_key(risk: RiskType, name: str) -> dg.AssetKey:
    """Key of an asset of a type of risk."""
    return dg.AssetKey(risk.key(name).split("/"))


def op_name(risk: RiskType, name: str) -> str:
    """Name of a step of a type of risk, as Dagster names those of assets."""
    return risk.key(name).replace("/", "__")


def common(risk: RiskType) -> dict[str, Any]:
    """What all assets of a type of risk have in common."""
    return {"group_name": risk_group(risk.name), "owners": ["team:climate-risk"]}


def product_assets(risk: RiskType) -> list[dg.AssetsDefinition]:
    """Everything that is made from the regions of a type of risk."""
    footprints = "Footprints of all buildings with their values: layer `risk`, zooms 6 to 14."
    centroids = (
        f"Centroids of the buildings with {' and '.join(risk.scored)} above zero: layer `risk`."
    )
    return [
        _buildings(risk),
        _statistics(risk),
        _analysis_files(risk),
        _building_archive(risk, "building", footprints, building_tiles),
        _building_archive(risk, "building_centroid", centroids, building_centroid_tiles),
        _regional_archive(risk),
        _pyramid(risk),
    ]


def _buildings(risk: RiskType) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(risk, "buildings"),
        deps=[asset_key(risk, "region_buildings")],
        io_manager_key="tables",
        kinds={"geoparquet"},
        metadata={
            KEY: risk.key("buildings"),
            "dagster/column_schema": column_schema(building_schema(risk)),
        },
        **common(risk),
    )
    def buildings(
        context: dg.AssetExecutionContext,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        tables: dg.ResourceParam[TableIOManager],
    ) -> Stored:
        """All buildings, partitioned by state and county, in spatial order within each county."""
        key, make = risk.key("buildings"), partial(make_buildings, deployment.of(risk.name))
        return _made(context, cluster, AGGREGATION, tables, {key: make})[key]

    return buildings


def _statistics(risk: RiskType) -> dg.AssetsDefinition:
    buildings_key = asset_key(risk, "buildings")
    keys = {level: risk.key(f"statistics/{level}.parquet") for level in LEVELS}

    @dg.multi_asset(
        name=op_name(risk, "risk_statistics"),
        description="Statistics of the buildings in each block, tract, county, state and nation.",
        outs=_outs_of_levels(
            risk,
            "risk_statistics",
            keys,
            ": counts, mean, quantiles, histogram.",
            io_manager_key="files",
            kinds={"geoparquet"},
        ),
        ins={"buildings": dg.AssetIn(buildings_key)},
        deps=[input_key(name) for name in inputs.GEOGRAPHIES.values()],
        internal_asset_deps={
            level: {buildings_key, input_key(inputs.GEOGRAPHIES[level])} for level in LEVELS
        },
    )
    def risk_statistics(
        context: dg.AssetExecutionContext,
        buildings: StoredTable,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        files: dg.ResourceParam[FileIOManager],
    ) -> Iterator[dg.Output[Stored]]:
        make = {
            keys[level]: partial(make_statistics, deployment.of(risk.name), buildings, level)
            for level in LEVELS
        }
        made = _made(context, cluster, STATISTICS, files, make)
        for level in LEVELS:
            yield dg.Output(made[keys[level]], level)

    return risk_statistics


def _analysis_files(risk: RiskType) -> dg.AssetsDefinition:
    def source(level: str) -> dg.AssetKey:
        return asset_key(risk, f"risk_statistics/{level}")

    keys = {level: risk.key(f"region-analysis/{ANALYSIS_FOLDERS[level]}") for level in LEVELS}

    @dg.multi_asset(
        name=op_name(risk, "region_analysis_files"),
        description="The statistics in the formats of spreadsheets, browsers and desktop GIS.",
        outs=_outs_of_levels(
            risk,
            "region_analysis_files",
            keys,
            " as GeoParquet, CSV, GeoJSON and GeoPackage, with their licence.",
            io_manager_key="file_sets",
            kinds={"geoparquet", "csv", "geojson"},
        ),
        # An input and an output of the same step need different names.
        ins={f"{level}_statistics": dg.AssetIn(source(level)) for level in LEVELS},
        internal_asset_deps={level: {source(level)} for level in LEVELS},
    )
    def region_analysis_files(
        context: dg.AssetExecutionContext,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        file_sets: dg.ResourceParam[FilesIOManager],
        **statistics: StoredFile,
    ) -> Iterator[dg.Output[Stored]]:
        make = {
            keys[level]: partial(
                make_analysis_files,
                deployment.of(risk.name),
                statistics[f"{level}_statistics"],
                level,
            )
            for level in LEVELS
        }
        made = _made(context, cluster, ANALYSIS_FILES, file_sets, make)
        for level in LEVELS:
            yield dg.Output(made[keys[level]], level)

    return region_analysis_files


def _outs_of_levels(
    risk: RiskType, name: str, keys: Mapping[Level, str], description: str, **out: Any
) -> dict[str, dg.AssetOut]:
    """An output for each level of geographies, which holds the statistics of that level.

    Args:
        risk: the type of risk.
        name: of the assets; that of the level goes behind it.
        keys: where each is stored.
        description: what there is of the statistics of a level.
        out: what else the outputs have in common.
    """
    return {
        level: dg.AssetOut(
            key=asset_key(risk, f"{name}/{level}"),
            description=f"{risk.title}, statistics of each {level}{description}",
            metadata={
                KEY: keys[level],
                "dagster/column_schema": column_schema(statistics_schema(risk, level)),
            },
            **out,
            **common(risk),
        )
        for level in LEVELS
    }


def _made(
    context: dg.AssetExecutionContext,
    cluster: Cluster,
    stage: Stage,
    manager: StorageIOManager,
    products: Mapping[str, Callable[[Path], Artefact]],
) -> dict[str, Stored]:
    """Let a cluster make products and store them; each is known by its key."""
    name = f"{context.op_execution_context.op_handle.name}-{context.run.run_id}"
    store = partial(store_made, manager, products)
    made = dict(cluster.map(store, products, stage=stage, name=name))
    for result in made.values():
        if isinstance(result, Exception):
            raise result
    return {key: stored for key, stored in made.items() if isinstance(stored, Stored)}


def _building_archive(
    risk: RiskType,
    name: str,
    description: str,
    make: Callable[[RiskType, Sequence[Source], Path], TileReport],
) -> dg.AssetsDefinition:
    """An archive of vector tiles that is made from all buildings."""
    key = risk.key(f"pmtiles/{name}s.pmtiles")

    @dg.asset(
        key=asset_key(risk, f"{name}_pmtiles"),
        description=description,
        ins={"buildings": dg.AssetIn(asset_key(risk, "buildings"))},
        io_manager_key="files",
        kinds={"pmtiles"},
        metadata={KEY: key},
        **common(risk),
    )
    def archive(
        context: dg.AssetExecutionContext,
        buildings: StoredTable,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        files: dg.ResourceParam[FileIOManager],
    ) -> Stored:
        tile = partial(make_building_tiles, deployment.of(risk.name), buildings, make)
        return _made(context, cluster, VECTOR_TILES, files, {key: tile})[key]

    return archive


def _regional_archive(risk: RiskType) -> dg.AssetsDefinition:
    key = risk.key("pmtiles/regions.pmtiles")

    @dg.asset(
        key=asset_key(risk, "regional_pmtiles"),
        description=(
            "Statistics as tiles: layers `nation`, `states`, `counties`, `tracts` and `blocks`."
        ),
        ins={level: dg.AssetIn(asset_key(risk, f"risk_statistics/{level}")) for level in LEVELS},
        io_manager_key="files",
        kinds={"pmtiles"},
        metadata={KEY: key},
        **common(risk),
    )
    def regional_pmtiles(
        context: dg.AssetExecutionContext,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        files: dg.ResourceParam[FileIOManager],
        **statistics: StoredFile,
    ) -> Stored:
        levels = {level: statistics[level] for level in LEVELS}
        tile = partial(make_regional_tiles, deployment.of(risk.name), levels)
        return _made(context, cluster, VECTOR_TILES, files, {key: tile})[key]

    return regional_pmtiles


def _pyramid(risk: RiskType) -> dg.AssetsDefinition:
    key = asset_key(risk, "pyramid")

    @dg.asset(
        key=key,
        description=(
            f"{', '.join(risk.variables)} at ever coarser resolution, as a multiscale Zarr for "
            "maps and quick looks."
        ),
        deps=[asset_key(risk, "region_risk")],
        io_manager_key="folders",
        kinds={"zarr"},
        metadata={KEY: risk.key("pyramid")},
        check_specs=[
            dg.AssetCheckSpec(
                "level_means_agree",
                asset=key,
                description="Every level stands for the same pixels, and has their mean.",
            )
        ],
        **common(risk),
    )
    def pyramid(
        context: dg.AssetExecutionContext,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        folders: dg.ResourceParam[FolderIOManager],
    ) -> Iterator[dg.Output[Stored] | dg.AssetCheckResult]:
        make = {risk.key("pyramid"): partial(make_pyramid, deployment.of(risk.name))}
        (made,) = _made(context, cluster, PYRAMID, folders, make).values()
        metadata = dict(made.metadata)
        agree = metadata.pop(MEANS_AGREE)
        metadata[LEVEL_MEANS] = dg.MetadataValue.md(metadata[LEVEL_MEANS])
        yield dg.Output(replace(made, metadata=metadata))
        yield dg.AssetCheckResult(passed=agree)

    return pyramid
