"""Tree cover of one tile: CPU-seconds of the network, by how the tile is given to it.

The network has the published topology with random weights, so its cost is that of the published
one, and its answer means nothing. Features are synthetic. Compared on the same tile in one run:

* one window at a time, six by six overlapping windows of 172 pixels, as the published method does;
* the same windows four at a time;
* the whole tile at once, with height and width left open. Group norms then see the whole tile
  instead of a window, so the answer differs; how much is printed.

Then the whole prediction with mosaic and post-processing, the built-in network whole and by
windows, and the published topology of super-resolution on one date.

    python benchmarks/tile_inference.py [--side 618] [--dates 12]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.networks import TreeCoverNetwork, load_super_resolution, load_tree_cover
from ocr_assets.tiles.normalisation import CHANNELS, normalise
from ocr_assets.tiles.tree_cover import (
    bare_ground_factor,
    mirrored,
    predict_tree_cover,
    predict_whole,
    predict_windows,
    window_starts,
)
from resources.inference import Inference

# The tests' helper, which builds the topologies. It comes after the package, which keeps OpenVINO
# from reporting its use to its maker.
sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "tiles")]
from network_graphs import super_resolution_model, tree_cover_model  # noqa: E402
from openvino import Model, save_model  # noqa: E402


def spent[T](action: Callable[[], T]) -> tuple[T, float]:
    """The result and its CPU-seconds."""
    start = time.process_time()
    result = action()
    return result, time.process_time() - start


def report(name: str, seconds: float, note: str = "") -> None:
    """Print a line, with the highest resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:44} {seconds:7.2f} CPU s   peak so far {peak:4.2f} GiB   {note}")


def saved(model: Model, folder: Path, name: str) -> Path:
    """Write a network as OpenVINO IR."""
    save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
    return folder / f"{name}.xml"


def windows_of(features: NDArray[np.float32], network: TreeCoverNetwork) -> NDArray[np.float32]:
    """All windows of a tile, normalised."""
    side, border = network.output_size, network.border
    rows, columns = features.shape[1:3]
    return np.stack(
        [
            normalise(
                features[
                    :,
                    mirrored(top - border, top + side + border, rows)[:, None],
                    mirrored(left - border, left + side + border, columns),
                ]
            )
            for top in window_starts(rows, side)
            for left in window_starts(columns, side)
        ]
    )


def measure_windows(features: NDArray[np.float32], network: TreeCoverNetwork) -> float:
    """CPU-seconds of all windows one by one; four at a time are reported beside it."""
    windows = windows_of(features, network)

    def run(batch: int) -> None:
        for start in range(0, len(windows), batch):
            network(windows[start : start + batch])

    network(windows[:1])
    _, one = spent(lambda: run(1))
    report(f"{len(windows)} windows, one at a time", one)
    network(windows[:4])  # compiles
    _, four = spent(lambda: run(4))
    report(f"{len(windows)} windows, four at a time", four, f"{one / four:.2f} x")
    return one


def main() -> None:
    """Measure all ways and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=618)
    parser.add_argument("--dates", type=int, default=12)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    side = options.side
    features = rng.uniform(0, 0.5, (5, side, side, len(CHANNELS))).astype(np.float32)
    keep = bare_ground_factor(features)
    with tempfile.TemporaryDirectory(prefix="ocr-inference-") as name:
        folder = Path(name)
        inference = Inference(folder / "cache")
        print(f"synthetic tile of {side} x {side} pixels, random weights, one thread")

        sharpen = load_super_resolution(
            saved(super_resolution_model(), folder, "super_resolution"), inference
        )
        bands = rng.uniform(0, 0.5, (1, side, side, 10)).astype(np.float32)
        sharpen(bands, bands[..., 4:])
        _, date = spent(lambda: sharpen(bands, bands[..., 4:]))
        report(
            "super-resolution of one date", date,
            f"{options.dates} dates: {options.dates * date:.1f} s",
        )  # fmt: skip

        baseline = load_tree_cover(None, inference)
        _, whole = spent(lambda: predict_tree_cover(features, baseline))
        report(f"{baseline.name}, all of the prediction", whole)

        network = load_tree_cover(saved(tree_cover_model(), folder, "windows"), inference)
        mosaic, everything = spent(lambda: predict_windows(features, network, keep))
        report("windows with normalisation and mosaic", everything)
        one = measure_windows(features, network)

        open_network = load_tree_cover(saved(tree_cover_model(None), folder, "open"), inference)
        predict_whole(features, open_network)  # memory and machine code of this size
        answer, at_once = spent(lambda: predict_whole(features, open_network))
        difference = np.abs(answer * keep - mosaic).mean()
        report("whole tile at once", at_once, f"{one / at_once:.2f} x; differs by {difference:.3f}")


if __name__ == "__main__":
    main()
