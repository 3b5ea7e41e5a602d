"""Regions one after the other: what is done is skipped, one fails alone, commits are whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sample_worlds import World

from ocr_assets import region_writer
from ocr_assets.deployment import Deployment
from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions import inputs
from resources.icechunk_branch import NotInitializedError
from resources.manifest import sha256_file

BP_30M = inputs.BURN_PROBABILITY_30M[2011]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files in the making are."""
    made = tmp_path / "scratch"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def initialised(deployment: Deployment) -> Deployment:
    deployment.regions.initialize(deployment.template)
    return deployment


def write(deployment: Deployment, folder: Path, *ids: str, recompute: bool = False) -> RegionWriter:
    writer = RegionWriter(initialised(deployment))
    assert list(writer.write(ids, recompute=recompute)) == list(ids)
    assert not list(folder.iterdir()), "scratch space was not freed"
    return writer


def commits(deployment: Deployment) -> list[list[str]]:
    """Regions of each commit, the oldest first."""
    branch = deployment.regions._branch
    return [
        list(snapshot.metadata["regions"])
        for snapshot in reversed(list(branch.repository.ancestry(branch=branch.branch)))
        if snapshot.metadata.get("kind") == "regions"
    ]


def tables(deployment: Deployment, region_id: str) -> list[str]:
    return [info.key for info in deployment.storage.list(f"regions/region_id={region_id}")]


def test_pixels_table_and_entry_agree(world: World, folder: Path) -> None:
    deployment = world.deployment()
    writer = write(deployment, folder, "y1_x0")
    region = writer.written["y1_x0"]
    entry = deployment.ledger()["y1_x0"]
    assert dict(region.entry) == entry
    assert region.snapshot_id == deployment.regions.snapshot_id
    assert region.seconds > 0
    assert region.preview is not None
    assert entry["lineage"] == deployment.region_lineage
    path = deployment.storage.local_path(entry["buildings"]["key"])
    assert sha256_file(path) == entry["buildings"]["sha256"]
    assert path.name == f"buildings-{entry['buildings']['sha256'][:16]}.parquet"
    assert path.stat().st_size == entry["buildings"]["bytes"]
    table = pq.read_table(path)
    assert table.num_rows == entry["buildings"]["rows"] == entry["report"]["written"]
    pixels = deployment.regions.dataset(deployment.regions.regions["y1_x0"])
    summary = entry["summary"]["variables"]
    for name in summary:
        assert summary[name]["maximum"] == pytest.approx(float(pixels[name].max()))
    assert np.isin(table["rps_2047"].to_numpy(), pixels["rps_2047"].values).all()


def test_what_is_done_is_skipped(world: World, folder: Path) -> None:
    write(world.deployment(), folder, "y0_x0", "y0_x1")
    deployment = world.deployment()
    before = deployment.regions.snapshot_id
    writer = write(deployment, folder, "y0_x1", "y0_x0")
    assert deployment.regions.snapshot_id == before
    for region in writer.written.values():
        assert region.preview is None
        assert region.seconds == 0
        assert region.snapshot_id == before


def test_recomputing_gives_the_same_bytes(world: World, folder: Path) -> None:
    deployment = world.deployment()
    write(deployment, folder, "y0_x0")
    entry, files = deployment.ledger()["y0_x0"], tables(deployment, "y0_x0")
    writer = write(world.deployment(), folder, "y0_x0", recompute=True)
    assert writer.written["y0_x0"].preview is not None
    assert deployment.ledger()["y0_x0"] == entry
    assert tables(deployment, "y0_x0") == files
    assert commits(deployment) == [["y0_x0"], ["y0_x0"]]


def test_a_new_table_replaces_the_old_one(world: World, folder: Path) -> None:
    write(world.deployment(), folder, "y0_x0", "y0_x1")
    (before,) = tables(world.deployment(), "y0_x0")
    deployment = world.deployment(method="published")
    write(deployment, folder, "y0_x0")
    (after,) = tables(deployment, "y0_x0")
    assert after == deployment.ledger()["y0_x0"]["buildings"]["key"] != before
    assert len(tables(deployment, "y0_x1")) == 1


def test_another_versions_table_is_kept(world: World, folder: Path) -> None:
    old, new = world.deployment(version="1.0.0"), world.deployment(version="1.1.0")
    write(old, folder, "y0_x0")
    (before,) = tables(old, "y0_x0")
    write(new, folder, "y0_x0")
    assert tables(old, "y0_x0") == [before]
    assert len(tables(new, "y0_x0")) == 1


def test_a_region_with_bad_input_fails_alone(world: World, folder: Path) -> None:
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    deployment = world.deployment()
    writer = write(deployment, folder, "y0_x0", "y0_x1", "y0_x2")
    assert set(writer.written) == set(deployment.ledger()) == {"y0_x0", "y0_x2"}
    assert set(writer.failed) == {"y0_x1"}
    assert f"{BP_30M}: BP runs from 2 to 2 in region y0_x1" in writer.failed["y0_x1"]
    window = deployment.regions.regions["y0_x1"]
    assert np.isnan(deployment.regions.dataset(window)["bp_2011"].values).all()
    assert tables(deployment, "y0_x1") == []


def test_a_failed_attempt_keeps_the_old_state(world: World, folder: Path) -> None:
    deployment = world.deployment()
    write(deployment, folder, "y0_x1")
    entry, files = deployment.ledger()["y0_x1"], tables(deployment, "y0_x1")
    world.doctor_region(BP_30M, "BP", "y0_x1", -1.0)
    writer = write(world.deployment(), folder, "y0_x1")
    assert set(writer.failed) == {"y0_x1"}
    assert deployment.ledger()["y0_x1"] == entry
    assert tables(deployment, "y0_x1") == files
    assert writer.deployment.unfinished_regions(["y0_x1"]) == ["y0_x1"]


def test_quick_regions_share_a_commit(world: World, folder: Path) -> None:
    deployment = world.deployment()
    write(deployment, folder, "y0_x0", "y0_x1", "y0_x2")
    assert commits(deployment) == [["y0_x0", "y0_x1", "y0_x2"]]


def test_slow_regions_are_committed_at_once(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_writer, "SECONDS_BETWEEN_COMMITS", 0.0)
    deployment = world.deployment()
    writer = write(deployment, folder, "y0_x0", "y0_x1")
    assert commits(deployment) == [["y0_x0"], ["y0_x1"]]
    assert len({region.snapshot_id for region in writer.written.values()}) == 2


def test_stopping_between_table_and_commit_leaves_the_region_undone(
    world: World, folder: Path
) -> None:
    deployment = initialised(world.deployment())
    running: Any = RegionWriter(deployment).write(["y0_x0", "y0_x1"])
    assert next(running) == "y0_x0"
    running.close()
    assert len(tables(deployment, "y0_x0")) == 1, "the table is stored before the commit"
    assert deployment.ledger() == {}
    assert np.isnan(deployment.regions.dataset()["bp_2011"].values).all()

    write(world.deployment(), folder, "y0_x0", "y0_x1")
    assert set(deployment.ledger()) == {"y0_x0", "y0_x1"}
    assert tables(deployment, "y0_x0") == [deployment.ledger()["y0_x0"]["buildings"]["key"]]


def test_a_store_that_fails_keeps_what_was_committed(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_writer, "SECONDS_BETWEEN_COMMITS", 0.0)
    deployment = initialised(world.deployment())
    writer = RegionWriter(deployment)
    running: Iterator[str] = writer.write(["y0_x0", "y0_x1", "y0_x2"])
    assert next(running) == "y0_x0"
    # A file where the folder of a table should be: the second region cannot be stored.
    deployment.storage.write_bytes("regions/region_id=y0_x1", b"")
    assert list(running) == []
    assert set(writer.written) == set(deployment.ledger()) == {"y0_x0"}
    assert set(writer.failed) == {"y0_x1", "y0_x2"}
    assert "region_id=y0_x1" in writer.failed["y0_x2"]


def test_a_wipe_meanwhile_fails_what_was_not_committed(world: World, folder: Path) -> None:
    deployment = initialised(world.deployment())
    writer = RegionWriter(deployment)
    running = writer.write(["y0_x0", "y0_x1"])
    next(running)
    other = world.deployment()
    write(other, folder, "y1_x0")
    other.wipe()
    list(running)
    assert writer.written == {}
    assert set(writer.failed) == {"y0_x0", "y0_x1"}
    assert "wiped meanwhile" in writer.failed["y0_x0"]
    assert deployment.ledger() == {}


def test_two_writers_of_different_regions_both_land(world: World, folder: Path) -> None:
    one, other = initialised(world.deployment()), world.deployment()
    first = RegionWriter(one)
    running = first.write(["y0_x0", "y0_x1"])
    next(running)
    write_other = RegionWriter(other)
    list(write_other.write(["y1_x0", "y1_x1"]))
    list(running)
    assert set(one.ledger()) == {"y0_x0", "y0_x1", "y1_x0", "y1_x1"}
    pixels = one.regions.dataset()["bp_2011"].values
    assert np.count_nonzero(~np.isnan(pixels)) == 4 * 300 * 240


def test_without_a_store_the_mend_is_named(world: World, folder: Path) -> None:
    writer = RegionWriter(world.deployment())
    with pytest.raises(NotInitializedError, match="initialise it from a template first"):
        list(writer.write(["y0_x0"]))
