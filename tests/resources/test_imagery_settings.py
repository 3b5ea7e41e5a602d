"""Settings of imagery: services or folders, and what is refused at once."""

from __future__ import annotations

import pytest

from resources.settings import Settings, SettingsError, load_settings


def test_services_are_the_public_ones_by_default() -> None:
    settings = load_settings()
    assert settings.elevation_source == settings.sentinel2_source
    assert settings.sentinel2_source.startswith("https://earth-search.")
    assert settings.sentinel1_access == "signed"
    assert settings.sas_token_url.startswith("https://planetarycomputer.")


def test_folders_become_absolute_and_addresses_lose_their_end() -> None:
    settings = Settings(sentinel2_source="imagery", elevation_source="https://a.example/v1/")
    assert settings.sentinel2_source.startswith("/")
    assert settings.elevation_source == "https://a.example/v1"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OCR_SENTINEL2_SOURCE", "ftp://a.example/v1", "not https://host/path"),
        ("OCR_ELEVATION_SOURCE", "https://a.example/v1?key=1", "not https://host/path"),
        ("OCR_SAS_TOKEN_URL", "token", "not https://host/path"),
        ("OCR_SENTINEL1_ACCESS", "secret", "'anonymous', 'requester-pays' or 'signed'"),
        ("OCR_SENTINEL1_ORBIT", "polar", "'auto', 'ascending', 'descending' or 'both'"),
        ("OCR_TILES_PER_RUN", "0", "greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(
        SettingsError, match=rf"{name}={value!r}.*for example {name}=".replace("?", r"\?")
    ) as error:
        load_settings()
    assert problem in str(error.value)


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_SAS_SUBSCRIPTION_KEY", "hidden")
    settings = load_settings()
    assert "hidden" not in str(settings.variables())
    assert settings.exported()["OCR_SAS_SUBSCRIPTION_KEY"] == "hidden"
    monkeypatch.setenv("OCR_SAS_SUBSCRIPTION_KEY", "hidden key")
    with pytest.raises(
        SettingsError, match="OCR_SAS_SUBSCRIPTION_KEY: a key has no blanks"
    ) as error:
        load_settings()
    assert "hidden key" not in str(error.value)
