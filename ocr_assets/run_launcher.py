"""The launcher of runs on an instance that several machines share, as ``deploy/dagster.yaml`` says.

Dagster's own launcher does not say which machine a run's process is on, and nobody looks whether it
still lives: after a power cut its runs would stay in progress, and hold their pools, for ever.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.launcher.base import LaunchRunContext

from ocr_assets.run_processes import launcher_tags, worker_lives


class HostRunLauncher(DefaultRunLauncher):
    """Starts a process for each run, on the machine of the daemon, and says whether it lives."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run, tagged with the names of this machine and process."""
        self._instance.add_run_tags(context.dagster_run.run_id, launcher_tags())
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """The monitor of runs asks :meth:`check_run_worker_health`."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run lives."""
        if worker_lives(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        # It may have ended in the regular way since the monitor read its state.
        now = self._instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, "the process that executed this run was killed"
        )
