"""Catalogues of satellite imagery: a STAC API, or a local folder in its place.

Belongs here: asking for the scenes of an area and time, and checking that the answer is one. Does
not belong here: reading files (:mod:`resources.cog_reader`) and choosing scenes.

A local folder holds ``{collection}.json``, a STAC ItemCollection whose assets are files in that
folder or remote ones. Everything that takes imagery from a service takes it from there as well.
A ``notice`` in that document, such as that the imagery is synthetic, goes with all made of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray
from pystac_client.exceptions import APIError
from pystac_client.item_search import ItemSearch
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry.base import BaseGeometry

from ocr_assets.tiles.scenes import Reading, Scene, SceneError, scene_from_item
from resources.cog_reader import CogReader
from resources.imagery_access import (
    AbsentError,
    ImageryError,
    Patience,
    SasTokens,
    UnexpectedAnswerError,
    refusal,
    shorten,
)
from resources.imagery_settings import Access

PAGE = 100
MOST_PAGES = 200
"""A year of one tile has some hundred scenes; a service that has more pages does not end."""


class StacImagery:
    """Scenes of one collection; see :class:`ocr_assets.tiles.scenes.Imagery`.

    Args:
        place: address of a STAC API, or a folder.
        collection: identifier of the collection.
        access: how the files of its scenes are to be accessed.
        tokens: of this collection, for signed access.
        patience: how long to go on trying.
    """

    def __init__(
        self,
        place: str,
        collection: str,
        access: Access = "anonymous",
        tokens: SasTokens | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._place = place.rstrip("/")
        self._collection = collection
        self._patience = patience or Patience()
        self._folder = None if "://" in place else Path(place)
        if access != "signed":
            tokens = None
        elif tokens is None:
            raise ValueError(f"signed access to {place} needs a service of tokens")
        self._reader = CogReader(access, tokens, self._folder, self._patience)

    @property
    def place(self) -> str:
        """Address or folder, and collection."""
        return f"{self._place} ({self._collection})"

    @property
    def notice(self) -> str:
        """See :class:`ocr_assets.tiles.scenes.Imagery`; raises as :meth:`search`."""
        return str(self._document.get("notice", "")) if self._folder is not None else ""

    def search(self, area: BaseGeometry, first: date | None, last: date | None) -> list[Scene]:
        """See :class:`ocr_assets.tiles.scenes.Imagery`.

        Raises:
            ImageryError: the catalogue is missing, does not answer, or answers something else.
        """
        if self._folder is not None:
            scenes = [
                scene
                for scene in self._local_scenes
                if shapely.intersects(scene.footprint, area) and _in_time(scene, first, last)
            ]
        else:
            scenes = self._ask(area, first, last)
        found = {scene.id: scene for scene in scenes}
        return sorted(found.values(), key=lambda scene: (scene.time, scene.id))

    def read(self, readings: Iterable[Reading]) -> Iterator[NDArray[Any]]:
        """See :meth:`resources.cog_reader.CogReader.read`."""
        return self._reader.read(readings)

    @cached_property
    def _local_scenes(self) -> list[Scene]:
        return self._scenes(self._document["features"], None, None)

    @cached_property
    def _document(self) -> dict[str, Any]:
        """The ItemCollection of a local folder."""
        path = Path(self._place, f"{self._collection}.json")
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise AbsentError(
                f"there is no {path}: a folder of imagery holds an ItemCollection for each "
                "collection"
            ) from None
        except ValueError as error:
            raise UnexpectedAnswerError(f"{path} is not JSON: {error}") from error
        _features(document, str(path))
        return dict(document)

    def _ask(self, area: BaseGeometry, first: date | None, last: date | None) -> list[Scene]:
        api = _CheckedApi(self._patience)
        between = None
        if first is not None and last is not None:
            between = f"{first.isoformat()}T00:00:00Z/{last.isoformat()}T23:59:59Z"
        query = ItemSearch(
            f"{self._place}/search",
            method="POST",
            limit=PAGE,
            collections=[self._collection],
            intersects=shapely.geometry.mapping(area),
            datetime=between,
            stac_io=api,
        )
        scenes: dict[str, Scene] = {}
        try:
            for number, page in enumerate(query.pages_as_dicts(), start=1):
                known = len(scenes)
                found = self._scenes(page["features"], first, last)
                scenes.update({scene.id: scene for scene in found})
                if number == MOST_PAGES or len(scenes) == known:
                    raise UnexpectedAnswerError(
                        f"{self._place} does not come to an end: page {number} of {self.place} "
                        f"after {len(scenes)} scenes; choose another service"
                    )
        except APIError as error:
            status = getattr(error, "status_code", None)
            raise refusal(status, f"a search in {self._collection}", self._place, str(error)) from (
                error
            )
        except ImageryError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswerError(
                f"{self._place} does not answer as a STAC API: {shorten(str(error))}"
            ) from error
        return list(scenes.values())

    def _scenes(self, items: list[Any], first: date | None, last: date | None) -> list[Scene]:
        scenes = []
        for item in items:
            try:
                scene = scene_from_item(item)
            except SceneError as error:
                raise UnexpectedAnswerError(f"{self.place}: {error}") from error
            if item.get("collection") not in (None, self._collection):
                raise UnexpectedAnswerError(
                    f"{self.place} lists scene {scene.id} of collection {item['collection']!r}"
                )
            if not _in_time(scene, first, last):
                raise UnexpectedAnswerError(
                    f"{self.place} lists scene {scene.id} of {scene.time.date()} although {first} "
                    f"to {last} was asked for"
                )
            scenes.append(scene)
        return scenes


class _CheckedApi(StacApiIO):
    """The client's connection; what does not look like a page of items is refused at once."""

    def __init__(self, patience: Patience) -> None:
        super().__init__(timeout=patience.timeouts, max_retries=patience.retry())

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """A page of items; raises UnexpectedAnswerError."""
        place = source if isinstance(source, str) else source.href
        page = json.loads(self.read_text(source, *args, **kwargs))
        _features(page, place)
        return dict(page)


def _features(document: Any, place: str) -> list[Any]:
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        features = document.get("features")
        if isinstance(features, list):
            return features
    raise UnexpectedAnswerError(f"{place} gives no list of STAC items where one is expected")


def _in_time(scene: Scene, first: date | None, last: date | None) -> bool:
    if first is None or last is None:
        return True
    zone = scene.time.tzinfo
    start = datetime.combine(first, time(), zone)
    return start <= scene.time < datetime.combine(last, time(), zone) + timedelta(1)
