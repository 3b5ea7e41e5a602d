"""Secrets are used and told to nobody: every place that keeps or prints something is searched."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import dagster as dg
import pytest
from github_server import REPOSITORY, TOKEN, GitHubServer, pull, sha
from sample_worlds import Outcome, World
from webhook_server import SECRET, WebhookServer

from ocr_assets.cli.instance import instance_file
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.regions import inputs
from resources.settings import load_settings
from sensors.alerts import alert_sensors
from sensors.github import github_sensors

Ocr = Callable[..., Outcome]
BUCKET = "bucket-of-secrets"

ELSEWHERE = {
    "AWS_ACCESS_KEY_ID": "AKIA0NOBODY0MAY0SEE0",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-that-nobody-may-see",
    "AWS_SESSION_TOKEN": "aws-session-that-nobody-may-see",
    "DAGSTER_POSTGRES_PASSWORD": "postgres-password-that-nobody-may-see",
    "DASK_COILED__TOKEN": "coiled-token-that-nobody-may-see",
    "HF_TOKEN": "hub-token-that-nobody-may-see",
}
"""Secrets that are no settings of ours: other programs' variables."""

SENTINELS = (TOKEN, SECRET, "imagery-key-that-nobody-may-see", *ELSEWHERE.values())


def leaks(what: str, content: bytes | str) -> list[str]:
    """Which secrets are in a content."""
    data = content.encode() if isinstance(content, str) else content
    return [f"{secret} in {what}" for secret in SENTINELS if secret.encode() in data]


def test_a_leak_would_be_found() -> None:
    assert leaks("a log", f"GET /?key={TOKEN}") == [f"{TOKEN} in a log"]
    assert len(set(SENTINELS)) == 9


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    with GitHubServer().running() as running:
        yield running


@pytest.fixture
def webhook() -> Iterator[WebhookServer]:
    with WebhookServer().running() as running:
        yield running


@pytest.fixture
def variables(
    s3_server: str,
    github: GitHubServer,
    webhook: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """A deployment on S3 that has every secret there is."""
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=BUCKET)
    return {
        "OCR_STORAGE_ROOT": f"s3://{BUCKET}/root",
        "OCR_S3_ENDPOINT_URL": s3_server,
        "OCR_GITHUB_REPOSITORY": REPOSITORY,
        "OCR_GITHUB_API_URL": github.url,
        "OCR_GITHUB_TOKEN": TOKEN,
        "OCR_GITHUB_SINCE": "2020-01-01T00:00:00Z",
        "OCR_ALERT_WEBHOOK_URL": webhook.url,
        "OCR_SAS_SUBSCRIPTION_KEY": "imagery-key-that-nobody-may-see",
        "OCR_DEBUG": "true",
    }


def test_no_secret_is_told_anywhere(
    ocr: Ocr,
    world: World,
    variables: dict[str, str],
    github: GitHubServer,
    webhook: WebhookServer,
    s3_server: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for logger in ("ocr_assets", "resources", "sensors", "dagster", "rasterio", "icechunk"):
        caplog.set_level(logging.DEBUG, logger=logger)
    world.doctor_region(inputs.BURN_PROBABILITY_30M[2011], "BP", "y0_x1", 2.0)
    world_variables = {**variables, "OCR_CATALOG": str(world.catalog_path)}
    found: list[str] = []

    def printed(status: int, *arguments: str, **changes: str) -> None:
        done = ocr(*arguments, **{**world_variables, **changes})
        assert done.status == status, done
        found.extend(leaks(f"what ocr {' '.join(arguments)} printed", done.out + done.err))

    # What works, what fails, what tells.
    printed(0, "process-region", "y0_x0", "--debug")
    printed(1, "deploy", "run", "-r", "y0_x1", "--process-retries", "0", "--debug")
    for command in (("config",), ("config", "--json"), ("status", "--json"), ("deploy", "status")):
        printed(0, *command)
    # What is set wrongly: the secrets themselves, and something beside them.
    printed(1, "config", OCR_ENVIRONMENT="prod")
    printed(1, "config", OCR_GITHUB_TOKEN=f"{TOKEN} {TOKEN}")
    printed(1, "config", OCR_ALERT_WEBHOOK_URL=f"ftp://{SECRET}")
    printed(1, "config", OCR_SAS_SUBSCRIPTION_KEY=f"{SENTINELS[2]} é")
    for name in ("OCR_S3_ENDPOINT_URL", "OCR_STORAGE_ROOT", "OCR_GITHUB_API_URL"):
        printed(1, "config", **{name: f"https://user:{TOKEN}@host"})
    env_file = world.folder / "with-keys.env"
    env_file.write_text("\n".join(f"{name}={value}" for name, value in ELSEWHERE.items()))
    printed(1, "config", "--env-file", str(env_file))
    env_file.unlink()
    # What cannot be reached.
    printed(1, "process-region", "y0_x0", OCR_STORAGE_ROOT="s3://bucket-that-is-not-there/x")
    postgres = {
        f"DAGSTER_POSTGRES_{name}": value
        for name, value in {"HOST": "127.0.0.1", "PORT": "1", "DB": "d", "USER": "u"}.items()
    }
    postgres["DAGSTER_COMPUTE_LOGS_BUCKET"] = BUCKET
    elsewhere = str(world.folder / "on-postgres")
    chosen = {"OCR_INSTANCE_FILE": str(instance_file("deploy/dagster.yaml")), **postgres}
    printed(1, "regions", "status", DAGSTER_HOME=elsewhere, **chosen)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in world_variables.items():
            patch.setenv(name, value)
        settings = load_settings()
    deployment = Deployment(settings)
    found += leaks("the settings", f"{settings!r} {settings} {deployment!r}")
    found += leaks("the resources", repr(build_defs(deployment).resources))
    with dg.DagsterInstance.from_config(str(world.folder / "home")) as instance:
        told = told_by_sensors(deployment, instance, github, webhook)
        found += leaks("what sensors give to Dagster", told)
        runs = instance.get_runs()
        assert {run.status.value for run in runs} == {"SUCCESS", "FAILURE"}
        for run in runs:
            found += leaks(f"tags of {run.run_id}", json.dumps(run.tags))
            found += leaks(f"config of {run.run_id}", json.dumps(run.run_config))
            for entry in instance.all_logs(run.run_id):
                found += leaks(f"events of {run.run_id}", entry.to_json())

    # They were used, not merely there.
    assert {one.token for one in github.asked} == {TOKEN}
    assert webhook.told or webhook.refused

    for path in sorted(world.folder.rglob("*")):  # home with compute logs, workplace
        if path.is_file():
            found += leaks(str(path), path.read_bytes())
    client = boto3.client("s3", endpoint_url=s3_server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    assert any(key.endswith(".lineage.json") or "/regions/" in key for key in keys)
    for key in keys:
        found += leaks(key, client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    # The ledger is compressed in its store.
    found += leaks("the ledger", json.dumps(deployment.ledger()))
    found += leaks("the log", caplog.text)
    assert found == []


def told_by_sensors(
    deployment: Deployment,
    instance: dg.DagsterInstance,
    github: GitHubServer,
    webhook: WebhookServer,
) -> str:
    """What ticks of the sensors of GitHub and alerts store, with all going well and not."""
    told = []

    def tick(sensor: dg.SensorDefinition, cursor: str | None = None) -> str | None:
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"deployment": deployment}
        ) as context:
            try:
                result: Any = sensor(context)
            except Exception as error:
                told.append(repr(error))
                return cursor
        told.append(repr(result))
        return getattr(result, "cursor", None)

    github.pulls = [pull(1, sha(1), "e2e")]
    (events,) = github_sensors(deployment.settings)
    cursor = tick(events)
    for status in (500, 401):
        github.moods.append(lambda request, status=status: request.send_error(status))
    cursor = tick(events, cursor)
    tick(events, cursor)
    (alerts,) = alert_sensors(deployment.settings)
    cursor = tick(alerts)
    run = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
    webhook.answers = [(500, {})]
    beginning = json.dumps({**json.loads(cursor or "{}"), "failure": 0})
    tick(alerts, tick(alerts, beginning))
    tick(alerts, beginning)
    assert run.run_id in webhook.text
    return "\n".join(told)
