"""Vector tiles: makers that come as Python packages, on the same synthetic buildings, in one run.

Each maker runs twice in a process of its own: wall and CPU seconds and peak memory are those of
the second run, and both archives have to have the same bytes to count as the same. Then the tiles
are decoded: how many different buildings a zoom has, and how a town looks from afar and near.

- ``published``: tippecanoe with the flags of the published archives, reading a ready file.
- ``ours``: what the assets do, from the table of buildings on.
- ``freestiler``: as it comes, from GeoParquet, the same zooms as ours; points with its drop rate.
- ``gdal``: the PMTiles driver of GDAL, through pyogrio, the same zooms as ours.

    python benchmarks/vector_tile_makers.py [--points 1000000] [--footprints 200000]
        [--makers ...] [--limit 300] [--pictures FOLDER]

A maker that takes more than ``--limit`` CPU seconds is stopped, and the output says so.
Smaller numbers of buildings make a quick run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import geojson_lines as geojson
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.mercator import WORLD, world_steps
from ocr_assets.regions.pmtiles import read_header, tile_lengths
from ocr_assets.regions.vector_tiles import building_centroid_tiles, building_tiles
from resources.manifest import sha256_file

PROGRAMS = Path(sysconfig.get_path("scripts"))
MAKERS = ("published", "ours", "freestiler", "gdal")
PUBLISHED = {
    "points": "-f -P -zg --drop-fraction-as-needed --no-feature-limit "
    "--extend-zooms-if-still-dropping",
    "footprints": "-f -P -zg -Z6 --drop-smallest-as-needed --extend-zooms-if-still-dropping "
    "--generate-ids",
}
"""Flags of the published archives, apart from -q and the layer's name."""

ZOOMS = {"points": (0, 12), "footprints": (6, 14)}
COUNTED = {"points": (0, 4, 8, 10, 11, 12), "footprints": (6, 8, 10, 12, 14)}
PICTURED = {"points": (6, 8, 11), "footprints": (8, 10, 12)}

PIXELS = 512
"""Side of the picture of a tile."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--footprints", type=int, default=200_000)
    parser.add_argument("--makers", nargs="+", choices=MAKERS, default=MAKERS)
    parser.add_argument("--limit", type=int, default=300, help="CPU seconds of a maker")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each kind")
    parser.add_argument("--make", nargs=4, metavar=("MAKER", "KIND", "COUNT", "FOLDER"))
    options = parser.parse_args()
    if options.make:
        maker, kind, count, folder = options.make
        if maker == "inputs":
            write_inputs(synthetic_town(int(count)), kind, Path(folder))
        else:
            make(maker, kind, Path(folder))
        return
    for kind in ("points", "footprints"):
        if count := getattr(options, kind):
            compare(kind, count, options.makers, options.limit, options.pictures)


def compare(
    kind: str, count: int, makers: Sequence[str], limit: int, pictures: Path | None
) -> None:
    print(f"\n{count:,} {kind}")
    print(
        f"{'':10} {'wall s':>7} {'CPU s':>7} {'MB peak':>8} {'MB':>7} {'kB tile':>8} {'same':>5}"
        "  kept at zoom"
    )
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process inherits the peak memory of the one that starts it, so this one stays small.
        if measured("inputs", kind, count, folder, limit) is None:
            raise SystemExit(f"the inputs take more than {limit} CPU s")
        for maker in makers:
            archive = folder / f"{maker}.pmtiles"
            taken = measured(maker, kind, count, folder, limit)
            if taken is None:
                print(f"{maker:10} stopped after {limit} CPU s")
                continue
            first = sha256_file(archive)
            wall, cpu, peak = measured(maker, kind, count, folder, limit) or taken
            same = "yes" if sha256_file(archive) == first else "no"
            print(
                f"{maker:10} {wall:7.1f} {cpu:7.1f} {peak:8.0f} "
                f"{archive.stat().st_size / 1e6:7.1f} {tile_lengths(archive).max() / 1e3:8.0f} "
                f"{same:>5}  {kept(archive, COUNTED[kind])}",
                flush=True,
            )
            if pictures:
                rows.append(looks(archive, maker, PICTURED[kind]))
    if pictures and rows:
        pictures.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / f"{kind}.png"), np.vstack(rows))


def first_town() -> tuple[float, float]:
    west, south = town_places(np.random.default_rng(1))[0]
    return west, south


def town_places(random: np.random.Generator) -> NDArray[np.float64]:
    return random.uniform((-105.6, 39.9), (-105.0, 40.2), (40, 2))


def synthetic_town(count: int) -> pa.Table:
    """Footprints of 5 to 20 m in clusters, with risk everywhere."""
    random = np.random.default_rng(1)
    towns = town_places(random)
    west, south = (towns[random.integers(0, 40, count)] + random.normal(0, 0.02, (count, 2))).T
    width, height = random.uniform(4e-5, 2e-4, (2, count))
    boxes = shapely.box(west, south, west + width, south + height)
    values = {name: random.lognormal(-3, 1.5, count).astype(np.float32) for name in FIRE.tiled}
    # A value that no other building has, so that kept buildings can be counted in any archive.
    values[FIRE.scored[0]] = (np.arange(count) + 1).astype(np.float32)
    return pa.table(values | {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)})


def write_inputs(town: pa.Table, kind: str, folder: Path) -> None:
    """The table of ours, and the ready files of the others; writing them is not counted."""
    write_geoparquet(town, folder / "town.parquet", {})
    geometry = shapely.from_wkb(town["geometry"].to_numpy())
    names = FIRE.tiled
    if kind == "points":
        geometry, names = shapely.centroid(geometry), FIRE.scored
    columns = [geojson.numbers(town[name]) for name in names]
    lines = geojson.features(geometry, columns, "")
    (folder / "ready.ndjson").write_bytes(geojson.text_of(lines))
    ready = {str(place): town[name] for place, name in enumerate(names)}
    # freestiler does not read the compression of our tables.
    plain = geopandas.GeoDataFrame(
        {name: column.to_numpy() for name, column in ready.items()}, geometry=geometry, crs=4326
    )
    plain.to_parquet(folder / "ready.parquet", compression="snappy")


def make(maker: str, kind: str, folder: Path) -> None:
    output = folder / f"{maker}.pmtiles"
    low, high = ZOOMS[kind]
    if maker == "ours":
        tiles = building_centroid_tiles if kind == "points" else building_tiles
        tiles(FIRE, [folder / "town.parquet"], output)
    elif maker == "published":
        flags = [*PUBLISHED[kind].split(), "-q", "-l", "risk", "-o", str(output)]
        ready = str(folder / "ready.ndjson")
        program = str(PROGRAMS / "tippecanoe")
        # In place of this process, so that what is measured and limited is the program.
        os.execv(program, [program, *flags, ready])  # noqa: S606
    elif maker == "freestiler":
        import freestiler

        freestiler.freestile_file(
            str(folder / "ready.parquet"),
            str(output),
            layer_name="risk",
            min_zoom=low,
            max_zoom=high,
            drop_rate=2.5 if kind == "points" else None,
            quiet=True,
        )
    else:
        import pyogrio

        meta, table = pyogrio.read_arrow(folder / "ready.ndjson")
        output.unlink(missing_ok=True)
        pyogrio.write_arrow(
            table,
            output,
            layer="risk",
            driver="PMTiles",
            geometry_name=meta["geometry_name"] or "wkb_geometry",
            geometry_type="Point" if kind == "points" else "Polygon",
            crs="EPSG:4326",
            dataset_options={
                "MINZOOM": low,
                "MAXZOOM": high,
                "MAX_SIZE": 500_000,
                "MAX_FEATURES": 200_000,
            },
        )


def measured(
    maker: str, kind: str, count: int, folder: Path, limit: int
) -> tuple[float, float, float] | None:
    """Wall seconds, CPU seconds, peak memory (MB) of a process; None if it was stopped."""
    command = [sys.executable, __file__, "--make", maker, kind, str(count), str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return None
    if process.returncode:
        raise SystemExit(f"{maker} failed with status {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def kept(archive: Path, zooms: Sequence[int]) -> str:
    """Different buildings in the tiles of some zooms, and of the highest."""
    header = read_header(archive)
    there = {zoom for zoom in zooms if header.min_zoom <= zoom <= header.max_zoom}
    found = {zoom: buildings(archive, zoom) for zoom in sorted(there | {header.max_zoom})}
    return ", ".join(f"{zoom}: {count:,}" for zoom, count in found.items())


def buildings(archive: Path, zoom: int) -> int:
    """Different buildings in the tiles of one zoom, by id or else by a value of their own."""
    number = re.compile(rb'"id": (\d+)' if archive.stem == "ours" else rb'"0": ([0-9.e+]+)')
    command = decoder("-c", f"-Z{zoom}", f"-z{zoom}", archive)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as decode:
        assert decode.stdout is not None
        return len({found[1] for line in decode.stdout if (found := number.search(line))})


def decoder(*arguments: str | Path) -> list[str | Path]:
    return [PROGRAMS / "tippecanoe-decode", *arguments]


def looks(archive: Path, maker: str, zooms: Sequence[int]) -> NDArray[np.uint8]:
    """The tile of some zooms that holds the first town, drawn plainly, side by side."""
    west, south = first_town()
    pictures = []
    for zoom in zooms:
        picture = np.full((PIXELS, PIXELS, 3), 240, np.uint8)
        x, y = np.floor(tile_place(np.array([west]), np.array([south]), zoom)[0]).astype(int)
        if read_header(archive).max_zoom >= zoom:
            draw(picture, archive, (zoom, int(x), int(y)))
            text = f"{maker}, zoom {zoom}"
        else:
            text = f"{maker} ends before zoom {zoom}"
        cv2.putText(picture, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 200), 1)
        pictures.append(cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT))
    return np.hstack(pictures)


def draw(picture: NDArray[np.uint8], archive: Path, tile: tuple[int, int, int]) -> None:
    zoom, *corner = tile
    for feature in features(archive, tile):
        geometry = feature["geometry"]
        shape = shapely.geometry.shape(geometry)
        for part in shapely.get_parts(shape):
            longitude, latitude = shapely.get_coordinates(part).T
            pixels = (tile_place(longitude, latitude, zoom) - corner) * PIXELS
            # Places of a sixteenth of a pixel.
            fine = np.rint(pixels * 16).astype(np.int32)
            if geometry["type"] == "Point":
                cv2.circle(picture, fine[0].tolist(), 24, (120, 60, 30), -1, cv2.LINE_AA, 4)
            else:
                cv2.fillPoly(picture, [fine], (120, 60, 30), cv2.LINE_AA, 4)


def features(archive: Path, tile: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    done = subprocess.run(
        decoder("-c", archive, *map(str, tile)), capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if '"Feature"' in line:
            yield json.loads(line.rstrip(","))


def tile_place(
    longitude: NDArray[np.float64], latitude: NDArray[np.float64], zoom: int
) -> NDArray[np.float64]:
    """Column and row of Web Mercator tiles, with the part of the tile, shape ``(n, 2)``."""
    return world_steps(longitude, latitude) / (WORLD >> zoom)


if __name__ == "__main__":
    main()
