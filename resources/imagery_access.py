"""Reaching services of satellite imagery: errors, patience, and signed addresses.

Belongs here: what can go wrong with a service of others, how long to go on trying, and tokens that
let files be read. Does not belong here: what is asked and what is read.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3 import Retry

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which it is worth to ask again."""

_LEAST_LIFE = timedelta(minutes=5)
_LONGEST_MESSAGE = 300


class ImageryError(RuntimeError):
    """A service of imagery that does not give what it should; names the place and the mend."""


class UnreachableError(ImageryError):
    """The service is down, slow or broken, and stayed so for as long as was tried."""


class ThrottledError(ImageryError):
    """The service refuses to answer so often."""


class AccessDeniedError(ImageryError):
    """The service does not let us read."""


class AbsentError(ImageryError):
    """The service says that there is no such thing."""


class UnexpectedAnswerError(ImageryError):
    """The service answers something else than its interface says."""


class CorruptRasterError(ImageryError):
    """A file that is there but cannot be read as the raster it should be."""


@dataclass(frozen=True)
class Patience:
    """How often to try, and how long to wait.

    Attributes:
        attempts: tries in all.
        first_wait: seconds before the second try; each further wait is twice as long.
        longest_wait: seconds at most, and also of what a service asks for.
        jitter: seconds at most that are added at random, so that many do not come back at once.
        connect_seconds: for a connection to be made.
        answer_seconds: for an answer to come.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: int = 60
    jitter: float = 1.0
    connect_seconds: float = 10.0
    answer_seconds: float = 60.0

    @property
    def timeouts(self) -> tuple[float, float]:
        """Both limits as clients take them."""
        return self.connect_seconds, self.answer_seconds

    def wait(self, attempt: int, asked_for: float | None = None) -> float:
        """Seconds to wait after ``attempt`` (from 0), or what the service asked for if longer."""
        seconds = max(self.first_wait * 2**attempt, asked_for or 0.0)
        # Not for secrecy, only to spread requests.
        return min(seconds, self.longest_wait) + random.uniform(0, self.jitter)  # noqa: S311

    def retry(self) -> Retry:
        """The same for clients built on urllib3, which read ``Retry-After`` themselves."""
        return Retry(
            total=self.attempts - 1,
            status_forcelist=TRANSIENT,
            allowed_methods=None,
            backoff_factor=self.first_wait,
            backoff_max=self.longest_wait,
            backoff_jitter=self.jitter,
            retry_after_max=self.longest_wait,
            raise_on_status=False,
        )


def retry_after(response: requests.Response) -> float | None:
    """Seconds that a service asks to wait, if it says so in seconds."""
    try:
        return float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None


def refusal(status: int | None, what: str, place: str, detail: str = "") -> ImageryError:
    """The error for a status that stayed after all tries; None where there was no answer."""
    # Of the clients' nested messages the innermost says what happened.
    said = f": {shorten(detail.rpartition('): ')[2]).rstrip('")')}" if detail else ""
    if status is None:
        return UnreachableError(
            f"{place} cannot be reached for {what}{said}; check the address and the network, or "
            "try again later"
        )
    if status == 429:
        return ThrottledError(
            f"{place} refuses {what} because of too many requests (429); try again later, "
            "with fewer runs at once"
        )
    if status in (401, 403):
        return AccessDeniedError(
            f"{place} does not allow {what} ({status}); check how this source is to be accessed "
            "and the credentials for it"
        )
    if status in (404, 410):
        return AbsentError(f"{place} does not have {what} ({status})")
    return UnreachableError(f"{place} answers {status} for {what}{said}; try again later")


def shorten(text: str) -> str:
    """The beginning of a message of others, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"


class SasTokens:
    """Tokens of a collection that make addresses of its files readable for some time.

    They come from a service like that of the Planetary Computer: ``GET {url}/{collection}`` gives
    ``token`` and ``msft:expiry``. A subscription key is sent along. Threads may share an object.
    """

    def __init__(
        self, url: str, collection: str, patience: Patience, key: SecretStr | None = None
    ) -> None:
        self._address = f"{url.rstrip('/')}/{collection}"
        self._key = key
        self._patience = patience
        self._lock = threading.Lock()
        self._token: str | None = None
        self._expires = datetime.min.replace(tzinfo=UTC)

    def sign(self, address: str) -> str:
        """The address with a token that lives for some minutes yet.

        Raises:
            ImageryError: there is no token to be had.
        """
        with self._lock:
            if self._token is None or datetime.now(UTC) + _LEAST_LIFE > self._expires:
                self._token, self._expires = self._fetch()
            token = self._token
        return f"{address}{'&' if '?' in address else '?'}{token}"

    def refused(self, signed: str) -> None:
        """Forget the token of a signed address that was refused, unless there is a newer one."""
        with self._lock:
            if self._token is not None and signed.endswith(self._token):
                self._token = None

    def _fetch(self) -> tuple[str, datetime]:
        headers = {}
        if self._key is not None:
            headers["Ocp-Apim-Subscription-Key"] = self._key.get_secret_value()
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=self._patience.retry()))
            try:
                response = session.get(
                    self._address, headers=headers, timeout=self._patience.timeouts
                )
            except requests.RequestException as error:
                raise refusal(None, "a token", self._address, str(error)) from error
        if response.status_code != 200:
            raise refusal(response.status_code, "a token", self._address, response.text)
        try:
            answer: Any = response.json()
            token, expires = answer["token"], datetime.fromisoformat(answer["msft:expiry"])
            if not isinstance(token, str) or not token or expires.tzinfo is None:
                raise ValueError("no token with a time of expiry")
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswerError(
                f"{self._address} does not give a token and its expiry: {shorten(response.text)}"
            ) from error
        return token, expires
