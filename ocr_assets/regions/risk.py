"""Wildfire risk of a region: from input rasters to the eight variables of the store.

Belongs here: the chain from burn probability and wind to risk to structures, what it needs around a
window, and the risk score.
Does not belong here: reading inputs, writing results, and the steps themselves (``resample``,
``kernels``, ``spread``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_assets.regions.grid import CONUS_WINDOW, Window
from ocr_assets.regions.kernels import DIRECTIONS, Method, kernel_bands, reach, require_method
from ocr_assets.regions.resample import (
    RasterError,
    SourceRaster,
    fill_gaps,
    nearest,
    nearest_cells,
)
from ocr_assets.regions.risk_type import NO_SCORE, EmptyRegionError
from ocr_assets.regions.spread import (
    SMOOTHING_RADIUS,
    fill_non_burnable,
    normalised_weights,
    smooth,
)

CLIMATES = (2011, 2047)
"""Years whose climate the burn probabilities stand for."""

VARIABLES = (
    "rps_scott",
    "rps_2011",
    "rps_2047",
    "bp_2011",
    "bp_2047",
    "crps_scott",
    "bp_2011_riley",
    "bp_2047_riley",
)
"""Variables of the store, in order; all float32."""

SCORE_EDGES = (0.01, 0.02, 0.035, 0.06, 0.1, 0.2, 0.5, 1.0, 3.0, 100.0)
"""Risk to structures, percent, that divides scores 1 to 10; compared as float32."""


@dataclass(frozen=True, eq=False)
class RegionInputs:
    """What one region is computed from; years are those of :data:`CLIMATES`.

    ``burn_probability_270m``: by year, in [0, 1], NaN where missing, over the region with
    :func:`halo` pixels and two more cells around it. ``burn_probability_30m``: by year, over the
    region, copied to the store. ``conditional_risk`` (CRPS) and ``risk_to_structures`` (published
    RPS): percent, over the region. ``wind_direction_distribution``: ``[y, x, 8]``, share of
    fire-weather hours by direction from N clockwise, over the region and its halo.
    """

    burn_probability_270m: dict[int, SourceRaster]
    burn_probability_30m: dict[int, NDArray[np.float32]]
    conditional_risk: NDArray[np.float32]
    risk_to_structures: NDArray[np.float32]
    wind_direction_distribution: SourceRaster


def halo(window: Window, method: Method) -> tuple[int, int]:
    """Pixel rows and columns around ``window`` on which its risk depends.

    The reach of three spread steps and of the smoothing. Rasters on another grid need two more of
    their own cells for the nearest-cell look-up and the filling of gaps.
    """
    smoothed = window.buffer(SMOOTHING_RADIUS, SMOOTHING_RADIUS, CONUS_WINDOW)
    rows, cols = reach(list(kernel_bands(smoothed, window, method)))
    return rows + SMOOTHING_RADIUS, cols + SMOOTHING_RADIUS


def region_risk(
    inputs: RegionInputs, window: Window, method: Method = "corrected"
) -> dict[str, NDArray[np.float32]]:
    """The :data:`VARIABLES` over ``window``, each float32 ``window.shape``.

    ``window`` must be the whole region under the published method, which takes its kernels from
    the region's centre. Under the corrected method any window gives the same pixels, bit for bit.
    ``bp_*`` are burn probabilities in [0, 1], with pixels of exactly zero filled by upwind spread
    and all pixels smoothed; ``rps_*`` (risk to structures) are ``bp * CRPS`` in percent.

    Raises RasterError for input of the wrong shape or range (a negative wind weight is one),
    ValueError for an unknown method, and EmptyRegionError if the window has no burn probability.
    """
    require_method(method)
    _check(inputs, window)
    weights = normalised_weights(inputs.wind_direction_distribution.values).reshape(-1, 8)
    smoothed = window.buffer(SMOOTHING_RADIUS, SMOOTHING_RADIUS, CONUS_WINDOW)
    cells = nearest_cells(inputs.wind_direction_distribution, smoothed)
    risk = {
        "rps_scott": np.asarray(inputs.risk_to_structures, np.float32),
        "crps_scott": np.asarray(inputs.conditional_risk, np.float32),
    }
    for climate in CLIMATES:
        resampled = _resampled(inputs.burn_probability_270m[climate], window, climate, method)
        risk[f"bp_{climate}"] = _wind_adjusted(resampled, window, method, weights, cells)
        risk[f"rps_{climate}"] = risk[f"bp_{climate}"] * risk["crps_scott"]
        risk[f"bp_{climate}_riley"] = np.asarray(inputs.burn_probability_30m[climate], np.float32)
    return {name: risk[name] for name in VARIABLES}


def risk_score(
    risk_to_structures: NDArray[np.floating[Any]], method: Method = "corrected"
) -> NDArray[np.uint8]:
    """Score 0 to 10 of a risk to structures in percent, uint8 of the same shape.

    0 is a risk of exactly zero; the others are divided by :data:`SCORE_EDGES`. Corrected: an edge
    belongs to the score above it, so 2 is [0.01, 0.02), and 10 has no upper end. Published: an edge
    belongs to the score below it, so 2 is (0.01, 0.02], and more than 100 has no score. What has no
    score, and NaN, is :data:`NO_SCORE`. Raises ValueError for a negative risk.
    """
    require_method(method)
    rps = np.asarray(risk_to_structures, np.float32)
    if (rps < 0).any():
        raise ValueError(
            f"risk to structures is negative ({np.nanmin(rps):g}): expected percent, 0 to 100"
        )
    edges = np.asarray(SCORE_EDGES, np.float32)
    if method == "published":
        score = np.searchsorted(edges, rps, side="left") + 1
        score = np.where(score > edges.size, NO_SCORE, score)
    else:
        score = np.searchsorted(edges[:-1], rps, side="right") + 1
    score = np.where(rps == 0, 0, score)
    return np.where(np.isnan(rps), NO_SCORE, score).astype(np.uint8)


def _check(inputs: RegionInputs, window: Window) -> None:
    """Everything that can be told from shapes and from the small rasters."""
    arrays = {"conditional risk": inputs.conditional_risk}
    arrays["risk to structures"] = inputs.risk_to_structures
    for climate in CLIMATES:
        for layers in (inputs.burn_probability_270m, inputs.burn_probability_30m):
            if climate not in layers:
                raise RasterError(
                    f"burn probability of {climate} is missing, found {sorted(layers)}"
                )
        arrays[f"30 m burn probability of {climate}"] = inputs.burn_probability_30m[climate]
        values = inputs.burn_probability_270m[climate].values
        if values.ndim != 2:
            raise RasterError(
                f"270 m burn probability of {climate} has shape {values.shape}, expected [y, x]"
            )
        if (wrong := (values < 0) | (values > 1)).any():
            cell = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise RasterError(
                f"270 m burn probability of {climate} is {values[cell]:g} at cell {cell}, "
                "expected 0 to 1, or NaN where missing"
            )
    for name, array in arrays.items():
        if array.shape != window.shape:
            raise RasterError(f"{name} has shape {array.shape}, its window has {window.shape}")
    wind = inputs.wind_direction_distribution.values
    if wind.ndim != 3 or wind.shape[2] != len(DIRECTIONS):
        raise RasterError(f"wind-direction distribution has shape {wind.shape}, expected [y, x, 8]")


def _resampled(
    raster: SourceRaster, window: Window, climate: int, method: Method
) -> NDArray[np.float32]:
    """Gap-filled burn probability on the pixels of ``window`` and its halo."""
    source = window.buffer(*halo(window, method), CONUS_WINDOW)
    filled = SourceRaster(fill_gaps(raster.values), raster.x, raster.y, raster.crs)
    resampled = nearest(filled, source)
    if np.isnan(resampled[window.slices_in(source)]).all():
        west, south, east, north = window.bounds
        raise EmptyRegionError(
            f"the 270 m burn probability of {climate} has no value in the region from "
            f"{west:.4f}, {south:.4f} to {east:.4f}, {north:.4f} degrees; "
            "leave it out of the valid regions or mend the raster"
        )
    return resampled


def _wind_adjusted(
    resampled: NDArray[np.float32],
    window: Window,
    method: Method,
    weights: NDArray[np.float32],
    cells: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Burn probability over ``window``, with spread into what does not burn, smoothed."""
    source = window.buffer(*halo(window, method), CONUS_WINDOW)
    smoothed = window.buffer(SMOOTHING_RADIUS, SMOOTHING_RADIUS, CONUS_WINDOW)
    top, left = source.row_start, source.col_start
    combined = np.empty(smoothed.shape, np.float32)
    for band in kernel_bands(smoothed, window, method):
        rows = slice(band.row_start - smoothed.row_start, band.row_stop - smoothed.row_start)
        combined[rows] = fill_non_burnable(
            resampled,
            (
                band.row_start - top,
                band.row_stop - top,
                smoothed.col_start - left,
                smoothed.col_stop - left,
            ),
            band.kernels,
            weights,
            cells[rows],
        )
    rows, cols = window.slices_in(smoothed)
    return smooth(combined, (rows.start, rows.stop, cols.start, cols.stop))
