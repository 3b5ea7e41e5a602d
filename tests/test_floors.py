"""The architecture, read from the source: imports point down, one door to the environment.

Floors from the top: command line; doorbell (sensors); wiring (definitions, deployment and the
other modules beside the wings); assets of the wings; resources; science.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from source_files import MODULES, REPOSITORY, TEST_MODULES, name_of

from ocr_assets import deployment, tile_answers, tile_library, tile_products, volume_library
from ocr_assets.regions.risk_type import RISK_NAMES

WINGS = ("regions", "tiles", "volumes")
ORCHESTRATION = ("assets.py", "checks.py", "jobs.py")
"""Modules of a wing that know Dagster."""

BESIDE_THE_WING = {"input_assets.py": "regions", "region_product_assets.py": "regions"}
"""Assets that stand beside their wing, with what makes them; they keep to it all the same."""

COMMON = ("geoparquet.py", "vector.py", "lineage.py")
"""Modules that several wings share; they stand on the floor of science."""

READS_THE_ENVIRONMENT = {
    "resources/settings.py": "the one door of configuration",
    "ocr_assets/cli/instance.py": "DAGSTER_HOME is Dagster's own variable, read before anything",
    "ocr_assets/cli/app.py": "exports the settings to the processes that a command starts",
}

LONGEST_MODULE = 500
"""Lines. A module has one purpose; one that is much longer has two."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, also inside functions and for type checking."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_any(path: Path, *prefixes: str) -> list[str]:
    """Imports of ``path`` that are one of ``prefixes`` or below it."""
    return sorted(
        name
        for name in imported(path)
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
    )


def science() -> list[Path]:
    """Modules that take and return arrays, tables and paths."""
    folder = REPOSITORY / "ocr_assets"
    return [
        path
        for path in MODULES
        if path.parent.parent == folder
        and path.parent.name in (*WINGS, "sample")
        and path.name not in ORCHESTRATION
    ] + [folder / name for name in COMMON]


def wing_of(path: Path) -> str | None:
    wing = BESIDE_THE_WING.get(path.name, path.parent.name)
    return wing if wing in WINGS else None


def other_wings(path: Path) -> list[str]:
    return [f"ocr_assets.{wing}" for wing in WINGS if wing != wing_of(path)]


UPSTAIRS = (
    "sensors",
    "ocr_assets.cli",
    "ocr_assets.dask_jobs",
    "ocr_assets.definitions",
    "ocr_assets.graph",
    "ocr_assets.deployment",
    "ocr_assets.deployment_runs",
    "ocr_assets.ingest_steps",
    "ocr_assets.ingestion",
    "ocr_assets.input_assets",
    "ocr_assets.input_reports",
    "ocr_assets.launch",
    "ocr_assets.needs",
    "ocr_assets.partitions",
    "ocr_assets.region_comparison",
    "ocr_assets.region_product_assets",
    "ocr_assets.region_products",
    "ocr_assets.region_writer",
    "ocr_assets.request_jobs",
    "ocr_assets.request_messages",
    "ocr_assets.run_launcher",
    "ocr_assets.run_overview",
    "ocr_assets.run_processes",
    "ocr_assets.tile_answers",
    "ocr_assets.tile_library",
    "ocr_assets.tile_products",
    "ocr_assets.tile_sources",
    "ocr_assets.volume_jobs",
    "ocr_assets.volume_library",
    "ocr_assets.volume_reader",
    "ocr_assets.volume_sources",
    *(f"ocr_assets.{wing}.{name.removesuffix('.py')}" for wing in WINGS for name in ORCHESTRATION),
)
"""What neither science nor resources may know."""


def test_the_modules_are_found() -> None:
    names = {name_of(path) for path in science()}
    assert {"ocr_assets/regions/spread.py", "ocr_assets/sample/world.py"} <= names
    assert "ocr_assets/regions/assets.py" not in names
    spread = REPOSITORY / "ocr_assets/regions/spread.py"
    assert imports_any(spread, "numba") == ["numba.njit"]


@pytest.mark.parametrize("path", science(), ids=name_of)
def test_science_knows_no_dagster_no_resource_no_other_wing(path: Path) -> None:
    assert not imports_any(path, "dagster", "resources", *UPSTAIRS)
    # The sample world makes the inputs of every wing.
    if path.parent.name != "sample":
        assert not imports_any(path, *other_wings(path))


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name in (*ORCHESTRATION, *BESIDE_THE_WING)],
    ids=name_of,
)
def test_assets_know_their_own_wing_only(path: Path) -> None:
    assert wing_of(path), "only a wing has assets"
    above = ("sensors", "ocr_assets.cli", "ocr_assets.definitions")
    assert not imports_any(path, *above, *other_wings(path))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name == "resources"], ids=name_of
)
def test_resources_know_science_at_most(path: Path) -> None:
    assert not imports_any(path, *UPSTAIRS)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name == "sensors"], ids=name_of
)
def test_sensors_do_not_know_the_command_line(path: Path) -> None:
    assert not imports_any(path, "ocr_assets.cli")


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name == "ocr_assets"], ids=name_of
)
def test_wiring_does_not_know_the_command_line(path: Path) -> None:
    assert not imports_any(path, "ocr_assets.cli")
    if path.name != "definitions.py":
        assert not imports_any(path, "sensors", "ocr_assets.definitions")


@pytest.mark.parametrize(
    "name",
    [
        "deployment",
        "region_writer",
        "request_messages",
        "lineage",
        "tile_answers",
        "tile_library",
        "tile_products",
        "tile_sources",
        "volume_jobs",
        "volume_library",
        "volume_sources",
        "volume_reader",
        "ingest_steps",
        "ingestion",
    ],
)
def test_what_decides_about_artefacts_runs_without_dagster(name: str) -> None:
    path = REPOSITORY / "ocr_assets" / f"{name}.py"
    assert not imports_any(path, "dagster", "ocr_assets.partitions", "resources.io_managers")


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.name == "__init__.py" and path.parent.name != "cli"],
    ids=name_of,
)
def test_importing_a_package_imports_nothing_else(path: Path) -> None:
    # What keeps OpenVINO from reporting its use has to come before anything else.
    assert imported(path) <= {"sys", "ocr_assets"}


def test_the_environment_has_one_door() -> None:
    readers = set()
    for path in MODULES:
        for node in ast.walk(tree(path)):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            if name in ("environ", "environb", "getenv", "putenv", "unsetenv"):
                readers.add(name_of(path))
        if imports_any(path, "os.environ", "os.getenv"):
            readers.add(name_of(path))
    assert readers == READS_THE_ENVIRONMENT.keys()


def undocumented(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        name = f"{prefix}{node.name}"
        if ast.get_docstring(node) is None:
            yield name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{name}.")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_is_documented(path: Path) -> None:
    module = tree(path)
    if module.body:
        assert ast.get_docstring(module), "the module does not say what belongs in it"
    assert not list(undocumented(module.body, ""))


@pytest.mark.parametrize("path", [*MODULES, *TEST_MODULES], ids=name_of)
def test_modules_have_one_purpose(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


def source_closure(*roots: str) -> set[str]:
    """Modules of the package, relative to it, that these and what they import consist of."""
    package = REPOSITORY / "ocr_assets"
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        for name in imports_any(package / module, "ocr_assets"):
            parts = name.split(".")[1:]
            for candidate in ("/".join(parts), "/".join(parts[:-1])):
                if (package / f"{candidate}.py").is_file():
                    waiting.append(f"{candidate}.py")
    return found


@pytest.mark.parametrize("risk_name", RISK_NAMES)
def test_the_code_version_of_a_region_covers_all_code_that_makes_it(risk_name: str) -> None:
    """A module left out would let regions count as current although their code changed."""
    computed_by = {"fire": "regions/fire_risk.py", "wind": "regions/wind_risk.py"}
    made_by = source_closure("regions/process.py", computed_by[risk_name])
    known = {*deployment.REGION_MODULES, *deployment.RISK_MODULES[risk_name]}
    # The picture in the UI is not part of what is stored.
    assert known == made_by - {"regions/preview.py"}


def test_the_code_version_of_a_volume_covers_all_code_that_makes_it() -> None:
    """A module left out would let volumes count as current although their code changed."""
    made_by = source_closure("volumes/reading.py", "volumes/documents.py")
    assert made_by <= set(volume_library.READING_MODULES)


@pytest.mark.parametrize("source", tile_library.SOURCES)
def test_the_code_version_of_a_source_covers_all_code_that_makes_it(
    source: tile_library.Source,
) -> None:
    """A module left out would let data of tiles count as current although its code changed."""
    # The grid decides which pixels a tile has, and comes with the place.
    made_by = source_closure(f"tiles/{source}.py", "tiles/grid.py")
    assert set(tile_library.SOURCE_MODULES[source]) == made_by


def test_the_code_version_of_tree_cover_covers_all_code_that_makes_it() -> None:
    """A module left out would let published tiles count as current although their code changed."""
    steps = ("features", "networks", "tree_cover", "product")
    made_by = source_closure(*(f"tiles/{name}.py" for name in steps))
    assert set(tile_products.TREE_COVER_MODULES) == made_by


def test_the_code_versions_of_answers_cover_what_decides_them() -> None:
    assert set(tile_answers.MOSAIC_MODULES) == source_closure("tiles/mosaic.py")
    assert set(tile_answers.ANSWER_MODULES) == source_closure("tiles/zonal_table.py")
