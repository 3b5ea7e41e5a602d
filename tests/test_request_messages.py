"""What requests say: whatever comes in is understood, or refused in words that can be printed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets import request_messages
from ocr_assets.request_messages import (
    RefusedRequestError,
    read_tiles,
    read_volumes,
    tile_messages,
    volume_messages,
)
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.volumes.archive import VolumeId

TILES = [(2022, Tile(1035, 727)), (2023, Tile(1000, 871)), (2023, Tile(1035, 727))]
VOLUMES = [VolumeId("W22084", "I0886"), VolumeId("W1NLM20", "I1NLM20_001")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(["ocr", "attempt", "years", "volumes", "job_type", "w_id", "i_id"])


@pytest.mark.parametrize("size", [1, 2, 5000])
def test_messages_are_read_as_they_were_written(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_messages, "TILES_OF_A_MESSAGE", size)
    monkeypatch.setattr(request_messages, "VOLUMES_OF_A_MESSAGE", size)
    grid = TileGrid.load()
    requests = [read_tiles("x", body, grid) for body in tile_messages(TILES, attempt=3)]
    assert [item for one in requests for item in one.tiles] == TILES
    assert {one.attempt for one in requests} == {3}
    assert max(len(one.tiles) for one in requests) == min(size, 3)
    asked = [read_volumes("x", body) for body in volume_messages(VOLUMES, "a-type", 2)]
    assert [volume for one in asked for volume in one.volumes] == VOLUMES
    assert {(one.attempt, one.job_type) for one in asked} == {(2, "a-type")}


def test_messages_of_the_largest_size_fit_into_a_queue() -> None:
    (body, rest) = tile_messages([(2023, Tile(1035, 727))] * 5001)
    assert len(body) < 256 * 1024 > len(rest)
    (body, rest) = volume_messages([VolumeId("W" + "1" * 12, "I" + "1" * 14)] * 5001)
    assert len(body) < 256 * 1024 > len(rest)


def test_requests_for_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_messages, "MOST_TILES", 2)
    monkeypatch.setattr(request_messages, "MOST_VOLUMES", 1)
    (body,) = tile_messages(TILES)
    with pytest.raises(RefusedRequestError, match="3 tiles are more than the 2 of one request"):
        read_tiles("x", body, TileGrid.load())
    with pytest.raises(RefusedRequestError, match="2 volumes are more than the 1"):
        read_volumes("x", b"W1-I1\nW2-I2\n")


def test_forms_of_the_platform_are_read() -> None:
    grid = TileGrid.load()
    body = b'{"some project": {"2023": {"missing_tiles": ["1035X727Y"]}}}'
    assert list(read_tiles("x", body, grid).tiles) == [(2023, Tile(1035, 727))]
    jobs = b'[{"tile_info": {"year": 2023, "X_tile": 1035, "Y_tile": 727}}]'
    assert list(read_tiles("x", jobs, grid).tiles) == [(2023, Tile(1035, 727))]


def refusal(read: Callable[[], object]) -> str | None:
    """Why a request was refused; None if it was understood."""
    try:
        read()
    except RefusedRequestError as error:
        return str(error)
    return None


def check(body: bytes) -> None:
    """Reading raises nothing but a refusal of one line that is safe to print."""
    grid = TileGrid.load()
    for reason in (
        refusal(lambda: read_tiles("name", body, grid)),
        refusal(lambda: read_volumes("name", body)),
    ):
        if reason is not None:
            assert reason.isprintable()
            assert "/tmp" not in reason
            assert len(reason) < 20_000


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    check(body)


@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=5))
def test_any_json_is_read_or_refused(document: dict[str, object]) -> None:
    check(json.dumps(document).encode())
    check(json.dumps(document | {"ocr": "tile_request"}).encode())
    check(json.dumps(document | {"ocr": "volume_request"}).encode())
