"""Which process executes a run: runs of killed processes are closed, others are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import dagster as dg
import pytest

from ocr_assets.run_processes import (
    HOST_TAG,
    LAUNCHER_TAG,
    PROCESS_TAG,
    close_abandoned_runs,
    launcher_tags,
    process_tag,
)


def dead_process() -> str:
    """The tag of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{socket.gethostname()}:{process.pid}:0.00"


@pytest.mark.parametrize(
    ("owner", "closed"),
    [
        pytest.param(dead_process, True, id="killed"),
        pytest.param(lambda: process_tag()[PROCESS_TAG], False, id="alive"),
        pytest.param(
            lambda: f"{socket.gethostname()}:{os.getpid()}:0.00", True, id="pid used again"
        ),
        pytest.param(lambda: "elsewhere:1:0.00", False, id="another host"),
        pytest.param(lambda: None, False, id="started by the daemon"),
    ],
)
def test_runs_of_killed_commands_are_closed(owner: Callable[[], str | None], closed: bool) -> None:
    tag = owner()
    with dg.DagsterInstance.ephemeral() as instance:

        @dg.job
        def job() -> None: ...

        run = instance.create_run_for_job(
            job,
            status=dg.DagsterRunStatus.STARTED,
            tags={PROCESS_TAG: tag} if tag else {},
        )
        finished = instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.SUCCESS, tags={PROCESS_TAG: dead_process()}
        )
        assert close_abandoned_runs(instance) == ([run.run_id] if closed else [])
        after = instance.get_run_by_id(run.run_id)
        assert after is not None
        expected = dg.DagsterRunStatus.FAILURE if closed else dg.DagsterRunStatus.STARTED
        assert after.status == expected
        untouched = instance.get_run_by_id(finished.run_id)
        assert untouched is not None
        assert untouched.status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_that_a_killed_daemon_did_not_start_is_closed(killed: bool) -> None:
    """The daemon says that a run starts before it gives it a process."""
    tags = launcher_tags() | ({LAUNCHER_TAG: dead_process()} if killed else {})
    assert tags[HOST_TAG] == socket.gethostname()
    with dg.DagsterInstance.ephemeral() as instance:

        @dg.job
        def job() -> None: ...

        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, tags=tags)
        assert close_abandoned_runs(instance) == ([run.run_id] if killed else [])
