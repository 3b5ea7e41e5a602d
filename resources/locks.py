"""One writer at a time among the processes of one machine.

Belongs here: the inter-process lock that local folders need and object stores do not.
Does not belong here: what is done while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.02


class LockTimeoutError(RuntimeError):
    """Another process held a lock for longer than the caller was ready to wait."""


@contextmanager
def file_lock(path: Path, timeout: float = 600.0) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if missing), waiting up to ``timeout`` seconds.

    The operating system frees the lock when its holder ends, also by a kill. It excludes threads
    of one process as well, because every call opens the file anew. The file itself stays.

    Raises:
        LockTimeoutError: the lock is still held after ``timeout`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + timeout
        while not try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise LockTimeoutError(
                    f"{path} is locked by another process since more than {timeout:g} s; "
                    "wait for the other writer to finish, or stop it"
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file exclusively without waiting; False if somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
