"""The tiles wing as a whole: from scenes of a service to published tiles, mosaics and answers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp
from scene_folders import optical_folder
from stac_server import StacServer
from tile_worlds import (
    EAST,
    NOT_IN_THE_GRID,
    WEST,
    TileWorld,
    copy_of,
    failure,
    keys_of,
    make_all,
)

from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED
from ocr_assets.sample import imagery as sample
from ocr_assets.sample.imagery import _World as SampleWorld
from ocr_assets.tile_answers import (
    AnswerError,
    ZonalRequest,
    make_mosaic,
    published_tiles,
    zonal_answer,
)
from ocr_assets.tile_history import tile_tasks
from ocr_assets.tile_library import PRODUCTS, SourceKey, TileLibrary
from ocr_assets.tile_products import make_tree_cover, product_state, tree_cover_lineage
from ocr_assets.tile_sources import make_source
from ocr_assets.tiles.grid import Tile, TileGrid, tile_geobox
from ocr_assets.tiles.networks import NetworkError
from ocr_assets.tiles.product import PixelBox, pixel_box, warp_to_box
from resources.keys import MissingObjectError
from resources.settings import Settings
from resources.storage import Storage

PARTITION = f"{WEST}|2023"
TREE_COVER = {tile: SourceKey("tree_cover", Tile.parse(tile), 2023) for tile in (WEST, EAST)}


@pytest.fixture
def world(finished_tiles: Path, sample_imagery: Path, tmp_path: Path) -> TileWorld:
    """A deployment of its own in which both tiles are made."""
    return copy_of(finished_tiles, tmp_path, sample_imagery)


@pytest.fixture
def finished(finished_tiles: Path, sample_imagery: Path) -> TileWorld:
    """Both tiles made. Read only."""
    return TileWorld(finished_tiles, str(sample_imagery))


def cog(library: TileLibrary, tile: str) -> Path:
    return library.storage.local_path(library.keys(TREE_COVER[tile])["cog"])


def percent(library: TileLibrary, tile: str) -> Any:
    with rasterio.open(cog(library, tile)) as file:
        return file.read(1)


def true_forest(tile: str) -> Any:
    """Where the made-up world has forest, on the pixels of a published tile."""
    grid = TileGrid.load()
    places = [tile_geobox(grid, Tile.parse(name)) for name in (WEST, EAST)]
    made_up = SampleWorld(sample._common_grid(places), 2023, 6, 2025)
    forest = (made_up._covers[1] == sample.FOREST).astype(np.uint8)
    return warp_to_box(forest, made_up.grid, pixel_box(grid, Tile.parse(tile)))


def test_from_a_service_to_a_published_tile(
    tmp_path: Path, sample_imagery: Path, stac_server: StacServer
) -> None:
    world = TileWorld(tmp_path, stac_server.serve(sample_imagery))
    for asset in PRODUCTS:
        result = world.run(asset, WEST if asset == "elevation" else PARTITION)
        assert result.success, failure(result)
        checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert all(passed for name, passed in checks.items() if name != "images_in_all_quarters")
    assert checks.keys() == {"values_in_range", "georeferenced", "model_named", "no_data_share"}
    found = world.materialized(result)[PARTITION]
    assert found["model"] == "baseline-greenness"
    assert found["superresolution"] == "bilinear"
    assert found["lineage"]["configuration"]["model"]["sha256"] == found["model_sha256"]
    assert found["lineage"]["inputs"].keys() == {
        "elevation",
        "sentinel1",
        "sentinel2",
        "model",
        "superresolution",
    }
    assert found["dates used"] == ["2023-01-04", "2023-03-17", "2023-12-31"]
    assert [row["day"] for row in found["dates"]] == found["dates used"]
    assert found["flags"] == ["no usable image in quarter 2, 3"]
    assert found["partial"] is True
    assert found["share without data"] == 0
    assert found["mean tree cover"] == pytest.approx(percent(world.library, WEST).mean(), abs=0.01)
    assert found["phases"].keys() == {"read", "features", "predict", "warp", "write"}
    assert sum(found["phases"].values()) <= found["seconds"]
    assert found["bytes"] == sum(row["bytes"] for row in found["files"])
    assert found["picture"].startswith("![tree_cover](data:image/png;base64,")
    assert found["path"] == str(cog(world.library, WEST))
    assert found["skipped"] is False
    asked = len(stac_server.requests)
    for asset in PRODUCTS:
        result = world.run(asset, WEST if asset == "elevation" else PARTITION)
        (metadata,) = world.materialized(result).values()
        assert metadata["skipped"] is True
    assert len(stac_server.requests) == asked, "a tile that is done needs no service"


def test_a_published_tile_is_what_it_says(finished: TileWorld) -> None:
    library = finished.library
    path = cog(library, WEST)
    assert path.relative_to(library.storage.root).as_posix() == (
        f"2023/tiles/1947/1775/{WEST}_FINAL.tif"
    )
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs == "EPSG:4326"
        assert file.bounds == pytest.approx(library.grid.bbox(Tile.parse(WEST)), abs=1 / 11124)
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        assert file.colorinterp == (ColorInterp.palette,)
        assert file.overviews(1) == [2, 4]
        lineage = json.loads(file.tags()["LINEAGE"])
    record = library.record(TREE_COVER[WEST])
    assert record is not None
    assert lineage == record.lineage
    item = pystac.Item.from_file(str(path.with_suffix(".json")))
    assert item.id == f"{WEST}_2023"
    assert Path(item.assets["data"].get_absolute_href() or "").resolve() == path.resolve()
    assert item.properties["gri:model_sha256"] == lineage["configuration"]["model"]["sha256"]


def test_trees_stand_where_the_made_up_world_has_them(finished: TileWorld) -> None:
    for tile in (WEST, EAST):
        cover, forest = percent(finished.library, tile), true_forest(tile)
        assert 0.2 < (forest == 1).mean() < 0.8
        assert ((cover > 0) == (forest == 1)).mean() > 0.97
    # A displacement by two pixels would show: the true one agrees best.
    shifts = {
        shift: ((np.roll(cover, shift, (0, 1)) > 0) == (forest == 1)).mean()
        for shift in [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
    }
    assert max(shifts, key=lambda shift: shifts[shift]) == (0, 0)


def test_radar_lies_over_the_same_ground(finished: TileWorld) -> None:
    radar = finished.library.sentinel1(Tile.parse(EAST), 2023)
    bands = radar.backscatter.astype(float).mean(axis=0)
    box = PixelBox(*(round(edge) for edge in pixel_box_of(EAST)))
    rows, columns = box.shape
    forest = true_forest(EAST)
    decibels = 10 * np.log10(np.maximum(bands[..., 1], 1) / 65535)
    scaled = np.clip(2 * (decibels + 30), 0, 100).astype(np.uint8)
    warped = warp_to_box(scaled, radar.geobox, box).astype(float)
    inside = {True: warped[forest == 1].mean(), False: warped[forest == 0].mean()}
    # Forest scatters back about 4 dB more than fields, in VH.
    assert 5 < inside[True] - inside[False] < 12
    agreement = {
        shift: np.corrcoef(np.roll(warped, shift, (0, 1)).ravel(), forest.ravel())[0, 1]
        for shift in [(0, 0), (8, 0), (-8, 0), (0, 8), (0, -8)]
    }
    assert max(agreement, key=lambda shift: agreement[shift]) == (0, 0)
    assert (rows, columns) == warped.shape


def pixel_box_of(tile: str) -> tuple[int, int, int, int]:
    box = pixel_box(TileGrid.load(), Tile.parse(tile))
    return box.west, box.south, box.east, box.north


def test_neighbours_make_no_seam(finished: TileWorld) -> None:
    west, east = (percent(finished.library, tile).astype(float) for tile in (WEST, EAST))
    assert pixel_box_of(WEST)[2] == pixel_box_of(EAST)[0]
    left, right = west[:, -1], east[:, 0]
    assert ((left > 0) == (right > 0)).mean() > 0.99
    # The eastern tile has a summer image more, so its trees are greener; that is all.
    trees = (left > 0) & (right > 0)
    assert np.abs(left - right)[trees].mean() < 10
    assert ((left > 0) == (west[:, -2] > 0)).mean() > 0.99


def test_what_changes_makes_what_depends_on_it_and_no_more(world: TileWorld) -> None:
    before = {tile: cog(world.library, tile).read_bytes() for tile in (WEST, EAST)}
    other = TileWorld(world.folder, world.imagery, {"sentinel1_orbit": "descending"})
    library = other.library
    assert [product_state(library, key) for key in keys_of(WEST)] == [
        "done",
        "stale",
        "done",
        "done",
    ]
    make_source(library, keys_of(WEST)[1])
    assert [product_state(library, key) for key in keys_of(WEST)][1:] == ["done", "done", "stale"]
    assert product_state(library, TREE_COVER[EAST]) == "done"
    result = other.run("tree_cover", PARTITION, f"{EAST}|2023")
    assert not result.success
    assert "1 of 3 tiles failed" in failure(result)
    assert f"tile {NOT_IN_THE_GRID} is not in the grid" in failure(result)
    made = other.materialized(result)
    assert {key: metadata["skipped"] for key, metadata in made.items()} == {
        PARTITION: False,
        f"{EAST}|2023": True,
    }
    assert product_state(library, TREE_COVER[WEST]) == "done"
    assert cog(library, WEST).read_bytes() != before[WEST], "another lineage"
    # And back again: the same inputs give the same bytes.
    make_source(world.library, keys_of(WEST)[1])
    make_tree_cover(world.library, TREE_COVER[WEST])
    assert {tile: cog(world.library, tile).read_bytes() for tile in before} == before


def test_the_jobs_of_requests(world: TileWorld) -> None:
    """A request is terrain, then everything of the year, with its checks."""
    library = world.library
    library.storage.delete(library.record_key(TREE_COVER[WEST]))
    terrain = world.run_job(TILE_FIRST, WEST)
    assert terrain.keys() == {"elevation"}
    made = world.run_job(TILE_WANTED, PARTITION)
    skipped = {asset: metadata["skipped"] for asset, metadata in made.items()}
    assert skipped == {"sentinel1": True, "sentinel2": True, "tree_cover": False}
    assert product_state(library, TREE_COVER[WEST]) == "done"


def test_a_year_of_clouds_is_flagged_to_the_end(world: TileWorld) -> None:
    """The three cleanest dates are kept; images, tree cover and status say what they are."""
    scenes = optical_folder(world.folder / "cloudy")
    grid = world.library.place(Tile.parse(WEST)).geobox
    for month in (2, 5, 8, 11):
        scenes.optical(f"S2A_{month}", f"2023-{month:02d}-10T10:05:00Z", 6000, 9, grid)
    world.changes = {"sentinel2_source": str(scenes.save())}
    result = world.run("sentinel2", PARTITION)
    assert result.success, failure(result)
    images = world.materialized(result)[PARTITION]
    assert (images["partial"], len(images["dates"])) == (True, 3)
    assert {row["cloud"] for row in images["dates"]} == {1.0}
    result = world.run("tree_cover", PARTITION)
    assert result.success, failure(result)
    cover = world.materialized(result)[PARTITION]
    assert cover["partial"] is True
    assert "all images of the year were too cloudy" in " ".join(cover["flags"])
    wanted = [(2023, Tile.parse(WEST))]
    states = tile_tasks(world.instance, world.library, wanted, ["sentinel2", "tree_cover"])
    assert [task.status for task in states] == ["partial", "partial"]


def test_a_source_that_is_not_there(world: TileWorld) -> None:
    library = world.library
    library.storage.delete(library.record_key(keys_of(WEST)[2]))
    assert product_state(library, keys_of(WEST)[2]) == "missing"
    assert product_state(library, TREE_COVER[WEST]) == "stale"
    with pytest.raises(MissingObjectError, match=f"no sentinel2 of {WEST} in 2023.*materialize"):
        make_tree_cover(library, TREE_COVER[WEST])
    assert cog(library, WEST).is_file(), "what was published stays"
    result = world.run("tree_cover", PARTITION)
    assert f"there is no sentinel2 of {WEST} in 2023" in failure(result)


@pytest.mark.parametrize(
    "changes", [{"tree_cover_seed": 1}, {"method": "published"}], ids=["seed", "method"]
)
def test_settings_that_decide_the_content(finished: TileWorld, changes: dict[str, Any]) -> None:
    world = TileWorld(finished.folder, finished.imagery, changes)
    assert product_state(world.library, TREE_COVER[WEST]) == "stale"


def test_settings_that_do_not(finished: TileWorld) -> None:
    world = TileWorld(finished.folder, finished.imagery, {"version": "2.0.0", "tiles_per_run": 3})
    assert [product_state(world.library, key) for key in keys_of(WEST)] == ["done"] * 4


def user_network(folder: Path) -> Path:
    """A file of a network, like one that a user has."""
    from openvino import save_model

    from ocr_assets.tiles.baseline import greenness_model

    path = folder / "mine.xml"
    save_model(greenness_model(), path, compress_to_fp16=False)
    return path


def test_a_network_of_the_user_is_named(finished: TileWorld, tmp_path: Path) -> None:
    path = user_network(tmp_path)
    world = TileWorld(finished.folder, finished.imagery, {"tree_cover_model": str(path)})
    lineage = tree_cover_lineage(world.library, TREE_COVER[WEST])
    assert lineage["configuration"]["model"]["name"] == "mine.xml"
    assert lineage["inputs"]["model"] == lineage["configuration"]["model"]["sha256"]
    assert product_state(world.library, TREE_COVER[WEST]) == "stale"


def test_a_network_that_is_none_ends_the_run_before_any_work(world: TileWorld) -> None:
    path = world.folder / "weights.pb"
    path.write_bytes(b"no network")
    world.changes = {"tree_cover_model": str(path)}
    result = world.run("tree_cover", PARTITION, again=True)
    assert "weights.pb is not a network" in failure(result)
    assert not world.materialized(result)
    world.changes = {"tree_cover_model": str(world.folder / "weights.h5")}
    with pytest.raises(NetworkError, match="is no network by its name"):
        product_state(world.library, TREE_COVER[WEST])


def test_the_mosaic_of_a_year(world: TileWorld) -> None:
    result = world.run("tree_cover_mosaic", "2023")
    assert result.success
    made = world.materialized(result)["2023"]
    assert (made["tiles"], made["pixels"], made["skipped"]) == (2, 618 * 1236, False)
    with rasterio.open(made["path"]) as file:
        whole = file.read(1)
    parts = [percent(world.library, tile) for tile in (WEST, EAST)]
    assert (whole == np.concatenate(parts, axis=1)).all()
    assert world.materialized(world.run("tree_cover_mosaic", "2023"))["2023"]["skipped"]
    # Another tile makes another mosaic.
    library = world.library
    library.storage.delete([*library.keys(TREE_COVER[EAST]).values()])
    again = world.materialized(world.run("tree_cover_mosaic", "2023"))["2023"]
    assert (again["tiles"], again["skipped"]) == (1, False)
    assert "there are no tiles" in failure(world.run("tree_cover_mosaic", "2024"))


def test_tiles_too_far_apart_for_one_raster(
    finished: TileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_assets.tile_answers.MOST_PIXELS", 618 * 1236 - 1)
    with pytest.raises(AnswerError, match="2 tiles lie within 1236 x 618 pixels"):
        make_mosaic(finished.library, 2023)


def polygons(folder: Path) -> Path:
    """A polygon in one tile, one across the border, one that reaches into a tile not made."""
    west, south, east, _ = TileGrid.load().bbox(Tile.parse(WEST))
    side = east - west

    def box(left: float, bottom: float, right: float, top: float) -> shapely.Polygon:
        return shapely.box(
            west + left * side, south + bottom * side, west + right * side, south + top * side
        )

    shapes = {
        "within": box(0.2, 0.2, 0.8, 0.4),
        "across": box(0.9, 0.1, 1.1, 0.3),
        "beyond": box(1.9, 0.1, 2.1, 0.3),
        "nowhere": shapely.Polygon(),
    }
    features = [
        {
            "type": "Feature",
            "properties": {"poly_id": name, "lulc": "forest"},
            "geometry": shapely.geometry.mapping(shape),
        }
        for name, shape in shapes.items()
    ]
    path = folder / "sites.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_answers_for_polygons(world: TileWorld) -> None:
    path = polygons(world.folder)
    table = world.folder / "land_cover.csv"
    table.write_text("class,p_lower95,p_upper95,r_lower95,r_upper95\nforest,1,4,2,5\n")
    config = {
        "polygons": str(path),
        "land_cover_table": str(table),
        "land_cover_column": "lulc",
    }
    result = world.run("zonal_statistics", "2023", config=config)
    assert result.success, failure(result)
    (check,) = result.get_asset_check_evaluations()
    assert check.passed
    made = world.materialized(result)["2023"]
    assert made["rows"] == 4
    assert (made["complete"], made["partial"], made["unusable_geometry"]) == (2, 1, 1)
    assert made["missing tiles"] == ["1949X1775Y"]
    place = Path(made["path"])
    assert place == Path(world.settings.tiles_uri, "statistics", "sites_2023.parquet")
    rows = {row["polygon_id"]: row for row in pq.read_table(place).to_pylist()}
    assert rows["across"]["tiles"] == f"{WEST} {EAST}"
    assert rows["across"]["error_minus"] > 2
    assert rows["beyond"]["missing_tiles"] == "1949X1775Y"
    assert rows["beyond"]["coverage"] == pytest.approx(0.5, abs=0.01)
    cover = percent(world.library, WEST).astype(float)
    rows_of, columns = slice(371, 494), slice(124, 494)
    assert rows["within"]["tree_cover"] == pytest.approx(cover[rows_of, columns].mean(), abs=1.0)
    content = place.read_bytes()
    assert world.run("zonal_statistics", "2023", config=config).success
    assert place.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polygons": "/nowhere/a.geojson"}, "no object at /nowhere/a.geojson"),
        ({"name": "../../escape"}, "cannot be the name of an answer"),
        ({"land_cover_table": "/a.csv"}, "goes with one of land_cover_column and"),
        ({"region_column": "r"}, "goes with one of region_column and region_polygons"),
        ({"land_cover_column": "nothing", "land_cover_table": "{table}"}, "no column 'nothing'"),
    ],
    ids=["no-file", "name", "table-alone", "column-alone", "no-column"],
)
def test_questions_that_make_no_sense(
    world: TileWorld, changes: dict[str, str], message: str
) -> None:
    table = world.folder / "table.csv"
    table.write_text("class,p_lower95,p_upper95,r_lower95,r_upper95\n")
    config = {"polygons": str(polygons(world.folder))} | {
        name: value.format(table=table) for name, value in changes.items()
    }
    assert message in failure(world.run("zonal_statistics", "2023", config=config))
    assert not world.library.storage.list("statistics")


def test_tiles_of_another_maker_count(world: TileWorld) -> None:
    """A bucket of published tiles without our records can be asked, too."""
    library = world.library
    library.storage.delete(library.record_key(TREE_COVER[WEST]))
    found = published_tiles(library, 2023)
    assert [tile.key for tile in found] == [WEST, EAST]
    assert make_mosaic(library, 2023).record.report["tiles"] == 2
    # A version of the regions has nothing to do with tiles.
    world.changes["version"] = "2.0.0"
    assert make_mosaic(world.library, 2023).skipped


def test_the_whole_wing_on_an_object_store(
    s3_bucket: Storage, sample_imagery: Path, tmp_path: Path
) -> None:
    network = user_network(tmp_path)
    for suffix in (".xml", ".bin"):
        s3_bucket.put_file(f"networks/mine{suffix}", network.with_suffix(suffix))
    changes = {
        "storage_root": f"{s3_bucket.root}/some/prefix",
        "s3_endpoint_url": s3_bucket.s3.endpoint_url,
        "models_root": str(tmp_path / "models"),
        "tree_cover_model": s3_bucket.uri("networks/mine.xml"),
    }
    world = TileWorld(tmp_path, str(sample_imagery), changes)
    make_all(world.library, WEST)
    result = world.run("tree_cover", PARTITION)
    assert result.success, failure(result)
    found = world.materialized(result)[PARTITION]
    assert (found["skipped"], found["model"]) == (True, "mine.xml")
    assert found["path"] == (
        f"{s3_bucket.root}/some/prefix/qa/tiles/2023/tiles/1947/1775/{WEST}_FINAL.tif"
    )
    assert world.check("sentinel2", "dates_belong_to_images", PARTITION) is None
    mosaic = world.materialized(world.run("tree_cover_mosaic", "2023"))["2023"]
    assert mosaic["tiles"] == 1
    assert world.check("tree_cover_mosaic", "shows_its_tiles", "2023") is None
    s3_bucket.put_file("in/sites.geojson", polygons(tmp_path))
    answer = zonal_answer(world.library, ZonalRequest(f"{s3_bucket.root}/in/sites.geojson", 2023))
    assert answer.record.report["missing tiles"] == [EAST, "1949X1775Y"]
    assert answer.record.report["complete"] == 1
    s3_bucket.put_file("networks/none.pb", polygons(tmp_path))
    world.changes["tree_cover_model"] = address = s3_bucket.uri("networks/none.pb")
    with pytest.raises(NetworkError, match=f"^(?!.*{tempfile.gettempdir()}).*{address}"):
        world.library.tree_cover_network  # noqa: B018 - loads it
    assert not (tmp_path / "root").exists(), "something was written to the local disk"


def test_tiles_are_no_part_of_a_version(finished: TileWorld) -> None:
    """Publishing a version freezes its prefix; tiles go on."""
    for version in (None, "1.0.0"):
        settings = Settings(storage_root="/data", version=version)
        assert settings.tiles_uri == "/data/qa/tiles"
        assert not settings.tiles_uri.startswith(f"{settings.output_root}/")
