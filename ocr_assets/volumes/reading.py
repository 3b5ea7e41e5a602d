"""Reading a whole volume: all of its pages through the steps, in bounded memory.

Belongs here: what is done anew and what is kept, work ahead on several cores, lines of many pages
put together, and failures that stay with their page. Does not belong here: the steps, storing.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocr_assets.volumes.archive import ImageEntry, VolumeManifest, VolumeSource
from ocr_assets.volumes.found_lines import FoundLines, FoundPage
from ocr_assets.volumes.images import PageFailure, PageImage, read_pages
from ocr_assets.volumes.page_lines import LINE_HEIGHT, PageLines, find_lines
from ocr_assets.volumes.recognise import RecognisedLine
from ocr_assets.volumes.results import (
    FailedPage,
    PageResult,
    failed_to_load,
    failed_to_read,
    page_result,
    writable,
)
from ocr_assets.volumes.tables import VolumeTables

PAGES_AT_ONCE = 16
"""Pages whose lines are read together."""

_ARENA_MAX = -8  # of malloc.h

Reader = Callable[[Sequence[NDArray[np.uint8]]], list[RecognisedLine]]
"""From line images to what they say, in their order."""

TextMask = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
"""From a grey page to where a segmentation model sees text."""


@dataclass(frozen=True)
class LineFinder:
    """Finds the lines of a page, with the help of a segmentation model if there is one."""

    line_height: int = LINE_HEIGHT
    text_mask: TextMask | None = None

    def __call__(self, page: PageImage) -> PageLines:
        """The lines of a page."""
        if self.text_mask is None:
            return find_lines(page.pixels, self.line_height)
        grey = page.pixels
        if grey.dtype == np.bool_:
            grey = np.where(grey, np.uint8(0), np.uint8(255))
        return find_lines(page.pixels, self.line_height, self.text_mask(grey.astype(np.uint8)))


def volume_lines(
    source: VolumeSource,
    manifest: VolumeManifest,
    finder: LineFinder,
    previous: FoundLines | None = None,
    *,
    again: bool = False,
) -> Iterator[FoundPage | FailedPage]:
    """Find the lines of a volume's pages, in the order of its manifest.

    Images with the entity tag of one in ``previous`` keep their lines and are not fetched. Failures
    that may pass are tried again.

    Args:
        source: where the images are.
        manifest: which there are.
        finder: finds the lines of a page.
        previous: what the same finder found in an earlier state of the volume.
        again: whether also failures that will hardly pass are tried again.
    """
    kept = {
        image.name
        for image in manifest.images
        if previous is not None
        and image.etag is not None
        and previous.has(image.etag)
        and not any(page.retryable or again for page in previous.failures(image.etag))
    }

    def attempt(image: ImageEntry, frame: int) -> int:
        before = previous.failures(image.etag) if previous and image.etag else []
        return 1 + max((page.attempt for page in before if page.frame == frame), default=0)

    def find(page: PageImage | PageFailure) -> FoundPage | FailedPage:
        number = attempt(page.entry, page.frame)
        if isinstance(page, PageFailure):
            return failed_to_load(page, number)
        try:
            return FoundPage.of(page, finder(page))
        except Exception as error:
            return failed_to_read(page, "lines", error, number)

    missing = [image for image in manifest.images if image.name not in kept]
    _share_heaps()
    with closing(read_pages(source, missing)) as pages:
        found = groupby(_ahead(find, pages, _cores()), key=lambda page: writable(page.image))
        name, group = next(found, (None, iter(())))
        for image in manifest.images:
            if previous and image.etag and image.name in kept:
                for page in previous.of_image(image.etag):
                    yield replace(page, image=image.name, etag=image.etag)
            elif writable(image.name) == name:
                yield from group
                name, group = next(found, (None, iter(())))
    _give_memory_back()


def volume_text(
    pages: Iterable[FoundPage | FailedPage],
    read: Reader,
    previous: VolumeTables | None = None,
    *,
    pages_at_once: int = PAGES_AT_ONCE,
) -> Iterator[PageResult | FailedPage]:
    """Read the lines of pages, those of ``pages_at_once`` pages together.

    Args:
        pages: with their lines.
        read: reads line images.
        previous: what the same models said earlier; pages with the same image keep it.
        pages_at_once: pages that are held in memory.
    """
    _share_heaps()
    waiting: list[FoundPage | PageResult | FailedPage] = []
    for page in pages:
        waiting.append(_kept(page, previous) if isinstance(page, FoundPage) else page)
        if sum(isinstance(item, FoundPage) for item in waiting) == pages_at_once:
            yield from _read_together(waiting, read)
            waiting = []
    yield from _read_together(waiting, read)
    _give_memory_back()


def _kept(page: FoundPage, previous: VolumeTables | None) -> FoundPage | PageResult:
    if previous is not None:
        for result in previous.of_image(sha256=page.sha256):
            if isinstance(result, PageResult) and result.frame == page.frame:
                return replace(result, image=page.image, etag=page.etag)
    return page


def _read_together(
    pages: Sequence[FoundPage | PageResult | FailedPage], read: Reader
) -> Iterator[PageResult | FailedPage]:
    new = [page for page in pages if isinstance(page, FoundPage)]
    try:
        said = iter(read([line.image for page in new for line in page.found.lines]))
        texts = [[next(said) for _ in page.found.lines] for page in new]
        results: Iterator[PageResult | FailedPage] = iter(
            [
                page_result(page.page_image(), page.found, text)
                for page, text in zip(new, texts, strict=True)
            ]
        )
    except Exception:
        # One page must not take the others along: each by itself tells which it is.
        results = iter([_read_alone(page, read) for page in new])
    for page in pages:
        yield next(results) if isinstance(page, FoundPage) else page


def _read_alone(page: FoundPage, read: Reader) -> PageResult | FailedPage:
    try:
        text = read([line.image for line in page.found.lines])
        return page_result(page.page_image(), page.found, text)
    except Exception as error:
        return failed_to_read(page.page_image(), "recognition", error)


def _ahead[Item, Result](
    work: Callable[[Item], Result], items: Iterable[Item], at_once: int
) -> Iterator[Result]:
    """Results of ``work`` in order, by several threads, with few items held."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once, "lines") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _share_heaps() -> None:
    """Have threads share heaps of the GNU C library: each keeps up to 64 MB of its own for ever."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(_ARENA_MAX, 2)


def _give_memory_back() -> None:
    """Have the allocators return what they keep: pages leave hundreds of megabytes behind."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of the GNU C library
        trim(0)


def _cores() -> int:
    return min(4, os.cpu_count() or 1)
