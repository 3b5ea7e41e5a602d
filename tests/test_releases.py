"""Publishing a version, taking it back, and retention, on the sample world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.deployment import DeploymentError
from ocr_assets.releases import Release, ReleasedRegions, Releases, release_order
from resources.settings import Settings
from resources.storage import Storage

ORDERED = (
    "v0.9.0",
    "v1.0.0-alpha",
    "v1.0.0-alpha.1",
    "v1.0.0-alpha.beta",
    "v1.0.0-beta.2",
    "v1.0.0-beta.11",
    "v1.0.0-rc.1",
    "v1.0.0",
    "v1.0.0_r2",
    "v1.0.0_r10",
    "v1.0.1",
    "v1.10.0",
)


@given(st.permutations(ORDERED))
def test_versions_are_in_semantic_order(shuffled: list[str]) -> None:
    assert tuple(sorted(shuffled, key=release_order)) == ORDERED


@pytest.mark.parametrize("label", ["latest", "1.0.0", "v1.0", "v1.0.0_r", "../v1.0.0"])
def test_other_names_are_no_versions(label: str) -> None:
    with pytest.raises(DeploymentError, match="is not a version"):
        release_order(label)


@pytest.fixture(params=["local", "s3"])
def releases(request: pytest.FixtureRequest, tmp_path: Path) -> Releases:
    """The releases of an empty environment."""
    if request.param == "local":
        return Releases(Storage(str(tmp_path / "qa")))
    return Releases(request.getfixturevalue("s3_bucket").child("qa"))


def release(label: str, snapshot: str = "ABC") -> Release:
    risks = {"fire": ReleasedRegions(snapshot, 3, {"version": label})}
    return Release(label, risks, {"buildings": "f00d"}, 8)


def test_publish_and_roll_back(releases: Releases) -> None:
    assert (releases.current(), releases.labels()) == (None, [])
    for label in ("v1.9.0", "v1.10.0"):
        releases.add(release(label))
    assert (releases.current(), releases.labels()) == ("v1.10.0", ["v1.9.0", "v1.10.0"])
    assert releases.find("v1.9.0") == release("v1.9.0")

    before = {info.key: releases.root.read_bytes(info.key) for info in releases.root.list()}
    releases.point_to("v1.9.0")
    after = {info.key: releases.root.read_bytes(info.key) for info in releases.root.list()}
    assert {key for key in after if after[key] != before.get(key)} == {"latest.json"}
    assert json.loads(after["latest.json"]) == {
        "label": "v1.9.0",
        "prefix": "v1.9.0",
        "record": "releases/v1.9.0.json",
    }
    with pytest.raises(
        DeploymentError,
        match=r"v1\.8\.0 is not published; published versions: v1\.9\.0, v1\.10\.0",
    ):
        releases.point_to("v1.8.0")
    assert releases.current() == "v1.9.0"


def test_readers_follow_the_pointer(releases: Releases) -> None:
    settings = Settings(storage_root="/data", environment="qa")
    with pytest.raises(DeploymentError, match="qa has published nothing yet"):
        releases.current_settings(settings)
    for label in ("v1.0.0", "v1.1.0-rc.1_r3"):
        releases.add(release(label))
        assert releases.current_settings(settings).output_root == f"/data/qa/{label}"


def test_a_published_version_never_changes(releases: Releases) -> None:
    releases.add(release("v1.0.0"))
    releases.add(release("v1.0.0"))
    with pytest.raises(DeploymentError, match="published already"):
        releases.add(release("v1.0.0", "DEF"))
    found = releases.find("v1.0.0")
    assert found is not None
    assert found.risks["fire"].snapshot == "ABC"


def test_retention_spares_the_newest_the_current_and_what_is_at_work(releases: Releases) -> None:
    published = ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"]
    for label in [*published, "v1.0.5", "v1.4.0"]:
        releases.root.write_bytes(f"{label}/buildings/part.parquet", b"rows")
    for label in published:
        releases.add(release(label))
    releases.root.write_bytes("icechunk/region-risk/repo", b"x")
    releases.root.write_bytes("dev/buildings/part.parquet", b"x")
    assert releases.versions() == ["v1.0.0", "v1.0.5", "v1.1.0", "v1.2.0", "v1.3.0", "v1.4.0"]

    assert releases.expendable(5) == []
    assert releases.expendable(4) == []
    assert releases.expendable(2) == ["v1.0.0", "v1.0.5", "v1.1.0"]
    releases.point_to("v1.1.0")
    assert releases.expendable(2) == ["v1.0.0", "v1.0.5"]
