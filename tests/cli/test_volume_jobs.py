"""Jobs, volumes and models at the command line, as a user has them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pypdfium2 as pdfium
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from sample_worlds import Outcome, World
from volume_worlds import transcript

from ocr_assets.cli.volume_runs import JOB_TAG, LISTING, READING, VolumeLauncher
from ocr_assets.definitions import build_defs
from ocr_assets.partitions import PARTITION, reading_tags
from ocr_assets.volume_jobs import cancel, read_job
from ocr_assets.volume_library import VolumeLibrary

Ocr = Callable[..., Outcome]

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ocr_assets"), "__repository__"), "job"
)


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
    refused = ocr("jobs", "cancel", "--job-key", "J1")
    assert "job J1 is failed: there is nothing to cancel" in refused.complaint
    assert status(ocr, "J1")["state"] == "failed"

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
    assert "nothing to cancel" in ocr("jobs", "cancel", "--job-key", "J1").complaint


def test_a_canceled_job_stops_and_can_be_taken_up(
    ocr: Ocr, world: World, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(world, pages, "W1-I1")
    put(world, pages, "W2-I2", "0003")
    create = ("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1,W2-I2")
    ocr(*create, "--job-key", "J1")
    storage = VolumeLibrary(world.deployment().settings).storage
    read_one = VolumeLauncher._read_one

    def canceled_meanwhile(*arguments: Any, **options: Any) -> Any:
        cancel(storage, read_job(storage, "J1"))
        return read_one(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VolumeLauncher, "_read_one", canceled_meanwhile)
        assert ocr("jobs", "run", "--job-key", "J1").status == 0
    document = status(ocr, "J1")
    # The volume in work was finished, the other one never begun.
    assert [task["state"] for task in document["volumes"]] == ["done", "pending"]
    assert document["state"] == "canceled"
    assert "is canceled" in ocr("jobs", "run", "--job-key", "J1").complaint
    assert "nothing to cancel" in ocr("jobs", "cancel", "--job-key", "J1").complaint
    # Canceled jobs are shown if they are asked for.
    assert "J1" not in ocr("jobs", "status").out
    assert "J1" in ocr("jobs", "status", "--include-status", "canceled").out
    assert "J1" in ocr("jobs", "status", "--all").out
    assert ocr("jobs", "retry", "--job-key", "J1").status == 0
    document = status(ocr, "J1")
    assert document["state"] == "completed"
    assert [task["attempts"] for task in document["volumes"]] == [1, 1]


def test_queued_runs_are_stopped(ocr: Ocr, world: World) -> None:
    ocr("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1", "--job-key", "J1")
    with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
        run = dg.DagsterRun(
            job_name="job",
            run_id=str(uuid.uuid4()),
            tags={**reading_tags("printed-unicode", "W1-I1"), JOB_TAG: "J1"},
            status=dg.DagsterRunStatus.QUEUED,
            remote_job_origin=ORIGIN,
        )
        instance.add_run(run)
        assert status(ocr, "J1")["tasks"]["pending"] == 1
        assert "1 queued runs stopped" in ocr("jobs", "cancel", "--job-key", "J1").out
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.CANCELED
    assert status(ocr, "J1")["state"] == "canceled"


def test_runs_of_others_count(ocr: Ocr, world: World, pages: Path) -> None:
    """A person in the UI, a backfill or the daemon: they know partitions, and nothing of jobs."""
    put(world, pages, "W1-I1")
    put(world, pages, "W2-I2")
    create = ("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1,W2-I2")
    ocr(*create, "--job-key", "J1")

    def materialize(assets: tuple[str, ...], tags: dict[str, str]) -> bool:
        deployment = world.deployment(
            models_root=world.folder / "models", volumes_source=str(world.folder / "scans")
        )
        job = build_defs(deployment).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
            selection = [dg.AssetKey(asset) for asset in assets]
            return job.execute_in_process(
                instance=instance, asset_selection=selection, tags=tags, raise_on_error=False
            ).success

    # Reading before anything is listed fails: that counts as well.
    assert not materialize(READING, reading_tags("printed-unicode", "W1-I1"))
    found = status(ocr, "J1")
    assert found["tasks"]["retryable_failed"] == found["tasks"]["pending"] == 1
    assert "materialize volume_manifest first" in found["latest_errors"][0]["error"]

    assert materialize(LISTING, {PARTITION: "W1-I1"})
    assert materialize(READING[:1], reading_tags("printed-unicode", "W1-I1"))
    assert status(ocr, "J1")["tasks"]["retryable_failed"] == 1  # found lines are no text
    assert materialize(READING[1:], reading_tags("printed-unicode", "W1-I1"))
    found = status(ocr, "J1")
    assert found["state"] == "running"
    assert (found["tasks"]["done"], found["tasks"]["pending"]) == (1, 1)
    assert found["throughput"]["pages"] == 1
    # Another job type read another text.
    assert materialize(READING, reading_tags("printed-wylie", "W1-I1"))
    assert status(ocr, "J1")["volumes"][0]["attempts"] == 2
    # What others did is not done again.
    assert ocr("jobs", "run", "--job-key", "J1").status == 0
    found = status(ocr, "J1")
    assert found["state"] == "completed"
    assert [task["attempts"] for task in found["volumes"]] == [2, 1]


def test_pages_that_failed_are_among_the_latest_errors(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    for number in range(6):
        (world.folder / "scans" / "W1-I1" / f"9{number}.tif").write_text("no image")
    (world.folder / "scans" / "W2-I2").mkdir()
    (world.folder / "scans" / "W2-I2" / "1.tif").write_text("no image")
    create = ("jobs", "create", "--type", "printed-unicode", "--volumes", "W1-I1,W2-I2")
    ocr(*create, "--job-key", "J1")
    ran = ocr("jobs", "run", "--job-key", "J1")
    assert "1 of 2 volumes failed: W2-I2" in ran.err
    document = status(ocr, "J1")
    # Nothing of the second can be read, now or later: it is not tried three times.
    assert [task["state"] for task in document["volumes"]] == ["partial", "terminal_failed"]
    latest = document["latest_errors"]
    assert [one["volume"] for one in latest] == ["W2-I2", "W1-I1", "W1-I1", "W1-I1", "W1-I1"]
    assert latest[1]["error"].startswith("90.tif, decode: 90.tif is no TIFF")
    assert "90.tif, decode" in ocr("jobs", "status", "--job-key", "J1").out
    # Somebody brought one of the images: pages are tried again if they are asked for.
    shutil.copy(pages / "0003.tif", world.folder / "scans" / "W1-I1" / "90.tif")
    assert "nothing to do" in ocr("jobs", "run", "--job-key", "J1").out
    assert "W2-I2" in ocr("jobs", "retry", "--job-key", "J1", "--pages").err
    found = status(ocr, "J1")["volumes"]
    assert [(task["state"], task["failed_pages"]) for task in found] == [
        ("partial", 5),
        ("terminal_failed", 1),
    ]


def test_a_key_stands_for_one_job(ocr: Ocr) -> None:
    create = ("jobs", "create", "--job-key", "J1", "--type", "printed-unicode", "--volumes")
    assert ocr(*create, "W1-I1").status == 0
    assert "another job 'J1'" in ocr(*create, "W2-I2").complaint
    assert "exists already" in ocr(*create, "W1-I1,W1-I1").out
    create = ("jobs", "create", "--type", "printed-unicode", "--volumes", "W2-I2", "--job-key")
    assert "job 2 J2 created" in ocr(*create, "J2").out

    def listed(*options: str) -> list[str]:
        return [job["key"] for job in json.loads(ocr("jobs", "status", "--json", *options).out)]

    assert listed() == ["J2", "J1"]
    assert listed("--limit", "1") == ["J2"]
    assert listed("--exclude-status", "running") == ["J2", "J1"]
    assert listed("--exclude-status", "created") == []
    assert listed("--include-status", "failed") == []


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
    for command in ("run", "text"):
        assert "as in W22084-I0886" in ocr("volumes", command, "../../etc").complaint
    missing = ocr("volumes", "run", "--type", "woodblock-stacks-unicode", "W1-I1").complaint
    assert "ocr models fetch Woodblock-Stacks" in missing
    assert "ocr volumes run" in ocr("volumes", "text", "W1-I1").complaint


def test_job_types_are_listed(ocr: Ocr) -> None:
    types = json.loads(ocr("jobs", "types", "--json").out)
    assert [row["id"] for row in types] == list(range(1, len(types) + 1))
    assert {"woodblock-stacks-unicode", "woodblock-stacks-wylie"} <= {row["name"] for row in types}


def test_a_volume_is_read_shown_exported_and_reviewed(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    ran = ocr("volumes", "run", "W1-I1", "W1,I1")
    assert ran.out.count("W1-I1 success: 1 of 1 pages") == 1, ran.err
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


def test_a_searchable_pdf_of_a_volume(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    (world.folder / "scans" / "W1-I1" / "0003.tif").write_text("no image")
    output = world.folder / "new" / "volume.pdf"
    command = ("volumes", "pdf", "W1-I1", "-o", str(output))
    assert "run `ocr volumes run" in ocr(*command).complaint
    ocr("volumes", "run", "W1-I1")
    made = ocr(*command)
    assert made.status == 0, made.err
    assert made.out.rstrip().endswith("volume.pdf: 1 pages")
    assert "left out, as it cannot be decoded: 0003.tif" in made.err
    with pdfium.PdfDocument(output) as document:
        found = document[0].get_textpage().get_text_bounded()
        shown = document[0].render(scale=1, grayscale=True).to_numpy()
    assert "".join(found.split()) == "".join(transcript(pages, "0002").split())
    assert shown.min() < 100
    # A scan that was replaced since has other text.
    shutil.copy(pages / "0001.tif", world.folder / "scans" / "W1-I1" / "0002.tif")
    before = output.read_bytes()
    assert "0002.tif is not the image that was read" in ocr(*command).complaint
    assert output.read_bytes() == before


def test_own_job_types_and_models(ocr: Ocr, world: World, pages: Path) -> None:
    """OCR_JOB_TYPES and OCR_MODELS_ROOT: Dzongkha, read by a model that is dropped in."""
    put(world, pages, "W1-I1")
    states = {row["name"]: row for row in json.loads(ocr("models", "list", "--json").out)}
    models = world.folder / "own" / "models"
    models.mkdir(parents=True)
    shutil.copy(states["bod"]["path"], models / "mine.traineddata")
    types = world.folder / "types.toml"
    types.write_text('[job_types.dzongkha]\nmodel = "mine"\nlanguage = "dz"\nencoding = "wylie"\n')
    own = {"OCR_JOB_TYPES": str(types), "OCR_MODELS_ROOT": str(models)}
    listed = json.loads(ocr("jobs", "types", "--json", **own).out)[-1]
    assert (listed["name"], listed["language"]) == ("dzongkha", "dz")
    assert "mine: good; tesseract-lstm" in ocr("models", "verify", "mine", **own).out
    ran = ocr("volumes", "run", "-t", "dzongkha", "W1-I1", **own)
    assert "W1-I1 success: 1 of 1 pages" in ran.out, ran.err
    folder = world.folder / "out"
    ocr("volumes", "export", "-t", "dzongkha", "W1-I1", str(folder), **own)
    assert 'lang="dz-Latn"' in (folder / "hocr" / "0002.tif.hocr.html").read_text("utf-8")
    assert 'primaryLanguage="Dzongkha"' in (folder / "page" / "0002.tif.xml").read_text("utf-8")
    page = world.folder / "review.html"
    ocr("volumes", "review", "-t", "dzongkha", "--html", str(page), **own)
    assert 'lang="dz-Latn"' in page.read_text("utf-8")


def test_settings_that_lead_nowhere(ocr: Ocr, world: World, pages: Path) -> None:
    put(world, pages, "W1-I1")
    types = world.folder / "types.toml"
    types.write_text('[job_types.x]\nmodel = "bod"\nencoding = "acip"\n')
    wrong = ocr("jobs", "types", OCR_JOB_TYPES=str(types)).complaint
    assert "job type 'x', field 'encoding': unknown value 'acip'; known: unicode, wylie" in wrong
    gone = world.folder / "gone.toml"
    assert "cannot read" in ocr("jobs", "types", OCR_JOB_TYPES=str(gone)).complaint
    elsewhere = ocr("volumes", "run", "W1-I1", OCR_VOLUMES_SOURCE=str(world.folder / "none"))
    assert "W1-I1 is not in" in elsewhere.err
    assert "OCR_VOLUMES_SOURCE" in elsewhere.err


def test_models_are_listed_fetched_and_verified(ocr: Ocr, world: World, pages: Path) -> None:
    del pages  # they are there only where the model is
    states = {row["name"]: row for row in json.loads(ocr("models", "list", "--json").out)}
    assert states["bod"]["state"] == "system"
    assert ocr("models", "fetch", "bod", "--source", states["bod"]["path"]).status == 0
    (row,) = json.loads(ocr("models", "verify", "bod", "--json").out)
    assert (row["name"], row["kind"].split(",")[0]) == ("bod", "tesseract-lstm")
    assert set(row["files"]) == {"bod.traineddata"}
    verified = ocr("models", "verify", "bod")
    assert "bod: good; tesseract-lstm" in verified.out, verified.err
    stored = world.folder / "models" / "bod.traineddata"
    stored.write_bytes(stored.read_bytes()[:-1])
    assert "SHA-256" in ocr("models", "verify", "bod").complaint
