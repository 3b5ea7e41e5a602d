"""Reports about work on tiles: figures, a request of what failed, text and pictures."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from PIL import Image

from ocr_assets.tiles.grid import Tile
from ocr_assets.tiles.reports import (
    TileTask,
    duration_png,
    failed_json,
    report_json,
    report_text,
    summary_csv,
    timeline_png,
    totals,
)

A, B = Tile(1035, 727), Tile(1000, 871)
START = 1_700_000_000.0
TASKS = [
    TileTask("elevation", A, None, "success", 9.0, START + 10),
    TileTask("elevation", B, None, "failed", ended=START + 20, error="HTTP 500,\n twice"),
    TileTask("sentinel2", A, 2023, "partial", 60.0, START + 90),
    TileTask("sentinel2", B, 2023, "success", 0.01, START + 90, skipped=True),
    TileTask("sentinel2", A, 2024, "missing"),
]
WANTED = [(2023, A), (2023, B), (2024, A), (2024, B)]


def test_totals_leave_out_what_was_there_before() -> None:
    found = totals(TASKS)
    assert found["elevation"] == {
        "tasks": 2,
        "success": 1,
        "partial": 0,
        "failed": 1,
        "missing": 0,
        "seconds": 9.0,
        "p50": 9.0,
        "p95": 9.0,
        "p99": 9.0,
    }
    assert (found["sentinel2"]["seconds"], found["sentinel2"]["missing"]) == (60.0, 1)
    assert totals([]) == {}


def test_failures_can_be_asked_for_again() -> None:
    """Terrain that failed is wanted by every year of its tile."""
    entries = json.loads(failed_json(TASKS, WANTED))
    assert [entry["tile_info"] for entry in entries] == [
        {"year": year, "X_tile": 1000, "Y_tile": 871} for year in (2023, 2024)
    ]
    assert json.loads(failed_json(TASKS[:1], WANTED)) == []


def test_the_table_has_a_line_for_each_task() -> None:
    lines = summary_csv(TASKS, {A: (-52.5278, -13.1389), B: (-54.4722, -5.1389)}).splitlines()
    assert lines[0] == (
        "task_type,status,year,lon,lat,X_tile,Y_tile,duration_sec,finished,error_message"
    )
    assert lines[1] == (
        "elevation,success,,-52.5278,-13.1389,1035,727,9.00,2023-11-14T22:13:30+00:00,"
    )
    assert lines[2].endswith(',"HTTP 500, twice"')
    assert lines[5] == "sentinel2,missing,2024,-52.5278,-13.1389,1035,727,0.00,,"


def test_text_and_json() -> None:
    text = report_text(TASKS)
    assert "elevation: 2 tiles, 50.0% there" in text
    assert "elevation 1000X871Y : HTTP 500, twice" in text
    document = json.loads(report_json(TASKS))
    assert [task["tile"] for task in document["tasks"]][:2] == ["1035X727Y", "1000X871Y"]
    assert report_text([]) == "\n"


@pytest.mark.parametrize("tasks", [TASKS, []], ids=["some", "none"])
def test_pictures_are_the_same_again(tasks: list[TileTask]) -> None:
    for draw in (timeline_png, duration_png):
        picture = draw(tasks)
        assert Image.open(BytesIO(picture)).width > 500
        assert draw(tasks) == picture
