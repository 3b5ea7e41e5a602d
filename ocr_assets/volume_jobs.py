"""Jobs of volumes as small documents in the storage.

Belongs here: creating, finding and cancelling jobs. Does not belong here: their state, which
follows from the runs and the artefacts.

A job is ``jobs/{key}.json`` under the root of volumes; ``jobs/{key}.canceled`` says that it is not
to go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from ocr_assets.volumes.archive import VolumeId
from ocr_assets.volumes.ledger import Job, default_job_key
from resources.keys import MissingObjectError, ObjectExistsError
from resources.storage import Storage

_SUFFIX, _CANCELED = ".json", ".canceled"


class JobError(ValueError):
    """A job that is not there, or cannot do what was asked; the message names the mend."""


def create_job(
    storage: Storage, job_type: str, volumes: Sequence[VolumeId], key: str | None = None
) -> tuple[Job, bool]:
    """Keep a job; whether it is new comes with it. The same job is kept once.

    Raises:
        JobError: there is another job with this key.
    """
    key = key or default_job_key(job_type, volumes)
    job = Job(key, job_type, tuple(map(str, volumes)), time.time())
    document = {"job_type": job_type, "volumes": job.volumes, "created": job.created}
    data = (json.dumps(document, indent=1) + "\n").encode()
    try:
        storage.write_bytes(f"jobs/{key}{_SUFFIX}", data, if_absent=True)
    except ObjectExistsError:
        found = read_job(storage, key)
        if (found.job_type, sorted(found.volumes)) != (job_type, sorted(job.volumes)):
            raise JobError(
                f"there is another job {key!r}, for {len(found.volumes)} volumes of job type "
                f"{found.job_type!r}; choose another --job-key"
            ) from None
        return found, False
    return job, True


def read_job(storage: Storage, key: str) -> Job:
    """A job by its key.

    Raises:
        JobError: there is none.
    """
    try:
        document = json.loads(storage.read_bytes(f"jobs/{key}{_SUFFIX}"))
    except MissingObjectError:
        raise JobError(f"there is no job {key!r}; `ocr jobs status --all` lists them") from None
    return Job(key, document["job_type"], tuple(document["volumes"]), document["created"])


def list_jobs(storage: Storage) -> list[Job]:
    """All jobs, the oldest first; the place in this list, from 1, is a job's number."""
    keys = [info.key.removeprefix("jobs/") for info in storage.list("jobs")]
    jobs = [read_job(storage, key.removesuffix(_SUFFIX)) for key in keys if key.endswith(_SUFFIX)]
    return sorted(jobs, key=lambda job: (job.created, job.key))


def find_job(storage: Storage, *, number: int | None, key: str | None) -> Job:
    """A job by its number or its key.

    Raises:
        JobError: neither or both are given, or there is no such job.
    """
    if (number is None) == (key is None):
        raise JobError("give --job-id or --job-key, one of them")
    if key is not None:
        return read_job(storage, key)
    jobs = list_jobs(storage)
    if number is None or not 1 <= number <= len(jobs):
        raise JobError(f"there is no job {number}; there are {len(jobs)}")
    return jobs[number - 1]


def cancel(storage: Storage, job: Job) -> None:
    """Say that a job is not to go on."""
    storage.write_bytes(f"jobs/{job.key}{_CANCELED}", b"")


def resume(storage: Storage, job: Job) -> None:
    """Take back :func:`cancel`."""
    storage.delete(f"jobs/{job.key}{_CANCELED}")


def is_canceled(storage: Storage, job: Job) -> bool:
    """Whether a job is not to go on."""
    return storage.exists(f"jobs/{job.key}{_CANCELED}")
