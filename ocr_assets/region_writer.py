"""Regions computed one after the other and made visible in commits.

Belongs here: skipping what is done, one region's failure beside the others' success, when to
commit. Does not belong here: the science of a region, the store, or Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocr_assets.deployment import Deployment
from ocr_assets.regions.buildings import write_region_buildings
from ocr_assets.regions.process import RegionResult, process_region
from ocr_assets.regions.status import is_current
from resources.icechunk_store import RegionBatch, RegionWrite
from resources.keys import StorageError
from resources.manifest import content_addressed, sha256_file

SECONDS_BETWEEN_COMMITS = 20.0
"""A region that takes long is committed at once, quick ones together: a commit has a fixed cost."""


@dataclass(frozen=True)
class WrittenRegion:
    """A region that is visible: its ledger entry, and what only its computation knows."""

    entry: Mapping[str, Any]
    snapshot_id: str
    seconds: float
    preview: bytes | None
    """None where the region was done before and nothing was computed."""


@dataclass
class RegionWriter:
    """Writes regions of a deployment; :attr:`written` and :attr:`failed` tell what became of them.

    A region fails alone if its input is wrong. A store that fails ends the run: what was committed
    before stays, the rest is in :attr:`failed`.
    """

    deployment: Deployment
    folder: Path
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
        except StorageError as error:
            for region_id in todo:
                if region_id not in self.written:
                    self.failed.setdefault(region_id, str(error))

    def _compute(self, todo: Sequence[str], ledger: Mapping[str, Any]) -> Iterator[str]:
        deployment = self.deployment
        waiting: dict[str, WrittenRegion] = {}
        with deployment.regions.open_batch({"version": deployment.settings.version_label}) as batch:
            last_commit = time.perf_counter()
            for region_id in todo:
                started = time.perf_counter()
                try:
                    result = process_region(
                        deployment.rasters,
                        deployment.footprints,
                        deployment.grid,
                        region_id,
                        deployment.settings.method,
                    )
                except ValueError as error:  # every error of the input is one
                    self.failed[region_id] = str(error)
                    yield region_id
                    continue
                entry = self._store_buildings(region_id, result)
                batch.add(region_id, RegionWrite(result.arrays, entry))
                seconds = time.perf_counter() - started
                waiting[region_id] = WrittenRegion(entry, "", seconds, result.preview)
                del result
                if time.perf_counter() - last_commit > SECONDS_BETWEEN_COMMITS:
                    self._commit(batch, waiting, ledger)
                    last_commit = time.perf_counter()
                yield region_id
            self._commit(batch, waiting, ledger)

    def _store_buildings(self, region_id: str, result: RegionResult) -> dict[str, Any]:
        """Store the building table under its content hash and return the ledger entry."""
        lineage = self.deployment.region_lineage
        path = self.folder / f"{region_id}.parquet"
        write_region_buildings(result.buildings, path, lineage)
        digest = sha256_file(path)
        key = content_addressed(f"regions/region_id={region_id}/buildings.parquet", digest)
        size = path.stat().st_size
        self.deployment.storage.put_file(key, path)
        path.unlink()
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
