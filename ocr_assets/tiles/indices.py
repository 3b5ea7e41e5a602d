"""Indices of vegetation and bare ground from reflectance.

Belongs here: the four indices that tree-cover networks take, and normalised differences.
Does not belong here: their change over time.

All functions take reflectance in [0, 1] of any shape and return float32 of that shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ocr_assets.tiles.reflectance import B2, B3, B4, B8, B11

Reflectance = NDArray[np.float32]

_TINY = np.float32(1e-5)


def evi(blue: Reflectance, red: Reflectance, nir: Reflectance) -> NDArray[np.float32]:
    """Enhanced vegetation index ``2.5 (N - R) / (N + 6 R - 7.5 B + 1)``, limited to +-1.5.

    Huete et al. 2002, doi:10.1016/S0034-4257(02)00096-2.
    """
    divisor = nir + np.float32(6) * red - np.float32(7.5) * blue + np.float32(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        index = np.float32(2.5) * (nir - red) / divisor
    # Blue can make the divisor 0: infinite is limited like the rest, and 0 / 0 says nothing.
    return np.nan_to_num(np.clip(index, -1.5, 1.5), copy=False)


def bare_soil(
    blue: Reflectance, red: Reflectance, nir: Reflectance, swir: Reflectance
) -> NDArray[np.float32]:
    """Bare soil index ``((S + R) - (N + B)) / ((S + R) + (N + B) + 1e-5)``, limited to +-1."""
    ground, plants = swir + red, nir + blue
    return np.clip((ground - plants) / (ground + plants + _TINY), -1, 1)


def msavi2(red: Reflectance, nir: Reflectance) -> NDArray[np.float32]:
    """Modified soil-adjusted vegetation index, limited to +-1.

    ``(2 N + 1 - sqrt((2 N + 1)^2 - 8 (N - R))) / 2``; Qi et al. 1994,
    doi:10.1016/0034-4257(94)90134-1.
    """
    base = np.float32(2) * nir + np.float32(1)
    root = np.sqrt(np.maximum(base * base - np.float32(8) * (nir - red), np.float32(0)))
    return np.clip((base - root) / np.float32(2), -1, 1)


def grndvi(green: Reflectance, red: Reflectance, nir: Reflectance) -> NDArray[np.float32]:
    """Green-red normalised difference ``(N - (G + R)) / (N + G + R + 1e-5)``.

    Wang et al. 2007, doi:10.1016/S1672-6308(07)60027-4.
    """
    visible = green + red
    return np.divide(nir - visible, nir + visible + _TINY, dtype=np.float32)


INDICES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "EVI": lambda bands: evi(bands[B2], bands[B4], bands[B8]),
    "BI": lambda bands: bare_soil(bands[B2], bands[B4], bands[B8], bands[B11]),
    "MSAVI2": lambda bands: msavi2(bands[B4], bands[B8]),
    "GRNDVI": lambda bands: grndvi(bands[B3], bands[B4], bands[B8]),
}
"""Index of one date from its reflectance ``[10, H, W]``, by name, in the order of the features."""


def normalised_difference(first: Reflectance, second: Reflectance) -> NDArray[np.float32]:
    """``(first - second) / (first + second)``; 0 where both are 0."""
    total = first + second
    return np.divide(first - second, total, out=np.zeros_like(total), where=total != 0)


def snow(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much a date ``[10, H, W]`` looks like snow, 0..1.

    A ramp of ``(G - B11) / (G + B11)`` from 0.10 to 0.42; 0 where it is too dark or too red for
    snow, 1 where near infrared or blue are too bright for anything else.
    """
    ramp = (normalised_difference(bands[B3], bands[B11]) - np.float32(0.10)) / np.float32(0.32)
    share = np.clip(ramp, 0, 1)
    snowy = share > 0
    share[snowy & ((bands[B8] > 0.35) | (bands[B2] > 0.22))] = 1
    dark = (bands[B8] < 0.10) | (bands[B2] < 0.10) | (bands[B2] < 0.75 * bands[B4])
    share[dark] = 0
    return share
