"""Sample imagery as tests of the tiles wing use it: a deployment over it, and its runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.partitions import PARTITION, RANGE_END, RANGE_START, TILES
from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tile_library import PRODUCTS, SOURCES, TREE_COVER, SourceKey, TileLibrary
from ocr_assets.tile_products import make_tree_cover
from ocr_assets.tile_sources import make_source
from ocr_assets.tiles.grid import Tile
from resources.settings import Settings

WEST, EAST = DEFAULT_TILES
NOT_IN_THE_GRID = "1X1Y"


@dataclass
class TileWorld:
    """An empty deployment over the sample imagery, and an instance that records its runs."""

    folder: Path
    imagery: str
    changes: dict[str, Any] = field(default_factory=dict)
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    @property
    def settings(self) -> Settings:
        places = {f"{source}_source": self.imagery for source in SOURCES}
        return Settings(
            storage_root=str(self.folder / "root"), sentinel1_access="anonymous", **places
        ).changed(**self.changes)

    @property
    def library(self) -> TileLibrary:
        """The tiles of this deployment, made anew: nothing is cached from before."""
        return TileLibrary(self.settings)

    def run(
        self,
        asset: str,
        first: str,
        last: str | None = None,
        again: bool = False,
        config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize a partition of an asset, or a range of them."""
        if config is None:
            config = {"again": again} if asset in PRODUCTS else {}
        return self._execute(
            self._job, self._tags(first, last), {asset: {"config": config}} if config else {}, asset
        )

    def run_job(self, name: str, partition: str) -> dict[str, dict[str, Any]]:
        """Run a job of the graph on a partition; metadata of each asset that it materialized."""
        job = build_defs(Deployment(self.settings)).resolve_job_def(name)
        result = self._execute(job, self._tags(partition, None), {})
        assert result.success, failure(result)
        made = [event.step_materialization_data.materialization for event in _made(result)]
        assert {one.partition for one in made} == {partition}
        return {
            one.asset_key.to_user_string(): {k: v.value for k, v in one.metadata.items()}
            for one in made
        }

    def check(self, asset: str, name: str, partition: str | None = None) -> dict[str, str] | None:
        """Run a check of a partition, or of all; what it finds wrong, None if nothing."""
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        job = self._job.get_subset(asset_selection=set(), asset_check_selection={key})
        result = self._execute(job, self._tags(partition, None) if partition else {}, {})
        (found,) = result.get_asset_check_evaluations()
        wrong: dict[str, str] = found.metadata["wrong"].value  # type: ignore[assignment]
        assert found.passed == (not wrong)
        # A blocking check ends the run, so that nothing is made of what is wrong.
        assert result.success == (found.passed or not found.blocking)
        return wrong or None

    @property
    def _job(self) -> dg.JobDefinition:
        return build_defs(Deployment(self.settings)).resolve_implicit_global_asset_job_def()

    def _tags(self, first: str, last: str | None) -> dict[str, str]:
        self.instance.add_dynamic_partitions(str(TILES.name), [WEST, NOT_IN_THE_GRID, EAST])
        if last is not None:
            return {RANGE_START: first, RANGE_END: last}
        tile, separator, year = first.partition("|")
        dimensions = {f"{PARTITION}/tile": tile, f"{PARTITION}/year": year} if separator else {}
        return {PARTITION: first, **dimensions}

    def _execute(
        self, job: dg.JobDefinition, tags: dict[str, str], ops: dict[str, Any], *assets: str
    ) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            tags=tags,
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def materialized(self, result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
        """Metadata of what a run materialized, by partition."""
        found = {}
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        for entry in self.instance.all_logs(result.run_id, of_type=kind):
            made = entry.asset_materialization
            assert made is not None
            assert made.partition is not None
            assert made.partition not in found, "recorded twice"
            found[made.partition] = {
                name: [row.data for row in value.records]
                if isinstance(value, dg.TableMetadataValue)
                else value.value
                for name, value in made.metadata.items()
            }
        return found


def copy_of(finished: Path, folder: Path, imagery: Path) -> TileWorld:
    """A world of its own in which both tiles are made; files must not be changed in place."""
    shutil.copytree(finished / "root", folder / "root", copy_function=os.link)
    return TileWorld(folder, str(imagery))


def _made(result: dg.ExecuteInProcessResult) -> list[dg.DagsterEvent]:
    return [event for event in result.all_events if event.is_step_materialization]


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return (error.cause or error).message


def keys_of(tile: str, year: int = 2023) -> list[SourceKey]:
    """All products of a tile, in the order in which they are made."""
    return [
        SourceKey(source, Tile.parse(tile), None if source == "elevation" else year)
        for source in PRODUCTS
    ]


def make_all(library: TileLibrary, *tiles: str) -> None:
    """Make all products of tiles, without Dagster."""
    for tile in tiles:
        for key in keys_of(tile):
            (make_tree_cover if key.source == TREE_COVER else make_source)(library, key)
