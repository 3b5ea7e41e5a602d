"""The Dagster instance that every `ocr` command and the UI share."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import yaml

from ocr_assets.deployment import DeploymentError
from resources.atomic import write_atomic
from resources.locks import file_lock
from resources.settings import REPOSITORY, default_data_folder, load_settings


class InstanceError(DeploymentError):
    """The folder of the Dagster instance cannot be used."""


def instance_file(name: str) -> Path:
    """`dagster.yaml` or `workspace.yaml`: of the checkout, or as installed with the package."""
    for folder in (REPOSITORY, Path(sysconfig.get_path("data"), "share", "ocr-assets")):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from the installation; install ocr-assets again")


def prepare_home() -> Path:
    """Set `DAGSTER_HOME` if it is not set, and initialise the instance there once.

    Several processes that open a fresh embedded instance at the same time would corrupt it, so the
    first opening happens under a lock.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or default_data_folder() / "dagster")
    home = home.expanduser().absolute()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with file_lock(home / ".initialising"):
            _place_instance_file(home / "dagster.yaml")
            with dg.DagsterInstance.get():
                pass
    except Exception as error:
        reason = _instance_problem(error)
        if reason is None:
            raise
        raise InstanceError(
            f"there is no usable Dagster instance in {home}: {reason}; mend it, or set "
            "DAGSTER_HOME to another folder"
        ) from error
    return home


def _instance_problem(error: Exception) -> str | None:
    """Why an instance cannot be opened, in short; None for a defect."""
    if type(error).__module__.startswith("dagster_postgres"):
        return f"its Postgres does not answer: {error.__cause__ or error}".splitlines()[0]
    if not isinstance(error, OSError | dg.DagsterError | yaml.YAMLError):
        return None
    if missing := re.search(r'environment variable "(\w+)" which is not set', str(error)):
        return f"its file reads {missing[1]}, which is not set"
    # Dagster goes on with everything that it would accept.
    return str(error).partition(" Expected:")[0]


def _place_instance_file(place: Path) -> None:
    """Give the home its instance file: the chosen one always, else ours if there is none."""
    chosen = load_settings().instance_file
    if chosen is None:
        if not place.exists():
            shutil.copyfile(instance_file("dagster.yaml"), place)
    elif not place.exists() or place.read_bytes() != chosen.read_bytes():
        write_atomic(place, lambda file: file.write(chosen.read_bytes()), if_absent=False)


def failed_partitions(asset: str, partitions: Sequence[str]) -> list[str]:
    """Partitions of an asset whose last attempt failed, as the instance knows them."""
    prepare_home()
    with dg.DagsterInstance.get() as instance:
        statuses = instance.get_status_by_partition(
            dg.AssetKey.from_user_string(asset),
            list(partitions),
            dg.StaticPartitionsDefinition(list(partitions)),
        )
    return [
        key for key, status in (statuses or {}).items() if status == dg.AssetPartitionStatus.FAILED
    ]
