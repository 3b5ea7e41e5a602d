"""The files of a volume: complete, in order, the same each time, in bounded memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_results import documents, failure, image_name, synthetic_page, synthetic_pages

from ocr_assets.volumes.documents import (
    PAGE_END,
    PageOrderError,
    page_file_name,
    write_bundle,
)
from ocr_assets.volumes.results import FailedPage, PageResult
from ocr_assets.volumes.tables import VolumeTables


def test_a_volume_has_all_its_files_and_success_is_last(tmp_path: Path) -> None:
    about = documents(2)
    assert about.prefix == "printed-unicode/W22084-I0886-a1b2c3"
    bundle = write_bundle(tmp_path / "volume", synthetic_pages(2), about)
    names = list(bundle.files)
    assert names[-1] == "success.json"
    written = {p.relative_to(tmp_path / "volume").as_posix() for p in tmp_path.rglob("*.*")}
    assert set(names) == written
    first = image_name(1)
    assert {
        "pages.parquet", "lines.parquet", "syllables.parquet", "errors.jsonl", "volume.txt",
        f"text/{first}.txt", f"page/{first}.xml", f"alto/{first}.xml", f"hocr/{first}.hocr.html",
    } < set(names)  # fmt: skip
    assert bundle.quality.status == "success"
    assert bundle.files["errors.jsonl"].read_text() == ""
    marker = json.loads(bundle.files["success.json"].read_text())
    assert (marker["status"], marker["pages"], marker["nb_errors"]) == ("success", 2, 0)
    assert (marker["volume"], marker["version"]) == ("W22084-I0886", "a1b2c3")
    assert marker["lineage"]["configuration"]["model"] == "bod"
    assert json.loads(bundle.files["quality.json"].read_text())["lines"] == 16


def test_the_text_of_page_n_is_the_nth_part(tmp_path: Path) -> None:
    blank = replace(synthetic_page(2), lines=())
    pages = [synthetic_page(1), blank, failure(3), synthetic_page(4)]
    bundle = write_bundle(tmp_path, pages, documents(4))
    parts = bundle.files["volume.txt"].read_text("utf-8").split(PAGE_END)
    assert parts == [f"{pages[0].text}\n", "", "", f"{synthetic_page(4).text}\n", ""]
    assert bundle.files[f"text/{image_name(1)}.txt"].read_text("utf-8") == parts[0]
    assert bundle.files[f"text/{image_name(2)}.txt"].read_bytes() == b""
    assert f"text/{image_name(3)}.txt" not in bundle.files


def test_a_partial_volume_says_which_pages_failed(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, [synthetic_page(1), failure(2)], documents(2))
    assert bundle.quality.status == "partial"
    (error,) = [json.loads(line) for line in bundle.files["errors.jsonl"].open(encoding="utf-8")]
    assert (error["image"], error["stage"]) == (image_name(2), "decode")
    assert error["source"].startswith("s3://")
    assert json.loads(bundle.files["success.json"].read_text())["nb_errors"] == 1


def test_a_failed_volume_has_no_mark_of_success(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, [failure(1)], documents(1))
    assert bundle.quality.status == "failed"
    assert "success.json" not in bundle.files
    assert not (tmp_path / "success.json").exists()


def test_pages_that_nobody_delivered_are_failed_pages(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, [synthetic_page(2), synthetic_page(4)], documents(5))
    pages = list(VolumeTables(tmp_path))
    assert [page.image for page in pages] == [image_name(n) for n in range(1, 6)]
    assert [isinstance(page, FailedPage) for page in pages] == [True, False, True, False, True]
    assert bundle.quality.failed_pages == bundle.quality.retryable_pages == 3


def test_frames_of_one_image_are_pages_of_their_own(tmp_path: Path) -> None:
    frames = [replace(synthetic_page(1), frame=frame) for frame in (0, 1, 2)]
    bundle = write_bundle(tmp_path, [*frames, synthetic_page(2)], documents(2))
    assert bundle.quality.pages == 4
    name = image_name(1)
    assert {f"page/{name}.xml", f"page/{name}-2.xml", f"page/{name}-3.xml"} < set(bundle.files)


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (1, 2, 3)])
def test_pages_out_of_order_are_refused(tmp_path: Path, order: tuple[int, ...]) -> None:
    with pytest.raises(PageOrderError, match="I1KG0001"):
        write_bundle(tmp_path, [synthetic_page(n) for n in order], documents(2))
    assert not (tmp_path / "success.json").exists()


def test_an_error_half_way_leaves_no_mark_of_success(tmp_path: Path) -> None:
    def broken() -> Iterator[PageResult]:
        yield synthetic_page(1)
        raise RuntimeError("the network went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_bundle(tmp_path, broken(), documents(2))
    assert not (tmp_path / "success.json").exists()


def test_the_same_pages_give_the_same_bytes_also_when_read_back(tmp_path: Path) -> None:
    about = documents(5)
    pages = [synthetic_page(1), failure(2), *[synthetic_page(n) for n in (3, 4, 5)]]
    first = write_bundle(tmp_path / "one", pages, about)
    second = write_bundle(tmp_path / "two", pages, about)
    third = write_bundle(tmp_path / "three", VolumeTables(tmp_path / "one"), about)
    assert list(first.files) == list(second.files) == list(third.files)
    for name, path in first.files.items():
        assert second.files[name].read_bytes() == path.read_bytes(), name
        assert third.files[name].read_bytes() == path.read_bytes(), name


def test_only_the_formats_that_are_asked_for_are_written(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, synthetic_pages(1), documents(1), formats=("alto",))
    assert [name for name in bundle.files if "/" in name] == [f"alto/{image_name(1)}.xml"]
    assert not (tmp_path / "hocr").exists()


NAMES = st.text(st.sampled_from("aZ9_.-/ ཀ\\#:"), min_size=1, max_size=8).map(lambda s: f"{s}.tif")


@given(st.lists(st.tuples(NAMES, st.integers(0, 12)), unique=True, max_size=20))
def test_file_names_are_plain_and_never_the_same(pages: list[tuple[str, int]]) -> None:
    names = [page_file_name(image, frame) for image, frame in pages]
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith((".", "-"))
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzZ0123456789._-")


def test_usual_names_stay() -> None:
    assert page_file_name("I1NLM20_0010001.jpg", 0) == "I1NLM20_0010001.jpg"


def test_pages_that_are_written_are_not_kept(tmp_path: Path) -> None:
    def alive() -> int:
        return sum(isinstance(thing, PageResult) for thing in gc.get_objects())

    most = 0

    def pages() -> Iterator[PageResult]:
        nonlocal most
        for number, page in enumerate(synthetic_pages(200), start=1):
            yield page
            if number % 50 == 0:
                most = max(most, alive())

    before = alive()
    bundle = write_bundle(tmp_path / "large", pages(), documents(200))
    assert 1 <= most - before <= 2, "the page that is written, and the one before"
    assert len(bundle.files) == 4 * 200 + 7
    assert len(VolumeTables(tmp_path / "large")) == 200
