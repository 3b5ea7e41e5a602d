"""The catalog: which input datasets there are, where they lie, and on which grid.

Belongs here: the catalog document, opening its datasets, and fingerprints of their content.
Does not belong here: what a dataset must hold to be usable; the wings check that.

A catalog is one JSON document. Swap a dataset by editing its entry:

    {"schema": 1, "notice": "...", "grid": "conus", "datasets": {
        "us-census-counties": {"format": "vector", "uri": "counties.gpkg", "layer": "counties",
                               "description": "...", "source": "...", "synthetic": false}}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import icechunk
import pyarrow.fs
import pyproj
import xarray as xr
import zarr.storage
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ocr_assets.regions.grid import CONUS, RegionGrid
from resources.content_hashes import content_sha256
from resources.gdal_storage import gdal_options, gdal_path
from resources.geotiff import open_geotiff
from resources.icechunk_branch import IcechunkBranch
from resources.keys import StorageError
from resources.storage import ObjectInfo, S3Options, Storage, split_uri

RASTER_FORMATS = ("icechunk", "zarr", "geotiff")
TABLE_FORMATS = ("geoparquet", "vector")


class CatalogError(ValueError):
    """A catalog or a dataset of it that cannot be used; the message says which and the mend."""


class MissingDatasetError(CatalogError):
    """A dataset that the catalog does not have."""


class TableSource(NamedTuple):
    """Where a table lies: its path, the filesystem it is on (None: local, by GDAL), its layer."""

    path: str
    filesystem: pyarrow.fs.FileSystem | None
    layer: str | None


class DatasetEntry(BaseModel):
    """One input dataset: where it lies, its format, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["icechunk", "zarr", "geotiff", "geoparquet", "vector"]
    uri: str = Field(min_length=1)
    """A path relative to the catalog's folder, an absolute path, or ``s3://bucket/key``."""
    description: str
    synthetic: bool
    source: str
    licence: str | None = None
    layer: str | None = None
    """Layer of a vector file, or group of an Icechunk or Zarr store."""
    crs: str | None = None
    """Coordinate system, for a raster that does not declare one."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Our name of a raster variable to the name in the data, where they differ."""

    @model_validator(mode="after")
    def _only_what_is_read(self) -> DatasetEntry:
        for key in ("variables", "crs"):
            if self.format in TABLE_FORMATS and getattr(self, key):
                raise ValueError(f"{key} is for rasters, the format is {self.format}")
        return self


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal[1] = Field(alias="schema")
    notice: str = ""
    grid: dict[str, Any] | Literal["conus"]
    datasets: dict[str, DatasetEntry]
    recipe: dict[str, Any] | None = None

    @field_validator("grid")
    @classmethod
    def _grid_is_one(cls, value: dict[str, Any] | str) -> dict[str, Any] | str:
        if isinstance(value, dict):
            RegionGrid.from_dict(value)
        return value


class Catalog:
    """Named input datasets, and the region grid they serve."""

    def __init__(
        self,
        folder: str,
        grid: RegionGrid,
        datasets: Mapping[str, DatasetEntry],
        notice: str = "",
        recipe: Mapping[str, Any] | None = None,
        s3: S3Options | None = None,
    ) -> None:
        """A catalog whose relative paths start from ``folder`` (a path or ``s3://`` prefix)."""
        self.folder = folder.rstrip("/")
        self.grid = grid
        self.datasets = dict(datasets)
        self.notice = notice
        self.recipe = recipe
        """What a generated catalog was made from; None if a person wrote it."""
        self.s3 = s3 or S3Options()

    @classmethod
    def read(cls, uri: str, s3: S3Options | None = None) -> Catalog:
        """Read the document at ``uri``; raises :class:`CatalogError` if it is not a catalog."""
        s3 = s3 or S3Options()
        storage, name = split_uri(uri, s3)
        if not storage.exists(name):
            raise CatalogError(
                f"there is no catalog at {uri}; run `ocr sample` to make one with synthetic data, "
                "or set OCR_CATALOG to yours"
            )
        try:
            document = _Document.model_validate(json.loads(storage.read_bytes(name)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CatalogError(f"catalog {uri}: {place}: {first['msg']}") from error
        except ValueError as error:
            raise CatalogError(f"catalog {uri} is not valid JSON: {error}") from error
        grid = CONUS if isinstance(document.grid, str) else RegionGrid.from_dict(document.grid)
        return cls(storage.root, grid, document.datasets, document.notice, document.recipe, s3)

    @classmethod
    def find(cls, uri: str, s3: S3Options | None = None) -> Catalog | None:
        """The catalog at ``uri``, or None if there is nothing there."""
        storage, name = split_uri(uri, s3 or S3Options())
        return cls.read(uri, s3) if storage.exists(name) else None

    def write(self, uri: str) -> None:
        """Write the document to ``uri``, atomically; it replaces what is there."""
        storage, name = split_uri(uri, self.s3)
        storage.write_bytes(name, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The document as it is stored."""
        document = {
            "schema": 1,
            "notice": self.notice,
            "grid": "conus" if self.grid == CONUS else self.grid.to_dict(),
            "datasets": {
                name: entry.model_dump(exclude_defaults=True)
                for name, entry in sorted(self.datasets.items())
            },
        }
        if self.recipe is not None:
            document["recipe"] = dict(self.recipe)
        return (json.dumps(document, indent=2) + "\n").encode()

    @classmethod
    def register(
        cls, uri: str, entries: Mapping[str, DatasetEntry], s3: S3Options | None = None
    ) -> None:
        """Put entries into the catalog at ``uri``, which is made for CONUS if it is not there.

        Several processes may do so at once; readers see the catalog before or after.

        Raises CatalogError if the catalog was generated: whoever made it would lose the entries.
        """
        storage, name = split_uri(uri, s3 or S3Options())

        def change(data: bytes | None) -> bytes:
            catalog = cls(storage.root, CONUS, {}, s3=s3) if data is None else cls.read(uri, s3)
            if catalog.recipe is not None:
                raise CatalogError(
                    f"the catalog {uri} is that of a generated world; set OCR_CATALOG to another "
                    "place for real inputs"
                )
            return cls(
                catalog.folder, catalog.grid, {**catalog.datasets, **entries}, catalog.notice, s3=s3
            ).to_bytes()

        storage.update_bytes(name, change)

    def dataset(self, name: str) -> DatasetEntry:
        """The entry of a dataset; raises :class:`MissingDatasetError` if there is none."""
        if name not in self.datasets:
            raise MissingDatasetError(
                f"the catalog in {self.folder} has no dataset {name!r}; it has "
                f"{', '.join(sorted(self.datasets)) or 'none'}. Run `ocr sample` for a synthetic "
                "one, or add it to the catalog"
            )
        return self.datasets[name]

    def fingerprint(self, name: str) -> str:
        """An identity of the dataset's content that changes when the content does.

        For Icechunk what the raster was made from, if all of ``main`` was ingested by us, else the
        snapshot of ``main``. Content hashes for local files (all of a Zarr store's, all parts of a
        Shapefile); entity tags on S3. Times of files play no part.
        """
        entry = self.dataset(name)
        if entry.format == "icechunk":
            branch = self._branch(name)
            snapshot = branch.readonly().snapshot_id
            head = branch.repository.lookup_snapshot(snapshot)
            if recipe := head.metadata.get("recipe"):
                return f"recipe:{recipe}"
            return f"icechunk:{snapshot}"
        digest = hashlib.sha256()
        storage, key = self._place(name)
        root = storage.child(key) if entry.format == "zarr" else storage
        objects = root.list() if entry.format == "zarr" else _files(storage, key)
        if not objects:
            raise CatalogError(f"dataset {name!r}: there is nothing at {storage.uri(key)}")
        for info in objects:
            if root.is_local:
                tag = content_sha256(root.local_path(info.key))
            else:
                tag = info.etag or f"size {info.size}"
            digest.update(f"{info.key}\0{tag}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    def open_raster(self, name: str) -> xr.Dataset:
        """A raster dataset under our variable names; values are read only when they are used.

        Its coordinate system is ``crs_wkt`` in the attributes of the ``spatial_ref`` coordinate
        where the data or the catalog declares one.
        """
        entry = self._of_format(name, RASTER_FORMATS)
        storage, key = self._place(name)
        try:
            if entry.format == "geotiff":
                dataset = open_geotiff(gdal_path(storage, key), gdal_options(storage))
            else:
                if entry.format == "icechunk":
                    store: Any = self._session(name).store
                else:
                    store = zarr.storage.ObjectStore(
                        storage.child(key).object_store, read_only=True
                    )
                # No task graph: one read takes exactly the chunks under a slice.
                dataset = xr.open_zarr(store, group=entry.layer, consolidated=False, chunks=None)
        except CatalogError:
            raise
        except (OSError, ValueError, KeyError, zarr.errors.BaseZarrError) as error:
            raise CatalogError(
                f"dataset {name!r}: cannot open {storage.uri(key)} as {entry.format}: {error}"
            ) from error
        renamed = {theirs: ours for ours, theirs in entry.variables.items()}
        if lacking := sorted(renamed.keys() - set(dataset.variables)):
            raise CatalogError(
                f"dataset {name!r}: `variables` names {lacking[0]!r}, the data have "
                f"{', '.join(map(str, dataset.data_vars))}"
            )
        return _declare_crs(name, dataset.rename(renamed), entry.crs)

    def open_table(self, name: str) -> TableSource:
        """Where a GeoParquet or vector dataset lies, for the readers of features.

        Vector is whatever GDAL reads: GeoPackage, Shapefile, TopoJSON, ... on the local disk.
        """
        entry = self._of_format(name, TABLE_FORMATS)
        storage, key = self._place(name)
        if entry.format == "geoparquet":
            filesystem, root = storage.arrow_filesystem()
            return TableSource(f"{root}/{key}", filesystem, None)
        if not storage.is_local:
            raise CatalogError(
                f"dataset {name!r}: vector files are read from the local disk only; convert "
                f"{storage.uri(key)} to GeoParquet"
            )
        return TableSource(str(storage.local_path(key)), None, entry.layer)

    def _of_format(self, name: str, formats: tuple[str, ...]) -> DatasetEntry:
        entry = self.dataset(name)
        if entry.format not in formats:
            raise CatalogError(
                f"dataset {name!r} is {entry.format}, expected {' or '.join(formats)}"
            )
        return entry

    def _place(self, name: str) -> tuple[Storage, str]:
        uri = self.dataset(name).uri
        if "://" not in uri and not Path(uri).is_absolute():
            uri = f"{self.folder}/{uri}"
        return split_uri(uri, self.s3)

    def _session(self, name: str) -> icechunk.Session:
        return self._branch(name).readonly()

    def _branch(self, name: str) -> IcechunkBranch:
        storage, key = self._place(name)
        branch = IcechunkBranch(storage.child(key), "main")
        try:
            branch.readonly()
        except StorageError as error:
            raise CatalogError(
                f"dataset {name!r}: there is no Icechunk repository with a branch 'main' at "
                f"{storage.uri(key)}"
            ) from error
        return branch


_SHAPEFILE_PARTS = (".shp", ".dbf", ".shx", ".prj", ".cpg")


def _files(storage: Storage, key: str) -> list[ObjectInfo]:
    """The files of a dataset that is one file, or a Shapefile with what lies beside it."""
    path = PurePosixPath(key)
    parts = _SHAPEFILE_PARTS if path.suffix == ".shp" else (path.suffix,)
    found = (storage.head(str(path.with_suffix(part))) for part in parts)
    return [info for info in found if info is not None]


def _declare_crs(name: str, dataset: xr.Dataset, declared: str | None) -> xr.Dataset:
    """Put the coordinate system where readers look for it."""
    attributes: dict[str, Any] = {}
    for candidate in ("spatial_ref", "crs"):
        if candidate in dataset.variables:
            attributes = dict(dataset[candidate].attrs)
            dataset = dataset.drop_vars(candidate)
            break
    try:
        if declared is not None:
            crs = pyproj.CRS.from_user_input(declared)
        elif "crs_wkt" in attributes or "grid_mapping_name" in attributes:
            crs = pyproj.CRS.from_cf(attributes)
        elif "spatial_ref" in attributes:
            crs = pyproj.CRS.from_wkt(attributes["spatial_ref"])
        elif "proj:code" in dataset.attrs:
            crs = pyproj.CRS.from_user_input(dataset.attrs["proj:code"])
        else:
            return dataset
    except pyproj.exceptions.CRSError as error:
        raise CatalogError(f"dataset {name!r}: unreadable coordinate system: {error}") from error
    return dataset.assign_coords(spatial_ref=((), 0, {"crs_wkt": crs.to_wkt()}))
