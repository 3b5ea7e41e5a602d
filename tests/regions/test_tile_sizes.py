"""A tile of the regional archive is at most 500 kB, and still has its geographies.

Both archives come near enough to it that the limit is at work, or nothing would be shown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from tile_archives import LARGEST_TILE, features_at, tile_sizes

from ocr_assets.geoparquet import bbox_array, wkb_array
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geographies import Level, read_geographies
from ocr_assets.regions.statistics import statistics_schema
from ocr_assets.regions.vector_tiles import regional_tiles


def statistics(level: Level, outlines: pa.Table) -> pa.Table:
    """Statistics with long numbers, as real ones are, of these outlines."""
    random = np.random.default_rng(0)
    rows = outlines.num_rows
    columns = {name: outlines[name] for name in outlines.column_names}
    for field in statistics_schema(FIRE, level):
        if pa.types.is_list(field.type):
            columns[field.name] = pa.array(random.integers(0, 9999, (rows, 11)).tolist())
        elif field.name == "building_count":
            columns[field.name] = pa.array(random.integers(0, 99999, rows))
        elif pa.types.is_floating(field.type):
            columns[field.name] = pa.array(random.random(rows))
    schema = statistics_schema(FIRE, level)
    return pa.table([columns[name] for name in schema.names], schema.names).cast(schema)


def codes_at(archive: Path, zoom: int) -> set[str]:
    return {feature["properties"]["7"] for feature in features_at(archive, zoom)}


def test_the_counties_of_the_country(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "regions" / "counties-10m.json"
    if not file.exists():
        pytest.skip("the outlines of real counties are not there")
    outlines = read_geographies(file, "county", layer="counties")
    archive = tmp_path / "regions.pmtiles"
    report = regional_tiles(FIRE, {"county": statistics("county", outlines)}, archive)
    # At this scale one island county of the source has no area.
    outlines = outlines.filter(outlines["geometry"].is_valid())
    assert report.features == outlines.num_rows > 3200
    sizes = tile_sizes(archive)
    assert len(sizes) > 1000
    assert max(sizes) == report.largest_tile <= LARGEST_TILE
    assert max(sizes) > 0.3 * LARGEST_TILE, "the limit was not at work"
    # None is left out where a county can be told from its neighbour.
    assert codes_at(archive, 6) == set(outlines["GEOID"].to_pylist())


def test_blocks_of_a_dense_town(tmp_path: Path) -> None:
    """Synthetic blocks of 100 m with ragged borders, too many for a tile of zoom 10."""
    side, step = 90, 100 / 111_195
    corner = np.arange(side) * step
    west, south = (axis.ravel() for axis in np.meshgrid(-87.7 + corner * 1.3, 41.8 + corner))
    outlines = shapely.segmentize(
        shapely.box(west, south, west + 1.3 * step, south + step), step / 6
    )
    codes = [f"17031{row // 100:06}{1000 + row % 100}" for row in range(side * side)]
    table = pa.table(
        {"GEOID": codes, "geometry": wkb_array(outlines), "bbox": bbox_array(outlines)}
    )
    archive = tmp_path / "regions.pmtiles"
    report = regional_tiles(FIRE, {"block": statistics("block", table)}, archive)
    assert report.features == side * side
    assert 0.3 * LARGEST_TILE < max(tile_sizes(archive)) <= LARGEST_TILE
    assert codes_at(archive, 9) == set(), "blocks are shown from zoom 10 on"
    assert 0.3 * len(codes) < len(codes_at(archive, 10)) < len(codes), "the limit was not at work"
    assert codes_at(archive, report.max_zoom) == set(codes)
