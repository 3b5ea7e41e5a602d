"""Lineage: one record, the same for the same facts, another for any other fact."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets import lineage as lineage_module
from ocr_assets.lineage import code_version, content_hash, lineage, package_version
from ocr_assets.region_products import PYRAMID_MODULES
from ocr_assets.regions.pyramid import build_pyramid
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.risk_types import RISK_TYPES
from ocr_assets.regions.template import attributes

FACTS: dict[str, Any] = {
    "environment": "qa",
    "version": "v1.2.3",
    "code": "abc",
    "inputs": {"b": "2", "a": "1"},
    "configuration": {"method": "corrected", "grid": "conus"},
}


@pytest.mark.parametrize("risk", RISK_TYPES.values(), ids=RISK_TYPES.keys())
def test_a_pyramid_is_of_the_code_that_names_its_variables(risk: RiskType) -> None:
    says = {risk.compute, RiskType, attributes, build_pyramid}
    files = {one.__module__.removeprefix("ocr_assets.").replace(".", "/") + ".py" for one in says}
    assert files == set(PYRAMID_MODULES[risk.name])


def test_the_record_names_everything() -> None:
    record = lineage(**FACTS)
    assert record == {
        "environment": "qa",
        "version": "v1.2.3",
        "package_version": metadata.version("ocr-assets"),
        "code_version": "abc",
        "inputs": {"a": "1", "b": "2"},
        "configuration": {"grid": "conus", "method": "corrected"},
        "configuration_hash": content_hash(FACTS["configuration"]),
    }
    assert package_version() == record["package_version"]
    assert json.loads(json.dumps(record)) == record


def test_order_does_not_matter_and_every_fact_does() -> None:
    record = json.dumps(lineage(**FACTS))
    swapped = {**FACTS, "inputs": {"a": "1", "b": "2"}}
    assert json.dumps(lineage(**swapped)) == record
    for name, value in (
        ("environment", "staging"),
        ("version", "dev"),
        ("code", "abd"),
        ("inputs", {"a": "1"}),
        ("configuration", {"method": "published", "grid": "conus"}),
    ):
        assert json.dumps(lineage(**{**FACTS, name: value})) != record, name


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_content_hash_depends_on_content_only(values: dict[str, Any]) -> None:
    backwards = dict(reversed(values.items()))
    assert content_hash(values) == content_hash(backwards)
    assert content_hash({**values, "another": 1.5}) != content_hash(values)


def test_code_version_follows_the_text_of_the_named_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage_module, "_PACKAGE", tmp_path)

    def version(*modules: str) -> str:
        code_version.cache_clear()
        return code_version(*modules)

    (tmp_path / "one.py").write_text("a = 1\n")
    (tmp_path / "two.py").write_text("b = 2\n")
    before = version("one.py", "two.py")
    assert version("two.py", "one.py") == before
    assert version("one.py") != before
    (tmp_path / "three.py").write_text("c = 3\n")
    assert version("one.py", "two.py") == before
    (tmp_path / "two.py").write_text("b = 3\n")
    assert version("one.py", "two.py") != before
    with pytest.raises(FileNotFoundError):
        version("none.py")
    code_version.cache_clear()
