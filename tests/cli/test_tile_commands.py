"""`ocr tiles`: requests become tables, with exit statuses that scripts can rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sample_worlds import Outcome

from resources.storage import Storage

Ocr = Callable[..., Outcome]
A, B = "1035X727Y", "1000X871Y"
HEADER = "Year,X,Y,Y_tile,X_tile\n"
TABLE = f"{HEADER}2023,-54.4722,-5.1389,871,1000\n2024,-52.5278,-13.1389,727,1035\n"


def request(folder: Path, *tiles: str) -> str:
    path = folder / "request.json"
    path.write_text(
        json.dumps({"p": {"2024": {"missing_tiles": [A, *tiles]}, "2023": {"missing_tiles": [B]}}})
    )
    return str(path)


def test_resolve_writes_the_table(ocr: Ocr, tmp_path: Path) -> None:
    done = ocr("tiles", "resolve", request(tmp_path), "-o", str(tmp_path / "new" / "t.csv"))
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "new" / "t.csv").read_text() == TABLE
    assert done.err.startswith("2 tiles of 2023 to 2024 from 2 entries: ")

    again = ocr("tiles", "resolve", str(tmp_path / "new" / "t.csv"))
    assert (again.status, again.out) == (0, TABLE)


def test_resolve_tells_each_problem_once_and_keeps_the_rest(ocr: Ocr, tmp_path: Path) -> None:
    asked = request(tmp_path, "5X5Y", "[/red]\x1b[2J", "5X5Y", A)
    done = ocr("tiles", "resolve", asked)
    assert (done.status, done.out) == (1, TABLE)
    assert done.err.splitlines() == [
        r"left out: project 'p', '2024': '[/red]\x1b[2J': not a tile id",
        "left out: project 'p', '2024': 5X5Y: not in the grid, 2 times",
        "2 tiles of 2023 to 2024 from 6 entries, 3 entries left out",
    ]
    told = ocr("tiles", "resolve", asked, "--json")
    assert (told.status, told.err) == (1, "")
    document = json.loads(told.out)
    assert document["rows"] == [{"year": 2023, "tile": B}, {"year": 2024, "tile": A}]
    assert {key: document[key] for key in ("tiles", "years", "entries", "repeated", "lost")} == {
        "tiles": 2,
        "years": {"2023": 1, "2024": 1},
        "entries": 6,
        "repeated": 1,
        "lost": 3,
    }
    assert document["problems"][1] == {
        "kind": "not in the grid",
        "subject": "5X5Y",
        "where": "project 'p', '2024'",
        "count": 2,
        "reason": "",
        "lost": True,
    }


def test_many_problems_are_cut_short_on_the_screen_only(ocr: Ocr, tmp_path: Path) -> None:
    asked = request(tmp_path, *(f"{number}Y" for number in range(30)))
    done = ocr("tiles", "resolve", asked, "-o", str(tmp_path / "t.csv"))
    lines = done.err.splitlines()
    assert (done.status, len(lines)) == (1, 22)
    assert lines[20] == "and 10 more problems: --json tells all of them"
    assert len(json.loads(ocr("tiles", "resolve", asked, "--json").out)["problems"]) == 30


def test_resolve_a_box_and_polygons(ocr: Ocr, tmp_path: Path) -> None:
    box = "-52.53,-13.14,-52.52,-13.13"
    done = ocr("tiles", "resolve", "--bbox", box, "--year", "2024")
    expected = f"{HEADER}2024,-52.5278,-13.1389,727,1035\n"
    assert (done.status, done.out) == (0, expected)

    ring = [[-52.53, -13.14], [-52.52, -13.14], [-52.52, -13.13], [-52.53, -13.14]]
    path = tmp_path / "sites.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "Feature",
                "properties": {"plantstart_year": 2025, "project_id": "p"},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    )
    done = ocr("tiles", "resolve", str(path), "--year-from-plantstart")
    assert (done.status, done.out) == (0, expected)
    projects = tmp_path / "projects.csv"
    projects.write_text("project_id,plantstart_year\np,2025\n")
    done = ocr("tiles", "resolve", str(projects), "--polygons", str(path))
    assert (done.status, done.out) == (0, expected)


def test_buckets_work_like_folders(ocr: Ocr, tmp_path: Path, s3_bucket: Storage) -> None:
    s3_bucket.write_bytes("in/request.json", Path(request(tmp_path)).read_bytes())
    endpoint = {"OCR_S3_ENDPOINT_URL": s3_bucket.s3.endpoint_url or ""}
    asked, table = s3_bucket.uri("in/request.json"), s3_bucket.uri("out/t.csv")
    assert ocr("tiles", "resolve", asked, "-o", table, **endpoint).status == 0
    assert s3_bucket.read_bytes("out/t.csv").decode() == TABLE
    done = ocr("tiles", "split", table, "--chunk-size", "1", "--json", **endpoint)
    assert [chunk["path"] for chunk in json.loads(done.out)] == [
        s3_bucket.uri("out/t_0001.csv"),
        s3_bucket.uri("out/t_0002.csv"),
    ]
    assert s3_bucket.read_bytes("out/t_0002.csv").decode() == HEADER + TABLE.splitlines()[2] + "\n"
    done = ocr("tiles", "resolve", s3_bucket.uri("in/sites.shp"), "--year", "2024", **endpoint)
    assert (done.status, "copy all of them here" in done.err) == (3, True)
    done = ocr("tiles", "resolve", s3_bucket.uri("in/none.json"), **endpoint)
    assert (done.status, "there is no object at" in done.err) == (3, True)


@pytest.mark.parametrize("command", ["resolve", "validate", "cost", "split"])
@pytest.mark.parametrize("content", [None, '{"p": {\n"2024": }}'], ids=["absent", "malformed"])
def test_input_that_cannot_be_used_ends_with_status_3(
    ocr: Ocr, tmp_path: Path, command: str, content: str | None
) -> None:
    path = tmp_path / "request.json"
    if content is not None:
        path.write_text(content)
    done = ocr("tiles", command, str(path))
    assert (done.status, done.out) == (3, "")
    (line,) = done.err.splitlines()
    assert line.startswith("ocr: ")
    assert str(path) in line
    if content is not None and command != "split":
        assert line.endswith("is not JSON: Expecting value at line 2, column 9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resolve"], "give a request or --bbox"),
        (["resolve", "x.json", "--bbox", "1,2,3,4"], "give a request or --bbox"),
        (["resolve", "--bbox", "1,2,3,4"], "--bbox goes with --year"),
        (["resolve", "--bbox", "1,2,3", "--year", "2024"], "is not WEST,SOUTH,EAST,NORTH"),
        (["resolve", "--bbox", "1,2,3,x", "--year", "2024"], "is not numbers joined by commas"),
        (["split", "t.csv", "--chunk-size", "many"], "is not numbers joined by commas"),
        (["cost", "t.csv", "--mem", "0"], "greater than or equal to 1"),
    ],
    ids=range(7),
)
def test_wrong_usage(ocr: Ocr, arguments: list[str], message: str) -> None:
    done = ocr("tiles", *arguments)
    assert done.status == 2
    assert message in " ".join(done.err.split())


def test_validate(ocr: Ocr, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{TABLE}2024,-54.4722,-5.1389,871,1000\n")
    done = ocr("tiles", "validate", str(path))
    assert done.status == 0
    facts = dict(
        line.strip().rsplit("  ", 1) for line in done.out.splitlines() if "  " in line.strip()
    )
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert facts == {
        "what": "amount",
        "rows": "3",
        "tiles of years": "3",
        "tiles": "2",
        "years": "2023 to 2024",
        "longitude": "-54.4722 to -52.5278",
        "latitude": "-13.1389 to -5.1389",
        "duplicates": "0",
        "left out": "0",
    }
    path.write_text(f"{TABLE}2024,-52.5278,-13.1389,727,1035\n2024,,,5,5\n")
    done = ocr("tiles", "validate", str(path), "--json")
    document = json.loads(done.out)
    assert done.status == 1
    assert (document["entries"], document["repeated"], document["lost"]) == (4, 1, 1)
    assert (document["unique_tiles"], document["latitude"]) == (2, [-13.1389, -5.1389])
    path.write_text(HEADER)
    assert ocr("tiles", "validate", str(path)).status == 0


def test_duplicates_alone_are_partial(ocr: Ocr, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{TABLE}{TABLE.splitlines()[1]}\n")
    assert ocr("tiles", "validate", str(path)).status == 1


def test_split(ocr: Ocr, tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    lines = [f"2024,,,{row},1035\n" for row in range(400)]
    path.write_text("".join(["Year,X,Y,Y_tile,X_tile\n", *lines]))
    done = ocr("tiles", "split", str(path))
    assert done.status == 0
    chunks = sorted(tmp_path.glob("big_*.csv"))
    assert [chunk.name for chunk in chunks] == ["big_0001.csv", "big_0002.csv", "big_0003.csv"]
    texts = [chunk.read_text().splitlines(keepends=True) for chunk in chunks]
    assert [len(text) - 1 for text in texts] == [100, 200, 100]
    assert [line for text in texts for line in text[1:]] == lines
    # Chunks of another split would be taken for chunks of this one.
    done = ocr("tiles", "split", str(path), "--chunk-size", "300")
    assert done.status == 3
    assert "big_0003.csv is a chunk of an earlier split" in done.err
    done = ocr("tiles", "split", str(path), "--chunk-size", "300", "-o", str(tmp_path / "other"))
    assert (done.status, len(list((tmp_path / "other").iterdir()))) == (0, 2)


def materialize(home: str, source: str, **metadata: Any) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(source, partition="1035X727Y|2024", metadata=metadata)
        )


def test_cost(ocr: Ocr, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{TABLE}2024,-54.4722,-5.1389,871,1000\n")
    done = ocr("tiles", "cost", str(path))
    assert done.status == 0
    assert "this instance has not made any tile yet" in done.err
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}
    assert rows["sentinel2"] == ["3", "62.00", "4096", "0.05", "0.0124"]
    assert rows["all"] == ["0.07", "0.0170"]
    document = json.loads(ocr("tiles", "cost", str(path), "--include-predict", "--json").out)
    assert document["published"]["dollars"] == pytest.approx(3 * (0.0056678 + 0.0180036))
    assert document["measured"] == {"sources": [], "hours": 0, "dollars": 0}
    unknown = ocr("tiles", "cost", str(path), "--sources", "landsat")
    assert (unknown.status, "unknown source 'landsat'" in unknown.err) == (3, True)


def test_cost_by_what_was_measured_here(ocr: Ocr, world: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{TABLE}2024,-54.4722,-5.1389,871,1000\n")
    home = str(world.folder / "home")
    for seconds in (2.0, 4.0):
        materialize(home, "elevation", seconds=seconds)
    materialize(home, "elevation", seconds=0.0, skipped=True)
    materialize(home, "sentinel1", note="no time")
    document = json.loads(ocr("tiles", "cost", str(path), "--mem", "2048", "--json").out)
    (elevation,) = document["measured"]["sources"]
    # Three tiles of years are two tiles, and elevation does not change with the year.
    assert (elevation["tiles"], elevation["seconds"], elevation["measured"]) == (2, 3.0, 2)
    assert elevation["dollars"] == pytest.approx(2 * 3 * 2 * 0.00001667)
    shown = ocr("tiles", "cost", str(path))
    assert "By what was measured on this instance" in shown.out
