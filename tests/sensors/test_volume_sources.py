"""Scans that were replaced: their volume is listed anew, and what was read of it is stale."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    CachingStaleStatusResolver,
    StaleStatus,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.loader import LoadingContextForTest
from request_daemon import Daemon
from volume_worlds import VolumeWorld, bilevel, put_into_archive

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.partitions import PARTITION, VOLUMES
from ocr_assets.request_jobs import VOLUME_FIRST, request_jobs
from ocr_assets.volume_sources import VolumeSources
from ocr_assets.volumes.archive import VolumeId
from ocr_assets.volumes.assets import volume_wing
from resources.storage import Storage
from sensors import volume_sources
from sensors.volume_sources import volume_source_sensor

ENTRY = [{"filename": "1.tif", "width": 60, "height": 20}]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    bilevel(folder / "1.tif", 60, 20)
    bilevel(folder / "2.tif", 60, 20)
    return folder


@pytest.fixture(params=["archive", "folder"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> VolumeWorld:
    if request.param == "folder":
        return VolumeWorld(tmp_path)
    (tmp_path / "archive" / "Works").mkdir(parents=True)
    return VolumeWorld(tmp_path, {"volumes_source": str(tmp_path / "archive")})


def put(world: VolumeWorld, volume: str, pages: Path, images: int = 1) -> None:
    """Put a volume of so many images where volumes come from, or replace it."""
    if "volumes_source" in world.variables:
        entries = [ENTRY[0] | {"filename": f"{n}.tif"} for n in range(1, images + 1)]
        place = Path(world.variables["volumes_source"])
        shutil.rmtree(place / "Works" / "x", ignore_errors=True)
        for old in (place / "Works").glob(f"*/*/images/{volume.partition('-')[0]}-*"):
            shutil.rmtree(old)
        put_into_archive(place, volume, pages, entries)
        return
    shutil.rmtree(world.sources / volume, ignore_errors=True)
    world.volume(volume, pages, *map(str, range(1, images + 1)))


def list_images(world: VolumeWorld, *volumes: str) -> None:
    """Materialize the lists of images."""
    world.instance.add_dynamic_partitions(str(VOLUMES.name), list(volumes))
    for volume in volumes:
        assert world._run(["volume_manifest"], {PARTITION: volume}, {}).success


def daemon_of(world: VolumeWorld) -> Daemon:
    library = world.library
    sensor = volume_source_sensor(library, request_jobs(volume_wing(library)))
    return Daemon(sensor, {}, world.instance)


def test_replaced_scans_are_listed_anew_once(world: VolumeWorld, pages: Path) -> None:
    for volume in ("W1-I1", "W2-I2"):
        put(world, volume, pages)
    list_images(world, "W1-I1", "W2-I2")
    daemon = daemon_of(world)
    assert daemon.tick() == []
    assert daemon.told == "none of 2 volumes has new scans"
    put(world, "W2-I2", pages, images=2)
    etag = VolumeSources(world.library).etag(VolumeId.parse("W2-I2"))
    assert daemon.tick() == [f"volumes/qa/dev/W2-I2@{etag}"]
    (run,) = daemon.waiting()
    assert (run.job_name, run.tags[PARTITION]) == (VOLUME_FIRST, "W2-I2")
    assert daemon.tick() == []
    list_images(world, "W2-I2")
    assert daemon.tick() == []
    assert world.library.page_count("W2-I2") == 2


def test_the_etag_is_that_of_the_list(world: VolumeWorld, pages: Path) -> None:
    put(world, "W1-I1", pages)
    volume = VolumeId.parse("W1-I1")
    sources = VolumeSources(world.library)
    assert sources.listed_etag(volume) is None
    assert sources.etag(volume) == world.library.source(volume).manifest().etag
    list_images(world, "W1-I1")
    assert sources.listed_etag(volume) == sources.etag(volume)


def test_the_etag_of_a_folder_in_a_bucket_follows_its_images(
    tmp_path: Path, pages: Path, s3_bucket: Storage
) -> None:
    places = {
        "volumes_source": s3_bucket.uri("scans"),
        "s3_endpoint_url": s3_bucket.s3.endpoint_url,
    }
    library, volume = VolumeWorld(tmp_path, places).library, VolumeId.parse("W1-I1")
    s3_bucket.put_file("scans/W1-I1/1.tif", pages / "1.tif")
    sources = VolumeSources(library)
    before = sources.etag(volume)
    assert before == library.source(volume).manifest().etag
    s3_bucket.put_file("scans/W1-I1/2.tif", pages / "2.tif")
    assert sources.etag(volume) == library.source(volume).manifest().etag != before


def test_volumes_that_vanished_are_told_and_hold_up_nobody(world: VolumeWorld, pages: Path) -> None:
    for volume in ("W1-I1", "W2-I2"):
        put(world, volume, pages)
    list_images(world, "W1-I1", "W2-I2")
    world.instance.add_dynamic_partitions(str(VOLUMES.name), ["W3-I3"])  # never listed
    if "volumes_source" in world.variables:
        shutil.rmtree(Path(world.variables["volumes_source"], "Works"))
        Path(world.variables["volumes_source"], "Works").mkdir()
    else:
        shutil.rmtree(world.sources / "W1-I1")
        shutil.rmtree(world.sources / "W2-I2")
    daemon = daemon_of(world)
    assert daemon.tick() == []
    assert "none of 3 volumes has new scans" in daemon.told
    assert daemon.told.count("volume W") == 2
    put(world, "W2-I2", pages, images=2)
    assert [key.partition("@")[0] for key in daemon.tick()] == ["volumes/qa/dev/W2-I2"]


def test_many_volumes_are_looked_at_in_turns(
    tmp_path: Path, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = VolumeWorld(tmp_path)
    names = [f"W{number}-I1" for number in range(1, 6)]
    for name in names:
        put(world, name, pages)
    list_images(world, *names)
    for name in names:
        put(world, name, pages, images=2)
    monkeypatch.setattr(volume_sources, "MOST_VOLUMES", 2)
    daemon = daemon_of(world)
    seen = [[key.split("/")[3].partition("@")[0] for key in daemon.tick()] for _ in range(4)]
    assert seen == [["W1-I1", "W2-I1"], ["W3-I1", "W4-I1"], ["W5-I1"], []]
    monkeypatch.setattr(volume_sources, "MOST_SECONDS", -1.0)
    put(world, "W1-I1", pages, images=1)
    assert daemon.tick() == []


def test_what_was_read_is_stale_until_it_is_read_again(tmp_path: Path, pages: Path) -> None:
    world = VolumeWorld(tmp_path)
    put(world, "W1-I1", pages)
    list_images(world, "W1-I1")
    graph: Any = build_defs(Deployment(world.settings)).resolve_asset_graph()
    key = dg.AssetKey("volume_lines")
    partition = "printed-unicode|W1-I1"
    # What a run of volume_lines records: which list it was made from.
    (listed,) = world.instance.fetch_materializations(
        dg.AssetKey("volume_manifest"), limit=1
    ).records
    made_from = world.library.manifest(VolumeId.parse("W1-I1")).etag
    world.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key,
            partition=partition,
            tags={
                DATA_VERSION_TAG: "lines",
                CODE_VERSION_TAG: "1",
                get_input_data_version_tag(dg.AssetKey("volume_manifest")): made_from,
                get_input_event_pointer_tag(dg.AssetKey("volume_manifest")): str(listed.storage_id),
            },
        )
    )

    def status() -> StaleStatus:
        resolver = CachingStaleStatusResolver(
            world.instance, graph, LoadingContextForTest(world.instance)
        )
        return resolver.get_status(key, partition)

    list_images(world, "W1-I1")  # again, of the same scans
    assert status() == StaleStatus.FRESH
    put(world, "W1-I1", pages, images=2)
    daemon = daemon_of(world)
    (launched,) = daemon.tick()
    assert launched.startswith("volumes/qa/dev/W1-I1@")
    list_images(world, "W1-I1")
    assert status() == StaleStatus.STALE
