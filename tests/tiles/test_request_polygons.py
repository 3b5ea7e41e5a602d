"""Requests of polygons: any format and reference system, whole, broken, or around the Earth."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from ocr_assets.tiles import request_polygons, requests
from ocr_assets.tiles.grid import Tile, TileGrid
from ocr_assets.tiles.request_problems import ProblemLog, RequestError
from ocr_assets.tiles.request_rows import Request
from ocr_assets.tiles.requests import read_request
from ocr_assets.vector import CRSError, VectorFileError

GRID = TileGrid.load()
LATEST = 2026
SITES = [shapely.box(-52.53, -13.14, -52.52, -13.13), shapely.box(-54.5, 1.3, -54.4, 1.4)]
FRAME = geopandas.GeoDataFrame(
    {
        "poly_id": ["a", "b"],
        "plantstart_year": [2022, 2019],
        "plantstart": ["2024-03-01", "2018"],
        "project_id": ["one", "two"],
    },
    geometry=SITES,
    crs="EPSG:4326",
)
SUFFIXES = ["geojson", "gpkg", "shp", "parquet"]


def write(frame: geopandas.GeoDataFrame, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a Shapefile shortens names
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def geojson(path: Path, geometries: list[Any], **members: Any) -> Path:
    features = [
        {"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries
    ]
    path.write_text(
        json.dumps({"type": "FeatureCollection", "features": features, **members}, allow_nan=True)
    )
    return path


def polygon(*ring: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def rows(request: Request) -> list[tuple[int, Tile]]:
    return list(request)


def told(request: Request) -> list[tuple[str, str, str]]:
    return [(one.kind, one.subject, one.reason) for one in request.problems]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_tiles(tmp_path: Path, suffix: str) -> None:
    path = write(FRAME, tmp_path / f"sites.{suffix}")
    request = read_request(path, GRID, year=2024, latest=LATEST)
    expected = sorted({tile for site in SITES for tile in GRID.tiles_in(site)})
    assert rows(request) == [(2024, tile) for tile in expected]
    assert (request.entries, request.problems) == (2, ())


@pytest.mark.parametrize("crs", ["EPSG:32722", "EPSG:3857", "EPSG:5880", "EPSG:4674"])
@pytest.mark.parametrize("suffix", ["gpkg", "shp", "parquet"])
def test_other_reference_systems(tmp_path: Path, suffix: str, crs: str) -> None:
    path = write(FRAME[:1].to_crs(crs), tmp_path / f"sites.{suffix}")
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert rows(request) == [(2024, Tile(1035, 727))]


def test_long_edges_bend_when_they_are_reprojected() -> None:
    """Along a parallel of 500 km a straight line of Albers' projection departs by kilometres."""
    albers = pyproj.CRS("EPSG:5070")
    to_albers = pyproj.Transformer.from_crs(4326, albers, always_xy=True)
    corners = np.column_stack(to_albers.transform([-99.0, -93.0, -93.0, -99.0], [45, 45, 46, 46]))
    log = ProblemLog()
    (area,) = request_polygons.prepared(
        np.array([shapely.Polygon(corners)]), albers, ["f"], "x", log
    )
    x, y = (corners[0] + corners[1]) / 2
    middle = pyproj.Transformer.from_crs(albers, 4326, always_xy=True).transform(x, y)
    assert middle[1] - 45 > 0.02
    assert shapely.distance(shapely.boundary(area), shapely.Point(middle)) < 1e-4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_years_from_the_start_of_planting(tmp_path: Path, suffix: str) -> None:
    path = write(FRAME, tmp_path / f"sites.{suffix}")
    # Names in a Shapefile have ten letters at most, and "plantstart" are the first ten of both.
    years = [2021, 2018]
    request = read_request(path, GRID, from_plantstart=True, latest=LATEST)
    expected = [
        (year, tile)
        for year, site in sorted(zip(years, SITES, strict=True), key=lambda pair: pair[0])
        for tile in GRID.tiles_in(site)
    ]
    assert rows(request) == expected


def test_starts_of_planting_that_are_none(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"plantstart": ["2015-01-01", "soon", None, "2028", "2027-01-01"]},
        geometry=[SITES[0]] * 5,
        crs="EPSG:4326",
    )
    path = write(frame, tmp_path / "sites.parquet")
    request = read_request(path, GRID, from_plantstart=True, latest=LATEST)
    assert rows(request) == [(2026, Tile(1035, 727))]
    assert [(one.subject, one.reason.split(",")[0]) for one in request.problems] == [
        ("feature 0", "planting began '2015-01-01'"),
        ("feature 1", "planting began 'soon'"),
        ("feature 2", "planting began 'None'"),
        ("feature 3", "planting began '2028'"),
    ]
    assert (request.entries, request.lost) == (5, 4)


def test_projects_and_their_polygons(tmp_path: Path) -> None:
    polygons = write(FRAME, tmp_path / "sites.gpkg")
    path = tmp_path / "projects.csv"
    path.write_text("project_id,plantstart_year\none,2022\none,2024\nthree,2022\ntwo,soon\ntwo\n")
    request = read_request(path, GRID, polygons=polygons, latest=LATEST)
    assert rows(request) == [(2021, Tile(1035, 727)), (2023, Tile(1035, 727))]
    assert told(request) == [
        ("not a usable year", "'two'", "planting began 'soon', years are 2015 to 2026"),
        ("not of the right form", "line 6", "1 cells, not 2"),
        ("no polygons", "'three'", f"in {polygons}"),
    ]
    assert (request.entries, request.lost) == (5, 3)
    with pytest.raises(RequestError, match="names projects: give the file of their polygons"):
        read_request(path, GRID, latest=LATEST)
    with pytest.raises(RequestError, match="has no column project_id"):
        read_request(
            path,
            GRID,
            polygons=write(FRAME[["geometry"]], tmp_path / "bare.gpkg"),
            latest=LATEST,
        )


SHAPES: dict[str, tuple[Any, str, str]] = {
    "null": (None, "no geometry", "none, or not readable"),
    "empty": ({"type": "Polygon", "coordinates": []}, "no geometry", "empty"),
    "collection": ({"type": "GeometryCollection", "geometries": []}, "no geometry", "empty"),
    "words": (
        {"type": "Polygon", "coordinates": [[["x", 0], [1, 0], [1, 1]]]},
        "no geometry",
        "none, or not readable",
    ),
    "point": ({"type": "Point", "coordinates": [1, 1]}, "unusable geometry", "a point"),
    "line": (
        {"type": "LineString", "coordinates": [[1, 1], [2, 2]]},
        "unusable geometry",
        "a linestring",
    ),
    "infinite": (
        polygon((0, 0), (float("inf"), 0), (1, 1)),
        "unusable geometry",
        "coordinates are not numbers",
    ),
    "flat": (polygon((0, 0), (1, 1)), "unusable geometry", "has no area"),
    "spike": (polygon((10, 10), (11, 11), (12, 12)), "unusable geometry", "has no area"),
    "metres": (
        polygon((500000, 4000000), (500100, 4000000), (500100, 4000100)),
        "unusable geometry",
        "coordinates are not longitude and latitude",
    ),
    "sea": (polygon((-30, -10), (-29, -10), (-29, -9)), "touches no tile", "tiles are on land"),
    "arctic": (polygon((20, 75), (21, 75), (21, 76)), "touches no tile", "tiles are on land"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_polygon_of_no_use_is_told_and_the_others_are_used(tmp_path: Path, name: str) -> None:
    shape, kind, reason = SHAPES[name]
    good = shapely.geometry.mapping(SITES[0])
    path = geojson(tmp_path / "r.geojson", [shape, good, shape])
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert rows(request) == [(2024, Tile(1035, 727))]
    assert [one[:2] for one in told(request)] == [(kind, "feature 0"), (kind, "feature 2")]
    assert all(one[2].startswith(reason) for one in told(request))
    assert (request.entries, request.lost) == (3, 2)


def test_a_crossed_polygon_is_repaired_and_told(tmp_path: Path) -> None:
    bow = polygon((-52.53, -13.14), (-52.52, -13.13), (-52.52, -13.14), (-52.53, -13.13))
    unclosed = {"type": "Polygon", "coordinates": [shapely.get_coordinates(SITES[0])[:4].tolist()]}
    path = geojson(tmp_path / "r.geojson", [bow, unclosed])
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert rows(request) == [(2024, Tile(1035, 727))]
    (problem,) = request.problems
    assert (problem.kind, problem.subject) == ("geometry repaired", "feature 0")
    assert problem.reason.startswith("Self-intersection")
    assert (request.lost, request.repeated) == (0, 1)


def test_names_of_features(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"poly_id": ["a\x1b[31m", None]},
        geometry=[shapely.Point(0, 0)] * 2,
        crs="EPSG:4326",
    )
    path = write(frame, tmp_path / "r.parquet")
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert [one.subject for one in request.problems] == [r"feature 0 'a\x1b[31m'", "feature 1"]


FIJI = (179.51, -17.47, -179.51, -16.03)


def expected_fiji() -> set[Tile]:
    west, south, east, north = FIJI
    return set(GRID.tiles_in(shapely.box(west, south, 180.0, north))) | set(
        GRID.tiles_in(shapely.box(-180.0, south, east, north))
    )


@pytest.mark.parametrize(
    ("edges", "noted"),
    [((179.51, -179.51), True), ((179.51, 180.49), False), ((-180.49, -179.51), False)],
    ids=str,
)
def test_across_the_antimeridian(tmp_path: Path, edges: tuple[float, float], noted: bool) -> None:
    west, east = edges
    _, south, _, north = FIJI
    ring = ((west, south), (east, south), (east, north), (west, north))
    path = geojson(tmp_path / "r.geojson", [polygon(*ring)])
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert {tile for _, tile in request} == expected_fiji()
    assert len(request) > 20
    assert [one.kind for one in request.problems] == (
        ["read as crossing the antimeridian"] if noted else []
    )


def test_across_the_antimeridian_in_a_projection(tmp_path: Path) -> None:
    fiji = pyproj.Transformer.from_crs(4326, 3460, always_xy=True)
    west, south, east, north = FIJI
    x, y = fiji.transform([west, east, east, west], [south, south, north, north])
    frame = geopandas.GeoDataFrame(
        geometry=[shapely.Polygon(np.column_stack([x, y]))], crs="EPSG:3460"
    )
    path = write(frame, tmp_path / "r.gpkg")
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert {tile for _, tile in request} == expected_fiji()


def test_already_cut_and_around_the_whole_earth(tmp_path: Path) -> None:
    cut = shapely.multipolygons(
        [shapely.box(179.51, -17.47, 180, -16.03), shapely.box(-180, -17.47, -179.51, -16.03)]
    )
    path = geojson(tmp_path / "cut.geojson", [shapely.geometry.mapping(cut)])
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert {tile for _, tile in request} == expected_fiji()
    assert request.problems == ()

    band = polygon((-180, -17.0), (180, -17.0), (180, -16.9), (-180, -16.9))
    wide = polygon((-70, -17.0), (130, -17.0), (130, -16.9), (-70, -16.9))
    for shape, bounds in ((band, (-180, -17, 180, -16.9)), (wide, (-70, -17, 130, -16.9))):
        path = geojson(tmp_path / "band.geojson", [shape])
        request = read_request(path, GRID, year=2024, latest=LATEST)
        assert [tile for _, tile in request] == GRID.tiles_in(shapely.box(*bounds))
        assert request.problems == ()


def test_around_the_pole(tmp_path: Path) -> None:
    antarctic = geopandas.GeoDataFrame(
        geometry=[shapely.Point(0, 0).buffer(3_000_000)], crs="EPSG:3031"
    )
    path = write(antarctic, tmp_path / "r.gpkg")
    request = read_request(path, GRID, year=2024, latest=LATEST)
    assert told(request) == [("unusable geometry", "feature 0", "goes around a pole")]
    assert (len(request), request.lost) == (0, 1)


def test_outside_of_a_projection(tmp_path: Path) -> None:
    far = geopandas.GeoDataFrame(
        geometry=[shapely.box(1e15, 1e15, 1e15 + 1e4, 1e15 + 1e4), shapely.box(-1e20, 0, 1e20, 1)],
        crs="EPSG:32722",
    )
    log = ProblemLog()
    areas = request_polygons.prepared(
        far.geometry.to_numpy()[:1], pyproj.CRS("EPSG:32722"), ["f"], "x", log
    )
    assert areas[0] is None
    assert [one.kind for one in log.problems()] == ["unusable geometry"]
    with pytest.raises(RequestError, match="longer than is possible in WGS 84 / UTM zone 22S"):
        read_request(write(far, tmp_path / "r.gpkg"), GRID, year=2024, latest=LATEST)


def test_files_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, error: type[Exception], message: str, **options: Any) -> None:
        with pytest.raises(error, match=message):
            read_request(path, GRID, **({"year": 2024} | options), latest=LATEST)

    sites = write(FRAME, tmp_path / "sites.gpkg")
    refused(sites, RequestError, "say for which year", year=None)
    refused(sites, RequestError, "one of the two", from_plantstart=True)
    refused(sites, RequestError, "2014 is not a usable year", year=2014)
    bare = write(FRAME[["geometry"]], tmp_path / "bare.gpkg")
    refused(bare, RequestError, "no column plantstart", year=None, from_plantstart=True)

    FRAME.to_file(tmp_path / "two.gpkg", layer="b")
    FRAME[:1].to_file(tmp_path / "two.gpkg", layer="a")
    refused(tmp_path / "two.gpkg", RequestError, "holds 2 layers .'a', 'b'.: choose one")
    chosen = read_request(tmp_path / "two.gpkg", GRID, year=2024, layer="a", latest=LATEST)
    assert rows(chosen) == [(2024, Tile(1035, 727))]

    write(FRAME, tmp_path / "lost.shp")
    (tmp_path / "lost.prj").unlink()
    refused(tmp_path / "lost.shp", CRSError, "does not declare its coordinate reference system")
    unknown = FRAME.set_crs(None, allow_override=True)
    refused(write(unknown, tmp_path / "lost.parquet"), CRSError, "is unknown")

    refused(geojson(tmp_path / "none.geojson", []), RequestError, "holds no feature")
    cut = tmp_path / "cut.gpkg"
    cut.write_bytes(sites.read_bytes()[:5000])
    refused(cut, VectorFileError, "cannot read .*cut.gpkg")
    parquet = write(FRAME, tmp_path / "cut.parquet")
    parquet.write_bytes(parquet.read_bytes()[:-100])
    refused(parquet, VectorFileError, "cannot read .*cut.parquet")

    monkeypatch.setattr(requests, "MOST_CANDIDATES", 3)
    refused(sites, RequestError, "span too much of the Earth")
    monkeypatch.setattr(request_polygons, "MOST_VERTICES", 5)
    refused(sites, RequestError, "holds 10 vertices, more than 5")
    monkeypatch.setattr(request_polygons, "LARGEST_POLYGON_FILE", 10)
    refused(sites, RequestError, "is larger than 10 bytes")
