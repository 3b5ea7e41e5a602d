"""The mean over a binary kernel, by exact integer running sums.

Belongs here: the repeated mean of the pixels above zero under a kernel, for any part of an array.
Does not belong here: which kernels, what the mean is used for, and any other filter.

A mean needs the sum and the count of the pixels above zero. Both come from one integer convolution:
a probability is a fixed-point number with 44 fractional bits, packed above a 10-bit count of one
into 64 bits. A run of the kernel is the difference of two running sums, along rows or along
columns, whichever the kernel needs fewer of. Integer arithmetic modulo 2**64 is exact in any order,
so a result never depends on which part of the array was asked for. Means above 1e-8 keep seven
digits; a sum below 1e-11 of the kernel's pixels counts as zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.kernels import ITERATIONS, Kernel

Rectangle = tuple[int, int, int, int]
"""Half-open array indices ``row_start, row_stop, col_start, col_stop``."""

NOISE = 1e-11
"""The published pipeline's threshold: a smaller share of the kernel's pixels counts as zero."""

_COUNT_BITS = 10
_FRACTION_BITS = 44
_SHIFT = np.uint64(_COUNT_BITS)
_COUNT_MASK = np.uint64(2**_COUNT_BITS - 1)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_SCALE = float(2**_FRACTION_BITS)
# Adding 2**52 to a smaller float64 leaves its rounded integer in the mantissa bits. Unlike a cast,
# that is one vector instruction.
_TO_MANTISSA = float(2**52)
_MANTISSA = np.uint64(2**52 - 1)


def directional_means(
    values: NDArray[np.float32], bounds: Rectangle, kernels: tuple[Kernel, ...]
) -> Iterator[NDArray[np.float64]]:
    """For each kernel, the mean of all values above zero under it, taken three times.

    ``values`` ``[row, col]`` are in [0, 1] or NaN, which counts as zero. Yields float64 arrays over
    ``bounds``, zero where a kernel covers no value above zero; each is valid until the next is
    asked for. At each step the array continues beyond its edges as its mirror image, the edge pixel
    not repeated.
    """
    plans = [_plan(bounds, kernel, values.shape) for kernel in kernels]
    extent = _hull(plan[0][1] for plan in plans)
    packed = _RunningSums(extent)
    _pack(
        values,
        mirror(np.arange(extent[0], extent[1]), values.shape[0]),
        mirror(np.arange(extent[2], extent[3]), values.shape[1]),
        packed.array,
    )
    sources = {}
    for along_rows in {kernel.along_rows for kernel in kernels}:
        sources[along_rows] = _RunningSums(extent)
        sources[along_rows].array[:] = packed.array
        sources[along_rows].accumulate(along_rows)

    # No step reads beyond what the first one does, so all fit in memory of that size.
    memory = itertools.cycle([packed.flat, np.empty_like(packed.flat)])
    mean = np.empty((bounds[1] - bounds[0], bounds[3] - bounds[2]))
    for kernel, plan in zip(kernels, plans, strict=True):
        sums = sources[kernel.along_rows]
        noise = np.uint64(math.ceil(NOISE * kernel.count * _SCALE))
        for (computed, _), (_, read) in itertools.pairwise(plan):
            step = _RunningSums(_hull((computed, read)), next(memory))
            rows, cols = computed[1] - computed[0], computed[3] - computed[2]
            _packed_means(
                sums.flat, sums.stride, sums.taps(kernel, computed), rows, cols, noise,
                step.flat, step.stride, step.position(computed),
            )  # fmt: skip
            step.mirror_edges(values.shape)
            step.accumulate(kernel.along_rows)
            sums = step
        _means(sums.flat, sums.stride, sums.taps(kernel, bounds), noise, mean)
        yield mean


def mirror(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices within an array of ``size`` of its mirror image, the edge element not repeated."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded)


def _plan(
    bounds: Rectangle, kernel: Kernel, shape: tuple[int, ...]
) -> list[tuple[Rectangle, Rectangle]]:
    """What each step computes and reads so that the last computes ``bounds``.

    What is read may lie beyond the array; what is computed holds the pixels it mirrors.
    """
    plan = [(bounds, _read_for(bounds, kernel))]
    for _ in range(ITERATIONS - 1):
        computed = _inside(plan[0][1], shape)
        plan.insert(0, (computed, _read_for(computed, kernel)))
    return plan


def _read_for(computed: Rectangle, kernel: Kernel) -> Rectangle:
    return (
        computed[0] + kernel.row_reach[0],
        computed[1] + kernel.row_reach[1],
        computed[2] + kernel.col_reach[0],
        computed[3] + kernel.col_reach[1],
    )


def _inside(read: Rectangle, shape: tuple[int, ...]) -> Rectangle:
    """The smallest rectangle within the array that holds ``read`` or its mirror image."""
    inside: list[int] = []
    for start, stop, size in ((*read[:2], shape[0]), (*read[2:], shape[1])):
        first = min(start, 2 * size - 1 - stop) if stop > size else start
        last = max(stop, 1 - start) if start < 0 else stop
        inside += [max(first, 0), min(last, size)]
    return (inside[0], inside[1], inside[2], inside[3])


def _hull(rectangles: Iterable[Rectangle]) -> Rectangle:
    row_starts, row_stops, col_starts, col_stops = zip(*rectangles, strict=True)
    return min(row_starts), max(row_stops), min(col_starts), max(col_stops)


class _RunningSums:
    """Packed pixels of a rectangle, and their running sums once accumulated.

    A leading row and column of zeros lets a run begin at the rectangle's first pixel.
    """

    def __init__(self, extent: Rectangle, memory: NDArray[np.uint64] | None = None) -> None:
        self.extent = extent
        rows, self.stride = extent[1] - extent[0] + 1, extent[3] - extent[2] + 1
        size = rows * self.stride
        self.flat = np.empty(size, np.uint64) if memory is None else memory[:size]
        self.array = self.flat.reshape(rows, self.stride)
        self.array[0] = 0
        self.array[:, 0] = 0

    def position(self, rectangle: Rectangle) -> int:
        """Flat index of the rectangle's first pixel."""
        return (rectangle[0] - self.extent[0] + 1) * self.stride + rectangle[2] - self.extent[2] + 1

    def taps(self, kernel: Kernel, rectangle: Rectangle) -> NDArray[np.int64]:
        """Flat indices of the last pixel of each run and of that before its first, ``(n, 2)``.

        For the kernel at the rectangle's first pixel.
        """
        line, first, last = kernel.runs.T
        ends = np.stack([last, first - 1], axis=1)
        if kernel.along_rows:
            return self.position(rectangle) + line[:, None] * self.stride + ends
        return self.position(rectangle) + line[:, None] + ends * self.stride

    def mirror_edges(self, shape: tuple[int, ...]) -> None:
        """Fill what lies beyond an array of ``shape`` from the pixels inside it."""
        pixels = self.array[1:, 1:]
        for lines, start, stop, size in (
            (pixels, *self.extent[:2], shape[0]),
            (pixels.T, *self.extent[2:], shape[1]),
        ):
            if start < 0 or stop > size:
                index = np.arange(start, stop)
                beyond = (index < 0) | (index >= size)
                lines[beyond] = lines[mirror(index[beyond], size) - start]

    def accumulate(self, along_rows: bool) -> None:
        """Replace pixels by running sums."""
        if along_rows:
            _accumulate_rows(self.array)
        else:
            _accumulate_cols(self.array)


@njit(cache=True, nogil=True)
def _pack(values, rows, cols, packed):
    for i in range(rows.size):
        source = values[rows[i]]
        for j in range(cols.size):
            value = source[cols[j]]
            if value > 0.0:
                fixed = np.uint64(np.float64(value) * _SCALE + 0.5)
                packed[i + 1, j + 1] = (fixed << _SHIFT) | _ONE
            else:
                packed[i + 1, j + 1] = _ZERO


@njit(cache=True, nogil=True)
def _accumulate_rows(array):
    for i in range(array.shape[0]):
        row = array[i]
        total = _ZERO
        for j in range(row.size):
            total += row[j]
            row[j] = total


@njit(cache=True, nogil=True)
def _accumulate_cols(array):
    for i in range(1, array.shape[0]):
        above = array[i - 1]
        row = array[i]
        for j in range(row.size):
            row[j] += above[j]


@njit(cache=True, nogil=True)
def _add_runs(total, sums, taps, shift):
    """Set ``total`` to the sum over all runs of the kernel, moved by ``shift`` pixels."""
    n = total.size
    total[:] = _ZERO
    # Four runs at a time: as many streams as one loop still vectorises with.
    k = 0
    while k + 4 <= taps.shape[0]:
        a = sums[taps[k, 0] + shift : taps[k, 0] + shift + n]
        b = sums[taps[k, 1] + shift : taps[k, 1] + shift + n]
        c = sums[taps[k + 1, 0] + shift : taps[k + 1, 0] + shift + n]
        d = sums[taps[k + 1, 1] + shift : taps[k + 1, 1] + shift + n]
        e = sums[taps[k + 2, 0] + shift : taps[k + 2, 0] + shift + n]
        f = sums[taps[k + 2, 1] + shift : taps[k + 2, 1] + shift + n]
        g = sums[taps[k + 3, 0] + shift : taps[k + 3, 0] + shift + n]
        h = sums[taps[k + 3, 1] + shift : taps[k + 3, 1] + shift + n]
        for j in range(n):
            total[j] += (a[j] - b[j]) + (c[j] - d[j]) + (e[j] - f[j]) + (g[j] - h[j])
        k += 4
    while k < taps.shape[0]:
        a = sums[taps[k, 0] + shift : taps[k, 0] + shift + n]
        b = sums[taps[k, 1] + shift : taps[k, 1] + shift + n]
        for j in range(n):
            total[j] += a[j] - b[j]
        k += 1


@njit(cache=True, nogil=True)
def _divide(total, noise, mean):
    """Fixed-point mean of packed totals, as float64."""
    for j in range(total.size):
        fixed = total[j] >> _SHIFT
        if fixed < noise:
            fixed = _ZERO
        mean[j] = np.float64(fixed) / max(np.float64(total[j] & _COUNT_MASK), 1.0)


@njit(cache=True, nogil=True)
def _packed_means(sums, stride, taps, rows, cols, noise, result, result_stride, result_start):
    total = np.empty(cols, np.uint64)
    mean = np.empty(cols)
    bits = mean.view(np.uint64)
    for i in range(rows):
        _add_runs(total, sums, taps, i * stride)
        _divide(total, noise, mean)
        for j in range(cols):
            mean[j] += _TO_MANTISSA
        start = result_start + i * result_stride
        row = result[start : start + cols]
        for j in range(cols):
            fixed = bits[j] & _MANTISSA
            row[j] = (fixed << _SHIFT) | (_ONE if fixed > _ZERO else _ZERO)


@njit(cache=True, nogil=True)
def _means(sums, stride, taps, noise, result):
    total = np.empty(result.shape[1], np.uint64)
    for i in range(result.shape[0]):
        row = result[i]
        _add_runs(total, sums, taps, i * stride)
        _divide(total, noise, row)
        for j in range(row.size):
            row[j] /= _SCALE
