"""Job types: which models read a volume, and what text comes out.

Belongs here: the registry of built-in types, and types that users define in a file. Does not
belong here: where models are kept, running them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ocr_assets.volumes.wylie import ENCODINGS, Encoding

LineMode = Literal["line", "layout"]
Decoder = Literal["greedy", "beam"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TAKEN = re.compile(r"jobs|volume_.*")
_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}")
_LANGUAGE = "bo"
_LANGUAGES = {"dzo": "dz"}


class JobTypeError(ValueError):
    """A job type that is unknown or wrongly defined; the message names it and the mend."""


@dataclass(frozen=True)
class JobType:
    """How a volume is read.

    Attributes:
        name: lower-case letters, digits, ``.``, ``_`` and ``-``; it is part of output paths.
        model: name of the line model.
        encoding: of the text that comes out, ``unicode`` or ``wylie``.
        line_mode: kind of the segmentation model: ``line`` marks lines of text, ``layout`` tells
            them from captions, margins and pictures.
        line_model: name of the segmentation model; without one, lines are found by their ink.
        decoder: ``beam`` for the most probable reading, ``greedy`` for a little more speed.
        language: what is read, as the language part of a BCP 47 tag: ``bo`` for Tibetan, ``dz`` for
            Dzongkha. Unless it is given, that of a known model, else Tibetan.
        description: for lists.
    """

    name: str
    model: str
    encoding: Encoding = "unicode"
    line_mode: LineMode = "line"
    line_model: str | None = None
    decoder: Decoder = "beam"
    language: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise JobTypeError(
                f"job type {self.name!r}: a name has up to 63 lower-case letters, digits, '.', "
                "'_' and '-', and begins with a letter or digit"
            )
        if _TAKEN.fullmatch(self.name):
            raise self._error("name", "something else has its folder; choose another name")
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if not (isinstance(value, str) or (field_.name == "line_model" and value is None)):
                raise self._error(field_.name, f"{value!r} is not text")
        if not self.language:
            object.__setattr__(self, "language", _LANGUAGES.get(self.model, _LANGUAGE))
        if not _LANGUAGE_TAG.fullmatch(self.language):
            raise self._error(
                "language", f"{self.language!r} is no language of two or three letters, like 'bo'"
            )
        for name, choices in (
            ("encoding", ENCODINGS),
            ("line_mode", get_args(LineMode)),
            ("decoder", get_args(Decoder)),
        ):
            if getattr(self, name) not in choices:
                raise self._error(
                    name, f"unknown value {getattr(self, name)!r}; known: {', '.join(choices)}"
                )
        if not self.model or self.line_model == "":
            raise self._error("line_model" if self.model else "model", "names no model")
        if self.line_mode == "layout" and self.line_model is None:
            raise self._error("line_mode", "'layout' needs a segmentation model in 'line_model'")

    def _error(self, field_name: str, problem: str) -> JobTypeError:
        return JobTypeError(f"job type {self.name!r}, field {field_name!r}: {problem}")


BUILT_IN = (
    JobType(
        "printed-unicode",
        model="bod",
        description="Printed Tibetan books and pechas, read by Tesseract's network",
    ),
    JobType(
        "printed-wylie",
        model="bod",
        encoding="wylie",
        description="Printed Tibetan books and pechas, transliterated to Wylie",
    ),
    JobType(
        "woodblock-stacks-unicode",
        model="Woodblock-Stacks",
        description="Woodblock prints, read by BDRC's network of letter stacks",
    ),
    JobType(
        "woodblock-stacks-wylie",
        model="Woodblock-Stacks",
        encoding="wylie",
        description="Woodblock prints, transliterated to Wylie",
    ),
)


def load_job_types(path: Path | None = None) -> dict[str, JobType]:
    """The built-in job types and those that a JSON or TOML file defines, in order, by name.

    The file holds a table ``job_types`` with one table for each name; see :class:`JobType` for the
    fields.

    Raises:
        JobTypeError: the file cannot be read, or a type in it is wrong or has a name that is taken.
    """
    types = {job_type.name: job_type for job_type in BUILT_IN}
    if path is None:
        return types
    for name, definition in _definitions(path).items():
        if name in types:
            raise JobTypeError(f"{path}: job type {name!r} is built in; choose another name")
        if not isinstance(definition, Mapping):
            raise JobTypeError(f"{path}: job type {name!r} is not a table of fields")
        known = [field_.name for field_ in fields(JobType) if field_.name != "name"]
        if unknown := sorted(set(definition) - set(known)):
            raise JobTypeError(
                f"{path}: job type {name!r} has the unknown field {unknown[0]!r}; "
                f"known: {', '.join(known)}"
            )
        if "model" not in definition:
            raise JobTypeError(f"{path}: job type {name!r} has no field 'model'")
        try:
            types[name] = JobType(name=name, **definition)
        except JobTypeError as error:
            raise JobTypeError(f"{path}: {error}") from None
    return types


def find_job_type(types: Mapping[str, JobType], name_or_id: str | int) -> JobType:
    """A job type by its name, or by its number in the list, which begins at 1.

    Raises:
        JobTypeError: there is none.
    """
    if isinstance(name_or_id, int) and 1 <= name_or_id <= len(types):
        return list(types.values())[name_or_id - 1]
    if isinstance(name_or_id, str) and name_or_id in types:
        return types[name_or_id]
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(types, start=1))
    raise JobTypeError(f"unknown job type {name_or_id!r}; known: {listed}")


def _definitions(path: Path) -> dict[str, Any]:
    if path.suffix not in {".json", ".toml"}:
        raise JobTypeError(f"{path}: job types are read from a .json or .toml file")
    try:
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise JobTypeError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise JobTypeError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    definitions = document.get("job_types") if isinstance(document, dict) else None
    if not isinstance(definitions, dict):
        raise JobTypeError(f"{path} has no table 'job_types'")
    return definitions
