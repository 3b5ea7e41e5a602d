"""Two versions of an environment beside each other, published or not.

Belongs here: finding the rasters and the statistics of a version, and where the answer goes.
Does not belong here: what a difference is (``ocr_assets.regions.compare``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq

from ocr_assets.deployment import Deployment, DeploymentError
from ocr_assets.regions.compare import (
    CHANGES,
    Change,
    DifferenceMap,
    Raster,
    by_variable,
    compare_rasters,
    compare_statistics,
    differing,
    summary,
)
from ocr_assets.regions.geographies import LEVELS, Level
from ocr_assets.releases import Releases, release_order
from resources.icechunk_branch import NotInitializedError
from resources.settings import Settings

_DEV = "dev"

TABLE_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Version:
    """A version of one type of risk."""

    deployment: Deployment

    @classmethod
    def of(cls, settings: Settings, name: str, risk_name: str) -> Version:
        """The version called ``1.2.3``, ``v1.2.3_r2``, ``latest`` (what readers have) or ``dev``.

        Raises:
            DeploymentError: the name is none of these, or nothing is published yet.
        """
        if name == "latest":
            settings = Releases.of(settings).current_settings(settings)
        elif name == _DEV:
            settings = settings.changed(version=None, revision=1)
        else:
            label = f"v{name.removeprefix('v')}"
            release_order(label)
            version, _, revision = label.removeprefix("v").partition("_r")
            settings = settings.changed(version=version, revision=int(revision or 1))
        return cls(Deployment(settings).of(risk_name))

    @property
    def label(self) -> str:
        """Label of the version."""
        return self.deployment.settings.version_label

    @cached_property
    def raster(self) -> Raster | None:
        """Its rasters: at its tag if it is published, else on the branch; None if it has none."""
        regions, label = self.deployment.regions, self.label
        at = label if self.deployment.is_published else None
        try:
            ledger = regions.ledger(at)
        except NotInitializedError:
            return None
        own = {id_ for id_, entry in ledger.items() if entry["lineage"]["version"] == label}
        return Raster(regions.dataset(at=at), own) if own else None

    @cached_property
    def levels(self) -> list[Level]:
        """Levels of which it has statistics."""
        storage = self.deployment.storage
        return [level for level in LEVELS if storage.exists(_statistics(level))]


def _statistics(level: Level) -> str:
    return f"statistics/{level}.parquet"


def pieces(before: Version, after: Version) -> int:
    """How many regions and levels :func:`compare` looks at."""
    own = [set(version.raster.regions) for version in (before, after) if version.raster]
    regions = own[0] | own[1] if len(own) == 2 else set()
    return len(regions) + len(set(before.levels) & set(after.levels))


def compare(
    before: Version,
    after: Version,
    *,
    table: Path | None = None,
    picture: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Change]:
    """What changed from one version to another; see :func:`ocr_assets.regions.compare.summary`.

    Rasters are compared where both versions have regions, statistics where both have a level.

    Args:
        before, after: versions of the same type of risk.
        table: CSV or Parquet for every place that differs (:data:`CHANGES`).
        picture: PNG for a map of the differences of the scored variables.
        progress: called with each region and level that was compared.

    Raises:
        DeploymentError: there is nothing that both versions have, or no raster for a picture.
        ValueError: ``table`` is neither CSV nor Parquet.
    """
    if table is not None and table.suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{table}: the table is written as {' or '.join(TABLE_SUFFIXES)}")
    rasters = before.raster, after.raster
    levels = [level for level in before.levels if level in after.levels]
    if None in rasters and not levels:
        raise DeploymentError(_nothing(before, after))
    if picture is not None and None in rasters:
        raise DeploymentError(
            f"no map: only a version at the head of its branch, or a published one, has rasters; "
            f"{' and '.join(v.label for v in (before, after) if v.raster is None)} has none"
        )
    changes: list[Change] = []
    with ExitStack() as stack:
        write = stack.enter_context(_Table(table)).write if table else lambda _: None
        if rasters[0] is not None and rasters[1] is not None:
            changes += _rasters(before, rasters[0], after, rasters[1], write, picture, progress)
        for level in levels:
            was, now = (v.deployment.storage.source(_statistics(level)) for v in (before, after))
            for name, rows in compare_statistics(was, now, level):
                changes.append(summary(rows, level, name))
                write(differing(rows))
            progress(level)
    return changes


def _rasters(
    before: Version,
    old: Raster,
    after: Version,
    new: Raster,
    write: Callable[[pyarrow.Table], Any],
    picture: Path | None,
    progress: Callable[[str], None],
) -> list[Change]:
    deployment = after.deployment
    variables, windows = list(deployment.risk.variables), deployment.regions.regions
    window = deployment.grid.window
    drawn = DifferenceMap(window.shape, deployment.risk.scored) if picture else None
    tables = []
    for rows in compare_rasters(old, new, windows, variables, drawn):
        tables.append(rows)
        write(differing(rows))
        progress(rows["place"][0].as_py())
    if picture is not None and drawn is not None:
        title = f"{deployment.risk.title}: {after.label} minus {before.label}"
        _replace(picture, drawn.png(title, window.bounds))
    return by_variable(tables, variables)


def _nothing(before: Version, after: Version) -> str:
    return (
        f"{before.label} and {after.label} have nothing in common to compare: an unpublished "
        f"version has rasters while it is the last one that was computed, and statistics after "
        f"`ocr aggregate-region-risk-summary-stats`"
    )


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(data)
    os.replace(aside, path)


class _Table:
    """A CSV or Parquet file that appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> _Table:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: Any = (
            pyarrow.csv.CSVWriter(self._aside, CHANGES)
            if self._path.suffix == ".csv"
            else pq.ParquetWriter(self._aside, CHANGES, compression="zstd")
        )
        return self

    def write(self, rows: pyarrow.Table) -> None:
        if rows.num_rows:
            self._writer.write_table(rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self._aside, self._path)
        else:
            self._aside.unlink(missing_ok=True)


def changed(changes: Sequence[Change]) -> list[Change]:
    """Those that are not as before."""
    return [change for change in changes if change.differs]
