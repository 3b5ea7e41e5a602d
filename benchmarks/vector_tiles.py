"""Vector tiles: ours against tippecanoe with the flags of the published archives.

Both make the same synthetic buildings into tiles with the same program, in the same run. Ours pays
for reading the table, for order (the same bytes on every machine) and for a highest zoom that
holds every building; the published flags read a ready file in parallel and guess the zoom.

    python benchmarks/vector_tiles.py [--points 200000] [--footprints 50000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import geojson_lines as geojson
from ocr_assets.regions.pmtiles import read_header
from ocr_assets.regions.vector_tiles import (
    BUILDING_PROPERTIES,
    CENTROID_PROPERTIES,
    building_centroid_tiles,
    building_tiles,
)

PROGRAMS = Path(sysconfig.get_path("scripts"))

# -q and the layer's name apart, the flags of the published archives.
PUBLISHED = {
    "footprints": "-f -P -zg -Z6 --drop-smallest-as-needed --extend-zooms-if-still-dropping "
    "--generate-ids",
    "points": "-f -P -zg --drop-fraction-as-needed --no-feature-limit "
    "--extend-zooms-if-still-dropping --generate-ids",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--footprints", type=int, default=50_000)
    sizes = parser.parse_args()
    print(
        f"{'':12} {'':10} {'CPU s':>7} {'wall s':>7} {'MB':>7} {'top zoom':>8} {'kept there':>10}"
    )
    for kind, count, make in (
        ("points", sizes.points, building_centroid_tiles),
        ("footprints", sizes.footprints, building_tiles),
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            town = synthetic_town(count)
            write_geoparquet(town, folder / "town.parquet", {})
            write_lines(town, kind, folder / "town.ndjson")
            rows = {}
            for maker, work in (
                ("published", lambda kind=kind, folder=folder: published(kind, folder)),
                (
                    "ours",
                    lambda make=make, folder=folder: make(
                        [folder / "town.parquet"], folder / "ours.pmtiles"
                    ),
                ),
            ):
                rows[maker] = cpu, wall = measured(work)
                archive = folder / f"{maker}.pmtiles"
                zoom = read_header(archive).max_zoom
                print(
                    f"{kind:12} {maker:10} {cpu:7.1f} {wall:7.1f} "
                    f"{archive.stat().st_size / 1e6:7.1f} {zoom:8} {kept(archive, zoom):10,}"
                )
            cpu, wall = (
                ours / theirs for ours, theirs in zip(*reversed(rows.values()), strict=True)
            )
            print(f"{kind:12} {'ratio':10} {cpu:7.2f} {wall:7.2f}   ({count:,} buildings)")


def synthetic_town(count: int) -> pa.Table:
    """Footprints of 5 to 20 m in forty clusters, with risk everywhere."""
    random = np.random.default_rng(1)
    towns = random.uniform((-105.6, 39.9), (-105.0, 40.2), (40, 2))
    west, south = (towns[random.integers(0, 40, count)] + random.normal(0, 0.02, (count, 2))).T
    width, height = random.uniform(4e-5, 2e-4, (2, count))
    boxes = shapely.box(west, south, west + width, south + height)
    values = {n: random.lognormal(-3, 1.5, count).astype(np.float32) for n in BUILDING_PROPERTIES}
    return pa.table(values | {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)})


def write_lines(town: pa.Table, kind: str, path: Path) -> None:
    """The ready file of the published way; writing it is not counted."""
    geometry = shapely.from_wkb(town["geometry"].to_numpy())
    if kind == "points":
        values = (np.round(town[name].to_numpy(), 3) for name in CENTROID_PROPERTIES)
        columns = [geojson.numbers(pa.array(value)) for value in values]
        geometry = shapely.centroid(geometry)
    else:
        columns = [geojson.numbers(town[name]) for name in BUILDING_PROPERTIES]
    path.write_bytes(geojson.text_of(geojson.features(geometry, columns, "")))


def published(kind: str, folder: Path) -> None:
    flags = [*PUBLISHED[kind].split(), "-q", "-l", "risk", "-o", "published.pmtiles"]
    subprocess.run([PROGRAMS / "tippecanoe", *flags, "town.ndjson"], cwd=folder, check=True)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, of this process and its children, and wall seconds."""
    start, wall = cpu_seconds(), time.perf_counter()
    work()
    return cpu_seconds() - start, time.perf_counter() - wall


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def kept(archive: Path, zoom: int) -> int:
    """Different buildings in the tiles of one zoom."""
    command: list[str | Path] = [
        PROGRAMS / "tippecanoe-decode",
        "-c",
        f"-Z{zoom}",
        f"-z{zoom}",
        archive,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as decode:
        assert decode.stdout is not None
        return len({json.loads(line.rstrip(b",\n"))["id"] for line in decode.stdout})


if __name__ == "__main__":
    main()
