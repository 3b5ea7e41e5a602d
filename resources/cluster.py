"""Where the pieces of a run are computed: in its own process, or by the workers of a cluster.

Belongs here: what a stage of the work needs, and one way to map a function over partition keys that
is the same for every platform. Does not belong here: what is computed (the assets' business), and
how a Dask cluster is reached (:mod:`resources.dask_cluster`).

An asset of many partitions adopts a cluster with one line::

    for key, result in cluster.map(make_tile, keys, stage=TREE_COVER, name=f"tile-{run_id}"):
        ...  # an Exception if this key failed; the other keys go on

The function has to be one that another process can import, or a ``functools.partial`` of one, with
arguments that can be pickled, as everything can that is :class:`SharedOnWorkers`. A worker has the
object store and nothing else: the function stores what it makes and returns what the run has to
know about it, which should be small. What makes results visible, a commit or a manifest, stays with
the run or is one write of the piece, so that a piece that is computed twice because its worker was
lost does no harm.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, islice
from typing import Any

import psutil

from resources.settings import Settings

GIB = 2**30
_SHARE_OF_MEMORY = 0.8
"""Part of the free memory that is planned with; the rest is for what the estimates leave out."""


OTHER_CODE = (
    "a worker has other code, packages or inputs than this run: install the same version of "
    "ocr-assets where workers are started, and start them again"
)
"""What a worker that would not compute the same is refused with."""


class ClusterError(RuntimeError):
    """Work cannot be given to the cluster; the message names the mend."""


class WorkerLostError(ClusterError):
    """The workers that computed one piece died of it; the other pieces are not concerned."""


@dataclass(frozen=True)
class Stage:
    """What one piece of a kind of work needs, declared once and used by every platform.

    Attributes:
        name: for messages and names of clusters.
        memory: GiB that one piece holds at most.
        cores: that one piece keeps busy; it also runs, slower, where there are fewer.
        disk: GiB of scratch files of one piece.
        vm_type: instance type of a worker on Coiled.
        vm_disk: GiB of disk of a worker on Coiled.
    """

    name: str
    memory: float
    cores: int
    disk: float
    vm_type: str
    vm_disk: int = 50


class SharedOnWorkers:
    """What is made of settings alone, and travels to workers as these.

    In a worker's process all pieces of a run share one copy, so that inputs are opened and models
    are loaded once. The next run gets a fresh one: what is stored may have changed.
    """

    settings: Settings

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared_copy, (type(self), self.settings, self._identity)

    @cached_property
    def _identity(self) -> str:
        return secrets.token_hex(8)


@lru_cache(maxsize=8)
def _shared_copy[Copy](kind: Callable[[Settings], Copy], settings: Settings, identity: str) -> Copy:
    return kind(settings)


class Cluster(ABC):
    """Computes pieces of work, each known by its partition key."""

    @abstractmethod
    def map[Result](
        self,
        function: Callable[[str], Result],
        keys: Iterable[str],
        *,
        stage: Stage,
        name: str,
    ) -> Generator[tuple[str, Result | Exception]]:
        """Results of ``function`` as they are finished, in any order, each with its key.

        A function that raises gives its exception in place of a result. Closing the iterator, as
        the end of a terminated run does, drops what has not begun; what is at work is waited for
        in this process, and abandoned on workers. ``keys`` are taken one by one, never many ahead.

        Args:
            function: computes one piece; see the module for what it may be.
            keys: partition keys, without repetition.
            stage: what one piece needs.
            name: of this work, for the tasks of a cluster: asset and run.

        Raises:
            ClusterError: there is no cluster, no worker large enough, or the cluster was lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what was started or connected to; the next :meth:`map` begins anew."""


class InProcess(Cluster):
    """The run's own process: several threads, as many as memory and cores allow."""

    def __init__(self, at_once: int | None = None) -> None:
        self._limit = at_once

    def map[Result](
        self,
        function: Callable[[str], Result],
        keys: Iterable[str],
        *,
        stage: Stage,
        name: str,
    ) -> Generator[tuple[str, Result | Exception]]:
        """See :meth:`Cluster.map`."""
        at_once = self._at_once(stage)
        waiting = iter(keys)
        first = list(islice(waiting, 2))
        waiting = chain(first, waiting)
        if at_once == 1 or len(first) < 2:
            # Without another thread, a run that is terminated stops at once.
            for key in waiting:
                yield key, _attempt(function, key)
            return
        running: dict[Future[Result | Exception], str] = {}
        pool = ThreadPoolExecutor(at_once, stage.name)
        try:
            while True:
                for key in islice(waiting, at_once - len(running)):
                    running[pool.submit(_attempt, function, key)] = key
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                # Submission order among those that finished together, so that logs can be compared.
                for future in [future for future in running if future in done]:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """See :meth:`Cluster.close`: nothing outlives a :meth:`map`."""

    def _at_once(self, stage: Stage) -> int:
        memory = psutil.virtual_memory().available / GIB * _SHARE_OF_MEMORY
        fits = min(usable_cores() // stage.cores, int(memory // stage.memory))
        return max(1, fits if self._limit is None else min(fits, self._limit))


def _attempt[Result](function: Callable[[str], Result], key: str) -> Result | Exception:
    try:
        return function(key)
    except Exception as error:
        return error


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cluster_for(settings: Settings) -> Cluster:
    """The cluster that the settings choose; nothing is started or connected before it is used."""
    if settings.platform == "local":
        return InProcess(settings.workers)
    from resources.dask_cluster import DaskCluster

    return DaskCluster(settings)
