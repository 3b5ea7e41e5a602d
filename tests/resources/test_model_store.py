"""Finding, fetching and verifying models, with a hub on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer
from recognition_models import easter_bytes, easter_config

from ocr_assets.volumes.models import read_line_model
from resources import model_store
from resources.downloads import DownloadError
from resources.model_store import (
    CATALOGUE,
    CatalogueEntry,
    DamagedModelError,
    MissingModelError,
    ModelStore,
)

NETWORK = easter_bytes(24, 64, 2)
CONFIG = json.dumps({"onnx-model": "net.onnx", **easter_config(24, 64, "ab")}).encode()
TRAINEDDATA = b"a model file, whatever it holds"


@pytest.fixture
def hub() -> Iterator[FileServer]:
    server = FileServer()
    files = {
        "model_config.json": CONFIG,
        "net.onnx": NETWORK,
        "README.md": b"# Model",
        "pytorch_model.bin": b"not needed",
        "logs/events.json": b"not needed",
    }
    listing = [{"type": "directory", "path": "logs", "size": 0}]
    for path, content in files.items():
        entry = {"type": "file", "path": path, "size": len(content)}
        if path.endswith(".onnx"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        listing.append(entry)
        server.files[f"/BDRC/Woodblock/resolve/main/{path}"] = content
    server.files["/api/models/BDRC/Woodblock/tree/main"] = json.dumps(listing).encode()
    server.files["/files/bod.traineddata"] = TRAINEDDATA
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path, hub: FileServer) -> ModelStore:
    return ModelStore(
        tmp_path / "models", tessdata_folders=(tmp_path / "tessdata",), hub_url=hub.url
    )


def test_nothing_is_there_at_first(store: ModelStore) -> None:
    assert {status.state for status in store.list()} == {"missing"}
    assert [status.name for status in store.list()] == [entry.name for entry in CATALOGUE]
    with pytest.raises(MissingModelError, match="install the package tesseract-ocr-bod"):
        store.find("bod")
    with pytest.raises(MissingModelError, match="run `ocr models fetch Woodblock-Stacks`"):
        store.find("Woodblock-Stacks")
    with pytest.raises(MissingModelError, match="there is no model 'Mine'"):
        store.find("Mine")
    with pytest.raises(MissingModelError, match="there is no model 'Mine'"):
        store.fetch("Mine")


def test_a_model_of_a_hub(store: ModelStore, hub: FileServer) -> None:
    folder = store.fetch("Woodblock-Stacks")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "model_config.json", "net.onnx",
    ]  # fmt: skip
    # The configuration makes a folder a model, so it comes last.
    assert hub.requests[-1][0].endswith("/model_config.json")
    assert read_line_model(store.find("Woodblock-Stacks")).architecture == "Easter2"
    assert store.verify("Woodblock-Stacks")["net.onnx"] == hashlib.sha256(NETWORK).hexdigest()
    (status,) = [one for one in store.list() if one.name == "Woodblock-Stacks"]
    assert (status.state, status.path) == ("fetched", folder)


def test_a_hub_that_gives_other_bytes_than_it_lists(store: ModelStore, hub: FileServer) -> None:
    hub.files["/BDRC/Woodblock/resolve/main/net.onnx"] = NETWORK[::-1]
    with pytest.raises(DownloadError, match="has changed or was damaged"):
        store.fetch("Woodblock-Stacks")
    with pytest.raises(MissingModelError):
        store.find("Woodblock-Stacks")


@pytest.mark.parametrize(
    ("listing", "problem"),
    [
        (b"<html>", "not a list of files"),
        (b'[{"type": "file"}]', "not a list of files"),
        (b"[]", r"has no model_config\.json"),
    ],
)
def test_a_repository_that_is_no_model(
    store: ModelStore, hub: FileServer, listing: bytes, problem: str
) -> None:
    hub.files["/api/models/BDRC/Woodblock/tree/main"] = listing
    with pytest.raises(DownloadError, match=problem):
        store.fetch("Woodblock-Stacks")


def test_a_known_file_from_its_url(
    store: ModelStore, hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry(sha256: str) -> CatalogueEntry:
        return CatalogueEntry(
            "bod", "", "Apache-2.0", url=f"{hub.url}/files/bod.traineddata", sha256=sha256
        )

    monkeypatch.setattr(model_store, "CATALOGUE", (entry("0" * 64),))
    with pytest.raises(DownloadError, match="has changed or was damaged"):
        store.fetch("bod")
    sha256 = hashlib.sha256(TRAINEDDATA).hexdigest()
    monkeypatch.setattr(model_store, "CATALOGUE", (entry(sha256),))
    assert store.fetch("bod").read_bytes() == TRAINEDDATA
    assert store.verify("bod") == {"bod.traineddata": sha256}


def test_a_file_of_a_system_package_is_found_and_copied(
    store: ModelStore, hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(TRAINEDDATA).hexdigest()
    monkeypatch.setattr(
        model_store, "CATALOGUE", (CatalogueEntry("bod", "", "", url="http://x", sha256=sha256),)
    )
    system = tmp_path / "tessdata" / "bod.traineddata"
    system.parent.mkdir()
    system.write_bytes(TRAINEDDATA)
    assert store.find("bod") == system
    assert store.verify("bod") == {"bod.traineddata": sha256}
    assert store.list()[0].state == "system"
    copied = store.fetch("bod")
    assert copied != system
    assert store.find("bod") == copied
    assert not hub.requests
    system.write_bytes(b"another version")
    assert store.verify("bod") == {"bod.traineddata": sha256}
    copied.unlink()
    with pytest.raises(DamagedModelError, match="fetch the model again"):
        store.verify("bod")


def test_models_under_names_of_the_users_choice(
    store: ModelStore, hub: FileServer, tmp_path: Path
) -> None:
    assert store.fetch("mine", f"{hub.url}/files/bod.traineddata").name == "mine.traineddata"
    assert store.fetch("ours", "BDRC/Woodblock").name == "ours"
    local = tmp_path / "local"
    local.mkdir()
    (local / "model_config.json").write_bytes(CONFIG)
    (local / "net.onnx").write_bytes(NETWORK)
    assert read_line_model(store.fetch("copied", str(local))).name == "copied"
    others = [status.name for status in store.list() if status.state == "fetched"]
    assert others == ["copied", "mine", "ours"]


def test_damage_is_found(store: ModelStore) -> None:
    folder = store.fetch("Woodblock-Stacks")
    (folder / "net.onnx").write_bytes(NETWORK[:-1])
    with pytest.raises(DamagedModelError, match=r"net\.onnx has SHA-256"):
        store.verify("Woodblock-Stacks")
    (folder / "net.onnx").unlink()
    with pytest.raises(DamagedModelError, match="none, it is missing"):
        store.verify("Woodblock-Stacks")


@pytest.mark.parametrize(
    ("name", "source", "error", "problem"),
    [
        ("../up", None, ValueError, "not a model name"),
        ("a/b", "x/y", ValueError, "not a model name"),
        ("mine", "nowhere", DownloadError, "is not a source"),
        ("mine", "http://127.0.0.1/model.bin", DownloadError, "does not end in"),
        ("mine", ".", DownloadError, "not a model folder"),
    ],
)
def test_wrong_names_and_sources(
    store: ModelStore, name: str, source: str | None, error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        store.fetch(name, source)
