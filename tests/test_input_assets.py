"""Inputs in the graph: looked at, stale when the publisher changes, refreshed, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from published_inputs import Published
from sample_worlds import REGION_ASSETS, World, execute

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.input_assets import (
    ingest_op,
    input_assets,
    input_key,
    refresh,
    source_assets,
    source_key,
)
from ocr_assets.input_reports import unknown_inputs
from ocr_assets.regions import inputs
from ocr_assets.regions.input_sources import CENSUS, PARENTS, SOURCES
from sensors.sources import input_sensor

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
HAZARD = ("calfire-fhsz-3310", "calfire-fhsz-4326")
TWO_STATES = {"ops": {ingest_op(CENSUS): {"config": {"census_subset_states": ["CO", "WY"]}}}}


class Graph:
    """The graph of a workplace and what its instance knows."""

    def __init__(self, published: Published, instance: dg.DagsterInstance) -> None:
        self.published = published
        self.instance = instance
        self.definitions = build_defs(Deployment(published.settings))
        self.graph = self.definitions.resolve_asset_graph()
        self.job = self.definitions.resolve_implicit_global_asset_job_def()

    def run(self, *keys: dg.AssetKey, config: dict | None = None) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=list(keys),
            run_config={**(config or {}), **QUIET},
            raise_on_error=False,
        )

    def look(self, source: str) -> None:
        assert self.run(source_key(source)).success

    def stale(self) -> set[str]:
        """Every materialized asset that the UI shows as stale."""
        resolver = CachingStaleStatusResolver(
            self.instance, self.graph, LoadingContextForTest(self.instance)
        )
        return {
            key.to_user_string()
            for key in self.graph.get_all_asset_keys()
            if not self.graph.get(key).is_partitioned and resolver.get_status(key).value == "STALE"
        }


@pytest.fixture
def made(published: Published) -> Iterator[Callable[[], Graph]]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda: Graph(published, instance)


def change(published: Published) -> None:
    published.server.files["/calfire-fhsz/calfire-risk-raster.tif"] += b" "


def test_an_ingested_input_has_the_fingerprint_that_the_catalog_tells(
    published: Published, made: Callable[[], Graph]
) -> None:
    published.serve("calfire-fhsz")
    graph = made()
    assert graph.run(*(input_key(name) for name in HAZARD)).success
    for name in HAZARD:
        event = graph.instance.get_latest_materialization_event(input_key(name))
        assert event is not None
        materialization = event.asset_materialization
        assert materialization is not None
        assert event.tags is not None
        fingerprint = published.catalog.fingerprint(name)
        assert event.tags["dagster/data_version"] == fingerprint
        assert materialization.metadata["fingerprint"].value == fingerprint
        assert materialization.metadata["pixels"].value > 0
    # The sensor adds nothing to what the run has told.
    with dg.build_sensor_context(
        instance=graph.instance,
        resources={"deployment": Deployment(published.settings)},
        definitions=graph.definitions,
    ) as context:
        assert isinstance(input_sensor()(context), dg.SkipReason)


def test_one_of_several_datasets(published: Published, made: Callable[[], Graph]) -> None:
    published.serve("calfire-fhsz")
    assert made().run(input_key(HAZARD[1])).success
    assert [*published.catalog.datasets] == [HAZARD[1]]


def test_a_publisher_that_changes_makes_its_inputs_stale_and_no_others(
    published: Published, made: Callable[[], Graph]
) -> None:
    for source in ("calfire-fhsz", "dillon-et-al-2023"):
        published.serve(source)
    graph = made()
    for source in ("calfire-fhsz", "dillon-et-al-2023"):
        graph.look(source)
        assert graph.run(*(input_key(name) for name in SOURCES[source].datasets)).success
    graph.look("calfire-fhsz")
    assert graph.stale() == set()

    change(published)
    graph.look("calfire-fhsz")
    graph.look("dillon-et-al-2023")
    assert graph.stale() == {input_key(name).to_user_string() for name in HAZARD}
    assert graph.run(*(input_key(name) for name in HAZARD)).success
    assert graph.stale() == set()


def test_other_outlines_of_one_level_leave_the_others_as_they_are(
    published: Published, made: Callable[[], Graph]
) -> None:
    published.serve(CENSUS)
    graph = made()
    outlines = [input_key(name) for name in SOURCES[CENSUS].datasets]
    assert graph.run(*outlines, config=TWO_STATES).success
    versions = {
        key: graph.instance.get_latest_materialization_event(key).tags["dagster/data_version"]
        for key in outlines
    }
    states = {"ops": {ingest_op(CENSUS): {"config": {"census_subset_states": ["WY"]}}}}
    tracts = input_key(inputs.GEOGRAPHIES["tract"])
    assert graph.run(tracts, config=states).success
    now = {
        key: graph.instance.get_latest_materialization_event(key).tags["dagster/data_version"]
        for key in outlines
    }
    assert {key for key in outlines if now[key] != versions[key]} == {tracts}


def test_a_failed_refresh_tells_why(published: Published, made: Callable[[], Graph]) -> None:
    published.serve("calfire-fhsz", {"calfire-risk-raster.tif": b"no raster"})
    result = made().run(input_key(HAZARD[0]))
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "cannot read the raster" in failure.step_failure_data.error.to_string()


def test_unknown_states_are_refused_before_anything_is_fetched(
    published: Published, made: Callable[[], Graph]
) -> None:
    published.serve(CENSUS)
    config = {"ops": {ingest_op(CENSUS): {"config": {"census_subset_states": ["Mars"]}}}}
    result = made().run(input_key("us-census-tracts"), config=config)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "'Mars' is not a contiguous state" in failure.step_failure_data.error.to_string()
    assert not published.server.requests


def test_the_condition_asks_for_what_has_changed(
    published: Published, made: Callable[[], Graph]
) -> None:
    for source in ("calfire-fhsz", "dillon-et-al-2023"):
        published.serve(source)
    graph = made()

    def evaluate(
        cursor: dg.AssetDaemonCursor | None = None,
    ) -> dg.EvaluateAutomationConditionsResult:
        keys = [key for key in graph.graph.get_all_asset_keys() if key.path[0] == "input"]
        return dg.evaluate_automation_conditions(
            graph.definitions,
            graph.instance,
            asset_selection=dg.AssetSelection.assets(*keys),
            cursor=cursor,
        )

    def requested(result: dg.EvaluateAutomationConditionsResult) -> set[dg.AssetKey]:
        return {
            key
            for key in graph.graph.get_all_asset_keys()
            if key.path[0] == "input" and result.get_num_requested(key)
        }

    graph.look("calfire-fhsz")
    assert graph.run(*(input_key(name) for name in HAZARD)).success
    result = evaluate()
    assert requested(result) == set()
    graph.look("calfire-fhsz")
    result = evaluate(result.cursor)
    assert requested(result) == set(), "the publisher has nothing new"
    change(published)
    graph.look("calfire-fhsz")
    result = evaluate(result.cursor)
    assert requested(result) == {input_key(name) for name in HAZARD}
    result = evaluate(result.cursor)
    assert requested(result) == set(), "asked for once"


def test_new_blocks_ask_for_new_tags(published: Published, made: Callable[[], Graph]) -> None:
    published.serve(CENSUS)
    graph = made()
    blocks, tagged = input_key(inputs.GEOGRAPHIES["block"]), input_key(inputs.BUILDINGS)
    assert graph.run(blocks, config=TWO_STATES).success

    def evaluate(
        cursor: dg.AssetDaemonCursor | None = None,
    ) -> dg.EvaluateAutomationConditionsResult:
        return dg.evaluate_automation_conditions(
            graph.definitions,
            graph.instance,
            asset_selection=dg.AssetSelection.assets(blocks, tagged),
            cursor=cursor,
        )

    result = evaluate()
    assert graph.run(blocks, config=TWO_STATES).success
    result = evaluate(result.cursor)
    assert result.total_requested == 0, "the same outlines again"
    states = {"ops": {ingest_op(CENSUS): {"config": {"census_subset_states": ["WY"]}}}}
    assert graph.run(blocks, config=states).success
    result = evaluate(result.cursor)
    assert result.get_num_requested(tagged) == 1
    assert result.get_num_requested(blocks) == 0


def test_the_specs_say_what_comes_from_what(published: Published) -> None:
    specs = {spec.key: spec for made in input_assets() for spec in made.specs}
    assert specs.keys() == {
        input_key(name) for source in SOURCES.values() for name in source.datasets
    }
    for source in SOURCES.values():
        for name in source.datasets:
            spec = specs[input_key(name)]
            parents = {dep.asset_key for dep in spec.deps}
            expected = {input_key(parent) for parent in PARENTS.get(name, ())}
            assert parents == (expected or {source_key(source.name)})
            assert spec.automation_condition == refresh()
            assert spec.description
    assert {asset.key for asset in source_assets()} == {source_key(name) for name in SOURCES}


def test_a_catalogued_world_is_not_stale_for_lack_of_parents(
    published: Published, made: Callable[[], Graph]
) -> None:
    """Tagged buildings that were made elsewhere have no parents in this catalog."""
    published.serve(CENSUS)
    graph = made()
    counties = input_key(inputs.GEOGRAPHIES["county"])
    assert graph.run(counties, config=TWO_STATES).success
    catalog = published.catalog
    entry = catalog.datasets[inputs.GEOGRAPHIES["county"]]
    catalog.register(published.settings.catalog_uri, {inputs.BUILDINGS: entry})
    with dg.build_sensor_context(
        instance=graph.instance,
        resources={"deployment": Deployment(published.settings)},
        definitions=graph.definitions,
    ) as context:
        result = input_sensor()(context)
    assert isinstance(result, dg.SensorResult)
    (event,) = result.asset_events
    assert event.asset_key == input_key(inputs.BUILDINGS)
    graph.instance.report_runless_asset_event(event)
    assert graph.stale() == set()
    # New counties would make other tags.
    states = {"ops": {ingest_op(CENSUS): {"config": {"census_subset_states": ["WY"]}}}}
    assert graph.run(counties, config=states).success
    assert graph.stale() == {input_key(inputs.BUILDINGS).to_user_string()}


def test_new_footprints_make_the_buildings_of_a_region_stale_and_not_its_raster(
    world: World,
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = world.grid.valid[0]

        def report() -> None:
            catalog = world.catalog
            found = {name: catalog.fingerprint(name) for name in catalog.datasets}
            for event in unknown_inputs(instance, found, found).values():
                instance.report_runless_asset_event(event)

        def stale() -> set[str]:
            graph = build_defs(world.deployment()).resolve_asset_graph()
            resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
            return {
                key
                for key in REGION_ASSETS
                if resolver.get_status(dg.AssetKey(key), first).value != "FRESH"
            }

        report()
        assert execute(world.deployment(), ["region_template"], instance).success
        regions = first, first
        assert execute(world.deployment(), REGION_ASSETS, instance, regions=regions).success
        assert stale() == set()
        report()
        assert stale() == set()
        world.doctor_table(inputs.BUILDINGS, lambda table: table.slice(1))
        report()
        assert stale() == {"region_buildings"}
        world.doctor_raster(inputs.WIND, lambda raster: raster)
        report()
        assert stale() == set(REGION_ASSETS)
