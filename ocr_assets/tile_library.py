"""The tiles of a deployment: where their scenes come from, and where their data is kept.

Belongs here: sources of imagery, networks, stored data and published tiles, put together. Does not
belong here: how they are made (``ocr_assets.tiles``, :mod:`ocr_assets.tile_sources` and
:mod:`ocr_assets.tile_products`) and what depends on what (the assets).

Artefacts, under the root of tiles, for a tile ``{tag}`` with numbers ``{X}`` and ``{Y}``:

- ``raw/{X}/{Y}/raw/misc/dem_{tag}.tif``: height and slope; they belong to no year.
- ``{year}/raw/{X}/{Y}/raw/s1/{tag}.tif``: radar composites.
- ``{year}/raw/{X}/{Y}/raw/s2_10/{tag}.tif``, ``s2_20/{tag}.tif``, ``clouds/scl_{tag}.tif``: optical
  images at 10 m and 20 m, and their classification.
- ``{year}/tiles/{X}/{Y}/{tag}_FINAL.tif``, ``{tag}_FINAL.json``: tree cover and its STAC item.
- ``….lineage.json`` beside the first file of each: its files with their hashes, how they came to
  be, and a report. It is written last: without it nothing is there.

Tiles belong to an environment, and to no version of its regions: publishing a version neither
copies nor freezes them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from ocr_assets.lineage import code_version, lineage
from ocr_assets.tiles.grid import SURVEY_CELLS, Tile, TileGrid, tile_geobox
from resources.cluster import SharedOnWorkers
from resources.keys import MissingObjectError, StorageError
from resources.manifest import sha256_file
from resources.settings import Settings
from resources.storage import Storage, split_uri

if TYPE_CHECKING:
    from ocr_assets.tiles.ard import Elevation, Sentinel1, Sentinel2
    from ocr_assets.tiles.networks import SuperResolutionNetwork, TreeCoverNetwork
    from ocr_assets.tiles.scenes import Imagery, Place
    from resources.inference import Inference

Source = Literal["elevation", "sentinel1", "sentinel2", "tree_cover"]

SOURCES: tuple[Source, ...] = ("elevation", "sentinel1", "sentinel2")
"""Analysis-ready data, made of scenes."""

TREE_COVER: Source = "tree_cover"

PRODUCTS: tuple[Source, ...] = (*SOURCES, TREE_COVER)
"""What there is of a tile, in the order in which it is made."""

_COMMON = ("ard", "grid", "rasters", "scenes")
_OWN: Mapping[Source, tuple[str, ...]] = {
    "elevation": ("elevation",),
    "sentinel1": ("sentinel1",),
    "sentinel2": ("sentinel2", "survey"),
}
SOURCE_MODULES = {
    source: tuple(f"tiles/{name}.py" for name in (*_COMMON, *own)) for source, own in _OWN.items()
}
"""Source files that decide what the data of each source contains."""


@dataclass(frozen=True)
class SourceKey:
    """Which data: a source or the tree cover of a tile, in a year unless it is terrain."""

    source: Source
    tile: Tile
    year: int | None

    def __post_init__(self) -> None:
        if (self.source == "elevation") != (self.year is None):
            raise ValueError(f"{self.source} belongs to {'no' if self.year else 'a'} year")

    def __str__(self) -> str:
        return f"{self.source} of {self.tile}" + (f" in {self.year}" if self.year else "")

    @property
    def of_year(self) -> int:
        """The year of what is not terrain."""
        assert self.year is not None  # noqa: S101 - checked when it was made
        return self.year


@dataclass(frozen=True)
class SourceRecord:
    """What is stored of a source: its files, how they came to be, and what people want to know."""

    files: dict[str, dict[str, Any]]
    lineage: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class TileLibrary(SharedOnWorkers):
    """Settings made concrete for tiles. Nothing is opened before it is used."""

    settings: Settings

    @cached_property
    def storage(self) -> Storage:
        """Root of this environment's tiles."""
        return Storage(self.settings.tiles_uri, self.settings.s3)

    @cached_property
    def grid(self) -> TileGrid:
        """The grid of all tiles."""
        return TileGrid.load()

    def place(self, tile: Tile) -> Place:
        """Where a tile is; raises UnknownTileError for one that is not in the grid."""
        import shapely

        from ocr_assets.tiles.scenes import Place

        return Place(
            tile.key,
            self.grid.centre(tile)[0],
            shapely.box(*self.grid.bbox(tile)),
            shapely.box(*self.grid.bbox(tile, SURVEY_CELLS)),
            tile_geobox(self.grid, tile),
        )

    def imagery(self, source: Source) -> Imagery:
        """Scenes of a source, the same object whenever it is asked for."""
        if source not in self._imagery:
            self._imagery[source] = self._open_imagery(source)
        return self._imagery[source]

    @cached_property
    def _imagery(self) -> dict[Source, Imagery]:
        return {}

    def _open_imagery(self, source: Source) -> Imagery:
        from ocr_assets.tiles import elevation, sentinel1, sentinel2
        from resources.imagery_access import Patience, SasTokens
        from resources.stac import StacImagery

        settings = self.settings
        place, access, collection = {
            "elevation": (
                settings.elevation_source,
                settings.elevation_access,
                elevation.COLLECTION,
            ),
            "sentinel1": (
                settings.sentinel1_source,
                settings.sentinel1_access,
                sentinel1.COLLECTION,
            ),
            "sentinel2": (
                settings.sentinel2_source,
                settings.sentinel2_access,
                sentinel2.COLLECTION,
            ),
        }[source]
        patience = Patience()
        tokens = SasTokens(
            settings.sas_token_url, collection, patience, settings.sas_subscription_key
        )
        return StacImagery(place, collection, access, tokens, patience)

    # Networks

    @cached_property
    def inference(self) -> Inference:
        """The runtime of the networks."""
        from resources.inference import Inference

        return Inference(self.settings.models_root / "cache", streams=min(4, os.cpu_count() or 1))

    @cached_property
    def tree_cover_network(self) -> TreeCoverNetwork:
        """The network of the settings, or the built-in one.

        Raises:
            NetworkError: the file is none that can be used.
            StorageError: it cannot be had from its bucket.
        """
        from ocr_assets.tiles.networks import load_tree_cover

        with self._network_file(self.settings.tree_cover_model) as path:
            return load_tree_cover(path, self.inference)

    @cached_property
    def superresolution_network(self) -> SuperResolutionNetwork:
        """The network of the settings, or the built-in one; raises as the other one."""
        from ocr_assets.tiles.networks import load_super_resolution

        with self._network_file(self.settings.superresolution_model) as path:
            return load_super_resolution(path, self.inference)

    @contextmanager
    def _network_file(self, place: str | None) -> Iterator[Path | None]:
        """A local file of a network, while it is loaded; errors name its place."""
        from ocr_assets.tiles.networks import NetworkError

        if place is None or "://" not in place:
            yield None if place is None else Path(place)
            return
        storage, name = split_uri(place, self.settings.s3)
        path = PurePosixPath(name)
        # The weights of OpenVINO IR lie beside it.
        names = [name, str(path.with_suffix(".bin"))] if path.suffix == ".xml" else [name]
        with tempfile.TemporaryDirectory(prefix="ocr-network-") as folder:
            for each in names:
                Path(folder, each).write_bytes(storage.read_bytes(each))
            try:
                yield Path(folder, name)
            except ValueError as error:
                told = str(error).replace(folder, place.rpartition("/")[0])
                raise NetworkError(told if place in told else f"{place}: {told}") from error

    # What is stored

    def keys(self, key: SourceKey) -> dict[str, str]:
        """Key of each file of a source or of tree cover by its name."""
        from ocr_assets.tiles import ard, product

        if key.source == TREE_COVER:
            folder, files = product.published_folder(key.of_year, key.tile), product.FILES
        else:
            folder = ard.tile_folder(key.year, key.tile.x, key.tile.y)
            files = ard.FILES[key.source]
        return {name: f"{folder}/{path.format(tag=key.tile.key)}" for name, path in files.items()}

    def record_key(self, key: SourceKey) -> str:
        """Key of the record of a source."""
        return f"{next(iter(self.keys(key).values()))}.lineage.json"

    def record(self, key: SourceKey) -> SourceRecord | None:
        """What is stored of a source; None if nothing is, or not all of it."""
        return self.stored(self.record_key(key))

    def notice(self, key: SourceKey) -> str:
        """What has to be known by everybody who sees what is stored; mostly nothing."""
        record = self.record(key)
        return str(record.report.get("notice", "")) if record else ""

    def stored(self, record_key: str) -> SourceRecord | None:
        """What a record says is stored; None if there is no record, or a file has another size."""
        try:
            document = json.loads(self.storage.read_bytes(record_key))
        except MissingObjectError:
            return None
        record = SourceRecord(**document)
        for file in record.files.values():
            info = self.storage.head(file["key"])
            if info is None or info.size != file["bytes"]:
                return None
        return record

    def lineage(self, key: SourceKey, scenes: str) -> dict[str, Any]:
        """Lineage record of a source made now; ``scenes`` is the fingerprint of its scenes."""
        configuration: dict[str, Any] = {
            "tile": key.tile.key,
            "place": self.imagery(key.source).place,
        }
        if key.source == "elevation":
            configuration["method"] = self.settings.method
        else:
            configuration["year"] = key.year
        if key.source == "sentinel1":
            configuration["orbit"] = self.settings.sentinel1_orbit
        code = code_version(*SOURCE_MODULES[key.source])
        return self.made_by(code, {"scenes": scenes}, configuration)

    def made_by(
        self, code: str, inputs: Mapping[str, str], configuration: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Lineage record of an artefact made now."""
        return lineage(
            environment=self.settings.environment,
            version=self.settings.version_label,
            code=code,
            inputs=inputs,
            configuration=configuration,
        )

    def store(
        self,
        key: SourceKey,
        files: Mapping[str, Path],
        made_by: Mapping[str, Any],
        report: Mapping[str, Any],
    ) -> SourceRecord:
        """Keep the files of a source. Until all are there, nothing counts as stored."""
        return self.keep(self.record_key(key), self.keys(key), files, made_by, report)

    def keep(
        self,
        record_key: str,
        keys: Mapping[str, str],
        files: Mapping[str, Path],
        made_by: Mapping[str, Any],
        report: Mapping[str, Any],
    ) -> SourceRecord:
        """Keep files under ``keys``, by name, and a record of them, which is written last."""
        described = {
            name: {
                "key": keys[name],
                "sha256": sha256_file(path),
                "bytes": path.stat().st_size,
            }
            for name, path in files.items()
        }
        record = SourceRecord(described, dict(made_by), dict(report))
        data = (json.dumps(asdict(record), indent=1, sort_keys=True) + "\n").encode()
        previous = self.stored(record_key)
        if previous is None or previous.files != described:
            self.storage.delete(record_key)
            for name, path in files.items():
                self.storage.put_file(keys[name], path)
        self.storage.write_bytes(record_key, data)
        return SourceRecord(**json.loads(data))

    def elevation(self, tile: Tile) -> Elevation:
        """Stored terrain of a tile; raises as :meth:`sentinel2`."""
        from ocr_assets.tiles.ard import read_elevation

        with ExitStack() as stack:
            return read_elevation(self._files(SourceKey("elevation", tile, None), stack))

    def sentinel1(self, tile: Tile, year: int) -> Sentinel1:
        """Stored radar composites of a tile; raises as :meth:`sentinel2`."""
        from ocr_assets.tiles.ard import read_sentinel1

        with ExitStack() as stack:
            return read_sentinel1(self._files(SourceKey("sentinel1", tile, year), stack))

    def sentinel2(self, tile: Tile, year: int) -> Sentinel2:
        """Stored optical images of a tile.

        Raises:
            MissingObjectError: there is none; the message says which asset makes them.
            StorageError: a file is not what was stored.
        """
        from ocr_assets.tiles.ard import read_sentinel2

        with ExitStack() as stack:
            return read_sentinel2(self._files(SourceKey("sentinel2", tile, year), stack))

    def missing(self, key: SourceKey) -> MissingObjectError:
        """The error of something that has to be made first."""
        return MissingObjectError(
            f"there is no {key} in {self.storage.uri()}: materialize {key.source} first"
        )

    def _files(self, key: SourceKey, stack: ExitStack) -> dict[str, Path]:
        """Local copies of the files of a source, checked, while ``stack`` is open."""
        record = self.record(key)
        if record is None:
            raise self.missing(key)
        paths = {}
        for name, file in record.files.items():
            paths[name] = stack.enter_context(self.storage.local_copy(file["key"]))
            if sha256_file(paths[name]) != file["sha256"]:
                raise StorageError(
                    f"{self.storage.uri(file['key'])} is not what was stored: somebody replaces or "
                    f"damaged it; delete it, then materialize {key.source} again"
                )
        return paths
