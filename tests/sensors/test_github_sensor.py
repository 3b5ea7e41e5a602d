"""Ticks of the GitHub sensors: what is asked of Dagster, what is stopped, what is never told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from github_server import (
    REPOSITORY,
    TOKEN,
    GitHubServer,
    limit,
    pull,
    release,
    says,
    sha,
)
from pydantic import SecretStr

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import DEPLOY_JOB
from ocr_assets.regions.grid import CONUS
from resources.github import UnauthorizedError
from resources.settings import Settings
from sensors.github import QA_REGIONS, STAGING_REGIONS, github_sensors

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ocr_assets"), "__repository__"), DEPLOY_JOB
)
LONG_AGO = "2020-01-01T00:00:00Z"
SOON = "2100-01-01T00:00:00Z"
"""After any first look."""


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer().running() as running:
        yield running


def deployment_of(server: GitHubServer, environment: str = "qa", **more: Any) -> Deployment:
    """A deployment on the built-in grid."""
    settings = Settings(
        storage_root="/nowhere",
        environment=environment,  # type: ignore[arg-type]
        version="0.9.0" if environment == "production" else None,
        github_repository=REPOSITORY,
        github_token=SecretStr(TOKEN),
        github_api_url=server.url,
    )
    return Deployment(settings.model_copy(update=more))


def tick(
    deployment: Deployment, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult:
    """One evaluation of the environment's sensor."""
    (sensor,) = github_sensors(deployment.settings)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"deployment": deployment}
    ) as context:
        result: Any = sensor(context)
    if isinstance(result, dg.SkipReason):
        return dg.SensorResult(skip_reason=result)
    assert isinstance(result, dg.SensorResult)
    return result


def reason(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def requests(result: dg.SensorResult) -> list[dg.RunRequest]:
    assert result.run_requests
    return list(result.run_requests)


def config_of(request: dg.RunRequest) -> dict[str, Any]:
    return request.run_config["ops"]["deploy"]["config"]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ("qa", "github_pull_requests"),
        ("staging", "github_pushes"),
        ("production", "github_releases"),
    ],
)
def test_an_environment_has_the_sensor_of_its_events(
    server: GitHubServer, environment: str, name: str
) -> None:
    deployment = deployment_of(server, environment, github_seconds=30)
    sensors = {sensor.name: sensor for sensor in build_defs(deployment).sensors or ()}
    assert {found for found in sensors if found.startswith("github")} == {name}
    sensor = sensors[name]
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
    assert sensor.job_name == DEPLOY_JOB


def test_without_a_repository_there_is_none() -> None:
    assert github_sensors(Settings(storage_root="/nowhere")) == []


def test_a_release_deploys_everything_under_its_version(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server, "production")
    first = tick(deployment, instance)
    assert reason(first) == "nothing new"
    server.releases = [release(7, "v1.2.3", SOON)]
    result = tick(deployment, instance, first.cursor)
    (request,) = requests(result)
    assert request.job_name == DEPLOY_JOB
    assert request.run_key == f"release/{REPOSITORY}@v1.2.3#7"
    assert config_of(request) == {
        "all_region_ids": True,
        "version": "1.2.3",
        "write_regional_stats": True,
        "create_pyramid": True,
        "publish": True,
    }
    assert request.tags == {
        "ocr/environment": "production",
        "ocr/version": "v1.2.3",
        "ocr/github_event": f"release/{REPOSITORY}@v1.2.3#7",
        "ocr/github_kind": "release",
        "ocr/github_ref": "v1.2.3",
    }
    assert reason(tick(deployment, instance, result.cursor)) == "nothing new"
    # A tick that was never stored is taken again from the cursor before it.
    (again,) = requests(tick(deployment, instance, first.cursor))
    assert again == request


def test_a_push_wipes_and_deploys_the_staging_regions(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server, "staging")
    server.push(sha(1), SOON)
    (request,) = requests(tick(deployment, instance))
    assert request.run_key == f"push/{REPOSITORY}@main/{sha(1)}"
    assert config_of(request) == {
        "region_ids": list(STAGING_REGIONS),
        "wipe": True,
        "write_regional_stats": True,
        "create_pyramid": True,
    }
    assert request.tags["ocr/github_commit"] == sha(1)
    assert len(set(STAGING_REGIONS)) == 47
    assert set(QA_REGIONS) < set(STAGING_REGIONS) < set(CONUS.valid)


def test_a_pull_request_wipes_and_deploys_the_qa_regions(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(4, sha(1), "e2e"), pull(5, sha(2))]
    (request,) = requests(tick(deployment, instance))
    assert request.run_key == f"pull_request/{REPOSITORY}#4@{sha(1)}"
    assert config_of(request) == {
        "region_ids": [f"y{row}_x{col}" for row in (12, 13, 14) for col in (3, 4, 5, 6, 7)],
        "wipe": True,
        "write_regional_stats": True,
    }
    assert (request.tags["ocr/github_ref"], request.tags["ocr/environment"]) == ("4", "qa")


@pytest.mark.parametrize(
    ("chosen", "config"),
    [
        (("y14_x5", "y13_x5"), {"region_ids": ["y14_x5", "y13_x5"]}),
        (("all",), {"all_region_ids": True}),
    ],
)
def test_the_regions_may_be_chosen(
    server: GitHubServer,
    instance: dg.DagsterInstance,
    chosen: tuple[str, ...],
    config: dict[str, Any],
) -> None:
    server.pulls = [pull(4, sha(1), "e2e")]
    deployment = deployment_of(server, deploy_region_ids=chosen)
    (request,) = requests(tick(deployment, instance))
    assert config_of(request).items() >= config.items()
    assert "region_ids" in config_of(request) or "all_region_ids" in config_of(request)


def test_a_region_that_is_none_fails_the_tick(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    server.pulls = [pull(4, sha(1), "e2e")]
    deployment = deployment_of(server, deploy_region_ids=("y99_x99",))
    with pytest.raises(ValueError, match="y99_x99"):
        tick(deployment, instance)


# --- what goes wrong


def test_what_passes_by_itself_is_skipped(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(4, sha(1), "e2e")]
    for mood in (says(500), says(502)):
        server.moods = [mood]
        result = tick(deployment, instance)
        assert "answers 50" in reason(result)
        assert result.cursor
        assert len(requests(tick(deployment, instance, result.cursor))) == 1


def test_what_a_person_has_to_mend_fails_the_tick(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    wrong = deployment_of(server, "production", github_token=SecretStr("expired"))
    first = tick(wrong, instance)
    assert "set OCR_GITHUB_TOKEN to a token that is valid" in reason(first)
    with pytest.raises(UnauthorizedError, match="OCR_GITHUB_TOKEN"):
        tick(wrong, instance, first.cursor)
    # Published while the token was wrong.
    server.releases = [release(7, "v1.2.3", SOON)]
    right = deployment_of(server, "production")
    assert len(requests(tick(right, instance, first.cursor))) == 1


def test_a_limit_is_waited_for_without_asking(
    server: GitHubServer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(4, sha(1), "e2e")]
    server.moods = [says(403, "API rate limit exceeded", **limit(0, 600))]
    limited = tick(deployment, instance)
    assert "rate limited until" in reason(limited)
    waiting = tick(deployment, instance, limited.cursor)
    assert "GitHub asked to wait" in reason(waiting)
    assert waiting.cursor is None, "the cursor stays as it is"
    assert len(server.asked) == 1
    now = time.time()
    monkeypatch.setattr("sensors.github.time.time", lambda: now + 700)
    assert len(requests(tick(deployment, instance, limited.cursor))) == 1


def test_the_pause_that_the_server_wants_is_kept(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server)
    server.poll_interval = 300
    first = tick(deployment, instance)
    assert reason(first) == "nothing new"
    assert "GitHub asked to wait for 300 s" in reason(tick(deployment, instance, first.cursor))


def test_a_tag_that_is_no_version_is_told(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server, "production")
    server.releases = [release(7, "nightly", SOON)]
    told = reason(tick(deployment, instance))
    assert told == "nothing new; release 'nightly' is not a semantic version"


# --- what is stopped


def enqueue(
    instance: dg.DagsterInstance,
    deployment: Deployment,
    request: dg.RunRequest,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.QUEUED,
) -> str:
    """The run that the daemon makes of a request."""
    run = instance.create_run_for_job(
        build_defs(deployment).get_job_def(DEPLOY_JOB),
        run_config=request.run_config,
        tags={**request.tags, "dagster/run_key": str(request.run_key)},
        status=status,
        remote_job_origin=ORIGIN,
    )
    return run.run_id


def statuses(instance: dg.DagsterInstance, *run_ids: str) -> list[str]:
    runs = [instance.get_run_by_id(run_id) for run_id in run_ids]
    return [run.status.value for run in runs if run]


def test_what_waits_is_stopped_when_it_is_no_longer_wanted(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(number, sha(number), "e2e") for number in (1, 2, 3, 4)]
    first = tick(deployment, instance)
    running, closed, unlabelled, updated = (
        enqueue(
            instance,
            deployment,
            request,
            dg.DagsterRunStatus.STARTED if index == 0 else dg.DagsterRunStatus.QUEUED,
        )
        for index, request in enumerate(requests(first))
    )
    # Of another environment that shares the instance.
    staging = deployment_of(server, "staging")
    server.push(sha(1), SOON)
    (pushed,) = requests(tick(staging, instance))
    other = enqueue(instance, staging, pushed)

    server.pulls = [pull(3, sha(3)), pull(4, sha(5), "QA/QC")]
    second = tick(deployment, instance, first.cursor)
    (request,) = requests(second)
    assert request.run_key == f"pull_request/{REPOSITORY}#4@{sha(5)}"
    assert statuses(instance, running, closed, unlabelled, updated, other) == [
        "STARTED",
        "CANCELED",
        "CANCELED",
        "CANCELED",
        "QUEUED",
    ]
    assert reason(tick(deployment, instance, second.cursor)) == "nothing new"


def test_what_was_stopped_and_is_wanted_again_is_another_attempt(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(1, sha(1), "e2e")]
    first = tick(deployment, instance)
    (request,) = requests(first)
    waiting = enqueue(instance, deployment, request)
    server.pulls = []
    closed = tick(deployment, instance, first.cursor)
    assert reason(closed).endswith("stopped 1 deployments that waited and are no longer wanted")
    assert statuses(instance, waiting) == ["CANCELED"]
    server.pulls = [pull(1, sha(1), "e2e")]
    reopened = tick(deployment, instance, closed.cursor)
    (again,) = requests(reopened)
    assert again.run_key == f"{request.run_key}:attempt-2"
    assert again.tags == request.tags
    # However often that tick is taken.
    assert requests(tick(deployment, instance, closed.cursor)) == [again]
    enqueue(instance, deployment, again)
    assert requests(tick(deployment, instance, closed.cursor)) == [again]
    assert reason(tick(deployment, instance, reopened.cursor)) == "nothing new"


def test_a_newer_push_stops_the_one_that_waits(
    server: GitHubServer, instance: dg.DagsterInstance
) -> None:
    deployment = deployment_of(server, "staging")
    server.push(sha(1), SOON)
    first = tick(deployment, instance)
    waiting = enqueue(instance, deployment, requests(first)[0])
    server.moods = [says(500)]
    assert "answers 500" in reason(tick(deployment, instance, first.cursor))
    assert statuses(instance, waiting) == ["QUEUED"], "not known to be superseded"
    server.push(sha(2), LONG_AGO)
    (request,) = requests(tick(deployment, instance, first.cursor))
    assert request.run_key == f"push/{REPOSITORY}@main/{sha(2)}"
    assert statuses(instance, waiting) == ["CANCELED"]


def test_releases_are_never_stopped(server: GitHubServer, instance: dg.DagsterInstance) -> None:
    deployment = deployment_of(server, "production")
    server.releases = [release(7, "v1.2.3", SOON)]
    first = tick(deployment, instance)
    waiting = enqueue(instance, deployment, requests(first)[0])
    server.releases = []
    assert reason(tick(deployment, instance, first.cursor)) == "nothing new"
    assert statuses(instance, waiting) == ["QUEUED"]


def test_the_token_is_told_to_nobody(server: GitHubServer, instance: dg.DagsterInstance) -> None:
    deployment = deployment_of(server)
    server.pulls = [pull(1, sha(1), "e2e")]
    result = tick(deployment, instance)
    (request,) = requests(result)
    told = [result.cursor, request.run_config, request.tags, request.run_key]
    assert TOKEN not in json.dumps(told)
    assert TOKEN not in repr(build_defs(deployment).resources["deployment"])
    assert server.asked[0].token == TOKEN
