"""Commands about the workplace: settings, sample world, map."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_worlds import OCR, FinishedWorld, Outcome, World, environment
from tile_worlds import copy_of

from ocr_assets.cli.app import explain
from ocr_assets.deployment import DeploymentError
from ocr_assets.sample.imagery import NOTICE
from ocr_assets.tile_answers import make_mosaic
from resources.catalog import Catalog
from resources.keys import StorageError
from resources.settings import Settings

Ocr = Callable[..., Outcome]


def test_config_as_json(ocr: Ocr, world: World) -> None:
    done = ocr("config", "--json", OCR_VERSION="v1.2.3", OCR_ENVIRONMENT="staging")
    assert done.status == 0
    document = json.loads(done.out)
    settings = document["settings"]
    assert settings.keys() == Settings(storage_root="/x").variables().keys()
    assert settings["OCR_VERSION"] == "1.2.3"
    assert settings["OCR_STORAGE_ROOT"] == str(world.root)
    assert document["places"] == {
        "tables and vector tiles": f"{world.root}/staging/v1.2.3",
        "tiles of tree cover": f"{world.root}/staging/tiles",
        "text of volumes": f"{world.root}/staging/volumes",
        "region risk": f"{world.root}/staging/icechunk/region-risk",
        "branch": "staging",
        "input catalog": str(world.catalog_path),
    }


def test_config_as_a_table_explains_each_variable(ocr: Ocr) -> None:
    out = ocr("config").out
    for name, field in Settings.model_fields.items():
        assert f"OCR_{name.upper()}" in out
        assert (field.description or "")[:30] in out


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OCR_ENVIRONMENT": "prod"}, "OCR_ENVIRONMENT='prod': Input should be 'qa', 'staging' or"),
        ({"OCR_ENVIRONMENT": "production"}, "OCR_VERSION is required"),
        ({"OCR_VERSION": "one"}, "OCR_VERSION='one': not a semantic version"),
        ({"OCR_STORGE_ROOT": "/x"}, "unknown setting OCR_STORGE_ROOT; known: OCR_ALERT"),
    ],
)
def test_wrong_settings_are_one_line(ocr: Ocr, variables: dict[str, str], message: str) -> None:
    assert message in ocr("config", **variables).complaint


def written(folder: Path) -> dict[Path, tuple[int, int]]:
    """Which file each path below a folder is, and when it was written."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (of.st_ino, of.st_mtime_ns) for path, of in found.items()}


def test_the_sample_world_is_built_once(ocr: Ocr, world: World) -> None:
    variables = {"OCR_CATALOG": ""}
    done = ocr("sample", "--no-imagery", **variables)
    assert done.status == 0
    path = world.root / "input" / "catalog.json"
    assert done.out.split()[-1] == str(path) or str(path) in "".join(done.out.split())
    assert Catalog.read(str(path)).grid == world.grid
    before = written(world.root)
    assert len(before) > 10
    assert ocr("sample", "--no-imagery", **variables).status == 0
    assert written(world.root) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region-id", "y0_x0"], "region 'y0_x0' holds no data in grid 'conus'"),
        (["--region-id", "boulder"], "unknown region 'boulder'"),
        (["--buildings", __file__, "--synthetic-buildings", "5"], "not both"),
        (["--buildings", __file__], "test_workplace.py"),
    ],
)
def test_a_sample_that_cannot_be_built(
    ocr: Ocr, world: World, arguments: list[str], message: str
) -> None:
    assert message in ocr("sample", *arguments).complaint
    assert not list(world.root.rglob("catalog.json"))


def test_somebody_elses_catalog_is_kept(ocr: Ocr, world: World) -> None:
    mine = world.root / "input" / "catalog.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    assert "was not made by `ocr sample`" in ocr("sample").complaint
    assert mine.read_text() == "{}"


def test_a_map_without_tiles(ocr: Ocr, world: World) -> None:
    done = ocr("map", "--no-open")
    assert done.complaint.startswith(f"there are no vector tiles in {world.root}/qa/dev/pmtiles")
    assert "`ocr run --risk-type fire`" in done.complaint
    assert "`ocr tiles mosaic --year YEAR`" in done.complaint
    published = ocr("map", "--no-open", "--latest")
    assert published.complaint.startswith("qa has published nothing yet")


def served(world: World, *names: str) -> list[str]:
    """Files that `ocr map` serves, until it is interrupted."""
    server = subprocess.Popen(
        [OCR, "map", "--no-open"],
        env={**environment(world.variables()), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.match(r"map: (http://127\.0\.0\.1:\d+/) ", server.stdout.readline())
        assert found
        pages = []
        for name in names:
            with urllib.request.urlopen(f"{found.group(1)}{name}", timeout=10) as answer:
                pages.append(answer.read().decode())
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 130
    assert "Traceback" not in errors
    return pages


def test_the_map_is_served_until_interrupted(finished_world: FinishedWorld) -> None:
    (page,) = served(World(finished_world.sample_root, finished_world.folder), "")
    assert 'data-map="' in page


def test_tree_cover_alone_says_what_it_is_made_of(
    world: World, finished_tiles: Path, sample_imagery: Path, tmp_path: Path
) -> None:
    """Imagery made up has a notice; tiles that another maker left there are of Sentinel data."""
    library = copy_of(finished_tiles, tmp_path, sample_imagery).library
    record = make_mosaic(library, 2023).record
    assert record.report["notice"] == NOTICE
    mosaic = library.storage.read_bytes(record.files["mosaic"]["key"])
    library.storage.write_bytes("2022/tree_cover.tif", mosaic)
    page = json.loads(served(world, "config.json")[0])
    assert page["title"] == "Tree cover"
    assert [one["title"] for one in page["pictures"]] == ["Tree cover 2022", "Tree cover 2023"]
    assert page["attribution"] == ["Tree cover: contains modified Copernicus Sentinel data 2022"]
    assert page["notice"] == NOTICE


def test_a_root_that_cannot_be_written_is_one_line(ocr: Ocr, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ocr("sample", OCR_STORAGE_ROOT=str(tmp_path / "file" / "root"))
    assert str(tmp_path / "file") in done.complaint


def test_which_errors_are_told_in_one_line() -> None:
    assert explain(DeploymentError("two\n  lines")) == "two lines"
    assert explain(StorageError("no space")) == "no space"
    assert explain(ValueError("wrong")) == "wrong"
    assert explain(FileNotFoundError(2, "No such file", "/x")) == "[Errno 2] No such file: '/x'"
    # A defect keeps its traceback.
    assert explain(KeyError("x")) is None
    assert explain(AssertionError()) is None
