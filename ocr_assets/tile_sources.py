"""Making the analysis-ready data of tiles: one source of one tile at a time, each by itself.

Belongs here: skipping what is done, from scenes to stored files, what is reported. Does not belong
here: the science of a source, places of files, or Dagster.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_assets.lineage import content_hash, same_way
from ocr_assets.tile_library import SourceKey, SourceRecord, TileLibrary
from ocr_assets.tiles import ard, elevation, sentinel1, sentinel2, source_previews
from ocr_assets.tiles.survey import cirrus_mask

if TYPE_CHECKING:
    from ocr_assets.tiles.scenes import Scene


@dataclass(frozen=True)
class MadeSource:
    """What came of a source of a tile: its record, and what only its making knows."""

    record: SourceRecord
    seconds: float
    preview: bytes | None
    """None where it was there before and nothing was made."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase."""


def make_source(tiles: TileLibrary, key: SourceKey, *, again: bool = False) -> MadeSource:
    """Make and store a source of a tile, unless it is there and was made the same way.

    Args:
        tiles: imagery and store.
        key: what to make.
        again: make it anew of what the catalogue lists now.

    Raises:
        UnknownTileError, NoScenesError, SceneError: bad input, all of them ValueError.
        ImageryError: the service of imagery fails.
        StorageError: the store fails.
    """
    started = time.perf_counter()
    record = tiles.record(key)
    if record is not None and not again and same_way(record.lineage, tiles.lineage(key, "")):
        return MadeSource(record, time.perf_counter() - started, None)
    make = {"elevation": _elevation, "sentinel1": _sentinel1, "sentinel2": _sentinel2}
    with tempfile.TemporaryDirectory(prefix="ocr-tile-") as folder:
        paths = {
            name: Path(folder, path.format(tag=key.tile.key))
            for name, path in ard.FILES[key.source].items()
        }
        lineage, report, preview = make[key.source](tiles, key, paths)
        notice = tiles.imagery(key.source).notice
        record = tiles.store(key, paths, lineage, {**report, **noticed([notice])})
    return MadeSource(record, time.perf_counter() - started, preview)


Made = tuple[Mapping[str, Any], Mapping[str, Any], bytes]
"""Lineage, report and preview."""


def _elevation(tiles: TileLibrary, key: SourceKey, paths: Mapping[str, Path]) -> Made:
    place, imagery = tiles.place(key.tile), tiles.imagery(key.source)
    cells = elevation.find_cells(imagery, place)
    lineage = tiles.lineage(key, fingerprint(cells))
    published = tiles.settings.method == "published"
    value = elevation.make_elevation(imagery, place, cells, published=published)
    ard.write_elevation(paths, value, lineage)
    report = {
        "scenes": [cell.id for cell in cells],
        **{f"{name} height": _rounded(getattr(np, name)(value.height)) for name in _STATISTICS},
        **{f"{name} slope": _rounded(getattr(np, name)(value.slope)) for name in _STATISTICS},
    }
    return lineage, report, source_previews.elevation_preview(value)


_STATISTICS = ("min", "mean", "max")


def _sentinel1(tiles: TileLibrary, key: SourceKey, paths: Mapping[str, Path]) -> Made:
    place, imagery = tiles.place(key.tile), tiles.imagery(key.source)
    days = sentinel1.find_days(imagery, place, key.of_year)
    choice = sentinel1.choose_days(days, tiles.settings.sentinel1_orbit)
    lineage = tiles.lineage(key, fingerprint(choice.scenes))
    value = sentinel1.make_sentinel1(imagery, place, choice)
    ard.write_sentinel1(paths, value, lineage)
    missing = [index for index, quarter in enumerate(value.quarters, 1) if not quarter.ok]
    report = {
        "scenes": [scene.id for scene in choice.scenes],
        "orbit": choice.orbit,
        "partial": bool(missing),
        "quarters without data": missing,
        "quarters": [
            asdict(quarter)
            | {
                "days": [day.isoformat() for day in quarter.days],
                "scenes": sum(len(day.scenes) for day in chosen),
            }
            for quarter, chosen in zip(value.quarters, choice.days, strict=True)
        ],
    }
    return lineage, report, source_previews.radar_preview(value)


def _sentinel2(tiles: TileLibrary, key: SourceKey, paths: Mapping[str, Path]) -> Made:
    place, imagery = tiles.place(key.tile), tiles.imagery(key.source)
    images = sentinel2.find_images(imagery, place, key.of_year)
    lineage = tiles.lineage(key, fingerprint(images.scenes))
    value = sentinel2.make_sentinel2(imagery, place, images)
    ard.write_sentinel2(paths, value, lineage)
    cirrus = cirrus_mask(value.scl).mean(axis=(1, 2))
    report = {
        "scenes": [scene.id for scene in images.scenes],
        "partial": value.partial,
        "days surveyed": images.surveyed,
        "quarters without image": list(value.empty_quarters),
        "remarks": list(value.remarks),
        "dates": [
            {
                "date": day.isoformat(),
                "scenes": ", ".join(scenes),
                "cloud": cloud,
                "cirrus": _rounded(share),
            }
            for day, scenes, cloud, share in zip(
                value.dates, value.scenes, value.clouds, cirrus, strict=True
            )
        ],
    }
    return lineage, report, source_previews.optical_preview(value)


def noticed(notices: Iterable[str]) -> dict[str, str]:
    """Part of a report: what to know of anything that what it is made of says so of, if any."""
    told = sorted({notice for notice in notices if notice})
    return {"notice": " ".join(told)} if told else {}


def _rounded(value: float) -> float:
    return round(float(value), 4)


def fingerprint(scenes: Sequence[Scene]) -> str:
    """Hash of which scenes were read, and when their entry in the catalogue changed last."""
    return content_hash([[scene.id, scene.properties.get("updated")] for scene in scenes])
