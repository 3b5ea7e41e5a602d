"""The wings on Dask: a scheduler, two worker processes, and nothing shared but the object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import rasterio
from engines import DaskProcesses, dask_processes
from sample_worlds import REGION_ASSETS, Outcome, World, execute, materializations
from stac_server import StacServer
from tile_worlds import EAST, NOT_IN_THE_GRID, WEST, TileWorld, failure
from volume_worlds import TYPE, VolumeWorld, transcript

from ocr_assets import (
    region_products,
    region_writer,
    tile_products,
    tile_sources,
    volume_reader,
)
from ocr_assets.deployment import Deployment
from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions import inputs
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.tile_library import PRODUCTS, SourceKey, TileLibrary
from ocr_assets.tiles import assets as tile_assets
from ocr_assets.tiles.grid import Tile
from resources import dask_cluster
from resources.cluster import cluster_for
from resources.settings import Settings
from resources.storage import Storage

pytestmark = pytest.mark.end_to_end
RANGES = (("y0_x0", "y0_x1"), ("y0_x2", "y0_x3"), ("y1_x0", "y1_x1"), ("y1_x2", "y1_x3"))
BP_30M = inputs.BURN_PROBABILITY_30M[2011]


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler with two workers that know no setting, only the keys of the object store."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with dask_processes(tmp_path_factory.mktemp("dask"), 2, keys) as running:
        yield running


@pytest.fixture
def only_workers_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing a region in this process is a failure."""

    def fail(*_: Any) -> None:
        raise AssertionError("a region was computed by the run's own process")

    monkeypatch.setattr(region_writer, "process_region", fail)


def initialised(deployment: Deployment) -> Deployment:
    deployment.regions.initialize(deployment.template)
    return deployment


def stored(deployment: Deployment, region_id: str) -> tuple[Any, bytes]:
    """Ledger entry and pixels of a region."""
    window = deployment.regions.regions[region_id]
    pixels = deployment.regions.dataset(window)
    values = b"".join(pixels[name].values.tobytes() for name in sorted(pixels.data_vars))
    return deployment.ledger()[region_id], values


def commits(deployment: Deployment) -> list[list[str]]:
    """Regions of each commit, in order of their first."""
    branch = deployment.regions._branch
    snapshots = branch.repository.ancestry(branch=branch.branch)
    kept = [snapshot for snapshot in snapshots if snapshot.metadata.get("kind") == "regions"]
    return sorted(sorted(snapshot.metadata["regions"]) for snapshot in kept)


def test_four_runs_at_one_scheduler_do_four_runs_work(
    ocr: Callable[..., Outcome],
    s3_bucket: Storage,
    dask: DaskProcesses,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert s3_bucket.s3.endpoint_url is not None
    places = {
        "s3_endpoint_url": s3_bucket.s3.endpoint_url,
        "catalog": f"{s3_bucket.root}/input/catalog.json",
    }
    variables = {f"OCR_{name.upper()}": value for name, value in places.items()}
    assert ocr("sample", "--no-imagery", OCR_STORAGE_ROOT=s3_bucket.root, **variables).status == 0

    alone = initialised(Deployment(Settings(storage_root=f"{s3_bucket.root}/alone", **places)))
    first = [region_id for region_id, _ in RANGES]
    assert list(RegionWriter(alone).write(first)) == first

    request.getfixturevalue("only_workers_compute")
    monkeypatch.setattr(region_writer, "SECONDS_BETWEEN_COMMITS", 1000.0)
    settings = Settings(
        storage_root=f"{s3_bucket.root}/together",
        platform="dask",
        dask_scheduler=dask.address,
        **places,
    )
    initialised(Deployment(settings))

    def run(regions: tuple[str, str]) -> set[tuple[str, str | None]]:
        with dg.DagsterInstance.ephemeral() as instance:
            result = execute(Deployment(settings), REGION_ASSETS, instance, regions=regions)
            assert result.success
            return set(materializations(result, instance))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(run, RANGES))
    for regions, found in zip(RANGES, made, strict=True):
        assert found == {(asset, region) for asset in REGION_ASSETS for region in regions}
    together = Deployment(settings)
    assert set(together.ledger()) == {region for regions in RANGES for region in regions}
    assert commits(together) == [list(regions) for regions in RANGES]
    for region_id in first:
        assert stored(together, region_id) == stored(alone, region_id)


@pytest.mark.usefixtures("only_workers_compute")
def test_a_bad_region_fails_alone(world: World, dask: DaskProcesses) -> None:
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    deployment = initialised(world.deployment(platform="dask", dask_scheduler=dask.address))
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(deployment, REGION_ASSETS, instance, regions=("y0_x0", "y0_x2"))
        assert not result.success
        found = set(materializations(result, instance))
    (failure,) = result.get_step_failure_events()
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    failed: Any = told.metadata["failed"].value
    assert list(failed) == ["y0_x1"]
    assert f"{BP_30M}: BP runs from 2 to 2 in region y0_x1" in failed["y0_x1"]
    assert {region for _, region in found} == {"y0_x0", "y0_x2"}
    assert set(deployment.ledger()) == {"y0_x0", "y0_x2"}
    assert commits(deployment) == [["y0_x0", "y0_x2"]]


def written(deployment: Deployment, regions: Sequence[str]) -> RegionWriter:
    cluster = cluster_for(deployment.settings)
    writer = RegionWriter(deployment, cluster)
    list(writer.write(regions))
    cluster.close()
    return writer


def test_workers_with_other_code_are_refused(
    world: World, dask: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = initialised(world.deployment(platform="dask", dask_scheduler=dask.address))
    lineage = {**deployment.region_lineage, "code_version": "other"}
    monkeypatch.setattr(Deployment, "region_lineage", lineage)
    writer = written(Deployment(deployment.settings), ["y0_x0", "y0_x1"])
    assert writer.written == {}
    assert set(writer.failed) == {"y0_x0", "y0_x1"}
    assert "a worker has other code, packages or inputs than this run" in writer.failed["y0_x0"]
    assert deployment.ledger() == {}


def test_a_worker_reads_changed_inputs_in_the_next_run(world: World, dask: DaskProcesses) -> None:
    settings = {"platform": "dask", "dask_scheduler": dask.address}
    first = initialised(world.deployment(**settings))
    assert set(written(first, ["y0_x0"]).written) == {"y0_x0"}
    world.doctor_region(BP_30M, "BP", "y0_x0", 0.5)
    second = world.deployment(**settings)
    assert second.region_lineage != first.region_lineage
    writer = written(second, ["y0_x0"])
    assert writer.failed == {}
    assert second.ledger()["y0_x0"]["lineage"] == second.region_lineage


def test_products_of_all_regions_are_made_by_workers(
    finished_copy: World, dask: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as in the run's own process."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a product was made by the run's own process")

    for name in ("partition_buildings", "write_statistics", "regional_tiles", "build_pyramid"):
        monkeypatch.setattr(region_products, name, fail)
    deployment = finished_copy.deployment(platform="dask", dask_scheduler=dask.address)
    levels = [f"risk_statistics/{level}" for level in LEVELS]
    products = ["buildings", *levels, "regional_pmtiles", "building_pmtiles", "pyramid"]

    def contents() -> dict[str, bytes]:
        root = deployment.storage
        return {info.key: root.read_bytes(info.key) for info in root.list()}

    before = contents()
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(deployment, products, instance)
        assert result.success
        made = materializations(result, instance)
    assert {asset for asset, _ in made} == set(products)
    assert made["pyramid", None]["levels"] > 1
    assert (
        made["buildings", None]["rows"]
        == made["risk_statistics/nation", None]["report"]["buildings"]
    )
    assert contents() == before


@pytest.mark.usefixtures("only_workers_compute")
def test_what_is_left_of_all_regions_by_command(
    ocr: Callable[..., Outcome],
    finished_copy: World,
    dask: DaskProcesses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 2)
    before = finished_copy.deployment().ledger()
    finished_copy.deployment().regions.forget(["y0_x0"])
    nowhere = {"OCR_PLATFORM": "dask", "OCR_DASK_SCHEDULER": "tcp://127.0.0.1:1"}
    failed = ocr("process-region", "y0_x0", **nowhere)
    assert "there is no Dask scheduler at tcp://127.0.0.1:1" in failed.complaint
    assert "y0_x0" not in finished_copy.deployment().ledger()
    done = ocr("run", "--all-region-ids", "--platform", "dask", OCR_DASK_SCHEDULER=dask.address)
    assert done.status == 0, done.err
    assert finished_copy.deployment().ledger().keys() == before.keys()


def test_tiles_by_command_on_a_platform(
    ocr: Callable[..., Outcome],
    world: World,
    dask: DaskProcesses,
    sample_imagery: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 2)
    monkeypatch.setattr(tile_sources, "make_source", None)
    request = world.folder / "tiles.csv"
    request.write_text(f"Year,X_tile,Y_tile\n2023,{WEST[:4]},{WEST[5:9]}\n")
    run = ("tiles", "run", str(request), "--sources", "elevation", "--yes", "--retries", "0")
    source = {"OCR_ELEVATION_SOURCE": str(sample_imagery), "OCR_ELEVATION_ACCESS": "anonymous"}
    lost = ocr(*run, OCR_PLATFORM="dask", OCR_DASK_SCHEDULER="tcp://127.0.0.1:1", **source)
    assert lost.status == 2
    assert "there is no Dask scheduler at tcp://127.0.0.1:1" in lost.err
    again = ("tiles", "retry", *run[2:5], "--platform", "dask")
    done = ocr(*again, OCR_DASK_SCHEDULER=dask.address, **source)
    assert done.status == 0, done.err
    library = TileLibrary(world.deployment().settings)
    assert library.record(SourceKey("elevation", Tile.parse(WEST), None)) is not None


def test_a_volume_is_read_by_a_worker(
    pages: Path, tmp_path: Path, dask: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("a volume was read by the run's own process")

    monkeypatch.setattr(volume_reader, "_parse", fail)
    at_scheduler = {"platform": "dask", "dask_scheduler": dask.address}
    volumes = VolumeWorld(tmp_path / "world", at_scheduler)
    volumes.volume("W1-I1", pages, "0002")
    reading = volumes.read("W1-I1")
    assert reading.success, reading.error
    assert reading.metadata("volume_lines")["new pages"] == 1
    assert reading.metadata("volume_text")["mean confidence"] > 0.9
    record = volumes.library.record(TYPE, "W1-I1")
    assert record is not None
    text = volumes.library.read_file(record, "volume.txt").decode()
    assert text.split("\f")[0] == transcript(pages, "0002")


@pytest.fixture
def tiles_on_dask(
    tmp_path: Path,
    s3_bucket: Storage,
    stac_server: StacServer,
    sample_imagery: Path,
    dask: DaskProcesses,
    monkeypatch: pytest.MonkeyPatch,
) -> TileWorld:
    """An empty deployment in a bucket, over a service of imagery; only workers may make tiles."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a tile was made by the run's own process")

    monkeypatch.setattr(tile_sources, "make_source", fail)
    monkeypatch.setattr(tile_products, "make_tree_cover", fail)
    changes = {
        "storage_root": s3_bucket.root,
        "s3_endpoint_url": s3_bucket.s3.endpoint_url,
        "models_root": str(tmp_path / "models"),
        "platform": "dask",
        "dask_scheduler": dask.address,
    }
    return TileWorld(tmp_path, stac_server.serve(sample_imagery), changes)


def test_tiles_are_made_by_workers(tiles_on_dask: TileWorld, finished_tiles: Path) -> None:
    """The same tree cover as in the run's own process; a tile that cannot be made fails alone."""
    world = tiles_on_dask
    result = world.run("elevation", WEST, EAST)
    assert f"1 of 3 tiles failed; {NOT_IN_THE_GRID}: " in failure(result)
    assert set(world.materialized(result)) == {WEST, EAST}
    for asset in PRODUCTS[1:]:
        result = world.run(asset, f"{WEST}|2023")
        assert result.success, failure(result)
        made = world.materialized(result)[f"{WEST}|2023"]
        assert (made["skipped"], made["seconds"] > 0) == (False, True)
    key = SourceKey("tree_cover", Tile.parse(WEST), 2023)
    alone = TileWorld(finished_tiles, "unused").library
    covers = []
    for library in (world.library, alone):
        with (
            library.storage.local_copy(library.keys(key)["cog"]) as path,
            rasterio.open(path) as file,
        ):
            covers.append(file.read(1))
    assert np.array_equal(*covers)


def test_workers_with_other_code_make_no_tiles(
    tiles_on_dask: TileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_assets, "made_by_code", lambda source: "other")
    result = tiles_on_dask.run("elevation", WEST, EAST)
    assert "3 of 3 tiles failed" in failure(result)
    assert "a worker has other code, packages or inputs than this run" in failure(result)
    assert not tiles_on_dask.library.storage.list("raw")
