"""Commands that make tiles, and tell what was made: run, retry, check, missing, status, report."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    Platform,
    PlatformOption,
    console,
    errors,
    print_table,
    settings_from,
    tiles_app,
)
from ocr_assets.cli.tiles import (
    AsJson,
    TilesArgument,
    input_errors,
    measured_seconds,
    read_tiles,
    tell,
    tell_problems,
)
from ocr_assets.tile_library import PRODUCTS, SOURCES, TREE_COVER, Source, SourceKey, TileLibrary
from ocr_assets.tiles.cost import LOADER_MEMORY, estimate_cost
from ocr_assets.tiles.grid import TileGrid
from ocr_assets.tiles.reports import (
    STATUSES,
    TileTask,
    duration_png,
    failed_json,
    report_json,
    report_text,
    summary_csv,
    timeline_png,
    totals,
)
from ocr_assets.tiles.request_problems import RequestError
from ocr_assets.tiles.request_rows import Request, write_tiles_csv
from resources.progress import ConsoleProgress
from resources.settings import Settings
from resources.storage import Storage, split_uri

ALL_FAILED, ABORTED, NOTHING_TO_DO, TILES_MISSING = 2, 5, 6, 10
"""Exit statuses beside those of every command."""

ALL = ",".join(PRODUCTS)

_LOOKS_AT_ONCE = 16

_TOLD = 20
"""Failures that are told one by one."""

SourcesOption = Annotated[
    str,
    typer.Option(
        "--sources", help="elevation, sentinel1, sentinel2, tree_cover; joined by commas."
    ),
]
Dest = Annotated[
    str | None,
    typer.Option(
        "--dest", help="Folder or s3://bucket/prefix of tiles; else OCR_TILES_OUTPUT_URI."
    ),
]
ReportDir = Annotated[
    str | None, typer.Option("--report-dir", help="Folder or s3:// address for reports.")
]
Plot = Annotated[bool, typer.Option("--plot", help="Also draw timeline and durations.")]


@tiles_app.command("run")
def run(
    tiles: TilesArgument,
    dest: Dest = None,
    sources: SourcesOption = ALL,
    mem: Annotated[
        int, typer.Option("--mem", min=1, help="Megabytes of a function, for the estimate.")
    ] = LOADER_MEMORY,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="How often failed tiles are tried again.")
    ] = 2,
    plot: Plot = False,
    report_dir: ReportDir = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make again what is there already.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it begins.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be made, and what it costs.")
    ] = False,
    platform: PlatformOption = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Make tiles: analysis-ready data of each source, then tree cover. What is there is skipped.

    Exit status: 0 all is made; 1 some failed, or part of the request cannot be used; 2 all failed;
    3 the request cannot be read; 5 not confirmed; 6 nothing to do.
    """
    settings = tile_settings(env_file, dest, debug=debug, platform=platform)
    with input_errors():
        wanted = _sources(sources)
        found = read_tiles(tiles, settings)
    tell_problems(found.problems)
    library = TileLibrary(settings)
    todo = _todo(library, wanted, found, overwrite=overwrite)
    _print_plan(found, todo, mem)
    if not any(todo.values()):
        tell("nothing to do: all of it is there (--overwrite makes it again)")
        raise typer.Exit(1 if found.lost else NOTHING_TO_DO)
    if dry_run:
        return
    if not yes and not (errors.is_terminal and typer.confirm("Make these tiles?", err=True)):
        tell("nothing was made: confirm it, or give --yes")
        raise typer.Exit(ABORTED)
    _make(settings, library, found, todo, retries, report_dir, overwrite=overwrite, plot=plot)


@tiles_app.command("retry")
def retry(
    tiles: TilesArgument,
    dest: Dest = None,
    sources: SourcesOption = ALL,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Further attempts.")] = 0,
    plot: Plot = False,
    report_dir: ReportDir = None,
    platform: PlatformOption = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Try again the tiles of a request whose last attempt failed, and nothing else."""
    settings = tile_settings(env_file, dest, debug=debug, platform=platform)
    with input_errors():
        wanted = _sources(sources)
        found = read_tiles(tiles, settings)
    library = TileLibrary(settings)
    tasks = _tasks(library, found, wanted)
    todo: dict[Source, list[SourceKey]] = {
        source: [
            SourceKey(source, task.tile, task.year)
            for task in tasks
            if task.source == source and task.status == "failed"
        ]
        for source in wanted
    }
    if not any(todo.values()):
        tell("nothing to do: no attempt at these tiles failed")
        raise typer.Exit(NOTHING_TO_DO)
    _make(settings, library, found, todo, retries, report_dir, overwrite=False, plot=plot)


@tiles_app.command("status")
def status(
    tiles: TilesArgument,
    dest: Dest = None,
    sources: SourcesOption = ALL,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show how many tiles of a request are there, in part, failed or missing, by source."""
    settings = tile_settings(env_file, dest)
    with input_errors():
        wanted = _sources(sources)
        found = read_tiles(tiles, settings)
    _show(_tasks(TileLibrary(settings), found, wanted), as_json)


@tiles_app.command("check")
def check(
    tiles: TilesArgument,
    dest: Dest = None,
    check_type: Annotated[
        str, typer.Option("--check-type", help="raw_ard, or predictions.")
    ] = "raw_ard",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Tiles CSV of those that are missing.")
    ] = None,
    exit_on_missing: Annotated[
        bool, typer.Option("--exit-on-missing", help="End with status 10 if any is missing.")
    ] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Look in the store whether the data, or the tree cover, of tiles is there."""
    sources = {"raw_ard": SOURCES, "predictions": (TREE_COVER,)}.get(check_type)
    if sources is None:
        raise typer.BadParameter(f"--check-type {check_type!r} is not raw_ard or predictions")
    _check(tiles, dest, sources, output, as_json, env_file, exit_on_missing=exit_on_missing)


@tiles_app.command("missing")
def missing(
    tiles: TilesArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="Tiles CSV to write.")],
    dest: Dest = None,
    sources: SourcesOption = TREE_COVER,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Write the tiles of a request that are not in the store yet, as a tiles CSV."""
    with input_errors():
        wanted = _sources(sources)
    _check(tiles, dest, wanted, output, as_json, env_file, exit_on_missing=False)


@tiles_app.command("report")
def report(
    tiles: TilesArgument,
    report_dir: Annotated[
        str, typer.Option("--report-dir", help="Folder or s3:// address for the reports.")
    ] = "job_reports",
    dest: Dest = None,
    sources: SourcesOption = ALL,
    plot: Plot = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Write what became of the tiles of a request: JSON, CSV, text, failures, pictures."""
    settings = tile_settings(env_file, dest)
    with input_errors():
        wanted = _sources(sources)
        found = read_tiles(tiles, settings)
    tasks = _tasks(TileLibrary(settings), found, wanted)
    _write_reports(Storage(report_dir, settings.s3), found, tasks, plot=plot)
    _show(tasks, as_json)


def tile_settings(
    env_file: Any, dest: str | None, *, debug: bool = False, platform: Platform | None = None
) -> Settings:
    """The settings of a command, for the place of tiles that it names."""
    settings = settings_from(env_file, debug=debug, platform=platform)
    return settings.changed(tiles_output_uri=dest) if dest else settings


def _sources(text: str) -> list[Source]:
    """Sources that an option names, in the order in which they are made."""
    named = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(named - set(PRODUCTS)):
        raise RequestError(f"{unknown[0]!r} is no source; there are {', '.join(PRODUCTS)}")
    if not named:
        raise RequestError(f"--sources names none; there are {', '.join(PRODUCTS)}")
    return [source for source in PRODUCTS if source in named]


def _todo(
    library: TileLibrary, sources: Sequence[Source], found: Request, *, overwrite: bool
) -> dict[Source, list[SourceKey]]:
    """What has to be made of each source, in the order of ``sources``.

    That is what is missing, what would be made another way now, and tree cover of data that is made
    anew: what it is made of cannot be compared before that.
    """
    from ocr_assets.tile_history import source_keys
    from ocr_assets.tile_products import source_of

    todo: dict[Source, list[SourceKey]] = {}
    for source in sources:
        keys = source_keys(source, list(found))
        if not overwrite:
            remade = {key for made in todo.values() for key in made}
            fed = {
                key
                for key in keys
                if source == TREE_COVER and any(source_of(key, one) in remade for one in SOURCES)
            }
            due = fed | _not_done(library, source, [key for key in keys if key not in fed])
            keys = [key for key in keys if key in due]
        todo[source] = keys
    return todo


def _not_done(library: TileLibrary, source: Source, keys: Sequence[SourceKey]) -> set[SourceKey]:
    from ocr_assets.tile_products import product_state

    if source == TREE_COVER:
        library.tree_cover_network, library.superresolution_network  # noqa: B018 - read once
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        states = list(pool.map(lambda key: product_state(library, key), keys))
    return {key for key, state in zip(keys, states, strict=True) if state != "done"}


def _print_plan(found: Request, todo: dict[Source, list[SourceKey]], mem: int) -> None:
    from ocr_assets.tile_history import source_keys

    amounts: dict[str, int] = {source: len(keys) for source, keys in todo.items()}
    published = {cost.source: cost for cost in estimate_cost(amounts, memory=mem)}
    history = measured_seconds([source for source, amount in amounts.items() if amount])
    measured = {
        cost.source: cost
        for cost in estimate_cost(
            {source: amounts[source] for source in history}, memory=mem, history=history
        )
    }
    rows = [
        [
            source,
            len(source_keys(source, list(found))),
            len(todo[source]),
            f"{published[source].dollars:.4f}",
            f"{measured[source].hours * 3600:.0f}" if source in measured else "",
        ]
        for source in todo
    ]
    print_table(
        f"{len(found)} tiles of years",
        [
            "source",
            "wanted",
            "to make",
            "US dollars by published rates",
            "seconds as measured here",
        ],
        rows,
        right={"wanted", "to make", "US dollars by published rates", "seconds as measured here"},
    )


def _make(
    settings: Settings,
    library: TileLibrary,
    found: Request,
    todo: dict[Source, list[SourceKey]],
    retries: int,
    report_dir: str | None,
    *,
    overwrite: bool,
    plot: bool,
) -> None:
    from ocr_assets.cli.tile_launch import TileLauncher
    from ocr_assets.deployment import Deployment
    from ocr_assets.tile_history import add_tiles, tile_tasks

    launcher = TileLauncher(Deployment(settings), ConsoleProgress(errors), debug=settings.debug)
    add_tiles(launcher.instance, (tile for _, tile in found))
    failed: dict[SourceKey, str] = {}
    waiting: list[SourceKey] = []
    for source, keys in todo.items():
        if source == TREE_COVER:
            keys, waiting = _ready(library, keys)
        failed |= launcher.make(keys, again=overwrite, retries=retries)
    for key, reason in list(failed.items())[:_TOLD]:
        tell(f"failed: {key}: {reason}")
    for key in waiting[:_TOLD]:
        tell(f"not made: {key}, because its analysis-ready data is not complete")
    tasks = tile_tasks(launcher.instance, library, list(found), list(todo))
    if report_dir is not None or plot:
        _write_reports(Storage(report_dir or "job_reports", settings.s3), found, tasks, plot=plot)
    _print_totals(tasks)
    wanted = sum(len(keys) for keys in todo.values())
    short = len(failed) + len(waiting)
    if short:
        raise typer.Exit(ALL_FAILED if short == wanted else 1)
    if found.lost:
        raise typer.Exit(1)


def _ready(
    library: TileLibrary, keys: Sequence[SourceKey]
) -> tuple[list[SourceKey], list[SourceKey]]:
    """Tiles whose analysis-ready data is there, and those that have to wait for it."""
    from ocr_assets.tile_history import stored
    from ocr_assets.tile_products import source_of

    needed = {key: [source_of(key, source) for source in SOURCES] for key in keys}
    there = stored(library, {one for ones in needed.values() for one in ones})
    ready = [key for key, ones in needed.items() if all(one in there for one in ones)]
    return ready, [key for key in keys if key not in set(ready)]


def _tasks(library: TileLibrary, found: Request, sources: Sequence[Source]) -> list[TileTask]:
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home
    from ocr_assets.tile_history import tile_tasks

    prepare_home()
    with dg.DagsterInstance.get() as instance:
        return tile_tasks(instance, library, list(found), sources)


def _show(tasks: Sequence[TileTask], as_json: bool) -> None:
    if as_json:
        typer.echo(report_json(tasks), nl=False)
    else:
        _print_totals(tasks)


def _print_totals(tasks: Sequence[TileTask]) -> None:
    columns = ["tasks", *STATUSES, "seconds", "p50", "p95"]
    rows = [
        [source, *(facts[column] for column in columns)] for source, facts in totals(tasks).items()
    ]
    print_table("Tiles", ["source", *columns], rows, right=set(columns))


def _write_reports(
    storage: Storage, found: Request, tasks: Sequence[TileTask], *, plot: bool
) -> None:
    label = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    grid = TileGrid.load()
    centres = {task.tile: grid.centre(task.tile) for task in tasks}
    files: dict[str, bytes] = {
        f"job_report_{label}.json": report_json(tasks).encode(),
        f"job_summary_{label}.csv": summary_csv(tasks, centres).encode(),
        f"job_report_{label}.txt": report_text(tasks).encode(),
        f"failed_jobs_{label}.json": failed_json(tasks, list(found)).encode(),
    }
    if plot:
        files |= {
            f"plots/timeline_{label}.png": timeline_png(tasks),
            f"plots/durations_{label}.png": duration_png(tasks),
        }
    for name, data in files.items():
        storage.write_bytes(name, data)
    console.print(f"reports: {storage.uri(f'job_report_{label}.txt')}", highlight=False)


def _check(
    tiles: str,
    dest: str | None,
    sources: Sequence[Source],
    output: str | None,
    as_json: bool,
    env_file: Any,
    *,
    exit_on_missing: bool,
) -> None:
    from ocr_assets.tile_history import source_keys, stored

    settings = tile_settings(env_file, dest)
    with input_errors():
        found = read_tiles(tiles, settings)
    library = TileLibrary(settings)
    absent: dict[Source, int] = {}
    lacking: set[tuple[int, str]] = set()
    for source in sources:
        keys = source_keys(source, list(found))
        there = stored(library, keys)
        gone = {(key.tile, key.year) for key in keys if key not in there}
        absent[source] = len(gone)
        lacking |= {
            (year, tile.key)
            for year, tile in found
            if (tile, None if source == "elevation" else year) in gone
        }
    mask = [(year, tile.key) in lacking for year, tile in found]
    rest = Request(found.year[mask], found.x[mask], found.y[mask])
    if output is not None:
        storage, name = split_uri(output, settings.s3)
        table = io.BytesIO()
        write_tiles_csv(rest, TileGrid.load(), table)
        storage.write_bytes(name, table.getvalue())
    document = {"tiles": len(found), "incomplete": len(rest), "missing": absent, "output": output}
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        tell_problems(found.problems)
        rows = [[source, len(found), amount] for source, amount in absent.items()]
        print_table(library.storage.uri(), ["source", "wanted", "missing"], rows, right=set())
        tell(
            f"{len(rest)} of {len(found)} tiles are not complete"
            + (f": {output}" if output else "")
        )
    if exit_on_missing and len(rest):
        raise typer.Exit(TILES_MISSING)
