"""Bad input through the whole pipeline: one clear line or a correct result, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import xarray as xr
from engines import wait_until
from sample_worlds import OCR, Outcome, World, environment

from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions import inputs
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.sample.world import UNBUILT_REGION

Ocr = Callable[..., Outcome]
REGION = "y1_x1"
BP_270M = inputs.BURN_PROBABILITY_270M[2047]
BP_30M = inputs.BURN_PROBABILITY_30M[2011]


def wrong_crs(world: World) -> None:
    wkt = {"crs_wkt": 'LOCAL_CS["somewhere"]'}
    world.doctor_raster(BP_270M, lambda raster: raster.assign_coords(spatial_ref=((), 0, wkt)))


def other_crs(world: World) -> None:
    world.doctor_raster(BP_270M, lambda raster: raster.drop_vars("spatial_ref"))
    world.replace(BP_270M, crs="EPSG:3857")


def wrong_shape(world: World) -> None:
    world.doctor_raster(inputs.CONDITIONAL_RISK, lambda raster: raster.isel(latitude=slice(0, 500)))


def shifted(world: World) -> None:
    def shift(raster: xr.Dataset) -> xr.Dataset:
        return raster.assign_coords(longitude=raster["longitude"] + 1e-5)

    world.doctor_raster(BP_30M, shift)


def missing_variable(world: World) -> None:
    world.doctor_raster(inputs.CONDITIONAL_RISK, lambda raster: raster.drop_vars("RPS"))


def missing_dataset(world: World) -> None:
    world.edit_catalog(lambda document: document["datasets"].pop(BP_30M))


def no_data(world: World) -> None:
    world.doctor_region(inputs.CONDITIONAL_RISK, "CRPS", REGION, np.nan)


def negative_weights(world: World) -> None:
    def spoil(raster: xr.Dataset) -> xr.Dataset:
        raster["wind_direction_distribution"].values[:, :, 3] = -0.25
        return raster

    world.doctor_raster(inputs.WIND, spoil)


def truncated_buildings(world: World) -> None:
    place = world.doctor_table(inputs.BUILDINGS, lambda table: table)
    place.write_bytes(place.read_bytes()[:-1000])


def no_parquet(world: World) -> None:
    world.doctor_table(inputs.BUILDINGS, lambda table: table).write_text("id,geometry\n")


def missing_buildings(world: World) -> None:
    world.doctor_table(inputs.BUILDINGS, lambda table: table).unlink()


def buildings_without_codes(world: World) -> None:
    world.doctor_table(inputs.BUILDINGS, lambda table: table.drop_columns(["GEOID"]))


def missing_raster(world: World) -> None:
    world.replace(inputs.WIND, uri=str(world.folder / "nothing.icechunk"))


BAD_INPUT: list[tuple[Callable[[World], None], str]] = [
    (wrong_crs, f"{BP_270M}: coordinate system is 'somewhere', expected EPSG:5070"),
    (other_crs, f"{BP_270M}: coordinate system is 'WGS 84 / Pseudo-Mercator', expected"),
    (wrong_shape, f"{inputs.CONDITIONAL_RISK}: latitude covers "),
    (shifted, f"{BP_30M}: longitude is not on the pixel grid"),
    (missing_variable, f"{inputs.CONDITIONAL_RISK}: variable 'RPS' is missing, found CRPS"),
    (missing_dataset, f"has no dataset '{BP_30M}'"),
    (no_data, f"{inputs.CONDITIONAL_RISK}: CRPS has no value in region {REGION}"),
    (negative_weights, f"{inputs.WIND}: wind_direction_distribution runs from -0.25 to"),
    (truncated_buildings, f"{inputs.BUILDINGS}.parquet"),
    (no_parquet, f"{inputs.BUILDINGS}.parquet"),
    (missing_buildings, f"{inputs.BUILDINGS}.parquet"),
    (buildings_without_codes, "has no column 'GEOID'"),
    (missing_raster, f"dataset '{inputs.WIND}': there is no Icechunk repository"),
]


@pytest.mark.parametrize(
    ("spoil", "message"), BAD_INPUT, ids=[spoil.__name__ for spoil, _ in BAD_INPUT]
)
def test_bad_input_fails_the_region_and_leaves_no_trace(
    world: World, spoil: Callable[[World], None], message: str
) -> None:
    spoil(world)
    deployment = world.deployment()
    deployment.regions.initialize(deployment.template)
    writer = RegionWriter(deployment)
    assert list(writer.write([REGION])) == [REGION]
    assert message in writer.failed[REGION]
    assert deployment.ledger() == {}
    assert deployment.storage.list() == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(no_data, "CRPS has no value"), (truncated_buildings, "cannot read")],
    ids=["raster", "table"],
)
def test_the_user_gets_one_line(
    ocr: Ocr, world: World, spoil: Callable[[World], None], message: str
) -> None:
    spoil(world)
    complaint = ocr("process-region", REGION).complaint
    assert complaint.startswith(f"1 of 1 regions failed ({REGION}): ")
    assert message in complaint
    assert len(complaint) < 700


def test_bad_input_does_not_touch_what_is_there(ocr: Ocr, finished_copy: World) -> None:
    deployment = finished_copy.deployment()
    before = deployment.ledger(), deployment.regions.snapshot_id, deployment.storage.list()
    no_data(finished_copy)
    assert "has no value in region" in ocr("process-region", REGION).complaint
    deployment = finished_copy.deployment()
    assert (
        deployment.ledger(),
        deployment.regions.snapshot_id,
        deployment.storage.list(),
    ) == before


def test_unusable_footprints_are_mended_or_counted(ocr: Ocr, world: World) -> None:
    whole = world.deployment()
    west, south, east, north = whole.grid.region_window(REGION).bounds
    x, y, size = (west + east) / 2, (south + north) / 2, 2e-4
    bow_tie = shapely.Polygon([(x, y), (x + size, y + size), (x + size, y), (x, y + size)])
    line = shapely.LineString([(x, y), (x + size, y)])

    def add(table: pa.Table) -> pa.Table:
        code = next(code for code in table["GEOID"].to_pylist() if code)
        rows = [
            {
                "id": name,
                "GEOID": code,
                "state": "CO",
                "county": "Larimer",
                "geometry": None if shape is None else shapely.to_wkb(shape),
                "bbox": None
                if shape is None
                else dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds, strict=True)),
            }
            for name, shape in (("bow tie", bow_tie), ("line", line), ("nothing", None))
        ]
        schema = pa.schema(
            [field.with_nullable(True) for field in table.schema], table.schema.metadata
        )
        more = pa.Table.from_pylist(rows, schema=schema)
        return pa.concat_tables([table.cast(schema), more])

    world.doctor_table(inputs.BUILDINGS, add)
    assert ocr("process-region", REGION).status == 0
    deployment = world.deployment()
    entry = deployment.ledger()[REGION]
    assert entry["report"]["invalid_geometry"] == 2
    assert entry["report"]["repaired"] == 1
    table = pq.read_table(deployment.storage.source(entry["buildings"]["key"]))
    ids = table["building_id"].to_pylist()
    assert "bow tie" in ids
    assert not {"line", "nothing"} & set(ids)
    assert shapely.is_valid(shapely.from_wkb(table["geometry"].to_numpy())).all()


def test_a_world_without_buildings_goes_all_the_way(ocr: Ocr, world: World) -> None:
    done = ocr("run", "--region-id", UNBUILT_REGION, "--summary-stats")
    assert done.status == 0, done.err
    deployment = world.deployment()
    manifest = deployment.storage.manifest("buildings")
    assert manifest is not None
    assert manifest.files == ()
    for level in LEVELS:
        table = pq.read_table(deployment.storage.source(f"statistics/{level}.parquet"))
        assert sum(table["building_count"].to_pylist()) == 0
    for name in ("buildings", "building_centroids", "regions"):
        assert deployment.storage.read_bytes(f"pmtiles/{name}.pmtiles").startswith(b"PMTiles")


def test_a_store_of_another_grid_is_refused(ocr: Ocr, finished_copy: World) -> None:
    def halve(document: dict[str, Any]) -> None:
        document["grid"] |= {"region_rows": 150, "name": "halves", "valid": ["y0_x0", "y1_x0"]}

    before = finished_copy.deployment().ledger()
    finished_copy.edit_catalog(halve)
    done = ocr("process-region", "y0_x0")
    assert "was initialised with grid" in done.complaint
    assert "use the grid of the store, or another store or branch" in done.complaint
    assert finished_copy.deployment().ledger() == before
    assert ocr("process-region", "y0_x0", OCR_BRANCH="halves").status == 0


def test_a_full_disk_loses_nothing_and_more_space_completes(
    ocr: Ocr, world: World, small_disk: Path
) -> None:
    variables = {"OCR_STORAGE_ROOT": str(small_disk / "root")}
    chosen = [part for id_ in world.grid.valid for part in ("--region-id", id_)]
    done = ocr("run", *chosen, "--process-retries", "0", **variables)
    assert "no space left" in done.complaint
    assert str(small_disk) in done.complaint
    deployment = world.deployment(storage_root=str(small_disk / "root"))
    for region_id, entry in deployment.ledger().items():
        window = deployment.regions.regions[region_id]
        assert not np.isnan(deployment.regions.dataset(window)["crps_scott"].values).all()
        assert deployment.storage.exists(entry["buildings"]["key"])

    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert ocr("process-region", REGION, **variables).status == 0
    assert REGION in deployment.ledger()


def start(world: World, *arguments: str) -> subprocess.Popen[str]:
    """An `ocr` command in a process of its own."""
    return subprocess.Popen(
        [OCR, *arguments],
        env=environment(world.variables()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(happened: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    """Wait for something that a running command does."""

    def look() -> bool:
        if happened():
            return True
        assert command.poll() is None, command.communicate()
        return False

    wait_until("what a command does", look, 120, pause=0.01)


def test_two_commands_at_once_both_land(ocr: Ocr, world: World) -> None:
    """The pool lets one write at a time; the other one waits for it."""
    other = start(world, "process-region", "y0_x1")
    try:
        wait_for(lambda: (world.root / "qa").exists(), other)
        assert ocr("process-region", "y0_x0").status == 0
        _, errors = other.communicate(timeout=120)
        assert other.returncode == 0, errors
    finally:
        other.kill()
    assert set(world.deployment().ledger()) == {"y0_x0", "y0_x1"}


def test_a_killed_command_leaves_no_half_region_and_is_cleaned_up(ocr: Ocr, world: World) -> None:
    command = start(world, "run", "--all-region-ids")
    regions = world.root / "qa" / "dev" / "regions"
    try:
        wait_for(lambda: bool(list(regions.glob("*/buildings-*.parquet"))), command)
        os.kill(command.pid, signal.SIGKILL)
    finally:
        command.kill()
        command.communicate()
    deployment = world.deployment()
    assert deployment.ledger() == {}, "the first commit comes with the last region"
    assert np.isnan(deployment.regions.dataset()["bp_2011"].values).all()

    with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
        (killed,) = (
            run for run in instance.get_runs() if run.status == dg.DagsterRunStatus.STARTED
        )
    status = json.loads(ocr("regions", "status", "--json").out)
    assert status["counts"] == {"missing": 11}
    # The killed run holds the only place of the writer pool; the next command frees it.
    assert ocr("process-region", "y0_x0").status == 0
    with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
        closed = instance.get_run_by_id(killed.run_id)
        assert closed is not None
        assert closed.status == dg.DagsterRunStatus.FAILURE
    assert set(world.deployment().ledger()) == {"y0_x0"}
    files = [path for path in regions.glob("region_id=y0_x0/*") if path.is_file()]
    assert [path.name for path in files] == [
        Path(world.deployment().ledger()["y0_x0"]["buildings"]["key"]).name
    ]
