"""Settings of tiles: where scenes come from, how they are accessed, and what trees are found by.

Belongs here: the fields, validation and examples of these `OCR_…` variables. Does not belong here:
reading the environment, which :mod:`resources.settings` does for all settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

Access = Literal["anonymous", "requester-pays", "signed"]
Orbit = Literal["auto", "ascending", "descending", "both"]

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")

IMAGERY_EXAMPLES = {
    "OCR_ELEVATION_SOURCE": "OCR_ELEVATION_SOURCE=https://earth-search.aws.element84.com/v1",
    "OCR_ELEVATION_ACCESS": "OCR_ELEVATION_ACCESS=requester-pays",
    "OCR_SENTINEL1_SOURCE": (
        "OCR_SENTINEL1_SOURCE=https://planetarycomputer.microsoft.com/api/stac/v1"
    ),
    "OCR_SENTINEL1_ACCESS": "OCR_SENTINEL1_ACCESS=signed",
    "OCR_SENTINEL1_ORBIT": "OCR_SENTINEL1_ORBIT=descending",
    "OCR_SENTINEL2_SOURCE": "OCR_SENTINEL2_SOURCE=/data/imagery",
    "OCR_SENTINEL2_ACCESS": "OCR_SENTINEL2_ACCESS=anonymous",
    "OCR_SAS_TOKEN_URL": (
        "OCR_SAS_TOKEN_URL=https://planetarycomputer.microsoft.com/api/sas/v1/token"
    ),
    "OCR_SAS_SUBSCRIPTION_KEY": "OCR_SAS_SUBSCRIPTION_KEY=0123456789abcdef",
    "OCR_TILES_PER_RUN": "OCR_TILES_PER_RUN=50",
    "OCR_TILES_OUTPUT_URI": "OCR_TILES_OUTPUT_URI=s3://bucket/tiles",
    "OCR_TREE_COVER_MODEL": "OCR_TREE_COVER_MODEL=/data/models/predict_graph-172.pb",
    "OCR_SUPERRESOLUTION_MODEL": "OCR_SUPERRESOLUTION_MODEL=/data/models/superresolve_graph.pb",
    "OCR_TREE_COVER_SEED": "OCR_TREE_COVER_SEED=0",
}


class ImagerySettings(BaseSettings):
    """The part of the settings that says where scenes of tiles come from."""

    elevation_source: str = Field(
        "https://earth-search.aws.element84.com/v1",
        description="STAC API of the Copernicus elevation model, or a folder of imagery.",
    )
    elevation_access: Access = Field(
        "anonymous", description="How its files are accessed: anonymous, requester-pays or signed."
    )
    sentinel1_source: str = Field(
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        description="STAC API of terrain-corrected Sentinel-1 scenes, or a folder of imagery.",
    )
    sentinel1_access: Access = Field("signed", description="How its files are accessed.")
    sentinel1_orbit: Orbit = Field(
        "auto",
        description="Orbit of radar composites: ascending, descending, both, or the better one.",
    )
    sentinel2_source: str = Field(
        "https://earth-search.aws.element84.com/v1",
        description="STAC API of Sentinel-2 surface reflectance, or a folder of imagery.",
    )
    sentinel2_access: Access = Field("anonymous", description="How its files are accessed.")
    sas_token_url: str = Field(
        "https://planetarycomputer.microsoft.com/api/sas/v1/token",
        description="Service of the tokens for signed access.",
    )
    sas_subscription_key: SecretStr | None = Field(
        None, description="Key for that service, which has tokens without it as well; kept secret."
    )
    tiles_per_run: int = Field(
        100, ge=1, le=1000, description="Tiles that one run of a backfill makes."
    )
    tiles_output_uri: str | None = Field(
        None,
        description=(
            "Place of tiles and of what is made from them; tiles below the environment's root if "
            "not set."
        ),
    )
    tree_cover_model: str | None = Field(
        None,
        description=(
            "Tree-cover network (.pb, .onnx or .xml), a file or s3:// address; the built-in "
            "baseline if not set."
        ),
    )
    superresolution_model: str | None = Field(
        None,
        description=(
            "Super-resolution network (.pb, .onnx or .xml), a file or s3:// address; bilinear if "
            "not set."
        ),
    )
    tree_cover_seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the choice of pixels that fill clouds."
    )

    @field_validator("elevation_source", "sentinel1_source", "sentinel2_source")
    @classmethod
    def _source(cls, value: str) -> str:
        if "://" in value:
            return cls._service(value)
        return str(Path(value).expanduser().absolute())

    @field_validator("sas_token_url")
    @classmethod
    def _service(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError("not https://host/path")
        return value.rstrip("/")

    @field_validator("sas_subscription_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        # A header may not hold anything else, and the error of the HTTP library would show it.
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("a key has no blanks and no characters beyond ASCII")
        return value
