"""The map page in a real browser, on synthetic buildings."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
import shapely
from engines import wait_until
from matplotlib.image import imread
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect
from tile_archives import position

from ocr_assets.geoparquet import bbox_array, wkb_array, write_geoparquet
from ocr_assets.map_page.pictures import TreeCoverPicture
from ocr_assets.map_page.server import MapServer, PageSettings, StoredArchive
from ocr_assets.map_page.subject import page_subject
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.vector_tiles import (
    building_centroid_tiles,
    building_tiles,
    regional_tiles,
)
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.product import (
    PIXELS_PER_DEGREE,
    PixelBox,
    colour_table,
    pixel_box,
    write_tree_cover_cog,
)
from resources.storage import Storage

WEST, SOUTH, STEP = -105.30, 40.00, 0.0006
SIDE = 30
"""Buildings in a row; row and column decide their risk."""

LEVELS = np.array([0, 0.005, 0.015, 0.03, 0.05, 0.08, 0.15, 0.3, 0.7, 2, 5], np.float32)
"""A risk (RPS, percent) of each score from 0 to 10."""

KNOWN = (15, 7)
"""Row and column of the building that is clicked: score 7 in 2011, one more in 2047."""


def _centre(row: int, column: int) -> tuple[float, float]:
    return WEST + column * STEP + STEP / 3, SOUTH + row * STEP + STEP / 3


Town = tuple[dict[str, StoredArchive], PageSettings]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """Archives of a town of synthetic buildings in one county, and what its page says."""
    folder = tmp_path_factory.mktemp("town")
    row, column = (axis.ravel() for axis in np.indices((SIDE, SIDE)))
    west, south = WEST + column * STEP, SOUTH + row * STEP
    boxes = shapely.box(west, south, west + STEP * 2 / 3, south + STEP * 2 / 3)
    score = column % 10
    values = dict.fromkeys(FIRE.tiled, np.full(len(boxes), 0.25, np.float32))
    values |= {"rps_2011": LEVELS[score], "rps_2047": LEVELS[score + 1]}
    geometry = {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)}
    buildings = folder / "buildings.parquet"
    write_geoparquet(pa.table(values | geometry), buildings, {})
    outline = np.array([shapely.box(WEST - 0.01, SOUTH - 0.01, WEST + 0.03, SOUTH + 0.03)])
    county = {
        "GEOID": ["08013"],
        "NAME": ["Boulder"],
        "building_count": [len(boxes)],
        **{key: [0.04] for key in ("rps_2011_mean", "rps_2011_median")},
        **{key: [1.5] for key in ("rps_2047_mean", "rps_2047_median")},
        "risk_score_2011_hist": [np.bincount(score, minlength=11).astype(float)],
        "risk_score_2047_hist": [np.bincount(score + 1, minlength=11).astype(float)],
        "geometry": wkb_array(outline),
    }
    building_tiles(FIRE, [buildings], folder / "buildings.pmtiles")
    building_centroid_tiles(FIRE, [buildings], folder / "building_centroids.pmtiles")
    regional_tiles(FIRE, {"county": pa.table(county)}, folder / "regions.pmtiles")
    settings = PageSettings(
        title="Wildfire risk of a small town",
        subject=page_subject(FIRE),
        environment="qa",
        version="1.2.3",
        attribution=("Synthetic buildings and synthetic risk",),
        notice="Synthetic data: made to show the software, not the world.",
    )
    archives = {
        path.stem: StoredArchive(Storage(str(path.parent)), path.name)
        for path in sorted(folder.glob("*.pmtiles"))
    }
    return archives, settings


@pytest.fixture(scope="module")
def page_url(town: Town) -> Iterator[str]:
    """The page of the town, served on loopback."""
    with MapServer(*town).running() as url:
        yield url


class Visit:
    """A page, what it asked for and what it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.hosts: Counter[str] = Counter()
        self.complaints: list[str] = []
        page.on("request", lambda request: self._count(request.url))
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _count(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"}:
            self.hosts[urlsplit(url).netloc] += 1

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "GL Driver Message" not in message.text:
            self.complaints.append(message.text)

    def open(self, view: str = "") -> None:
        # Another view of the same page alone would not load it again.
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}{view}")
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_selector("html[data-map=idle]", timeout=60_000)

    def switch(self, name: str, value: str) -> None:
        self.page.locator(f"label:has(input[name={name}][value='{value}'])").click()
        self.settle()

    def legend(self) -> list[tuple[int, int, int]]:
        """The colours of scores 0 to 10 as the legend shows them."""
        swatches = self.page.locator("#legend .swatch").all()
        texts = [s.evaluate("e => getComputedStyle(e).backgroundColor") for s in swatches]
        return [tuple(int(n) for n in text[4:-1].split(",")) for text in texts]  # type: ignore[misc]

    def picture(self, path: Path) -> Counter[int]:
        """Keep a picture of the whole page; gives pixels of the map by risk score."""
        self.page.screenshot(path=path)
        box = self.page.locator("#map").bounding_box()
        assert box is not None
        x, y = int(box["x"]), int(box["y"])
        part = imread(path)[y : y + int(box["height"]), x : x + int(box["width"]), :3]
        pixels = np.rint(part.reshape(-1, 3) * 255)
        seen: Counter[int] = Counter()
        for score, colour in enumerate(self.legend()):
            near = np.abs(pixels - np.array(colour)).max(axis=1) <= 2
            seen[score] = int(near.sum())
        return seen

    def colours(self, path: Path, percents: list[int]) -> dict[int, int]:
        """Pixels of the map in the colour of each percentage of tree cover."""
        self.page.screenshot(path=path)
        box = self.page.locator("#map").bounding_box()
        assert box is not None
        pixels = np.rint(imread(path)[:, int(box["x"]) :, :3].reshape(-1, 3) * 255)
        table = colour_table()
        return {
            percent: int((np.abs(pixels - table[percent][:3]).max(axis=1) <= 2).sum())
            for percent in percents
        }


@pytest.fixture
def visit(browser: Browser, page_url: str) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield Visit(context.new_page(), page_url)
    context.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("OCR_TEST_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_visitor_sees_and_reads_the_risk_of_buildings(visit: Visit, pictures: Path) -> None:
    visit.open()
    page = visit.page

    assert page.locator("#title").text_content() == "Wildfire risk of a small town"
    expect(page.locator("#notice")).to_contain_text("Synthetic data")
    expect(page.locator("#release")).to_have_text("qa · version 1.2.3")
    assert page.locator("#legend li").count() == 11
    colours = visit.picture(pictures / "buildings-2011.png")
    # Scores 0 to 9 have 90 buildings each, score 10 none.
    assert min(colours[score] for score in range(10)) > 1000
    assert colours[10] < 50

    lon, lat = _centre(*KNOWN)
    visit.open(f"#view=17/{lat}/{lon}")
    box = page.locator("#map").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.settle()
    details = page.locator("#details")
    expect(details).to_contain_text("Risk score 7 of 10 in 2011")
    expect(details.locator("[data-key='0']")).to_have_text("0.3")
    expect(details.locator("[data-key='1']")).to_have_text("0.7")
    before = visit.picture(pictures / "building-2011.png")

    visit.switch("view", "2047")
    expect(details).to_contain_text("Risk score 8 of 10 in 2047")
    after = visit.picture(pictures / "building-2047.png")
    assert after[8] == pytest.approx(before[7], rel=0.1)

    assert visit.complaints == []
    assert list(visit.hosts) == [urlsplit(visit.url).netloc]


def test_layers_can_be_switched_and_read_by_keyboard(visit: Visit, pictures: Path) -> None:
    visit.open()
    page = visit.page
    assert page.locator("input[name=layer]").count() == 3, "levels without data are not offered"

    visit.switch("layer", "counties")
    colours = visit.picture(pictures / "counties-2011.png")
    assert colours[4] > 100_000
    page.locator(".maplibregl-canvas").focus()
    page.keyboard.press("Enter")
    visit.settle()
    details = page.locator("#details")
    expect(details).to_contain_text("County: Boulder")
    expect(details).to_contain_text("Buildings: 900")
    expect(details).to_contain_text("08013")
    assert details.locator(".histogram li").count() == 11
    visit.picture(pictures / "county-2011.png")

    visit.switch("layer", "centroids")
    colours = visit.picture(pictures / "centroids-2011.png")
    # A building without risk has no centroid.
    assert colours[9] > 1000
    assert colours[0] < colours[9] / 10
    assert visit.complaints == []


HELD_FETCH = """
const fetchNow = globalThis.fetch;
globalThis.asked = globalThis.aborted = 0;
globalThis.held = [];
globalThis.fetch = async (address, options = {}) => {
  if (globalThis.holding) {
    await new Promise((proceed, fail) => {
      globalThis.held.push(proceed);
      options.signal?.addEventListener("abort", () => {
        globalThis.aborted += 1;
        fail(options.signal.reason);
      });
      globalThis.asked += 1;
    });
  }
  return fetchNow(address, options);
};
"""
"""No tile comes while they are held."""


def test_tiles_that_are_no_longer_wanted_are_not_an_error(visit: Visit) -> None:
    page = visit.page
    page.add_init_script(HELD_FETCH)
    visit.open()
    page.evaluate("globalThis.holding = true")
    lon, lat = _centre(*KNOWN)

    def look(zoom: int) -> None:
        before = page.evaluate("asked")
        page.evaluate(f"location.hash = '#view={zoom}/{lat}/{lon}'")
        wait_until("tiles to be asked for", lambda: page.evaluate("asked") > before)

    for zoom in (13, 12, 11, 10):
        look(zoom)
    wait_until("tiles to be no longer wanted", lambda: page.evaluate("aborted") > 0)
    page.evaluate("globalThis.holding = false; for (const proceed of held) proceed()")
    visit.settle()
    expect(page.locator("#problem")).to_be_hidden()
    assert visit.complaints == []


def test_a_connection_that_breaks_is_tried_again(visit: Visit) -> None:
    broken = set()

    def break_once(route: Route) -> None:
        # Only one request of each range fails.
        wanted = route.request.headers["range"]
        if wanted in broken:
            route.continue_()
        else:
            broken.add(wanted)
            route.abort("connectionreset")

    visit.page.route("**/*.pmtiles", break_once)
    visit.open()
    assert len(broken) > 3
    expect(visit.page.locator("#problem")).to_be_hidden()
    assert [text for text in visit.complaints if "ERR_CONNECTION_RESET" not in text] == []


def test_the_page_fits_a_phone(visit: Visit, pictures: Path) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.open()
    colours = visit.picture(pictures / "phone.png")
    assert colours[9] > 300
    width = visit.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    visit.page.screenshot(path=pictures / "phone-whole.png", full_page=True)


def test_the_page_finds_tiles_in_a_wide_archive_and_notices_a_new_one(
    browser: Browser, tmp_path: Path
) -> None:
    random, count = np.random.default_rng(7), 7000
    west, south = random.uniform((-120, 30), (-90, 48), (count, 2)).T
    boxes = shapely.box(west, south, west + 1e-4, south + 1e-4)
    values = {name: np.ones(count, np.float32) for name in FIRE.tiled}
    table = pa.table(values | {"geometry": wkb_array(boxes), "bbox": bbox_array(boxes)})
    write_geoparquet(table, tmp_path / "wide.parquet", {})
    archive = tmp_path / "building_centroids.pmtiles"
    zoom = building_centroid_tiles(FIRE, [tmp_path / "wide.parquet"], archive).max_zoom
    x, y = np.floor(position(west + 5e-5, south + 5e-5, zoom)).astype(int)

    settings = PageSettings(title="A wide archive", subject=page_subject(FIRE), environment="qa")
    with MapServer(
        {archive.stem: StoredArchive(Storage(str(archive.parent)), archive.name)}, settings
    ).running() as url:
        page = browser.new_page()
        page.goto(url)
        read = """async ([zoom, tiles]) => {
            const { Archive } = await import("/pmtiles.js");
            globalThis.archive = await new Archive("tiles/building_centroids.pmtiles").open();
            const found = [];
            for (const [x, y] of tiles) {
              found.push((await archive.tile(zoom, x, y))?.byteLength ?? 0);
            }
            return [archive.directories.size, found];
        }"""
        there = np.column_stack([x, y])[::70]
        leaves, found = page.evaluate(read, [zoom, there.tolist()])
        assert leaves > 1, "the archive has more tiles than its root directory holds"
        assert min(found) > 0
        full = set(zip(x.tolist(), y.tolist(), strict=True))
        empty = [(a, b + 1) for a, b in there.tolist() if (a, b + 1) not in full]
        assert len(empty) > 20
        assert set(page.evaluate(read, [zoom, empty])[1]) == {0}

        shutil.copy(archive, tmp_path / "new.pmtiles")
        (tmp_path / "new.pmtiles").replace(archive)
        again = page.evaluate(
            "async ([z, x, y]) => (await archive.tile(z, x, y)).byteLength",
            [zoom, *there[0].tolist()],
        )
        assert again == found[0]
        page.close()


def test_tree_cover_lies_below_and_can_be_chosen(
    browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    """With nothing else to see the mosaic is shown at once."""
    box = pixel_box(TileGrid.load(), Tile.parse("1947X1775Y"))
    cover = np.full(box.shape, 100, np.uint8)
    cover[:, : cover.shape[1] // 2] = 50
    write_tree_cover_cog(tmp_path / "2023" / "tree_cover.tif", cover, box, {})
    picture = TreeCoverPicture(Storage(str(tmp_path)), "2023/tree_cover.tif", 2023)
    settings = PageSettings(title="Tree cover", subject=page_subject(FIRE), environment="qa")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    with MapServer({}, settings, pictures={"tree-cover-2023": picture}).running() as url:
        visit = Visit(context.new_page(), url)
        visit.open()
        page = visit.page
        expect(page.locator("#picture-title")).to_have_text("Tree cover 2023")
        assert page.locator("#picture-legend li").count() == 5
        expect(page.locator("#layers-choice")).to_be_hidden()
        expect(page.locator("#score")).to_be_hidden()
        shown = visit.colours(pictures / "tree-cover.png", [50, 100])
        assert shown[50] == pytest.approx(shown[100], rel=0.05)
        assert shown[50] > 50_000
        visit.switch("picture", "none")
        expect(page.locator("#picture")).to_be_hidden()
        assert sum(visit.colours(pictures / "no-tree-cover.png", [50, 100]).values()) == 0
        assert visit.complaints == []
    context.close()


def test_tree_cover_is_offered_beside_vector_tiles(
    browser: Browser, town: Town, tmp_path: Path, pictures: Path
) -> None:
    """Nothing is seen of it until it is chosen, and then buildings are still above it."""
    edges = (WEST - 0.05, SOUTH - 0.05, WEST + 0.07, SOUTH + 0.07)
    box = PixelBox(*(round(edge * PIXELS_PER_DEGREE) for edge in edges))
    write_tree_cover_cog(tmp_path / "cover.tif", np.full(box.shape, 100, np.uint8), box, {})
    picture = TreeCoverPicture(Storage(str(tmp_path)), "cover.tif", 2023)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    with MapServer(*town, pictures={"tree-cover-2023": picture}).running() as url:
        visit = Visit(context.new_page(), url)
        visit.open()
        page = visit.page
        expect(page.locator("input[name=picture][value=none]")).to_be_checked()
        expect(page.locator("#picture")).to_be_hidden()
        before = visit.picture(pictures / "without-tree-cover.png")
        assert visit.colours(pictures / "without-tree-cover.png", [100]) == {100: 0}
        visit.switch("picture", "tree-cover-2023")
        expect(page.locator("#picture-title")).to_have_text("Tree cover 2023")
        after = visit.picture(pictures / "with-tree-cover.png")
        assert min(before[score] for score in range(10)) > 1000
        for score in range(10):
            assert after[score] == pytest.approx(before[score], rel=0.05)
        assert visit.colours(pictures / "with-tree-cover.png", [100])[100] > 50_000
        assert visit.complaints == []
    context.close()
