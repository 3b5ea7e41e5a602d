"""The job on dagster-dask's executor: what it does, and what that executor is never given."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster_dask import dask_executor
from sample_worlds import World

from ocr_assets.dask_jobs import own_dask_cluster, require_sound_dask_jobs
from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from resources.io_managers import StoredTable
from resources.settings import Settings

ARCHIVES = {"regional_pmtiles", "building_pmtiles", "building_centroid_pmtiles"}
OWN = own_dask_cluster(2)


@dg.asset
def plain() -> None: ...


@dg.asset(pool="somewhere")
def pooled() -> None: ...


@dg.asset(deps=[plain])
def later() -> None: ...


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
def retried() -> None: ...


@dg.asset_check(asset=plain)
def looked_at() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def definitions(
    *assets: dg.AssetsDefinition,
    executor: dg.ExecutorDefinition = OWN,
    retry: dg.RetryPolicy | None = None,
    checks: tuple[dg.AssetChecksDefinition, ...] = (),
) -> dg.Definitions:
    """Definitions with one job of these assets."""
    job = dg.define_asset_job(
        "job", dg.AssetSelection.assets(*assets), executor_def=executor, op_retry_policy=retry
    )
    known = {asset.key: asset for asset in (plain, *assets)}
    return dg.Definitions(assets=list(known.values()), asset_checks=checks, jobs=[job])


def test_independent_assets_are_accepted() -> None:
    found = definitions(plain, pooled, executor=dg.in_process_executor)
    assert require_sound_dask_jobs(found) is found
    found = definitions(plain)
    assert require_sound_dask_jobs(found) is found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param(definitions(pooled), "'pooled' waits in pool 'somewhere'", id="pool"),
        pytest.param(definitions(plain, later), "'later' comes after another", id="chain"),
        pytest.param(definitions(retried), "'retried' has a retry policy", id="retries"),
        pytest.param(
            definitions(plain, retry=dg.RetryPolicy()), "'plain' has a retry", id="job retries"
        ),
        pytest.param(
            definitions(plain, checks=(looked_at,)), "comes after another step", id="check"
        ),
        pytest.param(
            definitions(plain, executor=dask_executor),
            "a cluster that other runs may use, where it would do the work of one run only",
            id="any cluster",
        ),
        pytest.param(
            definitions(
                plain,
                executor=dask_executor.configured(
                    {"cluster": {"existing": {"address": "tcp://127.0.0.1:8786"}}}
                ),
            ),
            "a cluster that other runs may use",
            id="a scheduler's address",
        ),
        pytest.param(
            dg.Definitions(assets=[plain], executor=dask_executor),
            "cannot be the default executor",
            id="default executor",
        ),
    ],
)
def test_what_the_executor_would_pass_over_is_refused(found: dg.Definitions, message: str) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        require_sound_dask_jobs(found)


def test_the_graph_has_one_such_job_and_its_assets_have_no_pool() -> None:
    found = build_defs(Deployment(Settings(storage_root="/nowhere")))
    graph = found.resolve_asset_graph()
    (job,) = [job for job in found.jobs or () if job.name == "vector_tiles_on_dask"]
    keys = job.selection.resolve(graph)
    assert {key.to_user_string() for key in keys} == ARCHIVES
    assert not any(graph.get(key).pools for key in keys)


@pytest.fixture
def instance(finished_copy: World, fresh_home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that other processes open too, in a world where everything is materialized."""
    variables = finished_copy.variables()
    shutil.copytree(fresh_home, variables["DAGSTER_HOME"], dirs_exist_ok=True)
    os.environ.update(variables, OCR_PLATFORM="dask")
    with dg.DagsterInstance.get() as found:
        yield found


def test_the_archives_are_made_by_other_processes(
    instance: dg.DagsterInstance, finished_copy: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("tiles were made by the run's own process")

    monkeypatch.setattr(StoredTable, "sources", fail)
    storage = finished_copy.deployment().storage
    before = {info.key: info.etag for info in storage.list("pmtiles")}
    for key in before:
        storage.delete(key)
    job = ReconstructableRepository.for_module(
        "ocr_assets.definitions", "defs", str(finished_copy.folder)
    ).get_reconstructable_job("vector_tiles_on_dask")
    with dg.execute_job(job, instance) as result:
        assert result.success
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    made = [entry.asset_materialization for entry in instance.all_logs(result.run_id, kind)]
    assert sorted(each.asset_key.to_user_string() for each in made if each) == sorted(ARCHIVES)
    assert {info.key for info in storage.list("pmtiles")} == before.keys()
    starts = instance.all_logs(result.run_id, dg.DagsterEventType.STEP_START)
    assert {entry.step_key for entry in starts} == ARCHIVES

    with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entry"):
        dg.execute_job(
            job,
            instance,
            run_config={
                "execution": {"config": {"cluster": {"existing": {"address": "tcp://x:1"}}}}
            },
        ).__enter__()
