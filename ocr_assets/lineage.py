"""Lineage: how an artefact came to be, in one dictionary that travels with it.

Belongs here: the code version and the shape of the lineage record. Does not belong here: storing
it, which is the business of whoever writes the artefact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent


@cache
def code_version(*modules: str) -> str:
    """Short hash of the source of ``modules``, given relative to the package.

    It changes when, and only when, the text of one of them changes: ``regions/spread.py``, …
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.encode() + b"\0" + (_PACKAGE / module).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def package_version() -> str:
    """Version of the installed distribution."""
    return metadata.version("ocr-assets")


def content_hash(values: Mapping[str, Any] | Iterable[Any]) -> str:
    """Short, stable hash of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def lineage(
    *,
    environment: str,
    version: str,
    code: str,
    inputs: Mapping[str, str],
    configuration: Mapping[str, Any],
) -> dict[str, Any]:
    """The lineage record of an artefact.

    ``inputs`` maps each input to its fingerprint (ETag, snapshot or hash); ``configuration`` holds
    the settings that decide the content. The record has no time in it: the same inputs, code and
    configuration give the same record.
    """
    return {
        "environment": environment,
        "version": version,
        "package_version": package_version(),
        "code_version": code,
        "inputs": dict(sorted(inputs.items())),
        "configuration": dict(sorted(configuration.items())),
        "configuration_hash": content_hash(dict(configuration)),
    }


def same_way(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two artefacts were made by the same code with the same configuration."""
    return all(one.get(name) == other.get(name) for name in ("code_version", "configuration_hash"))


def same_origin(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two artefacts were made the same way from the same inputs, whatever the version."""
    return same_way(one, other) and one.get("inputs") == other.get("inputs")
