"""A web page for people who review lines: the image of each line beside its text.

Belongs here: cutting line images out of pages, and the page itself. Does not belong here: which
lines are shown.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.images import ImageError, decode
from ocr_assets.volumes.quality import ReviewLine

_WIDEST = 1600
_STYLE = (
    "body{font:16px/1.5 sans-serif;margin:2rem;max-width:100rem}"
    "figure{margin:0 0 1.5rem;border-left:.4rem solid hsl(var(--sure) 70% 45%);padding-left:1rem}"
    "img{max-width:100%;max-height:9rem;display:block}"
    "p{font-size:1.6rem;margin:.3rem 0}figcaption{color:#555}"
)


def review_page(
    job_type: str,
    language: str,
    lines: Sequence[ReviewLine],
    read: Callable[[ReviewLine], bytes],
) -> bytes:
    """A page without scripts and without anything from elsewhere.

    Args:
        job_type: for the heading.
        language: BCP 47 tag of the text.
        lines: in the order to show them.
        read: the image file of a line. Where it cannot be had, the page says so.
    """

    @lru_cache(maxsize=2)
    def pixels(volume: str, image: str, frame: int) -> NDArray[np.uint8] | str:
        line = next(line for line in lines if (line.volume, line.image) == (volume, image))
        try:
            page = next(islice(decode(read(line), image), frame, None))
        except (ImageError, RuntimeError, OSError, KeyError, StopIteration, ValueError) as error:
            return f"the image cannot be shown: {error}"
        if page.dtype == np.bool_:
            return np.where(page, np.uint8(0), np.uint8(255))
        return page.astype(np.uint8)

    figures = []
    for line in lines:
        page = pixels(line.volume, line.image, line.frame)
        shown = html.escape(page) if isinstance(page, str) else _picture(page, line)
        figures.append(
            f'<figure style="--sure:{round(120 * line.confidence)}">{shown}'
            f'<p lang="{language}">{html.escape(line.text) or "(no text)"}</p>'
            f"<figcaption>{line.confidence:.3f} · {html.escape(line.volume)} · page {line.page} "
            f"({html.escape(line.image)}) · line {line.line}</figcaption></figure>"
        )
    title = f"Review: {html.escape(job_type)}, {len(lines)} least certain lines"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>\n"
        + "\n".join(figures)
        + "\n</body></html>\n"
    ).encode()


def _picture(page: NDArray[np.uint8], line: ReviewLine) -> str:
    x, y, width, height = line.crop
    part = page[y : y + height, x : x + width]
    if not part.size:
        return "the line is outside of the image"
    if width > _WIDEST:
        size = _WIDEST, max(1, round(height * _WIDEST / width))
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    encoded = base64.b64encode(cv2.imencode(".png", part)[1].tobytes()).decode()
    return f'<img alt="line {line.line}" src="data:image/png;base64,{encoded}">'
