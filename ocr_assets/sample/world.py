"""The sample world: every input dataset, made up, and the catalog that names them.

Belongs here: putting rasters and places together, and writing them as input datasets.
Does not belong here: how values are made up, and anything downstream of the inputs.

It has two sizes. The default is a window of the CONUS pixel grid in the Front Range of Colorado,
cut into twelve small regions. With a region id the grid is the CONUS grid itself, and that one
full-size region holds data. Footprints and counties may be real ones; rasters are always made up,
and the catalog says so.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import bbox_array, hilbert_order, wkb_array, write_geoparquet
from ocr_assets.regions import inputs
from ocr_assets.regions.footprints import Footprints, read_buildings
from ocr_assets.regions.geographies import Level, read_geographies, tag_buildings
from ocr_assets.regions.grid import CONUS, CONUS_WINDOW, RegionGrid, Window
from ocr_assets.regions.risk import CLIMATES
from ocr_assets.sample.places import synthetic_buildings as make_buildings
from ocr_assets.sample.places import synthetic_geographies
from ocr_assets.sample.rasters import DataEdge, coarse_rasters, fine_rasters
from ocr_assets.sample.stores import ATTRIBUTES, PixelRasters, write_raster

VERSION = 2
"""Part of the recipe: raised when the same recipe gives another world."""

SAMPLE_WINDOW = Window(56_570, 57_470, 74_640, 75_600)
REGION_ROWS, REGION_COLS = 300, 240

CROSSED_CORNERS = ("y1_x1", "y1_x3", "y2_x2")
"""Regions of the default grid whose south-west corner, where four regions meet, is in a town."""

DEFAULT_BUILDINGS = 6_000

UNBUILT_REGION = "y2_x0"
"""The region of the default grid that has data but no synthetic building."""

NOTICE = (
    "Synthetic sample world: burn probability, conditional risk and wind are made up on the true "
    "grids. No value says anything about a real place."
)


class SampleError(ValueError):
    """A sample world that cannot be built; the message says why and the mend."""


@dataclass(frozen=True)
class Recipe:
    """What a sample world is made from; equal recipes give equal worlds.

    ``buildings`` and ``counties`` are hashes of the files given, None for synthetic ones.
    """

    version: int
    seed: int
    region_id: str | None
    synthetic_buildings: int | None
    buildings: str | None
    counties: str | None


def build_sample_world(
    storage_root: Path,
    *,
    region_id: str | None = None,
    buildings: Path | None = None,
    counties: Path | None = None,
    synthetic_buildings: int | None = None,
    seed: int = 2025,
) -> Path:
    """Write a sample world under ``storage_root/input`` and return the path of its catalog.

    ``region_id``: a valid region of the CONUS grid to fill at full size; None for the small
    default grid. ``synthetic_buildings``: about how many footprints to make up, by default
    :data:`DEFAULT_BUILDINGS`; or ``buildings``: a vector file of footprints to take instead.
    ``counties``: a TopoJSON file with layers ``counties``, ``states`` and ``nation`` (``id`` holds
    the FIPS code) to take in place of made-up geographies; there are no blocks and tracts then.

    The catalog appears last, so a reader finds a whole world or none. A world of the same recipe
    that is already there is kept; one of another recipe is replaced.

    Raises SampleError if there is a catalog that was not made here, UnknownRegionError for an
    unknown region, and VectorFileError for an unreadable file.
    """
    recipe = Recipe(
        version=VERSION,
        seed=seed,
        region_id=CONUS.require_valid(region_id) if region_id else None,
        synthetic_buildings=_count(buildings, synthetic_buildings),
        buildings=_file_hash(buildings),
        counties=_file_hash(counties),
    )
    folder = storage_root / "input"
    catalog = folder / "catalog.json"
    name, previous = _folder_name(asdict(recipe)), _previous(catalog)
    if previous == name and (folder / name).is_dir():
        return catalog
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as temporary:
        aside = Path(temporary) / name
        document = _build(aside, recipe, buildings, counties)
        if not (folder / name).exists():
            aside.rename(folder / name)
        draft = Path(temporary) / "catalog.json"
        draft.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(draft, catalog)
    if previous is not None and previous != name:
        shutil.rmtree(folder / previous, ignore_errors=True)
    return catalog


def _count(buildings: Path | None, synthetic: int | None) -> int | None:
    if buildings is None:
        return DEFAULT_BUILDINGS if synthetic is None else synthetic
    if synthetic is not None:
        raise SampleError("give a file of buildings or a number of synthetic ones, not both")
    return None


def _file_hash(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise SampleError(f"there is no file {path}")
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _folder_name(recipe: dict[str, Any]) -> str:
    return f"world-{sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]}"


def _previous(catalog: Path) -> str | None:
    """Folder name of the world that the catalog describes, None if there is no catalog."""
    if not catalog.exists():
        return None
    try:
        return _folder_name(dict(json.loads(catalog.read_text())["recipe"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SampleError(
            f"{catalog} was not made by `ocr sample` and is kept; choose another storage root, or "
            "move it away"
        ) from error


def _build(
    folder: Path, recipe: Recipe, buildings: Path | None, counties: Path | None
) -> dict[str, Any]:
    """Write all datasets into ``folder`` and return the catalog document."""
    if recipe.region_id is None:
        window, margin = SAMPLE_WINDOW, (REGION_ROWS, REGION_COLS)
        cover = window.buffer(*margin)
        filled, chunks, edge = cover, margin, _data_edge(window)
    else:
        window, cover = CONUS.region_window(recipe.region_id), CONUS_WINDOW
        filled, chunks, edge = window, (CONUS.region_rows // 4, CONUS.region_cols // 4), None

    geographies = (
        _real_geographies(counties)
        if counties
        else synthetic_geographies(window.buffer(60, 60, CONUS_WINDOW), recipe.seed)
    )
    footprints = tag_buildings(
        read_buildings(buildings, require_codes=False) if buildings else _made_up(window, recipe),
        geographies,
    )
    points = shapely.centroid(footprints.geometry)
    coarse = coarse_rasters(filled, shapely.get_x(points), shapely.get_y(points), edge, recipe.seed)
    for climate, raster in coarse.burn_probability.items():
        name = inputs.BURN_PROBABILITY_270M[climate]
        write_raster(folder / f"{name}.icechunk", name, raster)
    write_raster(folder / f"{inputs.WIND}.icechunk", inputs.WIND, coarse.wind)

    pixels = PixelRasters(
        folder,
        (*inputs.BURN_PROBABILITY_30M.values(), inputs.CONDITIONAL_RISK),
        cover,
        chunks,
    )
    with_data = np.zeros(window.shape, bool)
    for row in range(filled.row_start, filled.row_stop, chunks[0]):
        strip = Window(row, row + chunks[0], filled.col_start, filled.col_stop).intersection(filled)
        values = fine_rasters(strip, coarse, edge, recipe.seed)
        pixels.write(strip, values)
        if window.row_start <= row < window.row_stop:
            inner = strip.intersection(window)
            known = ~np.isnan(values[inputs.CONDITIONAL_RISK, "CRPS"][inner.slices_in(strip)])
            with_data[inner.slices_in(window)] = known
    pixels.commit()

    lineage = {**ATTRIBUTES, "recipe": asdict(recipe)}
    write_geoparquet(_building_table(footprints), folder / f"{inputs.BUILDINGS}.parquet", lineage)
    for level, table in geographies.items():
        write_geoparquet(table, folder / f"{inputs.GEOGRAPHIES[level]}.parquet", lineage)
    grid = CONUS if recipe.region_id else _small_grid(with_data)
    return {
        "schema": 1,
        "notice": NOTICE,
        "grid": "conus" if recipe.region_id else grid.to_dict(),
        "datasets": _entries(folder.name, recipe, footprints, geographies, buildings, counties),
        "recipe": asdict(recipe),
    }


def _data_edge(window: Window) -> DataEdge:
    """A border that leaves the north-east region without data, and cuts its neighbours."""
    west, south, east, north = window.bounds
    return DataEdge(west + 0.46 * (east - west), south + 0.34 * (north - south), east, north)


def _small_grid(with_data: NDArray[np.bool_]) -> RegionGrid:
    whole = RegionGrid("sample", SAMPLE_WINDOW, REGION_ROWS, REGION_COLS, ())
    return replace(
        whole,
        valid=tuple(
            region_id
            for region_id in whole
            if with_data[whole.region_window(region_id).slices_in(SAMPLE_WINDOW)].any()
        ),
    )


def _made_up(window: Window, recipe: Recipe) -> Footprints:
    count = recipe.synthetic_buildings or 0
    if recipe.region_id is not None:
        return make_buildings(window, (), count, recipe.seed)
    grid = RegionGrid("sample", window, REGION_ROWS, REGION_COLS, ())
    corners = [grid.region_window(region_id).bounds[:2] for region_id in CROSSED_CORNERS]
    unbuilt = grid.region_window(UNBUILT_REGION).bounds
    return make_buildings(window, corners, count, recipe.seed, unbuilt)


def _real_geographies(path: Path) -> dict[Level, pa.Table]:
    layers: dict[Level, str] = {"county": "counties", "state": "states", "nation": "nation"}
    return {level: read_geographies(path, level, layer=layer) for level, layer in layers.items()}


def _building_table(footprints: Footprints) -> pa.Table:
    table = pa.table(
        {
            "id": footprints.building_id,
            "GEOID": footprints.geoid,
            "state": footprints.state,
            "county": footprints.county,
            "geometry": wkb_array(footprints.geometry),
            "bbox": bbox_array(footprints.geometry),
        }
    )
    return table.take(hilbert_order(table, CONUS_WINDOW.bounds, "id"))


def _entries(
    folder: str,
    recipe: Recipe,
    footprints: Footprints,
    geographies: dict[Level, pa.Table],
    buildings: Path | None,
    counties: Path | None,
) -> dict[str, dict[str, Any]]:
    made_up = {"source": "made up by `ocr sample`", "synthetic": True}

    def raster(name: str, description: str) -> dict[str, Any]:
        uri = f"{folder}/{name}.icechunk"
        return {"format": "icechunk", "uri": uri, "description": description, **made_up}

    def table(name: str, description: str, real: Path | None) -> dict[str, Any]:
        origin = {"source": real.name, "synthetic": False} if real else made_up
        uri = f"{folder}/{name}.parquet"
        return {"format": "geoparquet", "uri": uri, "description": description, **origin}

    entries = {}
    for climate in CLIMATES:
        for name, size in (
            (inputs.BURN_PROBABILITY_270M[climate], "270 m, EPSG:5070"),
            (inputs.BURN_PROBABILITY_30M[climate], "30 m, nearest cell of the 270 m one"),
        ):
            entries[name] = raster(name, f"Burn probability, climate of {climate}, {size}")
    entries[inputs.CONDITIONAL_RISK] = raster(
        inputs.CONDITIONAL_RISK, "Conditional and overall risk to potential structures, 30 m"
    )
    entries[inputs.WIND] = raster(
        inputs.WIND, "Wind in fire weather: how often, how strong, from where; 4 km Lambert grid"
    )
    entries[inputs.BUILDINGS] = table(
        inputs.BUILDINGS,
        f"{len(footprints)} building footprints with census codes"
        + (f"; {footprints.repaired} repaired, {footprints.invalid} unusable" if buildings else ""),
        buildings,
    )
    for level, rows in geographies.items():
        name = inputs.GEOGRAPHIES[level]
        entries[name] = table(name, f"{rows.num_rows} outlines, level {level}", counties)
    return entries
