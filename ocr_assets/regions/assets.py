"""The assets of the regions wing: every type of risk, from input rasters to regions.

Belongs here: the wing as a whole, the region store and the regions, and the metadata that people
see. Does not belong here: science (the other modules of this package), what is made from regions
(``region_product_assets``), or where things are stored (the resources).
"""

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.input_assets import input_assets, input_key, source_assets
from ocr_assets.partitions import region_partitions
from ocr_assets.region_product_assets import asset_key, common, op_name, product_assets
from ocr_assets.region_writer import RegionWriter, WrittenRegion
from ocr_assets.regions import inputs
from ocr_assets.regions.buildings import building_schema
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.risk_types import RISK_TYPES
from ocr_assets.ui_metadata import column_schema
from resources.cluster import Cluster
from resources.progress import ProgressReporter


class RegionConfig(dg.Config):
    """Options of a region run."""

    recompute: bool = False


def _template_asset(risk: RiskType) -> dg.AssetsDefinition:
    variables = ", ".join(risk.variables)

    @dg.asset(
        key=asset_key(risk, "region_template"),
        description=(
            f"The empty region store of {risk.name}: grid, CRS, ledger of regions, and with their "
            f"units the variables {variables}."
        ),
        kinds={"icechunk"},
        **common(risk),
    )
    def region_template(deployment: dg.ResourceParam[Deployment]) -> dg.MaterializeResult[None]:
        started = time.perf_counter()
        deployment = deployment.of(risk.name)
        snapshot = deployment.regions.initialize(deployment.template)
        rows, cols = deployment.template.shape
        return dg.MaterializeResult(
            metadata={
                "grid": deployment.grid.name,
                "pixels": rows * cols,
                "regions": len(deployment.grid.valid),
                "variables": list(risk.variables),
                "chunks": list(deployment.template.chunks),
                "snapshot": snapshot,
                "path": dg.MetadataValue.path(deployment.regions.place),
                "seconds": time.perf_counter() - started,
            },
        )

    return region_template


def _region_assets(risk: RiskType, deployment: Deployment) -> dg.AssetsDefinition:
    """Raster and buildings of a region: two assets, one step, one commit."""
    # Which of several forms of an input is read depends on the catalog; the graph shows the first.
    rasters = [input_key(name) for name in risk.rasters(())]
    made_from = [asset_key(risk, "region_template"), *rasters]
    raster_key, building_key = (
        asset_key(risk, name) for name in ("region_risk", "region_buildings")
    )

    @dg.multi_asset(
        name=op_name(risk, "regions"),
        specs=[
            dg.AssetSpec(
                raster_key,
                deps=made_from,
                description=(
                    f"{risk.title} of a region: {len(risk.variables)} rasters at 30 m, written as "
                    "one region of the Icechunk store."
                ),
                kinds={"icechunk", "numba"},
                **common(risk),
            ),
            dg.AssetSpec(
                building_key,
                deps=[*made_from, input_key(inputs.BUILDINGS)],
                description=(
                    "Every building whose centroid lies in the region, with the values of that "
                    "pixel. It becomes visible in the same commit as the region's raster."
                ),
                kinds={"geoparquet"},
                metadata={"dagster/column_schema": column_schema(building_schema(risk))},
                **common(risk),
            ),
        ],
        partitions_def=region_partitions(deployment.grid),
        backfill_policy=dg.BackfillPolicy.multi_run(deployment.settings.regions_per_run),
        pool=deployment.settings.writer_pool,
    )
    def regions(
        context: dg.AssetExecutionContext,
        config: RegionConfig,
        deployment: dg.ResourceParam[Deployment],
        cluster: dg.ResourceParam[Cluster],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> Iterator[dg.MaterializeResult[None]]:
        deployment = deployment.of(risk.name)
        label = op_name(risk, "regions")
        writer = RegionWriter(deployment, cluster, f"{label}-{context.run.run_id}")
        keys = context.partition_keys
        with progress.task(deployment.key("regions"), len(keys)) as advance:
            for region_id in writer.write(keys, recompute=config.recompute):
                advance(region_id)
        described = {
            region_id: _describe(deployment, writer.written[region_id])
            for region_id in keys
            if region_id in writer.written
        }
        if writer.failed:
            # A failed run marks all of its partitions failed, but for those logged before.
            for region_id, assets in described.items():
                for asset, metadata in assets.items():
                    context.log_event(
                        dg.AssetMaterialization(asset, partition=region_id, metadata=metadata)
                    )
            failed = {key: writer.failed[key] for key in keys if key in writer.failed}
            region_id, reason = next(iter(failed.items()))
            raise dg.Failure(
                f"{len(failed)} of {len(keys)} regions failed; {region_id}: {reason}",
                metadata={"failed": dg.MetadataValue.json(failed)},
                allow_retries=False,
            )
        for region_id, assets in described.items():
            for asset, metadata in assets.items():
                context.add_asset_metadata(metadata, asset, region_id)
        for asset in (raster_key, building_key):
            yield dg.MaterializeResult(asset)

    return regions


def _describe(deployment: Deployment, region: WrittenRegion) -> dict[dg.AssetKey, dict[str, Any]]:
    """Metadata of a region's two assets."""
    risk = deployment.risk
    entry = region.entry
    both: dict[str, Any] = {
        "snapshot": region.snapshot_id,
        "skipped": region.preview is None,
        "lineage": dict(entry["lineage"]),
    }
    raster: dict[str, Any] = {
        **both,
        "pixels": entry["summary"]["pixels"],
        "bytes": entry["summary"]["bytes"],
        "seconds": region.seconds,
        "summary": dg.MetadataValue.md(_summary_table(entry["summary"]["variables"])),
        "path": dg.MetadataValue.path(deployment.regions.place),
    }
    if region.preview is not None:
        picture = base64.b64encode(region.preview).decode()
        label = f"{risk.map.noun} in {risk.map.views[0]}"
        raster[label] = dg.MetadataValue.md(f"![risk](data:image/png;base64,{picture})")
    buildings = {
        **both,
        "rows": entry["buildings"]["rows"],
        "dagster/row_count": entry["buildings"]["rows"],
        "bytes": entry["buildings"]["bytes"],
        "report": entry["report"],
        "path": dg.MetadataValue.path(deployment.storage.uri(entry["buildings"]["key"])),
    }
    return {
        asset_key(risk, "region_risk"): raster,
        asset_key(risk, "region_buildings"): buildings,
    }


def _summary_table(variables: Mapping[str, Mapping[str, float | None]]) -> str:
    rows = ["| variable | no data | minimum | maximum |", "|---|---|---|---|"]
    for name, values in variables.items():
        low, high = (
            "" if values[end] is None else f"{values[end]:.4g}" for end in ("minimum", "maximum")
        )
        rows.append(f"| {name} | {values['nan_share']:.2%} | {low} | {high} |")
    return "\n".join(rows)


def region_wing(deployment: Deployment) -> list[dg.AssetsDefinition]:
    """Everything of this wing, for the grid of a deployment."""
    wing = [*source_assets(), *input_assets()]
    for risk in RISK_TYPES.values():
        wing += [_template_asset(risk), _region_assets(risk, deployment), *product_assets(risk)]
    return wing
