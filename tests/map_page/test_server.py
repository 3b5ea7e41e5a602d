"""The map page's server, asked over real connections."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.map_page.ranges import UnsatisfiableRangeError, requested_range
from ocr_assets.map_page.server import MapPageError, MapServer, PageSettings, StoredArchive
from ocr_assets.map_page.subject import page_subject
from ocr_assets.regions.fire_risk import FIRE
from resources.storage import ObjectInfo, Storage

CONTENT = bytes(range(256)) * 4
SETTINGS = PageSettings(
    "Wildfire risk", page_subject(FIRE), "qa", "1.0.0", ("Somebody",), "synthetic"
)
ARCHIVE = "/tiles/buildings.pmtiles"


class ShrunkArchive(StoredArchive):
    """An archive that was replaced by a shorter one since its size was asked for."""

    def info(self) -> ObjectInfo:
        return ObjectInfo(self.key, len(CONTENT) + 1000, "abc")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a file.pmtiles"
    path.write_bytes(CONTENT)
    return path


def _stored(path: Path) -> StoredArchive:
    return StoredArchive(Storage(str(path.parent)), path.name)


@pytest.fixture
def connection(archive: Path) -> Iterator[http.client.HTTPConnection]:
    with MapServer({"buildings": _stored(archive)}, SETTINGS).running() as url:
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        yield client
        client.close()


def _ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=sent)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000-", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-5000", 0, 1024),
        ("bytes=1000-999999", 1000, 1024),
    ],
)
def test_a_range_is_answered_with_just_its_bytes(
    connection: http.client.HTTPConnection, wanted: str, start: int, end: int
) -> None:
    status, headers, body = _ask(connection, ARCHIVE, Range=wanted)
    assert (status, body) == (206, CONTENT[start:end])
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/1024"
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_outside_is_refused(connection: http.client.HTTPConnection, wanted: str) -> None:
    status, headers, body = _ask(connection, ARCHIVE, Range=wanted)
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == "bytes */1024"


@pytest.mark.parametrize(
    "wanted", ["bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=-", "bytes=a-b", "bytes=٣-"]
)
def test_what_is_no_single_range_of_bytes_is_ignored(
    connection: http.client.HTTPConnection, wanted: str
) -> None:
    connection.putrequest("GET", ARCHIVE)
    connection.putheader("Range", wanted.encode())
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, CONTENT)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_a_range_is_what_slicing_gives(first: int, last: int, size: int) -> None:
    content = bytes(range(size))
    wanted = content[first : last + 1]
    try:
        found = requested_range(f"bytes={first}-{last}", size)
    except UnsatisfiableRangeError:
        assert wanted == b""
    else:
        assert (content[slice(*found)] == wanted) if found else first > last


def test_head_and_etag_spare_the_bytes(
    connection: http.client.HTTPConnection, archive: Path
) -> None:
    status, headers, body = _ask(connection, ARCHIVE, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "1024", b"")
    etag = headers["ETag"]
    assert _ask(connection, ARCHIVE, If_None_Match=f'"x", W/{etag}')[0::2] == (304, b"")
    assert _ask(connection, ARCHIVE, If_Range=etag, Range="bytes=0-1")[0] == 206

    archive.with_suffix(".new").write_bytes(b"other")
    archive.with_suffix(".new").replace(archive)
    assert _ask(connection, ARCHIVE, If_None_Match=etag)[0::2] == (200, b"other")
    assert _ask(connection, ARCHIVE, If_Range=etag, Range="bytes=0-1")[0::2] == (200, b"other")

    archive.unlink()
    assert _ask(connection, ARCHIVE)[0] == 404


def test_an_archive_on_an_object_store_is_read_by_ranges(s3_bucket: Storage) -> None:
    s3_bucket.write_bytes("tiles/a.pmtiles", CONTENT)
    archives = {"regions": StoredArchive(s3_bucket, "tiles/a.pmtiles")}
    with MapServer(archives, SETTINGS).running() as url:
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        status, headers, body = _ask(client, "/tiles/regions.pmtiles", Range="bytes=100-109")
        assert (status, body) == (206, CONTENT[100:110])
        unchanged, _, _ = _ask(client, "/tiles/regions.pmtiles", If_None_Match=headers["ETag"])
        assert unchanged == 304
        s3_bucket.delete("tiles/a.pmtiles")
        assert _ask(client, "/tiles/regions.pmtiles")[0] == 404
        client.close()


def test_an_archive_that_shrinks_ends_the_connection(archive: Path) -> None:
    shrunk = ShrunkArchive(Storage(str(archive.parent)), archive.name)
    with MapServer({"regions": shrunk}, SETTINGS).running() as url:
        client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        with pytest.raises(http.client.IncompleteRead):
            _ask(client, "/tiles/regions.pmtiles")
        client.close()


@pytest.mark.parametrize(
    "path",
    [
        "/tiles/regions.pmtiles",
        "/tiles/../server.py",
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/server.py",
        "/library/../ipywidget.js",
        "/library/ipywidget.js",
    ],
)
def test_only_known_names_are_answered(connection: http.client.HTTPConnection, path: str) -> None:
    status, _, body = _ask(connection, path)
    assert (status, body) == (404, b"There is nothing under this address.\n")


def test_every_file_of_the_page_is_served_and_names_no_other_address(
    connection: http.client.HTTPConnection,
) -> None:
    _, headers, page = _ask(connection, "/")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    for name in ("style.css", "map.js", "layers.js", "panel.js", "pictures.js", "pmtiles.js"):
        status, headers, body = _ask(connection, f"/{name}")
        assert status == 200
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"://" not in body.replace(b"archive://", b"").replace(rb"archive:\/\/", b"")
    for name in ("maplibre-gl.js", "maplibre-gl.css"):
        assert f'"library/{name}"'.encode() in page
        assert _ask(connection, f"/library/{name}")[0] == 200
    settings = json.loads(_ask(connection, "/config.json")[2])
    assert settings["archives"] == {"buildings": "tiles/buildings.pmtiles"}
    assert settings["notice"] == "synthetic"


def test_a_foreign_name_for_this_machine_is_refused(
    connection: http.client.HTTPConnection,
) -> None:
    assert _ask(connection, ARCHIVE, Host="evil.example")[0] == 403
    assert _ask(connection, ARCHIVE, Host="localhost:80", Range="bytes=0-1")[0] == 206


def test_only_loopback_is_listened_on(archive: Path) -> None:
    server = MapServer({"buildings": _stored(archive)}, SETTINGS)
    try:
        assert server.server_address[0] == "127.0.0.1"
    finally:
        server.server_close()


@pytest.mark.parametrize(("names", "said"), [([], "no archive"), (["rivers"], "'rivers'")])
def test_a_page_without_known_archives_is_refused(
    archive: Path, names: list[str], said: str
) -> None:
    with pytest.raises(MapPageError, match=said):
        MapServer(
            {name: _stored(archive) for name in names},
            SETTINGS,
        )
