"""Regions computed by a cluster and made visible in commits.

Belongs here: skipping what is done, one region's failure beside the others' success, what a worker
does and what the run does, when to commit. Does not belong here: the science of a region, the
store, how a worker is reached, or Dagster.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_assets.deployment import Deployment
from ocr_assets.needs import REGION
from ocr_assets.regions.buildings import write_region_buildings
from ocr_assets.regions.process import RegionResult, process_region
from ocr_assets.regions.status import is_current
from resources.cluster import OTHER_CODE, Cluster, ClusterError, InProcess, WorkerLostError
from resources.icechunk_store import RegionBatch, RegionWrite
from resources.keys import StorageError
from resources.manifest import content_addressed, sha256_file

if TYPE_CHECKING:
    from icechunk import ForkSession

SECONDS_BETWEEN_COMMITS = 20.0
"""A region that takes long is committed at once, quick ones together: a commit has a fixed cost."""


@dataclass(frozen=True)
class ComputedRegion:
    """A region that is computed and stored, and becomes visible when its session is merged."""

    entry: Mapping[str, Any]
    session: ForkSession
    seconds: float
    preview: bytes


@dataclass(frozen=True)
class WrittenRegion:
    """A region that is visible: its ledger entry, and what only its computation knows."""

    entry: Mapping[str, Any]
    snapshot_id: str
    seconds: float
    preview: bytes | None
    """None where the region was done before and nothing was computed."""


def compute_region(
    deployment: Deployment, lineage: Mapping[str, Any], region_id: str
) -> ComputedRegion:
    """Compute a region and store it, all but visibly. Runs in the run's process or on a worker.

    Args:
        deployment: inputs and stores.
        lineage: lineage record that the run expects of a region computed now.
        region_id: a valid region.

    Raises:
        InputError: an input is wrong for this region.
        ClusterError: this process has other code or sees other inputs than the run.
        StorageError: a store failed.
    """
    if deployment.region_lineage != lineage:
        raise ClusterError(OTHER_CODE)
    started = time.perf_counter()
    result = process_region(
        deployment.risk,
        deployment.rasters,
        deployment.footprints,
        deployment.grid,
        region_id,
        deployment.settings.method,
    )
    entry = _store_buildings(deployment, lineage, region_id, result)
    session = deployment.regions.write_apart(region_id, RegionWrite(result.arrays, entry))
    return ComputedRegion(entry, session, time.perf_counter() - started, result.preview)


def _store_buildings(
    deployment: Deployment, lineage: Mapping[str, Any], region_id: str, result: RegionResult
) -> dict[str, Any]:
    """Store the building table under its content hash and return the ledger entry."""
    with tempfile.TemporaryDirectory(prefix="ocr-region-") as folder:
        path = Path(folder, f"{region_id}.parquet")
        write_region_buildings(result.buildings, path, lineage)
        digest = sha256_file(path)
        key = content_addressed(f"regions/region_id={region_id}/buildings.parquet", digest)
        size = path.stat().st_size
        deployment.storage.put_file(key, path)
    return {
        "lineage": lineage,
        "buildings": {
            "key": key,
            "sha256": digest,
            "bytes": size,
            "rows": result.buildings.num_rows,
        },
        "report": result.report.to_dict(),
        "summary": result.summary,
    }


@dataclass
class RegionWriter:
    """Writes regions of a deployment; :attr:`written` and :attr:`failed` tell what became of them.

    A region fails alone if its input is wrong or its workers die of it. A store that fails, or a
    cluster that is lost, ends the run: what was committed before stays, the rest is in
    :attr:`failed`.
    """

    deployment: Deployment
    cluster: Cluster = field(default_factory=lambda: InProcess(1))
    name: str = "regions"
    """Of this work, for the tasks of a cluster."""
    written: dict[str, WrittenRegion] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def write(self, region_ids: Sequence[str], *, recompute: bool = False) -> Iterator[str]:
        """Compute and commit regions that are not done; yields each id when it is computed."""
        self.deployment.require_unpublished()
        store = self.deployment.regions
        ledger = store.ledger()
        snapshot = store.snapshot_id
        todo = []
        for region_id in region_ids:
            entry = ledger.get(region_id)
            if entry and not recompute and is_current(entry, self.deployment.region_lineage):
                self.written[region_id] = WrittenRegion(entry, snapshot, 0.0, None)
                yield region_id
            else:
                todo.append(region_id)
        try:
            yield from self._compute(todo, ledger)
        except (StorageError, ClusterError) as error:
            for region_id in todo:
                if region_id not in self.written:
                    self.failed.setdefault(region_id, str(error))

    def _compute(self, todo: Sequence[str], ledger: Mapping[str, Any]) -> Iterator[str]:
        deployment = self.deployment
        try:
            compute = partial(compute_region, deployment, deployment.region_lineage)
        except ValueError as error:  # an input is missing or cannot be read at all
            self.failed |= dict.fromkeys(todo, str(error))
            yield from todo
            return
        waiting: dict[str, WrittenRegion] = {}
        with (
            deployment.regions.open_batch({"version": deployment.settings.version_label}) as batch,
            closing(self.cluster.map(compute, todo, stage=REGION, name=self.name)) as computed,
        ):
            last_commit = time.perf_counter()
            for region_id, region in computed:
                if isinstance(region, ValueError | WorkerLostError):  # every error of the input
                    self.failed[region_id] = str(region)
                    yield region_id
                    continue
                if isinstance(region, Exception):
                    raise region
                batch.merge(region_id, region.session)
                waiting[region_id] = WrittenRegion(region.entry, "", region.seconds, region.preview)
                if time.perf_counter() - last_commit > SECONDS_BETWEEN_COMMITS:
                    self._commit(batch, waiting, ledger)
                    last_commit = time.perf_counter()
                yield region_id
            self._commit(batch, waiting, ledger)

    def _commit(
        self, batch: RegionBatch, waiting: dict[str, WrittenRegion], ledger: Mapping[str, Any]
    ) -> None:
        if not waiting:
            return
        for region_id, region in waiting.items():
            # A wipe meanwhile takes tables away that no ledger entry names yet.
            if not self.deployment.storage.exists(region.entry["buildings"]["key"]):
                raise StorageError(
                    f"the buildings of region {region_id} were deleted before its commit: the "
                    "environment was wiped meanwhile; run its regions again"
                )
        snapshot = batch.commit()
        superseded = []
        for region_id, region in waiting.items():
            self.written[region_id] = WrittenRegion(
                region.entry, snapshot, region.seconds, region.preview
            )
            before = ledger.get(region_id)
            if (
                before
                and before["lineage"]["version"] == region.entry["lineage"]["version"]
                and before["buildings"]["key"] != region.entry["buildings"]["key"]
            ):
                superseded.append(before["buildings"]["key"])
        self.deployment.storage.delete(superseded)
        waiting.clear()
