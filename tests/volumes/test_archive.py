"""Volume ids, keys, manifests and versions of the scan archive, and local volumes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocr_assets.volumes import archive
from ocr_assets.volumes.archive import (
    ArchiveVolume,
    ImageEntry,
    InvalidVolumeIdError,
    ManifestError,
    MissingImageError,
    VolumeId,
    image_folder,
    parse_manifest,
    synthetic_etag,
    version_name,
)
from ocr_assets.volumes.local_volumes import open_local, reading_order
from resources.storage import Storage

VOLUME = VolumeId("W22084", "I0886")


def _packed(entries: Any) -> bytes:
    return gzip.compress(json.dumps(entries).encode(), mtime=0)


@pytest.mark.parametrize(
    ("w_id", "i_id", "folder"),
    [
        ("W22084", "I0886", "Works/60/W22084/images/W22084-0886"),
        ("W22308", "I1KG9611", "Works/d9/W22308/images/W22308-I1KG9611"),
        ("W1KG4313", "I1KG17496", "Works/fa/W1KG4313/images/W1KG4313-I1KG17496"),
        ("W22084", "I08861", "Works/60/W22084/images/W22084-I08861"),
    ],
)
def test_folder_of_a_volume(w_id: str, i_id: str, folder: str) -> None:
    assert image_folder(VolumeId(w_id, i_id)) == folder


@pytest.mark.parametrize(
    "text", ["W22084-I0886", "W22084,I0886", "W22084 I0886", "W22084/I0886", " W22084 , I0886 "]
)
def test_volume_ids_are_read_in_all_forms(text: str) -> None:
    assert VolumeId.parse(text) == VOLUME
    assert str(VolumeId.parse(text)) == "W22084-I0886"


@given(
    st.from_regex(r"W[0-9A-Z]{1,13}", fullmatch=True),
    st.from_regex(r"I[0-9A-Z_]{1,15}", fullmatch=True),
)
def test_written_volume_ids_are_read_back(w_id: str, i_id: str) -> None:
    volume = VolumeId(w_id, i_id)
    assert VolumeId.parse(str(volume)) == volume


@pytest.mark.parametrize(
    "text", ["", "W22084", "W22084-", "w22084-I0886", "I0886-W22084", "W22084-I08/86", "W1-I2-I3"]
)
def test_other_text_names_no_volume(text: str) -> None:
    with pytest.raises(InvalidVolumeIdError, match="W22084-I0886"):
        VolumeId.parse(text)


def test_volumes_of_a_list_come_once() -> None:
    other = VolumeId("W1", "I2")
    assert archive.distinct([VOLUME, other, VOLUME]) == [VOLUME, other]


def test_version_is_the_head_of_the_entity_tag() -> None:
    assert version_name('"0af848750822600155ae2cf928b97a44"') == "0af848"
    assert version_name('"0AF848750822600155AE2CF928B97A44-12"') == "0af848"
    assert version_name('W/"abcdef12"') == "abcdef"
    with pytest.raises(ValueError, match="entity tag"):
        version_name('"xyz"')


def test_synthetic_entity_tag() -> None:
    parts = ("ocr_benchmark", "W1TS1", "I1TS1", "202603")
    assert synthetic_etag(*parts) == "0af848750822600155ae2cf928b97a44"


def test_manifest_keeps_its_order_and_tells_what_it_drops() -> None:
    images, remarks = parse_manifest(
        _packed(
            [
                {"filename": "I1_0002.TIF", "width": 10, "height": 20},
                {"filename": "I1_0001.jpg", "width": 5, "height": 6, "size": 3_000_000},
                {"filename": "I1_0002.TIF", "width": 99, "height": 99},
                {"filename": "notes.txt"},
                {"filename": "folder/I1_0003.tif"},
                {"filename": "tif"},
                {"width": 3},
                "I1_0004.tif",
                {"filename": "I1_0005.png", "width": -1, "height": "7"},
            ]
        ),
        "W1-I1",
    )
    assert images == [
        ImageEntry("I1_0002.TIF", 10, 20),
        ImageEntry("I1_0001.jpg", 5, 6, 3_000_000),
        ImageEntry("I1_0005.png"),
    ]
    assert len(remarks) == 7
    assert "entry 3" in remarks[0]
    assert "entry 4" in remarks[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JSON"),
        (b"\x1f\x8b\x08broken", "gzip"),
        (_packed([{"filename": "a.tif"}])[:-9], "gzip"),
        (gzip.compress(b"[{", mtime=0), "JSON"),
        (_packed({"filename": "a.tif"}), "array"),
        (_packed([]), "no image"),
        (_packed([{"filename": "a.txt"}]), "no image"),
    ],
)
def test_bad_manifests_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason) as caught:
        parse_manifest(data, "W1-I1")
    assert "W1-I1" in str(caught.value)


def test_manifest_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MANIFEST_BYTES", 1000)
    with pytest.raises(ManifestError, match="1,000"):
        parse_manifest(gzip.compress(b"[" + b" " * 100_000 + b"]", mtime=0), "W1-I1")


def _fill(store: Storage, entries: list[dict[str, Any]], images: dict[str, bytes]) -> bytes:
    folder = image_folder(VOLUME)
    manifest = _packed(entries)
    store.write_bytes(f"{folder}/dimensions.json", manifest)
    for name, data in images.items():
        store.write_bytes(f"{folder}/{name}", data)
    return manifest


ENTRIES: list[dict[str, Any]] = [
    {"filename": "08860002.tif", "width": 3, "height": 4},
    {"filename": "08860001.tif", "width": 3, "height": 4, "size": 7},
    {"filename": "08860003.tif", "width": 3, "height": 4},
]


def test_volume_in_a_bucket(s3_bucket: Storage) -> None:
    manifest = _fill(s3_bucket, ENTRIES, {"08860001.tif": b"one", "08860002.tif": b"two"})
    source = ArchiveVolume(s3_bucket, VOLUME)
    listed = source.manifest()
    digest = hashlib.md5(manifest, usedforsecurity=False).hexdigest()
    assert listed.version == digest[:6]
    assert listed.key == f"W22084-I0886-{digest[:6]}"
    assert [image.name for image in listed.images] == [e["filename"] for e in ENTRIES]
    assert listed.images[0].etag == hashlib.md5(b"two", usedforsecurity=False).hexdigest()
    assert listed.images[2].etag is None
    assert [remark.partition(":")[0] for remark in listed.remarks] == [
        "08860001.tif",
        "08860003.tif",
    ]
    assert source.read(listed.images[1]) == b"one"
    with pytest.raises(MissingImageError, match=r"08860003\.tif"):
        source.read(listed.images[2])


def test_same_volume_in_a_folder_has_the_same_version(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    manifest = _fill(store, ENTRIES, {"08860001.tif": b"one"})
    listed = ArchiveVolume(store, VOLUME).manifest()
    assert listed.etag == hashlib.md5(manifest, usedforsecurity=False).hexdigest()


def test_replaced_folio_changes_its_own_tag_only(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    _fill(store, ENTRIES, {"08860001.tif": b"one", "08860002.tif": b"two"})
    before = ArchiveVolume(store, VOLUME).manifest()
    store.write_bytes(f"{image_folder(VOLUME)}/08860001.tif", b"another one")
    after = ArchiveVolume(store, VOLUME).manifest()
    assert after.version == before.version
    changed = [b.name for a, b in zip(before.images, after.images, strict=True) if a.etag != b.etag]
    assert changed == ["08860001.tif"]


def test_volume_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"W22084-I0886.*dimensions\.json"):
        ArchiveVolume(Storage(str(tmp_path)), VOLUME).manifest()


def test_manifest_size_against_the_image() -> None:
    entry = ImageEntry("a.tif", 10, 20)
    assert entry.disagreement(10, 20) is None
    assert ImageEntry("a.tif").disagreement(10, 20) is None
    assert "10 x 20, the image has 11 x 20" in str(entry.disagreement(11, 20))


def test_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    entry = ImageEntry("a.tif", size=archive.MAX_IMAGE_BYTES + 1, etag="0")
    with pytest.raises(ValueError, match="not read"):
        ArchiveVolume(Storage(str(tmp_path)), VOLUME).read(entry)


def _tiff(size: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (size, size)).save(file, "TIFF", compression="group4")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "scans"
    place.mkdir()
    for number in (10, 2, 1):
        (place / f"page{number}.tif").write_bytes(_tiff(number))
    (place / "readme.txt").write_text("no image")
    (place / ".hidden.tif").write_bytes(b"")
    return place


def test_folder_of_images(folder: Path) -> None:
    source = open_local(folder, VOLUME)
    listed = source.manifest()
    assert [image.name for image in listed.images] == ["page1.tif", "page2.tif", "page10.tif"]
    assert source.read(listed.images[1]) == _tiff(2)
    (folder / "page2.tif").write_bytes(_tiff(3))
    again = source.manifest()
    assert again.version != listed.version
    assert again.images[0].etag == listed.images[0].etag
    assert again.images[1].etag != listed.images[1].etag


def test_zip_of_images(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as target:
        for file in folder.iterdir():
            target.write(file, f"volume/{file.name}")
        target.writestr("__MACOSX/volume/page1.tif", b"")
    source = open_local(path, VOLUME)
    images = source.manifest().images
    assert [image.name.rpartition("/")[2] for image in images] == [
        "page1.tif",
        "page2.tif",
        "page10.tif",
    ]
    assert source.read(images[2]) == _tiff(10)
    with pytest.raises(MissingImageError):
        source.read(ImageEntry("volume/page3.tif"))


def test_places_that_are_no_volume(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(ManifestError, match="zip"):
        open_local(tmp_path / "broken.zip", VOLUME).manifest()
    with pytest.raises(ManifestError, match="no images"):
        open_local(tmp_path, VOLUME).manifest()
    with pytest.raises(ManifestError, match="no volume"):
        open_local(tmp_path / "absent", VOLUME)


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["I1_0010.tif", "I1_2.tif", "I1_0001a.tif", "I1_0001.tif"]
    assert sorted(names, key=reading_order)[-2:] == ["I1_2.tif", "I1_0010.tif"]
