"""Features on their way into tiles: a few arrays, sorted along the curve of tiles on disk.

Belongs here: what a feature is to the tile maker, its shape as whole numbers, and the sort of more
features than fit in memory.
Does not belong here: which features a tile shows, and the bytes of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.mercator import WORLD, hilbert_keys, world_steps

Geometries = NDArray[np.object_]

RUN_FEATURES = 1 << 20
"""Features sorted in memory at a time: some 40 MB of points or 160 MB of footprints."""

_SAMPLES = 1 << 10
"""Keys looked at in a run to cut all runs into parts of about the same size."""


@dataclass(frozen=True, eq=False, slots=True)
class TileFeatures:
    """Points or polygons with numbers, as arrays of the same length.

    ``key``: place on the curve, int64. ``number``: identifier, int64. ``box``: west, north, east
    and south in world steps, int32 ``(n, 4)``. ``values``: float32 ``(n, k)``, NaN where missing.
    ``stop``: where the part of ``shape`` that belongs to a feature ends, int64. ``shape``: int32,
    for each ring the number of its vertices (negative for a hole) and their x and y in world steps,
    the first not repeated at the end. A point has no shape.
    """

    key: NDArray[np.int64]
    number: NDArray[np.int64]
    box: NDArray[np.int32]
    values: NDArray[np.float32]
    stop: NDArray[np.int64]
    shape: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.key)

    def start(self) -> NDArray[np.int64]:
        """Where the shape of each feature begins."""
        return np.concatenate([np.zeros(1, np.int64), self.stop[:-1]])[: len(self)]

    def sorted(self) -> TileFeatures:
        """The features along the curve; those at the same place keep their order."""
        order = np.argsort(self.key, kind="stable")
        start = self.start()[order]
        sizes = self.stop[order] - start
        stop = np.cumsum(sizes)
        shape = _gathered(self.shape, start, stop)
        key, number, box = self.key[order], self.number[order], self.box[order]
        return TileFeatures(key, number, box, self.values[order], stop, shape)

    def between(self, low: int, high: int) -> TileFeatures:
        """The features from row ``low`` to before row ``high``."""
        first = int(self.stop[low - 1]) if low else 0
        last = int(self.stop[high - 1]) if high else 0
        key, number, box = self.key[low:high], self.number[low:high], self.box[low:high]
        stop = self.stop[low:high] - first
        return TileFeatures(key, number, box, self.values[low:high], stop, self.shape[first:last])


def point_features(points: Geometries, values: NDArray[np.float32]) -> TileFeatures:
    """Features of shapely points in degrees, numbered from 1."""
    place = world_steps(shapely.get_x(points), shapely.get_y(points))
    box = np.hstack([place, place])
    stop = np.zeros(len(box), np.int64)
    number = np.arange(1, len(box) + 1)
    return TileFeatures(hilbert_keys(box), number, box, values, stop, np.empty(0, np.int32))


def polygon_features(polygons: Geometries, values: NDArray[np.float32]) -> TileFeatures:
    """Features of shapely polygons and multipolygons in degrees, numbered from 1."""
    kind, coordinates, offsets = shapely.to_ragged_array(polygons, include_z=False)
    rings, parts = (level.astype(np.int64) for level in offsets[:2])
    single = kind == shapely.GeometryType.POLYGON
    whole = np.arange(len(polygons) + 1) if single else offsets[2].astype(np.int64)
    place = world_steps(coordinates[:, 0], coordinates[:, 1])
    box, stop, shape = _flattened(place, rings, parts, whole)
    number = np.arange(1, len(box) + 1)
    return TileFeatures(hilbert_keys(box), number, box, values, stop, shape)


def cut_shape(
    shape: NDArray[np.int32], box: tuple[int, int, int, int], margin: int
) -> NDArray[np.int32]:
    """The part of a shape in a box (west, north, east, south) and a margin around it."""
    west, north, east, south = box
    edges = west - margin, north - margin, east + margin, south + margin
    cut = shapely.get_parts(shapely.clip_by_rect(_polygons(shape), *edges))
    cut = cut[shapely.get_dimensions(cut) == 2]
    if not len(cut):
        return np.empty(0, np.int32)
    _, coordinates, (rings, parts) = shapely.to_ragged_array(cut, include_z=False)
    whole = np.array([0, len(cut)])
    place = np.rint(coordinates).astype(np.int32)
    return _flattened(place, rings.astype(np.int64), parts.astype(np.int64), whole)[2]


def _polygons(shape: NDArray[np.int32]) -> shapely.MultiPolygon:
    """A shape as shapely polygons in steps."""
    parts: list[list[NDArray[np.int32]]] = []
    at = 0
    while at < len(shape):
        size = abs(int(shape[at]))
        ring = shape[at + 1 : at + 1 + 2 * size].reshape(-1, 2)
        if shape[at] > 0:
            parts.append([])
        parts[-1].append(ring)
        at += 1 + 2 * size
    return shapely.MultiPolygon([(outline, holes) for outline, *holes in parts])


class FeatureSorter:
    """Takes features in batches and gives them back numbered and sorted along the curve.

    Up to :data:`RUN_FEATURES` stay in memory. More are sorted in runs, kept in files of ``folder``
    and merged there; the result then reads from a file, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._waiting: list[TileFeatures] = []
        self._runs: list[TileFeatures] = []

    def add(self, batch: TileFeatures) -> None:
        """Take the next features; their numbers go on from those before."""
        if sum(map(len, self._waiting)) + len(batch) > RUN_FEATURES and self._waiting:
            run = _StoredFeatures(self._folder, f"run-{len(self._runs)}")
            run.append(self._sorted())
            self._runs.append(run.opened())
        self._waiting.append(replace(batch, number=batch.number + self._count))
        self._count += len(batch)

    def finish(self) -> TileFeatures:
        """All features along the curve; those at the same place in the order they came."""
        if not self._runs:
            return self._sorted()
        # Files that are still mapped would keep their disk after they are unlinked.
        runs, self._runs = [*self._runs, self._sorted()], []
        merged = _StoredFeatures(self._folder, "merged")
        for low, high in pairwise(_splits([run.key for run in runs])):
            parts = []
            for run in runs:
                rows = np.searchsorted(run.key, [low, high])
                parts.append(run.between(*rows.tolist()))
            merged.append(_joined(parts).sorted())
        for path in self._folder.glob("run-*"):
            path.unlink()
        return merged.opened()

    def _sorted(self) -> TileFeatures:
        waiting, self._waiting = self._waiting, []
        return _joined(waiting).sorted()


class _StoredFeatures:
    """Features in one file per array, that are written once and then mapped into memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._paths = {field: folder / f"{name}-{field}" for field in TileFeatures.__slots__}
        self._end = 0
        self._form: dict[str, NDArray[Any]] = {}

    def append(self, features: TileFeatures) -> None:
        for field, path in self._paths.items():
            array = getattr(features, field)
            if field == "stop":
                array = array + self._end
            self._form[field] = array[:0]
            with path.open("ab") as file:
                array.tofile(file)
        self._end += len(features.shape)

    def opened(self) -> TileFeatures:
        arrays = {}
        for field, path in self._paths.items():
            form = self._form[field]
            if not path.stat().st_size:
                arrays[field] = form
                continue
            # Copy on write, for compiled code to take it like an array in memory.
            flat = np.asarray(np.memmap(path, form.dtype, mode="c"))
            arrays[field] = flat.reshape(-1, *form.shape[1:])
        return TileFeatures(**arrays)


def _joined(parts: Sequence[TileFeatures]) -> TileFeatures:
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(len(part.shape) for part in parts)]).tolist()
    stop = [part.stop + end for part, end in zip(parts, ends[:-1], strict=True)]
    return TileFeatures(
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.box for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate(stop),
        np.concatenate([part.shape for part in parts]),
    )


def _splits(keys: Sequence[NDArray[np.int64]]) -> list[int]:
    """Keys that cut the sorted runs into parts of about :data:`RUN_FEATURES` in all."""
    step = max(1, RUN_FEATURES // _SAMPLES)
    sample = np.sort(np.concatenate([run[::step] for run in keys]))
    inner = np.unique(sample[:: RUN_FEATURES // step][1:])
    return [0, *inner.tolist(), np.iinfo(np.int64).max]


@njit(cache=True, nogil=True)
def _gathered(shape, start, stop):  # type: ignore[no-untyped-def]
    """The parts of ``shape`` from ``start``, one after the other up to ``stop``."""
    gathered = np.empty(stop[-1] if len(stop) else 0, np.int32)
    at = 0
    for i in range(len(start)):
        source = start[i] - at
        while at < stop[i]:
            gathered[at] = shape[source + at]
            at += 1
    return gathered


@njit(cache=True, nogil=True)
def _flattened(place, rings, parts, whole):  # type: ignore[no-untyped-def]
    """Boxes, ends and shapes of polygons: vertices of rings, rings of parts, parts of features."""
    count = len(whole) - 1
    box = np.empty((count, 4), np.int32)
    stop = np.empty(count, np.int64)
    shape = np.empty(len(rings) + 2 * len(place), np.int32)
    at = 0
    for i in range(count):
        box[i, 0] = box[i, 1] = WORLD - 1
        box[i, 2] = box[i, 3] = 0
        for part in range(whole[i], whole[i + 1]):
            for ring in range(parts[part], parts[part + 1]):
                # The last vertex is the first again.
                first, last = rings[ring], rings[ring + 1] - 1
                shape[at] = last - first if ring == parts[part] else first - last
                at += 1
                for vertex in range(first, last):
                    x, y = place[vertex]
                    box[i, 0], box[i, 1] = min(box[i, 0], x), min(box[i, 1], y)
                    box[i, 2], box[i, 3] = max(box[i, 2], x), max(box[i, 3], y)
                    shape[at], shape[at + 1] = x, y
                    at += 2
        stop[i] = at
    return box, stop, shape[:at].copy()
