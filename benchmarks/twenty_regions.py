"""Twenty full-size regions with eight million synthetic buildings through the whole wing.

Inputs are made up by the code of the sample world, on the true grid at full size, and are not
counted. Each stage then runs as the command line runs it, in a process of its own: regions,
buildings by county, statistics, analysis files, pyramid, vector tiles. For each it prints wall and
CPU seconds, the most memory that its processes held together, bytes that they read and wrote (by
calls, also what the page cache answered; a file that is mapped counts nothing), and the bytes that
it added to the store. Two runs of different size give slopes, and from these what 405 regions
with 156 million buildings take:

    python benchmarks/twenty_regions.py FOLDER --regions 2 --json two.json
    python benchmarks/twenty_regions.py FOLDER --json twenty.json --than two.json

FOLDER needs 50 GB for twenty regions; what is made in it is deleted at the end, unless ``--keep``
is given. ``--only`` runs single stages on what was kept; a file of ``--json`` keeps the figures of
the others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from buildings_10m import AREA, COUNTY_COLS, COUNTY_ROWS, REGIONS, block_codes

from ocr_assets import deployment_stages as stages
from ocr_assets.geoparquet import (
    bbox_array,
    hilbert_order,
    merge_geoparquet,
    wkb_array,
    write_geoparquet,
)
from ocr_assets.regions import inputs
from ocr_assets.regions.geographies import (
    CODE_LENGTH,
    LEVELS,
    NATION,
    STATES,
    Level,
    geography_schema,
)
from ocr_assets.regions.grid import CONUS, CONUS_WINDOW, RegionGrid, Window

SEED = 2025
STRIP_ROWS = 1500
EDGE_POINTS = 8
"""Vertices on one side of a block's outline; blocks of the census have about as many."""

WHOLE = {"regions": 405, "buildings": 156_000_000, "blocks": 8_100_000}
"""The contiguous United States."""


@dataclass(frozen=True)
class Stage:
    """A part of a run: what it materializes, and what its cost is in proportion to."""

    name: str
    per: str
    assets: tuple[str, ...] = ()


STAGES = (
    Stage("regions", "regions"),
    Stage("pyramid", "regions", stages.PYRAMID),
    Stage("buildings by county", "buildings", stages.BUILDINGS),
    Stage("statistics", "buildings", stages.STATISTICS),
    Stage("analysis files", "blocks", stages.ANALYSIS_FILES),
    Stage("regional tiles", "blocks", stages.REGIONAL_TILES),
    Stage("building tiles", "buildings", stages.BUILDING_TILES),
    Stage("centroid tiles", "buildings", stages.CENTROID_TILES),
)


@dataclass(frozen=True)
class Spent:
    """What a stage took: seconds, and bytes."""

    wall: float
    cpu: float
    peak: float
    read: float
    written: float
    stored: float


# ------------------------------------------------------------------------------------ inputs


def chosen_regions(count: int) -> tuple[str, ...]:
    """The first regions of the area, row by row from the south."""
    return tuple(REGIONS[:count])


def area_window() -> Window:
    """Pixels of the area of all twenty regions."""
    first, last = (CONUS.region_window(REGIONS[end]) for end in (0, -1))
    return Window(first.row_start, last.row_stop, first.col_start, last.col_stop)


def make_inputs(folder: Path, regions: int, buildings: int) -> None:
    """Write a synthetic world of full-size regions, and its catalog, which appears last."""
    density = buildings * len(REGIONS) // regions
    world = folder / "input" / "world"
    world.mkdir(parents=True)
    parts = folder / "parts"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(make_buildings, parts, region_id, buildings // regions, density)
            for region_id in chosen_regions(regions)
        ]
        outlines = pool.submit(make_geographies, world, regions, density)
        points = [job.result() for job in jobs]
        outlines.result()
    files = [parts / f"{region_id}.parquet" for region_id in chosen_regions(regions)]
    merge_geoparquet(files, world / f"{inputs.BUILDINGS}.parquet", {"synthetic": True})
    shutil.rmtree(parts)
    make_rasters(world, regions, *np.concatenate(points, axis=1))
    (folder / "input" / "catalog.json").write_text(json.dumps(catalog(regions), indent=1))


def make_buildings(folder: Path, region_id: str, count: int, density: int) -> np.ndarray:
    """Write the footprints of a region; longitude and latitude of their centroids, ``(2, n)``."""
    from ocr_assets.sample.places import synthetic_buildings

    number = REGIONS.index(region_id)
    made = synthetic_buildings(CONUS.region_window(region_id), (), count, SEED + number)
    centroid = shapely.centroid(made.geometry)
    place = np.stack([shapely.get_x(centroid), shapely.get_y(centroid)])
    west, south, east, north = AREA
    inside = (place[0] > west) & (place[0] < east) & (place[1] > south) & (place[1] < north)
    place, geometry = place[:, inside], made.geometry[inside]
    code, state = block_codes(*place, density)
    geoid = np.char.zfill(code.astype(str), 15)
    table = pa.table(
        {
            "id": made.building_id.filter(pa.array(inside)),
            "GEOID": geoid,
            "state": np.array(list(STATES.values()))[state],
            "county": np.char.add("Synthetic ", geoid.astype("U5")),
            "geometry": wkb_array(geometry),
            "bbox": bbox_array(geometry),
        }
    )
    table = table.take(hilbert_order(table, CONUS_WINDOW.bounds, "id"))
    write_geoparquet(table, folder / f"{region_id}.parquet", {"synthetic": True})
    return place


def make_geographies(world: Path, regions: int, density: int) -> None:
    """Write outlines of the blocks under the regions, and of what they are parts of.

    ``density``: buildings that the whole area would have; there are 20 in a block.
    """
    west, south, east, north = AREA
    # As many blocks in a county as block_codes numbers.
    per_county = density / 20 / (COUNTY_ROWS * COUNTY_COLS)
    side = max(int(np.sqrt(per_county)), 1)
    cols, rows = COUNTY_COLS * side, COUNTY_ROWS * side
    row, col = (index.ravel() for index in np.mgrid[0:rows, 0:cols])
    width, height = (east - west) / cols, (north - south) / rows
    middle = west + (col + 0.5) * width, south + (row + 0.5) * height
    at = CONUS.region_at(*middle)
    numbers = [list(CONUS).index(region_id) for region_id in chosen_regions(regions)]
    row, col = (index[np.isin(at, numbers)] for index in (row, col))
    middle = west + (col + 0.5) * width, south + (row + 0.5) * height
    codes = np.char.zfill(block_codes(*middle, density)[0].astype(str), 15)
    along = np.linspace(0, 1, EDGE_POINTS, endpoint=False)
    zero, one = np.zeros(EDGE_POINTS), np.ones(EDGE_POINTS)
    ring = np.stack(
        [
            np.concatenate([along, one, 1 - along, zero]),
            np.concatenate([zero, along, one, 1 - along]),
        ]
    )
    x, y = (index[:, None] + ring[axis] for axis, index in enumerate((col, row)))
    # Every vertex is moved by where it is, so that neighbours still share theirs.
    bent = x + 0.2 * np.sin(7.3 * y), y + 0.2 * np.sin(6.1 * x)
    rings = np.stack([west + bent[0] * width, south + bent[1] * height], axis=-1)
    shapes = np.asarray(shapely.polygons(shapely.linearrings(rings)))
    order = np.argsort(codes, kind="stable")
    shapes, codes = shapes[order], codes[order]
    for level in LEVELS:
        parents, first = np.unique(codes.astype(f"U{CODE_LENGTH[level] or 1}"), return_index=True)
        if level == "nation":
            parents, first = np.array([NATION]), np.array([0])
        if level != "block":
            shapes = np.array(
                [shapely.coverage_union_all(group) for group in np.split(shapes, first[1:])]
            )
        codes = parents
        write_geoparquet(
            geography_table(level, codes, shapes),
            world / f"{inputs.GEOGRAPHIES[level]}.parquet",
            {"synthetic": True},
        )


def geography_table(level: Level, codes: np.ndarray, shapes: np.ndarray) -> pa.Table:
    """A table of outlines in the form of the inputs."""
    schema = geography_schema(level)
    columns = {
        "GEOID": pa.array(codes.tolist()),
        "NAME": pa.array([f"Synthetic {code}" for code in codes]),
        "STUSPS": pa.array([STATES.get(code[:2], "") for code in codes]),
        "geometry": wkb_array(shapes),
        "bbox": bbox_array(shapes),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def make_rasters(world: Path, regions: int, longitude: np.ndarray, latitude: np.ndarray) -> None:
    """Write the rasters of all regions, strip by strip."""
    from ocr_assets.sample.rasters import coarse_rasters, fine_rasters
    from ocr_assets.sample.stores import PixelRasters, write_raster

    coarse = coarse_rasters(area_window(), longitude, latitude, None, SEED)
    for climate, raster in coarse.burn_probability.items():
        name = inputs.BURN_PROBABILITY_270M[climate]
        write_raster(world / f"{name}.icechunk", name, raster)
    write_raster(world / f"{inputs.WIND}.icechunk", inputs.WIND, coarse.wind)
    names = (*inputs.BURN_PROBABILITY_30M.values(), inputs.CONDITIONAL_RISK)
    pixels = PixelRasters(world, names, CONUS_WINDOW, (STRIP_ROWS, CONUS.region_cols // 4))
    for region_id in chosen_regions(regions):
        window = CONUS.region_window(region_id)
        for row in range(window.row_start, window.row_stop, STRIP_ROWS):
            strip = Window(row, row + STRIP_ROWS, window.col_start, window.col_stop)
            pixels.write(strip, fine_rasters(strip, coarse, None, SEED))
    pixels.commit()


def catalog(regions: int) -> dict[str, object]:
    """The catalog document of the world."""
    rasters = (
        *inputs.BURN_PROBABILITY_270M.values(),
        *inputs.BURN_PROBABILITY_30M.values(),
        inputs.CONDITIONAL_RISK,
        inputs.WIND,
    )
    tables = (inputs.BUILDINGS, *inputs.GEOGRAPHIES.values())
    said = {"description": "made up", "source": "benchmark", "synthetic": True}
    ids = chosen_regions(regions)
    area = area_window()
    whole = RegionGrid("area", area, CONUS.region_rows, CONUS.region_cols, ())
    valid = [
        id_
        for id_ in whole
        if any(whole.region_window(id_) == CONUS.region_window(region_id) for region_id in ids)
    ]
    return {
        "schema": 1,
        "notice": "Synthetic. Not real data.",
        "grid": {**whole.to_dict(), "valid": valid},
        "datasets": {
            **{
                name: {"format": "icechunk", "uri": f"world/{name}.icechunk", **said}
                for name in rasters
            },
            **{
                name: {"format": "geoparquet", "uri": f"world/{name}.parquet", **said}
                for name in tables
            },
        },
    }


# ------------------------------------------------------------------------------------ stages


def run_stage(stage: Stage) -> None:
    """Run a stage in this process, as the command line does."""
    from ocr_assets.cli.app import errors
    from ocr_assets.cli.launch import Launcher
    from ocr_assets.deployment import Deployment
    from resources.progress import ConsoleProgress
    from resources.settings import load_settings

    deployment = Deployment(load_settings())
    launcher = Launcher(deployment, ConsoleProgress(errors))
    if stage.assets:
        launcher.materialize(*stage.assets)
    else:
        launcher.materialize(*stages.TEMPLATE)
        launcher.materialize_regions(deployment.grid.valid, recompute=True)
    for line in launcher.failed_checks:
        print(line, file=sys.stderr)


def measured(folder: Path, stage: Stage) -> Spent:
    """Run a stage in a process of its own and measure it and its children."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCR_")},
        "OCR_STORAGE_ROOT": str(folder),
        "DAGSTER_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "scratch"),
    }
    (folder / "scratch").mkdir(exist_ok=True)
    command = [sys.executable, __file__, str(folder), "--stage", stage.name]
    stored = stored_bytes(folder)
    cpu, (read, written) = children_cpu(), children_bytes()
    start = time.perf_counter()
    process = subprocess.Popen(command, env=variables)
    peak = PeakMemory(process.pid)
    status = process.wait()
    wall = time.perf_counter() - start
    peak.ended.set()
    if status:
        raise SystemExit(f"{stage.name} failed with status {status}")
    read_now, written_now = children_bytes()
    return Spent(
        wall=wall,
        cpu=children_cpu() - cpu,
        peak=peak.bytes,
        read=read_now - read,
        written=written_now - written,
        stored=stored_bytes(folder) - stored,
    )


class PeakMemory(threading.Thread):
    """Looks several times a second at the memory that a process and its children hold together."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process, self.bytes, self.ended = process, 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look until ended."""
        while not self.ended.wait(0.2):
            try:
                parent = psutil.Process(self.process)
                tree = [parent, *parent.children(recursive=True)]
            except psutil.Error:
                return
            self.bytes = max(self.bytes, sum(map(_resident, tree)))


def _resident(process: psutil.Process) -> int:
    """Resident memory without pages of files, which others share or the system may take back."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def children_cpu() -> float:
    """CPU seconds of all processes that ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def children_bytes() -> tuple[int, int]:
    """Bytes read and written by calls of this process and all that ended below it."""
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]), int(counts["wchar"])


def stored_bytes(folder: Path) -> int:
    """Bytes of all artefacts, without inputs and the records of the runs."""
    return sum(
        path.stat().st_size
        for place in folder.iterdir()
        if place.name not in ("input", "home", "scratch")
        for path in place.rglob("*")
        if path.is_file()
    )


# ------------------------------------------------------------------------------------ report


def report(spent: Mapping[str, Spent]) -> None:
    """Print what the stages took."""
    print(f"{'stage':22}{'wall s':>9}{'CPU s':>9}{'peak GB':>10}{'read GB':>10}"
          f"{'wrote GB':>10}{'stored GB':>10}")  # fmt: skip
    for name, one in spent.items():
        gigabytes = (one.peak, one.read, one.written, one.stored)
        print(f"{name:22}{one.wall:9.0f}{one.cpu:9.0f}"
              + "".join(f"{value / 1e9:10.2f}" for value in gigabytes))  # fmt: skip


def figures_of(file: Path | None, size: Mapping[str, int]) -> dict[str, Spent]:
    """What is kept in a file of a run of the same size, stage by stage."""
    if file is None or not file.exists():
        return {}
    document = json.loads(file.read_text())
    if document["size"] != size:
        return {}
    return {name: Spent(**one) for name, one in document["spent"].items()}


@dataclass(frozen=True)
class Prices:
    """In dollars; assumptions, to be given as options."""

    core_hour: float
    gb_month: float


def extrapolate(
    size: Mapping[str, int], spent: Mapping[str, Spent], than: Path, prices: Prices
) -> None:
    """Print what the whole takes, by the straight line through this run and a smaller one."""
    document = json.loads(than.read_text())
    smaller = {name: Spent(**one) for name, one in document["spent"].items()}
    print(f"\n{WHOLE['regions']} regions, {WHOLE['buildings']:,} buildings, by the line through "
          f"{document['size']} and {dict(size)}")  # fmt: skip
    whole = {}
    for stage in STAGES:
        if stage.name in spent and stage.name in smaller:
            beyond = (WHOLE[stage.per] - size[stage.per]) / (
                size[stage.per] - document["size"][stage.per]
            )
            one, other = asdict(spent[stage.name]), asdict(smaller[stage.name])
            whole[stage.name] = Spent(
                **{key: one[key] + max(one[key] - other[key], 0) * beyond for key in one}
            )
    report(whole)
    hours = sum(one.cpu for one in whole.values()) / 3600
    stored = sum(one.stored for one in whole.values()) / 1e9
    print(f"{hours:.1f} core hours at ${prices.core_hour:g}: ${hours * prices.core_hour:.2f}; "
          f"{stored:.0f} GB at ${prices.gb_month:g} a month: "
          f"${stored * prices.gb_month:.2f} a month")  # fmt: skip


def main() -> None:
    """Make the inputs, run the stages, print their figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regions", type=int, default=len(REGIONS))
    parser.add_argument("--per-region", type=int, default=400_000, help="buildings of one region")
    names = [stage.name for stage in STAGES]
    parser.add_argument(
        "--only", action="append", default=[], choices=names, help="run these stages only"
    )
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--than", type=Path, help="figures of a smaller run, to extrapolate")
    parser.add_argument("--core-hour", type=float, default=0.045, help="dollars")
    parser.add_argument("--gb-month", type=float, default=0.023, help="dollars")
    parser.add_argument("--keep", action="store_true", help="keep what was made")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    stages = {stage.name: stage for stage in STAGES}
    if options.stage:
        run_stage(stages[options.stage])
        return
    size = {"regions": options.regions, "buildings": options.regions * options.per_region}
    folder = options.folder.absolute() / f"regions-{size['regions']}-{size['buildings']}"
    if not (folder / "input" / "catalog.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        start = time.perf_counter()
        alone(make_inputs, folder, *size.values())
        print(f"inputs made in {time.perf_counter() - start:.0f} s, not counted", flush=True)
    blocks = folder / "input" / "world" / f"{inputs.GEOGRAPHIES['block']}.parquet"
    size["blocks"] = pq.read_metadata(blocks).num_rows
    spent = figures_of(options.json, size)
    for name in options.only or stages:
        spent[name] = measured(folder, stages[name])
        print(f"{name}: {spent[name]}", flush=True)
    print(f"{size}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    report(spent)
    if options.json:
        figures = {name: asdict(one) for name, one in spent.items()}
        options.json.write_text(json.dumps({"size": size, "spent": figures}, indent=1))
    if options.than:
        prices = Prices(options.core_hour, options.gb_month)
        extrapolate(size, spent, options.than, prices)
    if not options.keep:
        shutil.rmtree(folder)


def alone(function: Callable[..., None], *args: object) -> None:
    """Call a function in a process of its own, whose memory and bytes are not counted."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


if __name__ == "__main__":
    main()
