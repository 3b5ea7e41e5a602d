"""Requests by messages of a real SQS protocol server: hidden, delivered again, then deleted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from request_daemon import Daemon

from ocr_assets.request_jobs import request_jobs
from ocr_assets.request_messages import tile_messages
from ocr_assets.tile_library import TileLibrary
from ocr_assets.tiles.assets import tile_wing
from ocr_assets.tiles.grid import Tile
from resources import request_queue
from resources.keys import StorageError
from resources.request_queue import RequestInbox, RequestQueue
from resources.settings import Settings
from resources.storage import Storage
from sensors import inbox as inbox_module
from sensors.tile_requests import tile_request_sensor

TILE = Tile.parse("1035X727Y")
KEYS = [f"tiles/qa/dev/{TILE.key}", f"tiles/qa/dev/{TILE.key}|2023"]


def asks(tile: Tile = TILE, attempt: int = 1) -> str:
    (body,) = tile_messages([(2023, tile)], attempt)
    return body.decode()


class Queue:
    """A queue with a dead-letter queue, and a daemon that runs the sensor of its messages."""

    def __init__(self, bucket: Storage, folder: Path) -> None:
        endpoint = bucket.s3.endpoint_url
        self.client = boto3.client("sqs", endpoint_url=endpoint, region_name="us-east-1")
        name = f"tiles-{uuid.uuid4().hex[:12]}"
        self.dead = self.client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        redrive = {"deadLetterTargetArn": self.arn(self.dead), "maxReceiveCount": "3"}
        self.url = self.client.create_queue(
            QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)}
        )["QueueUrl"]
        self.settings = Settings(
            storage_root=str(folder / "root"),
            tile_queue_url=self.url,
            sqs_endpoint_url=endpoint,
        )
        tiles = TileLibrary(self.settings)
        sensor = tile_request_sensor(tiles, request_jobs(tile_wing(tiles)))
        self.daemon = Daemon(sensor, {"tiles": tiles})
        self.inbox = RequestInbox.of(self.settings, "tiles")

    def arn(self, url: str) -> str:
        """The name of a queue by which others refer to it."""
        attributes = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(attributes["Attributes"]["QueueArn"])

    def send(self, body: str) -> str:
        """Send a message; its id."""
        return str(self.client.send_message(QueueUrl=self.url, MessageBody=body)["MessageId"])

    def count(self, url: str = "") -> tuple[int, int]:
        """How many messages can be received, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        waiting, hidden = (int(found["Attributes"][name]) for name in names)
        return waiting, hidden

    def wait_until_visible(self) -> None:
        """Wait until no message is hidden any more."""
        deadline = time.monotonic() + 30
        while self.count()[1]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def until_quiet(self) -> list[str]:
        """Tick and run until nothing is left to do; the keys of the runs, as they came."""
        keys: list[str] = []
        for _ in range(20):
            keys += self.daemon.tick()
            if not self.daemon.finish() and not self.inbox.accepted():
                return keys
        raise AssertionError(self.daemon.told)


@pytest.fixture
def queue(s3_bucket: Storage, tmp_path: Path) -> Queue:
    return Queue(s3_bucket, tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server tells at once that there is no message."""
    monkeypatch.setattr(request_queue, "_WAIT_SECONDS", 0)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are hidden for a second only."""
    monkeypatch.setattr(request_queue, "_MOST_HIDDEN", 1)


def test_a_message_is_deleted_by_the_tick_that_finds_its_runs(queue: Queue) -> None:
    id_ = queue.send(asks())
    assert queue.daemon.tick() == KEYS[:1]
    assert [letter.id for letter in queue.inbox.accepted()] == [f"sqs-{id_}"]
    queue.daemon.finish()
    assert queue.daemon.tick() == KEYS[1:]
    # Its runs were reserved by that tick: the message is still there, hidden.
    assert queue.count() == (0, 1)
    queue.daemon.tick()
    assert queue.count() == (0, 0)
    assert queue.inbox.is_over(f"sqs-{id_}")
    assert '"receipts":{}' in (queue.daemon.cursor or "")
    assert queue.until_quiet() == []


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("stage", ["evaluated", "reserved", "launched one"])
def test_a_message_whose_receipt_was_lost_comes_again_and_is_known(
    queue: Queue, stage: str
) -> None:
    queue.send(asks())
    queue.daemon.tick(dies_at=stage)
    queue.daemon.cursor = None
    queue.wait_until_visible()
    assert queue.count() == (1, 0)
    queue.until_quiet()
    assert queue.daemon.run_keys() == KEYS
    queue.wait_until_visible()
    assert queue.until_quiet() == []
    assert queue.count() == queue.count(queue.dead) == (0, 0)


@pytest.mark.usefixtures("brief")
def test_a_message_that_was_put_aside_is_deleted_when_it_comes_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send(asks())

    def fail(self: RequestQueue, receipts: Any) -> None:
        if list(receipts):
            raise request_queue.QueueError("cannot delete")

    with monkeypatch.context() as patch:
        patch.setattr(RequestQueue, "delete", fail)
        assert queue.until_quiet() == KEYS
    queue.wait_until_visible()
    assert queue.count() == (1, 0)
    assert queue.until_quiet() == []
    assert queue.count() == (0, 0)


def test_what_is_worked_on_stays_hidden(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_queue, "_MOST_HIDDEN", 3)
    queue.send(asks())
    assert queue.daemon.tick() == KEYS[:1]
    # As if half of the time that it is hidden for had passed.
    cursor = json.loads(queue.daemon.cursor or "")
    (kept,) = cursor["receipts"].values()
    kept["until"] = time.time()
    queue.daemon.cursor = json.dumps(cursor)
    monkeypatch.setattr(request_queue, "_MOST_HIDDEN", 600)
    queue.daemon.tick()
    time.sleep(3.2)
    assert queue.count() == (0, 1)
    (kept,) = json.loads(queue.daemon.cursor or "")["receipts"].values()
    assert kept["until"] > time.time() + 500


@pytest.mark.usefixtures("brief")
def test_a_message_that_can_never_be_taken_in_ends_in_the_dead_letter_queue(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send(asks())

    def fail(self: RequestInbox, id_: str, body: bytes) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(RequestInbox, "accept", fail)
    for _ in range(3):
        with pytest.raises(StorageError):
            queue.daemon.tick()
        queue.wait_until_visible()
    assert queue.daemon.tick() == []
    assert queue.count(queue.dead) == (1, 0)


def test_malformed_messages_are_put_aside_with_the_reason_and_deleted(queue: Queue) -> None:
    ids = [queue.send(body) for body in ("what", '{"ocr": "volume_request"}', "[]")]
    queue.send(asks())
    assert queue.until_quiet() == KEYS
    assert queue.count() == (0, 0)
    for id_ in ids:
        reason = json.loads(queue.inbox.storage.read_bytes(f"rejected/sqs-{id_}.reason.json"))
        assert reason["request"] == f"sqs-{id_}"
        assert reason["reason"]


def test_the_same_request_in_several_messages_runs_once(queue: Queue) -> None:
    for _ in range(12):
        queue.send(asks())
    assert queue.until_quiet() == KEYS
    assert queue.count() == (0, 0)
    queue.send(asks())
    assert queue.until_quiet() == []
    queue.send(asks(attempt=2))
    assert queue.until_quiet() == []  # it succeeded


def test_no_more_messages_are_received_than_can_be_worked_on(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MOST_ACCEPTED", 12)
    for _ in range(15):
        queue.send(asks(Tile.parse("1036X727Y")))
    queue.daemon.tick()
    assert queue.count() == (3, 12)
    queue.until_quiet()
    assert queue.until_quiet() == []
    assert queue.count() == (0, 0)


def test_a_queue_that_cannot_be_reached_holds_up_no_file(
    tmp_path: Path, s3_bucket: Storage
) -> None:
    queue = Queue(s3_bucket, tmp_path)
    queue.client.delete_queue(QueueUrl=queue.url)
    queue.inbox.storage.write_bytes("one.json", asks().encode())
    assert queue.daemon.tick() == []
    assert f"cannot receive from the queue {queue.url}" in queue.daemon.told
    time.sleep(request_queue.QUIET_SECONDS)
    assert queue.until_quiet() == KEYS


# --- notifications of S3


@pytest.fixture
def notified(s3_bucket: Storage, tmp_path: Path) -> Queue:
    """A queue that a bucket notifies of what is put into its inbox."""
    queue = Queue(s3_bucket, tmp_path)
    settings = queue.settings.changed(
        request_inbox=s3_bucket.uri("in box"), s3_endpoint_url=s3_bucket.s3.endpoint_url
    )
    tiles = TileLibrary(settings)
    queue.daemon = Daemon(
        tile_request_sensor(tiles, request_jobs(tile_wing(tiles))), {"tiles": tiles}
    )
    queue.inbox = RequestInbox.of(settings, "tiles")
    client = boto3.client("s3", endpoint_url=s3_bucket.s3.endpoint_url)
    bucket, _ = s3_bucket.bucket_and_prefix
    client.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": queue.arn(queue.url), "Events": ["s3:ObjectCreated:*"]}
            ]
        },
    )
    return queue


def test_a_notification_of_a_file_in_the_inbox_needs_nothing_more(notified: Queue) -> None:
    notified.inbox.put("my request + é.json", asks().encode())
    # One of them is the test that S3 sends when notifications are set up.
    assert notified.count() == (2, 0)
    assert notified.daemon.tick() == KEYS[:1]
    (letter,) = notified.inbox.accepted()
    assert letter.id.endswith("-my_request____.json")
    notified.until_quiet()
    # Writing accepted/… and done/… notified too; those are no requests.
    assert notified.daemon.tick() == []
    assert notified.count() == (0, 0)
    rejected = notified.inbox.storage.files("rejected")
    assert rejected == []


def test_a_notification_of_another_place_is_put_aside(queue: Queue) -> None:
    record = {"s3": {"bucket": {"name": "elsewhere"}, "object": {"key": "a+b%2Fc.json"}}}
    id_ = queue.send(json.dumps({"Records": [record]}))
    assert queue.until_quiet() == []
    reason = queue.inbox.storage.read_bytes(f"rejected/sqs-{id_}.reason.json").decode()
    assert "s3://elsewhere/a b/c.json" in reason
    assert queue.count() == (0, 0)


def test_a_fifo_queue_takes_a_request_once(s3_bucket: Storage) -> None:
    endpoint = s3_bucket.s3.endpoint_url
    client = boto3.client("sqs", endpoint_url=endpoint, region_name="us-east-1")
    made: Callable[..., Any] = client.create_queue
    url = made(QueueName=f"q{uuid.uuid4().hex[:8]}.fifo", Attributes={"FifoQueue": "true"})
    queue = RequestQueue(url["QueueUrl"], endpoint, "us-east-1")
    for name in ("a", "a", "b"):
        queue.send(asks(), name=name)
    deadline = time.monotonic() + 10
    received = list(queue.receive(10, deadline))
    assert [message.body.decode() for message in received] == [asks(), asks()]
    queue.delete(message.receipt for message in received)
