"""Rasters appear whole or not at all, and a broken-off call goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from resources.icechunk_branch import IcechunkBranch
from resources.raster_ingest import (
    Piece,
    RasterForm,
    VariableSummary,
    ingest_raster,
    is_published,
    publish_dataset,
)
from resources.storage import Storage

VALUES = np.arange(6 * 8, dtype=np.float32).reshape(6, 8)
VALUES[0, 0] = np.nan
# The last piece has no value at all.
VALUES[3:, 4:] = np.nan
PIECES: list[Piece] = [
    (slice(row, row + 3), slice(col, col + 4)) for row in (0, 3) for col in (0, 4)
]


def form(chunks: tuple[int, int] = (3, 4)) -> RasterForm:
    axes = ("y", 270.0 * np.arange(6)[::-1]), ("x", 270.0 * np.arange(8))
    variables = {"BP": {"units": "1"}, "FLP1": {"units": "1"}}
    return RasterForm(axes, "EPSG:5070", chunks, variables)


class Reader:
    """Gives the pieces, tells which were asked for, and breaks off at one."""

    def __init__(self, breaks_at: int | None = None, factor: float = 1.0) -> None:
        self.asked: list[Piece] = []
        self.breaks_at = breaks_at
        self.factor = np.float32(factor)

    def __call__(self, piece: Piece) -> Iterator[tuple[str, NDArray[np.float32]]]:
        if len(self.asked) == self.breaks_at:
            raise KeyboardInterrupt
        self.asked.append(piece)
        yield "BP", VALUES[piece] * self.factor
        yield "FLP1", VALUES[piece] / 100 * self.factor


def seen(storage: Storage) -> xr.Dataset:
    """What readers of `main` get."""
    store = IcechunkBranch(storage, "main").readonly().store
    return xr.open_zarr(store, consolidated=False, chunks=None).load()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "a.icechunk"))


def test_a_raster_is_written_as_it_is_read(storage: Storage) -> None:
    done: list[str] = []
    report = ingest_raster(storage, form(), PIECES, Reader(), {"a": 1}, advance=done.append)
    raster = seen(storage)
    np.testing.assert_array_equal(raster["BP"], VALUES)
    np.testing.assert_array_equal(raster["FLP1"], VALUES / np.float32(100))
    assert raster["BP"].encoding["chunks"] == (3, 4)
    assert raster["spatial_ref"].attrs["crs_wkt"].startswith("PROJCRS")
    assert raster.attrs["lineage"] == {"a": 1}
    assert report.variables["BP"] == VariableSummary(1.0, 43.0, 35)
    assert (report.pieces, report.written, report.skipped) == (4, 4, False)
    assert len(done) == 4


def test_the_same_again_does_nothing(storage: Storage) -> None:
    first = ingest_raster(storage, form(), PIECES, Reader(), {"a": 1})
    reader = Reader()
    again = ingest_raster(storage, form(), PIECES, reader, {"a": 1})
    assert again.skipped
    assert not reader.asked
    assert (again.snapshot, again.variables) == (first.snapshot, first.variables)


@pytest.mark.parametrize("breaks_at", [0, 1, 3])
def test_a_broken_call_shows_nothing_and_goes_on(storage: Storage, breaks_at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest_raster(storage, form(), PIECES, Reader(breaks_at), {"a": 1})
    assert not seen(storage).data_vars
    reader = Reader()
    report = ingest_raster(storage, form(), PIECES, reader, {"a": 1})
    assert reader.asked == PIECES[breaks_at:]
    assert report.variables["BP"] == VariableSummary(1.0, 43.0, 35)
    np.testing.assert_array_equal(seen(storage)["BP"], VALUES)


def test_readers_keep_the_old_raster_until_the_new_one_is_whole(storage: Storage) -> None:
    ingest_raster(storage, form(), PIECES, Reader(), {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        ingest_raster(storage, form(), PIECES, Reader(2, factor=2.0), {"a": 2})
    np.testing.assert_array_equal(seen(storage)["BP"], VALUES)
    # A third recipe does not go on from the second.
    reader = Reader(factor=3.0)
    ingest_raster(storage, form(), PIECES, reader, {"a": 3})
    assert reader.asked == PIECES
    np.testing.assert_array_equal(seen(storage)["BP"], VALUES * 3)
    repository = IcechunkBranch(storage, "main").repository
    assert repository.list_branches() == {"main"}


def test_a_recipe_that_comes_back_is_written_anew(storage: Storage) -> None:
    for recipe, factor in ((1, 1.0), (2, 2.0), (1, 1.0)):
        report = ingest_raster(storage, form(), PIECES, Reader(factor=factor), {"a": recipe})
        assert report.written == 4
        np.testing.assert_array_equal(seen(storage)["BP"], VALUES * np.float32(factor))


def test_another_form_replaces_the_arrays(storage: Storage) -> None:
    ingest_raster(storage, form(), PIECES, Reader(), {"a": 1})
    whole = [(slice(0, 6), slice(0, 8))]
    report = ingest_raster(storage, form((6, 8)), whole, Reader(), {"a": 1})
    assert not report.skipped
    assert seen(storage)["BP"].encoding["chunks"] == (6, 8)


def test_a_refused_raster_stays_hidden(storage: Storage) -> None:
    def refuse(summary: Mapping[str, VariableSummary]) -> None:
        assert summary["BP"].maximum == 43.0
        raise ValueError("too large")

    with pytest.raises(ValueError, match="too large"):
        ingest_raster(storage, form(), PIECES, Reader(), {"a": 1}, verify=refuse)
    assert not seen(storage).data_vars


def test_a_small_dataset_is_published_in_one_commit(storage: Storage) -> None:
    dataset = xr.Dataset({"share": (("y", "x", "direction"), np.ones((2, 3, 8), np.float32))})
    assert not is_published(storage, {"a": 1})
    publish_dataset(storage, dataset, {"a": 1})
    assert is_published(storage, {"a": 1})
    assert not is_published(storage, {"a": 2})
    publish_dataset(storage, dataset.isel(x=[0]) * 2, {"a": 2})
    assert seen(storage)["share"].shape == (2, 1, 8)
    assert seen(storage).attrs["lineage"] == {"a": 2}


def test_on_an_object_store(s3_bucket: Storage) -> None:
    place = s3_bucket.child("raster")
    with pytest.raises(KeyboardInterrupt):
        ingest_raster(place, form(), PIECES, Reader(2), {"a": 1})
    reader = Reader()
    ingest_raster(place, form(), PIECES, reader, {"a": 1})
    assert reader.asked == PIECES[2:]
    np.testing.assert_array_equal(seen(place)["BP"], VALUES)
