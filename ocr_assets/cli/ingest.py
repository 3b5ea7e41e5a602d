"""Commands that bring published inputs in."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    app,
    console,
    errors,
    print_table,
    settings_from,
)
from resources.progress import ConsoleProgress

if TYPE_CHECKING:
    from ocr_assets.ingestion import Ingestion
    from ocr_assets.regions.input_sources import Choice, Source
    from resources.catalog import DatasetEntry
    from resources.settings import Settings

ingest_app = typer.Typer(
    help="Bring the published inputs in: list, download, process.", no_args_is_help=True
)
app.add_typer(ingest_app, name="ingest-data")


class GeographyType(StrEnum):
    """Which census outlines."""

    all = "all"
    blocks = "blocks"
    tracts = "tracts"
    counties = "counties"
    states = "states"
    nation = "nation"


class OvertureType(StrEnum):
    """Which Overture features."""

    both = "both"
    buildings = "buildings"
    addresses = "addresses"


NameArgument = Annotated[
    str, typer.Argument(help="Source to bring in; `ocr ingest-data list-datasets` has them.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be fetched and written; do nothing.")
]
Geography = Annotated[
    GeographyType,
    typer.Option("--census-geography-type", help="Level of census-tiger to bring in."),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--census-subset-states",
        metavar="STATE",
        help="State of census-tiger, by name, abbreviation or code; repeatable. All if not given.",
    ),
]
Overture = Annotated[
    OvertureType,
    typer.Option("--overture-data-type", help="Features of overture-maps to bring in."),
]


@ingest_app.command("list-datasets")
def list_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show the published sources, and which of their datasets are in the catalog."""
    from ocr_assets.ingestion import Ingestion

    ingestion = Ingestion(settings_from(env_file))
    catalog = ingestion.catalog()
    there = catalog.datasets if catalog else {}
    rows = [
        {
            "name": source.name,
            "vintage": source.vintage,
            "licence": source.licence,
            "size": source.size,
            "address": source.url,
            "dataset": dataset,
            "state": _state(there.get(dataset)),
        }
        for source in ingestion.sources.values()
        for dataset in source.datasets
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    columns = ["name", "vintage", "licence", "dataset", "state"]
    print_table("Inputs", columns, [[row[name] for name in columns] for row in rows], right=set())


def _state(entry: DatasetEntry | None) -> str:
    if entry is None:
        return "missing"
    return "synthetic" if entry.synthetic else "in the catalog"


@ingest_app.command()
def download(
    name: NameArgument,
    dry_run: DryRun = False,
    census_geography_type: Geography = GeographyType.all,
    census_subset_states: States = None,
    overture_data_type: Overture = OvertureType.both,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Fetch the files of a source; a fetch that was broken off goes on."""
    _bring_in(
        settings_from(env_file, debug=debug),
        name,
        _choice(census_geography_type, census_subset_states, overture_data_type),
        dry_run=dry_run,
        fetch=True,
        process=False,
    )


@ingest_app.command()
def process(
    name: NameArgument,
    dry_run: DryRun = False,
    census_geography_type: Geography = GeographyType.all,
    census_subset_states: States = None,
    overture_data_type: Overture = OvertureType.both,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Make the datasets of a source from what was fetched, and put them into the catalog."""
    _bring_in(
        settings_from(env_file, debug=debug),
        name,
        _choice(census_geography_type, census_subset_states, overture_data_type),
        dry_run=dry_run,
        fetch=False,
        process=True,
    )


@ingest_app.command("run-all")
def run_all(
    name: NameArgument,
    dry_run: DryRun = False,
    census_geography_type: Geography = GeographyType.all,
    census_subset_states: States = None,
    overture_data_type: Overture = OvertureType.both,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Fetch the files of a source, make its datasets, put them into the catalog."""
    _bring_in(
        settings_from(env_file, debug=debug),
        name,
        _choice(census_geography_type, census_subset_states, overture_data_type),
        dry_run=dry_run,
        fetch=True,
        process=True,
    )


def _choice(geography: GeographyType, states: list[str] | None, overture: OvertureType) -> Choice:
    from ocr_assets.regions.census import state_codes
    from ocr_assets.regions.input_sources import Choice

    return Choice(geography.value, overture.value, state_codes(states or []))


def _bring_in(
    settings: Settings, name: str, choice: Choice, *, dry_run: bool, fetch: bool, process: bool
) -> None:
    from ocr_assets.ingestion import Ingestion

    ingestion = Ingestion(settings, ConsoleProgress(errors))
    source = ingestion.source(name)
    if dry_run:
        planned = ingestion.plan(name, choice, download=fetch, process=process)
        print_table(
            "Nothing is done; this would be",
            ["action", "what", "where", "note"],
            [[one.action, one.what, one.place, one.note] for one in planned],
            right=set(),
        )
        return
    ingestion.require_room_in_catalog()
    if fetch:
        _fetch(ingestion, source, choice)
    if process:
        _process(ingestion, source, choice)


def _fetch(ingestion: Ingestion, source: Source, choice: Choice) -> None:
    ingestion.download(source, choice)
    arrivals = ingestion.arrivals(source, choice.files(source))
    if not arrivals:
        console.print(f"{source.name} is read in place, from {source.url}", highlight=False)
        return
    print_table(
        f"Fetched into {ingestion.folder(source)}",
        ["file", "bytes", "SHA-256", "checked"],
        [
            [
                name,
                f"{arrival.size:,}",
                arrival.sha256,
                "as published" if arrival.published_sha256 else "recorded",
            ]
            for name, arrival in arrivals.items()
        ],
        right={"bytes"},
    )


def _process(ingestion: Ingestion, source: Source, choice: Choice) -> None:
    from ocr_assets.cli.launch import Launcher
    from ocr_assets.cli.regions import print_materialized
    from ocr_assets.deployment import Deployment
    from ocr_assets.input_assets import ingest_op, input_key, source_key
    from ocr_assets.launch import LaunchError
    from ocr_assets.regions.input_sources import CENSUS

    datasets = choice.datasets(source)
    # Says what was not fetched before a run begins, which would fetch it.
    ingestion.arrivals(source, choice.files(source, datasets))
    ingestion.require_parents(datasets)
    settings = ingestion.settings
    config = {}
    if source.name == CENSUS and choice.states:
        config = {
            "ops": {ingest_op(CENSUS): {"config": {"census_subset_states": [*choice.states]}}}
        }
    launcher = Launcher(Deployment(settings), ConsoleProgress(errors), debug=settings.debug)
    try:
        # What the publisher has now is what the datasets are made from: later looks compare.
        launcher.materialize_configured({}, source_key(source.name).to_user_string())
    except LaunchError as error:
        errors.print(f"{source.name} was not looked at: {error}", highlight=False, soft_wrap=True)
    try:
        launcher.materialize_configured(
            config, *(input_key(name).to_user_string() for name in datasets)
        )
    finally:
        print_materialized(launcher)
