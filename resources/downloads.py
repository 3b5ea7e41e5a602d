"""Downloads over HTTP that go on where they were broken off.

Belongs here: bringing the bytes behind a URL into a file, whole and checked, or not at all. Does
not belong here: what is downloaded and where from.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from resources.manifest import sha256_file

_BLOCK = 1 << 20
_ATTEMPTS = 5
_TIMEOUT_SECONDS = 60
_MOST_TEXT = 64 << 20


class DownloadError(RuntimeError):
    """A URL that could not be fetched, or gave other bytes than expected."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    first_wait: float = 1.0,
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
            _continue(url, part, tag)
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


def _continue(url: str, part: Path, tag: Path) -> None:
    start = part.stat().st_size if part.is_file() and tag.is_file() else 0
    headers = {"Range": f"bytes={start}-", "If-Range": tag.read_text()} if start else {}
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies behind what is here already; the caller checks whether that is the file.
        return
    with response:
        resumed = response.status == 206
        entity = response.headers.get("ETag", "")
        if not resumed:
            tag.unlink(missing_ok=True)
            # A weak tag does not promise equal bytes, so it cannot be built upon.
            if entity and not entity.startswith("W/"):
                tag.write_text(entity)
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
        length = response.headers.get("Content-Length")
        missing = int(length) - (part.stat().st_size - (start if resumed else 0)) if length else 0
    if missing > 0:
        raise HTTPException(f"{missing} bytes were missing at the end")


def _open(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DownloadError(f"{url!r} is not an http:// or https:// URL")
    # The scheme has been checked, so that no local file can be opened here.
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310
    return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
