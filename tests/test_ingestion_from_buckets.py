"""Buildings and winds brought in from public buckets, and the graph on what was brought in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from published_inputs import (
    COLORADO_AND_WYOMING,
    GRID,
    Published,
    blocks,
    bring_in,
    overture_table,
    put_overture,
    put_winds,
)
from sample_worlds import REGION_ASSETS, execute

from ocr_assets import ingest_steps
from ocr_assets.deployment import Deployment
from ocr_assets.ingestion import IngestError
from ocr_assets.regions import inputs
from ocr_assets.regions.input_sources import (
    CENSUS,
    CONUS404_WINDS,
    OVERTURE,
    OVERTURE_ADDRESSES,
    OVERTURE_BUILDINGS,
    SOURCES,
    Choice,
)

RELEASE = "2025-09-24.0"
MakeBucket = Callable[..., str]


@pytest.fixture
def buckets(published: Published, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> MakeBucket:
    """Fill a public bucket, a new one by default; afterwards there are no credentials."""
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for key in keys:
        monkeypatch.delenv(key, raising=False)

    def make(prefix: str, fill: Callable[[str, str], None], bucket: str | None = None) -> str:
        with monkeypatch.context() as patch:
            for key in keys:
                patch.setenv(key, "us-east-1")
            name = bucket or f"{prefix}-{uuid.uuid4().hex[:8]}"
            if bucket is None:
                client = boto3.client("s3", endpoint_url=s3_server)
                client.create_bucket(Bucket=name, ACL="public-read")
            fill(s3_server, name)
        return name

    return make


@pytest.fixture
def overture(published: Published, s3_server: str, buckets: MakeBucket) -> Published:
    """The workplace with a public bucket that holds a release, and the census."""
    bucket = buckets("overture", lambda server, name: put_overture(server, name, RELEASE))
    published.places[OVERTURE] = {
        "address": f"s3://{bucket}/release/{{vintage}}",
        "endpoint": s3_server,
    }
    published.serve(CENSUS)
    return published


@pytest.fixture
def winds(published: Published, s3_server: str, buckets: MakeBucket) -> Published:
    """The workplace with a public Zarr store as CONUS404 is published."""
    bucket = buckets("hytest", put_winds)
    published.places[CONUS404_WINDS] = {
        "address": f"s3://{bucket}/conus404/hourly.zarr",
        "endpoint": s3_server,
    }
    return published


def table_of(published: Published, name: str) -> pa.Table:
    return pq.read_table(published.catalog.open_table(name).path)


class TestOverture:
    def test_buildings_are_tagged_once_each(self, overture: Published) -> None:
        bring_in(overture.ingestion, CENSUS, COLORADO_AND_WYOMING)
        found = bring_in(overture.ingestion, OVERTURE, Choice(overture="buildings"))
        report = found[OVERTURE_BUILDINGS].metadata["report"]
        assert (report["row_groups"], report["skipped"], report["written"]) == (10, 1, 360)
        original = overture_table("building").slice(40)
        buildings = table_of(overture, OVERTURE_BUILDINGS)
        assert sorted(buildings["id"].to_pylist()) == sorted(original["id"].to_pylist())
        tagged = table_of(overture, inputs.BUILDINGS)
        assert sorted(tagged["id"].to_pylist()) == sorted(original["id"].to_pylist())
        points = shapely.point_on_surface(shapely.from_wkb(tagged["geometry"].to_numpy()))
        for point, code in zip(points, tagged["block_geoid"].to_pylist(), strict=True):
            holding = [geoid for geoid, shape in blocks().items() if shape.intersects(point)]
            assert code == min(holding, default=None)
        tag_report = found[inputs.BUILDINGS].metadata["report"]
        assert tag_report["read"] == 360 == tag_report["written"]
        again = bring_in(overture.ingestion, OVERTURE, Choice(overture="buildings"))
        assert all(ingested.skipped for ingested in again.values())

    def test_addresses_alone(self, overture: Published) -> None:
        found = bring_in(overture.ingestion, OVERTURE, Choice(overture="addresses"))
        assert [*found] == [OVERTURE_ADDRESSES]
        assert "street" in table_of(overture, OVERTURE_ADDRESSES).schema.names

    def test_buildings_need_blocks(self, overture: Published) -> None:
        overture.ingestion.process(OVERTURE_BUILDINGS, Choice())
        with pytest.raises(IngestError, match="ocr ingest-data run-all census-tiger"):
            overture.ingestion.process(inputs.BUILDINGS, Choice())

    def test_files_that_were_read_are_not_read_again(
        self, overture: Published, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        extract, calls = ingest_steps.extract_features, []

        def broken(source: str, *arguments: object) -> object:
            calls.append(source)
            if len(calls) == 2:
                raise OSError("the line broke")
            return extract(source, *arguments)

        monkeypatch.setattr(ingest_steps, "extract_features", broken)
        with pytest.raises(OSError, match="the line broke"):
            overture.ingestion.process(OVERTURE_BUILDINGS, Choice())
        assert not overture.catalog.datasets
        overture.ingestion.process(OVERTURE_BUILDINGS, Choice())
        assert [Path(call).name for call in calls] == [
            "part-00000.zstd.parquet",
            "part-00001.zstd.parquet",
            "part-00001.zstd.parquet",
        ]
        assert table_of(overture, OVERTURE_BUILDINGS).num_rows == 360

    def test_the_newest_release_is_told_and_taken_if_asked(
        self, overture: Published, buckets: MakeBucket
    ) -> None:
        before = overture.ingestion.look(OVERTURE)
        assert before.metadata["newest release"] == RELEASE
        bucket = overture.places[OVERTURE]["address"].split("/")[2]
        later = "2026-01-21.0"
        buckets("", lambda server, name: put_overture(server, name, later), bucket)
        pinned = overture.ingestion.look(OVERTURE)
        assert pinned.version == before.version
        assert pinned.metadata["newest release"] == later
        overture.places[OVERTURE]["vintage"] = "latest"
        assert overture.ingestion.source(OVERTURE).vintage == later
        assert overture.ingestion.look(OVERTURE).version != before.version

    def test_a_release_that_is_not_there(self, overture: Published) -> None:
        overture.places[OVERTURE]["vintage"] = "1999-01-01.0"
        with pytest.raises(IngestError, match="there is no release"):
            overture.ingestion.process(OVERTURE_BUILDINGS, Choice())


class TestWinds:
    def test_the_hourly_store_is_opened_without_credentials(self, winds: Published) -> None:
        hourly = ingest_steps.open_hourly_winds(winds.ingestion.source(CONUS404_WINDS))
        assert hourly["U10"].dims == ("time", "y", "x")
        assert hourly["U10"].sizes["time"] == 480
        assert 5 < float(hourly["U10"].mean()) < 7
        assert "spatial_ref" in hourly.coords

    def test_the_climatology_is_made_and_catalogued(self, winds: Published) -> None:
        found = winds.ingestion.process(inputs.WIND, Choice())
        assert found.metadata["hours"] == 480
        raster = winds.catalog.open_raster(inputs.WIND)
        shares = raster["wind_direction_distribution"].values
        assert shares.size == found.metadata["pixels"] * 8
        np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-6)
        # Most of the wind blows along x, so it comes from the west.
        assert shares.sum(axis=(0, 1)).argmax() == 6
        again = winds.ingestion.process(inputs.WIND, Choice())
        assert again.skipped
        assert again.fingerprint == found.fingerprint
        assert not list(winds.ingestion.folder(SOURCES[CONUS404_WINDS]).glob("blocks-*"))

    def test_another_method_makes_another_one(self, winds: Published) -> None:
        found = winds.ingestion.process(inputs.WIND, Choice())
        settings = winds.settings.model_copy(update={"method": "published"})
        other = replace(winds.ingestion, settings=settings).process(inputs.WIND, Choice())
        assert not other.skipped
        assert other.fingerprint != found.fingerprint

    def test_a_broken_pass_goes_on(self, winds: Published, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> object:
            raise OSError("the line broke")

        with monkeypatch.context() as patch:
            patch.setattr(ingest_steps, "publish_dataset", broken)
            with pytest.raises(OSError, match="the line broke"):
                winds.ingestion.process(inputs.WIND, Choice())
        assert not winds.catalog.datasets
        (parts,) = winds.ingestion.folder(SOURCES[CONUS404_WINDS]).glob("blocks-*")
        assert list(parts.iterdir())
        winds.ingestion.process(inputs.WIND, Choice())
        assert [*winds.catalog.datasets] == [inputs.WIND]


def test_the_graph_runs_on_what_was_ingested(
    overture: Published, winds: Published, tmp_path: Path
) -> None:
    """No hand touches the catalog between the ingestion and the run."""
    for name in ("riley-et-al-2025", "scott-et-al-2024"):
        overture.serve(name)
        bring_in(overture.ingestion, name)
    for name in (CENSUS, OVERTURE, CONUS404_WINDS):
        bring_in(overture.ingestion, name, COLORADO_AND_WYOMING)
    deployment = Deployment(overture.settings)
    with dg.DagsterInstance.ephemeral() as instance:
        assert execute(deployment, ["region_template"], instance).success
        regions = GRID.valid[0], GRID.valid[-1]
        assert execute(deployment, REGION_ASSETS, instance, regions=regions).success
    buildings = table_of(overture, inputs.BUILDINGS)
    ledger = deployment.ledger()
    written = sum(entry["buildings"]["rows"] for entry in ledger.values())
    west, south, east, north = GRID.window.bounds
    centroid = shapely.centroid(shapely.from_wkb(buildings["geometry"].to_numpy()))
    x, y = shapely.get_x(centroid), shapely.get_y(centroid)
    assert written == ((x >= west) & (x < east) & (y >= south) & (y < north)).sum() > 50
    assert all(entry["report"]["without_code"] == 0 for entry in ledger.values())
