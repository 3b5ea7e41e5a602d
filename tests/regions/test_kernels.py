"""Kernels: geometry against known values, and the bands in which they apply."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ocr_assets.regions.grid import CONUS, STEP, Window, row_latitude
from ocr_assets.regions.kernels import (
    BAND_ROWS,
    DIRECTIONS,
    Band,
    Kernel,
    haversine,
    kernel_bands,
    kernel_set,
    pixel_size,
    reach,
    upwind_mask,
)

FROM_WEST = ("W", "NW", "N", "NE", "E", "SE", "S", "SW")


def counts(order: tuple[str, ...], height: float, width: float) -> list[int]:
    return [int(upwind_mask(name, height, width, "published").sum()) for name in order]


def centre_of_mass(mask: np.ndarray) -> tuple[float, float]:
    rows, cols = np.nonzero(mask)
    return rows.mean() - 40, cols.mean() - 40


def test_haversine_known_distances() -> None:
    assert haversine(0, 0, 0, 1) == pytest.approx(111194.92664455889, rel=1e-12)
    assert haversine(0, 60, 1, 60) == pytest.approx(55596.934071140866, rel=1e-12)
    assert haversine(-100, 38, -99.9997, 38) == pytest.approx(26.286839381866635, rel=1e-9)
    assert haversine(-100, 38, -100, 38.0003) == pytest.approx(33.35847799370506, rel=1e-9)


@pytest.mark.parametrize(
    ("latitude", "expected"),
    [
        (24, [232, 228, 225, 229, 231, 229, 225, 229]),
        (30, [246, 243, 244, 243, 246, 243, 244, 242]),
        (38, [268, 265, 260, 265, 268, 264, 261, 265]),
        (40, [276, 274, 270, 274, 276, 274, 270, 274]),
        (45, [296, 296, 296, 297, 296, 296, 296, 296]),
        (49, [323, 320, 322, 320, 323, 320, 322, 320]),
    ],
)
def test_published_pixel_counts_on_the_grid(latitude: int, expected: list[int]) -> None:
    assert counts(FROM_WEST, *pixel_size(latitude)) == expected


@pytest.mark.parametrize(
    ("order", "height", "width", "expected"),
    [
        (FROM_WEST, 33.35847799370506, 26.286839381866635, "282 281 277 281 283 282 277 281"),
        (DIRECTIONS, 25, 25, "396 392 396 392 396 394 396 392"),
        (DIRECTIONS, 34, 25, "290 286 292 286 290 287 292 286"),
    ],
)
def test_published_pixel_counts_of_other_pixels(
    order: tuple[str, ...], height: float, width: float, expected: str
) -> None:
    assert counts(order, height, width) == [int(number) for number in expected.split()]


def test_published_kernels_are_half_a_pixel_off() -> None:
    size = 33.35847799370506, 26.286839381866635
    west = centre_of_mass(upwind_mask("W", *size, "published"))
    east = centre_of_mass(upwind_mask("E", *size, "published"))
    assert west == pytest.approx((0.50, -3.74), abs=0.005)
    assert east == pytest.approx((0.49, 4.69), abs=0.005)


@pytest.mark.parametrize("latitude", [24, 30, 38, 45, 49])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_corrected_kernels_are_centred_110_m_upwind(latitude: int, direction: str) -> None:
    height, width = pixel_size(latitude)
    north = ("N" in direction) - ("S" in direction)
    east = ("E" in direction) - ("W" in direction)
    shift = 110 / math.hypot(north, east)
    rows, cols = centre_of_mass(upwind_mask(direction, height, width, "corrected"))
    assert rows * height == pytest.approx(north * shift, abs=7)
    assert cols * width == pytest.approx(east * shift, abs=7)


def test_corrected_kernels_of_opposite_winds_mirror_each_other() -> None:
    size = pixel_size(41)
    for one, other in (("N", "S"), ("E", "W"), ("NE", "SW"), ("NW", "SE")):
        mask = upwind_mask(one, *size, "corrected")
        assert np.array_equal(mask, upwind_mask(other, *size, "corrected")[::-1, ::-1])
    # The published ones do not, which is the fault of their axis.
    east = upwind_mask("E", *size, "published")
    assert not np.array_equal(east, upwind_mask("W", *size, "published")[::-1, ::-1])


def test_ellipse_has_its_true_area_only_when_corrected() -> None:
    area = {"corrected": 0.0, "published": 0.0}
    # Many pixel sizes, so that what whole pixels add to an ellipse or take away averages out.
    sizes = np.random.default_rng(0).uniform(25, 34, (200, 2))
    for height, width in sizes:
        for method in area:
            masks = (upwind_mask(name, height, width, method) for name in DIRECTIONS)  # type: ignore[arg-type]
            area[method] += sum(int(mask.sum()) for mask in masks) * height * width
    ellipses = math.pi * 400 * 200 * len(DIRECTIONS) * len(sizes)
    assert area["corrected"] / ellipses == pytest.approx(1, rel=0.001)
    assert area["published"] / ellipses == pytest.approx(1 / 1.0125**2, rel=0.001)


def test_bad_geometry_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="covers 1 pixels of 1000"):
        upwind_mask("N", 1000, 1000, "corrected")
    with pytest.raises(ValueError, match="wind direction 'NNE'"):
        upwind_mask("NNE", 34, 27, "corrected")
    with pytest.raises(ValueError, match="unknown method 'fast'"):
        upwind_mask("N", 34, 27, "fast")  # type: ignore[arg-type]
    mask = upwind_mask("N", 34, 27, "corrected")
    mask[40, 40] = False
    with pytest.raises(ValueError, match="not convex"):
        Kernel.from_mask(mask)


@pytest.mark.parametrize("method", ["corrected", "published"])
def test_runs_rebuild_the_mask(method: str) -> None:
    size = pixel_size(44)
    for name, kernel in zip(DIRECTIONS, kernel_set(44.0, method), strict=True):  # type: ignore[arg-type]
        mask = np.zeros((81, 81), bool)
        for line, first, last in kernel.runs + 40:
            index = np.s_[line, first : last + 1]
            (mask if kernel.along_rows else mask.T)[index] = True
        assert np.array_equal(mask, upwind_mask(name, *size, method))  # type: ignore[arg-type]
        assert len(kernel.runs) <= 20


def spans(bands: list[Band]) -> list[tuple[int, int]]:
    return [(band.row_start, band.row_stop) for band in bands]


def test_bands_depend_on_absolute_rows_only() -> None:
    rows = Window(54_200, 55_400, 0, 10)
    whole = list(kernel_bands(rows, rows, "corrected"))
    assert spans(whole) == [(54_200, 54_272), (54_272, 54_784), (54_784, 55_296), (55_296, 55_400)]
    part = Window(54_700, 54_800, 500, 600)
    cut = list(kernel_bands(part, part, "corrected"))
    assert spans(cut) == [(54_700, 54_784), (54_784, 54_800)]
    assert cut[0].kernels is whole[1].kernels
    assert cut[1].kernels is whole[2].kernels


def test_pixels_hardly_change_within_a_band() -> None:
    for start in range(0, 97_579, BAND_ROWS):
        south, middle, north = (
            pixel_size(float(row_latitude(start) + rows * STEP))[1]
            for rows in (0, (BAND_ROWS - 1) / 2, BAND_ROWS - 1)
        )
        reach_in_pixels = 510 / north
        assert reach_in_pixels < 25
        assert max(south / middle - 1, 1 - north / middle) * reach_in_pixels < 0.05


def test_published_region_has_one_kernel_set_of_its_buffered_centre() -> None:
    window = CONUS.region_window("y9_x16")
    (band,) = kernel_bands(window, window, "published")
    assert spans([band]) == [(window.row_start, window.row_stop)]
    centre = window.row_start - 487 + (6000 + 2 * 487) // 2
    assert band.kernels is kernel_set(float(row_latitude(centre)), "published")
    edge = CONUS.region_window("y0_x3")
    (cut,) = kernel_bands(edge, edge, "published")
    assert cut.kernels is kernel_set(float(row_latitude((6000 + 487) // 2)), "published")


def test_every_row_of_the_grid_has_kernels() -> None:
    bands = list(kernel_bands(CONUS.window, CONUS.window, "corrected"))
    assert bands[0].row_start == 0
    assert bands[-1].row_stop == 97_579
    rows, cols = reach(bands)
    assert (rows, cols) == (3 * 14, 3 * 24)
