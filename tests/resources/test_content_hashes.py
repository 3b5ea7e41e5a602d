"""Hashes of files are remembered for as long as the file stays as it is, and no longer."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from resources import content_hashes
from resources.content_hashes import content_sha256

LONG_AGO = 1_600_000_000


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in order."""
    paths: list[Path] = []
    hash_it = content_hashes.sha256_file

    def watch(path: Path) -> str:
        paths.append(path)
        return hash_it(path)

    monkeypatch.setattr(content_hashes, "sha256_file", watch)
    monkeypatch.setattr(content_hashes, "_known", {})
    return paths


def written(path: Path, content: bytes, time: int = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, (time, time))
    return path


def test_a_file_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path / "a", b"one")
    expected = hashlib.sha256(b"one").hexdigest()
    assert [content_sha256(path) for _ in range(3)] == [expected] * 3
    assert len(read) == 1


@pytest.mark.parametrize(("content", "time"), [(b"other", LONG_AGO), (b"two", LONG_AGO + 1)])
def test_a_changed_size_or_time_is_noticed(
    tmp_path: Path, read: list[Path], content: bytes, time: int
) -> None:
    path = written(tmp_path / "a", b"one")
    content_sha256(path)
    written(path, content, time)
    assert content_sha256(path) == hashlib.sha256(content).hexdigest()


def test_another_file_under_the_same_name_is_noticed(tmp_path: Path, read: list[Path]) -> None:
    path = written(tmp_path / "a", b"one")
    content_sha256(path)
    written(tmp_path / "b", b"two").replace(path)
    assert content_sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_may_still_be_written_is_read_each_time(
    tmp_path: Path, read: list[Path]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    content_sha256(path)
    path.write_bytes(b"two")
    assert content_sha256(path) == hashlib.sha256(b"two").hexdigest()
    assert len(read) == 2


def test_large_files_are_remembered_by_the_next_process(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_hashes, "REMEMBERED_BYTES", 3)
    path, cache = written(tmp_path / "a", b"one"), tmp_path / "cache"
    first = content_sha256(path, cache=cache)
    content_hashes._known.clear()
    assert content_sha256(path, cache=cache) == first
    assert len(read) == 1
    written(path, b"two", LONG_AGO + 5)
    assert content_sha256(path, cache=cache) == hashlib.sha256(b"two").hexdigest()
    for record in cache.iterdir():
        record.write_text("{")
    content_hashes._known.clear()
    assert content_sha256(path, cache=cache) == hashlib.sha256(b"two").hexdigest()


def test_small_files_leave_nothing_behind(tmp_path: Path, read: list[Path]) -> None:
    content_sha256(written(tmp_path / "a", b"one"), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
