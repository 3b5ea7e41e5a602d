"""What requests from outside say: tiles of years, or volumes and the job type that reads them.

Belongs here: reading the content of a request, and writing one. Does not belong here: where
requests wait (:mod:`resources.request_queue`), and the runs that they need.

Requests are untrusted. Sizes are limited, fields that are not known are refused, and what comes out
consists of tiles of the grid, volume ids and job types that exist. Nothing of a request becomes a
path, a query or a command before it was checked so.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.request_lists import load_json
from ocr_assets.tiles.request_problems import RequestError, shown
from ocr_assets.tiles.request_rows import Request
from ocr_assets.tiles.requests import read_request
from ocr_assets.vector import VectorFileError
from ocr_assets.volumes.archive import InvalidVolumeIdError, VolumeId, distinct
from ocr_assets.volumes.ledger import VolumeListError, parse_volume_file

DEFAULT_JOB_TYPE = "printed-unicode"
"""Job type of a request for volumes that names none."""

MOST_TILES, MOST_VOLUMES = 20_000, 20_000
"""Partitions of one request."""

TILES_OF_A_MESSAGE, VOLUMES_OF_A_MESSAGE = 5_000, 5_000
"""Partitions of the messages that are written here: a queue takes 256 KB at most."""

_LINES = 20

Attempt = Annotated[
    int, Field(1, ge=1, le=99, description="More than 1 repeats what failed at earlier attempts.")
]


class RefusedRequestError(ValueError):
    """A request of which nothing can be used: the message says why and the mend."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TileMessage(_Strict):
    """A request for tiles in the project's own form."""

    ocr: Literal["tile_request"] = "tile_request"
    attempt: Attempt = 1
    years: dict[str, list[str]]


class VolumeMessage(_Strict):
    """A request for volumes in the project's own form."""

    ocr: Literal["volume_request"] = "volume_request"
    attempt: Attempt = 1
    job_type: str = DEFAULT_JOB_TYPE
    volumes: Annotated[list[str], Field(min_length=1, max_length=MOST_VOLUMES)]


class _VolumeTask(_Strict):
    """A request for one volume as other systems of the archive write it."""

    w_id: str
    i_id: str
    job_type: str = DEFAULT_JOB_TYPE
    attempt: Attempt = 1


@dataclass(frozen=True)
class TileRequest:
    """Tiles of years, and what of the request was left out."""

    attempt: int
    tiles: Request
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class VolumeRequest:
    """Volumes, the job type that is to read them, and what of the request was left out."""

    attempt: int
    job_type: str
    volumes: Sequence[VolumeId]
    left_out: Sequence[str] = ()


def tile_messages(tiles: Iterable[tuple[int, Tile]], attempt: int = 1) -> list[bytes]:
    """Requests for tiles of years, each small enough for a queue."""
    chosen = list(tiles)
    messages = []
    for start in range(0, len(chosen), TILES_OF_A_MESSAGE):
        years: dict[str, list[str]] = {}
        for year, tile in chosen[start : start + TILES_OF_A_MESSAGE]:
            years.setdefault(str(year), []).append(tile.key)
        messages.append(_bytes(TileMessage(attempt=attempt, years=years)))
    return messages


def volume_messages(
    volumes: Sequence[VolumeId], job_type: str = DEFAULT_JOB_TYPE, attempt: int = 1
) -> list[bytes]:
    """Requests for volumes, each small enough for a queue."""
    return [
        _bytes(
            VolumeMessage(
                attempt=attempt,
                job_type=job_type,
                volumes=[str(one) for one in volumes[start : start + VOLUMES_OF_A_MESSAGE]],
            )
        )
        for start in range(0, len(volumes), VOLUMES_OF_A_MESSAGE)
    ]


def _bytes(message: BaseModel) -> bytes:
    return (message.model_dump_json() + "\n").encode()


def read_tiles(name: str, body: bytes, grid: TileGrid) -> TileRequest:
    """Read a request for tiles: :class:`TileMessage`, or any form that names its years.

    Raises:
        RefusedRequestError: nothing of it can be used.
    """
    attempt = 1
    with tempfile.TemporaryDirectory(prefix="ocr-request-") as folder:
        path = Path(folder, "request")
        path.write_bytes(body)
        try:
            document = load_json(path) if body.lstrip()[:1] == b"{" else None
            if isinstance(document, dict) and "ocr" in document:
                message = _checked(TileMessage, document)
                attempt = message.attempt
                missing = {year: {"missing_tiles": ids} for year, ids in message.years.items()}
                path.write_text(json.dumps({"request": missing}))
            tiles = read_request(path, grid)
        except (RequestError, VectorFileError, OSError) as error:
            reason = str(error).replace(str(path), name)
            if "say for which year" in reason:
                reason += ": ocr tiles request FILE --year YEAR sends such a request"
            raise RefusedRequestError(reason) from error
    lost = [problem for problem in tiles.problems if problem.kind.lost]
    left_out = [str(problem).replace(str(path), name) for problem in lost]
    if not len(tiles):
        told = "; ".join(left_out[:_LINES]) or "it asks for none"
        raise RefusedRequestError(f"no tile of the request can be used: {told}")
    if len(tiles) > MOST_TILES:
        raise RefusedRequestError(
            f"{len(tiles)} tiles are more than the {MOST_TILES} of one request: cut it up, for "
            "example by ocr tiles split"
        )
    return TileRequest(attempt, tiles, left_out)


def read_volumes(name: str, body: bytes) -> VolumeRequest:
    """Read a request for volumes.

    That is :class:`VolumeMessage`, ``{"w_id": "W…", "i_id": "I…"}``, or a text with a volume on
    each line. Whether there is such a job type is for the caller to say.

    Raises:
        RefusedRequestError: nothing of it can be used.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedRequestError(f"not UTF-8 text: byte {error.start} is wrong") from error
    if text.lstrip()[:1] not in ("{", "["):
        try:
            return _limited(VolumeRequest(1, DEFAULT_JOB_TYPE, parse_volume_file(text, name)))
        except VolumeListError as error:
            raise RefusedRequestError(_printable(str(error))) from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedRequestError(f"not JSON: {error}") from error
    if isinstance(document, dict) and "w_id" in document:
        task = _checked(_VolumeTask, document)
        try:
            volume = VolumeId(task.w_id, task.i_id)
        except InvalidVolumeIdError as error:
            raise RefusedRequestError(_printable(str(error))) from error
        return VolumeRequest(task.attempt, task.job_type, [volume])
    message = _checked(VolumeMessage, document)
    found, left_out = [], []
    for item in message.volumes:
        try:
            found.append(VolumeId.parse(item))
        except InvalidVolumeIdError:
            left_out.append(f"{shown(item)} is no volume; give them like W22084-I0886")
    if not found:
        raise RefusedRequestError("; ".join(left_out[:_LINES]))
    return VolumeRequest(message.attempt, message.job_type, distinct(found), left_out)


def _limited(request: VolumeRequest) -> VolumeRequest:
    if len(request.volumes) > MOST_VOLUMES:
        raise RefusedRequestError(
            f"{len(request.volumes)} volumes are more than the {MOST_VOLUMES} of one request: "
            "cut it up"
        )
    return request


def _checked[M: BaseModel](model: type[M], document: Any) -> M:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        told = [
            f"{'.'.join(_printable(str(part)) for part in one['loc']) or 'the request'}: "
            f"{_printable(one['msg'])}"
            for one in error.errors()[:_LINES]
        ]
        raise RefusedRequestError("; ".join(told)) from error


def _printable(text: str) -> str:
    """Text that may hold foreign parts, on one line and not too long."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text)
    return plain if len(plain) <= 500 else f"{plain[:500]}…"
