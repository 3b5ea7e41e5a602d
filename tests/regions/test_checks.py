"""Every asset check passes on good data, and fails on data made bad for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import xarray as xr
from sample_worlds import REGION_ASSETS, FinishedWorld, World, execute

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions import inputs
from ocr_assets.regions.checks import region_checks
from ocr_assets.regions.process import summarise
from resources.icechunk_store import RegionWrite

REGION = "y1_x1"
"""A region with neighbours on all sides, full of data and buildings."""


def run_check(deployment: Deployment, name: str, **tags: str) -> dg.AssetCheckEvaluation:
    """Run one check by itself, as its button in the UI does."""
    definitions = build_defs(deployment)
    (check,) = (
        definition
        for definition in region_checks()
        for key in definition.check_keys
        if key.name == name
        and (key.asset_key.path[0] == "wind") == (deployment.risk_name == "wind")
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*(definitions.assets or ()), check],
            selection=dg.AssetSelection.checks(check),
            resources=definitions.resources,
            instance=instance,
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def wrong(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """What a failed check found."""
    assert not evaluation.passed
    assert evaluation.description
    found = evaluation.metadata["wrong"].value
    assert isinstance(found, dict)
    assert evaluation.description.startswith(f"{len(found)} of ")
    return found


def rewrite_pixels(
    deployment: Deployment, change: Callable[[dict[str, np.ndarray]], None], region_id: str = REGION
) -> None:
    """Commit a region with changed pixels, and their true summary."""
    store = deployment.regions
    dataset = store.dataset(store.regions[region_id])
    arrays = {name: dataset[name].values.copy() for name in dataset.data_vars}
    change(arrays)
    entry = {**deployment.ledger()[region_id], "summary": summarise(arrays)}
    store.write({region_id: RegionWrite(arrays, entry)})


def rewrite_table(
    deployment: Deployment, change: Callable[[pa.Table], pa.Table], folder: Path
) -> None:
    """Put a changed building table under the key that the ledger names."""
    key = deployment.ledger()[REGION]["buildings"]["key"]
    table = change(pq.read_table(deployment.storage.source(key)))
    pq.write_table(table, folder / "changed.parquet")
    deployment.storage.put_file(key, folder / "changed.parquet")


def test_all_checks_pass_on_the_sample_world(finished_world: FinishedWorld) -> None:
    evaluations: dict[str, dg.AssetCheckEvaluation] = {}
    with finished_world.instance() as instance:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION):
                assert entry.dagster_event is not None
                check = entry.dagster_event.asset_check_evaluation_data
                assert check.check_name not in evaluations, "a check ran twice"
                evaluations[check.check_name] = check
    ours = {key.name for check in region_checks() for key in check.check_keys}
    assert evaluations.keys() == ours | {"level_means_agree"}
    for name, check in evaluations.items():
        assert check.passed, (name, check.metadata)
        if name in ours:
            assert int(check.metadata["looked at"].value) > 0, name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("bp_2011", 1.5), ("bp_2047_riley", -0.1), ("rps_2047", 100.5), ("crps_scott", -1e-3)],
)
def test_values_in_range(finished_copy: World, variable: str, value: float) -> None:
    deployment = finished_copy.deployment()

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays[variable][7, 11] = value

    rewrite_pixels(deployment, spoil)
    found = wrong(run_check(deployment, "values_in_range"))
    assert found.keys() == {f"{REGION} {variable}"}
    assert pytest.approx(value) in found[f"{REGION} {variable}"]


def test_no_data_share(finished_copy: World) -> None:
    deployment = finished_copy.deployment()

    def lose(arrays: dict[str, np.ndarray]) -> None:
        arrays["rps_2011"][:60] = np.nan

    rewrite_pixels(deployment, lose)
    found = wrong(run_check(deployment, "no_data_share"))
    assert found == {f"{REGION} rps_2011": pytest.approx(0.2)}


def test_no_data_where_the_inputs_have_none_is_legal(finished_copy: World) -> None:
    deployment = finished_copy.deployment()

    def lose(arrays: dict[str, np.ndarray]) -> None:
        for values in arrays.values():
            values[:60] = np.nan

    rewrite_pixels(deployment, lose)
    assert run_check(deployment, "no_data_share").passed


def test_no_seam(finished_copy: World) -> None:
    deployment = finished_copy.deployment()

    def lift(arrays: dict[str, np.ndarray]) -> None:
        arrays["bp_2011"] += 0.05

    rewrite_pixels(deployment, lift)
    found = wrong(run_check(deployment, "no_seam"))
    pairs = (("y0_x1", REGION), (REGION, "y2_x1"), ("y1_x0", REGION), (REGION, "y1_x2"))
    assert found.keys() == {f"{one} | {other} bp_2011" for one, other in pairs}


@pytest.mark.parametrize(
    ("cell", "total"),
    [((3, 4, 0), 1.5), ((5, 5, 2), None)],
    ids=["sum", "negative"],
)
def test_wind_direction_weights(
    world: World, cell: tuple[int, int, int], total: float | None
) -> None:
    def spoil(dataset: xr.Dataset) -> xr.Dataset:
        shares = dataset["wind_direction_distribution"].values
        row, col, direction = cell
        if total is not None:
            shares[row, col] *= total / shares[row, col].sum()
        else:  # The sum is still 1.
            shares[row, col, direction + 1] += shares[row, col, direction] + 0.1
            shares[row, col, direction] = -0.1
        return dataset

    world.doctor_raster(inputs.WIND, spoil)
    found = wrong(run_check(world.deployment(), "wind_direction_weights"))
    assert list(found) == [f"{inputs.WIND} {cell[:2]}"]
    assert found[f"{inputs.WIND} {cell[:2]}"] == pytest.approx(total or 1)


def test_wind_on_the_pixel_grid_is_looked_at_under_the_regions_only(
    finished_copy: World,
) -> None:
    window = finished_copy.grid.window
    shares = np.full((*window.shape, 8), 0.125, np.float32)
    rows, cols = finished_copy.grid.region_window(REGION).slices_in(window)
    shares[rows.start + 2, cols.start + 3] = 0.2
    shares[0, 0] = 0.2
    place = finished_copy.folder / "wind.zarr"
    xr.Dataset(
        {"wind_direction_distribution": (("latitude", "longitude", "wind_direction"), shares)},
        {"latitude": window.latitude, "longitude": window.longitude},
    ).to_zarr(place, zarr_format=3, consolidated=False)

    def swap(document: dict[str, Any]) -> None:
        entry = document["datasets"].pop(inputs.WIND)
        entry |= {"format": "zarr", "uri": str(place), "crs": "EPSG:4326"}
        document["datasets"][inputs.WIND_30M] = entry

    finished_copy.edit_catalog(swap)
    evaluation = run_check(
        finished_copy.deployment(), "wind_direction_weights", **{"dagster/partition": REGION}
    )
    assert wrong(evaluation) == {f"{REGION} (2, 3)": pytest.approx(1.6)}
    assert evaluation.metadata["looked at"].value == 300 * 240


def test_buildings_accounted_for(finished_copy: World, tmp_path: Path) -> None:
    deployment = finished_copy.deployment()
    rewrite_table(deployment, lambda table: table.slice(1), tmp_path)
    found = wrong(run_check(deployment, "buildings_accounted_for"))
    assert found.keys() == {REGION}
    assert found[REGION]["rows of the table"] == found[REGION]["written"] - 1


def test_a_report_that_does_not_add_up(finished_copy: World) -> None:
    deployment = finished_copy.deployment()
    entry = deployment.ledger()[REGION]
    entry["report"]["read"] += 1
    dataset = deployment.regions.dataset(deployment.regions.regions[REGION])
    arrays = {name: dataset[name].values for name in dataset.data_vars}
    deployment.regions.write({REGION: RegionWrite(arrays, entry)})
    assert wrong(run_check(deployment, "buildings_accounted_for")).keys() == {REGION}


def test_geometry_valid(finished_copy: World, tmp_path: Path) -> None:
    deployment = finished_copy.deployment()
    bow_tie = shapely.to_wkb(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]))
    empty = shapely.to_wkb(shapely.Polygon())

    def spoil(table: pa.Table) -> pa.Table:
        geometry = table["geometry"].to_pylist()
        geometry[0], geometry[-1] = bow_tie, empty
        index = table.column_names.index("geometry")
        return table.set_column(index, "geometry", pa.array(geometry, pa.binary()))

    rewrite_table(deployment, spoil, tmp_path)
    assert wrong(run_check(deployment, "geometry_valid")) == {REGION: 2}


def test_regions_conserved(finished_copy: World, tmp_path: Path) -> None:
    deployment = finished_copy.deployment()
    manifest = deployment.storage.manifest("buildings")
    assert manifest is not None
    files = {}
    for number, file in enumerate(manifest.files[1:]):
        files[file.name] = tmp_path / f"{number}.parquet"
        files[file.name].write_bytes(deployment.storage.read_bytes(file.key))
    lost = pq.ParquetFile(deployment.storage.source(manifest.files[0].key)).metadata.num_rows
    deployment.storage.publish("buildings", files, manifest.metadata)
    found = wrong(run_check(deployment, "regions_conserved"))
    assert found["in regions"] - found["in counties"] == lost > 0


@pytest.mark.parametrize("level", ["block", "county", "nation"])
def test_counts_conserved(finished_copy: World, tmp_path: Path, level: str) -> None:
    deployment = finished_copy.deployment()
    key = f"statistics/{level}.parquet"
    table = pq.read_table(deployment.storage.source(key))
    counts = table["building_count"].to_pylist()
    counts[-1] += 1
    index = table.column_names.index("building_count")
    table = table.set_column(index, "building_count", pa.array(counts, table.schema[index].type))
    pq.write_table(table, tmp_path / "spoilt.parquet")
    deployment.storage.put_file(key, tmp_path / "spoilt.parquet")
    found = wrong(run_check(deployment, "counts_conserved"))
    assert found.keys() == {level}
    assert found[level]["counted"] == found[level]["carry a code"] + 1


def test_a_check_after_a_run_looks_at_the_regions_of_the_run(
    finished_copy: World, instance: dg.DagsterInstance
) -> None:
    deployment = finished_copy.deployment()

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays["bp_2011"][7, 11] = 2

    rewrite_pixels(deployment, spoil)
    elsewhere = execute(deployment, REGION_ASSETS, instance, regions=("y2_x0", "y2_x1"))
    checks = {check.check_name: check for check in elsewhere.get_asset_check_evaluations()}
    assert checks["values_in_range"].passed
    assert checks["values_in_range"].metadata["looked at"].value == 2
    assert checks["no_seam"].metadata["looked at"].value == 4
    assert elsewhere.success


def test_a_blocking_check_stops_what_comes_after(
    finished_copy: World, instance: dg.DagsterInstance
) -> None:
    deployment = finished_copy.deployment()

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays["rps_2011"][7, 11] = 101

    rewrite_pixels(deployment, spoil)
    result = execute(deployment, [*REGION_ASSETS, "pyramid"], instance, regions=(REGION, REGION))
    assert not result.success
    assert result.get_step_success_events()
    assert "pyramid" not in {event.step_key for event in result.get_step_success_events()}


def test_checks_look_at_the_regions_of_their_version(finished_copy: World) -> None:
    """Tables of another version lie elsewhere, and its pixels may have another method's values."""
    deployment = finished_copy.deployment(version="1.0.0")
    writer = RegionWriter(deployment)
    list(writer.write([REGION]))
    for name in ("values_in_range", "buildings_accounted_for", "geometry_valid", "no_data_share"):
        assert run_check(deployment, name).passed, name
    assert run_check(deployment, "values_in_range").metadata["looked at"].value == 1
    assert run_check(deployment, "no_seam").metadata["looked at"].value == 0


def test_which_checks_block() -> None:
    blocking = {
        spec.name for check in region_checks() for spec in check.check_specs if spec.blocking
    }
    assert blocking == {
        "values_in_range",
        "buildings_accounted_for",
        "regions_conserved",
        "counts_conserved",
    }


def test_a_pyramid_that_lost_pixels_is_told(
    finished_copy: World, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocr_assets import region_products

    build = region_products.build_pyramid

    def lossy(*arguments: Any, **options: Any) -> Any:
        report = build(*arguments, **options)
        coarse = report.levels[-1]
        means = {name: mean * 1.1 for name, mean in coarse.means.items()}
        levels = (*report.levels[:-1], dataclasses.replace(coarse, means=means))
        return dataclasses.replace(report, levels=levels)

    monkeypatch.setattr(region_products, "build_pyramid", lossy)
    result = execute(finished_copy.deployment(), ["pyramid"], instance)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
