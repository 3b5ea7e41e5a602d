"""Downloads from a server on loopback that breaks off, changes its files, and refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer

from resources.downloads import DownloadError, arrival_of, download, fetch, read_url

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    running.files["/model"] = CONTENT
    yield running
    running.close()


def test_a_file_comes_whole_and_alone(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "model"
    assert download(f"{server.url}/model", target, sha256=SHA256, size=len(CONTENT)) == SHA256
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_broken_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    download(f"{server.url}/model", tmp_path / "model", sha256=SHA256, first_wait=0)
    assert (tmp_path / "model").read_bytes() == CONTENT
    starts = [int(re.sub(r"\D", "", wanted)) for _, wanted in server.requests[1:] if wanted]
    assert starts == [300_000, 500_000]


def test_a_later_call_goes_on_too(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100_000] * 5
    with pytest.raises(DownloadError, match="broke off 5 times"):
        download(f"{server.url}/model", tmp_path / "model", first_wait=0)
    assert not (tmp_path / "model").exists()
    server.requests.clear()
    download(f"{server.url}/model", tmp_path / "model", sha256=SHA256)
    assert server.requests == [("/model", "bytes=500000-")]


def test_a_file_that_changed_in_between_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100_000] * 5
    with pytest.raises(DownloadError):
        download(f"{server.url}/model", tmp_path / "model", first_wait=0)
    server.files["/model"] = CONTENT[::-1]
    download(f"{server.url}/model", tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == CONTENT[::-1]


def test_without_an_entity_tag_a_download_begins_again(server: FileServer, tmp_path: Path) -> None:
    server.tags, server.cuts = False, [100_000]
    download(f"{server.url}/model", tmp_path / "model", sha256=SHA256, first_wait=0)
    assert [wanted for _, wanted in server.requests] == [None, None]


def test_a_complete_part_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100_000] * 5
    with pytest.raises(DownloadError):
        download(f"{server.url}/model", tmp_path / "model", first_wait=0)
    (tmp_path / ".model.part").write_bytes(CONTENT)
    assert download(f"{server.url}/model", tmp_path / "model", sha256=SHA256) == SHA256


def test_busy_servers_are_asked_again_and_missing_files_are_not(
    server: FileServer, tmp_path: Path
) -> None:
    server.codes = [503, 429]
    download(f"{server.url}/model", tmp_path / "model", first_wait=0)
    server.requests.clear()
    with pytest.raises(DownloadError, match="answers 404"):
        download(f"{server.url}/absent", tmp_path / "absent", first_wait=0)
    assert len(server.requests) == 1
    server.codes = [503] * 5
    with pytest.raises(DownloadError, match="answers 503"):
        download(f"{server.url}/model", tmp_path / "again", first_wait=0)


@pytest.mark.parametrize("expected", [{"sha256": "0" * 64}, {"size": 5}])
def test_other_bytes_than_expected_are_not_kept(
    server: FileServer, tmp_path: Path, expected: dict
) -> None:
    (tmp_path / "model").write_bytes(b"the old one")
    with pytest.raises(DownloadError, match="has changed or was damaged"):
        download(f"{server.url}/model", tmp_path / "model", **expected)
    assert (tmp_path / "model").read_bytes() == b"the old one"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "model"])
def test_only_http_is_followed(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="not an http"):
        download(url, tmp_path / "model")
    with pytest.raises(DownloadError, match="not an http"):
        read_url(url)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be read"):
        read_url("http://127.0.0.1:9/none")


class TestFetch:
    def test_what_arrives_is_recorded(self, server: FileServer, tmp_path: Path) -> None:
        told: list[int] = []
        arrival = fetch(f"{server.url}/model", tmp_path / "model", on_bytes=told.append)
        assert arrival == arrival_of(tmp_path / "model")
        assert (arrival.sha256, arrival.size) == (SHA256, len(CONTENT))
        assert arrival.published_sha256 is None
        assert arrival.etag == f'"{hashlib.md5(CONTENT).hexdigest()}"'
        assert told[0] == 0
        assert told[-1] == len(CONTENT)
        assert told == sorted(told)

    def test_a_file_that_is_there_is_not_fetched_again(
        self, server: FileServer, tmp_path: Path
    ) -> None:
        for _ in range(2):
            fetch(f"{server.url}/model", tmp_path / "model")
        assert len(server.requests) == 1
        assert server.looks == ["/model"]

    def test_a_published_hash_needs_no_look(self, server: FileServer, tmp_path: Path) -> None:
        for _ in range(2):
            arrival = fetch(f"{server.url}/model", tmp_path / "model", sha256=SHA256.upper())
        assert arrival.published_sha256 == SHA256.upper()
        assert (len(server.requests), server.looks) == (1, [])

    def test_a_new_version_replaces_the_old_one(self, server: FileServer, tmp_path: Path) -> None:
        fetch(f"{server.url}/model", tmp_path / "model")
        server.files["/model"] = CONTENT[::-1]
        arrival = fetch(f"{server.url}/model", tmp_path / "model")
        assert arrival.sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()

    def test_a_damaged_file_is_fetched_again(self, server: FileServer, tmp_path: Path) -> None:
        fetch(f"{server.url}/model", tmp_path / "model")
        (tmp_path / "model").write_bytes(bytes(len(CONTENT)))
        fetch(f"{server.url}/model", tmp_path / "model")
        assert (tmp_path / "model").read_bytes() == CONTENT

    def test_a_server_that_is_gone_leaves_what_is_here(
        self, server: FileServer, tmp_path: Path
    ) -> None:
        arrival = fetch(f"{server.url}/model", tmp_path / "model")
        del server.files["/model"]
        assert fetch(f"{server.url}/model", tmp_path / "model") == arrival

    def test_other_bytes_than_published_are_refused(
        self, server: FileServer, tmp_path: Path
    ) -> None:
        with pytest.raises(DownloadError, match="has changed or was damaged"):
            fetch(f"{server.url}/model", tmp_path / "model", sha256="0" * 64)
        assert not list(tmp_path.iterdir())

    def test_a_date_resumes_where_there_is_no_tag(self, server: FileServer, tmp_path: Path) -> None:
        server.tags, server.dates = False, "Wed, 01 Jan 2025 00:00:00 GMT"
        server.cuts = [100_000]
        arrival = fetch(f"{server.url}/model", tmp_path / "model", first_wait=0)
        assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-"]
        assert (arrival.etag, arrival.last_modified) == (None, server.dates)
        fetch(f"{server.url}/model", tmp_path / "model")
        assert len(server.requests) == 2
        server.dates = "Thu, 02 Jan 2025 00:00:00 GMT"
        fetch(f"{server.url}/model", tmp_path / "model")
        assert len(server.requests) == 3
