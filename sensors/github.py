"""GitHub: a release, a push or a labelled pull request becomes a deployment.

Belongs here: which events an environment deploys, and what it deploys for them. Does not belong
here: how the API is asked and what counts as an event (:mod:`sensors.github_events`), or what a
deployment does (:mod:`ocr_assets.deployment_runs`).

An environment has the one sensor of its events: production releases, staging pushes, and qa pull
requests. A deployment that still waits in the queue is stopped when its commit is no longer the
newest of its branch or pull request, or the pull request was closed or lost its label. One that has
begun goes on to its end.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import (
    DEPLOY_JOB,
    ENVIRONMENT_TAG,
    DeployConfig,
    deployment_request,
)
from resources.github import GitHub, GitHubError, RateLimitedError
from resources.settings import Environment, Settings
from sensors.github_events import (
    Cursor,
    Event,
    Kind,
    Look,
    look_at_branch,
    look_at_pull_requests,
    look_at_releases,
)

EVENT_TAG, KIND_TAG = "ocr/github_event", "ocr/github_kind"
REF_TAG, COMMIT_TAG = "ocr/github_ref", "ocr/github_commit"
"""Tags of a run that an event started."""

ALL_REGIONS = "all"


def _block(rows: range, cols: range) -> Iterator[str]:
    return (f"y{row}_x{col}" for row in rows for col in cols)


QA_REGIONS = tuple(_block(range(12, 15), range(3, 8)))
STAGING_REGIONS = (
    *QA_REGIONS,
    *_block(range(8, 9), range(3, 7)),
    *_block(range(7, 8), range(4, 9)),
    *_block(range(6, 7), range(5, 10)),
    *_block(range(5, 6), range(7, 10)),
    *_block(range(8, 10), range(14, 18)),
    *_block(range(7, 8), range(31, 33)),
    *_block(range(13, 14), range(24, 27)),
    *_block(range(12, 13), range(24, 26)),
)
"""Regions that are deployed where OCR_DEPLOY_REGION_IDS does not name others."""


@dataclass(frozen=True)
class _Source:
    """The events of an environment."""

    kind: Kind
    name: str
    description: str
    look: Callable[[GitHub, Cursor, Settings], Look]
    config: Callable[[Event, Settings], DeployConfig]


def _chosen(settings: Settings, default: tuple[str, ...]) -> DeployConfig:
    """A deployment of the regions that pushes and pull requests deploy, from scratch."""
    regions = settings.deploy_region_ids or default
    everything = regions == (ALL_REGIONS,)
    return DeployConfig(
        region_ids=[] if everything else list(regions),
        all_region_ids=everything,
        wipe=True,
        write_regional_stats=True,
    )


def _release(event: Event, settings: Settings) -> DeployConfig:
    return DeployConfig(
        all_region_ids=True,
        version=event.version,
        write_regional_stats=True,
        create_pyramid=True,
        publish=True,
    )


def _push(event: Event, settings: Settings) -> DeployConfig:
    return _chosen(settings, STAGING_REGIONS).model_copy(update={"create_pyramid": True})


def _pull_request(event: Event, settings: Settings) -> DeployConfig:
    return _chosen(settings, QA_REGIONS)


_SOURCES: dict[Environment, _Source] = {
    "production": _Source(
        "release",
        "github_releases",
        "Deploys every published release to production, under its semantic version.",
        look_at_releases,
        _release,
    ),
    "staging": _Source(
        "push",
        "github_pushes",
        "Deploys every push to the main branch to staging.",
        look_at_branch,
        _push,
    ),
    "qa": _Source(
        "pull_request",
        "github_pull_requests",
        "Deploys open pull requests that have one of the labels to qa, and each new commit on one.",
        look_at_pull_requests,
        _pull_request,
    ),
}


def github_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor of this environment's events; none without a repository."""
    if settings.github_repository is None:
        return []
    source = _SOURCES[settings.environment]

    @dg.sensor(
        name=source.name,
        description=source.description,
        job_name=DEPLOY_JOB,
        minimum_interval_seconds=settings.github_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def github_events(
        context: dg.SensorEvaluationContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, deployment.settings, source)

    return [github_events]


def _tick(
    context: dg.SensorEvaluationContext, settings: Settings, source: _Source
) -> dg.SensorResult | dg.SkipReason:
    now = time.time()
    cursor = Cursor.read(context.cursor, settings, now)
    if now < cursor.wait_until:
        return dg.SkipReason(f"GitHub asked to wait for {cursor.wait_until - now:.0f} s more")
    try:
        with GitHub(settings.github_api_url, settings.github_token) as github:
            found = source.look(github, cursor, settings)
    except GitHubError as error:
        if context.cursor:
            raise
        # From when on events count has to be remembered, although this tick has failed.
        return _skip(str(error), cursor)
    for remark in found.remarks:
        context.log.warning(remark)
    after = found.cursor.waiting(now + found.poll_seconds if found.poll_seconds else 0.0)
    if isinstance(found.problem, RateLimitedError):
        after = after.waiting(found.problem.until)
    stopped = _stop_superseded(context.instance, settings, source, found)
    if not found.events:
        told = [str(found.problem)] if found.problem else ["nothing new"]
        told += found.remarks
        if stopped:
            told.append(f"stopped {stopped} deployments that waited and are no longer wanted")
        return _skip("; ".join(told), after)
    if found.problem:
        context.log.warning(str(found.problem))
    requests = [_request(context.instance, settings, source, event) for event in found.events]
    return dg.SensorResult(run_requests=requests, cursor=after.model_dump_json())


def _skip(reason: str, cursor: Cursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.model_dump_json())


def _request(
    instance: dg.DagsterInstance, settings: Settings, source: _Source, event: Event
) -> dg.RunRequest:
    """The run request of an event, under a key that is the same whenever it is asked for.

    A deployment that was stopped in the queue, and is wanted again, is another attempt: Dagster
    would never launch the key of the stopped one again.
    """
    stopped = instance.get_runs_count(
        dg.RunsFilter(tags={EVENT_TAG: event.identity}, statuses=[dg.DagsterRunStatus.CANCELED])
    )
    attempt = f":attempt-{stopped + 1}" if stopped else ""
    return deployment_request(
        settings,
        source.config(event, settings),
        run_key=event.identity + attempt,
        tags={
            EVENT_TAG: event.identity,
            KIND_TAG: event.kind,
            REF_TAG: event.ref,
            **({COMMIT_TAG: event.commit} if event.commit else {}),
        },
    )


def _stop_superseded(
    instance: dg.DagsterInstance, settings: Settings, source: _Source, found: Look
) -> int:
    """Stop deployments that wait in the queue and are no longer wanted; how many."""
    if found.wanted is None:
        return 0
    waiting = instance.get_runs(
        dg.RunsFilter(
            job_name=DEPLOY_JOB,
            tags={KIND_TAG: source.kind, ENVIRONMENT_TAG: settings.environment},
            statuses=[dg.DagsterRunStatus.QUEUED],
        )
    )
    superseded = [run for run in waiting if run.tags.get(EVENT_TAG) not in found.wanted]
    return sum(instance.run_coordinator.cancel_run(run.run_id) for run in superseded)
