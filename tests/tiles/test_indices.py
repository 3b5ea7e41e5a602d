"""Vegetation indices: known values and limits."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_assets.tiles.indices import (
    INDICES,
    bare_soil,
    evi,
    grndvi,
    msavi2,
    normalised_difference,
    snow,
)
from ocr_assets.tiles.reflectance import B2, B3, B4, B8, B11

PLANTS = {B2: 0.03, B3: 0.05, B4: 0.04, B8: 0.40, B11: 0.10}
KNOWN = {"EVI": 0.6360424, "BI": -0.508763, "MSAVI2": 0.6000001, "GRNDVI": 0.6326401}


def pixel(values: dict[int, float]) -> np.ndarray:
    bands = np.zeros((10, 1, 1), np.float32)
    for band, value in values.items():
        bands[band] = value
    return bands


@pytest.mark.parametrize("name", list(INDICES))
def test_known_values(name: str) -> None:
    assert INDICES[name](pixel(PLANTS))[0, 0] == pytest.approx(KNOWN[name], abs=2e-6)
    assert INDICES[name](pixel({}))[0, 0] == 0


def test_against_the_formulas_in_64_bits() -> None:
    values = np.random.default_rng(100).uniform(0.01, 0.5, (4, 16, 16, 10)).astype(np.float32)
    blue, green, red, nir = (values[..., i].astype(np.float64) for i in range(4))
    swir = values[..., 8].astype(np.float64)
    expected = {
        "EVI": np.clip(2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1), -1.5, 1.5),
        "BI": ((swir + red) - (nir + blue)) / ((swir + red) + (nir + blue) + 1e-5),
        "MSAVI2": (2 * nir + 1 - np.sqrt((2 * nir + 1) ** 2 - 8 * (nir - red))) / 2,
        "GRNDVI": (nir - (green + red)) / (nir + green + red + 1e-5),
    }
    cube = np.moveaxis(values, -1, 0)  # [band, date, row, col]
    for name, index in INDICES.items():
        found = index(cube)
        assert found.dtype == np.float32
        # The divisor of EVI passes near 0, where 32 bits lose digits.
        np.testing.assert_allclose(found, expected[name], rtol=2e-4, atol=1e-5)
    assert (np.abs(expected["EVI"]) == 1.5).any()


def test_limits() -> None:
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert evi(one, none, one)[0] == pytest.approx(2.5 / -5.5)
    # Blue brings the divisor of EVI to nought: infinite is limited, 0 / 0 says nothing.
    blue, nir = np.full(1, 0.2, np.float32), np.full(1, 0.5, np.float32)
    assert evi(blue, none, nir)[0] == 1.5
    assert evi(np.full(1, 0.6, np.float32), nir, nir)[0] == 0
    assert bare_soil(none, one, none, one)[0] == pytest.approx(1, abs=1e-5)
    assert msavi2(one, none)[0] == pytest.approx(-1)
    assert grndvi(one, one, none)[0] == pytest.approx(-1, abs=1e-5)
    assert normalised_difference(none, none)[0] == 0


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({B2: 0.15, B3: 0.26, B4: 0.15, B8: 0.20, B11: 0.13}, 0.729167),  # NDSI 1/3 in the ramp
        ({B2: 0.30, B3: 0.26, B4: 0.15, B8: 0.20, B11: 0.13}, 1),  # blue too bright for other
        ({B2: 0.15, B3: 0.26, B4: 0.15, B8: 0.09, B11: 0.13}, 0),  # dark in near infrared
        ({B2: 0.11, B3: 0.26, B4: 0.20, B8: 0.20, B11: 0.13}, 0),  # too red
        ({B2: 0.30, B3: 0.10, B4: 0.15, B8: 0.40, B11: 0.13}, 0),  # bright, but not in green
    ],
)
def test_snow(values: dict[int, float], share: float) -> None:
    assert snow(pixel(values))[0, 0] == pytest.approx(share, abs=1e-4)
