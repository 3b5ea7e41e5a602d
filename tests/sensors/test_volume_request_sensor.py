"""Requests for volumes become runs: listed, then read, and what changed or cannot be reached."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from request_worlds import Requests, age, short

from ocr_assets.partitions import PARTITION, VOLUMES
from ocr_assets.request_messages import volume_messages
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.archive import MANIFEST_NAME, VolumeId, image_folder


class Archive:
    """An archive in a folder, whose volumes have lists of images and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Works").mkdir(parents=True)

    def put(self, volume: str, *names: str) -> None:
        place = self.folder / image_folder(VolumeId.parse(volume)) / MANIFEST_NAME
        place.parent.mkdir(parents=True, exist_ok=True)
        entries = [{"filename": name, "width": 10, "height": 10} for name in names]
        place.write_bytes(gzip.compress(json.dumps(entries).encode(), mtime=0))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def volumes(tmp_path: Path, archive: Archive) -> Requests:
    return Requests(tmp_path, "volumes", volumes_source=str(archive.folder))


def reads(*volumes: str, job_type: str = "printed-unicode", attempt: int = 1) -> bytes:
    (body,) = volume_messages([VolumeId.parse(one) for one in volumes], job_type, attempt)
    return body


def without_tag(keys: list[str]) -> list[str]:
    return [key.partition("@")[0].removeprefix("volumes/qa/dev/") for key in keys]


def test_a_volume_is_listed_then_read(volumes: Requests, archive: Archive) -> None:
    archive.put("W1-I1", "1.tif")
    volumes.put("one.json", reads("W1-I1"))
    keys = volumes.until_quiet()
    assert without_tag(keys) == ["W1-I1", "printed-unicode|W1-I1"]
    library = VolumeLibrary(volumes.settings)
    etag = library.source(VolumeId.parse("W1-I1")).manifest().etag
    assert [key.partition("@")[2] for key in keys] == [etag, etag]
    instance = volumes.daemon.instance
    assert instance.get_dynamic_partitions(str(VOLUMES.name)) == ["W1-I1"]
    (run, listing) = instance.get_runs()
    assert run.job_name == "requested_volumes"
    assert run.tags[PARTITION] == "printed-unicode|W1-I1"
    assert listing.job_name == "requested_listings"
    assert listing.tags[PARTITION] == "W1-I1"


def test_a_volume_that_is_listed_already_is_read_at_once(
    volumes: Requests, archive: Archive
) -> None:
    archive.put("W1-I1", "1.tif")
    library = VolumeLibrary(volumes.settings)
    library.store_manifest(library.source(VolumeId.parse("W1-I1")).manifest())
    volumes.put("one.json", reads("W1-I1"))
    assert without_tag(volumes.daemon.tick()) == ["printed-unicode|W1-I1"]


def test_replaced_scans_are_read_again_and_unchanged_ones_are_not(
    volumes: Requests, archive: Archive
) -> None:
    archive.put("W1-I1", "1.tif")
    archive.put("W2-I2", "1.tif")
    volumes.put("one.json", reads("W1-I1", "W2-I2"))
    assert len(volumes.until_quiet()) == 4
    archive.put("W2-I2", "1.tif", "2.tif")
    volumes.put("one.json", reads("W1-I1", "W2-I2"))
    assert without_tag(volumes.until_quiet()) == ["W2-I2", "printed-unicode|W2-I2"]
    volumes.put("wylie.json", reads("W1-I1", job_type="printed-wylie"))
    # Its images were listed for the other job type.
    assert without_tag(volumes.until_quiet()) == ["printed-wylie|W1-I1"]


def test_volumes_of_a_folder_are_known_by_their_content(tmp_path: Path) -> None:
    requests = Requests(tmp_path, "volumes")
    folder = Path(requests.settings.scans_uri, "W1-I1")
    folder.mkdir(parents=True)
    (folder / "1.tif").write_bytes(b"one")
    requests.put("one.json", reads("W1-I1"))
    first = requests.until_quiet()
    assert without_tag(first) == ["W1-I1", "printed-unicode|W1-I1"]
    # The same content at another time is the same volume.
    age(folder / "1.tif")
    requests.put("one.json", reads("W1-I1"))
    assert requests.until_quiet() == []
    (folder / "1.tif").write_bytes(b"two")
    requests.put("one.json", reads("W1-I1"))
    second = requests.until_quiet()
    assert without_tag(second) == without_tag(first)
    assert set(first).isdisjoint(second)


@pytest.mark.parametrize(
    "body",
    [
        b'{"w_id": "W1", "i_id": "I1"}',
        b"\xef\xbb\xbf# a list\nW1-I1 # the first\n\nW1,I1\n",
        b'{"ocr": "volume_request", "volumes": ["W1-I1", "W1/I1"]}',
    ],
    ids=["task", "list", "message"],
)
def test_volumes_are_asked_for_in_several_forms(
    volumes: Requests, archive: Archive, body: bytes
) -> None:
    archive.put("W1-I1", "1.tif")
    volumes.put("request", body)
    assert without_tag(volumes.until_quiet()) == ["W1-I1", "printed-unicode|W1-I1"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"ocr": "volume_request", "volumes": ["W1-../../I1"]}', "is no volume"),
        (
            b'{"ocr": "volume_request", "volumes": ["W1-I1"], "job_type": "../x"}',
            "unknown job type",
        ),
        (b'{"ocr": "volume_request", "volumes": "W1-I1"}', "volumes: Input should be a valid list"),
        (b'{"w_id": "W1\' OR 1=1 --", "i_id": "I1"}', "are no volume"),
        (b'{"w_id": "W1", "i_id": "I1", "source": "elsewhere"}', "source: Extra inputs"),
        (b"W1-I1\nrm -rf /\n", "line 2"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[1]", "valid dictionary"),
        (b'{"ocr": "volume_request", "volumes": ["W9-I9"]}', "has no manifest"),
    ],
    ids=short,
)
def test_requests_for_volumes_that_cannot_be_used(
    volumes: Requests, body: bytes, reason: str
) -> None:
    volumes.put("request", body)
    assert volumes.until_quiet() == []
    assert reason in volumes.document("rejected", ".reason.json")["reason"]
    assert volumes.daemon.instance.get_dynamic_partitions(str(VOLUMES.name)) == []


def test_volumes_that_are_not_there_are_left_out(volumes: Requests, archive: Archive) -> None:
    archive.put("W2-I2", "1.tif")
    body = {"ocr": "volume_request", "volumes": ["W1-I1", "W2-I2", "what", "W3-I3"]}
    volumes.put("request.json", json.dumps(body).encode())
    assert without_tag(volumes.until_quiet()) == ["W2-I2", "printed-unicode|W2-I2"]
    document = volumes.document("done", ".left-out.json")
    assert document["count"] == 3
    assert [line.split()[0] for line in document["left_out"]] == ["'what'", "volume", "volume"]
    assert volumes.daemon.instance.get_dynamic_partitions(str(VOLUMES.name)) == ["W2-I2"]


def test_a_source_that_cannot_be_reached_is_waited_for(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(tmp_path, "volumes", volumes_source=str(archive.folder))
    archive.put("W1-I1", "1.tif")
    requests.put("one.json", reads("W1-I1"))
    broken: Callable[..., Any] = _unreachable
    with monkeypatch.context() as patch:
        patch.setattr("ocr_assets.volume_sources._archive_etag", broken)
        assert requests.daemon.tick() == []
        assert "waits: cannot look at the archive" in requests.daemon.told
    assert len(requests.until_quiet()) == 2


def _unreachable(source: object) -> str:
    from resources.keys import StorageError

    raise StorageError("cannot look at the archive")
