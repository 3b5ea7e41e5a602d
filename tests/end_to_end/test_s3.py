"""The whole way on an object store: sample world, regions, buildings, statistics, tiles."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sample_worlds import Outcome, World

from ocr_assets.deployment import Deployment
from ocr_assets.regions.geographies import LEVELS
from resources.settings import Settings
from resources.storage import Storage


@pytest.fixture
def variables(s3_bucket: Storage) -> dict[str, str]:
    """Settings that put everything, inputs as well, under a prefix of a bucket."""
    assert s3_bucket.s3.endpoint_url is not None
    return {
        "OCR_STORAGE_ROOT": f"{s3_bucket.root}/some/prefix",
        "OCR_S3_ENDPOINT_URL": s3_bucket.s3.endpoint_url,
        "OCR_CATALOG": "",
    }


def test_a_region_from_input_to_tiles(
    ocr: Callable[..., Outcome], world: World, s3_bucket: Storage, variables: dict[str, str]
) -> None:
    made = ocr("sample", "--no-imagery", **variables)
    assert made.status == 0, made.err
    assert f"{s3_bucket.root}/some/prefix/input/catalog.json" in "".join(made.out.split())
    if "no sample volume" not in made.err:
        volume = f"{s3_bucket.root}/some/prefix/input/volumes/WSAMPLE-ISAMPLE"
        assert volume in "".join(made.out.split())
        read_volume(ocr, variables)

    done = ocr("run", "-r", "y1_x1", "--summary-stats", "--create-pyramid", **variables)
    assert done.status == 0, done.err
    assert f"below {s3_bucket.root}/some/prefix" in done.out
    assert "qa/dev/pmtiles/buildings.pmtiles" in done.out
    assert "warning" not in done.err

    settings = Settings(
        storage_root=variables["OCR_STORAGE_ROOT"],
        s3_endpoint_url=variables["OCR_S3_ENDPOINT_URL"],
    )
    deployment = Deployment(settings)
    assert [row.region_id for row in deployment.region_status() if row.state == "done"] == ["y1_x1"]
    keys = {info.key for info in deployment.storage.list()}
    assert {f"statistics/{level}.parquet" for level in LEVELS} <= keys
    assert {"pmtiles/regions.pmtiles", "pyramid/current.json", "buildings/_manifest.json"} <= keys
    assert not list(world.root.glob("*")), "something was written to the local disk"

    # The same regions on a local disk have the same pixels and the same tables.
    assert ocr("process-region", "y1_x1").status == 0
    local = world.deployment()
    for name in ("rps_2011", "bp_2047"):
        pixels = [
            each.regions.dataset(each.regions.regions["y1_x1"])[name].values.tobytes()
            for each in (deployment, local)
        ]
        assert pixels[0] == pixels[1]
    tables = [each.ledger()["y1_x1"]["report"] for each in (deployment, local)]
    assert tables[0] == tables[1]

    status = json.loads(ocr("regions", "status", "--json", **variables).out)
    assert status["counts"] == {"done": 1, "missing": 10}
    deployment.wipe()
    assert deployment.ledger() == {}
    assert deployment.storage.list() == []
    assert deployment.catalog.datasets


def read_volume(ocr: Callable[..., Outcome], variables: dict[str, str]) -> None:
    """Read the sample volume, where this machine has the model for it."""
    done = ocr("volumes", "run", "WSAMPLE-ISAMPLE", **variables)
    if "ocr models fetch bod" in done.err:
        return
    assert "WSAMPLE-ISAMPLE success: 3 of 3 pages" in done.out, done.err
    assert "གཟུགས་སྟོང་པའོ།" in ocr("volumes", "text", "WSAMPLE-ISAMPLE", **variables).out


def test_a_bucket_that_is_not_there_is_one_line(
    ocr: Callable[..., Outcome], variables: dict[str, str], world: World
) -> None:
    catalog = {"OCR_CATALOG": str(world.catalog_path)}
    elsewhere = {"OCR_STORAGE_ROOT": "s3://bucket-that-is-not-there/x"}
    done = ocr("process-region", "y0_x0", **{**variables, **catalog, **elsewhere})
    assert "bucket-that-is-not-there" in done.complaint
    assert len(done.complaint) < 600
