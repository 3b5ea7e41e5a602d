"""What the pages of the documentation tell a reader to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from source_files import REPOSITORY

from ocr_assets.cli.app import app

DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
COMPARISON = DOCS / "coming-from.md"
"""A page whose tables have names of other systems in the first column."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_SHELL = {"console", "bash", "sh"}


def ours(page: Path) -> str:
    """The text of a page without what it says of other systems."""
    text = page.read_text()
    if page != COMPARISON:
        return text
    lines = []
    for line in text.splitlines():
        if line.startswith("|"):  # a bar inside of a cell is written \|
            line = "|" + "|".join(re.split(r"(?<!\\)\|", line)[2:])
        lines.append(line)
    return "\n".join(lines)


@cache
def program() -> Any:
    """The command line."""
    return typer.main.get_command(app)


def shell_lines(text: str) -> Iterator[str]:
    """What is typed in the fenced blocks: after `$`, lines joined that end in a backslash."""
    for language, block in _FENCE.findall(text):
        if language in _SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                prompt = line.startswith("$ ")
                if prompt or language != "console":
                    yield line[2:] if prompt else line


def split_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, which may hold several; variables that it sets are left out."""
    words = shlex.split(line, comments=True)
    ends = [number for number, word in enumerate(words) if word in ("&&", "|", ";")]
    for start, end in pairwise([-1, *ends, len(words)]):
        command = words[start + 1 : end]
        while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
            command = command[1:]
        if command:
            yield command


def ocr_commands(line: str) -> Iterator[list[str]]:
    """Arguments of each call of `ocr` in a line."""
    for command in split_commands(line):
        if command[0].rpartition("/")[2] == "ocr":
            yield command[1:]


def typed(page: Path) -> Iterator[list[str]]:
    """Each command in the fenced blocks of a page, `ocr` by that name wherever it lies."""
    for line in shell_lines(page.read_text()):
        for command in split_commands(line):
            yield [command[0].removeprefix(".venv/bin/"), *command[1:]]


def mentions(page: Path) -> list[str]:
    """The mentions of `ocr` commands in the running text of a page."""
    text = _FENCE.sub("", ours(page))
    return [found for found in _INLINE.findall(text) if re.match(r"ocr( |$)", found)]


def command_of(name: str) -> Any:
    """The command, or group of commands, of a full name without `ocr`."""
    command = program()
    for word in name.split():
        command = command.commands[word]
    return command


def command_and_options(words: list[str]) -> tuple[str, frozenset[str]]:
    """The full name of the `ocr` command that words begin with, and the options among them.

    Options have the longest of their names.
    """
    command, names, rest = program(), [], words[1:]
    while rest and rest[0] in getattr(command, "commands", ()):
        command = command.commands[rest[0]]
        names.append(rest.pop(0))
    full = {
        name: max(parameter.opts, key=len)
        for parameter in command.params
        for name in parameter.opts
    }
    options = frozenset(full.get(word, word) for word in rest if word.startswith("-"))
    return " ".join(names), options


def spellings(name: str, option: str) -> set[str]:
    """All names of an option of a command."""
    for parameter in command_of(name).params:
        if option in parameter.opts:
            return set(parameter.opts)
    return {option}
