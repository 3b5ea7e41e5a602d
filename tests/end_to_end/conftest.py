"""Dagster as `ocr dev` runs it on the sample world, a backfill through it, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from running_dagster import RunningDagster
from sample_worlds import REGION_ASSETS, World

REPOSITORY = Path(__file__).parents[2]

BACKFILLED = ("y0_x0", "y0_x1", "y0_x2")
"""Regions of the sample world that the backfill computes."""

BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def running_world(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world that the running Dagster works on."""
    return World(sample_root, tmp_path_factory.mktemp("running"))


@pytest.fixture(scope="session")
def running_dagster(running_world: World) -> Iterator[RunningDagster]:
    """`ocr dev` on a fresh instance, started in the checkout as `make dev` does."""
    variables, folder = running_world.variables(), running_world.folder
    with RunningDagster.start(variables, folder, cwd=REPOSITORY) as running:
        yield running


@pytest.fixture(scope="session")
def backfill(running_dagster: RunningDagster) -> dict[str, Any]:
    """A finished backfill of a few regions, launched as the UI does: its status and runs."""
    running_dagster.materialize("region_template")
    backfill_id = running_dagster.launch_backfill(REGION_ASSETS, BACKFILLED)
    return running_dagster.finished_backfill(backfill_id)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("no chromium is installed (Debian package 'chromium')")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
        yield started
        started.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots are kept."""
    folder = Path(os.environ.get("OCR_TEST_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
