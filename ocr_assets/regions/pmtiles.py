"""PMTiles version 3 archives: what a finished archive says of itself, and writing one.

Belongs here: the fixed header, the JSON metadata, the directories, and writing an archive of tiles
that are made. Does not belong here: making tiles out of data, and serving them.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"PMTiles"
VERSION = 3

# PMTiles v3 specification, "Header": magic, version, eleven unsigned 64-bit offsets, lengths and
# counts, clustered, two compressions, tile type, zooms, bounds and centre in 1e-7 degrees.
_HEADER = struct.Struct("<7sB11Q6B4iB2i")
_GZIP, _VECTOR_TILE = 2, 1
_DEGREE = 10_000_000

# A reader gets header and root directory with one request of 16 KiB.
_ROOT_BYTES = 16_384 - _HEADER.size
_LEAF_ENTRIES = 4096
_COPIED = 1 << 20

_DAMAGED = (OSError, EOFError, ValueError, zlib.error)
"""What reading compressed parts of a damaged archive raises."""

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


class ArchiveError(ValueError):
    """A file that is not a readable PMTiles version 3 archive."""


@dataclass(frozen=True, slots=True)
class ArchiveHeader:
    """What the header of an archive says."""

    min_zoom: int
    max_zoom: int
    bounds: Bounds
    addressed_tiles: int
    root_offset: int
    root_length: int
    leaves_offset: int
    metadata_offset: int
    metadata_length: int


def read_header(path: Path) -> ArchiveHeader:
    """The header of the archive at ``path``.

    Raises:
        ArchiveError: the file is missing, too short, of another kind or of another version.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER.size)
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(raw) < _HEADER.size or raw[:7] != MAGIC:
        raise ArchiveError(f"{path}: not a PMTiles archive. Make it again.")
    fields = _HEADER.unpack(raw)
    if fields[1] != VERSION:
        raise ArchiveError(f"{path}: PMTiles version {fields[1]}, only version 3 can be read.")
    west, south, east, north = (value / _DEGREE for value in fields[19:23])
    return ArchiveHeader(
        min_zoom=fields[17],
        max_zoom=fields[18],
        bounds=(west, south, east, north),
        addressed_tiles=fields[10],
        root_offset=fields[2],
        root_length=fields[3],
        leaves_offset=fields[6],
        metadata_offset=fields[4],
        metadata_length=fields[5],
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON metadata of the archive at ``path`` (``vector_layers`` lists its layers).

    Raises:
        ArchiveError: the archive or its metadata cannot be read.
    """
    header = read_header(path)
    with path.open("rb") as file:
        file.seek(header.metadata_offset)
        raw = file.read(header.metadata_length)
    try:
        return json.loads(gzip.decompress(raw))
    except _DAMAGED as error:
        raise ArchiveError(f"{path}: its metadata cannot be read ({error}).") from error


def tile_lengths(path: Path) -> NDArray[np.int64]:
    """Bytes of every entry of the archive at ``path``, compressed as they are, in order of ids.

    An entry is a tile, or a run of tiles that are alike.

    Raises:
        ArchiveError: the archive or its directories cannot be read.
    """
    header = read_header(path)

    def lengths(file: BinaryIO, place: int, size: int) -> NDArray[np.int64]:
        file.seek(place)
        numbers = _from_varints(gzip.decompress(file.read(size)))[1:].reshape(4, -1)
        _, runs, sizes, offsets = numbers
        if (runs > 0).all():
            return sizes
        leaves, after = [], header.leaves_offset
        for length, offset in zip(sizes.tolist(), offsets.tolist(), strict=True):
            # Zero stands for "right after the one before".
            start = header.leaves_offset + offset - 1 if offset else after
            leaves.append(lengths(file, start, length))
            after = start + length
        return np.concatenate(leaves)

    try:
        with path.open("rb") as file:
            return lengths(file, header.root_offset, header.root_length)
    except _DAMAGED as error:
        raise ArchiveError(f"{path}: its directory cannot be read ({error}).") from error


@dataclass(frozen=True, eq=False, slots=True)
class TileFile:
    """The tiles of one zoom, compressed with gzip, one after the other in a file.

    ``tile``: their places on the Hilbert curve of the zoom, ascending, int64; ``length``: bytes of
    each, int64.
    """

    path: Path
    zoom: int
    tile: NDArray[np.int64]
    length: NDArray[np.int64]


def write_archive(
    path: Path,
    name: str,
    layers: Mapping[str, tuple[str, ...]],
    levels: Sequence[TileFile],
    bounds: Bounds,
) -> None:
    """Write an archive of vector tiles; it appears complete or not at all.

    Args:
        path: the archive.
        name: the name in its metadata.
        layers: layer name to names of properties, all numbers.
        levels: the tiles of each zoom, from the lowest, at least one tile.
        bounds: west, south, east and north of what they show, in degrees.
    """
    low, high = levels[0].zoom, levels[-1].zoom
    # Tiles of lower zooms come first: (4**zoom - 1) / 3 of them.
    ids = np.concatenate([level.tile + (4**level.zoom - 1) // 3 for level in levels])
    lengths = np.concatenate([level.length for level in levels])
    root, leaves = _directories(ids, lengths)
    document = gzip.compress(_metadata(name, layers, low, high), mtime=0)
    told = _HEADER.size + len(root)
    leaf = told + len(document)
    data = leaf + len(leaves)
    places = (_HEADER.size, len(root), told, len(document), leaf, len(leaves))
    counts = (data, int(lengths.sum()), *(len(ids),) * 3)
    edges = [round(edge * _DEGREE) for edge in bounds]
    centre = low, (edges[0] + edges[2]) // 2, (edges[1] + edges[3]) // 2
    # Clustered: the data of the tiles are in the order of their ids.
    kind = (1, _GZIP, _GZIP, _VECTOR_TILE)
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            file.write(
                _HEADER.pack(MAGIC, VERSION, *places, *counts, *kind, low, high, *edges, *centre)
            )
            file.write(root + document + leaves)
            for level in levels:
                with level.path.open("rb") as tiles:
                    shutil.copyfileobj(tiles, file, _COPIED)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_empty(path: Path, name: str, layers: Mapping[str, tuple[str, ...]]) -> None:
    """Write an archive that describes ``layers`` and holds no feature.

    The archive holds one tile without a layer (zoom 0), as a directory must not be empty. Arguments
    are those of :func:`write_archive`.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tile-") as scratch:
        tile = gzip.compress(b"", mtime=0)
        scratch.write(tile)
        scratch.flush()
        only = TileFile(Path(scratch.name), 0, np.zeros(1, np.int64), np.array([len(tile)]))
        write_archive(path, name, layers, [only], (-180, -85, 180, 85))


def _metadata(name: str, layers: Mapping[str, tuple[str, ...]], low: int, high: int) -> bytes:
    described = [
        {"id": layer, "minzoom": low, "maxzoom": high, "fields": dict.fromkeys(fields, "Number")}
        for layer, fields in layers.items()
    ]
    document = {"name": name, "format": "pbf", "vector_layers": described}
    return json.dumps(document, sort_keys=True).encode()


def _directories(ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """The root directory and the leaf directories behind it, if one directory is not enough."""
    offsets = np.cumsum(lengths) - lengths
    runs = np.ones(len(ids), np.int64)
    # A directory has more than a byte for each entry; to see that takes a kilobyte for each.
    root = _directory(ids, runs, lengths, offsets) if len(ids) <= _ROOT_BYTES else None
    size = _LEAF_ENTRIES
    leaves: list[bytes] = []
    while root is None or len(root) > _ROOT_BYTES:
        starts = range(0, len(ids), size)
        leaves = [
            _directory(*(column[at : at + size] for column in (ids, runs, lengths, offsets)))
            for at in starts
        ]
        sizes = np.array([len(leaf) for leaf in leaves], np.int64)
        # A run of zero tiles says that the entry is a leaf.
        root = _directory(ids[starts], np.zeros_like(sizes), sizes, np.cumsum(sizes) - sizes)
        size *= 2
    return root, b"".join(leaves)


def _directory(
    ids: NDArray[np.int64],
    runs: NDArray[np.int64],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> bytes:
    """A directory as the format has it: ids as differences, offsets of what follows on as zero."""
    follows = np.append(False, offsets[1:] == offsets[:-1] + lengths[:-1])
    columns = (np.diff(ids, prepend=0), runs, lengths, np.where(follows, 0, offsets + 1))
    numbers = np.concatenate([[len(ids)], *columns]).astype(np.uint64)
    return gzip.compress(_varints(numbers), mtime=0)


def _varints(numbers: NDArray[np.uint64]) -> bytes:
    """Numbers in base 128, the lowest digit first; all digits but the last have the top bit."""
    places = np.arange(0, 64, 7, dtype=np.uint64)
    digits = numbers[:, None] >> places
    further = digits >> np.uint64(7) > 0
    coded = (digits & np.uint64(127) | further.astype(np.uint64) << np.uint64(7)).astype(np.uint8)
    used = (digits > 0) | (places == 0)
    return coded[used].tobytes()


def _from_varints(data: bytes) -> NDArray[np.int64]:
    digits = np.frombuffer(data, np.uint8)
    last = digits < 128
    first = np.flatnonzero(np.append(True, last[:-1]))
    place = np.arange(len(digits)) - np.repeat(first, np.diff(np.append(first, len(digits))))
    return np.add.reduceat((digits & 127).astype(np.int64) << 7 * place, first)
