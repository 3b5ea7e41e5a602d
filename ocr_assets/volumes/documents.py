"""All files of a volume that was read: written page by page into a local folder.

Belongs here: which files a volume has, their names and order, text files, and the mark of success.
Does not belong here: the content of tables and page formats, and publishing the folder.

A volume's files, under ``{job_type}/{w_id}-{i_id}-{version}/``:

- ``pages.parquet``, ``lines.parquet``, ``syllables.parquet``: the tables.
- ``errors.jsonl``: one line for each page that failed; empty if none did.
- ``volume.txt``: the text of all pages. Each page ends with a form feed (U+000C), so that page n is
  the n-th part; blank and failed pages are empty parts.
- ``text/``, ``page/``, ``alto/``, ``hocr/``: one file for each page that was read.
- ``quality.json``: the quality of the volume.
- ``success.json``: last of all, if any page was read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ocr_assets.volumes.alto import alto
from ocr_assets.volumes.archive import VolumeManifest
from ocr_assets.volumes.hocr import hocr
from ocr_assets.volumes.markup import Writing
from ocr_assets.volumes.page_xml import page_xml
from ocr_assets.volumes.quality import QualityTally, VolumeQuality
from ocr_assets.volumes.results import FailedPage, PageResult, writable
from ocr_assets.volumes.tables import TABLES, TableWriter, error_line

if TYPE_CHECKING:
    from ocr_assets.volumes.wylie import Encoding

Format = Literal["text", "page", "alto", "hocr"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Kinds of files that are written for each page."""

ERRORS, TEXT, QUALITY, SUCCESS = "errors.jsonl", "volume.txt", "quality.json", "success.json"
PAGE_END = "\f"
"""What ends each page in :data:`TEXT`."""

_SUFFIXES: dict[Format, str] = {
    "text": ".txt",
    "page": ".xml",
    "alto": ".xml",
    "hocr": ".hocr.html",
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class PageOrderError(ValueError):
    """Pages that are not those of the manifest in its order."""


@dataclass(frozen=True)
class VolumeDocuments:
    """What the files of a volume say of themselves.

    Attributes:
        job_type: name of the job type.
        manifest: of the volume.
        source: where its images came from, for people: a URI or path.
        encoding: of the text.
        language: BCP 47 tag of the language, without its script: ``bo`` for Tibetan.
        lineage: how the files came to be; nothing in it may depend on the clock.
    """

    job_type: str
    manifest: VolumeManifest
    source: str
    encoding: Encoding
    language: str
    lineage: Mapping[str, Any]

    @property
    def prefix(self) -> str:
        """Where the files belong: ``{job_type}/{w_id}-{i_id}-{version}``."""
        return f"{self.job_type}/{self.manifest.key}"


@dataclass(frozen=True)
class Bundle:
    """Files that were written, by logical name, the mark of success last, and their quality.

    ``remarks`` tell what the manifest says wrongly.
    """

    files: dict[str, Path]
    quality: VolumeQuality
    remarks: tuple[str, ...]


def write_bundle(
    folder: Path,
    pages: Iterable[PageResult | FailedPage],
    about: VolumeDocuments,
    formats: Collection[Format] = FORMATS,
) -> Bundle:
    """Write all files of a volume; at most a row group of pages is held in memory.

    Args:
        folder: where to write; it is made.
        pages: in the order of the manifest. Images of it without any page become failed pages.
        about: what the files say of themselves.
        formats: which files to write for each page.

    Raises:
        PageOrderError: a page is not of the manifest, or out of order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writing = Writing.of(about.encoding, about.language, about.lineage)
    makers = {name: maker for name, maker in _makers(writing).items() if name in formats}
    for kind in makers:
        (folder / kind).mkdir(exist_ok=True)
    files = {name: folder / name for name in (*TABLES, ERRORS, TEXT)}
    tally = QualityTally()
    remarks = list(about.manifest.remarks)
    entries = {writable(image.name): image for image in about.manifest.images}
    with ExitStack() as stack:
        tables = stack.enter_context(TableWriter(folder, _metadata(about)))
        errors = stack.enter_context(files[ERRORS].open("w", encoding="utf-8", newline="\n"))
        text = stack.enter_context(files[TEXT].open("w", encoding="utf-8", newline="\n"))
        for number, page in enumerate(complete(pages, about.manifest), 1):
            tables.write(page)
            tally.add(page)
            if isinstance(page, FailedPage):
                errors.write(error_line(page, about.source))
                text.write(PAGE_END)
                continue
            text.write(_text_file(page) + PAGE_END)
            wrong = entries[page.image].disagreement(page.width, page.height)
            if wrong is not None and page.frame == 0:
                remarks.append(f"{page.image}: {wrong}")
            for kind, make in makers.items():
                name = f"{kind}/{page_file_name(page.image, page.frame)}{_SUFFIXES[kind]}"
                files[name] = folder / name
                files[name].write_bytes(make(page, number))
    quality = tally.quality()
    files[QUALITY] = _write_json(folder / QUALITY, asdict(quality))
    if quality.status != "failed":
        files[SUCCESS] = _write_json(folder / SUCCESS, _success(about, quality, remarks))
    return Bundle(files, quality, tuple(remarks))


def complete(
    pages: Iterable[PageResult | FailedPage], manifest: VolumeManifest
) -> Iterator[PageResult | FailedPage]:
    """The pages, with a failed page in the place of each image that has none.

    Raises:
        PageOrderError: a page is not of the manifest, or out of order.
    """
    images = iter(manifest.images)
    image = next(images, None)
    frame = -1
    for page in pages:
        while image is not None and page.image != writable(image.name):
            if frame < 0:
                yield _missing(image.name, image.etag)
            image, frame = next(images, None), -1
        if image is None or page.frame <= frame:
            raise PageOrderError(
                f"{page.image}, frame {page.frame}, is not a page of {manifest.key}, came twice or "
                "out of order; give the pages in the order of the manifest"
            )
        frame = page.frame
        yield page
    while image is not None:
        if frame < 0:
            yield _missing(image.name, image.etag)
        image, frame = next(images, None), -1


def _missing(image: str, etag: str | None) -> FailedPage:
    reason = "the manifest names this image, but no page of it was delivered"
    return FailedPage(image, 0, etag, None, "missing", "MissingPage", reason, True)


def page_file_name(image: str, frame: int) -> str:
    """Name without suffix of the files of a page: the image's name, and the page in it from 2 on.

    A name with unusual characters, such as the path in a zip file, gets plain ones and a hash, so
    that two names are never the same.
    """
    name = image
    if not _PLAIN_NAME.fullmatch(image):
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{re.sub('[^A-Za-z0-9._-]', '_', image)[-80:].lstrip('.-')}-{digest}"
    return f"{name}-{frame + 1}" if frame else name


def _makers(writing: Writing) -> dict[Format, Callable[[PageResult, int], bytes]]:
    return {
        "text": lambda page, _: _text_file(page).encode(),
        "page": lambda page, _: page_xml(page, writing),
        "alto": lambda page, number: alto(page, writing, number),
        "hocr": lambda page, number: hocr(page, writing, number),
    }


def _text_file(page: PageResult) -> str:
    return f"{page.text}\n" if page.text else ""


def _metadata(about: VolumeDocuments) -> dict[str, Any]:
    return {
        "job_type": about.job_type,
        "volume": str(about.manifest.volume),
        "version": about.manifest.version,
        "manifest_etag": about.manifest.etag,
        "source": about.source,
        "encoding": about.encoding,
        "language": about.language,
        "lineage": dict(about.lineage),
    }


def _success(
    about: VolumeDocuments, quality: VolumeQuality, remarks: Sequence[str]
) -> dict[str, Any]:
    counts = {"status": quality.status, "pages": quality.pages, "nb_errors": quality.failed_pages}
    return _metadata(about) | counts | {"remarks": [writable(remark) for remark in remarks]}


def _write_json(path: Path, document: Mapping[str, Any]) -> Path:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(f"{text}\n", "utf-8", newline="\n")
    return path
