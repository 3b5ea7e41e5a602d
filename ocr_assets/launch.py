"""Runs of the graph's assets in this process, recorded in the instance that the UI shows.

Belongs here: executing a selection of assets, trying failed regions again, telling in one line why
a run failed. Does not belong here: which assets a deployment or a command consists of.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Self

import dagster as dg
from dagster._utils.error import SerializableErrorInfo

from ocr_assets.deployment import Deployment, DeploymentError
from ocr_assets.partitions import RANGE_END, RANGE_START, contiguous_ranges
from ocr_assets.run_processes import process_tag
from resources.keys import StorageError
from resources.progress import ProgressReporter

REGION_ASSETS = ("region_risk", "region_buildings")
PAUSE_SECONDS = 5.0
"""Pause before failed regions are tried again; each further attempt waits that much longer."""


class LaunchError(DeploymentError):
    """A run failed; the message says in one line what failed and why."""

    def __init__(self, message: str, partitions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.partitions = tuple(partitions)
        """Partitions that failed at the last attempt."""


@dataclass(frozen=True)
class Failure:
    """Why a run failed, in one line, and the partitions that it says have failed."""

    reason: str
    partitions: frozenset[str] = frozenset()


@dataclass
class Materialized:
    """What this command materialized of one asset: the row of the closing table."""

    asset: str
    partitions: int = 0
    count: int = 0
    unit: str = ""
    size: int = 0
    seconds: float = 0.0
    path: str = ""

    def add(self, metadata: Mapping[str, dg.MetadataValue]) -> None:
        """Count one materialization in."""
        self.partitions += 1
        for unit in ("rows", "pixels", "features", "pages"):
            if unit in metadata:
                self.unit = unit
                self.count += int(metadata[unit].value)  # type: ignore[arg-type]
                break
        self.size += int(metadata["bytes"].value) if "bytes" in metadata else 0  # type: ignore[arg-type]
        self.seconds += float(metadata["seconds"].value) if "seconds" in metadata else 0.0  # type: ignore[arg-type]
        if "path" in metadata:
            path = str(metadata["path"].value)
            self.path = _common_folder(self.path, path) if self.path else path


@dataclass
class GraphLauncher:
    """Executes selections of the graph's assets, one run after the other.

    What only regions need is imported for them, so that tiles and volumes start without it.

    Assets of regions, and what is made from them, go by the names that they have in every type of
    risk; the deployment says of which type they are.
    """

    deployment: Deployment
    progress: ProgressReporter
    instance: dg.DagsterInstance
    job: dg.JobDefinition
    """All assets of the deployment."""
    debug: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of every run."""
    materialized: dict[str, Materialized] = field(default_factory=dict)
    failed_checks: list[str] = field(default_factory=list)
    """Checks that did not pass and do not stop anything, a line each."""
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        level = "DEBUG" if self.debug else "CRITICAL"
        self._loggers = {"loggers": {"console": {"config": {"log_level": level}}}}

    def of(self, risk_name: str) -> Self:
        """A launcher for another type of risk; both keep one account of what was materialized."""
        other = copy.copy(self)
        other.deployment = self.deployment.of(risk_name)
        return other

    def materialize(self, label: str, *assets: str) -> None:
        """Materialize unpartitioned assets in one run; raises LaunchError if it fails."""
        with self.progress.task(self.deployment.key(label), 1) as advance:
            if failure := self._execute(self._of_risk(assets), {}, {}):
                raise LaunchError(failure.reason)
            advance("")

    def materialize_configured(
        self, config: Mapping[str, Any], *assets: str, tags: Mapping[str, str] | None = None
    ) -> None:
        """Materialize assets that show their own progress, with a run config.

        ``tags`` name the partition, if the assets have some. Raises LaunchError if the run fails.
        """
        if failure := self._execute(assets, tags or {}, config):
            raise LaunchError(failure.reason)

    def materialize_regions(
        self, region_ids: Sequence[str], *, retries: int = 0, recompute: bool = False
    ) -> None:
        """Materialize regions; those that failed again, up to ``retries`` times.

        Raises LaunchError, which names the regions that failed at the last attempt, or the check
        that their results failed.
        """
        self._report_inputs()
        order = self.deployment.grid.valid
        longest = self.deployment.settings.regions_per_run
        step = self.deployment.key("regions").replace("/", "__")
        config = {"ops": {step: {"config": {"recompute": recompute}}}}
        assets = self._of_risk(REGION_ASSETS)
        remaining, reason = list(region_ids), ""
        lasting: list[str] = []
        for attempt in range(retries + 1):
            time.sleep(PAUSE_SECONDS * attempt)
            failed: list[str] = []
            for first, last in contiguous_ranges(remaining, order, longest):
                tags = {RANGE_START: first, RANGE_END: last}
                failure = self._execute(assets, tags, config)
                if failure is None:
                    continue
                keys = order[order.index(first) : order.index(last) + 1]
                again = [key for key in keys if key in failure.partitions]
                again = again or self.deployment.unfinished_regions(keys)
                if again:
                    reason = reason if failed else failure.reason
                    failed += again
                else:  # All regions are done, but a check did not pass: another attempt would not.
                    lasting.append(failure.reason)
            remaining = failed
            if not remaining:
                break
        if remaining:
            raise LaunchError(
                f"{len(remaining)} of {len(region_ids)} regions failed ({_some(remaining)}): "
                f"{reason}",
                remaining,
            )
        if lasting:
            raise LaunchError(lasting[0])

    def _report_inputs(self) -> None:
        """Tell which inputs there are: what is made from them is then stale when they change."""
        from ocr_assets.input_reports import unknown_inputs
        from resources.catalog import CatalogError

        try:
            found = self.deployment.fingerprints(*self.deployment.catalog.datasets)
        except (CatalogError, StorageError):
            return  # What a run needs and does not find, the run tells.
        for event in unknown_inputs(self.instance, found, found).values():
            self.instance.report_runless_asset_event(event)

    def check(self, label: str, *assets: str) -> int:
        """Run the checks of these assets on all that is stored of them; how many passed.

        Raises LaunchError, which names the blocking checks that failed.
        """
        from ocr_assets.regions.checks import region_checks

        wanted = {dg.AssetKey.from_user_string(asset) for asset in self._of_risk(assets)}
        # A check that its asset makes itself runs with the asset only.
        checks = {
            key for check in region_checks() for key in check.check_keys if key.asset_key in wanted
        }
        with self.progress.task(self.deployment.key(label), 1) as advance:
            job = self.job.get_subset(asset_selection=set(), asset_check_selection=checks)
            result = job.execute_in_process(
                instance=self.instance,
                tags={**self.tags, **process_tag()},
                run_config=self._loggers,
                raise_on_error=False,
            )
            evaluations = result.get_asset_check_evaluations()
            failed = [check for check in evaluations if not check.passed]
            self.failed_checks += [_tell(check) for check in failed if not check.blocking]
            if not result.success or any(check.blocking for check in failed):
                raise LaunchError(_failure(result, failed).reason)
            advance("")
        return len(evaluations) - len(failed)

    def _of_risk(self, assets: Sequence[str]) -> list[str]:
        return [self.deployment.key(asset) for asset in assets]

    def _execute(
        self, assets: Sequence[str], tags: Mapping[str, str], config: Mapping[str, Any]
    ) -> Failure | None:
        """Run the assets; why it failed, if it did."""
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey.from_user_string(asset) for asset in assets],
            tags={**self.tags, **tags, **process_tag()},
            run_config={**config, **self._loggers},
            raise_on_error=False,
        )
        # The result of a failed step lacks what it materialized before it failed; the log has it.
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        for entry in self.instance.all_logs(result.run_id, of_type=kind):
            if made := entry.asset_materialization:
                name = made.asset_key.to_user_string()
                self.materialized.setdefault(name, Materialized(name)).add(made.metadata)
        failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
        self.failed_checks += [_tell(check) for check in failed if not check.blocking]
        return None if result.success else _failure(result, failed)


def user_error(error: SerializableErrorInfo | None) -> SerializableErrorInfo | None:
    """The error that the code of an asset raised.

    Dagster wraps it; what lies below it is the business of the layers that it comes from.
    """
    while error and error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    return error


def error_text(error: SerializableErrorInfo) -> str:
    """The message of an error in one line."""
    text = " ".join(error.message.split())
    # The message begins with the error's class; the name of one of Python's own tells more.
    head, _, rest = text.partition(": ")
    return rest if head.endswith(f".{error.cls_name}") else text


def _common_folder(one: str, other: str) -> str:
    """The part that two paths or addresses share."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return "/".join(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tell(check: dg.AssetCheckEvaluation) -> str:
    text = f"check {check.check_name} of {check.asset_key.to_user_string()} failed"
    return f"{text}: {check.description}" if check.description else text


def _failure(
    result: dg.ExecuteInProcessResult, failed_checks: Sequence[dg.AssetCheckEvaluation]
) -> Failure:
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        told = event.step_failure_data.user_failure_data
        if told and "failed" in told.metadata:
            reasons: Mapping[str, str] = told.metadata["failed"].value  # type: ignore[assignment]
            partition, reason = next(iter(reasons.items()))
            return Failure(f"{partition}: {' '.join(reason.split())}", frozenset(reasons))
        error = user_error(event.step_failure_data.error)
        if error is None:
            return Failure(f"{event.step_key}: no reason recorded")
        if error.cls_name == "DagsterAssetCheckFailedError":
            return Failure("; ".join(_tell(check) for check in failed_checks if check.blocking))
        return Failure(f"{event.step_key}: {error_text(error)}")
    return Failure("the run failed before its first step")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
