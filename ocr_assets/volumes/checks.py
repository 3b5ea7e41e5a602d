"""Asset checks of the volumes wing: its conscience.

A check of a volume looks at the volume of its run. It says in its metadata what it found.
"""

import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from ocr_assets.partitions import JOB_TYPE, PARTITION, VOLUME
from ocr_assets.volume_library import TextRecord, VolumeLibrary
from ocr_assets.volumes.archive import VolumeId

LEAST_TIBETAN = 0.8
"""Share of Tibetan characters below which text is not plausible."""

LEAST_SURE = 0.8
"""Mean confidence below which it is not: a network of one script spells others in its own."""


def _records(
    context: dg.AssetCheckExecutionContext, volumes: VolumeLibrary
) -> list[tuple[str, TextRecord]]:
    """Job type and record of the volume that the run read, or of all if it read none."""
    tags = context.run.tags
    job_type, volume = tags.get(f"{PARTITION}/{JOB_TYPE}"), tags.get(f"{PARTITION}/{VOLUME}")
    if job_type is None or volume is None:
        return [(name, record) for name in volumes.job_types for record in volumes.records(name)]
    record = volumes.record(job_type, volume)
    return [(job_type, record)] if record else []


def _result(wrong: dict[str, Any], looked_at: int, what: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not wrong,
        description=f"{len(wrong)} of {looked_at} {what}" if wrong else None,
        metadata={"looked at": looked_at, "wrong": dg.MetadataValue.json(wrong)},
    )


@dg.asset_check(
    asset="volume_text",
    name="pages_conserved",
    description="Every image of the manifest is a page that was read, or one that failed.",
    blocking=True,
)
def pages_conserved(
    context: dg.AssetCheckExecutionContext, volumes: dg.ResourceParam[VolumeLibrary]
) -> dg.AssetCheckResult:
    """Fails if a page was lost between the manifest and the tables."""
    wrong: dict[str, Any] = {}
    records = _records(context, volumes)
    for job_type, record in records:
        images = {image.name for image in volumes.manifest(VolumeId.parse(record.volume)).images}
        with tempfile.TemporaryDirectory(prefix="ocr-check-") as folder:
            tables = volumes.open_text(record, Path(folder))
        ok = tables.pages["ok"].to_pylist()
        errors = volumes.read_file(record, "errors.jsonl").count(b"\n")
        told = (record.quality.pages, record.quality.failed_pages)
        found = set(tables.pages["image"].to_pylist())
        if told != (len(ok), ok.count(False)) or errors != ok.count(False) or found != images:
            wrong[f"{job_type}|{record.volume}"] = {
                "images": len(images),
                "images with pages": len(found & images),
                "pages": len(ok),
                "failed": ok.count(False),
                "errors": errors,
            }
    return _result(wrong, len(records), "volumes lost pages")


@dg.asset_check(
    asset="volume_text",
    name="documents_complete",
    description="Each page that was read has its text, PAGE XML, ALTO and hOCR.",
    blocking=True,
)
def documents_complete(
    context: dg.AssetCheckExecutionContext, volumes: dg.ResourceParam[VolumeLibrary]
) -> dg.AssetCheckResult:
    """Fails if a document of a page is missing."""
    from ocr_assets.volumes.documents import FORMATS

    wrong: dict[str, Any] = {}
    records = _records(context, volumes)
    for job_type, record in records:
        names = [file.name for file in volumes.text_files(record).files]
        expected = record.quality.pages - record.quality.failed_pages
        counts = {kind: sum(name.startswith(f"{kind}/") for name in names) for kind in FORMATS}
        if any(count != expected for count in counts.values()):
            wrong[f"{job_type}|{record.volume}"] = {"pages": expected, **counts}
    return _result(wrong, len(records), "volumes lack documents")


@dg.asset_check(
    asset="volume_text",
    name="text_plausible",
    description=(
        f"At least {LEAST_TIBETAN:.0%} of the characters of a Unicode text are Tibetan, and the "
        f"mean confidence of any text is at least {LEAST_SURE}."
    ),
)
def text_plausible(
    context: dg.AssetCheckExecutionContext, volumes: dg.ResourceParam[VolumeLibrary]
) -> dg.AssetCheckResult:
    """Fails on text that a Tibetan page does not have."""
    wrong: dict[str, Any] = {}
    records = _records(context, volumes)
    for job_type, record in records:
        sure = record.quality.mean_confidence
        share = None
        if volumes.job_type(job_type).encoding == "unicode":
            share = tibetan_share(volumes.read_file(record, "volume.txt").decode())
        if (share is not None and share < LEAST_TIBETAN) or (
            sure is not None and sure < LEAST_SURE
        ):
            wrong[f"{job_type}|{record.volume}"] = {"Tibetan": share, "confidence": sure}
    return _result(wrong, len(records), "volumes have text that is hardly Tibetan, or a guess")


def tibetan_share(text: str) -> float | None:
    """Share of the Tibetan block among the characters of a text, blanks aside; None for none."""
    characters = [character for character in text if not character.isspace()]
    if not characters:
        return None
    return sum("\u0f00" <= character <= "\u0fff" for character in characters) / len(characters)


def volume_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of this wing."""
    return [pages_conserved, documents_complete, text_plausible]
