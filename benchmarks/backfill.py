"""A backfill of 405 tiny regions through the real daemon: what a partition costs beyond science.

Budget: 0.25 s of wall time per partition beyond the science itself and the daemon's fixed ticks,
on the embedded instance. `ocr dev` is started as a user starts it, and the backfill is launched by
the request that the UI sends. The fixed ticks are the waits before the first run is queued and
after the last has ended, because the daemon looks at backfills every 30 s. The science is the
median of what the materializations say a partition took, so that the first region of each run,
which loads compiled code, counts as overhead. The alternative is a run per partition, on a few of
the partitions, in the same run.

    python benchmarks/backfill.py [--alternative 8]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import dagster as dg
import psutil

from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.sample.world import SAMPLE_WINDOW, build_sample_world

# The tests' helper, which starts and asks `ocr dev`.
sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / part) for part in ("", "end_to_end")]
from running_dagster import RunningDagster  # noqa: E402

BUDGET = 0.25
REGION_ASSETS = ("region_risk", "region_buildings")
REGIONS_NORTH, REGIONS_EAST, ROWS, COLS = 15, 27, 20, 16


def tiny_grid() -> RegionGrid:
    """405 regions of 20 x 16 pixels in the south-west of the sample world, where all have data."""
    south, west = SAMPLE_WINDOW.row_start, SAMPLE_WINDOW.col_start
    window = Window(south, south + REGIONS_NORTH * ROWS, west, west + REGIONS_EAST * COLS)
    whole = RegionGrid("tiny", window, ROWS, COLS, ())
    return RegionGrid("tiny", window, ROWS, COLS, tuple(whole))


@dataclass
class ProcessTimes:
    """CPU seconds of what `ocr dev` started, by kind, looked at twice a second."""

    process: int
    spent: dict[int, tuple[str, float]] = field(default_factory=dict)

    def watch(self, ended: threading.Event) -> None:
        """Look until ended."""
        while not ended.wait(0.5):
            for child in psutil.Process(self.process).children(recursive=True):
                try:
                    times, command = child.cpu_times(), " ".join(child.cmdline())
                except psutil.Error:
                    continue
                self.spent[child.pid] = (_kind(command), times.user + times.system)

    def by_kind(self) -> Counter[str]:
        """Sum over the processes of each kind."""
        total: Counter[str] = Counter()
        for kind, seconds in self.spent.values():
            total[kind] += seconds  # type: ignore[assignment]
        return total


def _kind(command: str) -> str:
    kinds = {
        "_daemon": "daemon",
        "webserver": "UI",
        "code-server": "code server",
        "api grpc": "code server",
    }
    return next((kind for part, kind in kinds.items() if part in command), "runs")


@dataclass(frozen=True)
class Backfill:
    """What a backfill took, in seconds."""

    partitions: int
    runs: int
    wall: float
    fixed_ticks: float
    science: float
    cpu: Counter[str]

    @property
    def overhead(self) -> float:
        """Per partition, beyond science and fixed ticks."""
        return (self.wall - self.fixed_ticks - self.science) / self.partitions

    def report(self, name: str) -> None:
        """Print it."""
        n = self.partitions
        print(f"{name}: {n} partitions in {self.runs} runs, {self.wall:.1f} s wall")
        print(f"  fixed ticks  {self.fixed_ticks:8.1f} s")
        print(f"  science      {self.science:8.1f} s   {self.science / n:.3f} each")
        print(f"  overhead     {self.overhead * n:8.1f} s   {self.overhead:.3f} each")
        cpu = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in sorted(self.cpu.items()))
        print(f"  CPU s: {cpu}")


def backfill(
    variables: Mapping[str, str],
    assets: Sequence[str],
    partitions: Sequence[str],
    folder: Path,
    prepare: Callable[[RunningDagster, Path], None],
) -> Backfill:
    """Start `ocr dev` on a fresh instance, backfill partitions of a fresh store, and measure.

    Args:
        variables: settings.
        assets: of the backfill; the first one says how long a partition took.
        partitions: of these assets.
        folder: for the instance.
        prepare: makes what has to be there first, given Dagster and the folder of its instance.
    """
    folder.mkdir()
    home = folder / "home"
    variables = {**variables, "DAGSTER_HOME": str(home)}
    with RunningDagster.start(variables, folder) as running:
        ended = threading.Event()
        times = ProcessTimes(running.process.pid)
        watcher = threading.Thread(target=times.watch, args=(ended,))
        watcher.start()
        prepare(running, home)
        before = times.by_kind()
        backfill_id = running.launch_backfill(assets, partitions)
        found = running.finished_backfill(backfill_id, timeout=3600, every=5)
        ended.set()
        watcher.join()
    assert found["status"] == "COMPLETED_SUCCESS", found
    run_ids = [run["id"] for run in found["runs"]]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        stats = [instance.get_run_stats(run_id) for run_id in run_ids]
        records = instance.fetch_materializations(
            dg.AssetKey(assets[0]), limit=len(partitions) + 1
        ).records
    made = {record.partition_key: record.asset_materialization for record in records}
    assert set(made) == set(partitions)
    seconds = [float(one.metadata["seconds"].value) for one in made.values()]
    first, last = min(one.enqueued_time for one in stats), max(one.end_time for one in stats)
    return Backfill(
        partitions=len(partitions),
        runs=len(run_ids),
        wall=found["endTimestamp"] - found["timestamp"],
        fixed_ticks=first - found["timestamp"] + found["endTimestamp"] - last,
        science=median(seconds) * len(partitions),
        cpu=times.by_kind() - before,
    )


def make_template(running: RunningDagster, _: Path) -> None:
    """Make the store that regions are written to."""
    running.materialize("region_template")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alternative", type=int, default=8, help="partitions with a run each")
    options = parser.parse_args()
    grid = tiny_grid()
    with tempfile.TemporaryDirectory(prefix="backfill-") as name:
        folder = Path(name)
        catalog = build_sample_world(folder, synthetic_buildings=2_000)
        document = json.loads(catalog.read_text())
        catalog.write_text(json.dumps({**document, "grid": grid.to_dict()}))
        inputs = {"OCR_CATALOG": str(catalog)}
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        ours = backfill(
            {**inputs, "OCR_STORAGE_ROOT": str(folder / "ours")},
            REGION_ASSETS,
            grid.valid,
            folder / "batched",
            make_template,
        )
        ours.report("batched")
        single = {"OCR_STORAGE_ROOT": str(folder / "single"), "OCR_REGIONS_PER_RUN": "1"}
        other = backfill(
            {**inputs, **single},
            REGION_ASSETS,
            grid.valid[: options.alternative],
            folder / "run-each",
            make_template,
        )
        other.report("a run per partition")
    print_verdict(ours, other)


def print_verdict(ours: Backfill, other: Backfill) -> None:
    """Whether the budget is met, and how much more a run per partition takes."""
    verdict = "met" if ours.overhead <= BUDGET else "MISSED"
    print(
        f"overhead per partition {ours.overhead:.3f} s, budget {BUDGET}: {verdict}; a run per "
        f"partition costs {other.overhead / ours.overhead:.0f} times that"
    )


if __name__ == "__main__":
    main()
