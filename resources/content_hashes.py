"""Content hashes of local files that are not computed twice.

Belongs here: remembering the SHA-256 of a file for as long as its size, time and place on the disk
stay the same. Does not belong here: what the hashes are for.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from platformdirs import user_cache_path

from resources.atomic import write_atomic
from resources.manifest import sha256_file

REMEMBERED_BYTES = 64 << 20
"""Files from this size on are remembered beyond this process: hashing them takes a while."""

_SETTLED_NS = 2_000_000_000
"""A file changed less long ago could change once more without its time showing it."""

_known: dict[Path, tuple[list[int], str]] = {}
_lock = threading.Lock()


def content_sha256(path: Path, *, cache: Path | None = None) -> str:
    """SHA-256 of a file in hexadecimal digits; read only if the file changed since last time.

    Args:
        path: the file.
        cache: folder where hashes of large files are kept, by default the user's cache folder.
    """
    path = path.resolve()
    before = _state(path)
    folder = cache or user_cache_path("ocr-assets", appauthor=False) / "sha256"
    with _lock:
        state, digest = _known.get(path, ([], ""))
    if state != before and before[0] >= REMEMBERED_BYTES:
        state, digest = _recall(folder, path)
    if state != before:
        settled = time.time_ns() - before[1] > _SETTLED_NS
        digest = sha256_file(path)
        if not settled or _state(path) != before:
            return digest
        if before[0] >= REMEMBERED_BYTES:
            _remember(folder, path, before, digest)
    with _lock:
        _known[path] = before, digest
    return digest


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _place(folder: Path, path: Path) -> Path:
    return folder / f"{sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _recall(folder: Path, path: Path) -> tuple[list[int], str]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(_place(folder, path).read_bytes())
        if record["path"] == str(path):
            return list(record["state"]), str(record["sha256"])
    return [], ""


def _remember(folder: Path, path: Path, state: list[int], digest: str) -> None:
    record = json.dumps({"path": str(path), "state": state, "sha256": digest}).encode()
    # A cache that cannot be written costs time later, nothing else.
    with suppress(OSError):
        write_atomic(_place(folder, path), lambda file: file.write(record), if_absent=False)
