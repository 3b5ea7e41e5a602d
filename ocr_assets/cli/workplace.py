"""Commands about the whole workplace: settings, sample world, map and UI."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import webbrowser
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ocr_assets.cli.app import (
    EnvFile,
    OneRiskType,
    OneRiskTypeOption,
    app,
    console,
    errors,
    print_table,
    settings_from,
)
from resources.storage import Storage


@app.command()
def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    env_file: EnvFile = None,
) -> None:
    """Print the settings in force and the places that follow from them."""
    settings = settings_from(env_file)
    places = {
        "tables and vector tiles": settings.output_root,
        "tiles of tree cover": settings.tiles_uri,
        "text of volumes": settings.volumes_uri,
        "region risk": settings.icechunk_uri,
        "branch": settings.icechunk_branch,
        "input catalog": settings.catalog_uri,
    }
    if as_json:
        console.print_json(json.dumps({"settings": settings.variables(), "places": places}))
        return
    descriptions = {
        f"OCR_{name.upper()}": field.description
        for name, field in type(settings).model_fields.items()
    }
    print_table(
        "Settings",
        ["variable", "value", "meaning"],
        [
            [name, "" if value is None else value, descriptions[name]]
            for name, value in settings.variables().items()
        ],
        right=set(),
    )
    print_table("Places", ["what", "where"], [list(item) for item in places.items()], right=set())


@app.command()
def sample(
    region_id: Annotated[
        str | None,
        typer.Option(
            "--region-id",
            "-r",
            help="Make a full-size region of the CONUS grid instead of the small world.",
        ),
    ] = None,
    buildings: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Real footprints to put on the full-size region."
        ),
    ] = None,
    counties: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Real counties for them: layers counties, states, nation.",
        ),
    ] = None,
    synthetic_buildings: Annotated[
        int | None, typer.Option(min=0, help="Synthetic footprints on the full-size region.")
    ] = None,
    imagery: Annotated[
        bool, typer.Option(help="Build also satellite imagery of two tiles, about 100 MB.")
    ] = True,
    env_file: EnvFile = None,
) -> None:
    """Build synthetic inputs under the storage root: regions, imagery of tiles, a sample volume.

    Without options this is the sample world: a small window of the CONUS grid with everything the
    graph needs, and satellite imagery of two tiles with an env file that makes it the source of
    scenes. With --region-id the rasters are synthetic on the true grid of that region.
    """
    from ocr_assets.sample.world import build_sample_world

    settings = settings_from(env_file)
    storage = Storage(settings.storage_root, settings.s3)
    build = partial(
        build_sample_world,
        region_id=region_id,
        buildings=buildings,
        counties=counties,
        synthetic_buildings=synthetic_buildings,
    )
    with errors.status("building synthetic inputs"):
        if storage.is_local:
            build(Path(storage.root))
            volume = _sample_volume(Path(storage.root, "input", "volumes"))
        else:
            with tempfile.TemporaryDirectory(prefix="ocr-sample-") as folder:
                build(Path(folder))
                volume = _sample_volume(Path(folder, "input", "volumes"))
                _upload(Path(folder), storage)
    if volume is not None:
        console.print(f"sample volume: {storage.uri(f'input/volumes/{volume}')}", highlight=False)
    if imagery and region_id is None:
        from ocr_assets.sample.tile_world import SETTINGS, build_sample_tiles

        with errors.status("building synthetic imagery"):
            place = build_sample_tiles(settings.imagery_folder)
        console.print(f"settings for its imagery: {place / SETTINGS}", soft_wrap=True)
    console.print(f"inputs and their catalog: {storage.uri('input/catalog.json')}")


def _sample_volume(folder: Path) -> str | None:
    """Make the sample volume too, where this machine can set Tibetan text; its id."""
    from ocr_assets.sample.volume import SampleVolumeError, build_sample_volume

    try:
        return build_sample_volume(folder).name
    except SampleVolumeError as error:
        errors.print(f"no sample volume: {error}", highlight=False, soft_wrap=True)
        return None


def _upload(folder: Path, storage: Storage) -> None:
    """Copy a sample world to an object store, the catalog last."""
    catalog = folder / "input" / "catalog.json"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != catalog)
    for path in [*files, catalog]:
        storage.put_file(path.relative_to(folder).as_posix(), path)


@app.command("map")
def map_(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    latest: Annotated[
        bool, typer.Option("--latest", help="Show the published version that readers are given.")
    ] = False,
    risk_type: OneRiskTypeOption = OneRiskType.fire,
    env_file: EnvFile = None,
) -> None:
    """Show vector tiles and tree cover on a map, served on 127.0.0.1 until interrupted."""
    from ocr_assets.deployment import Deployment, DeploymentError
    from ocr_assets.map_page.pictures import TreeCoverPicture
    from ocr_assets.map_page.server import ARCHIVE_NAMES, MapServer, PageSettings, StoredArchive
    from ocr_assets.map_page.subject import page_subject
    from ocr_assets.releases import Releases
    from ocr_assets.tile_answers import mosaics
    from ocr_assets.tile_library import TileLibrary

    settings = settings_from(env_file)
    deployment = Deployment(
        Releases.of(settings).current_settings(settings) if latest else settings
    ).of(risk_type.value)
    keys = {name: f"pmtiles/{name}.pmtiles" for name in ARCHIVE_NAMES}
    archives = {
        name: StoredArchive(deployment.storage, key)
        for name, key in keys.items()
        if deployment.storage.exists(key)
    }
    tiles = TileLibrary(settings)
    covers = mosaics(tiles)
    pictures = {
        f"tree-cover-{year}": TreeCoverPicture(tiles.storage, cover.key, year)
        for year, cover in covers.items()
    }
    if not archives and not pictures:
        raise DeploymentError(
            f"there are no vector tiles in {deployment.storage.uri('pmtiles')}; "
            f"make them with `ocr run --risk-type {risk_type.value}`, or a mosaic of tree cover "
            "with `ocr tiles mosaic --year YEAR`"
        )
    notices = [deployment.catalog.notice] if archives else []
    notices += [cover.notice for cover in covers.values()]
    page = PageSettings(
        title=deployment.risk.map.title if archives else "Tree cover",
        subject=page_subject(deployment.risk),
        environment=deployment.settings.environment,
        version=deployment.settings.version_label if archives else "",
        attribution=(
            *(deployment.attribution if archives else ()),
            *(
                f"Tree cover: contains modified Copernicus Sentinel data {year}"
                for year, cover in covers.items()
                # What is made of other imagery, such as synthetic one, says so.
                if not cover.notice
            ),
        ),
        notice=" ".join(dict.fromkeys(notice for notice in notices if notice)),
    )
    with MapServer(archives, page, port=port, pictures=pictures).running() as address:
        console.print(f"map: {address} (Ctrl+C ends it)")
        if open_browser:
            webbrowser.open(address)
        threading.Event().wait()


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 3000,
    env_file: EnvFile = None,
) -> None:
    """Open the Dagster UI on 127.0.0.1, with daemon and sensors."""
    import dagster as dg

    from ocr_assets.cli.instance import instance_file, prepare_home
    from ocr_assets.run_processes import close_abandoned_runs

    settings_from(env_file)
    home = prepare_home()
    with dg.DagsterInstance.get() as instance:
        close_abandoned_runs(instance)
    errors.print(f"DAGSTER_HOME is {home}; the UI is at http://127.0.0.1:{port}")
    # Dagster would warn of a dagster.yaml in the working folder that is not the instance's.
    os.chdir(home)
    arguments = [
        sys.executable,
        # It would warn that `dg dev` is the newer command; that one is another distribution.
        "-W",
        "ignore:Function `dev_command` is superseded",
        str(Path(sys.executable).with_name("dagster")),
        "dev",
        "-w",
        str(instance_file("workspace.yaml")),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    os.execv(sys.executable, arguments)  # noqa: S606 - no shell is meant
