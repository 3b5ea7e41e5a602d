"""How the lines of a block bow, as pages do near a spine, and undoing it.

Belongs here: the displacement of a block's lines, as one smooth field.
Does not belong here: the skew of a whole page, and which lines there are.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.profiles import strip_profiles, upper_edges

_LEVEL = 0.08
"""Letter sizes by which a line may stray and still count as level."""


_BOW_GAIN = 1.05
"""Energy of the straightened row profile against the level one from which a bow is believed."""


def bow(ink: NDArray[np.bool_], size: float) -> NDArray[np.float32] | None:
    """Vertical displacement of each pixel's line, or None where the lines run level.

    Strips of the block are correlated with strips further on; the shifts are the slopes of the
    lines there. A polynomial over the block, fitted to all slopes, is integrated along the lines.

    Args:
        ink: bool ``[h, w]`` of a levelled block.
        size: letter size in pixels.

    Returns:
        float32 ``[h, w]``: the line that has height y at the block's middle is at ``y + shift``.
    """
    height, width = ink.shape
    step = max(4, round(1.5 * size))
    count = width // step
    if count < 6 or height < 2 * size:
        return None
    profiles = strip_profiles(upper_edges(ink), count)
    blur = 0.06 * size + 0.5
    profiles = np.ascontiguousarray(cv2.GaussianBlur(profiles.T, (1, 0), 0.1, sigmaY=blur).T)
    ahead = 2
    reach = max(2, round(0.12 * ahead * step))
    bands = max(1, min(6, round(height / (5 * size))))
    xs, ys, slopes, weights = [], [], [], []
    edges = np.linspace(0, height, bands + 1).astype(int)
    for low, high in pairwise(edges):
        part = profiles[:, low:high]
        if high - low <= 2 * reach + 2:
            continue
        core = part[:-ahead, reach : high - low - reach]
        score = np.stack(
            [
                (core * part[ahead:, reach + s : high - low - reach + s]).sum(axis=1)
                for s in range(-reach, reach + 1)
            ]
        )
        best = np.clip(score.argmax(axis=0), 1, 2 * reach - 1)
        col = np.arange(score.shape[1])
        before, at, after = score[best - 1, col], score[best, col], score[best + 1, col]
        bend = np.maximum(1e-6, 2 * at - before - after)
        shift = best - reach + np.clip((after - before) / (2 * bend), -1, 1)
        norm = np.sqrt((core**2).sum(axis=1) * (part[ahead:] ** 2).sum(axis=1)) + 1e-6
        xs.append((col + (ahead + 1) / 2) / count * 2 - 1)
        ys.append(np.full(len(col), (low + high) / height - 1))
        slopes.append(shift / (ahead * step))
        weights.append(np.maximum(at, 0) / norm * np.sqrt(norm))
    if not xs:
        return None
    joined = [np.concatenate(part) for part in (xs, ys, slopes, weights)]
    shift = _integrate(joined[0], joined[1], joined[2], joined[3], width)
    if np.abs(shift).max() <= max(1.0, _LEVEL * size) or not _sharpens(profiles, shift):
        return None
    whole = cv2.resize(shift, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole, np.float32)


def _sharpens(profiles: NDArray[np.float32], shift: NDArray[np.float32]) -> bool:
    """Whether the displacements bring the upper edges of the strips to the same rows."""
    count, height = profiles.shape
    rows = np.arange(height, dtype=np.float32)
    moved = cv2.resize(shift, (count, height), interpolation=cv2.INTER_LINEAR).T
    straight = [np.interp(rows + by, rows, p) for p, by in zip(profiles, moved, strict=True)]
    energy = np.square(np.sum(straight, axis=0)).sum()
    return bool(energy > _BOW_GAIN * np.square(profiles.sum(axis=0)).sum())


def _integrate(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    slope: NDArray[np.float64],
    weight: NDArray[np.float64],
    width: int,
) -> NDArray[np.float32]:
    """Fit slopes by a polynomial (cubic in x, linear in y), robustly, and integrate along x.

    The displacements come on a coarse grid over the block: float32 ``[24, 96]``.
    """
    basis = np.stack([x**i * y**j for i in range(4) for j in range(2)], axis=1)
    weight = weight / (weight.mean() + 1e-9)
    for _ in range(5):
        gram = basis.T @ (basis * weight[:, None]) + 0.1 * np.eye(basis.shape[1])
        coefficients = np.linalg.solve(gram, basis.T @ (weight * slope))
        residual = np.abs(slope - basis @ coefficients)
        spread = max(0.002, float(np.median(residual)))
        weight = weight / (1 + (residual / (2 * spread)) ** 2)
    across, down = np.linspace(-1, 1, 96), np.linspace(-1, 1, 24)
    shift = np.zeros((24, 96))
    for order, coefficient in enumerate(coefficients):
        i, j = divmod(order, 2)
        shift += coefficient * width / 2 * np.outer(down**j, across ** (i + 1) / (i + 1))
    return shift.astype(np.float32)


def straightened(ink: NDArray[np.bool_], shift: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The block with the displacements of :func:`bow` undone."""
    height, width = ink.shape
    across = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    down = np.arange(height, dtype=np.float32)[:, None] + shift
    straight = cv2.remap(ink.view(np.uint8), across, down, cv2.INTER_NEAREST)
    return straight.view(np.bool_)
