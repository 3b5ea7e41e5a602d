"""Tiles of a page, and the mask put together from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ocr_assets.volumes.line_mask import line_mask
from ocr_assets.volumes.models import SegmentationModel

CLASSES = ("background", "image", "line", "margin", "caption")


def model(classes: tuple[str, ...] = ()) -> SegmentationModel:
    return SegmentationModel("m", Path("m.onnx"), "", 128, classes, "input", "output")


def ink_finder(classes: int, position: int):
    """A network that marks ink in the class at ``position``."""

    def network(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        assert tiles.shape[1:] == (3, 128, 128)
        scores = np.zeros((len(tiles), classes, 128, 128), np.float32)
        scores[:, position] = 15 - 30 * tiles.mean(axis=1)
        return scores

    return network


def bars(height: int, width: int) -> NDArray[np.uint8]:
    page = np.full((height, width), 220, np.uint8)
    page[40:52, 30 : width - 30] = 20
    page[height - 60 : height - 48, 30 : width // 2] = 20
    return page


@pytest.mark.parametrize("shape", [(512, 700), (600, 301), (1000, 1000)])
@pytest.mark.parametrize("classes", [(), CLASSES])
def test_mask_lies_where_the_ink_is(shape: tuple[int, int], classes: tuple[str, ...]) -> None:
    page = bars(*shape)
    position = classes.index("line") if classes else 0
    mask = line_mask(page, model(classes), ink_finder(len(classes) or 1, position))
    np.testing.assert_array_equal(mask, page < 100)


def test_another_class_is_no_line() -> None:
    mask = line_mask(bars(512, 700), model(CLASSES), ink_finder(5, CLASSES.index("margin")))
    assert not mask.any()


@pytest.mark.parametrize("shape", [(300, 6000), (3000, 1200), (200, 800)])
def test_pages_of_unusual_size_are_fitted_and_brought_back(shape: tuple[int, int]) -> None:
    page = bars(*shape)
    mask = line_mask(page, model(), ink_finder(1, 0))
    assert mask.shape == page.shape
    assert (mask != (page < 100)).mean() < 0.02
