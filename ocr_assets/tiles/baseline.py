"""Networks that the project brings itself, for use without published weights.

Belongs here: the definition of the built-in networks in code, and what their numbers come from.
Does not belong here: reading networks from files (``networks.py``), running them.

``baseline-greenness`` is no trained model. It asks of a pixel's median of the year what remote
sensing literature says of closed green canopies, and its answer is the weakest of the four:

| property | 0 % below | 100 % from | why |
|---|---|---|---|
| NDVI = (B8 - B4) / (B8 + B4) | 0.3 | 0.7 | sparse vegetation, dense vegetation |
| NDMI = (B8A - B11) / (B8A + B11) | 0.0 | 0.4 | no canopy water, closed canopy without stress |
| B12, reflectance at 2.2 um | 0.15 | 0.05 | limits of dark dense vegetation |
| B4, reflectance of red | 0.075 | 0.025 | half of those at 2.2 um |

The indices' ranges are those of their common legends (NDMI after Gao 1996,
doi:10.1016/S0034-4257(96)00067-3); dark dense vegetation and the ratio of red to 2.2 um are those
of aerosol retrieval (Kaufman et al. 1997, doi:10.1109/36.628795). Meadows and crops are as green
as a forest, but brighter; that is why greenness alone does not suffice. Nothing is fitted to any
data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from openvino import Model, Node, PartialShape, Type
from openvino import opset15 as ops

from ocr_assets.tiles.normalisation import CHANNELS, FRAMES, MAXIMUM, MEDIAN_FRAME, MINIMUM

GREENNESS = "baseline-greenness"
BILINEAR = "bilinear"

BORDER = 7
"""Pixels by which the answer is narrower than the input, on each side, as in the published one."""


@dataclass(frozen=True)
class Ramp:
    """Share of a property: 0 at ``low``, 1 at ``high``, linear between, also if it falls.

    ``bands`` are one reflectance, or two for their normalised difference.
    """

    bands: tuple[str, ...]
    low: float
    high: float


RANGES = (
    Ramp(("B8", "B4"), 0.3, 0.7),
    Ramp(("B8A", "B11"), 0.0, 0.4),
    Ramp(("B12",), 0.15, 0.05),
    Ramp(("B4",), 0.075, 0.025),
)
"""What :data:`GREENNESS` asks; the smallest share is the tree cover."""


def definition_hash(name: str) -> str:
    """SHA-256 of what decides the answer of a built-in network."""
    definition: dict[str, object] = {"name": name, "version": 1}
    if name == GREENNESS:
        definition["ranges"] = [asdict(ramp) for ramp in RANGES]
        definition["border"] = BORDER
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def greenness_model() -> Model:
    """:data:`GREENNESS` with the contract of the published tree-cover network.

    Input float32 ``[n, 5, h, w, 17]``, normalised; output ``[n, h - 14, w - 14, 1]``, 0 to 1. Each
    pixel is on its own, so that any size gives the same answer.
    """
    frames = ops.parameter(PartialShape([-1, FRAMES, -1, -1, len(CHANNELS)]), Type.f32)
    cropped = ops.slice(
        frames,
        _ints(MEDIAN_FRAME, BORDER, BORDER),
        _ints(MEDIAN_FRAME + 1, -BORDER, -BORDER),
        _ints(1, 1, 1),
        _ints(1, 2, 3),
    )
    median = ops.squeeze(cropped, _ints(1))
    cover = _share(median, RANGES[0])
    for ramp in RANGES[1:]:
        cover = ops.minimum(cover, _share(median, ramp))
    model = Model([cover], [frames], GREENNESS)
    model.inputs[0].set_names({"features"})
    model.outputs[0].set_names({"tree_cover"})
    return model


def bilinear_model() -> Model:
    """:data:`BILINEAR`, the contract of super-resolution with its second input as the answer.

    The six bands of 20 m stay as they were resampled to 10 m: smooth, true, and without detail.
    """
    bands = ops.parameter(PartialShape([-1, -1, -1, 10]), Type.f32)
    coarse = ops.parameter(PartialShape([-1, -1, -1, 6]), Type.f32)
    model = Model([ops.result(coarse)], [bands, coarse], BILINEAR)
    model.inputs[0].set_names({"bands"})
    model.inputs[1].set_names({"coarse"})
    return model


def _share(median: Node, ramp: Ramp) -> Node:
    values = [_reflectance(median, band) for band in ramp.bands]
    if len(values) == 2:
        first, second = values
        # Normalised reflectance has been clipped from below, so the sum is never near zero.
        value = ops.divide(ops.subtract(first, second), ops.add(first, second))
    else:
        value = values[0]
    scale = 1 / (ramp.high - ramp.low)
    return ops.clamp(ops.multiply(ops.subtract(value, _float(ramp.low)), _float(scale)), 0.0, 1.0)


def _reflectance(median: Node, band: str) -> Node:
    """A channel ``[n, h, w, 1]`` in its own unit again."""
    index = CHANNELS.index(band)
    channel = ops.slice(median, _ints(index), _ints(index + 1), _ints(1), _ints(3))
    half = (MAXIMUM[index] - MINIMUM[index]) / 2
    middle = (MAXIMUM[index] + MINIMUM[index]) / 2
    return ops.add(ops.multiply(channel, _float(half)), _float(middle))


def _float(value: float) -> Node:
    return ops.constant(np.float32(value))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int32))
