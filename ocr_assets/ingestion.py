"""Published inputs brought in: fetched, processed, put into the catalog.

Belongs here: which files of a source are wanted and where they are kept, what the publisher has
now, and registering what came out so that runs find it. Does not belong here: how a dataset is
made from its files (``ingest_steps.py``).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ocr_assets.regions import inputs
from ocr_assets.regions.input_sources import (
    CONUS404_WINDS,
    DESCRIPTIONS,
    PARENTS,
    SOURCES,
    Choice,
    RemoteFile,
    Source,
    SourceError,
    source_of,
)
from ocr_assets.regions.overture import THEMES
from resources.catalog import Catalog, DatasetEntry
from resources.downloads import (
    Arrival,
    DownloadError,
    RemoteVersion,
    arrival_of,
    fetch,
    remote_version,
)
from resources.locks import file_lock
from resources.progress import LogProgress, ProgressReporter
from resources.settings import Settings
from resources.source_places import read_source_places
from resources.storage import S3Options, Storage

LATEST = "latest"
"""As a vintage: the newest release that the publisher lists."""

_STEP_BYTES = 64 << 20
_LOOKS_AT_ONCE = 8


class IngestError(ValueError):
    """An input that cannot be brought in as asked; the message says why and the mend."""


@dataclass(frozen=True)
class Planned:
    """One thing that a command would do: fetch or write something somewhere."""

    action: str
    what: str
    place: str
    note: str = ""


@dataclass(frozen=True)
class Ingested:
    """A dataset that is in the catalog.

    Attributes:
        dataset: its name.
        fingerprint: identity of its content, as the catalog tells it.
        uri: where it lies.
        skipped: nothing had to be done.
        metadata: what people are shown: counts, bytes, reports; JSON-ready.
    """

    dataset: str
    fingerprint: str
    uri: str
    skipped: bool
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SourceVersion:
    """What a publisher has now.

    Attributes:
        version: text that changes when anything of the source does.
        metadata: what people are shown.
    """

    version: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Ingestion:
    """Everything that settings say about inputs. Nothing is opened before it is used."""

    settings: Settings
    progress: ProgressReporter = field(default_factory=LogProgress)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The published sources, at the places and releases that the settings name.

        Raises:
            resources.source_places.SourcePlacesError: the document of places is wrong.
            SourceError: it names a source or a file that does not exist.
        """
        places = read_source_places(self.settings.sources)
        if unknown := sorted(places.keys() - SOURCES.keys()):
            raise SourceError(
                f"{self.settings.sources} names the source {unknown[0]!r}; there are "
                f"{', '.join(SOURCES)}"
            )
        moved = {
            name: source.moved(**places[name].model_dump()) if name in places else source
            for name, source in SOURCES.items()
        }
        return {name: self._of_latest(source) for name, source in moved.items()}

    def _of_latest(self, source: Source) -> Source:
        if source.vintage != LATEST:
            return source
        return source.moved(vintage=self.newest_release(source))

    def newest_release(self, source: Source) -> str:
        """The newest release in the folder of releases of a source on an object store."""
        folder, marker, _ = source.address.partition("/{vintage}")
        if not marker or not folder.startswith("s3://"):
            raise SourceError(
                f"the releases of {source.name} cannot be listed; name the vintage that you want"
            )
        names = self.public(folder, source).folders()
        if not names:
            raise SourceError(f"there are no releases in {folder}")
        return max(names)

    def source(self, name: str) -> Source:
        """A source by name; raises :class:`SourceError` if there is none."""
        if name not in self.sources:
            raise SourceError(f"there is no source {name!r}; there are {', '.join(self.sources)}")
        return self.sources[name]

    def public(self, address: str, source: Source) -> Storage:
        """A public object store, read without credentials."""
        options = S3Options(endpoint_url=source.endpoint, region=source.region, anonymous=True)
        return Storage(address, options)

    # ------------------------------------------------------------------ places

    def folder(self, source: Source) -> Path:
        """Local folder of what is downloaded from a source."""
        return self.settings.downloads_folder / source.name

    @cached_property
    def storage(self) -> Storage:
        """Where ingested datasets lie: the folder of the catalog."""
        folder, _, _ = self.settings.catalog_uri.rpartition("/")
        return Storage(folder, self.settings.s3)

    def catalog(self) -> Catalog | None:
        """The catalog as it is now; None before anything is in it."""
        return Catalog.find(self.settings.catalog_uri, self.settings.s3)

    def require_room_in_catalog(self) -> None:
        """Raise if the catalog is that of a generated world, before anything is fetched."""
        found = self.catalog()
        if found is not None and found.recipe is not None:
            raise IngestError(
                f"the catalog {self.settings.catalog_uri} is that of the sample world; set "
                "OCR_CATALOG or OCR_STORAGE_ROOT to another place for real inputs"
            )

    def require_parents(self, datasets: Iterable[str]) -> None:
        """Raise unless the inputs that ``datasets`` are made from are among them or catalogued."""
        wanted, found = list(datasets), self.catalog()
        there = {*wanted, *(found.datasets if found else ())}
        for dataset in wanted:
            if missing := [name for name in PARENTS.get(dataset, ()) if name not in there]:
                raise IngestError(
                    f"{dataset} is made from {missing[0]}, which is not in the catalog; run `ocr "
                    f"ingest-data run-all {source_of(missing[0])}` first"
                )

    def register(self, source: Source, dataset: str, format_: Any, uri: str) -> str:
        """Put a dataset into the catalog and return its fingerprint."""
        entry = DatasetEntry(
            format=format_,
            uri=uri,
            description=f"{DESCRIPTIONS[dataset]} ({source.vintage})",
            source=source.citation,
            licence=source.licence,
            synthetic=False,
        )
        Catalog.register(self.settings.catalog_uri, {dataset: entry}, self.settings.s3)
        registered = Catalog.read(self.settings.catalog_uri, self.settings.s3)
        return registered.fingerprint(dataset)

    # --------------------------------------------------------------- downloads

    def download(
        self, source: Source, choice: Choice, datasets: Iterable[str] | None = None
    ) -> int:
        """Fetch the files of a source that are not here yet; how many there are.

        A source that is read in place has none.

        Raises :class:`resources.downloads.DownloadError`.
        """
        files = choice.files(source, datasets)
        with self._alone(source):
            for file in files:
                self._download(source, file)
        return len(files)

    def _alone(self, source: Source) -> AbstractContextManager[None]:
        """Keep other processes of this machine from the files in the making of a source."""
        return file_lock(self.folder(source) / ".lock", timeout=24 * 3600)

    def _download(self, source: Source, file: RemoteFile) -> Arrival:
        url, target = source.file_url(file), self.folder(source) / file.name
        size = 0
        if arrival_of(target) is None:
            try:
                size = remote_version(url).size or 0
            except DownloadError:
                size = 0  # The download itself tries again and tells what is wrong.
        total = max(1, -(-size // _STEP_BYTES))
        done = 0
        with self.progress.task(f"fetching {file.name}", total) as advance:

            def on_bytes(here: int) -> None:
                nonlocal done
                while done < min(total - 1, here // _STEP_BYTES):
                    done += 1
                    advance(f"{here >> 20} MiB")

            arrival = fetch(url, target, sha256=file.sha256, on_bytes=on_bytes)
            for _ in range(done, total):
                advance(f"{arrival.size >> 20} MiB")
        return arrival

    def arrivals(self, source: Source, files: Iterable[RemoteFile]) -> dict[str, Arrival]:
        """The records of downloaded files by name; raises IngestError if one is missing."""
        found = {}
        for file in files:
            arrival = arrival_of(self.folder(source) / file.name)
            if arrival is None:
                raise IngestError(
                    f"{self.folder(source) / file.name} is not there; run `ocr ingest-data "
                    f"download {source.name}` first"
                )
            found[file.name] = arrival
        return found

    # ----------------------------------------------------------------- looking

    def look(self, name: str) -> SourceVersion:
        """What the publisher of a source has now, without fetching it.

        Raises DownloadError or StorageError if the publisher cannot be asked.
        """
        source = self.source(name)
        told: dict[str, Any] = {"vintage": source.vintage, "address": source.url}
        if source.files:
            with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
                versions = list(
                    pool.map(lambda file: remote_version(source.file_url(file)), source.files)
                )
            parts = [
                f"{file.name} {file.sha256} {version.identity}"
                for file, version in zip(source.files, versions, strict=True)
            ]
            told |= {"files": len(source.files), "bytes": _total(versions)}
        elif name == CONUS404_WINDS:
            storage = self.public(source.url, source)
            found = [storage.head(key) for key in (".zmetadata", "zarr.json")]
            parts = [f"{info.key} {info.etag or info.size}" for info in found if info is not None]
            if not parts:
                raise IngestError(f"there is no Zarr store at {source.url}")
        else:
            storage = self.public(source.url, source)
            objects = [info for theme in THEMES.values() for info in storage.list(theme)]
            if not objects:
                raise IngestError(f"there is no release at {source.url}")
            parts = [f"{info.key} {info.etag or info.size}" for info in objects]
            told |= {
                "files": len(objects),
                "bytes": sum(info.size for info in objects),
                "newest release": self.newest_release(source),
            }
        digest = hashlib.sha256("\n".join([source.vintage, *parts]).encode())
        return SourceVersion(f"sha256:{digest.hexdigest()}", told)

    # -------------------------------------------------------------- processing

    def process(self, dataset: str, choice: Choice) -> Ingested:
        """Make a dataset from what was downloaded, or read in place, and register it.

        Doing it again does nothing; a killed run goes on where it was.

        Raises:
            IngestError: something that it needs is not there.
            ValueError, StorageError: an input or the store cannot be used; the message says why.
        """
        from ocr_assets import ingest_steps

        self.require_room_in_catalog()
        started = time.perf_counter()
        source = self.source(source_of(dataset))
        with self._alone(source):
            if dataset in source.rasters:
                ingested = ingest_steps.ingest_raster_dataset(self, source, dataset)
            elif dataset in inputs.GEOGRAPHIES.values():
                ingested = ingest_steps.ingest_outlines(self, source, dataset, choice)
            elif dataset == inputs.BUILDINGS:
                ingested = ingest_steps.ingest_tagged_buildings(self, source)
            elif source.name == CONUS404_WINDS:
                ingested = ingest_steps.ingest_winds(self, source, dataset)
            else:
                ingested = ingest_steps.ingest_overture(self, source, dataset)
        ingested.metadata["seconds"] = time.perf_counter() - started
        return ingested

    def plan(self, name: str, choice: Choice, *, download: bool, process: bool) -> list[Planned]:
        """What a command would fetch and write, without doing or asking anything."""
        source = self.source(name)
        planned = []
        if download:
            for file in choice.files(source):
                target = self.folder(source) / file.name
                here = arrival_of(target)
                note = "" if here is None else "here already"
                planned.append(Planned("fetch", source.file_url(file), str(target), note))
        for dataset in choice.datasets(source) if process else ():
            kind = "icechunk" if self._is_raster(source, dataset) else "parquet"
            place = self.storage.uri(
                f"{dataset}.icechunk" if kind == "icechunk" else f"{dataset}/….parquet"
            )
            note = "" if source.files else f"reads {source.url} in place"
            planned.append(Planned("write", dataset, place, note))
        if process:
            planned.append(Planned("register", name, self.settings.catalog_uri))
        return planned

    def _is_raster(self, source: Source, dataset: str) -> bool:
        return dataset in source.rasters or source.name == CONUS404_WINDS


def _total(versions: Iterable[RemoteVersion]) -> int:
    return sum(version.size or 0 for version in versions)
