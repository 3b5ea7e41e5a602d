"""What we depend on: locked by hash, as declared, and under licences that allow its use.

Known vulnerabilities need a service; `make audit` asks it.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = (REPOSITORY / "requirements.lock").read_text()

_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.+?))? \\\n((?:    --hash=.*\n?)+)", re.MULTILINE
)

ALLOWED = re.compile(
    r"\b(0BSD|Apache|BSD|CC0|CNRI-Python|HPND|ISC|MIT|MIT-0|MIT-CMU|Mozilla Public License 2\.0|"
    r"MPL-2\.0|PSF|Python Software Foundation|Unlicense|Zlib)\b"
)
"""Licences of which one has to be named."""

FORBIDDEN = re.compile(
    r"\b[ALS]?GPL|General Public|Affero|SSPL|BUSL|Business Source|Commercial|Proprietary|"
    r"Commons Clause",
    re.IGNORECASE,
)
"""Licences that ask more than to be named, or allow less than any use."""

EXCEPTIONS = {
    "psycopg2-binary": "LGPL with exceptions: used as it is, as a library, and not part of ours",
}


def pins() -> dict[str, Requirement]:
    """What the lock pins, by name."""
    found = {}
    for name, version, marker, _ in _PIN.findall(LOCK):
        text = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        found[str(canonicalize_name(name))] = Requirement(text)
    return found


PINS = pins()
HERE = {name: pin for name, pin in PINS.items() if pin.marker is None or pin.marker.evaluate()}
"""Those pins that are for this machine."""


def version(name: str) -> str:
    (pinned,) = HERE[name].specifier
    return pinned.version


def declared() -> list[Requirement]:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values()]
    return [Requirement(text) for group in groups for text in group]


def needs(requirement: Requirement) -> list[Requirement]:
    """What a package needs itself, with the extras that are asked for."""
    found = []
    for text in importlib.metadata.requires(requirement.name) or ():
        need = Requirement(text)
        contexts = [{"extra": extra} for extra in ("", *requirement.extras)]
        if need.marker is None or any(need.marker.evaluate(context) for context in contexts):
            found.append(need)
    return found


@cache
def everything_needed() -> dict[str, set[str]]:
    """Names of all packages that are needed, directly or not, and who asks for which versions."""
    asked: dict[str, set[str]] = {}
    waiting = [("pyproject.toml", one) for one in declared()]
    seen = set()
    while waiting:
        who, one = waiting.pop()
        name = str(canonicalize_name(one.name))
        asked.setdefault(name, set())
        if name not in HERE or not one.specifier.contains(version(name), prereleases=True):
            asked[name].add(f"{who} asks for {one}")
            continue
        if (name, *sorted(one.extras)) not in seen:
            seen.add((name, *sorted(one.extras)))
            waiting += [(name, need) for need in needs(one)]
    return asked


def test_every_pin_has_its_hashes() -> None:
    lines = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(PINS) == len(lines) > 150, "a line of the lock is no pin with hashes"
    assert not [line for line in LOCK.splitlines() if "://" in line]


def test_the_lock_has_what_is_declared_and_what_that_needs() -> None:
    missing = {name: who for name, who in everything_needed().items() if who}
    assert missing == {}, "make the lock anew"


def test_the_lock_has_nothing_else() -> None:
    assert HERE.keys() - everything_needed().keys() == set()


def test_what_is_installed_is_what_is_locked() -> None:
    installed = {name: importlib.metadata.version(name) for name in HERE}
    assert installed == {name: version(name) for name in HERE}


def licence(name: str) -> str:
    """What a package says of its licence: by an expression, a classifier, a word, or its text."""
    found = importlib.metadata.distribution(name)
    told = found.metadata.get("License-Expression") or " ".join(
        word for word in found.metadata.get_all("Classifier", []) if word.startswith("License")
    )
    told = told or (found.metadata.get("License") or "").strip().partition("\n")[0]
    if told:
        return told
    for file in found.files or ():
        if "licen" in file.name.lower():
            return " ".join(file.read_text().split()[:12])
    return ""


@pytest.mark.parametrize("name", sorted(HERE.keys() - EXCEPTIONS.keys()))
def test_the_licence_is_one_that_we_may_use(name: str) -> None:
    told = licence(name)
    assert ALLOWED.search(told), told or "says nothing of its licence"
    assert not FORBIDDEN.search(told), told


def test_exceptions_are_still_needed() -> None:
    for name in EXCEPTIONS:
        assert FORBIDDEN.search(licence(name)), name
    assert FORBIDDEN.search("GNU Affero General Public License v3")
    assert FORBIDDEN.search("AGPL-3.0-only")
    assert FORBIDDEN.search("MIT AND LGPL-3.0-or-later")
    assert not ALLOWED.search("GPL-3.0-only")
