"""Requests for tiles become runs: the terrain of each tile, then its images and trees of a year."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from ocr_assets.partitions import PARTITION, TILES, tile_year_tags
from ocr_assets.request_jobs import TILE_FIRST, TILE_WANTED, Jobs
from ocr_assets.request_messages import TileRequest, read_tiles
from ocr_assets.tile_library import SourceKey, TileLibrary
from ocr_assets.tiles.grid import Tile
from resources.request_queue import RequestInbox, RequestQueue
from sensors.inbox import Doorway, Part, Work, is_configured, tick

SENSOR = "tile_requests"


def tile_request_sensor(tiles: TileLibrary, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor of requests for tiles."""

    @dg.sensor(
        name=SENSOR,
        description="Makes the tiles that somebody asked for, by a file or a message of a queue.",
        jobs=[jobs[TILE_FIRST], jobs[TILE_WANTED]],
        minimum_interval_seconds=tiles.settings.request_seconds,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if is_configured(tiles.settings, "tiles")
            else dg.DefaultSensorStatus.STOPPED
        ),
    )
    def tile_requests(
        context: dg.SensorEvaluationContext, tiles: dg.ResourceParam[TileLibrary]
    ) -> dg.SensorResult:
        return tick(context, tile_doorway(tiles))

    return tile_requests


def tile_doorway(tiles: TileLibrary) -> Doorway:
    """Where requests for tiles come in, and what they mean."""
    return Doorway(
        "tiles",
        TILES,
        lambda name, body: _TilePlan(tiles, read_tiles(name, body, tiles.grid)),
        RequestInbox.of(tiles.settings, "tiles"),
        RequestQueue.of(tiles.settings, "tiles"),
    )


@dataclass(frozen=True)
class _TilePlan:
    tiles: TileLibrary
    request: TileRequest

    @property
    def attempt(self) -> int:
        return self.request.attempt

    @property
    def left_out(self) -> Sequence[str]:
        return self.request.left_out

    def __len__(self) -> int:
        return len(self.request.tiles)

    def part(self, index: int) -> Part:
        found = self.request.tiles
        year, tile = int(found.year[index]), Tile(int(found.x[index]), int(found.y[index]))
        settings = self.tiles.settings
        place = f"tiles/{settings.environment}/{settings.version_label}"
        return Part(
            tile.key,
            Work(f"{place}/{tile.key}|{year}", TILE_WANTED, tile_year_tags(year, tile)),
            Work(f"{place}/{tile.key}", TILE_FIRST, {PARTITION: tile.key}),
            lambda: self.tiles.record(SourceKey("elevation", tile, None)) is not None,
        )
