"""`ocr ingest-data` as a user types it, against servers on loopback."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from published_inputs import Published, put_overture
from sample_worlds import Outcome, run_in_process

from ocr_assets.regions import inputs
from ocr_assets.regions.input_sources import CENSUS, OVERTURE, SOURCES

Ingest = Callable[..., Outcome]


@pytest.fixture
def ingest(
    published: Published, fresh_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Ingest:
    """Run `ocr ingest-data` in this process: ``ingest("download", "riley-et-al-2025")``."""
    shutil.copytree(fresh_home, tmp_path / "home")

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        variables = {**published.variables(), "DAGSTER_HOME": str(tmp_path / "home")}
        status = run_in_process(("ingest-data", *arguments), variables)
        return Outcome(status, *capsys.readouterr())

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_list_names_every_dataset(ingest: Ingest, published: Published) -> None:
    found = ingest("list-datasets")
    assert found.status == 0
    for source in SOURCES.values():
        assert source.name in found.out
        for dataset in source.datasets:
            assert dataset in found.out
    rows = json.loads(ingest("list-datasets", "--json").out)
    assert {row["state"] for row in rows} == {"missing"}
    assert rows[0]["address"] == "https://usfs-public.box.com/shared/static"


@pytest.mark.parametrize("name", list(SOURCES))
@pytest.mark.parametrize("command", ["download", "process", "run-all"])
def test_a_dry_run_does_nothing(
    ingest: Ingest, published: Published, name: str, command: str
) -> None:
    if SOURCES[name].files:
        published.serve(name, {})
    before = files(published.folder)
    found = ingest(command, name, "--dry-run")
    assert found.status == 0, found.err
    assert "Nothing is done" in found.out
    assert files(published.folder) - before <= {"sources.json"}
    assert (published.server.requests, published.server.looks) == ([], [])
    wanted = {"download": "fetch", "process": "write", "run-all": "register"}[command]
    if SOURCES[name].files or command != "download":
        assert wanted in found.out
    assert ("write" in found.out) == (command != "download")
    if command != "download":
        for dataset in SOURCES[name].datasets:
            assert dataset in found.out


def test_rasters_from_download_to_catalog(ingest: Ingest, published: Published) -> None:
    published.serve("riley-et-al-2025")
    early = ingest("process", "riley-et-al-2025")
    assert "run `ocr ingest-data download riley-et-al-2025` first" in early.complaint
    fetched = ingest("download", "riley-et-al-2025")
    assert fetched.status == 0, fetched.err
    assert "RDS-2025-0006.zip" in fetched.out
    assert "recorded" in fetched.out
    assert not published.catalog.datasets
    done = ingest("process", "riley-et-al-2025")
    assert done.status == 0, done.err
    assert set(published.catalog.datasets) == set(SOURCES["riley-et-al-2025"].datasets)
    assert len(published.server.requests) == 1
    rows = json.loads(ingest("list-datasets", "--json").out)
    states = {row["dataset"]: row["state"] for row in rows}
    assert states[inputs.BURN_PROBABILITY_30M[2047]] == "in the catalog"
    again = ingest("run-all", "riley-et-al-2025")
    assert again.status == 0, again.err
    assert len(published.server.requests) == 1


def test_a_part_of_the_census(ingest: Ingest, published: Published) -> None:
    published.serve(CENSUS)
    done = ingest(
        "run-all",
        CENSUS,
        "--census-geography-type",
        "tracts",
        "--census-subset-states",
        "Wyoming",
        "--census-subset-states",
        "CO",
    )
    assert done.status == 0, done.err
    assert [*published.catalog.datasets] == ["us-census-tracts"]
    assert len(published.server.requests) == 2
    table = pq.read_table(published.catalog.open_table("us-census-tracts").path)
    assert {code[:2] for code in table["GEOID"].to_pylist()} == {"08", "56"}
    wrong = ingest("download", CENSUS, "--census-subset-states", "Mars")
    assert "'Mars' is not a contiguous state" in wrong.complaint


def test_buildings_and_addresses(
    ingest: Ingest, published: Published, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"overture-{uuid.uuid4().hex[:8]}"
    with monkeypatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(key, "us-east-1")
        boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
        put_overture(s3_server, bucket, "2025-09-24.0")
    address = f"s3://{bucket}/release/{{vintage}}"
    published.places[OVERTURE] = {"address": address, "endpoint": s3_server}
    published.serve(CENSUS)
    early = ingest("run-all", OVERTURE)
    assert "is made from us-census-blocks, which is not in the catalog" in early.complaint
    assert not published.catalog.datasets
    states = ("--census-subset-states", "CO", "--census-subset-states", "WY")
    assert ingest("run-all", CENSUS, *states).status == 0
    done = ingest("run-all", OVERTURE, "--overture-data-type", "both")
    assert done.status == 0, done.err
    assert set(published.catalog.datasets) >= set(SOURCES[OVERTURE].datasets)
    assert "360 rows" in done.out


def test_wrong_names_and_catalogs_are_told(ingest: Ingest, published: Published) -> None:
    assert "there is no source 'mars'" in ingest("download", "mars").complaint
    uri = Path(published.settings.catalog_uri)
    uri.write_text(json.dumps(json.loads(uri.read_text()) | {"recipe": {"seed": 1}}))
    published.serve("riley-et-al-2025")
    told = ingest("run-all", "riley-et-al-2025").complaint
    assert "that of the sample world; set OCR_CATALOG" in told
    assert not published.server.requests


def test_a_damaged_archive_is_one_line(ingest: Ingest, published: Published) -> None:
    published.serve("dillon-et-al-2023", {"RDS-2016-0034-3.zip": b"no zip"})
    assert "is not a whole zip archive" in ingest("run-all", "dillon-et-al-2023").complaint
    assert not published.catalog.datasets
