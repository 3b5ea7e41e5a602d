"""`ocr tiles request` and `ocr volumes request`: what they send, and where to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from sample_worlds import Outcome, World

from ocr_assets.request_messages import read_tiles, read_volumes
from ocr_assets.tiles.grid import TileGrid
from resources.storage import Storage

Ocr = Callable[..., Outcome]
TABLE = "Year,X_tile,Y_tile\n2023,1035,727\n2024,1035,727\n"
AMAZON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[-54.48, -5.14], [-54.47, -5.14], [-54.47, -5.13], [-54.48, -5.14]]
                ],
            },
        }
    ],
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "tiles.csv"
    path.write_text(TABLE)
    return str(path)


def waiting(world: World, kind: str) -> list[Path]:
    return sorted((world.root / "qa" / "inbox" / kind).glob("*.json"))


def test_tiles_are_asked_for_by_a_file(ocr: Ocr, world: World, table: str) -> None:
    done = ocr("tiles", "request", table)
    assert done.status == 0
    (path,) = waiting(world, "tiles")
    assert done.out.split() == ["asked", "for", "2", "tiles:", str(path)]
    assert "restart `ocr worker`" in done.err
    assert json.loads(path.read_text()) == {
        "ocr": "tile_request",
        "attempt": 1,
        "years": {"2023": ["1035X727Y"], "2024": ["1035X727Y"]},
    }
    found = read_tiles("x", path.read_bytes(), TileGrid.load())
    assert [(year, tile.key) for year, tile in found.tiles] == [
        (2023, "1035X727Y"),
        (2024, "1035X727Y"),
    ]
    again = ocr("tiles", "request", table)
    assert (again.status, again.out, again.err) == (0, "this request waits there already\n", "")
    second = ocr("tiles", "request", table, "--attempt", "2")
    assert second.status == 0
    attempts = {json.loads(path.read_text())["attempt"] for path in waiting(world, "tiles")}
    assert attempts == {1, 2}


def test_polygons_are_asked_for_with_a_year(ocr: Ocr, world: World, tmp_path: Path) -> None:
    (tmp_path / "area.geojson").write_text(json.dumps(AMAZON))
    assert ocr("tiles", "request", str(tmp_path / "area.geojson")).status == 3
    assert waiting(world, "tiles") == []
    done = ocr("tiles", "request", str(tmp_path / "area.geojson"), "--year", "2023")
    assert done.status == 0, done.err
    (path,) = waiting(world, "tiles")
    assert json.loads(path.read_text())["years"] == {"2023": ["1000X871Y"]}


def test_what_cannot_be_asked_for_is_told(ocr: Ocr, world: World, tmp_path: Path) -> None:
    path = tmp_path / "tiles.csv"
    path.write_text("Year,X_tile,Y_tile\n2023,1,1\n")
    done = ocr("tiles", "request", str(path))
    assert done.status == 3
    assert "1X1Y: not in the grid" in done.err
    assert waiting(world, "tiles") == []
    path.write_text("Year,X_tile,Y_tile\n2023,1,1\n2023,1035,727\n")
    assert ocr("tiles", "request", str(path)).status == 1
    assert len(waiting(world, "tiles")) == 1


def test_volumes_are_asked_for_by_a_file(ocr: Ocr, world: World, tmp_path: Path) -> None:
    done = ocr("volumes", "request", "W1-I1", "W2/I2", "W1,I1", "--type", "printed-wylie")
    assert done.status == 0, done.err
    (path,) = waiting(world, "volumes")
    assert json.loads(path.read_text()) == {
        "ocr": "volume_request",
        "attempt": 1,
        "job_type": "printed-wylie",
        "volumes": ["W1-I1", "W2-I2"],
    }
    found = read_volumes("x", path.read_bytes())
    assert (found.job_type, [str(one) for one in found.volumes]) == (
        "printed-wylie",
        ["W1-I1", "W2-I2"],
    )
    path.unlink()
    (tmp_path / "list.txt").write_text("# mine\nW3-I3\n")
    assert ocr("volumes", "request", "--volume-file", str(tmp_path / "list.txt")).status == 0
    (path,) = waiting(world, "volumes")
    assert json.loads(path.read_text())["volumes"] == ["W3-I3"]


def test_volumes_that_cannot_be_asked_for(ocr: Ocr, world: World) -> None:
    assert "names no volume" in ocr("volumes", "request", "what").complaint
    assert "unknown job type" in ocr("volumes", "request", "W1-I1", "--type", "no").complaint
    assert ocr("volumes", "request").status == 2
    assert waiting(world, "volumes") == []


def test_requests_go_to_the_queue_where_there_is_one(
    ocr: Ocr, world: World, table: str, s3_bucket: Storage
) -> None:
    endpoint = str(s3_bucket.s3.endpoint_url)
    client = boto3.client("sqs", endpoint_url=endpoint, region_name="us-east-1")
    url = client.create_queue(QueueName=f"tiles-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    done = ocr("tiles", "request", table, OCR_TILE_QUEUE_URL=url, OCR_SQS_ENDPOINT_URL=endpoint)
    assert done.status == 0, done.err
    assert done.out.strip() == f"asked for 2 tiles: {url}"
    (message,) = client.receive_message(QueueUrl=url)["Messages"]
    assert json.loads(message["Body"])["years"]["2023"] == ["1035X727Y"]
    assert waiting(world, "tiles") == []
    gone = ocr(
        "tiles", "request", table, OCR_TILE_QUEUE_URL=f"{url}x", OCR_SQS_ENDPOINT_URL=endpoint
    )
    assert f"cannot send to the queue {url}x" in gone.complaint


def test_requests_go_to_an_inbox_on_s3(
    ocr: Ocr, world: World, table: str, s3_bucket: Storage
) -> None:
    place = {
        "OCR_REQUEST_INBOX": s3_bucket.uri("in"),
        "OCR_S3_ENDPOINT_URL": str(s3_bucket.s3.endpoint_url),
    }
    done = ocr("tiles", "request", table, **place)
    assert (done.status, done.err) == (0, "")
    (info,) = s3_bucket.list("in/tiles")
    assert done.out.strip() == f"asked for 2 tiles: {s3_bucket.uri(info.key)}"
