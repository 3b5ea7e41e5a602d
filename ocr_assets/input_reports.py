"""Telling Dagster which inputs there are, so that it knows what was made from which version.

Belongs here: the events of catalogued inputs that an instance does not know yet. Does not belong
here: when to look (``sensors/``, ``launch.py``), and fingerprints themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    NULL_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from ocr_assets.input_assets import input_key
from ocr_assets.regions.input_sources import PARENTS


def unknown_inputs(
    instance: dg.DagsterInstance, found: Mapping[str, str], names: Iterable[str]
) -> dict[str, dg.AssetMaterialization]:
    """Events of those of ``names`` whose fingerprint is not what the instance knows, by name.

    ``found`` are the fingerprints of all datasets of the catalog.

    They are materializations, not observations: the run that brings an input in reports one too,
    and Dagster compares what was made from an input with the latest of these.
    """
    return {
        name: dg.AssetMaterialization(
            input_key(name),
            metadata={"fingerprint": found[name]},
            tags={DATA_VERSION_TAG: found[name], **_made_from(name, found)},
        )
        for name in names
        if not _is_known(instance, name, found[name])
    }


def _is_known(instance: dg.DagsterInstance, name: str, fingerprint: str) -> bool:
    event = instance.get_latest_materialization_event(input_key(name))
    return event is not None and (event.tags or {}).get(DATA_VERSION_TAG) == fingerprint


def _made_from(name: str, found: Mapping[str, str]) -> dict[str, str]:
    """Tags that say from which versions of other inputs a dataset was made.

    Without them one that was made elsewhere would count as stale for lack of its parents.
    """
    if name not in PARENTS:
        return {}
    tags = {CODE_VERSION_TAG: "catalogued"}
    for parent in PARENTS[name]:
        key = input_key(parent)
        tags[get_input_data_version_tag(key)] = found.get(parent, NULL_DATA_VERSION.value)
        tags[get_input_event_pointer_tag(key)] = NULL_EVENT_POINTER
    return tags
