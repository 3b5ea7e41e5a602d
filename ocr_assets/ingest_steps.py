"""How each kind of input dataset is made from what was downloaded, or read in place.

Belongs here: bringing files, science and store together for rasters, outlines, Overture features
and tagged buildings, each restartable and visible all at once. Does not belong here: the science
(``regions/``), and what is downloaded from where (``ingestion.py``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ocr_assets.geoparquet import (
    kept_lineage,
    lineage_of,
    merge_geoparquet,
    open_geoparquet,
)
from ocr_assets.ingestion import Ingested, IngestError, Ingestion
from ocr_assets.lineage import code_version, content_hash
from ocr_assets.regions import inputs
from ocr_assets.regions.building_tags import TablePlace, tag_all_buildings
from ocr_assets.regions.census import CONTIGUOUS, write_outlines
from ocr_assets.regions.geographies import read_geographies
from ocr_assets.regions.grid import CONUS, CRS, RegionGrid
from ocr_assets.regions.input_sources import (
    CONUS_BOX,
    DESCRIPTIONS,
    OVERTURE_ADDRESSES,
    OVERTURE_BUILDINGS,
    PARENTS,
    Choice,
    RasterRecipe,
    Source,
)
from ocr_assets.regions.overture import COLUMNS, THEMES, FeatureType, extract_features
from ocr_assets.regions.warp import (
    NearestCells,
    RasterFile,
    cell_windows,
    open_raster_file,
    raise_to,
)
from ocr_assets.regions.wind_climate import blocks, wind_climate
from resources.archives import extracted
from resources.atomic import write_atomic
from resources.catalog import Catalog, DatasetEntry
from resources.manifest import sha256_file
from resources.raster_ingest import (
    Piece,
    RasterForm,
    RasterWritten,
    VariableSummary,
    ingest_raster,
    is_published,
    publish_dataset,
)
from resources.storage import ObjectInfo, S3Options

if TYPE_CHECKING:
    from ocr_assets.regions.grid import Window

CHUNKS = (6000, 4500)
"""Rows and columns of a raster's chunk: a region of the CONUS grid."""

_RASTER_CODE = ("regions/grid.py", "regions/resample.py", "regions/warp.py")
_WIND_CODE = ("regions/fire_weather.py", "regions/kernels.py", "regions/wind_climate.py")
_OUTLINE_CODE = ("geoparquet.py", "regions/census.py")
_OVERTURE_CODE = ("geoparquet.py", "regions/overture.py")
_TAG_CODE = (
    "geoparquet.py",
    "regions/building_tags.py",
    "regions/footprints.py",
    "regions/geographies.py",
    "vector.py",
)


def _lineage(
    source: Source, code: tuple[str, ...], made_from: Mapping[str, str], **configuration: Any
) -> dict[str, Any]:
    return {
        "source": source.title,
        "vintage": source.vintage,
        "citation": source.citation,
        "licence": source.licence,
        "code_version": code_version(*code),
        "inputs": dict(sorted(made_from.items())),
        "configuration": configuration,
    }


# ----------------------------------------------------------------------- rasters


def ingest_raster_dataset(ingestion: Ingestion, source: Source, dataset: str) -> Ingested:
    """Write a raster of a source, on its own cells or on the pixel grid, to Icechunk.

    A chunk of one variable is in memory at a time.

    Raises:
        IngestError: a file was not downloaded.
        ValueError: a file is damaged, on other cells or in other coordinates, or its values are
            impossible; readers keep what they had.
    """
    recipe = source.rasters[dataset]
    files = Choice().files(source, [dataset])
    arrivals = ingestion.arrivals(source, files)
    rasters = _open_bands(ingestion.folder(source), recipe)
    catalog = ingestion.catalog()
    grid = catalog.grid if catalog else CONUS
    made_from = {name: f"sha256:{arrival.sha256}" for name, arrival in arrivals.items()}
    resampling = "nearest" if recipe.pixels else "none"
    lineage = _lineage(
        source,
        _RASTER_CODE,
        made_from,
        grid=grid.name if recipe.pixels else "as published",
        resampling=resampling,
        lowest=recipe.lowest,
    )
    form, windows = _form(dataset, source, recipe, rasters, grid)

    def read(piece: Piece) -> Iterator[tuple[str, NDArray[np.float32]]]:
        cells = NearestCells(next(iter(rasters.values())), windows[piece]) if windows else None
        if windows and not cells:
            return
        for name, raster in rasters.items():
            values = cells.read(raster) if cells else raster.read(*piece)
            yield name, raise_to(values, recipe.lowest)

    pieces = list(windows or cell_windows(form.shape, form.chunks))
    with ingestion.progress.task(dataset, len(pieces)) as advance:
        written = ingest_raster(
            ingestion.storage.child(f"{dataset}.icechunk"),
            form,
            pieces,
            read,
            lineage,
            verify=lambda summary: _verify(dataset, summary),
            advance=advance,
        )
    uri = f"{dataset}.icechunk"
    return Ingested(
        dataset,
        ingestion.register(source, dataset, "icechunk", uri),
        ingestion.storage.uri(uri),
        written.skipped,
        _raster_metadata(form, written, lineage),
    )


def _open_bands(folder: Path, recipe: RasterRecipe) -> dict[str, RasterFile]:
    rasters: dict[str, RasterFile] = {}
    for name, band in recipe.bands.items():
        path = str(folder / band.file)
        if band.member is not None:
            archive = folder / band.file
            path = extracted(archive, band.member, folder / "extracted" / archive.stem)
        rasters[name] = open_raster_file(path, recipe.crs)
    cells = {(raster.shape, raster.transform) for raster in rasters.values()}
    if len(cells) > 1:
        raise IngestError(
            f"the rasters in {folder} have different cells: "
            + ", ".join(f"{name} {raster.shape}" for name, raster in rasters.items())
        )
    return rasters


def _form(
    dataset: str,
    source: Source,
    recipe: RasterRecipe,
    rasters: Mapping[str, RasterFile],
    grid: RegionGrid,
) -> tuple[RasterForm, dict[Piece, Window]]:
    """The stored form, and the window of each piece; none for a raster on its own cells."""
    known = inputs.RASTERS[dataset].variables if dataset in inputs.RASTERS else {}
    variables = {name: {"units": known[name].units} if name in known else {} for name in rasters}
    attributes = {
        "title": source.title,
        "summary": DESCRIPTIONS[dataset],
        "vintage": source.vintage,
        "citation": source.citation,
        "license": source.licence,
        "references": source.page,
    }
    if not recipe.pixels:
        raster = next(iter(rasters.values()))
        axes = (("y", raster.y), ("x", raster.x))
        return RasterForm(axes, recipe.crs, CHUNKS, variables, attributes), {}
    window = grid.window
    chunks = min(grid.region_rows, window.shape[0]), min(grid.region_cols, window.shape[1])
    axes = (("latitude", window.latitude), ("longitude", window.longitude))
    windows = {grid.region_window(id_).slices_in(window): grid.region_window(id_) for id_ in grid}
    return RasterForm(axes, CRS, chunks, variables, attributes), windows


def _verify(dataset: str, summaries: Mapping[str, VariableSummary]) -> None:
    """Refuse a raster without values, or with values that its variable cannot have."""
    for name, found in summaries.items():
        if found.minimum is None or found.maximum is None:
            raise IngestError(f"{dataset}: {name} has no value at all under the grid")
        if dataset not in inputs.RASTERS or name not in inputs.RASTERS[dataset].variables:
            continue
        allowed = inputs.RASTERS[dataset].variables[name]
        low, high = allowed.low - allowed.tolerance, allowed.high + allowed.tolerance
        if found.minimum < low or found.maximum > high:
            raise IngestError(
                f"{dataset}: {name} runs from {found.minimum:g} to {found.maximum:g}, expected "
                f"{allowed.low:g} to {allowed.high:g} ({allowed.units}); nothing was published"
            )


def _raster_metadata(
    form: RasterForm, written: RasterWritten, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    rows, cols = form.shape
    return {
        "pixels": rows * cols,
        "pieces": written.pieces,
        "pieces written": written.written,
        "variables": {name: asdict(one) for name, one in written.variables.items()},
        "snapshot": written.snapshot,
        "lineage": dict(lineage),
    }


# ------------------------------------------------------------------------ tables


def ingest_outlines(ingestion: Ingestion, source: Source, dataset: str, choice: Choice) -> Ingested:
    """Write the outlines of one census level from the downloaded shapefiles.

    Raises:
        IngestError: a file was not downloaded.
        ocr_assets.vector.VectorFileError: a file is damaged or has wrong codes.
    """
    level = next(level for level, name in inputs.GEOGRAPHIES.items() if name == dataset)
    names = choice.census_files(dataset)
    arrivals = ingestion.arrivals(source, [source.file(name) for name in names])
    states = list(choice.states or CONTIGUOUS)
    lineage = _lineage(
        source,
        _OUTLINE_CODE,
        {name: f"sha256:{arrival.sha256}" for name, arrival in arrivals.items()},
        states=states if level != "nation" else [],
    )
    target = ingestion.folder(source) / dataset / "outlines.parquet"

    def write() -> dict[str, Any]:
        paths = [ingestion.folder(source) / name for name in names]
        with ingestion.progress.task(dataset, 1) as advance:
            report = write_outlines(paths, level, states, target, lineage)
            advance(f"{report.written:,} rows")
        return report.to_dict()

    return _table(ingestion, source, dataset, target, lineage, write, target.parent)


def ingest_overture(ingestion: Ingestion, source: Source, dataset: str) -> Ingested:
    """Write the buildings or the addresses of Overture in the contiguous United States.

    Raises:
        IngestError: there is no such release.
        OSError, StorageError: the object store cannot be read.
    """
    kinds: dict[str, FeatureType] = {OVERTURE_BUILDINGS: "building", OVERTURE_ADDRESSES: "address"}
    kind = kinds[dataset]
    storage = ingestion.public(source.url, source)
    objects = [info for info in storage.list(THEMES[kind]) if info.key.endswith(".parquet")]
    if not objects:
        raise IngestError(f"there is no release with {kind} features at {source.url}")
    lineage = _lineage(
        source,
        _OVERTURE_CODE,
        {info.key: info.etag or f"{info.size} bytes" for info in objects},
        box=list(CONUS_BOX),
    )
    folder = ingestion.folder(source) / source.vintage / kind
    target = folder.parent / f"{dataset}.parquet"
    filesystem, root = storage.arrow_filesystem()

    def extract(info: ObjectInfo) -> tuple[Path, dict[str, int]]:
        part = folder / f"{Path(info.key).stem}.parquet"
        told = {**lineage, "inputs": {info.key: lineage["inputs"][info.key]}}
        account = part.with_suffix(".json")
        if lineage_of(part) != told or not account.is_file():
            report = extract_features(
                f"{root}/{info.key}", filesystem, part, CONUS_BOX, told, COLUMNS[kind]
            )
            data = json.dumps(report.to_dict()).encode()
            write_atomic(account, lambda file: file.write(data), if_absent=False)
        return part, json.loads(account.read_bytes())

    def write() -> dict[str, Any]:
        total: dict[str, int] = {}
        parts = []
        with ingestion.progress.task(dataset, len(objects)) as advance:
            for info in objects:
                part, counts = extract(info)
                parts.append(part)
                total = {name: total.get(name, 0) + count for name, count in counts.items()}
                advance(Path(info.key).name)
        if merge_geoparquet(parts, target, lineage) != total["written"]:
            raise IngestError(f"the parts in {folder} have changed; delete it and run again")
        return total

    return _table(ingestion, source, dataset, target, lineage, write, folder)


def ingest_tagged_buildings(ingestion: Ingestion, source: Source) -> Ingested:
    """Give the ingested buildings the codes of the ingested census blocks.

    Raises:
        IngestError: buildings, blocks or counties are not in the catalog.
        ocr_assets.regions.building_tags.TagError: the account of the buildings does not balance.
    """
    names = PARENTS[inputs.BUILDINGS]
    ingestion.require_parents([inputs.BUILDINGS])
    catalog = Catalog.read(ingestion.settings.catalog_uri, ingestion.settings.s3)
    buildings, blocks, counties = (_place(catalog, name) for name in names)
    lineage = _lineage(
        source, _TAG_CODE, {name: catalog.fingerprint(name) for name in names}, rule="point inside"
    )
    folder = ingestion.folder(source) / source.vintage
    target = folder / f"{inputs.BUILDINGS}.parquet"

    def write() -> dict[str, Any]:
        with ExitStack() as stack:
            advances = []

            def begin(tiles: int) -> None:
                task = ingestion.progress.task(inputs.BUILDINGS, tiles)
                advances.append(stack.enter_context(task))

            report = tag_all_buildings(
                buildings,
                blocks,
                read_geographies(counties.path, "county", filesystem=counties.filesystem),
                folder / "tagged",
                target,
                lineage,
                begin=begin,
                advance=lambda tile: advances[0](tile),
            )
        return report.to_dict()

    return _table(ingestion, source, inputs.BUILDINGS, target, lineage, write, folder / "tagged")


# ------------------------------------------------------------------------- winds


def open_hourly_winds(source: Source) -> xr.Dataset:
    """The published hourly dataset, read anonymously and lazily, without a task graph.

    Raises CatalogError if there is no Zarr store.
    """
    options = S3Options(endpoint_url=source.endpoint, region=source.region, anonymous=True)
    entry = DatasetEntry(
        format="zarr",
        uri=source.url,
        description=source.title,
        source=source.citation,
        synthetic=False,
    )
    catalog = Catalog(source.url, CONUS, {source.name: entry}, s3=options)
    return catalog.open_raster(source.name)


def ingest_winds(ingestion: Ingestion, source: Source, dataset: str) -> Ingested:
    """Make the wind climatology of the risk step from the hourly winds, which are read in place.

    Raises:
        ocr_assets.regions.wind_climate.WindClimateError: the publisher's store lacks something.
        StorageError, CatalogError: it cannot be read, or the climatology not be written.
    """
    method = ingestion.settings.method
    version = ingestion.look(source.name).version
    lineage = _lineage(source, _WIND_CODE, {source.name: version}, method=method)
    storage = ingestion.storage.child(f"{dataset}.icechunk")
    skipped = is_published(storage, lineage)
    metadata: dict[str, Any] = {"lineage": lineage}
    if not skipped:
        hourly = open_hourly_winds(source)
        # What is kept there belongs to one recipe; a run that goes on has the same.
        parts = ingestion.folder(source) / f"blocks-{content_hash(lineage)}"
        with ingestion.progress.task(dataset, len(blocks(hourly))) as advance:
            computed = wind_climate(hourly, parts, method, advance)
        metadata["snapshot"] = publish_dataset(storage, computed, lineage)
        metadata["pixels"] = computed.sizes["y"] * computed.sizes["x"]
        metadata["hours"] = hourly.sizes["time"]
        shutil.rmtree(parts, ignore_errors=True)
    uri = f"{dataset}.icechunk"
    return Ingested(
        dataset,
        ingestion.register(source, dataset, "icechunk", uri),
        ingestion.storage.uri(uri),
        skipped,
        metadata,
    )


def _place(catalog: Catalog, name: str) -> TablePlace:
    table = catalog.open_table(name)
    return TablePlace(table.path, table.filesystem)


def _table(
    ingestion: Ingestion,
    source: Source,
    dataset: str,
    target: Path,
    lineage: Mapping[str, Any],
    write: Callable[[], dict[str, Any]],
    work: Path,
) -> Ingested:
    """Publish a table that ``write`` makes at ``target``, unless one of this lineage is there.

    Its name carries its content, and the catalog is what points to it: readers have the old table
    or the new one. The one before stays for those that read it now, older ones and ``work`` go.
    """
    storage = ingestion.storage
    catalog = ingestion.catalog()
    before = catalog.datasets[dataset].uri if catalog and dataset in catalog.datasets else None
    if catalog and before and storage.exists(before):
        with open_geoparquet(storage.source(before)) as file:
            if kept_lineage(file) == dict(lineage):
                metadata = {"rows": file.metadata.num_rows, "lineage": dict(lineage)}
                return Ingested(
                    dataset, catalog.fingerprint(dataset), storage.uri(before), True, metadata
                )
    report = write()
    key = f"{dataset}/{sha256_file(target)[:16]}.parquet"
    size = target.stat().st_size
    storage.put_file(key, target)
    fingerprint = ingestion.register(source, dataset, "geoparquet", key)
    storage.delete(info.key for info in storage.list(dataset) if info.key not in (key, before))
    target.unlink()
    shutil.rmtree(work, ignore_errors=True)
    return Ingested(
        dataset,
        fingerprint,
        storage.uri(key),
        False,
        {"rows": report["written"], "bytes": size, "report": report, "lineage": dict(lineage)},
    )
