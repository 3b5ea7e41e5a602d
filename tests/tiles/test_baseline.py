"""The built-in network: its ranges, its contract, and real scenes with surveyed land cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ocr_assets.tiles import baseline
from ocr_assets.tiles.networks import TreeCoverNetwork, load_tree_cover
from ocr_assets.tiles.normalisation import CHANNELS, normalise
from ocr_assets.tiles.tree_cover import (
    bare_ground_factor,
    predict_tree_cover,
    predict_whole,
    predict_windows,
)
from resources.inference import Inference

BANDS = dict(zip(CHANNELS[:10], (1, 2, 3, 7, 4, 5, 6, 8, 11, 12), strict=True))
"""Where the bands are among the 13 of a scene."""

FOREST, GRASSLAND, CULTIVATED = 2, 3, 1


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> TreeCoverNetwork:
    return load_tree_cover(None, Inference(tmp_path_factory.mktemp("inference")))


def answer(network: TreeCoverNetwork, **bands: float) -> float:
    """The answer to one spectrum."""
    features = np.zeros((5, 15, 15, 17), np.float32)
    for name, value in bands.items():
        # What other frames say does not matter.
        features[4, ..., CHANNELS.index(name)] = value
    return float(network(normalise(features)[None])[0, 0, 0])


CANOPY = {"B4": 0.024, "B8": 0.3, "B8A": 0.32, "B11": 0.12, "B12": 0.05}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1),
        ({"B4": 0.05}, 0.5),  # red is half way between 0.075 and 0.025
        ({"B12": 0.125}, 0.25),
        ({"B11": 0.32 * 9 / 11}, 0.25),  # NDMI 0.1
        ({"B8": 0.072}, 0.5),  # NDVI 0.5
        ({"B12": 0.2}, 0),
        ({"B4": 0.05, "B12": 0.125}, 0.25),  # the weakest counts
    ],
)
def test_each_range_can_decide(
    network: TreeCoverNetwork, changes: dict[str, float], expected: float
) -> None:
    assert answer(network, **{**CANOPY, **changes}) == pytest.approx(expected, abs=1e-3)


def test_the_hash_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    name = baseline.GREENNESS
    before = baseline.definition_hash(name)
    # It stays the same on every machine, and until the definition changes.
    assert before == "f3177c67d874accb174b89eb0b9471e4b4f945801ae317b95fa0f42a21ba9bcb"
    assert baseline.definition_hash(baseline.BILINEAR) != before
    other = (*baseline.RANGES[:3], baseline.Ramp(("B4",), 0.08, 0.025))
    monkeypatch.setattr(baseline, "RANGES", other)
    assert baseline.definition_hash(name) != before


def test_the_whole_tile_gives_what_windows_give(network: TreeCoverNetwork) -> None:
    rng = np.random.default_rng(3)
    features = rng.uniform(0, 0.3, (5, 250, 180, 17)).astype(np.float32)
    keep = bare_ground_factor(features)
    whole = np.round(predict_whole(features, network) * keep, 3)
    np.testing.assert_allclose(predict_windows(features, network, keep), whole, atol=2e-6)


def area_under_curve(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Of the receiver operating characteristic, by ranks."""
    ranks = stats.rankdata(score)
    count = int(positive.sum())
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum())


def frames(scene: NDArray[np.float32]) -> NDArray[np.float32]:
    """A cube of which every frame is the one scene, without radar and indices."""
    features = np.zeros((5, *scene.shape[:2], 17), np.float32)
    features[..., :10] = scene[..., list(BANDS.values())]
    return features


def test_surveyed_forest_stands_out_in_real_scenes(
    network: TreeCoverNetwork, shared_data: Path
) -> None:
    folder = shared_data / "tiles" / "slovenia"
    scenes = np.load(folder / "reference_scenes.npy")
    classes = np.load(folder / "lulc.npy")[..., 0]
    surveyed = np.isin(classes, (FOREST, GRASSLAND, CULTIVATED))
    forest = classes[surveyed] == FOREST

    def score(scene: NDArray[np.float32]) -> float:
        percent = predict_tree_cover(frames(scene), network)
        return area_under_curve(percent[surveyed].astype(float), forest)

    scores = [score(scene) for scene in scenes]
    # The first date is cloudy, the second hazy: no forest is to be seen.
    assert scores[0] == pytest.approx(0.5, abs=0.05)
    assert min(scores[2:]) > 0.85
    # Measured 0.97; nothing was fitted to these scenes.
    assert score(np.median(scenes, axis=0)) > 0.95


def test_surveyed_classes_lie_where_the_scenes_show_them(shared_data: Path) -> None:
    folder = shared_data / "tiles" / "slovenia"
    red_edge = np.load(folder / "reference_scenes.npy")[2:, :, :, 4].mean(axis=0)
    forest = np.load(folder / "lulc.npy")[..., 0] == FOREST
    turned = {"as it is": forest, "flipped": forest[::-1], "mirrored": forest[:, ::-1]}
    likeness = {
        name: abs(np.corrcoef(red_edge.ravel(), mask.ravel())[0, 1])
        for name, mask in turned.items()
    }
    assert likeness.pop("as it is") > 0.7 > 0.5 > max(likeness.values())
