"""A region in the store is whole or absent, whoever writes, whatever breaks."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pyproj
import pytest

from resources.icechunk_store import (
    GridMismatchError,
    InvalidRegionError,
    NotInitializedError,
    RasterTemplate,
    RegionStore,
    RegionStoreError,
    RegionWrite,
)
from resources.raster_template import RasterTemplateError
from resources.storage import S3Options, Storage, StorageError

STEP = 0.25
ROWS, COLS, CHUNK = 10, 18, 4
REGIONS = {
    f"y{y}_x{x}": (slice(y * 8, min(y * 8 + 8, ROWS)), slice(x * 8, min(x * 8 + 8, COLS)))
    for y in range(2)
    for x in range(3)
}


def make_template(**changes: Any) -> RasterTemplate:
    """A grid of 10 x 18 pixels in 2 x 3 regions; the last row and column are cut."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "latitude": 30.1 + STEP * np.arange(ROWS),
        "longitude": -100.3 + STEP * np.arange(COLS),
        "step": STEP,
        "crs": "EPSG:4326",
        "chunks": (CHUNK, CHUNK),
        "variables": {"rps": {"units": "%", "long_name": "risk"}, "bp": {"units": "1"}},
        "regions": REGIONS,
        "attrs": {"title": "Synthetic"},
    }
    return RasterTemplate(**{**fields, **changes})


def make_region(region_id: str, value: float, **entry: Any) -> RegionWrite:
    rows, cols = REGIONS[region_id]
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    return RegionWrite(
        {name: np.full(shape, value, np.float32) for name in ("rps", "bp")},
        {"value": value, **entry},
    )


@pytest.fixture
def store(storage: Storage) -> RegionStore:
    """An initialised, empty store."""
    store = RegionStore(storage.child("region-risk"), "qa")
    store.initialize(make_template())
    return store


def reopen(store: RegionStore) -> RegionStore:
    return RegionStore(store._branch.storage, store._branch.branch)


def assert_consistent(store: RegionStore, at: str | None = None) -> dict[str, float]:
    """Every region is NaN and unlisted, or holds the value its ledger entry names."""
    at = at or store.snapshot_id
    ledger = {region_id: entry["value"] for region_id, entry in store.ledger(at).items()}
    dataset = store.dataset(at=at)
    for name in ("rps", "bp"):
        values = dataset[name].values
        for region_id, window in REGIONS.items():
            np.testing.assert_array_equal(
                values[window],
                np.float32(ledger.get(region_id, np.nan)),
                err_msg=f"{name} of {region_id}",
                strict=False,
            )
    return ledger


# --- initialising --------------------------------------------------------------------------------


def test_initialising_twice_changes_nothing(store: RegionStore) -> None:
    head = store.snapshot_id
    assert reopen(store).initialize(make_template()) == head
    store.write({"y0_x0": make_region("y0_x0", 1)})
    head = store.snapshot_id
    assert reopen(store).initialize(make_template()) == head
    assert list(reopen(store).regions.items()) == list(REGIONS.items())


def test_initialising_at_once_makes_one_store(storage: Storage) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = [RegionStore(storage, "qa") for _ in range(4)]
        heads = set(pool.map(lambda store: store.initialize(make_template()), stores))
    assert len(heads) == 1
    assert assert_consistent(RegionStore(storage, "qa")) == {}


def test_coordinates_are_exact_and_the_crs_is_there(store: RegionStore) -> None:
    dataset = store.dataset()
    template = make_template()
    assert dataset.attrs == {"title": "Synthetic"}
    assert set(dataset.data_vars) == {"rps", "bp"}
    np.testing.assert_array_equal(dataset["latitude"].values, template.latitude)
    np.testing.assert_array_equal(dataset["longitude"].values, template.longitude)
    assert dataset["rps"].dtype == np.float32
    assert dataset["rps"].attrs["units"] == "%"
    assert dataset["rps"].encoding["grid_mapping"] == "spatial_ref"
    spatial_ref = dataset["spatial_ref"].attrs
    assert pyproj.CRS.from_cf(spatial_ref) == pyproj.CRS("EPSG:4326")
    assert pyproj.CRS.from_wkt(spatial_ref["crs_wkt"]).to_epsg() == 4326
    west, dx, _, south, _, dy = map(float, spatial_ref["GeoTransform"].split())
    assert (dx, dy) == (STEP, STEP)
    assert west + dx / 2 == pytest.approx(template.longitude[0], abs=1e-12)
    assert south + dy / 2 == pytest.approx(template.latitude[0], abs=1e-12)


def test_a_window_has_its_own_geotransform(store: RegionStore) -> None:
    part = store.dataset(REGIONS["y1_x2"])
    west, _, _, south, _, _ = map(float, part["spatial_ref"].attrs["GeoTransform"].split())
    assert west + STEP / 2 == pytest.approx(-100.3 + STEP * 16, abs=1e-12)
    assert south + STEP / 2 == pytest.approx(30.1 + STEP * 8, abs=1e-12)
    assert part["rps"].shape == (2, 2)
    whole = store.dataset()["spatial_ref"].attrs["GeoTransform"]
    assert whole != part["spatial_ref"].attrs["GeoTransform"]


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"latitude": 30.2 + STEP * np.arange(ROWS)}, "first_pixel, coordinates"),
        ({"chunks": (8, 8)}, "chunks"),
        ({"variables": {"rps": {}}}, "variables"),
        ({"regions": {"y0_x0": REGIONS["y0_x0"]}}, "regions, region_table"),
    ],
)
def test_another_grid_is_refused(
    store: RegionStore, changes: dict[str, Any], differing: str
) -> None:
    head = store.snapshot_id
    with pytest.raises(
        GridMismatchError, match=rf"'tiny' .*'other' .*\(different: name, {differing}"
    ):
        reopen(store).initialize(make_template(name="other", **changes))
    assert store.snapshot_id == head


def test_branches_are_apart(store: RegionStore) -> None:
    other = RegionStore(store._branch.storage, "staging")
    with pytest.raises(NotInitializedError, match="staging"):
        other.ledger()
    other.initialize(make_template(name="other"))
    other.write({"y0_x0": make_region("y0_x0", 7)})
    assert assert_consistent(store) == {}
    assert assert_consistent(other) == {"y0_x0": 7}


def test_nothing_works_before_initialising(storage: Storage) -> None:
    store = RegionStore(storage, "qa")
    for use in (store.ledger, store.dataset, store.wipe, lambda: store.regions):
        with pytest.raises(NotInitializedError, match="initialise it"):
            use()
    with pytest.raises(NotInitializedError):
        store.write({"y0_x0": make_region("y0_x0", 1)})


def test_a_crash_while_initialising_is_completed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    store = RegionStore(storage, "qa")
    for name in ("create_branch", "writable_session"):
        with monkeypatch.context() as patch:
            patch.setattr(icechunk.Repository, name, crash)
            with pytest.raises(KeyboardInterrupt):
                store.initialize(make_template())
    RegionStore(storage, "qa").initialize(make_template())
    assert assert_consistent(RegionStore(storage, "qa")) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": (3, 4)}, "chunks that divide"),
        ({"regions": {"a": (slice(0, 8), slice(2, 8))}}, "region a covers"),
        ({"regions": {"a": (slice(0, 8), slice(16, 20))}}, "region a covers"),
        ({"regions": {k: (slice(0, 4), slice(0, 4)) for k in "ab"}}, "a and b .* share chunk"),
        ({"latitude": np.array([1.0, 2.0])}, "not regular"),
        ({"latitude": 50 - STEP * np.arange(ROWS)}, "not regular"),
        ({"longitude": np.arange(4, dtype=np.float32)}, "float64 vector"),
        ({"variables": {}}, "no variables"),
    ],
)
def test_a_template_that_contradicts_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RasterTemplateError, match=message):
        make_template(**changes)


# --- writing and reading -------------------------------------------------------------------------


def test_write_and_read_back(store: RegionStore) -> None:
    rng = np.random.default_rng(3)
    arrays = {name: rng.random((8, 8), dtype=np.float32) for name in ("rps", "bp")}
    arrays["rps"][2:5, 3:6] = np.nan
    entry = {"version": "1.0.0", "buildings": {"key": "a/b.parquet", "rows": 3}, "mean": 0.1}
    empty = store.snapshot_id
    written = store.write(
        {"y0_x1": RegionWrite(arrays, entry), "y1_x2": make_region("y1_x2", 2)},
        {"version": "1.0.0"},
    )
    again = reopen(store)
    assert again.snapshot_id == written
    assert again.ledger() == {"y0_x1": entry, "y1_x2": {"value": 2}}
    for name, array in arrays.items():
        np.testing.assert_array_equal(again.dataset(REGIONS["y0_x1"])[name].values, array)
    assert np.isnan(again.dataset(REGIONS["y0_x0"])["rps"].values).all()
    commit = next(iter(again._branch.repository.ancestry(branch="qa")))
    assert commit.metadata["version"] == "1.0.0"
    assert commit.metadata["regions"] == ["y0_x1", "y1_x2"]
    assert commit.message == "Write y0_x1, y1_x2"
    assert again.ledger(empty) == {}
    assert np.isnan(again.dataset(at=empty)["rps"].values).all()


def test_a_rewrite_replaces_the_whole_region(store: RegionStore) -> None:
    store.write({"y0_x0": make_region("y0_x0", 1)})
    store.write({"y0_x0": make_region("y0_x0", 2)})
    assert assert_consistent(store) == {"y0_x0": 2}
    nothing = make_region("y0_x0", np.nan)
    store.write({"y0_x0": RegionWrite(nothing.arrays, {"value": None})})
    assert np.isnan(store.dataset()["rps"].values).all()
    assert store.ledger() == {"y0_x0": {"value": None}}


def _without(region: RegionWrite, name: str) -> RegionWrite:
    return RegionWrite({k: v for k, v in region.arrays.items() if k != name}, region.entry)


GOOD = make_region("y0_x0", 1)


@pytest.mark.parametrize(
    ("region_id", "region", "message"),
    [
        ("y9_x9", GOOD, "no region 'y9_x9'; it holds 6 regions, from y0_x0 to y1_x2"),
        ("y1_x0", GOOD, r"rps of region y1_x0 must be float32 of shape \(2, 8\), found .*\(8, 8\)"),
        ("y0_x0", _without(GOOD, "bp"), "missing: bp, unknown: none"),
        ("y0_x0", RegionWrite({**GOOD.arrays, "x": GOOD.arrays["bp"]}, {"a": 1}), "unknown: x"),
        (
            "y0_x0",
            RegionWrite({k: v.astype(np.float64) for k, v in GOOD.arrays.items()}, {"a": 1}),
            "must be float32 .* found float64",
        ),
        ("y0_x0", RegionWrite(GOOD.arrays, {}), "entry of region y0_x0 is empty"),
        ("y0_x0", RegionWrite(GOOD.arrays, {"a": float("nan")}), "not plain JSON"),
        ("y0_x0", RegionWrite(GOOD.arrays, {"a": np.float32(1)}), "not plain JSON"),
    ],
)
def test_a_region_that_does_not_fit_is_refused_before_writing(
    storage: Storage, region_id: str, region: RegionWrite, message: str
) -> None:
    store = RegionStore(storage, "qa")
    head = store.initialize(make_template())
    with pytest.raises(InvalidRegionError, match=message):
        store.write({"y0_x1": make_region("y0_x1", 1), region_id: region})
    assert store.snapshot_id == head


def test_batches_commit_as_they_go(store: RegionStore) -> None:
    with store.open_batch({"run": "r1"}) as batch:
        for number, region_id in enumerate(REGIONS, start=1):
            batch.add(region_id, make_region(region_id, number))
            if len(batch.pending) == 4:
                batch.commit()
                assert batch.pending == []
                assert len(assert_consistent(store)) == 4
        with pytest.raises(InvalidRegionError):
            batch.add("y0_x0", _without(GOOD, "bp"))
    assert assert_consistent(store) == {r: n for n, r in enumerate(REGIONS, start=1)}
    commits = [c.metadata for c in store._branch.repository.ancestry(branch="qa")][:2]
    assert [c["run"] for c in commits] == ["r1", "r1"]


def test_an_exception_drops_what_was_not_committed(store: RegionStore) -> None:
    head = store.snapshot_id

    def write_and_fail() -> None:
        with store.open_batch() as batch:
            batch.add("y0_x0", make_region("y0_x0", 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert store.snapshot_id == head
    with store.open_batch():
        pass
    assert store.snapshot_id == head, "an empty batch commits nothing"


def test_forget_wipe_and_tags(store: RegionStore) -> None:
    empty = store.snapshot_id
    full = store.write({region_id: make_region(region_id, 5) for region_id in REGIONS})
    assert store.tag("v1.0.0") == full
    assert store.tag("v1.0.0") == full
    store.forget(["y0_x1", "y1_x2"])
    assert assert_consistent(store) == {r: 5 for r in REGIONS if r not in ("y0_x1", "y1_x2")}
    with pytest.raises(InvalidRegionError):
        store.forget(["y7_x7"])
    with pytest.raises(RegionStoreError, match=r"'v1\.0\.0' .* another snapshot"):
        store.tag("v1.0.0")
    assert store.wipe() == empty
    assert assert_consistent(store) == {}
    assert len(assert_consistent(store, "v1.0.0")) == len(REGIONS)
    store.write({"y0_x0": make_region("y0_x0", 1)})
    assert assert_consistent(store) == {"y0_x0": 1}
    with pytest.raises(RegionStoreError, match="no tag or snapshot 'v9'"):
        store.ledger("v9")


# --- several writers -----------------------------------------------------------------------------


def test_writers_of_different_regions_both_land(store: RegionStore) -> None:
    with store.open_batch() as one, reopen(store).open_batch() as two:
        one.add("y0_x0", make_region("y0_x0", 1))
        two.add("y0_x1", make_region("y0_x1", 2))
    assert assert_consistent(store) == {"y0_x0": 1, "y0_x1": 2}


@pytest.mark.parametrize("second", [2.0, np.nan])
def test_of_two_writers_of_a_region_the_last_commit_wins_whole(
    store: RegionStore, second: float
) -> None:
    two = reopen(store).open_batch()
    with two as batch:
        region = make_region("y0_x0", second)
        batch.add("y0_x0", RegionWrite(region.arrays, {"value": 2.0}))
        batch.add("y0_x2", make_region("y0_x2", 2))
        store.write({"y0_x0": make_region("y0_x0", 1), "y0_x1": make_region("y0_x1", 1)})
    assert store.ledger() == {"y0_x0": {"value": 2}, "y0_x1": {"value": 1}, "y0_x2": {"value": 2}}
    values = store.dataset(REGIONS["y0_x0"])
    for name in ("rps", "bp"):
        np.testing.assert_array_equal(values[name].values, np.float32(second), strict=False)


def test_a_wipe_stops_a_writer_at_work(store: RegionStore) -> None:
    store.write({"y0_x0": make_region("y0_x0", 1)})

    def write_into_a_wipe() -> None:
        with store.open_batch() as batch:
            batch.add("y0_x1", make_region("y0_x1", 1))
            reopen(store).wipe()

    with pytest.raises(RegionStoreError, match="wiped while regions"):
        write_into_a_wipe()
    assert assert_consistent(store) == {}


def _write_rounds(storage: Storage, own: list[str], number: int, barrier: Any, rounds: int) -> None:
    store = RegionStore(storage, "qa")
    barrier.wait()
    for turn in range(rounds):
        value = 100 * number + turn
        store.write({own[turn % len(own)]: make_region(own[turn % len(own)], value)})
        store.write({"y1_x0": make_region("y1_x0", value)})


def test_two_processes_write_at_once(store: RegionStore) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    owned = {1: ["y0_x0", "y0_x1"], 2: ["y0_x2", "y1_x1"]}
    writers = [
        spawn.Process(target=_write_rounds, args=(store._branch.storage, own, number, barrier, 6))
        for number, own in owned.items()
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    commits = list(store._branch.repository.ancestry(branch="qa"))
    assert sum(commit.metadata.get("kind") == "regions" for commit in commits) == 24
    final = assert_consistent(store)
    last = {number: {"y0": 100 * number + 4, "y1": 100 * number + 5} for number in owned}
    assert {r: v for r, v in final.items() if r != "y1_x0"} == {
        own[turn]: last[number][key]
        for number, own in owned.items()
        for turn, key in enumerate(("y0", "y1"))
    }
    assert final["y1_x0"] in (105, 205)
    assert len({commit.metadata["write_id"] for commit in commits[:24]}) == 24


def test_a_reader_never_sees_pixels_without_their_entry(store: RegionStore) -> None:
    seen = []
    done = threading.Event()

    def write() -> None:
        writer = reopen(store)
        for turn in range(3):
            for region_id in REGIONS:
                writer.write({region_id: make_region(region_id, turn)})
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        seen.append(assert_consistent(store))
    thread.join()
    for before, after in pairwise([*seen, assert_consistent(store)]):
        assert all(after[region_id] >= value for region_id, value in before.items())
    assert len(seen) > 3


# --- what breaks ---------------------------------------------------------------------------------

_WRITE_AND_WAIT = """
import json, sys, time
import numpy as np
from resources.icechunk_store import RegionStore, RegionWrite
from resources.storage import S3Options, Storage
root, options = sys.argv[1:]
store = RegionStore(Storage(root, S3Options(**json.loads(options))), "qa")
arrays = {name: np.ones((8, 8), np.float32) for name in ("rps", "bp")}
with store.open_batch() as batch:
    batch.add("y0_x0", RegionWrite(arrays, {"value": 1}))
    batch.commit()
    batch.add("y0_x1", RegionWrite(arrays, {"value": 1}))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_half_region(store: RegionStore) -> None:
    storage = store._branch.storage
    options = json.dumps(storage.s3.model_dump())
    command = [sys.executable, "-c", _WRITE_AND_WAIT, storage.root, options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    assert assert_consistent(store) == {"y0_x0": 1}
    store.write({"y0_x1": make_region("y0_x1", 2)})
    assert assert_consistent(store) == {"y0_x0": 1, "y0_x1": 2}


def _big_template() -> RasterTemplate:
    return make_template(
        latitude=STEP * np.arange(400),
        longitude=STEP * np.arange(800),
        chunks=(400, 400),
        regions={
            "y0_x0": (slice(0, 400), slice(0, 400)),
            "y0_x1": (slice(0, 400), slice(400, 800)),
        },
    )


def _big_region(value: int) -> RegionWrite:
    noise = np.random.default_rng(value).random((400, 400), dtype=np.float32)
    return RegionWrite({"rps": noise, "bp": noise}, {"value": value})


def _assert_full_disk_is_clear(root: Path, fill: Callable[[], None]) -> RegionStore:
    store = RegionStore(Storage(str(root)), "qa")
    store.initialize(_big_template())
    head = store.write({"y0_x0": _big_region(1)})
    fill()
    with pytest.raises(StorageError, match=rf"no space left to write {root}.*free some space"):
        store.write({"y0_x0": _big_region(2), "y0_x1": _big_region(3)})
    again = reopen(store)
    assert again.snapshot_id == head
    assert again.ledger() == {"y0_x0": {"value": 1}}
    values = again.dataset()["rps"].values
    np.testing.assert_array_equal(values[:, :400], _big_region(1).arrays["rps"])
    assert np.isnan(values[:, 400:]).all()
    return store


def test_a_full_disk_is_one_clear_error(small_disk: Path) -> None:
    filler = small_disk / "filler"
    root = small_disk / "region-risk"
    store = _assert_full_disk_is_clear(root, lambda: filler.write_bytes(b"x" * 1_200_000))
    filler.unlink()
    store.write({"y0_x1": _big_region(3)})
    assert store.ledger() == {"y0_x0": {"value": 1}, "y0_x1": {"value": 3}}


def test_a_file_that_may_not_grow_is_one_clear_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        _assert_full_disk_is_clear(
            tmp_path / "region-risk",
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_batch_that_broke_cannot_be_committed(small_disk: Path) -> None:
    store = RegionStore(Storage(str(small_disk / "region-risk")), "qa")
    store.initialize(_big_template())

    def write_on_a_full_disk() -> None:
        with store.open_batch() as batch:
            batch.add("y0_x0", _big_region(1))
            (small_disk / "filler").write_bytes(b"x" * 1_200_000)
            with pytest.raises(StorageError, match="no space left"):
                batch.add("y0_x1", _big_region(2))

    with pytest.raises(RegionStoreError, match=r"batch is dropped; run its regions again: y0_x0"):
        write_on_a_full_disk()
    assert store.ledger() == {}


def test_s3_hiccups_are_retried(s3_bucket: Storage, flaky_server: Any) -> None:
    storage = Storage(f"{s3_bucket.root}/x", S3Options(endpoint_url=flaky_server.endpoint))
    store = RegionStore(storage, "qa")
    store.initialize(make_template())
    asked: dict[tuple[str, str], int] = {}

    def refuse_every_first_write(method: str, path: str) -> str | None:
        asked[method, path] = asked.get((method, path), 0) + 1
        return "refuse" if method == "PUT" and asked[method, path] == 1 else None

    flaky_server.fault = refuse_every_first_write
    store.write({"y0_x0": make_region("y0_x0", 1)})
    assert any(count > 1 for count in asked.values())
    flaky_server.fault = lambda method, path: None
    assert assert_consistent(store) == {"y0_x0": 1}


def test_a_commit_whose_answer_is_lost_lands_once(s3_bucket: Storage, flaky_server: Any) -> None:
    storage = Storage(f"{s3_bucket.root}/x", S3Options(endpoint_url=flaky_server.endpoint))
    store = RegionStore(storage, "qa")
    store.initialize(make_template())
    lost = []

    def lose_the_first_switch(method: str, path: str) -> str | None:
        if method == "PUT" and path.split("?")[0].endswith("/x/repo") and not lost:
            lost.append(path)
            return "lose"
        return None

    flaky_server.fault = lose_the_first_switch
    written = store.write({"y0_x0": make_region("y0_x0", 1)})
    assert lost
    assert store.snapshot_id == written
    kinds = [c.metadata.get("kind") for c in store._branch.repository.ancestry(branch="qa")]
    assert kinds.count("regions") == 1
    assert assert_consistent(store) == {"y0_x0": 1}


def test_a_dead_store_is_named(s3_bucket: Storage) -> None:
    storage = Storage("s3://never-made/x", s3_bucket.s3)
    with pytest.raises(StorageError, match="s3://never-made/x"):
        RegionStore(storage, "qa").initialize(make_template())
