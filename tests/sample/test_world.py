"""The sample world: deterministic, complete, labelled, and accepted by the input checks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from ocr_assets.regions import inputs
from ocr_assets.regions.fire_risk import holds_data, raster_names, read_region_inputs
from ocr_assets.regions.footprints import read_buildings
from ocr_assets.regions.geographies import CODE_LENGTH, LEVELS, read_geographies
from ocr_assets.regions.grid import CONUS, UnknownRegionError
from ocr_assets.sample.rasters import ALBERS_NORTH, ALBERS_WEST, WIND_CELL
from ocr_assets.sample.world import (
    CROSSED_CORNERS,
    UNBUILT_REGION,
    SampleError,
    build_sample_world,
)
from resources.catalog import Catalog

COARSE = (*inputs.BURN_PROBABILITY_270M.values(), inputs.WIND)
FINE = (*inputs.BURN_PROBABILITY_30M.values(), inputs.CONDITIONAL_RISK)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_sample_world(folder)
    return folder


@pytest.fixture(scope="module")
def catalog(root: Path) -> Catalog:
    return Catalog.read(str(root / "input" / "catalog.json"))


def footprints(catalog: Catalog):
    table = catalog.open_table(inputs.BUILDINGS)
    return read_buildings(table.path, filesystem=table.filesystem)


def test_two_builds_are_equal(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    again = Catalog.read(str(build_sample_world(tmp_path)))
    assert again.grid == catalog.grid
    assert again.datasets == catalog.datasets
    for name, entry in catalog.datasets.items():
        if entry.format == "geoparquet":
            one, other = (folder / "input" / entry.uri for folder in (root, tmp_path))
            assert one.read_bytes() == other.read_bytes(), name
        else:
            assert again.open_raster(name).identical(catalog.open_raster(name)), name


def test_everything_is_labelled_synthetic(catalog: Catalog) -> None:
    assert "Synthetic" in catalog.notice
    assert all(entry.synthetic for entry in catalog.datasets.values())
    assert catalog.open_raster(inputs.CONDITIONAL_RISK).attrs["synthetic"] is True


def test_catalog_names_every_input(catalog: Catalog) -> None:
    expected = {*COARSE, *FINE, inputs.BUILDINGS, *inputs.GEOGRAPHIES.values()}
    assert set(catalog.datasets) == expected


def test_valid_regions_are_those_with_data(catalog: Catalog) -> None:
    risk = catalog.open_raster(inputs.CONDITIONAL_RISK)
    grid = catalog.grid
    with_data = [id_ for id_ in grid if holds_data(risk, grid.region_window(id_))]
    assert list(grid.valid) == with_data
    assert set(grid) - set(grid.valid) == {"y2_x3"}


def test_every_region_passes_the_input_checks(catalog: Catalog) -> None:
    rasters = {name: catalog.open_raster(name) for name in raster_names(catalog.datasets)}
    zeros = calm = 0
    for region_id in catalog.grid.valid:
        read = read_region_inputs(rasters, catalog.grid, region_id, "corrected")
        zeros += int((read.burn_probability_270m[2011].values == 0).sum())
        total = read.wind_direction_distribution.values.sum(axis=-1)
        np.testing.assert_allclose(total[total > 0], 1, atol=1e-6)
        calm += int((total == 0).sum())
    assert zeros
    assert calm


def test_coarse_rasters_lie_on_the_true_lattices(catalog: Catalog) -> None:
    for name in inputs.BURN_PROBABILITY_270M.values():
        raster = catalog.open_raster(name)
        cells = (raster["x"].values - ALBERS_WEST) / 270 - 0.5
        np.testing.assert_array_equal(cells, np.rint(cells))
        cells = (ALBERS_NORTH - raster["y"].values) / 270 - 0.5
        np.testing.assert_array_equal(cells, np.rint(cells))
    wind = catalog.open_raster(inputs.WIND)
    np.testing.assert_array_equal(wind["x"].values % WIND_CELL, 0)


def test_burn_probability_has_gaps_of_one_cell(catalog: Catalog) -> None:
    values = catalog.open_raster(inputs.BURN_PROBABILITY_270M[2011])["BP"].values
    around = np.stack([values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]])
    assert ((values[1:-1, 1:-1] == 0) & (around > 0).all(axis=0)).sum() > 20
    burnable = values[values > 0]
    assert burnable.min() >= 1e-4
    assert burnable.max() <= 0.05
    assert np.isnan(values).any()


def test_geographies_nest_exactly(catalog: Catalog) -> None:
    outlines, codes = {}, {}
    for level in LEVELS:
        table = catalog.open_table(inputs.GEOGRAPHIES[level])
        rows = read_geographies(table.path, level, filesystem=table.filesystem)
        outlines[level] = shapely.from_wkb(rows["geometry"].to_numpy())
        codes[level] = rows["GEOID"].to_pylist()
        assert shapely.coverage_is_valid(outlines[level]), level
        assert shapely.is_valid(outlines[level]).all(), level
    assert len(codes["state"]) == 2
    assert len(codes["county"]) >= 4
    for fine, coarse in itertools.pairwise(LEVELS):
        digits = CODE_LENGTH[coarse]
        parents = np.array([code[:digits] for code in codes[fine]])
        for code, outline in zip(codes[coarse], outlines[coarse], strict=True):
            parts = outlines[fine][parents == ("" if coarse == "nation" else code)]
            assert shapely.equals(shapely.coverage_union_all(parts), outline), code


def test_buildings_cross_borders_and_carry_the_code_of_their_block(catalog: Catalog) -> None:
    found = footprints(catalog)
    assert 5_900 < len(found) <= 6_000
    assert found.invalid == found.repaired == 0
    assert len(set(found.building_id.to_pylist())) == len(found)
    table = catalog.open_table(inputs.GEOGRAPHIES["block"])
    blocks = read_geographies(table.path, "block", filesystem=table.filesystem)
    outline = dict(
        zip(
            blocks["GEOID"].to_pylist(),
            shapely.from_wkb(blocks["geometry"].to_numpy()),
            strict=True,
        )
    )
    own = np.array([outline[code] for code in found.geoid.to_pylist()])
    assert shapely.intersects(own, shapely.point_on_surface(found.geometry)).all()
    assert not shapely.contains(own, found.geometry).all()
    for region_id in CROSSED_CORNERS:
        west, south, east, north = catalog.grid.region_window(region_id).bounds
        edges = shapely.LineString([(west, north), (west, south), (east, south)])
        assert shapely.intersects(found.geometry, edges).any(), region_id


def test_a_region_without_buildings_and_buildings_without_data(catalog: Catalog) -> None:
    centroid = shapely.centroid(footprints(catalog).geometry)
    number = catalog.grid.region_at(shapely.get_x(centroid), shapely.get_y(centroid))
    ids = list(catalog.grid)
    counts = {ids[index]: int(count) for index, count in enumerate(np.bincount(number))}
    assert counts[UNBUILT_REGION] == 0
    assert counts["y2_x3"] > 0
    assert all(counts[id_] for id_ in catalog.grid.valid if id_ != UNBUILT_REGION)


def test_same_recipe_is_kept_and_another_replaces_it(tmp_path: Path) -> None:
    path = build_sample_world(tmp_path, synthetic_buildings=50)
    first = Catalog.read(str(path))
    before = first.fingerprint(inputs.WIND)
    build_sample_world(tmp_path, synthetic_buildings=50)
    assert Catalog.read(str(path)).fingerprint(inputs.WIND) == before
    build_sample_world(tmp_path, synthetic_buildings=60)
    assert Catalog.read(str(path)).recipe != first.recipe
    # One world and its catalog are all there is, nothing of the former one, nothing half done.
    assert len(list((tmp_path / "input").iterdir())) == 2


def test_a_catalog_made_by_somebody_is_kept(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    mine = tmp_path / "input" / "catalog.json"
    mine.write_text(json.dumps({"schema": 1, "grid": "conus", "datasets": {}}))
    with pytest.raises(SampleError, match="was not made by `ocr sample`"):
        build_sample_world(tmp_path)
    assert json.loads(mine.read_text())["datasets"] == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region_id": "y0_x0"}, UnknownRegionError, "holds no data"),
        ({"buildings": Path("no-such.shp")}, SampleError, "no file no-such.shp"),
        ({"counties": Path("no-such.json")}, SampleError, "no file no-such.json"),
        ({"buildings": Path(__file__), "synthetic_buildings": 3}, SampleError, "not both"),
    ],
)
def test_wrong_options_fail_before_anything_is_written(
    tmp_path: Path, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_sample_world(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_unreadable_buildings_leave_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "buildings.geojson"
    broken.write_text("not a vector file")
    with pytest.raises(ValueError, match=r"buildings\.geojson"):
        build_sample_world(tmp_path, buildings=broken)
    assert not list((tmp_path / "input").iterdir())


def test_full_size_region_with_real_buildings(shared_data: Path, tmp_path: Path) -> None:
    catalog = Catalog.read(
        str(
            build_sample_world(
                tmp_path,
                region_id="y9_x16",
                buildings=shared_data / "regions" / "boulder_buildings.shp",
                counties=shared_data / "regions" / "counties-10m.json",
            )
        )
    )
    assert catalog.grid == CONUS
    # The arrays have the shape of the CONUS grid and the size of one region.
    assert catalog.open_raster(inputs.CONDITIONAL_RISK)["CRPS"].shape == CONUS.window.shape
    stored = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert stored < 300e6
    rasters = {name: catalog.open_raster(name) for name in raster_names(catalog.datasets)}
    read = read_region_inputs(rasters, catalog.grid, "y9_x16", "corrected")
    assert read.conditional_risk.shape == (6000, 4500)
    assert not np.isnan(read.conditional_risk).any()

    found = footprints(catalog)
    assert len(found) == 13_491
    assert found.invalid == 0
    assert set(found.geoid.to_pylist()) == {"08013"}
    assert set(found.county.to_pylist()) == {"Boulder"}
    assert not catalog.datasets[inputs.BUILDINGS].synthetic
    assert not catalog.datasets[inputs.GEOGRAPHIES["county"]].synthetic
    assert inputs.GEOGRAPHIES["block"] not in catalog.datasets
