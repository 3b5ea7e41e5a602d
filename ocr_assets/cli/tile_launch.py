"""Runs that make tiles, launched in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ocr_assets.cli.launch import Launcher
from ocr_assets.launch import PAUSE_SECONDS
from ocr_assets.partitions import RANGE_END, RANGE_START, TILES, contiguous_ranges
from ocr_assets.tile_history import partition_key
from ocr_assets.tile_library import SourceKey


class TileLauncher(Launcher):
    """Makes sources of tiles, many in a run."""

    wing = "tiles"

    def make(
        self, keys: Sequence[SourceKey], *, again: bool = False, retries: int = 0
    ) -> dict[SourceKey, str]:
        """Make ``keys``, all of one source; why some failed after all attempts."""
        config = {"ops": {keys[0].source: {"config": {"again": again}}}} if keys else {}
        remaining, failed = list(keys), dict[SourceKey, str]()
        for attempt in range(retries + 1):
            time.sleep(PAUSE_SECONDS * attempt if remaining else 0)
            failed = self._attempt(remaining, config)
            remaining = list(failed)
        return failed

    def _attempt(self, keys: Sequence[SourceKey], config: dict[str, Any]) -> dict[SourceKey, str]:
        order = self.instance.get_dynamic_partitions(str(TILES.name))
        longest = self.deployment.settings.tiles_per_run
        failed: dict[SourceKey, str] = {}
        for year in dict.fromkeys(key.year for key in keys):
            of_year = {key.tile.key: key for key in keys if key.year == year}
            for first, last in contiguous_ranges(of_year, order, longest):
                chosen = [
                    of_year[name] for name in order[order.index(first) : order.index(last) + 1]
                ]
                ends = [partition_key(chosen[0]), partition_key(chosen[-1])]
                tags = {RANGE_START: ends[0], RANGE_END: ends[1]}
                failure = self._execute((chosen[0].source,), tags, config)
                if failure is None:
                    continue
                names = failure.partitions or {partition_key(key) for key in chosen}
                failed |= {key: failure.reason for key in chosen if partition_key(key) in names}
        return failed
