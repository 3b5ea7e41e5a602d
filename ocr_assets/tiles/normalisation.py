"""Channels of the feature cube, and their scaling for a network.

Belongs here: the order of the channels, the ranges that tree-cover networks are trained with, and
the scaling to -1..1. Does not belong here: computing the channels.

The ranges are those of the published tree-cover network, part of its contract.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHANNELS = (
    "B2", "B3", "B4", "B8", "B5", "B6", "B7", "B8A", "B11", "B12",
    "slope", "VV", "VH", "EVI", "BI", "MSAVI2", "GRNDVI",
)  # fmt: skip
"""Bands of Sentinel-2 (reflectance), slope (of 90 degrees), Sentinel-1 (scaled dB), indices."""

FRAMES = 5
"""Four quarters of the year, then the median of the year."""

MEDIAN_FRAME = 4

MINIMUM: NDArray[np.float64] = np.array([
    0.006576638437476157, 0.0162050812542916, 0.010040436408026246, 0.013351644159609368,
    0.01965362020294499, 0.014229037918669413, 0.015289539940489814, 0.011993591210803388,
    0.008239871824216068, 0.006546120393682765, 0.0, 0.0, 0.0, -0.1409399364817101,
    -0.4973397113668104, -0.09731556326714398, -0.7193834232943873,
])  # fmt: skip

MAXIMUM: NDArray[np.float64] = np.array([
    0.2691233691920348, 0.3740291447318227, 0.5171435111009385, 0.6027466239414053,
    0.5650263218127718, 0.5747005416952773, 0.5933928435187305, 0.6034943160143434,
    0.7472037842374304, 0.7000076295109483, 0.4, 0.948334642387533, 0.6729257769285485,
    0.8177635298774327, 0.35768999002433816, 0.7545951919107605, 0.7602693339366691,
])  # fmt: skip

_LOW, _HIGH = MINIMUM.astype(np.float32), MAXIMUM.astype(np.float32)
_MIDDLE = ((MINIMUM + MAXIMUM) / 2).astype(np.float32)
_HALF_RANGE = ((MAXIMUM - MINIMUM) / 2).astype(np.float32)


def normalise(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Clip each channel to its range and scale the range to -1..1.

    Args:
        features: ``[..., 17]`` in the order of :data:`CHANNELS`.
    """
    scaled = np.clip(features, _LOW, _HIGH).astype(np.float32, copy=False)
    scaled -= _MIDDLE
    scaled /= _HALF_RANGE
    return scaled
