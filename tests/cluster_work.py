"""Pieces of work for tests of clusters; the workers import this module too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def echo(key: str) -> tuple[str, int]:
    """The key and the process that computed it."""
    return key, os.getpid()


def count(folder: Path, key: str) -> str:
    """Leave a mark for each time that the key is computed."""
    with Path(folder, f"{key}-{os.getpid()}-{time.monotonic_ns()}").open("x"):
        return key


def fail_odd(key: str) -> str:
    """Fail for odd numbers."""
    if int(key) % 2:
        raise ValueError(f"{key} is odd")
    return key


def wait_for(folder: Path, key: str) -> int:
    """Say that the key has begun, then wait for permission to end; the process."""
    Path(folder, f"begun-{key}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return os.getpid()


def die(key: str) -> None:
    """End the process, as a lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def tasks(dask_scheduler: Any) -> list[str]:
    """Keys of the tasks that a scheduler knows."""
    return list(dask_scheduler.tasks)
