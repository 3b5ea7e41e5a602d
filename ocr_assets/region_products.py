"""What is made of all regions of a risk type, as pieces of work for the run's process or a worker.

Belongs here: the inputs, lineage and figures of each product; its files are made in a folder that
the caller gives. Does not belong here: how a product is computed (``ocr_assets.regions``), where
it is stored (the IO managers), and what depends on what (the assets).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocr_assets.deployment import Deployment
from ocr_assets.geoparquet import Source
from ocr_assets.lineage import code_version, content_hash
from ocr_assets.regions import inputs, template
from ocr_assets.regions.analysis_files import file_metadata, write_analysis_files
from ocr_assets.regions.building_partitions import open_buildings, partition_buildings
from ocr_assets.regions.geographies import Level, geography_schema
from ocr_assets.regions.pyramid import PyramidReport, build_pyramid, level_means_agree
from ocr_assets.regions.risk_type import RISK_NAMES, RiskType
from ocr_assets.regions.statistics import write_statistics
from ocr_assets.regions.vector_tiles import TileReport, regional_tiles
from resources.io_managers import Artefact, StoredFile, StoredTable

_TILE_MODULES = (
    "regions/geojson_lines.py",
    "regions/pmtiles.py",
    "regions/risk_type.py",
    "regions/vector_tiles.py",
)
BUILDING_TILE_MODULES = (
    *_TILE_MODULES,
    "regions/mercator.py",
    "regions/tile_encoding.py",
    "regions/tile_features.py",
    "regions/tile_pyramid.py",
)
REGIONAL_TILE_MODULES = (*_TILE_MODULES, "regions/tippecanoe.py")

PYRAMID_MODULES = {
    name: tuple(
        f"regions/{module}.py" for module in ("pyramid", "risk_type", "template", f"{name}_risk")
    )
    for name in RISK_NAMES
}
"""Source files that decide what a pyramid and its attributes say, by type of risk."""

LEVEL_MEANS, MEANS_AGREE = "level means", "level means agree"
"""Metadata of the pyramid: a table in Markdown, and whether every level has the same means."""


def make_buildings(deployment: Deployment, folder: Path) -> Artefact:
    """Buildings of all regions, by state and county."""
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
    files, report = partition_buildings(deployment.risk, sources, folder / "buildings", lineage)
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


def make_statistics(
    deployment: Deployment, buildings: StoredTable, level: Level, folder: Path
) -> Artefact:
    """Risk statistics of one level of geographies."""
    started = time.perf_counter()
    method = deployment.settings.method
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
        deployment.risk,
        path,
        open_buildings(deployment.risk, *buildings.places()),
        level,
        deployment.geographies(level) or geography_schema(level).empty_table(),
        method,
        lineage,
    )
    metadata = {
        "rows": report.geographies,
        "dagster/row_count": report.geographies,
        "report": report.to_dict(),
        "seconds": time.perf_counter() - started,
    }
    return Artefact.single(path, lineage, metadata)


def make_analysis_files(
    deployment: Deployment, statistics: StoredFile, level: Level, folder: Path
) -> Artefact:
    """Risk statistics of one level in every format for analysis."""
    started = time.perf_counter()
    lineage = deployment.lineage(
        code_version("geoparquet.py", "regions/analysis_files.py", "regions/geojson_lines.py"),
        {level: statistics.fingerprint},
    )
    metadata = file_metadata(
        deployment.risk,
        deployment.settings.version_label,
        [deployment.catalog.notice],
        lineage,
    )
    report = write_analysis_files(statistics.source(), folder / level, metadata, lineage)
    return Artefact(
        {path.name: path for path in report.files.values()},
        lineage,
        {
            "rows": report.rows,
            "dagster/row_count": report.rows,
            "seconds": time.perf_counter() - started,
        },
    )


def make_building_tiles(
    deployment: Deployment,
    buildings: StoredTable,
    make: Callable[[RiskType, Sequence[Source], Path], TileReport],
    folder: Path,
) -> Artefact:
    """An archive of vector tiles of all buildings, by one of the functions that tile them."""
    started = time.perf_counter()
    path = folder / "buildings.pmtiles"
    lineage = deployment.lineage(
        code_version(*BUILDING_TILE_MODULES), {"buildings": buildings.fingerprint}
    )
    report = make(deployment.risk, buildings.sources(), path)
    return Artefact.single(path, lineage, _tiles(report, started))


def make_regional_tiles(
    deployment: Deployment, statistics: Mapping[Level, StoredFile], folder: Path
) -> Artefact:
    """The archive of vector tiles of all levels of statistics."""
    started = time.perf_counter()
    path = folder / "regions.pmtiles"
    lineage = deployment.lineage(
        code_version(*REGIONAL_TILE_MODULES),
        {level: statistics[level].fingerprint for level in statistics},
    )
    sources = {level: statistics[level].source() for level in statistics}
    report = regional_tiles(deployment.risk, sources, path)
    return Artefact.single(path, lineage, _tiles(report, started))


def _tiles(report: TileReport, started: float) -> dict[str, Any]:
    return {
        "features": report.features,
        "left out": report.left_out,
        "layers": report.layers,
        "zooms": [report.min_zoom, report.max_zoom],
        "largest tile": report.largest_tile,
        "bounds": list(report.bounds),
        "seconds": time.perf_counter() - started,
    }


def make_pyramid(deployment: Deployment, folder: Path) -> Artefact:
    """The multiscale Zarr of the risk rasters."""
    started = time.perf_counter()
    ledger = deployment.current_ledger()
    lineage = deployment.lineage(
        code_version(*PYRAMID_MODULES[deployment.risk_name]),
        {region_id: content_hash(entry) for region_id, entry in ledger.items()},
    )
    place = folder / "pyramid.zarr"
    report = build_pyramid(
        deployment.regions.dataset(),
        place,
        {name: variable.values for name, variable in deployment.risk.variables.items()},
        attributes={
            **template.attributes(deployment.risk),
            "notice": deployment.catalog.notice,
            "lineage": lineage,
        },
        regions=[deployment.regions.regions[region_id] for region_id in ledger],
    )
    files = {
        path.relative_to(place).as_posix(): path
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    native = report.levels[0]
    metadata = {
        "pixels": native.rows * native.cols,
        "levels": len(report.levels),
        LEVEL_MEANS: _level_table(report),
        MEANS_AGREE: level_means_agree(report),
        "seconds": time.perf_counter() - started,
    }
    return Artefact(files, lineage, metadata)


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
