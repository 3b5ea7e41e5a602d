"""Reading archives of vector tiles independently of the code that writes them."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_TILE = 500_000

Place = tuple[int, int, int]
"""Zoom, column and row of a tile."""


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def tile_sizes(path: Path) -> list[int]:
    """Bytes of every tile of a PMTiles archive, as a browser fetches them."""
    data = path.read_bytes()
    root, root_length, _, _, leaves = np.frombuffer(data[8:48], "<u8").tolist()

    def sizes(start: int, length: int) -> Iterator[int]:
        numbers = _varints(gzip.decompress(data[start : start + length]))
        count = next(numbers)
        _, runs, lengths, offsets = (list(itertools.islice(numbers, count)) for _ in range(4))
        place = 0
        for run, size, offset in zip(runs, lengths, offsets, strict=True):
            # Zero stands for "right after the one before".
            here = offset - 1 if offset else place
            place = here + size
            if run:
                yield size
            else:
                yield from sizes(leaves + here, size)

    return list(sizes(root, root_length))


def position(longitude: ArrayLike, latitude: ArrayLike, zoom: int) -> NDArray[np.float64]:
    """Where places lie in the XYZ scheme of Web Mercator, in tiles from the north-west: x, y."""
    x = (np.asarray(longitude) + 180) / 360
    y = (1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2
    return np.stack([x, y]) * 2**zoom


def decoded(archive: Path, low: int, high: int | None = None) -> dict[Place, list[dict[str, Any]]]:
    """Features of every tile from zoom ``low`` to ``high``, by tippecanoe's decoder.

    Each has the name of its ``layer`` beside what GeoJSON says.
    """
    zooms = f"-Z{low}", f"-z{low if high is None else high}"
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "tippecanoe-decode"), *zooms, archive],
        check=True,
        capture_output=True,
        text=True,
    )
    tiles = {}
    for tile in json.loads(done.stdout)["features"]:
        where = tile["properties"]
        tiles[where["zoom"], where["x"], where["y"]] = [
            feature | {"layer": layer["properties"]["layer"]}
            for layer in tile["features"]
            for feature in layer["features"]
        ]
    return tiles


def features_at(archive: Path, zoom: int) -> list[dict[str, Any]]:
    """Features of a zoom, as often as tiles hold them."""
    return [feature for tile in decoded(archive, zoom).values() for feature in tile]


def properties_by_id(features: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Properties of each different feature."""
    return {feature["id"]: feature["properties"] for feature in features}
