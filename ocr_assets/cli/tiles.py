"""Commands about requests for tiles: resolve, validate, split, cost."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ocr_assets.cli.app import EnvFile, errors, explain, print_table, settings_from, tiles_app
from ocr_assets.tiles.cost import LOADER_MEMORY, LOADERS, SourceCost, estimate_cost
from ocr_assets.tiles.grid import TileGrid
from ocr_assets.tiles.request_chunks import split_table
from ocr_assets.tiles.request_problems import Problem, RequestError
from ocr_assets.tiles.request_rows import Request, write_tiles_csv
from resources.settings import Settings
from resources.storage import Storage, split_uri

PARTIAL, INPUT_ERROR = 1, 3
"""Exit statuses: some of the input could not be used; none of it could."""

_TOLD_PROBLEMS = 20

# Newest materializations of each source that an estimate looks at.
_HISTORY = 2000

TilesArgument = Annotated[
    str, typer.Argument(help="Request for tiles that names its years: a CSV or JSON file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def input_errors() -> Iterator[None]:
    """Tell a failure that the input is to blame for in one line and end with status 3."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        tell(f"ocr: {line}")
        raise typer.Exit(INPUT_ERROR) from error


def tell(line: str) -> None:
    """Print a line about the work, which may hold foreign text, beside the output."""
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def local_input(uri: str, settings: Settings) -> Iterator[Path]:
    """A local file with what is at a path or ``s3://`` address."""
    storage, name = split_uri(uri, settings.s3)
    if not storage.is_local and name.endswith(".shp"):
        raise RequestError(f"{uri} is only one of the files of a Shapefile: copy all of them here")
    with storage.local_copy(name) as path:
        yield path


@contextmanager
def local_output(uri: str, settings: Settings) -> Iterator[Path]:
    """A local file to write, which ends up at a path or ``s3://`` address."""
    if "://" not in uri:
        path = Path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
        return
    storage, name = split_uri(uri, settings.s3)
    with tempfile.TemporaryDirectory(prefix="ocr-tile-") as folder:
        path = Path(folder, Path(name).name)
        yield path
        storage.put_file(name, path)


def read_tiles(uri: str, settings: Settings) -> Request:
    """Read a request that names its years; see :func:`tell_problems` for what was wrong."""
    from ocr_assets.tiles.requests import read_request

    with local_input(uri, settings) as path:
        return read_request(path, TileGrid.load())


def tell_problems(problems: Sequence[Problem]) -> None:
    """Print the problems of a request, the first of many."""
    for problem in problems[:_TOLD_PROBLEMS]:
        tell(f"{'left out' if problem.kind.lost else 'mended'}: {problem}")
    if len(problems) > _TOLD_PROBLEMS:
        tell(f"and {len(problems) - _TOLD_PROBLEMS} more problems: --json tells all of them")


@tiles_app.command("resolve")
def resolve(
    request: Annotated[
        str | None,
        typer.Argument(
            help="Request JSON, tiles CSV, projects CSV, failed-jobs JSON, or polygons as GeoJSON, "
            "GeoPackage, Shapefile or GeoParquet; a path or s3:// address."
        ),
    ] = None,
    year: Annotated[
        int | None, typer.Option("--year", help="Year of polygons or of a box.")
    ] = None,
    year_from_plantstart: Annotated[
        bool,
        typer.Option(
            "--year-from-plantstart",
            help="Of each polygon, the year before its plantstart_year or plantstart.",
        ),
    ] = False,
    bbox: Annotated[
        str | None,
        typer.Option(
            "--bbox", help="WEST,SOUTH,EAST,NORTH in degrees instead of a request, with --year."
        ),
    ] = None,
    polygons: Annotated[
        str | None,
        typer.Option("--polygons", help="Polygons with project_id, for a CSV of projects."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer of a polygon file that has several.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Tiles CSV to write; without it, standard output."),
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Turn a request of any form into a sorted table of tiles.

    The table has the columns Year,X,Y,Y_tile,X_tile. What cannot be used is reported, each problem
    once with its count, and the table of the rest is still written.

    Exit status: 0 everything was used; 1 something was left out and reported; 3 nothing could be
    used, no table is written.
    """
    if (request is None) == (bbox is None):
        raise typer.BadParameter("give a request or --bbox, one of them")
    if bbox is not None and (year is None or year_from_plantstart or polygons or layer):
        raise typer.BadParameter("--bbox goes with --year and with no polygons")
    from ocr_assets.tiles.requests import request_box

    settings = settings_from(env_file)
    grid = TileGrid.load()
    with input_errors():
        if bbox is not None and year is not None:
            found = request_box(_box(bbox), year, grid)
        else:
            found = _read(
                request or "", polygons, settings, grid, year, year_from_plantstart, layer
            )
        table = io.BytesIO()
        write_tiles_csv(found, grid, table)
        if output is not None:
            storage, name = split_uri(output, settings.s3)
            storage.write_bytes(name, table.getvalue())
    if as_json:
        document = _document(found) | {"output": output}
        if output is None:
            document["rows"] = [{"year": year, "tile": tile.key} for year, tile in found]
        typer.echo(json.dumps(document, indent=2))
    else:
        tell_problems(found.problems)
        if output is None:
            typer.echo(table.getvalue().decode(), nl=False)
        tell(f"{_summary(found)}{f': {output}' if output else ''}")
    _end(found)


@tiles_app.command("validate")
def validate(tiles: TilesArgument, as_json: AsJson = False, env_file: EnvFile = None) -> None:
    """Check a table of tiles: rows, tiles, years, extent, duplicates, and whether all is usable.

    Exit status: 0 all rows are usable; 1 some are not, or are there twice; 3 it cannot be read.
    """
    settings = settings_from(env_file)
    with input_errors():
        found = read_tiles(tiles, settings)
    longitude, latitude = TileGrid.load().centres(found.x, found.y)
    unique = len({tile for _, tile in found})
    extent = {
        "longitude": [float(longitude.min()), float(longitude.max())] if len(found) else None,
        "latitude": [float(latitude.min()), float(latitude.max())] if len(found) else None,
    }
    if as_json:
        typer.echo(json.dumps(_document(found) | {"unique_tiles": unique} | extent, indent=2))
    else:
        tell_problems(found.problems)
        facts: list[list[Any]] = [
            ["rows", found.entries],
            ["tiles of years", len(found)],
            ["tiles", unique],
            ["years", _years(found)],
            *[
                [name, "" if ends is None else f"{ends[0]} to {ends[1]}"]
                for name, ends in extent.items()
            ],
            ["duplicates", found.repeated],
            ["left out", found.lost],
        ]
        print_table(tiles, ["what", "amount"], facts, right={"amount"})
    if found.repeated:
        raise typer.Exit(PARTIAL)
    _end(found)


@tiles_app.command("split")
def split(
    tiles: Annotated[str, typer.Argument(help="Tiles CSV, a path or s3:// address.")],
    chunk_size: Annotated[
        str | None,
        typer.Option(
            "--chunk-size",
            help="Rows of each chunk, or several sizes joined by commas of which the last repeats; "
            "without it 100,200,400,800,1600 and so on.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder for the chunks; without it, beside the table."),
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Cut a table of tiles into numbered chunks that each have its header.

    Exit status: 0 the chunks are written; 3 the table cannot be read or is empty.
    """
    settings = settings_from(env_file)
    with input_errors():
        sizes = [] if chunk_size is None else _numbers(chunk_size, int, "--chunk-size")
        beside, name = split_uri(tiles, settings.s3)
        target = beside if output is None else Storage(output, settings.s3)
        stem = Path(name).stem
        with local_input(tiles, settings) as path:
            chunks = list(split_table(path, sizes))
        names = [f"{stem}_{number:04d}.csv" for number in range(1, len(chunks) + 1)]
        if earlier := sorted(_chunks_in(target, stem) - set(names)):
            raise RequestError(
                f"{target.uri(earlier[0])} is a chunk of an earlier split: remove it, or give "
                "another folder"
            )
        for key, chunk in zip(names, chunks, strict=True):
            target.write_bytes(key, chunk.encode())
    rows = [
        {"path": target.uri(key), "rows": chunk.count("\n") - 1}
        for key, chunk in zip(names, chunks, strict=True)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(tiles, ["path", "rows"], [list(row.values()) for row in rows], right={"rows"})


@tiles_app.command("cost")
def cost(
    tiles: TilesArgument,
    sources: Annotated[
        str,
        typer.Option(
            "--sources", help="elevation, sentinel1, sentinel2, tree_cover; joined by commas."
        ),
    ] = ",".join(LOADERS),
    mem: Annotated[
        int, typer.Option("--mem", min=1, help="Megabytes of memory of a function.")
    ] = LOADER_MEMORY,
    include_predict: Annotated[
        bool, typer.Option("--include-predict", help="Add tree_cover, which has 6144 MB or more.")
    ] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Estimate what tiles cost: by the published rates, and by what was measured here before.

    The published figure is tiles x seconds x GB x $0.00001667. The measured one takes the seconds
    of the latest tiles that this instance made, and elevation once for all years of a tile.

    Exit status: 0 all rows are priced; 1 some cannot be used, and are not priced; 3 none can.
    """
    settings = settings_from(env_file)
    wanted = [name.strip() for name in sources.split(",") if name.strip()]
    if include_predict and "tree_cover" not in wanted:
        wanted.append("tree_cover")
    with input_errors():
        found = read_tiles(tiles, settings)
        published = estimate_cost(dict.fromkeys(wanted, len(found)), memory=mem)
    history = measured_seconds(wanted)
    needed = dict.fromkeys(history, len(found))
    if "elevation" in needed:
        needed["elevation"] = len({tile for _, tile in found})
    measured = estimate_cost(needed, memory=mem, history=history)
    if as_json:
        document = _document(found) | {
            "published": _costs(published),
            "measured": _costs(measured),
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        tell_problems(found.problems)
        _print_costs("By the published rates", published)
        if measured:
            _print_costs("By what was measured on this instance", measured)
        else:
            tell("this instance has not made any tile yet: nothing was measured")
    _end(found)


def measured_seconds(sources: Iterable[str]) -> dict[str, list[float]]:
    """Seconds of the latest tiles made here, by source; sources without any are left out.

    What was skipped, since it existed, took no time and does not count.
    """
    import dagster as dg

    from ocr_assets.cli.instance import prepare_home

    found: dict[str, list[float]] = {}
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        for source in sources:
            key = dg.AssetKey(source)
            for record in instance.fetch_materializations(key, limit=_HISTORY).records:
                event = record.asset_materialization
                notes = (
                    {name: value.value for name, value in event.metadata.items()} if event else {}
                )
                if "seconds" in notes and not notes.get("skipped"):
                    found.setdefault(source, []).append(float(str(notes["seconds"])))
    return found


def _read(
    request: str,
    polygons: str | None,
    settings: Settings,
    grid: TileGrid,
    year: int | None,
    from_plantstart: bool,
    layer: str | None,
) -> Request:
    from ocr_assets.tiles.requests import read_request

    with ExitStack() as stack:
        path = stack.enter_context(local_input(request, settings))
        areas = stack.enter_context(local_input(polygons, settings)) if polygons else None
        return read_request(
            path,
            grid,
            year=year,
            from_plantstart=from_plantstart,
            polygons=areas,
            layer=layer,
        )


def _box(text: str) -> tuple[float, float, float, float]:
    edges = _numbers(text, float, "--bbox")
    if len(edges) != 4:
        raise typer.BadParameter(f"--bbox {text!r} is not WEST,SOUTH,EAST,NORTH")
    return edges[0], edges[1], edges[2], edges[3]


def _numbers(text: str, kind: type[int] | type[float], option: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r} is not numbers joined by commas") from error


def _chunks_in(storage: Storage, stem: str) -> set[str]:
    names = (
        [path.name for path in Path(storage.root).glob("*")]
        if storage.is_local
        else [info.key for info in storage.list()]
    )
    return {name for name in names if re.fullmatch(rf"{re.escape(stem)}_\d{{4,}}\.csv", name)}


def _years(found: Request) -> str:
    years = sorted(set(found.year.tolist()))
    return "" if not years else str(years[0]) if len(years) == 1 else f"{years[0]} to {years[-1]}"


def _summary(found: Request) -> str:
    if not len(found):
        return "no tile" if found.entries else "the request asks for no tile"
    lost = f", {found.lost} entries left out" if found.lost else ""
    return f"{len(found)} tiles of {_years(found)} from {found.entries} entries{lost}"


def _document(found: Request) -> dict[str, Any]:
    years = Counter(found.year.tolist())
    return {
        "tiles": len(found),
        "years": {str(year): years[year] for year in sorted(years)},
        "entries": found.entries,
        "repeated": found.repeated,
        "lost": found.lost,
        "problems": [asdict(one) | {"lost": one.kind.lost} for one in found.problems],
    }


def _costs(costs: Sequence[SourceCost]) -> dict[str, Any]:
    return {
        "sources": [asdict(one) | {"hours": one.hours, "dollars": one.dollars} for one in costs],
        "hours": sum(one.hours for one in costs),
        "dollars": sum(one.dollars for one in costs),
    }


def _print_costs(title: str, costs: Sequence[SourceCost]) -> None:
    rows: list[list[Any]] = [
        [
            one.source,
            f"{one.tiles:,}",
            f"{one.seconds:.2f}",
            f"{one.slow:.2f}" if one.measured else "",
            one.memory,
            f"{one.hours:.2f}",
            f"{one.dollars:.4f}",
        ]
        for one in costs
    ]
    hours, dollars = sum(one.hours for one in costs), sum(one.dollars for one in costs)
    rows.append(["all", "", "", "", "", f"{hours:.2f}", f"{dollars:.4f}"])
    numbers = ["tiles", "seconds", "slowest 5 %", "MB", "hours", "US dollars"]
    print_table(title, ["source", *numbers], rows, right=set(numbers))


def _end(found: Request) -> None:
    if found.lost:
        raise typer.Exit(PARTIAL)
