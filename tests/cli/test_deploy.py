"""Publishing by command: checks first, nothing of a published version changes, rollback, prune."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
from sample_worlds import Outcome, World

from ocr_assets.deployment import Deployment
from ocr_assets.releases import Publication, Releases

Ocr = Callable[..., Outcome]
REGIONS = ("-r", "y1_x1", "-r", "y1_x2")


def pointer(world: World) -> str:
    return str(json.loads((world.root / "qa" / "latest.json").read_text())["label"])


def contents(world: World, folder: str) -> dict[str, bytes]:
    root = world.root / "qa" / folder
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "#" not in path.name  # a lock
    }


def test_versions_are_published_taken_back_and_pruned(ocr: Ocr, world: World) -> None:
    first = {"OCR_VERSION": "1.0.0"}
    refused = ocr("deploy", "publish", **first)
    assert refused.status == 1
    assert "regions are not done in v1.0.0" in refused.err

    assert ocr("run", *REGIONS, "--summary-stats", "--create-pyramid", **first).status == 0
    done = ocr("deploy", "publish", **first)
    assert done.status == 0, done.err
    told = "qa gives its readers v1.0.0 now: 2 regions of fire, 15 products, 8 checks passed"
    assert told in done.out
    assert pointer(world) == "v1.0.0"
    published = contents(world, "v1.0.0")
    release = Releases.of(world.deployment().settings).find("v1.0.0")
    assert release is not None
    assert set(release.products) >= {"buildings", "pyramid", "statistics/county.parquet"}

    for command in (("run", *REGIONS, "--recompute"), ("create-pmtiles",), ("run", *REGIONS)):
        again = ocr(*command, **first)
        assert again.status == 1
        assert "v1.0.0 is published, and a published version never changes" in again.err
    wipe = ocr("run", *REGIONS, "--wipe", "--yes", **first)
    assert (wipe.status, "never changes" in wipe.err) == (1, True)
    assert contents(world, "v1.0.0") == published

    second = {"OCR_VERSION": "1.1.0"}
    assert ocr("run", "-r", "y1_x1", **second).status == 0
    assert pointer(world) == "v1.0.0", "what is not published is not given to readers"
    assert ocr("deploy", "publish", **second).status == 0
    assert pointer(world) == "v1.1.0"
    # The raster of the first version can still be read, although its branch went on.
    deployment = world.deployment(version="1.0.0")
    assert set(deployment.regions.ledger("v1.0.0")) == {"y1_x1", "y1_x2"}
    assert float(deployment.regions.dataset(at="v1.0.0")["rps_2011"].max()) > 0

    back = ocr("deploy", "rollback", "1.0.0")
    assert "qa gives its readers v1.0.0 now, instead of v1.1.0" in back.out
    assert (pointer(world), contents(world, "v1.0.0")) == ("v1.0.0", published)
    unknown = ocr("deploy", "rollback", "2.0.0")
    assert unknown.status == 1
    assert "v2.0.0 is not published; published versions: v1.0.0, v1.1.0" in unknown.err

    assert "no version (0 objects" in ocr("deploy", "prune", "--keep", "1", "--dry-run").out
    assert ocr("deploy", "rollback", "1.1.0").status == 0
    planned = ocr("deploy", "prune", "--keep", "1", "--dry-run")
    assert f"qa: v1.0.0 ({len(published)} objects" in planned.out
    assert contents(world, "v1.0.0") == published
    # As if it had been killed right after the record was removed: the next one completes it.
    Releases.of(deployment.settings).root.delete("releases/v1.0.0.json")
    assert ocr("deploy", "prune", "--keep", "1", "--yes").status == 0
    assert contents(world, "v1.0.0") == {}
    assert Releases.of(world.deployment().settings).labels() == ["v1.1.0"]
    assert float(deployment.regions.dataset(at="v1.1.0")["rps_2011"].max()) > 0
    # The empty template is older than all that was expired, and a wipe goes back to it.
    fresh = world.deployment()
    fresh.wipe()
    assert fresh.ledger() == {}
    assert np.isnan(fresh.regions.dataset()["rps_2011"].values).all()


def test_what_is_behind_its_inputs_is_not_published(finished_copy: World) -> None:
    def problem(deployment: Deployment) -> str:
        try:
            Publication(deployment).products()
        except RuntimeError as error:
            return str(error)
        return ""

    deployment = finished_copy.deployment()
    assert problem(deployment) == ""
    assert "only a version can be published" in _error(deployment)

    storage = deployment.storage
    key = "pmtiles/buildings.pmtiles.lineage.json"
    record = json.loads(storage.read_bytes(key))
    record["inputs"]["buildings"] = "0" * 64
    storage.write_bytes(key, json.dumps(record).encode())
    assert "pmtiles/buildings.pmtiles is older than what it is made from" in problem(deployment)
    storage.delete(key)
    assert "pmtiles/buildings.pmtiles is missing" in problem(deployment)

    deployment.regions.forget(["y1_x1"])
    assert "buildings is older than what it is made from" in problem(finished_copy.deployment())


def _error(deployment: Deployment) -> str:
    try:
        Publication(deployment).publish(8)
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_failing_check_stops_publishing(ocr: Ocr, world: World) -> None:
    version = {"OCR_VERSION": "1.0.0"}
    assert ocr("run", "-r", "y1_x1", **version).status == 0
    deployment = world.deployment(version="1.0.0")
    (entry,) = deployment.current_ledger().values()
    path = deployment.storage.local_path(entry["buildings"]["key"])
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)

    refused = ocr("deploy", "publish", **version)
    assert refused.status == 1
    assert "check buildings_accounted_for of region_buildings failed" in refused.err
    assert not (world.root / "qa" / "latest.json").exists()


def test_a_deployment_by_command(ocr: Ocr, world: World) -> None:
    """Environment and version are named by options, and publishing is part of the job."""
    chosen = ("--environment", "staging", "--version", "2.0.0")
    done = ocr("deploy", "run", *chosen, *REGIONS, "--publish")
    assert done.status == 0, done.err
    assert "deployed staging v2.0.0, published v2.0.0" in done.out
    again = ocr("deploy", "run", *chosen, *REGIONS)
    assert (again.status, "--force computes it anew" in again.err) == (1, True)
    anew = ocr("deploy", "run", *chosen, *REGIONS, "--publish", "--force")
    assert anew.status == 0, anew.err
    assert "computing v2.0.0_r2, beside what is published" in anew.out
    assert "published v2.0.0_r2" in anew.out

    shown = {row["environment"]: row for row in json.loads(ocr("deploy", "status", "--json").out)}
    assert shown["staging"] == {
        "environment": "staging",
        "current": "v2.0.0_r2",
        "published": ["v2.0.0", "v2.0.0_r2"],
        "runs": [],
    }
    assert shown["qa"]["current"] is shown["production"]["current"] is None
    back = ocr("deploy", "rollback", "2.0.0", "--environment", "staging")
    assert "staging gives its readers v2.0.0 now, instead of v2.0.0_r2" in back.out
    table = ocr("deploy", "status").out
    assert "staging" in table
    assert "v2.0.0, v2.0.0_r2" in table


def test_wrong_deployments_say_what_is_wrong(ocr: Ocr) -> None:
    for options, message in (
        (("--environment", "live"), "OCR_ENVIRONMENT='live'"),
        (("--version", "2.0"), "not a semantic version"),
        (("--environment", "production"), "OCR_VERSION is required"),
        ((), "one of the two, not both"),
        (("-r", "y9_x99"), "y9_x99"),
        (
            ("--environment", "production", "--version", "1.0.0", "-r", "y1_x1", "--wipe"),
            "production is never wiped",
        ),
    ):
        done = ocr("deploy", "run", *options)
        assert done.status == 1, options
        assert message in done.err
