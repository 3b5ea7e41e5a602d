"""Decoding of page images, its limits, and reading ahead."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ocr_assets.volumes.archive import ImageEntry, VolumeManifest
from ocr_assets.volumes.images import (
    FETCH_BYTES,
    MAX_PIXELS,
    ImageError,
    PageFailure,
    PageImage,
    decode,
    read_pages,
)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def ink() -> NDArray[np.bool_]:
    """A synthetic bilevel page, True for ink."""
    page = np.zeros((120, 170), bool)
    page[20:40, 10:150] = True
    page[60:64, 30:90] = True
    return page


@pytest.mark.parametrize("compression", ["group4", "group3", "tiff_lzw", "raw", "packbits"])
def test_bilevel_stays_bilevel(ink: NDArray[np.bool_], compression: str) -> None:
    data = _saved(Image.fromarray(~ink), "TIFF", compression=compression)
    (page,) = decode(data, "a.tif")
    assert page.dtype == np.bool_
    np.testing.assert_array_equal(page, ink)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("L", "TIFF", {"compression": "tiff_lzw"}),
        ("L", "TIFF", {"compression": "jpeg"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("L", "JPEG", {"quality": 90}),
        ("RGB", "JPEG", {"quality": 90}),
        ("CMYK", "JPEG", {"quality": 90}),
        ("L", "PNG", {}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("L", "JPEG2000", {}),
        ("RGB", "JPEG2000", {}),
    ],
)
def test_formats_give_the_same_grey(
    ink: NDArray[np.bool_], mode: str, kind: str, options: dict[str, Any]
) -> None:
    grey = np.where(ink, 40, 230).astype(np.uint8)
    image = Image.fromarray(grey).convert("RGB" if mode in ("CMYK", "P", "RGBA") else mode)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    (page,) = decode(_saved(image, kind, **options), "a")
    assert page.dtype == np.uint8
    assert page.shape == ink.shape
    assert np.abs(page.astype(int) - grey).mean() < 6


def test_sixteen_bits_become_eight() -> None:
    levels = np.linspace(0, 65535, 50 * 60).reshape(50, 60).astype(np.uint16)
    (page,) = decode(_saved(Image.fromarray(levels), "TIFF"), "a.tif")
    assert page.dtype == np.uint8
    np.testing.assert_allclose(page, levels / 257, atol=1)


def test_transparent_ground_is_paper() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:10, 5:10] = (0, 0, 0, 255)
    (page,) = decode(_saved(Image.fromarray(pixels), "PNG"), "a.png")
    assert page[0, 0] == 255
    assert page[7, 7] == 0


def test_every_frame_is_a_page(ink: NDArray[np.bool_]) -> None:
    frames = [Image.fromarray(~np.roll(ink, shift, axis=0)) for shift in (0, 5, 9)]
    data = _saved(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="group4")
    pages = list(decode(data, "a.tif"))
    assert len(pages) == 3
    np.testing.assert_array_equal(pages[2], np.roll(ink, 9, axis=0))


def test_one_pixel_is_a_page() -> None:
    (page,) = decode(_saved(Image.new("1", (1, 1), 1), "TIFF"), "a.tif")
    assert page.shape == (1, 1)


def test_large_image_is_refused_before_it_is_decoded() -> None:
    # Its pixels are missing: it would be called damaged if anybody tried to decode it.
    small = _saved(Image.new("1", (8, 8), 1), "PNG")
    head = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    data = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    with pytest.raises(ImageError, match="80,000,000"):
        list(decode(data, "bomb.png"))
    assert MAX_PIXELS == 80_000_000


def test_image_somewhat_over_the_limit_is_refused() -> None:
    data = _saved(Image.new("1", (9_000, 9_000), 1), "TIFF", compression="group4")
    with pytest.raises(ImageError, match=r"large\.tif has 9,000 x 9,000"):
        list(decode(data, "large.tif"))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "JPEG2000"])
def test_image_cut_short(ink: NDArray[np.bool_], kind: str) -> None:
    rng = np.random.default_rng(2)
    image = Image.fromarray(rng.integers(0, 255, (300, 300), np.uint8))
    data = _saved(image, kind)
    with pytest.raises(ImageError, match="a file"):
        list(decode(data[: len(data) // 2], "a file"))


def test_fax_strip_cut_short() -> None:
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.random((400, 400)) > 0.5)
    data = _saved(image, "TIFF", compression="group4")
    with pytest.raises(ImageError, match=r"a\.tif"):
        list(decode(data[: len(data) // 2], "a.tif"))


@pytest.mark.parametrize("data", [b"", b"no image at all", b"GIF89a" + bytes(50)])
def test_other_files(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"TIFF, JPEG, PNG or JPEG 2000"):
        list(decode(data, "a.tif"))


@dataclass
class _Memory:
    """Files in memory, as a volume source."""

    files: dict[str, bytes]
    delays: dict[str, float] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    def manifest(self) -> VolumeManifest:
        raise NotImplementedError

    def entries(self) -> list[ImageEntry]:
        return [ImageEntry(name) for name in self.files]

    def read(self, image: ImageEntry) -> bytes:
        self.started.append(image.name)
        time.sleep(self.delays.get(image.name, 0))
        return self.files[image.name]


def _numbered(number: int) -> bytes:
    return _saved(Image.new("L", (10 + number, 8), 200), "PNG")


def test_pages_come_in_order_whatever_is_slow() -> None:
    source = _Memory({f"{n}.png": _numbered(n) for n in range(40)}, {"3.png": 0.2, "17.png": 0.1})
    pages = list(read_pages(source, source.entries()))
    assert [page.pixels.shape[1] for page in pages if isinstance(page, PageImage)] == [
        10 + n for n in range(40)
    ]


def test_failed_pages_leave_the_others_alone() -> None:
    files = {"a.png": _numbered(1), "b.png": b"no image", "d.png": _numbered(2)}
    source = _Memory(files)
    entries = [ImageEntry(name) for name in ("a.png", "b.png", "missing.png", "d.png")]
    pages = list(read_pages(source, entries))
    kinds = [page.stage if isinstance(page, PageFailure) else "page" for page in pages]
    assert kinds == ["page", "decode", "fetch", "page"]
    assert isinstance(pages[1], PageFailure)
    assert "b.png" in pages[1].reason
    assert pages[1].sha256


def test_pages_of_one_file_are_numbered(ink: NDArray[np.bool_]) -> None:
    page = Image.fromarray(~ink)
    source = _Memory({"a.tif": _saved(page, "TIFF", save_all=True, append_images=[page] * 2)})
    pages = list(read_pages(source, source.entries()))
    assert [page.frame for page in pages] == [0, 1, 2]
    assert len({page.sha256 for page in pages}) == 1


@pytest.mark.parametrize(("size", "files"), [(1000, 6), (FETCH_BYTES // 2, 2), (FETCH_BYTES, 1)])
def test_reading_ahead_is_bounded(size: int, files: int) -> None:
    """By the number of files, and by their bytes where these are many."""
    source = _Memory({f"{n}.png": _numbered(n % 5) for n in range(60)})
    entries = [ImageEntry(name, size=size) for name in source.files]
    pages = read_pages(source, entries, fetch_ahead=6, decode_ahead=2)
    next(pages)
    time.sleep(0.3)
    # The page handed out, two decoded, one waiting to be handed over, and the files fetched.
    assert len(source.started) <= 1 + 2 + 1 + files
    pages.close()
    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "fetch"))]


_VOLUME = r"""
import io, re
from pathlib import Path
import numpy as np
from PIL import Image
from ocr_assets.volumes.archive import ImageEntry
from ocr_assets.volumes.images import PageImage, read_pages

page = np.ones((2500, 1700), bool)
page[::50] = False
file = io.BytesIO()
Image.fromarray(page).save(file, "TIFF", compression="group4")

class Source:
    def read(self, image):
        return bytes(file.getbuffer())

entries = [ImageEntry(f"{n}.tif") for n in range(600)]
count = sum(isinstance(page, PageImage) for page in read_pages(Source(), entries))
# Peak of this process alone: ru_maxrss would count what the parent held before the fork.
print(count, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))
"""


def test_large_volume_is_read_in_little_memory() -> None:
    """600 pages, 2.5 GB when decoded, stay far below the 1.5 GB of a worker."""
    answer = subprocess.run(
        [sys.executable, "-c", _VOLUME], capture_output=True, text=True, check=True
    )
    count, kilobytes = (int(part) for part in answer.stdout.split())
    assert count == 600
    assert kilobytes < 400_000
