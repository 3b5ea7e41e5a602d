"""Tiles by command: plan, run, reports, retry, store checks, and answers from what was made."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from sample_worlds import Outcome

from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tiles.grid import Tile, TileGrid
from resources.storage import Storage

ONE, OTHER = DEFAULT_TILES
FAR = "1035X727Y"


@dataclass
class Work:
    """A folder with requests, over the sample imagery, and the command."""

    folder: Path
    imagery: Path
    ocr: Callable[..., Outcome]

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        sources = ("ELEVATION", "SENTINEL1", "SENTINEL2")
        places = {f"OCR_{source}_SOURCE": str(self.imagery) for source in sources}
        return self.ocr("tiles", *arguments, OCR_TILES_PER_RUN="1", **places, **variables)

    def request(self, *tiles: str) -> str:
        path = self.folder / f"request{len(tiles)}.json"
        path.write_text(json.dumps({"project": {"2023": {"missing_tiles": list(tiles)}}}))
        return str(path)


@pytest.fixture
def work(ocr: Callable[..., Outcome], sample_imagery: Path, tmp_path: Path) -> Work:
    """Nothing is made yet; the imagery may be changed."""
    imagery = tmp_path / "imagery"
    shutil.copytree(sample_imagery, imagery)
    return Work(tmp_path, imagery, ocr)


def totals(work: Work, request: str) -> dict[str, dict[str, int]]:
    shown = work("status", request, "--json")
    assert shown.status == 0, shown.err
    return json.loads(shown.out)["totals"]


def damaged_scene(work: Work) -> Path:
    """A file of an optical scene without clouds."""
    scenes = json.loads((work.imagery / "sentinel-2-l2a.json").read_text())["features"]
    asset = scenes[0]["assets"]["red"]["href"]
    return work.imagery / asset


def test_from_plan_to_answers(work: Work, finished_tiles: Path) -> None:
    request = work.request(ONE)
    planned = work("run", request, "--dry-run")
    assert planned.status == 0, planned.err
    assert [line.split()[:3] for line in planned.out.splitlines() if "tree_cover" in line] == [
        ["tree_cover", "1", "1"]
    ]
    unconfirmed = work("run", request)
    assert (unconfirmed.status, "give --yes" in unconfirmed.err) == (5, True)
    assert totals(work, request)["elevation"]["missing"] == 1

    reports = work.folder / "reports"
    scene = damaged_scene(work)
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 3])
    run = ("run", request, "--yes", "--retries", "0", "--report-dir", str(reports), "--plot")
    broken = work(*run)
    assert broken.status == 1, broken.err
    said = " ".join(broken.err.split())
    assert f"cannot be read: {scene} is damaged or no GeoTIFF" in said
    assert "its analysis-ready data is not complete" in broken.err
    state = totals(work, request)
    assert state["elevation"]["success"] == state["sentinel1"]["success"] == 1
    assert state["sentinel2"]["failed"] == 1
    assert state["tree_cover"]["missing"] == 1

    (failures,) = reports.glob("failed_jobs_*.json")
    again = work("resolve", str(failures))
    assert again.status == 0, again.err
    assert [line.split(",")[0] for line in again.out.splitlines()] == ["Year", "2023"]
    (summary,) = reports.glob("job_summary_*.csv")
    rows = list(csv.DictReader(io.StringIO(summary.read_text())))
    assert len(rows) == 4
    assert {row["task_type"] for row in rows if row["status"] == "failed"} == {"sentinel2"}
    made = next(row for row in rows if row["task_type"] == "sentinel1")
    assert float(made["duration_sec"]) > 0
    assert {made["lon"], made["lat"]} == {
        str(value)
        for value in TileGrid.load().centre(Tile(int(made["X_tile"]), int(made["Y_tile"])))
    }
    pictures = sorted(path.name.partition("_")[0] for path in (reports / "plots").iterdir())
    assert pictures == ["durations", "timeline"]

    scene.write_bytes(whole)
    mended = work("retry", request)
    assert mended.status == 0, mended.err
    assert totals(work, request)["sentinel2"]["failed"] == 0
    assert work("retry", request).status == 6
    finished = work("run", request, "--yes")
    assert finished.status == 0, finished.err
    cover = totals(work, request)["tree_cover"]
    assert cover["success"] + cover["partial"] == 1
    nothing = work("run", request, "--yes")
    assert (nothing.status, "nothing to do" in nothing.err) == (6, True)
    # Radar of another orbit: tree cover is of the old one until both are made.
    orbit = work("run", request, "--dry-run", OCR_SENTINEL1_ORBIT="descending")
    rows = [line.split()[:3] for line in orbit.out.splitlines() if line.split()[1:2] == ["1"]]
    assert rows == [
        ["elevation", "1", "0"],
        ["sentinel1", "1", "1"],
        ["sentinel2", "1", "0"],
        ["tree_cover", "1", "1"],
    ]

    wider = work.request(ONE, FAR)
    checked = work("check", wider, "--check-type", "predictions", "--exit-on-missing", "--json")
    assert checked.status == 10
    assert json.loads(checked.out)["missing"] == {"tree_cover": 1}
    rest = work.folder / "rest.csv"
    assert work("missing", wider, "-o", str(rest)).status == 0
    assert [line.split(",")[3:] for line in rest.read_text().splitlines()] == [
        ["Y_tile", "X_tile"],
        ["727", "1035"],
    ]

    # The neighbour is of another maker.
    tile = Tile.parse(OTHER)
    name = f"qa/tiles/2023/tiles/{tile.x}/{tile.y}/{OTHER}_FINAL.tif"
    place = work.folder / "root" / name
    place.parent.mkdir(parents=True)
    shutil.copy(finished_tiles / "root" / name, place)
    _answers(work)


def _answers(work: Work) -> None:
    grid = TileGrid.load()
    west, south, _, north = grid.bbox(Tile.parse(ONE))
    east = grid.bbox(Tile.parse(OTHER))[2]
    across = shapely.box(
        (west + east) / 2 - 0.01, south + 0.02, (west + east) / 2 + 0.01, north - 0.02
    )
    away = shapely.box(east + 1, south, east + 1.01, north)
    features = [
        {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(shape))}
        for shape in (across, away)
    ]
    sites = work.folder / "sites.geojson"
    sites.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    answer = work.folder / "answer.parquet"
    stats = work("stats", str(sites), "--year", "2023", "-o", str(answer), "--json")
    assert stats.status == 1, stats.err
    figures = json.loads(stats.out)
    assert figures["rows"] == 2
    assert len(figures["missing tiles"]) >= 1
    table = pq.read_table(answer).to_pylist()
    assert 0 <= table[0]["tree_cover"] <= 100
    assert table[1]["tree_cover"] is None

    mosaic = work.folder / "mosaic.tif"
    assert work("mosaic", "--year", "2023", "-o", str(mosaic)).status == 0
    with rasterio.open(mosaic) as raster:
        assert raster.bounds.left == pytest.approx(west, abs=2e-4)
        assert raster.bounds.right == pytest.approx(east, abs=2e-4)
        values = np.unique(raster.read(1))
    assert set(values.tolist()) <= {*range(101), 255}
    kept = work("mosaic", "--year", "2023")
    assert (kept.status, "tiles/2023/tree_cover.tif" in kept.err) == (0, True)
    for source, of_year in (("tree_cover", ("--year", "2023")), ("elevation", ())):
        picture, other = work.folder / f"{source}.png", work.folder / f"other_{source}.png"
        picture.write_bytes(b"what was there")
        other.hardlink_to(picture)
        done = work("preview", ONE, "--source", source, *of_year, "-o", str(picture))
        assert done.status == 0, done.err
        assert picture.read_bytes().startswith(b"\x89PNG")
        # It is replaced as a whole, never written over.
        assert other.read_bytes() == b"what was there"


def test_buckets_work_like_folders(
    work: Work, s3_bucket: Storage, finished_tiles: Path, tmp_path: Path
) -> None:
    """Every address of every command; tree cover was put there by another maker."""
    endpoint = str(s3_bucket.s3.endpoint_url)
    ocr = partial(work, OCR_S3_ENDPOINT_URL=endpoint, OCR_MODELS_ROOT=str(tmp_path / "models"))
    asked = s3_bucket.uri("in/request.json")
    s3_bucket.put_file("in/request.json", Path(work.request(ONE)))
    to = ("--dest", s3_bucket.uri("some/prefix"))
    make = ("run", asked, *to, "--sources", "elevation", "--mem", "2048", "--yes")
    made = ocr(*make, "--report-dir", s3_bucket.uri("reports"), "--plot")
    assert made.status == 0, made.err
    # Nine seconds at two gigabytes.
    assert next(line.split() for line in made.out.splitlines() if "elevation" in line)[:4] == [
        *("elevation", "1", "1", "0.0003")
    ]
    tile = Tile.parse(ONE)
    terrain = f"some/prefix/raw/{tile.x}/{tile.y}/raw/misc/dem_{ONE}.tif"
    assert {info.key for info in s3_bucket.list("some/prefix")} == {
        terrain,
        f"{terrain}.lineage.json",
    }
    assert {info.key.partition("_")[0] for info in s3_bucket.list("reports")} == {
        *("reports/job", "reports/failed", "reports/plots/timeline", "reports/plots/durations")
    }
    assert ocr(*make).status == 6
    before = s3_bucket.head(terrain)
    again = ocr(*make, "--overwrite", "--dry-run")
    assert (again.status, s3_bucket.head(terrain)) == (0, before)
    assert ocr(*make, "--overwrite", "--retries", "1").status == 0

    name = f"2023/tiles/{tile.x}/{tile.y}/{ONE}_FINAL.tif"
    s3_bucket.put_file(f"some/prefix/{name}", finished_tiles / "root" / "qa" / "tiles" / name)
    mosaic = s3_bucket.uri("out/cover.vrt")
    for arguments in (
        ("mosaic", "--year", "2023", "-o", mosaic),
        ("mosaic", "--year", "2023", "-o", s3_bucket.uri("out/cover.tif")),
        ("preview", ONE, "--year", "2023", "-o", s3_bucket.uri("out/cover.png")),
        ("missing", asked, "--sources", "elevation", "-o", s3_bucket.uri("out/rest.csv")),
    ):
        done = ocr(*arguments, *to)
        assert done.status == 0, done.err
    assert (
        f"/vsis3/{s3_bucket.root[5:]}/some/prefix/{name}"
        in s3_bucket.read_bytes("out/cover.vrt").decode()
    )
    assert s3_bucket.read_bytes("out/cover.tif").startswith(b"II")
    assert s3_bucket.read_bytes("out/cover.png").startswith(b"\x89PNG")
    assert s3_bucket.read_bytes("out/rest.csv") == b"Year,X,Y,Y_tile,X_tile\n"
    away = ocr(
        "mosaic", "--year", "2023", "-o", mosaic, "--dest", str(finished_tiles / "root/qa/tiles")
    )
    assert (away.status, "would point to files of this machine" in away.err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("run", "no.json"), 3, "no.json"),
        (("run", "{request}", "--sources", "landsat"), 3, "'landsat' is no source"),
        (("run", "{request}", "--sources", ","), 3, "--sources names none"),
        (("stats", "no.gpkg", "--year", "2023"), 3, "no.gpkg"),
        (("mosaic", "--year", "2023", "-o", "out.png"), 2, "neither with .tif nor with .vrt"),
        (("mosaic", "--year", "2023", "--tiles", "a.csv"), 2, "--tiles goes with --output"),
        (("mosaic", "--year", "2014"), 2, "Invalid value for '--year'"),
        (("mosaic", "--year", "2023"), 3, "there are no tiles to make a mosaic of"),
        (("mosaic", "--year", "2023", "-o", "out.tif"), 3, "there are no tiles of 2023"),
        (("preview", "1X1Y", "--year", "2023"), 3, "1X1Y"),
        (("preview", "nowhere"), 3, "nowhere"),
        (("preview", ONE), 3, "goes with --year"),
        (("preview", ONE, "--year", "2023"), 3, "materialize tree_cover first"),
        (("check", "{request}", "--check-type", "all"), 2, "not raw_ard or predictions"),
    ],
)
def test_bad_input_is_told(
    work: Work, arguments: tuple[str, ...], status: int, message: str
) -> None:
    request = work.request(ONE)
    done = work(*(part.format(request=request) for part in arguments))
    assert done.status == status, done.err
    assert message in " ".join(done.err.split())
