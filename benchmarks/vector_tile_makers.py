"""Vector tiles: the makers that install from PyPI, on the same synthetic buildings, in one run.

Each maker runs twice in a process of its own: wall and CPU seconds and peak memory are those of
the second run, and both archives have to have the same bytes to count as the same. Then the tiles
of every zoom are decoded and their different buildings counted.

- ``published``: tippecanoe with the flags of the published archives, reading a ready file.
- ``ours``: what the assets do, from the table of buildings on.
- ``freestiler``: from GeoParquet, the same zooms as ours.
- ``gdal``: the PMTiles driver of GDAL, through pyogrio, the same zooms as ours.

    python benchmarks/vector_tile_makers.py [--points 1000000] [--footprints 200000] [--makers ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import pyarrow as pa
import shapely

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import geojson_lines as geojson
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.pmtiles import read_header
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--footprints", type=int, default=200_000)
    parser.add_argument("--makers", nargs="+", choices=MAKERS, default=MAKERS)
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
        compare(kind, getattr(options, kind), options.makers)


def compare(kind: str, count: int, makers: list[str]) -> None:
    print(f"\n{count:,} {kind}")
    print(f"{'':10} {'wall s':>7} {'CPU s':>7} {'MB peak':>8} {'MB':>7} {'same':>5}  kept at zoom")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process inherits the peak memory of the one that starts it, so this one stays small.
        measured("inputs", kind, count, folder)
        for maker in makers:
            archive = folder / f"{maker}.pmtiles"
            measured(maker, kind, count, folder)
            first = sha256_file(archive)
            wall, cpu, peak = measured(maker, kind, count, folder)
            same = "yes" if sha256_file(archive) == first else "no"
            print(
                f"{maker:10} {wall:7.1f} {cpu:7.1f} {peak:8.0f} "
                f"{archive.stat().st_size / 1e6:7.1f} {same:>5}  {kept(archive)}",
                flush=True,
            )


def synthetic_town(count: int) -> pa.Table:
    """Footprints of 5 to 20 m in clusters, with risk everywhere."""
    random = np.random.default_rng(1)
    towns = random.uniform((-105.6, 39.9), (-105.0, 40.2), (40, 2))
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
        flags = [*PUBLISHED[kind].split(), "-q", "-l", "risk", "-o", output]
        subprocess.run([PROGRAMS / "tippecanoe", *flags, folder / "ready.ndjson"], check=True)
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


def measured(maker: str, kind: str, count: int, folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (MB) of a process and its children."""
    command = [sys.executable, __file__, "--make", maker, kind, str(count), str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{maker} failed with status {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def kept(archive: Path) -> str:
    """Different buildings in the tiles of the lowest, middle and highest zoom."""
    header = read_header(archive)
    zooms = sorted({header.min_zoom, (header.min_zoom + header.max_zoom) // 2, header.max_zoom})
    return ", ".join(f"{zoom}: {buildings(archive, zoom):,}" for zoom in zooms)


def buildings(archive: Path, zoom: int) -> int:
    """Different buildings in the tiles of one zoom, by number; ours are numbered by their ids."""
    command: list[str | Path] = [
        PROGRAMS / "tippecanoe-decode",
        *("-c", f"-Z{zoom}", f"-z{zoom}"),
        archive,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as decode:
        assert decode.stdout is not None
        features = (json.loads(line.rstrip(b",\n")) for line in decode.stdout)
        ours = archive.stem == "ours"
        return len({one["id"] if ours else one["properties"]["0"] for one in features})


if __name__ == "__main__":
    main()
