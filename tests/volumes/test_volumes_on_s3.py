"""Volumes in object stores: the archive's layout, plain folders, and artefacts; signed or not."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from store_proxy import StoreProxy
from volume_worlds import TYPE, VolumeWorld, put_into_archive, transcript

from resources.storage import Storage

VOLUME = "W22084-I0886"


@pytest.fixture
def world(tmp_path: Path, s3_bucket: Storage) -> VolumeWorld:
    """Artefacts go to the bucket; volumes come from it."""
    return VolumeWorld(
        tmp_path,
        {
            "storage_root": s3_bucket.uri("data"),
            "volumes_source": s3_bucket.uri("archive"),
            "s3_endpoint_url": s3_bucket.s3.endpoint_url,
        },
    )


def upload(folder: Path, storage: Storage, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)


def put_archive(storage: Storage, folder: Path, pages: Path, *names: str) -> bytes:
    """Put the volume into the bucket as the archive has it; the content of its manifest."""
    entries = [{"filename": name, "width": 2000, "height": 560} for name in names]
    put_into_archive(folder, VOLUME, pages, entries)
    upload(folder, storage, "archive")
    return gzip.compress(json.dumps(entries).encode(), mtime=0)


def text_of(world: VolumeWorld) -> str:
    record = world.library.record(TYPE, VOLUME)
    assert record is not None
    return world.library.read_file(record, "volume.txt").decode()


def test_an_archive_and_artefacts_in_a_bucket(
    world: VolumeWorld, s3_bucket: Storage, pages: Path
) -> None:
    manifest = put_archive(s3_bucket, world.folder / "a", pages, "0002.tif", "gone.tif")
    reading = world.read(VOLUME)
    assert reading.success, reading.error
    assert text_of(world) == transcript(pages, "0002") + "\f\f"
    version = reading.metadata("volume_text")["version"]
    assert version == hashlib.md5(manifest).hexdigest()[:6]
    keys = [info.key for info in s3_bucket.list(f"data/qa/volumes/{TYPE}/{VOLUME}-{version}")]
    assert any(key.endswith("/success.json") for key in keys)
    errors = world.library.read_file(world.library.records(TYPE)[0], "errors.jsonl").decode()
    assert json.loads(errors)["image"] == "gone.tif"
    assert json.loads(errors)["source"] == s3_bucket.uri("archive")
    # A folio that was replaced in place has another entity tag, and is read alone.
    (folder,) = (world.folder / "a").glob("Works/60/W22084/images/W22084-0886")
    s3_bucket.put_file(
        f"archive/{(folder / '0002.tif').relative_to(world.folder / 'a')}", pages / "0001.tif"
    )
    again = world.read(VOLUME)
    assert again.metadata("volume_lines")["new pages"] >= 1
    assert text_of(world) == transcript(pages, "0001") + "\f\f"
    assert world.read(VOLUME).metadata("volume_text")["skipped"]


def make_public(storage: Storage) -> None:
    """Let anybody list the bucket and read what is in it now."""
    client = boto3.client("s3", endpoint_url=storage.s3.endpoint_url)
    bucket, _ = storage.bucket_and_prefix
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    for info in storage.list():
        client.put_object_acl(Bucket=bucket, Key=info.key, ACL="public-read")


@pytest.fixture
def recorder(s3_server: str) -> Iterator[StoreProxy]:
    made = StoreProxy(s3_server)
    yield made
    made.close()


@pytest.mark.parametrize("anonymous", [True, False])
def test_the_archive_may_be_public_while_artefacts_are_not(
    world: VolumeWorld, s3_bucket: Storage, pages: Path, recorder: StoreProxy, anonymous: bool
) -> None:
    put_archive(s3_bucket, world.folder / "a", pages, "0002.tif")
    make_public(s3_bucket)
    world.variables |= {
        "volumes_anonymous": anonymous,
        "volumes_endpoint_url": recorder.url,
    }
    reading = world.read(VOLUME)
    assert reading.success, reading.error
    assert text_of(world) == transcript(pages, "0002") + "\f"
    assert set(recorder.signed) == {not anonymous}
    # What is written goes to the storage root itself, with credentials.
    assert s3_bucket.exists(f"data/qa/volumes/{TYPE}/volumes/{VOLUME}.json")


def test_a_plain_folder_in_a_bucket(world: VolumeWorld, s3_bucket: Storage, pages: Path) -> None:
    s3_bucket.put_file(f"archive/{VOLUME}/page10.tif", pages / "0001.tif")
    s3_bucket.put_file(f"archive/{VOLUME}/page2.tif", pages / "0002.tif")
    s3_bucket.write_bytes(f"archive/{VOLUME}/notes.txt", b"not an image")
    reading = world.read(VOLUME)
    assert reading.success, reading.error
    assert text_of(world) == "".join(transcript(pages, name) + "\f" for name in ("0002", "0001"))


def test_a_private_archive_is_not_read_without_credentials(
    world: VolumeWorld, s3_bucket: Storage, pages: Path
) -> None:
    put_archive(s3_bucket, world.folder / "a", pages, "0002.tif")
    world.variables["volumes_anonymous"] = True
    reading = world.read(VOLUME)
    assert not reading.success
    assert "not allowed" in reading.error
    assert "AWS_* credentials" in reading.error


def test_a_volume_that_is_not_in_the_bucket(world: VolumeWorld) -> None:
    reading = world.read(VOLUME)
    assert not reading.success
    assert "W22084-I0886 has no manifest" in reading.error
    assert "Works/60/W22084/images/W22084-0886/dimensions.json" in reading.error
