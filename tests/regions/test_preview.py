"""Previews: what a pixel of the picture says, its size and cost, and the palette."""

from __future__ import annotations

import re
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ocr_assets
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.preview import PALETTE, score_preview

# Matrices in linear light that simulate dichromats: Machado, Oliveira, Fernandes (2009).
VISION = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def preview(rps: np.ndarray, max_side: int = 320) -> bytes:
    return score_preview(FIRE.scores[0], rps, max_side)


def pixels(png: bytes) -> NDArray[np.uint8]:
    """RGBA of a picture, top row first."""
    return np.asarray(Image.open(BytesIO(png)).convert("RGBA"))


def colour(score: int) -> tuple[int, ...]:
    """RGBA of a score."""
    return (*bytes.fromhex(PALETTE[score][1:]), 255)


def test_each_pixel_has_the_colour_of_its_score_and_north_is_up() -> None:
    rps = np.array([[0, 0.005, 0.01], [0.02, 0.5, np.nan], [3, 99, 101]], np.float32)
    found = pixels(preview(rps))
    expected: list[list[int | None]] = [[10, 10, 10], [3, 8, None], [0, 1, 2]]
    for place, rgba in zip(np.ndindex(3, 3), found.reshape(9, 4), strict=True):
        score = expected[place[0]][place[1]]
        if score is None:
            assert rgba[3] == 0
        else:
            assert tuple(rgba) == colour(score), place


def test_blocks_show_the_score_of_the_mean_of_their_data() -> None:
    rps = np.full((5, 7), np.nan, np.float32)
    rps[0, 0] = 0.04  # The only pixel with data of the south-west block.
    rps[0:2, 2:4] = [[0.0, 0.0], [0.0, 4.0]]
    rps[4, 6] = 0.0  # A block of one pixel in the far corner.
    found = pixels(preview(rps, max_side=4))
    assert found.shape == (3, 4, 4)
    assert tuple(found[2, 0]) == colour(4)
    assert tuple(found[2, 1]) == colour(9)
    assert tuple(found[0, 3]) == colour(0)
    assert np.count_nonzero(found[..., 3]) == 3


def test_means_agree_with_numpy() -> None:
    generator = np.random.default_rng(1)
    rps = (10 ** generator.uniform(-3, 1, (60, 90))).astype(np.float32)
    rps[generator.random(rps.shape) < 0.3] = np.nan
    means = np.nanmean(rps.reshape(20, 3, 30, 3), axis=(1, 3), dtype=np.float64)
    assert preview(rps, max_side=30) == score_preview(FIRE.scores[0], means.astype(np.float32))


def test_full_size_region_is_small() -> None:
    generator = np.random.default_rng(2)
    rps = np.repeat(
        np.repeat((10 ** generator.uniform(-3, 1, (300, 225))).astype(np.float32), 20, 0), 20, 1
    )
    rps[:, :900] = np.nan
    assert rps.shape == (6000, 4500)
    png = preview(rps)
    assert preview(rps) == png
    assert max(pixels(png).shape) <= 320
    assert len(png) <= 40_000, "incompressible noise is the worst case"


def test_region_without_data_is_transparent() -> None:
    assert not pixels(preview(np.full((700, 900), np.nan, np.float32)))[..., 3].any()


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 2, 2)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        preview(np.zeros(shape, np.float32))


def test_negative_risk_is_an_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        preview(np.full((2, 2), -0.5, np.float32))


@pytest.mark.parametrize("vision", VISION)
def test_palette_is_told_apart_with_any_colour_vision(vision: str) -> None:
    rgb = np.array([list(bytes.fromhex(hexadecimal[1:])) for hexadecimal in PALETTE]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    lightness = np.cbrt(seen @ [0.2126, 0.7152, 0.0722])
    assert all(lighter - darker > 0.02 for lighter, darker in pairwise(lightness[1:]))
    assert np.abs(np.cbrt(seen[0]) - np.cbrt(seen[1:])).max(axis=1).min() > 0.08


def test_map_page_has_the_same_palette() -> None:
    script = Path(ocr_assets.__file__).with_name("map_page") / "layers.js"
    colours = re.search(r"COLOURS = \[(.*?)\]", script.read_text(), re.DOTALL)
    assert colours is not None
    assert tuple(re.findall(r"#[0-9a-f]{6}", colours.group(1))) == PALETTE
