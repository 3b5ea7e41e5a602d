"""A deployment: one environment and version, the places it writes, and the inputs it reads.

Belongs here: what an environment may do, where its artefacts are, which regions are current,
wiping. Does not belong here: how artefacts are computed or stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from ocr_assets.lineage import code_version, lineage
from ocr_assets.regions.grid import CONUS, CRS, STEP, RegionGrid
from ocr_assets.regions.status import RegionStatus, is_current, region_status
from resources.catalog import Catalog
from resources.icechunk_branch import NotInitializedError
from resources.icechunk_store import RegionStore
from resources.raster_template import RasterTemplate
from resources.settings import Settings
from resources.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

    from ocr_assets.regions.buildings import BuildingSource
    from ocr_assets.regions.geographies import Level

REGION_MODULES = (
    "geoparquet.py",
    "vector.py",
    *(
        f"regions/{name}.py"
        for name in (
            "buildings",
            "convolution",
            "footprints",
            "geographies",
            "grid",
            "inputs",
            "kernels",
            "process",
            "resample",
            "risk",
            "spread",
        )
    ),
)
"""Source files that decide what a region's artefacts contain."""


RELEASE_RECORDS = "releases"
"""Folder below the root of an environment that has a record of each published version."""


def release_record(label: str) -> str:
    """Key of the record of a published version, below the root of its environment."""
    return f"{RELEASE_RECORDS}/{label}.json"


class DeploymentError(RuntimeError):
    """A deployment cannot do what was asked; the message names the mend."""


@dataclass(frozen=True)
class Deployment:
    """Settings made concrete. Nothing is opened before it is used."""

    settings: Settings

    def __reduce__(self) -> tuple[Callable[..., Deployment], tuple[Settings, str]]:
        return _unpickled, (self.settings, self._identity)

    @cached_property
    def _identity(self) -> str:
        return secrets.token_hex(8)

    @cached_property
    def grid(self) -> RegionGrid:
        """The grid of the catalog, or CONUS while there is no catalog yet."""
        found = Catalog.find(self.settings.catalog_uri, self.settings.s3)
        return found.grid if found else CONUS

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog of inputs; raises CatalogError with the mend if there is none."""
        return Catalog.read(self.settings.catalog_uri, self.settings.s3)

    @cached_property
    def storage(self) -> Storage:
        """Root of this version's tables and tiles."""
        return Storage(self.settings.output_root, self.settings.s3)

    @cached_property
    def regions(self) -> RegionStore:
        """The environment's region-risk repository."""
        place = Storage(self.settings.icechunk_uri, self.settings.s3)
        return RegionStore(place, self.settings.icechunk_branch)

    @cached_property
    def template(self) -> RasterTemplate:
        """What the region-risk repository is initialised with."""
        from ocr_assets.regions import template

        window = self.grid.window
        return RasterTemplate(
            name=self.grid.name,
            latitude=window.latitude,
            longitude=window.longitude,
            step=STEP,
            crs=CRS,
            chunks=template.chunk_shape(self.grid),
            variables=template.variable_attributes(),
            regions=template.region_slices(self.grid),
            attrs={**template.ATTRIBUTES, "notice": self.catalog.notice},
        )

    @property
    def attribution(self) -> tuple[str, ...]:
        """Where the inputs come from, each source once."""
        return tuple(sorted({entry.source for entry in self.catalog.datasets.values()}))

    @cached_property
    def rasters(self) -> dict[str, xr.Dataset]:
        """The opened input rasters of the risk step, by dataset name."""
        from ocr_assets.regions.inputs import raster_names

        return {
            name: self.catalog.open_raster(name) for name in raster_names(self.catalog.datasets)
        }

    @cached_property
    def footprints(self) -> BuildingSource:
        """The input footprints; those of a plain vector file get their codes from the outlines."""
        from ocr_assets.regions.buildings import BuildingSource
        from ocr_assets.regions.inputs import BUILDINGS, GEOGRAPHIES

        table = self.catalog.open_table(BUILDINGS)
        geographies: dict[Level, pa.Table] | None = None
        if self._codes_come_from_outlines:
            geographies = {
                level: self.geographies(level)
                for level, name in GEOGRAPHIES.items()
                if level != "nation" and name in self.catalog.datasets
            }
        return BuildingSource(table.path, table.layer, table.filesystem, geographies)

    def geographies(self, level: Level) -> pa.Table:
        """Outlines of a level; a table without rows where the catalog has none."""
        from ocr_assets.regions.geographies import geography_schema, read_geographies
        from ocr_assets.regions.inputs import GEOGRAPHIES

        if GEOGRAPHIES[level] not in self.catalog.datasets:
            return geography_schema(level).empty_table()
        table = self.catalog.open_table(GEOGRAPHIES[level])
        return read_geographies(table.path, level, layer=table.layer, filesystem=table.filesystem)

    def fingerprints(self, *names: str) -> dict[str, str]:
        """Fingerprints of those of the named inputs that the catalog has."""
        return {
            name: self.catalog.fingerprint(name) for name in names if name in self.catalog.datasets
        }

    @cached_property
    def region_lineage(self) -> dict[str, Any]:
        """Lineage record of a region computed now: a region is current if its own is equal."""
        from ocr_assets.regions.inputs import BUILDINGS, GEOGRAPHIES, raster_names

        names = [*raster_names(self.catalog.datasets), BUILDINGS]
        outlines = GEOGRAPHIES.values() if self._codes_come_from_outlines else ()
        return self.lineage(
            code_version(*REGION_MODULES),
            {
                **{name: self.catalog.fingerprint(name) for name in names},
                **self.fingerprints(*outlines),
            },
            {"method": self.settings.method},
        )

    @property
    def _codes_come_from_outlines(self) -> bool:
        from ocr_assets.regions.inputs import BUILDINGS

        return self.catalog.dataset(BUILDINGS).format == "vector"

    def lineage(
        self, code: str, inputs: Mapping[str, str], configuration: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Lineage record of an artefact made now from inputs with these fingerprints."""
        return lineage(
            environment=self.settings.environment,
            version=self.settings.version_label,
            code=code,
            inputs=inputs,
            configuration={"grid": self.grid.name, **(configuration or {})},
        )

    @property
    def is_published(self) -> bool:
        """Whether readers may be given this version; then nothing of it changes any more."""
        root = Storage(self.settings.environment_root, self.settings.s3)
        label = self.settings.version_label
        return self.settings.version is not None and root.exists(release_record(label))

    def require_unpublished(self) -> None:
        """Raise DeploymentError if this version is published."""
        if self.is_published:
            label = self.settings.version_label
            raise DeploymentError(
                f"{label} is published, and a published version never changes: compute a new "
                "version, or this one as a new revision with `ocr deploy run --force`"
            )

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Ledger entries of the regions that are done; empty before the store is initialised."""
        try:
            return self.regions.ledger()
        except NotInitializedError:
            return {}

    def current_ledger(self) -> dict[str, dict[str, Any]]:
        """Ledger entries of this version's regions, in partition order."""
        ledger = self.ledger()
        label = self.settings.version_label
        return {
            id_: ledger[id_]
            for id_ in self.grid.valid
            if id_ in ledger and ledger[id_]["lineage"]["version"] == label
        }

    def region_status(self, failed: Iterable[str] = ()) -> list[RegionStatus]:
        """State of every valid region; ``failed`` are those whose last attempt failed."""
        return region_status(self.grid.valid, self.ledger(), self.region_lineage, failed)

    def unfinished_regions(self, region_ids: Iterable[str]) -> list[str]:
        """Those of ``region_ids`` that are not done with today's inputs, code and settings."""
        ledger = self.ledger()
        return [id_ for id_ in region_ids if not is_current(ledger.get(id_), self.region_lineage)]

    def describe_wipe(self) -> list[str]:
        """What :meth:`wipe` deletes, one line each; raises DeploymentError in production."""
        if self.settings.environment == "production":
            raise DeploymentError(
                "production is never wiped; wiping is for qa and staging (OCR_ENVIRONMENT=qa)"
            )
        self.require_unpublished()
        objects = self.storage.list()
        size = sum(info.size for info in objects)
        return [
            f"{len(self.ledger())} regions on branch {self.settings.icechunk_branch} of "
            f"{self.settings.icechunk_uri}",
            f"{len(objects)} objects, {size / 1e6:.1f} MB, in {self.storage.uri()}",
        ]

    def wipe(self) -> None:
        """Forget all regions and delete this version's tables and tiles; inputs stay."""
        self.describe_wipe()
        if self.ledger():
            self.regions.wipe()
        self.storage.delete(info.key for info in self.storage.list())


@lru_cache(maxsize=4)
def _unpickled(settings: Settings, identity: str) -> Deployment:
    """The copy of a deployment in a worker's process.

    All pieces of a run share one, so that inputs are opened once; the next run gets a fresh one.
    """
    return Deployment(settings)
