"""Requests from outside: files in an inbox, and messages in an SQS queue.

Belongs here: taking requests in, keeping each until its work is recorded, and putting aside what
cannot be used. Does not belong here: what a request says, or which runs it needs.

An inbox is a folder or an S3 prefix:

- ``{name}``: a request that waits; whoever asks puts it there under a new name;
- ``accepted/{id}``: a request that was taken in and is worked on; nobody changes it any more;
- ``done/{id}``: one whose runs are all recorded; ``done/{id}.left-out.json`` says what of it could
  not be used;
- ``rejected/{id}``: one that could not be used at all; ``rejected/{id}.reason.json`` says why.

Every step of a request's way can be repeated: after a crash it is in the folder that it came from,
perhaps also in the one that it went to, and the step is taken again. A message of the queue is
copied to ``accepted`` and stays in the queue, hidden, until its copy has left ``accepted``. When
one is delivered again it is known by its id.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote_plus

from resources.keys import HIDDEN_NAME, InvalidKeyError, MissingObjectError, join_key
from resources.settings import Settings
from resources.storage import Storage

Kind = Literal["tiles", "volumes"]

MOST_BYTES = 16 * 1024**2
"""Larger requests are rejected unread."""

QUIET_SECONDS = 2.0
"""How long a local file must have been left alone: whoever writes it may not have finished."""

_LOOKS_HIDDEN, _MOST_HIDDEN = 20, 43_200
"""For how many looks at a queue a received message is hidden, and at most how many seconds."""

ACCEPTED, DONE, REJECTED = "accepted", "done", "rejected"

_UNFINISHED = (".part", ".tmp", ".crdownload")
_MESSAGES_AT_ONCE = 10
# Long enough that all servers of a queue are asked.
_WAIT_SECONDS = 1
_LONGEST_NAME = 80


class QueueError(RuntimeError):
    """A queue cannot be reached or refuses; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An accepted request: its id, and its size in bytes."""

    id: str
    size: int


@dataclass(frozen=True)
class RequestInbox:
    """The inbox of one kind of request."""

    storage: Storage

    @classmethod
    def of(cls, settings: Settings, kind: Kind) -> RequestInbox:
        """The inbox that the settings name."""
        return cls(Storage(settings.inbox_uri, settings.s3).child(kind))

    # For those who ask

    def put(self, name: str, body: bytes) -> str:
        """Put a request into the inbox; the same name never replaces another request.

        Returns:
            Where it is.

        Raises:
            InvalidKeyError: the name is not a plain one.
            ObjectExistsError: there is a request of this name.
        """
        if "/" in name or name.startswith(".") or name.endswith(_UNFINISHED):
            raise InvalidKeyError(f"{name!r} is not a name for a request")
        self.storage.write_bytes(name, body, if_absent=True)
        return self.storage.uri(name)

    # For those who answer

    def take_files(self, most: int, now: float) -> int:
        """Take in at most so many files that wait; how many it were.

        Larger files than :data:`MOST_BYTES` are rejected, names that are no keys are replaced.
        """
        if self.storage.is_local:
            self._rename_unusable()
        taken = 0
        for info in self.storage.files():
            if taken >= most:
                break
            if info.key.startswith(".") or info.key.endswith(_UNFINISHED):
                continue
            if self._is_at_work(info.key, now):
                continue
            taken += 1
            if info.size > MOST_BYTES:
                id_ = f"{_digest(info.key.encode())}-{_plain(info.key)}"
                self._explain(id_, info.key, f"larger than {MOST_BYTES} bytes: cut it up")
                self.storage.move(info.key, f"{REJECTED}/{id_}")
                continue
            try:
                body = self.storage.read_bytes(info.key)
            except MissingObjectError:  # somebody took it back
                continue
            self.accept(f"{_digest(body)}-{_plain(info.key)}", body)
            if self.storage.head(info.key) == info:
                self.storage.delete(info.key)
        return taken

    def accept(self, id_: str, body: bytes) -> None:
        """Keep the content of a request until it is settled or rejected."""
        self.storage.write_bytes(f"{ACCEPTED}/{id_}", body)

    def accepted(self) -> list[Letter]:
        """The requests that are worked on, small ones first, so that large ones hold up nobody."""
        found = self.storage.files(ACCEPTED)
        letters = [Letter(info.key.removeprefix(f"{ACCEPTED}/"), info.size) for info in found]
        return sorted(letters, key=lambda letter: (letter.size, letter.id))

    def body(self, id_: str) -> bytes:
        """The content of an accepted request."""
        return self.storage.read_bytes(f"{ACCEPTED}/{id_}")

    def is_accepted(self, id_: str) -> bool:
        """Whether a request is worked on."""
        return self.storage.exists(f"{ACCEPTED}/{id_}")

    def is_over(self, id_: str) -> bool:
        """Whether a request was settled or rejected."""
        return any(self.storage.exists(f"{folder}/{id_}") for folder in (DONE, REJECTED))

    def settle(self, id_: str, left_out: Mapping[str, Any] | None = None) -> None:
        """Put a request aside whose runs are all recorded."""
        if left_out is not None:
            self.storage.write_bytes(f"{DONE}/{id_}.left-out.json", _json(left_out))
        self.storage.move(f"{ACCEPTED}/{id_}", f"{DONE}/{id_}")

    def reject(self, id_: str, reason: str) -> None:
        """Put a request aside that cannot be used, with the reason beside it."""
        self._explain(id_, id_, reason)
        self.storage.move(f"{ACCEPTED}/{id_}", f"{REJECTED}/{id_}")

    def has(self, uri: str) -> bool:
        """Whether an address is in this inbox, or in that of another kind beside it."""
        parent, _, _ = self.storage.uri().rpartition("/")
        return uri.startswith(f"{parent}/")

    def _explain(self, id_: str, name: str, reason: str) -> None:
        document = {"request": name, "reason": reason}
        self.storage.write_bytes(f"{REJECTED}/{id_}.reason.json", _json(document))

    def _is_at_work(self, name: str, now: float) -> bool:
        """Whether a local file may still be written, or is none."""
        if not self.storage.is_local:
            return False
        try:
            found = os.lstat(self.storage.local_path(name))
        except FileNotFoundError:
            return True
        # A link would make a file of somewhere else a request.
        return not stat.S_ISREG(found.st_mode) or now - found.st_mtime < QUIET_SECONDS

    def _rename_unusable(self) -> None:
        """Give files whose names cannot be keys a name, so that they are read or rejected too."""
        folder = Path(self.storage.root)
        if not folder.is_dir():
            return
        for entry in os.scandir(folder):
            if _is_key(entry.name) or HIDDEN_NAME.fullmatch(entry.name):
                continue
            if entry.is_file(follow_symlinks=False):
                name = f"{_digest(os.fsencode(entry.name))}-{_plain(entry.name)}"
                os.replace(entry.path, folder / name)


def _is_key(name: str) -> bool:
    try:
        return join_key(name) == name
    except InvalidKeyError:
        return False


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-_LONGEST_NAME:].lstrip("._-") or "request"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the queue delivered it, and the receipt by which it is deleted."""

    id: str
    receipt: str
    body: bytes


@dataclass(frozen=True)
class RequestQueue:
    """An SQS queue. Credentials come from the standard ``AWS_*`` environment variables."""

    url: str
    endpoint_url: str | None
    region: str
    hidden_seconds: int = 600

    @classmethod
    def of(cls, settings: Settings, kind: Kind) -> RequestQueue | None:
        """The queue that the settings name; None without one."""
        url = settings.tile_queue_url if kind == "tiles" else settings.volume_queue_url
        hidden = min(_LOOKS_HIDDEN * settings.request_seconds, _MOST_HIDDEN)
        return cls(url, settings.sqs_endpoint_url, settings.s3_region, hidden) if url else None

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
        return boto3.client(
            "sqs", endpoint_url=self.endpoint_url, region_name=self.region, config=config
        )

    def send(self, body: str, *, name: str) -> str:
        """Put a message into the queue; its id.

        A FIFO queue takes one ``name`` once in five minutes, and as a group of its own: messages of
        one group would be delivered one after the other.
        """
        more: dict[str, Any] = {}
        if self.url.endswith(".fifo"):
            more = {"MessageGroupId": name, "MessageDeduplicationId": name}
        with self._explained("send to"):
            sent = self._client.send_message(QueueUrl=self.url, MessageBody=body, **more)
            return str(sent["MessageId"])

    def receive(self, most: int, deadline: float) -> Iterator[Message]:
        """At most so many messages, until there are none or the monotonic clock is at ``deadline``.

        They are hidden from others for :attr:`hidden_seconds`.
        """
        while most > 0 and time.monotonic() < deadline:
            with self._explained("receive from"):
                answer = self._client.receive_message(
                    QueueUrl=self.url,
                    MaxNumberOfMessages=min(most, _MESSAGES_AT_ONCE),
                    VisibilityTimeout=self.hidden_seconds,
                    WaitTimeSeconds=_WAIT_SECONDS,
                )
            received = answer.get("Messages", [])
            for one in received:
                yield Message(
                    one["MessageId"], one["ReceiptHandle"], one["Body"].encode("utf-8", "replace")
                )
            if not received:
                return
            most -= len(received)

    def delete(self, receipts: Iterable[str]) -> None:
        """Delete messages. One whose receipt is outdated comes again."""
        for chunk in _tens(receipts):
            entries = [{"Id": str(n), "ReceiptHandle": one} for n, one in enumerate(chunk)]
            with self._explained("delete from"):
                self._client.delete_message_batch(QueueUrl=self.url, Entries=entries)

    def renew(self, receipts: Iterable[str]) -> None:
        """Hide messages anew, from now on; outdated receipts are passed over."""
        for chunk in _tens(receipts):
            entries = [
                {"Id": str(n), "ReceiptHandle": one, "VisibilityTimeout": self.hidden_seconds}
                for n, one in enumerate(chunk)
            ]
            with self._explained("renew messages of"):
                self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return _explained(action, self.url)


@contextmanager
def _explained(action: str, url: str) -> Iterator[None]:
    """Turn the errors of the client into one that names the queue and the mend."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise QueueError(
            f"cannot {action} the queue {url}: {first}; check its URL, OCR_S3_REGION, "
            "OCR_SQS_ENDPOINT_URL and the AWS_* credentials"
        ) from error


def _tens(items: Iterable[str]) -> Iterator[list[str]]:
    chosen = list(items)
    for start in range(0, len(chosen), _MESSAGES_AT_ONCE):
        yield chosen[start : start + _MESSAGES_AT_ONCE]


def named_objects(body: bytes) -> list[str] | None:
    """``s3://`` addresses that a notification of S3, perhaps sent on by SNS, is about.

    None for a message that is no such notification; a test of S3 is about nothing.
    """
    try:
        document = json.loads(body)
        if isinstance(document, dict) and document.get("Type") == "Notification":
            document = json.loads(document["Message"])
        if not isinstance(document, dict):
            return None
        if document.get("Event") == "s3:TestEvent":
            return []
        records = document.get("Records")
        if not isinstance(records, list) or not records:
            return None
        found = [record["s3"] for record in records]
        # Keys are written as in the query of a URL.
        return [
            f"s3://{one['bucket']['name']}/{unquote_plus(one['object']['key'])}" for one in found
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
