"""Clusters: in the own process, and real Dask schedulers and workers."""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cluster_work
import psutil
import pytest
from distributed import Client, LocalCluster
from engines import DaskProcesses, dask_processes, free_port, wait_until

from resources import cluster, dask_cluster
from resources.cluster import (
    ClusterError,
    InProcess,
    SharedOnWorkers,
    Stage,
    WorkerLostError,
    cluster_for,
)
from resources.dask_cluster import DaskCluster
from resources.settings import Settings

SMALL = Stage("small", memory=0.5, cores=1, disk=0.01, vm_type="m8g.large", vm_disk=30)
TESTS = Path(__file__).parents[1]
LOOPBACK = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
MACHINE = 100  # GiB of memory of the machine that a test pretends to be on


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight cores and so much memory that four fifths are 80 GiB."""
    memory = type("Memory", (), {"available": MACHINE * 2**30, "total": MACHINE * 2**30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(cluster, "usable_cores", lambda: 8)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler with two workers that can import the work of these tests."""
    folder = tmp_path_factory.mktemp("dask")
    with dask_processes(folder, 2, {"PYTHONPATH": str(TESTS)}) as running:
        yield running


@pytest.fixture
def at_address(dask: DaskProcesses) -> Iterator[DaskCluster]:
    """A cluster that goes to that scheduler."""
    found = cluster_for(Settings(platform="dask", dask_scheduler=dask.address))
    assert isinstance(found, DaskCluster)
    yield found
    found.close()


class Inputs(SharedOnWorkers):
    """Something that opens its inputs once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


def test_pieces_of_a_run_share_what_travels_to_their_worker() -> None:
    inputs = Inputs(Settings(storage_root="/data"))
    travelled = [pickle.loads(pickle.dumps(inputs)) for _ in range(2)]
    assert travelled[0] is travelled[1] is not inputs
    assert travelled[0].settings == inputs.settings
    next_run = Inputs(Settings(storage_root="/data"))
    assert pickle.loads(pickle.dumps(next_run)) is not travelled[0]


def test_local_is_the_default() -> None:
    assert isinstance(cluster_for(Settings()), InProcess)


@pytest.mark.parametrize(
    ("memory", "cores", "limit", "at_once"),
    [
        pytest.param(1, 1, None, 8, id="cores decide"),
        pytest.param(30, 1, None, 2, id="memory decides"),
        pytest.param(1, 4, None, 2, id="cores of a piece"),
        pytest.param(1, 1, 3, 3, id="the setting decides"),
        pytest.param(30, 1, 5, 2, id="the setting is a limit only"),
        pytest.param(500, 99, None, 1, id="one is always tried"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_memory_and_cores_limit_what_runs_at_once(
    memory: float, cores: int, limit: int | None, at_once: int
) -> None:
    stage = Stage("any", memory, cores, disk=1, vm_type="any")
    assert InProcess(limit)._at_once(stage) == at_once


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.usefixtures("machine")
def test_a_failure_is_a_result(limit: int) -> None:
    results = dict(
        InProcess(limit).map(cluster_work.fail_odd, map(str, range(6)), stage=SMALL, name="t")
    )
    assert {key: str(value) for key, value in results.items()} == {
        "0": "0",
        "1": "1 is odd",
        "2": "2",
        "3": "3 is odd",
        "4": "4",
        "5": "5 is odd",
    }
    assert isinstance(results["3"], ValueError)


@pytest.mark.usefixtures("machine")
def test_threads_work_side_by_side_and_take_no_more_keys_than_they_can() -> None:
    meeting = threading.Barrier(3, timeout=60)
    taken: list[str] = []

    def keys() -> Iterator[str]:
        for number in itertools.count():
            taken.append(str(number))
            yield str(number)

    def meet(key: str) -> None:
        meeting.wait()

    running = InProcess(3).map(meet, keys(), stage=SMALL, name="t")
    assert {key for key, _ in itertools.islice(running, 3)} == {"0", "1", "2"}
    assert len(taken) <= 6
    meeting.abort()
    running.close()


@pytest.mark.usefixtures("machine")
def test_a_single_piece_needs_no_thread() -> None:
    ((_, thread),) = InProcess(4).map(
        lambda _: threading.current_thread(), ["a"], stage=SMALL, name="t"
    )
    assert thread is threading.main_thread()


@pytest.mark.usefixtures("machine")
def test_closing_drops_what_has_not_begun(tmp_path: Path) -> None:
    mark = partial(cluster_work.count, tmp_path)
    running = InProcess(1).map(mark, ["a", "b", "c"], stage=SMALL, name="t")
    next(running)
    running.close()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["a"]


def test_workers_of_a_scheduler_do_the_work(at_address: DaskCluster) -> None:
    keys = [str(number) for number in range(20)]
    results = dict(at_address.map(cluster_work.echo, keys, stage=SMALL, name="t"))
    assert [results[key][0] for key in keys] == keys
    processes = {results[key][1] for key in keys}
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_without_keys_nothing_is_connected() -> None:
    nowhere = DaskCluster(Settings(platform="dask", dask_scheduler="tcp://127.0.0.1:1"))
    assert list(nowhere.map(cluster_work.echo, [], stage=SMALL, name="t")) == []


def test_a_failure_on_a_worker_is_a_result(at_address: DaskCluster) -> None:
    results = dict(at_address.map(cluster_work.fail_odd, ["1", "2"], stage=SMALL, name="t"))
    assert results["2"] == "2"
    assert isinstance(results["1"], ValueError)
    assert str(results["1"]) == "1 is odd"


def test_equal_names_and_keys_at_once_are_each_computed(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    """Dask would compute tasks of the same name once for all who ask."""

    def ask(_: int) -> list[Any]:
        found = DaskCluster(Settings(platform="dask", dask_scheduler=dask.address))
        mark = partial(cluster_work.count, tmp_path)
        try:
            return list(found.map(mark, ["a", "b"], stage=SMALL, name="asset-run"))
        finally:
            found.close()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ask, range(4)))
    assert [sorted(result) for result in results] == [[("a", "a"), ("b", "b")]] * 4
    assert len(list(tmp_path.iterdir())) == 8


def test_keys_are_taken_as_workers_have_room(at_address: DaskCluster, tmp_path: Path) -> None:
    taken: list[str] = []

    def keys() -> Iterator[str]:
        for number in itertools.count():
            taken.append(str(number))
            yield str(number)

    running = at_address.map(cluster_work.echo, keys(), stage=SMALL, name="t")
    for _ in range(5):
        next(running)
    running.close()
    # Two workers with a thread each, twice as many tasks handed over, and those that came back.
    assert len(taken) <= 5 + 4


def test_closing_cancels_what_waits(
    at_address: DaskCluster, dask: DaskProcesses, tmp_path: Path
) -> None:
    work = partial(cluster_work.wait_for, tmp_path)
    keys = ["first", *(str(number) for number in range(8))]
    (tmp_path / "go").touch()
    running = at_address.map(work, keys, stage=SMALL, name="t")
    next(running)
    (tmp_path / "go").unlink()
    running.close()
    (tmp_path / "go").touch()
    with Client(dask.address, set_as_default=False) as client:
        tasks = partial(client.run_on_scheduler, cluster_work.tasks)
        wait_until("an empty scheduler", lambda: not tasks())
    assert len(list(tmp_path.glob("begun-*"))) < len(keys)


def test_a_piece_whose_worker_is_lost_is_computed_by_another(tmp_path: Path) -> None:
    with dask_processes(tmp_path, 2, {"PYTHONPATH": str(TESTS)}) as dask:
        found = DaskCluster(Settings(platform="dask", dask_scheduler=dask.address))
        work = partial(cluster_work.wait_for, tmp_path)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: list(found.map(work, ["a", "b"], stage=SMALL, name="t")))
            wait_until("both to begin", lambda: len(list(tmp_path.glob("begun-*"))) == 2)
            killed = dask.workers[0].pid
            dask.kill_worker(0)
            (tmp_path / "go").touch()
            results = dict(running.result(timeout=120))
        found.close()
    assert results.keys() == {"a", "b"}
    assert set(results.values()) == {dask.workers[1].pid}
    assert killed not in results.values()


def test_a_lost_scheduler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 3)
    with dask_processes(tmp_path, 1, {"PYTHONPATH": str(TESTS)}) as dask:
        found = DaskCluster(Settings(platform="dask", dask_scheduler=dask.address))
        work = partial(cluster_work.wait_for, tmp_path)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: list(found.map(work, ["a"], stage=SMALL, name="t")))
            wait_until("it to begin", lambda: list(tmp_path.glob("begun-*")))
            dask.scheduler.kill()
            with pytest.raises(ClusterError, match="the Dask scheduler is gone"):
                running.result(timeout=120)
        found.close()


def test_a_stage_that_no_worker_can_hold_is_refused(at_address: DaskCluster) -> None:
    large = Stage("large", memory=64, cores=1, disk=1, vm_type="any")
    with pytest.raises(ClusterError, match=r"large enough for stage large.*64 GiB.*has 4\.0"):
        list(at_address.map(cluster_work.echo, ["a"], stage=large, name="t"))


def test_a_piece_with_many_cores_runs_on_a_worker_with_one(at_address: DaskCluster) -> None:
    wide = Stage("wide", memory=0.5, cores=16, disk=0.01, vm_type="any")
    ((key, _),) = at_address.map(cluster_work.echo, ["a"], stage=wide, name="t")
    assert key == "a"


def test_a_worker_without_the_code_is_one_line(tmp_path: Path) -> None:
    with dask_processes(tmp_path, 1) as dask:  # it cannot import the work of these tests
        found = DaskCluster(Settings(platform="dask", dask_scheduler=dask.address))
        with pytest.raises(ClusterError, match=r"a worker has other code.*cluster_work"):
            list(found.map(cluster_work.echo, ["a"], stage=SMALL, name="t"))


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    nowhere = DaskCluster(Settings(platform="dask", dask_scheduler=address))
    with pytest.raises(ClusterError, match=f"no Dask scheduler at {address}: start one with"):
        list(nowhere.map(cluster_work.echo, ["a"], stage=SMALL, name="t"))


def test_no_workers_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_WORKER_SECONDS", 0.5)
    with dask_processes(tmp_path, 0) as dask:
        found = DaskCluster(Settings(platform="dask", dask_scheduler=dask.address))
        with pytest.raises(ClusterError, match=f"has no workers.*dask worker {dask.address}"):
            list(found.map(cluster_work.echo, ["a"], stage=SMALL, name="t"))


def test_a_cluster_of_its_own_is_on_loopback_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(TESTS))
    found = DaskCluster(Settings(platform="dask", workers=1))
    ((_, (_, pid)),) = found.map(cluster_work.echo, ["a"], stage=SMALL, name="t")
    workers = psutil.Process().children(recursive=True)
    assert pid in {process.pid for process in workers}
    listening = {
        connection.laddr.ip
        for process in (psutil.Process(), psutil.Process(pid))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}

    # It also tells what a piece does to the workers that take it.
    ((_, lost),) = found.map(cluster_work.die, ["b"], stage=SMALL, name="t")
    assert isinstance(lost, WorkerLostError)
    assert str(lost).startswith("b was given up: the workers that computed it were killed")
    found.close()
    wait_until("the worker to end", lambda: not psutil.pid_exists(pid))


def test_without_coiled_the_mend_is_named() -> None:
    assert "coiled" not in sys.modules
    with pytest.raises(ClusterError, match=r"needs the package coiled.*coiled login"):
        list(
            cluster_for(Settings(platform="coiled")).map(
                cluster_work.echo, ["a"], stage=SMALL, name="t"
            )
        )


@pytest.fixture
def coiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for Coiled's package that makes clusters here; what it was asked for."""
    asked: list[dict[str, Any]] = []

    def make(**arguments: Any) -> LocalCluster:
        asked.append(arguments)
        if arguments["region"] == "nowhere":
            raise RuntimeError("no account\nmore")
        return LocalCluster(n_workers=1, processes=False, **LOOPBACK)

    module = ModuleType("coiled")
    module.Cluster = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coiled", module)
    return asked


def test_coiled_gets_what_settings_and_stage_say(coiled: list[dict[str, Any]]) -> None:
    settings = Settings(
        platform="coiled",
        workers=3,
        coiled_software="ocr-v1",
        coiled_tags="project=ocr,team=risk",
        coiled_region="eu-west-1",
        coiled_spot_policy="spot",
    )
    found = DaskCluster(settings)
    results = dict(found.map(cluster_work.fail_odd, ["2", "4", "6", "8"], stage=SMALL, name="t"))
    found.close()
    assert results == {key: key for key in ("2", "4", "6", "8")}
    (arguments,) = coiled
    name = arguments.pop("name")
    assert name.startswith("ocr-qa-")
    assert arguments == {
        "software": "ocr-v1",
        "n_workers": 3,
        "worker_vm_types": ["m8g.large"],
        "worker_disk_size": 30,
        "scheduler_vm_types": ["m8g.2xlarge"],
        "spot_policy": "spot",
        "region": "eu-west-1",
        "credentials": None,
        "tags": {"environment": "qa", "stage": "small", "project": "ocr", "team": "risk"},
        "shutdown_on_close": True,
    }


def test_credentials_go_to_coiled_only_if_that_is_set(coiled: list[dict[str, Any]]) -> None:
    found = DaskCluster(Settings(platform="coiled", coiled_forward_aws_credentials=True))
    list(found.map(cluster_work.echo, ["a"], stage=SMALL, name="t"))
    found.close()
    assert coiled[0]["credentials"] == "local"
    assert coiled[0]["n_workers"] == 1, "no more machines than pieces of work"


def test_what_coiled_refuses_is_one_line(coiled: list[dict[str, Any]]) -> None:
    found = DaskCluster(Settings(platform="coiled", coiled_region="nowhere"))
    with pytest.raises(ClusterError, match="no cluster for stage small: no account; check") as told:
        list(found.map(cluster_work.echo, ["a"], stage=SMALL, name="t"))
    assert "\n" not in str(told.value)
