"""`--risk-type`: the same commands for the wind of fire weather, beside wildfire risk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from sample_worlds import Outcome, World

from ocr_assets.deployment import DeploymentError
from ocr_assets.region_writer import RegionWriter
from ocr_assets.regions.pmtiles import read_header, read_metadata
from ocr_assets.regions.wind_risk import WIND_RISK, wind_score
from ocr_assets.releases import Releases

Ocr = Callable[..., Outcome]
REGIONS = ("y1_x1", "y1_x2")


def chosen(*region_ids: str) -> list[str]:
    return [part for region_id in region_ids for part in ("-r", region_id)]


def test_both_types_are_computed_and_published(ocr: Ocr, world: World) -> None:
    version = {"OCR_VERSION": "1.0.0"}
    alone = ocr("process-region", "y1_x2", "-t", "wind", **version)
    assert alone.status == 0, alone.err
    assert "wind/region_risk" in alone.out
    assert "\n  region_risk" not in alone.out, "fire was not asked for"
    done = ocr(
        "run", "-t", "all", *chosen("y1_x1"), "--summary-stats", "--create-pyramid", **version
    )
    assert done.status == 0, done.err
    assert "warning" not in done.err
    assert "\n  region_risk" in done.out
    deployment = world.deployment(version="1.0.0")
    assert deployment.current_ledger().keys() == {"y1_x1"}
    wind = deployment.of("wind")
    assert tuple(wind.current_ledger()) == REGIONS
    shown = json.loads(ocr("regions", "status", "-t", "wind", "--json", **version).out)
    assert shown["counts"] == {"done": 2, "missing": 9}

    # Raster, buildings, statistics, pyramid and tiles tell the same.
    dataset = wind.regions.dataset(wind.regions.regions["y1_x1"])
    assert set(dataset.data_vars) == set(WIND_RISK.variables)
    assert dataset.attrs["title"] == "Fire-weather wind"
    assert dataset["wind_hazard"].attrs["units"] == "h"
    assert float(dataset["wind_hazard"].min()) >= 0
    manifest = wind.storage.manifest("buildings")
    assert manifest is not None
    tables = [pq.read_table(wind.storage.source(file.key)) for file in manifest.files]
    hazard = np.concatenate([table["wind_hazard"].to_numpy() for table in tables])
    direction = np.concatenate([table["wind_direction"].to_numpy() for table in tables])
    nation = pq.read_table(wind.storage.source("statistics/nation.parquet")).to_pylist()[0]
    assert nation["building_count"] == len(hazard) > 500
    assert np.isclose(nation["wind_hazard_mean"], hazard.mean(dtype=float))
    assert nation["wind_hazard_p90"] == np.float32(np.quantile(hazard.astype(float), 0.9))
    assert nation["wind_score_hist"] == np.bincount(wind_score(hazard), minlength=11).tolist()
    known = direction[direction < 8]
    assert nation["wind_direction_hist"] == np.bincount(known, minlength=8).tolist()
    assert "dominant_direction_mean" not in nation, "a mean of directions says nothing"
    pointer = json.loads(wind.storage.read_bytes("pyramid/current.json"))
    pyramid = xr.open_zarr(wind.root.local_path(pointer["folder"]), group="2", consolidated=False)
    assert set(WIND_RISK.variables) == set(pyramid.data_vars)
    archives = {
        name: wind.storage.local_path(f"pmtiles/{name}.pmtiles")
        for name in ("buildings", "building_centroids", "regions")
    }
    fields = {
        name: [
            {"layer": layer["id"], "fields": len(layer["fields"])}
            for layer in read_metadata(path)["vector_layers"]
        ]
        for name, path in archives.items()
    }
    assert fields["buildings"] == [{"layer": "risk", "fields": len(WIND_RISK.tiled)}]
    assert fields["building_centroids"] == [{"layer": "risk", "fields": 1}]
    assert {layer["layer"]: layer["fields"] for layer in fields["regions"]}["counties"] == 7
    assert read_header(archives["buildings"]).max_zoom == 14

    published = ocr("deploy", "publish", **version)
    assert published.status == 0, published.err
    assert "now: 1 regions of fire, 2 regions of wind" in published.out
    release = Releases.of(deployment.settings).find("v1.0.0")
    assert release is not None
    assert {name: part.regions for name, part in release.risks.items()} == {"fire": 1, "wind": 2}
    assert {"buildings", "wind/buildings", "wind/pmtiles/regions.pmtiles"} <= set(release.products)
    for name, part in release.risks.items():
        assert deployment.of(name).regions.ledger(part.snapshot).keys() == set(
            deployment.of(name).regions.ledger("v1.0.0")
        )
    refused = ocr("run", "-t", "wind", *chosen("y1_x1"), "--recompute", **version)
    assert "a published version never changes" in refused.err


def test_a_wipe_spares_the_other_type(world: World) -> None:
    deployment = world.deployment()
    assert deployment.of("wind").of("fire") is deployment
    for part in (deployment, deployment.of("wind")):
        part.regions.initialize(part.template)
        assert list(RegionWriter(part).write(["y1_x1"])) == ["y1_x1"]
    for wiped, kept in (("fire", "wind"), ("wind", "fire")):
        before = {info.key for info in deployment.of(kept).storage.list()}
        assert deployment.of(wiped).describe_wipe()[0].startswith("1 regions on branch qa of ")
        deployment.of(wiped).wipe()
        assert set(deployment.of(wiped).ledger()) == set()
        assert set(deployment.of(kept).ledger()) == {"y1_x1"}
        found = {info.key for info in deployment.of(kept).storage.list()}
        assert {key for key in before if not key.startswith("wind/")} <= found
        list(RegionWriter(deployment.of(wiped)).write(["y1_x1"]))


def test_a_deployment_of_another_type_travels(world: World) -> None:
    wind = world.deployment().of("wind")
    copy = pickle.loads(pickle.dumps(wind))
    assert (copy.risk_name, copy.settings) == ("wind", wind.settings)
    assert copy.regions_uri == wind.regions_uri != wind.of("fire").regions_uri
    assert pickle.loads(pickle.dumps(wind)) is copy, "workers share one"
    with pytest.raises(DeploymentError, match="no risk type 'hail'; there are fire, wind"):
        wind.of("hail")


def test_a_type_that_there_is_not(ocr: Ocr) -> None:
    refused = ocr("run", "-t", "hail", *chosen("y1_x1"))
    assert refused.status == 2
    assert "'hail' is not one of 'fire', 'wind', 'all'" in refused.err


def test_wind_needs_the_variables_of_its_pass(ocr: Ocr, world: World) -> None:
    from ocr_assets.regions.inputs import WIND

    world.doctor_raster(WIND, lambda wind: wind[["wind_direction_distribution"]])
    failed = ocr("process-region", "y1_x1", "-t", "wind")
    assert "variable 'fire_weather_share' is missing" in failed.complaint
    assert "ocr ingest-data run-all conus404" in failed.complaint
    assert ocr("process-region", "y1_x1").status == 0, "fire does not need them"
