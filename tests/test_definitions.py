"""The graph as a whole: it loads without a warning, explains itself, and changes in review only."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from sample_worlds import World, environment

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from resources.settings import Settings

SNAPSHOT = Path(__file__).with_name("asset_graph.txt")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def definitions() -> dg.Definitions:
    """The graph on the grid that is built in."""
    return build_defs(Deployment(Settings(storage_root="/nowhere")))


def partitions(definition: dg.PartitionsDefinition[str]) -> str:
    """Partitions in the form of the snapshot; dynamic ones by their name."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return " x ".join(
            f"{dimension.name} ({partitions(dimension.partitions_def)})"
            for dimension in definition.partitions_defs
        )
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        return f"dynamic, {definition.name}"
    keys = definition.get_partition_keys()
    return f"{len(keys)}, {keys[0]} to {keys[-1]}"


def described(definitions: dg.Definitions) -> str:
    """The graph in the form of the snapshot."""
    graph = definitions.resolve_asset_graph()
    blocks = []
    for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.path):
        asset = graph.get(key)
        lines = [
            key.to_user_string(),
            f"  group: {asset.group_name}",
            f"  kinds: {', '.join(sorted(asset.kinds))}",
        ]
        if asset.partitions_def:
            lines.append(f"  partitions: {partitions(asset.partitions_def)}")
        if asset.backfill_policy:
            lines.append(f"  in a run at most: {asset.backfill_policy.max_partitions_per_run}")
        if asset.pools:
            lines.append(f"  pool: {', '.join(asset.pools)}")
        lines += [
            f"  after: {parent.to_user_string()}"
            for parent in sorted(asset.parent_keys, key=lambda key: key.path)
        ]
        lines += [
            f"  check: {check.name}" + (" (blocking)" if graph.get(check).blocking else "")
            for check in sorted(graph.asset_check_keys, key=lambda check: check.name)
            if check.asset_key == key
        ]
        blocks.append("\n".join(lines))
    sensors = [f"sensor {sensor.name}" for sensor in definitions.sensors or ()]
    return "\n\n".join([*blocks, *sensors]) + "\n"


def test_definitions_load_without_a_warning(world: World, tmp_path: Path) -> None:
    code = (
        "import dagster as dg; from ocr_assets.definitions import build_defs\n"
        "from ocr_assets.deployment import Deployment\n"
        "from resources.settings import load_settings\n"
        "dg.Definitions.validate_loadable(build_defs(Deployment(load_settings())))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(world.variables()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_graph_is_the_reviewed_one(definitions: dg.Definitions, tmp_path: Path) -> None:
    found = tmp_path / SNAPSHOT.name
    found.write_text(described(definitions))
    assert found.read_text() == SNAPSHOT.read_text(), (
        f"the asset graph changed; if that is meant: cp {found} {SNAPSHOT}"
    )


def test_every_asset_explains_itself(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        name = key.to_user_string()
        assert asset.description, name
        assert len(asset.description) > 20, name
        assert asset.owners, name
        assert asset.kinds, name
        assert asset.group_name != "default", name
    for check in graph.asset_check_keys:
        assert graph.get_check_spec(check).description, check.name


def test_every_table_shows_its_columns(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.executable_asset_keys:
        asset = graph.get(key)
        if "geoparquet" in asset.kinds:
            schema = asset.metadata["dagster/column_schema"]
            assert any(column.name == "geometry" for column in schema.columns), key


def test_loading_gives_no_warning(definitions: dg.Definitions) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = build_defs(Deployment(Settings(storage_root="/nowhere")))
        dg.Definitions.validate_loadable(fresh)
        fresh.resolve_implicit_global_asset_job_def()
    assert fresh is not definitions


def test_the_grid_of_the_catalog_makes_the_partitions(world: World) -> None:
    graph = build_defs(world.deployment(regions_per_run=4)).resolve_asset_graph()
    asset = graph.get(dg.AssetKey("region_risk"))
    assert asset.partitions_def is not None
    assert asset.partitions_def.get_partition_keys() == list(world.grid.valid)
    assert asset.backfill_policy is not None
    assert asset.backfill_policy.max_partitions_per_run == 4


def test_environments_have_writer_pools_of_their_own(world: World) -> None:
    graph = build_defs(world.deployment(environment="staging")).resolve_asset_graph()
    assert graph.get(dg.AssetKey("region_buildings")).pools == {"writer_staging"}


def test_parts_can_be_swapped(world: World) -> None:
    class Silent:
        def task(self, label: str, total: int) -> Any:
            raise NotImplementedError

    silent = Silent()
    assert build_defs(world.deployment(), progress=silent).resources["progress"] is silent


def test_the_ui_and_the_daemon_load_the_workspace(world: World) -> None:
    """From any folder, with the settings of the environment, and without a warning."""
    home = world.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
    done = subprocess.run(
        [
            Path(sys.executable).with_name("dagster"),
            "definitions",
            "validate",
            "-w",
            REPOSITORY / "workspace.yaml",
        ],
        env=environment(world.variables()),
        cwd=world.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert "All code locations passed validation" in output
    lines = [line for line in output.splitlines() if "warning" in line.lower()]
    # The command itself announces a successor.
    assert not [line for line in lines if "Supersession" not in line and "dg " not in line]


def test_the_instance_file_limits_what_runs_at_once() -> None:
    settings = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert settings["concurrency"]["pools"]["default_limit"] == 1
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] >= 1
    assert settings["run_retries"]["enabled"]
    assert not settings["run_retries"]["retry_on_asset_or_op_failure"]
    assert settings["run_monitoring"]["enabled"]
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert "storage" not in settings, "embedded by default"


def test_openvino_reports_to_nobody() -> None:
    found = "'openvino_telemetry.main' in sys.modules or 'openvino' not in sys.modules"
    for module in ("ocr_assets.definitions", "resources.inference"):
        code = f"import sys, {module}; sys.exit({found})"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, module


@pytest.mark.parametrize(
    ("wing", "launcher", "of_others"),
    [
        ("volumes", "volume_runs", {"geopandas", "icechunk", "rasterio", "xarray"}),
        ("tiles", "tile_launch", {"icechunk", "xarray"}),
    ],
)
def test_a_wing_starts_without_the_others(
    wing: str, launcher: str, of_others: set[str], tmp_path: Path
) -> None:
    code = (
        f"import sys, ocr_assets.cli.{launcher}\n"
        "from ocr_assets.deployment import Deployment\n"
        "from ocr_assets.graph import build_graph\n"
        "from resources.settings import load_settings\n"
        f"graph = build_graph(Deployment(load_settings()), wings=['{wing}'])\n"
        "graph.resolve_implicit_global_asset_job_def()\n"
        "print(*(name.partition('.')[0] for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment({"OCR_STORAGE_ROOT": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not of_others & set(done.stdout.split())
