"""Writing the sample world's rasters as Icechunk repositories.

Belongs here: the stored form of a raster: arrays, chunks, compression, attributes, one commit.
Does not belong here: the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import icechunk
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from pyproj import CRS
from zarr.codecs import BloscCodec

from ocr_assets.regions import grid as region_grid
from ocr_assets.regions.grid import Window
from ocr_assets.regions.inputs import RASTERS, WIND, WIND_HAZARD

ATTRIBUTES = {"synthetic": True, "notice": "Made up for demonstration and tests. Not real data."}

# Smooth fields share their high bytes: shuffled, a fast level compresses them well.
_CODEC = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4)
_COORDINATE_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=8)


def write_raster(path: Path, name: str, raster: xr.Dataset) -> None:
    """Write a whole, small raster as dataset ``name`` into a new repository at ``path``."""
    session = _new(path)
    raster = raster.assign_attrs(ATTRIBUTES)
    expected = {**RASTERS[name].variables, **(WIND_HAZARD.variables if name == WIND else {})}
    for variable, form in expected.items():
        raster[variable].attrs |= {"units": form.units, "grid_mapping": "spatial_ref"}
    raster.to_zarr(session.store, zarr_format=3, consolidated=False, mode="w-")
    session.commit(f"synthetic {name}")


class PixelRasters:
    """Rasters on the pixel grid, written strip by strip, one repository for each dataset.

    The arrays cover ``cover``; chunks that are never written take no space and read as NaN.
    """

    def __init__(
        self, folder: Path, names: Iterable[str], cover: Window, chunks: tuple[int, int]
    ) -> None:
        """Make empty repositories ``<name>.icechunk`` for datasets ``names`` in ``folder``."""
        self._cover = cover
        self._sessions: dict[str, icechunk.Session] = {}
        self._arrays: dict[tuple[str, str], zarr.Array] = {}
        for name in names:
            session = _new(folder / f"{name}.icechunk")
            self._sessions[name] = session
            group = zarr.create_group(session.store, attributes=ATTRIBUTES)
            for axis, centres in (("latitude", cover.latitude), ("longitude", cover.longitude)):
                group.create_array(
                    axis,
                    data=centres,
                    chunks=(centres.size,),
                    compressors=_COORDINATE_CODEC,
                    dimension_names=(axis,),
                    attributes={"units": f"degrees_{'north' if axis == 'latitude' else 'east'}"},
                )
            group.create_array(
                "spatial_ref",
                shape=(),
                dtype="int64",
                attributes={"crs_wkt": CRS.from_user_input(region_grid.CRS).to_wkt()},
            )
            for variable, expected in RASTERS[name].variables.items():
                self._arrays[name, variable] = group.create_array(
                    variable,
                    shape=cover.shape,
                    chunks=chunks,
                    dtype="float32",
                    fill_value=np.nan,
                    compressors=_CODEC,
                    dimension_names=("latitude", "longitude"),
                    attributes={"units": expected.units, "grid_mapping": "spatial_ref"},
                )

    def write(self, window: Window, values: Mapping[tuple[str, str], NDArray[np.float32]]) -> None:
        """Write a strip: values over ``window`` by dataset name and variable."""
        place = window.slices_in(self._cover)
        for key, array in values.items():
            self._arrays[key][place] = array

    def commit(self) -> None:
        """Make everything written visible, one commit for each dataset."""
        for name, session in self._sessions.items():
            session.commit(f"synthetic {name}")


def _new(path: Path) -> icechunk.Session:
    # Icechunk warns at every open that local commits are unsafe; nobody else knows this place yet.
    icechunk.set_logs_filter("error")
    path.mkdir(parents=True)
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    return repository.writable_session("main")
