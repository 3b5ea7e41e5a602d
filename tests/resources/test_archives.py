"""Members of zip archives: found, extracted once and whole, refused when damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from resources.archives import ArchiveError, extracted


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, f"content of {name}" * 100)
    return path


def test_a_member_is_extracted_once(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", "top/Data/2011/BP.tif", "top/Data/2047/BP.tif", "BP.tif.xml")
    first = Path(extracted(path, "Data/2047/BP.tif", tmp_path / "out"))
    assert first.read_text() == "content of top/Data/2047/BP.tif" * 100
    before = first.stat().st_mtime_ns
    assert Path(extracted(path, "Data/2047/BP.tif", tmp_path / "out")) == first
    assert first.stat().st_mtime_ns == before
    other = Path(extracted(path, "Data/2011/BP.tif", tmp_path / "out"))
    assert other != first
    assert other.read_text() == "content of top/Data/2011/BP.tif" * 100


def test_a_broken_extraction_is_done_again(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", "BP.tif")
    first = Path(extracted(path, ".tif", tmp_path / "out"))
    first.write_text("half")
    assert Path(extracted(path, ".tif", tmp_path / "out")).read_text() == "content of BP.tif" * 100


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a.txt"], "has 0 members"), (["x/a.tif", "y/b.tif"], "has 2 members")],
)
def test_exactly_one_member_is_wanted(tmp_path: Path, names: list[str], message: str) -> None:
    path = archive(tmp_path / "a.zip", *names)
    with pytest.raises(ArchiveError, match=message):
        extracted(path, ".tif", tmp_path / "out")


def test_a_name_has_to_begin_at_a_folder(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", "Data/CONUS_BP.tif", "Data/OLD_CONUS_BP.tif")
    assert (
        "content of Data/CONUS_BP"
        in Path(extracted(path, "CONUS_BP.tif", tmp_path / "out")).read_text()
    )


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damage_is_told_and_leaves_nothing(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path / "a.zip", "BP.tif")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[45] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="not a whole zip archive"):
        extracted(path, ".tif", tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
