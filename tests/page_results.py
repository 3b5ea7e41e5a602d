"""Synthetic page results: pages of a volume as a recogniser would give them, without any images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from ocr_assets.volumes.archive import ImageEntry, VolumeId, VolumeManifest
from ocr_assets.volumes.documents import VolumeDocuments
from ocr_assets.volumes.line_kinds import LineKind
from ocr_assets.volumes.results import FailedPage, LineResult, PageResult, SyllableResult

ODD_TEXT = st.text(
    st.one_of(
        st.sampled_from("ཀཁགངབསརལའ་།༔ིེོུྱྲ\u0f39\u0f71\u0fb7"),
        st.sampled_from(
            "\x00\x01\x0b\x0c\x1b\x85\u2028\ufffe\uffff\ud800\U0001f600&<>\"'/]]>\t\n\r "
        ),
        st.characters(),
    ),
    max_size=12,
)
CONFIDENCE = st.floats(0, 1, width=32)
SIDE = 2000

_SYLLABLES = ("བཀྲ་", "ཤིས་", "བདེ་", "ལེགས", "། ", "ཆོས་", "རྒྱལ་", "མཚན་")


@st.composite
def _boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    # Some stick out of the page, as no step promises otherwise.
    x, y = draw(st.integers(-50, SIDE)), draw(st.integers(-50, SIDE))
    return x, y, draw(st.integers(1, SIDE)), draw(st.integers(1, SIDE))


_PATHS = st.lists(
    st.tuples(st.integers(-50, SIDE + 50), st.integers(-50, SIDE + 50)), max_size=5
).map(tuple)


@st.composite
def odd_lines(draw: st.DrawFn) -> LineResult:
    """A line with any text, whose text is that of its syllables."""
    syllables = draw(
        st.lists(st.builds(SyllableResult, ODD_TEXT, CONFIDENCE, _boxes()), max_size=4)
    )
    return LineResult(
        "".join(syllable.text for syllable in syllables),
        draw(CONFIDENCE),
        draw(st.sampled_from(("text", "running_head", "page_number", "margin"))),
        draw(st.integers(0, 3)),
        draw(_boxes()),
        draw(_PATHS),
        draw(_PATHS),
        tuple(syllables),
    )


def odd_pages() -> st.SearchStrategy[PageResult]:
    """Pages with any text and any geometry."""
    return st.builds(
        PageResult,
        image=st.one_of(st.just("I1KG00010001.tif"), ODD_TEXT.filter(len)),
        frame=st.integers(0, 3),
        etag=st.none() | ODD_TEXT,
        sha256=st.just("ab" * 32),
        width=st.integers(1, SIDE),
        height=st.integers(1, SIDE),
        angle=st.floats(-20, 20, width=32),
        turned=st.sampled_from((0, 90, 180, 270)),
        lines=st.lists(odd_lines(), max_size=4).map(tuple),
    )


def odd_failures() -> st.SearchStrategy[FailedPage]:
    """Failed pages with any message."""
    return st.builds(
        FailedPage,
        image=st.just("I1KG00010001.tif"),
        frame=st.integers(0, 3),
        etag=st.none() | ODD_TEXT,
        sha256=st.none() | st.just("ab" * 32),
        stage=st.sampled_from(("fetch", "decode", "lines", "recognition", "missing")),
        error_type=st.just("ImageError"),
        reason=ODD_TEXT,
        retryable=st.booleans(),
        attempt=st.integers(1, 3),
    )


def image_name(number: int) -> str:
    """Name of the image of a page."""
    return f"I1KG0001{number:04}.tif"


def synthetic_page(number: int, lines: int = 8, syllables: int = 18) -> PageResult:
    """A page with a running head, its number, text and a note in the margin."""
    rng = np.random.default_rng(number)
    kinds: list[LineKind] = ["running_head", "page_number", *["text"] * (lines - 3), "margin"]
    found = []
    for index, kind in enumerate(kinds):
        x, y, height = 200, 150 + 120 * index, 80
        count = 2 if kind != "text" else syllables
        if kind == "page_number":
            x, y = 1700, 150
        elif kind == "margin":
            x, y, height = 20, 600, 60
        step = 150 // 2 if kind == "margin" else 1500 // syllables
        words = tuple(
            SyllableResult(
                _SYLLABLES[rng.integers(len(_SYLLABLES))],
                float(np.float32(rng.uniform(0.5, 1))),
                (x + i * step, y, step, height),
            )
            for i in range(count)
        )
        text = "".join(word.text for word in words).rstrip()
        words = (*words[:-1], SyllableResult(words[-1].text.rstrip(), *_rest(words[-1])))
        box = (x, y, count * step, height)
        right = x + count * step
        found.append(
            LineResult(
                text,
                float(np.float32(rng.uniform(0.6, 1))),
                kind,
                {"text": 0, "margin": 1}.get(kind, 0),
                box,
                ((x, y), (right, y), (right, y + height), (x, y + height)),
                ((x, y + 20), (right, y + 24)),
                words,
            )
        )
    digest = f"{number:064x}"
    return PageResult(
        image_name(number), 0, digest[-32:], digest, 1900, 1400, 0.25, 0, tuple(found)
    )


def _rest(word: SyllableResult) -> tuple[float, tuple[int, int, int, int]]:
    return word.confidence, word.box


def failure(number: int, *, retryable: bool = False) -> FailedPage:
    """A page whose image is damaged."""
    digest = f"{number:064x}"
    return FailedPage(
        image_name(number),
        0,
        digest[-32:],
        digest,
        "decode",
        "ImageError",
        "cut short",
        retryable,
    )


def synthetic_pages(count: int) -> Iterator[PageResult]:
    """Pages one after the other, made when they are asked for."""
    return (synthetic_page(number) for number in range(1, count + 1))


def documents(pages: int, **changes: str) -> VolumeDocuments:
    """What a volume of some pages says of itself."""
    entries = tuple(ImageEntry(image_name(n), etag=f"{n:032x}") for n in range(1, pages + 1))
    manifest = VolumeManifest(VolumeId("W22084", "I0886"), "a1b2c3", "a1b2c3" + "0" * 26, entries)
    lineage = {
        "package_version": "0.1.0",
        "code_version": "0123456789abcdef",
        "inputs": {image.name: image.etag for image in entries},
        "configuration": {"model": "bod", "model_sha256": "cd" * 32, "decoder": "beam"},
    }
    values = {
        "job_type": "printed-unicode",
        "source": "s3://archive/Works/60/W22084/images/W22084-0886",
        "encoding": "unicode",
        "language": "bo",
    } | changes
    return VolumeDocuments(manifest=manifest, lineage=lineage, **values)  # type: ignore[arg-type]
