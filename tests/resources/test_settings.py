"""Settings: every variable, where it may come from, and what a wrong one says."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from resources import settings as settings_module
from resources.settings import Settings, SettingsError, default_data_folder, load_settings

ALL = {
    "OCR_ENVIRONMENT": ("staging", "environment", "staging"),
    "OCR_VERSION": ("v1.2.3", "version", "1.2.3"),
    "OCR_REVISION": ("2", "revision", 2),
    "OCR_STORAGE_ROOT": ("/data/ocr", "storage_root", "/data/ocr"),
    "OCR_ICECHUNK_STORE_URI": ("s3://bucket/risk/", "icechunk_store_uri", "s3://bucket/risk"),
    "OCR_VECTOR_OUTPUT_URI": ("/data/vector", "vector_output_uri", "/data/vector"),
    "OCR_BRANCH": ("try-2", "branch", "try-2"),
    "OCR_CATALOG": ("/data/catalog.json", "catalog", "/data/catalog.json"),
    "OCR_SOURCES": ("/data/sources.json", "sources", Path("/data/sources.json")),
    "OCR_DOWNLOADS_ROOT": ("/data/downloads", "downloads_root", Path("/data/downloads")),
    "OCR_METHOD": ("published", "method", "published"),
    "OCR_REGIONS_PER_RUN": ("7", "regions_per_run", 7),
    "OCR_VOLUMES_SOURCE": ("s3://archive/", "volumes_source", "s3://archive"),
    "OCR_VOLUMES_ANONYMOUS": ("true", "volumes_anonymous", True),
    "OCR_VOLUMES_ENDPOINT_URL": (
        "http://127.0.0.1:8",
        "volumes_endpoint_url",
        "http://127.0.0.1:8",
    ),
    "OCR_VOLUMES_OUTPUT_URI": ("s3://bucket/volumes/", "volumes_output_uri", "s3://bucket/volumes"),
    "OCR_MODELS_ROOT": ("/data/models", "models_root", Path("/data/models")),
    "OCR_JOB_TYPES": ("/data/types.toml", "job_types", Path("/data/types.toml")),
    "OCR_PLATFORM": ("dask", "platform", "dask"),
    "OCR_WORKERS": ("3", "workers", 3),
    "OCR_DASK_SCHEDULER": ("tcp://10.0.0.1:8786", "dask_scheduler", "tcp://10.0.0.1:8786"),
    "OCR_COILED_SOFTWARE": ("ocr-v1", "coiled_software", "ocr-v1"),
    "OCR_COILED_VM_TYPE": ("m8g.large", "coiled_vm_type", "m8g.large"),
    "OCR_COILED_SCHEDULER_VM_TYPE": ("m8g.xlarge", "coiled_scheduler_vm_type", "m8g.xlarge"),
    "OCR_COILED_SPOT_POLICY": ("on-demand", "coiled_spot_policy", "on-demand"),
    "OCR_COILED_REGION": ("eu-west-1", "coiled_region", "eu-west-1"),
    "OCR_COILED_TAGS": ("team=risk", "coiled_tags", "team=risk"),
    "OCR_COILED_FORWARD_AWS_CREDENTIALS": ("true", "coiled_forward_aws_credentials", True),
    "OCR_INSTANCE_FILE": ("/data/dagster.yaml", "instance_file", Path("/data/dagster.yaml")),
    "OCR_S3_ENDPOINT_URL": ("http://127.0.0.1:9", "s3_endpoint_url", "http://127.0.0.1:9"),
    "OCR_S3_REGION": ("us-west-2", "s3_region", "us-west-2"),
    "OCR_S3_ANONYMOUS": ("true", "s3_anonymous", True),
    "OCR_GITHUB_REPOSITORY": ("owner/some.name", "github_repository", "owner/some.name"),
    "OCR_GITHUB_TOKEN": ("github_pat_1", "github_token", SecretStr("github_pat_1")),
    "OCR_GITHUB_API_URL": (
        "https://git.example/api/v3/",
        "github_api_url",
        "https://git.example/api/v3",
    ),
    "OCR_GITHUB_BRANCH": ("release/2", "github_branch", "release/2"),
    "OCR_GITHUB_LABELS": ("e2e, QA", "github_labels", ("e2e", "QA")),
    "OCR_GITHUB_DRAFTS": ("true", "github_drafts", True),
    "OCR_GITHUB_PRERELEASES": ("true", "github_prereleases", True),
    "OCR_GITHUB_SINCE": (
        "2026-01-31T12:00:00+02:00",
        "github_since",
        datetime(2026, 1, 31, 10, tzinfo=UTC),
    ),
    "OCR_GITHUB_SECONDS": ("30", "github_seconds", 30),
    "OCR_DEPLOY_REGION_IDS": ("y1_x1,y1_x2", "deploy_region_ids", ("y1_x1", "y1_x2")),
    "OCR_ALERT_WEBHOOK_URL": (
        "https://hooks.example/T/B",
        "alert_webhook_url",
        SecretStr("https://hooks.example/T/B"),
    ),
    "OCR_REQUEST_INBOX": ("s3://bucket/inbox/", "request_inbox", "s3://bucket/inbox"),
    "OCR_REQUEST_SECONDS": ("5", "request_seconds", 5),
    "OCR_TILE_QUEUE_URL": (
        "https://sqs.example/1/tiles.fifo",
        "tile_queue_url",
        "https://sqs.example/1/tiles.fifo",
    ),
    "OCR_VOLUME_QUEUE_URL": (
        "http://127.0.0.1:9/1/q",
        "volume_queue_url",
        "http://127.0.0.1:9/1/q",
    ),
    "OCR_SQS_ENDPOINT_URL": ("http://127.0.0.1:9", "sqs_endpoint_url", "http://127.0.0.1:9"),
    "OCR_ELEVATION_SOURCE": (
        "https://stac.example/v1/",
        "elevation_source",
        "https://stac.example/v1",
    ),
    "OCR_ELEVATION_ACCESS": ("requester-pays", "elevation_access", "requester-pays"),
    "OCR_SENTINEL1_SOURCE": ("/data/imagery", "sentinel1_source", "/data/imagery"),
    "OCR_SENTINEL1_ACCESS": ("anonymous", "sentinel1_access", "anonymous"),
    "OCR_SENTINEL1_ORBIT": ("descending", "sentinel1_orbit", "descending"),
    "OCR_SENTINEL2_SOURCE": ("/data/imagery", "sentinel2_source", "/data/imagery"),
    "OCR_SENTINEL2_ACCESS": ("signed", "sentinel2_access", "signed"),
    "OCR_SAS_TOKEN_URL": (
        "https://sas.example/token",
        "sas_token_url",
        "https://sas.example/token",
    ),
    "OCR_SAS_SUBSCRIPTION_KEY": ("a0b1", "sas_subscription_key", SecretStr("a0b1")),
    "OCR_TILES_PER_RUN": ("7", "tiles_per_run", 7),
    "OCR_TILES_OUTPUT_URI": ("s3://bucket/tiles/", "tiles_output_uri", "s3://bucket/tiles"),
    "OCR_TREE_COVER_MODEL": ("/models/a.pb", "tree_cover_model", "/models/a.pb"),
    "OCR_SUPERRESOLUTION_MODEL": (
        "s3://bucket/b.onnx",
        "superresolution_model",
        "s3://bucket/b.onnx",
    ),
    "OCR_TREE_COVER_SEED": ("7", "tree_cover_seed", 7),
    "OCR_DEBUG": ("1", "debug", True),
}
"""Each variable: a value, the setting it makes, and what is read from it."""


@pytest.fixture
def set_variables(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set variables for a test: ``set_variables(OCR_VERSION="1.0.0")``."""

    def set_(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_


def test_the_list_is_complete() -> None:
    assert {setting for _, setting, _ in ALL.values()} == set(Settings.model_fields)
    assert ALL.keys() == settings_module._EXAMPLES.keys()


@pytest.mark.parametrize("name", ALL)
def test_each_variable_is_read(name: str, set_variables: Any) -> None:
    value, setting, expected = ALL[name]
    set_variables(**{name: value})
    assert getattr(load_settings(), setting) == expected


@pytest.mark.parametrize("name", ALL)
def test_each_variable_may_come_from_the_env_file(name: str, tmp_path: Path) -> None:
    value, setting, expected = ALL[name]
    file = tmp_path / "qa.env"
    file.write_text(f"# a comment\n\n{name}={value}\n")
    assert getattr(load_settings(file), setting) == expected
    assert name not in os.environ


def test_every_variable_has_a_meaning() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_defaults() -> None:
    settings = load_settings()
    root = str(default_data_folder())
    assert settings.environment == "qa"
    assert settings.version_label == "dev"
    assert settings.storage_root == root
    assert settings.output_root == f"{root}/qa/dev"
    assert settings.tiles_uri == f"{root}/qa/tiles"
    assert settings.volumes_uri == f"{root}/qa/volumes"
    assert settings.icechunk_uri == f"{root}/qa/icechunk/region-risk"
    assert settings.icechunk_branch == "qa"
    assert settings.catalog_uri == f"{root}/input/catalog.json"
    assert settings.writer_pool == "writer_qa"
    assert settings.method == "corrected"
    assert not settings.debug
    assert settings.s3.endpoint_url is None


def test_data_stay_in_a_checkout_and_go_to_the_users_folder_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_data_folder() == Path(__file__).parents[2] / ".data"
    monkeypatch.setattr(settings_module, "REPOSITORY", tmp_path / "site-packages")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert default_data_folder() == tmp_path / "share" / "ocr-assets"


def test_places_follow_from_the_settings(set_variables: Any) -> None:
    set_variables(
        OCR_ENVIRONMENT="production",
        OCR_VERSION="v2.0.1",
        OCR_STORAGE_ROOT="s3://bucket/some/root/",
    )
    settings = load_settings()
    assert settings.output_root == "s3://bucket/some/root/production/v2.0.1"
    assert settings.tiles_uri == "s3://bucket/some/root/production/tiles"
    assert settings.volumes_uri == "s3://bucket/some/root/production/volumes"
    assert settings.imagery_folder == default_data_folder() / "input" / "imagery"
    assert settings.icechunk_uri == "s3://bucket/some/root/production/icechunk/region-risk"
    assert settings.catalog_uri == "s3://bucket/some/root/input/catalog.json"
    assert settings.icechunk_branch == "production"
    assert settings.writer_pool == "writer_production"


def test_places_a_user_sets_apart(set_variables: Any) -> None:
    set_variables(**{name: value for name, (value, _, _) in ALL.items()})
    settings = load_settings()
    assert settings.output_root == "/data/vector/v1.2.3_r2"
    assert settings.tiles_uri == "s3://bucket/tiles"
    assert settings.volumes_uri == "s3://bucket/volumes"
    assert settings.imagery_folder == Path("/data/ocr/input/imagery")
    assert settings.icechunk_uri == "s3://bucket/risk"
    assert settings.icechunk_branch == "try-2"
    assert settings.catalog_uri == "/data/catalog.json"
    assert settings.s3.endpoint_url == "http://127.0.0.1:9"
    assert settings.s3.region == "us-west-2"
    assert settings.s3.anonymous


def test_the_environment_wins_over_the_env_file(tmp_path: Path, set_variables: Any) -> None:
    file = tmp_path / "qa.env"
    file.write_text("OCR_ENVIRONMENT=staging\nOCR_VERSION=1.0.0\n")
    set_variables(OCR_VERSION="2.0.0", OCR_BRANCH="")
    settings = load_settings(file)
    assert settings.environment == "staging"
    assert settings.version == "2.0.0"
    assert settings.branch is None, "an empty variable is none"


def test_paths_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_variables: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    set_variables(OCR_STORAGE_ROOT="data", OCR_CATALOG="~/catalog.json")
    settings = load_settings()
    assert settings.storage_root == str(tmp_path / "data")
    assert settings.catalog_uri == "/home/somebody/catalog.json"


def test_settings_as_variables_give_the_same_settings(set_variables: Any) -> None:
    set_variables(**{name: value for name, (value, _, _) in ALL.items()})
    settings = load_settings()
    exported = settings.exported()
    assert exported.keys() == settings.variables().keys() == ALL.keys()
    set_variables(**exported)
    assert load_settings() == settings


SECRETS = {
    "OCR_GITHUB_TOKEN": "github_pat_do_not_tell",
    "OCR_ALERT_WEBHOOK_URL": "https://hooks.example/do_not_tell",
}


def test_secrets_are_shown_to_nobody(set_variables: Any) -> None:
    set_variables(**SECRETS)
    settings = load_settings()
    shown = f"{settings!r} {settings} {settings.variables()} {settings.model_dump(mode='json')}"
    assert "do_not_tell" not in shown
    assert settings.variables()["OCR_GITHUB_TOKEN"] == "**********"
    assert settings.exported().items() >= SECRETS.items()


def test_secrets_are_not_sent_to_workers(set_variables: Any) -> None:
    set_variables(**SECRETS)
    settings = load_settings()
    sent = pickle.dumps(settings)
    assert b"do_not_tell" not in sent
    received = pickle.loads(sent)
    assert received == settings.model_copy(update={"github_token": None, "alert_webhook_url": None})
    assert settings.changed(version="1.2.3").github_token == settings.github_token


@pytest.mark.parametrize(
    ("name", "value"),
    [("OCR_GITHUB_TOKEN", "do not tell"), ("OCR_ALERT_WEBHOOK_URL", "ftp://do_not_tell")],
)
def test_a_wrong_secret_is_not_told(name: str, value: str, set_variables: Any) -> None:
    set_variables(**{name: value})
    with pytest.raises(SettingsError, match=f"{name}: .*; for example {name}=") as caught:
        load_settings()
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "OCR_STORAGE_ROOT",
        "OCR_S3_ENDPOINT_URL",
        "OCR_SQS_ENDPOINT_URL",
        "OCR_TILE_QUEUE_URL",
        "OCR_GITHUB_API_URL",
        "OCR_ELEVATION_SOURCE",
        "OCR_SAS_TOKEN_URL",
        "OCR_DASK_SCHEDULER",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_told(name: str, set_variables: Any) -> None:
    scheme = "tcp" if name == "OCR_DASK_SCHEDULER" else "https"
    set_variables(**{name: f"{scheme}://user:do_not_tell@host.example:443"})
    with pytest.raises(SettingsError, match=f"{name}: .*; for example {name}=") as caught:
        load_settings()
    assert "do_not_tell" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OCR_ENVIRONMENT", "prod", "'qa', 'staging' or 'production'"),
        ("OCR_VERSION", "1.2", "not a semantic version"),
        ("OCR_VERSION", "vv1.2.3", "not a semantic version"),
        ("OCR_VERSION", "01.2.3", "not a semantic version"),
        ("OCR_STORAGE_ROOT", "gs://bucket/x", "not a folder or s3://bucket/prefix"),
        ("OCR_STORAGE_ROOT", "s3://Bucket/x", "not a folder or s3://bucket/prefix"),
        ("OCR_ICECHUNK_STORE_URI", "s3://", "not a folder or s3://bucket/prefix"),
        ("OCR_VECTOR_OUTPUT_URI", "https://host/x", "not a folder or s3://bucket/prefix"),
        ("OCR_CATALOG", "http://host/c.json", "not a folder or s3://bucket/prefix"),
        ("OCR_BRANCH", "my branch", "a branch name has letters"),
        ("OCR_METHOD", "better", "'corrected' or 'published'"),
        ("OCR_REGIONS_PER_RUN", "0", "greater than or equal to 1"),
        ("OCR_REGIONS_PER_RUN", "all", "valid integer"),
        ("OCR_VOLUMES_SOURCE", "ftp://host/x", "not a folder or s3://bucket/prefix"),
        ("OCR_GITHUB_REPOSITORY", "name", "not owner/name"),
        ("OCR_GITHUB_REPOSITORY", "owner/..", "not owner/name"),
        ("OCR_GITHUB_REPOSITORY", "owner/name/pulls", "not owner/name"),
        ("OCR_GITHUB_API_URL", "http://git.example/api", "use https://"),
        ("OCR_GITHUB_API_URL", "file:///etc", "not an https:// address"),
        ("OCR_GITHUB_BRANCH", "a/../b", "not the name of a branch"),
        ("OCR_GITHUB_SINCE", "2026-01-31T12:00:00", "without a time zone"),
        ("OCR_GITHUB_SINCE", "yesterday", "valid datetime"),
        ("OCR_GITHUB_SECONDS", "1", "greater than or equal to 5"),
        ("OCR_VOLUMES_ANONYMOUS", "perhaps", "valid boolean"),
        ("OCR_VOLUMES_ENDPOINT_URL", "archive.tbrc.org", "not http://host:port"),
        ("OCR_MODELS_ROOT", "s3://bucket/models", "not a local path"),
        ("OCR_JOB_TYPES", "https://host/types.toml", "not a local path"),
        ("OCR_S3_ENDPOINT_URL", "127.0.0.1:9000", "not http://host:port"),
        ("OCR_S3_ANONYMOUS", "perhaps", "valid boolean"),
        ("OCR_DEBUG", "very", "valid boolean"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "env file"])
def test_a_wrong_value_says_which_what_and_an_example(
    name: str, value: str, message: str, source: str, tmp_path: Path, set_variables: Any
) -> None:
    file = None
    if source == "env file":
        file = tmp_path / "wrong.env"
        file.write_text(f"{name}={value}\n")
    else:
        set_variables(**{name: value})
    with pytest.raises(SettingsError) as error:
        load_settings(file)
    text = str(error.value)
    assert text.startswith(f"{name}={value!r}: ")
    assert message in text
    assert f"for example {name}=" in text
    assert "\n" not in text


def test_all_wrong_values_are_told_at_once(set_variables: Any) -> None:
    set_variables(OCR_METHOD="better", OCR_DEBUG="very")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "OCR_METHOD='better'" in str(error.value)
    assert "OCR_DEBUG='very'" in str(error.value)


def test_production_needs_a_version(set_variables: Any) -> None:
    set_variables(OCR_ENVIRONMENT="production")
    with pytest.raises(SettingsError, match=r"OCR_VERSION is required .*OCR_VERSION=1\.2\.3"):
        load_settings()
    set_variables(OCR_VERSION="1.0.0")
    assert load_settings().version_label == "v1.0.0"


@pytest.mark.parametrize("name", ["OCR_STORAGE_ROT", "OCR_", "OCR_SECRET"])
def test_an_unknown_variable_is_refused(name: str, tmp_path: Path, set_variables: Any) -> None:
    file = tmp_path / "typo.env"
    file.write_text(f"{name}=x\n")
    with pytest.raises(
        SettingsError, match=rf"unknown setting {name}; known: OCR_ALERT_WEBHOOK_URL, .*ROOT"
    ):
        load_settings(file)
    set_variables(**{name: "x"})
    with pytest.raises(
        SettingsError, match=rf"unknown setting {name}; known: OCR_ALERT_WEBHOOK_URL, .*ROOT"
    ):
        load_settings()


def test_credentials_do_not_belong_into_the_env_file(tmp_path: Path) -> None:
    file = tmp_path / "secret.env"
    file.write_text("AWS_SECRET_ACCESS_KEY=hush\n")
    with pytest.raises(SettingsError, match="unknown setting AWS_SECRET_ACCESS_KEY") as error:
        load_settings(file)
    assert "hush" not in str(error.value)


def test_an_env_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.env' does not exist"):
        load_settings(tmp_path / "no.env")
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path)
    (tmp_path / "binary.env").write_bytes(b"OCR_VERSION=\xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.env' is not text"):
        load_settings(tmp_path / "binary.env")


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.debug = True  # type: ignore[misc]


numbers = st.integers(0, 10**6).map(str)
identifiers = st.from_regex(r"[0-9A-Za-z-]*[A-Za-z-][0-9A-Za-z-]*", fullmatch=True) | numbers


@given(
    st.tuples(numbers, numbers, numbers).map(".".join),
    st.lists(identifiers, max_size=3).map(".".join),
    st.lists(st.from_regex(r"[0-9A-Za-z-]+", fullmatch=True), max_size=3).map(".".join),
    st.booleans(),
)
def test_every_semantic_version_is_accepted(
    core: str, prerelease: str, build: str, leading: bool
) -> None:
    version = core + (f"-{prerelease}" if prerelease else "") + (f"+{build}" if build else "")
    settings = Settings(version=f"v{version}" if leading else version)
    assert settings.version == version
    assert settings.version_label == f"v{version}"
