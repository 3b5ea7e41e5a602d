"""Features of one synthetic tile: cost of the whole chain, and its hot steps against plain ones.

    python benchmarks/tile_features.py [--side 620] [--dates 12]

The chain runs in a process of its own, from analysis-ready data to the feature cube, with a
super-resolution network of the published topology and random weights: CPU seconds of one tile and
the highest resident memory of that process, libraries and inputs included. Kernels are compiled,
or loaded from what was compiled before, on a small tile first; that is printed apart.

The alternatives are what one would write first, on the same inputs:

* clouds and shadows with SciPy's morphology and distances, and NumPy medians of every window;
* a cloud filled by non-negative least squares over all chosen pixels;
* months by interpolation to 24 steps, then a banded solver (SciPy) for every pixel, then medians;
* medians along time by NumPy;
* super-resolution in windows of 118 pixels, as existing systems run it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import solveh_banded
from scipy.optimize import nnls

from ocr_assets.tiles import cloud_tests, clouds, regression, shadows
from ocr_assets.tiles.ard import Elevation, Sentinel1, Sentinel2
from ocr_assets.tiles.features import feature_cube
from ocr_assets.tiles.superresolution import SuperResolution, sharpen
from ocr_assets.tiles.temporal import (
    day_numbers,
    monthly_weights,
    quarters,
    resampling_weights,
    temporal_median,
)
from resources.inference import Inference

# The tests' helpers. They come after the package, which keeps OpenVINO from reporting its use to
# its maker.
sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "tiles")]
from network_graphs import super_resolution_model  # noqa: E402
from synthetic_scenes import Scenes, optical, radar_images, synthetic_scenes, terrain  # noqa: E402

CLOUDY = (1, 4, 7, 10)


def days(count: int) -> tuple[date, ...]:
    """Dates evenly through 2024."""
    return tuple(date(2024, 1, 8) + timedelta(366 * index // count) for index in range(count))


def random_network(folder: Path) -> SuperResolution:
    """The published topology with random weights, whose change is small."""
    runtime = Inference(folder)
    run = runtime.runner(super_resolution_model(scale=0.01), Path("random"))
    return lambda bands, coarse: run({0: bands, 1: coarse})


def measured(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def peak_memory() -> float:
    """Highest resident memory of this process so far, GiB.

    From ``/proc``, because the highest that ``getrusage`` knows includes that of the process that
    started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


# The chain, in a process of its own.


def save(path: Path, scenes: Scenes, count: int) -> None:
    """Write the analysis-ready data of scenes for the other process."""
    images, radar = optical(scenes.cube, days(count)), radar_images(len(scenes.slope))
    np.savez(
        path, bands10=images.bands10, bands20=images.bands20, slope=scenes.slope,
        backscatter=radar.backscatter,
    )  # fmt: skip


def load(path: Path) -> tuple[Elevation, Sentinel1, Sentinel2]:
    """Read :func:`save` back."""
    with np.load(path) as arrays:
        slope, backscatter = arrays["slope"], arrays["backscatter"]
        bands10, bands20 = arrays["bands10"], arrays["bands20"]
    count, side = bands10.shape[:2]
    template = optical(np.zeros((1, 10, side, side), np.float32))
    images = Sentinel2(
        days(count), bands10, bands20, np.zeros((count, side // 2, side // 2), np.uint8),
        ((),) * count, (0.0,) * count, False, template.geobox,
    )  # fmt: skip
    radar = radar_images(side)
    radar.backscatter[:] = backscatter
    return terrain(slope), radar, images


def run_chain(folder: Path) -> None:
    """Print the cost of the chain on a prepared tile."""
    network = random_network(folder / "compiled")
    compiling, _ = measured(lambda: feature_cube(*load(folder / "small.npz"), network))
    inputs = load(folder / "tile.npz")
    before = peak_memory()
    spent, features = measured(lambda: feature_cube(*inputs, network))
    peak = peak_memory()
    print(f"whole chain            {spent:7.2f} CPU s   peak {peak:.2f} GiB")
    print(f"  libraries and inputs {'':16} {before:.2f} GiB")
    print(f"  a first, small tile  {compiling:7.2f} CPU s   (compiles or loads kernels)")
    sharpening, _ = measured(
        lambda: [sharpen(np.full((10, *inputs[0].slope.shape), 0.2, np.float32), network)
                 for _ in inputs[2].dates]
    )  # fmt: skip
    print(f"  of it super-resolution {sharpening:5.2f} CPU s")
    used = sum(seen.used for seen in features.dates)
    print(f"  dates used {used} of {len(features.dates)}, cube {features.cube.shape}")


# The alternatives.


def darkened(
    cube: NDArray[np.float32],
    unfit: NDArray[np.bool_],
    index: int,
    steep: NDArray[np.bool_],
    dark: NDArray[np.bool_],
    bands: NDArray[np.intp],
) -> None:
    """The test of darkness with medians and maxima of all pixels."""
    blue, green, red, nir, swir = cube[index, bands]
    drops, falls = [], []
    for band, here in ((bands[0], blue), (bands[3], nir), (bands[4], swir)):
        series = cube[:, band]
        fit, lowest = np.ma.masked_array(series, unfit), series.min(axis=0)
        drops.append(here - np.ma.median(fit, axis=0).filled(lowest))
        falls.append(here - fit.max(axis=0).filled(lowest))
    usual = (drops[0] < -0.02) & (drops[1] < -0.04) & (drops[2] < -0.04)
    usual &= (blue < 0.09) & (nir < 0.17)
    deep = (falls[1] < -0.04) & (falls[2] < -0.04) & (nir < 0.18)
    shade = steep & (blue < 0.07) & (blue + green + red < 0.28)
    dark[:] = usual | (deep & ((blue < 0.03) | shade))


def numpy_median(
    images: NDArray[np.float32], excluded: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Median along time by NumPy."""
    if excluded is None:
        return np.median(images, axis=0)
    return np.ma.median(np.ma.masked_array(images, excluded), axis=0).filled(np.nan)


def scipy_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance by SciPy."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return ndimage.distance_transform_edt(~mask).astype(np.float32)


def plain_morphology() -> ExitStack:
    """SciPy and NumPy in place of OpenCV and compiled kernels, while the context lasts."""
    replacements: dict[str, Any] = {
        "dilate": lambda mask, steps: ndimage.binary_dilation(mask, iterations=steps),
        "erode": lambda mask, steps: ndimage.binary_erosion(mask, iterations=steps, border_value=1),
        "open_mask": lambda mask, shrink, grow: ndimage.binary_dilation(
            ndimage.binary_erosion(mask, iterations=shrink, border_value=1), iterations=grow
        ),
        "distance": scipy_distance,
        "within": lambda mask, radius: scipy_distance(mask) <= radius,
        "count_nearby": lambda mask: ndimage.convolve(
            mask.astype(np.int32), np.ones((3, 3), np.int32), mode="constant"
        ),
        "close_grey": lambda values, size: ndimage.grey_closing(values, size),
        "temporal_median": numpy_median,
        "_darkened": darkened,
    }
    stack = ExitStack()
    for module in (clouds, cloud_tests, shadows):
        for name, function in replacements.items():
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, function))
    return stack


def banded_months(images: NDArray[np.float32], dates: tuple[date, ...]) -> NDArray[np.float64]:
    """Quarters by way of 24 steps and a banded system of equations."""
    numbers, length = day_numbers(dates)
    weights = resampling_weights(numbers, length)
    steps = np.stack([
        sum(weight * image for weight, image in zip(row, images, strict=True) if weight)
        for row in weights
    ])  # fmt: skip
    second = np.diff(np.eye(24), 2, axis=0)
    system = np.eye(24) + 100 * second.T @ second
    bands = np.zeros((3, 24))
    for offset in range(3):
        bands[2 - offset, offset:] = np.diagonal(system, offset)
    smooth = solveh_banded(bands, steps.reshape(24, -1)).reshape(steps.shape)
    months = (smooth[0::2] + smooth[1::2]) / 2
    return np.median(months.reshape(4, 3, *images.shape[1:]), axis=1)


def compare(name: str, ours: float, plain: float, agreement: str) -> None:
    """Print one line of the table."""
    print(f"{name:26} {ours:7.2f} {plain:9.2f} {plain / ours:7.1f}   {agreement}")


def compare_steps(scenes: Scenes, folder: Path) -> None:
    """Each hot step in both formulations."""
    count = len(scenes.cube)
    missing = np.zeros((count, *scenes.slope.shape), np.bool_)
    print(f"\n{'step':26} {'CPU s':>7} {'plain':>9} {'ratio':>7}   agreement")

    clouds.detect(scenes.cube[:3, :, :64, :64].copy(), missing[:3, :64, :64],
                  scenes.slope[:64, :64].copy())  # fmt: skip
    ours, found = measured(lambda: clouds.usable_dates(scenes.cube.copy(), missing, scenes.slope))
    with plain_morphology():
        plain, other = measured(
            lambda: clouds.usable_dates(scenes.cube.copy(), missing, scenes.slope)
        )
    same = float(((found[1] == 1) == (other[1] == 1)).mean())
    compare("clouds, shadows, masks", ours, plain, f"{same:.5%} of pixels masked alike")

    weights = found[1]
    rows, cols = np.nonzero(weights[CLOUDY[0]])
    composite, snow = scenes.cube[0], np.zeros_like(scenes.slope)

    def fill() -> NDArray[np.float32]:
        return regression.fitted(
            scenes.cube, weights, CLOUDY[0], composite, snow, snow == 0, (rows, cols), 0
        )

    ours, filled = measured(fill)
    with patch.object(regression, "_non_negative",
                      lambda features, target, _: nnls(features.T, target)[0]):  # fmt: skip
        plain, other = measured(fill)
    off = float(np.abs(filled - other).max())
    compare("filling one date", ours, plain, f"largest difference {off:.1e}")

    band = np.ascontiguousarray(scenes.cube[:, 3])
    dates = days(count)
    ours, fused = measured(lambda: quarters(band, monthly_weights(dates)))
    plain, other = measured(lambda: banded_months(band, dates))
    off = float(np.abs(fused - other).max())
    compare("quarters of one band", ours, plain, f"largest difference {off:.1e}")

    temporal_median(band[:, :8])
    temporal_median(band)
    ours, median = measured(lambda: temporal_median(band))
    plain, other = measured(lambda: np.median(band, axis=0))
    off = float(np.abs(median - other).max())
    compare("median of one band", ours, plain, f"largest difference {off:.1e}")

    network = random_network(folder / "compiled")
    whole, windows = scenes.cube[0].copy(), scenes.cube[0].copy()
    sharpen(whole[:, :128, :128].copy(), network, compat=True)
    ours, _ = measured(lambda: sharpen(whole, network))
    plain, _ = measured(lambda: sharpen(windows, network, compat=True))
    off = float(np.abs(whole - windows).max())
    untouched = float((windows[4:] == scenes.cube[0, 4:]).all(axis=0).mean())
    compare("super-resolution, one date", ours, plain,
            f"windows leave {untouched:.2%} out and differ by up to {off:.1e}")  # fmt: skip


def main() -> None:
    """Run the chain apart, then compare its steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=620)
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--chain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chain:
        run_chain(options.chain)
        return
    scenes = synthetic_scenes(options.dates, options.side, cloudy=CLOUDY)
    print(f"synthetic tile, {options.side} x {options.side} pixels, {options.dates} dates")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "tile.npz", scenes, options.dates)
        save(folder / "small.npz", synthetic_scenes(3, 64, cloudy=(1,)), 3)
        command = [sys.executable, __file__, "--chain", str(folder)]
        subprocess.run(command, check=True)
        compare_steps(scenes, folder)


if __name__ == "__main__":
    main()
