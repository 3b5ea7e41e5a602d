"""Commands that answer from published tiles: stats, mosaic, preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ocr_assets.cli.app import Debug, EnvFile, errors, print_table, tiles_app
from ocr_assets.cli.tile_runs import Dest, tile_settings
from ocr_assets.cli.tiles import (
    AsJson,
    input_errors,
    local_output,
    read_tiles,
    tell,
    tell_problems,
)
from ocr_assets.tile_library import PRODUCTS, SourceKey, TileLibrary
from ocr_assets.tiles.grid import YEARS, Tile
from ocr_assets.tiles.request_problems import RequestError
from resources.progress import ConsoleProgress
from resources.settings import Settings
from resources.storage import split_uri

Year = Annotated[
    int, typer.Option("--year", min=YEARS[0], max=YEARS[-1], help="Year of the tiles.")
]


@tiles_app.command("stats")
def stats(
    polygons: Annotated[
        str, typer.Argument(help="GeoJSON, GeoPackage, Shapefile or GeoParquet of polygons.")
    ],
    year: Year,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Copy of the answer: .csv or .parquet."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Name of the answer in the store; else that of the file.")
    ] = "",
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer of a file of several.")
    ] = None,
    lookup_csv: Annotated[
        str | None, typer.Option("--lookup-csv", help="Confidence intervals by land cover.")
    ] = None,
    land_cover_column: Annotated[
        str | None, typer.Option("--land-cover-column", help="Column with the land cover.")
    ] = None,
    lulc_raster: Annotated[
        str | None, typer.Option("--lulc-raster", help="Raster with the land cover.")
    ] = None,
    region_csv: Annotated[
        str | None, typer.Option("--region-csv", help="Confidence intervals by region.")
    ] = None,
    region_column: Annotated[
        str | None, typer.Option("--region-column", help="Column with the region.")
    ] = None,
    region_polygons: Annotated[
        str | None, typer.Option("--region-polygons", help="Polygons of regions, with `name`.")
    ] = None,
    dest: Dest = None,
    as_json: AsJson = False,
    debug: Debug = False,
    env_file: EnvFile = None,
) -> None:
    """Measure the tree cover of polygons, how far it may be off, and which tiles are missing.

    Exit status: 0 every polygon has an answer; 1 some have none or only part of one; 3 the
    polygons cannot be read.
    """
    from ocr_assets.cli.tile_launch import TileLauncher
    from ocr_assets.deployment import Deployment
    from ocr_assets.partitions import PARTITION
    from ocr_assets.tile_answers import ZonalRequest, answer_keys

    settings = tile_settings(env_file, dest, debug=debug)
    library = TileLibrary(settings)
    options: dict[str, Any] = {
        "polygons": _absolute(polygons),
        "name": name,
        "layer": layer,
        "land_cover_table": _absolute(lookup_csv),
        "land_cover_column": land_cover_column,
        "land_cover_raster": _absolute(lulc_raster),
        "region_table": _absolute(region_csv),
        "region_column": region_column,
        "region_polygons": _absolute(region_polygons),
    }
    with input_errors():
        request = ZonalRequest(year=year, **options)
        launcher = TileLauncher(Deployment(settings), ConsoleProgress(errors), debug=debug)
        launcher.materialize_configured(
            {"ops": {"zonal_statistics": {"config": options}}},
            "zonal_statistics",
            tags={PARTITION: str(year)},
        )
    keys = answer_keys(request)
    if output is not None:
        kind = "csv" if output.endswith(".csv") else "geoparquet"
        storage, target = split_uri(output, settings.s3)
        with library.storage.local_copy(keys[kind]) as path:
            storage.put_file(target, path)
    record = library.stored(f"{keys['geoparquet']}.lineage.json")
    figures = record.report if record else {}
    place = output or library.storage.uri(keys["csv"])
    if as_json:
        typer.echo(json.dumps({**figures, "path": place}, indent=2))
    else:
        shown = [[name, value] for name, value in figures.items() if isinstance(value, int)]
        print_table(f"Tree cover of {year}: {place}", ["what", "polygons"], shown, {"polygons"})
        if notice := figures.get("notice"):
            tell(notice)
        if lacking := figures.get("missing tiles"):
            tell(f"missing tiles: {', '.join(lacking)}")
    if figures.get("rows") != figures.get("complete"):
        raise typer.Exit(1)


@tiles_app.command("mosaic")
def mosaic(
    year: Year,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, here or in a bucket: .tif, or .vrt for a virtual one; else the "
            "store's, for `ocr map`.",
        ),
    ] = None,
    tiles: Annotated[
        str | None, typer.Option("--tiles", help="Only the tiles of this request.")
    ] = None,
    dest: Dest = None,
    env_file: EnvFile = None,
) -> None:
    """Lay published tiles of a year side by side, any number of them, as one raster."""
    if output is None:
        if tiles is not None:
            raise typer.BadParameter("--tiles goes with --output: the store's mosaic has all tiles")
        _stored_mosaic(tile_settings(env_file, dest), year)
        return
    from ocr_assets.tile_answers import contents_of, opened, published_tiles
    from ocr_assets.tiles.mosaic import write_mosaic_cog, write_mosaic_vrt

    if not output.endswith((".tif", ".vrt")):
        raise typer.BadParameter(f"{output!r} ends neither with .tif nor with .vrt")
    settings = tile_settings(env_file, dest)
    library = TileLibrary(settings)
    with input_errors():
        wanted = None
        if tiles is not None:
            found = read_tiles(tiles, settings)
            tell_problems(found.problems)
            wanted = {tile for of_year, tile in found if of_year == year}
        there = published_tiles(library, year, wanted)
        if not there:
            raise RequestError(f"there are no tiles of {year} in {library.storage.uri()}")
        virtual = output.endswith(".vrt")
        if virtual and "://" in output and library.storage.is_local:
            raise RequestError(
                f"{output} would point to files of this machine: write a .tif, or a .vrt here"
            )
        with opened(library, there) as paths, local_output(output, settings) as path:
            if virtual:
                box = write_mosaic_vrt(list(paths.values()), path)
            else:
                lineage = {"tiles": contents_of(there), "year": year}
                box = write_mosaic_cog(list(paths.values()), path, lineage)
    absent = 0 if wanted is None else len(wanted) - len(there)
    rows, columns = box.shape
    tell(f"{output}: {len(there)} tiles, {columns} x {rows} pixels, {absent} tiles are not there")
    if absent:
        raise typer.Exit(1)


def _stored_mosaic(settings: Settings, year: int) -> None:
    """Make the mosaic that the graph keeps of a year."""
    from ocr_assets.cli.tile_launch import TileLauncher
    from ocr_assets.deployment import Deployment
    from ocr_assets.partitions import PARTITION
    from ocr_assets.tile_answers import mosaic_key

    with input_errors():
        launcher = TileLauncher(Deployment(settings), ConsoleProgress(errors), debug=settings.debug)
        launcher.materialize_configured({}, "tree_cover_mosaic", tags={PARTITION: str(year)})
    tell(f"{TileLibrary(settings).storage.uri(mosaic_key(year))}: all tiles of {year}")


@tiles_app.command("preview")
def preview(
    tile: Annotated[str, typer.Argument(help="Tile, like 1035X727Y.")],
    year: Annotated[int | None, typer.Option("--year", help="Year, unless it is terrain.")] = None,
    source: Annotated[
        str, typer.Option("--source", help="elevation, sentinel1, sentinel2 or tree_cover.")
    ] = "tree_cover",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="PNG to write; else TILE_YEAR_SOURCE.png.")
    ] = None,
    dest: Dest = None,
    env_file: EnvFile = None,
) -> None:
    """Draw one tile: its tree cover, its clearest image, its radar or its terrain."""
    settings = tile_settings(env_file, dest)
    library = TileLibrary(settings)
    with input_errors():
        if source not in PRODUCTS:
            raise RequestError(f"{source!r} is no source; there are {', '.join(PRODUCTS)}")
        chosen = Tile.parse(tile)
        library.grid.centre(chosen)
        if (year is None) != (source == "elevation"):
            raise RequestError(f"{source} goes with{'out' if source == 'elevation' else ''} --year")
        key = SourceKey(source, chosen, year)
        place = output or f"{chosen.key}_{year or 'terrain'}_{source}.png"
        target, name = split_uri(place, settings.s3)
        target.write_bytes(name, _picture(library, key))
    tell(f"{key}: {place}")


def _picture(library: TileLibrary, key: SourceKey) -> bytes:
    from ocr_assets.tiles import source_previews

    if key.source == "elevation":
        return source_previews.elevation_preview(library.elevation(key.tile))
    if key.source == "sentinel1":
        return source_previews.radar_preview(library.sentinel1(key.tile, key.of_year))
    if key.source == "sentinel2":
        return source_previews.optical_preview(library.sentinel2(key.tile, key.of_year))
    import rasterio

    from ocr_assets.tile_answers import opened, published_tiles
    from ocr_assets.tiles.product import tree_cover_preview

    found = published_tiles(library, key.of_year, [key.tile])
    if not found:
        raise library.missing(key)
    with opened(library, found) as paths, rasterio.open(paths[key.tile]) as raster:
        return tree_cover_preview(raster.read(1))


def _absolute(place: str | None) -> str | None:
    """A path as the run sees it, which may be at work in another folder."""
    return place if place is None or "://" in place else str(Path(place).absolute())
