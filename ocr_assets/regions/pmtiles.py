"""PMTiles version 3 archives: what a finished archive says of itself, and the archive of nothing.

Belongs here: the fixed header, the JSON metadata, and an archive without features.
Does not belong here: making tiles out of data, which ``vector_tiles`` does, and serving them.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"PMTiles"
VERSION = 3

# PMTiles v3 specification, "Header": magic, version, eleven unsigned 64-bit offsets, lengths and
# counts, clustered, two compressions, tile type, zooms, bounds and centre in 1e-7 degrees.
_HEADER = struct.Struct("<7sB11Q6B4iB2i")
_GZIP, _VECTOR_TILE = 2, 1
_DEGREE = 10_000_000


class ArchiveError(ValueError):
    """A file that is not a readable PMTiles version 3 archive."""


@dataclass(frozen=True, slots=True)
class ArchiveHeader:
    """What the header of an archive says."""

    min_zoom: int
    max_zoom: int
    bounds: tuple[float, float, float, float]
    """West, south, east, north in degrees."""
    addressed_tiles: int
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
    except (OSError, EOFError, ValueError) as error:
        raise ArchiveError(f"{path}: its metadata cannot be read ({error}).") from error


def write_empty(path: Path, name: str, layers: Mapping[str, tuple[str, ...]]) -> None:
    """Write, atomically, an archive that describes ``layers`` and holds no feature.

    Args:
        path: the archive.
        name: the name in its metadata.
        layers: layer name to names of properties.

    The archive holds one tile without a layer (zoom 0), as a directory must not be empty.
    """
    metadata = {
        "name": name,
        "format": "pbf",
        "vector_layers": [
            {"id": layer, "minzoom": 0, "maxzoom": 0, "fields": dict.fromkeys(fields, "Number")}
            for layer, fields in layers.items()
        ],
    }
    tile = gzip.compress(b"", mtime=0)
    # One entry in varints: how many, tile id, run length, length, offset + 1.
    directory = gzip.compress(bytes([1, 0, 1, len(tile), 1]), mtime=0)
    document = gzip.compress(json.dumps(metadata, sort_keys=True).encode(), mtime=0)
    root = _HEADER.size
    told = root + len(directory)
    leaves = told + len(document)
    lengths = (root, len(directory), told, len(document), leaves, 0, leaves, len(tile))
    world = (-180 * _DEGREE, -85 * _DEGREE, 180 * _DEGREE, 85 * _DEGREE)
    kind = (1, _GZIP, _GZIP, _VECTOR_TILE)
    header = _HEADER.pack(MAGIC, VERSION, *lengths, 1, 1, 1, *kind, 0, 0, *world, 0, 0, 0)
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(header + directory + document + tile)
    os.replace(aside, path)
