"""How well the built-in network tells surveyed forest from grassland and fields on real scenes.

FOLDER holds `reference_scenes.npy` (dates, rows, columns, 13 bands of Sentinel-2 as reflectance)
and `lulc.npy` (rows, columns, 1; 2 forest, 3 grassland, 1 cultivated), such as the example data of
eo-learn. Prints the area under the receiver operating characteristic for each date and for the
median of all dates, beside that of NDVI alone.

    python benchmarks/tile_baseline.py FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ocr_assets.tiles.networks import load_tree_cover
from ocr_assets.tiles.normalisation import CHANNELS
from ocr_assets.tiles.tree_cover import predict_tree_cover
from resources.inference import Inference

BANDS = (1, 2, 3, 7, 4, 5, 6, 8, 11, 12)
"""Of the 13, in the order of the feature cube."""

FOREST, OTHERS = 2, (3, 1)


def area_under_curve(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Share of pairs of a positive and a negative that ``score`` has in order."""
    ranks = stats.rankdata(score)
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))


def main() -> None:
    """Score every date and the median."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    if folder is None:
        print("skipped: give a folder with scenes and land cover")
        return
    scenes = np.load(folder / "reference_scenes.npy")
    classes = np.load(folder / "lulc.npy")[..., 0]
    surveyed = np.isin(classes, (FOREST, *OTHERS))
    forest = classes[surveyed] == FOREST
    print(f"{forest.sum()} pixels of forest, {(~forest).sum()} of grassland and fields")
    with tempfile.TemporaryDirectory(prefix="ocr-baseline-") as cache:
        network = load_tree_cover(None, Inference(Path(cache)))
        rows = [(f"date {index + 1}", scene) for index, scene in enumerate(scenes)]
        for name, scene in [*rows, ("median", np.median(scenes, axis=0))]:
            features = np.zeros((5, *classes.shape, len(CHANNELS)), np.float32)
            features[..., : len(BANDS)] = scene[..., list(BANDS)]
            percent = predict_tree_cover(features, network)
            ndvi = (scene[..., 7] - scene[..., 3]) / (scene[..., 7] + scene[..., 3])
            print(
                f"{name:8} {network.name} {area_under_curve(percent[surveyed], forest):.3f}   "
                f"NDVI {area_under_curve(ndvi[surveyed], forest):.3f}   "
                f"mean tree cover {percent[classes == FOREST].mean():.0f} % in forest, "
                f"{percent[classes == OTHERS[0]].mean():.0f} % in grassland"
            )


if __name__ == "__main__":
    main()
