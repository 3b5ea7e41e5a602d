"""Seams: steps at the border of two regions that the field itself does not have.

Belongs here: measuring such a step from the pixels beside a border. Does not belong here: reading
them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ocr_assets.regions.grid import RegionGrid, Window

LIMIT = 2.0
"""Largest step across a border, as a multiple of the steps beside it, that is not a seam."""


def borders(grid: RegionGrid, region_ids: set[str]) -> Iterator[tuple[str, str, Window]]:
    """Pairs of neighbours in ``region_ids``, with the four pixel lines around their border.

    The window has four rows for a border that runs east-west, four columns for the other kind:
    two on either side.
    """
    for region_id in grid.valid:
        if region_id not in region_ids:
            continue
        iy, ix = (int(part[1:]) for part in region_id.split("_"))
        window = grid.region_window(region_id)
        north, east = f"y{iy + 1}_x{ix}", f"y{iy}_x{ix + 1}"
        if north in region_ids:
            row = window.row_stop
            yield region_id, north, Window(row - 2, row + 2, window.col_start, window.col_stop)
        if east in region_ids:
            col = window.col_stop
            yield region_id, east, Window(window.row_start, window.row_stop, col - 2, col + 2)


def seam_ratio(strip: NDArray[np.float32]) -> float:
    """Mean step across a border, relative to the larger of the mean steps on either side of it.

    Args:
        strip: values in the window of :func:`borders`, shape ``(4, n)`` or ``(n, 4)``; NaN is left
            out.

    Returns:
        About 1 for a field that is as smooth across the border as beside it; 0 where there is
        nothing to compare.
    """
    lines = np.asarray(strip, np.float64)
    if lines.shape[0] != 4:
        lines = lines.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a line without any value
        before, across, after = np.nanmean(np.abs(np.diff(lines, axis=0)), axis=1)
    beside = np.nanmax([before, after, 0.0])
    if not across > 0:
        return 0.0
    return float(across / beside) if beside > 0 else float("inf")
