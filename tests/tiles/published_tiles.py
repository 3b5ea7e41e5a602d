"""Small worlds of published tree-cover tiles, written as the product is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.product import PixelBox, pixel_box, write_tree_cover_cog
from ocr_assets.tiles.tree_cover import NODATA

BLOCK = tuple(Tile(x, y) for x in (1034, 1035) for y in (726, 727))
"""Four tiles that share a corner in Mato Grosso."""


@dataclass(frozen=True)
class PublishedTiles:
    """Tiles on disk, and their pixels as one array, row 0 in the north."""

    grid: TileGrid
    paths: dict[Tile, Path]
    box: PixelBox
    percent: NDArray[np.uint8]

    def without(self, *tiles: Tile) -> dict[Tile, Path]:
        """The files, some taken away."""
        return {tile: path for tile, path in self.paths.items() if tile not in tiles}


def union(boxes: Iterable[PixelBox]) -> PixelBox:
    """The least box that holds all."""
    every = list(boxes)
    return PixelBox(
        min(box.west for box in every),
        min(box.south for box in every),
        max(box.east for box in every),
        max(box.north for box in every),
    )


def part(box: PixelBox, of: PixelBox) -> tuple[slice, slice]:
    """Where ``box`` lies in an array of the pixels of ``of``."""
    return (
        slice(of.north - box.north, of.north - box.south),
        slice(box.west - of.west, box.east - of.west),
    )


def publish(folder: Path, tiles: Iterable[Tile] = BLOCK, seed: int = 0) -> PublishedTiles:
    """Write tiles of patchy synthetic tree cover with some noise and a hole without data."""
    grid = TileGrid.load()
    boxes = {tile: pixel_box(grid, tile) for tile in tiles}
    box = union(boxes.values())
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(box.shape)
    waves = 60 + 70 * np.sin(rows / 37) * np.cos(columns / 23)
    percent = np.clip(waves + rng.integers(-15, 15, box.shape), 0, 100).astype(np.uint8)
    percent[100:110, 50:80] = NODATA
    paths = {}
    for tile, own in boxes.items():
        paths[tile] = folder / f"{tile.x}" / f"{tile.y}" / f"{tile.key}_FINAL.tif"
        write_tree_cover_cog(paths[tile], percent[part(own, box)], own, {"synthetic": True})
    return PublishedTiles(grid, paths, box, percent)
