"""Region risk: the published chain, the seams of the corrected one, scores and bad input."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer

from ocr_assets.regions.grid import CONUS, CONUS_WINDOW, CRS, Window
from ocr_assets.regions.kernels import (
    BAND_ROWS,
    DIRECTIONS,
    Method,
    kernel_bands,
    pixel_size,
    upwind_mask,
)
from ocr_assets.regions.resample import RasterError, SourceRaster, nearest, nearest_cells
from ocr_assets.regions.risk import (
    CLIMATES,
    NO_SCORE,
    SCORE_EDGES,
    VARIABLES,
    EmptyRegionError,
    RegionInputs,
    halo,
    region_risk,
    risk_score,
)

WRF = "+proj=lcc +lat_1=30 +lat_2=50 +lat_0=39.1 +lon_0=-97.9 +a=6370000 +b=6370000 +units=m"
BORDER = 73 * BAND_ROWS
"""A row (33.9 N) where one band of kernels ends and the next begins.

Here the kernels change much: also those of single rows, 40 rows south and north of it.
"""


def raster(
    window: Window, crs: str, step: float, rng: np.random.Generator, bands: int | None
) -> SourceRaster:
    project = Transformer.from_crs(CRS, crs, always_xy=True)
    west, south, east, north = project.transform_bounds(*window.bounds, densify_pts=21)
    x = np.arange(np.floor(west / step) - 3, np.ceil(east / step) + 3) * step
    y = np.arange(np.ceil(north / step) + 3, np.floor(south / step) - 3, -1) * step
    values = rng.random((y.size, x.size, *((bands,) if bands else ()))).astype(np.float32)
    return SourceRaster(values, x, y, crs)


def synthetic_inputs(window: Window, seed: int = 0, margin: int = 100) -> RegionInputs:
    """Synthetic inputs with patches that do not burn, missing cells and cells without wind."""
    rng = np.random.default_rng(seed)
    around = window.buffer(margin, margin, CONUS_WINDOW)
    burning = {}
    for climate in CLIMATES:
        source = raster(around, "EPSG:5070", 270.0, rng, None)
        source.values[:] *= 0.05
        source.values[rng.random(source.values.shape) < 0.25] = 0
        rows, cols = source.values.shape
        source.values[rows // 2 : rows // 2 + 9, cols // 3 : cols // 3 + 14] = 0
        # Two cells wide, or the gap would be filled.
        for row, col in rng.integers(0, (rows - 1, cols - 1), (rows * cols // 150, 2)):
            source.values[row : row + 2, col : col + 2] = np.nan
        burning[climate] = source
    wind = raster(around, WRF, 4000.0, rng, 8)
    return RegionInputs(
        burn_probability_270m=burning,
        burn_probability_30m={
            climate: rng.random(window.shape).astype(np.float32) for climate in CLIMATES
        },
        conditional_risk=rng.uniform(0, 5, window.shape).astype(np.float32),
        risk_to_structures=rng.uniform(0, 1, window.shape).astype(np.float32),
        wind_direction_distribution=wind,
    )


def cut(source: SourceRaster, window: Window, cells: int) -> SourceRaster:
    """The piece of a raster under a window, with some cells around."""
    row, col = np.divmod(nearest_cells(source, window), source.x.size)
    y = slice(max(row.min() - cells, 0), row.max() + cells + 1)
    x = slice(max(col.min() - cells, 0), col.max() + cells + 1)
    return SourceRaster(source.values[y, x].copy(), source.x[x], source.y[y], source.crs)


def cut_inputs(inputs: RegionInputs, window: Window, part: Window) -> RegionInputs:
    """Exactly what a region may ask for: its halo and two cells."""
    view = part.slices_in(window)
    around = part.buffer(*halo(part, "corrected"))
    return RegionInputs(
        burn_probability_270m={
            climate: cut(source, around, 2)
            for climate, source in inputs.burn_probability_270m.items()
        },
        burn_probability_30m={
            climate: values[view] for climate, values in inputs.burn_probability_30m.items()
        },
        conditional_risk=inputs.conditional_risk[view],
        risk_to_structures=inputs.risk_to_structures[view],
        wind_direction_distribution=cut(inputs.wind_direction_distribution, around, 2),
    )


def test_variables_are_the_store_s() -> None:
    window = Window(BORDER - 40, BORDER + 30, 72_000, 72_090)
    inputs = synthetic_inputs(window)
    risk = region_risk(inputs, window)
    assert tuple(risk) == VARIABLES
    for values in risk.values():
        assert values.dtype == np.float32
        assert values.shape == window.shape
    assert np.array_equal(risk["rps_scott"], inputs.risk_to_structures)
    assert np.array_equal(risk["crps_scott"], inputs.conditional_risk)
    for climate in CLIMATES:
        bp = risk[f"bp_{climate}"]
        assert 0 <= np.nanmin(bp) <= np.nanmax(bp) <= 0.05
        assert np.array_equal(risk[f"rps_{climate}"], bp * risk["crps_scott"], equal_nan=True)
        assert np.array_equal(risk[f"bp_{climate}_riley"], inputs.burn_probability_30m[climate])
    assert not np.array_equal(risk["bp_2011"], risk["bp_2047"], equal_nan=True)


def plain_burn_probability(
    inputs: RegionInputs, climate: int, window: Window
) -> NDArray[np.float32]:
    """The published chain written plainly with OpenCV, over the window widened by 0.15 degrees."""
    source = inputs.burn_probability_270m[climate]
    values = source.values
    filled = values.copy()
    for y in range(1, values.shape[0] - 1):
        for x in range(1, values.shape[1] - 1):
            rook = values[[y - 1, y + 1, y, y], [x, x, x - 1, x + 1]]
            if not values[y, x] > 0 and (rook > 0).all():
                filled[y, x] = np.nanmean(values[y - 1 : y + 2, x - 1 : x + 2])
    buffered = window.buffer(487, 487, CONUS_WINDOW)
    bp = nearest(SourceRaster(filled, source.x, source.y, source.crs), buffered)
    wind = inputs.wind_direction_distribution
    cells = nearest_cells(wind, buffered)
    distribution = wind.values.reshape(-1, 8)[cells].astype(np.float32)
    distribution /= distribution.sum(axis=-1, keepdims=True)
    size = pixel_size(float(buffered.latitude[buffered.shape[0] // 2]))
    composite = np.zeros(bp.shape, np.float32)
    for direction, name in enumerate(DIRECTIONS):
        mask = upwind_mask(name, *size, "published").astype(np.float32)
        kernel = (mask / mask.sum()).astype(np.float64)
        array = np.nan_to_num(bp)
        for _ in range(3):
            share, total = (
                cv2.filter2D(
                    part.astype(np.float64), cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101
                )
                for part in (array > 0, array)
            )
            share[share < 1e-11] = total[total < 1e-11] = 0
            array = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
            array = array.astype(np.float32)
        composite += distribution[..., direction] * array
    combined = np.where(bp == 0, composite, bp).astype(np.float32)
    smoothed = cv2.GaussianBlur(combined, (17, 17), 0, borderType=cv2.BORDER_REFLECT_101)
    return smoothed[window.slices_in(buffered)]


def test_published_method_reproduces_the_plain_chain() -> None:
    window = Window(BORDER - 45, BORDER + 25, 72_000, 72_080)
    inputs = synthetic_inputs(window, margin=500)
    expected = plain_burn_probability(inputs, 2011, window)
    found = region_risk(inputs, window, "published")
    assert 0 < np.isnan(expected).mean() < 0.9
    assert (nearest(inputs.burn_probability_270m[2011], window) == 0).mean() > 0.1
    np.testing.assert_allclose(found["bp_2011"], expected, rtol=1e-6)
    corrected = region_risk(inputs, window, "corrected")
    assert not np.allclose(corrected["bp_2011"], expected, rtol=1e-3, equal_nan=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(20, 120), st.integers(20, 130))
def test_one_window_equals_the_mosaic_of_its_parts(row: int, col: int) -> None:
    # The window crosses a border between bands of kernels, and so do some of the parts.
    window = Window(BORDER - 61, BORDER + 79, 72_000, 72_150)
    south, north = kernel_bands(window, window, "corrected")
    assert any(
        not np.array_equal(one.runs, other.runs)
        for one, other in zip(south.kernels, north.kernels, strict=True)
    )
    inputs = synthetic_inputs(window)
    whole = region_risk(inputs, window)
    for top, bottom in pairwise((0, row, 140)):
        for left, right in pairwise((0, col, 150)):
            part = Window(
                window.row_start + top,
                window.row_start + bottom,
                window.col_start + left,
                window.col_start + right,
            )
            found = region_risk(cut_inputs(inputs, window, part), part)
            for name, values in found.items():
                expected = whole[name][top:bottom, left:right]
                assert np.array_equal(values, expected, equal_nan=True), (name, part)


def test_edge_of_the_grid_is_mirrored() -> None:
    window = Window(0, 60, 0, 70)
    inputs = synthetic_inputs(window)
    risk = region_risk(inputs, window)
    assert np.isfinite(risk["bp_2011"]).any()
    part = Window(0, 60, 20, 70)
    found = region_risk(cut_inputs(inputs, window, part), part)
    assert np.array_equal(found["bp_2011"], risk["bp_2011"][:, 20:], equal_nan=True)


@pytest.mark.parametrize("method", ["corrected", "published"])
def test_halo_is_the_true_reach(method: Method) -> None:
    rows, cols = halo(CONUS.region_window("y14_x5"), method)
    assert (rows, cols) == {"corrected": (50, 77), "published": (53, 74)}[method]
    assert halo(CONUS.region_window("y1_x21"), method)[1] < cols


def test_nothing_beyond_the_halo_matters() -> None:
    window = Window(BORDER - 30, BORDER + 40, 72_000, 72_060)
    inputs = synthetic_inputs(window, margin=300)
    found = region_risk(cut_inputs(inputs, window, window), window)
    expected = region_risk(inputs, window)
    for name in VARIABLES:
        assert np.array_equal(found[name], expected[name], equal_nan=True)


def test_no_wind_over_what_does_not_burn_is_missing_and_widened_by_the_blur() -> None:
    window = Window(BORDER, BORDER + 60, 72_000, 72_060)
    inputs = synthetic_inputs(window)
    for source in inputs.burn_probability_270m.values():
        source.values[:] = 0.01
    around = window.buffer(100, 100)
    cells = nearest_cells(inputs.burn_probability_270m[2011], around)
    row, col = np.divmod(cells[130, 130], inputs.burn_probability_270m[2011].x.size)
    inputs.burn_probability_270m[2011].values[row - 2 : row + 3, col - 2 : col + 3] = 0
    calm = replace(
        inputs.wind_direction_distribution,
        values=np.zeros_like(inputs.wind_direction_distribution.values),
    )
    bp = region_risk(replace(inputs, wind_direction_distribution=calm), window)
    zero = (nearest(inputs.burn_probability_270m[2011], around) == 0).astype(np.uint8)
    widened = cv2.dilate(zero, np.ones((17, 17), np.uint8))[100:160, 100:160] == 1
    assert np.array_equal(np.isnan(bp["bp_2011"]), widened)
    assert not np.isnan(bp["bp_2047"]).any()


def with_bp(inputs: RegionInputs, value: float, index: Any = ...) -> RegionInputs:
    source = inputs.burn_probability_270m[2047]
    values = source.values.copy()
    values[index] = value
    rasters = {**inputs.burn_probability_270m, 2047: replace(source, values=values)}
    return replace(inputs, burn_probability_270m=rasters)


def test_bad_inputs_are_named() -> None:
    window = Window(54_000, 54_040, 72_000, 72_030)
    inputs = synthetic_inputs(window)
    wind = inputs.wind_direction_distribution
    negative = wind.values.copy()
    negative[1, 0, 4] = -1
    cases: list[tuple[RegionInputs, type[ValueError], str]] = [
        (with_bp(inputs, np.nan), EmptyRegionError, "270 m burn probability of 2047 has no value"),
        (with_bp(inputs, 1.5, (3, 4)), RasterError, r"of 2047 is 1.5 at cell \(3, 4\)"),
        (with_bp(inputs, -0.1, (0, 0)), RasterError, r"of 2047 is -0.1 at cell \(0, 0\)"),
        (
            replace(inputs, wind_direction_distribution=replace(wind, values=negative)),
            ValueError,
            r"cell \(1, 0\), direction 4, is negative",
        ),
        (
            replace(inputs, wind_direction_distribution=replace(wind, values=wind.values[..., 0])),
            RasterError,
            "wind-direction distribution has shape",
        ),
        (
            replace(inputs, burn_probability_270m={2011: inputs.burn_probability_270m[2011]}),
            RasterError,
            r"burn probability of 2047 is missing, found \[2011\]",
        ),
        (
            replace(inputs, conditional_risk=inputs.conditional_risk[1:]),
            RasterError,
            r"conditional risk has shape \(39, 30\), its window has \(40, 30\)",
        ),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=message):
            region_risk(wrong, window)
    with pytest.raises(ValueError, match="unknown method"):
        region_risk(inputs, window, "fast")  # type: ignore[arg-type]


def histogram(rps: list[float], method: Method) -> list[int]:
    scores = risk_score(np.array(rps), method)
    return np.bincount(scores[scores != NO_SCORE], minlength=11).tolist()


def test_published_scores_take_their_upper_edge() -> None:
    assert histogram(list(SCORE_EDGES), "published") == [0] + [1] * 10
    assert histogram([0.005, 0.015, 3.5, 150], "published") == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert histogram([0, 0, 0], "published") == [3] + [0] * 10
    above = np.nextafter(np.float32(0.01), np.float32(1))
    assert risk_score(np.array([0.01, above], np.float32), "published").tolist() == [1, 2]


def test_corrected_scores_take_their_lower_edge_and_have_no_upper_end() -> None:
    assert histogram(list(SCORE_EDGES), "corrected") == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    assert histogram([0.005, 0.015, 3.5, 150], "corrected") == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    below = np.nextafter(np.float32(0.01), np.float32(0))
    assert risk_score(np.array([below, 0.01, 0.02], np.float32)).tolist() == [1, 2, 3]
    assert risk_score(np.array([0.0, 1e-30, np.inf])).tolist() == [0, 1, 10]


@pytest.mark.parametrize("method", ["corrected", "published"])
def test_missing_and_negative_risk(method: Method) -> None:
    scores = risk_score(np.array([[np.nan, 0], [0.3, 0.6]], np.float32), method)
    assert scores.dtype == np.uint8
    assert scores.tolist() == [[NO_SCORE, 0], [7, 8]]
    with pytest.raises(ValueError, match="negative"):
        risk_score(np.array([-0.1]), method)
