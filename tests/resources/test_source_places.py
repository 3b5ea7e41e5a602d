"""The document of mirrors: read strictly, wrong entries named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resources.source_places import SourcePlacesError, read_source_places


def document(folder: Path, **sources: dict) -> Path:
    path = folder / "sources.json"
    path.write_text(json.dumps({"schema": 1, "sources": sources}))
    return path


def test_places_are_read(tmp_path: Path) -> None:
    path = document(
        tmp_path,
        one={"address": "http://127.0.0.1:1/x@y", "sha256": {"a.zip": "0" * 64, "b.zip": None}},
        two={
            "address": "s3://bucket/x/{vintage}",
            "vintage": "2025-09-24.0",
            "region": "eu-1",
        },
    )
    places = read_source_places(path)
    assert places["one"].address == "http://127.0.0.1:1/x@y"
    assert places["one"].sha256 == {"a.zip": "0" * 64, "b.zip": None}
    assert (places["two"].vintage, places["two"].region) == ("2025-09-24.0", "eu-1")
    assert read_source_places(None) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"address": "file:///etc"}, r"sources\.one\.address"),
        ({"address": "/data"}, r"sources\.one\.address"),
        ({"endpoint": "s3://x"}, r"sources\.one\.endpoint"),
        ({"address": "https://user:do_not_tell@host/x"}, r"sources\.one\.address"),
        ({"address": "s3://do_not_tell@bucket"}, r"sources\.one\.address"),
        ({"endpoint": "https://user:do_not_tell@host"}, r"sources\.one\.endpoint"),
        ({"vintage": "../.."}, r"sources\.one\.vintage"),
        ({"sha256": {"a": "12"}}, r"sources\.one\.sha256\.a"),
        ({"url": "http://x"}, r"sources\.one\.url: Extra"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, entry: dict, message: str) -> None:
    with pytest.raises(SourcePlacesError, match=message) as caught:
        read_source_places(document(tmp_path, one=entry))
    assert "do_not_tell" not in str(caught.value)


def test_a_file_that_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(SourcePlacesError, match="cannot be read as JSON"):
        read_source_places(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SourcePlacesError, match="cannot be read as JSON"):
        read_source_places(tmp_path / "a.json")
