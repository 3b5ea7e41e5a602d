"""All engines at once: a release and requests become regions, tiles and text, on Dask workers.

On the way a Dask worker and the daemon are killed. What has to come of it is counted in what each
engine keeps itself: Postgres, S3, SQS, the journal of the workers, and the repository of regions.
`make test-engines` runs it; `make test` leaves it out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import dagster as dg
import psutil
import pytest
from engine_room import CHECKOUT, RELEASED, TILE, YEAR, EngineRoom, engine_room
from engines import wait_until
from playwright.sync_api import Browser, Locator, Page, expect
from running_dagster import RunningDagster
from sample_worlds import OCR, REGION_ASSETS, environment
from stac_server import StacServer
from worker_journal import Line

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import DEPLOY_JOB, DEPLOYMENT_TAG, VERSION_TAG
from ocr_assets.deployment_stages import ANALYSIS_FOLDERS
from ocr_assets.regions.geographies import LEVELS
from ocr_assets.releases import Releases
from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED, VOLUME_FIRST, VOLUME_WANTED
from ocr_assets.request_messages import DEFAULT_JOB_TYPE
from ocr_assets.sample.imagery import build_sample_imagery
from ocr_assets.sample.volume import PAGES, VOLUME
from ocr_assets.tiles.grid import Tile, TileGrid, tile_geobox
from ocr_assets.volume_library import VolumeLibrary
from resources.request_queue import RequestInbox
from resources.storage import Storage

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1500)]
LABEL = f"v{RELEASED}"
OF_YEAR, READING = f"{TILE}|{YEAR}", f"{DEFAULT_JOB_TYPE}|{VOLUME}"


@dataclass
class Day:
    """What happened, and what is left to be looked at."""

    room: EngineRoom
    ui: RunningDagster
    lost: Line
    """What the killed Dask worker had begun."""
    killed_status: int
    """How `ocr worker` ended after its daemon was killed."""
    left_by_killed: list[psutil.Process]
    stopped_status: int
    """How the second one ended after SIGTERM."""
    left_by_stopped: list[psutil.Process]

    @cached_property
    def deployment(self) -> Deployment:
        """What was released."""
        return Deployment(self.room.settings.changed(version=RELEASED))

    @property
    def production(self) -> Storage:
        """The root of the environment."""
        return Releases.of(self.deployment.settings).root

    @cached_property
    def materialized(self) -> Counter[tuple[str, str | None]]:
        """How often each partition of our assets was materialized by a run."""
        found: Counter[tuple[str, str | None]] = Counter()
        for run in self.room.instance.get_runs():
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION
            for entry in self.room.instance.all_logs(run.run_id, of_type=kind):
                made = entry.asset_materialization
                assert made is not None
                found[made.asset_key.to_user_string(), made.partition] += 1
        return found

    def runs(self, job: str) -> list[dg.DagsterRun]:
        """All runs of a job."""
        return list(self.room.instance.get_runs(dg.RunsFilter(job_name=job)))


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic imagery of the tile, with clear days in every quarter."""
    folder = tmp_path_factory.mktemp("imagery")
    place = tile_geobox(TileGrid.load(), Tile.parse(TILE))
    build_sample_imagery(folder, [place], year=YEAR, optical_dates=12)
    return folder


@pytest.fixture(scope="module")
def day(
    s3_server: str,
    stac_server: StacServer,
    imagery: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Day]:
    """The whole story, up to the orderly end of the worker; engines and UI go on."""
    folder = tmp_path_factory.mktemp("engines")
    with engine_room(folder, s3_server, stac_server.serve(imagery)) as room:
        first = room.start_worker()
        room.publish_release()
        room.ask_for_volume()
        lost = room.kill_dask_worker_at_work()
        room.dask.add_worker()
        wait_until("another worker to do it", lambda: done_again(room, lost), 400)
        room.kill_daemon()
        # Nobody takes these in before there is a daemon again. A queue may deliver twice.
        for _ in range(2):
            room.ask_for_tile()
        room.ask_for_volume()
        killed_status, left_by_killed = first.ended(), room.processes()

        second = room.start_worker()
        ui = room.start_webserver()
        room.wait_until_it_is_over()
        ui.wait_for("the UI", ui._ready, 400)
        of_ui = psutil.Process(ui.process.pid)
        second.process.send_signal(signal.SIGTERM)
        stopped_status = second.ended()
        shown = {of_ui, *of_ui.children(recursive=True)}
        left = [process for process in room.processes() if process not in shown]
        yield Day(room, ui, lost, killed_status, left_by_killed, stopped_status, left)


def done_again(room: EngineRoom, lost: Line) -> bool:
    return any(line.task == lost.task and line.state == "done" for line in room.journal)


# --- Nothing is lost, nothing is done twice ------------------------------------------------------


def test_every_partition_is_materialized_once(day: Day) -> None:
    regions = {(asset, region) for asset in REGION_ASSETS for region in day.deployment.grid.valid}
    of_levels = {
        (f"{asset}/{level}", None)
        for asset in ("risk_statistics", "region_analysis_files")
        for level in LEVELS
    }
    of_all = ("region_template", "buildings", "pyramid")
    archives = ("regional_pmtiles", "building_pmtiles", "building_centroid_pmtiles")
    expected: set[tuple[str, str | None]] = {
        *regions,
        *of_levels,
        *((asset, None) for asset in (*of_all, *archives)),
        ("elevation", TILE),
        *((asset, OF_YEAR) for asset in ("sentinel1", "sentinel2", "tree_cover")),
    }
    if day.room.can_read:
        expected.add(("volume_manifest", VOLUME))
        expected |= {(asset, READING) for asset in ("volume_lines", "volume_text")}
    assert day.materialized == Counter(expected)


def test_one_release_is_one_deployment(day: Day) -> None:
    (deployment,) = day.runs(DEPLOY_JOB)
    assert deployment.tags["ocr/github_ref"] == LABEL
    assert deployment.tags[VERSION_TAG] == LABEL
    launched = dg.RunsFilter(tags={DEPLOYMENT_TAG: deployment.run_id})
    runs = [deployment, *day.room.instance.get_runs(launched)]
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    statuses = [answer.status for answer in day.room.github.asked]
    assert statuses.count(200) == 2, "what has not changed is not sent again"


def test_each_request_is_one_run(day: Day) -> None:
    jobs = [TILE_FIRST, TILE_WANTED, *([VOLUME_FIRST, VOLUME_WANTED] if day.room.can_read else [])]
    for job in jobs:
        runs = day.runs(job)
        # The killed daemon may not have come to giving a run its process; then it is tried again.
        assert len({run.root_run_id or run.run_id for run in runs}) == 1, job
        assert [run.status for run in runs].count(dg.DagsterRunStatus.SUCCESS) == 1, job


def test_every_region_is_in_one_commit(day: Day) -> None:
    branch = day.deployment.regions._branch
    snapshots = branch.repository.ancestry(branch=branch.branch)
    written = Counter(
        region
        for snapshot in snapshots
        if snapshot.metadata.get("kind") == "regions"
        for region in snapshot.metadata["regions"]
    )
    assert written == Counter(day.deployment.grid.valid)
    assert list(day.deployment.current_ledger()) == list(day.deployment.grid.valid)


def test_the_queues_are_empty_and_no_request_was_refused(day: Day) -> None:
    sent = {"tiles": 2, "volumes": 2 if day.room.can_read else 0}
    for kind, queue in day.room.queues.items():
        assert queue.left() == 0
        inbox = RequestInbox.of(day.room.settings, kind)
        assert inbox.accepted() == []
        assert inbox.storage.list("rejected") == []
        assert len(inbox.storage.list("done")) == sent[kind]


# --- By whom -------------------------------------------------------------------------------------


def test_the_work_was_done_by_dask_workers(day: Day) -> None:
    journal = day.room.journal
    assert {line.pid for line in journal} == {worker.pid for worker in day.room.dask.workers}
    assert "failed" not in {line.state for line in journal}
    expected = Counter(
        [
            *(("regions", region) for region in day.deployment.grid.valid),
            *(("risk_statistics", f"statistics/{level}.parquet") for level in LEVELS),
            *(
                ("region_analysis_files", f"region-analysis/{folder}")
                for folder in ANALYSIS_FOLDERS.values()
            ),
            ("buildings", "buildings"),
            ("pyramid", "pyramid"),
            ("regional_pmtiles", "pmtiles/regions.pmtiles"),
            ("building_pmtiles", "pmtiles/buildings.pmtiles"),
            ("building_centroid_pmtiles", "pmtiles/building_centroids.pmtiles"),
            ("elevation", TILE),
            *((asset, OF_YEAR) for asset in ("sentinel1", "sentinel2", "tree_cover")),
        ]
    )
    if day.room.can_read:
        expected.update([("volume_lines", READING), ("volume_text", READING)])
    assert Counter(line.work for line in journal if line.state == "done") == expected
    # Each under the run that recorded it.
    launched = {run.run_id for run in day.room.instance.get_runs()}
    assert {line.run_id for line in journal} <= launched


def test_what_the_killed_worker_had_begun_was_done_by_another(day: Day) -> None:
    told = [line for line in day.room.journal if line.task == day.lost.task]
    assert [line.state for line in told] == ["begun", "begun", "done"]
    assert told[0] == day.lost
    assert told[1].pid == told[2].pid != day.lost.pid


def test_the_worker_ends_with_all_that_it_started(day: Day) -> None:
    assert day.killed_status == 1
    said = day.room.workers[0].log.read_text()
    assert "ocr: the daemon ended by itself with status -9" in said
    assert day.left_by_killed == []
    assert day.stopped_status == 0
    assert day.left_by_stopped == []


# --- What came of it -----------------------------------------------------------------------------


def test_all_checks_passed(day: Day) -> None:
    graph = build_defs(day.deployment).resolve_asset_graph()
    made = {asset for asset, _ in day.materialized}
    expected = {key for key in graph.asset_check_keys if key.asset_key.to_user_string() in made}
    found = {}
    for run in day.room.instance.get_runs():
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        for entry in day.room.instance.all_logs(run.run_id, of_type=kind):
            assert entry.dagster_event is not None
            check = entry.dagster_event.asset_check_evaluation_data
            found[check.asset_check_key] = check.passed
    assert found == dict.fromkeys(expected, True)


def test_the_version_is_tagged_and_served(day: Day) -> None:
    releases = Releases.of(day.deployment.settings)
    assert releases.current() == LABEL
    release = releases.find(LABEL)
    assert release is not None
    tagged = day.deployment.regions._branch.repository.lookup_tag(LABEL)
    assert release.risks["fire"].snapshot == tagged
    assert list(day.deployment.regions.ledger(LABEL)) == list(day.deployment.grid.valid)
    variables = environment(day.room.variables)
    command = [OCR, "map", "--latest", "--no-open"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            assert found is not None
            with urlopen(f"{found[0]}/config.json", timeout=30) as answer:
                shown = json.load(answer)
            assert (shown["environment"], shown["version"]) == ("production", LABEL)
        finally:
            server.kill()


def test_everything_is_in_the_object_store(day: Day) -> None:
    keys = {info.key for info in day.production.list()}
    expected = {
        "latest.json",
        f"releases/{LABEL}.json",
        f"{LABEL}/pyramid/current.json",
        *(f"{LABEL}/pmtiles/{name}.pmtiles" for name in ("buildings", "regions")),
        *(f"{LABEL}/statistics/{level}.parquet" for level in LEVELS),
    }
    assert expected <= keys
    assert any(key.startswith("icechunk/region-risk/") for key in keys)
    assert any(re.fullmatch(rf"tiles/{YEAR}/tiles/\d+/\d+/{TILE}_FINAL.tif", key) for key in keys)
    if day.room.can_read:
        volumes = VolumeLibrary(day.room.settings)
        record = volumes.record(DEFAULT_JOB_TYPE, VOLUME)
        assert record is not None
        assert volumes.storage.uri(record.prefix).startswith(day.production.root)
        assert volumes.storage.exists(f"{record.prefix}/success.json")
    logged = {info.key for info in day.room.logs.list("compute-logs")}
    assert any(day.runs(DEPLOY_JOB)[0].run_id in key for key in logged)
    # On the disk of this machine is nothing but logs and the instance's file.
    kept = {path.name for path in Path(day.room.folder, "home").rglob("*") if path.is_file()}
    assert kept == {"dagster.yaml", ".initialising", ".worker"}


def test_no_secret_is_told(day: Day) -> None:
    secrets = [
        day.room.variables[name] for name in ("OCR_GITHUB_TOKEN", "DAGSTER_POSTGRES_PASSWORD")
    ]
    for log in day.room.folder.glob("*.log"):
        assert not [secret for secret in secrets if secret in log.read_text()], log.name
    for run in day.room.instance.get_runs():
        told = json.dumps([run.tags, dict(run.run_config)])
        assert not [secret for secret in secrets if secret in told]


# --- What a person sees --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> Path:
    """Where screenshots are kept: the folder that a variable names, or one of the checkout."""
    folder = Path(os.environ.get("OCR_TEST_ARTIFACTS") or CHECKOUT / ".artifacts" / "engines")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(browser: Browser, day: Day) -> Iterator[Page]:
    """A page of the UI that does not complain."""
    context = browser.new_context(viewport={"width": 1600, "height": 1400}, base_url=day.ui.url)
    context.set_default_timeout(120_000)
    page = context.new_page()
    expect.set_options(timeout=60_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def seen(page: Page, text: str) -> Locator:
    """A text that is shown; the UI also keeps hidden copies, to measure them."""
    return page.get_by_text(text, exact=True).filter(visible=True).first


@pytest.mark.parametrize(
    ("wing", "assets"),
    [
        ("regions", ("region_risk",)),
        ("tiles", ("elevation", "sentinel1", "sentinel2", "tree_cover")),
        ("volumes", ("volume_manifest", "volume_lines", "volume_text")),
    ],
)
def test_the_lineage_shows_every_wing(
    page: Page, pictures: Path, wing: str, assets: tuple[str, ...]
) -> None:
    page.goto("/asset-groups")
    graph = page.locator("svg")
    for group in ("inputs", "regions", "regions_wind", "sources", "tiles", "volumes"):
        expect(graph.get_by_text(group, exact=True).last).to_be_visible()
    page.screenshot(path=pictures / "lineage.png")
    graph.get_by_text(wing, exact=True).last.click()  # opens the group
    for asset in assets:
        expect(graph.get_by_text(asset, exact=True).last).to_be_attached()
    if wing == "regions":
        expect(graph.get_by_text("100% filled").first).to_be_attached()
        expect(graph.get_by_text("4 / 4 Passed").first).to_be_attached()
    page.wait_for_timeout(1000)  # the graph moves to the group
    page.screenshot(path=pictures / f"lineage-{wing}.png")


def test_the_partitions_of_regions_are_all_made(page: Page, pictures: Path, day: Day) -> None:
    page.goto("/assets/region_risk?view=partitions")
    count = len(day.deployment.grid.valid)
    expect(seen(page, f"Materialized ({count})")).to_be_visible()
    for status in ("Failed", "Missing"):
        expect(seen(page, f"{status} (0)")).to_be_visible()
    for region in day.deployment.grid.valid:
        expect(seen(page, region)).to_be_visible()
    page.screenshot(path=pictures / "partitions-regions.png")


@pytest.mark.parametrize(
    ("asset", "partition", "name"),
    [
        ("region_risk", "y1_x1", "risk"),
        ("tree_cover", OF_YEAR, "tree_cover"),
        ("volume_lines", READING, "lines"),
    ],
)
def test_an_asset_shows_its_picture(
    page: Page, pictures: Path, day: Day, asset: str, partition: str, name: str
) -> None:
    if asset == "volume_lines" and not day.room.can_read:
        pytest.skip("this machine cannot read the sample volume")
    page.goto(f"/assets/{asset}?view=partitions&partition={quote(partition)}")
    for text in ("Materialized", partition):
        expect(seen(page, text)).to_be_visible()
    page.screenshot(path=pictures / f"{asset}.png")
    picture, on_demand = page.locator(f"img[alt={name}]"), page.get_by_text("[Show Markdown]")
    expect(picture.or_(on_demand).first).to_be_visible()
    if not picture.count():  # it is too long for the table
        on_demand.first.click()
    expect(picture).to_be_visible()
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 100 < height
    page.wait_for_timeout(500)  # the dialog fades in
    page.screenshot(path=pictures / f"{asset}-picture.png")


def test_a_volume_shows_its_text(page: Page, pictures: Path, day: Day) -> None:
    if not day.room.can_read:
        pytest.skip("this machine cannot read the sample volume")
    page.goto(f"/assets/volume_text?view=partitions&partition={quote(READING)}")
    first_line = PAGES["0002"][1][0]
    expect(page.get_by_text(first_line).first).to_be_attached()
    page.get_by_text(first_line).first.scroll_into_view_if_needed()
    page.screenshot(path=pictures / "volume_text.png")
