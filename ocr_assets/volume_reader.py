"""Volumes as pieces of work, for the run's own process or a worker: their lines, then their text.

Belongs here: what is done anew and what is kept, publishing, and what people want to know about it.
Does not belong here: how pages are read (``ocr_assets.volumes``), where things are stored
(:class:`~ocr_assets.volume_library.VolumeLibrary`), or Dagster.

A piece is known by its partition key, ``job_type|volume``. Each publishes its artefact at once, as
the last thing that it does.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ocr_assets.lineage import content_hash, same_origin, same_way
from ocr_assets.volume_library import TextRecord, VolumeLibrary
from ocr_assets.volumes.archive import VolumeId
from ocr_assets.volumes.job_types import JobType
from resources.manifest import Manifest
from resources.progress import ProgressReporter

LASTING = "lasting"
"""Metadata of a failure that another attempt would meet again."""

_SAMPLE_LINES = 8
_REMARKS = 20


class UnreadableVolumeError(ValueError):
    """A volume that cannot be read at all, or not yet; the message names the mend."""


@dataclass(frozen=True)
class ReadVolume:
    """What became of a volume: plain values that people want to see, and a hash of the content."""

    metadata: dict[str, Any]
    fingerprint: str
    place: str
    """Where it is stored."""
    picture: bytes | None = None
    """A page with its lines, as PNG."""
    text: str | None = None
    """The first lines of the text."""
    failure: str | None = None
    """Why nothing of it could be read."""


@dataclass
class _Counts:
    """Pages as they pass."""

    pages: int = 0
    new: int = 0
    lines: int = 0
    failed: int = 0
    picture: bytes | None = field(default=None, repr=False)


def find_volume_lines(
    volumes: VolumeLibrary, progress: ProgressReporter, pages_again: bool, key: str
) -> ReadVolume:
    """Find the lines of a volume; known pages are kept, and nothing is done if all are known.

    Args:
        volumes: sources, models and stored artefacts.
        progress: is told of each page.
        pages_again: try every failed page again, also those whose failure will hardly pass.
        key: partition key.
    """
    started = time.perf_counter()
    job_type, volume = _parse(volumes, key)
    manifest = volumes.manifest(volume)
    prefix = volumes.lines_prefix(job_type, volume)
    lineage = volumes.lines_lineage(job_type, manifest)
    stored = volumes.stored_lines(prefix)
    previous = None
    with tempfile.TemporaryDirectory(prefix="ocr-lines-") as scratch:
        if stored is not None and same_way(stored.metadata, lineage):
            previous = volumes.open_lines(stored, Path(scratch, "known"))
            wanted = [page for page in previous.failed if page.retryable or pages_again]
            if same_origin(stored.metadata, lineage) and not wanted:
                counts = _Counts(len(previous), 0, previous.line_count, len(previous.failed))
                return _lines_result(volumes, prefix, stored, counts, started, skipped=True)
        folder = Path(scratch, "found")
        folder.mkdir()
        counts = _Counts()
        with progress.task(f"lines of {volume}", len(manifest.images)) as advance:
            for image in _write_lines(
                volumes, job_type, manifest, previous, folder, lineage, counts, pages_again
            ):
                advance(image)
        from ocr_assets.volumes.found_lines import FOUND_TABLES

        files = {name: folder / name for name in FOUND_TABLES}
        published = volumes.storage.publish(prefix, files, lineage)
    return _lines_result(volumes, prefix, published, counts, started, skipped=False)


def _write_lines(
    volumes: VolumeLibrary,
    job_type: JobType,
    manifest: Any,
    previous: Any,
    folder: Path,
    lineage: dict[str, Any],
    counts: _Counts,
    pages_again: bool,
) -> Iterator[str]:
    """Write what is found on each page to ``folder``; yields the name of each image."""
    from ocr_assets.volumes.found_lines import FoundLinesWriter, FoundPage
    from ocr_assets.volumes.preview import page_preview
    from ocr_assets.volumes.reading import volume_lines

    source = volumes.source(manifest.volume)
    finder = volumes.finder(job_type)
    with FoundLinesWriter(folder, lineage) as writer:
        for page in volume_lines(source, manifest, finder, previous, again=pages_again):
            writer.write(page)
            counts.pages += 1
            counts.new += previous is None or page.etag is None or not previous.has(page.etag)
            if isinstance(page, FoundPage):
                counts.lines += len(page.found.lines)
                if counts.picture is None and page.found.lines:
                    pixels = _first_pixels(source, manifest, page)
                    boxes = [line.box for line in page.found.lines]
                    counts.picture = page_preview(pixels, boxes) if pixels is not None else None
            else:
                counts.failed += 1
            yield page.image


def _first_pixels(source: Any, manifest: Any, page: Any) -> Any:
    """Pixels of a page, read once more for its picture."""
    from ocr_assets.volumes.images import ImageError, decode

    entry = next((image for image in manifest.images if image.name == page.image), None)
    try:
        frames = decode(source.read(entry), page.image) if entry else iter(())
        return next((pixels for i, pixels in enumerate(frames) if i == page.frame), None)
    except (ImageError, RuntimeError, OSError):
        return None


def _lines_result(
    volumes: VolumeLibrary,
    prefix: str,
    stored: Manifest,
    counts: _Counts,
    started: float,
    *,
    skipped: bool,
) -> ReadVolume:
    metadata: dict[str, Any] = {
        "pages": counts.pages,
        "failed pages": counts.failed,
        "lines": counts.lines,
        **({} if skipped else {"new pages": counts.new}),
        "skipped": skipped,
        "seconds": time.perf_counter() - started,
        "bytes": sum(file.size for file in stored.files),
        "lineage": stored.metadata,
    }
    fingerprint = content_hash([file.sha256 for file in stored.files])
    place = volumes.storage.uri(prefix)
    return ReadVolume(metadata, fingerprint, place, picture=counts.picture)


def read_volume_text(volumes: VolumeLibrary, progress: ProgressReporter, key: str) -> ReadVolume:
    """Read the text of a volume whose lines are found; nothing is done if it is read already.

    Args:
        volumes: sources, models and stored artefacts.
        progress: is told of each page.
        key: partition key.

    Raises:
        UnreadableVolumeError: its lines are not found yet.
    """
    from ocr_assets.volumes.documents import SUCCESS, VolumeDocuments, write_bundle
    from ocr_assets.volumes.reading import volume_text

    started = time.perf_counter()
    job_type, volume = _parse(volumes, key)
    manifest = volumes.manifest(volume)
    stored = volumes.stored_lines(volumes.lines_prefix(job_type, volume))
    if stored is None:
        raise UnreadableVolumeError(
            f"the lines of {volume} are not found yet: materialize volume_lines"
        )
    lineage = volumes.text_lineage(job_type, manifest, stored)
    record = volumes.record(job_type.name, volume)
    done = record is not None and same_origin(record.lineage, lineage)
    if record is not None and done and volumes.storage.exists(f"{record.prefix}/{SUCCESS}"):
        return _text_result(volumes, record, started, {"skipped": True})
    about = VolumeDocuments(
        job_type.name,
        manifest,
        volumes.settings.scans_uri,
        job_type.encoding,
        job_type.language,
        lineage,
    )
    with tempfile.TemporaryDirectory(prefix="ocr-text-") as scratch:
        previous = None
        if record is not None and same_way(record.lineage, lineage):
            previous = volumes.open_text(record, Path(scratch, "known"))
        known = set(previous.pages["sha256"].to_pylist()) if previous else set()
        found = volumes.open_lines(stored, Path(scratch, "lines"))
        new = 0
        with progress.task(f"text of {volume}", len(found)) as advance:

            def counted() -> Iterator[Any]:
                nonlocal new
                for page in volume_text(found, volumes.reader(job_type), previous):
                    new += page.sha256 not in known
                    yield page
                    advance(page.image)

            bundle = write_bundle(Path(scratch, "volume"), counted(), about)
        record = TextRecord(str(volume), manifest.version, about.prefix, bundle.quality, lineage)
        volumes.publish_text(about.prefix, bundle.files, record, SUCCESS)
        if bundle.quality.status == "failed":
            errors = bundle.files["errors.jsonl"].read_text("utf-8").splitlines()
            reason = (
                f"none of the {bundle.quality.pages} pages of {volume} could be read; the first: "
                f"{errors[0][:500]}"
            )
            lasting = not any(json.loads(error)["retryable"] for error in errors)
            return _text_result(volumes, record, started, {LASTING: lasting}, failure=reason)
        text = bundle.files["volume.txt"].read_text("utf-8").replace("\f", "")
        more = {
            "skipped": False,
            "new pages": new,
            "remarks": list(bundle.remarks[:_REMARKS]),
            "bytes": sum(path.stat().st_size for path in bundle.files.values()),
        }
    sample = "\n".join(text.splitlines()[:_SAMPLE_LINES])
    return _text_result(volumes, record, started, more, text=sample)


def _text_result(
    volumes: VolumeLibrary,
    record: TextRecord,
    started: float,
    more: dict[str, Any],
    *,
    text: str | None = None,
    failure: str | None = None,
) -> ReadVolume:
    quality = {name: value for name, value in asdict(record.quality).items() if value is not None}
    metadata = {
        **{name.replace("_", " "): value for name, value in quality.items()},
        **more,
        "seconds": time.perf_counter() - started,
        "version": record.version,
        "lineage": record.lineage,
    }
    fingerprint = content_hash(record.lineage)
    place = volumes.storage.uri(record.prefix)
    return ReadVolume(metadata, fingerprint, place, text=text, failure=failure)


def _parse(volumes: VolumeLibrary, key: str) -> tuple[JobType, VolumeId]:
    job_type, _, volume = key.partition("|")
    return volumes.job_type(job_type), VolumeId.parse(volume)
