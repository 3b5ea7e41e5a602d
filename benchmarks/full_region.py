"""One full-size region, both climates: from opened inputs to committed arrays and buildings.

Budget, in CPU seconds of one process: 40 for the arrays with at most 3 GB of memory, 55 with
380,000 buildings sampled and written. The chain is the one that a run executes, with a stopwatch
around its steps. The alternative to our convolutions is the plainest correct one, in the same run
on the same arrays: OpenCV's correlation of the values and of their mask, per direction and step.
Inputs are synthetic, on the true grid, and made beforehand.

    python benchmarks/full_region.py [--region-id y9_x16] [--buildings 380000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

ARRAYS, BUILDINGS = "arrays", "buildings"
BUDGET = {ARRAYS: 40.0, BUILDINGS: 55.0}
BUDGET_GB = 3.0


@dataclass
class Stopwatch:
    """CPU seconds of the steps of a chain, without those of the steps inside them."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _running: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens inside to this step."""
        self._count()
        self._running.append(name)
        yield
        self._count()
        self._running.pop()

    def around(self, owner: Any, function: str, name: str) -> None:
        """Let ``owner.function`` count to a step from now on."""
        timed = getattr(owner, function)

        @wraps(timed)
        def wrapper(*args: Any, **options: Any) -> Any:
            with self.step(name):
                return timed(*args, **options)

        setattr(owner, function, wrapper)

    def _count(self) -> None:
        now = time.process_time()
        if self._running:
            self.spent[self._running[-1]] += now - self._since
        self._since = now


STEPS = {
    "read rasters": ARRAYS,
    "spread (convolutions)": ARRAYS,
    "resample, smooth, multiply": ARRAYS,
    "summary and picture": ARRAYS,
    "write arrays": ARRAYS,
    "commit": ARRAYS,
    "read footprints": BUILDINGS,
    "sample": BUILDINGS,
    "write GeoParquet": BUILDINGS,
    "rest": ARRAYS,
}


@dataclass(frozen=True)
class Chain:
    """What our chain cost."""

    spent: dict[str, float]
    wall: float
    peak_gb: float
    buildings: int
    stored_bytes: int

    @property
    def totals(self) -> dict[str, float]:
        """CPU seconds to the committed arrays, and with the buildings."""
        arrays = sum(self.spent[step] for step, part in STEPS.items() if part == ARRAYS)
        return {ARRAYS: arrays, BUILDINGS: sum(self.spent.values())}


def build(root: Path, region_id: str | None, buildings: int) -> None:
    """Make a synthetic world."""
    from ocr_assets.sample.world import build_sample_world

    build_sample_world(root, region_id=region_id, synthetic_buildings=buildings)


def run_chain(small: Path, full: Path, region_id: str) -> Chain:
    """Run a region through the writer of the graph, after a small one that loads all code."""
    from ocr_assets import region_writer
    from ocr_assets.regions import fire_risk, process, risk
    from ocr_assets.regions.buildings import BuildingSource
    from resources.icechunk_store import RegionBatch, RegionStore

    _write(small, None)
    watch = Stopwatch()
    watch.around(fire_risk, "read_region_inputs", "read rasters")
    watch.around(fire_risk, "region_risk", "resample, smooth, multiply")
    watch.around(risk, "fill_non_burnable", "spread (convolutions)")
    watch.around(process, "summarise", "summary and picture")
    watch.around(process, "score_preview", "summary and picture")
    watch.around(RegionStore, "write_apart", "write arrays")
    watch.around(RegionBatch, "merge", "write arrays")
    watch.around(RegionBatch, "commit", "commit")
    watch.around(BuildingSource, "read", "read footprints")
    watch.around(process, "sample_buildings", "sample")
    watch.around(region_writer, "_store_buildings", "write GeoParquet")
    deployment, rows, wall = _write(full, region_id, watch)
    return Chain(
        spent=dict(watch.spent),
        wall=wall,
        peak_gb=_peak_gb(),
        buildings=rows,
        stored_bytes=sum(info.size for info in deployment.storage.list())
        + sum(
            path.stat().st_size
            for path in Path(deployment.settings.icechunk_uri).rglob("*")
            if path.is_file()
        ),
    )


def _write(root: Path, region_id: str | None, watch: Stopwatch | None = None) -> Any:
    """Compute and commit one region of the world below ``root``."""
    from ocr_assets.deployment import Deployment
    from ocr_assets.region_writer import RegionWriter
    from resources.settings import Settings

    deployment = Deployment(Settings(storage_root=str(root)))
    deployment.regions.initialize(deployment.template)
    opened = deployment.rasters, deployment.footprints, deployment.region_lineage
    assert all(opened)
    region_id = region_id or deployment.grid.valid[0]
    started = time.perf_counter()
    writer = RegionWriter(deployment)
    with (watch or Stopwatch()).step("rest"):
        assert list(writer.write([region_id])) == [region_id]
    assert not writer.failed
    rows = writer.written[region_id].entry["buildings"]["rows"]
    return deployment, rows, time.perf_counter() - started


def _peak_gb() -> float:
    """Peak memory of this program alone; getrusage would count that of the one it forked from."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("/proc/self/status has no VmHWM")


def run_opencv(full: Path, region_id: str) -> tuple[float, float, float]:
    """CPU seconds of the convolutions by OpenCV, peak GB, and largest difference from ours."""
    import cv2
    import numpy as np
    from region_convolution import opencv_means

    from ocr_assets.deployment import Deployment
    from ocr_assets.regions import risk
    from ocr_assets.regions.convolution import directional_means
    from ocr_assets.regions.fire_risk import read_region_inputs
    from ocr_assets.regions.kernels import BAND_ROWS, DIRECTIONS, kernel_set, pixel_size
    from ocr_assets.regions.kernels import upwind_mask as mask_of
    from resources.settings import Settings

    cv2.setNumThreads(1)
    deployment = Deployment(Settings(storage_root=str(full)))
    window = deployment.grid.region_window(region_id)
    arrays: dict[int, Any] = {}

    def keep(values: Any, target: Any, *_: Any) -> Any:
        arrays[id(values)] = values
        return values[target[0] : target[1], target[2] : target[3]]

    risk.fill_non_burnable = keep
    inputs = read_region_inputs(deployment.rasters, deployment.grid, region_id, "corrected")
    risk.region_risk(inputs, window, "corrected")
    del inputs

    middle = float(window.latitude[window.shape[0] // 2])
    seconds, difference = 0.0, 0.0
    for values in arrays.values():
        rows = values.shape[0] // 2, values.shape[0] // 2 + BAND_ROWS
        ours = directional_means(
            values, (*rows, 0, values.shape[1]), kernel_set(middle, "corrected")
        )
        for direction, mean in zip(DIRECTIONS, ours, strict=True):
            mask = mask_of(direction, *pixel_size(middle), "corrected")
            start = time.process_time()
            theirs = opencv_means(values, mask)
            seconds += time.process_time() - start
            expected = theirs[rows[0] : rows[1]]
            scale = np.where(expected > 0, expected, 1)
            difference = max(difference, float((np.abs(mean - expected) / scale).max()))
    assert len(arrays) == 2
    return seconds, _peak_gb(), difference


def alone[T](function: Callable[..., T], *args: Any) -> T:
    """Call a function in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region-id", default="y9_x16")
    parser.add_argument("--buildings", type=int, default=380_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="full-region-") as folder:
        small, full = Path(folder, "small"), Path(folder, "full")
        alone(build, small, None, 200)
        alone(build, full, options.region_id, options.buildings)
        load = os.getloadavg()[0]
        chain = alone(run_chain, small, full, options.region_id)
        opencv, opencv_gb, difference = alone(run_opencv, full, options.region_id)

    print(f"region {options.region_id}, both climates; load {load:.1f} on {os.cpu_count()} cores")
    for step, part in STEPS.items():
        print(f"  {step:28} {chain.spent.get(step, 0):7.1f} CPU s  ({part})")
    for part, seconds in chain.totals.items():
        verdict = "met" if seconds <= BUDGET[part] else "MISSED"
        print(f"to committed {part:17} {seconds:7.1f} CPU s  budget {BUDGET[part]:.0f}: {verdict}")
    verdict = "met" if chain.peak_gb <= BUDGET_GB else "MISSED"
    print(
        f"peak memory                    {chain.peak_gb:7.2f} GB     budget {BUDGET_GB}: {verdict}"
    )
    print(f"wall time                      {chain.wall:7.1f} s")
    print(f"written: {chain.buildings:,} buildings, {chain.stored_bytes / 1e6:.0f} MB in all")
    ours = chain.spent["spread (convolutions)"]
    arrays = chain.totals[ARRAYS]
    print(
        f"convolutions by cv2.filter2D   {opencv:7.1f} CPU s  peak {opencv_gb:.2f} GB: "
        f"{opencv / ours:.1f} times ours ({ours:.1f}); to committed arrays "
        f"{(arrays - ours + opencv) / arrays:.1f} times; largest relative difference "
        f"{difference:.0e}"
    )


if __name__ == "__main__":
    main()
