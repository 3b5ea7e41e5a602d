"""Requests for volumes become runs: the list of a volume's images, then its lines and text.

What a run makes is called by the volume's entity tag at its source. So a request that is sent again
does nothing unless the scans were replaced meanwhile, or another attempt is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from ocr_assets.partitions import PARTITION, VOLUMES, reading_tags
from ocr_assets.request_jobs import VOLUME_FIRST, VOLUME_WANTED, Jobs
from ocr_assets.request_messages import RefusedRequestError, VolumeRequest, read_volumes
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volume_sources import VolumeSources
from ocr_assets.volumes.archive import ManifestError
from ocr_assets.volumes.job_types import JobTypeError
from resources.request_queue import RequestInbox, RequestQueue
from resources.settings import Settings
from sensors.inbox import Doorway, LeftOutError, Part, Work, is_configured, tick

SENSOR = "volume_requests"


def volume_request_sensor(volumes: VolumeLibrary, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor of requests for volumes."""
    sources = VolumeSources(volumes)

    @dg.sensor(
        name=SENSOR,
        description="Reads the volumes that somebody asked for, by a file or a message of a queue.",
        jobs=[jobs[VOLUME_FIRST], jobs[VOLUME_WANTED]],
        minimum_interval_seconds=volumes.settings.request_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if is_configured(volumes.settings, "volumes")
            else dg.DefaultSensorStatus.STOPPED
        ),
    )
    def volume_requests(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return tick(context, volume_doorway(sources))

    return volume_requests


def volume_doorway(sources: VolumeSources) -> Doorway:
    """Where requests for volumes come in, and what they mean."""
    settings = sources.library.settings

    def read(name: str, body: bytes) -> _VolumePlan:
        request = read_volumes(name, body)
        try:
            sources.library.job_type(request.job_type)
        except JobTypeError as error:
            raise RefusedRequestError(str(error)) from error
        return _VolumePlan(sources, request)

    return Doorway(
        "volumes",
        VOLUMES,
        read,
        RequestInbox.of(settings, "volumes"),
        RequestQueue.of(settings, "volumes"),
    )


def listing(settings: Settings, volume: str, etag: str) -> Work:
    """The run that lists the images of a volume whose source has this entity tag."""
    identity = f"volumes/{settings.environment}/{settings.version_label}/{volume}@{etag}"
    return Work(identity, VOLUME_FIRST, {PARTITION: volume})


@dataclass(frozen=True)
class _VolumePlan:
    sources: VolumeSources
    request: VolumeRequest

    @property
    def attempt(self) -> int:
        return self.request.attempt

    @property
    def left_out(self) -> Sequence[str]:
        return self.request.left_out

    def __len__(self) -> int:
        return len(self.request.volumes)

    def part(self, index: int) -> Part:
        volume, job_type = self.request.volumes[index], self.request.job_type
        settings = self.sources.library.settings
        try:
            etag = self.sources.etag(volume)
        except (ManifestError, OSError) as error:
            raise LeftOutError(str(error)) from error
        place = f"volumes/{settings.environment}/{settings.version_label}"
        return Part(
            str(volume),
            Work(
                f"{place}/{job_type}|{volume}@{etag}",
                VOLUME_WANTED,
                reading_tags(job_type, str(volume)),
            ),
            listing(settings, str(volume), etag),
            lambda: self.sources.listed_etag(volume) == etag,
        )
