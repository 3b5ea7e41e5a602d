"""The sample world as tests use it: with doctored inputs, or with everything materialized."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from ocr_assets.definitions import build_defs
from ocr_assets.deployment import Deployment
from ocr_assets.partitions import RANGE_END, RANGE_START
from ocr_assets.regions.grid import RegionGrid
from resources.catalog import Catalog
from resources.settings import Settings

REGION_ASSETS = ("region_risk", "region_buildings")
OCR = Path(sys.executable).with_name("ocr")
"""The console command of this environment."""


@dataclass
class World:
    """The sample world's inputs, and an empty storage root to materialize into."""

    sample_root: Path
    folder: Path

    @property
    def root(self) -> Path:
        """The storage root."""
        return self.folder / "root"

    @property
    def catalog_path(self) -> Path:
        """This world's catalog: of the sample world as it is, until something is doctored."""
        own = self.folder / "catalog.json"
        return own if own.exists() else self.sample_root / "input" / "catalog.json"

    @property
    def catalog(self) -> Catalog:
        """The catalog, read anew."""
        return Catalog.read(str(self.catalog_path))

    @property
    def grid(self) -> RegionGrid:
        """The region grid of the catalog."""
        return self.catalog.grid

    def variables(self) -> dict[str, str]:
        """The settings of this world, and a place for Dagster's instance, as variables."""
        return {
            "OCR_STORAGE_ROOT": str(self.root),
            "OCR_CATALOG": str(self.catalog_path),
            "DAGSTER_HOME": str(self.folder / "home"),
        }

    def deployment(self, **settings: Any) -> Deployment:
        """A deployment of this world, made anew: nothing is cached from before."""
        places = {"storage_root": str(self.root), "catalog": str(self.catalog_path)}
        return Deployment(Settings(**{**places, **settings}))

    def edit_catalog(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the catalog document; paths are absolute in it."""
        document = json.loads(self.catalog_path.read_text())
        for entry in document["datasets"].values():
            entry["uri"] = str(Path(self.sample_root / "input", entry["uri"]))
        change(document)
        (self.folder / "catalog.json").write_text(json.dumps(document))

    def replace(self, name: str, **entry: Any) -> None:
        """Change the catalog's entry of a dataset."""
        self.edit_catalog(lambda document: document["datasets"][name].update(entry))

    def doctor_raster(self, name: str, change: Callable[[xr.Dataset], xr.Dataset]) -> None:
        """Put a changed copy of a raster into the catalog."""
        place = self.folder / "doctored" / f"{name}.zarr"
        dataset = change(self.catalog.open_raster(name).load())
        for variable in dataset.variables.values():
            variable.encoding.clear()
        dataset.to_zarr(place, zarr_format=3, consolidated=False, mode="w")
        self.replace(name, format="zarr", uri=str(place))

    def doctor_region(
        self, name: str, variable: str, region_id: str, values: float | np.ndarray
    ) -> None:
        """Put a copy of a 30 m raster into the catalog that has ``values`` in one region."""
        west, south, east, north = self.grid.region_window(region_id).bounds

        def change(dataset: xr.Dataset) -> xr.Dataset:
            rows = (dataset["latitude"].values > south) & (dataset["latitude"].values < north)
            cols = (dataset["longitude"].values > west) & (dataset["longitude"].values < east)
            dataset[variable].values[np.ix_(rows, cols)] = values
            return dataset

        self.doctor_raster(name, change)

    def doctor_table(self, name: str, change: Callable[[pa.Table], pa.Table]) -> Path:
        """Put a changed copy of a GeoParquet file into the catalog; return its path."""
        place = self.folder / "doctored" / f"{name}.parquet"
        place.parent.mkdir(exist_ok=True)
        table = pq.read_table(self.catalog.open_table(name).path)
        pq.write_table(change(table), place)
        self.replace(name, uri=str(place))
        return place


@dataclass(frozen=True)
class FinishedWorld:
    """Everything the graph makes of the sample world. For reading only."""

    sample_root: Path
    folder: Path

    @property
    def root(self) -> Path:
        """The storage root."""
        return self.folder / "root"

    @property
    def output(self) -> str:
        """What the command printed."""
        return (self.folder / "output.txt").read_text()

    @property
    def deployment(self) -> Deployment:
        """A deployment, made anew."""
        return World(self.sample_root, self.folder).deployment()

    def instance(self) -> dg.DagsterInstance:
        """Dagster's record of the run."""
        return dg.DagsterInstance.from_config(str(self.folder / "home"))


def materialize_everything(sample_root: Path, folder: Path) -> None:
    """Run the whole graph by the console command: what a :class:`FinishedWorld` reads."""
    done = subprocess.run(
        [OCR, "run", "--all-region-ids", "--summary-stats", "--create-pyramid"],
        env=environment(World(sample_root, folder).variables()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout)


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that tells why a command failed."""
        assert self.status == 1, self
        (line,) = [line for line in self.err.splitlines() if line.startswith("ocr: ")]
        assert "Traceback" not in self.err
        assert self.err.rstrip().endswith(line), "the reason is not the last line"
        return line.removeprefix("ocr: ")


def run_in_process(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run the command line in this process with these settings only; return its exit status."""
    from ocr_assets.cli import main

    for name in [name for name in os.environ if name.startswith("OCR_")]:
        del os.environ[name]
    os.environ.update(variables)
    argv, sys.argv = sys.argv, ["ocr", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = argv
    return 0


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a subprocess: this one without settings of the developer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCR_")}
    return {**kept, **variables}


def execute(
    deployment: Deployment,
    assets: Sequence[str],
    instance: dg.DagsterInstance,
    *,
    regions: tuple[str, str] | None = None,
    recompute: bool = False,
) -> dg.ExecuteInProcessResult:
    """One run of the deployment's graph; ``regions`` is the first and last of its partitions."""
    tags = {RANGE_START: regions[0], RANGE_END: regions[1]} if regions else {}
    config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    if recompute:
        config["ops"] = {"regions": {"config": {"recompute": True}}}
    job = build_defs(deployment).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey.from_user_string(asset) for asset in assets],
        tags=tags,
        run_config=config,
        raise_on_error=False,
    )


def materializations(
    result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Metadata of each materialization that a run recorded, by asset and partition."""
    found = {}
    for entry in instance.all_logs(result.run_id, dg.DagsterEventType.ASSET_MATERIALIZATION):
        made = entry.asset_materialization
        assert made is not None
        key = made.asset_key.to_user_string(), made.partition
        assert key not in found, f"{key} was recorded twice"
        found[key] = {name: value.value for name, value in made.metadata.items()}
    return found


def check_results(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The evaluation of each asset check of a run, by name."""
    return {check.check_name: check for check in result.get_asset_check_evaluations()}
