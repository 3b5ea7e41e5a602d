"""Published sources of the input datasets: where they are, which files they have, their terms.

Belongs here: the register of sources and what each gives rise to; choosing a part of one.
Does not belong here: fetching (``resources.downloads``), and what is done to the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ocr_assets.regions import inputs
from ocr_assets.regions.census import CONTIGUOUS
from ocr_assets.regions.geographies import Level

GeographyType = Literal["all", "blocks", "tracts", "counties", "states", "nation"]
OvertureType = Literal["both", "buildings", "addresses"]

RISK_COMPONENTS = ("BP", "CRPS", "CFL", "Exposure", "FLEP4", "FLEP8", "RPS", "WHP")
"""Variables of Scott et al. 2024, a zip each."""

FLAME_LENGTHS = ("BP", "FLP1", "FLP2", "FLP3", "FLP4", "FLP5", "FLP6")
"""Variables of Riley et al. 2025 and Dillon et al. 2023: burn probability, and the shares of six
flame-length classes in it."""

OVERTURE_BUILDINGS = "conus-overture-buildings"
OVERTURE_ADDRESSES = "conus-overture-addresses"

CENSUS, OVERTURE, CONUS404_WINDS = "census-tiger", "overture-maps", "conus404"
"""Names of the sources that are read in ways of their own."""

PARENTS: Mapping[str, tuple[str, ...]] = {
    inputs.BUILDINGS: (
        OVERTURE_BUILDINGS,
        inputs.GEOGRAPHIES["block"],
        inputs.GEOGRAPHIES["county"],
    )
}
"""Inputs that are made from other inputs, and from which."""

CONUS_BOX = (-125.354004, 24.413323, -66.555176, 49.196737)
"""West, south, east, north in degrees: features of Overture whose box begins in it are taken."""

_LEVELS: Mapping[str, Level] = {
    "blocks": "block",
    "tracts": "tract",
    "counties": "county",
    "states": "state",
    "nation": "nation",
}


class SourceError(ValueError):
    """A source, or a part of one, that does not exist or cannot be used as asked."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a source.

    Attributes:
        path: below the source's address.
        name: of the downloaded file, unique within the source.
        sha256: published content hash, None where the publisher gives none.
    """

    path: str
    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Band:
    """A raster variable in the files of a source: a member of a zip, or a file of its own."""

    file: str
    member: str | None = None


@dataclass(frozen=True)
class RasterRecipe:
    """How a raster dataset is made from the files of its source.

    Attributes:
        bands: each variable and where it is.
        crs: coordinate system that the published rasters have.
        pixels: resampled to the pixel grid, by the nearest cell; else on its own cells.
        lowest: smaller values are raised to this, if given.
    """

    bands: Mapping[str, Band]
    crs: str
    pixels: bool
    lowest: float | None = None


@dataclass(frozen=True)
class Source:
    """A published source and its terms.

    Attributes:
        name: as commands call it.
        title, citation, licence, page: what it is, whom to credit, under which terms, where it is
            described.
        vintage: release or edition that is read.
        size: about how much is read.
        address: ``https://…`` of files, ``s3://bucket/prefix`` of what is read in place;
            ``{vintage}`` stands for the release.
        datasets: the input datasets it gives rise to.
        files: what is downloaded; empty for sources that are read in place.
        region, endpoint: of an object store.
        rasters: recipes of those of ``datasets`` that are rasters.
    """

    name: str
    title: str
    citation: str
    licence: str
    page: str
    vintage: str
    size: str
    address: str
    datasets: tuple[str, ...]
    files: tuple[RemoteFile, ...] = ()
    region: str = "us-west-2"
    endpoint: str | None = None
    rasters: Mapping[str, RasterRecipe] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address of the release."""
        return self.address.replace("{vintage}", self.vintage).rstrip("/")

    def file_url(self, file: RemoteFile) -> str:
        """The address of a file."""
        return f"{self.url}/{file.path}"

    def file(self, name: str) -> RemoteFile:
        """The file that is downloaded under ``name``."""
        return next(file for file in self.files if file.name == name)

    def moved(
        self,
        *,
        address: str | None = None,
        endpoint: str | None = None,
        region: str | None = None,
        vintage: str | None = None,
        sha256: Mapping[str, str | None] | None = None,
    ) -> Source:
        """The same source at a mirror, of another release, or with other content hashes.

        Raises :class:`SourceError` if ``sha256`` names a file that the source does not have.
        """
        hashes = dict(sha256 or {})
        if unknown := sorted(hashes.keys() - {file.name for file in self.files}):
            raise SourceError(
                f"source {self.name!r} has no file {unknown[0]!r}; it has "
                f"{', '.join(file.name for file in self.files) or 'none'}"
            )
        return replace(
            self,
            address=address or self.address,
            endpoint=endpoint or self.endpoint,
            region=region or self.region,
            vintage=vintage or self.vintage,
            files=tuple(
                replace(file, sha256=hashes.get(file.name, file.sha256)) for file in self.files
            ),
        )


_BOX = "https://usfs-public.box.com/shared/static"
_ALBERS = inputs.PROJECTED_CRS
_CALIFORNIA_ALBERS = "EPSG:3310"

# The publisher's addresses of the eight zips say nothing of what is in them.
_SCOTT_ZIPS = {
    "BP": "7itw7p56vje2m0u3kqh91lt6kqq1i9l1",
    "CRPS": "v1wjt4r3pp0bjb05w8qfnlbm4y3m66q5",
    "CFL": "7nb6hpw2rfc0zrhk1mv80fhbirajoqfd",
    "Exposure": "nbmlha1iejzzjo9y3uoehln493o2c4ad",
    "FLEP4": "502cm6vef6axhtljvy6b8p35tqugg2ds",
    "FLEP8": "gwasv734wwcx77zc4wj4ntfhaxyt8mel",
    "RPS": "88tv8byot0t22o9p1eqlrfqco3z5ouvf",
    "WHP": "jz74xh0eqdezblhexwu2s2at7fqgom8n",
}


def _scott() -> Source:
    bands = {name: Band(f"RDS-2020-0016-02-{name}.zip", ".tif") for name in RISK_COMPONENTS}
    files = tuple(
        RemoteFile(f"{_SCOTT_ZIPS[name]}.zip", bands[name].file) for name in RISK_COMPONENTS
    )
    return Source(
        name="scott-et-al-2024",
        title="Wildfire Risk to Communities, 2nd edition, 30 m (RDS-2020-0016-2)",
        citation="Scott et al. 2024, USFS, doi:10.2737/RDS-2020-0016-2",
        licence="public domain",
        page="https://www.fs.usda.gov/rds/archive/catalog/RDS-2020-0016-2",
        vintage="2024-V2",
        size="8 zips",
        address=_BOX,
        datasets=("scott-et-al-2024", inputs.CONDITIONAL_RISK),
        files=files,
        rasters={
            "scott-et-al-2024": RasterRecipe(bands, _ALBERS, pixels=False),
            inputs.CONDITIONAL_RISK: RasterRecipe(bands, _ALBERS, pixels=True),
        },
    )


def _riley() -> Source:
    archive = "RDS-2025-0006.zip"
    rasters = {}
    for climate in inputs.BURN_PROBABILITY_270M:
        bands = {
            name: Band(archive, f"Data/{climate}ClimateRun/{name}.tif") for name in FLAME_LENGTHS
        }
        native, pixels = inputs.BURN_PROBABILITY_270M[climate], inputs.BURN_PROBABILITY_30M[climate]
        rasters[native] = RasterRecipe(bands, _ALBERS, pixels=False, lowest=0.0)
        rasters[pixels] = RasterRecipe(bands, _ALBERS, pixels=True, lowest=0.0)
    return Source(
        name="riley-et-al-2025",
        title="Probabilistic wildfire risk components, climates of 2011 and 2047 (RDS-2025-0006)",
        citation="Riley et al. 2025, USFS, doi:10.2737/RDS-2025-0006",
        licence="public domain",
        page="https://www.fs.usda.gov/rds/archive/catalog/RDS-2025-0006",
        vintage="2025",
        size="1 zip",
        address=_BOX,
        datasets=tuple(rasters),
        files=(
            RemoteFile(
                "h55qel755s97nagdu97ebd4z6fzpp3w1.zip",
                archive,
                "a92b4f6ecb2c5f3c496851a82c5b65d38b7c97cfd6c16d433cafaa5905265825",
            ),
        ),
        rasters=rasters,
    )


def _dillon() -> Source:
    archive = "RDS-2016-0034-3.zip"
    folder = "Data/I_FSim_CONUS_LF2020_270m"
    bands = {name: Band(archive, f"{folder}/CONUS_{name}.tif") for name in FLAME_LENGTHS}
    rasters = {
        "dillon-et-al-2023-270m-5070": RasterRecipe(bands, _ALBERS, pixels=False),
        "dillon-et-al-2023-30m-4326": RasterRecipe(bands, _ALBERS, pixels=True),
    }
    return Source(
        name="dillon-et-al-2023",
        title="Probabilistic wildfire risk components, 3rd edition (RDS-2016-0034-3)",
        citation="Dillon et al. 2023, USFS, doi:10.2737/RDS-2016-0034-3",
        licence="public domain",
        page="https://www.fs.usda.gov/rds/archive/catalog/RDS-2016-0034-3",
        vintage="2023",
        size="1 zip",
        address="https://www.fs.usda.gov/rds/archive/products/RDS-2016-0034-3",
        datasets=tuple(rasters),
        files=(
            RemoteFile(
                archive,
                archive,
                "b5313ad0ca2deac11b1284472731cc0aedea1bd3f0e92823e0d5356cb6dfff73",
            ),
        ),
        rasters=rasters,
    )


def _calfire() -> Source:
    bands = {"FHSZ": Band("calfire-risk-raster.tif")}
    rasters = {
        "calfire-fhsz-3310": RasterRecipe(bands, _CALIFORNIA_ALBERS, pixels=False),
        "calfire-fhsz-4326": RasterRecipe(bands, _CALIFORNIA_ALBERS, pixels=True),
    }
    return Source(
        name="calfire-fhsz",
        title="Fire Hazard Severity Zones of California, as a raster of classes",
        citation="CAL FIRE, Office of the State Fire Marshal",
        licence="CAL FIRE terms of use",
        page="https://osfm.fire.ca.gov/what-we-do/community-wildfire-preparedness-and-mitigation/fire-hazard-severity-zones",
        vintage="2025",
        size="1 GeoTIFF",
        address="https://carbonplan-ocr.s3.us-west-2.amazonaws.com/input/fire-risk/tensor/calfire-fhsz",
        datasets=tuple(rasters),
        files=(RemoteFile("calfire-risk-raster.tif", "calfire-risk-raster.tif"),),
        rasters=rasters,
    )


def _overture() -> Source:
    return Source(
        name=OVERTURE,
        title="Buildings and addresses of Overture Maps in the contiguous United States",
        citation="Overture Maps Foundation; © OpenStreetMap contributors, Microsoft, Esri, Google",
        licence="ODbL-1.0 (buildings); addresses by their sources",
        page="https://docs.overturemaps.org",
        vintage="2025-09-24.0",
        size="about 156 million buildings",
        address="s3://overturemaps-us-west-2/release/{vintage}",
        datasets=(OVERTURE_BUILDINGS, OVERTURE_ADDRESSES, inputs.BUILDINGS),
    )


def _census() -> Source:
    files = []
    for code in CONTIGUOUS:
        name = f"tl_2025_{code}_tabblocksufx.zip"
        files.append(RemoteFile(f"TIGER2025/TABBLOCKSUFX/{name}", name))
    for code in CONTIGUOUS:
        name = f"tl_2024_{code}_tract.zip"
        files.append(RemoteFile(f"TIGER2024/TRACT/{name}", name))
    county, state, nation = (
        "tl_2024_us_county.zip",
        "cb_2024_us_state_500k.zip",
        "cb_2024_us_nation_5m.zip",
    )
    files += [
        RemoteFile(f"TIGER2024/COUNTY/{county}", county),
        RemoteFile(f"GENZ2024/shp/{state}", state),
        RemoteFile(f"GENZ2024/shp/{nation}", nation),
    ]
    return Source(
        name=CENSUS,
        title="Outlines of census blocks, tracts, counties, states and the nation",
        citation="US Census Bureau, TIGER/Line and cartographic boundary files",
        licence="public domain",
        page="https://www.census.gov/geographies/mapping-files/time-series/geo/tiger-line-file.html",
        vintage="blocks 2025, others 2024",
        size="101 zips",
        address="https://www2.census.gov/geo/tiger",
        datasets=tuple(inputs.GEOGRAPHIES.values()),
        files=tuple(files),
    )


def _conus404() -> Source:
    return Source(
        name=CONUS404_WINDS,
        title="CONUS404: hourly temperature, humidity and wind on a 4 km grid, 1979 to 2022",
        citation="Rasmussen et al. 2023, USGS and NCAR, doi:10.1175/BAMS-D-21-0326.1",
        licence="public (USGS data release)",
        page="https://doi.org/10.5066/P9PHPK4F",
        vintage="hourly",
        size="about 2 TB for each of four variables, read once",
        address="s3://hytest/conus404/conus404_hourly.zarr",
        datasets=(inputs.WIND,),
        region="us-east-1",
        endpoint="https://usgs.osn.mghpcc.org",
    )


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        _scott(),
        _riley(),
        _dillon(),
        _calfire(),
        _overture(),
        _census(),
        _conus404(),
    )
}
"""Every published source, by name."""


def source_of(dataset: str) -> str:
    """Name of the source that an input dataset comes from; raises :class:`SourceError`."""
    for name, source in SOURCES.items():
        if dataset in source.datasets:
            return name
    raise SourceError(f"no source is known for the input dataset {dataset!r}")


@dataclass(frozen=True)
class Choice:
    """Which part of a source is taken: census levels and states, types of Overture features.

    ``states`` are codes (see :func:`ocr_assets.regions.census.state_codes`); empty means all
    contiguous ones.
    """

    geography: GeographyType = "all"
    overture: OvertureType = "both"
    states: tuple[str, ...] = ()

    def datasets(self, source: Source) -> tuple[str, ...]:
        """Those of the source's datasets that are chosen."""
        wanted = set(source.datasets)
        if source.name == CENSUS and self.geography != "all":
            wanted = {inputs.GEOGRAPHIES[_LEVELS[self.geography]]}
        if source.name == OVERTURE and self.overture != "both":
            addresses = {OVERTURE_ADDRESSES}
            wanted = addresses if self.overture == "addresses" else wanted - addresses
        return tuple(name for name in source.datasets if name in wanted)

    def files(self, source: Source, datasets: Iterable[str] | None = None) -> list[RemoteFile]:
        """The files that ``datasets`` (by default the chosen ones) need."""
        names = self.datasets(source) if datasets is None else tuple(datasets)
        if source.name == CENSUS:
            wanted = {file for name in names for file in self.census_files(name)}
        else:
            recipes = [source.rasters[name] for name in names if name in source.rasters]
            wanted = {band.file for recipe in recipes for band in recipe.bands.values()}
        return [file for file in source.files if file.name in wanted]

    def census_files(self, dataset: str) -> list[str]:
        """Names of the files that the outlines of one level come from, in order of state."""
        states = self.states or CONTIGUOUS
        level = next(level for level, name in inputs.GEOGRAPHIES.items() if name == dataset)
        return {
            "block": [f"tl_2025_{code}_tabblocksufx.zip" for code in states],
            "tract": [f"tl_2024_{code}_tract.zip" for code in states],
            "county": ["tl_2024_us_county.zip"],
            "state": ["cb_2024_us_state_500k.zip"],
            "nation": ["cb_2024_us_nation_5m.zip"],
        }[level]


DESCRIPTIONS: Mapping[str, str] = {
    **inputs.DESCRIPTIONS,
    "scott-et-al-2024": "Eight components of wildfire risk on the 30 m Albers grid; Scott 2024.",
    "dillon-et-al-2023-270m-5070": "Burn probability and flame lengths, 270 m Albers; Dillon 2023.",
    "dillon-et-al-2023-30m-4326": "Burn probability and flame lengths at 30 m; Dillon 2023.",
    "calfire-fhsz-3310": "Fire hazard severity zones of California, Albers; for evaluation.",
    "calfire-fhsz-4326": "Fire hazard severity zones of California at 30 m; for evaluation.",
    OVERTURE_BUILDINGS: "Building footprints with their Overture id.",
    OVERTURE_ADDRESSES: "Address points of Overture, all columns.",
}
"""What each ingested dataset is."""
