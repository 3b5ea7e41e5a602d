"""Volumes through Dagster: what is read, what is kept, what fails and what does not."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from recognition_models import easter_bytes, easter_config, write_model_folder
from volume_worlds import TYPE, VolumeWorld, bilevel, put_into_archive, transcript

from ocr_assets.deployment import Deployment, release_record
from ocr_assets.releases import Releases, prune
from ocr_assets.volumes.documents import FORMATS
from ocr_assets.volumes.results import FailedPage


@pytest.fixture
def world(tmp_path: Path) -> VolumeWorld:
    return VolumeWorld(tmp_path)


def text_of(world: VolumeWorld, volume: str, job_type: str = TYPE) -> str:
    record = world.library.record(job_type, volume)
    assert record is not None
    return world.library.read_file(record, "volume.txt").decode()


def test_a_volume_is_read_and_explains_itself(world: VolumeWorld, pages: Path) -> None:
    world.volume("W1-I1", pages, "0001", "0002")
    reading = world.read("W1-I1")
    assert reading.success, reading.error
    assert text_of(world, "W1-I1").split("\f")[:2] == [
        transcript(pages, "0001"),
        transcript(pages, "0002"),
    ]
    assert reading.checks == {
        "documents_complete": True,
        "pages_conserved": True,
        "text_plausible": True,
    }
    shown = reading.metadata("volume_text")
    assert (shown["status"], shown["pages"], shown["failed pages"]) == ("success", 2, 0)
    assert shown["mean confidence"] > 0.9
    assert shown["lineage"]["configuration"]["model"] == "bod"
    assert "བཅོམ་ལྡན་འདས" in shown["text"]
    picture = reading.metadata("volume_lines")["first page"].partition("base64,")[2].rstrip(")")
    size = Image.open(io.BytesIO(base64.b64decode(picture))).size
    assert max(size) == 640


def test_the_documents_are_there_and_the_mark_of_success(world: VolumeWorld, pages: Path) -> None:
    world.volume("W1-I1", pages, "0002")
    assert world.read("W1-I1").success
    record = world.library.record(TYPE, "W1-I1")
    assert record is not None
    assert record.prefix == f"{TYPE}/W1-I1-{record.version}"
    names = {file.name for file in world.library.text_files(record).files}
    assert {"pages.parquet", "lines.parquet", "syllables.parquet", "volume.txt"} <= names
    for kind in FORMATS:
        assert any(name.startswith(f"{kind}/0002.tif") for name in names), kind
    success = json.loads(world.library.storage.read_bytes(f"{record.prefix}/success.json"))
    assert (success["status"], success["pages"], success["nb_errors"]) == ("success", 1, 0)
    assert success["lineage"] == record.lineage


def test_reading_again_does_nothing(world: VolumeWorld, pages: Path) -> None:
    world.volume("W1-I1", pages, "0002")
    world.read("W1-I1")
    before = {path: path.stat().st_mtime_ns for path in files(world)}
    reading = world.read("W1-I1")
    assert reading.success, reading.error
    assert reading.metadata("volume_lines")["skipped"]
    assert reading.metadata("volume_text")["skipped"]
    assert {path: path.stat().st_mtime_ns for path in files(world)} == before


def files(world: VolumeWorld) -> list[Path]:
    return [path for path in Path(world.settings.volumes_uri).rglob("*") if path.is_file()]


def test_volumes_are_no_part_of_a_version(world: VolumeWorld, pages: Path) -> None:
    """Publishing freezes the prefix of a version, pruning and wiping delete it: volumes go on."""
    world.volume("W1-I1", pages, "0002")
    world.read("W1-I1")
    before = {path: path.read_bytes() for path in files(world)}
    assert Path(world.settings.volumes_uri) == world.folder / "root" / "qa" / "volumes"
    world.variables["version"] = "1.0.0"
    deployment = Deployment(world.settings)
    deployment.root.write_bytes("statistics/nation.parquet", b"of the regions")
    releases = Releases.of(world.settings).root
    releases.write_bytes(release_record("v1.0.0"), b"{}")
    assert deployment.is_published
    # What is read already stays as it is, another volume is read, and the table of quality written.
    assert world.read("W1-I1").metadata("volume_text")["skipped"]
    assert {path: path.read_bytes() for path in files(world)} == before
    world.volume("W2-I2", pages, "0003")
    reading = world.read("W2-I2")
    assert reading.success, reading.error
    assert [row["volume"] for row in world.quality()] == ["W1-I1", "W2-I2"]
    kept = {path: path.read_bytes() for path in files(world)}
    assert prune(deployment, ["v1.0.0"]).objects == 1
    world.variables["version"] = None
    Deployment(world.settings).wipe()
    assert {path: path.read_bytes() for path in files(world)} == kept


def test_a_changed_folio_is_read_alone(world: VolumeWorld, pages: Path) -> None:
    folder = world.volume("W1-I1", pages, "0001", "0002")
    first = world.read("W1-I1")
    assert first.metadata("volume_lines")["new pages"] == 2
    (folder / "0001.tif").write_bytes((pages / "0003.tif").read_bytes())
    reading = world.read("W1-I1")
    assert reading.success
    assert reading.metadata("volume_lines")["new pages"] == 1
    assert reading.metadata("volume_text")["new pages"] == 1
    assert reading.metadata("volume_text")["version"] != first.metadata("volume_text")["version"]
    assert text_of(world, "W1-I1").split("\f")[1] == transcript(pages, "0002")
    # It is the same as if everything had been read anew.
    other = VolumeWorld(world.folder / "anew")
    other.volume("W1-I1", folder)
    other.read("W1-I1")
    tables = [
        pq.read_table(next((one.folder / "root/qa/volumes" / TYPE).rglob(f"{name}-*.parquet")))
        for one in (other,)
        for name in ("lines",)
    ]
    record = world.library.record(TYPE, "W1-I1")
    assert record is not None
    kept = world.library.open_text(record, world.folder)
    assert kept.lines.equals(tables[0])


def test_job_types_share_the_lines(world: VolumeWorld, pages: Path) -> None:
    with zipfile.ZipFile(world.sources / "W1-I1.zip", "w") as scans:
        scans.write(pages / "0002.tif", "W1-I1/0002.tif")
    world.read("W1-I1")
    reading = world.read("W1-I1", "printed-wylie")
    assert reading.success, reading.error
    assert reading.metadata("volume_lines")["skipped"]
    assert text_of(world, "W1-I1", "printed-wylie").startswith("gzugs stong pa'o/")
    assert text_of(world, "W1-I1") == transcript(pages, "0002") + "\f"


def test_bad_pages_do_not_take_the_others_along(world: VolumeWorld, pages: Path) -> None:
    folder = world.volume("W1-I1", pages, "0002")
    good = (pages / "0001.tif").read_bytes()
    (folder / "1_truncated.tif").write_bytes(good[: len(good) // 3])
    bilevel(folder / "2_bomb.tif", 20_000, 20_000)
    bilevel(folder / "3_blank.tif", 1500, 1000)
    bilevel(folder / "4_pixel.tif", 1, 1)
    (folder / "5_text.tif").write_text("no image at all")
    with Image.open(pages / "0001.tif") as page:
        page.rotate(180).save(folder / "6_upside_down.tif", compression="group4")
    chart = np.zeros((600, 900, 3), np.uint8)
    chart[:, :, 0] = np.arange(900) // 150 * 40
    chart[:, :, 1] = np.arange(600)[:, None] // 100 * 40
    Image.fromarray(chart).save(folder / "7_chart.png")
    reading = world.read("W1-I1")
    assert reading.success, reading.error
    shown = reading.metadata("volume_text")
    assert (shown["status"], shown["pages"], shown["failed pages"]) == ("partial", 8, 3)
    assert reading.checks["pages_conserved"]
    assert reading.checks["documents_complete"]
    record = world.library.record(TYPE, "W1-I1")
    assert record is not None
    found = list(world.library.open_text(record, world.folder))
    failed = {page.image: page for page in found if isinstance(page, FailedPage)}
    assert failed.keys() == {"1_truncated.tif", "2_bomb.tif", "5_text.tif"}
    assert "80,000,000" in failed["2_bomb.tif"].reason
    assert all(page.stage == "decode" and not page.retryable for page in failed.values())
    texts = {page.image: page.text for page in found if not isinstance(page, FailedPage)}
    assert texts["3_blank.tif"] == texts["4_pixel.tif"] == texts["7_chart.png"] == ""
    assert texts["6_upside_down.tif"] + "\n" == transcript(pages, "0001")
    errors = world.library.read_file(record, "errors.jsonl").decode().splitlines()
    assert {json.loads(line)["image"] for line in errors} == failed.keys()


def test_failed_pages_are_tried_again_if_asked(world: VolumeWorld, pages: Path) -> None:
    folder = world.volume("W1-I1", pages, "0002")
    (folder / "0003.tif").write_text("no image at all")
    world.read("W1-I1")
    assert world.read("W1-I1").metadata("volume_lines")["skipped"]
    again = world.read("W1-I1", pages_again=True)
    assert again.metadata("volume_text")["new pages"] == 0
    record = world.library.record(TYPE, "W1-I1")
    assert record is not None
    page = world.library.open_text(record, world.folder).page(1)
    assert isinstance(page, FailedPage)
    assert page.attempt == 2


def test_a_volume_without_a_readable_page_fails(world: VolumeWorld, pages: Path) -> None:
    folder = world.volume("W1-I1", pages, "none")
    (folder / "0001.tif").write_text("no image at all")
    reading = world.read("W1-I1")
    assert not reading.success
    assert "none of the 1 pages of W1-I1 could be read" in reading.error
    record = world.library.record(TYPE, "W1-I1")
    assert record is not None
    assert record.quality.status == "failed"
    assert not world.library.storage.exists(f"{record.prefix}/success.json")


def test_the_archive_and_its_wrong_manifests(world: VolumeWorld, pages: Path) -> None:
    archive = world.folder / "archive"
    world.variables["volumes_source"] = str(archive)
    entries = [
        {"filename": "0002.tif", "width": 7, "height": 7, "size": 3_000_000},
        {"filename": "missing.tif", "width": 9, "height": 9},
        {"filename": "notes.txt"},
    ]
    put_into_archive(archive, "W22084-I0886", pages, entries)
    reading = world.read("W22084-I0886")
    assert reading.success, reading.error
    shown = reading.metadata("volume_text")
    assert (shown["status"], shown["pages"], shown["failed pages"]) == ("partial", 2, 1)
    listing = reading.metadata("volume_manifest")
    assert listing["missing images"] == 1
    assert any("notes.txt" in remark for remark in listing["remarks"])
    size = (pages / "0002.tif").stat().st_size
    assert f"0002.tif: the manifest says 3000000 bytes, there are {size}" in listing["remarks"]
    # What the manifest says wrongly of an image does not keep the image from being read.
    assert text_of(world, "W22084-I0886") == transcript(pages, "0002") + "\f\f"
    wrong = "0002.tif: the manifest says 7 x 7, the image has 2000 x 560"
    assert wrong in shown["remarks"]
    record = world.library.record(TYPE, "W22084-I0886")
    assert record is not None
    success = json.loads(world.library.storage.read_bytes(f"{record.prefix}/success.json"))
    assert wrong in success["remarks"]
    errors = world.library.read_file(record, "errors.jsonl").decode()
    assert json.loads(errors)["error_type"] == "MissingImageError"
    gone = world.read("W22084-I0887")
    assert not gone.success
    assert "W22084-I0887 has no manifest" in gone.error


def test_a_page_that_is_not_tibetan_is_flagged(world: VolumeWorld, pages: Path) -> None:
    del pages  # they are there only where the model is
    page = Image.new("L", (2000, 560), 255)
    lines = ("Colophon: printed in the year of the dog", "by permission of the librarian.")
    for number, line in enumerate(lines):
        place = (90, 60 + 118 * number)
        ImageDraw.Draw(page).text(place, line, font=ImageFont.load_default(54), fill=0)
    (world.sources / "W1-I1").mkdir()
    page.save(world.sources / "W1-I1" / "0001.png")
    reading = world.read("W1-I1")
    assert reading.success, reading.error
    assert not reading.checks["text_plausible"]
    shown = reading.metadata("volume_text")
    assert shown["mean confidence"] < 0.85
    assert shown["low confidence share"] == 1


def test_a_volume_that_is_nowhere(world: VolumeWorld) -> None:
    reading = world.read("W9-I9")
    assert not reading.success
    assert "W9-I9.pdf" in reading.error
    assert "OCR_VOLUMES_SOURCE" in reading.error


def test_a_volume_that_is_there_twice(world: VolumeWorld, pages: Path) -> None:
    world.volume("W1-I1", pages, "0002")
    (world.sources / "W1-I1.zip").touch()
    assert "more than once" in world.read("W1-I1").error


def own_job_type(world: VolumeWorld, network: bytes, charset: str) -> None:
    write_model_folder(
        world.folder / "models" / "Bands", network, **easter_config(48, 800, charset)
    )
    file = world.folder / "types.toml"
    file.write_text('[job_types.bands]\nmodel = "Bands"\n')
    world.variables["job_types"] = file


def test_a_model_folder_drops_in(world: VolumeWorld, pages: Path) -> None:
    own_job_type(world, easter_bytes(48, 800, 4), "ཀཁག་")
    with Image.open(pages / "0002.tif") as page:
        page.save(world.sources / "W1-I1.pdf", resolution=300)
    reading = world.read("W1-I1", "bands")
    assert reading.success, reading.error
    assert reading.metadata("volume_lines")["lines"] >= 3
    assert reading.metadata("volume_text")["lineage"]["configuration"]["architecture"] == "Easter2"


@pytest.mark.parametrize(
    ("network", "charset", "reason"),
    [
        (b"not a network", "ཀཁག་", "not a network that OpenVINO reads"),
        (easter_bytes(48, 800, 4), "ཀཁ", "charset"),
    ],
    ids=["corrupted", "short charset"],
)
def test_models_that_cannot_be_used(
    world: VolumeWorld, pages: Path, network: bytes, charset: str, reason: str
) -> None:
    own_job_type(world, network, charset)
    world.volume("W1-I1", pages, "0002")
    reading = world.read("W1-I1", "bands")
    assert not reading.success
    assert reason in reading.error
    assert world.library.record("bands", "W1-I1") is None
