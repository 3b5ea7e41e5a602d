"""Ten million synthetic buildings, partitioned by county and summarised at five levels.

Budget: partition and summary in at most 180 s of wall time on two cores and 4 GB. The alternative
is DuckDB in the plainest way, in the same run on the same files: COPY with PARTITION_BY (without
the spatial order), and one GROUP BY with ``quantile_cont`` for each level (without outlines).

    python benchmarks/buildings_10m.py [--buildings 10000000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from ocr_assets.geoparquet import bbox_array, hilbert_order, wkb_array
from ocr_assets.regions.building_partitions import open_buildings, partition_buildings
from ocr_assets.regions.buildings import building_schema, write_region_buildings
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geographies import CODE_LENGTH, LEVELS, STATES, Level, geography_schema
from ocr_assets.regions.grid import CONUS, CONUS_WINDOW
from ocr_assets.regions.risk import CLIMATES, VARIABLES, risk_score
from ocr_assets.regions.statistics import PERCENTILES, write_statistics

REGIONS = [f"y{iy}_x{ix}" for iy in range(6, 10) for ix in range(10, 15)]
COUNTY_ROWS, COUNTY_COLS, COUNTIES_ACROSS_STATE = 15, 20, 5
BUILDINGS_PER_BLOCK, TRACTS_PER_COUNTY = 20, 40
AREA = (
    *CONUS.region_window(REGIONS[0]).bounds[:2],
    *CONUS.region_window(REGIONS[-1]).bounds[2:],
)
# An L-shaped footprint of about 15 m, eight corners.
CORNERS = np.array([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0.5, 2), (0, 2), (0, 0)]) * 7e-5


def block_codes(
    longitude: np.ndarray, latitude: np.ndarray, buildings: int
) -> tuple[np.ndarray, np.ndarray]:
    """Integer block code and state number of each place: a lattice of counties over the area."""
    west, south, east, north = AREA
    x = (longitude - west) / (east - west) * COUNTY_COLS
    y = (latitude - south) / (north - south) * COUNTY_ROWS
    col, row = x.astype(int), y.astype(int)
    state = row // 5 * (COUNTY_COLS // COUNTIES_ACROSS_STATE) + col // COUNTIES_ACROSS_STATE
    county = row % 5 * COUNTIES_ACROSS_STATE + col % COUNTIES_ACROSS_STATE
    blocks = buildings / BUILDINGS_PER_BLOCK / (COUNTY_ROWS * COUNTY_COLS)
    side = max(int(np.sqrt(blocks)), 1)
    cell = ((y % 1) * side).astype(int) * side + ((x % 1) * side).astype(int)
    tract, block = cell * TRACTS_PER_COUNTY // side**2, cell % 9000
    fips = np.array([int(code) for code in STATES])[state]
    code = ((fips * 1000 + 2 * county + 1) * 1_000_000 + tract * 100 + 100) * 10_000 + 1000 + block
    return code, state


def region_table(number: int, buildings: int) -> pa.Table:
    """Synthetic buildings of one region, denser towards its south-west."""
    region_id = REGIONS[number]
    rng = np.random.default_rng(number)
    n = buildings // len(REGIONS)
    west, south, east, north = CONUS.region_window(region_id).bounds
    lon = west + (east - west - 2e-4) * rng.random(n) ** 1.3
    lat = south + (north - south - 2e-4) * rng.random(n) ** 1.3
    geometry = np.asarray(shapely.polygons(np.stack([lon, lat], axis=1)[:, None, :] + CORNERS))
    values = {
        name: np.where(rng.random(n) < 0.3, 0, rng.lognormal(-4, 2, n)).astype(np.float32)
        for name in VARIABLES
    }
    code, state = block_codes(lon, lat, buildings)
    codes = np.char.zfill(code.astype(str), 15)
    table = pa.table(
        [
            pa.array([f"{number:02}{i:014x}" for i in rng.permutation(n)]),
            *values.values(),
            *(risk_score(values[f"rps_{year}"], "corrected") for year in CLIMATES),
            pa.array(codes),
            pa.array(np.array(list(STATES.values()))[state]),
            pa.array(np.char.add("County ", codes.astype("U5"))),
            pa.repeat(region_id, n),
            wkb_array(geometry),
            bbox_array(geometry),
        ],
        schema=building_schema(FIRE),
    )
    return table.take(hilbert_order(table, CONUS_WINDOW.bounds, "building_id"))


def generate(folder: Path, buildings: int) -> None:
    """Write the region files."""
    for number, region_id in enumerate(REGIONS):
        write_region_buildings(region_table(number, buildings), folder / f"{region_id}.parquet", {})


def geographies(folder: Path) -> dict[Level, pa.Table]:
    """Square outlines for every code that occurs."""
    codes = pa.concat_arrays(
        [
            pq.read_table(file, columns=["GEOID"])["GEOID"].combine_chunks().unique()
            for file in sorted(folder.glob("*.parquet"))
        ]
    ).to_numpy(zero_copy_only=False)
    tables: dict[Level, pa.Table] = {}
    for level in LEVELS:
        geoid = np.unique(np.array([c[: CODE_LENGTH[level]] or "US" for c in codes]))
        south = np.linspace(30, 31, len(geoid))
        outline = np.asarray(
            shapely.box(np.full_like(south, -100), south, np.full_like(south, -99), south + 1)
        )
        schema = geography_schema(level)
        columns = {"GEOID": geoid, "NAME": geoid, "STUSPS": geoid}
        columns |= {"geometry": wkb_array(outline), "bbox": bbox_array(outline)}
        tables[level] = pa.table([columns[name] for name in schema.names], schema=schema)
    return tables


@contextmanager
def stage(name: str) -> Iterator[list[float]]:
    """Print wall and CPU seconds of a block, and the peak memory of the process up to its end."""
    spent: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent += [time.perf_counter() - wall, time.process_time() - cpu]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:32} {spent[0]:8.1f} s wall {spent[1]:8.1f} s CPU {peak:6.2f} GiB peak so far")


def ours(folder: Path, scratch: Path, outlines: dict[Level, pa.Table]) -> list[float]:
    """Partition and summarise; wall and CPU seconds of both."""
    regions = {file.stem: file for file in sorted(folder.glob("*.parquet"))}
    with stage("partition by county") as partitioned:
        files, report = partition_buildings(FIRE, regions, scratch / "buildings", {})
    assert report.rows_in == report.rows_out
    paths = [str(path) for path in files.values()]
    dataset = open_buildings(FIRE, paths, str(scratch / "buildings"))
    total = [0.0, 0.0]
    for level in LEVELS:
        with stage(f"summarise {level}") as spent:
            path = scratch / f"{level}.parquet"
            counts = write_statistics(FIRE, path, dataset, level, outlines[level], "corrected", {})
        assert counts.counted + counts.without_code == counts.buildings == report.rows_out
        total = [a + b for a, b in zip(total, spent, strict=True)]
    print(f"{report}, blocks in {(scratch / 'block.parquet').stat().st_size / 1e6:.0f} MB")
    return [a + b for a, b in zip(total, partitioned, strict=True)]


def alternative(folder: Path, scratch: Path) -> list[float]:
    """The same with DuckDB; wall and CPU seconds."""
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    source = connection.read_parquet(f"{folder}/*.parquet")
    aggregates = ", ".join(
        f"avg({v}::DOUBLE) AS {v}_mean, quantile_cont({v}, [0.5, {quantiles}]) AS {v}_quantiles"
        for v in FIRE.summarised
        for quantiles in [", ".join(str(p / 100) for p in PERCENTILES)]
    )
    aggregates += ", " + ", ".join(
        f"count(*) FILTER (risk_score_{year} = {score}) AS hist_{year}_{score}"
        for year in CLIMATES
        for score in range(11)
    )
    with stage("DuckDB: both") as spent:
        source.project("*, GEOID[1:2] AS state_fips, GEOID[3:5] AS county_fips").write_parquet(
            f"{scratch}/duckdb", compression="zstd", partition_by=["state_fips", "county_fips"]
        )
        for level in LEVELS:
            source.aggregate(
                f"GEOID[1:{CODE_LENGTH[level]}] AS code, count(*) AS building_count, {aggregates}"
            ).order("code").write_parquet(f"{scratch}/duckdb_{level}.parquet")
    for level in LEVELS:
        mine = pq.read_table(scratch / f"{level}.parquet")
        theirs = pq.read_table(scratch / f"duckdb_{level}.parquet")
        assert mine["building_count"].to_pylist() == theirs["building_count"].to_pylist(), level
        np.testing.assert_allclose(mine["rps_2011_mean"], theirs["rps_2011_mean"], rtol=1e-12)
        quantiles = np.stack(theirs["rps_2011_quantiles"].to_numpy())
        np.testing.assert_allclose(mine["rps_2011_p99"], quantiles[:, 3], rtol=1e-6)
    return spent


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buildings", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=Path, default=None, help="folder with 10 GB to spare")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="buildings-10m-", dir=options.scratch))
    folder = scratch / "regions"
    try:
        print(f"{options.buildings} buildings in {len(REGIONS)} regions")
        start = time.perf_counter()
        # In a process of its own, so that its memory is not counted.
        maker = multiprocessing.get_context("spawn").Process(
            target=generate, args=(folder, options.buildings)
        )
        maker.start()
        maker.join()
        assert maker.exitcode == 0
        print(f"{'generate (not counted)':32} {time.perf_counter() - start:8.1f} s wall")
        spent = ours(folder, scratch, geographies(folder))
        print(f"{'partition and summarise':32} {spent[0]:8.1f} s wall {spent[1]:8.1f} s CPU")
        plain = alternative(folder, scratch)
        print(
            f"DuckDB takes {plain[1] / spent[1]:.1f} times the CPU, "
            f"{plain[0] / spent[0]:.1f} times the wall time"
        )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
