"""An instance for sensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest


@pytest.fixture
def instance(fresh_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance as the project sets it up: with a queue, crashed runs are tried again."""
    shutil.copytree(fresh_home, tmp_path / "home")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as made:
        yield made
