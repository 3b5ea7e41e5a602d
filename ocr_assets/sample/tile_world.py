"""The sample world of the tiles wing: imagery of two tiles, a request for them, and polygons.

Belongs here: putting together what a person needs to try the wing without any service. Does not
belong here: how scenes are made up.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import shapely

from ocr_assets.sample.imagery import DEFAULT_TILES, NOTICE, build_sample_imagery
from ocr_assets.tiles.grid import Tile, TileGrid, tile_geobox

VERSION = 2
"""Part of the recipe: raised when the same recipe gives another world."""

YEAR = 2023
OPTICAL_DATES = 12

REQUEST, POLYGONS, SETTINGS = "tiles.csv", "polygons.geojson", "sample.env"
"""Names of the files beside the imagery."""

_RECIPE = "recipe.json"
_DIGITS = 6


def build_sample_tiles(folder: Path, *, optical_dates: int = OPTICAL_DATES) -> Path:
    """Write the sample world of tiles to ``folder``, which is its own, and return ``folder``.

    Beside the imagery lie a request for its tiles, polygons, and an env file that makes the imagery
    the source of scenes. What was made by the same recipe is kept.

    Args:
        folder: for this world alone; what is in it is replaced.
        optical_dates: optical days of the year.
    """
    recipe = json.dumps(
        {"version": VERSION, "year": YEAR, "tiles": DEFAULT_TILES, "dates": optical_dates}
    )
    marker = folder / _RECIPE
    if marker.is_file() and marker.read_text() == recipe:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    grid, tiles = TileGrid.load(), [Tile.parse(tile) for tile in DEFAULT_TILES]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        aside = Path(temporary) / "imagery"
        aside.mkdir()
        geoboxes = [tile_geobox(grid, tile) for tile in tiles]
        build_sample_imagery(aside, geoboxes, year=YEAR, optical_dates=optical_dates)
        write_sample_files(aside, folder)
        (aside / _RECIPE).write_text(recipe)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    return folder


def write_sample_files(folder: Path, imagery: Path) -> None:
    """Write what lies beside the imagery: a request for its tiles, polygons, and settings.

    Args:
        folder: where the files are written.
        imagery: folder of the scenes that the settings name.
    """
    grid, tiles = TileGrid.load(), [Tile.parse(tile) for tile in DEFAULT_TILES]
    _write_request(folder / REQUEST, grid, tiles)
    _write_polygons(folder / POLYGONS, grid, tiles)
    _write_settings(folder / SETTINGS, imagery)


def _write_request(path: Path, grid: TileGrid, tiles: list[Tile]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Year", "X", "Y", "Y_tile", "X_tile"))
        for tile in tiles:
            writer.writerow((YEAR, *grid.centre(tile), tile.y, tile.x))


def _write_polygons(path: Path, grid: TileGrid, tiles: list[Tile]) -> None:
    """One polygon within a tile, one on the border of both, one that reaches beyond them."""
    west, south, east, _ = grid.bbox(tiles[0])
    side = east - west

    def box(left: float, bottom: float, right: float, top: float) -> shapely.Polygon:
        return shapely.box(
            west + left * side, south + bottom * side, west + right * side, south + top * side
        )

    shapes = {
        "within": shapely.Point(west + side / 2, south + side / 4).buffer(side / 8),
        "across": box(0.9, 0.2, 1.1, 0.4),
        "beyond": box(1.9, 0.5, 2.1, 0.7),
    }
    features = [
        {
            "type": "Feature",
            "properties": {"poly_id": name},
            "geometry": shapely.geometry.mapping(
                shapely.set_precision(shape, 10**-_DIGITS, mode="pointwise")
            ),
        }
        for name, shape in shapes.items()
    ]
    document = {"type": "FeatureCollection", "notice": NOTICE, "features": features}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _write_settings(path: Path, imagery: Path) -> None:
    lines = [f"# {NOTICE}"]
    for source in ("ELEVATION", "SENTINEL1", "SENTINEL2"):
        lines.append(f'OCR_{source}_SOURCE="{imagery}"')
        lines.append(f"OCR_{source}_ACCESS=anonymous")
    path.write_text("\n".join(lines) + "\n")
