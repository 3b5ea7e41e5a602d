"""The sensor of input datasets: what is new is reported once, what is wrong is skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
from sample_worlds import World

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.input_assets import input_key
from ocr_assets.regions import inputs
from sensors.sources import input_sensor


def tick(
    deployment: Deployment, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"deployment": deployment},
        definitions=build_defs(deployment),
    ) as context:
        result: Any = input_sensor()(context)
    return result


def reported(result: dg.SensorResult | dg.SkipReason) -> dict[str, str]:
    """Fingerprint of each reported asset."""
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    found = {}
    for event in result.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        fingerprint = event.metadata["fingerprint"].value
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == fingerprint
        found[event.asset_key.to_user_string()] = str(fingerprint)
    return found


def test_the_first_tick_reports_every_input(world: World, instance: dg.DagsterInstance) -> None:
    deployment = world.deployment()
    found = reported(tick(deployment, instance))
    catalog = deployment.catalog
    assert found == {
        input_key(name).to_user_string(): catalog.fingerprint(name) for name in catalog.datasets
    }
    graph = build_defs(deployment).resolve_asset_graph()
    known = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert found.keys() <= known


def test_the_next_tick_reports_what_changed(world: World, instance: dg.DagsterInstance) -> None:
    # One deployment for all ticks, as in a code server that lives long.
    world.doctor_table(inputs.GEOGRAPHIES["tract"], lambda table: table)
    deployment = world.deployment()
    first = tick(deployment, instance)
    assert isinstance(first, dg.SensorResult)
    quiet = tick(deployment, instance, first.cursor)
    assert isinstance(quiet, dg.SkipReason)
    assert quiet.skip_message == "no input changed"

    world.doctor_table(inputs.GEOGRAPHIES["tract"], lambda table: table.slice(1))
    second = tick(deployment, instance, first.cursor)
    assert reported(second).keys() == {"input/us_census_tracts"}
    assert isinstance(second, dg.SensorResult)
    assert isinstance(tick(deployment, instance, second.cursor), dg.SkipReason)
    assert json.loads(second.cursor or "").keys() == deployment.catalog.datasets.keys()


def test_a_dataset_swapped_in_the_catalog_is_noticed(
    world: World, instance: dg.DagsterInstance
) -> None:
    world.edit_catalog(lambda document: None)
    deployment = world.deployment()
    first = tick(deployment, instance)
    assert isinstance(first, dg.SensorResult)
    world.doctor_raster(inputs.WIND, lambda raster: raster)
    again = tick(deployment, instance, first.cursor)
    assert reported(again).keys() == {input_key(inputs.WIND).to_user_string()}


def test_a_catalog_that_is_not_there_or_broken_is_skipped(
    world: World, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    place = tmp_path / "none.json"
    deployment = world.deployment(catalog=str(place))
    skipped = tick(deployment, instance, '{"x": "1"}')
    assert isinstance(skipped, dg.SkipReason)
    assert "there is no catalog" in str(skipped.skip_message)

    place.write_text("{")
    skipped = tick(deployment, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "is not valid JSON" in str(skipped.skip_message)


def test_a_missing_dataset_is_told_and_comes_back(
    world: World, instance: dg.DagsterInstance
) -> None:
    place = world.doctor_table(inputs.BUILDINGS, lambda table: table)
    deployment = world.deployment()
    first = tick(deployment, instance)
    assert isinstance(first, dg.SensorResult)
    content = place.read_bytes()
    place.unlink()
    skipped = tick(deployment, instance, first.cursor)
    assert isinstance(skipped, dg.SkipReason)
    assert inputs.BUILDINGS in str(skipped.skip_message)
    place.write_bytes(content)
    assert isinstance(tick(deployment, instance, first.cursor), dg.SkipReason)


def test_the_sensor_runs_by_itself() -> None:
    sensor = input_sensor()
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds is not None
    assert sensor.minimum_interval_seconds >= 60
