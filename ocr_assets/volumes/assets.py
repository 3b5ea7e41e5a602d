"""The assets of the volumes wing: text of scanned Tibetan volumes.

Belongs here: what depends on what, and the metadata that people see. Does not belong here: science
(the other modules of this package) or where things are stored (the library and the resources).
"""

import base64
import time
from dataclasses import asdict
from typing import Any

import dagster as dg
import pyarrow as pa

from ocr_assets.lineage import code_version, content_hash, same_way
from ocr_assets.partitions import JOB_TYPE, VOLUME, VOLUMES, reading_partitions
from ocr_assets.volume_library import TextRecord, VolumeLibrary
from ocr_assets.volumes.archive import VolumeId
from ocr_assets.volumes.job_types import JobType
from resources.io_managers import KEY, Artefact
from resources.manifest import Manifest
from resources.progress import ProgressReporter
from resources.scratch import Scratch

COMMON: dict[str, Any] = {"group_name": "volumes", "owners": ["team:tibetan-ocr"]}
_SAMPLE_LINES = 8
_REMARKS = 20


class ReadConfig(dg.Config):
    """Options of reading a volume."""

    pages_again: bool = False
    """Try every failed page again, also those whose failure will hardly pass."""


@dg.asset(partitions_def=VOLUMES, kinds={"json"}, **COMMON)
def volume_manifest(
    context: dg.AssetExecutionContext, volumes: dg.ResourceParam[VolumeLibrary]
) -> dg.MaterializeResult[None]:
    """The images of a volume in reading order, its version, and an entity tag of each image."""
    started = time.perf_counter()
    volume = VolumeId.parse(context.partition_key)
    manifest = volumes.source(volume).manifest()
    lineage = volumes.store_manifest(manifest)
    return dg.MaterializeResult(
        metadata={
            "pages": len(manifest.images),
            "version": manifest.version,
            "missing images": sum(image.etag is None for image in manifest.images),
            "remarks": dg.MetadataValue.json(list(manifest.remarks[:_REMARKS])),
            "path": dg.MetadataValue.path(volumes.storage.uri(volumes.manifest_key(volume))),
            "lineage": lineage,
            "seconds": time.perf_counter() - started,
        },
        data_version=dg.DataVersion(manifest.etag),
    )


def _key(context: dg.AssetExecutionContext, volumes: VolumeLibrary) -> tuple[JobType, VolumeId]:
    key = context.partition_key
    if not isinstance(key, dg.MultiPartitionKey):
        raise TypeError(f"{key!r} is not a job type and a volume")
    dimensions = key.keys_by_dimension
    return volumes.job_type(dimensions[JOB_TYPE]), VolumeId.parse(dimensions[VOLUME])


def lines_asset(volumes: VolumeLibrary) -> dg.AssetsDefinition:
    """The lines of a volume, for the job types of a library."""

    @dg.asset(
        partitions_def=reading_partitions(volumes.job_types),
        deps=[volume_manifest],
        kinds={"opencv", "parquet"},
        **COMMON,
    )
    def volume_lines(
        context: dg.AssetExecutionContext,
        config: ReadConfig,
        volumes: dg.ResourceParam[VolumeLibrary],
        scratch: dg.ResourceParam[Scratch],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        """Where the lines of each page are, and their levelled images. Known pages are kept."""
        from ocr_assets.volumes.found_lines import FOUND_TABLES, FoundLinesWriter, FoundPage
        from ocr_assets.volumes.preview import page_preview
        from ocr_assets.volumes.reading import volume_lines as find_lines

        started = time.perf_counter()
        job_type, volume = _key(context, volumes)
        manifest = volumes.manifest(volume)
        prefix = volumes.lines_prefix(job_type, volume)
        lineage = volumes.lines_lineage(job_type, manifest)
        stored = volumes.stored_lines(prefix)
        previous = None
        if stored is not None and same_way(stored.metadata, lineage):
            previous = volumes.open_lines(stored, scratch.folder())
            failed = previous.failed
            wanted = [page for page in failed if page.retryable or config.pages_again]
            if stored.metadata == lineage and not wanted:
                return _lines_result(
                    volumes,
                    prefix,
                    stored,
                    len(previous),
                    len(failed),
                    {
                        "lines": previous.line_count,
                        "skipped": True,
                        "seconds": time.perf_counter() - started,
                    },
                )
        folder = scratch.folder()
        source = volumes.source(volume)
        pages = new = lines = failures = 0
        picture: bytes | None = None
        with (
            FoundLinesWriter(folder, lineage) as writer,
            progress.task(f"lines of {volume}", len(manifest.images)) as advance,
        ):
            finder = volumes.finder(job_type)
            found = find_lines(source, manifest, finder, previous, again=config.pages_again)
            for page in found:
                writer.write(page)
                pages += 1
                new += previous is None or page.etag is None or not previous.has(page.etag)
                if isinstance(page, FoundPage):
                    lines += len(page.found.lines)
                    if picture is None and page.found.lines:
                        pixels = _first_pixels(source, manifest, page)
                        boxes = [line.box for line in page.found.lines]
                        picture = page_preview(pixels, boxes) if pixels is not None else None
                else:
                    failures += 1
                advance(page.image)
        files = {name: folder / name for name in FOUND_TABLES}
        published = volumes.storage.publish(prefix, files, lineage)
        more: dict[str, Any] = {"lines": lines, "new pages": new, "skipped": False}
        if picture is not None:
            encoded = base64.b64encode(picture).decode()
            more["first page"] = dg.MetadataValue.md(f"![lines](data:image/png;base64,{encoded})")
        more["seconds"] = time.perf_counter() - started
        return _lines_result(volumes, prefix, published, pages, failures, more)

    return volume_lines


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
    pages: int,
    failed: int,
    more: dict[str, Any],
) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        metadata={
            "pages": pages,
            "failed pages": failed,
            **more,
            "bytes": sum(file.size for file in stored.files),
            "path": dg.MetadataValue.path(volumes.storage.uri(prefix)),
            "lineage": stored.metadata,
        },
        data_version=dg.DataVersion(content_hash([file.sha256 for file in stored.files])),
    )


def text_asset(volumes: VolumeLibrary) -> dg.AssetsDefinition:
    """The text of a volume, for the job types of a library."""
    from ocr_assets.volumes.tables import SCHEMAS

    @dg.asset(
        partitions_def=reading_partitions(volumes.job_types),
        deps=["volume_lines"],
        kinds={"openvino", "parquet"},
        metadata={
            "dagster/column_schema": _columns(SCHEMAS["lines.parquet"]),
        },
        **COMMON,
    )
    def volume_text(
        context: dg.AssetExecutionContext,
        volumes: dg.ResourceParam[VolumeLibrary],
        scratch: dg.ResourceParam[Scratch],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        """Text of a volume: tables, plain text, PAGE XML, ALTO and hOCR, published at once."""
        from ocr_assets.volumes.documents import SUCCESS, VolumeDocuments, write_bundle
        from ocr_assets.volumes.reading import volume_text as read_text
        from ocr_assets.volumes.tables import VolumeTables

        started = time.perf_counter()
        job_type, volume = _key(context, volumes)
        manifest = volumes.manifest(volume)
        stored = volumes.stored_lines(volumes.lines_prefix(job_type, volume))
        if stored is None:
            raise dg.Failure(f"the lines of {volume} are not found yet: materialize volume_lines")
        lineage = volumes.text_lineage(job_type, manifest, stored)
        record = volumes.record(job_type.name, volume)
        if (
            record is not None
            and record.lineage == lineage
            and volumes.storage.exists(f"{record.prefix}/{SUCCESS}")
        ):
            return _text_result(
                volumes, record, {"skipped": True, "seconds": time.perf_counter() - started}
            )
        previous: VolumeTables | None = None
        if record is not None and same_way(record.lineage, lineage):
            previous = volumes.open_text(record, scratch.folder())
        known = set(previous.pages["sha256"].to_pylist()) if previous else set()
        found = volumes.open_lines(stored, scratch.folder())
        about = VolumeDocuments(
            job_type.name,
            manifest,
            volumes.settings.volumes_uri,
            job_type.encoding,
            job_type.language,
            lineage,
        )
        new = 0
        with progress.task(f"text of {volume}", len(found)) as advance:

            def counted() -> Any:
                nonlocal new
                for page in read_text(found, volumes.reader(job_type), previous):
                    new += page.sha256 not in known
                    yield page
                    advance(page.image)

            bundle = write_bundle(scratch.folder() / "volume", counted(), about)
        record = TextRecord(str(volume), manifest.version, about.prefix, bundle.quality, lineage)
        volumes.publish_text(about.prefix, bundle.files, record, SUCCESS)
        if bundle.quality.status == "failed":
            first = bundle.files["errors.jsonl"].read_text("utf-8").partition("\n")[0]
            raise dg.Failure(
                f"none of the {bundle.quality.pages} pages of {volume} could be read; the first: "
                f"{first[:500]}",
                metadata=dict(_text_result(volumes, record, {}).metadata or {}),
                allow_retries=False,
            )
        text = bundle.files["volume.txt"].read_text("utf-8").replace("\f", "")
        sample = "\n".join(text.splitlines()[:_SAMPLE_LINES])
        return _text_result(
            volumes,
            record,
            {
                "skipped": False,
                "new pages": new,
                "text": dg.MetadataValue.md(f"```\n{sample}\n```"),
                "bytes": sum(path.stat().st_size for path in bundle.files.values()),
                "seconds": time.perf_counter() - started,
            },
        )

    return volume_text


def _text_result(
    volumes: VolumeLibrary, record: TextRecord, more: dict[str, Any]
) -> dg.MaterializeResult[None]:
    quality = {name: value for name, value in asdict(record.quality).items() if value is not None}
    return dg.MaterializeResult(
        metadata={
            **{name.replace("_", " "): value for name, value in quality.items()},
            **more,
            "version": record.version,
            "path": dg.MetadataValue.path(volumes.storage.uri(record.prefix)),
            "lineage": record.lineage,
        },
        data_version=dg.DataVersion(content_hash(record.lineage)),
    )


def _columns(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                (field.metadata or {}).get(b"description", b"").decode() or None,
                dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


@dg.asset(
    deps=["volume_text"],
    io_manager_key="files",
    kinds={"parquet"},
    metadata={KEY: "volume_quality.parquet"},
    **COMMON,
)
def volume_quality(
    volumes: dg.ResourceParam[VolumeLibrary], scratch: dg.ResourceParam[Scratch]
) -> Artefact:
    """Quality of every volume that was read: status, confidence, blank and looping pages."""
    import pyarrow.parquet as pq

    from ocr_assets.volumes.quality import quality_table

    started = time.perf_counter()
    records = {
        (job_type, record.volume, record.version): record
        for job_type in volumes.job_types
        for record in volumes.records(job_type)
    }
    table = quality_table({key: record.quality for key, record in records.items()})
    path = scratch.folder() / "quality.parquet"
    pq.write_table(table, path, compression="zstd")
    lineage = volumes.lineage(
        code_version("volumes/quality.py"),
        {"|".join(key): content_hash(record.lineage) for key, record in sorted(records.items())},
        {},
    )
    statuses = table["status"].to_pylist()
    metadata = {
        "rows": len(table),
        "dagster/row_count": len(table),
        **{status: statuses.count(status) for status in ("success", "partial", "failed")},
        "pages": sum(table["pages"].to_pylist()),
        "seconds": time.perf_counter() - started,
    }
    return Artefact.single(path, lineage, metadata)


def volume_wing(volumes: VolumeLibrary) -> list[dg.AssetsDefinition]:
    """Everything of this wing, for the job types of a library."""
    return [volume_manifest, lines_asset(volumes), text_asset(volumes), volume_quality]
