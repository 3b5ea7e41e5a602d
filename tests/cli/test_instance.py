"""The shared Dagster instance: made once, closed for killed commands, clear when unusable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from sample_worlds import OCR, Outcome, World, environment

from ocr_assets.cli import instance as instance_module
from ocr_assets.cli.instance import (
    InstanceError,
    failed_partitions,
    instance_file,
    prepare_home,
)


def test_a_fresh_home_gets_the_projects_instance_file(tmp_path: Path) -> None:
    os.environ["DAGSTER_HOME"] = str(tmp_path / "new" / "home")
    home = prepare_home()
    assert home == tmp_path / "new" / "home"
    assert (home / "dagster.yaml").read_bytes() == instance_file("dagster.yaml").read_bytes()
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled
        assert instance.root_directory == str(home)
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1


def test_a_users_instance_file_is_kept(tmp_path: Path) -> None:
    os.environ["DAGSTER_HOME"] = str(tmp_path)
    mine = "telemetry:\n  enabled: false\n"
    (tmp_path / "dagster.yaml").write_text(mine)
    prepare_home()
    prepare_home()
    assert (tmp_path / "dagster.yaml").read_text() == mine


def test_the_home_follows_a_chosen_instance_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, chosen = tmp_path / "home", tmp_path / "mine.yaml"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    prepare_home()
    monkeypatch.setenv("OCR_INSTANCE_FILE", str(chosen))
    for limit in (3, 5):
        chosen.write_text(f"concurrency:\n  pools:\n    default_limit: {limit}\n")
        prepare_home()
        assert (home / "dagster.yaml").read_text() == chosen.read_text()
        with dg.DagsterInstance.get() as instance:
            assert instance.get_concurrency_config().pool_config.default_pool_limit == limit
    monkeypatch.delenv("OCR_INSTANCE_FILE")
    prepare_home()
    assert (home / "dagster.yaml").read_text() == chosen.read_text()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "its file reads DAGSTER_POSTGRES_"),
        (
            {
                "DAGSTER_POSTGRES_HOST": "127.0.0.1",
                "DAGSTER_POSTGRES_PORT": "1",
                "DAGSTER_POSTGRES_DB": "dagster",
                "DAGSTER_POSTGRES_USER": "dagster",
                "DAGSTER_POSTGRES_PASSWORD": "a-secret",
                "DAGSTER_COMPUTE_LOGS_BUCKET": "logs",
            },
            "its Postgres does not answer",
        ),
        ({"OCR_INSTANCE_FILE": "/nowhere/dagster.yaml"}, "/nowhere/dagster.yaml"),
    ],
    ids=["variable missing", "no server", "no file"],
)
def test_an_instance_on_engines_that_cannot_be_opened_is_one_line(
    ocr: Callable[..., Outcome], variables: dict[str, str], reason: str
) -> None:
    chosen = {"OCR_INSTANCE_FILE": str(instance_file("deploy/dagster.yaml"))}
    done = ocr("regions", "status", **{**chosen, **variables})
    assert reason in done.complaint
    assert "a-secret" not in done.err
    assert len(done.complaint) < 600


def test_without_a_setting_the_home_is_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_module, "default_data_folder", lambda: tmp_path / "data")
    assert prepare_home() == tmp_path / "data" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / "data" / "dagster")


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.environ["DAGSTER_HOME"] = "home"
    assert prepare_home() == tmp_path / "home"


@pytest.mark.parametrize(
    ("content", "reason"),
    [("storage: [", "dagster.yaml"), ("nonsense: 1\n", 'unexpected config entry "nonsense"')],
)
def test_a_wrong_instance_file_is_one_line(
    ocr: Callable[..., Outcome], tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "dagster.yaml").write_text(content)
    done = ocr("regions", "status", DAGSTER_HOME=str(tmp_path))
    assert f"no usable Dagster instance in {tmp_path}" in done.complaint
    assert reason in done.complaint
    assert "set DAGSTER_HOME to another folder" in done.complaint
    assert len(done.complaint) < 500


def test_a_home_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.environ["DAGSTER_HOME"] = str(tmp_path / "file" / "home")
    with pytest.raises(InstanceError, match="Not a directory"):
        prepare_home()


def test_those_who_start_at_once_share_one_fresh_home(tmp_path: Path) -> None:
    """The lock is between open files, so threads show what processes would do."""
    os.environ["DAGSTER_HOME"] = str(tmp_path / "home")
    with ThreadPoolExecutor(4) as pool:
        homes = list(pool.map(lambda _: prepare_home(), range(4)))
    assert set(homes) == {tmp_path / "home"}
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert instance.get_runs_count() == 0


def test_failed_partitions_of_an_asset_never_tried(tmp_path: Path) -> None:
    os.environ["DAGSTER_HOME"] = str(tmp_path)
    assert failed_partitions("region_buildings", ["y0_x0", "y0_x1"]) == []


def test_the_instance_files_come_with_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert instance_file("workspace.yaml").is_file()
    with pytest.raises(FileNotFoundError, match="install ocr-assets again"):
        instance_file("none.yaml")


def test_commands_started_at_once_share_a_fresh_instance(world: World) -> None:
    starting = [
        subprocess.Popen(
            [OCR, "regions", "status"],
            env=environment(world.variables()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    for process in starting:
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 0, text
        assert f"{len(world.grid.valid)} missing" in text
