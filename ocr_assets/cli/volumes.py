"""Commands that read volumes and show what came out."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from ocr_assets.cli.app import (
    Debug,
    EnvFile,
    PlatformOption,
    console,
    errors,
    print_table,
    settings_from,
    volumes_app,
)
from ocr_assets.cli.regions import print_materialized
from ocr_assets.deployment import Deployment, DeploymentError
from resources.progress import ConsoleProgress

if TYPE_CHECKING:
    from ocr_assets.cli.volume_runs import VolumeLauncher
    from ocr_assets.volume_library import TextRecord, VolumeLibrary
    from ocr_assets.volumes.job_types import JobType
    from ocr_assets.volumes.quality import ReviewLine

TypeOption = Annotated[
    str, typer.Option("--type", "-t", help="Job type; `ocr jobs types` lists them.")
]
VolumeArgument = Annotated[str, typer.Argument(help="Volume, like W22084-I0886.")]
DEFAULT_TYPE = "printed-unicode"


def launcher_for(deployment: Deployment) -> VolumeLauncher:
    """What reads volumes in this process, with a bar on the console."""
    from ocr_assets.cli.volume_runs import VolumeLauncher

    return VolumeLauncher(deployment, ConsoleProgress(errors), debug=deployment.settings.debug)


def tell_failures(failed: dict[str, str], total: int) -> None:
    """Print why volumes failed and end the command if any did."""
    for volume, reason in failed.items():
        errors.print(f"{volume}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise DeploymentError(f"{len(failed)} of {total} volumes failed: {', '.join(failed)}")


@volumes_app.command("run")
def run(
    volume: Annotated[list[str], typer.Argument(help="Volumes, like W22084-I0886.")],
    type_: TypeOption = DEFAULT_TYPE,
    pages: Annotated[
        bool, typer.Option("--pages", help="Try also pages again that failed for good.")
    ] = False,
    platform: PlatformOption = None,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Read volumes. Pages that are done with the same image, models and code are kept."""
    from ocr_assets.volume_library import VolumeLibrary
    from ocr_assets.volumes.archive import VolumeId, distinct

    deployment = Deployment(settings_from(env_file, debug=debug, platform=platform))
    library = VolumeLibrary(deployment.settings)
    job_type = library.job_type(type_)
    library.line_model(job_type)  # a missing model: say so before anything else
    volumes = [str(id_) for id_ in distinct([VolumeId.parse(text) for text in volume])]
    launcher = launcher_for(deployment)
    try:
        failed = launcher.read(job_type.name, volumes, pages_again=pages)
        launcher.materialize("quality of volumes", "volume_quality")
    finally:
        print_materialized(launcher)
    for id_ in volumes:
        if id_ not in failed and (record := library.record(job_type.name, id_)):
            console.print(_summary(record), highlight=False)
    tell_failures(failed, len(volumes))


def _summary(record: TextRecord) -> str:
    quality = record.quality
    sure = "" if quality.mean_confidence is None else f", confidence {quality.mean_confidence:.3f}"
    return (
        f"{record.volume} {quality.status}: {quality.pages - quality.failed_pages} of "
        f"{quality.pages} pages, {quality.lines} lines{sure}"
    )


@volumes_app.command("status")
def status(
    type_: Annotated[
        str | None, typer.Option("--type", "-t", help="Only volumes of this job type.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show the volumes that were read and their quality."""
    library = _library(env_file)
    types = [library.job_type(type_).name] if type_ else list(library.job_types)
    records = [(name, record) for name in types for record in library.records(name)]
    if as_json:
        rows = [{"job_type": name, **asdict(record)} for name, record in records]
        console.print_json(json.dumps(rows))
        return
    print_table(
        f"Volumes in {library.storage.uri()}",
        ["job type", "volume", "version", "status", "pages", "failed", "blank", "lines", "sure"],
        [
            [
                name,
                record.volume,
                record.version,
                record.quality.status,
                record.quality.pages,
                record.quality.failed_pages,
                record.quality.blank_pages,
                record.quality.lines,
                ""
                if record.quality.mean_confidence is None
                else f"{record.quality.mean_confidence:.3f}",
            ]
            for name, record in records
        ],
        right={"pages", "failed", "blank", "lines", "sure"},
    )


@volumes_app.command("text")
def text(
    volume: VolumeArgument, type_: TypeOption = DEFAULT_TYPE, env_file: EnvFile = None
) -> None:
    """Print the text of a volume that was read, a blank line after each page."""
    library = _library(env_file)
    record = _record(library, type_, volume)
    content = library.read_file(record, "volume.txt").decode()
    typer.echo(content.replace("\f", "\n").rstrip("\n"))


@volumes_app.command("export")
def export(
    volume: VolumeArgument,
    folder: Annotated[Path, typer.Argument(help="Where to put the files; it must not exist.")],
    type_: TypeOption = DEFAULT_TYPE,
    env_file: EnvFile = None,
) -> None:
    """Copy the files of a volume under their plain names: text, tables, PAGE XML, ALTO, hOCR."""
    library = _library(env_file)
    record = _record(library, type_, volume)
    if folder.exists():
        raise DeploymentError(f"{folder} exists; give the name of a new folder")
    files = library.text_files(record)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as making:
        library.checkout(files, [file.name for file in files.files], Path(making, "volume"))
        shutil.move(Path(making, "volume"), folder)
    console.print(f"{len(files.files)} files: {folder}", highlight=False)


@volumes_app.command("pdf")
def pdf(
    volume: VolumeArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PDF file to write.")],
    type_: TypeOption = DEFAULT_TYPE,
    env_file: EnvFile = None,
) -> None:
    """Write the scans of a volume that was read as a PDF whose text can be searched."""
    from ocr_assets.volumes.archive import VolumeId
    from ocr_assets.volumes.images import read_pages
    from ocr_assets.volumes.searchable_pdf import write_pdf
    from resources.atomic import write_atomic

    library = _library(env_file)
    record = _record(library, type_, volume)
    id_ = VolumeId.parse(volume)
    images = read_pages(library.source(id_), library.manifest(id_).images)
    missing: list[str] = []

    def fill(file: IO[bytes]) -> None:
        missing.extend(write_pdf(file, language, images, tables))

    language = _language_tag(library.job_type(type_))
    with tempfile.TemporaryDirectory(prefix="ocr-pdf-") as folder, closing(images):
        tables = library.open_text(record, Path(folder))
        write_atomic(output.absolute(), fill, if_absent=False)
    console.print(f"{output}: {len(tables) - len(missing)} pages", highlight=False)
    for name in missing:
        errors.print(f"left out, as it cannot be decoded: {name}", markup=False, highlight=False)


@volumes_app.command("review")
def review(
    volume: Annotated[
        list[str] | None, typer.Argument(help="Volumes; all that were read if none is given.")
    ] = None,
    type_: TypeOption = DEFAULT_TYPE,
    limit: Annotated[int, typer.Option(min=1, max=2000, help="How many lines.")] = 50,
    below: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Only lines less sure than this.")
    ] = 1.0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with line images to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show the least certain lines first; with --html, each line's image beside its text."""
    from ocr_assets.volumes.quality import review_queue

    library = _library(env_file)
    if volume:
        records = [_record(library, type_, name) for name in volume]
    else:
        records = library.records(library.job_type(type_).name)
    with tempfile.TemporaryDirectory(prefix="ocr-review-") as folder:
        tables = (
            (record.volume, library.open_text(record, Path(folder, record.volume)))
            for record in records
        )
        queue = review_queue(tables, most=limit, below=below)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_bytes(_review_page(library, library.job_type(type_), queue))
        console.print(f"{len(queue)} lines: {html}", highlight=False)
        return
    if as_json:
        console.print_json(json.dumps([asdict(line) for line in queue]))
        return
    print_table(
        "Least certain lines",
        ["volume", "page", "line", "sure", "image", "text"],
        [
            [line.volume, line.page, line.line, f"{line.confidence:.3f}", line.image, line.text]
            for line in queue
        ],
        right={"page", "line", "sure"},
    )


def _review_page(library: VolumeLibrary, job_type: JobType, queue: list[ReviewLine]) -> bytes:
    from ocr_assets.volumes.archive import VolumeId
    from ocr_assets.volumes.review_page import review_page

    def read(line: ReviewLine) -> bytes:
        volume = VolumeId.parse(line.volume)
        images = {image.name: image for image in library.manifest(volume).images}
        return library.source(volume).read(images[line.image])

    return review_page(job_type.name, _language_tag(job_type), queue, read)


def _language_tag(job_type: JobType) -> str:
    from ocr_assets.volumes.markup import Writing

    return Writing.of(job_type.encoding, job_type.language, {}).language_tag


def _library(env_file: Path | None) -> VolumeLibrary:
    from ocr_assets.volume_library import VolumeLibrary

    return VolumeLibrary(settings_from(env_file))


def _record(library: VolumeLibrary, type_: str, volume: str) -> TextRecord:
    from ocr_assets.volumes.archive import VolumeId

    id_ = VolumeId.parse(volume)
    record = library.record(library.job_type(type_).name, id_)
    if record is None:
        raise DeploymentError(
            f"{id_} was not read as {type_}: run `ocr volumes run --type {type_} {id_}` first"
        )
    return record
