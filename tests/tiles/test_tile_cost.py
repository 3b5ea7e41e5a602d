"""What tiles cost."""

from __future__ import annotations

from typing import Any

import pytest

from ocr_assets.tiles.cost import LOADERS, PUBLISHED_SECONDS, estimate_cost


def dollars(*arguments: Any, **options: Any) -> float:
    return sum(one.dollars for one in estimate_cost(*arguments, **options))


def test_published_figures() -> None:
    assert dollars(dict.fromkeys(LOADERS, 1)) == pytest.approx(0.0056678)
    assert dollars({"tree_cover": 1}) == pytest.approx(0.0180036)
    assert dollars(dict.fromkeys(PUBLISHED_SECONDS, 1000)) == pytest.approx(5.6678 + 18.0036)
    assert dollars({}) == 0
    assert dollars(dict.fromkeys(LOADERS, 0)) == 0


def test_memory_is_that_of_the_loaders_and_a_prediction_has_its_own() -> None:
    assert dollars({"sentinel1": 1}, memory=2048) == pytest.approx(14 * 2 * 0.00001667)
    (prediction,) = estimate_cost({"tree_cover": 1}, memory=2048)
    assert (prediction.memory, prediction.dollars) == (6144, pytest.approx(0.0180036))
    assert estimate_cost({"tree_cover": 1}, memory=8192)[0].memory == 8192


def test_measured_seconds_take_the_place_of_published_ones() -> None:
    history = {"elevation": [2.0] * 19 + [22.0], "sentinel2": []}
    costs = estimate_cost({"sentinel2": 10, "elevation": 5}, history=history)
    elevation, sentinel2 = costs
    assert (elevation.source, elevation.tiles, elevation.measured) == ("elevation", 5, 20)
    assert (elevation.seconds, elevation.slow) == (3.0, pytest.approx(3.0))
    assert elevation.hours == pytest.approx(15 / 3600)
    assert elevation.dollars == pytest.approx(5 * 3 * 4 * 0.00001667)
    assert (sentinel2.seconds, sentinel2.measured, sentinel2.slow) == (62.0, 0, 62.0)


@pytest.mark.parametrize(
    ("tiles", "options", "message"),
    [
        ({"landsat": 1}, {}, "unknown source 'landsat'; there are elevation, sentinel1"),
        ({"elevation": -1}, {}, "cannot be priced"),
        ({"elevation": 1}, {"memory": 0}, "cannot be priced"),
        ({"elevation": 1}, {"history": {"elevation": [-1.0]}}, "are not times"),
        ({"elevation": 1}, {"history": {"elevation": [float("nan")]}}, "are not times"),
    ],
    ids=range(5),
)
def test_what_cannot_be_priced(
    tiles: dict[str, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_cost(tiles, **options)
