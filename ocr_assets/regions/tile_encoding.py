"""Features as Mapbox vector tiles, many tiles at a time.

Belongs here: the bytes of a tile (Mapbox Vector Tile specification 2.1), and polygons on its grid.
Does not belong here: which features a tile shows.

A tile has 4096 steps a side. A point lies in one tile. A polygon is written whole into every tile
it is given to, unless it was cut. A ring loses the vertices that say nothing on the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.regions.mercator import LEVELS, hilbert_cell
from ocr_assets.regions.tile_features import TileFeatures

EXTENT_LEVELS = 12
EXTENT = 1 << EXTENT_LEVELS

_FEATURE_BYTES, _VALUE_BYTES, _SHAPE_BYTES = 96, 20, 6
"""More than a feature, each of its values, and each number of its shape can take."""

_LINE_TO, _CLOSE = 2, 15


@dataclass(frozen=True, eq=False, slots=True)
class Members:
    """The features of some tiles of one zoom, by tile.

    ``tile``: places of the tiles on the curve of their zoom, int64 ``(t,)``. ``first``: where the
    members of each begin, int64 ``(t + 1,)``. ``row``: rows of the features, int64 ``(m,)``.
    ``start``, ``stop``: their part of the shapes, int64; of ``cut`` instead if ``start`` is
    negative, from ``-1 - start`` on. ``cut``: shapes of polygons that were cut, int32.
    """

    tile: NDArray[np.int64]
    first: NDArray[np.int64]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    cut: NDArray[np.int32]

    @classmethod
    def by_tile(
        cls,
        tile: NDArray[np.int64],
        row: NDArray[np.int64],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
        cut: NDArray[np.int32],
    ) -> Self:
        """Members of which each says its tile; tiles are in order."""
        tiles, first = np.unique(tile, return_index=True)
        return cls(tiles, np.append(first, len(tile)), row, start, stop, cut)

    def only(self, kept: NDArray[np.bool_]) -> Self:
        """The members that are ``kept``, bool ``(m,)``, and the tiles that then have any."""
        tile = np.repeat(self.tile, np.diff(self.first))[kept]
        rows = self.row[kept], self.start[kept], self.stop[kept]
        return self.by_tile(tile, *rows, self.cut)

    def of_tile(self, place: int) -> Self:
        """The members of one tile."""
        chosen = np.zeros(len(self.row), bool)
        chosen[self.first[place] : self.first[place + 1]] = True
        return self.only(chosen)


class LayerEncoder:
    """Writes tiles with one layer, whose properties are float32.

    Args:
        name: of the layer.
        keys: of the properties.
    """

    def __init__(self, name: str, keys: Sequence[str]) -> None:
        # Version 2 and name; at the end the keys and the extent. Fields may come in any order.
        text = name.encode()
        self._head = b"\x78\x02\x0a" + _varint(len(text)) + text
        texts = [key.encode() for key in keys]
        self._tail = b"".join(b"\x1a" + _varint(len(text)) + text for text in texts)
        self._tail += b"\x28" + _varint(EXTENT)

    def encode(
        self, zoom: int, features: TileFeatures, members: Members, least: int
    ) -> list[bytes]:
        """The tiles of ``members``, not compressed.

        Args:
            zoom: of the tiles.
            features: all features.
            members: the tiles and what lies in them.
            least: polygons of fewer steps in both directions are drawn as squares of this side.
        """
        start = np.where(members.start < 0, -1 - members.start, members.start)
        numbers = int((members.stop - start).sum())
        size = len(members.row) * (_FEATURE_BYTES + _VALUE_BYTES * features.values.shape[1])
        out = np.empty(size + numbers * _SHAPE_BYTES, np.uint8)
        ends = _encoded(
            *(zoom, least, members.tile, members.first, members.row, members.start, members.stop),
            *(features.number, features.box, features.values.view(np.uint32)),
            *(features.shape, members.cut, out),
        )
        body = memoryview(out)  # type: ignore[arg-type]
        tiles = []
        begin = 0
        for end in ends.tolist():
            size = len(self._head) + end - begin + len(self._tail)
            tiles.append(
                b"".join([b"\x1a", _varint(size), self._head, body[begin:end], self._tail])
            )
            begin = end
        return tiles


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@njit(cache=True, nogil=True)
def _put(out, at, value):  # type: ignore[no-untyped-def]
    """Write a number as a varint; where the next byte goes."""
    while value > 127:
        out[at] = value & 127 | 128
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@njit(cache=True, nogil=True)
def _put_signed(out, at, value):  # type: ignore[no-untyped-def]
    return _put(out, at, value << 1 if value >= 0 else (-value << 1) - 1)


@njit(cache=True, nogil=True)
def _encoded(  # type: ignore[no-untyped-def]
    zoom, least, tiles, first, rows, starts, stops, numbers, box, bits, shape, cut, out
):
    """Features, then values of each tile; where the bytes of each tile end in ``out``."""
    ends = np.empty(len(tiles), np.int64)
    properties = bits.shape[1]
    fullest = longest = 0
    for t in range(len(tiles)):
        fullest = max(fullest, first[t + 1] - first[t])
    for m in range(len(rows)):
        start = starts[m] if starts[m] >= 0 else -1 - starts[m]
        longest = max(longest, stops[m] - start)
    slots = 1
    while slots < 2 * fullest * properties:
        slots *= 2
    slot_tile = np.full(slots, -1, np.int64)
    slot_value = np.empty(slots, np.int64)
    unique = np.empty(fullest * properties, np.uint32)
    tags = np.empty(16 + _VALUE_BYTES * properties, np.uint8)
    geometry = np.empty(_FEATURE_BYTES + _SHAPE_BYTES * longest, np.uint8)
    ring = np.empty((longest // 2 + 4, 2), np.int64)
    shift = LEVELS - EXTENT_LEVELS - zoom
    at = 0
    for t in range(len(tiles)):
        count = 0
        left, top = hilbert_cell(tiles[t], zoom)
        left, top = left << EXTENT_LEVELS, top << EXTENT_LEVELS
        for m in range(first[t], first[t + 1]):
            row = rows[m]
            if starts[m] == stops[m]:
                length = _put_point(geometry, box[row], left, top, shift)
            elif starts[m] >= 0:
                part = shape[starts[m] : stops[m]]
                length = _put_polygon(geometry, ring, part, left, top, shift, box[row], least)
            else:
                part = cut[-1 - starts[m] : stops[m]]
                length = _put_rings(geometry, ring, part, left, top, shift)
            if not length:
                continue
            tagged = 0
            for k in range(properties):
                value = bits[row, k]
                if value & 0x7F800000 == 0x7F800000:
                    # Not a number: a property that the feature does not have.
                    continue
                slot = (np.int64(value) * 2654435761 >> 7) & (slots - 1)
                while slot_tile[slot] == t and unique[slot_value[slot]] != value:
                    slot = (slot + 1) & (slots - 1)
                if slot_tile[slot] != t:
                    slot_tile[slot], slot_value[slot] = t, count
                    unique[count] = value
                    count += 1
                tagged = _put(tags, tagged, k)
                tagged = _put(tags, tagged, slot_value[slot])
            at = _put_feature(
                out, at, numbers[row], tags[:tagged], geometry[:length], starts[m] == stops[m]
            )
        for i in range(count):
            # A value of five bytes: a float of four.
            out[at], out[at + 1], out[at + 2] = 0x22, 5, 0x15
            for byte in range(4):
                out[at + 3 + byte] = (unique[i] >> (8 * byte)) & 255
            at += 7
        ends[t] = at
    return ends


@njit(cache=True, nogil=True)
def _varint_bytes(value):  # type: ignore[no-untyped-def]
    size = 1
    while value > 127:
        value >>= 7
        size += 1
    return size


@njit(cache=True, nogil=True)
def _put_feature(out, at, number, tags, geometry, point):  # type: ignore[no-untyped-def]
    size = 1 + _varint_bytes(number) + 2
    size += 1 + _varint_bytes(len(tags)) + len(tags)
    size += 1 + _varint_bytes(len(geometry)) + len(geometry)
    out[at] = 0x12
    at = _put(out, at + 1, size)
    out[at] = 0x08
    at = _put(out, at + 1, number)
    out[at] = 0x12
    at = _put(out, at + 1, len(tags))
    out[at : at + len(tags)] = tags
    at += len(tags)
    out[at], out[at + 1], out[at + 2] = 0x18, 1 if point else 3, 0x22
    at = _put(out, at + 3, len(geometry))
    out[at : at + len(geometry)] = geometry
    return at + len(geometry)


@njit(cache=True, nogil=True)
def _put_point(out, box, left, top, shift):  # type: ignore[no-untyped-def]
    half = 1 << shift >> 1
    # A map draws no point that lies on the far edges.
    x = min(((np.int64(box[0]) + half) >> shift) - left, EXTENT - 1)
    y = min(((np.int64(box[1]) + half) >> shift) - top, EXTENT - 1)
    out[0] = 9
    at = _put_signed(out, 1, x)
    return _put_signed(out, at, y)


@njit(cache=True, nogil=True)
def _put_polygon(out, ring, shape, left, top, shift, box, least):  # type: ignore[no-untyped-def]
    """A polygon, or the rectangle that stands for it where it is too small for the grid."""
    half = 1 << shift >> 1
    west, east = (np.int64(box[0]) + half) >> shift, (np.int64(box[2]) + half) >> shift
    north, south = (np.int64(box[1]) + half) >> shift, (np.int64(box[3]) + half) >> shift
    if east - west >= least or south - north >= least:
        length = _put_rings(out, ring, shape, left, top, shift)
        if length:
            return length
        least = 1
    if east - west < least:
        west = (west + east - least + 1) >> 1
        east = west + least
    if south - north < least:
        north = (north + south - least + 1) >> 1
        south = north + least
    out[0] = 9
    at = _put_signed(out, 1, west - left)
    at = _put_signed(out, at, north - top)
    at = _put(out, at, 3 << 3 | _LINE_TO)
    at = _put_signed(out, at, east - west)
    at = _put_signed(out, at, 0)
    at = _put_signed(out, at, 0)
    at = _put_signed(out, at, south - north)
    at = _put_signed(out, at, west - east)
    at = _put_signed(out, at, 0)
    out[at] = _CLOSE
    return at + 1


@njit(cache=True, nogil=True)
def _put_rings(out, ring, shape, left, top, shift):  # type: ignore[no-untyped-def]
    """All rings that have an area on the grid; the number of bytes."""
    half = 1 << shift >> 1
    at = here = 0
    x = y = 0
    shown = False
    while here < len(shape):
        size = abs(np.int64(shape[here]))
        hole = shape[here] < 0
        here += 1
        count = 0
        for _ in range(size):
            px = ((np.int64(shape[here]) + half) >> shift) - left
            py = ((np.int64(shape[here + 1]) + half) >> shift) - top
            here += 2
            count = _extended(ring, count, px, py)
        count, begin = _closed(ring, count)
        area = 0
        for i in range(begin, count):
            j = i + 1 if i + 1 < count else begin
            area += ring[i, 0] * ring[j, 1] - ring[j, 0] * ring[i, 1]
        if not hole:
            shown = area != 0
        if area == 0 or not shown:
            continue
        # Downwards on the page is positive: an outline has a positive area, a hole a negative one.
        forward = (area > 0) != hole
        for i in range(count - begin):
            place = begin + i if forward else count - 1 - i
            if i == 0:
                at = _put(out, at, 9)
            elif i == 1:
                at = _put(out, at, (count - begin - 1) << 3 | _LINE_TO)
            at = _put_signed(out, at, ring[place, 0] - x)
            at = _put_signed(out, at, ring[place, 1] - y)
            x, y = ring[place]
        out[at] = _CLOSE
        at += 1
    return at


@njit(cache=True, nogil=True)
def _straight(ring, a, b, x, y):  # type: ignore[no-untyped-def]
    """Whether vertex ``b`` lies on one line with ``a`` and a point."""
    across = (ring[b, 0] - ring[a, 0]) * (y - ring[b, 1])
    return across == (ring[b, 1] - ring[a, 1]) * (x - ring[b, 0])


@njit(cache=True, nogil=True)
def _extended(ring, count, x, y):  # type: ignore[no-untyped-def]
    """The ring with one more vertex, less the ones that then lie on a line; how many it has."""
    while count >= 2 and _straight(ring, count - 2, count - 1, x, y):
        count -= 1
    if count and ring[count - 1, 0] == x and ring[count - 1, 1] == y:
        return count
    ring[count, 0], ring[count, 1] = x, y
    return count + 1


@njit(cache=True, nogil=True)
def _closed(ring, count):  # type: ignore[no-untyped-def]
    """End and beginning of the ring without vertices on a line across its seam."""
    begin = 0
    while count - begin >= 3:
        first, second = ring[begin], ring[begin + 1]
        if _straight(ring, count - 2, count - 1, first[0], first[1]):
            count -= 1
        elif _straight(ring, count - 1, begin, second[0], second[1]):
            begin += 1
        else:
            break
    return count, begin
