"""Tree cover of polygons over published tiles, against coverage computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from published_tiles import BLOCK, PublishedTiles, publish
from scipy import ndimage

from ocr_assets.tiles.product import PIXELS_PER_DEGREE
from ocr_assets.tiles.tree_cover import NODATA
from ocr_assets.tiles.zonal import (
    SHIFT,
    Polygons,
    classes_by_place,
    equal_area,
    majority_classes,
    measure,
    read_polygons,
    without_noise,
)
from ocr_assets.tiles.zonal_errors import Interval
from ocr_assets.tiles.zonal_table import SCHEMA, Lookup, write_table, zonal_statistics
from ocr_assets.vector import VectorFileError


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> PublishedTiles:
    return publish(tmp_path_factory.mktemp("tiles"))


def shapes(*geometry: Any) -> NDArray[np.object_]:
    array = np.empty(len(geometry), object)
    array[:] = geometry
    return array


def pixel_rectangle(
    tiles: PublishedTiles, top: float, left: float, bottom: float, right: float
) -> shapely.Polygon:
    """A rectangle from rows and columns of the world's pixels, which may be fractions."""
    box = tiles.box
    west, east = ((box.west + column) / PIXELS_PER_DEGREE for column in (left, right))
    south, north = ((box.north - row) / PIXELS_PER_DEGREE for row in (bottom, top))
    return shapely.box(west, south, east, north)


def quiet(tiles: PublishedTiles) -> NDArray[np.float64]:
    """The world without noise, NaN for no data."""
    values = np.where(tiles.percent == NODATA, 0, tiles.percent).astype(float)
    peak = ndimage.maximum_filter(values, 3, mode="constant")
    values[(peak < 30) | (values < 20)] = 0
    values[tiles.percent == NODATA] = np.nan
    return values


def expected_mean(
    tiles: PublishedTiles, top: float, left: float, bottom: float, right: float
) -> tuple[float, float]:
    """Mean and pixel count of a rectangle, weighted by coverage of at least 0.05."""
    values = quiet(tiles)
    rows, columns = (
        np.clip(np.minimum(np.arange(n) + 1, high) - np.maximum(np.arange(n), low), 0, 1)
        for n, low, high in zip(values.shape, (top, left), (bottom, right), strict=True)
    )
    coverage = np.outer(rows, columns)
    coverage[(coverage < 0.05) | np.isnan(values)] = 0
    return float(np.nansum(values * coverage) / coverage.sum()), float(coverage.sum())


RECTANGLES = [
    (200.0, 300.0, 260.0, 340.0),  # whole pixels in one tile
    (200.4, 300.3, 203.97, 306.02),  # slivers at the far edges do not count
    (550.25, 560.5, 700.75, 690.125),  # all four tiles
    (90.5, 40.0, 120.25, 90.75),  # with a hole without data
    (617.5, 100.0, 618.5, 101.0),  # half a pixel in each of two tiles
]


def test_means_are_weighted_by_coverage(tiles: PublishedTiles) -> None:
    polygons = shapes(*(pixel_rectangle(tiles, *r) for r in RECTANGLES))
    found = measure(polygons, tiles.paths, tiles.grid)
    expected = np.array([expected_mean(tiles, *r) for r in RECTANGLES])
    np.testing.assert_allclose(found.tree_cover, expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found.pixels, expected[:, 1], rtol=1e-5)
    assert [len(read) for read in found.tiles] == [1, 1, 4, 1, 2]
    assert found.missing == [[]] * 5
    hole = 300 / ((120.25 - 90.5) * 50.75)
    np.testing.assert_allclose(found.coverage, [1, 1, 1, 1 - hole, 1], atol=1e-4)


def test_polygons_are_moved_in_eight_directions(tiles: PublishedTiles) -> None:
    rectangle = RECTANGLES[2]
    found = measure(shapes(pixel_rectangle(tiles, *rectangle)), tiles.paths, tiles.grid)
    step = SHIFT * PIXELS_PER_DEGREE
    top, left, bottom, right = rectangle
    expected = [
        expected_mean(tiles, top - y * step, left + x * step, bottom - y * step, right + x * step)[
            0
        ]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if x or y
    ]
    np.testing.assert_allclose(found.shifted[0], expected, rtol=1e-5)
    assert np.std(expected) > 0.01


def test_noise_is_no_tree_cover() -> None:
    percent = np.array(
        [
            [25, 29, 0, 0, 0, 0],
            [0, 0, 0, 0, 21, 0],
            [0, 0, 0, 30, 19, NODATA],
            [0, 0, 0, 0, 0, 29],
        ],
        np.uint8,
    )
    assert without_noise(percent).tolist() == [
        [0, 0, 0, 0, 0, 0],  # no peak of 30 near
        [0, 0, 0, 0, 21, 0],  # beside a peak
        [0, 0, 0, 30, 0, NODATA],  # 19 is too low; no data stays and is no peak
        [0, 0, 0, 0, 0, 0],
    ]


def test_missing_tiles_are_told_for_each_polygon(tiles: PublishedTiles, tmp_path: Path) -> None:
    inside, across = (pixel_rectangle(tiles, *RECTANGLES[i]) for i in (0, 2))
    outside = shapely.box(0, 0, 0.01, 0.01)  # the sea off Ghana
    gone, broken = BLOCK[0], BLOCK[2]
    there = tiles.without(gone)
    there[broken] = tmp_path / "broken.tif"
    there[broken].write_bytes(b"II*\0 cut off")
    polygons = Polygons(
        ["a", "b", "c", "d", "e"],
        shapes(inside, across, outside, None, shapely.box(*shapely.centroid(inside).coords[0] * 2)),
        ["", "", "", "no geometry (empty)", ""],
    )
    polygons.geometry[4] = shapely.buffer(shapely.centroid(inside), 1e-6)
    table = zonal_statistics(polygons, 2023, there, tiles.grid)
    assert table["status"].to_pylist() == [
        "complete", "partial", "outside_grid", "unusable_geometry", "no_data",
    ]  # fmt: skip
    reason = table["reason"].to_pylist()
    assert reason[0] == ""
    assert reason[1].startswith(
        f"1 tile missing: {gone}; 1 tile unreadable: {broken}; tree cover is known for "
    )
    assert reason[3] == "no geometry (empty)"
    assert reason[4] == "smaller than a twentieth of a pixel"
    assert table["missing_tiles"].to_pylist() == ["", gone.key, "", "", ""]
    assert table["tiles"].to_pylist()[1] == f"{BLOCK[1]} {BLOCK[3]}"
    # The rows of the two tiles in the north, and their columns.
    assert table["coverage"][1].as_py() == pytest.approx((618 - 550.25) / 150.5, abs=1e-4)
    assert table["tree_cover"].to_pylist()[2:] == [None, None, None]
    assert table["error"].to_pylist()[2:] == [None, None, None]
    none = zonal_statistics(polygons, 2023, {}, tiles.grid)
    assert none["status"].to_pylist()[:2] == ["no_data", "no_data"]


def test_no_polygons_are_no_rows(tiles: PublishedTiles) -> None:
    table = zonal_statistics(Polygons([], shapes(), []), 2023, tiles.paths, tiles.grid)
    assert (table.num_rows, table.schema) == (0, SCHEMA)


def test_the_table_of_answers(tiles: PublishedTiles, tmp_path: Path) -> None:
    small, large = (pixel_rectangle(tiles, *RECTANGLES[i]) for i in (1, 2))
    polygons = Polygons(["s", "l"], shapes(small, large), ["", "geometry repaired"])
    intervals = {"forest": Interval(0.9, 0.95, 0.94, 0.96)}
    table = zonal_statistics(
        polygons, 2023, tiles.paths, tiles.grid, land_cover=Lookup(intervals, ["forest", "desert"])
    )
    first, second = table.to_pylist()
    assert first["polygon_id"] == "s"
    assert second["reason"] == "geometry repaired"
    cover = first["tree_cover"]
    assert first["tree_cover_ha"] == pytest.approx(cover / 100 * first["area_ha"])
    # About 3.57 x 5.72 pixels of 9.7 m x 9.95 m.
    assert first["area_ha"] == pytest.approx(0.199, rel=0.01)
    points = 3.6386 if cover <= 10 else 16.68 if cover <= 40 else 23.468
    assert first["small_site_error"] == pytest.approx(points / cover)
    assert second["small_site_error"] == 0
    assert first["lulc_error_lower"] == pytest.approx((0.95 - 0.94) / cover)
    assert first["lulc_error_upper"] == pytest.approx((0.96 - 0.9) / cover)
    below = np.sqrt((first["shift_error"] * cover / 2) ** 2 + (points / 2) ** 2 + 0.01**2)
    assert first["error_minus"] == pytest.approx(below)
    assert first["error_plus"] > first["error_minus"]
    assert first["error"] == pytest.approx((first["error_minus"] + first["error_plus"]) / 2)
    # What was not given is null, and said.
    assert first["terms_missing"] == "subregion"
    assert second["terms_missing"] == "lulc subregion"
    assert (second["lulc"], second["lulc_error_lower"], second["subregion"]) == (
        "desert", None, None,
    )  # fmt: skip
    assert all(name == name.lower() for name in table.column_names)

    write_table(table, tmp_path / "a.parquet", {"year": 2023})
    write_table(table, tmp_path / "b.parquet", {"year": 2023})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert geopandas.read_parquet(tmp_path / "a.parquet").crs.to_epsg() == 4326
    stored = pq.read_table(tmp_path / "a.parquet")
    assert stored.drop_columns(["bbox"]).equals(table.drop_columns(["bbox"]))
    write_table(table, tmp_path / "out" / "a.csv", {})
    plain = pyarrow.csv.read_csv(tmp_path / "out" / "a.csv")
    assert plain.column_names == SCHEMA.names[:-2]
    assert plain["tree_cover"].to_pylist() == table["tree_cover"].to_pylist()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.csv"]


def test_polygons_of_a_file_in_any_system(tiles: PublishedTiles, tmp_path: Path) -> None:
    polygons = [pixel_rectangle(tiles, *RECTANGLES[i]) for i in (0, 2)]
    frame = geopandas.GeoDataFrame(
        {"poly_id": ["a", "b"], "lulc": ["forest", None]}, geometry=polygons, crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "a.geojson")
    frame.to_crs("EPSG:32722").to_file(tmp_path / "a.gpkg")
    frame.to_crs("EPSG:32722").to_parquet(tmp_path / "a.parquet")
    expected = measure(shapes(*polygons), tiles.paths, tiles.grid).tree_cover
    for name in ("a.geojson", "a.gpkg", "a.parquet"):
        read = read_polygons(tmp_path / name, class_columns=["lulc"])
        assert read.ids == ["a", "b"]
        assert read.classes == {"lulc": ["forest", None]}
        found = measure(read.geometry, tiles.paths, tiles.grid).tree_cover
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(VectorFileError, match=r"none\.geojson"):
        read_polygons(tmp_path / "none.geojson")


def test_unusable_geometry_is_told_and_the_rest_is_answered(
    tiles: PublishedTiles, tmp_path: Path
) -> None:
    good = pixel_rectangle(tiles, *RECTANGLES[0])
    west, south, east, north = good.bounds
    bow = [[west, south], [east, north], [east, south], [west, north], [west, south]]
    features = [
        shapely.geometry.mapping(good),
        {"type": "Polygon", "coordinates": []},
        None,
        {"type": "Point", "coordinates": [west, south]},
        {"type": "Polygon", "coordinates": [bow]},
    ]
    path = tmp_path / "a.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "properties": {}, "geometry": geometry}
                    for geometry in features
                ],
            }
        )
    )
    polygons = read_polygons(path)
    assert polygons.ids == ["0", "1", "2", "3", "4"]
    table = zonal_statistics(polygons, 2023, tiles.paths, tiles.grid)
    assert table["status"].to_pylist() == [
        "complete", "unusable_geometry", "unusable_geometry", "unusable_geometry", "complete",
    ]  # fmt: skip
    reasons = table["reason"].to_pylist()
    assert "no geometry" in reasons[1]
    assert "no geometry" in reasons[2]
    assert "a point, not a polygon" in reasons[3]
    assert "repaired" in reasons[4]
    assert table["area_ha"][4].as_py() == pytest.approx(table["area_ha"][0].as_py() / 2, rel=1e-3)


def test_areas_are_those_on_the_ellipsoid() -> None:
    polygons = shapes(
        shapely.box(25, 60, 25.05, 60.02), None, shapely.box(-52.5, -13.2, -52.4, -13)
    )
    areas = equal_area(polygons)
    for index in (0, 2):
        true, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(polygons[index])
        # Mollweide is made for a sphere: two thirds of a percent at most.
        assert areas[index] == pytest.approx(abs(true) / 10_000, rel=7e-3)
    assert np.isnan(areas[1])


def test_classes_from_a_raster_and_from_regions(tmp_path: Path) -> None:
    values = np.zeros((10, 10), np.uint8)
    values[:, 5:] = 2
    with rasterio.open(
        tmp_path / "classes.tif", "w", driver="GTiff", width=10, height=10, count=1, dtype="uint8",
        crs="EPSG:4326", transform=rasterio.transform.from_origin(10, 10, 1, 1), nodata=255,
    ) as file:  # fmt: skip
        file.write(values, 1)
    polygons = shapes(
        shapely.box(13, 3, 16, 5), shapely.box(14, 3, 17, 5), None, shapely.box(50, 50, 51, 51)
    )
    assert majority_classes(polygons, tmp_path / "classes.tif") == ["0", "2", None, None]
    regions = shapes(shapely.box(10, 0, 15, 10), shapely.box(12, 0, 20, 10))
    assert classes_by_place(polygons, regions, ["west", "east"]) == ["west", "east", None, None]


def test_a_polygon_over_thousands_of_tiles(tiles: PublishedTiles) -> None:
    polygon = shapely.box(-54, -14, -51, -11)
    found = measure(shapes(polygon), tiles.paths, tiles.grid)
    assert len(found.tiles[0]) == 4
    assert len(found.missing[0]) > 2500
    assert len(set(found.missing[0])) == len(found.missing[0])
    assert found.tree_cover[0] == pytest.approx(np.nanmean(quiet(tiles)), rel=1e-6)
    assert found.coverage[0] == pytest.approx((1236**2 - 300) / (3 * PIXELS_PER_DEGREE) ** 2)
