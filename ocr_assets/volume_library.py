"""The volumes of a deployment: where scans come from, which models read them, where text goes.

Belongs here: sources, models and stored artefacts of the volumes wing, put together. Does not
belong here: how pages are read (``ocr_assets.volumes``) and what depends on what (its assets).

Artefacts, under the root of volumes:

- ``volume_manifest/{volume}.json``: the images of a volume.
- ``volume_lines/{finder}/{volume}/``: its lines, shared by job types that find them alike.
- ``{job_type}/{volume}-{version}/``: its text and documents; ``success.json`` is written last.
- ``{job_type}/volumes/{volume}.json``: which version holds, its quality and how it came to be.

Volumes belong to an environment, and to no version of its regions: publishing a version neither
copies nor freezes them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_assets.lineage import code_version, content_hash, lineage, same_origin
from ocr_assets.volumes.archive import (
    MANIFEST_NAME,
    ArchiveVolume,
    ImageEntry,
    ManifestError,
    VolumeId,
    VolumeManifest,
    VolumeSource,
    image_folder,
)
from ocr_assets.volumes.job_types import JobType, find_job_type, load_job_types
from ocr_assets.volumes.quality import VolumeQuality
from resources.cluster import SharedOnWorkers
from resources.keys import MissingObjectError
from resources.manifest import Manifest
from resources.model_store import ModelStore
from resources.settings import Settings
from resources.storage import Storage

if TYPE_CHECKING:
    from ocr_assets.volumes.found_lines import FoundLines
    from ocr_assets.volumes.models import LineModel, SegmentationModel
    from ocr_assets.volumes.reading import LineFinder, Reader
    from ocr_assets.volumes.tables import VolumeTables
    from resources.inference import Inference

_FINDING = (
    "archive",
    "baselines",
    "binarise",
    "blocks",
    "bow",
    "components",
    "found_lines",
    "images",
    "line_images",
    "line_kinds",
    "line_mask",
    "models",
    "page_lines",
    "profiles",
    "reading",
    "rules",
    "skew",
)
_READING = (
    "alto",
    "charset",
    "ctc",
    "documents",
    "hocr",
    "job_types",
    "lstm_graph",
    "markup",
    "normalise",
    "page_xml",
    "quality",
    "recognise",
    "results",
    "tables",
    "traineddata",
    "wylie",
)
FINDING_MODULES = tuple(f"volumes/{name}.py" for name in _FINDING)
"""Source files that decide which lines are found."""

READING_MODULES = FINDING_MODULES + tuple(f"volumes/{name}.py" for name in _READING)
"""Source files that decide what the artefacts of a read volume contain."""


@dataclass(frozen=True)
class TextRecord:
    """Which version of a volume's text holds, and how it came to be."""

    volume: str
    version: str
    prefix: str
    quality: VolumeQuality
    lineage: dict[str, Any]

    @classmethod
    def from_bytes(cls, data: bytes) -> TextRecord:
        """Read :meth:`to_bytes` back."""
        document = json.loads(data)
        return cls(**document | {"quality": VolumeQuality(**document["quality"])})

    def to_bytes(self) -> bytes:
        """The stored form."""
        return _json(asdict(self))


@dataclass(frozen=True)
class VolumeLibrary(SharedOnWorkers):
    """Settings made concrete for volumes. Nothing is opened before it is used."""

    settings: Settings

    @cached_property
    def storage(self) -> Storage:
        """Root of what this environment read of volumes."""
        return Storage(self.settings.volumes_uri, self.settings.s3)

    @cached_property
    def job_types(self) -> dict[str, JobType]:
        """The job types by name, in order."""
        return load_job_types(self.settings.job_types)

    @cached_property
    def models(self) -> ModelStore:
        """The models on this machine."""
        return ModelStore(self.settings.models_root)

    @cached_property
    def inference(self) -> Inference:
        """The runtime of the networks."""
        import os

        from resources.inference import Inference

        # Each stream holds more than a hundred megabytes, whatever the number of pages.
        return Inference(self.settings.models_root / "cache", streams=min(2, os.cpu_count() or 1))

    @cached_property
    def _loaded(self) -> dict[tuple[str, ...], Any]:
        """Models that were loaded, so that a process loads each once."""
        return {}

    def job_type(self, name: str) -> JobType:
        """A job type; raises JobTypeError if there is none of this name."""
        return find_job_type(self.job_types, name)

    # Sources

    def source(self, volume: VolumeId) -> VolumeSource:
        """Where the images of a volume are.

        Raises:
            ManifestError: there is nothing of this name in the folder of sources.
        """
        root = Storage(self.settings.scans_uri, self.settings.volumes_s3)
        if root.is_local and Path(root.root, "Works").is_dir():
            return ArchiveVolume(root, volume)
        from ocr_assets.volumes.local_volumes import StoredFolder, open_local

        if not root.is_local:
            in_archive = root.exists(f"{image_folder(volume)}/{MANIFEST_NAME}")
            plain = not in_archive and bool(root.list(str(volume)))
            return StoredFolder(root, volume) if plain else ArchiveVolume(root, volume)
        found = [
            path
            for suffix in ("", ".zip", ".pdf")
            if (path := Path(root.root, f"{volume}{suffix}")).exists()
        ]
        if len(found) == 1:
            return open_local(found[0], volume)
        if found:
            raise ManifestError(
                f"volume {volume} is there more than once: {', '.join(map(str, found))}; keep one"
            )
        raise ManifestError(
            f"volume {volume} is not in {root.root}: put its images there as the folder {volume}, "
            f"as {volume}.zip or {volume}.pdf, or set OCR_VOLUMES_SOURCE"
        )

    # Manifests

    def manifest_key(self, volume: VolumeId | str) -> str:
        """Key of the stored list of a volume's images."""
        return f"volume_manifest/{volume}.json"

    def store_manifest(self, manifest: VolumeManifest) -> dict[str, Any]:
        """Keep the list of a volume's images; returns its lineage."""
        record = self.lineage(
            code_version("volumes/archive.py", "volumes/local_volumes.py"),
            {"source": manifest.etag},
            {"source": self.settings.scans_uri},
        )
        document = {
            "volume": str(manifest.volume),
            "version": manifest.version,
            "etag": manifest.etag,
            "images": [asdict(image) for image in manifest.images],
            "remarks": list(manifest.remarks),
            "lineage": record,
        }
        key = self.manifest_key(manifest.volume)
        if stored := self._read(key):
            known = json.loads(stored)
            if same_origin(known["lineage"], record) and known | {"lineage": record} == document:
                return dict(known["lineage"])
        self.storage.write_bytes(key, _json(document))
        return record

    def manifest(self, volume: VolumeId) -> VolumeManifest:
        """The stored list of a volume's images.

        Raises:
            MissingObjectError: there is none yet.
        """
        data = self._read(self.manifest_key(volume))
        if data is None:
            raise MissingObjectError(
                f"the images of {volume} are not listed yet: materialize volume_manifest first"
            )
        document = json.loads(data)
        return VolumeManifest(
            volume,
            document["version"],
            document["etag"],
            tuple(ImageEntry(**image) for image in document["images"]),
            tuple(document["remarks"]),
        )

    def page_count(self, volume: VolumeId | str) -> int | None:
        """Images of a volume, if they are listed."""
        data = self._read(self.manifest_key(volume))
        return None if data is None else len(json.loads(data)["images"])

    # Models

    def line_model(self, job_type: JobType) -> LineModel:
        """Description of the model that reads lines; MissingModelError tells how to get it."""
        from ocr_assets.volumes.models import read_line_model

        key = ("model", job_type.model)
        if key not in self._loaded:
            path = self.models.find(job_type.model)
            self._loaded[key] = read_line_model(path, job_type.model)
        model: LineModel = self._loaded[key]
        return model

    def segmentation_model(self, job_type: JobType) -> SegmentationModel | None:
        """Description of the model that marks lines, if the job type has one."""
        from ocr_assets.volumes.models import ModelError, read_segmentation_model

        if job_type.line_model is None:
            return None
        model = read_segmentation_model(self.models.find(job_type.line_model), job_type.line_model)
        if model.line_mode != job_type.line_mode:
            raise ModelError(
                f"job type {job_type.name!r} has line_mode {job_type.line_mode!r}, but the model "
                f"{model.name!r} is for {model.line_mode!r}; correct the job type"
            )
        return model

    def finder(self, job_type: JobType) -> LineFinder:
        """What finds the lines of a page for a job type."""
        from ocr_assets.volumes.line_mask import line_mask
        from ocr_assets.volumes.reading import LineFinder

        height = self._line_height(job_type)
        model = self.segmentation_model(job_type)
        if model is None:
            return LineFinder(height)
        network = self.inference.mask_network(model)
        return LineFinder(height, partial(line_mask, model=model, network=network))

    def reader(self, job_type: JobType) -> Reader:
        """What reads line images for a job type."""
        from ocr_assets.volumes.recognise import recognise_lines

        model = self.line_model(job_type)
        key = ("network", job_type.model)
        if key not in self._loaded:
            self._loaded[key] = self.inference.line_network(model)
        return partial(
            recognise_lines,
            model=model,
            network=self._loaded[key],
            encoding=job_type.encoding,
            decoder=job_type.decoder,
        )

    # Lines

    def lines_prefix(self, job_type: JobType, volume: VolumeId) -> str:
        """Place of a volume's lines, the same for job types that find lines alike."""
        name = f"{job_type.line_model or 'ink'}-{self._line_height(job_type)}"
        return f"volume_lines/{name}/{volume}"

    def _line_height(self, job_type: JobType) -> int:
        from ocr_assets.volumes.page_lines import LINE_HEIGHT

        return max(LINE_HEIGHT, self.line_model(job_type).preparation.height)

    def lines_lineage(self, job_type: JobType, manifest: VolumeManifest) -> dict[str, Any]:
        """Lineage of the lines of a volume, found now."""
        model = self.segmentation_model(job_type)
        return self.lineage(
            code_version(*FINDING_MODULES),
            {"volume_manifest": images_hash(manifest)},
            {
                "line_height": self._line_height(job_type),
                "line_model": model.sha256 if model else None,
            },
        )

    def stored_lines(self, prefix: str) -> Manifest | None:
        """What is stored of a volume's lines."""
        return self.storage.manifest(prefix)

    def open_lines(self, stored: Manifest, folder: Path) -> FoundLines:
        """Stored lines; ``folder`` keeps local copies of their files."""
        from ocr_assets.volumes.found_lines import FOUND_TABLES, FoundLines

        return FoundLines(self.checkout(stored, FOUND_TABLES, folder))

    # Text

    def text_lineage(
        self, job_type: JobType, manifest: VolumeManifest, lines: Manifest
    ) -> dict[str, Any]:
        """Lineage of the text of a volume, read now from stored lines."""
        model = self.line_model(job_type)
        return self.lineage(
            code_version(*READING_MODULES),
            {
                "volume_manifest": images_hash(manifest),
                "volume_lines": content_hash([file.sha256 for file in lines.files]),
                "model": model.sha256,
            },
            {
                "job_type": job_type.name,
                "model": model.name,
                "architecture": model.architecture,
                "model_sha256": model.sha256,
                "encoding": job_type.encoding,
                "decoder": job_type.decoder,
                "language": job_type.language,
                "line_height": lines.metadata["configuration"]["line_height"],
                "line_model": lines.metadata["configuration"]["line_model"],
            },
        )

    def record_key(self, job_type: str, volume: VolumeId | str) -> str:
        """Key of the record of a volume that a job type read."""
        return f"{job_type}/volumes/{volume}.json"

    def record(self, job_type: str, volume: VolumeId | str) -> TextRecord | None:
        """The record of a volume that a job type read, or None if it did not."""
        data = self._read(self.record_key(job_type, volume))
        return None if data is None else TextRecord.from_bytes(data)

    def records(self, job_type: str) -> list[TextRecord]:
        """The records of all volumes that a job type read, in order of volume."""
        listed = self.storage.list(f"{job_type}/volumes")
        return [TextRecord.from_bytes(self.storage.read_bytes(info.key)) for info in listed]

    def publish_text(
        self, prefix: str, files: Mapping[str, Path], record: TextRecord, success: str
    ) -> Manifest:
        """Make ``files`` the text of a volume; the mark of success and the record come last."""
        published = {name: path for name, path in files.items() if name != success}
        manifest = self.storage.publish(prefix, published, record.lineage)
        if success in files:
            self.storage.put_file(f"{prefix}/{success}", files[success])
        key = self.record_key(prefix.partition("/")[0], record.volume)
        self.storage.write_bytes(key, record.to_bytes())
        return manifest

    def text_files(self, record: TextRecord) -> Manifest:
        """The files of a volume that was read."""
        manifest = self.storage.manifest(record.prefix)
        if manifest is None:
            raise MissingObjectError(
                f"nothing is stored at {self.storage.uri(record.prefix)}: read the volume again"
            )
        return manifest

    def open_text(self, record: TextRecord, folder: Path) -> VolumeTables:
        """The tables of a volume that was read; ``folder`` keeps local copies of their files."""
        from ocr_assets.volumes.tables import TABLES, VolumeTables

        return VolumeTables(self.checkout(self.text_files(record), TABLES, folder))

    def read_file(self, record: TextRecord, name: str) -> bytes:
        """Content of one of a volume's files, by its logical name."""
        for file in self.text_files(record).files:
            if file.name == name:
                return self.storage.read_bytes(file.key)
        raise MissingObjectError(f"{self.storage.uri(record.prefix)} has no {name}")

    def checkout(self, manifest: Manifest, names: Iterable[str], folder: Path) -> Path:
        """Copies of published files in ``folder``, under their logical names."""
        keys = {file.name: file.key for file in manifest.files}
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.storage.local_copy(keys[name]) as path:
                shutil.copyfile(path, target)
        return folder

    def lineage(
        self, code: str, inputs: Mapping[str, str], configuration: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Lineage record of an artefact made now."""
        return lineage(
            environment=self.settings.environment,
            version=self.settings.version_label,
            code=code,
            inputs=inputs,
            configuration=configuration,
        )

    def _read(self, key: str) -> bytes | None:
        try:
            return self.storage.read_bytes(key)
        except MissingObjectError:
            return None


def images_hash(manifest: VolumeManifest) -> str:
    """Hash of names and entity tags of a volume's images, in order."""
    return content_hash([[image.name, image.etag] for image in manifest.images])


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
