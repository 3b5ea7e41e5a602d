"""Whatever breaks, a region in the store is whole or absent, and the error says what to do."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from region_stores import (
    STEP,
    assert_consistent,
    make_region,
    make_template,
    reopen,
)

from resources.icechunk_store import (
    RasterTemplate,
    RegionStore,
    RegionStoreError,
    RegionWrite,
)
from resources.storage import S3Options, Storage, StorageError

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
