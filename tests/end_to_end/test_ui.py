"""`ocr dev`: sensor and backfill through the daemon, and what a person sees in the UI."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect
from running_dagster import RunningDagster
from sample_worlds import REGION_ASSETS, World
from ui_proxy import HOST, PASSWORD, Proxy, authorization, proxy_before
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

pytestmark = pytest.mark.end_to_end

REPOSITORY = Path(__file__).parents[2]
BACKFILLED = ("y0_x0", "y0_x1", "y0_x2")
"""Regions of the sample world that the backfill computes."""

REGION = "y0_x1"

CHECKS_OF = {
    "region_risk": {"wind_direction_weights", "values_in_range", "no_data_share", "no_seam"},
    "region_buildings": {"buildings_accounted_for", "geometry_valid"},
}

SENSOR = """{
  sensorOrError(sensorSelector: {
    repositoryLocationName: "ocr_assets", repositoryName: "__repository__",
    sensorName: "input_datasets"
  }) { ... on Sensor { sensorState { status ticks { status skipReason cursor } } } }
}"""

INPUTS = """{
  assetNodes { assetKey { path }
    assetMaterializations(limit: 2) { tags { key value } }
  }
}"""

CHECKS = """query($asset: [String!]!, $region: String!) {
  assetNodeOrError(assetKey: { path: $asset }) { ... on AssetNode {
    staleStatus(partition: $region)
    staleCauses(partition: $region) { key { path } reason }
    assetMaterializations(partitions: [$region]) { runId }
    assetChecksOrError { ... on AssetChecks { checks { name
      executionForLatestMaterialization { status } } } }
  } }
}"""


@pytest.fixture(scope="module")
def running_world(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world that the running Dagster works on."""
    return World(sample_root, tmp_path_factory.mktemp("running"))


@pytest.fixture(scope="module")
def running_dagster(running_world: World) -> Iterator[RunningDagster]:
    """`ocr dev` on a fresh instance, started in the checkout as `make dev` does."""
    variables, folder = running_world.variables(), running_world.folder
    with RunningDagster.start(variables, folder, cwd=REPOSITORY) as running:
        yield running


@pytest.fixture(scope="module")
def backfill(running_dagster: RunningDagster) -> dict[str, Any]:
    """A finished backfill of a few regions, launched as the UI does: its status and runs."""
    running_dagster.materialize("region_template")
    backfill_id = running_dagster.launch_backfill(REGION_ASSETS, BACKFILLED)
    return running_dagster.finished_backfill(backfill_id)


@pytest.fixture
def page(
    browser: Browser, running_dagster: RunningDagster, backfill: dict[str, Any]
) -> Iterator[Page]:
    """A page of the UI that asks nobody else for anything and does not complain."""
    context = browser.new_context(
        viewport={"width": 1600, "height": 1400}, base_url=running_dagster.url
    )
    page = context.new_page()
    hosts: Counter[str] = Counter()
    complaints: list[str] = []
    page.on("request", lambda request: hosts.update([urlsplit(request.url).netloc]))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    yield page
    context.close()
    own = {urlsplit(running_dagster.url).netloc, ""}
    assert hosts.keys() <= own, "data: and blob: addresses have no host"
    assert complaints == []


def value_of(page: Page, key: str) -> str:
    """The value beside a key in the table of metadata."""
    row = page.locator("tr", has=page.get_by_text(key, exact=True))
    return row.locator("td").nth(1).inner_text().strip()


def test_it_starts_without_a_warning(running_dagster: RunningDagster) -> None:
    lines = running_dagster.log.read_text().splitlines()
    warnings = [line for line in lines if re.search("warning|error", line, re.IGNORECASE)]
    # On a new instance the daemon says so, once for each kind of event that it follows.
    new = [line for line in warnings if "No cursor for event type" in line]
    assert [line for line in warnings if line not in new] == []
    assert len(new) == 2


def test_the_ui_is_behind_the_password_everywhere(
    running_dagster: RunningDagster, tmp_path: Path
) -> None:
    with proxy_before(running_dagster.url, tmp_path) as proxy:
        ask_for_everything(proxy)
    # The proxy keeps the password to itself.
    assert PASSWORD not in (tmp_path / "access.log").read_text()


def test_nothing_can_be_reached_from_elsewhere(running_dagster: RunningDagster) -> None:
    family = psutil.Process(running_dagster.process.pid)
    listening = set()
    for process in (family, *family.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            listening |= {
                connection.laddr.ip
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    assert listening == {"127.0.0.1"}


def ask_for_everything(proxy: Proxy) -> None:
    """Pages, questions and live logs, with the password and without."""
    question = json.dumps({"query": "{ version }"}).encode()
    wrong = authorization("battery staple")
    for path, body in (("/", None), ("/server_info", None), ("/graphql", question)):
        assert proxy.ask(path, body)[0] == 401
        assert proxy.ask(path, body, **wrong)[0] == 401
    right = authorization(PASSWORD)
    status, page = proxy.ask("/", **right)
    assert (status, b"<!doctype html>" in page.lower()) == (200, True)
    status, answer = proxy.ask("/graphql", question, **right)
    assert status == 200
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", json.loads(answer)["data"]["version"])
    large = {"Content-Length": str(17 << 20)}
    assert proxy.ask("/graphql", b"", **right, **large)[0] == 413

    # Live logs are WebSockets, and behind the password too.
    address = f"ws://{HOST}/graphql"  # the connection is encrypted already
    with pytest.raises(InvalidStatus) as refused:
        connect(address, sock=proxy.socket(), subprotocols=["graphql-ws"])
    assert refused.value.response.status_code == 401
    with connect(
        address,
        sock=proxy.socket(),
        subprotocols=["graphql-ws"],
        additional_headers=right,
    ) as live:
        live.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(live.recv(timeout=60))["type"] == "connection_ack"


def test_the_input_sensor_reports_every_input(
    running_dagster: RunningDagster, running_world: World
) -> None:
    def ticked() -> dict[str, Any] | None:
        state = running_dagster.query(SENSOR)["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING"
        return next(iter(state["ticks"]), None)

    tick = running_dagster.wait_for("a tick of the sensor", ticked)
    catalog = running_world.catalog
    assert tick["skipReason"].startswith(f"reported {len(catalog.datasets)} of")
    found = {
        node["assetKey"]["path"][-1]: [
            {tag["key"]: tag["value"] for tag in event["tags"]}["dagster/data_version"]
            for event in node["assetMaterializations"]
        ]
        for node in running_dagster.query(INPUTS)["assetNodes"]
        if node["assetKey"]["path"][0] == "input" and node["assetMaterializations"]
    }
    expected = {
        name.replace("-", "_"): [catalog.fingerprint(name)] for name in sorted(catalog.datasets)
    }
    assert found == expected


def test_a_backfill_materializes_regions_in_one_run(
    running_dagster: RunningDagster, running_world: World, backfill: dict[str, Any]
) -> None:
    assert backfill["status"] == "COMPLETED_SUCCESS"
    (run,) = backfill["runs"]
    assert run["status"] == "SUCCESS"
    assert set(running_world.deployment().ledger()) == set(BACKFILLED)

    for asset in REGION_ASSETS:
        for region in BACKFILLED:
            node = running_dagster.query(CHECKS, asset=[asset], region=region)["assetNodeOrError"]
            assert [made["runId"] for made in node["assetMaterializations"]] == [run["id"]]
            # The sensor reported the inputs before: that must not make the region stale.
            assert (node["staleStatus"], node["staleCauses"]) == ("FRESH", [])
        checks = {
            check["name"]: check["executionForLatestMaterialization"]["status"]
            for check in node["assetChecksOrError"]["checks"]
        }
        assert checks == dict.fromkeys(CHECKS_OF[asset], "SUCCEEDED")


def test_the_graph_shows_groups_and_assets(page: Page, pictures: Path) -> None:
    page.goto("/asset-groups")
    for group in ("inputs", "regions"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()

    page.goto("/locations/ocr_assets/asset-groups/regions")
    for asset in ("region_template", "region_risk", "region_buildings", "buildings", "pyramid"):
        expect(page.get_by_text(asset, exact=True).first).to_be_attached()
    # Three of the eleven regions. The graph draws the assets that are in view.
    expect(page.get_by_text("27% filled").first).to_be_attached()
    page.screenshot(path=pictures / "dagster-graph.png")


def test_a_region_shows_its_picture_and_its_counts(
    page: Page, pictures: Path, running_world: World
) -> None:
    entry = running_world.deployment().ledger()[REGION]
    page.goto(f"/assets/region_risk?view=partitions&partition={REGION}")
    expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()
    assert page.get_by_text("Unsynced").count() == 0
    assert value_of(page, "pixels") == str(entry["summary"]["pixels"])
    assert float(value_of(page, "seconds")) > 0
    assert "rps_2011" in value_of(page, "summary")
    page.screenshot(path=pictures / "dagster-region-risk.png")

    # A picture is too long for the table, so the UI shows it on demand.
    page.get_by_text("[Show Markdown]").click()
    picture = page.locator("img[alt=risk]")
    expect(picture).to_be_visible()
    rows, cols = running_world.grid.region_window(REGION).shape
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [cols, rows]
    page.wait_for_timeout(500)  # the dialog fades in
    page.screenshot(path=pictures / "dagster-region-picture.png")


def test_a_region_of_buildings_shows_its_rows_and_columns(
    page: Page, pictures: Path, running_world: World
) -> None:
    entry = running_world.deployment().ledger()[REGION]
    page.goto(f"/assets/region_buildings?view=partitions&partition={REGION}")
    assert value_of(page, "rows") == str(entry["buildings"]["rows"])
    assert value_of(page, "dagster/row_count") == str(entry["buildings"]["rows"])
    page.screenshot(path=pictures / "dagster-region-buildings.png")

    page.goto("/assets/region_buildings")
    for column in ("building_id", "rps_2047", "risk_score_2011", "GEOID", "geometry"):
        expect(page.get_by_text(column, exact=True).first).to_be_attached()
    page.screenshot(path=pictures / "dagster-building-columns.png", full_page=True)


@pytest.mark.parametrize("asset", REGION_ASSETS)
def test_checks_are_shown_with_what_they_found(page: Page, pictures: Path, asset: str) -> None:
    page.goto(f"/assets/{asset}?view=checks")
    for check in CHECKS_OF[asset]:
        expect(page.get_by_text(check, exact=True).first).to_be_visible(timeout=60_000)
    succeeded = page.get_by_text("Succeeded", exact=True)
    expect(succeeded).to_have_count(len(CHECKS_OF[asset]), timeout=60_000)
    page.screenshot(path=pictures / f"dagster-checks-{asset}.png")


def test_the_code_location_is_loaded_and_the_daemons_are_well(page: Page, pictures: Path) -> None:
    page.goto("/deployment/locations")
    expect(page.get_by_text("Loaded", exact=True)).to_be_visible()
    page.goto("/deployment/daemons")
    expect(page.get_by_text("Backfill", exact=False).first).to_be_visible()
    expect(page.get_by_text("Not running")).to_have_count(0)
    page.screenshot(path=pictures / "dagster-daemons.png")
