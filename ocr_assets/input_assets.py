"""The inputs of the regions wing as assets: published sources, and what is brought in from them.

Belongs here: which dataset comes from which source and from which other dataset, when an input
should be brought in anew, and the metadata that people see. Does not belong here: how a dataset is
made (``ocr_assets.ingestion``), and what is computed from it (``regions/assets.py``).
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from ocr_assets.deployment import Deployment
from ocr_assets.geoparquet import BBOX_TYPE
from ocr_assets.ingestion import Ingested, Ingestion
from ocr_assets.regions import inputs
from ocr_assets.regions.building_tags import TAGGED_SCHEMA
from ocr_assets.regions.census import state_codes
from ocr_assets.regions.geographies import geography_schema
from ocr_assets.regions.input_sources import (
    DESCRIPTIONS,
    OVERTURE,
    OVERTURE_ADDRESSES,
    OVERTURE_BUILDINGS,
    PARENTS,
    SOURCES,
    Choice,
    Source,
)
from ocr_assets.ui_metadata import column_schema
from resources.progress import ProgressReporter

OWNERS = ["team:climate-risk"]

LOOK_SCHEDULE = "0 3 * * 1"
"""When publishers are asked whether they have something new: on Monday at 3:00 UTC."""


class IngestConfig(dg.Config):
    """Options of bringing an input in."""

    census_subset_states: list[str] = Field(default_factory=list)
    """States whose outlines are taken; all contiguous ones if empty."""


def input_key(name: str) -> dg.AssetKey:
    """Asset of an input dataset."""
    return dg.AssetKey(["input", name.replace("-", "_")])


def source_key(name: str) -> dg.AssetKey:
    """Asset of a published source."""
    return dg.AssetKey(["source", name.replace("-", "_")])


def ingest_op(source: str) -> str:
    """Name of the step that brings a source in."""
    return f"ingest_{source.replace('-', '_')}"


def refresh() -> dg.AutomationCondition[Any]:
    """Bring an input in anew when what it is made from has another data version than before.

    A source that is looked at for the first time is not new; an input that is being brought in is
    left to finish, and comes up again after that if there was a further change.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    return (changed.since_last_handled() & ~dg.AutomationCondition.in_progress()).with_label(
        "what it is made from has changed"
    )


def source_assets() -> list[dg.AssetsDefinition]:
    """The published sources: observed, never materialized."""
    with warnings.catch_warnings():
        # Observing an asset is a beta feature; its warning says nothing that a user could mend.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_source_asset(source) for source in SOURCES.values()]


def _source_asset(source: Source) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        source_key(source.name),
        group_name="sources",
        owners=OWNERS,
        kinds={"s3" if source.address.startswith("s3://") else "http"},
        description=f"{source.title}. {source.citation}. Licence: {source.licence}.",
        metadata={
            "page": dg.MetadataValue.url(source.page),
            "licence": source.licence,
            "size": source.size,
        },
        automation_condition=dg.AutomationCondition.cron_tick_passed(LOOK_SCHEDULE)
        & ~dg.AutomationCondition.in_progress(),
    )

    @dg.multi_observable_source_asset(name=f"look_at_{source.name.replace('-', '_')}", specs=[spec])
    def look(
        deployment: dg.ResourceParam[Deployment], progress: dg.ResourceParam[ProgressReporter]
    ) -> dg.ObserveResult:
        version = Ingestion(deployment.settings, progress).look(source.name)
        return dg.ObserveResult(
            asset_key=spec.key,
            data_version=dg.DataVersion(version.version),
            metadata=version.metadata,
        )

    return look


def input_assets() -> list[dg.AssetsDefinition]:
    """The inputs, brought in a source at a time."""
    return [
        *(_ingest(ingest_op(source.name), source, _own(source)) for source in SOURCES.values()),
        _ingest("tag_buildings", SOURCES[OVERTURE], [inputs.BUILDINGS]),
    ]


def _own(source: Source) -> list[str]:
    """The datasets that come from the files of a source alone."""
    return [name for name in source.datasets if name not in PARENTS]


def _spec(source: Source, name: str) -> dg.AssetSpec:
    made_from = [input_key(parent) for parent in PARENTS.get(name, ())]
    columns = _columns(name)
    return dg.AssetSpec(
        input_key(name),
        deps=made_from or [source_key(source.name)],
        group_name="inputs",
        owners=OWNERS,
        kinds={"geoparquet" if columns else "icechunk"},
        description=DESCRIPTIONS[name],
        metadata={
            "licence": source.licence,
            "page": dg.MetadataValue.url(source.page),
            **({"dagster/column_schema": column_schema(columns)} if columns else {}),
        },
        automation_condition=refresh(),
    )


def _columns(name: str) -> pa.Schema | None:
    """Columns of a table that are always there; None for a raster."""
    for level, outlines in inputs.GEOGRAPHIES.items():
        if name == outlines:
            return geography_schema(level)
    features = pa.schema([("id", pa.string()), ("geometry", pa.binary()), ("bbox", BBOX_TYPE)])
    return {
        inputs.BUILDINGS: TAGGED_SCHEMA,
        OVERTURE_BUILDINGS: features,
        OVERTURE_ADDRESSES: features,
    }.get(name)


def _ingest(name: str, source: Source, datasets: Sequence[str]) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=name,
        specs=[_spec(source, dataset) for dataset in datasets],
        can_subset=True,
        pool=ingest_op(source.name),
    )
    def ingest(
        context: dg.AssetExecutionContext,
        config: IngestConfig,
        deployment: dg.ResourceParam[Deployment],
        progress: dg.ResourceParam[ProgressReporter],
    ) -> Iterator[dg.MaterializeResult[None]]:
        ingestion = Ingestion(deployment.settings, progress)
        choice = Choice(states=state_codes(config.census_subset_states))
        wanted = [one for one in datasets if input_key(one) in context.selected_asset_keys]
        ingestion.require_room_in_catalog()
        ingestion.download(ingestion.source(source.name), choice, wanted)
        for dataset in wanted:
            yield _result(ingestion.process(dataset, choice))

    return ingest


def _result(ingested: Ingested) -> dg.MaterializeResult[None]:
    metadata: dict[str, Any] = {
        **ingested.metadata,
        "skipped": ingested.skipped,
        "fingerprint": ingested.fingerprint,
        "path": dg.MetadataValue.path(ingested.uri),
    }
    if "rows" in ingested.metadata:
        metadata["dagster/row_count"] = ingested.metadata["rows"]
    return dg.MaterializeResult(
        input_key(ingested.dataset),
        metadata=metadata,
        data_version=dg.DataVersion(ingested.fingerprint),
    )
