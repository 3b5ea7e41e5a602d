"""The assets of analysis-ready data: one run of many tiles, and what becomes of a bad one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stac_server import StacServer
from tile_worlds import EAST, NOT_IN_THE_GRID, WEST, TileWorld, failure

from ocr_assets.partitions import TILES
from ocr_assets.tile_library import TileLibrary
from ocr_assets.tiles.grid import Tile


@pytest.fixture
def world(tmp_path: Path, sample_imagery: Path) -> TileWorld:
    return TileWorld(tmp_path, str(sample_imagery))


def test_a_tile_shows_what_it_was_made_of(world: TileWorld) -> None:
    partition = f"{WEST}|2023"
    result = world.run("sentinel2", partition)
    assert result.success
    found = world.materialized(result)[partition]
    dates = found["dates"]
    assert [row["date"] for row in dates] == ["2023-01-04", "2023-03-17", "2023-12-31"]
    assert dates[1]["scenes"].count("S2A_SYNTHETIC_20230317") == 2
    assert 0.05 < dates[0]["cloud"] < 0.2
    assert dates[1]["cloud"] == 0
    assert found["partial"] is False
    assert found["skipped"] is False
    assert found["quarters without image"] == [2, 3]
    assert found["days surveyed"] == 5
    files = {row["key"].rsplit("/", 2)[-2] for row in found["files"]}
    assert files == {"s2_10", "s2_20", "clouds"}
    assert all(len(row["sha256"]) == 64 for row in found["files"])
    assert found["picture"].startswith("![sentinel2](data:image/png;base64,")
    assert len(found["picture"]) < 250_000
    assert found["lineage"]["configuration"]["tile"] == WEST


def test_radar_and_terrain_show_theirs(world: TileWorld) -> None:
    result = world.run("sentinel1", f"{WEST}|2023")
    found = world.materialized(result)[f"{WEST}|2023"]
    quarters = found["quarters"]
    assert quarters[0]["days"] == "2023-01-15, 2023-01-27, 2023-02-08"
    assert [quarter["coverage"] for quarter in quarters] == [1.0] * 4
    assert found["orbit"] == "ascending"
    assert found["partial"] is False
    result = world.run("elevation", WEST)
    found = world.materialized(result)[WEST]
    assert found["scenes"] == ["Synthetic_DSM_COG_10_N45_E014_DEM"]
    assert 0 < found["mean slope"] < found["max slope"] < 60


def test_a_range_of_tiles_is_one_run(world: TileWorld) -> None:
    world.instance.add_dynamic_partitions(str(TILES.name), [WEST, EAST])
    result = world.run("elevation", WEST, WEST)
    assert result.success
    library = TileLibrary(world.settings)
    assert library.elevation(Tile.parse(WEST)).height.mean() > 0


@pytest.mark.parametrize("asset", ["elevation", "sentinel1"])
def test_a_bad_tile_does_not_lose_the_good_ones(world: TileWorld, asset: str) -> None:
    suffix = "" if asset == "elevation" else "|2023"
    result = world.run(asset, f"{WEST}{suffix}", f"{EAST}{suffix}")
    assert not result.success
    assert "1 of 3 tiles failed" in failure(result)
    assert f"tile {NOT_IN_THE_GRID} is not in the grid" in failure(result)
    assert set(world.materialized(result)) == {f"{WEST}{suffix}", f"{EAST}{suffix}"}
    # The next attempt makes what is missing only.
    result = world.run(asset, f"{WEST}{suffix}", f"{EAST}{suffix}")
    found = world.materialized(result)
    assert all(metadata["skipped"] for metadata in found.values())
    assert len(found) == 2


def test_neighbours_meet(world: TileWorld) -> None:
    for tile in (WEST, EAST):
        assert world.run("elevation", tile).success
    library = TileLibrary(world.settings)
    west, east = (library.elevation(Tile.parse(tile)) for tile in (WEST, EAST))
    overlap = west.geobox & east.geobox
    rows, cols = overlap.shape
    assert rows > 600
    assert 1 <= cols < 40

    def part(value: Any) -> Any:
        inner = ~value.geobox.affine @ (overlap.affine.c, overlap.affine.f)
        left, top = (round(steps) for steps in inner)
        return value.height[top : top + rows, left : left + cols]

    assert abs(part(west) - part(east)).max() < 0.05


def test_what_is_there_is_skipped_unless_asked_for(world: TileWorld) -> None:
    assert not world.materialized(world.run("elevation", WEST))[WEST]["skipped"]
    assert world.materialized(world.run("elevation", WEST))[WEST]["skipped"]
    again = world.materialized(world.run("elevation", WEST, again=True))[WEST]
    assert not again["skipped"]


def test_a_corrupt_scene_is_named_and_mended(world: TileWorld, sample_imagery: Path) -> None:
    own = world.folder / "imagery"
    shutil.copytree(sample_imagery, own)
    world.imagery = str(own)
    items = json.loads((own / "sentinel-1-rtc.json").read_text())["features"]
    path = own / items[0]["assets"]["vh"]["href"]
    content = path.read_bytes()
    path.write_bytes(content[:600] + bytes(len(content) - 600))
    result = world.run("sentinel1", f"{WEST}|2023")
    assert not result.success
    assert f"asset vh of scene {items[0]['id']} cannot be read" in failure(result)
    assert not list((world.folder / "root").rglob("*.tif"))
    path.write_bytes(content)
    assert world.run("sentinel1", f"{WEST}|2023").success


def test_a_service_that_lies_fails_the_tile(
    world: TileWorld, sample_imagery: Path, stac_server: StacServer
) -> None:
    world.imagery = stac_server.serve(sample_imagery, lie="no time")
    result = world.run("sentinel2", f"{WEST}|2023")
    assert "datetime is None, expected RFC 3339" in failure(result)
    world.imagery = stac_server.serve(sample_imagery)
    assert world.run("sentinel2", f"{WEST}|2023").success


def test_a_year_that_is_not_there(world: TileWorld) -> None:
    result = world.run("sentinel2", f"{WEST}|2020")
    assert "has no Sentinel-2 scene of tile" in failure(result)
    assert "in 2020; choose another year" in failure(result)


def test_mistakes_in_the_code_are_not_hidden(
    world: TileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Sequence[Any]) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("ocr_assets.tiles.elevation.slope_degrees", broken)
    assert "a mistake" in failure(world.run("elevation", WEST))
