"""The assets that are made from regions: buildings, statistics, tiles and pyramid.

Belongs here: what depends on what, the same for every type of risk, and the metadata that people
see. Does not belong here: the regions themselves (``assets.py``), science, or where things are
stored.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.geoparquet import Source
from ocr_assets.lineage import code_version, content_hash
from ocr_assets.regions import inputs
from ocr_assets.regions.building_partitions import open_buildings, partition_buildings
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.regions.input_assets import input_key
from ocr_assets.regions.pyramid import PyramidReport, build_pyramid, level_means_agree
from ocr_assets.regions.risk_type import RISK_NAMES, RiskType
from ocr_assets.regions.statistics import statistics_schema, write_statistics
from ocr_assets.regions.vector_tiles import (
    TileReport,
    building_centroid_tiles,
    building_tiles,
    regional_tiles,
)
from ocr_assets.ui_metadata import column_schema
from resources.io_managers import KEY, Artefact, StoredFile, StoredTable
from resources.scratch import Scratch

TILE_MODULES = (
    "regions/geojson_lines.py",
    "regions/pmtiles.py",
    "regions/risk_type.py",
    "regions/tippecanoe.py",
    "regions/vector_tiles.py",
)


def asset_key(risk: RiskType, name: str) -> dg.AssetKey:
    """Key of an asset of a type of risk."""
    return dg.AssetKey(risk.key(name).split("/"))


def op_name(risk: RiskType, name: str) -> str:
    """Name of a step of a type of risk, as Dagster names those of assets."""
    return risk.key(name).replace("/", "__")


def group(risk_name: str) -> str:
    """Group of the assets of a type of risk."""
    return "regions" if risk_name == RISK_NAMES[0] else f"regions_{risk_name}"


def common(risk: RiskType) -> dict[str, Any]:
    """What all assets of a type of risk have in common."""
    return {"group_name": group(risk.name), "owners": ["team:climate-risk"]}


def product_assets(risk: RiskType) -> list[dg.AssetsDefinition]:
    """Everything that is made from the regions of a type of risk."""
    footprints = "Footprints of all buildings with their values: layer `risk`, zooms 6 to 14."
    centroids = (
        f"Centroids of the buildings with {' and '.join(risk.scored)} above zero: layer `risk`."
    )
    return [
        _buildings(risk),
        _statistics(risk),
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
        deployment: dg.ResourceParam[Deployment], scratch: dg.ResourceParam[Scratch]
    ) -> Artefact:
        """All buildings, partitioned by state and county, in spatial order within each county."""
        started = time.perf_counter()
        deployment = deployment.of(risk.name)
        ledger = deployment.current_ledger()
        lineage = deployment.lineage(
            code_version("geoparquet.py", "regions/building_partitions.py"),
            {region_id: entry["buildings"]["sha256"] for region_id, entry in ledger.items()},
        )
        sources = {
            region_id: deployment.storage.source(entry["buildings"]["key"])
            for region_id, entry in ledger.items()
        }
        folder = scratch.folder() / "buildings"
        files, report = partition_buildings(risk, sources, folder, lineage)
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

    return buildings


def _statistics(risk: RiskType) -> dg.AssetsDefinition:
    buildings_key = asset_key(risk, "buildings")

    @dg.multi_asset(
        name=op_name(risk, "risk_statistics"),
        description="Statistics of the buildings in each block, tract, county, state and nation.",
        outs={
            level: dg.AssetOut(
                key=asset_key(risk, f"risk_statistics/{level}"),
                io_manager_key="files",
                description=(
                    f"{risk.title}, statistics of each {level}: counts, mean, quantiles, histogram."
                ),
                kinds={"geoparquet"},
                metadata={
                    KEY: risk.key(f"statistics/{level}.parquet"),
                    "dagster/column_schema": column_schema(statistics_schema(risk, level)),
                },
                **common(risk),
            )
            for level in LEVELS
        },
        ins={"buildings": dg.AssetIn(buildings_key)},
        deps=[input_key(name) for name in inputs.GEOGRAPHIES.values()],
        internal_asset_deps={
            level: {buildings_key, input_key(inputs.GEOGRAPHIES[level])} for level in LEVELS
        },
    )
    def risk_statistics(
        buildings: StoredTable,
        deployment: dg.ResourceParam[Deployment],
        scratch: dg.ResourceParam[Scratch],
    ) -> Iterator[dg.Output[Artefact]]:
        folder = scratch.folder()
        deployment = deployment.of(risk.name)
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
                risk,
                path,
                open_buildings(risk, *buildings.places()),
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

    return risk_statistics


def _tiles(report: TileReport, started: float) -> dict[str, Any]:
    return {
        "features": report.features,
        "left out": report.left_out,
        "layers": report.layers,
        "zooms": [report.min_zoom, report.max_zoom],
        "bounds": list(report.bounds),
        "seconds": time.perf_counter() - started,
    }


def _building_archive(
    risk: RiskType,
    name: str,
    description: str,
    make: Callable[[RiskType, Sequence[Source], Path], TileReport],
) -> dg.AssetsDefinition:
    """An archive of vector tiles that is made from all buildings."""

    @dg.asset(
        key=asset_key(risk, f"{name}_pmtiles"),
        description=description,
        ins={"buildings": dg.AssetIn(asset_key(risk, "buildings"))},
        io_manager_key="files",
        kinds={"pmtiles"},
        metadata={KEY: risk.key(f"pmtiles/{name}s.pmtiles")},
        **common(risk),
    )
    def archive(
        buildings: StoredTable,
        deployment: dg.ResourceParam[Deployment],
        scratch: dg.ResourceParam[Scratch],
    ) -> Artefact:
        started = time.perf_counter()
        path = scratch.folder() / f"{name}s.pmtiles"
        lineage = deployment.of(risk.name).lineage(
            code_version(*TILE_MODULES), {"buildings": buildings.fingerprint}
        )
        report = make(risk, buildings.sources(), path)
        return Artefact.single(path, lineage, _tiles(report, started))

    return archive


def _regional_archive(risk: RiskType) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(risk, "regional_pmtiles"),
        description=(
            "Statistics as tiles: layers `nation`, `states`, `counties`, `tracts` and `blocks`."
        ),
        ins={level: dg.AssetIn(asset_key(risk, f"risk_statistics/{level}")) for level in LEVELS},
        io_manager_key="files",
        kinds={"pmtiles"},
        metadata={KEY: risk.key("pmtiles/regions.pmtiles")},
        **common(risk),
    )
    def regional_pmtiles(
        deployment: dg.ResourceParam[Deployment],
        scratch: dg.ResourceParam[Scratch],
        **statistics: StoredFile,
    ) -> Artefact:
        started = time.perf_counter()
        path = scratch.folder() / "regions.pmtiles"
        lineage = deployment.of(risk.name).lineage(
            code_version(*TILE_MODULES),
            {level: statistics[level].fingerprint for level in LEVELS},
        )
        sources = {level: statistics[level].source() for level in LEVELS}
        report = regional_tiles(risk, sources, path)
        return Artefact.single(path, lineage, _tiles(report, started))

    return regional_pmtiles


def _pyramid(risk: RiskType) -> dg.AssetsDefinition:
    key = asset_key(risk, "pyramid")

    @dg.asset(
        key=key,
        description=(
            f"{', '.join(risk.averaged)} at ever coarser resolution, as a multiscale Zarr for maps "
            "and quick looks."
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
        deployment: dg.ResourceParam[Deployment],
        scratch: dg.ResourceParam[Scratch],
    ) -> Iterator[dg.Output[Artefact] | dg.AssetCheckResult]:
        started = time.perf_counter()
        deployment = deployment.of(risk.name)
        ledger = deployment.current_ledger()
        lineage = deployment.lineage(
            code_version("regions/pyramid.py"),
            {region_id: content_hash(entry) for region_id, entry in ledger.items()},
        )
        folder = scratch.folder() / "pyramid.zarr"
        report = build_pyramid(
            deployment.regions.dataset(),
            folder,
            risk.averaged,
            attributes={"lineage": lineage},
            regions=[deployment.regions.regions[region_id] for region_id in ledger],
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

    return pyramid


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
