"""Deployments as runs: what one computes and under which version, once, and one at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from engines import wait_until
from sample_worlds import World, environment

from ocr_assets import deployment_runs, launch
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment, DeploymentError
from ocr_assets.deployment_runs import (
    DEPLOY_JOB,
    DEPLOYMENT_TAG,
    WIPED_TAG,
    DeployConfig,
    deployment_request,
    retry_command,
    target,
)
from ocr_assets.releases import Releases
from resources.settings import Settings, SettingsError

BP_30M = "riley-et-al-2025-2011-30m-4326"


@pytest.fixture
def home(fresh_home: Path, tmp_path: Path) -> Path:
    """A home of this test's own."""
    return Path(shutil.copytree(fresh_home, tmp_path / "home"))


@contextmanager
def opened(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with opened(home) as made:
        yield made


def quiet(run_config: Mapping[str, Any]) -> dict[str, Any]:
    return {**run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def deploy(
    deployment: Deployment, instance: dg.DagsterInstance, **config: Any
) -> dg.ExecuteInProcessResult:
    """Execute the job as its request asks for it."""
    request = deployment_request(deployment.settings, DeployConfig(**config))
    job = build_defs(deployment).get_job_def(str(request.job_name))
    return job.execute_in_process(
        instance=instance,
        run_config=quiet(request.run_config),
        tags=dict(request.tags),
        raise_on_error=False,
    )


def children(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterRun]:
    """Runs that a deployment launched, the first first."""
    runs = instance.get_runs(dg.RunsFilter(tags={DEPLOYMENT_TAG: run_id}), ascending=True)
    return list(runs)


def selected(run: dg.DagsterRun) -> set[str]:
    return {key.to_user_string() for key in run.asset_selection or ()}


def failure_of(result: dg.ExecuteInProcessResult) -> tuple[str, dict[str, Any]]:
    """Description and metadata of the failed step."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    told = event.step_failure_data.user_failure_data
    assert told is not None
    return str(told.description), {name: value.value for name, value in told.metadata.items()}


def regions_only(launcher: launch.GraphLauncher, region_ids: Sequence[str], **_: Any) -> None:
    """What a deployment materializes, without what is made from the regions."""
    launcher.materialize_regions(region_ids)


def test_everything_is_computed_under_the_version_of_the_run(
    world: World, instance: dg.DagsterInstance
) -> None:
    """The process is loaded for another version, which stays as it was."""
    loaded = world.deployment(version="1.0.0")
    result = deploy(
        loaded,
        instance,
        region_ids=["y1_x1", "y1_x2"],
        version="v1.2.3",
        write_regional_stats=True,
        create_pyramid=True,
        publish=True,
    )
    assert result.success
    assert sorted(path.name for path in (world.root / "qa").iterdir()) == [
        "icechunk",
        "latest.json",
        "releases",
        "v1.2.3",
    ]
    assert Releases.of(loaded.settings).current() == "v1.2.3"
    made = world.deployment(version="1.2.3")
    assert set(made.current_ledger()) == {"y1_x1", "y1_x2"}
    assert loaded.current_ledger() == {}
    for key in ("statistics/nation.parquet.lineage.json", "pyramid/current.json"):
        assert json.loads(made.storage.read_bytes(key))["version"] == "v1.2.3"
    manifest = made.storage.manifest("buildings")
    assert manifest is not None
    assert manifest.metadata["version"] == "v1.2.3"

    launched = children(instance, result.run_id)
    assert [run.status.value for run in launched] == ["SUCCESS"] * len(launched)
    assert selected(launched[0]) == {"region_template"}
    assert selected(launched[1]) == {"region_risk", "region_buildings"}
    assert {run.tags["ocr/version"] for run in launched} == {"v1.2.3"}
    coordinator = instance.get_run_by_id(result.run_id)
    assert coordinator is not None
    assert coordinator.tags["ocr/version"] == "v1.2.3"
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert output.step_output_data.metadata["published"].value == "v1.2.3"

    # The same release asked for again: nothing is computed, readers are given it again.
    Releases.of(loaded.settings).root.delete(["latest.json"])
    again = deploy(loaded, instance, all_region_ids=True, version="1.2.3", publish=True)
    assert again.success
    assert children(instance, again.run_id) == []
    assert Releases.of(loaded.settings).current() == "v1.2.3"


def test_every_risk_type_is_deployed_in_its_turn(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_runs, "materialize_deployment", regions_only)
    for part in map(world.deployment().of, ("fire", "wind")):
        part.regions.initialize(part.template)
    result = deploy(world.deployment(), instance, region_ids=["y1_x1"], risk_types=["fire", "wind"])
    assert result.success
    assert [selected(run) for run in children(instance, result.run_id)] == [
        {"region_risk", "region_buildings"},
        {"wind/region_risk", "wind/region_buildings"},
    ]
    assert set(world.deployment().of("wind").ledger()) == {"y1_x1"}


def test_a_wipe_happens_once_however_often_it_is_attempted(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = world.deployment()
    deployment.regions.initialize(deployment.template)
    wiped: list[set[str]] = []
    wipe = Deployment.wipe

    def counted(self: Deployment) -> None:
        wiped.append(set(self.ledger()))
        wipe(self)

    monkeypatch.setattr(Deployment, "wipe", counted)
    monkeypatch.setattr(deployment_runs, "materialize_deployment", regions_only)
    first = deploy(deployment, instance, region_ids=["y1_x1"], wipe=True)
    assert first.success
    assert wiped == [set()]
    assert set(deployment.ledger()) == {"y1_x1"}

    job = build_defs(deployment).get_job_def(DEPLOY_JOB)
    parent = instance.get_run_by_id(first.run_id)
    assert parent is not None
    retry = instance.create_run_for_job(
        job,
        run_config=parent.run_config,
        tags=parent.tags,
        parent_run_id=first.run_id,
        root_run_id=first.run_id,
    )
    execute_run(InMemoryJob(job), retry, instance)
    assert len(wiped) == 1
    assert instance.get_run_by_id(retry.run_id).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
    # Opened in the launchpad from the first one, with its tags, it is another deployment.
    assert parent.tags[WIPED_TAG] == first.run_id
    copied = job.execute_in_process(
        instance=instance, run_config=dict(parent.run_config), tags=dict(parent.tags)
    )
    assert copied.success
    assert wiped == [set(), {"y1_x1"}]


def test_a_failure_names_its_regions_and_the_command_that_retries_them(
    world: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.0)
    world.doctor_region(BP_30M, "BP", "y0_x1", 2.0)
    result = deploy(
        world.deployment(),
        instance,
        region_ids=["y0_x0", "y0_x1", "y0_x2"],
        version="1.2.3",
        write_regional_stats=True,
        process_retries=1,
    )
    assert not result.success
    description, metadata = failure_of(result)
    command = (
        "ocr deploy run --environment qa --version 1.2.3 --region-id y0_x1 --write-regional-stats"
    )
    assert description.startswith("1 of 3 regions failed (y0_x1): y0_x1: riley")
    assert description.endswith(f"try those again with: {command}")
    assert metadata == {"failed": ["y0_x1"], "retry": command}
    assert set(world.deployment(version="1.2.3").current_ledger()) == {"y0_x0", "y0_x2"}
    attempts = [run for run in children(instance, result.run_id) if "region_risk" in selected(run)]
    assert [run.status.value for run in attempts] == ["FAILURE", "FAILURE"]


AT_WORK = """
import sys
import dagster as dg
from ocr_assets import deployment_runs
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from resources.settings import load_settings

def compute(launcher, *_, **__):
    print("at work", flush=True)
    sys.stdin.readline()

deployment_runs.materialize_deployment = compute
deployment = Deployment(load_settings())
config = deployment_runs.DeployConfig(region_ids=["y0_x0"])
request = deployment_runs.deployment_request(deployment.settings, config)
with dg.DagsterInstance.get() as instance:
    build_defs(deployment).get_job_def(request.job_name).execute_in_process(
        instance=instance, run_config=request.run_config
    )
"""
"""A deployment that is at work until it is told to end."""


def test_an_environment_has_one_deployment_at_a_time(world: World, home: Path) -> None:
    """Two are started: the second waits for the place of the first in the pool."""
    variables = environment({**world.variables(), "DAGSTER_HOME": str(home)})

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", AT_WORK],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    with opened(home) as instance, start() as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "at work\n"
        with start() as second:
            storage = instance.event_log_storage

            def one_waits() -> bool:
                assert second.poll() is None
                return storage.get_concurrency_info("deployment_qa").pending_step_count > 0

            wait_until("the second deployment to wait", one_waits, 120)
            first.communicate("end\n", timeout=120)
            assert second.stdout is not None
            assert second.stdout.readline() == "at work\n"
            second.communicate("end\n", timeout=120)
        earlier, later = instance.get_runs(dg.RunsFilter(job_name=DEPLOY_JOB), ascending=True)
        assert [earlier.status.value, later.status.value] == ["SUCCESS", "SUCCESS"]

        def when(run: dg.DagsterRun, kind: dg.DagsterEventType) -> float:
            return instance.all_logs(run.run_id, of_type=kind)[0].timestamp

        begun, ended = dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS
        assert when(earlier, begun) < when(earlier, ended) <= when(later, begun)
        assert storage.get_concurrency_info("deployment_qa").active_run_ids == set()


def test_environments_have_pools_of_their_own(world: World) -> None:
    for name in ("qa", "staging"):
        deployment = world.deployment(environment=name)
        op = build_defs(deployment).get_job_def(DEPLOY_JOB).get_node_named("deploy").definition
        assert isinstance(op, dg.OpDefinition)
        assert op.pool == f"deployment_{name}"


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, DeploymentError, "one of the two"),
        ({"region_ids": ["y0_x0"], "all_region_ids": True}, DeploymentError, "one of the two"),
        ({"region_ids": ["y9_x99"]}, ValueError, "y9_x99"),
        ({"all_region_ids": True, "version": "1.2"}, SettingsError, "not a semantic version"),
        ({"all_region_ids": True, "wipe": True}, DeploymentError, "production is never wiped"),
        ({"all_region_ids": True, "process_retries": -1}, ValueError, "greater than or equal"),
        ({"all_region_ids": True, "risk_types": ["hail"]}, DeploymentError, "no risk type 'hail'"),
        ({"all_region_ids": True, "risk_types": []}, DeploymentError, "name a type of risk"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before(
    config: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings = Settings(storage_root="/nowhere", environment="production", version="1.0.0")
    with pytest.raises(error, match=message):
        deployment_request(settings, DeployConfig(**config))


def test_a_version_of_the_run_begins_with_its_first_revision() -> None:
    settings = Settings(storage_root="/nowhere", version="1.0.0", revision=3)
    everything = {"all_region_ids": True}
    for config, label in (
        ({}, "v1.0.0_r3"),
        ({"revision": 4}, "v1.0.0_r4"),
        ({"version": "1.1.0"}, "v1.1.0"),
        ({"version": "1.1.0", "revision": 2}, "v1.1.0_r2"),
    ):
        found = target(settings, DeployConfig(**everything, **config))  # type: ignore[arg-type]
        assert found.settings.version_label == label


def test_the_command_that_retries_is_one_of_a_shell() -> None:
    settings = Settings(storage_root="/nowhere", environment="staging", version="1.0.0", revision=2)
    config = DeployConfig(all_region_ids=True, create_pyramid=True, publish=True, wipe=True)
    assert retry_command(settings, ["y1_x1", "y1_x2"], config) == (
        "OCR_REVISION=2 ocr deploy run --environment staging --version 1.0.0 --region-id y1_x1 "
        "--region-id y1_x2 --create-pyramid --publish"
    )
    for risk_types, option in ((["wind"], "wind"), (["fire", "wind"], "all")):
        command = retry_command(settings, ["y1_x1"], DeployConfig(risk_types=risk_types))
        assert command.endswith(f"--region-id y1_x1 --risk-type {option}")


def test_the_form_of_the_launchpad_explains_itself() -> None:
    fields = DeployConfig.model_fields
    assert all(field.description for field in fields.values())
    defaults = DeployConfig.to_config_schema().as_field().default_value
    assert {name for name, value in defaults.items() if value is True} == set()
    assert (defaults["region_ids"], defaults["process_retries"]) == ([], 2)
    assert defaults["version"] is None
