"""A deployment: one environment and version, the places it writes, and the inputs it reads.

A deployment looks at one type of risk; :meth:`Deployment.of` gives it for another. Types share
settings, catalog and grid. Each has a region repository, tables and tiles of its own.

Belongs here: what an environment may do, where its artefacts are, which regions are current,
wiping. Does not belong here: how artefacts are computed or stored.

What reads arrays is imported where it is used: most commands need none of it to start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ocr_assets.lineage import code_version, lineage
from ocr_assets.regions.grid import CONUS, CRS, STEP, RegionGrid
from ocr_assets.regions.risk_type import RISK_NAMES, risk_key
from ocr_assets.regions.status import RegionStatus, is_current, region_status
from resources.cluster import SharedOnWorkers
from resources.settings import Settings
from resources.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

    from ocr_assets.regions.buildings import BuildingSource
    from ocr_assets.regions.geographies import GeographyFile, Level
    from ocr_assets.regions.risk_type import RiskType
    from resources.catalog import Catalog
    from resources.icechunk_store import RegionStore
    from resources.raster_template import RasterTemplate

REGION_MODULES = (
    "geoparquet.py",
    "vector.py",
    *(
        f"regions/{name}.py"
        for name in (
            "buildings",
            "footprints",
            "geographies",
            "grid",
            "kernels",
            "process",
            "risk_type",
        )
    ),
)
"""Source files that decide what a region's artefacts contain, of every type of risk."""

RISK_MODULES: Mapping[str, tuple[str, ...]] = {
    name: tuple(
        f"regions/{module}.py" for module in ("inputs", "raster_cuts", "resample", *modules)
    )
    for name, modules in {
        "fire": ("convolution", "fire_risk", "risk", "spread"),
        "wind": ("wind_risk",),
    }.items()
}
"""Source files that decide beside these, by type of risk."""


RELEASE_RECORDS = "releases"
"""Folder below the root of an environment that has a record of each published version."""


def release_record(label: str) -> str:
    """Key of the record of a published version, below the root of its environment."""
    return f"{RELEASE_RECORDS}/{label}.json"


class DeploymentError(RuntimeError):
    """A deployment cannot do what was asked; the message names the mend."""


@dataclass(frozen=True)
class Deployment(SharedOnWorkers):
    """Settings made concrete, for one type of risk. Nothing is opened before it is used."""

    settings: Settings
    risk_name: str = RISK_NAMES[0]

    def __reduce__(self) -> tuple[Any, ...]:
        first = self.of(RISK_NAMES[0])
        return super().__reduce__() if self is first else (Deployment.of, (first, self.risk_name))

    def of(self, risk_name: str) -> Deployment:
        """This deployment for another type of risk, always the same one.

        Raises:
            DeploymentError: there is no such type.
        """
        if risk_name not in RISK_NAMES:
            raise DeploymentError(
                f"there is no risk type {risk_name!r}; there are {', '.join(RISK_NAMES)}"
            )
        if risk_name not in self._by_risk:
            other = Deployment(self.settings, risk_name)
            # One dictionary for all of them; a frozen instance takes it as a cached value.
            other.__dict__["_by_risk"] = self._by_risk
            self._by_risk[risk_name] = other
        return self._by_risk[risk_name]

    @cached_property
    def _by_risk(self) -> dict[str, Deployment]:
        return {self.risk_name: self}

    @cached_property
    def risk(self) -> RiskType:
        """The type of risk."""
        from ocr_assets.regions.risk_types import RISK_TYPES

        return RISK_TYPES[self.risk_name]

    def key(self, name: str) -> str:
        """An asset or place of this type of risk, by the name that it has in every type."""
        return risk_key(self.risk_name, name)

    @cached_property
    def grid(self) -> RegionGrid:
        """The grid of the catalog, or CONUS while there is no catalog yet."""
        from resources.catalog import Catalog

        found = Catalog.find(self.settings.catalog_uri, self.settings.s3)
        return found.grid if found else CONUS

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog of inputs; raises CatalogError with the mend if there is none."""
        from resources.catalog import Catalog

        return Catalog.read(self.settings.catalog_uri, self.settings.s3)

    @cached_property
    def root(self) -> Storage:
        """Root of this version's tables and tiles of every type of risk."""
        return Storage(self.settings.output_root, self.settings.s3)

    @cached_property
    def storage(self) -> Storage:
        """Root of this version's tables and tiles of this type of risk."""
        folder = self.key("").rstrip("/")
        return self.root.child(folder) if folder else self.root

    @cached_property
    def regions(self) -> RegionStore:
        """The environment's region repository of this type of risk."""
        from resources.icechunk_store import RegionStore

        place = Storage(self.regions_uri, self.settings.s3)
        return RegionStore(place, self.settings.icechunk_branch)

    @property
    def regions_uri(self) -> str:
        """Place of the environment's region repository of this type of risk."""
        folder = self.key("").rstrip("/")
        return f"{self.settings.icechunk_uri}-{folder}" if folder else self.settings.icechunk_uri

    @cached_property
    def template(self) -> RasterTemplate:
        """What the region-risk repository is initialised with."""
        from ocr_assets.regions import template
        from resources.raster_template import RasterTemplate

        window = self.grid.window
        return RasterTemplate(
            name=self.grid.name,
            latitude=window.latitude,
            longitude=window.longitude,
            step=STEP,
            crs=CRS,
            chunks=template.chunk_shape(self.grid),
            variables=template.variable_attributes(self.risk),
            regions=template.region_slices(self.grid),
            attrs={**template.attributes(self.risk), "notice": self.catalog.notice},
        )

    @property
    def attribution(self) -> tuple[str, ...]:
        """Where the inputs come from, each source once."""
        return tuple(sorted({entry.source for entry in self.catalog.datasets.values()}))

    @cached_property
    def rasters(self) -> dict[str, xr.Dataset]:
        """The opened input rasters of this type of risk, by dataset name."""
        names = self.risk.rasters(self.catalog.datasets)
        return {name: self.catalog.open_raster(name) for name in names}

    @cached_property
    def footprints(self) -> BuildingSource:
        """The input footprints; those of a plain vector file get their codes from the outlines."""
        from ocr_assets.regions.buildings import BuildingSource
        from ocr_assets.regions.inputs import BUILDINGS, GEOGRAPHIES

        table = self.catalog.open_table(BUILDINGS)
        geographies: dict[Level, pa.Table] | None = None
        if self._codes_come_from_outlines:
            geographies = {
                level: file.whole()
                for level in GEOGRAPHIES
                if level != "nation" and (file := self.geographies(level))
            }
        return BuildingSource(table.path, table.layer, table.filesystem, geographies)

    def geographies(self, level: Level) -> GeographyFile | None:
        """The file with the outlines of a level, None where the catalog has none."""
        from ocr_assets.regions.geographies import GeographyFile
        from ocr_assets.regions.inputs import GEOGRAPHIES

        if GEOGRAPHIES[level] not in self.catalog.datasets:
            return None
        table = self.catalog.open_table(GEOGRAPHIES[level])
        return GeographyFile(table.path, level, table.layer, table.filesystem)

    def fingerprints(self, *names: str) -> dict[str, str]:
        """Fingerprints of those of the named inputs that the catalog has."""
        return {
            name: self.catalog.fingerprint(name) for name in names if name in self.catalog.datasets
        }

    @cached_property
    def region_lineage(self) -> dict[str, Any]:
        """Lineage record of a region computed now: a region is current if its own is equal."""
        from ocr_assets.regions.inputs import BUILDINGS, GEOGRAPHIES

        names = [*self.risk.rasters(self.catalog.datasets), BUILDINGS]
        outlines = GEOGRAPHIES.values() if self._codes_come_from_outlines else ()
        return self.lineage(
            code_version(*REGION_MODULES, *RISK_MODULES[self.risk_name]),
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
        from resources.icechunk_branch import NotInitializedError

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
        objects = self._objects()
        size = sum(info.size for info in objects)
        return [
            f"{len(self.ledger())} regions on branch {self.settings.icechunk_branch} of "
            f"{self.regions_uri}",
            f"{len(objects)} objects, {size / 1e6:.1f} MB, in {self.storage.uri()}",
        ]

    def _objects(self) -> list[ObjectInfo]:
        """This version's tables and tiles of this type of risk."""
        others = () if self.key("") else RISK_NAMES[1:]
        return [info for info in self.storage.list() if info.key.split("/")[0] not in others]

    def wipe(self) -> None:
        """Forget all regions of this type of risk and delete their tables and tiles."""
        self.describe_wipe()
        if self.ledger():
            self.regions.wipe()
        self.storage.delete(info.key for info in self._objects())
