"""Pyramids: exact means on every level, nothing lost at edges, what is read, written and said."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_assets.regions.grid import CONUS, CONUS_WINDOW, STEP, Window
from ocr_assets.regions.pyramid import (
    PyramidError,
    build_pyramid,
    level_means_agree,
    level_shapes,
)

AVERAGED = {"rps_2011": ()}
"""The variable of most tests, and that it has no classes."""

CORNER = (50_001, 60_003)
"""Row and column of the test windows: odd, so that alignment to the window is seen."""


def risk(shape: tuple[int, int], missing: float = 0.3, seed: int = 0) -> NDArray[np.float32]:
    """Synthetic risk: many zeros, a long tail, and pixels without data."""
    generator = np.random.default_rng(seed)
    values = np.maximum(generator.normal(0, 1, shape), 0) ** 3
    values[generator.random(shape) < missing] = np.nan
    return values.astype(np.float32)


def on_grid(values: NDArray[np.float32], name: str = "rps_2011") -> xr.Dataset:
    row, col = CORNER
    window = Window(row, row + values.shape[0], col, col + values.shape[1])
    return xr.Dataset(
        {name: (("latitude", "longitude"), values, {"units": "percent"})},
        {"latitude": window.latitude, "longitude": window.longitude},
    )


def block_means(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Mean without NaN of each block, the plain way: in double precision, block by block."""
    rows, cols = (-(-size // side) for size in values.shape)
    padded = np.full((rows * side, cols * side), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        blocks = padded.reshape(rows, side, cols, side)
        return np.nanmean(blocks, axis=(1, 3)).astype(np.float32)


def level(folder: Path, number: int) -> xr.Dataset:
    return xr.open_zarr(folder, group=str(number), chunks=None)


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its path in the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_level_is_the_mean_of_the_pixels_below(tmp_path: Path) -> None:
    values = risk((901, 643))
    values[300:, 200:420] = np.nan
    report = build_pyramid(on_grid(values), tmp_path / "p.zarr", AVERAGED)
    shapes = [(901, 643), (451, 322), (226, 161), (113, 81)]
    assert [(found.rows, found.cols) for found in report.levels] == shapes
    assert np.array_equal(level(tmp_path / "p.zarr", 0).rps_2011, values, equal_nan=True)
    for number in (1, 2, 3):
        found = level(tmp_path / "p.zarr", number).rps_2011.values
        expected = block_means(values, 2**number)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=2e-7)
    assert report.levels[0].pixels == {"rps_2011": np.count_nonzero(~np.isnan(values))}
    assert level_means_agree(report)
    np.testing.assert_allclose(report.levels[3].means["rps_2011"], np.nanmean(values), rtol=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 530),
    cols=st.integers(1, 530),
    missing=st.sampled_from([0.0, 0.5, 0.999, 1.0]),
    seed=st.integers(0, 99),
)
def test_means_agree_on_any_shape(
    tmp_path_factory: pytest.TempPathFactory, rows: int, cols: int, missing: float, seed: int
) -> None:
    values = risk((rows, cols), missing, seed)
    folder = tmp_path_factory.mktemp("any") / "p.zarr"
    report = build_pyramid(on_grid(values), folder, AVERAGED)
    top = len(report.levels) - 1
    assert level_means_agree(report)
    assert report.levels[top].pixels["rps_2011"] == np.count_nonzero(~np.isnan(values))
    np.testing.assert_allclose(
        level(folder, top).rps_2011, block_means(values, 2**top), rtol=2e-7, equal_nan=True
    )


def test_what_has_classes_is_the_most_frequent_of_all_pixels_below(tmp_path: Path) -> None:
    classes = (-1.0, 0.0, 45.0, 315.0)
    generator = np.random.default_rng(3)
    values = generator.choice(np.float32(classes), (301, 263), p=(0.1, 0.3, 0.2, 0.4))
    values[generator.random(values.shape) < 0.2] = np.nan
    values[200:, 100:] = np.nan
    dataset = on_grid(values, "direction").assign(rps_2011=on_grid(risk((301, 263))).rps_2011)
    report = build_pyramid(dataset, tmp_path / "p.zarr", {"direction": classes, **AVERAGED})
    assert len(report.levels) == 3
    for number in (1, 2):
        side = 2**number
        found = level(tmp_path / "p.zarr", number)
        expected = np.full(found.direction.shape, np.nan, np.float32)
        for row, col in np.ndindex(expected.shape):
            block = values[row * side : (row + 1) * side, col * side : (col + 1) * side]
            counts = [int((block == value).sum()) for value in classes]
            if sum(counts):
                expected[row, col] = classes[int(np.argmax(counts))]
        np.testing.assert_array_equal(found.direction, expected)
        assert found.direction.attrs["cell_methods"] == "area: mode"
        assert found.rps_2011.attrs["cell_methods"] == "area: mean"
        assert report.levels[number].pixels["direction"] == np.count_nonzero(~np.isnan(values))
    assert level_means_agree(report), "a mean of directions is not among the means"
    assert set(report.levels[1].means) == {"rps_2011"}
    with pytest.raises(PyramidError, match=r"value 315\.0, which is none of its classes -1, 0, 45"):
        build_pyramid(dataset, tmp_path / "q.zarr", {"direction": classes[:-1]})


def test_blocks_join_without_a_seam(tmp_path: Path) -> None:
    """Source chunks of 128 make shards of 1024: this one has four blocks, three of them partial."""
    values = risk((1400, 1100))
    dataset = on_grid(values)
    dataset.rps_2011.encoding["chunks"] = (128, 128)
    build_pyramid(dataset, tmp_path / "p.zarr", AVERAGED)
    array = zarr.open_array(tmp_path / "p.zarr/0/rps_2011", mode="r")
    assert (array.shards, array.chunks) == ((1024, 1024), (256, 256))
    for number in (1, 2, 3, 4):
        np.testing.assert_allclose(
            level(tmp_path / "p.zarr", number).rps_2011,
            block_means(values, 2**number),
            rtol=2e-7,
            equal_nan=True,
        )


def test_disagreeing_levels_are_told(tmp_path: Path) -> None:
    report = build_pyramid(on_grid(risk((300, 300))), tmp_path / "p.zarr", AVERAGED)
    coarse = report.levels[1]
    mean, count = coarse.means["rps_2011"], coarse.pixels["rps_2011"]
    for wrong in (
        replace(coarse, means={"rps_2011": mean * (1 + 1e-5)}),
        replace(coarse, means={"rps_2011": float("nan")}),
        replace(coarse, pixels={"rps_2011": count - 1}),
    ):
        assert not level_means_agree(replace(report, levels=(report.levels[0], wrong)))
    assert level_means_agree(
        replace(report, levels=(report.levels[0], replace(coarse, means={"rps_2011": mean * 1.1}))),
        tolerance=0.2,
    )


def test_cells_are_centred_on_their_pixels(tmp_path: Path) -> None:
    dataset = on_grid(risk((300, 521)))
    build_pyramid(dataset, tmp_path / "p.zarr", AVERAGED)
    attributes = zarr.open_group(tmp_path / "p.zarr", mode="r").attrs.asdict()
    layout = json.loads(json.dumps(attributes["multiscales"]))["layout"]
    assert [entry["asset"] for entry in layout] == ["0", "1", "2", "3"]
    for number, entry in enumerate(layout):
        opened = level(tmp_path / "p.zarr", number)
        scale, translation = entry["transform"]["scale"], entry["transform"]["translation"]
        assert scale == [2.0**number] * 2
        assert translation == [(2**number - 1) / 2] * 2
        for axis, index in (("latitude", 0), ("longitude", 1)):
            centres = opened[axis].values
            pixel = scale[index] * np.arange(centres.size) + translation[index]
            expected = dataset[axis].values[0] + pixel * STEP
            np.testing.assert_allclose(centres, expected, rtol=0, atol=1e-10)
        assert np.array_equal(opened.latitude, dataset.latitude) == (number == 0)
        assert entry["spatial:shape"] == list(opened.rps_2011.shape)
        step, _, west, _, _, south = entry["spatial:transform"]
        np.testing.assert_allclose(
            [west + step / 2, south + step / 2], [opened.longitude[0], opened.latitude[0]]
        )
        assert entry.get("derived_from") == (None if number == 0 else "0")


def test_groups_open_plainly_and_carry_what_they_are(tmp_path: Path) -> None:
    values = risk((300, 260))
    dataset = on_grid(values).assign(rps_2047=on_grid(values * 2).rps_2011)
    build_pyramid(
        dataset,
        tmp_path / "p.zarr",
        {"rps_2011": (), "rps_2047": ()},
        attributes={"title": "Risk", "lineage": {"inputs": {"a": "b"}}},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "p.zarr", group="1")
    assert list(opened.data_vars) == ["rps_2011", "rps_2047"]
    assert opened.rps_2047.dims == ("latitude", "longitude")
    assert opened.rps_2047.attrs["units"] == "percent"
    assert opened.spatial_ref.attrs["crs_wkt"].startswith("GEOGCRS")
    root = zarr.open_consolidated(tmp_path / "p.zarr", mode="r")
    assert root.attrs["title"] == "Risk"
    assert root.attrs["lineage"] == {"inputs": {"a": "b"}}
    assert root.attrs["proj:code"] == "EPSG:4326"
    conventions: Any = root.attrs["zarr_conventions"]
    assert [entry["name"] for entry in conventions] == ["multiscales", "proj", "spatial"]
    assert {path for path, _ in root.members(max_depth=None)} >= {"0/rps_2011", "2/spatial_ref"}


def test_geotransform_is_the_outer_corner_and_step(tmp_path: Path) -> None:
    build_pyramid(on_grid(risk((300, 260))), tmp_path / "p.zarr", AVERAGED)
    opened = level(tmp_path / "p.zarr", 1)
    west, step, _, south, _, height = map(float, opened.spatial_ref.GeoTransform.split())
    assert step == height == 2 * STEP
    np.testing.assert_allclose(west + (np.arange(130) + 0.5) * step, opened.longitude, rtol=1e-14)
    np.testing.assert_allclose(south + (np.arange(150) + 0.5) * step, opened.latitude, rtol=1e-14)


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    dataset = on_grid(risk((500, 700)))
    for name in ("one", "two"):
        report = build_pyramid(dataset, tmp_path / name, AVERAGED)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    size = sum(path.stat().st_size for path in (tmp_path / "two").rglob("*") if path.is_file())
    assert report.bytes == size


@pytest.fixture(scope="module")
def conus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the whole grid, with data in two far parts of it only."""
    path = tmp_path_factory.mktemp("conus") / "store.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for axis in ("latitude", "longitude"):
        centres = getattr(CONUS_WINDOW, axis)
        group.create_array(axis, data=centres, chunks=centres.shape, dimension_names=(axis,))
    array = group.create_array(
        "rps_2011",
        shape=CONUS_WINDOW.shape,
        chunks=(1500, 1500),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=("latitude", "longitude"),
    )
    array[54_100:54_200, 72_300:72_400] = 1.5
    array[12_000:12_003, 130_500:130_501] = 0.5
    return path


def test_conus_reads_and_writes_only_where_there_is_data(conus: Path, tmp_path: Path) -> None:
    dataset = xr.open_zarr(conus, chunks=None, consolidated=False)
    regions = [CONUS.region_window(id_).slices_in(CONUS_WINDOW) for id_ in ("y9_x16", "y2_x29")]
    calls: list[tuple[int, int]] = []
    report = build_pyramid(
        dataset,
        tmp_path / "p.zarr",
        AVERAGED,
        regions=regions,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert len(report.levels) == 12
    assert (report.levels[11].rows, report.levels[11].cols) == (48, 102)
    assert calls == [(done, 24) for done in range(1, 25)], "2 regions of 12 source chunks"
    assert level_means_agree(report)
    assert report.levels[11].pixels == {"rps_2011": 10_003}
    for number in range(12):
        folder = tmp_path / f"p.zarr/{number}/rps_2011/c"
        written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        blocks = {(36 >> number, 48 >> number), (8 >> number, 87 >> number)}
        assert written == {f"{row}/{col}" for row, col in blocks}
    assert report.bytes < 1_500_000, "chunks without data are not written"
    top = level(tmp_path / "p.zarr", 11).rps_2011
    assert np.nanmax(top) == 1.5
    assert np.nanmin(top) == 0.5
    assert np.count_nonzero(~np.isnan(top)) == 2


def test_conus_levels() -> None:
    shapes = level_shapes(CONUS_WINDOW.shape)
    assert shapes[0] == (97_579, 208_881)
    assert shapes[1] == (48_790, 104_441)
    assert shapes[-1] == (48, 102)
    assert len(shapes) == 12


def test_input_stays_as_it_is(tmp_path: Path) -> None:
    values = risk((200, 200))
    before = values.copy()
    build_pyramid(on_grid(values), tmp_path / "p.zarr", AVERAGED)
    assert np.array_equal(values, before, equal_nan=True)


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        build_pyramid(on_grid(risk((200, 200))), tmp_path / "p.zarr", AVERAGED, progress=stop)
    assert list(tmp_path.iterdir()) == []
    build_pyramid(on_grid(risk((200, 200))), tmp_path / "p.zarr", AVERAGED)
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]
    metadata = json.loads((tmp_path / "p.zarr/zarr.json").read_text())
    assert metadata["zarr_format"] == 3


def _shifted(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_coords(longitude=dataset.longitude + 0.3 * STEP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset: dataset.rename(rps_2011="crps"), "'rps_2011' is missing, found crps"),
        (lambda dataset: dataset.isel(latitude=slice(None, None, -1)), "latitude is not on"),
        (_shifted, "longitude is not on the pixel grid"),
        (lambda dataset: dataset.transpose("longitude", "latitude"), "transpose"),
        (lambda dataset: dataset.isel(latitude=slice(0)), "'latitude'"),
        (lambda dataset: dataset.rename(longitude="x"), "'longitude'"),
    ],
)
def test_unfit_dataset_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(PyramidError, match=message):
        build_pyramid(change(on_grid(risk((20, 30)))), tmp_path / "p.zarr", AVERAGED)
    assert list(tmp_path.iterdir()) == []


def test_existing_destination_is_kept(tmp_path: Path) -> None:
    (tmp_path / "p.zarr").mkdir()
    with pytest.raises(PyramidError, match="exists already"):
        build_pyramid(on_grid(risk((20, 30))), tmp_path / "p.zarr", AVERAGED)


def test_no_variable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PyramidError, match="name at least one"):
        build_pyramid(on_grid(risk((20, 30))), tmp_path / "p.zarr", {})
