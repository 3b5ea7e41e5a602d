"""Atomic writes of files in a local folder.

Belongs here: a file appears under its name whole and on the disk, or not at all, whatever kills
the writer. Does not belong here: keys, object stores, what the file means.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from resources.keys import HIDDEN_NAME
from resources.locks import try_lock


def write_atomic(target: Path, fill: Callable[[IO[bytes]], Any], *, if_absent: bool) -> None:
    """Let ``fill`` write a new file, flush it to the disk, then give it the name ``target``.

    Raises:
        FileExistsError: with ``if_absent``, the name is taken. Of several writers one succeeds.
        OSError: the file could not be written; the name is as it was before.
    """
    _remove_abandoned(target)
    with _beside(target) as (temporary, file):
        fill(file)
        file.flush()
        os.fsync(file.fileno())
        if if_absent:
            os.link(temporary, target)
        else:
            temporary.replace(target)
        _flush_folder(target.parent)


@contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new, locked, hidden file in the folder of ``target``; gone when the context ends."""
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}#{secrets.randbits(48)}")
        try:
            file = temporary.open("xb")
        except FileNotFoundError:
            continue  # The folder was empty and a deletion took it away in between.
        # Whoever finds the file unlocked takes it for abandoned and removes it.
        if try_lock(file.fileno()) and os.fstat(file.fileno()).st_nlink:
            break
        file.close()
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Remove what killed writers of ``target`` left: files in the making that nobody holds."""
    for path in target.parent.glob("*#*"):
        if not (path.name.startswith(f"{target.name}#") and HIDDEN_NAME.fullmatch(path.name)):
            continue
        try:
            with path.open("rb") as file:
                if try_lock(file.fileno()):
                    path.unlink()
        except FileNotFoundError:
            continue


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
