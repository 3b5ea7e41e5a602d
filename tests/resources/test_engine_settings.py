"""Settings that choose engines: what is accepted, and one line for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources.settings import Settings, SettingsError, load_settings


def test_work_is_computed_here_unless_something_is_set() -> None:
    settings = load_settings()
    assert settings.platform == "local"
    assert settings.dask_scheduler is None
    assert settings.workers is None
    assert settings.instance_file is None
    assert settings.coiled_spot_policy == "spot_with_fallback"
    assert settings.coiled_forward_aws_credentials is False


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OCR_DASK_SCHEDULER", "tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("OCR_DASK_SCHEDULER", "tls://scheduler.example:8786", "tls://scheduler.example:8786"),
        ("OCR_COILED_TAGS", "project=ocr,team=risk", "project=ocr,team=risk"),
        ("OCR_WORKERS", "3", 3),
        ("OCR_INSTANCE_FILE", "~/instance.yaml", Path.home() / "instance.yaml"),
    ],
)
def test_good_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), name.removeprefix("OCR_").lower()) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OCR_PLATFORM", "cloud", "Input should be 'local', 'dask' or 'coiled'"),
        ("OCR_DASK_SCHEDULER", "127.0.0.1:8786", "not tcp://host:port or tls://host:port"),
        ("OCR_DASK_SCHEDULER", "tcp://127.0.0.1", "not tcp://host:port or tls://host:port"),
        ("OCR_WORKERS", "0", "greater than or equal to 1"),
        ("OCR_COILED_TAGS", "project", "not key=value, several joined by commas"),
        ("OCR_COILED_SPOT_POLICY", "cheap", "'spot', 'spot_with_fallback' or 'on-demand'"),
        ("OCR_INSTANCE_FILE", "s3://bucket/dagster.yaml", "not a local path"),
    ],
)
def test_wrong_values_are_one_line_with_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as told:
        load_settings()
    assert f"{name}={value!r}: " in str(told.value)
    assert message in str(told.value)
    assert f"for example {name}=" in str(told.value)


def test_children_get_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Settings(platform="dask", workers=2, dask_scheduler="tcp://127.0.0.1:1")
    for name, value in chosen.exported().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == chosen
