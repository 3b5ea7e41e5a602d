"""Optical images of a tile: a survey of clouds, the choice of dates, and their reflectance.

Belongs here: from the scenes of a year to the images that are kept. Does not belong here: how
dates are judged (:mod:`ocr_assets.tiles.survey`), where scenes come from (an
:class:`~ocr_assets.tiles.scenes.Imagery`), and clouds within an image.

Everything is grouped by solar day before anything is read, so that there is exactly one image for
each date, whatever the number of its scenes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from ocr_assets.tiles.ard import BANDS_10M, BANDS_20M, SCALE, Sentinel2, coarser
from ocr_assets.tiles.scenes import (
    Day,
    Imagery,
    NoScenesError,
    Place,
    Reading,
    Scene,
    SceneError,
    by_day,
    search_year,
)
from ocr_assets.tiles.survey import (
    BARE,
    VEGETATION,
    Surveyed,
    bad_share,
    match_days,
    select_dates,
    survey_day,
)

COLLECTION = "sentinel-2-l2a"
ASSETS = {
    "B2": ("blue", "B02"),
    "B3": ("green", "B03"),
    "B4": ("red", "B04"),
    "B8": ("nir", "B08"),
    "B5": ("rededge1", "B05"),
    "B6": ("rededge2", "B06"),
    "B7": ("rededge3", "B07"),
    "B8A": ("nir08", "B8A"),
    "B11": ("swir16", "B11"),
    "B12": ("swir22", "B12"),
    "SCL": ("scl", "SCL"),
}
"""Names of each band's file: in Earth Search, and in catalogues that keep the names of ESA."""

SURVEY_PIXEL, MASK_PIXEL = 640.0, 160.0
"""Metres: pixels in which clouds are surveyed, and in which images are judged before reading."""

MOST_SURVEY_CLOUD = 50.0
MOST_BAD_IMAGE = 0.20
FEWEST_DATES = 3
MOST_LAST_RESORTS = 12
"""Days that are looked at besides, where none of the chosen ones is clear over the tile."""

QUANTIFICATION = 10_000
OFFSET = -1000
FIRST_BASELINE_WITH_OFFSET = 4.0
"""From this processing baseline on, reflectance is ``(DN - 1000) / 10000``."""

MOST_NEGATIVE, FEWEST_PIXELS = 0.2, 100


@dataclass(frozen=True)
class Images:
    """The days whose images are kept, with their scenes in the order in which they are laid.

    Attributes:
        days: chosen days.
        bad: share of each that does not show the ground.
        partial: whether all were too cloudy.
        surveyed: number of days that the survey looked at.
    """

    days: tuple[Day, ...]
    bad: tuple[float, ...]
    partial: bool
    surveyed: int

    @property
    def scenes(self) -> list[Scene]:
        """All scenes that are read."""
        return [scene for day in self.days for scene in day.scenes]


def find_images(imagery: Imagery, place: Place, year: int) -> Images:
    """Choose the images of a year.

    Raises:
        NoScenesError: no scene touches the tile in that year.
        SceneError: a scene does not say what is needed.
    """
    found = search_year(imagery, place.survey_area, year)
    days = by_day(found, place.longitude, place.area, year)
    if not days:
        raise NoScenesError(
            f"{imagery.place} has no Sentinel-2 scene of tile {place.tile} in {year}; choose "
            "another year"
        )
    clear_scenes = [scene for scene in found if _cloud(scene) < MOST_SURVEY_CLOUD]
    surveyed = survey(imagery, place, clear_scenes, year)
    dates = select_dates(surveyed) or select_dates(
        # At the edge of a swath most of the area has no data on any day.
        [replace(one, overall=one.local) for one in surveyed]
    )
    judged = judge(imagery, place, match_days(dates, days))
    if not any(bad <= MOST_BAD_IMAGE for _, bad in judged):
        tried = {day.day for day, _ in judged}
        rest = [day for day in _by_promise(days, surveyed) if day.day not in tried]
        judged += judge(imagery, place, rest[:MOST_LAST_RESORTS])
    kept = [one for one in judged if one[1] <= MOST_BAD_IMAGE]
    partial = not kept
    if partial:
        kept = sorted(judged, key=lambda one: one[1])[:FEWEST_DATES]
    kept.sort(key=lambda one: one[0].day)
    return Images(
        tuple(day for day, _ in kept), tuple(bad for _, bad in kept), partial, len(surveyed)
    )


def _by_promise(days: Sequence[Day], surveyed: Sequence[Surveyed]) -> list[Day]:
    """Days over the tile, the clearest first, by the survey or else by the catalogue."""
    local = {one.day: one.local for one in surveyed}

    def promise(day: Day) -> tuple[float, date]:
        return local.get(day.day, 1 + min(map(_cloud, day.scenes))), day.day

    return sorted(days, key=promise)


def _cloud(scene: Scene) -> float:
    return scene.number("eo:cloud_cover")


def survey(imagery: Imagery, place: Place, scenes: Sequence[Scene], year: int) -> list[Surveyed]:
    """Look at the classification of a large area around the tile on every day of a year."""
    geobox = survey_grid(place)
    days = by_day(scenes, place.longitude, place.survey_area, year)
    rasters = imagery.read(_class_readings(days, geobox))
    return [survey_day(day.day, _laid([next(rasters) for _ in day.scenes])) for day in days]


def _class_readings(days: Sequence[Day], geobox: GeoBox) -> Iterator[Reading]:
    for day in days:
        for scene in day.scenes:
            yield Reading(scene, ASSETS["SCL"], geobox, "uint8")


def survey_grid(place: Place) -> GeoBox:
    """Pixels of 640 m over the survey area, in the coordinate system of the tile."""
    outline = shapely.get_coordinates(shapely.segmentize(place.survey_area, 0.05))
    to_metres = Transformer.from_crs("EPSG:4326", str(place.geobox.crs), always_xy=True)
    x, y = to_metres.transform(*outline.T)
    return _grid(place.geobox, SURVEY_PIXEL, (min(x), min(y), max(x), max(y)))


def mask_grid(geobox: GeoBox) -> GeoBox:
    """Pixels of 160 m over a tile."""
    box = geobox.boundingbox
    return _grid(geobox, MASK_PIXEL, (box.left, box.bottom, box.right, box.top))


def _grid(like: GeoBox, pixel: float, bounds: tuple[float, float, float, float]) -> GeoBox:
    west, south, east, north = bounds
    # What a projection adds to a whole number of pixels is no further pixel.
    rows, cols = (math.ceil(side / pixel - 1e-6) for side in (north - south, east - west))
    return GeoBox((rows, cols), Affine(pixel, 0, west, 0, -pixel, north), like.crs)


def judge(imagery: Imagery, place: Place, days: Sequence[Day]) -> list[tuple[Day, float]]:
    """Each day with the share of the tile that is bad; scenes that add nothing are left out.

    Raises:
        SceneError: a scene does not say what its reflectance is.
    """
    for scene in (scene for day in days for scene in day.scenes):
        boa_offset(scene)  # what is missing in it shows before anything large is read
    geobox = mask_grid(place.geobox)
    rasters = imagery.read(_class_readings(days, geobox))
    judged = []
    for day in days:
        classes = [next(rasters) for _ in day.scenes]
        scenes: list[Scene] = []
        covered = np.zeros(geobox.shape, bool)
        for scene, layer in zip(day.scenes, classes, strict=True):
            # Between the centres of these pixels a scene may still be the only one.
            if not scenes or not covered.all():
                scenes.append(scene)
            covered |= layer > 0
        judged.append((replace(day, scenes=tuple(scenes)), bad_share(_laid(classes))))
    return judged


def _laid(layers: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rasters on top of each other: the first that has data counts."""
    merged = layers[0].copy()
    for layer in layers[1:]:
        np.copyto(merged, layer, where=merged == 0)
    return merged


def make_sentinel2(imagery: Imagery, place: Place, images: Images) -> Sentinel2:
    """Read the bands of chosen images. A date with several scenes becomes one image.

    A pixel takes all its bands from the same scene: the first whose classification has data there.
    """
    geobox, half = place.geobox, coarser(place.geobox, 2)
    count = len(images.days)
    bands10 = np.zeros((count, *geobox.shape, len(BANDS_10M)), np.uint16)
    bands20 = np.zeros((count, *half.shape, len(BANDS_20M)), np.uint16)
    scl = np.zeros((count, *half.shape), np.uint8)
    rasters = imagery.read(_readings(images.scenes, geobox, half))
    remarks = []
    for index, day in enumerate(images.days):
        for scene in day.scenes:
            classes = next(rasters)
            fine = [next(rasters) for _ in BANDS_10M]
            coarse = [next(rasters) for _ in BANDS_20M]
            fresh = (scl[index] == 0) & (classes > 0)
            scl[index][fresh] = classes[fresh]
            offset, remark = checked_offset(scene, classes, fine[BANDS_10M.index("B4")])
            remarks += [remark] if remark else []
            table = reflectance_table(offset)
            fresh10 = fresh.repeat(2, axis=0).repeat(2, axis=1)
            for band, values in enumerate(fine):
                np.copyto(bands10[index, ..., band], table[values], where=fresh10)
            for band, values in enumerate(coarse):
                np.copyto(bands20[index, ..., band], table[values], where=fresh)
    return Sentinel2(
        tuple(day.day for day in images.days),
        bands10,
        bands20,
        scl,
        tuple(tuple(scene.id for scene in day.scenes) for day in images.days),
        tuple(round(bad, 6) for bad in images.bad),
        images.partial,
        geobox,
        tuple(remarks),
    )


def _readings(scenes: Sequence[Scene], geobox: GeoBox, half: GeoBox) -> Iterator[Reading]:
    for scene in scenes:
        yield Reading(scene, ASSETS["SCL"], half, "uint8")
        for names, grid in ((BANDS_10M, geobox), (BANDS_20M, half)):
            for name in names:
                yield Reading(scene, ASSETS[name], grid, "uint16")


def boa_offset(scene: Scene) -> int:
    """What has to be added to the stored numbers of a scene before they are divided by 10000.

    Catalogues that have added it say so in ``earthsearch:boa_offset_applied``. Otherwise it is
    -1000 from processing baseline 04.00 on.

    Raises:
        SceneError: the scene says neither that nor its processing baseline.
    """
    applied = scene.properties.get("earthsearch:boa_offset_applied")
    if applied is True:
        return 0
    return OFFSET if _baseline(scene) >= FIRST_BASELINE_WITH_OFFSET else 0


def _baseline(scene: Scene) -> float:
    for name in ("s2:processing_baseline", "processing:version"):
        try:
            return float(scene.properties[name])
        except (KeyError, TypeError, ValueError):
            continue
    raise SceneError(
        f"scene {scene.id} has no s2:processing_baseline, so that the offset of its reflectance is "
        "unknown"
    )


def checked_offset(
    scene: Scene, classes: NDArray[np.uint8], red: NDArray[np.uint16]
) -> tuple[int, str | None]:
    """The offset that a scene says, unless its pixels show that it was added already.

    Items of Earth Search are known to deny an offset that their files have had. With it twice,
    much of the land would have negative reflectance in the red, which it cannot have.

    Args:
        scene: the scene.
        classes: its classification, ``(h, w)``.
        red: its band B4 as stored, ``(2 h, 2 w)``.

    Returns:
        The offset to add, and a remark where it is not the one that the scene says.
    """
    offset = boa_offset(scene)
    if not offset:
        return offset, None
    numbers = red[::2, ::2]
    land = ((classes == VEGETATION) | (classes == BARE)) & (numbers > 0)
    count = int(land.sum())
    if count < FEWEST_PIXELS or (numbers[land] < -offset).mean() <= MOST_NEGATIVE:
        return offset, None
    return 0, (
        f"{scene.id}: its metadata ask for an offset of {offset}, but its red band shows that the "
        "offset was added before; none was added"
    )


def reflectance_table(offset: int) -> NDArray[np.uint16]:
    """For each stored number its reflectance, clipped to 0 and 1, times 65535.

    0 stays 0, no data; a reflectance of 0 becomes 1, so that it differs from no data.
    """
    numbers = np.arange(65536) + offset
    scaled = np.rint(np.clip(numbers / QUANTIFICATION, 0, 1) * SCALE)
    table = np.maximum(scaled, 1).astype(np.uint16)
    table[0] = 0
    return table
