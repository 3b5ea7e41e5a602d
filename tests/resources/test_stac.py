"""Catalogues of imagery, far and near: what is asked, and answers that are none."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from scene_folders import GRID, SceneFolder, in_degrees, optical_folder, place_of
from stac_server import StacServer

from ocr_assets.tiles import sentinel2
from ocr_assets.tiles.scenes import Reading, Scene, around_the_world
from resources import stac
from resources.imagery_access import (
    AbsentError,
    AccessDeniedError,
    ImageryError,
    Patience,
    ThrottledError,
    UnexpectedAnswerError,
    UnreachableError,
)
from resources.stac import StacImagery

QUICK = Patience(attempts=3, first_wait=0.01, jitter=0, connect_seconds=5, answer_seconds=20)
AREA = in_degrees(GRID)
YEAR = date(2023, 1, 1), date(2023, 12, 31)


def listed(folder: Path, count: int = 5) -> SceneFolder:
    """Scenes without files, on one day after the other."""
    scenes = SceneFolder(folder, sentinel2.COLLECTION)
    for number in range(count):
        scenes.add(
            f"S2A_{number:03}",
            f"2023-06-{1 + number % 30:02}T{23 - number // 30:02}:00:00Z",
            {},
            footprint=AREA,
        )
    scenes.save()
    return scenes


def imagery(url: str, **changes: Any) -> StacImagery:
    return StacImagery(url, sentinel2.COLLECTION, **{"patience": QUICK, **changes})


def names(scenes: list[Scene]) -> list[str]:
    return [scene.id for scene in scenes]


@pytest.fixture(params=["service", "folder"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path, stac_server: StacServer) -> Any:
    """Turns a folder of scenes into imagery: over HTTP, then as it is."""

    def opened(scenes: SceneFolder) -> StacImagery:
        folder = scenes.save()
        if request.param == "folder":
            return imagery(str(folder))
        return imagery(stac_server.serve(folder, page=2))

    return opened


def test_scenes_are_found_by_area_and_time(catalogue: Any, tmp_path: Path) -> None:
    scenes = listed(tmp_path)
    scenes.add("S2A_elsewhere", "2023-06-03T10:00:00Z", {}, footprint=shapely.box(1, 1, 2, 2))
    scenes.add("S2A_before", "2022-12-31T23:59:59Z", {}, footprint=AREA)
    scenes.add("S2A_last", "2023-12-31T23:59:59Z", {}, footprint=AREA)
    scenes.add("S2A_after", "2024-01-01T00:00:00Z", {}, footprint=AREA)
    found = catalogue(scenes)
    everything = [f"S2A_{number:03}" for number in range(5)] + ["S2A_last"]
    assert names(found.search(AREA, *YEAR)) == everything
    day = date(2023, 6, 3)
    assert names(found.search(AREA, day, day)) == ["S2A_002"]
    assert len(found.search(AREA, None, None)) == 8
    assert found.search(shapely.box(40, 1, 41, 2), *YEAR) == []


def test_an_area_across_the_antimeridian(catalogue: Any, tmp_path: Path) -> None:
    scenes = SceneFolder(tmp_path, sentinel2.COLLECTION)
    for name, west in (("east", 179.2), ("west", -180.0), ("far", -170.0)):
        box = shapely.box(west, -17, west + 0.7, -16)
        scenes.add(name, "2023-06-03T10:00:00Z", {}, footprint=box)
    area = around_the_world(shapely.box(179.5, -16.9, 180.4, -16.1))
    found = names(catalogue(scenes).search(area, *YEAR))
    # A service may look at bounding boxes only; what does not touch the tile is left out later.
    assert {"east", "west"} <= set(found)


def test_rasters_are_read_in_order_many_at_once(catalogue: Any, tmp_path: Path) -> None:
    scenes = optical_folder(tmp_path)
    for number in range(1, 6):
        scenes.optical(f"S2A_{number}", f"2023-06-{number:02}T10:00:00Z", 100 * number)
    found = catalogue(scenes)
    readings = [
        Reading(scene, sentinel2.ASSETS[band], GRID, "uint16")
        for scene in found.search(AREA, *YEAR)
        for band in ("B2", "B3", "B4", "B8")
    ]
    rasters = list(found.read(iter(readings)))
    assert [int(raster[0, 0]) for raster in rasters] == [
        100 * number for number in range(1, 6) for _ in range(4)
    ]
    assert all(raster.shape == GRID.shape and raster.dtype == np.uint16 for raster in rasters)


def test_a_tile_is_the_same_from_a_service_and_from_its_folder(
    sample_imagery: Path, stac_server: StacServer
) -> None:
    from ocr_assets.sample.imagery import DEFAULT_TILES
    from ocr_assets.tile_library import TileLibrary
    from ocr_assets.tiles.grid import Tile
    from resources.settings import Settings

    place = TileLibrary(Settings(storage_root="/nowhere")).place(Tile.parse(DEFAULT_TILES[0]))
    values = []
    for where in (str(sample_imagery), stac_server.serve(sample_imagery, page=3)):
        found = imagery(where)
        images = sentinel2.find_images(found, place, 2023)
        values.append(sentinel2.make_sentinel2(found, place, images))
    near, far = values
    assert near.dates == far.dates
    assert near.scenes == far.scenes
    np.testing.assert_array_equal(near.bands10, far.bands10)
    np.testing.assert_array_equal(near.bands20, far.bands20)
    searches = [request for request in stac_server.requests if "/search" in request]
    assert len(searches) == 3, "seven scenes in pages of three"


def test_a_service_that_is_down(stac_server: StacServer) -> None:
    # Nothing listens at a port that is reserved.
    with pytest.raises(UnreachableError, match="cannot be reached for a search in sentinel-2-l2a"):
        imagery("http://127.0.0.1:1/v1").search(AREA, *YEAR)


def test_a_service_that_is_slow(stac_server: StacServer, tmp_path: Path) -> None:
    listed(tmp_path)
    url = stac_server.serve(tmp_path, {"match": "search", "seconds": 30})
    hasty = Patience(attempts=2, first_wait=0, jitter=0, answer_seconds=0.2)
    with pytest.raises(UnreachableError, match="timed out"):
        imagery(url, patience=hasty).search(AREA, *YEAR)
    assert stac_server.requests == ["POST /search"] * 2


def test_a_service_that_recovers(stac_server: StacServer, tmp_path: Path) -> None:
    listed(tmp_path)
    url = stac_server.serve(
        tmp_path,
        {"match": "search", "status": 503, "times": 1},
        {"match": "search", "status": 429, "retry_after": 0, "times": 1},
    )
    assert len(imagery(url).search(AREA, *YEAR)) == 5
    assert stac_server.requests == ["POST /search"] * 3


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (503, UnreachableError, 3),
        (429, ThrottledError, 3),
        (401, AccessDeniedError, 1),
        (403, AccessDeniedError, 1),
        (404, AbsentError, 1),
        (400, UnreachableError, 1),
    ],
)
def test_refusals_are_told_apart(
    stac_server: StacServer,
    tmp_path: Path,
    status: int,
    error: type[ImageryError],
    requests: int,
) -> None:
    url = stac_server.serve(tmp_path, {"match": "search", "status": status})
    with pytest.raises(error, match=f"sentinel-2-l2a.*|{status}"):
        imagery(url).search(AREA, *YEAR)
    assert len(stac_server.requests) == requests


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        ("no list", "gives no list of STAC items"),
        ("list", "gives no list of STAC items"),
        ("other collection", "lists scene S2A_004 of collection 'landsat-c2-l2'"),
        ("other time", "lists scene S2A_004 of 1999-05-05 although 2023-01-01 to 2023-12-31"),
        ("no time", "scene S2A_004: datetime is None"),
        ("no assets", "scene S2A_004: assets are list"),
        ("no geometry", "scene S2A_004: geometry is not an outline"),
        ("metres", "scene S2A_004: geometry is not in degrees"),
        ("bad links", "does not answer as a STAC API"),
        ("forever", "does not come to an end: page 2 of .* after 5 scenes"),
    ],
)
def test_a_service_that_lies(
    stac_server: StacServer, tmp_path: Path, lie: str, problem: str
) -> None:
    listed(tmp_path)
    with pytest.raises(UnexpectedAnswerError, match=problem):
        imagery(stac_server.serve(tmp_path, lie=lie)).search(AREA, *YEAR)


@pytest.mark.parametrize("body", ["<html>welcome</html>", "", "null", "{", '"text"'])
def test_an_answer_that_is_no_catalogue(stac_server: StacServer, tmp_path: Path, body: str) -> None:
    url = stac_server.serve(tmp_path, {"match": "search", "body": body})
    with pytest.raises(UnexpectedAnswerError, match="STAC"):
        imagery(url).search(AREA, *YEAR)


def test_pages_are_bounded(
    stac_server: StacServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(tmp_path, 60)
    monkeypatch.setattr(stac, "MOST_PAGES", 4)
    url = stac_server.serve(tmp_path, page=20)
    assert len(imagery(url).search(AREA, *YEAR)) == 60
    url = stac_server.serve(tmp_path, page=5)
    with pytest.raises(UnexpectedAnswerError, match="does not come to an end: page 4"):
        imagery(url).search(AREA, *YEAR)


def test_a_service_cannot_make_us_read_local_files(stac_server: StacServer, tmp_path: Path) -> None:
    optical_folder(tmp_path).optical("S2A_0", "2023-06-03T10:00:00Z")
    scenes = optical_folder(tmp_path)
    scenes.optical("S2A_0", "2023-06-03T10:00:00Z")
    found = imagery(stac_server.serve(scenes.save(), lie="local file"))
    (scene,) = found.search(AREA, *YEAR)
    with pytest.raises(UnexpectedAnswerError, match=r"asset blue of scene S2A_0 has the address"):
        list(found.read([Reading(scene, ("blue",), GRID, "uint16")]))


@pytest.mark.parametrize("address", ["../outside.tif", "/etc/passwd", "/vsicurl/x", "file:///a"])
def test_a_folder_reads_nothing_outside_of_it(tmp_path: Path, address: str) -> None:
    scenes = optical_folder(tmp_path / "inside")
    scenes.optical("S2A_0", "2023-06-03T10:00:00Z")["assets"]["blue"]["href"] = address
    found = scenes.imagery()
    (scene,) = found.search(AREA, *YEAR)
    with pytest.raises(UnexpectedAnswerError, match="which is not read from here"):
        list(found.read([Reading(scene, ("blue",), GRID, "uint16")]))


def test_a_folder_without_a_list(tmp_path: Path) -> None:
    with pytest.raises(AbsentError, match=r"there is no .*sentinel-2-l2a\.json"):
        imagery(str(tmp_path)).search(AREA, *YEAR)
    (tmp_path / "sentinel-2-l2a.json").write_text("{")
    with pytest.raises(UnexpectedAnswerError, match=r"sentinel-2-l2a\.json is not JSON"):
        imagery(str(tmp_path)).search(AREA, *YEAR)
    (tmp_path / "sentinel-2-l2a.json").write_text(json.dumps({"type": "Catalog"}))
    with pytest.raises(UnexpectedAnswerError, match="gives no list of STAC items"):
        imagery(str(tmp_path)).search(AREA, *YEAR)


def test_signed_access_needs_tokens() -> None:
    with pytest.raises(ValueError, match="needs a service of tokens"):
        StacImagery("https://example.org/stac", "sentinel-1-rtc", "signed")


def test_a_tile_far_from_everything_has_no_scene(tmp_path: Path) -> None:
    listed(tmp_path)
    place = place_of(GRID.translate_pix(50_000, 0))
    assert imagery(str(tmp_path)).search(place.area, *YEAR) == []
