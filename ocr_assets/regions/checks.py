"""Asset checks of the regions wing: its conscience.

Every type of risk has the same checks, as far as they mean something for it. A check of partitioned
assets looks at the regions of its run, or at all regions if it is run by itself. It fails with the
regions that it finds wrong in its metadata.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
import xarray as xr

from ocr_assets.deployment import Deployment
from ocr_assets.geoparquet import ROW_GROUP_ROWS, row_batches
from ocr_assets.partitions import RANGE_END, RANGE_START
from ocr_assets.region_product_assets import asset_key
from ocr_assets.regions.buildings import BuildingReport
from ocr_assets.regions.fire_risk import FIRE, raster_names
from ocr_assets.regions.geographies import CODE_LENGTH, LEVELS
from ocr_assets.regions.inputs import WIND_30M
from ocr_assets.regions.risk_type import RiskType
from ocr_assets.regions.risk_types import RISK_TYPES
from ocr_assets.regions.seams import LIMIT, borders, seam_ratio
from ocr_assets.regions.spread import SMOOTHING_RADIUS
from resources.io_managers import StoredFile, StoredTable

NAN_MARGIN = 0.05
"""How much larger the share of NaN in risk may be than in its input: smoothing widens ragged gaps.

To this comes a gap of SMOOTHING_RADIUS pixels along one row and one column of the region: a small
region is mostly edge.
"""


MOST_CELLS = 20
"""How many wrong wind cells are told: one wrong sum often means that all are."""


def _regions(context: dg.AssetCheckExecutionContext, deployment: Deployment) -> dict[str, Any]:
    """Ledger entries of the regions that the run materialized, or of all of this version."""
    ledger = deployment.current_ledger()
    tags = context.run.tags
    first = tags.get(RANGE_START) or tags.get("dagster/partition")
    last = tags.get(RANGE_END) or tags.get("dagster/partition")
    if first is None or last is None:
        return ledger
    order = deployment.grid.valid
    chosen = order[order.index(first) : order.index(last) + 1]
    return {region_id: ledger[region_id] for region_id in chosen if region_id in ledger}


def _result(wrong: Mapping[str, Any], looked_at: int, what: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not wrong,
        description=f"{len(wrong)} of {looked_at} {what}" if wrong else None,
        metadata={"looked at": looked_at, "wrong": dg.MetadataValue.json(dict(wrong))},
    )


@dg.asset_check(
    asset=asset_key(FIRE, "region_risk"),
    name="wind_direction_weights",
    description="The direction shares of every wind cell are not negative and sum to 1, or to 0.",
)
def wind_direction_weights(
    context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
) -> dg.AssetCheckResult:
    """Fails on a wind climatology that would weight the spread wrongly."""
    deployment = deployment.of(FIRE.name)
    looked_at = 0
    wrong: dict[str, float] = {}
    for place, shares in _wind_shares(context, deployment):
        axis = shares.dims.index("wind_direction")
        values = shares.values
        total = values.sum(axis=axis, dtype=np.float64)
        bad = (np.abs(total - 1) > 1e-4) & (total != 0) & ~np.isnan(total)
        bad |= (values < 0).any(axis=axis)
        looked_at += int(total.size)
        for cell in np.argwhere(bad)[: MOST_CELLS - len(wrong)]:
            wrong[f"{place} {tuple(map(int, cell))}"] = float(total[tuple(cell)])
    return _result(wrong, looked_at, "wind cells have shares that do not sum to 1")


def _wind_shares(
    context: dg.AssetCheckExecutionContext, deployment: Deployment
) -> Iterator[tuple[str, xr.DataArray]]:
    """All of the wind on its own grid; on the 30 m grid, which is vast, what lies under regions."""
    name = raster_names(deployment.rasters)[-1]
    wind = deployment.rasters[name]["wind_direction_distribution"]
    if name != WIND_30M:
        yield name, wind
        return
    for region_id in _regions(context, deployment):
        west, south, east, north = deployment.grid.region_window(region_id).bounds
        latitude, longitude = wind["latitude"].values, wind["longitude"].values
        rows = np.flatnonzero((latitude > south) & (latitude < north))
        cols = np.flatnonzero((longitude > west) & (longitude < east))
        yield (
            region_id,
            wind.isel(
                latitude=slice(rows[0], rows[-1] + 1), longitude=slice(cols[0], cols[-1] + 1)
            ),
        )


def _values_in_range(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "region_risk"),
        name="values_in_range",
        description="Every variable lies in the range that it can have.",
        blocking=True,
    )
    def values_in_range(
        context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails on regions with values that a probability, a percentage or a speed cannot have."""
        regions = _regions(context, deployment.of(risk.name))
        wrong = {
            f"{region_id} {name}": [values["minimum"], values["maximum"]]
            for region_id, entry in regions.items()
            for name, values in entry["summary"]["variables"].items()
            if values["minimum"] is not None
            and not (
                risk.variables[name].low <= values["minimum"]
                and values["maximum"] <= risk.variables[name].high
            )
        }
        return _result(wrong, len(regions), "regions have values out of range")

    return values_in_range


def _no_data_share(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "region_risk"),
        name="no_data_share",
        description="Risk is missing hardly anywhere where its inputs are not.",
    )
    def no_data_share(
        context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails on regions that lost pixels on the way from input to risk."""
        regions = _regions(context, deployment.of(risk.name))
        wrong = {}
        for region_id, entry in regions.items():
            missing = {
                name: values["nan_share"] for name, values in entry["summary"]["variables"].items()
            }
            rows, cols = deployment.grid.region_window(region_id).shape
            margin = NAN_MARGIN + SMOOTHING_RADIUS * (rows + cols) / (rows * cols)
            for name, sources in risk.kept.items():
                if missing[name] > max(missing[source] for source in sources) + margin:
                    wrong[f"{region_id} {name}"] = missing[name]
        return _result(wrong, len(regions), "regions lost pixels")

    return no_data_share


def _no_seam(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "region_risk"),
        name="no_seam",
        description=f"There is no step in {', '.join(risk.seamless)} at the border of two regions.",
    )
    def no_seam(
        context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails on borders across which the field steps more than it does beside them."""
        deployment = deployment.of(risk.name)
        regions = _regions(context, deployment)
        store = deployment.regions.dataset()
        pairs, wrong = 0, {}
        for one, other, window in borders(deployment.grid, set(deployment.current_ledger())):
            if one not in regions and other not in regions:
                continue
            pairs += 1
            rows, cols = window.slices_in(deployment.grid.window)
            strip = store.isel(latitude=rows, longitude=cols)
            for name in risk.seamless:
                ratio = seam_ratio(strip[name].values)
                if ratio > LIMIT:
                    wrong[f"{one} | {other} {name}"] = ratio
        return _result(wrong, pairs, "borders have a seam")

    return no_seam


def _buildings_accounted_for(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "region_buildings"),
        name="buildings_accounted_for",
        description="Buildings read = written + reported drops, and the tables have as many rows.",
        blocking=True,
    )
    def buildings_accounted_for(
        context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails on regions that lost or gained buildings without saying so."""
        deployment = deployment.of(risk.name)
        regions = _regions(context, deployment)
        wrong = {}
        for region_id, entry in regions.items():
            report = BuildingReport(**entry["report"])
            source = deployment.storage.source(entry["buildings"]["key"])
            rows = pq.ParquetFile(source).metadata.num_rows
            if not report.balanced or rows != report.written:
                wrong[region_id] = {**entry["report"], "rows of the table": rows}
        return _result(wrong, len(regions), "regions do not account for their buildings")

    return buildings_accounted_for


def _geometry_valid(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "region_buildings"),
        name="geometry_valid",
        description="Every footprint is a valid polygon.",
    )
    def geometry_valid(
        context: dg.AssetCheckExecutionContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails on regions whose tables hold invalid or empty footprints."""
        deployment = deployment.of(risk.name)
        regions = _regions(context, deployment)
        wrong: dict[str, int] = {}
        looked_at = 0
        for region_id, entry in regions.items():
            file = pq.ParquetFile(deployment.storage.source(entry["buildings"]["key"]))
            for batch in row_batches(file, ROW_GROUP_ROWS, ["geometry"]):
                footprints = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
                looked_at += len(footprints)
                good = shapely.is_valid(footprints) & ~shapely.is_empty(footprints)
                if not good.all():
                    wrong[region_id] = wrong.get(region_id, 0) + int(np.count_nonzero(~good))
        return _result(wrong, looked_at, "regions have invalid footprints")

    return geometry_valid


def _regions_conserved(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "buildings"),
        name="regions_conserved",
        description="The partitioned set has exactly the buildings of the regions.",
        blocking=True,
    )
    def regions_conserved(
        buildings: StoredTable, deployment: dg.ResourceParam[Deployment]
    ) -> dg.AssetCheckResult:
        """Fails if buildings were lost or doubled between regions and counties."""
        ledger = deployment.of(risk.name).current_ledger()
        expected = sum(entry["buildings"]["rows"] for entry in ledger.values())
        found = sum(pq.ParquetFile(source).metadata.num_rows for source in buildings.sources())
        wrong = {} if found == expected else {"in regions": expected, "in counties": found}
        return _result(wrong, expected, "buildings")

    return regions_conserved


def _counts_conserved(risk: RiskType) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(risk, "risk_statistics/nation"),
        name="counts_conserved",
        description="At every level the counts are those of the buildings with a code of it.",
        additional_ins={
            "buildings": dg.AssetIn(asset_key(risk, "buildings")),
            **{
                level: dg.AssetIn(asset_key(risk, f"risk_statistics/{level}"))
                for level in LEVELS
                if level != "nation"
            },
        },
        blocking=True,
    )
    def counts_conserved(
        nation: StoredFile,
        buildings: StoredTable,
        block: StoredFile,
        tract: StoredFile,
        county: StoredFile,
        state: StoredFile,
    ) -> dg.AssetCheckResult:
        """Fails if a building is counted twice or not at all between block and nation."""
        carried: Counter[int] = Counter()
        for source in buildings.sources():
            for batch in row_batches(pq.ParquetFile(source), ROW_GROUP_ROWS, ["GEOID"]):
                digits = pc.fill_null(pc.utf8_length(batch["GEOID"]), 0)
                carried.update(dict(zip(*np.unique(digits, return_counts=True), strict=True)))
        wrong: dict[str, Any] = {}
        for level, table in zip(LEVELS, (block, tract, county, state, nation), strict=True):
            counts = pq.read_table(table.source(), columns=["building_count"])["building_count"]
            found = pc.sum(counts).as_py() or 0
            expected = sum(count for size, count in carried.items() if size >= CODE_LENGTH[level])
            if found != expected:
                wrong[level] = {"counted": found, "carry a code": int(expected)}
        return _result(wrong, len(LEVELS), "levels do not conserve the buildings")

    return counts_conserved


def region_checks() -> list[dg.AssetChecksDefinition]:
    """Every check of this wing."""
    checks = [wind_direction_weights]
    for risk in RISK_TYPES.values():
        checks.append(_values_in_range(risk))
        if risk.kept:
            checks.append(_no_data_share(risk))
        if risk.seamless:
            checks.append(_no_seam(risk))
        checks += [
            _buildings_accounted_for(risk),
            _geometry_valid(risk),
            _regions_conserved(risk),
            _counts_conserved(risk),
        ]
    return checks
