"""The command of a machine without a screen: the daemon, its code server, and their runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer

from ocr_assets.cli.app import EnvFile, PlatformOption, app, errors, settings_from
from ocr_assets.deployment import DeploymentError
from resources.locks import try_lock

_DAEMON_SECONDS = 60
"""How long the daemon may take to end; it has no work of its own that could be lost."""


class WorkerError(DeploymentError):
    """The daemon cannot be started, or ended by itself."""


@app.command()
def worker(
    grace: Annotated[
        int,
        typer.Option(
            min=0, help="Seconds that runs at work may take to end after SIGINT or SIGTERM."
        ),
    ] = 60,
    platform: PlatformOption = None,
    env_file: EnvFile = None,
) -> None:
    """Run schedules, sensors, queue and backfills without the UI, until interrupted.

    SIGINT or SIGTERM stops launching at once and waits for runs at work; a second one, or the end
    of --grace, ends them too. They are done again by the next worker, what is stored is kept.
    """
    import dagster as dg

    from ocr_assets.cli.instance import instance_file, prepare_home
    from ocr_assets.run_processes import close_abandoned_runs

    settings = settings_from(env_file, platform=platform)
    home = prepare_home()
    lock = _only_worker(home)
    with dg.DagsterInstance.get() as instance:
        close_abandoned_runs(instance)
        stop = _Stop()
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w"]
        daemon = subprocess.Popen(  # noqa: S603 - no shell, no input of a user
            [*command, str(instance_file("workspace.yaml"))],
            cwd=home,
            # The lock lives as long as the daemon, also if this process is killed.
            pass_fds=(lock,),
            start_new_session=True,
        )
        os.close(lock)
        _say(f"worker of {home}, {settings.environment}, platform {settings.platform}")
        while not stop.wait(0.5):
            if daemon.poll() is not None:
                _say("worker: the daemon has ended; waiting for runs at work")
                _let_end(daemon.pid, stop, grace)
                close_abandoned_runs(instance)
                raise WorkerError(
                    f"the daemon ended by itself with status {daemon.returncode}; its log is above"
                )
        _say("worker: no new runs; waiting for those at work")
        _end_daemon(daemon)
        _let_end(daemon.pid, stop, grace)
        for run_id in close_abandoned_runs(instance):
            _say(f"worker: run {run_id} was ended and will be done again")
    _say("worker: stopped")


def _say(line: str) -> None:
    errors.print(line, highlight=False, markup=False, soft_wrap=True)


class _Stop:
    """Counts SIGINT and SIGTERM."""

    def __init__(self) -> None:
        self._first, self._second = threading.Event(), threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: object) -> None:
        (self._second if self._first.is_set() else self._first).set()

    def wait(self, seconds: float) -> bool:
        """Wait for the first signal."""
        return self._first.wait(seconds)

    @property
    def urgent(self) -> bool:
        """Whether a second signal came."""
        return self._second.is_set()


def _only_worker(home: Path) -> int:
    """A locked file that says that an instance has a worker on this machine.

    Raises:
        WorkerError: it has one already.
    """
    descriptor = os.open(home / ".worker", os.O_RDWR | os.O_CREAT, 0o666)
    if not try_lock(descriptor):
        os.close(descriptor)
        raise WorkerError(
            f"a worker is running for {home} already; stop it first, or its daemon if it was killed"
        )
    return descriptor


def _end_daemon(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(_DAEMON_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _let_end(session: int, stop: _Stop, grace: int) -> None:
    """Wait until the runs of a daemon that is gone have ended, then end what is left of them.

    The code server ends when the last of its runs has. Killed runs are done again, runs that were
    only interrupted are not.
    """
    deadline = time.monotonic() + grace
    while _processes(session) and not stop.urgent and time.monotonic() < deadline:
        time.sleep(0.2)
    deadline = time.monotonic() + _DAEMON_SECONDS
    while (left := _processes(session)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)


def _processes(session: int) -> list[psutil.Process]:
    """What lives of a session: code server and runs. They outlive the daemon that started them."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            # An orphan whose new parent does not collect it keeps its number.
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(psutil.Process(pid))
    return found
