"""Scratch: a local folder for files in the making, gone when the run ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg


class Scratch:
    """Gives assets fresh folders to make files in; the IO managers take the files from there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(dir=self._root))


@dg.resource(description="A local folder for files in the making, removed when the run ends.")
def scratch(_: dg.InitResourceContext) -> Iterator[Scratch]:
    """A scratch folder for the length of a run."""
    with tempfile.TemporaryDirectory(prefix="ocr-scratch-") as root:
        yield Scratch(Path(root))
