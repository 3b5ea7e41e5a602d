"""Settings that choose the engines: where work executes, and which instance records it.

Belongs here: the fields, validation and examples of these `OCR_…` variables. Does not belong here:
reading the environment, which :mod:`resources.settings` does for all settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

Platform = Literal["local", "dask", "coiled"]
SpotPolicy = Literal["spot", "spot_with_fallback", "on-demand"]

_TAGS = re.compile(r"[\w.:/@+-]+=[\w.:/@+-]*(,[\w.:/@+-]+=[\w.:/@+-]*)*")

ENGINE_EXAMPLES = {
    "OCR_PLATFORM": "OCR_PLATFORM=dask",
    "OCR_WORKERS": "OCR_WORKERS=4",
    "OCR_DASK_SCHEDULER": "OCR_DASK_SCHEDULER=tcp://127.0.0.1:8786",
    "OCR_COILED_SOFTWARE": "OCR_COILED_SOFTWARE=ocr-v1-2-3",
    "OCR_COILED_VM_TYPE": "OCR_COILED_VM_TYPE=m8g.2xlarge",
    "OCR_COILED_SCHEDULER_VM_TYPE": "OCR_COILED_SCHEDULER_VM_TYPE=m8g.2xlarge",
    "OCR_COILED_SPOT_POLICY": "OCR_COILED_SPOT_POLICY=spot_with_fallback",
    "OCR_COILED_REGION": "OCR_COILED_REGION=us-west-2",
    "OCR_COILED_TAGS": "OCR_COILED_TAGS=project=ocr,team=risk",
    "OCR_COILED_FORWARD_AWS_CREDENTIALS": "OCR_COILED_FORWARD_AWS_CREDENTIALS=true",
    "OCR_INSTANCE_FILE": "OCR_INSTANCE_FILE=deploy/dagster.yaml",
}


class EngineSettings(BaseSettings):
    """The part of the settings that chooses engines."""

    platform: Platform = Field(
        "local",
        description="Where partitions are computed: in the run's process, on Dask, or on Coiled.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description=(
            "Partitions computed at once on this machine, or workers of a cluster that is made; "
            "what memory and cores allow if not set, and 4 on Coiled."
        ),
    )
    dask_scheduler: str | None = Field(
        None,
        description="Address of a Dask scheduler; a cluster on this machine is made if not set.",
    )
    coiled_software: str | None = Field(
        None,
        description="Coiled software environment; the packages of this machine if not set.",
    )
    coiled_vm_type: str | None = Field(
        None, description="Instance type of Coiled workers; the one of each stage if not set."
    )
    coiled_scheduler_vm_type: str = Field(
        "m8g.2xlarge", description="Instance type of the scheduler on Coiled."
    )
    coiled_spot_policy: SpotPolicy = Field(
        "spot_with_fallback",
        description="Whether Coiled workers are spot, spot_with_fallback or on-demand instances.",
    )
    coiled_region: str = Field("us-west-2", description="Cloud region of Coiled clusters.")
    coiled_tags: str | None = Field(
        None, description="Tags of the cloud resources that Coiled makes, as key=value,key=value."
    )
    coiled_forward_aws_credentials: bool = Field(
        False, description="Give this machine's AWS credentials to Coiled workers."
    )
    instance_file: Path | None = Field(
        None,
        description="Instance file that DAGSTER_HOME follows; the embedded instance if not set.",
    )

    @field_validator("dask_scheduler")
    @classmethod
    def _scheduler_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls)://[^\s/:]+:\d{1,5}", value):
            raise ValueError("not tcp://host:port or tls://host:port")
        return value

    @field_validator("coiled_tags")
    @classmethod
    def _tags(cls, value: str | None) -> str | None:
        if value is not None and not _TAGS.fullmatch(value):
            raise ValueError("not key=value, several joined by commas")
        return value
