"""What the documentation shows to type is executed, or accounted for.

The commands of a wing are executed one after the other in one folder, as a reader would type them.
For what needs a server, a cluster or much time tests are named here that execute it, or its parts
one by one; these have to contain the words of the command. A line that is in none of these lists
fails. Of benchmarks and of targets of `make` it is only shown that they and their options exist.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import boto3
import geopandas
import pytest
from documented import PAGES, command_and_options, command_of, mentions, spellings, typed
from published_inputs import Published
from sample_worlds import Outcome, World
from source_files import REPOSITORY, name_of

from ocr_assets.regions.input_sources import CENSUS
from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.sample.tile_world import POLYGONS, REQUEST, SETTINGS, write_sample_files
from ocr_assets.tile_library import SOURCES
from resources.storage import Storage

Ocr = Callable[..., Outcome]
Session = Mapping[str, tuple[int, str]]
"""Commands in their order: the status that each ends with, and a part of what it prints."""

REGIONS: Session = {
    "ocr status": (0, "daemon not running"),
    "ocr config --env-file deploy/qa.env": (0, "tcp://dask-qa.internal:8786"),
    "ocr regions status": (0, "11 done, 0 stale, 0 failed, 0 missing"),
    "ocr partition-buildings": (0, "buildings 1 5,867 rows"),
    "ocr aggregate-region-risk-summary-stats": (0, "risk_statistics/nation"),
    "ocr write-aggregated-region-analysis-files": (0, "region_analysis_files/nation"),
    "ocr create-regional-pmtiles": (0, "regional_pmtiles 1 927 features"),
    "ocr create-building-pmtiles": (0, "building_pmtiles 1 5,867 features"),
    "ocr create-building-centroid-pmtiles": (0, "building_centroid_pmtiles 1 5,826 features"),
    "ocr map --risk-type wind": (1, "make them with `ocr run --risk-type wind`"),
    "ocr run --all-region-ids --platform coiled": (1, "`pip install coiled`, then `coiled login`"),
}

FROM_A_FILE: Session = {
    "ocr deploy status --env-file staging.env": (0, "qa nothing"),
    "ocr run --all-region-ids --env-file staging.env": (0, "region_risk 11 792,000 pixels"),
}

RELEASES: Session = {
    "ocr deploy run --environment production --version 1.2.3 --all-region-ids --summary-stats"
    " --create-pyramid": (0, "deployed production v1.2.3"),
    "ocr deploy publish --environment production --version 1.2.3": (
        0,
        "production gives its readers v1.2.3 now: 11 regions of fire, 15 products",
    ),
    "ocr deploy status": (0, "v1.2.2, v1.2.3"),
    "ocr deploy rollback 1.2.2 --environment production": (0, "v1.2.2 now, instead of v1.2.3"),
    "ocr deploy prune --keep 5 --environment production": (0, "production: no version (0 objects"),
}

TILES: Session = {
    "ocr tiles run .data/input/imagery/tiles.csv --yes --env-file .data/input/imagery/sample.env": (
        0,
        "1947X1775Y|2023",
    ),
    "ocr tiles cost .data/input/imagery/tiles.csv --include-predict": (0, "tree_cover 2"),
    "ocr tiles stats .data/input/imagery/polygons.geojson --year 2023 -o answer.csv": (
        1,
        "missing tiles: 1949X1775Y",
    ),
    "ocr tiles preview 1947X1775Y --year 2023 -o cover.png": (0, "in 2023: cover.png"),
    "ocr tiles run tiles.csv --env-file sample.env --yes": (6, "nothing to do"),
    "ocr tiles stats polygons.geojson --year 2023": (1, "complete 2 partial 1 rows 3"),
    "ocr tiles mosaic --year 2023": (0, "tree_cover.tif: all tiles of 2023"),
    "ocr tiles resolve request.json -o tiles.csv": (0, "1 tiles of 2023 from 1 entries"),
    "ocr tiles resolve sites.gpkg --year 2023 -o tiles.csv": (0, "3 tiles of 2023"),
    "ocr tiles resolve sites.gpkg --year 2024 -o tiles.csv": (0, "3 tiles of 2024"),
    "ocr tiles resolve sites.gpkg --year-from-plantstart -o tiles.csv": (0, "3 tiles of 2023"),
    "ocr tiles resolve projects.csv --polygons sites.gpkg -o tiles.csv": (0, "3 tiles of 2023"),
    "ocr tiles resolve --bbox 179,-18,-179,-16 --year 2024": (0, "204 tiles of 2024"),
    "ocr tiles validate tiles.csv": (0, "duplicates 0 left out 0"),
    "ocr tiles split tiles.csv": (0, "tiles_0001.csv 2"),
    "ocr tiles split tiles.csv --chunk-size 50,500": (0, "tiles_0001.csv 2"),
    "ocr tiles run tiles.csv --yes": (6, "nothing to do"),
    "ocr tiles run tiles.csv --dry-run": (6, "nothing to do"),
    "ocr tiles run tiles.csv --yes --report-dir reports --plot": (6, "nothing to do"),
    "ocr tiles run tiles.csv --sources elevation,sentinel1,sentinel2": (6, "nothing to do"),
    "ocr tiles run tiles.csv --sources sentinel1": (6, "nothing to do"),
    "ocr tiles run tiles.csv --sources tree_cover": (6, "nothing to do"),
    "ocr tiles run tiles.csv --dest s3://bucket/tiles --sources elevation,sentinel1 --yes": (
        0,
        "sentinel1 2 2 0 0 0",
    ),
    "ocr tiles status tiles.csv": (0, "elevation 2 2 0 0 0"),
    "ocr tiles retry tiles.csv": (6, "no attempt at these tiles failed"),
    "ocr tiles check tiles.csv --check-type predictions --exit-on-missing": (0, "0 of 2 tiles"),
    "ocr tiles missing tiles.csv -o rest.csv": (0, "0 of 2 tiles are not complete: rest.csv"),
    "ocr tiles report tiles.csv --report-dir reports": (0, "elevation 2 2 0 0 0"),
    "ocr tiles stats sites.gpkg --year 2023 -o answer.csv": (1, "complete 2 partial 1 rows 3"),
    "ocr tiles mosaic --year 2023 -o cover.tif": (0, "cover.tif: 2 tiles, 1236 x 618 pixels"),
    "ocr tiles cost tiles.csv --include-predict": (0, "tree_cover 2"),
    "ocr tiles request projects.geojson --year 2023": (0, "asked for 3 tiles"),
    "ocr tiles request tiles.csv --attempt 2": (0, "asked for 2 tiles"),
}

VOLUMES: Session = {
    "ocr volumes run WSAMPLE-ISAMPLE": (0, "WSAMPLE-ISAMPLE success: 1 of 1 pages"),
    "ocr volumes text WSAMPLE-ISAMPLE": (0, "བཀྲ་ཤིས་བདེ་ལེགས།"),
    "ocr volumes export WSAMPLE-ISAMPLE sample-volume": (0, "sample-volume"),
    "ocr volumes run W22084-I0886": (0, "W22084-I0886 success: 1 of 1 pages"),
    "ocr volumes text W22084-I0886": (0, "གཟུགས་སྟོང་པའོ།"),
    "ocr volumes export W22084-I0886 folder": (0, "folder"),
    "ocr volumes pdf W22084-I0886 -o volume.pdf": (0, "volume.pdf: 1 pages"),
    "ocr volumes status": (0, "W22084-I0886"),
    "ocr volumes review --html review.html": (0, "review.html"),
    "ocr jobs types": (0, "woodblock-stacks-wylie"),
    "ocr jobs create --type printed-unicode --volume-file volumes.txt --job-key spring": (
        0,
        "job 1 spring created: 1 volumes",
    ),
    "ocr jobs status --job-key spring": (0, "job 1 spring: created"),
    "ocr jobs cancel --job-key spring": (0, "job spring canceled"),
    "ocr jobs cancel --job-id 1": (1, "there is nothing to cancel"),
    "ocr jobs retry --job-key spring --pages": (0, "job 1 spring: completed"),
    "ocr jobs run --job-key spring": (0, "nothing to do"),
    "ocr jobs metrics --job-key spring": (0, "W22084-I0886"),
    "ocr models verify": (0, "bod: good"),
    "ocr volumes request W22084-I0886 W1KG4313-I1KG17496 --type printed-unicode": (
        0,
        "asked for 2 volumes",
    ),
}

INPUTS: Session = {
    "ocr ingest-data list-datasets": (0, "scott-et-al-2024-30m-4326"),
    "ocr ingest-data run-all riley-et-al-2025": (0, "riley-et-al-2025-2047-30m-4326"),
    "ocr ingest-data download scott-et-al-2024": (0, "recorded"),
    "ocr ingest-data process scott-et-al-2024": (0, "scott-et-al-2024-30m-4326"),
    "ocr ingest-data run-all census-tiger --census-geography-type blocks"
    " --census-subset-states CO": (0, "us-census-blocks"),
    "ocr ingest-data run-all overture-maps --overture-data-type buildings --dry-run": (
        0,
        "Nothing is done",
    ),
}

SESSIONS = (REGIONS, FROM_A_FILE, RELEASES, TILES, VOLUMES, INPUTS)

_STAGES = "cli/test_regions.py::test_stages_one_by_one"
_RELEASING = "cli/test_deploy.py::test_versions_are_published_taken_back_and_pruned"
_WHOLE_GRAPH = "sample_worlds.py::materialize_everything"
_ON_DASK = "end_to_end/test_dask.py::test_what_is_left_of_all_regions_by_command"

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "ocr dev": ("end_to_end/running_dagster.py::RunningDagster",),
    "ocr worker": ("end_to_end/test_worker.py::Worker",),
    "ocr map": ("cli/test_workplace.py::served",),
    "ocr status --watch": ("cli/test_status_command.py::test_watching_goes_on_until_interrupted",),
    "ocr --install-completion": ("cli/test_completion.py::test_a_shell_is_taught",),
    "ocr config": ("cli/test_workplace.py::test_config_as_a_table_explains_each_variable",),
    "ocr sample": ("cli/test_workplace.py::test_the_sample_world_is_built_once",),
    "ocr sample --region-id y9_x16 --buildings footprints.shp --counties counties.json": (
        "sample/test_world.py::test_full_size_region_with_real_buildings",
        "cli/test_workplace.py::test_a_sample_that_cannot_be_built",
    ),
    "ocr sample --region-id y9_x16 --synthetic-buildings 380000": (
        "sample/test_world.py::test_same_recipe_is_kept_and_another_replaces_it",
        "cli/test_workplace.py::test_a_sample_that_cannot_be_built",
    ),
    "ocr run --region-id y1_x1 --summary-stats": (_RELEASING,),
    "ocr run --all-region-ids --summary-stats --create-pyramid": (_WHOLE_GRAPH,),
    "ocr run --all-region-ids --summary-stats --create-pyramid --platform dask": (
        _WHOLE_GRAPH,
        _ON_DASK,
    ),
    "ocr run --all-region-ids --platform dask": (_ON_DASK,),
    "ocr run --process-retries N": ("cli/test_regions.py::test_one_bad_region_beside_good_ones",),
    "ocr run --wipe": ("cli/test_regions.py::test_wiping_says_what_and_begins_anew",),
    "ocr regions compare 1.0.0 1.1.0": (
        "cli/test_compare_command.py::test_what_changed_between_two_versions",
    ),
    "ocr process-region": (_STAGES,),
    "ocr aggregate": (_STAGES,),
    "ocr aggregate-regional-risk": (_STAGES,),
    "ocr create-pyramid": (_STAGES,),
    "ocr create-pmtiles": (
        "cli/test_deploy.py::test_versions_are_published_taken_back_and_pruned",
    ),
    "ocr deploy run --environment production --version 1.2.3 --all-region-ids --force": (
        "cli/test_deploy.py::test_a_deployment_by_command",
        _WHOLE_GRAPH,
    ),
    "ocr models fetch bod": (
        "cli/test_volume_jobs.py::test_models_are_listed_fetched_and_verified",
    ),
    "nginx -t": ("end_to_end/ui_proxy.py::proxy_before",),
    "dask scheduler --host 127.0.0.1 --dashboard-address 127.0.0.1:8787": (
        "engines.py::dask_processes",
    ),
    "dask worker tcp://127.0.0.1:8786 --host 127.0.0.1 --dashboard-address 127.0.0.1:0": (
        "engines.py::DaskProcesses",
    ),
}
"""Commands that other tests execute, whole or in parts.

They have these words, and what a reader would have in their place.
"""

MAKEFILE = (REPOSITORY / "Makefile").read_text()

MACHINE = {"cd", "export", ".", "cp", "printf", "systemctl", "curl"}
"""Words of the shell and programs of the machine that a reader prepares."""

NOT_HERE = {
    "pip install coiled",
    "coiled login",
}
"""What needs an account somewhere."""


def play(session: Session, ocr: Ocr, before: Callable[[], object] = lambda: None) -> None:
    """Execute the commands of a session, each after ``before``."""
    for line, (status, words) in session.items():
        before()
        done = ocr(*line.split()[1:])
        assert done.status == status, f"{line}: {done}"
        assert words in " ".join((done.out + done.err).split()), f"{line}: {done}"


def test_regions(finished_copy: World, ocr: Ocr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_copy.folder)
    Path("deploy").symlink_to(REPOSITORY / "deploy")
    # The places are in the file alone.
    places = {name: value for name, value in finished_copy.variables().items() if "OCR_" in name}
    lines = [f"{name}={value}" for name, value in places.items()]
    Path("staging.env").write_text("\n".join(lines))
    play(FROM_A_FILE, partial(ocr, **dict.fromkeys(places, "")))
    play(REGIONS, ocr)


def test_releases(world: World, ocr: Ocr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    production = world.root / "production"

    def publish_an_older_one() -> None:
        """As if 1.2.2 had been published before."""
        record = production / "releases" / "v1.2.3.json"
        if record.exists():
            content = json.loads(record.read_text()) | {"label": "v1.2.2"}
            record.with_name("v1.2.2.json").write_text(json.dumps(content))

    play(RELEASES, ocr, publish_an_older_one)
    assert json.loads((production / "latest.json").read_text())["label"] == "v1.2.2"


def test_tiles(
    finished_tiles: Path,
    sample_imagery: Path,
    world: World,
    ocr: Ocr,
    s3_server: str,
    s3_bucket: Storage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(world.folder)
    root = world.folder / ".data"
    shutil.copytree(finished_tiles / "root", root, copy_function=os.link)
    for path in (root / "qa" / "tiles" / "2023" / "tiles").rglob(f"{DEFAULT_TILES[0]}*"):
        path.unlink()
    sample = root / "input" / "imagery"
    sample.mkdir(parents=True)
    write_sample_files(sample, sample_imagery)
    for name in (POLYGONS, SETTINGS):
        shutil.copy(sample / name, name)
    sites = geopandas.read_file(POLYGONS).assign(project_id="one", plantstart_year=2024)
    sites.to_file("sites.gpkg")
    sites.to_file("projects.geojson")
    Path("projects.csv").write_text("project_id,plantstart_year\none,2024\n")
    wanted = {"one": {"2023": {"missing_tiles": [DEFAULT_TILES[0]]}}}
    Path("request.json").write_text(json.dumps(wanted))
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="bucket")
    places = {
        "OCR_STORAGE_ROOT": str(root),
        "OCR_S3_ENDPOINT_URL": s3_server,
        **{f"OCR_{source.upper()}_SOURCE": str(sample_imagery) for source in SOURCES},
        "OCR_SENTINEL1_ACCESS": "anonymous",
    }
    play(TILES, partial(ocr, **places), lambda: shutil.copy(sample / REQUEST, "tiles.csv"))


def test_volumes(
    world: World,
    ocr: Ocr,
    monkeypatch: pytest.MonkeyPatch,
    pages: Path,
) -> None:
    monkeypatch.chdir(world.folder)
    for volume, page in (("WSAMPLE-ISAMPLE", "0003"), ("W22084-I0886", "0002")):
        folder = world.root / "input" / "volumes" / volume
        folder.mkdir(parents=True)
        shutil.copy(pages / f"{page}.tif", folder)
    Path("volumes.txt").write_text("W22084-I0886\n")
    play(VOLUMES, partial(ocr, OCR_MODELS_ROOT=str(world.folder / "models")))


def test_inputs(published: Published, ocr: Ocr) -> None:
    for source in ("riley-et-al-2025", "scott-et-al-2024", CENSUS):
        published.serve(source)
    play(INPUTS, partial(ocr, **published.variables()))


@cache
def words_of(test: str) -> frozenset[str]:
    """What a function or class of the tests, and the constants of its module, say in strings.

    Strings that stand alone are documentation, and say nothing.
    """
    file, _, name = test.partition("::")
    module = ast.parse((REPOSITORY / "tests" / file).read_text())
    (found,) = [node for node in module.body if getattr(node, "name", None) == name]
    constants = [node for node in module.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    within = [inner for outer in (found, *constants) for inner in ast.walk(outer)]
    alone = {id(node.value) for node in within if isinstance(node, ast.Expr)}
    said = set()
    for node in within:
        if id(node) in alone:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said |= {node.value, *node.value.split()}
        elif isinstance(node, ast.keyword) and node.arg:  # of the function behind the command
            said.add(f"--{node.arg.replace('_', '-')}")
    return frozenset(said)


def lacking(line: str, tests: tuple[str, ...]) -> list[str]:
    """Words of a command that none of these tests say."""
    said = frozenset[str]().union(*map(words_of, tests))
    words = line.split()
    if words[0] != "ocr":
        wanted = [{word} for word in words[1:] if word == words[1] or word.startswith("-")]
    else:
        command, options = command_and_options(words)
        wanted = [{word} for word in command.split()] + [spellings(command, one) for one in options]
    return ["/".join(sorted(one)) for one in wanted if not one & said]


@pytest.mark.parametrize("line", ELSEWHERE)
def test_the_test_that_is_named_has_the_words_of_the_command(line: str) -> None:
    assert lacking(line, ELSEWHERE[line]) == []


def test_a_test_without_the_words_would_be_found() -> None:
    tests = ("cli/test_workplace.py::served",)
    assert lacking("ocr map --latest", tests) == ["--latest"]
    assert lacking("ocr deploy prune", tests) == ["deploy", "prune"]
    assert "Strings that stand" not in words_of("test_documented_commands.py::words_of")
    assert "alone" not in words_of("test_documented_commands.py::words_of")


EXECUTED = {*ELSEWHERE, *(line for session in SESSIONS for line in session)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_is_executed(page: Path) -> None:
    missing = []
    for words in typed(page):
        line = " ".join(words)
        if words[0] == "make":
            assert all(re.search(f"^{target}:", MAKEFILE, re.MULTILINE) for target in words[1:])
        elif words[:1] == ["python"]:
            program = (REPOSITORY / words[1]).read_text()
            assert all(f'"{word}"' in program for word in words[2:] if word.startswith("-")), line
        elif words[0] not in MACHINE and line not in EXECUTED | NOT_HERE:
            missing.append(line)
    assert missing == [], "execute these in a session, or name the test that does"


def is_executed(mention: str) -> bool:
    """Whether a command is executed with the options of a mention, perhaps with others too."""
    command, options = command_and_options(mention.split())
    if hasattr(command_of(command), "commands"):  # a group of commands is named
        return len(mention.split()) == 1 + len(command.split())
    return any(
        name == command and options <= given
        for name, given in (command_and_options(line.split()) for line in EXECUTED)
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_mentions_is_executed(page: Path) -> None:
    assert [mention for mention in mentions(page) if not is_executed(mention)] == []


def test_a_mention_of_another_command_would_be_found() -> None:
    assert is_executed("ocr deploy rollback 1.2.2")
    assert not is_executed("ocr deploy rollback 1.2.2 --env-file other.env")
    assert not is_executed("ocr regions list")


def test_what_is_executed_is_documented() -> None:
    written = {" ".join(words) for page in PAGES for words in typed(page)}
    mentioned = [command_and_options(m.split()) for page in PAGES for m in mentions(page)]
    stale = [
        line
        for line in EXECUTED - written
        if not any(
            command == name and options <= given
            for name, given in [command_and_options(line.split())]
            for command, options in mentioned
        )
    ]
    assert stale == [], "no page has these any more"
