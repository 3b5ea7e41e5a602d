"""Jobs whose steps are tasks of dagster-dask's executor, and the refusal of jobs it cannot run.

Belongs here: the one way that executor is used, and what it is not used for. Partitions fan out by
:mod:`resources.cluster` instead.

What the executor of dagster-dask gets wrong without saying so, and why none of it can happen here:

- at a scheduler that others use, tasks of two runs have the same name and only one of them is
  executed: the executor is fixed to a cluster of its own, and accepts no configuration;
- retry policies are passed over, a step is executed although the step before it failed, and a pool
  ends the run: a job that has one of these is refused when the definitions are loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.dependency import NodeHandle

from resources.cluster import usable_cores
from resources.settings import Settings

VECTOR_TILES = dg.AssetSelection.assets(
    "regional_pmtiles", "building_pmtiles", "building_centroid_pmtiles"
)
_OWN_CLUSTER = "dask_on_this_machine"


def own_dask_cluster(workers: int) -> dg.ExecutorDefinition:
    """The executor of dagster-dask with a cluster of its own on this machine, and no other."""
    cluster = {
        "n_workers": workers,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "worker_dashboard_address": "127.0.0.1:0",
        # Each step is a process of this cluster already.
        "env": {"OCR_PLATFORM": "local"},
        "silence_logs": logging.ERROR,  # it tells that it cannot size what Dagster hands over
    }

    @dg.executor(
        name=_OWN_CLUSTER,
        config_schema={},
        requirements=dg.multiple_process_executor_requirements(),
    )
    def make(_: dg.InitExecutorContext) -> dg.Executor:
        # Importing it takes as long as the rest of the definitions, and only this job needs it.
        from dagster_dask.executor import DaskExecutor

        return DaskExecutor("local", cluster)

    return make


def vector_tiles_job(settings: Settings) -> Any:
    """The three archives of vector tiles at the same time, each in a process of its own."""
    return dg.define_asset_job(
        "vector_tiles_on_dask",
        selection=VECTOR_TILES,
        executor_def=own_dask_cluster(min(settings.workers or 3, usable_cores(), 3)),
        description=(
            "Makes the regional, building and centroid tiles side by side, on a Dask cluster of "
            "its own on this machine."
        ),
    )


def require_sound_dask_jobs(definitions: dg.Definitions) -> dg.Definitions:
    """The same definitions, if the executor of dagster-dask can run each job that is given it.

    Raises:
        dg.DagsterInvalidDefinitionError: a job would not do what it says; the message names it.
    """
    if _is_dask(definitions.executor):
        raise dg.DagsterInvalidDefinitionError(
            "dagster-dask's executor cannot be the default executor: partitions fan out by "
            "OCR_PLATFORM=dask; give the executor to single jobs with own_dask_cluster"
        )
    for job in definitions.jobs or ():
        executor = job.executor_def
        if executor is None or not _is_dask(executor):
            continue
        if executor.name != _OWN_CLUSTER:
            raise dg.DagsterInvalidDefinitionError(
                f"job {job.name!r} has dagster-dask's executor with a cluster that other runs may "
                "use, where it would do the work of one run only; give it own_dask_cluster"
            )
        for reason in _unsupported(definitions.resolve_job_def(job.name)):
            raise dg.DagsterInvalidDefinitionError(
                f"job {job.name!r} has dagster-dask's executor and {reason}, which that executor "
                "does not support; use the default executor"
            )
    return definitions


def _is_dask(executor: dg.ExecutorDefinition | dg.Executor | None) -> bool:
    if not isinstance(executor, dg.ExecutorDefinition):
        return False
    made_by = executor.executor_creation_fn
    return executor.name == _OWN_CLUSTER or (
        made_by is not None and made_by.__module__.startswith("dagster_dask")
    )


def _unsupported(job: dg.JobDefinition) -> Iterator[str]:
    """What a job has that the executor ignores or fails on."""
    for step, inputs in job.dependencies.items():
        if inputs:
            yield f"step {step.name!r} comes after another step"
    for node in job.nodes:
        if job.get_retry_policy_for_handle(NodeHandle(node.name, None)) is not None:
            yield f"step {node.name!r} has a retry policy"
        if isinstance(node.definition, dg.OpDefinition) and node.definition.pool is not None:
            yield f"step {node.name!r} waits in pool {node.definition.pool!r}"
