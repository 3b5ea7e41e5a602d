"""Volumes whose scans were replaced: their images are listed anew, so that what was read is stale.

A tick looks at the next few of the volumes that were listed, and asks for a new list of those whose
source has another entity tag. The list of images then has a new data version, and its lines and
texts show as stale until somebody has them read again.
"""

import time
from bisect import bisect_right

import dagster as dg

from ocr_assets.partitions import VOLUMES
from ocr_assets.request_jobs import VOLUME_FIRST, Jobs
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volume_sources import VolumeSources
from ocr_assets.volumes.archive import InvalidVolumeIdError, ManifestError, VolumeId
from resources.keys import StorageError
from sensors.inbox import IDENTITY_TAG
from sensors.volume_requests import listing

SENSOR = "volume_sources"
SECONDS_BETWEEN_LOOKS = 600

MOST_VOLUMES = 500
"""Volumes that a tick looks at."""

MOST_SECONDS = 30.0


def volume_source_sensor(volumes: VolumeLibrary, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor of volumes whose scans were replaced."""
    sources = VolumeSources(volumes)

    @dg.sensor(
        name=SENSOR,
        description="Lists volumes anew whose scans were replaced; what was read of them is stale.",
        job=jobs[VOLUME_FIRST],
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def volume_sources(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, sources)

    return volume_sources


def _tick(context: dg.SensorEvaluationContext, sources: VolumeSources) -> dg.SensorResult:
    """Look at the volumes behind the cursor; at the end it starts again from the first."""
    deadline = time.monotonic() + MOST_SECONDS
    names = sorted(context.instance.get_dynamic_partitions(str(VOLUMES.name)))
    begin = bisect_right(names, context.cursor or "")
    requests, told, last = [], [], ""
    chosen = names[begin : begin + MOST_VOLUMES]
    for name in chosen:
        if time.monotonic() > deadline:
            break
        last = name
        try:
            request = _request(context.instance, sources, VolumeId.parse(name))
        except (InvalidVolumeIdError, ManifestError, StorageError, OSError) as error:
            told.append(str(error))
        else:
            requests += [request] if request else []
    is_end = not chosen or last == names[-1]
    skipped = f"none of {len(chosen)} volumes has new scans"
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else "; ".join([skipped, *told[:20]]),
        # A cursor that is empty would be kept as it was.
        cursor=" " if is_end else last,
    )


def _request(
    instance: dg.DagsterInstance, sources: VolumeSources, volume: VolumeId
) -> dg.RunRequest | None:
    """The run that lists a volume anew, if it was listed and its source has changed."""
    listed = sources.listed_etag(volume)
    if listed is None:
        return None
    etag = sources.etag(volume)
    if etag == listed:
        return None
    work = listing(sources.library.settings, str(volume), etag)
    if instance.get_runs_count(dg.RunsFilter(tags={IDENTITY_TAG: work.identity})):
        return None
    return work.request(1)
