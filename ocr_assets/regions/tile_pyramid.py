"""From sorted features to an archive of tiles: what each zoom shows, and how large tiles get.

Belongs here: thinning, the limit of a tile, tiles of one zoom after the other, and the archive.
Does not belong here: the bytes of a tile (``tile_encoding``) and of the archive (``pmtiles``).

The highest zoom has every feature. A lower zoom has one feature of every cell of a grid that is
nested from zoom to zoom: as fine as half a pixel, coarser only where a tile would be too large.
It is the one with the least hash of its number, so that it lies anywhere in the cell: always the
first, or the one in the middle, would draw the grid. So what a zoom shows is the same for the same
features, and is in every higher zoom.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.mercator import LEVELS, degrees, hilbert_index, shared_bits, tile_box
from ocr_assets.regions.pmtiles import Bounds, TileFile, write_archive
from ocr_assets.regions.tile_encoding import EXTENT_LEVELS, LayerEncoder, Members
from ocr_assets.regions.tile_features import TileFeatures, cut_shape

LARGEST_TILE = 500_000
"""Bytes of a compressed tile. Below the highest zoom none is larger."""

HIGHEST_ZOOM = 18
"""The highest zoom rises up to here while one of its tiles is too large."""

_CELL_BITS = 20
"""A tile of 512 pixels has cells of half a pixel: what they hide could not be told apart."""

_MARGIN = 32
"""Steps (4 pixels) beyond its edge from which a tile shows polygons, for the lines around them."""

_SMALLEST = 8
"""Steps (one pixel) of a side of a polygon below the highest zoom, so that it does not vanish."""

_WIDEST = 2048
"""Steps of a polygon that is written whole; viewers refuse places far beyond a tile."""

_EVERY = 2 * LEVELS + 1
_BLOCK = 1 << 18
_COMPRESSION = 6


@dataclass(frozen=True, slots=True)
class TileLayer:
    """The layer of an archive.

    Attributes:
        archive: name of the archive, in its metadata.
        name: name of the layer.
        properties: how many values features have; their keys are "0", "1"...
        low: lowest zoom.
        high: highest zoom, unless tiles are too large there.
    """

    archive: str
    name: str
    properties: int
    low: int
    high: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the properties."""
        return tuple(map(str, range(self.properties)))


def write_tiles(features: TileFeatures, layer: TileLayer, output: Path, folder: Path) -> None:
    """Write the archive of ``features`` (at least one), sorted along the curve.

    Args:
        features: points, or polygons.
        layer: what they are.
        output: the archive; it appears complete or not at all.
        folder: where scratch files may lie.
    """
    maker = _Maker(features, layer, folder)
    high = layer.high
    top = maker.zoom(high, _EVERY)
    while top.tiles.length.max() > LARGEST_TILE and high < HIGHEST_ZOOM:
        top.tiles.path.unlink()
        high += 1
        top = maker.zoom(high, _EVERY)
    levels = [top]
    for zoom in range(high - 1, layer.low - 1, -1):
        fitting = maker.detail(zoom, int(LARGEST_TILE / top.each))
        # Not finer than above, for what is shown here to be shown there.
        detail = min(levels[-1].detail, 2 * zoom + _CELL_BITS, fitting)
        levels.append(maker.zoom(zoom, detail))
    files = [level.tiles for level in reversed(levels)]
    fields = {layer.name: layer.keys}
    write_archive(output, layer.archive, fields, files, _bounds(features))


@dataclass(frozen=True, eq=False, slots=True)
class _Level:
    """The tiles of a zoom.

    ``each``: bytes that a feature takes in the largest of them; ``detail``: bits of the coarsest
    grid that one of them needed. Cells of ``n`` bits are features with the same first ``n`` bits of
    their keys: squares for even ``n``, halves of these for odd ones.
    """

    tiles: TileFile
    each: float
    detail: int


class _Maker:
    """Makes the tiles of one zoom after the other."""

    def __init__(self, features: TileFeatures, layer: TileLayer, folder: Path) -> None:
        self._features = features
        self._folder = folder
        self._encoder = LayerEncoder(layer.name, layer.keys)
        self._hidden = _hidden_bits(features.key, features.number)

    def detail(self, zoom: int, fit: int) -> int:
        """Bits of the finest grid of which no tile of ``zoom`` shows more than ``fit`` cells."""
        counts = np.zeros(_EVERY, np.int64)
        fullest = np.zeros(_EVERY, np.int64)
        tile = -1
        for low, high in _blocks(len(self._features)):
            rows = self._features.key[low:high], self._hidden[low:high]
            tile = _count_cells(*rows, 2 * (LEVELS - zoom), tile, counts, fullest)
        _keep_fullest(counts, fullest)
        # Place ``n`` tells of the grid of ``n + 1`` bits. A tile has two cells at least.
        return int(np.flatnonzero(fullest <= fit).max(initial=2 * zoom)) + 1

    def zoom(self, zoom: int, detail: int) -> _Level:
        """Write the tiles of a zoom, in order, with one feature of each cell of a grid.

        Args:
            zoom: of the tiles.
            detail: bits of the grid. All features have a place with :data:`_EVERY`.
        """
        tiles, lengths, each, coarsest = [], [], (0, 0.0), detail
        path = self._folder / f"zoom-{zoom}"
        with path.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            for members in self._members(zoom, detail):
                plain = self._encode(zoom, members, detail)
                for place, packed in enumerate(pool.map(_packed, plain)):
                    if detail < _EVERY and len(packed) > LARGEST_TILE:
                        packed, used = self._fitting(zoom, members.of_tile(place), detail)
                        coarsest = min(coarsest, used)
                    file.write(packed)
                    lengths.append(len(packed))
                    held = int(members.first[place + 1] - members.first[place])
                    each = max(each, (len(packed), len(packed) / held))
                tiles.append(members.tile)
        written = TileFile(path, zoom, np.concatenate(tiles), np.array(lengths))
        return _Level(written, each[1], coarsest)

    def _encode(self, zoom: int, members: Members, detail: int) -> list[bytes]:
        least = 1 if detail == _EVERY else _SMALLEST
        return self._encoder.encode(zoom, self._features, members, least)

    def _fitting(self, zoom: int, members: Members, detail: int) -> tuple[bytes, int]:
        """One tile with a coarser grid, as fine as the limit allows, and the grid's bits."""
        while True:
            detail -= 1
            members = members.only(self._hidden[members.row] < detail)
            (plain,) = self._encode(zoom, members, detail)
            if len(packed := _packed(plain)) <= LARGEST_TILE or detail <= 2 * zoom + 1:
                return packed, detail

    def _members(self, zoom: int, detail: int) -> Iterator[Members]:
        """The tiles of a zoom and what they show, some hundred thousand features at a time."""
        features, shift = self._features, 2 * (LEVELS - zoom)
        stray_tile, stray_row = self._strays(zoom, detail)
        waiting = np.empty(0, np.int64)
        for low, high in _blocks(len(features)):
            shown = low + np.flatnonzero(self._hidden[low:high] < detail)
            waiting = np.concatenate([waiting, shown])
            tile = features.key[waiting] >> shift
            complete, bound = len(waiting), np.iinfo(np.int64).max
            if high < len(features):
                # The last tile may go on in the next block.
                bound = tile[-1]
                complete = int(np.searchsorted(tile, bound))
                if complete < _BLOCK:
                    continue
            strays = int(np.searchsorted(stray_tile, bound))
            yield _assembled(
                features,
                zoom,
                np.concatenate([tile[:complete], stray_tile[:strays]]),
                np.concatenate([waiting[:complete], stray_row[:strays]]),
            )
            waiting = waiting[complete:]
            stray_tile, stray_row = stray_tile[strays:], stray_row[strays:]

    def _strays(self, zoom: int, detail: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tiles besides their own that polygons reach into, and the rows of these, by tile."""
        features = self._features
        found = [np.empty((0, 2), np.int64)]
        if len(features.shape):
            for low, high in _blocks(len(features)):
                rows = features.key[low:high], features.box[low:high], self._hidden[low:high]
                found.append(_reached(*rows, detail, zoom, low))
        tile, row = np.concatenate(found).T
        order = np.lexsort((row, tile))
        return tile[order], row[order]


def _packed(tile: bytes) -> bytes:
    return gzip.compress(tile, _COMPRESSION, mtime=0)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for low in range(0, count, _BLOCK):
        yield low, min(low + _BLOCK, count)


def _assembled(
    features: TileFeatures, zoom: int, tile: NDArray[np.int64], row: NDArray[np.int64]
) -> Members:
    """Members of all tiles, with polygons cut to a tile where they are too wide for it."""
    order = np.lexsort((row, tile))
    tile, row = tile[order], row[order]
    stop = features.stop[row]
    start = np.where(row > 0, features.stop[np.maximum(row - 1, 0)], 0)
    shift = LEVELS - EXTENT_LEVELS - zoom
    box = features.box[row]
    wide = np.flatnonzero(
        np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) > _WIDEST << shift
    )
    cuts, at = [np.empty(0, np.int32)], 0
    for place in wide.tolist():
        shape = features.shape[start[place] : stop[place]]
        cut = cut_shape(shape, tile_box(int(tile[place]), zoom), _MARGIN << shift)
        start[place], stop[place] = -1 - at, at + len(cut)
        at += len(cut)
        cuts.append(cut)
    empty = (start < 0) & (stop == -1 - start)
    members = Members.by_tile(tile, row, start, stop, np.concatenate(cuts))
    return members.only(~empty) if empty.any() else members


def _bounds(features: TileFeatures) -> Bounds:
    low = np.array([features.box[a:b].min(0) for a, b in _blocks(len(features))]).min(0)
    high = np.array([features.box[a:b].max(0) for a, b in _blocks(len(features))]).max(0)
    x, y = degrees(np.array([low[0], high[2]], float), np.array([high[3], low[1]], float))
    return x[0], y[0], x[1], y[1]


@njit(cache=True, nogil=True)
def _hidden_bits(keys, numbers):  # type: ignore[no-untyped-def]
    """Bits of the finest grid in whose cell another feature has a smaller hash, uint8 ``(n,)``.

    Grids of more bits show the feature. Keys are sorted, so of all with a smaller hash the nearest
    on either side shares most with it. A stack has those that wait for their nearest one behind;
    hashes grow along it.
    """
    hidden = np.zeros(len(keys), np.uint8)
    waiting, hashes = np.empty(64, np.int64), np.empty(64, np.uint64)
    depth = 0
    for i in range(len(keys)):
        value = _hash(numbers[i])
        while depth and hashes[depth - 1] > value:
            depth -= 1
            last = waiting[depth]
            hidden[last] = max(hidden[last], shared_bits(keys[last], keys[i]))
        if depth:
            hidden[i] = shared_bits(keys[waiting[depth - 1]], keys[i])
        if depth == len(waiting):
            waiting, hashes = np.append(waiting, waiting), np.append(hashes, hashes)
        waiting[depth], hashes[depth] = i, value
        depth += 1
    return hidden


@njit(cache=True, nogil=True)
def _hash(number):  # type: ignore[no-untyped-def]
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): no two numbers have the same."""
    value = np.uint64(number)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _count_cells(keys, hidden, shift, tile, counts, fullest):  # type: ignore[no-untyped-def]
    """Count features by the bits that hide them, tile by tile; the last tile stays open."""
    for i in range(len(keys)):
        here = keys[i] >> shift
        if here != tile:
            _keep_fullest(counts, fullest)
            tile = here
        counts[hidden[i]] += 1
    return tile


@njit(cache=True, nogil=True)
def _keep_fullest(counts, fullest):  # type: ignore[no-untyped-def]
    cells = 0
    for bits in range(len(counts)):
        cells += counts[bits]
        fullest[bits] = max(fullest[bits], cells)
        counts[bits] = 0


@njit(cache=True, nogil=True)
def _reached(keys, boxes, hidden, detail, zoom, first):  # type: ignore[no-untyped-def]
    """Tile and row of every shown box in a tile that is not its own, int64 ``(n, 2)``."""
    shift = LEVELS - zoom
    margin = _MARGIN << (shift - EXTENT_LEVELS)
    last = (1 << zoom) - 1
    found = np.empty((64, 2), np.int64)
    count = 0
    for i in range(len(keys)):
        if hidden[i] >= detail:
            continue
        own = keys[i] >> (2 * shift)
        west, east = max((boxes[i, 0] - margin) >> shift, 0), (boxes[i, 2] + margin) >> shift
        north, south = max((boxes[i, 1] - margin) >> shift, 0), (boxes[i, 3] + margin) >> shift
        if west == east and north == south:
            continue
        for x in range(west, min(east, last) + 1):
            for y in range(north, min(south, last) + 1):
                tile = hilbert_index(x, y, zoom)
                if tile == own:
                    continue
                if count == len(found):
                    grown = np.empty((2 * count, 2), np.int64)
                    grown[:count] = found
                    found = grown
                found[count, 0], found[count, 1] = tile, first + i
                count += 1
    return found[:count].copy()
