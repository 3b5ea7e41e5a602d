"""The daemon and the GitHub sensor as processes, killed at the worst moments.

The queue is closed while that is tried, so that every run that was launched can be counted; then
it is opened, and one of them is executed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from engines import wait_until
from github_server import REPOSITORY, TOKEN, GitHubServer, pull, sha
from sample_worlds import World, environment

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(900)]

REPOSITORY_FOLDER = Path(__file__).parents[2]
REGION = "y0_x0"


class Daemon:
    """`dagster-daemon` with its code server, as `ocr dev` starts it, without the UI."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("dagster-daemon"),
                    "run",
                    "-w",
                    REPOSITORY_FOLDER / "workspace.yaml",
                ],
                cwd=log.parent,
                env=environment(variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it and all that it started at once, as a power cut does."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def wait_for(self, what: str, look: Callable[[], bool], timeout: float = 120) -> None:
        """Look until it is so."""

        def look_again() -> bool:
            if look():
                return True
            assert self.process.poll() is None, self._log.read_text()
            return False

        wait_until(what, look_again, timeout)


@contextmanager
def running(variables: dict[str, str], log: Path) -> Iterator[Daemon]:
    daemon = Daemon(variables, log)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def queue(home: Path, at_once: int) -> None:
    """How many runs the daemon lets out of the queue at once."""
    file = home / "dagster.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["concurrency"]["runs"]["max_concurrent_runs"] = at_once
    file.write_text(yaml.safe_dump(settings))


def launched(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """Statuses of the deployments of each event, in the order of their launch."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs(dg.RunsFilter(job_name="deploy_regions"), ascending=True):
        event = run.tags["ocr/github_event"].removeprefix(f"pull_request/{REPOSITORY}")
        found.setdefault(event, []).append(run.status.value)
    return found


def test_each_event_runs_once_however_often_the_daemon_is_killed(
    world: World, fresh_home: Path
) -> None:
    home = world.folder / "home"
    shutil.copytree(fresh_home, home)
    queue(home, 0)
    log = world.folder / "daemon.log"
    with (
        GitHubServer().running() as server,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        variables = {
            **world.variables(),
            "OCR_GITHUB_REPOSITORY": REPOSITORY,
            "OCR_GITHUB_TOKEN": TOKEN,
            "OCR_GITHUB_API_URL": server.url,
            "OCR_GITHUB_SECONDS": "5",
            "OCR_DEPLOY_REGION_IDS": REGION,
        }
        first, second = f"#1@{sha(1)}", f"#1@{sha(2)}"

        # Killed when it has just seen the event, and has launched nothing.
        server.pulls = [pull(1, sha(1), "e2e")]
        with running(variables, log) as daemon:
            server.answered = lambda path: daemon.kill() if "pulls" in path else None
            daemon.process.wait(timeout=120)
        server.answered = lambda path: None
        assert server.statuses() == [200]

        with running(variables, log) as daemon:
            daemon.wait_for(
                "the first deployment", lambda: launched(instance) == {first: ["QUEUED"]}
            )
            # A new commit replaces the one that waits. Killed as soon as there is its run.
            server.pulls = [pull(1, sha(2), "e2e")]
            daemon.wait_for("the second deployment", lambda: second in launched(instance))
            daemon.kill()

        queue(home, 1)
        server.statuses()
        with running(variables, log) as daemon:
            daemon.wait_for(
                "the deployment to end", lambda: launched(instance).get(second) == ["SUCCESS"]
            )
            daemon.wait_for("two more looks", lambda: len(server.asked) >= 2)
        assert launched(instance) == {first: ["CANCELED"], second: ["SUCCESS"]}
        # The first look may be that of the tick that was killed; one may be under way.
        later = {status for status in server.statuses()[1:] if status}
        assert later == {304}, "what has not changed is not sent again"
        assert set(world.deployment().ledger()) == {REGION}

    # Neither Dagster's storage nor what was written or logged holds the token.
    holding = [
        path
        for path in world.folder.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holding == []
