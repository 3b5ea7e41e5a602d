"""A backfill of 1,000 tiles of a year through the real daemon: what one costs beyond science.

Budget: 0.25 s of wall time per partition beyond the science and the daemon's fixed ticks, on the
embedded instance, as in :mod:`backfill`, which this file shares its measurement with. Imagery is
synthetic and coarse, so that the science of a tile is short. One tile is made at a time, since
seconds of tiles that are made side by side could not be subtracted from the wall time.

CPU seconds, which other work on the machine does not change, are told beside: those of all
processes beyond what the same tiles take without Dagster.

Radar is backfilled for all tiles, tree cover for some, whose three sources are made by
`ocr tiles run` before; what that command takes is told as well. The alternative is a run per
partition, on a few of the partitions.

    python benchmarks/tile_backfill.py [--tiles 1000] [--tree-cover 60] [--alternative 8]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import shapely
from affine import Affine
from backfill import Backfill, RunningDagster, backfill, print_verdict
from odc.geo.geobox import GeoBox
from running_dagster import OCR
from sample_worlds import environment
from scene_folders import SceneFolder, in_degrees

from ocr_assets.tile_history import add_tiles
from ocr_assets.tile_library import SOURCES, TREE_COVER, Source, SourceKey, TileLibrary
from ocr_assets.tile_products import make_tree_cover
from ocr_assets.tile_sources import make_source
from ocr_assets.tiles import elevation, sentinel1, sentinel2
from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M
from ocr_assets.tiles.grid import Tile, TileGrid
from resources.settings import Settings

YEAR = 2023
NORTH = shapely.box(14.2, 51.0, 17.8, 53.9)
"""Degrees, of one UTM zone. Tiles of the north are narrow."""

SURROUNDINGS = 60_000.0
COARSE, CELL = 1_000.0, 0.01
_TRIED = 5
NOTICE = "Synthetic imagery of a benchmark."


def write_imagery(folder: Path, grid: TileGrid, tiles: Sequence[Tile]) -> None:
    """Scenes of one value in coarse pixels over all tiles: four of radar, four optical days."""
    boxes = np.array([grid.bbox(tile) for tile in tiles])
    west, south, east, north = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
    rows, columns = (int(np.ceil(length / CELL)) + 8 for length in (north - south, east - west))
    corner = Affine(CELL, 0, west - 4 * CELL, 0, -CELL, north + 4 * CELL)
    cell = GeoBox((rows, columns), corner, "EPSG:4326")
    heights = np.add.outer(np.linspace(100, 900, rows), np.linspace(0, 300, columns))
    terrain = SceneFolder(folder, elevation.COLLECTION)
    footprint = shapely.box(*tuple(cell.boundingbox))
    terrain.add(
        "cell",
        "2021-04-22T00:00:00Z",
        {"data": (heights, cell)},
        dtype="float32",
        nodata=None,
        footprint=footprint,
    )
    terrain.save()
    area = GeoBox.from_bbox(cell.boundingbox, "EPSG:4326", shape=(2, 2))
    box = area.extent.to_crs("EPSG:32633").boundingbox.buffered(SURROUNDINGS)
    coarse = GeoBox.from_bbox(box, "EPSG:32633", resolution=COARSE)
    outline = in_degrees(coarse)
    radar = SceneFolder(folder, sentinel1.COLLECTION)
    optical = SceneFolder(folder, sentinel2.COLLECTION)
    for month in (2, 5, 8, 11):
        radar.add(
            f"radar-{month}",
            f"{YEAR}-{month:02d}-01T16:00:00Z",
            {"vv": (0.1, coarse), "vh": (0.02, coarse)},
            dtype="float32",
            nodata=-32768,
            footprint=outline,
            sat__orbit_state="ascending",
        )
        bands = {sentinel2.ASSETS[band][0]: (2500, coarse) for band in (*BANDS_10M, *BANDS_20M)}
        optical.add(
            f"optical-{month}",
            f"{YEAR}-{month:02d}-01T10:00:00Z",
            {**bands, "scl": (4, coarse)},
            footprint=outline,
            eo__cloud_cover=1.0,
            s2__processing_baseline="03.01",
        )
    radar.save()
    optical.save()
    (folder / "NOTICE").write_text(NOTICE + "\n")


def write_request(path: Path, grid: TileGrid, tiles: Sequence[Tile]) -> None:
    """A tiles CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Year", "X", "Y", "Y_tile", "X_tile"))
        writer.writerows((YEAR, *grid.centre(tile), tile.y, tile.x) for tile in tiles)


class Workplace:
    """Tiles, their imagery, and backfills of them."""

    def __init__(self, folder: Path, amount: int) -> None:
        self.folder = folder
        self.grid = TileGrid.load()
        self.tiles = self.grid.tiles_in(NORTH)[:amount]
        imagery = folder / "imagery"
        write_imagery(imagery, self.grid, self.tiles)
        self.settings: dict[str, Any] = {"workers": 1}
        for source in SOURCES:
            self.settings |= {f"{source}_source": str(imagery), f"{source}_access": "anonymous"}
        self.variables = {f"OCR_{name.upper()}": str(v) for name, v in self.settings.items()}

    def backfill(self, asset: Source, amount: int, name: str, root: str, **more: str) -> Backfill:
        """Backfill an asset on an instance of its own."""
        tiles = self.tiles[:amount]

        def prepare(_: RunningDagster, home: Path) -> None:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                add_tiles(instance, tiles)

        measured = backfill(
            {**self.variables, **more, "OCR_STORAGE_ROOT": str(self.folder / root)},
            [asset],
            [f"{tile}|{YEAR}" for tile in tiles],
            self.folder / name,
            prepare,
        )
        measured.report(f"{asset}, {name}")
        spent, science = sum(measured.cpu.values()), self.science(asset, root)
        print(f"  CPU s beyond science of {science:.3f}: {spent / amount - science:.3f} each")
        return measured

    def science(self, asset: Source, root: str) -> float:
        """CPU seconds of a tile that is made in this process, without Dagster."""
        settings = Settings(storage_root=str(self.folder / root), **self.settings)
        library = TileLibrary(settings)
        year = None if asset == "elevation" else YEAR
        keys = [SourceKey(asset, tile, year) for tile in self.tiles[: _TRIED + 1]]
        make = make_tree_cover if asset == TREE_COVER else make_source
        make(library, keys[0], again=True)  # loads code and networks
        started = time.process_time()
        for key in keys[1:]:
            make(library, key, again=True)
        return (time.process_time() - started) / _TRIED

    def command(self, amount: int, root: str) -> None:
        """Make the sources of tiles by `ocr tiles run`, and tell what that took."""
        request, home = self.folder / "request.csv", self.folder / "command"
        write_request(request, self.grid, self.tiles[:amount])
        places = {"OCR_STORAGE_ROOT": str(self.folder / root), "DAGSTER_HOME": str(home)}
        variables = environment({**self.variables, **places})

        def ocr(*arguments: str) -> str:
            command = [OCR, "tiles", *arguments, "--sources", ",".join(SOURCES)]
            done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
            return done.stdout.decode()

        started, before = time.perf_counter(), os.times()
        ocr("run", str(request), "--yes")
        wall, after = time.perf_counter() - started, os.times()
        spent = sum(after[2:4]) - sum(before[2:4])
        totals = json.loads(ocr("status", str(request), "--json"))["totals"]
        partitions = len(SOURCES) * amount
        overhead = wall - sum(totals[source]["seconds"] for source in SOURCES)
        science = amount * sum(self.science(source, root) for source in SOURCES)
        print(
            f"ocr tiles run: {partitions} partitions in {wall:.1f} s wall, with the start "
            f"{overhead / partitions:.3f} s wall and {(spent - science) / partitions:.3f} CPU s "
            "beyond science each"
        )


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1000, help="tiles of the radar backfill")
    parser.add_argument("--tree-cover", type=int, default=60, help="tiles that get tree cover")
    parser.add_argument("--alternative", type=int, default=8, help="partitions with a run each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backfill-") as name:
        place = Workplace(Path(name), max(options.tiles, options.tree_cover, options.alternative))
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        ours = place.backfill("sentinel1", options.tiles, "batched", "ours")
        if options.tree_cover:
            place.command(options.tree_cover, "cover")
            place.backfill("tree_cover", options.tree_cover, "cover-batched", "cover")
        if options.alternative:
            single = {"OCR_TILES_PER_RUN": "1"}
            other = place.backfill("sentinel1", options.alternative, "run-each", "single", **single)
            print_verdict(ours, other)


if __name__ == "__main__":
    main()
