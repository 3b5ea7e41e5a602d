"""IO managers: what was stored is loaded back, on a local folder and on S3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources.io_managers import (
    KEY,
    Artefact,
    FileIOManager,
    FilesIOManager,
    FolderIOManager,
    StoredFile,
    StoredTable,
    TableIOManager,
)
from resources.keys import MissingObjectError, StorageError
from resources.manifest import sha256_file
from resources.storage import Storage

LINEAGE = {"version": "v1.0.0", "code_version": "abc", "inputs": {"wind": "1"}}


class Maker:
    """Makes files in a scratch folder and stores them through an IO manager."""

    def __init__(self, manager: Any, key: str, folder: Path) -> None:
        self.manager = manager
        self.key = key
        self.folder = folder

    def store(self, files: Mapping[str, bytes], **lineage: Any) -> dict[str, Any]:
        """Store files; return the metadata that the UI shows."""
        self.folder.mkdir(exist_ok=True)
        paths = {}
        for number, (name, content) in enumerate(files.items()):
            paths[name] = self.folder / f"file-{number}"
            paths[name].write_bytes(content)
        with self.output_context() as context:
            artefact = Artefact(paths, {**LINEAGE, **lineage}, {"rows": 3})
            self.manager.handle_output(context, artefact)
            shown = context.get_logged_metadata()
        assert not list(self.folder.iterdir()), "scratch space was not freed"
        return {name: value.value for name, value in shown.items()}

    def load(self) -> Any:
        """Load as a downstream asset does."""
        with (
            self.output_context() as upstream,
            dg.build_input_context(
                upstream_output=upstream, asset_key=dg.AssetKey("made")
            ) as context,
        ):
            return self.manager.load_input(context)

    def output_context(self) -> dg.OutputContext:
        return dg.build_output_context(
            definition_metadata={KEY: self.key}, asset_key=dg.AssetKey("made")
        )


def content(storage: Storage) -> dict[str, bytes]:
    return {info.key: storage.read_bytes(info.key) for info in storage.list()}


@pytest.fixture
def file(storage: Storage, tmp_path: Path) -> Maker:
    return Maker(FileIOManager(storage), "pmtiles/towns.pmtiles", tmp_path / "scratch")


@pytest.fixture
def files(storage: Storage, tmp_path: Path) -> Maker:
    return Maker(FilesIOManager(storage), "region-analysis/states", tmp_path / "scratch")


@pytest.fixture
def table(storage: Storage, tmp_path: Path) -> Maker:
    return Maker(TableIOManager(storage), "buildings", tmp_path / "scratch")


@pytest.fixture
def folder(storage: Storage, tmp_path: Path) -> Maker:
    return Maker(FolderIOManager(storage), "pyramid", tmp_path / "scratch")


def parquet(folder: Path, values: list[int]) -> bytes:
    path = folder / "table.parquet"
    pq.write_table(pa.table({"value": values}), path)
    return path.read_bytes()


def test_a_file_comes_back_as_it_was(file: Maker, storage: Storage, tmp_path: Path) -> None:
    data = parquet(tmp_path, [1, 2, 3])
    shown = file.store({"": data})
    stored = file.load()
    assert isinstance(stored, StoredFile)
    assert storage.read_bytes("pmtiles/towns.pmtiles") == data
    assert pq.read_table(stored.source())["value"].to_pylist() == [1, 2, 3]
    (tmp_path / "copy").write_bytes(data)
    assert stored.fingerprint == sha256_file(tmp_path / "copy")
    assert shown["bytes"] == len(data)
    assert shown["rows"] == 3
    assert shown["lineage"] == LINEAGE
    assert shown["path"] == storage.uri("pmtiles/towns.pmtiles")


def test_the_lineage_of_a_file_is_beside_it(file: Maker, storage: Storage) -> None:
    file.store({"": b"tiles"})
    record = json.loads(storage.read_bytes("pmtiles/towns.pmtiles.lineage.json"))
    assert record == {"sha256": file.load().fingerprint, **LINEAGE}


def test_a_table_comes_back_as_it_was(table: Maker, storage: Storage, tmp_path: Path) -> None:
    parts = {f"state_fips=0{n}/part-0.parquet": parquet(tmp_path, [n, n + 10]) for n in (8, 4)}
    shown = table.store(parts)
    stored = table.load()
    assert isinstance(stored, StoredTable)
    assert [file.name for file in stored.manifest.files] == sorted(parts)
    values = [pq.read_table(source)["value"].to_pylist() for source in stored.sources()]
    assert values == [[4, 14], [8, 18]]
    paths, base, filesystem = stored.places()
    with filesystem.open_input_file(paths[0]) as opened:
        assert opened.read() == parts["state_fips=04/part-0.parquet"]
    assert all(path.startswith(f"{base}/state_fips=0") for path in paths)
    assert base.endswith("/buildings")
    assert stored.manifest.metadata == LINEAGE
    assert shown["files"] == 2
    assert shown["bytes"] == sum(map(len, parts.values()))
    assert shown["path"] == storage.uri("buildings")


def test_a_stale_partition_disappears(table: Maker, storage: Storage) -> None:
    table.store({"county_fips=001/a.parquet": b"1", "county_fips=002/a.parquet": b"2"})
    before = table.load()
    table.store({"county_fips=002/a.parquet": b"2"})
    assert [info.key.split("/")[1] for info in storage.list("buildings")] == [
        "_manifest.json",
        "county_fips=002",
    ]
    assert table.load().fingerprint != before.fingerprint


def test_a_folder_comes_back_as_it_was(folder: Maker, storage: Storage) -> None:
    files = {"zarr.json": b"{}", "0/rps/c/0/0": b"\0\1", "0/rps/zarr.json": b"{} "}
    shown = folder.store(files)
    stored = folder.load()
    assert content(stored) == files
    assert shown["path"] == stored.uri()
    pointer = json.loads(storage.read_bytes("pyramid/current.json"))
    assert {name: pointer[name] for name in LINEAGE} == LINEAGE


def test_a_new_folder_replaces_the_old_one(folder: Maker, storage: Storage) -> None:
    folder.store({"zarr.json": b"old", "0/rps/c/0/0": b"1"})
    before = folder.load()
    folder.store({"zarr.json": b"new"}, code_version="abd")
    assert content(folder.load()) == {"zarr.json": b"new"}
    assert content(before) == {}
    assert len(storage.list("pyramid")) == 2


@pytest.mark.parametrize("kind", ["file", "table", "folder"])
def test_storing_the_same_twice_changes_no_byte(
    kind: str, request: pytest.FixtureRequest, storage: Storage
) -> None:
    maker: Maker = request.getfixturevalue(kind)
    files = {"": b"one"} if kind == "file" else {"b/x": b"one", "a": b"two"}
    maker.store(files)
    before = content(storage)
    maker.store(dict(reversed(files.items())))
    assert content(storage) == before


@pytest.mark.parametrize("kind", ["file", "table", "folder"])
def test_what_was_never_stored_is_named(
    kind: str, request: pytest.FixtureRequest, storage: Storage
) -> None:
    maker: Maker = request.getfixturevalue(kind)
    with pytest.raises(MissingObjectError) as error:
        maker.load()
    assert "materialize made first" in str(error.value)
    assert maker.key in str(error.value)


def test_an_input_that_no_asset_makes_is_a_defect(storage: Storage) -> None:
    with (
        dg.build_input_context(name="x") as context,
        pytest.raises(TypeError, match="is not the output of an asset"),
    ):
        FileIOManager(storage).load_input(context)


def test_a_folder_that_cannot_be_stored_leaves_the_old_one(
    tmp_path: Path, small_disk: Path
) -> None:
    storage = Storage(str(small_disk / "root"))
    maker = Maker(FolderIOManager(storage), "pyramid", tmp_path / "scratch")
    maker.store({"zarr.json": b"old"})
    with pytest.raises(StorageError, match="no space left"):
        maker.store({"zarr.json": b"new", "0/rps/c/0/0": bytes(4_000_000)})
    assert content(maker.load()) == {"zarr.json": b"old"}


def test_through_a_run_a_downstream_asset_gets_what_was_stored(
    storage: Storage, tmp_path: Path
) -> None:
    @dg.asset(io_manager_key="tables", metadata={KEY: "numbers"})
    def numbers() -> Artefact:
        path = tmp_path / "numbers.parquet"
        path.write_bytes(parquet(tmp_path, [5, 6]))
        return Artefact({"all.parquet": path}, LINEAGE)

    @dg.asset(io_manager_key="files", metadata={KEY: "total.txt"})
    def total(numbers: StoredTable) -> Artefact:
        found = sum(sum(pq.read_table(source)["value"].to_pylist()) for source in numbers.sources())
        path = tmp_path / "total.txt"
        path.write_text(str(found))
        return Artefact.single(path, {"inputs": {"numbers": numbers.fingerprint}})

    resources = {"tables": TableIOManager(storage), "files": FileIOManager(storage)}
    assert dg.materialize([numbers, total], resources=resources).success
    assert storage.read_bytes("total.txt") == b"11"


def test_files_keep_their_names_and_go_when_they_are_no_longer_made(
    files: Maker, storage: Storage
) -> None:
    with pytest.raises(MissingObjectError, match="materialize made first"):
        files.load()
    shown = files.store({"stats.csv": b"a,b", "stats.xml": b"<a/>"})
    assert shown["files"] == ["stats.csv", "stats.xml"]
    assert shown["bytes"] == 7
    again = files.store({"stats.csv": b"a,b,c"})
    assert again["sha256"] != shown["sha256"]
    record = json.loads(storage.read_bytes("region-analysis/states.lineage.json"))
    assert record["sha256"] == again["sha256"]
    assert record["version"] == "v1.0.0"
    assert record["files"].keys() == {"stats.csv"}
    assert content(files.load()) == {"stats.csv": b"a,b,c"}
