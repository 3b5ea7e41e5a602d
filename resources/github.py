"""The GitHub REST API: conditional, paged, patient.

Belongs here: getting what lies behind an address of the API, and what a failure means. Does not
belong here: what releases or pull requests are, or what is done about them.

An answer that has not changed costs nothing of the quota: the entity tag of the last one is sent
along, and the server says `304`. The tag also depends on the token, so it names a state of the
conversation and not of the data. Whatever fails is one of a few errors, so that a caller can tell
what passes by itself from what a person has to mend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests
from pydantic import SecretStr
from requests.auth import AuthBase

API_VERSION = "2022-11-28"
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0
MOST_BYTES = 32 << 20
LONGEST_WAIT = 2 * 3600.0
"""Seconds; a server that asks for more has a wrong clock, and is asked again after this."""

UNSAID_WAIT = 60.0
"""Seconds to wait where a server refuses for haste and does not say how long."""


class GitHubError(RuntimeError):
    """GitHub did not give what was asked for; the message says why."""


class PassingError(GitHubError):
    """It may work the next time."""


class UnreachableError(PassingError):
    """No answer: no connection, a timeout, or no time left for asking."""


class GitHubServerError(PassingError):
    """The server failed: status 5xx."""


class DamagedAnswerError(PassingError):
    """The answer broke off, is too large, or is not what the API promises."""


class RateLimitedError(PassingError):
    """Too many requests; :attr:`until` is when to ask again, in seconds since 1970."""

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message)
        self.until = until


class UnauthorizedError(GitHubError):
    """The token is missing, wrong, expired, or not allowed to read this."""


class NotFoundError(GitHubError):
    """There is nothing, or nothing that this token may see."""


@dataclass(frozen=True)
class Page:
    """An answer: its content, or the news that it is what it was."""

    url: str
    etag: str | None
    content: Any
    """The decoded JSON; None if it has not changed."""
    next_url: str | None
    """Address of the next page of a list; None also where an unchanged page does not say."""
    poll_seconds: float
    """Shortest pause before the next request that the server asks for."""

    @property
    def unchanged(self) -> bool:
        """Whether it is as the entity tag said."""
        return self.content is None


class _Bearer(AuthBase):
    """Given as authentication, so that a `.netrc` does not replace it."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return request


class GitHub:
    """A connection with the API for a few requests in a row.

    Args:
        base_url: address of the API, like `https://api.github.com`.
        token: sent with every request to that address, and to no other.
        budget: seconds for all requests together; past them it raises UnreachableError.
    """

    def __init__(self, base_url: str, token: SecretStr | None, *, budget: float = 40.0) -> None:
        self._base = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.max_redirects = 3
        self._session.auth = _Bearer(token) if token else None
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": API_VERSION,
                "User-Agent": "ocr-assets",
            }
        )
        self._deadline = time.monotonic() + budget
        self._spent_until: float | None = None

    def __enter__(self) -> GitHub:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def address(self, *parts: str, **query: str | int) -> str:
        """Address of a resource: path segments, each quoted, and a query."""
        path = "/".join(quote(part, safe="") for part in parts)
        return f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")

    def get(self, url: str, etag: str | None = None) -> Page:
        """What lies behind an address.

        Args:
            url: from :meth:`address`, or the next page of an answer.
            etag: entity tag of the last answer; if it still holds, the page comes without content.

        Raises:
            RateLimitedError: too many requests, or the quota is used up.
            UnauthorizedError, NotFoundError: a person has to mend something.
            GitHubServerError, UnreachableError, DamagedAnswerError: try again later.
        """
        if not url.startswith(f"{self._base}/"):
            raise ValueError(f"{_host(url)} is not the API, and gets no token")
        if self._spent_until is not None:
            raise RateLimitedError("the quota is used up", self._spent_until)
        headers = {"If-None-Match": etag} if etag else {}
        try:
            with self._session.get(
                url, headers=headers, timeout=(CONNECT_SECONDS, self._left()), stream=True
            ) as answer:
                self._check(answer)
                content = None if answer.status_code == 304 else self._decoded(answer)
        except (requests.ConnectionError, requests.Timeout) as error:
            # Their messages may hold headers; the kind is enough.
            kind = type(error).__name__
            raise UnreachableError(f"{_host(url)} cannot be reached: {kind}") from None
        except requests.RequestException as error:
            kind = type(error).__name__
            raise DamagedAnswerError(f"the answer of {_host(url)} broke off: {kind}") from None
        return Page(
            url,
            answer.headers.get("ETag", etag),
            content,
            self._next(answer),
            _seconds(answer.headers.get("X-Poll-Interval")) or 0.0,
        )

    def pages(
        self, url: str, known: Mapping[str, tuple[str | None, str | None]], most: int
    ) -> Iterator[Page]:
        """The pages of a list, one after the other, at most ``most``.

        Args:
            url: address of the first page.
            known: entity tag and next page of pages as they were the last time, by address.
            most: a list that is longer raises DamagedAnswerError behind its last allowed page.

        Raises:
            GitHubError: as :meth:`get`; pages before it were given.
        """
        for _ in range(most):
            etag, was_next = known.get(url, (None, None))
            page = self.get(url, etag)
            if page.unchanged and page.next_url is None:
                page = replace(page, next_url=was_next)
            yield page
            if page.next_url is None:
                return
            url = page.next_url
        raise DamagedAnswerError(f"the list has more than {most} pages")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise UnreachableError(f"no time left to ask {_host(self._base)}")
        return min(READ_SECONDS, left)

    def _check(self, answer: requests.Response) -> None:
        """Raise what a status means, and note when the quota is used up."""
        status, headers = answer.status_code, answer.headers
        spent = headers.get("X-RateLimit-Remaining") == "0"
        if spent:
            self._spent_until = _wait_until(headers)
        if status in (200, 304):
            return
        place = f"{urlsplit(answer.url).path} answers {status}"
        if status in (403, 429):
            if spent or status == 429 or "Retry-After" in headers or self._says_rate(answer):
                until = _wait_until(headers)
                when = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
                raise RateLimitedError(f"{place}: rate limited until {when}", until)
            raise UnauthorizedError(f"{place}: OCR_GITHUB_TOKEN may not read this")
        if status == 401:
            raise UnauthorizedError(f"{place}: set OCR_GITHUB_TOKEN to a token that is valid")
        if status in (404, 410, 451):
            raise NotFoundError(
                f"{place}: check OCR_GITHUB_REPOSITORY and OCR_GITHUB_BRANCH, and what "
                "OCR_GITHUB_TOKEN may see"
            )
        if status >= 500:
            raise GitHubServerError(place)
        raise DamagedAnswerError(f"{place}, which is not expected")

    def _says_rate(self, answer: requests.Response) -> bool:
        """Whether a refusal speaks of a secondary limit, of which no header need tell."""
        try:
            return "rate limit" in str(self._decoded(answer).get("message", "")).lower()
        except (DamagedAnswerError, AttributeError):
            return False

    def _decoded(self, answer: requests.Response) -> Any:
        body = bytearray()
        for block in answer.iter_content(1 << 16):
            body += block
            self._left()
            if len(body) > MOST_BYTES:
                raise DamagedAnswerError(f"an answer has more than {MOST_BYTES} bytes")
        try:
            content = json.loads(bytes(body))
        except ValueError as error:
            path = urlsplit(answer.url).path
            raise DamagedAnswerError(f"the answer to {path} is not JSON: {error}") from None
        if content is None:
            raise DamagedAnswerError(f"the answer to {urlsplit(answer.url).path} is empty")
        return content

    def _next(self, answer: requests.Response) -> str | None:
        link = answer.links.get("next", {}).get("url")
        if link is None:
            return None
        if not str(link).startswith(f"{self._base}/"):
            raise DamagedAnswerError(f"the next page is said to be at {_host(link)}, not the API")
        return str(link)


def _wait_until(headers: Mapping[str, str]) -> float:
    """When to ask again, by this machine's clock: the server's is known from its `Date`."""
    now = time.time()
    wait = _seconds(headers.get("Retry-After"))
    if wait is None and (reset := _seconds(headers.get("X-RateLimit-Reset"))) is not None:
        wait = reset - _server_time(headers, now)
    if wait is None:
        wait = UNSAID_WAIT
    return now + min(max(wait, 1.0), LONGEST_WAIT)


def _server_time(headers: Mapping[str, str], now: float) -> float:
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return now


def _seconds(text: str | None) -> float | None:
    """A number of seconds, or seconds until a date; None where a header says neither."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return None


def _host(url: str) -> str:
    return urlsplit(url).hostname or "GitHub"
