"""The checks of the tiles wing: each can fail, and says what it found where."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from tile_worlds import EAST, WEST, TileWorld, copy_of, keys_of

from ocr_assets.tile_answers import make_mosaic, mosaic_key
from ocr_assets.tile_library import PRODUCTS, SourceKey
from ocr_assets.tiles import ard
from ocr_assets.tiles.checks import tile_checks
from ocr_assets.tiles.grid import Tile
from ocr_assets.tiles.product import pixel_box, write_tree_cover_cog

TILE = Tile.parse(WEST)
KEYS = {key.source: key for key in keys_of(WEST)}
ALL = [
    (str(key.asset_key.path[-1]), key.name)
    for check in tile_checks()
    for key in check.check_keys
    if key.asset_key.path[-1] in PRODUCTS
]


@pytest.fixture
def world(finished_tiles: Path, sample_imagery: Path, tmp_path: Path) -> TileWorld:
    """A deployment of its own in which both tiles are made."""
    return copy_of(finished_tiles, tmp_path, sample_imagery)


def partition(key: SourceKey) -> str:
    return WEST if key.year is None else f"{WEST}|{key.year}"


def keep(world: TileWorld, key: SourceKey, files: dict[str, Path]) -> None:
    """Store files in place of those that are there, with the same lineage."""
    library = world.library
    record = library.record(key)
    assert record is not None
    names = library.keys(key)
    paths = {name: library.storage.local_path(place) for name, place in names.items()}
    library.store(key, {**paths, **files}, record.lineage, record.report)


def moved(geobox: GeoBox, columns: float) -> GeoBox:
    return GeoBox(geobox.shape, geobox.affine @ Affine.translation(columns, 0), geobox.crs)


def with_elevation(change: Callable[[ard.Elevation], ard.Elevation]) -> Any:
    def doctor(world: TileWorld) -> None:
        path = world.folder / "dem.tif"
        ard.write_elevation({"dem": path}, change(world.library.elevation(TILE)), {})
        keep(world, KEYS["elevation"], {"dem": path})

    return doctor


def with_sentinel1(change: Callable[[ard.Sentinel1], ard.Sentinel1]) -> Any:
    def doctor(world: TileWorld) -> None:
        path = world.folder / "s1.tif"
        ard.write_sentinel1({"s1": path}, change(world.library.sentinel1(TILE, 2023)), {})
        keep(world, KEYS["sentinel1"], {"s1": path})

    return doctor


def with_sentinel2(change: Callable[[ard.Sentinel2], ard.Sentinel2]) -> Any:
    def doctor(world: TileWorld) -> None:
        paths = {name: world.folder / f"{name}.tif" for name in ard.FILES["sentinel2"]}
        ard.write_sentinel2(paths, change(world.library.sentinel2(TILE, 2023)), {})
        keep(world, KEYS["sentinel2"], paths)

    return doctor


def with_dates(change: Callable[[list[str]], list[str]]) -> Any:
    """Change what a file says of its dates, as no code of ours would write it."""

    def doctor(world: TileWorld) -> None:
        library = world.library
        source = library.storage.local_path(library.keys(KEYS["sentinel2"])["s2_10"])
        path = world.folder / "s2_10.tif"
        shutil.copyfile(source, path)
        with rasterio.open(path, "r+") as file:
            about = json.loads(file.tags()["ocr"])
            about["dates"] = change(about["dates"])
            file.update_tags(ocr=json.dumps(about))
        keep(world, KEYS["sentinel2"], {"s2_10": path})

    return doctor


def with_cover(
    change: Callable[[Any], Any] = lambda cover: cover,
    columns: int = 0,
    lineage: dict[str, Any] | None = None,
) -> Any:
    def doctor(world: TileWorld) -> None:
        library = world.library
        key = KEYS["tree_cover"]
        with rasterio.open(library.storage.local_path(library.keys(key)["cog"])) as file:
            cover = file.read(1)
        box = pixel_box(library.grid, TILE)
        box = replace(box, west=box.west + columns, east=box.east + columns)
        record = library.record(key)
        assert record is not None
        path = world.folder / "cog.tif"
        about = record.lineage if lineage is None else lineage
        write_tree_cover_cog(path, change(cover), box, about)
        keep(world, key, {"cog": path})

    return doctor


def with_item(world: TileWorld) -> None:
    library = world.library
    place = library.storage.local_path(library.keys(KEYS["tree_cover"])["item"])
    path = world.folder / "item.json"
    path.write_text(place.read_text().replace("baseline-greenness", "predict_graph-172"))
    keep(world, KEYS["tree_cover"], {"item": path})


def without_record(world: TileWorld) -> None:
    library = world.library
    library.storage.delete(library.record_key(KEYS["tree_cover"]))


def damaged(world: TileWorld) -> None:
    library = world.library
    path = library.storage.local_path(library.keys(KEYS["sentinel1"])["s1"])
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))


def put(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        changed = array.copy()
        changed.flat[7] = value
        return changed

    return change


def later_year(value: ard.Sentinel2) -> ard.Sentinel2:
    return replace(value, dates=tuple(day + timedelta(365) for day in value.dates))


DOCTORED = [
    (
        "elevation",
        "on_the_tile_grid",
        with_elevation(lambda value: replace(value, geobox=moved(value.geobox, 1))),
        "dem lies at",
    ),
    (
        "elevation",
        "terrain_plausible",
        with_elevation(lambda value: replace(value, height=put(9001)(value.height))),
        "to 9001 m",
    ),
    (
        "elevation",
        "terrain_plausible",
        with_elevation(lambda value: replace(value, slope=put(90)(value.slope))),
        "to 90.0 degrees",
    ),
    (
        "elevation",
        "terrain_plausible",
        with_elevation(lambda value: replace(value, height=put(np.nan)(value.height))),
        "without height or slope",
    ),
    (
        "sentinel1",
        "on_the_tile_grid",
        with_sentinel1(lambda value: replace(value, geobox=moved(value.geobox, -0.25))),
        "s1 lies at",
    ),
    ("sentinel1", "on_the_tile_grid", damaged, "cannot be read"),
    (
        "sentinel1",
        "quarters_present",
        with_sentinel1(
            lambda value: replace(
                value, quarters=(*value.quarters[:3], ard.Quarter((), "ascending", 0.0))
            )
        ),
        "no data in quarter 4",
    ),
    (
        "sentinel2",
        "on_the_tile_grid",
        with_sentinel2(lambda value: replace(value, geobox=moved(value.geobox, 2))),
        "s2_10 lies at",
    ),
    (
        "sentinel2",
        "dates_belong_to_images",
        with_dates(lambda dates: [dates[1], dates[0], *dates[2:]]),
        "the dates are not ascending: 2023-03-17, 2023-01-04",
    ),
    (
        "sentinel2",
        "dates_belong_to_images",
        with_dates(lambda dates: dates[:-1]),
        "2 dates for 3 images",
    ),
    (
        "sentinel2",
        "dates_belong_to_images",
        with_dates(lambda dates: [*dates[:-1], "2023-12-30"]),
        "not in the order of the dates",
    ),
    ("sentinel2", "dates_belong_to_images", with_sentinel2(later_year), "are not of 2023"),
    ("tree_cover", "values_in_range", with_cover(put(101)), "1 pixels have values like 101"),
    ("tree_cover", "values_in_range", with_cover(put(254)), "1 pixels have values like 254"),
    ("tree_cover", "values_in_range", without_record, "nothing is stored"),
    ("tree_cover", "georeferenced", with_cover(columns=1), "it lies at"),
    (
        "tree_cover",
        "model_named",
        with_cover(lineage={"configuration": {"model": {"name": "mine"}}}),
        "does not name the network and its hash",
    ),
    ("tree_cover", "model_named", with_item, "names another network than baseline-greenness"),
    (
        "tree_cover",
        "no_data_share",
        with_cover(lambda cover: np.where(np.arange(618)[:, None] < 400, np.uint8(255), cover)),
        "65% of it are without data",
    ),
]


@pytest.mark.parametrize(("asset", "name"), ALL, ids=[f"{asset}-{name}" for asset, name in ALL])
def test_a_sound_tile_passes(
    finished_tiles: Path, sample_imagery: Path, asset: str, name: str
) -> None:
    world = TileWorld(finished_tiles, str(sample_imagery))
    wrong = world.check(asset, name, partition(KEYS[asset]))  # type: ignore[index]
    if name == "images_in_all_quarters":
        # The small world has images in winter only.
        assert wrong == {f"{WEST}|2023": "no image in quarter 2, 3"}
    else:
        assert wrong is None


@pytest.mark.parametrize(
    ("asset", "name", "doctor", "message"),
    DOCTORED,
    ids=[f"{number:02d}-{asset}-{name}" for number, (asset, name, *_) in enumerate(DOCTORED)],
)
def test_an_unsound_tile_fails(
    world: TileWorld, asset: str, name: str, doctor: Callable[[TileWorld], None], message: str
) -> None:
    doctor(world)
    key = KEYS[asset]  # type: ignore[index]
    wrong = world.check(asset, name, partition(key))
    assert wrong is not None
    assert list(wrong) == [partition(key)]
    assert message in wrong[partition(key)]


def test_every_check_has_failed_once() -> None:
    failed = {(asset, name) for asset, name, *_ in DOCTORED}
    assert set(ALL) - failed == {("sentinel2", "images_in_all_quarters")}
    assert {asset for asset, _ in ALL} == set(PRODUCTS)


def test_a_mosaic_shows_its_tiles(world: TileWorld) -> None:
    def wrong() -> dict[str, str] | None:
        return world.check("tree_cover_mosaic", "shows_its_tiles", "2023")

    assert wrong() == {"2023": "nothing is stored, or not all of it"}
    # A link to itself in the place of the record is nothing that the store can read.
    in_its_place = world.library.storage.local_path(f"{mosaic_key(2023)}.lineage.json")
    in_its_place.symlink_to(in_its_place)
    unreadable = wrong()
    assert unreadable is not None
    assert str(in_its_place) in unreadable["2023"]
    in_its_place.unlink()
    made = make_mosaic(world.library, 2023)
    assert wrong() is None
    storage = world.library.storage
    path = storage.local_path(made.record.files["mosaic"]["key"])
    with rasterio.open(path) as file:
        cover, profile = file.read(1), file.profile
    path.unlink()
    cover[:, 618:] = np.roll(cover[:, 618:], 1, axis=0)
    doctored = world.folder / "mosaic.tif"
    with rasterio.open(doctored, "w", **profile) as file:
        file.write(cover, 1)
    names = {"mosaic": made.record.files["mosaic"]["key"]}
    key = f"{mosaic_key(2023)}.lineage.json"
    world.library.keep(key, names, {"mosaic": doctored}, made.record.lineage, made.record.report)
    found = wrong()
    assert found is not None
    assert re.fullmatch(f"[0-9]+% of the pixels of {EAST} are others in it", found["2023"])
    storage.delete(world.library.keys(SourceKey("tree_cover", TILE, 2023))["cog"])
    assert wrong() == {"2023": "it is made of other tiles than there are now; materialize it again"}


def test_a_check_by_itself_looks_at_all_tiles(world: TileWorld) -> None:
    for tile in (WEST, "1948X1775Y"):
        assert world.run("elevation", tile).success
    with_elevation(lambda value: replace(value, height=put(-9999)(value.height)))(world)
    assert world.check("elevation", "terrain_plausible") == {WEST: "heights are -9999 to 560 m"}
