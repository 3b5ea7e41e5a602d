"""Names that the shell completes, and commands that start fast enough to be completed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sample_worlds import OCR, environment

HEAVY = ("dagster", "dask", "geopandas", "icechunk", "pandas", "rasterio", "xarray", "zarr")
"""Packages that take longer to import than a person waits for a name to be completed."""


def complete(*words: str) -> list[str]:
    """What bash is told to offer for the last of some words."""
    variables = {
        "_OCR_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("ocr", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([OCR], env=environment(variables), capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("dep",), ["deploy"]),
        (("deploy", "r"), ["run", "rollback"]),
        (("deploy", "run", "--wi"), ["--wipe"]),
        (("run", "--platform", ""), ["local", "dask", "coiled"]),
    ],
)
def test_names_are_completed(words: tuple[str, ...], offered: list[str]) -> None:
    assert complete(*words) == offered


def test_a_shell_is_taught(tmp_path: Path) -> None:
    # Which shell it is, is told here; otherwise it is looked for among the parents of the process.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    variables = environment({"HOME": str(tmp_path), **told})
    shown = subprocess.run(
        [OCR, "--show-completion", "bash"], env=variables, capture_output=True, text=True
    )
    assert "complete -o default -F _ocr_completion ocr" in shown.stdout
    done = subprocess.run(
        [OCR, "--install-completion", "bash"], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (script,) = tmp_path.rglob("ocr.sh")
    assert "_ocr_completion" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("module", ["ocr_assets.cli.app", "ocr_assets.releases"])
def test_commands_start_without_what_only_some_need(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
