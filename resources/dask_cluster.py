"""Pieces of a run on the workers of a Dask cluster: one at an address, one made here, or Coiled's.

Belongs here: reaching or making the cluster, what its workers may be given at once, and errors in
one line. Does not belong here: what a piece of work is.

The executor of dagster-dask names its tasks after job and step, so that of several runs at one
scheduler only the first does its work. Here every task key holds the run and a random part.
"""

from __future__ import annotations

import atexit
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import psutil
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.diagnostics.plugin import WorkerPlugin

from resources.cluster import GIB, Cluster, ClusterError, Stage, WorkerLostError, usable_cores
from resources.settings import Settings

MEMORY, CORES, DISK = "ocr_memory_gib", "ocr_cores", "ocr_disk_gib"
"""Names of the resources that workers declare and pieces of work take."""

_CONNECT_SECONDS = 20
_WORKER_SECONDS = 120
_COILED_WORKERS = 4
_AHEAD = 2
"""Pieces handed over for each one that can run at once, so that no worker waits for the next."""


class DeclareResources(WorkerPlugin):
    """Lets each worker declare what it has, however it was started, unless it says so itself."""

    name = "ocr-resources"
    idempotent = True

    async def setup(self, worker: Any) -> None:
        """Declare what the worker lacks."""
        limit = worker.memory_manager.memory_limit or psutil.virtual_memory().total
        found = {
            MEMORY: limit / GIB,
            CORES: worker.state.nthreads,
            DISK: shutil.disk_usage(worker.local_directory).free / GIB,
        }
        missing = {k: v for k, v in found.items() if k not in worker.state.total_resources}
        if missing:
            await worker.set_resources(**missing)


class DaskCluster(Cluster):
    """The cluster that the settings choose, connected to or made when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: dict[str, Client] = {}
        self._made: list[Any] = []

    def map[Result](
        self,
        function: Callable[[str], Result],
        keys: Iterable[str],
        *,
        stage: Stage,
        name: str,
    ) -> Iterator[tuple[str, Result | Exception]]:
        """See :meth:`Cluster.map`."""
        waiting = iter(keys)
        first = next(waiting, None)
        if first is None:
            return
        client = self._client(stage)
        needs, at_once = _room(client, stage)
        prefix = f"{name}-{secrets.token_hex(4)}"
        running: dict[Future, str] = {}
        completed = as_completed(loop=client.loop)

        def submit(key: str) -> None:
            future = client.submit(function, key, key=f"{prefix}-{key}", resources=needs)
            running[future] = key
            completed.add(future)

        try:
            submit(first)
            for key in islice(waiting, _AHEAD * at_once - 1):
                submit(key)
            for future in completed:
                key = running.pop(future)
                yield key, _outcome(future, key, stage)
                future.release()
                for following in islice(waiting, 1):
                    submit(following)
        finally:
            # A cluster that is gone has dropped its tasks already.
            with suppress(Exception):
                client.cancel(list(running), force=True, reason="the run has ended")

    def close(self) -> None:
        """See :meth:`Cluster.close`. Only clusters that were made here are ended."""
        atexit.unregister(self.close)
        clients, self._clients = list(self._clients.values()), {}
        made, self._made = self._made, []
        for one in (*clients, *made):
            with suppress(Exception):
                one.close()

    def _client(self, stage: Stage) -> Client:
        """A client of the cluster for a stage; a cluster at an address serves all stages."""
        name = "" if self._at_address else stage.name
        client = self._clients.get(name)
        if client is None or client.status != "running":
            atexit.register(self.close)
            client = self._clients[name] = self._connect(stage)
        return client

    @property
    def _at_address(self) -> bool:
        return self._settings.platform == "dask" and self._settings.dask_scheduler is not None

    def _connect(self, stage: Stage) -> Client:
        if self._at_address:
            place: Any = self._settings.dask_scheduler
        else:
            # One at a time: the stages of a run follow one another.
            self.close()
            atexit.register(self.close)
            local = self._settings.platform == "dask"
            place = (_local_cluster if local else _coiled_cluster)(self._settings, stage)
            self._made.append(place)
        try:
            client = Client(place, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"there is no Dask scheduler at {place}: start one with `dask scheduler`, or set "
                "OCR_DASK_SCHEDULER to the address of one"
            ) from error
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            client.close()
            raise ClusterError(
                f"the Dask scheduler at {client.scheduler.address} has no workers: start some with "
                f"`dask worker {client.scheduler.address}`"
            ) from error
        client.register_plugin(DeclareResources())
        return client


def _local_cluster(settings: Settings, stage: Stage) -> LocalCluster:
    """Processes on this machine, each large enough for one piece of a stage."""
    cores = usable_cores()
    memory = psutil.virtual_memory().total / GIB
    fits = max(1, min(cores // stage.cores, int(memory // stage.memory)))
    workers = min(fits, settings.workers or fits)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, min(stage.cores, cores)),
        memory_limit=int(memory / workers * GIB),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=logging.ERROR,
    )


def _coiled_cluster(settings: Settings, stage: Stage) -> Any:
    """A cluster of cloud machines of the type that the stage names."""
    try:
        import coiled
    except ImportError as error:
        raise ClusterError(
            "OCR_PLATFORM=coiled needs the package coiled and an account: `pip install coiled`, "
            "then `coiled login`"
        ) from error
    tags = dict(pair.split("=", 1) for pair in (settings.coiled_tags or "").split(",") if pair)
    try:
        return coiled.Cluster(
            name=f"ocr-{settings.environment}-{stage.name}-{secrets.token_hex(4)}".replace(
                " ", "-"
            ),
            software=settings.coiled_software,
            n_workers=settings.workers or _COILED_WORKERS,
            worker_vm_types=[settings.coiled_vm_type or stage.vm_type],
            worker_disk_size=stage.vm_disk,
            scheduler_vm_types=[settings.coiled_scheduler_vm_type],
            spot_policy=settings.coiled_spot_policy,
            region=settings.coiled_region,
            credentials="local" if settings.coiled_forward_aws_credentials else None,
            tags={"environment": settings.environment, "stage": stage.name, **tags},
            shutdown_on_close=True,
        )
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClusterError(
            f"Coiled made no cluster for stage {stage.name}: {reason}; check the account with "
            "`coiled login` and the OCR_COILED_… settings"
        ) from error


def _room(client: Client, stage: Stage) -> tuple[dict[str, float], int]:
    """What a task of a stage takes of its worker, and how many such tasks run at once now.

    Raises:
        ClusterError: no worker has the memory or disk.
    """
    workers = [worker["resources"] for worker in client.scheduler_info()["workers"].values()]
    # Fewer cores make a piece slower, too little memory or disk makes it fail.
    most = max((worker.get(CORES, 0) for worker in workers), default=0)
    needs = {MEMORY: stage.memory, CORES: min(stage.cores, max(most, 1)), DISK: stage.disk}
    at_once = sum(
        int(min(worker.get(name, 0) // need for name, need in needs.items())) for worker in workers
    )
    if at_once == 0:
        largest = ", ".join(
            f"{max((worker.get(name, 0) for worker in workers), default=0):.1f} GiB of {label}"
            for name, label in ((MEMORY, "memory"), (DISK, "disk"))
        )
        raise ClusterError(
            f"no worker of {client.scheduler.address} is large enough for stage {stage.name}, "
            f"which needs {stage.memory:g} GiB of memory and {stage.disk:g} GiB of disk; the most "
            f"of {len(workers)} workers is {largest}"
        )
    return needs, at_once


def _outcome(future: Future, key: str, stage: Stage) -> Any:
    """The result of a finished task, or why it has none.

    Raises:
        ClusterError: the task was dropped, because the scheduler is gone or was restarted.
    """
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            return WorkerLostError(
                f"{key} was given up: the workers that computed it were killed, probably for want "
                f"of memory (stage {stage.name} is planned with {stage.memory:g} GiB)"
            )
        return error
    raise ClusterError(
        f"the Dask scheduler is gone or was restarted while {key} was computed; run again, what "
        "is done is skipped"
    )
