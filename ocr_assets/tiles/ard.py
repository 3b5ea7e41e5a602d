"""Analysis-ready data of a tile: what each source gives, and the GeoTIFF files that hold it.

Belongs here: the values that the sources make and everything downstream takes, the layout of their
files, writing and reading them. Does not belong here: how the values come about.

All rasters of a tile are north up on one grid in the UTM zone of the tile's centre: 10 m, with the
20 m and 40 m grids nested in it. Rows run from north to south. In unsigned integers 0 is no data.
The files are deterministic: equal values and lineage give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

SCALE = 65535
"""Stored value of reflectance 1, and of backscatter 1 (linear gamma nought)."""

BANDS_10M = ("B2", "B3", "B4", "B8")
BANDS_20M = ("B5", "B6", "B7", "B8A", "B11", "B12")
POLARISATIONS = ("VV", "VH")
QUARTERS = 4

FILES: Mapping[str, Mapping[str, str]] = {
    "elevation": {"dem": "misc/dem_{tag}.tif"},
    "sentinel1": {"s1": "s1/{tag}.tif"},
    "sentinel2": {
        "s2_10": "s2_10/{tag}.tif",
        "s2_20": "s2_20/{tag}.tif",
        "scl": "clouds/scl_{tag}.tif",
    },
}
"""Files of each source: the name that the functions below use, and the place in the layout."""

_BLOCK = 256


class ArdError(ValueError):
    """A file that does not hold the analysis-ready data it should; the message names it."""


@dataclass(frozen=True, eq=False)
class Elevation:
    """Terrain of a tile.

    Attributes:
        height: metres above the geoid, float32, ``(H, W)``.
        slope: degrees, float32, ``(H, W)``.
        geobox: the 10 m grid of both.
    """

    height: NDArray[np.float32]
    slope: NDArray[np.float32]
    geobox: GeoBox

    def __post_init__(self) -> None:
        shape = tuple(self.geobox.shape)
        _require("height", self.height, np.float32, shape)
        _require("slope", self.slope, np.float32, shape)


@dataclass(frozen=True)
class Quarter:
    """How a seasonal radar composite came about.

    Attributes:
        days: the days whose median it is, in order; none where there was no scene.
        orbit: ``ascending``, ``descending`` or ``both``.
        coverage: share of its pixels that have data in both polarisations.
    """

    days: tuple[date, ...]
    orbit: str
    coverage: float

    @property
    def ok(self) -> bool:
        """Whether the composite has any data."""
        return self.coverage > 0


@dataclass(frozen=True, eq=False)
class Sentinel1:
    """Four seasonal radar composites of a tile.

    Attributes:
        backscatter: gamma nought, linear, times 65535, uint16, ``(4, H/4, W/4, 2)``: VV and VH.
        quarters: how each came about. A quarter without scenes is 0 throughout and not ``ok``.
        geobox: the 40 m grid.
    """

    backscatter: NDArray[np.uint16]
    quarters: tuple[Quarter, ...]
    geobox: GeoBox

    def __post_init__(self) -> None:
        if len(self.quarters) != QUARTERS:
            raise ValueError(f"radar composites have {QUARTERS} quarters, not {len(self.quarters)}")
        shape = (QUARTERS, *self.geobox.shape, len(POLARISATIONS))
        _require("backscatter", self.backscatter, np.uint16, shape)


@dataclass(frozen=True, eq=False)
class Sentinel2:
    """Optical images of a tile, one for each of T dates of a year.

    Attributes:
        dates: solar days in ascending order, none twice.
        bands10: surface reflectance times 65535, uint16, ``(T, H, W, 4)``: B2, B3, B4, B8.
        bands20: the same, ``(T, H/2, W/2, 6)``: B5, B6, B7, B8A, B11, B12.
        scl: scene classification, uint8, ``(T, H/2, W/2)``.
        scenes: identifiers of the scenes that each image is put together from.
        clouds: share of each image that is cloud, shadow, snow or no data, at 160 m.
        partial: all images were too cloudy, and these are the cleanest ones.
        geobox: the 10 m grid.
        remarks: what a person should know about single scenes.
    """

    dates: tuple[date, ...]
    bands10: NDArray[np.uint16]
    bands20: NDArray[np.uint16]
    scl: NDArray[np.uint8]
    scenes: tuple[tuple[str, ...], ...]
    clouds: tuple[float, ...]
    partial: bool
    geobox: GeoBox
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.dates)
        if len(self.scenes) != count or len(self.clouds) != count:
            raise ValueError(
                f"{count} dates, {len(self.scenes)} lists of scenes and {len(self.clouds)} shares "
                "of cloud do not belong together"
            )
        if list(self.dates) != sorted(set(self.dates)):
            raise ValueError("the dates of images are in ascending order, and none is there twice")
        rows, cols = self.geobox.shape
        half = (rows // 2, cols // 2)
        _require("bands10", self.bands10, np.uint16, (count, rows, cols, len(BANDS_10M)))
        _require("bands20", self.bands20, np.uint16, (count, *half, len(BANDS_20M)))
        _require("scl", self.scl, np.uint8, (count, *half))

    @property
    def empty_quarters(self) -> tuple[int, ...]:
        """Quarters of the year, from 1, that have no image."""
        seen = {(day.month + 2) // 3 for day in self.dates}
        return tuple(quarter for quarter in range(1, QUARTERS + 1) if quarter not in seen)


def _require(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of shape "
            f"{shape}"
        )


def coarser(geobox: GeoBox, factor: int) -> GeoBox:
    """The grid with the same extent whose pixels are ``factor`` times as long.

    Raises:
        ValueError: the grid has a number of rows or columns that is no multiple of ``factor``.
    """
    rows, cols = geobox.shape
    if rows % factor or cols % factor:
        raise ValueError(f"{rows} x {cols} pixels cannot be grouped {factor} by {factor}")
    return GeoBox(
        (rows // factor, cols // factor), geobox.affine @ Affine.scale(factor), geobox.crs
    )


def tile_folder(year: int | None, x_tile: int, y_tile: int) -> str:
    """Key of the folder of a tile's analysis-ready data; terrain belongs to no year."""
    return f"{'' if year is None else f'{year}/'}raw/{x_tile}/{y_tile}/raw"


def write_elevation(
    paths: Mapping[str, Path], value: Elevation, lineage: Mapping[str, Any]
) -> None:
    """Write terrain to ``paths["dem"]``: band 1 is the height, band 2 the slope."""
    _write(
        paths["dem"],
        value.geobox,
        [(value.height[None], ["height, metres"]), (value.slope[None], ["slope, degrees"])],
        np.nan,
        {"lineage": lineage},
    )


def read_elevation(paths: Mapping[str, Path]) -> Elevation:
    """Read :func:`write_elevation` back; raises ArdError."""
    bands, geobox, _ = _read(paths["dem"], np.float32)
    if len(bands) != 2:
        raise ArdError(f"{paths['dem']} has {len(bands)} bands, not height and slope")
    return Elevation(bands[0], bands[1], geobox)


def write_sentinel1(
    paths: Mapping[str, Path], value: Sentinel1, lineage: Mapping[str, Any]
) -> None:
    """Write radar composites to ``paths["s1"]``: VV and VH of each quarter in turn."""
    images = (
        (
            np.moveaxis(value.backscatter[index], -1, 0),
            [f"Q{index + 1} {name}" for name in POLARISATIONS],
        )
        for index in range(QUARTERS)
    )
    quarters = [asdict(q) | {"days": [day.isoformat() for day in q.days]} for q in value.quarters]
    _write(paths["s1"], value.geobox, images, 0, {"quarters": quarters, "lineage": lineage})


def read_sentinel1(paths: Mapping[str, Path]) -> Sentinel1:
    """Read :func:`write_sentinel1` back; raises ArdError."""
    bands, geobox, about = _read(paths["s1"], np.uint16)
    if len(bands) != QUARTERS * len(POLARISATIONS):
        raise ArdError(f"{paths['s1']} has {len(bands)} bands, not two for each of four quarters")
    quarters = tuple(
        Quarter(tuple(map(date.fromisoformat, q["days"])), q["orbit"], q["coverage"])
        for q in _about(paths["s1"], about, "quarters")
    )
    return Sentinel1(_images(bands, QUARTERS), quarters, geobox)


def write_sentinel2(
    paths: Mapping[str, Path], value: Sentinel2, lineage: Mapping[str, Any]
) -> None:
    """Write images to ``paths["s2_10"]`` and ``["s2_20"]``, classification to ``["scl"]``.

    Band ``t * n + b`` holds spectral band ``b`` of ``n`` at date ``t``, counted from 0.
    """
    days = [day.isoformat() for day in value.dates]
    about = {
        "dates": days,
        "scenes": value.scenes,
        "clouds": value.clouds,
        "partial": value.partial,
        "remarks": value.remarks,
        "lineage": lineage,
    }
    half = coarser(value.geobox, 2)
    for name, grid, images, bands in (
        ("s2_10", value.geobox, value.bands10, BANDS_10M),
        ("s2_20", half, value.bands20, BANDS_20M),
        ("scl", half, value.scl[..., None], ("SCL",)),
    ):
        _write(
            paths[name],
            grid,
            (
                (np.moveaxis(image, -1, 0), [f"{day} {band}" for band in bands])
                for day, image in zip(days, images, strict=True)
            ),
            0,
            about,
        )


def read_sentinel2(paths: Mapping[str, Path]) -> Sentinel2:
    """Read :func:`write_sentinel2` back.

    Raises:
        ArdError: a file is missing or damaged, or the three do not belong together.
    """
    fine, geobox, about = _read(paths["s2_10"], np.uint16)
    coarse, _, coarse_about = _read(paths["s2_20"], np.uint16)
    classes, _, classes_about = _read(paths["scl"], np.uint8)
    if not about == coarse_about == classes_about:
        raise ArdError(
            f"{', '.join(str(path) for path in paths.values())} were not made together; make the "
            "images of this tile again"
        )
    dates = tuple(map(date.fromisoformat, _about(paths["s2_10"], about, "dates")))
    try:
        return Sentinel2(
            dates,
            _images(fine, len(dates)),
            _images(coarse, len(dates)),
            classes,
            tuple(map(tuple, about["scenes"])),
            tuple(about["clouds"]),
            about["partial"],
            geobox,
            tuple(about["remarks"]),
        )
    except (KeyError, ValueError) as error:
        raise ArdError(f"{paths['s2_10']} and its companions do not fit: {error}") from error


def read_lineage(path: Path) -> dict[str, Any]:
    """Lineage of a file that this module wrote."""
    try:
        with rasterio.open(path) as source:
            about = json.loads(source.tags().get("ocr", "{}"))
    except rasterio.errors.RasterioIOError as error:
        raise ArdError(f"{path} cannot be read: {error}") from error
    return dict(_about(path, about, "lineage"))


@dataclass(frozen=True)
class Header:
    """What a file says without its pixels.

    Attributes:
        geobox: its grid.
        bands: description of each band.
        about: what it says about itself: ``dates`` of images, ``quarters`` of radar, ``lineage``.
    """

    geobox: GeoBox
    bands: tuple[str, ...]
    about: Mapping[str, Any]


def read_header(path: str | Path) -> Header:
    """Read the header of a file that this module wrote; raises ArdError."""
    try:
        with rasterio.open(path) as source:
            about = json.loads(source.tags().get("ocr", "{}"))
            names = tuple(name or "" for name in source.descriptions)
            return Header(GeoBox.from_rio(source), names, about)
    except (rasterio.errors.RasterioIOError, ValueError) as error:
        raise ArdError(f"{path} cannot be read: {error}; make this source again") from error


def _images(bands: NDArray[Any], count: int) -> NDArray[Any]:
    """Bands of ``count`` images, one image after the other, as ``(count, H, W, bands)``."""
    rows, cols = bands.shape[1:]
    images = bands.reshape(count, -1 if count else 0, rows, cols)
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _about(path: Path, about: Mapping[str, Any], name: str) -> Any:
    if name not in about:
        raise ArdError(f"{path} does not say its {name}; it was not written by this project")
    return about[name]


def _write(
    path: Path,
    geobox: GeoBox,
    images: Iterable[tuple[NDArray[Any], Sequence[str]]],
    nodata: float,
    about: Mapping[str, Any],
) -> None:
    """Write images of shape ``(bands, H, W)`` one after the other as bands of one GeoTIFF."""
    stacks = list(images)
    dtype = stacks[0][0].dtype
    rows, cols = geobox.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=dtype,
        count=sum(len(names) for _, names in stacks),
        height=rows,
        width=cols,
        crs=geobox.crs.to_wkt() if geobox.crs else None,
        transform=geobox.affine,
        nodata=nodata,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        interleave="band",
        compress="zstd",
        zstd_level=3,
        predictor=3 if dtype.kind == "f" else 2,
        bigtiff="if_safer",
    ) as target:
        first = 1
        for stack, names in stacks:
            indexes = list(range(first, first + len(names)))
            target.write(stack, indexes)
            for index, name in zip(indexes, names, strict=True):
                target.set_band_description(index, name)
            first += len(names)
        target.update_tags(ocr=json.dumps(about, sort_keys=True))


def _read(path: Path, dtype: type) -> tuple[NDArray[Any], GeoBox, dict[str, Any]]:
    """All bands of a file, its grid, and what it says about itself."""
    try:
        with rasterio.open(path) as source:
            if source.dtypes[0] != np.dtype(dtype).name:
                raise ArdError(f"{path} holds {source.dtypes[0]}, expected {np.dtype(dtype)}")
            about = json.loads(source.tags().get("ocr", "{}"))
            return source.read(), GeoBox.from_rio(source), about
    except rasterio.errors.RasterioIOError as error:
        raise ArdError(
            f"{path} is missing or damaged ({error}); make this source of the tile again"
        ) from error
