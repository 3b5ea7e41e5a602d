"""Settings of what comes from outside and what is told to outside: GitHub and alerts.

Belongs here: the fields, validation and examples of these `OCR_…` variables. Does not belong here:
reading the environment, which :mod:`resources.settings` does for all settings.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

Names = Annotated[tuple[str, ...], NoDecode]
"""Several names, joined by commas in a variable."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

EVENT_EXAMPLES = {
    "OCR_GITHUB_REPOSITORY": "OCR_GITHUB_REPOSITORY=owner/name",
    "OCR_GITHUB_TOKEN": "OCR_GITHUB_TOKEN=github_pat_…",
    "OCR_GITHUB_API_URL": "OCR_GITHUB_API_URL=https://api.github.com",
    "OCR_GITHUB_BRANCH": "OCR_GITHUB_BRANCH=main",
    "OCR_GITHUB_LABELS": "OCR_GITHUB_LABELS=e2e,QA/QC",
    "OCR_GITHUB_DRAFTS": "OCR_GITHUB_DRAFTS=false",
    "OCR_GITHUB_PRERELEASES": "OCR_GITHUB_PRERELEASES=false",
    "OCR_GITHUB_SINCE": "OCR_GITHUB_SINCE=2026-01-31T12:00:00Z",
    "OCR_GITHUB_SECONDS": "OCR_GITHUB_SECONDS=60",
    "OCR_DEPLOY_REGION_IDS": "OCR_DEPLOY_REGION_IDS=y14_x5,y14_x6",
    "OCR_ALERT_WEBHOOK_URL": "OCR_ALERT_WEBHOOK_URL=https://hooks.slack.com/services/…",
}


class EventSettings(BaseSettings):
    """The part of the settings that connects this deployment with the world."""

    github_repository: str | None = Field(
        None, description="Repository whose events are deployed; no GitHub sensor if not set."
    )
    github_token: SecretStr | None = Field(
        None, description="Token for the GitHub API; kept secret."
    )
    github_api_url: str = Field("https://api.github.com", description="Address of the GitHub API.")
    github_branch: str = Field(
        "main", description="Branch whose pushes, and whose pull requests, are deployed."
    )
    github_labels: Names = Field(
        ("e2e", "QA/QC"), description="Labels, any of which asks for a deployment to qa."
    )
    github_drafts: bool = Field(False, description="Deploy drafts of releases too.")
    github_prereleases: bool = Field(False, description="Deploy pre-releases too.")
    github_since: datetime | None = Field(
        None,
        description="Events from before are none; the sensor's first look if not set.",
    )
    github_seconds: int = Field(
        60, ge=5, le=3600, description="Seconds between two looks at GitHub."
    )
    deploy_region_ids: Names = Field(
        (),
        description="Regions that pushes and pull requests deploy; a fixed choice if not set.",
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="Slack-compatible webhook that is told what fails; kept secret."
    )

    @field_validator("github_repository")
    @classmethod
    def _repository(cls, value: str | None) -> str | None:
        found = value is None or _REPOSITORY.fullmatch(value)
        if not found or (value and value.endswith(("/.", "/.."))):
            raise ValueError("not owner/name")
        return value

    @field_validator("github_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        # A header may not hold anything else, and the error of the HTTP library would show it.
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("a token has no blanks and no characters beyond ASCII")
        return value

    @field_validator("github_api_url")
    @classmethod
    def _api(cls, value: str) -> str:
        parts = urlsplit(value)
        extra = parts.query or "@" in parts.netloc
        if parts.scheme not in ("http", "https") or not parts.hostname or extra:
            raise ValueError("not an https:// address")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("a token is not sent over http:// beyond this machine; use https://")
        return value.rstrip("/")

    @field_validator("github_branch")
    @classmethod
    def _branch_of_events(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._/-]{0,199}", value) or ".." in value:
            raise ValueError("not the name of a branch")
        return value

    @field_validator("github_labels", "deploy_region_ids", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("github_since")
    @classmethod
    def _in_universal_time(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC) if value is not None else None

    @field_validator("alert_webhook_url")
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/]+\S*", value.get_secret_value()):
            raise ValueError("not an https:// address")
        return value
