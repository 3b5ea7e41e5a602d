"""Requests by a queue and by files, and a worker whose power is cut while it takes them in."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psutil
import pytest
from engines import wait_until
from running_dagster import OCR
from sample_worlds import environment

from ocr_assets.request_messages import volume_messages
from ocr_assets.volumes.archive import MANIFEST_NAME, VolumeId, image_folder
from resources.request_queue import RequestInbox
from resources.settings import Settings
from resources.storage import Storage
from sensors.inbox import IDENTITY_TAG

# A worker is started three times.
pytestmark = [pytest.mark.endurance, pytest.mark.timeout(900)]
VOLUMES = ("W1-I1", "W2-I2")


def asks(*volumes: str) -> bytes:
    (body,) = volume_messages([VolumeId.parse(one) for one in volumes])
    return body


def manifest(archive: Path, volume: str) -> Path:
    """The manifest of a volume in the archive, in a folder that is there."""
    path = archive / image_folder(VolumeId.parse(volume)) / MANIFEST_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def fill(path: Path) -> None:
    """Make a manifest of one image that is not there: the volume can be listed, not read."""
    entries = [{"filename": "1.tif", "width": 10, "height": 10}]
    path.write_bytes(gzip.compress(json.dumps(entries).encode(), mtime=0))


@contextmanager
def worker(variables: dict[str, str], log: Path) -> Iterator[None]:
    """A running `ocr worker`. At the end its power is cut, with all that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen([OCR, "worker"], env=variables, stdout=output, stderr=output)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        family = [psutil.Process(process.pid)]
        with suppress(psutil.NoSuchProcess):
            family += family[0].children(recursive=True)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=30)


def runs_of(instance: dg.DagsterInstance) -> Counter[str]:
    """How many runs were launched for each identity, those apart that Dagster tried again."""
    runs = [run for run in instance.get_runs() if run.root_run_id is None]
    return Counter(run.tags[IDENTITY_TAG].partition("@")[0] for run in runs)


def test_every_request_runs_once_though_the_power_is_cut_twice(
    tmp_path: Path, fresh_home: Path, s3_bucket: Storage
) -> None:
    endpoint = str(s3_bucket.s3.endpoint_url)
    client: Any = boto3.client("sqs", endpoint_url=endpoint, region_name="us-east-1")
    url = client.create_queue(QueueName=f"volumes-{uuid.uuid4().hex[:12]}")["QueueUrl"]
    archive = tmp_path / "archive"
    shutil.copytree(fresh_home, tmp_path / "home")
    variables = environment(
        {
            "OCR_STORAGE_ROOT": str(tmp_path / "root"),
            "OCR_VOLUMES_SOURCE": str(archive),
            "OCR_VOLUME_QUEUE_URL": url,
            "OCR_SQS_ENDPOINT_URL": endpoint,
            "OCR_REQUEST_SECONDS": "1",
            "DAGSTER_HOME": str(tmp_path / "home"),
        }
    )
    inbox = RequestInbox.of(Settings(storage_root=str(tmp_path / "root")), "volumes")
    fill(manifest(archive, VOLUMES[1]))
    # Whoever reads this one waits until somebody writes it.
    stuck = manifest(archive, VOLUMES[0])
    os.mkfifo(stuck)
    for body in (asks("W1-I1"), asks("W2-I2"), b"what"):
        client.send_message(QueueUrl=url, MessageBody=body.decode())
    inbox.put("list.txt", b"W2-I2\nW1-I1\n")

    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        with worker(variables, tmp_path / "1.log"):
            # Received, and nothing launched: the tick stands still.
            wait_until("messages", lambda: len(inbox.accepted()) >= 3, 200)
        assert instance.get_runs_count() == 0
        stuck.unlink()
        fill(stuck)

        with worker(variables, tmp_path / "2.log"):
            wait_until("a run", lambda: instance.get_runs_count() > 0, 200)
        assert not [one for one in runs_of(instance).values() if one > 1]

        def is_over() -> bool:
            counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            hidden = counts["ApproximateNumberOfMessagesNotVisible"]
            left = int(counts["ApproximateNumberOfMessages"]) + int(hidden)
            runs = instance.get_runs()
            return (
                len(runs_of(instance)) == 2 * len(VOLUMES)
                and all(run.is_finished for run in runs)
                and not (left or inbox.accepted() or inbox.storage.files())
            )

        with worker(variables, tmp_path / "3.log"):
            wait_until("everything to be done", is_over, 300)
        expected = [f"volumes/qa/dev/{volume}" for volume in VOLUMES]
        expected += [f"volumes/qa/dev/printed-unicode|{volume}" for volume in VOLUMES]
        assert runs_of(instance) == Counter(expected)
        listed = [
            run.tags[IDENTITY_TAG]
            for run in instance.get_runs(dg.RunsFilter(job_name="requested_listings"))
            if run.status == dg.DagsterRunStatus.SUCCESS
        ]
        assert len(listed) == len(set(listed)) == len(VOLUMES)
    assert len(inbox.storage.files("done")) == 3
    assert len(inbox.storage.files("rejected")) == 2
