"""Configuration has one door: :class:`Settings`.

Belongs here: every `OCR_…` variable, its default, its validation and its error message.
Does not belong here: credentials of object stores. Their clients read them from the standard
`AWS_…` variables. Secrets that are settings are masked wherever they are shown, and stay in this
process when settings are sent to another one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from resources.engine_settings import ENGINE_EXAMPLES, EngineSettings
from resources.event_settings import EVENT_EXAMPLES, EventSettings
from resources.imagery_settings import IMAGERY_EXAMPLES, ImagerySettings
from resources.request_settings import REQUEST_EXAMPLES, RequestSettings
from resources.storage import S3Options

Environment = Literal["qa", "staging", "production"]
Method = Literal["corrected", "published"]

# The rule of semver.org, version 2.0.0.
_SEMANTIC_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_EXAMPLES = (
    ENGINE_EXAMPLES
    | EVENT_EXAMPLES
    | IMAGERY_EXAMPLES
    | REQUEST_EXAMPLES
    | {
        "OCR_ENVIRONMENT": "OCR_ENVIRONMENT=qa",
        "OCR_VERSION": "OCR_VERSION=1.2.3",
        "OCR_REVISION": "OCR_REVISION=2",
        "OCR_STORAGE_ROOT": "OCR_STORAGE_ROOT=/data/ocr or OCR_STORAGE_ROOT=s3://bucket/prefix",
        "OCR_ICECHUNK_STORE_URI": "OCR_ICECHUNK_STORE_URI=s3://bucket/region-risk",
        "OCR_VECTOR_OUTPUT_URI": "OCR_VECTOR_OUTPUT_URI=s3://bucket/vector",
        "OCR_BRANCH": "OCR_BRANCH=qa",
        "OCR_CATALOG": "OCR_CATALOG=/data/ocr/input/catalog.json",
        "OCR_SOURCES": "OCR_SOURCES=/data/ocr/sources.json",
        "OCR_DOWNLOADS_ROOT": "OCR_DOWNLOADS_ROOT=/data/ocr/downloads",
        "OCR_METHOD": "OCR_METHOD=corrected",
        "OCR_VOLUMES_SOURCE": "OCR_VOLUMES_SOURCE=/data/scans or OCR_VOLUMES_SOURCE=s3://archive.tbrc.org",
        "OCR_VOLUMES_ANONYMOUS": "OCR_VOLUMES_ANONYMOUS=true",
        "OCR_VOLUMES_ENDPOINT_URL": "OCR_VOLUMES_ENDPOINT_URL=https://s3.us-east-1.amazonaws.com",
        "OCR_VOLUMES_OUTPUT_URI": "OCR_VOLUMES_OUTPUT_URI=s3://bucket/volumes",
        "OCR_MODELS_ROOT": "OCR_MODELS_ROOT=/data/ocr/models",
        "OCR_JOB_TYPES": "OCR_JOB_TYPES=/data/ocr/job_types.toml",
        "OCR_DEBUG": "OCR_DEBUG=true",
        "OCR_REGIONS_PER_RUN": "OCR_REGIONS_PER_RUN=45",
        "OCR_S3_ENDPOINT_URL": "OCR_S3_ENDPOINT_URL=http://127.0.0.1:9000",
        "OCR_S3_REGION": "OCR_S3_REGION=us-west-2",
        "OCR_S3_ANONYMOUS": "OCR_S3_ANONYMOUS=false",
    }
)

_SECRETS = ("OCR_GITHUB_TOKEN", "OCR_ALERT_WEBHOOK_URL", "OCR_SAS_SUBSCRIPTION_KEY")

_HAS_PASSWORD = re.compile(r"://[^/\s]*@")
"""An address with a name and a password in it, which is refused wherever an address is meant."""

REPOSITORY = Path(__file__).resolve().parent.parent
"""The folder that holds the packages: a checkout, or site-packages of an installation."""


class SettingsError(ValueError):
    """A wrong or missing setting; the message says which, what was found and an example."""


def default_data_folder() -> Path:
    """`.data` of a checkout, else the user's data directory."""
    if (REPOSITORY / "pyproject.toml").is_file():
        return REPOSITORY / ".data"
    return user_data_path("ocr-assets", appauthor=False)


class Settings(EngineSettings, EventSettings, ImagerySettings, RequestSettings):
    """Everything a user may set, read from `OCR_…` variables and an optional env file."""

    model_config = SettingsConfigDict(
        env_prefix="OCR_", extra="forbid", frozen=True, env_ignore_empty=True
    )

    environment: Environment = Field("qa", description="Deployment: qa, staging or production.")
    version: str | None = Field(
        None,
        description="Semantic version of what is written; required in production.",
    )
    revision: int = Field(
        1,
        ge=1,
        le=999,
        description="How often this version was computed anew after it had been published.",
    )
    storage_root: str = Field(
        default_factory=lambda: str(default_data_folder()),
        description="Folder or s3://bucket/prefix below which every artefact is kept.",
    )
    icechunk_store_uri: str | None = Field(
        None, description="Icechunk repository of region risk, if not under the storage root."
    )
    vector_output_uri: str | None = Field(
        None, description="Place of tables and tiles, if not under the storage root."
    )
    branch: str | None = Field(
        None, description="Icechunk branch; the environment's name if not set."
    )
    catalog: str | None = Field(
        None, description="Catalog of inputs; input/catalog.json under the storage root if not set."
    )
    sources: Path | None = Field(
        None,
        description="File (.json) that names mirrors, releases or hashes of published inputs.",
    )
    downloads_root: Path | None = Field(
        None,
        description=(
            "Local folder of downloaded inputs; input/downloads under the storage root if not set."
        ),
    )
    method: Method = Field(
        "corrected",
        description=(
            "How risk and tree cover are computed; 'published' reproduces the published numbers."
        ),
    )
    regions_per_run: int = Field(
        45,
        ge=1,
        le=1000,
        description="Regions that one run of a backfill computes, one after the other.",
    )
    volumes_source: str | None = Field(
        None,
        description=(
            "Where volumes of scans come from: a folder with a folder, .zip or .pdf for each, or "
            "an archive as s3://bucket; input/volumes under the storage root if not set."
        ),
    )
    volumes_anonymous: bool | None = Field(
        None,
        description=(
            "Read the archive of volumes without credentials; as OCR_S3_ANONYMOUS if not set."
        ),
    )
    volumes_endpoint_url: str | None = Field(
        None, description="Endpoint of the archive of volumes; OCR_S3_ENDPOINT_URL if not set."
    )
    volumes_output_uri: str | None = Field(
        None,
        description=(
            "Place of lines, text and jobs of volumes; volumes below the environment's root if "
            "not set."
        ),
    )
    models_root: Path = Field(
        default_factory=lambda: default_data_folder() / "models",
        description="Folder of recognition models.",
    )
    job_types: Path | None = Field(
        None, description="File (.toml or .json) that defines job types of your own."
    )
    s3_endpoint_url: str | None = Field(None, description="Endpoint of an S3-compatible store.")
    s3_region: str = Field("us-east-1", description="Region of the object store.")
    s3_anonymous: bool = Field(False, description="Read public buckets without credentials.")
    debug: bool = Field(False, description="Detailed logging.")

    @field_validator("version")
    @classmethod
    def _semantic_version(cls, value: str | None) -> str | None:
        if value is None:
            return None
        bare = value.strip().removeprefix("v")
        if not _SEMANTIC_VERSION.fullmatch(bare):
            raise ValueError("not a semantic version (MAJOR.MINOR.PATCH)")
        return bare

    @field_validator(
        "storage_root",
        "icechunk_store_uri",
        "vector_output_uri",
        "catalog",
        "volumes_source",
        "request_inbox",
        "tiles_output_uri",
        "tree_cover_model",
        "superresolution_model",
        "volumes_output_uri",
    )
    @classmethod
    def _location(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "://" in value:
            if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", value):
                raise ValueError("not a folder or s3://bucket/prefix")
            return value.rstrip("/")
        return str(Path(value).expanduser().absolute())

    @field_validator(
        "models_root",
        "job_types",
        "sources",
        "downloads_root",
        "instance_file",
    )
    @classmethod
    def _local_path(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(value)):  # a path has one slash left of two
            raise ValueError("not a local path")
        return value.expanduser().absolute()

    @field_validator("s3_endpoint_url", "sqs_endpoint_url", "volumes_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s@]+/?", value):
            raise ValueError("not http://host:port or https://host")
        return value

    @field_validator("branch")
    @classmethod
    def _branch_name(cls, value: str | None) -> str | None:
        if value is not None and not _BRANCH.fullmatch(value):
            raise ValueError("a branch name has letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _production_needs_version(self) -> Settings:
        if self.environment == "production" and self.version is None:
            raise ValueError("OCR_VERSION is required where OCR_ENVIRONMENT is production")
        return self

    @property
    def s3(self) -> S3Options:
        """How object stores are reached."""
        return S3Options(
            endpoint_url=self.s3_endpoint_url, region=self.s3_region, anonymous=self.s3_anonymous
        )

    @property
    def volumes_s3(self) -> S3Options:
        """How the archive of volumes is reached, where it is in an object store."""
        anonymous = self.s3_anonymous if self.volumes_anonymous is None else self.volumes_anonymous
        return S3Options(
            endpoint_url=self.volumes_endpoint_url or self.s3_endpoint_url,
            region=self.s3_region,
            anonymous=anonymous,
        )

    @property
    def version_label(self) -> str:
        """`v1.2.3`, `v1.2.3_r2` for a second revision, or `dev` where no version is set."""
        if self.version is None:
            return "dev"
        return f"v{self.version}" + (f"_r{self.revision}" if self.revision > 1 else "")

    @property
    def environment_root(self) -> str:
        """Place of this environment's versions and of what is said about them."""
        return self.vector_output_uri or f"{self.storage_root}/{self.environment}"

    @property
    def output_root(self) -> str:
        """Place of this environment's and version's tables and tiles."""
        return f"{self.environment_root}/{self.version_label}"

    @property
    def tiles_uri(self) -> str:
        """Place of this environment's tiles; they belong to no version of the regions."""
        return self.tiles_output_uri or f"{self.environment_root}/tiles"

    @property
    def volumes_uri(self) -> str:
        """Place of what is read of volumes; it belongs to no version of the regions."""
        return self.volumes_output_uri or f"{self.environment_root}/volumes"

    @property
    def imagery_folder(self) -> Path:
        """Local folder of the sample world's imagery, also where artefacts are kept elsewhere."""
        root = self.storage_root if "://" not in self.storage_root else str(default_data_folder())
        return Path(root) / "input" / "imagery"

    @property
    def icechunk_uri(self) -> str:
        """Place of this environment's region-risk repository."""
        return (
            self.icechunk_store_uri
            or f"{self.storage_root}/{self.environment}/icechunk/region-risk"
        )

    @property
    def icechunk_branch(self) -> str:
        """Branch of the region-risk repository that this environment writes."""
        return self.branch or self.environment

    @property
    def catalog_uri(self) -> str:
        """Place of the input catalog."""
        return self.catalog or f"{self.storage_root}/input/catalog.json"

    @property
    def downloads_folder(self) -> Path:
        """Local folder where downloaded inputs are kept until they are processed, and after."""
        if self.downloads_root is not None:
            return self.downloads_root
        root = self.storage_root if "://" not in self.storage_root else str(default_data_folder())
        return Path(root) / "input" / "downloads"

    @property
    def inbox_uri(self) -> str:
        """Place of the inboxes of requests."""
        return self.request_inbox or f"{self.environment_root}/inbox"

    @property
    def scans_uri(self) -> str:
        """Where volumes of scans come from."""
        return self.volumes_source or f"{self.storage_root}/input/volumes"

    @property
    def writer_pool(self) -> str:
        """Concurrency pool of assets that write this environment's store."""
        return f"writer_{self.environment}"

    @property
    def deployment_pool(self) -> str:
        """Concurrency pool that lets one deployment at a time change this environment."""
        return f"deployment_{self.environment}"

    def changed(self, **changes: Any) -> Settings:
        """These settings with some replaced; raises :class:`SettingsError` if one is wrong."""
        return _validated(lambda: Settings.model_validate({**self.model_dump(), **changes}))

    def variables(self) -> dict[str, Any]:
        """The settings as `OCR_…` variables, for printing: secrets are masked."""
        values = self.model_dump(mode="json")
        return {
            f"OCR_{name.upper()}": ",".join(value) if isinstance(value, list) else value
            for name, value in values.items()
        }

    def exported(self) -> dict[str, str]:
        """The settings as `OCR_…` variables, for child processes: with their secrets."""
        values = {name: value for name, value in self.variables().items() if value is not None}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                values[f"OCR_{name.upper()}"] = value.get_secret_value()
        return {name: str(value) for name, value in values.items()}

    def __getstate__(self) -> dict[Any, Any]:
        """What is sent to workers; they get no secrets."""
        state = super().__getstate__()
        values = state["__dict__"].items()
        return state | {
            "__dict__": {
                name: None if isinstance(value, SecretStr) else value for name, value in values
            }
        }


def load_settings(env_file: Path | None = None) -> Settings:
    """Read and validate the settings from the environment, and from ``env_file`` below it.

    Raises :class:`SettingsError` with one line for each wrong or unknown variable.
    """
    if env_file is not None and not env_file.is_file():
        raise SettingsError(f"env file {str(env_file)!r} does not exist; give an existing file")
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith("OCR_")
        and name.removeprefix("OCR_").lower() not in Settings.model_fields
        and name != "OCR_TEST_ARTIFACTS"
    )
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(_EXAMPLES))}"
        )
    try:
        return _validated(lambda: Settings(_env_file=env_file))  # type: ignore[call-arg]
    except UnicodeDecodeError as error:
        raise SettingsError(f"env file {str(env_file)!r} is not text: {error}") from None


def _validated(make: Callable[[], Settings]) -> Settings:
    try:
        return make()
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not field:
        return f"{message}; for example {_EXAMPLES['OCR_VERSION']}"
    if problem["type"] == "extra_forbidden":  # only a line of the env file
        return f"unknown setting {field.upper()}; known: {', '.join(sorted(_EXAMPLES))}"
    name = f"OCR_{field.upper()}"
    if name in _SECRETS or _HAS_PASSWORD.search(str(problem["input"])):
        return f"{name}: {message}; for example {_EXAMPLES[name]}"
    return f"{name}={problem['input']!r}: {message}; for example {_EXAMPLES[name]}"
