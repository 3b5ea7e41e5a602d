"""Dagster's UI in a real browser: what a person sees of the graph and of a region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from running_dagster import RunningDagster
from sample_worlds import World

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("backfill")]

REGION = "y0_x1"


@pytest.fixture
def page(browser: Browser, running_dagster: RunningDagster) -> Iterator[Page]:
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


def test_the_graph_shows_groups_and_assets(page: Page, pictures: Path) -> None:
    page.goto("/asset-groups")
    for group in ("inputs", "regions"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()

    page.goto("/locations/ocr_assets/asset-groups/regions")
    for asset in ("region_template", "region_risk", "region_buildings", "buildings", "pyramid"):
        expect(page.get_by_text(asset, exact=True).first).to_be_attached()
    # Three of the eleven regions, for both assets.
    # The graph draws the assets that are in view.
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


def test_the_code_location_is_loaded_and_the_daemons_are_well(page: Page, pictures: Path) -> None:
    page.goto("/deployment/locations")
    expect(page.get_by_text("Loaded", exact=True)).to_be_visible()
    page.goto("/deployment/daemons")
    expect(page.get_by_text("Backfill", exact=False).first).to_be_visible()
    expect(page.get_by_text("Not running")).to_have_count(0)
    page.screenshot(path=pictures / "dagster-daemons.png")
