"""Commands that ask for tiles and volumes: what they send, the daemon's sensors take in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ocr_assets.cli.app import EnvFile, console, settings_from, tiles_app, volumes_app
from ocr_assets.cli.tiles import (
    INPUT_ERROR,
    PARTIAL,
    input_errors,
    local_input,
    tell,
    tell_problems,
)
from ocr_assets.cli.volumes import DEFAULT_TYPE, TypeOption
from resources.keys import ObjectExistsError
from resources.request_queue import Kind, RequestInbox, RequestQueue
from resources.settings import Settings

AttemptOption = Annotated[
    int,
    typer.Option(
        "--attempt", min=1, max=99, help="2 or more repeats what failed at earlier attempts."
    ),
]


@tiles_app.command("request")
def request_tiles(
    request: Annotated[
        str,
        typer.Argument(
            help="Tiles CSV, JSON of a request or of failed jobs, projects CSV, or polygons; a "
            "path or s3:// address."
        ),
    ],
    year: Annotated[int | None, typer.Option("--year", help="Year of polygons.")] = None,
    year_from_plantstart: Annotated[
        bool,
        typer.Option(
            "--year-from-plantstart",
            help="Of each polygon, the year before its plantstart_year or plantstart.",
        ),
    ] = False,
    polygons: Annotated[
        str | None,
        typer.Option("--polygons", help="Polygons with project_id, for a CSV of projects."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer of a polygon file that has several.")
    ] = None,
    attempt: AttemptOption = 1,
    env_file: EnvFile = None,
) -> None:
    """Ask for tiles: the daemon makes terrain, images and trees of each.

    The request goes to the queue OCR_TILE_QUEUE_URL, or into the inbox of files if there is none.
    Sending it again does nothing; --attempt 2 repeats what failed.

    Exit status: 0 everything was asked for; 1 something was left out and reported; 3 nothing could
    be used.
    """
    from ocr_assets.request_messages import tile_messages
    from ocr_assets.tiles.grid import TileGrid
    from ocr_assets.tiles.requests import read_request

    settings = settings_from(env_file)
    with input_errors(), ExitStack() as stack:
        path = stack.enter_context(local_input(request, settings))
        areas = stack.enter_context(local_input(polygons, settings)) if polygons else None
        found = read_request(
            path,
            TileGrid.load(),
            year=year,
            from_plantstart=year_from_plantstart,
            polygons=areas,
            layer=layer,
        )
    tell_problems(found.problems)
    if not len(found):
        tell("ocr: there is no tile to ask for")
        raise typer.Exit(INPUT_ERROR)
    _send(settings, "tiles", tile_messages(found, attempt), f"{len(found)} tiles")
    if found.lost:
        raise typer.Exit(PARTIAL)


@volumes_app.command("request")
def request_volumes(
    volume: Annotated[list[str] | None, typer.Argument(help="Volumes, like W22084-I0886.")] = None,
    type_: TypeOption = DEFAULT_TYPE,
    volume_file: Annotated[
        Path | None, typer.Option("--volume-file", help="File with a volume on each line.")
    ] = None,
    attempt: AttemptOption = 1,
    env_file: EnvFile = None,
) -> None:
    """Ask for volumes: the daemon lists their images and reads them by a job type.

    The request goes to the queue OCR_VOLUME_QUEUE_URL, or into the inbox of files if there is none.
    Sending it again does nothing unless the scans were replaced; --attempt 2 repeats what failed.
    """
    from ocr_assets.request_messages import volume_messages
    from ocr_assets.volume_library import VolumeLibrary
    from ocr_assets.volumes.archive import VolumeId, distinct
    from ocr_assets.volumes.ledger import parse_volume_file

    if bool(volume) == (volume_file is not None):
        raise typer.BadParameter("give volumes or --volume-file, one of them")
    settings = settings_from(env_file)
    job_type = VolumeLibrary(settings).job_type(type_).name
    if volume_file is not None:
        chosen = parse_volume_file(volume_file.read_text("utf-8"), str(volume_file))
    else:
        chosen = distinct([VolumeId.parse(text) for text in volume or ()])
    messages = volume_messages(chosen, job_type, attempt)
    _send(settings, "volumes", messages, f"{len(chosen)} volumes")


def _send(settings: Settings, kind: Kind, messages: Sequence[bytes], what: str) -> None:
    """Put messages into the queue if there is one, else into the inbox; say where."""
    queue = RequestQueue.of(settings, kind)
    if queue is not None:
        for body in messages:
            queue.send(body.decode(), name=_name(body))
        console.print(f"asked for {what}: {queue.url}", highlight=False, soft_wrap=True)
        return
    inbox = RequestInbox.of(settings, kind)
    is_new = inbox.storage.is_local and not Path(inbox.storage.root).is_dir()
    for body in messages:
        try:
            place = inbox.put(f"{_name(body)}.json", body)
        except ObjectExistsError:
            console.print("this request waits there already", highlight=False)
        else:
            console.print(f"asked for {what}: {place}", highlight=False, soft_wrap=True)
    if is_new:
        # Sensors begin to run by themselves where an inbox is when the definitions are loaded.
        tell(
            f"the inbox is new: restart `ocr worker` or `ocr dev`, or turn on {kind[:-1]}_requests"
        )


def _name(body: bytes) -> str:
    return f"request-{hashlib.sha256(body).hexdigest()[:16]}"
