"""Tiles side by side in one raster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from published_tiles import BLOCK, PublishedTiles, publish

from ocr_assets.tiles.mosaic import MosaicError, write_mosaic_cog, write_mosaic_vrt
from ocr_assets.tiles.tree_cover import NODATA


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> PublishedTiles:
    return publish(tmp_path_factory.mktemp("tiles"))


def test_a_mosaic_holds_every_pixel(tiles: PublishedTiles, tmp_path: Path) -> None:
    paths = list(tiles.paths.values())
    path = tmp_path / "out" / "all.tif"
    assert write_mosaic_cog(paths, path, {"year": 2023}) == tiles.box
    assert [file.name for file in path.parent.iterdir()] == ["all.tif"]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), tiles.percent)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert tuple(file.bounds) == pytest.approx(tiles.box.bounds, abs=1e-12)
        assert (file.nodata, file.overviews(1)) == (NODATA, [2, 4, 8])
        assert json.loads(file.tags()["LINEAGE"]) == {"year": 2023}
        assert file.colormap(1)[90][:3] == (18, 116, 52)
    with rasterio.open(path, overview_level=0) as file:
        inner = tiles.percent[400:500, 560:660].reshape(50, 2, 50, 2).astype(int).sum(axis=(1, 3))
        assert np.abs(file.read(1)[200:250, 280:330] - inner / 4).max() <= 0.5
    again = tmp_path / "again.tif"
    write_mosaic_cog(paths[::-1], again, {"year": 2023})
    assert again.read_bytes() == path.read_bytes()


def test_gaps_are_no_data(tiles: PublishedTiles, tmp_path: Path) -> None:
    box = write_mosaic_cog([tiles.paths[BLOCK[0]], tiles.paths[BLOCK[3]]], tmp_path / "a.tif", {})
    assert box == tiles.box
    with rasterio.open(tmp_path / "a.tif") as file:
        percent = file.read(1)
    assert (percent[:600, :600] == NODATA).all()
    np.testing.assert_array_equal(percent[-600:, :600], tiles.percent[-600:, :600])


def test_a_virtual_mosaic_moves_with_its_tiles(tiles: PublishedTiles, tmp_path: Path) -> None:
    there = tmp_path / "there"
    paths = []
    for tile, path in tiles.paths.items():
        paths.append(there / f"{tile.key}.tif")
        paths[-1].parent.mkdir(exist_ok=True)
        shutil.copy(path, paths[-1])
    write_mosaic_vrt(paths, there / "maps" / "all.vrt")
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    with rasterio.open(tmp_path / "elsewhere" / "maps" / "all.vrt") as file:
        np.testing.assert_array_equal(file.read(1), tiles.percent)
        assert file.nodata == NODATA
        assert file.colormap(1)[20][:3] == (225, 241, 224)


def test_tiles_off_the_lattice_take_their_nearest_place(
    tiles: PublishedTiles, tmp_path: Path
) -> None:
    """Such as tiles of another maker, 309 pixels on a side."""
    with rasterio.open(tiles.paths[BLOCK[0]]) as file:
        profile, bounds = file.profile, file.bounds
    side = 309
    values = np.random.default_rng(1).integers(0, 101, (side, side)).astype(np.uint8)
    profile.update(
        width=side, height=side, transform=rasterio.transform.from_bounds(*bounds, side, side)
    )
    with rasterio.open(tmp_path / "coarse.tif", "w", **profile) as file:
        file.write(values, 1)
    write_mosaic_cog([tmp_path / "coarse.tif"], tmp_path / "all.tif", {})
    with rasterio.open(tmp_path / "all.tif") as file:
        np.testing.assert_array_equal(file.read(1), values.repeat(2, axis=0).repeat(2, axis=1))


def test_what_is_no_tile_is_refused(tiles: PublishedTiles, tmp_path: Path) -> None:
    good = list(tiles.paths.values())
    with pytest.raises(MosaicError, match="no tiles to make a mosaic of"):
        write_mosaic_cog([], tmp_path / "all.tif", {})
    (tmp_path / "broken.tif").write_bytes(good[0].read_bytes()[:200])
    with pytest.raises(MosaicError, match=r"broken\.tif cannot be read"):
        write_mosaic_cog([*good, tmp_path / "broken.tif"], tmp_path / "all.tif", {})
    data = good[0].read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(MosaicError, match=r"cannot be read"):
        write_mosaic_cog([tmp_path / "cut.tif"], tmp_path / "all.tif", {})
    with rasterio.open(good[0]) as file:
        profile = {**file.profile, "dtype": "float32", "nodata": None}
    with rasterio.open(tmp_path / "float.tif", "w", **profile) as file:
        file.write(np.zeros(file.shape, np.float32), 1)
    with pytest.raises(MosaicError, match="not one band of uint8"):
        write_mosaic_vrt([tmp_path / "float.tif"], tmp_path / "all.vrt")
    assert not (tmp_path / "all.tif").exists()
    assert not (tmp_path / "all.vrt").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "broken.tif", "cut.tif", "float.tif",
    ]  # fmt: skip
