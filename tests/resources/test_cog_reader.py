"""Reading files of scenes over HTTP and from buckets: tries, tokens, credentials, damage."""

from __future__ import annotations

import logging
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from scene_folders import GRID, in_degrees, optical_folder
from stac_server import StacServer

from ocr_assets.tiles import sentinel2
from ocr_assets.tiles.scenes import Reading
from resources.imagery_access import (
    AbsentError,
    AccessDeniedError,
    CorruptRasterError,
    ImageryError,
    Patience,
    SasTokens,
    ThrottledError,
    UnexpectedAnswerError,
    UnreachableError,
)
from resources.stac import StacImagery

QUICK = Patience(attempts=4, first_wait=0.01, jitter=0, connect_seconds=5, answer_seconds=20)
YEAR = date(2023, 1, 1), date(2023, 12, 31)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One scene, 1234 in all bands."""
    scenes = optical_folder(tmp_path)
    scenes.optical("S2A_0", "2023-06-03T10:00:00Z", 1234)
    return scenes.save()


def red(url: str, patience: Patience = QUICK, **changes: Any) -> np.ndarray:
    """The red band of the only scene."""
    imagery = StacImagery(url, sentinel2.COLLECTION, patience=patience, **changes)
    (scene,) = imagery.search(in_degrees(GRID), *YEAR)
    (raster,) = imagery.read([Reading(scene, sentinel2.ASSETS["B4"], GRID, "uint16")])
    return np.asarray(raster)


def files_asked_for(server: StacServer) -> list[str]:
    return [request for request in server.requests if ".tif" in request]


def test_a_file_is_read_by_ranges(stac_server: StacServer, folder: Path) -> None:
    assert (red(stac_server.serve(folder)) == 1234).all()
    assert files_asked_for(stac_server)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "times": 2},
        {"status": 429, "times": 2},
        {"status": 500, "times": 1},
        {"cut": 200, "times": 1},
    ],
    ids=["unavailable", "throttled", "broken", "cut"],
)
def test_what_passes_is_tried_again(
    stac_server: StacServer, folder: Path, fault: dict[str, Any]
) -> None:
    url = stac_server.serve(folder, {"match": "tif", **fault})
    assert (red(url) == 1234).all()


def test_what_a_service_asks_for_is_waited(stac_server: StacServer, folder: Path) -> None:
    # The reader's request and the one that asks why it failed.
    url = stac_server.serve(folder, {"match": "tif", "status": 429, "retry_after": 1, "times": 2})
    started = time.monotonic()
    assert (red(url) == 1234).all()
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("status", "error", "tries"),
    [
        (404, AbsentError, 1),
        (410, AbsentError, 1),
        (401, AccessDeniedError, 1),
        (403, AccessDeniedError, 1),
        (429, ThrottledError, 4),
        (503, UnreachableError, 4),
    ],
)
def test_refusals_are_told_apart(
    stac_server: StacServer,
    folder: Path,
    status: int,
    error: type[ImageryError],
    tries: int,
) -> None:
    url = stac_server.serve(folder, {"match": "tif", "status": status})
    with pytest.raises(error, match=r"asset red of scene S2A_0"):
        red(url)
    # Each try asks at least once to read, and once for the reason.
    asked = len(files_asked_for(stac_server))
    assert 2 * tries <= asked <= 4 * tries


def test_a_file_that_does_not_come(stac_server: StacServer, folder: Path) -> None:
    url = stac_server.serve(folder, {"match": "tif", "seconds": 30})
    hasty = Patience(attempts=1, first_wait=0, jitter=0, answer_seconds=1)
    with pytest.raises(UnreachableError, match=r"asset red of scene S2A_0.*timed out"):
        red(url, hasty)


def test_a_damaged_file_names_asset_and_scene(stac_server: StacServer, folder: Path) -> None:
    path = folder / sentinel2.COLLECTION / "S2A_0_red.tif"
    path.write_bytes(path.read_bytes()[:300] + bytes(5000))
    for place in (stac_server.serve(folder), str(folder)):
        with pytest.raises(
            CorruptRasterError, match=r"asset red of scene S2A_0 cannot be read: .*S2A_0_red\.tif"
        ):
            red(place)


def test_a_file_that_is_no_image(stac_server: StacServer, folder: Path) -> None:
    (folder / sentinel2.COLLECTION / "S2A_0_red.tif").write_text("<html>not here</html>" * 100)
    for place in (stac_server.serve(folder), str(folder)):
        with pytest.raises(CorruptRasterError, match="is damaged or no GeoTIFF"):
            red(place)


def test_a_file_of_another_type(stac_server: StacServer, folder: Path) -> None:
    from scene_folders import write_geotiff

    write_geotiff(folder / sentinel2.COLLECTION / "S2A_0_red.tif", 0.1, GRID, "float32", None)
    with pytest.raises(
        UnexpectedAnswerError, match="asset red of scene S2A_0 holds float32, expected uint16"
    ):
        red(stac_server.serve(folder))


def test_a_file_that_is_gone(folder: Path) -> None:
    (folder / sentinel2.COLLECTION / "S2A_0_red.tif").unlink()
    with pytest.raises(AbsentError, match=r"there is no file .*S2A_0_red\.tif, asset red of scene"):
        red(str(folder))


def test_one_bad_file_ends_the_reading(stac_server: StacServer, folder: Path) -> None:
    url = stac_server.serve(folder, {"match": "_red", "status": 503})
    imagery = StacImagery(url, sentinel2.COLLECTION, patience=QUICK)
    (scene,) = imagery.search(in_degrees(GRID), *YEAR)
    readings = [
        Reading(scene, sentinel2.ASSETS[band], GRID, "uint16") for band in ("B2", "B4", "B8")
    ]
    found = imagery.read(readings)
    assert (next(found) == 1234).all()
    with pytest.raises(UnreachableError, match="asset red"):
        next(found)


def signed(server: StacServer, key: SecretStr | None = None) -> dict[str, Any]:
    tokens = SasTokens(f"{server.url}/token", sentinel2.COLLECTION, QUICK, key)
    return {"access": "signed", "tokens": tokens}


def test_signed_files_are_read_with_a_token(stac_server: StacServer, folder: Path) -> None:
    url = stac_server.serve(folder, token="sig=none yet")
    with pytest.raises(AccessDeniedError, match="asset red of scene S2A_0"):
        red(url)
    assert (red(url, **signed(stac_server)) == 1234).all()
    assert "GET /token/sentinel-2-l2a" in stac_server.requests


def test_a_token_serves_until_it_is_about_to_expire(stac_server: StacServer, folder: Path) -> None:
    def tokens_fetched() -> int:
        return stac_server.requests.count("GET /token/sentinel-2-l2a")

    stac_server.serve(folder)
    tokens = signed(stac_server)["tokens"]
    first = tokens.sign("https://a.example/b.tif")
    assert first == "https://a.example/b.tif?sig=1"
    assert tokens.sign("https://a.example/c.tif?v=2") == "https://a.example/c.tif?v=2&sig=1"
    assert tokens_fetched() == 1
    stac_server.change(life=200)
    short = signed(stac_server)["tokens"]
    assert short.sign("x") != short.sign("x")
    assert tokens_fetched() == 3


def test_a_token_that_is_refused_is_fetched_again(stac_server: StacServer, folder: Path) -> None:
    access = signed(stac_server)
    stac_server.serve(folder)
    access["tokens"].sign("x")
    stac_server.change(token="sig=another")  # the first one has been taken back
    assert (red(stac_server.url, **access) == 1234).all()
    assert stac_server.requests.count("GET /token/sentinel-2-l2a") == 2
    refusal = stac_server.serve(folder, {"match": "tif", "status": 403})
    with pytest.raises(AccessDeniedError):
        red(refusal, **signed(stac_server))
    assert stac_server.requests.count("GET /token/sentinel-2-l2a") == 2


def test_tokens_and_keys_stay_out_of_messages(
    stac_server: StacServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = SecretStr("hidden-key")
    url = stac_server.serve(folder, {"match": "tif", "status": 500})
    with pytest.raises(UnreachableError) as failure:
        red(url, **signed(stac_server, key))
    assert "sig=" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None
    stac_server.serve(folder, {"match": "token", "status": 401, "body": "no"})
    with pytest.raises(AccessDeniedError, match=r"token/sentinel-2-l2a does not allow a token"):
        signed(stac_server, key)["tokens"].sign("x")
    assert "hidden-key" not in caplog.text
    assert "S2A_0_red.tif?…" in caplog.text
    assert "sig=" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        '{"token": "a"}',
        '{"token": "", "msft:expiry": "2030-01-01T00:00:00Z"}',
        '{"token": "a", "msft:expiry": "tomorrow"}',
        '{"token": "a", "msft:expiry": "2030-01-01T00:00:00"}',
    ],
    ids=range(6),
)
def test_a_service_of_tokens_that_lies(stac_server: StacServer, folder: Path, body: str) -> None:
    stac_server.serve(folder, {"match": "token", "body": body})
    with pytest.raises(UnexpectedAnswerError, match="does not give a token and its expiry"):
        signed(stac_server)["tokens"].sign("x")


def test_a_service_of_tokens_that_is_down() -> None:
    tokens = SasTokens("http://127.0.0.1:1/token", "sentinel-1-rtc", QUICK)
    with pytest.raises(UnreachableError, match="cannot be reached for a token"):
        tokens.sign("x")


@pytest.fixture
def bucket(stac_server: StacServer, monkeypatch: pytest.MonkeyPatch) -> StacServer:
    """The server as the store behind ``s3://``, without any credentials."""
    monkeypatch.setenv("AWS_S3_ENDPOINT", stac_server.url.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return stac_server


def test_a_public_bucket_needs_no_credentials(bucket: StacServer, folder: Path) -> None:
    assert (red(bucket.serve(folder, s3=True)) == 1234).all()


def test_requesters_pay_where_they_have_to(
    bucket: StacServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket.serve(folder, s3=True, requester_pays=True)
    with pytest.raises(AccessDeniedError, match=r"s3://imagery-\d+/.*does not allow asset red"):
        red(url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    url = bucket.serve(folder, s3=True, requester_pays=True)
    assert (red(url, access="requester-pays") == 1234).all()


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, AbsentError), (403, AccessDeniedError), (503, UnreachableError)],
)
def test_refusals_of_a_bucket_are_told_apart(
    bucket: StacServer, folder: Path, status: int, error: type[ImageryError]
) -> None:
    url = bucket.serve(folder, {"match": "tif", "status": status}, s3=True)
    with pytest.raises(error, match="asset red of scene S2A_0"):
        red(url)


def test_a_bucket_that_recovers(bucket: StacServer, folder: Path) -> None:
    url = bucket.serve(folder, {"match": "tif", "status": 503, "times": 1}, s3=True)
    assert (red(url) == 1234).all()


def test_waits_grow_and_are_bounded() -> None:
    patience = Patience(first_wait=1, longest_wait=10, jitter=0)
    assert [patience.wait(attempt) for attempt in range(6)] == [1, 2, 4, 8, 10, 10]
    assert patience.wait(0, 7) == 7
    assert patience.wait(0, 3600) == 10
    spread = {Patience(jitter=1).wait(0) for _ in range(50)}
    assert len(spread) > 1
    assert all(0.5 <= seconds <= 1.5 for seconds in spread)
