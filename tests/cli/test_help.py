"""The command line as a whole: every command is there, and every option explains itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from sample_worlds import Outcome

from ocr_assets.cli.app import app

COMMANDS = {
    "run",
    "process-region",
    "partition-buildings",
    "aggregate",
    "aggregate-region-risk-summary-stats",
    "aggregate-regional-risk",
    "create-regional-pmtiles",
    "create-building-pmtiles",
    "create-pmtiles",
    "create-building-centroid-pmtiles",
    "create-pyramid",
    "regions status",
    "deploy run",
    "deploy status",
    "deploy publish",
    "deploy rollback",
    "deploy prune",
    "ingest-data list-datasets",
    "ingest-data download",
    "ingest-data process",
    "ingest-data run-all",
    "tiles resolve",
    "tiles validate",
    "tiles split",
    "tiles cost",
    "tiles run",
    "tiles retry",
    "tiles status",
    "tiles check",
    "tiles missing",
    "tiles report",
    "tiles stats",
    "tiles mosaic",
    "tiles preview",
    "tiles request",
    "volumes run",
    "volumes status",
    "volumes text",
    "volumes export",
    "volumes review",
    "volumes request",
    "jobs types",
    "jobs create",
    "jobs run",
    "jobs status",
    "jobs cancel",
    "jobs retry",
    "jobs metrics",
    "models list",
    "models fetch",
    "models verify",
    "map",
    "config",
    "sample",
    "dev",
    "worker",
    "status",
}
ALIASES = {
    "aggregate": "partition-buildings",
    "aggregate-regional-risk": "aggregate-region-risk-summary-stats",
    "create-pmtiles": "create-building-pmtiles",
}
SHOWING = {
    "compare",
    "config",
    "list",
    "list-datasets",
    "metrics",
    "status",
    "types",
    "verify",
    *(f"tiles {name}" for name in ("check", "cost", "missing", "report", "stats", "validate")),
}
"""Last words of commands, or whole names, that show something a program may want to read."""

RUN_OPTIONS = {
    "--region-id",
    "--all-region-ids",
    "--platform",
    "--risk-type",
    "--summary-stats",
    "--write-regional-stats",
    "--create-pyramid",
    "--wipe",
    "--process-retries",
    "--debug",
    "--env-file",
}


def commands() -> dict[str, Any]:
    """Every command by its full name, groups left out."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for child, what in command.commands.items():
                yield from below(what, f"{name} {child}".strip())
        else:
            yield name, command

    return dict(below(typer.main.get_command(app), ""))


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_every_command_is_there() -> None:
    assert commands().keys() >= COMMANDS


def test_run_has_the_options_of_the_field() -> None:
    assert options(commands()["run"]) >= RUN_OPTIONS


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_says_what_it_stands_for(alias: str) -> None:
    found = commands()
    assert f"The same as `ocr {ALIASES[alias]}`" in found[alias].help
    assert options(found[alias]) == options(found[ALIASES[alias]])


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_explains_itself(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert command.help.strip().splitlines()[0].endswith(".")
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.opts}"
    assert "--env-file" in options(command)


def test_what_shows_something_shows_it_to_programs_too() -> None:
    shown = {name for name in commands() if {name, name.split()[-1]} & SHOWING}
    assert len(shown) > 15
    assert {name for name in shown if "--json" not in options(commands()[name])} == set()


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_is_complete(ocr: Callable[..., Outcome], name: str) -> None:
    done = ocr(*name.split(), "--help")
    assert done.status == 0
    assert done.err == ""
    known = commands()
    if name:
        for option in options(known[name]):
            if option.startswith("--"):
                assert option in done.out
    else:
        listed = {line.split()[0] for line in done.out.splitlines() if line.startswith("  ")}
        assert listed >= {full.split()[0] for full in known}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["walk"], "No such command 'walk'"),
        (["run", "--fast"], "No such option: --fast"),
        (["run", "--all-region-ids", "--platform", "lambda"], "'lambda' is not one of 'local'"),
        (["run", "--all-region-ids", "--risk-type", "flood"], "'flood' is not one of 'fire'"),
        (["process-region"], "Missing argument 'region_id'"),
        (["process-region", "y0_x0", "-p", "cloud"], "'cloud' is not one of 'local'"),
        (["run"], "give --region-id (repeatable) or --all-region-ids"),
        (["run", "-r", "y0_x0", "--all-region-ids"], "or --all-region-ids, not both"),
        (
            ["run", "--all-region-ids", "--process-retries", "-1"],
            "'--process-retries': Input should be greater than or equal to 0",
        ),
        (["map", "--port", "70000"], "'--port': Input should be less than or equal to 65535"),
        (["regions", "status", "--state", "lost"], "'lost' is not one of"),
        (["sample", "--buildings", "/no/such.shp"], "'/no/such.shp' does not exist"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_says_what(
    ocr: Callable[..., Outcome], arguments: list[str], message: str
) -> None:
    done = ocr(*arguments)
    assert done.status == 2
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
