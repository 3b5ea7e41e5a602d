"""A region in the store is whole or absent, whoever writes, whatever breaks."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import icechunk
import numpy as np
import pyproj
import pytest
from region_stores import (
    REGIONS,
    ROWS,
    STEP,
    assert_consistent,
    make_region,
    make_template,
    reopen,
)

from resources.icechunk_store import (
    GridMismatchError,
    InvalidRegionError,
    NotInitializedError,
    RegionStore,
    RegionStoreError,
    RegionWrite,
)
from resources.raster_template import RasterTemplateError
from resources.storage import Storage

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
