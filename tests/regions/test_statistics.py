import os
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely
from building_tables import building_table, write_region
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocr_assets.geoparquet import GeoParquetError, bbox_array, wkb_array
from ocr_assets.regions import statistics as module
from ocr_assets.regions.building_partitions import open_buildings, partition_buildings
from ocr_assets.regions.fire_risk import FIRE
from ocr_assets.regions.geographies import (
    CODE_LENGTH,
    LEVELS,
    GeographyFile,
    Level,
    geography_schema,
)
from ocr_assets.regions.risk import SCORE_EDGES, Method
from ocr_assets.regions.statistics import (
    PERCENTILES,
    StatisticsReport,
    class_histogram,
    group_quantiles,
    statistics_schema,
    summarise,
    write_statistics,
)


def random_codes(count: int, seed: int) -> list[str | None]:
    rng = np.random.default_rng(seed)
    codes: list[str | None] = []
    for _ in range(count):
        state, county, tract, block = rng.integers(0, (3, 4, 3, 5))
        code = f"{('08', '56', '06')[state]}00{county}{tract:06}{1000 + block}"
        codes.append(code[: rng.choice([15, 15, 15, 15, 12, 11, 5, 2])])
        if rng.random() < 0.05:
            codes[-1] = None
    return codes


def partitioned(tables: list[pa.Table], folder: Path) -> ds.Dataset:
    regions = {
        f"y0_x{i}": write_region(table, folder / f"{i}.parquet") for i, table in enumerate(tables)
    }
    files, _ = partition_buildings(FIRE, regions, folder / "buildings", {})
    return open_buildings(FIRE, [str(path) for path in files.values()], str(folder / "buildings"))


def geographies(level: Level, codes: list[str]) -> pa.Table:
    schema = geography_schema(level)
    east = -105 - np.arange(len(codes)) / 100
    south = np.full_like(east, 39)
    outline = np.asarray(shapely.box(np.full_like(east, -106), south, east, south + 1))
    columns = {
        "GEOID": codes,
        "STUSPS": ["XX"] * len(codes),
        "NAME": [f"name of {code}" for code in codes],
        "geometry": wkb_array(outline),
        "bbox": bbox_array(outline),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def none(level: Level) -> pa.Table:
    return geography_schema(level).empty_table()


def collect(
    dataset: ds.Dataset, level: Level, outlines: pa.Table, method: Method = "corrected"
) -> tuple[pa.Table, StatisticsReport]:
    tables, report = [], StatisticsReport()
    for table, part in summarise(FIRE, dataset, level, outlines, method):
        tables.append(table)
        report += part
    return pa.concat_tables(tables or [statistics_schema(FIRE, level).empty_table()]), report


@given(
    st.integers(1, 6).flatmap(
        lambda groups: st.tuples(
            st.just(groups),
            hnp.arrays(
                np.float32,
                st.integers(0, 60),
                elements=st.floats(-(2**70), 2**70, width=32, allow_nan=False),
            ),
        )
    ),
    st.randoms(use_true_random=False),
)
def test_quantiles_are_those_of_numpy(drawn: tuple[int, np.ndarray], random) -> None:
    groups, values = drawn
    values = np.concatenate([values, np.arange(groups, dtype=np.float32)])
    group = np.array([random.randrange(groups) for _ in values[groups:]] + [*range(groups)])
    found = group_quantiles(group, values, groups)
    for g in range(groups):
        mine = values[group == g].astype(float)
        assert found["mean"][g] == pytest.approx(np.mean(np.sort(mine)), rel=1e-9, abs=1e-9)
        for name, q in (("median", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
            assert found[name].dtype == np.float32
            expected = np.percentile(mine, q)
            tolerance = 1e-6 * max(np.abs(mine).max(), 1e-30)
            assert found[name][g] == pytest.approx(expected, rel=1e-6, abs=tolerance)
    order = np.array(random.sample(range(len(values)), len(values)))
    again = group_quantiles(group[order], values[order], groups)
    for name, result in found.items():
        np.testing.assert_array_equal(result, again[name])


def test_median_of_the_ten_edges_is_interpolated() -> None:
    edges = np.array(SCORE_EDGES, np.float32)
    found = group_quantiles(np.zeros(10, np.intp), edges, 1)
    assert found["median"][0] == np.float32(0.15)


def test_published_histogram_counts_upper_edges_and_loses_what_is_above() -> None:
    def histogram(*rps: float, method: Method) -> list[int]:
        values = np.array(rps, np.float32)
        group = np.zeros(len(values), np.intp)
        return class_histogram(FIRE.scores[0], group, values, 1, method)[0].tolist()

    assert histogram(*SCORE_EDGES, method="published") == [0, *[1] * 10]
    assert histogram(0.005, 0.015, 3.5, 150, method="published") == [0, 1, 1, *[0] * 7, 1]
    assert histogram(0, 0, method="published") == [2, *[0] * 10]
    assert histogram(*SCORE_EDGES, method="corrected") == [0, 0, *[1] * 8, 2]
    assert histogram(0.005, 0.015, 3.5, 150, method="corrected") == [0, 1, 1, *[0] * 7, 2]


@pytest.mark.parametrize("level", LEVELS)
def test_statistics_are_those_of_a_plain_grouping(
    level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_ROWS", 64)
    tables = [building_table(random_codes(300, seed), seed) for seed in range(3)]
    table, report = collect(partitioned(tables, tmp_path), level, none(level))
    frame = pa.concat_tables(tables).to_pandas()
    length = CODE_LENGTH[level]
    frame["code"] = frame["GEOID"].str[:length] if length else "US"
    if length:
        frame = frame[frame["GEOID"].str.len() >= length]
    groups = frame.groupby("code")
    found = table.to_pandas().set_index("GEOID")
    assert list(found.index) == sorted(groups.groups)
    pd.testing.assert_series_equal(
        found["building_count"], groups.size(), check_names=False, check_index=True
    )
    for name in FIRE.summarised:
        values = groups[name]
        np.testing.assert_allclose(
            found[f"{name}_mean"], values.apply(lambda v: v.astype(float).mean()), rtol=1e-12
        )
        np.testing.assert_allclose(found[f"{name}_median"], values.median(), rtol=1e-6)
        for p in PERCENTILES:
            np.testing.assert_allclose(found[f"{name}_p{p}"], values.quantile(p / 100), rtol=1e-6)
    for code, scores in groups["risk_score_2047"]:
        assert found.loc[code, "risk_score_2047_hist"].tolist() == [
            (scores == score).sum() for score in range(11)
        ]
    assert report.counted == len(frame)
    assert report.without_outline == report.counted


@given(seed=st.integers(0, 2**32 - 1), regions=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_counts_are_conserved_at_every_level(
    tmp_path_factory: pytest.TempPathFactory, seed: int, regions: int
) -> None:
    tables = [building_table(random_codes(40, seed + i), i) for i in range(regions)]
    dataset = partitioned(tables, tmp_path_factory.mktemp("conserved"))
    for level in LEVELS:
        table, report = collect(dataset, level, none(level))
        assert report.buildings == 40 * regions
        assert report.counted + report.without_code == report.buildings
        counts = table["building_count"].to_numpy()
        assert counts.sum() == report.counted
        for year in (2011, 2047):
            histograms = table[f"risk_score_{year}_hist"].to_pylist()
            assert [sum(histogram) for histogram in histograms] == counts.tolist()


def test_short_codes_are_counted_as_such(tmp_path: Path) -> None:
    codes = [None, "08", "08013", "08013012101", "080130121011", "080130121011001"]
    dataset = partitioned([building_table(codes)], tmp_path)
    found = {level: collect(dataset, level, none(level))[1].without_code for level in LEVELS}
    assert found == {"block": 5, "tract": 3, "county": 2, "state": 1, "nation": 0}


def test_blocks_with_a_suffix_are_blocks_of_their_own(tmp_path: Path) -> None:
    codes = ["080130121011001A", "080130121011001B", "080130121011002"]
    dataset = partitioned([building_table(codes)], tmp_path)
    assert collect(dataset, "block", none("block"))[0]["GEOID"].to_pylist() == codes
    assert collect(dataset, "tract", none("tract"))[0]["building_count"].to_pylist() == [3]


def test_every_geography_has_a_row_with_its_outline(tmp_path: Path) -> None:
    dataset = partitioned([building_table(["08013", "08013", "56001"])], tmp_path)
    listed = geographies("county", ["06001", "08013", "08014"])
    table, report = collect(dataset, "county", listed)
    assert table.schema == statistics_schema(FIRE, "county")
    assert report == StatisticsReport(3, 3, 0, 1, 4, 2)
    assert table["GEOID"].to_pylist() == ["06001", "08013", "08014", "56001"]
    assert table["building_count"].to_pylist() == [0, 2, 0, 1]
    assert table["NAME"].to_pylist()[1:] == ["name of 08013", "name of 08014", None]
    assert table["geometry"].to_pylist()[:3] == listed["geometry"].to_pylist()
    assert table["geometry"][3].as_py() is None
    assert table["rps_2011_mean"].is_null().to_pylist() == [True, False, True, False]
    assert table["bp_2047_p99"].is_null().to_pylist() == [True, False, True, False]
    assert table["risk_score_2011_hist"][0].as_py() == [0] * 11


@pytest.mark.parametrize("level", LEVELS)
def test_no_buildings_give_the_geographies(level: Level, tmp_path: Path) -> None:
    code = {"nation": "US"}.get(level, "080130121011001"[: CODE_LENGTH[level]])
    table, report = collect(partitioned([], tmp_path), level, geographies(level, [code]))
    assert table["building_count"].to_pylist() == [0]
    assert report == StatisticsReport(0, 0, 0, 0, 1, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_bytes_do_not_depend_on_files_or_threads(level: Level, tmp_path: Path) -> None:
    whole = building_table(random_codes(600, 0))
    order = np.random.default_rng(0).permutation(600)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = partitioned([whole], tmp_path / "a")
    many = partitioned([whole.take(order[:100]), whole.take(order[100:])], tmp_path / "b")
    threads = pa.cpu_count()
    reports = []
    try:
        for name, dataset, count in (("1", one, 1), ("2", many, os.cpu_count() or 1)):
            pa.set_cpu_count(count)
            path = tmp_path / name
            reports.append(
                write_statistics(FIRE, path, dataset, level, none(level), "corrected", {"a": 1})
            )
    finally:
        pa.set_cpu_count(threads)
    assert reports[0] == reports[1]
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_file_is_geoparquet_and_outlines_may_come_from_a_file(tmp_path: Path) -> None:
    dataset = partitioned([building_table(["08013"] * 3)], tmp_path)
    outlines = tmp_path / "counties.parquet"
    write_region(geographies("county", ["08013", "56001"]), outlines)
    path = tmp_path / "statistics.parquet"
    file = GeographyFile(outlines, "county")
    report = write_statistics(FIRE, path, dataset, "county", file, "published", {})
    assert report.geographies == 2
    frame = geopandas.read_parquet(path)
    assert frame["building_count"].tolist() == [3, 0]
    assert frame.geometry.is_valid.all()
    assert pq.read_schema(path).remove_metadata() == statistics_schema(FIRE, "county")


def test_set_without_partition_keys_is_refused(tmp_path: Path) -> None:
    path = write_region(building_table(["08013"]), tmp_path / "0.parquet")
    with pytest.raises(GeoParquetError, match=r"0\.parquet is not in a folder state_fips=SS"):
        collect(ds.dataset(path), "county", none("county"))


def test_damaged_file_is_an_error(tmp_path: Path) -> None:
    dataset = partitioned([building_table(["08013"] * 100)], tmp_path)
    (file,) = dataset.files
    column = pq.read_metadata(file).row_group(0).column(2)
    with Path(file).open("r+b") as damaged:
        damaged.seek(column.data_page_offset)
        damaged.write(bytes(column.total_compressed_size))
    for level in ("county", "nation"):
        with pytest.raises(GeoParquetError, match="cannot read the building table"):
            collect(dataset, level, none(level))
