"""Commands about jobs: many volumes, read by one job type."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    PlatformOption,
    console,
    jobs_app,
    print_table,
    settings_from,
)
from ocr_assets.cli.regions import print_materialized
from ocr_assets.cli.volumes import launcher_for, tell_failures
from ocr_assets.deployment import Deployment
from ocr_assets.volumes.ledger import (
    FAILED,
    FINISHED,
    Attempt,
    Job,
    JobState,
    Task,
    TaskState,
    Throughput,
    job_state,
    parse_volume_file,
    parse_volumes,
    throughput,
)

if TYPE_CHECKING:
    from ocr_assets.cli.volume_runs import Problem
    from ocr_assets.volume_library import VolumeLibrary
    from resources.settings import Settings

_LATEST_ERRORS = 5

JobId = Annotated[int | None, typer.Option("--job-id", min=1, help="Number of the job.")]
JobKey = Annotated[str | None, typer.Option("--job-key", help="Key of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class JobReport:
    """A job and what became of it."""

    number: int
    job: Job
    state: JobState
    tasks: list[Task]
    attempts: list[Attempt]
    throughput: Throughput
    latest_errors: list[Problem]
    """The latest failures of volumes and pages, the latest first."""

    @property
    def counts(self) -> dict[str, int]:
        """Volumes in each state."""
        found = Counter(task.state for task in self.tasks)
        return {state.value: found[state] for state in TaskState}

    def document(self) -> dict[str, Any]:
        """For printing as JSON."""
        speed = self.throughput
        return {
            "id": self.number,
            "key": self.job.key,
            "job_type": self.job.job_type,
            "state": self.state,
            "created": _time(self.job.created),
            "tasks": self.counts,
            "throughput": {**asdict(speed), "pages_per_second": speed.pages_per_second},
            "latest_errors": [
                {"volume": one.volume, "error": one.error, "at": _time(one.at)}
                for one in self.latest_errors
            ],
            "volumes": [asdict(task) for task in self.tasks],
        }


@jobs_app.command("types")
def types(as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Show the job types: which model reads, and what text comes out."""
    library = _library(env_file)
    rows = [
        {"id": number, **asdict(job_type)}
        for number, job_type in enumerate(library.job_types.values(), 1)
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    columns = ["id", "name", "model", "encoding", "line_mode", "decoder", "description"]
    print_table(
        "Job types", columns, [[row[name] for name in columns] for row in rows], right={"id"}
    )


@jobs_app.command("create")
def create(
    type_id: Annotated[
        int | None, typer.Option("--type-id", help="Number of the job type.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", "-t", help="Name of the job type.")] = None,
    volumes: Annotated[
        str | None, typer.Option("--volumes", help="Volumes, joined by commas.")
    ] = None,
    volume_file: Annotated[
        Path | None, typer.Option("--volume-file", help="File with a volume on each line.")
    ] = None,
    job_key: JobKey = None,
    env_file: EnvFile = None,
) -> None:
    """Keep a job. `ocr jobs run` or the daemon reads its volumes."""
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.cli.volume_runs import add_volumes
    from ocr_assets.volume_jobs import create_job, list_jobs
    from ocr_assets.volumes.job_types import find_job_type

    if (type_id is None) == (type_ is None):
        raise typer.BadParameter("give --type-id or --type, one of them")
    if (volumes is None) == (volume_file is None):
        raise typer.BadParameter("give --volumes or --volume-file, one of them")
    library = _library(env_file)
    job_type = find_job_type(library.job_types, type_id or type_ or "")
    if volume_file is not None:
        try:
            chosen = parse_volume_file(volume_file.read_text("utf-8"), str(volume_file))
        except OSError as error:
            raise typer.BadParameter(f"{volume_file} cannot be read: {error.strerror}") from error
    else:
        chosen = parse_volumes(volumes or "")
    job, new = create_job(library.storage, job_type.name, chosen, job_key)
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        add_volumes(instance, job.volumes)
    number = [one.key for one in list_jobs(library.storage)].index(job.key) + 1
    state = "created" if new else "exists already, nothing was added"
    console.print(
        f"job {number} {job.key} {state}: {len(job.volumes)} volumes, {job.job_type}",
        highlight=False,
    )
    console.print(f"read them: ocr jobs run --job-key {job.key}", highlight=False)


@jobs_app.command("run")
def run(
    job_id: JobId = None,
    job_key: JobKey = None,
    platform: PlatformOption = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Read the volumes of a job that are pending, or failed and may be tried again."""
    settings = settings_from(env_file, debug=debug, platform=platform)
    _read(settings, job_id, job_key, {TaskState.pending, TaskState.retryable_failed})


@jobs_app.command("retry")
def retry(
    job_id: JobId = None,
    job_key: JobKey = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="Also try the failed pages of partial volumes again.")
    ] = False,
    platform: PlatformOption = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Try again what failed, and nothing else. A canceled job goes on."""
    settings = settings_from(env_file, debug=debug, platform=platform)
    states = FAILED | {TaskState.partial} if pages else FAILED
    _read(settings, job_id, job_key, states, pages_again=pages, resumed=True)


def _read(
    settings: Settings,
    job_id: int | None,
    job_key: str | None,
    states: set[TaskState] | frozenset[TaskState],
    *,
    pages_again: bool = False,
    resumed: bool = False,
) -> None:
    from ocr_assets.cli.volume_runs import run_job
    from ocr_assets.volume_jobs import JobError, find_job, is_canceled, resume
    from ocr_assets.volume_library import VolumeLibrary

    deployment = Deployment(settings)
    library = VolumeLibrary(settings)
    job = find_job(library.storage, number=job_id, key=job_key)
    if is_canceled(library.storage, job):
        if not resumed:
            raise JobError(f"job {job.key} is canceled; `ocr jobs retry` takes it up again")
        resume(library.storage, job)
        states = states | {TaskState.pending}
    library.line_model(library.job_type(job.job_type))  # a missing model: say so first
    launcher = launcher_for(deployment)
    report = _report(library, job)
    wanted = [task for task in report.tasks if task.state in states]
    if not wanted:
        console.print(f"job {job.key}: nothing to do", highlight=False)
        return
    try:
        failed = run_job(launcher, library, job, wanted, states, pages_again=pages_again)
        launcher.materialize("quality of volumes", "volume_quality")
    finally:
        print_materialized(launcher)
    _print_report(_report(library, job))
    tell_failures(failed, len(wanted))


@jobs_app.command("status")
def status(
    job_id: JobId = None,
    job_key: JobKey = None,
    include_status: Annotated[
        list[JobState] | None,
        typer.Option("--include-status", help="Only jobs in this state; repeatable."),
    ] = None,
    exclude_status: Annotated[
        list[JobState] | None,
        typer.Option("--exclude-status", help="No jobs in this state; repeatable."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also canceled and failed jobs, and without a limit.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many jobs, the latest first.")] = 20,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show one job in detail, or all jobs; canceled and failed ones only if asked for."""
    from ocr_assets.volume_jobs import find_job, list_jobs

    library = _library(env_file)
    if job_id is not None or job_key is not None:
        report = _report(library, find_job(library.storage, number=job_id, key=job_key))
        if as_json:
            console.print_json(json.dumps(report.document()))
        else:
            _print_report(report)
        return
    if exclude_status is None:
        exclude_status = [] if include_status else [JobState.canceled, JobState.failed]
    reports = []
    for job in reversed(list_jobs(library.storage)):
        report = _report(library, job)
        if all_ or (
            (not include_status or report.state in include_status)
            and report.state not in exclude_status
        ):
            reports.append(report)
        if len(reports) == limit and not all_:
            break
    if as_json:
        console.print_json(json.dumps([report.document() for report in reports]))
        return
    print_table(
        "Jobs",
        ["id", "key", "type", "state", "created", "done", "failed", "total", "pages/s", "left"],
        [
            [
                report.number,
                report.job.key,
                report.job.job_type,
                report.state,
                _time(report.job.created),
                sum(task.state in FINISHED for task in report.tasks),
                sum(task.state in FAILED for task in report.tasks),
                len(report.tasks),
                _speed(report.throughput),
                _duration(report.throughput.remaining_seconds),
            ]
            for report in reports
        ],
        right={"id", "done", "failed", "total", "pages/s", "left"},
    )


@jobs_app.command("cancel")
def cancel(job_id: JobId = None, job_key: JobKey = None, env_file: EnvFile = None) -> None:
    """Stop what has not started; volumes that are being read are finished."""
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.cli.volume_runs import JOB_TAG
    from ocr_assets.volume_jobs import JobError, find_job
    from ocr_assets.volume_jobs import cancel as cancel_job

    library = _library(env_file)
    job = find_job(library.storage, number=job_id, key=job_key)
    report = _report(library, job)
    if report.state in (JobState.completed, JobState.failed, JobState.canceled):
        raise JobError(f"job {job.key} is {report.state}: there is nothing to cancel")
    cancel_job(library.storage, job)
    prepare_home()
    queued = 0
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs(
            dg.RunsFilter(tags={JOB_TAG: job.key}, statuses=[dg.DagsterRunStatus.QUEUED])
        ):
            instance.report_run_canceled(run)
            queued += 1
    running = report.counts[TaskState.running]
    console.print(
        f"job {job.key} canceled: {queued} queued runs stopped, {running} volumes finish",
        highlight=False,
    )


@jobs_app.command("metrics")
def metrics(
    job_id: JobId = None, job_key: JobKey = None, as_json: AsJson = False, env_file: EnvFile = None
) -> None:
    """Show pages, failures, confidence and time of each volume of a job."""
    from ocr_assets.volume_jobs import find_job

    library = _library(env_file)
    report = _report(library, find_job(library.storage, number=job_id, key=job_key))
    seconds: dict[str, float] = {}
    for attempt in report.attempts:
        if attempt.started is not None and attempt.ended is not None:
            spent = attempt.ended - attempt.started
            seconds[attempt.volume] = seconds.get(attempt.volume, 0.0) + spent
    rows: list[dict[str, Any]] = []
    for task in report.tasks:
        record = library.record(report.job.job_type, task.volume)
        quality = asdict(record.quality) if record else {}
        rows.append(
            {
                "volume": task.volume,
                "state": task.state,
                "attempts": task.attempts,
                "seconds": round(seconds.get(task.volume, 0.0), 2),
                **quality,
            }
        )
    if as_json:
        console.print_json(json.dumps(rows))
        return
    columns = ["volume", "state", "attempts", "seconds", "pages", "failed_pages", "blank_pages"]
    columns += ["lines", "characters", "mean_confidence", "low_confidence_share"]
    print_table(
        f"Metrics of job {report.job.key}",
        [name.replace("_", " ") for name in columns],
        [[_cell(row.get(name)) for name in columns] for row in rows],
        right={name.replace("_", " ") for name in columns[2:]},
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _report(library: VolumeLibrary, job: Job) -> JobReport:
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.cli.volume_runs import job_attempts, job_tasks, latest_errors
    from ocr_assets.run_processes import close_abandoned_runs
    from ocr_assets.volume_jobs import is_canceled, list_jobs

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        close_abandoned_runs(instance)
        attempts = job_attempts(instance, job)
    tasks = job_tasks(library, job, attempts)
    state = job_state(tasks, canceled=is_canceled(library.storage, job))
    number = [one.key for one in list_jobs(library.storage)].index(job.key) + 1
    return JobReport(
        number,
        job,
        state,
        tasks,
        attempts,
        throughput(tasks, attempts),
        latest_errors(library, job, attempts, _LATEST_ERRORS),
    )


def _print_report(report: JobReport) -> None:
    counts = report.counts
    speed = report.throughput
    done = sum(counts[state] for state in FINISHED)
    failed = sum(counts[state] for state in FAILED)
    lines = [
        f"job {report.number} {report.job.key}: {report.state}",
        f"type {report.job.job_type}, created {_time(report.job.created)}",
        f"progress {done} of {len(report.tasks)} volumes, {failed} failed",
        ", ".join(f"{count} {state}" for state, count in counts.items()),
        f"{speed.pages} pages in {_duration(speed.seconds)}, {_speed(speed) or '-'} pages/s, "
        f"left {_duration(speed.remaining_seconds) or 'unknown'}",
    ]
    for line in lines:
        console.print(line, highlight=False)
    _print_errors(report.latest_errors)


def _print_errors(latest: Sequence[Problem]) -> None:
    if latest:
        console.print("latest errors:", highlight=False)
    for one in latest:
        console.print(
            f"  {_time(one.at)} {one.volume}: {one.error}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _speed(speed: Throughput) -> str:
    return "" if speed.pages_per_second is None else f"{speed.pages_per_second:.2f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _library(env_file: Path | None) -> VolumeLibrary:
    from ocr_assets.volume_library import VolumeLibrary

    return VolumeLibrary(settings_from(env_file))
