"""Jobs, volumes and models at the command line, as a user has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_worlds import Outcome, World
from volume_worlds import sample_pages, transcript

Ocr = Callable[..., Outcome]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def ocr(ocr: Ocr, world: World) -> Ocr:
    """The command with models and volumes of this test's own."""
    places = {
        "OCR_MODELS_ROOT": str(world.folder / "models"),
        "OCR_VOLUMES_SOURCE": str(world.folder / "scans"),
    }
    (world.folder / "scans").mkdir()

    def run(*arguments: str, **variables: str) -> Outcome:
        return ocr(*arguments, **{**places, **variables})

    return run


def put(world: World, pages: Path, volume: str, page: str = "0002") -> None:
    folder = world.folder / "scans" / volume
    folder.mkdir()
    shutil.copy(pages / f"{page}.tif", folder)


def status(ocr: Ocr, key: str) -> Any:
    return json.loads(ocr("jobs", "status", "--job-key", key, "--json").out)


def test_the_life_of_a_job(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    put(world, pages, "W2-I2", "0003")
    create = ("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1,W2-I2,W3-I3")
    made = ocr(*create, "--job-key", "J1")
    assert made.status == 0, made.err
    assert "job 1 J1 created: 3 volumes" in made.out
    assert status(ocr, "J1")["state"] == "created"

    ran = ocr("jobs", "run", "--job-key", "J1")
    assert ran.status == 1
    assert "1 of 3 volumes failed: W3-I3" in ran.err
    document = status(ocr, "J1")
    assert document["state"] == "failed"
    assert document["tasks"]["done"] == 2
    assert document["tasks"]["terminal_failed"] == 1
    assert document["throughput"]["pages"] == 2
    assert [one["volume"] for one in document["latest_errors"]] == ["W3-I3"]

    # The same job again, by number of its type: nothing is added and nothing is done twice.
    twice = ocr("jobs", "create", "--type-id", "1", *create[4:], "--job-key", "J1")
    assert "exists already" in twice.out
    assert "nothing to do" in ocr("jobs", "run", "--job-key", "J1").out

    # Only what failed is tried again, once somebody has brought the images.
    put(world, pages, "W3-I3")
    assert ocr("jobs", "retry", "--job-id", "1").status == 0
    document = status(ocr, "J1")
    assert document["state"] == "completed"
    assert [task["attempts"] for task in document["volumes"]] == [1, 1, 2]
    rows = json.loads(ocr("jobs", "metrics", "--job-key", "J1", "--json").out)
    assert [row["pages"] for row in rows] == [1, 1, 1]
    assert all(row["mean_confidence"] > 0.8 for row in rows)
    refused = ocr("jobs", "cancel", "--job-key", "J1")
    assert "nothing to cancel" in refused.complaint


def test_a_canceled_job_stops_and_can_be_taken_up(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    ocr("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1", "--job-key", "J1")
    assert "canceled" in ocr("jobs", "cancel", "--job-key", "J1").out
    assert status(ocr, "J1")["state"] == "canceled"
    assert "is canceled" in ocr("jobs", "run", "--job-key", "J1").complaint
    # Canceled jobs are shown if they are asked for.
    assert "J1" not in ocr("jobs", "status").out
    assert "J1" in ocr("jobs", "status", "--include-status", "canceled").out
    assert "J1" in ocr("jobs", "status", "--all").out
    assert ocr("jobs", "retry", "--job-key", "J1").status == 0
    assert status(ocr, "J1")["state"] == "completed"


def test_a_key_stands_for_one_job(ocr: Ocr) -> None:
    create = ("jobs", "create", "--job-key", "J1", "--type", "printed-unicode", "--volumes")
    assert ocr(*create, "W1-I1").status == 0
    assert "another job 'J1'" in ocr(*create, "W2-I2").complaint
    assert "exists already" in ocr(*create, "W1-I1,W1-I1").out


def test_wrong_requests(ocr: Ocr, world: World) -> None:
    listed = world.folder / "list.txt"
    listed.write_text("# volumes\nW1-I1\nno volume\n")
    create = ("jobs", "create", "--type", "printed-unicode")
    assert "line 3" in ocr(*create, "--volume-file", str(listed)).complaint
    unknown = ocr("jobs", "create", "--type", "nope", "--volumes", "W1-I1").complaint
    assert "3 woodblock-stacks-unicode" in unknown
    assert "no job 'x'" in ocr("jobs", "run", "--job-key", "x").complaint
    assert "no job 7" in ocr("jobs", "metrics", "--job-id", "7").complaint
    assert ocr(*create).status == 2
    missing = ocr("volumes", "run", "--type", "woodblock-stacks-unicode", "W1-I1").complaint
    assert "ocr models fetch Woodblock-Stacks" in missing
    assert "ocr volumes run" in ocr("volumes", "text", "W1-I1").complaint


def test_job_types_are_listed(ocr: Ocr) -> None:
    types = json.loads(ocr("jobs", "types", "--json").out)
    assert [row["id"] for row in types] == list(range(1, len(types) + 1))
    assert {"woodblock-stacks-unicode", "woodblock-stacks-wylie"} <= {row["name"] for row in types}


def test_a_volume_is_read_shown_exported_and_reviewed(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    ran = ocr("volumes", "run", "W1-I1")
    assert "W1-I1 success: 1 of 1 pages" in ran.out, ran.err
    assert ocr("volumes", "text", "W1-I1").out == transcript(pages, "0002")
    rows = json.loads(ocr("volumes", "status", "--json").out)
    assert [row["quality"]["status"] for row in rows] == ["success"]
    folder = world.folder / "exported"
    assert ocr("volumes", "export", "W1-I1", str(folder)).status == 0
    assert (folder / "text" / "0002.tif.txt").read_text("utf-8") == transcript(pages, "0002")
    assert (folder / "alto" / "0002.tif.xml").is_file()
    assert "exists" in ocr("volumes", "export", "W1-I1", str(folder)).complaint
    page = world.folder / "review.html"
    assert ocr("volumes", "review", "--html", str(page), "--limit", "2").status == 0
    html = page.read_text("utf-8")
    assert html.count("<img ") == html.count('lang="bo"') == 2
    queue = json.loads(ocr("volumes", "review", "--json").out)
    assert [line["confidence"] for line in queue] == sorted(line["confidence"] for line in queue)


def test_models_are_listed_fetched_and_verified(ocr: Ocr, world: World, pages: Path) -> None:
    del pages  # they are there only where the model is
    states = {row["name"]: row for row in json.loads(ocr("models", "list", "--json").out)}
    assert states["bod"]["state"] == "system"
    assert ocr("models", "fetch", "bod", "--source", states["bod"]["path"]).status == 0
    verified = ocr("models", "verify", "bod")
    assert "bod: good; tesseract-lstm" in verified.out, verified.err
    stored = world.folder / "models" / "bod.traineddata"
    stored.write_bytes(stored.read_bytes()[:-1])
    assert "SHA-256" in ocr("models", "verify", "bod").complaint
