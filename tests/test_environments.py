"""The settings files of the three environments: sound, apart from each other, without secrets."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest

from resources.settings import Environment, Settings, load_settings
from sensors.alerts import alert_sensors
from sensors.github import github_sensors
from sensors.inbox import is_configured

DEPLOY = Path(__file__).parent.parent / "deploy"
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)
SENSORS = {
    "qa": "github_pull_requests",
    "staging": "github_pushes",
    "production": "github_releases",
}
SECRETS = {
    f"OCR_{name.upper()}"
    for name, field in Settings.model_fields.items()
    if "SecretStr" in str(field.annotation)
}


@pytest.fixture(scope="module")
def settings() -> dict[str, Settings]:
    """The settings that each file gives."""
    return {name: load_settings(DEPLOY / f"{name}.env") for name in ENVIRONMENTS}


def test_each_environment_has_its_file() -> None:
    assert {path.stem for path in DEPLOY.glob("*.env")} == set(ENVIRONMENTS)


def test_a_file_is_that_of_its_environment(settings: dict[str, Settings]) -> None:
    assert {name: found.environment for name, found in settings.items()} == {
        name: name for name in ENVIRONMENTS
    }
    assert settings["production"].version == "1.0.0"
    assert not settings["production"].github_prereleases


def test_what_an_environment_writes_is_its_own(settings: dict[str, Settings]) -> None:
    written = {
        name: {
            found.output_root,
            found.icechunk_uri,
            found.tiles_uri,
            found.inbox_uri,
            found.icechunk_branch,
            found.writer_pool,
            found.deployment_pool,
        }
        for name, found in settings.items()
    }
    for one, other in itertools.combinations(ENVIRONMENTS, 2):
        assert not written[one] & written[other]
        # Keys of one bucket do not open another.
        assert bucket(settings[one]) != bucket(settings[other])
    assert len({found.catalog_uri for found in settings.values()}) == 1
    assert bucket(settings["qa"]) not in settings["qa"].catalog_uri


def bucket(settings: Settings) -> str:
    found = re.match(r"s3://([^/]+)/", settings.storage_root)
    assert found is not None
    return found[1]


def test_an_environment_has_its_sensors_only(settings: dict[str, Settings]) -> None:
    for name, found in settings.items():
        assert [sensor.name for sensor in github_sensors(found)] == [SENSORS[name]]
        assert is_configured(found, "tiles")
        assert is_configured(found, "volumes")
        # The webhook is a secret, which comes from the environment.
        assert alert_sensors(found) == []


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_file_holds_a_secret(name: str) -> None:
    text = (DEPLOY / f"{name}.env").read_text()
    given = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    assert {"OCR_GITHUB_TOKEN", "OCR_ALERT_WEBHOOK_URL", "OCR_SAS_SUBSCRIPTION_KEY"} == SECRETS
    assert not given & SECRETS
    assert given >= {"OCR_ENVIRONMENT", "OCR_STORAGE_ROOT", "OCR_CATALOG", "OCR_PLATFORM"}
    assert all(secret in text for secret in SECRETS), "where secrets come from is told"
