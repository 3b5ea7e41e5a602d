"""Alerts: what is told, once; and that nothing a webhook does fails the sensor."""

from __future__ import annotations

import html
import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from sample_worlds import World, execute
from webhook_server import SECRET, WebhookServer

from ocr_assets import deployment_runs, launch
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.deployment_runs import DEPLOY_JOB, DEPLOYMENT_TAG, DeployConfig, deployment_request
from ocr_assets.partitions import (
    PARTITION,
    RANGE_END,
    RANGE_START,
    TILES,
    reading_tags,
    tile_year_tags,
)
from ocr_assets.sample.imagery import DEFAULT_TILES
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.requests import read_request
from resources.settings import Settings
from sensors.alerts import ALERTED_TAG, ATTEMPTS, alert_sensors
from sensors.retries import FAILED_TILES

WEST, EAST = map(Tile.parse, DEFAULT_TILES)
BP_30M = "riley-et-al-2025-2011-30m-4326"


@pytest.fixture
def webhook() -> Iterator[WebhookServer]:
    with WebhookServer().running() as running:
        yield running


def with_webhook(world: World, webhook: WebhookServer, **settings: Any) -> Deployment:
    deployment = world.deployment(**settings)
    secret = {"alert_webhook_url": SecretStr(webhook.url)}
    return Deployment(deployment.settings.model_copy(update=secret))


def tick(
    deployment: Deployment, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[str, str]:
    """One evaluation: what the UI says of it, and the cursor that it stores."""
    (sensor,) = alert_sensors(deployment.settings)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"deployment": deployment}
    ) as context:
        result: Any = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    assert result.skip_reason
    assert result.cursor
    return str(result.skip_reason.skip_message), result.cursor


def ended(
    instance: dg.DagsterInstance,
    *,
    failed: bool = True,
    tags: Mapping[str, str] | None = None,
    job: str = "job",
) -> str:
    """A run that has ended."""

    @dg.job(name=job)
    def empty() -> None: ...

    run = instance.create_run_for_job(empty, tags=dict(tags or {}))
    if failed:
        instance.report_run_failed(run)
    else:
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job), run.run_id
        )
    return run.run_id


def killed(
    instance: dg.DagsterInstance,
    assets: Sequence[Sequence[str]],
    tags: Mapping[str, str],
    job: str = "job",
) -> None:
    """A run of assets, if it names any, that failed and said nothing."""

    @dg.job(name=job)
    def empty() -> None: ...

    run = instance.create_run_for_job(empty, tags=dict(tags))
    if assets:
        chosen = frozenset(dg.AssetKey(list(path)) for path in assets)
        run = instance.add_run(run._replace(run_id=str(uuid.uuid4()), asset_selection=chosen))
    instance.report_run_failed(run)


def test_without_a_webhook_there_is_no_sensor(webhook: WebhookServer, world: World) -> None:
    assert alert_sensors(Settings(storage_root="/nowhere")) == []
    (sensor,) = alert_sensors(with_webhook(world, webhook).settings)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_a_failed_deployment_names_its_regions_and_their_command(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.0)
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    config = DeployConfig(region_ids=["y0_x0", "y0_x1"], version="1.2.3", process_retries=0)
    request = deployment_request(deployment.settings, config)
    result = (
        build_defs(deployment)
        .get_job_def(DEPLOY_JOB)
        .execute_in_process(
            instance=instance,
            run_config=request.run_config,
            tags=dict(request.tags),
            raise_on_error=False,
        )
    )
    assert not result.success
    assert tick(deployment, instance, cursor)[0] == "told of 1 runs"
    (message,) = webhook.told
    assert message["text"] == "ocr qa: 1 failed"
    what, command = (block["text"]["text"] for block in message["blocks"])
    head, reason, run, partitions = what.splitlines()
    assert head == "*Failed: deployment to qa v1.2.3*"
    assert reason.startswith("1 of 2 regions failed (y0_x1): y0_x1: riley")
    assert run == f"run `{result.run_id}`"
    assert partitions == "1 partitions: y0_x1"
    assert command == (
        "try exactly these again: "
        "`ocr deploy run --environment qa --version 1.2.3 --region-id y0_x1`"
    )


def test_a_finished_deployment_is_told(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deployment_runs, "materialize_deployment", lambda *_, **__: None)
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    request = deployment_request(deployment.settings, DeployConfig(all_region_ids=True))
    job = build_defs(deployment).get_job_def(DEPLOY_JOB)
    result = job.execute_in_process(
        instance=instance, run_config=request.run_config, tags=dict(request.tags)
    )
    ended(instance, failed=False)
    assert tick(deployment, instance, cursor)[0] == "told of 1 runs"
    assert webhook.told[0]["text"] == "ocr qa: deployment finished"
    assert "*Deployed qa dev* in 0." in webhook.text
    assert result.run_id in webhook.text


def test_a_failed_backfill_of_regions(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    deployment = with_webhook(world, webhook, environment="staging", version="1.0.0", revision=2)
    deployment.regions.initialize(deployment.template)
    _, cursor = tick(deployment, instance)
    execute(deployment, launch.REGION_ASSETS, instance, regions=("y0_x0", "y0_x2"))
    tick(deployment, instance, cursor)
    assert "*Failed: region_buildings, region_risk*" in webhook.text
    assert "1 of 3 regions failed; y0_x1: riley" in webhook.text
    place = "OCR_ENVIRONMENT=staging OCR_VERSION=1.0.0 OCR_REVISION=2"
    assert f"again: `{place} ocr run --region-id y0_x1`" in webhook.text


def test_a_killed_run_names_all_its_partitions(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    job = build_defs(deployment).resolve_implicit_global_asset_job_def()
    for assets, tags in (
        (
            ["region_risk", "region_buildings"],
            {
                "dagster/asset_partition_range_start": "y0_x1",
                "dagster/asset_partition_range_end": "y0_x3",
            },
        ),
        (["volume_lines", "volume_text"], reading_tags("printed-unicode", "W1-I1")),
    ):
        selection = {dg.AssetKey(asset) for asset in assets}
        run = instance.create_run_for_job(
            job.get_subset(asset_selection=selection), asset_selection=selection, tags=tags
        )
        instance.report_run_failed(run)
    assert tick(deployment, instance, cursor)[0] == "told of 2 runs"
    assert "3 partitions: y0_x1, y0_x2, y0_x3" in webhook.text
    assert "ocr run --region-id y0_x1 --region-id y0_x2 --region-id y0_x3`" in webhook.text
    assert "1 partitions: printed-unicode|W1-I1" in webhook.text
    assert "ocr volumes run --type printed-unicode W1-I1`" in webhook.text
    assert "the run was killed, or failed before its first step" in webhook.text


@pytest.mark.parametrize(
    ("job", "assets", "tags", "partitions", "sources"),
    [
        # One tile that was asked for, of the job of requests, which names no assets.
        ("requested_tiles", (), tile_year_tags(2023, WEST), 1, "sentinel1,sentinel2,tree_cover"),
        ("requested_terrain", (), {"dagster/partition": WEST.key}, 1, "elevation"),
        # A range of a backfill.
        (
            "job",
            ("sentinel2",),
            {
                "dagster/asset_partition_range_start": f"{WEST.key}|2023",
                "dagster/asset_partition_range_end": f"{EAST.key}|2023",
            },
            None,
            "sentinel2",
        ),
    ],
    ids=["request", "terrain", "range"],
)
def test_tiles_are_tried_again_by_a_table(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    job: str,
    assets: tuple[str, ...],
    tags: dict[str, str],
    partitions: int | None,
    sources: str,
) -> None:
    instance.add_dynamic_partitions(str(TILES.name), [WEST.key, EAST.key])
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    killed(instance, [[asset] for asset in assets], tags, job=job)
    assert tick(deployment, instance, cursor)[0] == "told of 1 runs"
    told = html.unescape(webhook.text)
    (line,) = [line for line in told.splitlines() if line.startswith("try exactly these again")]
    written, _, command = line.partition("`")[2].removesuffix("`").partition(" && ")
    assert command == f"OCR_ENVIRONMENT=qa ocr tiles run failed.csv --sources {sources} --yes"
    subprocess.run(["sh", "-c", written], cwd=tmp_path, check=True)
    found = read_request(tmp_path / "failed.csv", TileGrid.load())
    assert not found.problems
    tiles = {tile.key for _, tile in found}
    if partitions is None:
        # Dagster keeps the keys of a range tile by tile, with all years between.
        assert tiles == {WEST.key, EAST.key}
        assert {(2023, WEST), (2023, EAST)} <= set(found)
    else:
        assert (len(found), tiles) == (partitions, {WEST.key})


@pytest.mark.parametrize(
    ("assets", "options"),
    [
        ([["wind", "region_risk"]], " --risk-type wind`"),
        ([["region_risk"], ["wind", "region_risk"]], " --risk-type all`"),
    ],
    ids=["wind", "both"],
)
def test_regions_are_tried_again_for_their_types_of_risk(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    assets: list[list[str]],
    options: str,
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    killed(instance, assets, {PARTITION: "y0_x1"})
    tick(deployment, instance, cursor)
    assert f"`OCR_ENVIRONMENT=qa ocr run --region-id y0_x1{options}" in webhook.text


def test_a_command_is_told_whole_or_not_at_all(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    """One that a section has no room for would be cut within its quotes."""
    tiles = [f"{x}X727Y" for x in range(1000, 1200)]
    instance.add_dynamic_partitions(str(TILES.name), tiles)
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    for last in (tiles[10], tiles[-1]):
        killed(instance, [["elevation"]], {RANGE_START: tiles[0], RANGE_END: last})
    tick(deployment, instance, cursor)
    _, short, head, long = (block["text"]["text"] for block in webhook.told[0]["blocks"])
    assert f"2015,1010,727\\n' > {FAILED_TILES} && OCR_ENVIRONMENT=qa ocr" in html.unescape(short)
    assert "200 partitions: 1000X727Y, 1001X727Y" in head
    assert long.startswith("too many to name in one command; try them again by `ocr tiles retry ")


def test_each_run_is_told_once(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    deployment = with_webhook(world, webhook)
    ended(instance)
    begun, cursor = tick(deployment, instance)
    assert begun == "telling what happens from now on"
    assert tick(deployment, instance, cursor)[0] == "nothing to tell"
    run_id = ended(instance)
    told, after = tick(deployment, instance, cursor)
    assert told == "told of 1 runs"
    assert tick(deployment, instance, after)[0] == "nothing to tell"
    # The daemon was killed before it stored the tick: the run remembers.
    assert tick(deployment, instance, cursor)[0] == "nothing to tell"
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[ALERTED_TAG] == "true"
    assert len(webhook.told) == 1


def test_runs_that_are_not_the_end_are_not_told(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    ended(instance, tags={DEPLOYMENT_TAG: "the run that tells of it"})
    ended(instance, failed=False, job=DEPLOY_JOB, tags={DEPLOYMENT_TAG: "the same"})
    ended(instance, failed=False)
    assert tick(deployment, instance, cursor)[0] == "nothing to tell"
    assert webhook.told == []


def test_many_failures_are_one_message_at_a_time(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sensors.alerts.RUNS_AT_ONCE", 3)
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    runs = [ended(instance) for _ in range(5)]
    ended(instance, failed=False, job=DEPLOY_JOB)
    first, cursor = tick(deployment, instance, cursor)
    second, cursor = tick(deployment, instance, cursor)
    assert (first, second) == ("told of 3 runs", "told of 3 runs")
    assert [message["text"] for message in webhook.told] == [
        "ocr qa: 3 failed",
        "ocr qa: 2 failed, deployment finished",
    ]
    assert [webhook.text.count(run_id) for run_id in runs] == [1] * len(runs)


def test_a_webhook_that_is_down_is_tried_a_few_times(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    ended(instance)
    clock = time.time()
    monkeypatch.setattr("sensors.alerts.time.time", lambda: clock)
    webhook.answers = [(500, {}), (429, {"Retry-After": "500"}), (500, {}), (500, {}), (500, {})]
    pauses = []
    for attempt in range(1, ATTEMPTS):
        told, cursor = tick(deployment, instance, cursor)
        assert told.endswith(f"attempt {attempt} of {ATTEMPTS}")
        pauses.append(round(json.loads(cursor)["not_before"] - clock))
        assert "is tried again in" in tick(deployment, instance, cursor)[0]
        clock += pauses[-1] + 1
    assert pauses == [60, 500, 180, 240]
    told, cursor = tick(deployment, instance, cursor)
    assert told == "the webhook answers 500; given up after 5 attempts"
    assert (webhook.refused, webhook.told) == (ATTEMPTS, [])
    # What comes after is told.
    later = ended(instance)
    assert tick(deployment, instance, cursor)[0] == "told of 1 runs"
    assert later in webhook.text


def test_a_message_that_came_through_late_is_told_once(
    world: World,
    webhook: WebhookServer,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    ended(instance)
    webhook.answers = [(503, {})]
    _, cursor = tick(deployment, instance, cursor)
    now = time.time()
    monkeypatch.setattr("sensors.alerts.time.time", lambda: now + 61)
    told, cursor = tick(deployment, instance, cursor)
    assert told == "told of 1 runs"
    assert json.loads(cursor)["attempts"] == 0
    assert tick(deployment, instance, cursor)[0] == "nothing to tell"


def test_a_damaged_cursor_begins_anew(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    told, _ = tick(with_webhook(world, webhook), instance, '{"v": 7}')
    assert told == "telling what happens from now on"


def test_the_address_is_told_to_nobody(
    world: World, webhook: WebhookServer, instance: dg.DagsterInstance
) -> None:
    deployment = with_webhook(world, webhook)
    _, cursor = tick(deployment, instance)
    run_id = ended(instance)
    webhook.answers = [(500, {})]
    said, cursor = tick(deployment, instance, cursor)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    events = [entry.to_json() for entry in instance.all_logs(run_id)]
    assert SECRET not in json.dumps([said, cursor, run.tags, events])
