"""Input datasets: a changed fingerprint makes what depends on them stale in the UI."""

import json

import dagster as dg

from ocr_assets.deployment import Deployment
from ocr_assets.input_reports import unknown_inputs
from resources.catalog import CatalogError
from resources.keys import StorageError

SECONDS_BETWEEN_LOOKS = 600


def input_sensor() -> dg.SensorDefinition:
    """A sensor that reports every dataset of the catalog whose fingerprint is new."""

    @dg.sensor(
        name="input_datasets",
        description="Reports input datasets; a new fingerprint makes their dependants stale.",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def input_datasets(
        context: dg.SensorEvaluationContext, deployment: dg.ResourceParam[Deployment]
    ) -> dg.SensorResult | dg.SkipReason:
        seen: dict[str, str] = json.loads(context.cursor or "{}")
        try:
            # A code server lives long: what the deployment has read before may have changed.
            catalog = Deployment(deployment.settings).catalog
            found = {name: catalog.fingerprint(name) for name in sorted(catalog.datasets)}
        except (CatalogError, StorageError) as error:
            return dg.SkipReason(str(error))
        changed = [name for name, fingerprint in found.items() if seen.get(name) != fingerprint]
        events = unknown_inputs(context.instance, found, changed)
        if not events:
            context.update_cursor(json.dumps(found))
            return dg.SkipReason("no input changed")
        return dg.SensorResult(
            asset_events=list(events.values()),
            cursor=json.dumps(found),
            # A tick without runs counts as skipped; this is what the UI says of it.
            skip_reason=f"reported {len(events)} of {len(found)} inputs: {', '.join(events)}",
        )

    return input_datasets
