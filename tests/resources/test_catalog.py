"""The catalog: its document, opening every format from a folder and from S3, fingerprints."""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas
import icechunk
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st

from ocr_assets.regions.grid import CONUS, RegionGrid, Window
from resources.catalog import Catalog, CatalogError, DatasetEntry, MissingDatasetError
from resources.raster_ingest import publish_dataset
from resources.storage import Storage

SMALL = RegionGrid("small", Window(100, 160, 200, 300), 30, 50, ("y0_x0", "y1_x1"))
VALUES = np.arange(60 * 80, dtype=np.float32).reshape(60, 80)


def entry(format_: str, uri: str, **more: Any) -> dict[str, Any]:
    return {
        "format": format_,
        "uri": uri,
        "description": "made up",
        "source": "a test",
        "synthetic": True,
        **more,
    }


def catalog_at(folder: Path, **datasets: dict[str, Any]) -> Catalog:
    path = folder / "catalog.json"
    document = {"schema": 1, "notice": "test", "grid": SMALL.to_dict(), "datasets": datasets}
    path.write_text(json.dumps(document))
    return Catalog.read(str(path))


def raster() -> xr.Dataset:
    return xr.Dataset(
        {"BP": (("y", "x"), VALUES)},
        {
            "y": 270.0 * np.arange(60)[::-1],
            "x": 270.0 * np.arange(80),
            "spatial_ref": ((), 0, {"crs_wkt": rasterio.CRS.from_epsg(5070).to_wkt()}),
        },
    )


def write_icechunk(storage: icechunk.Storage, message: str = "first") -> None:
    repository = icechunk.Repository.open_or_create(storage)
    session = repository.writable_session("main")
    raster().to_zarr(session.store, zarr_format=3, consolidated=False, mode="w")
    session.commit(message)


def write_geotiff(path: Path, crs: str | None = "EPSG:5070", **options: Any) -> None:
    profile = {
        "driver": "GTiff",
        "width": 80,
        "height": 60,
        "count": 1,
        "dtype": "float32",
        "transform": Affine(270, 0, 1000, 0, -270, 5000),
        "crs": crs,
        **options,
    }
    with rasterio.open(path, "w", **profile) as file:
        for band in range(1, profile["count"] + 1):
            file.write((VALUES + band - 1).astype(profile["dtype"]), band)


def write_buildings(path: Path, **options: Any) -> None:
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    if path.suffix == ".parquet":
        frame.to_parquet(path, **options)
    else:
        frame.to_file(path, **options)


@pytest.fixture(scope="module")
def tiff(tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    folder = tmp_path_factory.mktemp("tiff")
    write_geotiff(folder / "a.tif")
    return catalog_at(folder, one=entry("geotiff", "a.tif")).open_raster("one")["band_1"]


class TestDocument:
    def test_round_trip(self, tmp_path: Path) -> None:
        made = Catalog(
            str(tmp_path),
            SMALL,
            {"one": DatasetEntry.model_validate(entry("zarr", "a.zarr", variables={"BP": "bp"}))},
            "a notice",
            {"seed": 1},
        )
        made.write(str(tmp_path / "catalog.json"))
        read = Catalog.read(str(tmp_path / "catalog.json"))
        assert (read.grid, read.datasets, read.notice) == (SMALL, made.datasets, "a notice")
        assert read.recipe == {"seed": 1}
        before = (tmp_path / "catalog.json").read_bytes()
        read.write(str(tmp_path / "catalog.json"))
        assert (tmp_path / "catalog.json").read_bytes() == before

    def test_conus_by_name(self, tmp_path: Path) -> None:
        Catalog(str(tmp_path), CONUS, {}).write(str(tmp_path / "c.json"))
        assert json.loads((tmp_path / "c.json").read_text())["grid"] == "conus"
        assert Catalog.read(str(tmp_path / "c.json")).grid is CONUS

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"colour": "red"}, "colour: Extra inputs"),
            ({"schema": 2}, "schema: Input should be 1"),
            ({"grid": "mars"}, "grid"),
            ({"grid": {"name": "x"}}, "not a region grid description"),
            ({"grid": SMALL.to_dict() | {"valid": ["y7_x7"]}}, "y7_x7"),
            ({"datasets": {"a": entry("csv", "a")}}, r"datasets\.a\.format"),
            ({"datasets": {"a": entry("zarr", "")}}, r"datasets\.a\.uri"),
            ({"datasets": {"a": entry("zarr", "a", url="b")}}, r"datasets\.a\.url: Extra"),
            ({"datasets": {"a": {"format": "zarr", "uri": "a"}}}, "Field required"),
            (
                {"datasets": {"a": entry("vector", "a", variables={"b": "c"})}},
                "variables is for rasters",
            ),
        ],
    )
    def test_wrong_document(self, tmp_path: Path, change: dict, message: str) -> None:
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps({"schema": 1, "grid": "conus", "datasets": {}} | change))
        with pytest.raises(CatalogError, match=message) as raised:
            Catalog.read(str(path))
        assert str(path) in str(raised.value)

    def test_not_json(self, tmp_path: Path) -> None:
        (tmp_path / "catalog.json").write_text("{")
        with pytest.raises(CatalogError, match="not valid JSON"):
            Catalog.read(str(tmp_path / "catalog.json"))

    def test_no_catalog(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "none" / "catalog.json")
        assert Catalog.find(uri) is None
        with pytest.raises(CatalogError, match="run `ocr sample`"):
            Catalog.read(uri)

    def test_unknown_dataset_names_what_there_is(self, tmp_path: Path) -> None:
        catalog = catalog_at(tmp_path, one=entry("zarr", "a"), two=entry("zarr", "b"))
        for ask in (catalog.dataset, catalog.fingerprint, catalog.open_raster, catalog.open_table):
            with pytest.raises(MissingDatasetError, match=r"'three'; it has one, two.*ocr sample"):
                ask("three")


class TestRasters:
    def test_icechunk_and_zarr(self, tmp_path: Path) -> None:
        write_icechunk(icechunk.local_filesystem_storage(str(tmp_path / "a.icechunk")))
        raster().to_zarr(tmp_path / "b.zarr", zarr_format=3, group="inner", consolidated=False)
        catalog = catalog_at(
            tmp_path,
            one=entry("icechunk", "a.icechunk"),
            two=entry("zarr", str(tmp_path / "b.zarr"), layer="inner"),
        )
        for name in ("one", "two"):
            opened = catalog.open_raster(name)
            assert not opened["BP"].variable._in_memory
            assert opened.chunks == {}
            np.testing.assert_array_equal(opened["BP"].values, VALUES)
            assert "Albers" in opened["spatial_ref"].attrs["crs_wkt"]

    def test_variables_are_renamed(self, tmp_path: Path) -> None:
        raster().to_zarr(tmp_path / "a.zarr", consolidated=False)
        catalog = catalog_at(
            tmp_path,
            good=entry("zarr", "a.zarr", variables={"CRPS": "BP"}),
            bad=entry("zarr", "a.zarr", variables={"CRPS": "crps"}),
        )
        assert list(catalog.open_raster("good").data_vars) == ["CRPS"]
        with pytest.raises(CatalogError, match="'bad': `variables` names 'crps', the data have BP"):
            catalog.open_raster("bad")

    def test_crs_comes_from_the_catalog_or_the_data(self, tmp_path: Path) -> None:
        bare = raster().drop_vars("spatial_ref")
        bare.to_zarr(tmp_path / "bare.zarr", consolidated=False)
        conventions = {
            "grid_mapping_name": "lambert_conformal_conic",
            "standard_parallel": [30.0, 50.0],
            "latitude_of_projection_origin": 39.1,
            "longitude_of_central_meridian": -97.9,
            "earth_radius": 6_370_000.0,
        }
        bare.assign(crs=((), 0, conventions)).to_zarr(tmp_path / "cf.zarr", consolidated=False)
        catalog = catalog_at(
            tmp_path,
            none=entry("zarr", "bare.zarr"),
            declared=entry("zarr", "bare.zarr", crs="EPSG:3310"),
            wrong=entry("zarr", "bare.zarr", crs="EPSG:nonsense"),
            conventions=entry("zarr", "cf.zarr"),
        )
        assert "spatial_ref" not in catalog.open_raster("none").coords
        assert "California" in catalog.open_raster("declared")["spatial_ref"].attrs["crs_wkt"]
        opened = catalog.open_raster("conventions")
        assert "Lambert" in opened["spatial_ref"].attrs["crs_wkt"]
        assert list(opened.data_vars) == ["BP"]
        with pytest.raises(CatalogError, match="'wrong': unreadable coordinate system"):
            catalog.open_raster("wrong")

    def test_nothing_there(self, tmp_path: Path) -> None:
        (tmp_path / "broken.tif").write_bytes(b"II*\0 truncated")
        catalog = catalog_at(
            tmp_path,
            one=entry("icechunk", "a"),
            two=entry("zarr", "b"),
            three=entry("geotiff", "c.tif"),
            four=entry("geotiff", "broken.tif"),
            five=entry("vector", "d.gpkg"),
        )
        for name in ("one", "two", "three", "four"):
            with pytest.raises(CatalogError, match=f"dataset '{name}'"):
                catalog.open_raster(name)
        for name in ("one", "two", "three", "five"):
            with pytest.raises(CatalogError, match=f"dataset '{name}': there is no"):
                catalog.fingerprint(name)
        with pytest.raises(CatalogError, match="'five' is vector, expected icechunk or zarr"):
            catalog.open_raster("five")
        with pytest.raises(CatalogError, match="'one' is icechunk, expected geoparquet or vector"):
            catalog.open_table("one")


class TestGeotiff:
    def test_windows_are_read_lazily(self, tmp_path: Path) -> None:
        write_geotiff(tmp_path / "a.tif", tiled=True, blockxsize=16, blockysize=16)
        catalog = catalog_at(tmp_path, one=entry("geotiff", "a.tif", variables={"BP": "band_1"}))
        opened = catalog.open_raster("one")
        assert not opened["BP"].variable._in_memory
        assert opened["y"].values[:2].tolist() == [4865, 4595]
        assert opened["x"].values[:2].tolist() == [1135, 1405]
        for key in (
            (slice(3, 9), slice(70, None)),
            (slice(9, 3, -2), slice(None, None, -1)),
            (5, slice(0, 80, 7)),
            (slice(4, 4), slice(0, 3)),
            (-1, -1),
        ):
            np.testing.assert_array_equal(opened["BP"][key].values, VALUES[key])
        copied = pickle.loads(pickle.dumps(opened["BP"][2:4]))
        np.testing.assert_array_equal(copied.values, VALUES[2:4])

    @given(
        *[st.tuples(*[st.none() | st.integers(-90, 90)] * 2, st.sampled_from([-7, -1, 1, 3]))] * 2
    )
    def test_any_slice_is_that_of_the_array(
        self, tiff: xr.DataArray, rows: tuple[int, int, int], cols: tuple[int, int, int]
    ) -> None:
        key = slice(*rows), slice(*cols)
        # Of an array that is read lazily, xarray cannot cut an empty slice that runs backwards.
        assume(VALUES[key].size or min(rows[2], cols[2]) > 0)
        np.testing.assert_array_equal(tiff[key].values, VALUES[key])

    def test_geographic_file_gets_latitude_and_longitude(self, tmp_path: Path) -> None:
        write_geotiff(tmp_path / "a.tif", "EPSG:4326", transform=Affine(0.1, 0, 5, 0, 0.1, 7))
        opened = catalog_at(tmp_path, one=entry("geotiff", "a.tif")).open_raster("one")
        assert opened["band_1"].dims == ("latitude", "longitude")
        assert opened["latitude"].values[0] == pytest.approx(7.05)

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    def test_no_data_reads_as_nan(self, tmp_path: Path, dtype: str) -> None:
        write_geotiff(tmp_path / "a.tif", dtype=dtype, nodata=81, count=2)
        opened = catalog_at(tmp_path, one=entry("geotiff", "a.tif")).open_raster("one")
        assert np.isnan(opened["band_1"].values[1, 1])
        assert np.isnan(opened["band_2"].values[1, 0])
        assert int(np.isnan(opened["band_1"].values).sum()) == 1

    def test_rotated_file_is_refused(self, tmp_path: Path) -> None:
        write_geotiff(tmp_path / "a.tif", transform=Affine(1, 0.5, 0, 0.5, -1, 0))
        with pytest.raises(CatalogError, match="rotated"):
            catalog_at(tmp_path, one=entry("geotiff", "a.tif")).open_raster("one")


class TestTables:
    def test_geoparquet_and_vector(self, tmp_path: Path) -> None:
        write_buildings(tmp_path / "a.parquet")
        write_buildings(tmp_path / "a.gpkg", layer="inner")
        catalog = catalog_at(
            tmp_path,
            one=entry("geoparquet", "a.parquet"),
            two=entry("vector", "a.gpkg", layer="inner"),
        )
        table = catalog.open_table("one")
        assert table.filesystem is not None
        assert geopandas.read_parquet(table.path, filesystem=table.filesystem)["id"][0] == "a"
        table = catalog.open_table("two")
        assert table.filesystem is None
        assert geopandas.read_file(table.path, layer=table.layer)["id"][0] == "a"


class TestFingerprints:
    def test_follow_content_and_not_times(self, tmp_path: Path) -> None:
        write_buildings(tmp_path / "a.parquet")
        raster().to_zarr(tmp_path / "b.zarr", consolidated=False)
        write_icechunk(icechunk.local_filesystem_storage(str(tmp_path / "c.icechunk")))
        catalog = catalog_at(
            tmp_path,
            one=entry("geoparquet", "a.parquet"),
            two=entry("zarr", "b.zarr"),
            three=entry("icechunk", "c.icechunk"),
        )
        names = ("one", "two", "three")
        before = [catalog.fingerprint(name) for name in names]
        assert len(set(before)) == 3
        for path in tmp_path.rglob("*"):
            os.utime(path, (1, 1))
        assert [catalog.fingerprint(name) for name in names] == before

        write_buildings(tmp_path / "a.parquet", compression="gzip")
        (raster() + 1).to_zarr(tmp_path / "b.zarr", consolidated=False, mode="w")
        write_icechunk(icechunk.local_filesystem_storage(str(tmp_path / "c.icechunk")), "second")
        after = [catalog.fingerprint(name) for name in names]
        assert all(one != other for one, other in zip(before, after, strict=True))


def test_everything_from_s3(s3_bucket: Storage, tmp_path: Path) -> None:
    write_buildings(tmp_path / "a.parquet")
    write_geotiff(tmp_path / "a.tif")
    raster().to_zarr(tmp_path / "b.zarr", consolidated=False)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            s3_bucket.put_file(f"in/{path.relative_to(tmp_path).as_posix()}", path)
    bucket, _ = s3_bucket.bucket_and_prefix
    write_icechunk(
        icechunk.s3_storage(
            bucket=bucket,
            prefix="in/c.icechunk",
            region="us-east-1",
            endpoint_url=s3_bucket.s3.endpoint_url,
            allow_http=True,
            force_path_style=True,
            from_env=True,
        )
    )
    uri = s3_bucket.uri("in/catalog.json")
    assert Catalog.find(uri, s3_bucket.s3) is None
    entries = {
        "table": entry("geoparquet", "a.parquet"),
        "tiff": entry("geotiff", s3_bucket.uri("in/a.tif"), variables={"BP": "band_1"}),
        "zarr": entry("zarr", "b.zarr"),
        "icechunk": entry("icechunk", "c.icechunk"),
        "vector": entry("vector", "a.gpkg"),
    }
    Catalog(
        s3_bucket.uri("in"),
        SMALL,
        {name: DatasetEntry.model_validate(value) for name, value in entries.items()},
        s3=s3_bucket.s3,
    ).write(uri)
    catalog = Catalog.read(uri, s3_bucket.s3)
    assert catalog.grid == SMALL
    for name in ("tiff", "zarr", "icechunk"):
        np.testing.assert_array_equal(catalog.open_raster(name)["BP"][5:9].values, VALUES[5:9])
    table = catalog.open_table("table")
    assert geopandas.read_parquet(table.path, filesystem=table.filesystem)["id"][0] == "a"
    names = ("table", "tiff", "zarr", "icechunk")
    assert len({catalog.fingerprint(name) for name in names}) == 4
    with pytest.raises(CatalogError, match="from the local disk only"):
        catalog.open_table("vector")

    def test_every_part_of_a_shapefile_counts(self, tmp_path: Path) -> None:
        write_buildings(tmp_path / "a.shp")
        catalog = catalog_at(tmp_path, one=entry("vector", "a.shp"))
        before = catalog.fingerprint("one")
        assert catalog.fingerprint("one") == before
        for part in (".dbf", ".shx", ".prj", ".cpg", ".shp"):
            path = tmp_path / f"a{part}"
            content = path.read_bytes()
            path.write_bytes(content + b" ")
            assert catalog.fingerprint("one") != before, part
            path.write_bytes(content)
            assert catalog.fingerprint("one") == before
        (tmp_path / "a.cpg").unlink()
        assert catalog.fingerprint("one") != before

    def test_an_ingested_raster_is_known_by_its_recipe(self, tmp_path: Path) -> None:
        found = []
        for folder in ("a", "b"):
            place = Storage(str(tmp_path / folder))
            publish_dataset(place, raster(), {"made": "up"})
            catalog = catalog_at(tmp_path, one=entry("icechunk", folder))
            found.append(catalog.fingerprint("one"))
        assert found[0] == found[1]
        assert found[0].startswith("recipe:")
        # What somebody else commits on top is not what the recipe says.
        write_icechunk(icechunk.local_filesystem_storage(str(tmp_path / "b")), "by hand")
        assert catalog.fingerprint("one").startswith("icechunk:")


class TestRegister:
    def test_entries_are_added_and_replaced(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "catalog.json")
        one, two = (DatasetEntry.model_validate(entry("zarr", name)) for name in ("a", "b"))
        Catalog.register(uri, {"one": one})
        Catalog.register(uri, {"two": two})
        Catalog.register(uri, {"one": two})
        read = Catalog.read(uri)
        assert read.grid is CONUS
        assert read.datasets == {"one": two, "two": two}

    def test_grid_and_notice_stay(self, tmp_path: Path) -> None:
        catalog_at(tmp_path, old=entry("zarr", "a"))
        uri = str(tmp_path / "catalog.json")
        Catalog.register(uri, {"new": DatasetEntry.model_validate(entry("zarr", "b"))})
        read = Catalog.read(uri)
        assert (read.grid, read.notice, [*read.datasets]) == (SMALL, "test", ["new", "old"])

    def test_many_at_once_lose_nothing(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "catalog.json")

        def register(number: int) -> None:
            made = DatasetEntry.model_validate(entry("zarr", f"{number}"))
            Catalog.register(uri, {f"d{number}": made})

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(register, range(8)))
        assert len(Catalog.read(uri).datasets) == 8

    def test_on_an_object_store(self, s3_bucket: Storage) -> None:
        uri = s3_bucket.uri("input/catalog.json")
        for name in ("one", "two"):
            made = DatasetEntry.model_validate(entry("zarr", name))
            Catalog.register(uri, {name: made}, s3_bucket.s3)
        assert [*Catalog.read(uri, s3_bucket.s3).datasets] == ["one", "two"]

    def test_a_generated_catalog_is_left_alone(self, tmp_path: Path) -> None:
        uri = str(tmp_path / "catalog.json")
        Catalog(str(tmp_path), SMALL, {}, recipe={"seed": 1}).write(uri)
        with pytest.raises(CatalogError, match="that of a generated world; set OCR_CATALOG"):
            Catalog.register(uri, {"one": DatasetEntry.model_validate(entry("zarr", "a"))})
        assert not Catalog.read(uri).datasets
