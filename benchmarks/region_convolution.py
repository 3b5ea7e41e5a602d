"""Spread of one climate's burn probability: running sums against OpenCV, in one run.

Both take the same synthetic field and compute the mean over each of eight upwind kernels, three
times, on every pixel. The alternative is the plainest correct one: ``cv2.filter2D`` of the
values and of their mask, per direction and step, on the whole array in float64. Prints CPU seconds
of each, their ratio, the largest relative difference and the peak memory. Times are CPU seconds of
the process, so both run on one thread.

    python benchmarks/region_convolution.py [--rows 6160] [--cols 4660]
"""

from __future__ import annotations

import argparse
import resource
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.regions.convolution import directional_means
from ocr_assets.regions.kernels import DIRECTIONS, ITERATIONS, kernel_set, pixel_size, upwind_mask

LATITUDE = 39.9
TILE = 512


def synthetic_burn_probability(rows: int, cols: int) -> NDArray[np.float32]:
    """A smooth synthetic field of about 1 %, with patches of zero over a third of it."""
    y, x = np.arange(rows)[:, None] / 170, np.arange(cols) / 210
    values = 0.01 * (1.2 + np.sin(x) * np.cos(y * 1.3))
    values[np.sin(x * 2.7 + y) * np.sin(y * 3.1 - x) > 0.3] = 0
    return values.astype(np.float32)


def opencv_means(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same three means over the kernel of a mask, by correlation."""
    kernel = mask / mask.sum()
    array = values.astype(np.float64)
    for _ in range(ITERATIONS):
        share = cv2.filter2D(
            (array > 0).astype(np.float64), cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101
        )
        total = cv2.filter2D(array, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)
        share[share < 1e-11] = 0
        total[total < 1e-11] = 0
        array = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return array


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=6160)
    parser.add_argument("--cols", type=int, default=4660)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    values = synthetic_burn_probability(options.rows, options.cols)
    kernels = kernel_set(LATITUDE, "published")
    # Compile, or load what was compiled, outside the measurement.
    list(directional_means(values[:100, :100].copy(), (0, 100, 0, 100), kernels))

    result = np.empty((len(DIRECTIONS), *values.shape), np.float32)
    start = time.process_time()
    for row in range(0, options.rows, TILE):
        for col in range(0, options.cols, TILE):
            bounds = (row, min(row + TILE, options.rows), col, min(col + TILE, options.cols))
            for layer, mean in zip(result, directional_means(values, bounds, kernels), strict=True):
                layer[bounds[0] : bounds[1], bounds[2] : bounds[3]] = mean
    ours = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    alternative = 0.0
    difference = 0.0
    for layer, direction in zip(result, DIRECTIONS, strict=True):
        mask = upwind_mask(direction, *pixel_size(LATITUDE), "published")
        start = time.process_time()
        expected = opencv_means(values, mask)
        alternative += time.process_time() - start
        scale = np.where(expected > 0, expected, 1)
        difference = max(difference, float((np.abs(layer - expected) / scale).max()))

    print(f"synthetic field, {options.rows} x {options.cols}, 8 directions x {ITERATIONS} steps")
    print(f"running sums   {ours:8.2f} CPU s   peak {peak:.2f} GiB (all eight results kept)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"cv2.filter2D   {alternative:8.2f} CPU s   peak {peak:.2f} GiB (with the above)")
    print(f"ratio          {alternative / ours:8.1f}")
    print(f"largest relative difference {difference:.1e}")


if __name__ == "__main__":
    main()
