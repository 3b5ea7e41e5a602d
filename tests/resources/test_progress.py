"""Progress and scratch space: small services that every run uses."""

from __future__ import annotations

import io
import logging

import dagster as dg
import pytest
from rich.console import Console

from resources.progress import ConsoleProgress, LogProgress
from resources.scratch import Scratch, scratch


def test_progress_in_a_log_counts_the_pieces(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "ocr_assets"),
        LogProgress().task("regions", 2) as advance,
    ):
        advance("y0_x0")
        advance("y0_x1")
    assert caplog.messages == ["regions: y0_x0 (1 of 2)", "regions: y0_x1 (2 of 2)"]


def test_progress_on_a_console_ends_full() -> None:
    out = io.StringIO()
    with ConsoleProgress(Console(file=out, width=120)).task("tiles", 3) as advance:
        for name in ("one", "two", "three"):
            advance(name)
    assert "tiles" in out.getvalue()
    assert "3/3 three" in out.getvalue()


def test_scratch_folders_are_fresh_and_gone_after_the_run() -> None:
    seen = []

    @dg.asset
    def made(scratch: dg.ResourceParam[Scratch]) -> None:
        for _ in range(2):
            folder = scratch.folder()
            assert not list(folder.iterdir())
            (folder / "file").write_text("x")
            seen.append(folder)
        assert seen[0] != seen[1]

    assert dg.materialize([made], resources={"scratch": scratch}).success
    assert not any(folder.exists() for folder in seen)


def test_scratch_space_of_a_failed_run_is_freed_as_well() -> None:
    seen = []

    @dg.asset
    def broken(scratch: dg.ResourceParam[Scratch]) -> None:
        seen.append(scratch.folder())
        raise ValueError("no")

    result = dg.materialize([broken], resources={"scratch": scratch}, raise_on_error=False)
    assert not result.success
    assert not seen[0].exists()
