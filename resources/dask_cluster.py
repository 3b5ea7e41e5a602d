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
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from typing import Any

import psutil
from distributed import Client, Future, KilledWorker, LocalCluster, wait
from distributed.client import FIRST_COMPLETED, FuturesCancelledError
from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin

from resources.cluster import (
    GIB,
    OTHER_CODE,
    Cluster,
    ClusterError,
    Stage,
    WorkerLostError,
    usable_cores,
)
from resources.settings import Settings

MEMORY, CORES, DISK = "ocr_memory_gib", "ocr_cores", "ocr_disk_gib"
"""Names of the resources that workers declare and pieces of work take."""

_CONNECT_SECONDS = 20
_WORKER_SECONDS = 120
_COILED_WORKERS = 4
_LOOK_SECONDS = 10
_LOST_SCHEDULER = (
    "the Dask scheduler is gone, or was restarted, while it had work of this run; run again, what "
    "is done is skipped"
)
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
            # The scheduler looks for tasks that found no worker when one registers, which was
            # before this, or when one runs again after a pause.
            worker.status = Status.paused
            worker.status = Status.running


class DaskCluster(Cluster):
    """The cluster that the settings choose, connected to or made when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: tuple[Stage, int, Any] | None = None

    def map[Result](
        self,
        function: Callable[[str], Result],
        keys: Iterable[str],
        *,
        stage: Stage,
        name: str,
    ) -> Generator[tuple[str, Result | Exception]]:
        """See :meth:`Cluster.map`."""
        waiting = iter(keys)
        first = list(islice(waiting, self._most_workers))
        if not first:
            return
        waiting = chain(first, waiting)
        prefix = f"{name}-{secrets.token_hex(4)}"
        running: dict[Future, str] = {}
        with _connected(self._place(stage, len(first))) as client:
            crew = _Crew(client, stage)
            try:
                while True:
                    for key in islice(waiting, max(0, crew.room - len(running))):
                        running[crew.submit(function, key, f"{prefix}-{key}")] = key
                    if not running:
                        return
                    for future in crew.finished(running):
                        key = running.pop(future)
                        yield key, _outcome(future, key, stage)
                        future.release()
            finally:
                # A cluster that is gone has dropped its tasks already.
                with suppress(Exception):
                    client.cancel(list(running), force=True, reason="the run has ended")

    def close(self) -> None:
        """See :meth:`Cluster.close`. Only a cluster that was made here is ended."""
        atexit.unregister(self.close)
        if self._made is not None:
            (_, _, cluster), self._made = self._made, None
            with suppress(Exception):
                cluster.close()

    @property
    def _most_workers(self) -> int:
        """How many workers a cluster may be given; one at an address has its own."""
        settings = self._settings
        if settings.platform == "coiled":
            return settings.workers or _COILED_WORKERS
        return settings.workers or usable_cores() if settings.dask_scheduler is None else 1

    def _place(self, stage: Stage, pieces: int) -> Any:
        """The address of a scheduler, or a cluster whose workers are made for the stage."""
        settings = self._settings
        if settings.platform == "dask" and settings.dask_scheduler is not None:
            return settings.dask_scheduler
        if self._made is None or self._made[0] != stage or self._made[1] < pieces:
            # One at a time: the stages of a run follow one another.
            self.close()
            make = _local_cluster if settings.platform == "dask" else _coiled_cluster
            self._made = stage, pieces, make(settings, stage, pieces)
            atexit.register(self.close)
        return self._made[2]


@contextmanager
def _connected(place: Any) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a cluster; it has workers.

    Raises:
        ClusterError: there is no scheduler, or it has no workers.
    """
    try:
        client = Client(place, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"there is no Dask scheduler at {place}: start one with `dask scheduler`, or set "
            "OCR_DASK_SCHEDULER to the address of one"
        ) from error
    with closing(client):
        address = client.scheduler.address
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {address} has no workers: start some with "
                f"`dask worker {address}`"
            ) from error
        client.register_plugin(DeclareResources())
        yield client


def _local_cluster(settings: Settings, stage: Stage, pieces: int) -> LocalCluster:
    """Processes on this machine, each large enough for one piece of a stage."""
    cores = usable_cores()
    memory = psutil.virtual_memory().total / GIB
    fits = max(1, min(cores // stage.cores, int(memory // stage.memory)))
    workers = min(fits, pieces)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, min(stage.cores, cores)),
        memory_limit=int(memory / workers * GIB),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=logging.ERROR,
    )


def _coiled_cluster(settings: Settings, stage: Stage, pieces: int) -> Any:
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
            n_workers=pieces,
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


class _Crew:
    """The workers of a cluster as far as one stage is concerned; they come and go."""

    def __init__(self, client: Client, stage: Stage) -> None:
        self.client = client
        self.room = _AHEAD
        """Pieces that should be handed over at a time."""
        self._stage = stage
        self._needs: dict[str, float] = {}
        self._seen = time.monotonic()
        self._look()

    def submit(self, function: Callable[[str], Any], key: str, name: str) -> Future:
        """Give a piece to a worker that has room for it, as soon as there is one."""
        return self.client.submit(function, key, key=name, resources=self._needs)

    def finished(self, running: Iterable[Future]) -> list[Future]:
        """Those of ``running`` that have ended, at least one, in the order of their submission.

        Raises:
            ClusterError: the scheduler is gone, or has had no workers for long.
        """
        while True:
            try:
                with self.client.as_current():
                    done = wait(list(running), _LOOK_SECONDS, FIRST_COMPLETED).done
            except TimeoutError:
                self._look()
            except FuturesCancelledError as error:
                raise ClusterError(_LOST_SCHEDULER) from error
            else:
                return [future for future in running if future in done]

    def _look(self) -> None:
        """Count the workers and what they have room for.

        Raises:
            ClusterError: no worker has the memory, or there has been none for long.
        """
        stage, address = self._stage, self.client.scheduler.address
        now = time.monotonic()
        found = self.client.scheduler_info()["workers"].values()
        workers = [worker["resources"] for worker in found]
        if not workers and now - self._seen < _WORKER_SECONDS:
            return
        if not workers:
            raise ClusterError(
                f"the Dask scheduler at {address} has lost all its workers; start some with "
                f"`dask worker {address}` and run again, what is done is skipped"
            )
        self._seen = now
        # Fewer cores make a piece slower, and how much disk it takes depends on the data; too
        # little memory ends the worker.
        most = {name: max(worker.get(name, 0) for worker in workers) for name in (CORES, DISK)}
        self._needs = {
            MEMORY: stage.memory,
            CORES: min(stage.cores, most[CORES] or 1),
            DISK: min(stage.disk, most[DISK]),
        }
        at_once = sum(
            int(min(worker.get(name, 0) // need for name, need in self._needs.items() if need))
            for worker in workers
        )
        # A worker that has just come has not declared anything yet.
        if at_once == 0 and all(MEMORY in worker for worker in workers):
            memory = max(worker[MEMORY] for worker in workers)
            raise ClusterError(
                f"no worker of {address} is large enough for stage {stage.name}, which needs "
                f"{stage.memory:g} GiB of memory; the largest of {len(workers)} has {memory:.1f}"
            )
        self.room = _AHEAD * max(1, at_once)


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
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, ImportError):
            # Dask could not make the piece of what it was sent.
            raise ClusterError(f"{OTHER_CODE} ({error.__cause__})")
        return error
    raise ClusterError(_LOST_SCHEDULER)
