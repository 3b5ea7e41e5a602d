"""Where published inputs are read instead of their published addresses.

Belongs here: the document of mirrors, releases and hashes that ``OCR_SOURCES`` names. Does not
belong here: which sources there are.

    {"schema": 1, "sources": {"overture-maps": {"address": "s3://mirror/release/{vintage}",
                                                "vintage": "2025-09-24.0"}}}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]


class SourcePlacesError(ValueError):
    """A document of source places that cannot be used; the message says what is wrong."""


class SourcePlace(BaseModel):
    """What differs from the published source; None leaves it as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(None, pattern=r"^(https?|s3)://[^\s/@]+(/\S*)?$")
    endpoint: str | None = Field(None, pattern=r"^https?://[^/\s@]+/?$")
    region: str | None = None
    vintage: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: dict[str, Sha256 | None] = Field(default_factory=dict)
    """Content hash of a file by its name; null takes whatever arrives."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal[1] = Field(alias="schema")
    sources: dict[str, SourcePlace]


def read_source_places(path: Path | None) -> dict[str, SourcePlace]:
    """The places in the document at ``path``, by source; none without a document.

    Raises :class:`SourcePlacesError` naming the wrong entry.
    """
    if path is None:
        return {}
    try:
        return _Document.model_validate(json.loads(path.read_text())).sources
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SourcePlacesError(f"{path}: {place}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise SourcePlacesError(f"{path} cannot be read as JSON: {error}") from error
