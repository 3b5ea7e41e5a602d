"""The inbox of requests, and what is understood of notifications."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.keys import InvalidKeyError, ObjectExistsError
from resources.request_queue import QUIET_SECONDS, RequestInbox, named_objects
from resources.settings import Settings, SettingsError, load_settings
from resources.storage import Storage


@pytest.fixture(params=["folder", "bucket"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> RequestInbox:
    if request.param == "folder":
        return RequestInbox(Storage(str(tmp_path / "inbox" / "tiles")))
    bucket: Storage = request.getfixturevalue("s3_bucket")
    return RequestInbox(bucket.child("inbox/tiles"))


FUTURE = 4e9
"""A time at which every file was left alone for long."""


def names(inbox: RequestInbox, folder: str = "") -> list[str]:
    return [info.key for info in inbox.storage.files(folder)]


def test_the_way_of_a_request(inbox: RequestInbox) -> None:
    assert inbox.accepted() == []
    assert inbox.put("large.csv", b"large content") == inbox.storage.uri("large.csv")
    inbox.put("a.csv", b"small")
    with pytest.raises(ObjectExistsError):
        inbox.put("a.csv", b"other")
    assert inbox.take_files(5, FUTURE) == 2
    small, large = inbox.accepted()
    assert (small.size, large.size) == (5, 13)
    assert small.id.endswith("-a.csv")
    assert inbox.body(large.id) == b"large content"
    assert names(inbox) == []
    assert inbox.is_accepted(small.id)
    assert not inbox.is_over(small.id)
    inbox.settle(small.id)
    inbox.reject(large.id, "too “large”")
    assert inbox.accepted() == []
    assert inbox.is_over(small.id)
    assert inbox.is_over(large.id)
    assert names(inbox, "done") == [f"done/{small.id}"]
    reason = json.loads(inbox.storage.read_bytes(f"rejected/{large.id}.reason.json"))
    assert reason == {"request": large.id, "reason": "too “large”"}


def test_the_same_content_under_the_same_name_has_the_same_id(inbox: RequestInbox) -> None:
    ids = []
    for body in (b"one", b"two", b"one"):
        inbox.put("a.csv", body)
        inbox.take_files(1, FUTURE)
        (letter,) = inbox.accepted()
        ids.append(letter.id)
        inbox.settle(letter.id, {"count": 1})
    assert ids[0] == ids[2] != ids[1]
    assert len(names(inbox, "done")) == 4


def test_a_crash_at_any_step_is_made_good(inbox: RequestInbox) -> None:
    inbox.put("a.csv", b"one")
    inbox.take_files(1, FUTURE)
    (letter,) = inbox.accepted()
    # Killed before the file that waited was deleted.
    inbox.put("a.csv", b"one")
    assert inbox.take_files(1, FUTURE) == 1
    assert inbox.accepted() == [letter]
    inbox.settle(letter.id)
    # Killed on S3 between the copy to done and the deletion.
    inbox.accept(letter.id, b"one")
    inbox.settle(letter.id)
    assert inbox.accepted() == []
    assert names(inbox, "done") == [f"done/{letter.id}"]


def test_a_file_that_is_replaced_while_it_is_taken_in_is_taken_in_too(
    inbox: RequestInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox.put("a.csv", b"one")
    accept = RequestInbox.accept

    def replaced_meanwhile(self: RequestInbox, id_: str, body: bytes) -> None:
        accept(self, id_, body)
        self.storage.write_bytes("a.csv", b"another")

    with monkeypatch.context() as patch:
        patch.setattr(RequestInbox, "accept", replaced_meanwhile)
        inbox.take_files(1, FUTURE)
    assert names(inbox) == ["a.csv"]
    inbox.take_files(1, FUTURE)
    assert [inbox.body(letter.id) for letter in inbox.accepted()] == [b"one", b"another"]


def test_no_more_files_are_taken_than_wanted(inbox: RequestInbox) -> None:
    for number in range(5):
        inbox.put(f"{number}.csv", bytes(number + 1))
    assert inbox.take_files(3, FUTURE) == 3
    assert len(inbox.accepted()) == 3
    assert inbox.take_files(3, FUTURE) == 2


def test_a_local_file_is_left_alone_for_a_moment(tmp_path: Path) -> None:
    inbox = RequestInbox(Storage(str(tmp_path)))
    inbox.put("a.csv", b"half")
    written = os.stat(tmp_path / "a.csv").st_mtime
    assert inbox.take_files(1, written + QUIET_SECONDS - 0.1) == 0
    assert inbox.take_files(1, written + QUIET_SECONDS) == 1


@pytest.mark.parametrize("name", ["", ".hidden", "a/b.csv", "a.part", "a\nb", "..", "a#1"])
def test_names_that_would_be_passed_over_are_refused(inbox: RequestInbox, name: str) -> None:
    with pytest.raises(InvalidKeyError):
        inbox.put(name, b"one")


def test_which_addresses_are_of_the_inbox(tmp_path: Path) -> None:
    inbox = RequestInbox(Storage("s3://bucket/inbox/tiles"))
    assert inbox.has("s3://bucket/inbox/tiles/a.csv")
    assert inbox.has("s3://bucket/inbox/tiles/done/a.csv")
    assert inbox.has("s3://bucket/inbox/volumes/a.csv")
    assert not inbox.has("s3://bucket/inbox2/tiles/a.csv")
    assert not inbox.has("s3://other/inbox/tiles/a.csv")


def event(*keys: str) -> dict[str, Any]:
    return {
        "Records": [
            {"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}
            for key in keys
        ]
    }


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (event("a%2Fb+c.csv"), ["s3://b/a/b c.csv"]),
        (event("inbox/%C3%A9.csv", "d"), ["s3://b/inbox/é.csv", "s3://b/d"]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
        ({"Type": "Notification", "Message": json.dumps(event("a"))}, ["s3://b/a"]),
        ({"Type": "Notification", "Message": "hello"}, None),
        ({"Type": "Notification"}, None),
        ({"Records": []}, None),
        ({"Records": [{"s3": {"bucket": {"name": "b"}}}]}, None),
        ({"Records": 1}, None),
        ({"ocr": "tile_request"}, None),
        ([], None),
    ],
    ids=lambda value: "",
)
def test_notifications_of_s3(message: object, named: list[str] | None) -> None:
    assert named_objects(json.dumps(message).encode()) == named


@given(st.binary(max_size=200))
def test_what_is_no_notification_is_none(body: bytes) -> None:
    assert named_objects(body) is None


def test_where_requests_are_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(storage_root="/data").inbox_uri == "/data/qa/inbox"
    assert (
        Settings(storage_root="/data", request_inbox="s3://bucket/in/").inbox_uri
        == "s3://bucket/in"
    )
    for name, value in {
        "OCR_TILE_QUEUE_URL": "tiles",
        "OCR_VOLUME_QUEUE_URL": "https://host/",
        "OCR_SQS_ENDPOINT_URL": "127.0.0.1:9324",
        "OCR_REQUEST_INBOX": "ftp://host/inbox",
        "OCR_REQUEST_SECONDS": "0",
    }.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(SettingsError, match=f"{name}=.*for example {name}="):
                load_settings()
