"""Statistics as files: the same rows in every format, their metadata, the same bytes again."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from ocr_assets.geoparquet import GeoParquetError, bbox_array, wkb_array, write_geoparquet
from ocr_assets.regions import analysis_files
from ocr_assets.regions.analysis_files import AnalysisReport, file_metadata, write_analysis_files
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.statistics import statistics_schema
from ocr_assets.regions.wind_risk import WIND_RISK

LINEAGE = {"version": "v1.2.3", "inputs": {"county": "f00d"}}
METADATA = file_metadata(FIRE, "v1.2.3", ["Synthetic.", ""], LINEAGE)
NAMES = ["Adams", 'Doña "A", Ana', "Nowhere", "Empty"]
TWO_PARTS = shapely.MultiPolygon([shapely.box(-90, 40, -89, 41), shapely.box(-88, 40, -87, 41)])


def counties(rows: int = 4) -> pa.Table:
    """Counties: a clockwise outline, two parts, no outline, no buildings."""
    outline = np.array(
        [
            shapely.Polygon([(-105, 39), (-105, 41), (-103, 41), (-103, 39)]),
            TWO_PARTS,
            None,
            shapely.box(-80, 30, -79, 31),
        ]
    )[np.arange(rows) % 4]
    empty = np.arange(rows) % 4 == 3
    columns = {}
    for number, field in enumerate(statistics_schema(FIRE, "county")):
        if field.name == "building_count":
            columns[field.name] = pa.array(np.where(empty, 0, 7))
        elif pa.types.is_list(field.type):
            columns[field.name] = pa.array([[0] * 11 if no else [7, *[0] * 10] for no in empty])
        elif pa.types.is_floating(field.type):
            columns[field.name] = pa.array(np.full(rows, number / 8), mask=empty)
    columns |= {
        "GEOID": pa.array([f"{8001 + row:05}" for row in range(rows)]),
        "NAME": pa.array([NAMES[row % 4] for row in range(rows)]),
        "geometry": wkb_array(outline),
        "bbox": bbox_array(outline),
    }
    schema = statistics_schema(FIRE, "county")
    return pa.table([columns[name] for name in schema.names], schema.names).cast(schema)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "county.parquet"
    write_geoparquet(counties(), path, {})
    return path


@pytest.fixture
def made(table: Path, tmp_path: Path) -> AnalysisReport:
    return write_analysis_files(table, tmp_path / "counties", METADATA, LINEAGE)


def test_files_and_rows(made: AnalysisReport, tmp_path: Path) -> None:
    assert made.rows == 4
    found = {path.name for path in (tmp_path / "counties").iterdir()}
    assert found == {"stats.parquet", "stats.csv", "stats.geojson", "stats.gpkg"}


def test_csv_is_read_after_its_metadata(made: AnalysisReport) -> None:
    lines = made.files["csv"].read_text().splitlines()
    head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    assert head == METADATA
    read = pd.read_csv(made.files["csv"], comment="#", dtype={"GEOID": str})
    assert read["GEOID"].tolist() == ["08001", "08002", "08003", "08004"]
    assert read["NAME"].tolist() == NAMES
    assert read["building_count"].tolist() == [7, 7, 7, 0]
    assert json.loads(read["risk_score_2011_hist"][0]) == [7, *[0] * 10]
    assert read["rps_2011_mean"].isna().tolist() == [False, False, False, True]
    assert read["longitude"].tolist()[:2] == [-104.0, -88.5]
    assert np.isnan(read["latitude"][2])
    without = [name for name in counties().column_names if name not in ("geometry", "bbox")]
    assert list(read.columns) == [*without, "longitude", "latitude"]


def test_geojson_has_metadata_and_features(made: AnalysisReport) -> None:
    document = json.loads(made.files["geojson"].read_text())
    assert document["type"] == "FeatureCollection"
    assert document["metadata"] == METADATA
    first, second, third, fourth = document["features"]
    assert first["properties"]["risk_score_2047_hist"] == [7, *[0] * 10]
    assert second["properties"]["NAME"] == NAMES[1]
    assert third["geometry"] is None
    assert fourth["properties"]["rps_2011_p99"] is None
    ring = shapely.geometry.shape(first["geometry"]).exterior
    assert ring.is_ccw
    assert len(geopandas.read_file(made.files["geojson"])) == 4


def test_geopackage_opens_in_gdal(made: AnalysisReport) -> None:
    info = pyogrio.read_info(made.files["gpkg"])
    assert info["layer_name"] == "stats"
    assert info["geometry_type"] == "MultiPolygon"
    assert info["crs"] == "EPSG:4326"
    assert info["layer_metadata"] == METADATA
    read = geopandas.read_file(made.files["gpkg"])
    assert read["NAME"].tolist() == NAMES
    assert shapely.equals(read.geometry[1], TWO_PARTS)
    assert read.geometry[2] is None
    assert read["rps_2011_mean"].dtype == np.float64
    assert read["rps_2011_median"].dtype == np.float32
    assert len(pyogrio.read_dataframe(made.files["gpkg"], bbox=(-89.5, 40, -89, 41))) == 1


def test_geoparquet_keeps_columns_and_says_its_licence(made: AnalysisReport) -> None:
    read = pq.read_table(made.files["parquet"])
    assert read.replace_schema_metadata().equals(counties())
    kept = pq.read_metadata(made.files["parquet"]).metadata
    assert kept[b"license_name"] == b"ODbL-1.0"
    assert b"OpenStreetMap contributors" in kept[b"notice"]
    assert json.loads(kept[b"lineage"]) == LINEAGE
    assert geopandas.read_parquet(made.files["parquet"]).crs == "EPSG:4326"


def test_same_rows_same_bytes_whatever_the_batches(
    made: AnalysisReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 900
    write_geoparquet(counties(rows), tmp_path / "many.parquet", {})
    hashes = []
    for size in (8192, 8192, 64):
        monkeypatch.setattr(analysis_files, "_BATCH_ROWS", size)
        report = write_analysis_files(tmp_path / "many.parquet", tmp_path / "x", METADATA, LINEAGE)
        hashes.append(
            {
                kind: hashlib.sha256(path.read_bytes()).hexdigest()
                for kind, path in report.files.items()
                if size == 8192 or kind in ("csv", "geojson")
            }
        )
    assert hashes[0] == hashes[1]
    assert hashes[2].items() <= hashes[0].items()
    assert len(json.loads(report.files["geojson"].read_text())["features"]) == rows
    assert len(pd.read_csv(report.files["csv"], comment="#")) == rows


def test_threads_write_the_same_bytes(table: Path, made: AnalysisReport, tmp_path: Path) -> None:
    """GDAL's date is an option of the whole process; no thread may take it from another."""
    folders = [tmp_path / f"thread-{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(
            lambda folder: write_analysis_files(table, folder, METADATA, LINEAGE), folders
        )
        found = {report.files["gpkg"].read_bytes() for report in again}
    assert found == {made.files["gpkg"].read_bytes()}
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


def test_no_rows_make_readable_files(tmp_path: Path) -> None:
    write_geoparquet(counties(0), tmp_path / "none.parquet", {})
    made = write_analysis_files(tmp_path / "none.parquet", tmp_path / "x", METADATA, LINEAGE)
    assert made.rows == 0
    assert json.loads(made.files["geojson"].read_text())["features"] == []
    assert pd.read_csv(made.files["csv"], comment="#").columns[0] == "GEOID"
    assert len(geopandas.read_file(made.files["gpkg"])) == 0


def test_a_table_without_outlines_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pq.write_table(counties().drop_columns(["geometry"]), tmp_path / "bad.parquet")
    with pytest.raises(GeoParquetError, match="has no column 'geometry'"):
        write_analysis_files(tmp_path / "bad.parquet", tmp_path / "x", METADATA, LINEAGE)
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_the_files_before_it(
    made: AnalysisReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made.files["geojson"].read_bytes()
    monkeypatch.setattr(analysis_files.geojson, "features", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_analysis_files(tmp_path / "county.parquet", tmp_path / "counties", METADATA, LINEAGE)
    assert made.files["geojson"].read_bytes() == before
    assert not [path for path in (tmp_path / "counties").iterdir() if "partial" in path.name]


def test_metadata_names_the_licence_of_the_footprints() -> None:
    for risk in (FIRE, WIND_RISK):
        told = file_metadata(risk, "v1.0.0", ["Synthetic."], LINEAGE)
        assert list(told) == [
            "title",
            "version",
            "provider",
            "terms_of_access",
            "data_sources",
            "license_name",
            "license_url",
            "notice",
            "lineage",
        ]
        assert told["title"] == risk.title
        assert told["notice"].endswith("contributors. Synthetic.")
    assert METADATA["lineage"] == '{"inputs":{"county":"f00d"},"version":"v1.2.3"}'
