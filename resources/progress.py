"""How long work shows that it moves: a log line in a run, a bar at the command line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Advance = Callable[[str], None]
"""Called once for each finished piece of work, with its name."""


class ProgressReporter(Protocol):
    """Announces a task of ``total`` pieces and gives the function that counts them."""

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Context in which the task runs."""
        ...


class LogProgress:
    """Progress as lines of a logger, for runs that a daemon started."""

    def __init__(self, log: logging.Logger | None = None) -> None:
        self._log = log or logging.getLogger("ocr_assets")

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """See :class:`ProgressReporter`."""
        done = 0

        def advance(name: str) -> None:
            nonlocal done
            done += 1
            self._log.info("%s: %s (%d of %d)", label, name, done, total)

        yield advance


class ConsoleProgress:
    """Progress as a bar on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __reduce__(self) -> tuple[type[LogProgress], tuple[()]]:
        return LogProgress, ()  # a worker has no console, but a log

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """See :class:`ProgressReporter`."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[last]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            bar_task = bar.add_task(label, total=total, last="")
            yield lambda name: bar.update(bar_task, advance=1, last=name)
