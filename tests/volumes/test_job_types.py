"""The registry of job types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocr_assets.volumes.job_types import JobType, JobTypeError, find_job_type, load_job_types


def test_built_in_types() -> None:
    types = load_job_types()
    assert next(iter(types)) == "printed-unicode"
    assert types["printed-unicode"].model == "bod"
    assert types["woodblock-stacks-unicode"].encoding == "unicode"
    assert types["woodblock-stacks-wylie"].encoding == "wylie"
    assert all(job_type.line_mode == "line" for job_type in types.values())


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_types_from_a_file_follow_the_built_in_ones(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"types{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"job_types": {"dzongkha": {"model": "dzo"}}}))
    else:
        path.write_text('[job_types.dzongkha]\nmodel = "dzo"\n')
    types = load_job_types(path)
    assert types["dzongkha"] == JobType("dzongkha", model="dzo")
    assert find_job_type(types, len(types)) is find_job_type(types, "dzongkha")
    assert types["dzongkha"].language == "dz"


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({"Bad Name": {"model": "x"}}, "a name has up to 63"),
        ({"printed-unicode": {"model": "x"}}, "is built in"),
        ({"jobs": {"model": "x"}}, "something else has its folder"),
        ({"volume_lines": {"model": "x"}}, "something else has its folder"),
        ({"a": {}}, "no field 'model'"),
        ({"a": {"model": ""}}, "names no model"),
        ({"a": {"model": 3}}, "'model': 3 is not text"),
        ({"a": {"model": "x", "encoding": "acip"}}, "'encoding': unknown value 'acip'"),
        ({"a": {"model": "x", "line_mode": "page"}}, "'line_mode': unknown value 'page'"),
        ({"a": {"model": "x", "line_mode": "layout"}}, "needs a segmentation model"),
        ({"a": {"model": "x", "decoder": "best"}}, "'decoder': unknown value 'best'"),
        ({"a": {"model": "x", "language": "Tibetan"}}, "'language': 'Tibetan' is no language"),
        ({"a": {"model": "x", "k_factr": 2}}, "unknown field 'k_factr'"),
        ({"a": "bod"}, "not a table of fields"),
        ([], "no table 'job_types'"),
    ],
)
def test_wrong_definitions_are_named(tmp_path: Path, definition: Any, problem: str) -> None:
    path = tmp_path / "types.json"
    path.write_text(json.dumps({"job_types": definition}))
    with pytest.raises(JobTypeError, match=problem):
        load_job_types(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(JobTypeError, match="cannot read"):
        load_job_types(tmp_path / "absent.toml")
    with pytest.raises(JobTypeError, match=r"\.json or \.toml"):
        load_job_types(tmp_path / "types.yaml")
    broken = tmp_path / "types.toml"
    broken.write_text("[job_types")
    with pytest.raises(JobTypeError, match="not valid TOML"):
        load_job_types(broken)


@pytest.mark.parametrize("unknown", [0, 99, "nothing"])
def test_an_unknown_type_is_told_with_the_known_ones(unknown: int | str) -> None:
    with pytest.raises(JobTypeError, match="1 printed-unicode"):
        find_job_type(load_job_types(), unknown)
