"""Analysis-ready data of tiles in a deployment: made once, kept whole, read back checked."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tile_library import SOURCES, Source, SourceKey, TileLibrary
from ocr_assets.tile_sources import make_source
from ocr_assets.tiles.ard import read_lineage
from ocr_assets.tiles.grid import Tile, UnknownTileError
from ocr_assets.tiles.scenes import NoScenesError
from resources.keys import MissingObjectError, StorageError
from resources.settings import Settings
from resources.storage import Storage

TILE = Tile.parse(DEFAULT_TILES[0])


def library(root: str | Path, imagery: Path, **changes: Any) -> TileLibrary:
    places = {f"{source}_source": str(imagery) for source in SOURCES}
    return TileLibrary(Settings(storage_root=str(root), **places, **changes))


def key(source: Source, year: int = 2023, tile: Tile = TILE) -> SourceKey:
    return SourceKey(source, tile, None if source == "elevation" else year)


@pytest.fixture
def tiles(tmp_path: Path, sample_imagery: Path) -> TileLibrary:
    return library(tmp_path / "root", sample_imagery)


def test_all_sources_of_a_tile(tiles: TileLibrary) -> None:
    made = {source: make_source(tiles, key(source)) for source in SOURCES}
    terrain, radar = tiles.elevation(TILE), tiles.sentinel1(TILE, 2023)
    images = tiles.sentinel2(TILE, 2023)
    grid = tiles.place(TILE).geobox
    assert terrain.geobox == images.geobox == grid
    assert radar.geobox.boundingbox == grid.boundingbox
    assert 3 < terrain.slope.mean() < 9
    assert all(quarter.ok and len(quarter.days) == 3 for quarter in radar.quarters)
    assert [f"{day:%m-%d}" for day in images.dates] == ["01-04", "03-17", "12-31"]
    assert len(images.scenes[1]) == 2, "a day of two scenes"
    assert (images.bands10 > 0).all()
    # The offset is in the numbers of every second date; it is nowhere in the reflectance.
    red = images.bands10[..., 2] / 65535
    assert (np.median(red, axis=(1, 2)) < 0.12).all()
    assert made["sentinel2"].record.report["partial"] is False
    assert made["sentinel2"].record.report["dates"][2]["date"] == "2023-12-31"
    for one in made.values():
        assert one.preview is not None
        assert one.preview.startswith(b"\x89PNG")


def test_files_lie_where_the_layout_says(tiles: TileLibrary, tmp_path: Path) -> None:
    make_source(tiles, key("sentinel1"))
    make_source(tiles, key("elevation"))
    root = Path(tiles.settings.tiles_uri)
    tag, numbers = TILE.key, f"{TILE.x}/{TILE.y}"
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.is_file()}
    assert found == {
        f"2023/raw/{numbers}/raw/s1/{tag}.tif",
        f"2023/raw/{numbers}/raw/s1/{tag}.tif.lineage.json",
        f"raw/{numbers}/raw/misc/dem_{tag}.tif",
        f"raw/{numbers}/raw/misc/dem_{tag}.tif.lineage.json",
    }


def test_what_is_there_is_not_made_again(tiles: TileLibrary, sample_imagery: Path) -> None:
    first = make_source(tiles, key("sentinel1"))
    again = make_source(tiles, key("sentinel1"))
    assert again.preview is None
    assert again.record == first.record
    forced = make_source(tiles, key("sentinel1"), again=True)
    assert forced.preview is not None
    assert forced.record == first.record, "the same scenes give the same bytes"
    # Another orbit is another artefact under the same key.
    other = library(tiles.settings.storage_root, sample_imagery, sentinel1_orbit="descending")
    made = make_source(other, key("sentinel1"))
    assert made.preview is not None
    assert made.record.report["orbit"] == "descending"
    assert tiles.sentinel1(TILE, 2023).quarters[0].orbit == "descending"


def test_the_published_slope_is_another_artefact(tiles: TileLibrary, sample_imagery: Path) -> None:
    true = make_source(tiles, key("elevation")).record
    published = library(tiles.settings.storage_root, sample_imagery, method="published")
    made = make_source(published, key("elevation")).record
    assert made.report["mean height"] == true.report["mean height"]
    assert made.report["mean slope"] < 0.95 * true.report["mean slope"]


def test_a_file_that_is_missing_is_made_again(tiles: TileLibrary) -> None:
    made = make_source(tiles, key("elevation"))
    path = tiles.storage.local_path(made.record.files["dem"]["key"])
    content = path.read_bytes()
    path.unlink()
    assert tiles.record(key("elevation")) is None
    with pytest.raises(MissingObjectError, match=f"no elevation of {TILE}.*materialize elevation"):
        tiles.elevation(TILE)
    assert make_source(tiles, key("elevation")).preview is not None
    assert path.read_bytes() == content


def test_a_file_that_was_changed_is_not_read(tiles: TileLibrary) -> None:
    made = make_source(tiles, key("sentinel1"))
    path = tiles.storage.local_path(made.record.files["s1"]["key"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is not what was stored"):
        tiles.sentinel1(TILE, 2023)


def test_a_write_that_breaks_off_leaves_nothing_half(
    tiles: TileLibrary, sample_imagery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(tiles, key("sentinel2"))
    put = Storage.put_file

    def failing(storage: Storage, name: str, path: Path) -> None:
        if "s2_20" in name:
            raise StorageError("the store is gone")
        put(storage, name, path)

    other = library(tiles.settings.storage_root, sample_imagery, version=None)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put_file", failing)
        # Scenes of another date, so that the files differ.
        monkeypatch.setattr("ocr_assets.tiles.sentinel2.MOST_BAD_IMAGE", 0.01)
        with pytest.raises(StorageError, match="the store is gone"):
            make_source(other, key("sentinel2"), again=True)
    assert tiles.record(key("sentinel2")) is None
    with pytest.raises(MissingObjectError):
        tiles.sentinel2(TILE, 2023)
    assert make_source(other, key("sentinel2")).preview is not None
    assert len(tiles.sentinel2(TILE, 2023).dates) == 2


def test_every_file_carries_its_lineage(tiles: TileLibrary) -> None:
    made = make_source(tiles, key("sentinel1"))
    lineage = made.record.lineage
    path = tiles.storage.local_path(made.record.files["s1"]["key"])
    assert read_lineage(path) == lineage
    assert lineage["configuration"]["tile"] == TILE.key
    assert lineage["configuration"]["year"] == 2023
    assert lineage["configuration"]["place"].endswith("(sentinel-1-rtc)")
    assert set(lineage["inputs"]) == {"scenes"}


def test_both_kinds_of_storage(s3_bucket: Storage, sample_imagery: Path) -> None:
    tiles = library(s3_bucket.root, sample_imagery, s3_endpoint_url=s3_bucket.s3.endpoint_url)
    make_source(tiles, key("elevation"))
    assert make_source(tiles, key("elevation")).preview is None
    assert tiles.elevation(TILE).height.mean() > 100


@pytest.mark.parametrize("source", SOURCES)
def test_a_tile_that_is_not_in_the_grid(tiles: TileLibrary, source: Source) -> None:
    with pytest.raises(UnknownTileError, match="1X1Y is not in the grid"):
        make_source(tiles, key(source, tile=Tile(1, 1)))


def test_a_year_without_scenes(tiles: TileLibrary) -> None:
    for source, name in (("sentinel1", "Sentinel-1"), ("sentinel2", "Sentinel-2")):
        with pytest.raises(NoScenesError, match=f"no {name} scene of tile {TILE} in 2019"):
            make_source(tiles, key(source, 2019))  # type: ignore[arg-type]


def test_terrain_has_no_year() -> None:
    with pytest.raises(ValueError, match="elevation belongs to no year"):
        SourceKey("elevation", TILE, 2023)
    with pytest.raises(ValueError, match="sentinel2 belongs to a year"):
        SourceKey("sentinel2", TILE, None)
    assert str(replace(key("sentinel2"), year=2024)) == f"sentinel2 of {TILE} in 2024"


def test_a_library_can_be_sent_to_a_worker(tiles: TileLibrary) -> None:
    tiles.imagery("sentinel2").search(tiles.place(TILE).area, None, None)
    copy = pickle.loads(pickle.dumps(tiles))
    assert copy.settings == tiles.settings
    assert copy.imagery("sentinel2").place == tiles.imagery("sentinel2").place
