"""Storage behaves alike on a local folder and on S3, and never shows half an object."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.keys import HIDDEN_NAME
from resources.locks import LockTimeoutError, file_lock
from resources.manifest import Manifest, ManifestFile, content_addressed, sha256_file
from resources.storage import (
    InvalidKeyError,
    MissingObjectError,
    ObjectExistsError,
    S3Options,
    Storage,
    StorageError,
    join_key,
)

# --- keys and roots ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", "a\0b", "a/b#12"],
)
def test_unsafe_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidKeyError, match="not a valid key"):
        join_key(key)


@given(st.text(max_size=20))
def test_an_accepted_key_stays_under_the_root(key: str) -> None:
    try:
        join_key(key)
    except InvalidKeyError:
        return
    path = Path(os.path.normpath(f"/root/{key}"))
    assert path.is_relative_to("/root")
    assert path != Path("/root")
    assert not HIDDEN_NAME.fullmatch(path.name)


@pytest.mark.parametrize("root", ["", "gs://bucket/x", "file:///tmp/x", "s3://", "s3://b/a/../c"])
def test_other_roots_are_refused(root: str) -> None:
    with pytest.raises(InvalidKeyError):
        Storage(root)


def test_roots_are_normalised() -> None:
    assert Storage("s3://bucket/a/b/").root == "s3://bucket/a/b"
    assert Storage("s3://bucket").child("a").uri("b/c") == "s3://bucket/a/b/c"
    assert Storage("some/folder").root == str(Path("some/folder").absolute())
    assert Storage("~/x").root == str(Path.home() / "x")


def test_only_a_plain_endpoint_allows_http() -> None:
    assert S3Options(endpoint_url="http://127.0.0.1:1").allow_http
    assert not S3Options(endpoint_url="https://127.0.0.1:1").allow_http
    assert not S3Options().allow_http


# --- single objects ------------------------------------------------------------------------------


def test_write_read_list_delete(storage: Storage) -> None:
    assert storage.list() == []
    assert storage.list("nothing/here") == []
    storage.write_bytes("a/b=1/two.bin", b"22")
    storage.write_bytes("a/one.bin", b"1")
    storage.write_bytes("a-b/three.bin", b"333")
    assert [(info.key, info.size) for info in storage.list()] == [
        ("a-b/three.bin", 3),
        ("a/b=1/two.bin", 2),
        ("a/one.bin", 1),
    ]
    assert [info.key for info in storage.list("a")] == ["a/b=1/two.bin", "a/one.bin"]
    assert [info.key for info in storage.child("a").list()] == ["b=1/two.bin", "one.bin"]
    assert storage.read_bytes("a/one.bin") == b"1"
    head = storage.head("a/one.bin")
    assert head is not None
    assert head.size == 1
    storage.write_bytes("a/one.bin", b"another")
    changed = storage.head("a/one.bin")
    assert changed is not None
    assert changed.etag != head.etag
    storage.delete(["a/one.bin", "a/never-there.bin"])
    storage.delete("a/b=1/two.bin")
    assert not storage.exists("a/one.bin")
    assert [info.key for info in storage.list()] == ["a-b/three.bin"]


def test_keys_with_other_scripts_and_spaces(storage: Storage) -> None:
    for key in ("ཀ་ཁ/p 1.txt", "p%20q/#1/x#y", "é"):
        storage.write_bytes(key, key.encode())
        assert storage.read_bytes(key) == key.encode()
    assert {info.key for info in storage.list()} == {"ཀ་ཁ/p 1.txt", "p%20q/#1/x#y", "é"}


def test_missing_objects(storage: Storage) -> None:
    assert storage.head("no/such") is None
    with pytest.raises(MissingObjectError, match=r"no object at .*no/such"):
        storage.read_bytes("no/such")
    with pytest.raises(MissingObjectError), storage.local_copy("no/such"):
        pass
    assert storage.manifest("no/such") is None


def test_if_absent_has_one_winner(storage: Storage) -> None:
    def claim(number: int) -> bool:
        try:
            storage.write_bytes("claims/x", b"%d" % number, if_absent=True)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(claim, range(8)))
    assert sum(won) == 1
    assert storage.read_bytes("claims/x") == b"%d" % won.index(True)
    storage.check_conditional_put()
    assert [info.key for info in storage.list()] == ["claims/x"]


def test_no_update_of_a_file_is_lost(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def add(number: int) -> None:
        storage.update_bytes("a/list", lambda data: (data or b"") + f"{number} ".encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert sorted(storage.read_bytes("a/list").split()) == sorted(
        str(number).encode() for number in range(12)
    )


@pytest.mark.parametrize("before", [None, b"old "])
def test_no_update_of_an_object_is_lost(s3_bucket: Storage, before: bytes | None) -> None:
    if before is not None:
        s3_bucket.write_bytes("list", before)
    seen: list[bytes | None] = []

    def change(data: bytes | None) -> bytes:
        seen.append(data)
        if len(seen) == 1:  # Another writer is faster.
            s3_bucket.write_bytes("list", (data or b"") + b"theirs ")
        return (data or b"") + b"ours"

    s3_bucket.update_bytes("list", change)
    expected = (before or b"") + b"theirs "
    assert seen == [before, expected]
    assert s3_bucket.read_bytes("list") == expected + b"ours"


def test_a_change_that_fails_leaves_the_object(storage: Storage) -> None:
    storage.write_bytes("a", b"before")

    def fail(data: bytes | None) -> bytes:
        raise ValueError(data)

    with pytest.raises(ValueError, match="before"):
        storage.update_bytes("a", fail)
    assert storage.read_bytes("a") == b"before"


def test_files_in_parts(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(20 * 1024 * 1024 + 7))
    storage.put_file("deep/er/big.bin", source)
    with storage.local_copy("deep/er/big.bin") as path:
        assert path.name == "big.bin"
        assert sha256_file(path) == sha256_file(source)


def test_a_data_set_through_arrow(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "part.parquet"
    pq.write_table(pa.table({"value": [1, 2, 3]}), file)
    storage.put_file("table/state=08/part.parquet", file)
    filesystem, base = storage.arrow_filesystem()
    table = ds.dataset(f"{base}/table", filesystem=filesystem, partitioning="hive").to_table()
    assert table.to_pydict() == {"value": [1, 2, 3], "state": [8, 8, 8]}


def test_a_pickled_storage_works(storage: Storage) -> None:
    storage.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes("a") == b"1"


def test_s3_hiccups_are_retried(s3_bucket: Storage, flaky_server: Any, tmp_path: Path) -> None:
    storage = Storage(s3_bucket.root, S3Options(endpoint_url=flaky_server.endpoint))
    asked: set[tuple[str, str]] = set()

    def refuse_first(method: str, path: str) -> str | None:
        first = (method, path) not in asked
        asked.add((method, path))
        return "refuse" if first else None

    flaky_server.fault = refuse_first
    storage.write_bytes("a", b"1")
    assert storage.read_bytes("a") == b"1"
    assert [info.key for info in storage.list()] == ["a"]
    source = tmp_path / "x"
    source.write_bytes(b"x" * 1000)
    assert storage.publish("p", {"x": source}, {}) == storage.manifest("p")


def test_a_missing_bucket_is_named(s3_bucket: Storage) -> None:
    with pytest.raises(StorageError, match="s3://never-made/a"):
        Storage("s3://never-made", s3_bucket.s3).write_bytes("a", b"1")


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/a"):
        Storage(str(tmp_path / "file")).write_bytes("a", b"1")


def test_a_reader_sees_whole_objects(storage: Storage) -> None:
    size, stop = 300_000, threading.Event()
    storage.write_bytes("x", b"0" * size)

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 10
            storage.write_bytes("x", b"%d" % number * size)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            data = storage.read_bytes("x")
            assert data == data[:1] * size
            assert [info.key for info in storage.list()] == ["x"]
    finally:
        stop.set()
        writer.join()


# --- crashes and full disks on a local folder ----------------------------------------------------

_SLOW_WRITE = """
import sys, time
from pathlib import Path
from resources.atomic import write_atomic
def fill(file):
    file.write(b"x" * 1000)
    file.flush()
    print("half", flush=True)
    time.sleep(60)
write_atomic(Path(sys.argv[1]), fill, if_absent=False)
"""


def test_a_killed_writer_leaves_nothing_and_a_rerun_cleans_up(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("folder/x", b"old")
    command = [sys.executable, "-c", _SLOW_WRITE, str(tmp_path / "folder/x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        storage.write_bytes("folder/x", b"meanwhile")
        assert len(list((tmp_path / "folder").iterdir())) == 2, "a live writer keeps its file"
        writer.send_signal(signal.SIGKILL)
    assert storage.read_bytes("folder/x") == b"meanwhile"
    assert [info.key for info in storage.list()] == ["folder/x"]
    storage.write_bytes("folder/x", b"new")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["x"]


@pytest.fixture
def small_files_only() -> object:
    """No file may grow over 100 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    storage = Storage(str(tmp_path / "root"))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 200_000)
    storage.write_bytes("a", b"old")
    storage.publish("p", {"x": source}, {"v": 1})
    source.write_bytes(b"y" * 200_000)
    request.getfixturevalue("small_files_only")
    with pytest.raises(StorageError, match=r"no space left to write .*root/a.*free some space"):
        storage.put_file("a", source)
    with pytest.raises(StorageError, match="no space left"):
        storage.write_bytes("b", b"x" * 200_000)
    with pytest.raises(StorageError, match="no space left"):
        storage.publish("p", {"x": source}, {"v": 2})
    manifest = storage.manifest("p")
    assert manifest is not None
    assert manifest.metadata == {"v": 1}
    assert storage.read_bytes(manifest.files[0].key) == b"x" * 200_000
    assert storage.read_bytes("a") == b"old"
    assert not [path for path in (tmp_path / "root").rglob("*#?*") if path.stat().st_size]


def test_a_lock_waits_and_then_says_so(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with file_lock(lock):
        started = time.monotonic()
        with (
            pytest.raises(LockTimeoutError, match="locked by another process"),
            file_lock(lock, timeout=0.1),
        ):
            pass
        assert time.monotonic() - started >= 0.1
    with file_lock(lock, timeout=0):
        pass


# --- publication ---------------------------------------------------------------------------------


def _files(folder: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    paths = {}
    for number, (name, data) in enumerate(contents.items()):
        paths[name] = folder / str(number)
        paths[name].write_bytes(data)
    return paths


def test_publish_replaces_an_artefact_at_once(storage: Storage, tmp_path: Path) -> None:
    first = storage.publish(
        "buildings",
        _files(tmp_path / "1", {"state=08/part-0.parquet": b"a", "state=02/part-0.parquet": b"b"}),
        {"version": "1.0.0"},
    )
    assert storage.manifest("buildings") == first
    assert [file.name for file in first.files] == [
        "state=02/part-0.parquet",
        "state=08/part-0.parquet",
    ]
    kept = first.files[1]
    assert kept.key == f"buildings/state=08/part-0-{kept.sha256[:16]}.parquet"
    assert storage.read_bytes(kept.key) == b"a"
    written = storage.head(kept.key)

    second = storage.publish(
        "buildings",
        _files(tmp_path / "2", {"state=08/part-0.parquet": b"a", "state=04/part-0.parquet": b"c"}),
        {"version": "2.0.0"},
    )
    assert storage.manifest("buildings") == second
    assert {info.key for info in storage.list()} == {
        "buildings/_manifest.json",
        *(file.key for file in second.files),
    }
    assert storage.head(kept.key) == written, "an unchanged file is not uploaded again"
    with pytest.raises(MissingObjectError):
        storage.read_bytes(first.files[0].key)


def test_equal_inputs_give_equal_bytes(storage: Storage, tmp_path: Path) -> None:
    for prefix, names in (("p", ["x.bin", "y.bin"]), ("q", ["y.bin", "x.bin"])):
        files = _files(tmp_path / prefix, {name: name.encode() for name in names})
        storage.publish(prefix, files, {"b": 1, "a": [1, 2]})
    assert storage.read_bytes("p/_manifest.json") == storage.read_bytes("q/_manifest.json")
    before = storage.head("p/_manifest.json")
    storage.publish(
        "p",
        _files(tmp_path / "r", {"y.bin": b"y.bin", "x.bin": b"x.bin"}),
        {
            "a": [1, 2],
            "b": 1,
        },
    )
    assert storage.head("p/_manifest.json") == before


def test_publish_mends_a_lost_file(storage: Storage, tmp_path: Path) -> None:
    files = _files(tmp_path / "1", {"x.bin": b"x"})
    key = storage.publish("p", files, {}).files[0].key
    storage.delete(key)
    storage.publish("p", files, {})
    assert storage.read_bytes(key) == b"x"


def test_an_empty_publication_is_legal(storage: Storage, tmp_path: Path) -> None:
    storage.publish("p", _files(tmp_path / "1", {"x.bin": b"x"}), {})
    assert storage.publish("p", {}, {}).files == ()
    assert [info.key for info in storage.list("p")] == ["p/_manifest.json"]


@pytest.mark.parametrize("name", ["../x", "/x", "_manifest.json"])
def test_bad_names_are_refused_before_anything_is_written(
    storage: Storage, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidKeyError):
        storage.publish("p", _files(tmp_path / "1", {"ok": b"1", name: b"2"}), {})
    assert storage.list() == []


def test_a_crash_before_the_switch_keeps_the_old_state(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = storage.publish("p", _files(tmp_path / "1", {"x.bin": b"old"}), {"v": 1})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_switch", crash)
        with pytest.raises(KeyboardInterrupt):
            storage.publish("p", _files(tmp_path / "2", {"x.bin": b"new"}), {"v": 2})
    assert storage.manifest("p") == old
    assert storage.read_bytes(old.files[0].key) == b"old"
    new = storage.publish("p", _files(tmp_path / "2", {"x.bin": b"new"}), {"v": 2})
    assert {info.key for info in storage.list()} == {"p/_manifest.json", new.files[0].key}


def test_two_publishers_at_once_leave_one_whole_state(storage: Storage, tmp_path: Path) -> None:
    def publish(number: int) -> Manifest | None:
        contents = {f"{name}.bin": b"%d" % number * 1000 for name in "abc"}
        files = _files(tmp_path / str(number), contents)
        try:
            return storage.publish("p", files, {"number": number})
        except StorageError as error:
            assert "another writer" in str(error)  # noqa: PT017
            return None

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(publish, range(4)))
    assert any(results)
    final = storage.manifest("p")
    assert final is not None
    assert final == results[final.metadata["number"]]
    for file in final.files:
        assert storage.read_bytes(file.key) == b"%d" % final.metadata["number"] * 1000


def test_a_damaged_manifest_is_named(storage: Storage) -> None:
    for data in (b"", b"{", b'{"format": 2}', b'{"format":1,"metadata":{},"files":[{}]}'):
        storage.write_bytes("p/_manifest.json", data)
        with pytest.raises(StorageError, match=r"p/_manifest\.json is not a manifest"):
            storage.manifest("p")
    escape = Manifest("p", (ManifestFile("x", "p/../../x", 1, "0"),), {}).to_bytes()
    storage.write_bytes("p/_manifest.json", escape)
    with pytest.raises(StorageError, match="not a manifest"):
        storage.manifest("p")


def test_content_addressed_names() -> None:
    assert content_addressed("a=1/part-0.parquet", "ab" * 32) == (
        "a=1/part-0-abababababababab.parquet"
    )
    assert content_addressed("LICENSE", "cd" * 32) == "LICENSE-cdcdcdcdcdcdcdcd"
