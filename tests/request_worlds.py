"""A deployment that takes in requests, and a daemon that runs the sensor of one kind of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
from request_daemon import Daemon

from ocr_assets.request_jobs import request_jobs
from ocr_assets.tile_library import TileLibrary
from ocr_assets.tiles.assets import tile_wing
from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.assets import volume_wing
from resources.request_queue import QUIET_SECONDS, RequestInbox
from resources.settings import Settings
from sensors.tile_requests import tile_request_sensor
from sensors.volume_requests import volume_request_sensor


class Requests:
    """A deployment with an inbox, and a daemon that runs a sensor of requests."""

    def __init__(self, folder: Path, kind: Any, **settings: Any) -> None:
        settings = {"storage_root": str(folder / "root")} | settings
        self.settings = Settings(**settings)
        self.kind = kind
        self.inbox = RequestInbox.of(self.settings, kind)
        self.daemon = Daemon(*self._sensor())

    def _sensor(self) -> tuple[dg.SensorDefinition, dict[str, Any]]:
        if self.kind == "tiles":
            tiles = TileLibrary(self.settings)
            return tile_request_sensor(tiles, request_jobs(tile_wing(tiles))), {"tiles": tiles}
        volumes = VolumeLibrary(self.settings)
        return volume_request_sensor(volumes, request_jobs(volume_wing(volumes))), {}

    def put(self, name: str, body: bytes) -> None:
        """Put a file into the inbox, which nobody has touched for a while."""
        self.inbox.storage.write_bytes(name, body)
        if self.inbox.storage.is_local:
            age(self.inbox.storage.local_path(name))

    def until_quiet(self, **finish: Any) -> list[str]:
        """Tick and run until nothing is left to do; the keys of all runs, as they came."""
        keys: list[str] = []
        for _ in range(100):
            keys += self.daemon.tick()
            finished = self.daemon.finish(**finish)
            if not finished and not self.inbox.accepted() and not self.daemon.reserved:
                return keys
        raise AssertionError(self.daemon.told)

    def folder(self, name: str) -> list[str]:
        """Names of the requests in a folder of the inbox."""
        return [info.key.partition("/")[2] for info in self.inbox.storage.files(name)]

    def document(self, folder: str, ending: str) -> dict[str, Any]:
        """The document that tells about the only request in a folder."""
        (name,) = [name for name in self.folder(folder) if name.endswith(ending)]
        found: dict[str, Any] = json.loads(self.inbox.storage.read_bytes(f"{folder}/{name}"))
        return found


def short(value: object) -> str:
    """Id of a parameter."""
    return "".join(sign for sign in str(value)[:30] if sign.isalnum())


def age(path: Path) -> None:
    """Make a file look as if it was left alone for a while."""
    past = time.time() - QUIET_SECONDS - 1
    os.utime(path, (past, past))
