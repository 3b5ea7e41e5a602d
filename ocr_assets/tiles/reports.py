"""Reports about work on tiles: tables, a list of failures that can be asked for again, pictures.

Belongs here: what a report says and looks like. Does not belong here: where the facts come from.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from ocr_assets.tiles.grid import Tile

Status = Literal["success", "partial", "failed", "missing"]
STATUSES: tuple[Status, ...] = ("success", "partial", "failed", "missing")

COLUMNS = (
    "task_type",
    "status",
    "year",
    "lon",
    "lat",
    "X_tile",
    "Y_tile",
    "duration_sec",
    "finished",
    "error_message",
)
"""Columns of the summary table."""

_TOLD_FAILURES = 20
_ERROR_LENGTH = 500
_COLOURS = {"success": "#2a7f62", "partial": "#d9a441", "failed": "#b3423a"}


@dataclass(frozen=True)
class TileTask:
    """One source of one tile: how the last attempt at it went."""

    source: str
    tile: Tile
    year: int | None
    """None for terrain."""
    status: Status
    seconds: float = 0.0
    ended: float | None = None
    """Seconds since 1970; None if there was no attempt."""
    skipped: bool = False
    """Whether it was there before, so that its seconds say nothing."""
    error: str = ""


def summary_csv(tasks: Iterable[TileTask], centres: dict[Tile, tuple[float, float]]) -> str:
    """Table of all tasks with :data:`COLUMNS`; longitude and latitude of the centres of tiles."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for task in tasks:
        longitude, latitude = centres[task.tile]
        writer.writerow(
            [
                task.source,
                task.status,
                task.year or "",
                longitude,
                latitude,
                task.tile.x,
                task.tile.y,
                f"{task.seconds:.2f}",
                _moment(task.ended),
                " ".join(task.error.split())[:_ERROR_LENGTH],
            ]
        )
    return out.getvalue()


def failed_json(tasks: Iterable[TileTask], wanted: Iterable[tuple[int, Tile]]) -> str:
    """The failures as a request for tiles, which `ocr tiles resolve` and `run` read.

    Terrain belongs to no year: a failure of it stands for all years in which its tile is wanted.
    """
    years: dict[Tile, set[int]] = {}
    for year, tile in wanted:
        years.setdefault(tile, set()).add(year)
    entries = [
        {
            "task_type": task.source,
            "tile_info": {"year": year, "X_tile": task.tile.x, "Y_tile": task.tile.y},
            "error_message": task.error,
        }
        for task in tasks
        if task.status == "failed"
        for year in ([task.year] if task.year else sorted(years.get(task.tile, ())))
    ]
    return json.dumps(entries, indent=1) + "\n"


def totals(tasks: Sequence[TileTask]) -> dict[str, dict[str, Any]]:
    """By source: how many tasks are in each status, and the seconds of those that were made."""
    found: dict[str, dict[str, Any]] = {}
    for source in dict.fromkeys(task.source for task in tasks):
        own = [task for task in tasks if task.source == source]
        counts = Counter(task.status for task in own)
        seconds = made_seconds(own)
        found[source] = {
            "tasks": len(own),
            **{status: counts[status] for status in STATUSES},
            "seconds": round(float(seconds.sum()), 2),
            **{
                f"p{share}": round(float(np.percentile(seconds, share)), 2) if seconds.size else 0.0
                for share in (50, 95, 99)
            },
        }
    return found


def made_seconds(tasks: Iterable[TileTask]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds of the tasks that did something, float64."""
    return np.array(
        [task.seconds for task in tasks if task.seconds and not task.skipped], np.float64
    )


def report_json(tasks: Sequence[TileTask]) -> str:
    """Totals and all tasks."""
    document = {
        "totals": totals(tasks),
        "tasks": [{**asdict(task), "tile": task.tile.key} for task in tasks],
    }
    return json.dumps(document, indent=1) + "\n"


def report_text(tasks: Sequence[TileTask]) -> str:
    """Totals and the first failures, for people."""
    lines = []
    for source, facts in totals(tasks).items():
        share = (facts["success"] + facts["partial"]) / facts["tasks"]
        lines += [
            f"{source}: {facts['tasks']} tiles, {share:.1%} there",
            "  " + ", ".join(f"{facts[status]} {status}" for status in STATUSES),
            f"  {facts['seconds']} s in all; half took {facts['p50']} s at most, "
            f"95 % {facts['p95']} s",
        ]
    failures = [task for task in tasks if task.status == "failed"]
    if failures:
        lines.append(f"{len(failures)} failures:")
        lines += [
            f"  {task.source} {task.tile.key} {task.year or ''}: {' '.join(task.error.split())}"
            for task in failures[:_TOLD_FAILURES]
        ]
        if len(failures) > _TOLD_FAILURES:
            lines.append(f"  and {len(failures) - _TOLD_FAILURES} more")
    return "\n".join(lines) + "\n"


def timeline_png(tasks: Sequence[TileTask]) -> bytes:
    """Picture of when each task was at work, a row for each, in the order of their beginnings."""
    from matplotlib.figure import Figure

    bars = sorted(
        [task for task in tasks if task.ended and task.seconds and not task.skipped],
        key=_began,
    )
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    origin = _began(bars[0]) if bars else 0.0
    axes.barh(
        range(len(bars)),
        [task.seconds for task in bars],
        left=[_began(task) - origin for task in bars],
        height=1.0,
        color=[_COLOURS[task.status] for task in bars],
    )
    axes.set_xlabel(f"seconds since {_moment(origin)}" if bars else "seconds")
    axes.set_ylabel("task")
    axes.set_title(f"{len(bars)} tasks")
    return _png(figure)


def _began(task: TileTask) -> float:
    return (task.ended or 0.0) - task.seconds


def duration_png(tasks: Sequence[TileTask]) -> bytes:
    """Picture of how long tasks took, a histogram for each source."""
    from matplotlib.figure import Figure

    sources = list(dict.fromkeys(task.source for task in tasks))
    figure = Figure(figsize=(9, 2.2 * max(1, len(sources))), dpi=110, layout="constrained")
    panels = figure.subplots(max(1, len(sources)), squeeze=False)[:, 0]
    for axes, source in zip(panels, sources, strict=False):
        seconds = made_seconds(task for task in tasks if task.source == source)
        axes.hist(seconds, bins=20, color=_COLOURS["success"])
        axes.set_title(f"{source}: {seconds.size} tiles", loc="left")
        axes.set_xlabel("seconds")
    return _png(figure)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _moment(seconds: float | None) -> str:
    """A moment as ISO 8601 in UTC; empty for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds")
