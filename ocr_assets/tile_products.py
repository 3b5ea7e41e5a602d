"""Making the tree cover of tiles: one tile of one year at a time, of its analysis-ready data.

Belongs here: skipping what is done, from stored sources to the published file, what is reported.
Does not belong here: the science, places of files, or Dagster.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ocr_assets.lineage import code_version, content_hash, same_origin, same_way
from ocr_assets.tile_library import (
    SOURCES,
    TREE_COVER,
    Source,
    SourceKey,
    SourceRecord,
    TileLibrary,
)
from ocr_assets.tile_sources import MadeSource, noticed
from ocr_assets.tiles.features import Features, feature_cube
from ocr_assets.tiles.networks import TreeCoverNetwork
from ocr_assets.tiles.product import (
    FILES,
    pixel_box,
    tree_cover_item,
    tree_cover_preview,
    warp_to_box,
    write_tree_cover_cog,
)
from ocr_assets.tiles.tree_cover import NODATA, predict_tree_cover
from resources.keys import MissingObjectError

_MODULES = (
    "ard",
    "baseline",
    "cloud_tests",
    "clouds",
    "composite",
    "features",
    "grid",
    "indices",
    "masks",
    "networks",
    "normalisation",
    "product",
    "reflectance",
    "regression",
    "shadows",
    "superresolution",
    "temporal",
    "tree_cover",
)
TREE_COVER_MODULES = tuple(f"tiles/{name}.py" for name in _MODULES)
"""Source files that decide what a published tile contains."""

State = Literal["done", "stale", "missing"]


def make_tree_cover(tiles: TileLibrary, key: SourceKey, *, again: bool = False) -> MadeSource:
    """Make and store the tree cover of a tile, unless it is there and would be the same.

    Args:
        tiles: store and networks.
        key: tile and year.
        again: make it anew even so.

    Raises:
        MissingObjectError: a source is not there; the message says which asset makes it.
        StorageError: the store fails, or holds something else than was stored.
        FeatureError, ArdError, SuperResolutionError, UnknownTileError: all of them ValueError.
        NetworkError: a network of the settings cannot be used.
    """
    started = time.perf_counter()
    lineage = tree_cover_lineage(tiles, key)
    record = tiles.record(key)
    if record is not None and not again and same_origin(record.lineage, lineage):
        return MadeSource(record, time.perf_counter() - started, None)
    phases = Phases()
    compat = tiles.settings.method == "published"
    with phases.timed("read"):
        elevation = tiles.elevation(key.tile)
        sentinel1 = tiles.sentinel1(key.tile, key.of_year)
        sentinel2 = tiles.sentinel2(key.tile, key.of_year)
    with phases.timed("features"):
        features = feature_cube(
            elevation,
            sentinel1,
            sentinel2,
            tiles.superresolution_network,
            compat=compat,
            seed=tiles.settings.tree_cover_seed,
        )
    network = tiles.tree_cover_network
    with phases.timed("predict"):
        percent = predict_tree_cover(features.cube, network, unseen=features.unseen, compat=compat)
    box = pixel_box(tiles.grid, key.tile)
    with phases.timed("warp"):
        cover = warp_to_box(percent, elevation.geobox, box)
    with (
        phases.timed("write"),
        tempfile.TemporaryDirectory(prefix="ocr-tile-") as folder,
    ):
        paths = {name: Path(folder, file.format(tag=key.tile.key)) for name, file in FILES.items()}
        write_tree_cover_cog(paths["cog"], cover, box, lineage)
        item = tree_cover_item(
            key.tile,
            key.of_year,
            box,
            paths["cog"].name,
            _described(network),
            lineage["code_version"],
        )
        paths["item"].write_text(json.dumps(item, indent=1, sort_keys=True) + "\n")
        report = {
            "model": network.name,
            "model_sha256": network.sha256,
            "superresolution": tiles.superresolution_network.name,
            "superresolution_sha256": tiles.superresolution_network.sha256,
            **_dates(features),
            "partial": bool(features.flags),
            "flags": list(features.flags),
            "share without data": _share(cover == NODATA),
            "share hidden by clouds": _share(features.unseen),
            "mean tree cover": _mean(cover),
            **noticed(tiles.notice(source_of(key, source)) for source in SOURCES),
        }
        record = tiles.store(key, paths, lineage, report)
    seconds = time.perf_counter() - started
    return MadeSource(record, seconds, tree_cover_preview(cover), phases.seconds)


def tree_cover_lineage(tiles: TileLibrary, key: SourceKey) -> dict[str, Any]:
    """Lineage record of a tile's tree cover made now.

    Raises:
        MissingObjectError: a source is not there; the message says which asset makes it.
        NetworkError: a network of the settings cannot be used.
    """
    tiles.grid.centre(key.tile)
    inputs: dict[str, str] = {}
    for source in SOURCES:
        record = tiles.record(source_of(key, source))
        if record is None:
            raise tiles.missing(source_of(key, source))
        inputs[source] = _content(record)
    network, sharpener = tiles.tree_cover_network, tiles.superresolution_network
    return tiles.made_by(
        code_version(*TREE_COVER_MODULES),
        {**inputs, "model": network.sha256, "superresolution": sharpener.sha256},
        {
            "tile": key.tile.key,
            "year": key.of_year,
            "method": tiles.settings.method,
            "seed": tiles.settings.tree_cover_seed,
            "model": _described(network),
            "superresolution": {"name": sharpener.name, "sha256": sharpener.sha256},
        },
    )


def product_state(tiles: TileLibrary, key: SourceKey) -> State:
    """Whether a source or the tree cover of a tile is there, and as it would be made now.

    Scenes that a catalogue lists since do not make a source stale: they are not asked for.

    Raises:
        NetworkError: a network of the settings cannot be used.
    """
    record = tiles.record(key)
    if record is None:
        return "missing"
    if key.source != TREE_COVER:
        return "done" if same_way(record.lineage, tiles.lineage(key, "")) else "stale"
    try:
        lineage = tree_cover_lineage(tiles, key)
    except MissingObjectError:
        return "stale"
    return "done" if same_origin(record.lineage, lineage) else "stale"


def source_of(key: SourceKey, source: Source) -> SourceKey:
    """The source that belongs to the same tile, and to the same year unless it is terrain."""
    return SourceKey(source, key.tile, None if source == "elevation" else key.year)


class Phases:
    """Seconds that each phase of some work took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time of the context as a phase."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def _content(record: SourceRecord) -> str:
    return content_hash({name: file["sha256"] for name, file in record.files.items()})


def _described(network: TreeCoverNetwork) -> dict[str, Any]:
    names = ("name", "sha256", "input_size", "output_size")
    return {name: getattr(network, name) for name in names}


def _dates(features: Features) -> dict[str, Any]:
    used = [date.day.isoformat() for date in features.dates if date.used]
    return {
        "dates used": used,
        "dates": [
            {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in date.as_metadata().items()
            }
            for date in features.dates
        ],
    }


def _share(mask: NDArray[Any]) -> float:
    return round(float(mask.mean()), 4)


def _mean(cover: NDArray[Any]) -> float | None:
    known = cover[cover != NODATA]
    return round(float(known.mean()), 2) if len(known) else None
