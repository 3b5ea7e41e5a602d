"""Pictures of analysis-ready data, small enough to be looked at in a list.

Belongs here: turning terrain, radar and optical images into the bytes of a picture. Does not
belong here: showing or storing it.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocr_assets.tiles.ard import SCALE, Elevation, Sentinel1, Sentinel2

LONGEST_SIDE = 240

_SUN_AZIMUTH, _SUN_ALTITUDE = np.radians(315.0), np.radians(45.0)
_BRIGHTEST = 0.3
"""Reflectance that is shown as white, before the darker tones are lifted."""

_LIFT = 0.7
_DARKEST_DB, _RANGE_DB = -25.0, 20.0


def elevation_preview(value: Elevation) -> bytes:
    """PNG of the terrain as the evening sun would light it, height in colour."""
    step = _step(value.height)
    height = value.height[::step, ::step]
    pixel = abs(value.geobox.affine.a) * step
    down, right = np.gradient(height, pixel) if min(height.shape) > 1 else (0 * height,) * 2
    slope = np.arctan(np.hypot(right, down))
    aspect = np.arctan2(-right, down)
    light = np.sin(_SUN_ALTITUDE) * np.cos(slope)
    light = light + np.cos(_SUN_ALTITUDE) * np.sin(slope) * np.cos(_SUN_AZIMUTH - aspect)
    low, high = float(height.min()), float(height.max())
    share = (height - low) / max(high - low, 1.0)
    colours = np.stack([0.45 + 0.5 * share, 0.65 + 0.25 * share, 0.45 + 0.4 * share], axis=-1)
    return _png(colours * np.clip(light, 0, 1)[..., None] * 1.3)


def radar_preview(value: Sentinel1) -> bytes:
    """PNG of the first composite that has data: VV red, VH green, their ratio blue."""
    index = next((i for i, quarter in enumerate(value.quarters) if quarter.ok), 0)
    power = value.backscatter[index].astype(np.float32) / SCALE
    step = _step(power)
    decibels = 10 * np.log10(np.maximum(power[::step, ::step], 1 / SCALE))
    tones = (decibels - _DARKEST_DB) / _RANGE_DB
    ratio = (decibels[..., 0] - decibels[..., 1]) / _RANGE_DB
    tones = np.stack([tones[..., 0], tones[..., 1] + 0.25, ratio], axis=-1)
    return _png(np.where(power[::step, ::step, :1] > 0, tones, 0))


def optical_preview(value: Sentinel2) -> bytes:
    """PNG of the clearest image in natural colours."""
    index = int(np.argmin(value.clouds))
    step = _step(value.bands10[index])
    image = value.bands10[index, ::step, ::step, 2::-1].astype(np.float32)
    return _png(np.clip(image / (SCALE * _BRIGHTEST), 0, 1) ** _LIFT)


def _step(pixels: NDArray[np.generic]) -> int:
    return -(-max(pixels.shape[:2]) // LONGEST_SIDE)


def _png(tones: NDArray[np.float32]) -> bytes:
    """PNG of tones from 0 to 1, ``(h, w, 3)``."""
    file = BytesIO()
    Image.fromarray((np.clip(tones, 0, 1) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
