"""What changed between two versions: rasters and statistics, against values counted by hand."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

from ocr_assets.geoparquet import GeoParquetError
from ocr_assets.regions.compare import (
    CHANGES,
    DifferenceMap,
    Raster,
    by_variable,
    compare_rasters,
    compare_statistics,
    differing,
    summary,
)

NAN = np.float32(np.nan)
WINDOWS = {"y0_x0": (slice(0, 2), slice(0, 3)), "y0_x1": (slice(0, 2), slice(3, 5))}


def raster(values: list[list[float]], *regions: str, name: str = "rps_2011") -> Raster:
    array = xr.DataArray(np.array(values, np.float32), dims=("latitude", "longitude"))
    return Raster(xr.Dataset({name: array}), regions)


BEFORE = raster([[1, 2, NAN, 9, 9], [4, 5, 6, 9, 9]], "y0_x0")
AFTER = raster([[1, 4, 3, 8, 8], [NAN, 5, 2, 8, NAN]], "y0_x0", "y0_x1")


def test_pixels_are_counted_and_measured() -> None:
    tables = list(compare_rasters(BEFORE, AFTER, WINDOWS, ["rps_2011"]))
    # The second region is no region of the version before, although its store has older pixels.
    assert pa.concat_tables(tables).to_pylist() == [
        {
            "geography": "region",
            "place": "y0_x0",
            "variable": "rps_2011",
            "before": 3.5,
            "after": 3.0,
            "difference": -0.5,
            "compared": 4,
            "changed": 2,
            "added": 1,
            "removed": 1,
            "max_difference": 4.0,
        },
        {
            "geography": "region",
            "place": "y0_x1",
            "variable": "rps_2011",
            "before": None,
            "after": None,
            "difference": None,
            "compared": 0,
            "changed": 0,
            "added": 3,
            "removed": 0,
            "max_difference": None,
        },
    ]
    (found,) = by_variable(tables, ["rps_2011"])
    assert (found.geography, found.compared, found.changed) == ("pixel", 4, 2)
    assert (found.added, found.removed) == (4, 1)
    assert (found.mean_difference, found.max_difference, found.place) == (-0.5, 4.0, "y0_x0")
    assert found.differs


def test_the_mean_over_regions_weighs_pixels() -> None:
    before = raster([[0, 0, 0, 0, 0]] * 2, *WINDOWS)
    after = raster([[1, 1, 1, 6, 6]] * 2, *WINDOWS)
    (found,) = by_variable(compare_rasters(before, after, WINDOWS, ["rps_2011"]), ["rps_2011"])
    assert found.mean_difference == pytest.approx(3.0)
    assert (found.max_difference, found.place) == (6.0, "y0_x1")


def test_a_version_is_equal_to_itself() -> None:
    tables = list(compare_rasters(AFTER, AFTER, WINDOWS, ["rps_2011", "bp_2011"]))
    found, absent = by_variable(tables, ["rps_2011", "bp_2011"])
    assert (found.differs, found.compared, found.place) == (False, 8, "")
    assert (absent.compared, absent.mean_difference, absent.max_difference) == (0, None, None)
    assert differing(pa.concat_tables(tables)).num_rows == 0


def test_a_variable_that_only_one_version_has() -> None:
    other = raster([[1.0] * 5] * 2, *WINDOWS, name="bp_2011")
    (found,) = by_variable(compare_rasters(AFTER, other, WINDOWS, ["bp_2011"]), ["bp_2011"])
    assert (found.compared, found.added, found.removed) == (0, 10, 0)


def test_the_map_averages_blocks_across_regions() -> None:
    picture = DifferenceMap((2, 5), ["rps_2011"], max_side=3)
    assert picture.side == 2
    zero = raster([[0] * 5] * 2, *WINDOWS)
    after = raster([[1, 1, 4, 8, 6], [3, 3, 4, NAN, 2]], *WINDOWS)
    list(compare_rasters(zero, after, WINDOWS, ["rps_2011"], picture))
    # The middle block has pixels of both regions.
    np.testing.assert_allclose(picture.means("rps_2011"), [[2.0, 16 / 3, 4.0]])


def test_the_map_is_a_picture_and_always_the_same() -> None:
    drawn = []
    for sign in (1, -1, 1):
        picture = DifferenceMap((40, 60), ["rps_2011", "rps_2047"])
        values = np.full((40, 60), sign * 2.0)
        picture.add("rps_2011", (slice(0, 40), slice(0, 60)), values)
        drawn.append(picture.png("after minus before", (-106, 39, -105, 40)))
    assert drawn[0] == drawn[2]
    red, blue = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in drawn[:2])
    dark_red, dark_blue = (31, 0, 103), (97, 48, 5)  # blue, green, red: the ends of the colours
    for image, colour in ((red, dark_red), (blue, dark_blue)):
        assert (image == colour).all(axis=2).mean() > 0.05


def statistics(path: Path, codes: list[str], **columns: list[object]) -> Path:
    pq.write_table(pa.table({"GEOID": codes, **columns}), path)
    return path


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    nothing: list[list[int]] = [[0, 0, 0]]
    before = statistics(
        tmp_path / "a.parquet",
        ["08001", "08003", "08005"],
        NAME=["A", "B", "C"],
        building_count=[5, 6, 0],
        rps_2011_mean=[0.5, 1.0, None],
        hist=[[1, 0, 1], [0, 6, 0], *nothing],
    )
    after = statistics(
        tmp_path / "b.parquet",
        ["08001", "08005", "08007"],
        NAME=["A", "C", "D"],
        building_count=[5, 2, 3],
        rps_2011_mean=[0.25, 0.75, 0.1],
        hist=[[0, 0, 2], [2, 0, 0], [0, 3, 0]],
    )
    return before, after


def test_geographies_are_matched_by_code(tables: tuple[Path, Path]) -> None:
    found = dict(compare_statistics(*tables, "county"))
    assert list(found) == ["building_count", "rps_2011_mean", "hist"]
    means = found["rps_2011_mean"]
    assert means.schema == CHANGES
    assert means["place"].to_pylist() == ["08001", "08003", "08005", "08007"]
    assert means["before"].to_pylist() == [0.5, 1.0, None, None]
    assert means["after"].to_pylist() == [0.25, None, 0.75, 0.1]
    assert means["difference"].to_pylist() == [-0.25, None, None, None]
    told = summary(means, "county", "rps_2011_mean")
    assert (told.compared, told.changed, told.added, told.removed) == (1, 1, 2, 1)
    assert (told.mean_difference, told.max_difference, told.place) == (-0.25, 0.25, "08001")
    counts = summary(found["building_count"], "county", "building_count")
    assert (counts.compared, counts.changed, counts.place) == (2, 1, "08005")
    assert counts.mean_difference == 1.0
    # Of a histogram, the mean class: (0 + 2) / 2 before, 2 after; nothing has none.
    assert found["hist"]["before"].to_pylist() == [1.0, 1.0, None, None]
    assert found["hist"]["after"].to_pylist() == [2.0, None, 0.0, 1.0]
    assert differing(means).num_rows == 4


def test_a_table_without_codes_is_refused(tables: tuple[Path, Path], tmp_path: Path) -> None:
    pq.write_table(pa.table({"code": ["08001"]}), tmp_path / "bad.parquet")
    with pytest.raises(GeoParquetError, match="has no column 'GEOID'"):
        list(compare_statistics(tables[0], tmp_path / "bad.parquet", "county"))
