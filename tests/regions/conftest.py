"""An instance for the graph of regions."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A record of runs that lasts as long as the test."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made
