"""How far a page is turned: skew in degrees, and which side is up.

Belongs here: estimates from the ink of a working page.
Does not belong here: the bow of single lines (:mod:`ocr_assets.volumes.baselines`).

A page of text levelled by the right angle has the sharpest row profile (Postl 1986). Tibetan
letters hang from a headline: the upper edges of a line are level, the lower ones are not. That
tells an upside-down page from an upright one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.profiles import lower_edges, strip_profiles, upper_edges

MAX_SKEW = 12.0
"""Degrees to both sides within which skew is looked for."""

_STRIPS = 96
_MIN_GAIN = 1.02
_SIDEWAYS = 1.3


def estimate_skew(ink: NDArray[np.bool_]) -> float:
    """Skew in degrees, positive where lines fall to the right; 0.0 where nothing tells.

    Args:
        ink: bool ``[h, w]``.
    """
    height, width = ink.shape
    if height < 32 or width < _STRIPS or not ink.any():
        return 0.0
    strips = strip_profiles(ink, _STRIPS)
    pitch = width // _STRIPS
    even = height // 2 * 2
    coarse = strips.reshape(_STRIPS // 4, 4, height)[:, :, :even].sum(axis=1)
    coarse = coarse.reshape(_STRIPS // 4, even // 2, 2).sum(axis=2)
    angle = _sharpest(coarse, 2 * pitch, np.arange(-MAX_SKEW, MAX_SKEW + 0.01, 0.5))
    angle = _sharpest(strips, pitch, angle + np.arange(-0.5, 0.51, 0.1))
    angle = _sharpest(strips, pitch, angle + np.arange(-0.08, 0.081, 0.02))
    gain = _sharpness(strips, pitch, angle) / max(1e-9, _sharpness(strips, pitch, 0.0))
    return angle if gain > _MIN_GAIN else 0.0


def quarter_turns(ink: NDArray[np.bool_], size: float) -> int:
    """Quarter turns anticlockwise that bring the lines of a page from upright to level: 0 or 1.

    Args:
        ink: bool ``[h, w]``, as it came.
        size: letter size in pixels.
    """
    sides = (ink, np.ascontiguousarray(ink.T))
    level, upright = (_edge_energy(side, size)[0] for side in sides)
    return 1 if upright > _SIDEWAYS * level else 0


def headline_contrast(ink: NDArray[np.bool_], size: float) -> float:
    """How much sharper the upper edges of lines are than the lower ones: a ratio, above 1 upright.

    Args:
        ink: bool ``[h, w]`` of a levelled page without rules.
        size: letter size in pixels.
    """
    upper, lower = _edge_energy(ink, size)
    return (upper + 1e-6) / (lower + 1e-6)


def _edge_energy(ink: NDArray[np.bool_], size: float) -> tuple[float, float]:
    """Energies of the row profiles of upper and of lower edges in strips of some letters' width."""
    count = max(1, min(ink.shape[1], round(ink.shape[1] / (8 * size))))
    energies = []
    for edges in (upper_edges(ink), lower_edges(ink)):
        profiles = strip_profiles(edges, count).T
        rows = cv2.GaussianBlur(profiles, (1, 0), 0.1, sigmaY=0.04 * size + 0.3)
        energies.append(float(np.square(rows).mean()))
    return energies[0], energies[1]


def _sharpness(strips: NDArray[np.float32], pitch: float, angle: float) -> float:
    """Energy of the steps of the row profile along lines at ``angle`` degrees.

    ``pitch`` is the distance of neighbouring strips in rows.
    """
    count, rows = strips.shape
    slope = np.tan(np.radians(angle)) * pitch
    shift = np.round(slope * (np.arange(count) - (count - 1) / 2)).astype(int)
    margin = int(np.abs(shift).max(initial=0))
    profile = np.zeros(rows + 2 * margin, np.float32)
    for strip, by in zip(strips, shift, strict=True):
        profile[margin - by : margin - by + rows] += strip
    return float(np.square(np.diff(profile)).sum())


def _sharpest(strips: NDArray[np.float32], pitch: float, angles: NDArray[np.float64]) -> float:
    return float(angles[int(np.argmax([_sharpness(strips, pitch, a) for a in angles]))])
