"""Super-resolution over a tile: whole by default, the known gaps of windows on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from network_graphs import super_resolution_model
from numpy.typing import NDArray

from ocr_assets.tiles.superresolution import (
    WINDOW,
    SuperResolution,
    SuperResolutionError,
    sharpen,
)
from resources.inference import Inference

RADIUS = 6
"""Pixels around a pixel that the published topology looks at."""


def add_one(bands: NDArray[np.float32], coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    assert bands.shape[:3] == coarse.shape[:3]
    assert (bands.shape[3], coarse.shape[3]) == (10, 6)
    return coarse + 1


@pytest.fixture(scope="module")
def random_network(tmp_path_factory: pytest.TempPathFactory) -> SuperResolution:
    """The published topology with random weights."""
    runtime = Inference(tmp_path_factory.mktemp("inference"))
    run = runtime.runner(super_resolution_model(scale=0.01), Path("random"))
    return lambda bands, coarse: run({0: bands, 1: coarse})


def test_the_whole_tile_is_sharpened_once() -> None:
    bands = np.zeros((10, 618, 618), np.float32)
    sharpen(bands, add_one)
    assert (bands[4:] == 1).all()
    assert not bands[:4].any()


def test_compat_leaves_the_known_strip_and_repeats_the_known_corner() -> None:
    bands = np.zeros((10, 618, 618), np.float32)
    sharpen(bands, add_one, compat=True)
    assert not bands[:4].any()
    assert (bands[4:] == bands[4]).all()
    values, counts = np.unique(bands[4], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        0: 34_544, 1: 618 * 618 - 34_544 - 4_620, 2: 4_620,
    }  # fmt: skip
    assert not bands[4, :508, 550:].any()
    assert (bands[4, 508:, 508:550] == 2).all()


def test_windows_differ_from_the_whole_near_their_edges_only(
    random_network: SuperResolution,
) -> None:
    scenes = np.random.default_rng(0).uniform(0, 0.5, (10, 220, 220)).astype(np.float32)
    whole, windows = scenes.copy(), scenes.copy()
    sharpen(whole, random_network)
    sharpen(windows, random_network, compat=True)
    assert not np.array_equal(whole[4:], scenes[4:])
    np.testing.assert_array_equal(whole[:4], scenes[:4])
    first = np.s_[4:, RADIUS : WINDOW - RADIUS, RADIUS : WINDOW - RADIUS]
    np.testing.assert_allclose(windows[first], whole[first], atol=1e-6)
    seam = np.abs(windows - whole)[4:, :WINDOW, :WINDOW]
    assert seam.max() > 1e-5
    np.testing.assert_array_equal(windows[4:, :WINDOW, WINDOW:], scenes[4:, :WINDOW, WINDOW:])


def test_answers_that_are_no_reflectance_are_refused() -> None:
    bands = np.zeros((10, 20, 20), np.float32)
    with pytest.raises(SuperResolutionError, match=r"gave \(1, 19, 20, 6\)"):
        sharpen(bands, lambda _, coarse: coarse[:, 1:])

    def faulty(_: NDArray[np.float32], coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        result = coarse.copy()
        result[0, 7, 8, 4] = np.nan
        return result

    with pytest.raises(SuperResolutionError, match="nan for B11 at row 7, column 8"):
        sharpen(bands, faulty)
    assert not bands.any()
