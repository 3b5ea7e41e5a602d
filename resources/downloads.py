"""Downloads over HTTP that go on where they were broken off.

Belongs here: bringing the bytes behind a URL into a file, whole and checked, or not at all. Does
not belong here: what is downloaded and where from.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from resources.atomic import write_atomic
from resources.content_hashes import content_sha256
from resources.manifest import sha256_file

_BLOCK = 1 << 20
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 60
_MOST_TEXT = 64 << 20


class DownloadError(RuntimeError):
    """A URL that could not be fetched, or gave other bytes than expected."""


OnBytes = Callable[[int], None]
"""Called again and again during a download with the number of bytes that are here."""


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """What a server says of a file without sending it; None where it does not say."""

    etag: str | None
    last_modified: str | None
    size: int | None

    def is_that_of(self, arrival: Arrival) -> bool:
        """Whether the server still has what arrived; sizes decide where it gives nothing else."""
        if self.etag and arrival.etag:
            return self.etag == arrival.etag
        if self.last_modified and arrival.last_modified:
            return self.last_modified == arrival.last_modified
        return self.size in (None, arrival.size)

    @property
    def identity(self) -> str:
        """Text that changes when the file does, as far as the server tells."""
        return self.etag or f"{self.last_modified or 'no date'} {self.size}"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Record of a download: what came from where, kept beside the file."""

    url: str
    sha256: str
    size: int
    etag: str | None
    last_modified: str | None
    published_sha256: str | None
    """The hash it was checked against, None if the publisher gives none."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    on_bytes: OnBytes | None = None,
    first_wait: float = 1.0,
) -> Arrival:
    """Bring the file behind ``url`` to ``target`` unless it is there; keep a record beside it.

    A file with a published ``sha256`` is there if it has that hash. Any other is there if it still
    is what arrived last time, and the server does not say that it has another version since; a
    server that cannot be asked leaves the file as it is.

    Raises :class:`DownloadError` as :func:`download` does.
    """
    kept = arrival_of(target)
    if kept is not None and content_sha256(target) == kept.sha256:
        if sha256 is not None and kept.sha256 == sha256.lower():
            return kept
        if sha256 is None and kept.url == url:
            try:
                unchanged = remote_version(url).is_that_of(kept)
            except DownloadError:
                unchanged = True
            if unchanged:
                return kept
    headers: dict[str, str] = {}
    digest = download(
        url, target, sha256=sha256, first_wait=first_wait, on_bytes=on_bytes, headers=headers
    )
    arrival = Arrival(
        url=url,
        sha256=digest,
        size=target.stat().st_size,
        etag=headers.get("etag"),
        last_modified=headers.get("last-modified"),
        published_sha256=sha256,
    )
    record = (json.dumps(asdict(arrival), indent=1, sort_keys=True) + "\n").encode()
    write_atomic(_record(target), lambda file: file.write(record), if_absent=False)
    return arrival


def arrival_of(target: Path) -> Arrival | None:
    """The record of a fetched file; None if the file or its record is not there."""
    try:
        arrival = Arrival(**json.loads(_record(target).read_bytes()))
        return arrival if arrival.size == target.stat().st_size else None
    except (OSError, ValueError, TypeError):
        return None


def remote_version(url: str) -> RemoteVersion:
    """What the server says of the file behind a URL; raises :class:`DownloadError`."""
    try:
        with _open(url, {}, method="HEAD") as response:
            headers = response.headers
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url} cannot be looked at: {error}") from error
    length = headers.get("Content-Length")
    return RemoteVersion(
        headers.get("ETag"), headers.get("Last-Modified"), int(length) if length else None
    )


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.download.json")


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    first_wait: float = 1.0,
    on_bytes: OnBytes | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """Bring the file behind ``url`` to ``target`` and return its SHA-256 in hexadecimal digits.

    The bytes are kept beside the target until they are complete and checked. A download that was
    broken off goes on there, if the server still has the same version of the file.

    Args:
        url: ``http://`` or ``https://``.
        target: the file to write; it is replaced at the end.
        sha256: the hash that the file must have, if known.
        size: the size in bytes that it must have, if known.
        first_wait: seconds before the second attempt; each further wait is twice as long.
        on_bytes: is told how many bytes are here, block by block.
        headers: gets the headers of the last answer, names in lower case.

    Raises:
        DownloadError: the URL is not one, is refused, keeps breaking off, or gives other bytes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    tag = target.with_name(f".{target.name}.etag")
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(first_wait * 2 ** (attempt - 1))
        try:
            answered = _continue(url, part, tag, on_bytes or (lambda _: None))
            if headers is not None:
                headers.update(answered)
            break
        except urllib.error.HTTPError as error:
            if error.code not in {408, 425, 429, 500, 502, 503, 504} or attempt == _ATTEMPTS - 1:
                raise DownloadError(f"{url} answers {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            if attempt == _ATTEMPTS - 1:
                raise DownloadError(
                    f"{url} broke off {_ATTEMPTS} times, the last time with: {error}; call again "
                    "to go on from there"
                ) from error
    found = sha256_file(part)
    if (sha256 and found != sha256.lower()) or (size is not None and part.stat().st_size != size):
        problem = f"{part.stat().st_size} bytes with SHA-256 {found}"
        part.unlink()
        tag.unlink(missing_ok=True)
        raise DownloadError(
            f"{url} gave {problem}, expected {'any' if size is None else size} bytes with SHA-256 "
            f"{sha256 or 'any'}; the file there has changed or was damaged on the way"
        )
    part.replace(target)
    tag.unlink(missing_ok=True)
    return found


def read_url(url: str) -> bytes:
    """The bytes behind a URL, at most 64 MiB; raises :class:`DownloadError`."""
    try:
        with _open(url, {}) as response:
            data = response.read(_MOST_TEXT + 1)
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url} cannot be read: {error}") from error
    if len(data) > _MOST_TEXT:
        raise DownloadError(f"{url} has more than {_MOST_TEXT} bytes, which no list of files has")
    return data


def _continue(url: str, part: Path, tag: Path, on_bytes: OnBytes) -> dict[str, str]:
    start = part.stat().st_size if part.is_file() and tag.is_file() else 0
    headers = {"Range": f"bytes={start}-", "If-Range": tag.read_text()} if start else {}
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies behind what is here already; the caller checks whether that is the file.
        return {}
    with response:
        resumed = response.status == 206
        if not resumed:
            tag.unlink(missing_ok=True)
            if validator := _validator(response.headers):
                tag.write_text(validator)
        here = start if resumed else 0
        on_bytes(here)
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                here += len(block)
                on_bytes(here)
        length = response.headers.get("Content-Length")
        missing = int(length) - (here - (start if resumed else 0)) if length else 0
        answered = {name.lower(): value for name, value in response.headers.items()}
    if missing > 0:
        raise HTTPException(f"{missing} bytes were missing at the end")
    return answered


def _validator(headers: HTTPMessage) -> str | None:
    """What a request to go on may build upon: it names exactly these bytes."""
    entity = headers.get("ETag")
    if entity:
        # A weak tag does not promise equal bytes.
        return None if entity.startswith("W/") else entity
    return headers.get("Last-Modified")


def _open(url: str, headers: Mapping[str, str], method: str = "GET") -> HTTPResponse:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DownloadError(f"{url!r} is not an http:// or https:// URL")
    # The scheme has been checked, so that no local file can be opened here.
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310
    return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
