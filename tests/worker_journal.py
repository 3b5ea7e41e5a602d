"""Loaded into Dask workers by ``--preload``: a journal of what each process began and finished.

What a scheduler tells, or a client gets, says nothing about which process did the work. Here each
worker writes it down itself, a line for each change, in the file that ``WORKER_JOURNAL`` names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

VARIABLE = "WORKER_JOURNAL"

_STATES = {"executing": "begun", "memory": "done", "error": "failed"}
_RUN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TASK = re.compile(rf"(.+)-({_RUN})-[0-9a-f]{{8}}-(.+)")


@dataclass(frozen=True)
class Line:
    """A worker's word about a task."""

    pid: int
    task: str
    state: Literal["begun", "done", "failed"]

    @property
    def work(self) -> tuple[str, str]:
        """What the task makes, like ``regions``, and the piece of it, like ``y0_x0``."""
        what, _, piece = self._parts
        return what, piece

    @property
    def run_id(self) -> str:
        """The run that gave the task."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str, str]:
        found = _TASK.fullmatch(self.task)
        assert found is not None, self.task
        return found[1], found[2], found[3]


def read(path: Path) -> list[Line]:
    """The lines of a journal in their order; none if there is none yet."""
    return list(_lines(path.read_text())) if path.exists() else []


def _lines(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        told = json.loads(line)
        yield Line(told["pid"], told["task"], told["state"])


class _Journal(WorkerPlugin):
    def __init__(self, path: str) -> None:
        self._path = path

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Write down what a task of ours has come to."""
        # Where a result goes after it was made is not told again.
        if finish in _STATES and (finish == "executing" or start == "executing"):
            told = {"pid": os.getpid(), "task": str(key), "state": _STATES[finish]}
            line = json.dumps(told) + "\n"
            # One write to the end of a file: lines of several processes do not mix.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


async def dask_setup(worker: Worker) -> None:
    """Called by a worker that has preloaded this file."""
    await worker.plugin_add(_Journal(os.environ[VARIABLE]), name="journal")
