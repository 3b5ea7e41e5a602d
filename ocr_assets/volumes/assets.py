"""The assets of the volumes wing: text of scanned Tibetan volumes.

Belongs here: what depends on what, and the metadata that people see. Does not belong here: science
(the other modules of this package) or where things are stored (the library and the resources).
"""

import base64
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa

from ocr_assets.lineage import code_version, content_hash
from ocr_assets.needs import READING
from ocr_assets.partitions import JOB_TYPE, VOLUME, VOLUMES, reading_partitions
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volume_reader import ReadVolume, find_volume_lines, read_volume_text
from ocr_assets.volumes.archive import VolumeId
from resources.cluster import Cluster
from resources.io_managers import KEY, Artefact
from resources.progress import ProgressReporter
from resources.scratch import Scratch

COMMON: dict[str, Any] = {"group_name": "volumes", "owners": ["team:tibetan-ocr"]}
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


def _read(
    context: dg.AssetExecutionContext, cluster: Cluster, read: Callable[[str], ReadVolume]
) -> dg.MaterializeResult[None]:
    """Let a cluster read the volume of this run; what came of it, for the UI."""
    key = context.partition_key
    if not isinstance(key, dg.MultiPartitionKey):
        raise TypeError(f"{key!r} is not a job type and a volume")
    dimensions = key.keys_by_dimension
    plain = f"{dimensions[JOB_TYPE]}|{dimensions[VOLUME]}"
    name = f"{context.asset_key.to_user_string()}-{context.run.run_id}"
    ((_, made),) = cluster.map(read, [plain], stage=READING, name=name)
    if isinstance(made, Exception):
        raise made
    metadata = {**made.metadata, "path": dg.MetadataValue.path(made.place)}
    if made.picture is not None:
        encoded = base64.b64encode(made.picture).decode()
        metadata["first page"] = dg.MetadataValue.md(f"![lines](data:image/png;base64,{encoded})")
    if made.text is not None:
        metadata["text"] = dg.MetadataValue.md(f"```\n{made.text}\n```")
    if made.failure is not None:
        raise dg.Failure(made.failure, metadata=metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(made.fingerprint))


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
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        """Where the lines of each page are, and their levelled images. Known pages are kept."""
        find = partial(find_volume_lines, volumes, progress, config.pages_again)
        return _read(context, cluster, find)

    return volume_lines


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
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> dg.MaterializeResult[None]:
        """Text of a volume: tables, plain text, PAGE XML, ALTO and hOCR, published at once."""
        return _read(context, cluster, partial(read_volume_text, volumes, progress))

    return volume_text


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
    io_manager_key="volume_files",
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
