"""Small files in the true formats of the published inputs, and servers on loopback that have them.

The values are made up; the ground is that of the sample world, a few kilometres in Colorado.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely
import xarray as xr
from affine import Affine
from file_server import FileServer
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from ocr_assets.ingestion import Ingested, Ingestion
from ocr_assets.regions.grid import RegionGrid, Window
from ocr_assets.regions.input_sources import (
    CENSUS,
    FLAME_LENGTHS,
    RISK_COMPONENTS,
    SOURCES,
    Choice,
)
from resources.catalog import Catalog
from resources.settings import Settings

GRID = RegionGrid(
    "plains", Window(56_600, 56_720, 74_700, 74_860), 60, 80, ("y0_x0", "y0_x1", "y1_x0", "y1_x1")
)
BOUNDS = GRID.window.bounds
ALBERS = "EPSG:5070"
NODATA = -9999.0
EVERYTHING, COLORADO_AND_WYOMING = Choice(), Choice(states=("08", "56"))


def cells(size: float, crs: str = ALBERS) -> tuple[Affine, int, int]:
    """North-up cells that cover the grid and some more: transform, rows and columns."""
    project = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    west, south, east, north = project.transform_bounds(*BOUNDS, densify_pts=21)
    west, north = (np.floor(west / size) - 3) * size, (np.ceil(north / size) + 3) * size
    cols, rows = int((east - west) / size) + 4, int((north - south) / size) + 4
    return Affine(size, 0, west, 0, -size, north), rows, cols


def geotiff(values: NDArray[Any], transform: Affine, crs: str = ALBERS, **options: Any) -> bytes:
    """A GeoTIFF of one band."""
    with rasterio.MemoryFile() as memory:
        profile = {
            "driver": "GTiff",
            "height": values.shape[0],
            "width": values.shape[1],
            "count": 1,
            "dtype": values.dtype,
            "crs": crs,
            "transform": transform,
            "nodata": NODATA,
            **options,
        }
        with memory.open(**profile) as file:
            file.write(values, 1)
        return bytes(memory.read())


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def field_of(rows: int, cols: int, seed: int, top: float) -> NDArray[np.float32]:
    """Made-up values from 0 to ``top`` with some cells that have none."""
    values = np.random.default_rng(seed).random((rows, cols), np.float32) * np.float32(top)
    values[:2, :5] = NODATA
    return values


def shapefile(frame: geopandas.GeoDataFrame, name: str, folder: Path) -> bytes:
    """A zipped shapefile."""
    place = folder / name
    place.mkdir(parents=True)
    frame.to_file(place / f"{name}.shp")
    return zipped({path.name: path.read_bytes() for path in sorted(place.iterdir())})


def outlines(rows: Mapping[str, shapely.Geometry], **columns: list[Any]) -> geopandas.GeoDataFrame:
    """Outlines in NAD 83 with their codes."""
    return geopandas.GeoDataFrame(
        {"GEOID": list(rows), **columns}, geometry=list(rows.values()), crs="EPSG:4269"
    )


def blocks() -> dict[str, shapely.Geometry]:
    """Eight blocks of two states in two rows of four that cover the grid; codes not in order."""
    west, south, east, north = BOUNDS
    x, y = np.linspace(west, east, 5), np.linspace(south, north, 3)
    made = {}
    for col in (3, 1, 0, 2):
        for row in (1, 0):
            state = "08013" if col < 2 else "56021"
            code = f"{state}{12300 + col:06d}{1000 * (row + 1) + col:04d}"
            made[code] = shapely.box(x[col], y[row], x[col + 1], y[row + 1])
    return made


def state_box(code: str) -> shapely.Geometry:
    """The blocks of a state as one outline."""
    parts = [shape for geoid, shape in blocks().items() if geoid.startswith(code)]
    return shapely.union_all(parts)


@cache
def tiger_files() -> dict[str, bytes]:
    """The census files by their path on the server."""
    with tempfile.TemporaryDirectory() as folder:
        return _tiger_files(Path(folder))


def _tiger_files(folder: Path) -> dict[str, bytes]:
    files = {}
    tracts: dict[str, list[shapely.Geometry]] = {}
    for geoid, shape in blocks().items():
        tracts.setdefault(geoid[:11], []).append(shape)
    merged = {geoid: shapely.union_all(parts) for geoid, parts in tracts.items()}
    for code in ("08", "56"):
        mine = {geoid: shape for geoid, shape in blocks().items() if geoid.startswith(code)}
        name = f"tl_2025_{code}_tabblocksufx"
        files[f"TIGER2025/TABBLOCKSUFX/{name}.zip"] = shapefile(
            outlines(mine, ALAND=[1000 + at for at in range(len(mine))]), name, folder
        )
        name = f"tl_2024_{code}_tract"
        mine = {geoid: shape for geoid, shape in merged.items() if geoid.startswith(code)}
        files[f"TIGER2024/TRACT/{name}.zip"] = shapefile(outlines(mine), name, folder)
    counties = {code: state_box(code) for code in ("56021", "08013")}
    counties["02020"] = shapely.box(-150, 61, -149, 62)
    frame = outlines(counties, NAME=["Laramie", "Boulder", "Anchorage"])
    files["TIGER2024/COUNTY/tl_2024_us_county.zip"] = shapefile(frame, "county", folder)
    states = {"56": state_box("56"), "08": state_box("08"), "02": counties["02020"]}
    frame = outlines(
        states,
        STUSPS=["WY", "CO", "AK"],
        NAME=["Wyoming", "Colorado", "Alaska"],
        LSAD=["00", "00", "00"],
    )
    files["GENZ2024/shp/cb_2024_us_state_500k.zip"] = shapefile(frame, "state", folder)
    nation = shapely.union_all([shapely.box(-130, 20, -60, 55), counties["02020"]])
    frame = outlines({"US": nation}, NAME=["United States"])
    files["GENZ2024/shp/cb_2024_us_nation_5m.zip"] = shapefile(frame, "nation", folder)
    return files


def burn_probability(climate: int) -> tuple[NDArray[np.float32], Affine]:
    """Published burn probability of a climate: some cells negative, some without a value."""
    transform, rows, cols = cells(270)
    values = field_of(rows, cols, climate, 0.04)
    values[5, 5:8] = -0.001
    return values, transform


def riley_zip() -> bytes:
    """The archive of Riley et al."""
    members = {"readme.txt": b"made up"}
    for climate in (2011, 2047):
        values, transform = burn_probability(climate)
        for at, name in enumerate(FLAME_LENGTHS):
            band = values if name == "BP" else np.where(values == NODATA, NODATA, at / 10)
            data = geotiff(band.astype(np.float32), transform)
            members[f"RDS-2025-0006/Data/{climate}ClimateRun/{name}.tif"] = data
    return zipped(members)


def risk_component(name: str) -> tuple[NDArray[np.float32], Affine]:
    """A published component of Scott et al., on 30 m cells."""
    transform, rows, cols = cells(30)
    top = 0.03 if name == "BP" else 20.0
    return field_of(rows, cols, RISK_COMPONENTS.index(name), top), transform


@cache
def raster_files() -> dict[str, dict[str, bytes]]:
    """The files of the raster sources, by source and path on the server."""
    scott = {}
    for file, name in zip(SOURCES["scott-et-al-2024"].files, RISK_COMPONENTS, strict=True):
        scott[file.path] = zipped({f"{name}_CONUS.tif": geotiff(*risk_component(name))})
    transform, rows, cols = cells(270)
    folder = "RDS-2016-0034-3/Data/I_FSim_CONUS_LF2020_270m"
    dillon = {
        f"{folder}/CONUS_{name}.tif": geotiff(field_of(rows, cols, at, 0.05), transform)
        for at, name in enumerate(FLAME_LENGTHS)
    }
    transform, rows, cols = cells(90, "EPSG:3310")
    classes = np.random.default_rng(9).integers(0, 4, (rows, cols)).astype(np.uint8)
    fhsz = geotiff(classes, transform, "EPSG:3310", nodata=0)
    return {
        "scott-et-al-2024": scott,
        "riley-et-al-2025": {SOURCES["riley-et-al-2025"].files[0].path: riley_zip()},
        "dillon-et-al-2023": {"RDS-2016-0034-3.zip": zipped(dillon)},
        "calfire-fhsz": {"calfire-risk-raster.tif": fhsz},
    }


def overture_table(kind: str, count: int = 400) -> pa.Table:
    """Made-up features of Overture in and around the grid, sorted from west to east."""
    rng = np.random.default_rng(7 if kind == "building" else 8)
    west, south, east, north = BOUNDS
    width, height = east - west, north - south
    x = np.sort(rng.uniform(west - width, east + width, count))
    y = rng.uniform(south + 0.1 * height, north - 0.1 * height, count)
    # Far outside the contiguous United States.
    x[:40] -= 60.0
    if kind == "building":
        shapes = shapely.box(x, y, x + 2e-4, y + 1e-4)
        # On the border of two blocks, and on the corner of four.
        middle = west + width / 4, south + height / 2
        shapes[-1] = shapely.box(middle[0] - 1e-4, y[-1], middle[0] + 1e-4, y[-1] + 1e-4)
        shapes[-2] = shapely.box(*(at - 1e-4 for at in middle), *(at + 1e-4 for at in middle))
    else:
        shapes = shapely.points(x, y)
    edges = shapely.bounds(shapes).astype(np.float32).T
    box = pa.StructArray.from_arrays(
        [pa.array(edge) for edge in edges], names=["xmin", "ymin", "xmax", "ymax"]
    )
    columns = {
        "id": [f"{kind}-{at:05d}" for at in rng.permutation(count)],
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
        "bbox": box,
        "version": pa.array(np.ones(count, np.int32)),
        "sources": [[{"dataset": "made up"}]] * count,
    }
    if kind == "address":
        columns["street"] = [f"Street {at}" for at in range(count)]
    table = pa.table(columns)
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
    }
    return table.replace_schema_metadata({"geo": json.dumps(geo)})


def put_public(server: str, bucket: str, key: str, content: bytes) -> None:
    """Put an object that anybody may read into a bucket of an S3 server."""
    client = boto3.client("s3", endpoint_url=server)
    client.put_object(Bucket=bucket, Key=key, Body=content, ACL="public-read")


def put_overture(server: str, bucket: str, release: str) -> None:
    """Put a release of two files for each type into a bucket of an S3 server."""
    for theme, kind in (("buildings", "building"), ("addresses", "address")):
        table = overture_table(kind)
        half = table.num_rows // 2
        for number, part in enumerate((table.slice(0, half), table.slice(half))):
            data = io.BytesIO()
            pq.write_table(part, data, row_group_size=40)
            key = f"release/{release}/theme={theme}/type={kind}/part-0000{number}.zstd.parquet"
            put_public(server, bucket, key, data.getvalue())


@dataclass
class Published:
    """Servers on loopback with the published inputs, and a workplace that reads from them."""

    server: FileServer
    folder: Path
    places: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Settings of the workplace."""
        path = self.folder / "sources.json"
        path.write_text(json.dumps({"schema": 1, "sources": self.places}))
        return Settings(storage_root=str(self.folder / "root"), sources=path)

    @property
    def ingestion(self) -> Ingestion:
        """The inputs of the workplace, read anew."""
        return Ingestion(self.settings)

    @property
    def catalog(self) -> Catalog:
        """The catalog of the workplace."""
        return Catalog.read(self.settings.catalog_uri)

    def begin_catalog(self) -> None:
        """Make a catalog without datasets for the small grid."""
        folder = self.folder / "root" / "input"
        Catalog(str(folder), GRID, {}).write(str(folder / "catalog.json"))

    def variables(self) -> dict[str, str]:
        """The settings as variables, for the command line."""
        settings = self.settings
        return {
            "OCR_STORAGE_ROOT": settings.storage_root,
            "OCR_CATALOG": settings.catalog_uri,
            "OCR_SOURCES": str(settings.sources),
        }

    def serve(self, source: str, files: Mapping[str, bytes] | None = None) -> None:
        """Serve the files of a source; hashes are not checked, as these are other files."""
        if files is None:
            files = tiger_files() if source == CENSUS else raster_files()[source]
        for path, content in files.items():
            self.server.files[f"/{source}/{path}"] = content
        known = {file.name: None for file in SOURCES[source].files if file.sha256}
        self.places[source] = {"address": f"{self.server.url}/{source}", "sha256": known}


def hourly_winds() -> xr.Dataset:
    """Made-up hourly weather like CONUS404: dry and warm, wind along x, on 4 km cells."""
    transform, rows, cols = cells(4000)
    rng = np.random.default_rng(4)
    shape = (480, rows, cols)
    warm = rng.normal(295, 8, shape)
    fields = {
        "T2": warm,
        "TD2": warm - rng.uniform(1, 30, shape),
        "U10": rng.normal(6, 3, shape),
        "V10": rng.normal(0, 3, shape),
    }
    return xr.Dataset(
        {
            **{
                name: (("time", "y", "x"), values.astype(np.float32))
                for name, values in fields.items()
            },
            "crs": ((), 0, {"crs_wkt": CRS(ALBERS).to_wkt()}),
        },
        {
            "y": transform.f + (np.arange(rows) + 0.5) * transform.e,
            "x": transform.c + (np.arange(cols) + 0.5) * transform.a,
        },
    )


def put_winds(server: str, bucket: str) -> None:
    """Put the hourly weather as a Zarr store of format 2 into a bucket of an S3 server."""
    with tempfile.TemporaryDirectory() as folder:
        hourly_winds().to_zarr(folder, zarr_format=2, consolidated=True, mode="w")
        for path in Path(folder).rglob("*"):
            if path.is_file():
                key = f"conus404/hourly.zarr/{path.relative_to(folder)}"
                put_public(server, bucket, key, path.read_bytes())


def bring_in(ingestion: Ingestion, name: str, choice: Choice = EVERYTHING) -> dict[str, Ingested]:
    """Download a source and process what becomes of it, by name."""
    source = ingestion.source(name)
    ingestion.download(source, choice)
    return {dataset: ingestion.process(dataset, choice) for dataset in choice.datasets(source)}
