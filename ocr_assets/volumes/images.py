"""From the bytes of an image file to page images, and reading ahead through a volume.

Belongs here: decoding, its limits, and the bounded pipeline of fetching and decoding.
Does not belong here: where bytes come from, and what is on a page.

A page image is bool ``[h, w]`` with True for ink where the file is bilevel, uint8 grey ``[h, w]``
otherwise.
"""

from __future__ import annotations

import hashlib
import io
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ocr_assets.volumes.archive import ImageEntry, VolumeSource

MAX_PIXELS = 80_000_000
"""Pixels of the largest image that is decoded; a larger one is taken for a decompression bomb."""

FETCH_AHEAD = 16
"""Files that are fetched before they are needed."""

FETCH_BYTES = 128 * 2**20
"""Their bytes together; a single file may have more."""

DECODE_AHEAD = 3
"""Pages that are decoded before they are needed."""

_FETCHERS = 8
_UNKNOWN_BYTES = 16 * 2**20
_FORMATS = ("TIFF", "JPEG", "PNG", "JPEG2000")
_REDUCED_OR_MASK = 0b101

Stage = Literal["fetch", "decode"]


class ImageError(ValueError):
    """An image that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page: bool ``[h, w]`` (True for ink) or uint8 grey ``[h, w]``, and where it is from.

    ``frame`` counts the pages of one file from 0. ``sha256`` is that of the file.
    """

    entry: ImageEntry
    frame: int
    pixels: NDArray[np.bool_] | NDArray[np.uint8]
    sha256: str
    fetch_seconds: float
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class PageFailure:
    """A page that could not be had: at which stage, the kind of error, and why."""

    entry: ImageEntry
    frame: int
    stage: Stage
    error_type: str
    reason: str
    sha256: str | None = None


def decode(data: bytes, name: str) -> Iterator[NDArray[np.bool_] | NDArray[np.uint8]]:
    """The pages of an image file: TIFF, JPEG, PNG or JPEG 2000.

    Every frame of a multi-page file is a page; thumbnails and masks in it are not.

    Raises:
        ImageError: not such a file, damaged, or larger than :data:`MAX_PIXELS`.
    """
    frame = 0
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            count = getattr(image, "n_frames", 1)
            for frame in range(count):
                image.seek(frame)
                if count > 1 and _is_auxiliary(image):
                    continue
                _check_pixels(image.size, name)
                yield _pixels(image)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is no TIFF, JPEG, PNG or JPEG 2000 file, or its head is damaged"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has more than the {MAX_PIXELS:,} pixels allowed") from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{name}, frame {frame + 1}, is damaged or cut short: {error}") from error


def _check_pixels(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are decoded: reduce "
            "it, or cut it into pages"
        )


def _is_auxiliary(image: Image.Image) -> bool:
    """Whether a TIFF frame is a thumbnail or a transparency mask of another one."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(254, 0) & _REDUCED_OR_MASK)


def _pixels(image: Image.Image) -> NDArray[np.bool_] | NDArray[np.uint8]:
    if image.format == "JPEG":
        # Decodes brightness only, where the file keeps it apart from colour.
        image.draft("L", image.size)
    if image.mode == "1":
        image.load()
        return ~np.asarray(image)
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image, np.float32)
        top = 65535.0 if levels.max(initial=0) > 255 else 255.0
        return (levels.clip(0, top) * (255.0 / top)).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        paper = Image.new("RGBA", layers.size, "white")
        image = Image.alpha_composite(paper, layers)
    grey = image if image.mode == "L" else image.convert("RGB").convert("L")
    return np.array(grey)


def read_pages(
    source: VolumeSource,
    entries: Sequence[ImageEntry],
    *,
    fetch_ahead: int = FETCH_AHEAD,
    decode_ahead: int = DECODE_AHEAD,
) -> Generator[PageImage | PageFailure]:
    """Pages of a volume in order, fetched and decoded while earlier ones are worked on.

    At most ``fetch_ahead`` files and ``decode_ahead`` pages are held beyond the page that was
    handed out. A page that fails comes as a :class:`PageFailure`, and the others go on. Closing the
    generator stops the threads.

    Args:
        source: where the files are.
        entries: which images, in which order.
    """
    ready: queue.Queue[PageImage | PageFailure | BaseException | None] = queue.Queue(decode_ahead)
    stopped = threading.Event()

    def hand_over(item: PageImage | PageFailure | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for fetched in _fetched(source, entries, fetch_ahead, stopped):
                for page in _decoded(fetched):
                    hand_over(page)
                    if stopped.is_set():
                        return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    worker = threading.Thread(target=work, name="decode", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            # The page just worked on must not be held while the next one is waited for.
            del item
    finally:
        stopped.set()
        worker.join()


@dataclass(frozen=True, slots=True)
class _Fetched:
    entry: ImageEntry
    data: bytes
    seconds: float


def _fetched(
    source: VolumeSource,
    entries: Sequence[ImageEntry],
    ahead: int,
    stopped: threading.Event,
) -> Iterator[_Fetched | PageFailure]:
    """Files in order, fetched by several threads; ``ahead`` and FETCH_BYTES limit what waits."""

    def fetch(entry: ImageEntry) -> _Fetched | PageFailure:
        start = time.perf_counter()
        try:
            data = source.read(entry)
        except Exception as error:
            return PageFailure(entry, 0, "fetch", type(error).__name__, str(error))
        return _Fetched(entry, data, time.perf_counter() - start)

    waiting: deque[tuple[int, Future[_Fetched | PageFailure]]] = deque()
    with ThreadPoolExecutor(min(_FETCHERS, ahead), "fetch") as pool:
        try:
            held = 0
            for entry in entries:
                size = _UNKNOWN_BYTES if entry.size is None else entry.size
                while waiting and (len(waiting) == ahead or held + size > FETCH_BYTES):
                    held -= waiting[0][0]
                    yield waiting.popleft()[1].result()
                if stopped.is_set():
                    return
                waiting.append((size, pool.submit(fetch, entry)))
                held += size
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(fetched: _Fetched | PageFailure) -> Iterator[PageImage | PageFailure]:
    if isinstance(fetched, PageFailure):
        yield fetched
        return
    entry = fetched.entry
    sha256 = hashlib.sha256(fetched.data).hexdigest()
    frame = 0
    start = time.perf_counter()
    try:
        for pixels in decode(fetched.data, entry.name):
            seconds = time.perf_counter() - start
            yield PageImage(entry, frame, pixels, sha256, fetched.seconds, seconds)
            # Pages wait for their reader; the next one's time starts when it is asked for.
            start = time.perf_counter()
            frame += 1
    except ImageError as error:
        yield PageFailure(entry, frame, "decode", "ImageError", str(error), sha256)
