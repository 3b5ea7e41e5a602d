"""A storage root with volumes to read: sample pages of known text, and pages that are wrong."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.launch import user_error
from ocr_assets.partitions import PARTITION, VOLUMES, reading_tags
from ocr_assets.sample.volume import SampleVolumeError, build_sample_volume
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.archive import MANIFEST_NAME, VolumeId, image_folder
from resources.model_store import MissingModelError, ModelStore
from resources.settings import Settings

TYPE = "printed-unicode"


@dataclass
class VolumeWorld:
    """An empty deployment in ``folder``, and an instance that records its runs."""

    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def settings(self) -> Settings:
        """Settings of the deployment."""
        places = {
            "storage_root": str(self.folder / "root"),
            "models_root": self.folder / "models",
        }
        return Settings(**{**places, **self.variables})

    @property
    def library(self) -> VolumeLibrary:
        """The library, made anew."""
        return VolumeLibrary(self.settings)

    @property
    def sources(self) -> Path:
        """Folder of volumes."""
        folder = self.folder / "root" / "input" / "volumes"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def volume(self, name: str, pages: Path, *chosen: str) -> Path:
        """A volume with some of the images in ``pages``, all if none is named."""
        target = self.sources / name
        target.mkdir()
        for path in sorted(pages.glob("*.tif")):
            if not chosen or path.stem in chosen:
                shutil.copy(path, target)
        return target

    def read(self, volume: str, job_type: str = TYPE, *, pages_again: bool = False) -> Reading:
        """List the images of a volume, then read it."""
        self.instance.add_dynamic_partitions(str(VOLUMES.name), [volume])
        listing = self._run(["volume_manifest"], {PARTITION: volume}, {})
        if not listing.success:
            return Reading(self, [listing])
        config = {"ops": {"volume_lines": {"config": {"pages_again": pages_again}}}}
        tags = reading_tags(job_type, volume)
        return Reading(self, [listing, self._run(["volume_lines", "volume_text"], tags, config)])

    def quality(self) -> list[dict[str, Any]]:
        """The rows of the table of quality, made now."""
        made = self._run(["volume_quality"], {}, {})
        assert made.success
        with self.library.storage.local_copy("volume_quality.parquet") as path:
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows

    def _run(
        self, assets: list[str], tags: Mapping[str, str], config: Mapping[str, Any]
    ) -> dg.ExecuteInProcessResult:
        job = build_defs(Deployment(self.settings)).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            tags=dict(tags),
            run_config={
                **config,
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )


@dataclass(frozen=True)
class Reading:
    """What came of the runs that read a volume."""

    world: VolumeWorld
    runs: list[dg.ExecuteInProcessResult]

    @property
    def success(self) -> bool:
        """Whether all runs succeeded."""
        return all(run.success for run in self.runs)

    @property
    def error(self) -> str:
        """The reason of the failure."""
        for event in self.runs[-1].all_events:
            if event.is_step_failure:
                error = user_error(event.step_failure_data.error)
                return error.message if error else ""
        return ""

    def metadata(self, asset: str) -> dict[str, Any]:
        """Metadata of the asset's materialization."""
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        for run in self.runs:
            for entry in self.world.instance.all_logs(run.run_id, of_type=kind):
                made = entry.asset_materialization
                if made is not None and made.asset_key.to_user_string() == asset:
                    return {name: value.value for name, value in made.metadata.items()}
        raise LookupError(asset)

    @property
    def checks(self) -> dict[str, bool]:
        """Whether each asset check passed."""
        evaluations = self.runs[-1].get_asset_check_evaluations()
        return {check.check_name: check.passed for check in evaluations}


def sample_pages(folder: Path) -> None:
    """Make the sample volume; the test is skipped where it cannot be set or read."""
    try:
        ModelStore(folder / "none").find("bod")
        build_sample_volume(folder)
    except (SampleVolumeError, MissingModelError) as error:
        pytest.skip(str(error))


def transcript(pages: Path, *names: str) -> str:
    """The known text of sample pages."""
    return "".join((pages / f"{name}.txt").read_text("utf-8") for name in names)


def put_into_archive(
    archive: Path, volume: str, pages: Path, entries: list[dict[str, Any]]
) -> Path:
    """Lay a volume out as the archive does, with these entries in its manifest."""
    folder = archive / image_folder(VolumeId.parse(volume))
    folder.mkdir(parents=True)
    for path in pages.glob("*.tif"):
        shutil.copy(path, folder)
    (folder / MANIFEST_NAME).write_bytes(gzip.compress(json.dumps(entries).encode(), mtime=0))
    return folder


def bilevel(path: Path, width: int, height: int) -> None:
    """A blank bilevel image."""
    Image.new("1", (width, height), 1).save(path, compression="group4")
