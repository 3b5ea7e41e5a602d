"""What `ocr worker` does with the processes of a daemon that is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ocr_assets.cli.worker import _let_end, _processes

AT_EASE: Any = SimpleNamespace(urgent=False)


def orphan(program: str) -> tuple[int, psutil.Process]:
    """A session whose leader is gone, and what the leader has left: this program."""
    leader = subprocess.Popen(
        ["sh", "-c", f"exec {program} >&2 & echo $!"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    said, _ = leader.communicate(timeout=30)
    assert leader.returncode == 0
    return leader.pid, psutil.Process(int(said))


def test_what_a_killed_daemon_leaves_is_found_and_ended() -> None:
    session, left = orphan("sleep 60")
    assert _processes(session) == [left]
    _let_end(session, AT_EASE, grace=0)
    assert _processes(session) == []
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


def test_runs_at_work_may_end_by_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(_: psutil.Process) -> None:
        raise AssertionError("a run was killed within its grace")

    monkeypatch.setattr(psutil.Process, "kill", never)
    work = tmp_path / "work"
    os.mkfifo(work)
    session, left = orphan(f"cat '{work}'")
    assert _processes(session) == [left]
    ends = iter([work])

    class Waiting:
        """Looked at while a run is waited for, which ends then."""

        @property
        def urgent(self) -> bool:
            for held in ends:
                held.write_bytes(b"")
            return False

    _let_end(session, Waiting(), grace=120)  # type: ignore[arg-type]
    assert list(ends) == []
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE


def test_a_second_signal_ends_them_at_once() -> None:
    session, left = orphan("sleep 60")
    _let_end(session, SimpleNamespace(urgent=True), grace=3600)  # type: ignore[arg-type]
    assert _processes(session) == []
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
