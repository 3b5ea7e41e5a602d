"""Settings of the doorways through which requests for tiles and volumes come in.

Belongs here: the fields, validation and examples of these `OCR_…` variables. Does not belong here:
reading the environment, which :mod:`resources.settings` does for all settings.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

_QUEUE = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9/_-]*[A-Za-z0-9_-](\.fifo)?")

REQUEST_EXAMPLES = {
    "OCR_REQUEST_INBOX": "OCR_REQUEST_INBOX=/data/ocr/inbox or OCR_REQUEST_INBOX=s3://bucket/inbox",
    "OCR_REQUEST_SECONDS": "OCR_REQUEST_SECONDS=30",
    "OCR_TILE_QUEUE_URL": "OCR_TILE_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/tiles",
    "OCR_VOLUME_QUEUE_URL": (
        "OCR_VOLUME_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/123456789012/volumes"
    ),
    "OCR_SQS_ENDPOINT_URL": "OCR_SQS_ENDPOINT_URL=http://127.0.0.1:9324",
}


class RequestSettings(BaseSettings):
    """The part of the settings that says where requests come from."""

    request_inbox: str | None = Field(
        None,
        description=(
            "Folder or s3://bucket/prefix with the inboxes tiles/ and volumes/; inbox below the "
            "environment's root if not set."
        ),
    )
    request_seconds: int = Field(
        30, ge=1, le=3600, description="Seconds between two looks for requests."
    )
    tile_queue_url: str | None = Field(
        None, description="SQS queue of requests for tiles; only the inbox if not set."
    )
    volume_queue_url: str | None = Field(
        None, description="SQS queue of requests for volumes; only the inbox if not set."
    )
    sqs_endpoint_url: str | None = Field(
        None, description="Endpoint of an SQS-compatible service; AWS if not set."
    )

    @field_validator("tile_queue_url", "volume_queue_url")
    @classmethod
    def _queue_url(cls, value: str | None) -> str | None:
        if value is not None and not (_QUEUE.fullmatch(value) and urlsplit(value).hostname):
            raise ValueError("not the URL of a queue, https://host/account/name")
        return value
