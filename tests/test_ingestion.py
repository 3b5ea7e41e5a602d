"""Published inputs brought in from servers on loopback: whole, checked, catalogued, restartable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from published_inputs import (
    COLORADO_AND_WYOMING,
    GRID,
    NODATA,
    Published,
    blocks,
    bring_in,
    burn_probability,
    geotiff,
    raster_files,
    risk_component,
    zipped,
)
from pyproj import Transformer

from ocr_assets.ingestion import IngestError
from ocr_assets.regions import inputs
from ocr_assets.regions.geographies import read_geographies
from ocr_assets.regions.input_sources import (
    CENSUS,
    RISK_COMPONENTS,
    SOURCES,
    Choice,
    SourceError,
)
from ocr_assets.regions.warp import RasterFileError
from resources.archives import ArchiveError
from resources.catalog import Catalog, CatalogError
from resources.downloads import DownloadError
from resources.storage import Storage


class TestRasters:
    def test_riley(self, published: Published) -> None:
        published.serve("riley-et-al-2025")
        found = bring_in(published.ingestion, "riley-et-al-2025")
        assert not any(ingested.skipped for ingested in found.values())
        catalog = published.catalog
        assert set(catalog.datasets) == set(SOURCES["riley-et-al-2025"].datasets)
        for climate, name in inputs.BURN_PROBABILITY_270M.items():
            values, transform = burn_probability(climate)
            expected = np.where(values == NODATA, np.nan, np.maximum(values, 0))
            raster = catalog.open_raster(name)
            np.testing.assert_array_equal(raster["BP"], expected.astype(np.float32))
            assert raster["x"].values[0] == transform.c + 135
            assert raster["y"].values[0] == transform.f - 135
            assert catalog.fingerprint(name) == found[name].fingerprint
        pixels = catalog.open_raster(inputs.BURN_PROBABILITY_30M[2011])
        np.testing.assert_array_equal(pixels["latitude"], GRID.window.latitude)
        np.testing.assert_array_equal(pixels["longitude"], GRID.window.longitude)
        assert pixels["BP"].encoding["chunks"] == (60, 80)
        # The cell under a pixel's centre.
        native = catalog.open_raster(inputs.BURN_PROBABILITY_270M[2011])
        project = Transformer.from_crs(4326, 5070, always_xy=True)
        x, y = project.transform(pixels["longitude"].values[33], pixels["latitude"].values[77])
        assert pixels["BP"].values[77, 33] == native["BP"].sel(x=x, y=y, method="nearest")
        assert float(pixels["BP"].min()) >= 0

    def test_all_components_of_scott(self, published: Published) -> None:
        published.serve("scott-et-al-2024")
        found = bring_in(published.ingestion, "scott-et-al-2024")
        native = published.catalog.open_raster("scott-et-al-2024")
        assert sorted(native.data_vars) == sorted(RISK_COMPONENTS)
        for name in RISK_COMPONENTS:
            values = risk_component(name)[0]
            expected = np.where(values == NODATA, np.nan, values)
            np.testing.assert_array_equal(native[name], expected)
        metadata = found[inputs.CONDITIONAL_RISK].metadata
        assert metadata["pixels"] == 120 * 160
        assert metadata["lineage"]["configuration"]["resampling"] == "nearest"
        arrivals = {f"{name}.zip" for name in metadata["lineage"]["inputs"]}
        assert len(arrivals) == 8

    @pytest.mark.parametrize("name", ["dillon-et-al-2023", "calfire-fhsz"])
    def test_what_evaluation_needs(self, published: Published, name: str) -> None:
        published.serve(name)
        found = bring_in(published.ingestion, name)
        native, pixels = (published.catalog.open_raster(dataset) for dataset in found)
        for variable in native.data_vars:
            values = pixels[variable].values
            found_values = values[~np.isnan(values)]
            assert found_values.size
            assert np.isin(found_values, native[variable].values).all()
        if name == "calfire-fhsz":
            assert "California Albers" in native["spatial_ref"].attrs["crs_wkt"]
            classes = np.unique(pixels["FHSZ"].values[~np.isnan(pixels["FHSZ"].values)])
            assert classes.tolist() == [1, 2, 3]

    def test_the_same_again_is_skipped_and_gives_the_same(self, published: Published) -> None:
        published.serve("riley-et-al-2025")
        first = bring_in(published.ingestion, "riley-et-al-2025")
        published.server.requests.clear()
        again = bring_in(published.ingestion, "riley-et-al-2025")
        assert all(ingested.skipped for ingested in again.values())
        assert not published.server.requests
        # From scratch somewhere else it has the same identity.
        shutil.rmtree(published.folder / "root")
        published.begin_catalog()
        anew = bring_in(published.ingestion, "riley-et-al-2025")
        assert {name: one.fingerprint for name, one in anew.items()} == {
            name: one.fingerprint for name, one in first.items()
        }

    def test_a_new_version_changes_what_is_made_from_it_only(self, published: Published) -> None:
        for name in ("riley-et-al-2025", "calfire-fhsz"):
            published.serve(name)
        before = bring_in(published.ingestion, "riley-et-al-2025")
        other = bring_in(published.ingestion, "calfire-fhsz")
        name = SOURCES["riley-et-al-2025"].files[0].path
        data = raster_files()["riley-et-al-2025"][name]
        published.server.files[f"/riley-et-al-2025/{name}"] = data + b"padding"
        after = bring_in(published.ingestion, "riley-et-al-2025")
        for dataset in before:
            assert before[dataset].fingerprint != after[dataset].fingerprint
        again = bring_in(published.ingestion, "calfire-fhsz")
        assert {k: v.fingerprint for k, v in again.items()} == {
            k: v.fingerprint for k, v in other.items()
        }

    def test_impossible_values_are_refused(self, published: Published) -> None:
        files = dict(raster_files()["scott-et-al-2024"])
        published.serve("scott-et-al-2024", files)
        bring_in(published.ingestion, "scott-et-al-2024")
        before = published.catalog.fingerprint(inputs.CONDITIONAL_RISK)
        values, transform = risk_component("CRPS")
        path = SOURCES["scott-et-al-2024"].files[1].path
        wrong = zipped({"CRPS_CONUS.tif": geotiff(values * 100, transform)})
        published.serve("scott-et-al-2024", {**files, path: wrong})
        source = published.ingestion.source("scott-et-al-2024")
        published.ingestion.download(source, Choice())
        with pytest.raises(IngestError, match=r"CRPS runs from .* expected 0 to 100 \(percent\)"):
            published.ingestion.process(inputs.CONDITIONAL_RISK, Choice())
        assert published.catalog.fingerprint(inputs.CONDITIONAL_RISK) == before

    def test_damaged_and_wrong_files_are_told(self, published: Published) -> None:
        name = "dillon-et-al-2023"
        ingestion = published.ingestion
        with pytest.raises(IngestError, match="ocr ingest-data download dillon-et-al-2023"):
            ingestion.process(SOURCES[name].datasets[0], Choice())
        published.serve(name, {"RDS-2016-0034-3.zip": b"no zip"})
        with pytest.raises(ArchiveError, match="not a whole zip archive"):
            bring_in(published.ingestion, name)
        published.serve("calfire-fhsz", {"calfire-risk-raster.tif": b"no raster"})
        with pytest.raises(RasterFileError, match="cannot read the raster"):
            bring_in(published.ingestion, "calfire-fhsz")
        assert not published.catalog.datasets

    def test_a_published_hash_is_checked(self, published: Published) -> None:
        published.serve("riley-et-al-2025")
        del published.places["riley-et-al-2025"]["sha256"]
        with pytest.raises(DownloadError, match="a92b4f6e"):
            bring_in(published.ingestion, "riley-et-al-2025")
        assert not list(published.folder.rglob("*.zip"))


class TestCensus:
    def test_every_level(self, published: Published) -> None:
        published.serve(CENSUS)
        found = bring_in(published.ingestion, CENSUS, COLORADO_AND_WYOMING)
        catalog = published.catalog
        table = catalog.open_table("us-census-blocks")
        assert pq.read_table(table.path)["GEOID"].to_pylist() == sorted(blocks())
        assert found["us-census-counties"].metadata["report"] == {
            "read": 3,
            "elsewhere": 1,
            "written": 2,
        }
        again = bring_in(published.ingestion, CENSUS, COLORADO_AND_WYOMING)
        assert all(ingested.skipped for ingested in again.values())

    def test_one_level_of_one_state(self, published: Published) -> None:
        published.serve(CENSUS)
        choice = Choice("tracts", states=("08",))
        assert [*bring_in(published.ingestion, CENSUS, choice)] == ["us-census-tracts"]
        assert len(published.server.requests) == 1
        assert [*published.catalog.datasets] == ["us-census-tracts"]

    def test_a_new_table_replaces_the_old_one(self, published: Published) -> None:
        published.serve(CENSUS)
        for states in (("08",), ("56",), ("08", "56")):
            bring_in(published.ingestion, CENSUS, Choice("tracts", states=states))
            path = published.catalog.open_table("us-census-tracts").path
            codes = pq.read_table(path)["GEOID"].to_pylist()
            assert {code[:2] for code in codes} == set(states)
        # The one before stays for whoever reads it now.
        assert len(list(Path(path).parent.iterdir())) == 2

    def test_the_last_file_missing_publishes_nothing(self, published: Published) -> None:
        published.serve(CENSUS)
        source = published.ingestion.source(CENSUS)
        published.ingestion.download(source, Choice("blocks", states=("08",)))
        with pytest.raises(IngestError, match=r"tl_2025_56_tabblocksufx\.zip is not there"):
            published.ingestion.process("us-census-blocks", COLORADO_AND_WYOMING)
        assert not published.catalog.datasets


class TestLooking:
    def test_a_changed_file_changes_the_version(self, published: Published) -> None:
        published.serve("calfire-fhsz")
        ingestion = published.ingestion
        before = ingestion.look("calfire-fhsz")
        assert ingestion.look("calfire-fhsz") == before
        assert before.metadata["files"] == 1
        published.server.files["/calfire-fhsz/calfire-risk-raster.tif"] += b" "
        after = ingestion.look("calfire-fhsz")
        assert after.version != before.version
        assert not published.server.requests, "nothing is fetched"

    def test_a_publisher_that_does_not_answer(self, published: Published) -> None:
        published.serve("calfire-fhsz", {})
        with pytest.raises(DownloadError, match="cannot be looked at"):
            published.ingestion.look("calfire-fhsz")


class TestPlaces:
    def test_unknown_sources_are_named(self, published: Published) -> None:
        with pytest.raises(SourceError, match="there is no source 'mars'; there are scott"):
            published.ingestion.source("mars")
        published.places["mars"] = {}
        with pytest.raises(SourceError, match="names the source 'mars'"):
            published.ingestion.source("scott-et-al-2024")

    def test_a_plan_touches_nothing(self, published: Published) -> None:
        published.serve("riley-et-al-2025")
        ingestion = published.ingestion
        planned = ingestion.plan("riley-et-al-2025", Choice(), download=True, process=True)
        assert [one.action for one in planned] == ["fetch", *["write"] * 4, "register"]
        assert not published.server.requests
        assert not published.server.looks
        assert not (published.folder / "root" / "input" / "downloads").exists()

    def test_the_catalog_of_the_sample_world_is_left_alone(self, published: Published) -> None:
        uri = Path(published.settings.catalog_uri)
        document = json.loads(uri.read_text()) | {"recipe": {"seed": 1}}
        uri.write_text(json.dumps(document))
        with pytest.raises(IngestError, match="that of the sample world; set OCR_CATALOG"):
            published.ingestion.process("us-census-nation", Choice())

    def test_a_first_catalog_is_made_for_conus(self, published: Published) -> None:
        Path(published.settings.catalog_uri).unlink()
        published.serve(CENSUS)
        bring_in(published.ingestion, CENSUS, Choice("nation"))
        assert published.catalog.grid.name == "conus"

    def test_downloads_may_be_elsewhere(self, published: Published, tmp_path: Path) -> None:
        published.serve(CENSUS)
        settings = published.settings.model_copy(update={"downloads_root": tmp_path / "else"})
        ingestion = replace(published.ingestion, settings=settings)
        bring_in(ingestion, CENSUS, Choice("nation"))
        assert (tmp_path / "else" / CENSUS / "cb_2024_us_nation_5m.zip").is_file()

    def test_results_on_an_object_store(self, published: Published, s3_bucket: Storage) -> None:
        for name in (CENSUS, "calfire-fhsz"):
            published.serve(name)
        settings = published.settings.model_copy(
            update={
                "storage_root": f"{s3_bucket.root}/data",
                "downloads_root": published.folder / "downloads",
                "s3_endpoint_url": s3_bucket.s3.endpoint_url,
            }
        )
        Catalog(s3_bucket.root, GRID, {}, s3=s3_bucket.s3).write(settings.catalog_uri)
        ingestion = replace(published.ingestion, settings=settings)
        for _ in range(2):
            bring_in(ingestion, CENSUS, Choice("tracts", states=("08",)))
            found = bring_in(ingestion, "calfire-fhsz")
        assert all(ingested.skipped for ingested in found.values())
        catalog = ingestion.catalog()
        assert catalog is not None
        assert catalog.fingerprint("calfire-fhsz-4326") == found["calfire-fhsz-4326"].fingerprint
        assert float(catalog.open_raster("calfire-fhsz-4326")["FHSZ"].max()) == 3
        table = catalog.open_table("us-census-tracts")
        rows = read_geographies(table.path, "tract", filesystem=table.filesystem)
        assert {code[:2] for code in rows["GEOID"].to_pylist()} == {"08"}

    def test_no_catalog_that_is_broken_is_overwritten(self, published: Published) -> None:
        Path(published.settings.catalog_uri).write_text("{")
        with pytest.raises(CatalogError, match="not valid JSON"):
            published.ingestion.process("us-census-nation", Choice())
