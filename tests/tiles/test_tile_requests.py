"""Requests that list tiles: every shape becomes a table, and nothing is dropped in silence."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_assets.tiles import request_lists
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.request_chunks import chunk_sizes, split_table
from ocr_assets.tiles.request_problems import ProblemKind, RequestError, shown, usable_year
from ocr_assets.tiles.request_rows import Request, write_tiles_csv
from ocr_assets.tiles.requests import next_year, read_request, request_box

GRID = TileGrid.load()
LATEST = 2026
A, B, C = "1035X727Y", "1000X871Y", "999X988Y"
HEADER = "Year,X,Y,Y_tile,X_tile"


def read(path: Path, content: Any, **options: Any) -> Request:
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_request(path, GRID, latest=LATEST, **options)


def rows(request: Request) -> list[tuple[int, str]]:
    return [(year, tile.key) for year, tile in request]


def told(request: Request) -> list[tuple[str, str, str, int]]:
    return [(one.kind, one.subject, one.where, one.count) for one in request.problems]


def text_of(request: Request) -> str:
    out = io.BytesIO()
    write_tiles_csv(request, GRID, out)
    return out.getvalue().decode()


def test_request_json(tmp_path: Path) -> None:
    request = read(
        tmp_path / "r.json",
        {
            "one": {
                "2023": {"missing_tiles": [A, f" {B}\n", A, "1X1Y"], "all_tiles": ["no", C]},
                "2021": {"missing_tiles": [C]},
                "2020": {"missing_tiles": []},
            },
            "two": {"2023": {"missing_tiles": [B, "1X1Y", "1035x727y", 7, None, ["x"]]}},
        },
    )
    assert rows(request) == [(2021, C), (2023, B), (2023, A)]
    assert told(request) == [
        ("not a tile id", "'1035x727y'", "project 'two', '2023'", 1),
        ("not a tile id", "'7'", "project 'two', '2023'", 1),
        ("not a tile id", "'None'", "project 'two', '2023'", 1),
        ("not a tile id", "'a list'", "project 'two', '2023'", 1),
        ("not in the grid", "1X1Y", "project 'one', '2023'", 2),
    ]
    assert (request.entries, request.repeated, request.lost) == (11, 2, 6)
    assert str(request.problems[-1]) == "project 'one', '2023': 1X1Y: not in the grid, 2 times"


def test_table_of_tiles_is_sorted_exact_and_comes_back(tmp_path: Path) -> None:
    request = read(tmp_path / "r.json", {"p": {"2024": {"missing_tiles": [A, C, B]}}})
    text = text_of(request)
    assert text == (
        f"{HEADER}\n"
        "2024,-54.5278,1.3611,988,999\n"
        "2024,-54.4722,-5.1389,871,1000\n"
        "2024,-52.5278,-13.1389,727,1035\n"
    )
    again = read(tmp_path / "t.csv", text)
    assert rows(again) == rows(request)
    assert text_of(again) == text


def test_centres_that_were_not_rounded_are_written_in_full() -> None:
    request = request_box((-54.46, 0.01, -54.45, 0.02), 2024, GRID, latest=LATEST)
    table = list(csv.DictReader(io.StringIO(text_of(request))))
    for row, (_, tile) in zip(table, request, strict=True):
        assert (float(row["X"]), float(row["Y"])) == GRID.centre(tile)


@pytest.mark.parametrize("content", [f"{HEADER}\n", {"p": {"2024": {"missing_tiles": []}}}])
def test_asking_for_nothing_in_due_form_is_no_error(tmp_path: Path, content: Any) -> None:
    request = read(tmp_path / "r", content)
    assert (len(request), request.entries, request.problems) == (0, 0, ())
    assert text_of(request) == f"{HEADER}\n"


@pytest.mark.parametrize(
    "years",
    [5, "2024", None, [A], {"2024": [A]}, {"2024": {"tiles": [A]}}, {"2024": {"missing_tiles": A}}],
    ids=repr,
)
def test_projects_of_another_form_are_told(tmp_path: Path, years: Any) -> None:
    request = read(tmp_path / "r.json", {"p": years, "q": {"2024": {"missing_tiles": [B]}}})
    assert rows(request) == [(2024, B)]
    (problem,) = request.problems
    assert problem.kind is ProblemKind.malformed
    assert problem.subject.startswith("project 'p'")
    assert "missing_tiles" in problem.reason
    assert (request.entries, request.lost) == (2, 1)


@pytest.mark.parametrize(
    "year",
    [
        "2014",
        "2027",
        "20245",
        "24",
        "",
        "year",
        "2024-05",
        "-2024",
        "\uff12\uff10\uff12\uff14",
        "2024; --",
    ],
)
def test_unusable_years_are_told_with_what_they_cost(tmp_path: Path, year: str) -> None:
    request = read(tmp_path / "r.json", {"p": {year: {"missing_tiles": [A, B]}}})
    assert rows(request) == []
    assert told(request) == [("not a usable year", shown(year), f"project 'p', {shown(year)}", 2)]
    assert request.problems[0].reason == "years are 2015 to 2026"


def test_years() -> None:
    assert [usable_year(value, 2030) for value in (2024, "2024", 2024.0, " 2024 ", "2024.0")] == [
        2024
    ] * 5
    for value in (True, None, [2024], 2024.5, "2041", float("nan"), "2024-05-01"):
        assert usable_year(value, 2999) is None
    for date in ("2021", "2021-05", "2021-05-01", "2021-05-01T10:00:00Z", "2021-05-01 00:00:00+00"):
        assert usable_year(date, 2030, date=True) == 2021
    for date in ("2021-5", "May 2021", "2021-05-01; drop", "20210501"):
        assert usable_year(date, 2030, date=True) is None
    assert 2026 <= next_year() <= 2040


def test_failed_jobs(tmp_path: Path) -> None:
    request = read(
        tmp_path / "failed.json",
        [
            {"job_id": "a", "tile_info": {"year": 2024, "X_tile": 1035, "Y_tile": 727, "lon": 1}},
            {"tile_info": {"Year": "2023", "X_tile": "1000", "Y_tile": 871.0}},
            {"tile_info": {"year": 2024, "X_tile": 1035, "Y_tile": 727}},
            {"tile_info": {"year": 2024, "X_tile": 5, "Y_tile": 5}},
            {"tile_info": {"year": 2024, "X_tile": "5 OR 1", "Y_tile": True}},
            {"tile_info": {"X_tile": 1035, "Y_tile": 727}},
            {"tile_info": [1]},
            "x",
        ],
    )
    assert rows(request) == [(2023, B), (2024, A)]
    assert told(request) == [
        ("not a tile id", "'5 OR 1', 'True'", "entry 4", 1),
        ("not in the grid", "5X5Y", "entry 3", 1),
        ("not a usable year", "'None'", "entry 5", 1),
        ("not of the right form", "entry 6", str(tmp_path / "failed.json"), 1),
        ("not of the right form", "entry 7", str(tmp_path / "failed.json"), 1),
    ]
    assert (request.entries, request.repeated, request.lost) == (8, 1, 5)


def test_table_with_problems_in_places(tmp_path: Path) -> None:
    lines = [
        "X_tile , Year,Y_tile,note,X,Y",
        "1035,2024,727,a,-52.5278,-13.1389",
        "",
        "1035.0,2024.0,727.0,float,,",
        '1000,2023,871,"two\nlines",-54.4722,-5.1389',
        "999,2023,988",
        "999,1999,988,early,,",
        "0x3E7,2023,988,hex,,",
        "5,2023,5,sea,1,1",
        "999,2023,988,elsewhere,10.5,1.3611",
        "999,2023,988,words,x,1.3611",
    ]
    request = read(tmp_path / "t.csv", "\ufeff" + "\r\n".join(lines))
    assert rows(request) == [(2023, B), (2024, A)]
    assert told(request) == [
        ("not a tile id", "'0x3E7', '988'", "line 9", 1),
        ("not in the grid", "5X5Y", "line 10", 1),
        ("not where the grid has it", C, "line 11", 1),
        ("not where the grid has it", C, "line 12", 1),
        ("not a usable year", "'1999'", "line 8", 1),
        ("not of the right form", "line 7", str(tmp_path / "t.csv"), 1),
    ]
    assert (request.entries, request.repeated, request.lost) == (9, 1, 6)


def test_small_batches_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [tile for _, tile in request_box((-55, -10, -54, -9), 2024, GRID, latest=LATEST)]
    lines = [f"2024,{tile.y},{tile.x}" for tile in tiles] + ["2024,5,5", "x,1,1", "2024,1,2"]
    text = "\n".join(["Year,Y_tile,X_tile", *lines])
    whole = read(tmp_path / "t.csv", text)
    monkeypatch.setattr(request_lists, "_BATCH", 7)
    parts = read(tmp_path / "t.csv", text)
    assert rows(parts) == rows(whole) == [(2024, tile.key) for tile in tiles]
    assert told(parts) == told(whole)
    assert [one[2] for one in told(whole)] == [
        f"line {len(tiles) + 2}",
        f"line {len(tiles) + 4}",
        f"line {len(tiles) + 3}",
    ]


ENTRIES = st.sampled_from([A, B, C, f" {A} ", "1X1Y", "9X9Y", "a", "", "2X2Yz", 5, None, True])
YEARS = st.sampled_from(["2015", "2024", "2026", "2027", "soon"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=5), st.dictionaries(YEARS, st.lists(ENTRIES, max_size=8)), min_size=1
    )
)
def test_entries_in_are_rows_out_and_problems(
    tmp_path: Path, asked: dict[str, dict[str, list[Any]]]
) -> None:
    document = {
        project: {year: {"missing_tiles": tiles} for year, tiles in years.items()}
        for project, years in asked.items()
    }
    request = read(tmp_path / "r.json", document)
    assert request.entries == len(request) + request.repeated + request.lost
    wanted = {
        (int(year), Tile.parse(tile).key)
        for years in asked.values()
        for year, tiles in years.items()
        for tile in tiles
        if year in ("2015", "2024", "2026") and isinstance(tile, str) and tile.strip() in (A, B, C)
    }
    assert set(rows(request)) == wanted
    assert rows(request) == [
        (year, tile.key) for year, tile in sorted((year, Tile.parse(key)) for year, key in wanted)
    ]
    assert all(times == 1 for times in Counter(problem[:2] for problem in told(request)).values())


BROKEN: dict[str, tuple[Any, str]] = {
    "nothing": ("", "is empty: it asks for nothing"),
    "blanks": ("\ufeff \n\n", "is empty: it asks for nothing"),
    "no projects": ({}, "is an empty object"),
    "no jobs": ([], "is an empty list"),
    "bare id": (
        '{"p": {\n  "2024": {"missing_tiles": [1X1Y]}}}',
        "is not JSON: Expecting ',' delimiter at line 2, column 31",
    ),
    "cut": ('{"p": {"2024": ', "is not JSON: Expecting value at line 1, column 16"),
    "key twice": (
        '{"p": {"2024": {"missing_tiles": ["1X1Y"]}, "2024": {"missing_tiles": []}}}',
        "an object has the key '2024' more than once",
    ),
    "nested": ("[" * 100_000, "nested too deeply"),
    "digits": (f'{{"p": {"9" * 5000}}}', "is not a request: Exceeds the limit"),
    "latin": (b'{"p": "\xe9"}', "is not UTF-8 text: byte 7"),
    "other columns": ("a,b\n1,2\n", "has the columns 'a', 'b'; a table of tiles has Year,"),
    "no year": ("X_tile,Y_tile\n1,2\n", "has no column Year"),
    "column twice": ("X_tile,X_tile,Year,Y_tile\n", "two columns have the same name"),
    "quote": ('Year,X_tile,Y_tile\n2024,"1,1\n', "is no CSV of UTF-8 text: line "),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "is no CSV of UTF-8 text"),
    "markup": ("<OGRVRTDataSource/>", "has the columns"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_one_clear_error(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    with pytest.raises(RequestError, match=message) as caught:
        read(tmp_path / "request", content)
    assert str(tmp_path / "request") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_lists, "LARGEST_JSON", 10)
    monkeypatch.setattr(request_lists, "LARGEST_CSV", 10)
    for content in ({"project": {}}, f"{HEADER}\n"):
        with pytest.raises(RequestError, match="is larger than 10 bytes"):
            read(tmp_path / "r", content)


@pytest.mark.parametrize("options", [{"year": 2024}, {"from_plantstart": True}], ids=str)
def test_a_list_has_its_own_years(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="names its years itself"):
        read(tmp_path / "r.json", {"p": {"2024": {"missing_tiles": [A]}}}, **options)


def test_foreign_text_is_shown_safely() -> None:
    assert shown("a\x1b[31mred\n") == r"'a\x1b[31mred\n'"
    assert shown("\ud800") == r"'\ud800'"
    assert shown("é") == "'é'"
    assert shown("x" * 100) == repr("x" * 60 + "…")
    assert shown({"a": 1}) == "'a dict'"


def test_boxes() -> None:
    inside = request_box((-52.53, -13.14, -52.52, -13.13), 2024, GRID, latest=LATEST)
    assert rows(inside) == [(2024, A)]
    fiji = request_box((179.0, -17.0, -179.0, -16.0), 2024, GRID, latest=LATEST)
    east = request_box((179.0, -17.0, 180.0, -16.0), 2024, GRID, latest=LATEST)
    assert len(fiji) > 50
    assert set(rows(east)) <= set(rows(fiji))
    sea = request_box((-30, -10, -29, -9), 2024, GRID, latest=LATEST)
    assert told(sea) == [("touches no tile", "the box", "the box", 1)]
    assert "from -54.78 to 53.94 degrees" in sea.problems[0].reason


@pytest.mark.parametrize(
    "box",
    [
        (0, 10, 1, 5),
        (0, 0, 0, 1),
        (-181, 0, 1, 1),
        (0, 0, 1, 91),
        (float("nan"), 0, 1, 1),
        (0, 0, float("inf"), 1),
    ],
    ids=str,
)
def test_no_box(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(RequestError, match="is no box of west, south, east, north"):
        request_box(box, 2024, GRID, latest=LATEST)


def test_a_box_in_no_year() -> None:
    with pytest.raises(RequestError, match="2014 is not a usable year: years are 2015 to 2026"):
        request_box((0, 0, 1, 1), 2014, GRID, latest=LATEST)


def table_of(count: int) -> str:
    return "".join([f"{HEADER}\r\n", *(f"2024,0,0,{row},7\r\n" for row in range(count))])


def test_chunks_double(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table_of(1000), newline="")
    chunks = list(split_table(path))
    assert [chunk.count("\n") - 1 for chunk in chunks] == [100, 200, 400, 300]
    assert all(chunk.startswith(f"{HEADER}\r\n") for chunk in chunks)
    assert table_of(1000) == chunks[0] + "".join(
        chunk.removeprefix(f"{HEADER}\r\n") for chunk in chunks[1:]
    )


def test_chunks_of_sizes_that_were_given(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('Year,X_tile,note\n1,2,"a\nb"\n\n3,4,c\n5,6,"d"', newline="")
    assert list(split_table(path, [2])) == [
        'Year,X_tile,note\n1,2,"a\nb"\n3,4,c\n',
        'Year,X_tile,note\n5,6,"d"\n',
    ]
    sizes = chunk_sizes([5, 3])
    assert [next(sizes) for _ in range(4)] == [5, 3, 3, 3]


@pytest.mark.parametrize(
    ("content", "sizes", "message"),
    [
        ("", (), "does not begin with the header"),
        ("2024,1,2\n", (), "does not begin with the header"),
        (f"{HEADER}\n", (), "there is nothing to split"),
        (f"{HEADER}\n1,2,3,4,5\n", (3, 0), "0 is not a number of lines"),
        (f'{HEADER}\n1,2,3,4,"5\n', (), "is no CSV of UTF-8 text"),
    ],
    ids=range(5),
)
def test_what_cannot_be_split(
    tmp_path: Path, content: str, sizes: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(RequestError, match=message):
        list(split_table(path, sizes))
