"""Commands about recognition models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ocr_assets.cli.app import EnvFile, console, models_app, print_table, settings_from

if TYPE_CHECKING:
    from resources.model_store import ModelStore

NameArgument = Annotated[str, typer.Argument(help="Name of the model; `ocr models list` has them.")]


@models_app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Show the known models and whether they are on this machine."""
    statuses = _store(env_file).list()
    rows = [
        {
            "name": status.name,
            "state": status.state,
            "description": status.description,
            "licence": status.licence,
            "path": str(status.path or ""),
        }
        for status in statuses
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    columns = ["name", "state", "description", "licence", "path"]
    print_table("Models", columns, [[row[name] for name in columns] for row in rows], right=set())


@models_app.command("fetch")
def fetch(
    name: NameArgument,
    source: Annotated[
        str | None,
        typer.Option(
            help="A .traineddata URL, a hub repository owner/name, or a local file or folder."
        ),
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Bring a model into the models folder and check its hashes."""
    path = _store(env_file).fetch(name, source)
    console.print(f"{name}: {path}", highlight=False)


@models_app.command("verify")
def verify(
    name: Annotated[
        list[str] | None, typer.Argument(help="Models; all on this machine if none is given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Check that models are whole, and that their networks keep what the models say."""
    from ocr_assets.volume_library import VolumeLibrary
    from ocr_assets.volumes.models import ModelError, read_line_model, read_segmentation_model

    library = VolumeLibrary(settings_from(env_file))
    rows = []
    chosen = name or [one.name for one in library.models.list() if one.state != "missing"]
    for one in chosen:
        hashes = library.models.verify(one)
        path = library.models.find(one)
        try:
            line_model = read_line_model(path, one)
        except ModelError as error:
            try:
                segmentation = read_segmentation_model(path, one)
            except ModelError:
                raise error from None
            library.inference.mask_network(segmentation)
            kind = f"marks lines, {segmentation.line_mode}, tiles of {segmentation.patch_size}"
            sha256 = segmentation.sha256
        else:
            library.inference.line_network(line_model)
            kind = f"{line_model.architecture}, {line_model.charset.size} outputs"
            sha256 = line_model.sha256
        rows.append({"name": one, "kind": kind, "sha256": sha256, "files": hashes})
        if as_json:
            continue
        console.print(f"{one}: good; {kind}; {sha256}", highlight=False)
        for file, digest in hashes.items():
            console.print(f"  {digest}  {file}", highlight=False, soft_wrap=True)
    if as_json:
        console.print_json(json.dumps(rows))


def _store(env_file: object) -> ModelStore:
    from resources.model_store import ModelStore

    return ModelStore(settings_from(env_file).models_root)  # type: ignore[arg-type]
