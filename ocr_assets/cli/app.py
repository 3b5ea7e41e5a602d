"""Commands of `ocr` and what they share: settings, console, and how failures are told."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ocr_assets.regions.risk_type import RISK_NAMES
from resources.settings import Settings, load_settings

app = typer.Typer(
    name="ocr",
    help="Climate-risk regions, tree-cover tiles and Tibetan OCR volumes as one asset graph.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
regions_app = typer.Typer(
    help="Look at the regions of the climate-risk wing.", no_args_is_help=True
)
tiles_app = typer.Typer(help="Ask for tiles of tree cover.", no_args_is_help=True)
volumes_app = typer.Typer(help="Read scanned volumes and look at their text.", no_args_is_help=True)
jobs_app = typer.Typer(help="Jobs: many volumes, read by one job type.", no_args_is_help=True)
models_app = typer.Typer(help="Recognition models on this machine.", no_args_is_help=True)
app.add_typer(regions_app, name="regions")
app.add_typer(tiles_app, name="tiles")
app.add_typer(volumes_app, name="volumes")
app.add_typer(jobs_app, name="jobs")
app.add_typer(models_app, name="models")

# A pipe has no width; tables in a log should not be folded to that of an old terminal.
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file", "-e", help="File of OCR_… settings; variables of the environment win."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Print the detailed log.")]


class Platform(StrEnum):
    """Where the work of a run is computed."""

    local = "local"
    dask = "dask"
    coiled = "coiled"


class RiskType(StrEnum):
    """Which type of risk is meant."""

    fire = "fire"
    wind = "wind"
    all = "all"

    @property
    def names(self) -> tuple[str, ...]:
        """The types of risk that are meant."""
        return RISK_NAMES if self is RiskType.all else (self.value,)


class OneRiskType(StrEnum):
    """Which one type of risk is meant."""

    fire = "fire"
    wind = "wind"


PlatformOption = Annotated[
    Platform | None,
    typer.Option("--platform", "-p", help="Where the work is computed; OCR_PLATFORM if not given."),
]
RiskTypeOption = Annotated[
    RiskType,
    typer.Option("--risk-type", "-t", help="Wildfire risk, the wind of fire weather, or both."),
]
OneRiskTypeOption = Annotated[
    OneRiskType,
    typer.Option("--risk-type", "-t", help="Wildfire risk, or the wind of fire weather."),
]


def settings_from(
    env_file: Path | None, *, debug: bool = False, platform: Platform | None = None
) -> Settings:
    """The settings of this command, also exported for the processes it starts."""
    settings = load_settings(env_file)
    if debug and not settings.debug:
        settings = settings.model_copy(update={"debug": True})
    if platform is not None:
        settings = settings.model_copy(update={"platform": platform.value})
    os.environ.update(settings.exported())
    return settings


def explain(error: Exception) -> str | None:
    """One line for a failure that a user can mend; None for a defect, which keeps its traceback."""
    from ocr_assets.deployment import DeploymentError
    from resources.cluster import ClusterError
    from resources.downloads import DownloadError
    from resources.keys import StorageError
    from resources.locks import LockTimeoutError
    from resources.model_store import DamagedModelError, MissingModelError
    from resources.request_queue import QueueError

    # Every error of a user's input is a ValueError whose message says what is wrong and the mend.
    known = (
        ClusterError,
        DamagedModelError,
        DeploymentError,
        DownloadError,
        LockTimeoutError,
        MissingModelError,
        OSError,
        QueueError,
        StorageError,
        ValueError,
    )
    return " ".join(str(error).split()) if isinstance(error, known) else None


def print_table(title: str, columns: list[str], rows: list[list[Any]], right: set[str]) -> None:
    """Print a table; columns in ``right`` are aligned to the right."""
    table = Table(box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A title of the table's own would be folded to its width, paths in it included.
    console.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


from ocr_assets.cli import (  # noqa: E402,F401 - they add their commands to app
    deploy,
    ingest,
    models,
    regions,
    requests,
    status,
    tile_answers,
    tile_runs,
    tiles,
    volume_jobs,
    volumes,
    worker,
    workplace,
)
