"""Reading cloud-optimized GeoTIFFs, near or far, onto a grid.

Belongs here: reading only the bytes that a window needs, at the resolution it needs; many at once;
telling apart what went wrong, and going on where that helps. Does not belong here: what the rasters
mean, and which of them are read.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
import requests
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.session import DummySession

from ocr_assets.tiles.rasters import RasterTypeError, read_raster
from ocr_assets.tiles.scenes import Reading
from resources.imagery_access import (
    AbsentError,
    AccessDeniedError,
    CorruptRasterError,
    ImageryError,
    Patience,
    SasTokens,
    UnexpectedAnswerError,
    refusal,
    retry_after,
    shorten,
)
from resources.imagery_settings import Access

AT_ONCE = 8
"""Rasters that are read at the same time."""

_REMOTE = ("http://", "https://", "s3://")
_STATUS = re.compile(r"(?:HTTP (?:response|error) code|response_code)\W*(\d{3})")
_TOKEN = re.compile(r"\?\S*\bsig=[^\s'\"]*")
_S3_CODES = {
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "InvalidCredentials": 403,
    "NoSuchKey": 404,
    "SlowDown": 503,
}
_TRIES_OF_A_BAD_FILE = 2


class _WithoutTokens(logging.Filter):
    """Takes the tokens of signed addresses out of what the libraries below log."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        cleaned = _TOKEN.sub("?…", message)
        if cleaned != message:
            record.msg, record.args = cleaned, ()
        return True


for _logger in ("rasterio._base", "rasterio._env", "rasterio._io", "urllib3.connectionpool"):
    logging.getLogger(_logger).addFilter(_WithoutTokens())


class CogReader:
    """Reads rasters of scenes; see :class:`ocr_assets.tiles.scenes.Imagery`.

    Args:
        access: how the files are to be accessed.
        tokens: make addresses of HTTP readable, if given.
        folder: what relative addresses are relative to; they may not lead out of it. Without it
            only remote addresses are read, so that no service makes us open local files.
        patience: how long to go on trying.
    """

    def __init__(
        self,
        access: Access = "anonymous",
        tokens: SasTokens | None = None,
        folder: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._access = access
        self._tokens = tokens
        self._folder = folder.resolve() if folder else None
        self._patience = patience or Patience()

    def read(self, readings: Iterable[Reading]) -> Iterator[NDArray[Any]]:
        """Read rasters, some of them ahead, and yield them in order.

        Raises:
            ImageryError: one cannot be read; the message names asset and scene.
        """
        stop = threading.Event()
        pool = ThreadPoolExecutor(AT_ONCE)
        waiting: deque[Future[NDArray[Any]]] = deque()
        try:
            for reading in readings:
                waiting.append(pool.submit(self._read_one, reading, stop))
                if len(waiting) > 2 * AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _read_one(self, reading: Reading, stop: threading.Event) -> NDArray[Any]:
        href = reading.scene.asset(reading.assets)
        what = f"asset {_name(reading, href)} of scene {reading.scene.id}"
        address = self._resolve(href, what)
        tokens = self._tokens if address.startswith("http") else None
        bad_reads = 0
        for attempt in range(self._patience.attempts):
            signed = tokens.sign(address) if tokens else address
            try:
                with self._environment(fresh=attempt > 0):
                    return read_raster(signed, reading.geobox, reading.dtype, reading.resampling)
            except RasterTypeError as error:
                raise UnexpectedAnswerError(f"{what} {error}") from error
            except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
                message = shorten(str(error).replace(signed, address))
            if not address.startswith(_REMOTE):
                raise _unreadable(what, address, message, exists=Path(address).exists())
            status, asked_for = self._ask(signed, message)
            if status is not None and status < 300:
                bad_reads += 1
                if bad_reads == _TRIES_OF_A_BAD_FILE:
                    raise _unreadable(what, address, message, exists=True)
            problem = refusal(status, what, address, message)
            if isinstance(problem, AccessDeniedError) and tokens and attempt == 0:
                tokens.refused(signed)
                continue
            if isinstance(problem, AccessDeniedError | AbsentError):
                raise problem
            if attempt + 1 < self._patience.attempts:
                stop.wait(self._patience.wait(attempt, asked_for))
            if stop.is_set():
                break
        raise problem

    def _resolve(self, href: str, what: str) -> str:
        if href.startswith(_REMOTE):
            return href
        if self._folder is not None and "://" not in href and not href.startswith("/vsi"):
            path = (self._folder / href).resolve()
            if path.is_relative_to(self._folder):
                return str(path)
        raise UnexpectedAnswerError(f"{what} has the address {href!r}, which is not read from here")

    @contextmanager
    def _environment(self, *, fresh: bool) -> Iterator[None]:
        """GDAL as it reads over the network; ``fresh`` forgets what an earlier try left behind."""
        options: dict[str, Any] = {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
            "GDAL_HTTP_CONNECTTIMEOUT": max(1, round(self._patience.connect_seconds)),
            "GDAL_HTTP_TIMEOUT": max(1, round(self._patience.answer_seconds)),
            "GDAL_HTTP_MAX_RETRY": 0,
            "CPL_VSIL_CURL_USE_HEAD": False,
        }
        if fresh:
            options["CPL_VSIL_CURL_NON_CACHED"] = "/vsicurl/:/vsis3/"
        if self._access == "anonymous":
            options["AWS_NO_SIGN_REQUEST"] = True
        elif self._access == "requester-pays":
            options["AWS_REQUEST_PAYER"] = "requester"
        # GDAL finds credentials itself; the session of a store of ours would hide them.
        with rasterio.Env(DummySession(), **options):
            yield

    def _ask(self, address: str, message: str) -> tuple[int | None, float | None]:
        """Status of a file and the seconds it asks to wait: GDAL hides both."""
        if address.startswith("s3://"):
            found = _STATUS.search(message)
            codes = [status for code, status in _S3_CODES.items() if code in message]
            return (int(found[1]) if found else next(iter(codes), None)), None
        if "timed out" in message:
            return None, None
        try:
            with requests.get(
                address,
                headers={"Range": "bytes=0-15"},
                timeout=self._patience.timeouts,
                stream=True,
            ) as response:
                return response.status_code, retry_after(response)
        except requests.RequestException:
            return None, None


def _name(reading: Reading, href: str) -> str:
    return next(name for name in reading.assets if reading.scene.assets.get(name) == href)


def _unreadable(what: str, address: str, message: str, *, exists: bool) -> ImageryError:
    if not exists:
        return AbsentError(f"there is no file {address}, {what}")
    return CorruptRasterError(
        f"{what} cannot be read: {address} is damaged or no GeoTIFF ({message}); replace the file, "
        "or leave the scene out of the catalogue"
    )
