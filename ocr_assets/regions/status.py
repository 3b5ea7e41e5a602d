"""Where each region stands: done, stale, failed or missing.

The ledger of the region store is the only truth about what is done. What Dagster knows adds the
failed attempts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["done", "stale", "failed", "missing"]


@dataclass(frozen=True)
class RegionStatus:
    """State of a region and the reason for it; the version and code it was computed with."""

    region_id: str
    state: State
    reason: str
    version: str | None
    code_version: str | None
    buildings: int | None


def region_status(
    regions: Iterable[str],
    ledger: Mapping[str, Mapping[str, Any]],
    current: Mapping[str, Any],
    failed: Iterable[str] = (),
) -> list[RegionStatus]:
    """State of each region, in the given order.

    Args:
        regions: region ids.
        ledger: ledger entries by region id; each holds ``lineage`` and ``buildings``.
        current: the lineage record that a region computed now would have.
        failed: regions whose last attempt failed.
    """
    failures = set(failed)
    rows = []
    for region_id in regions:
        entry = ledger.get(region_id)
        state, reason = _state(entry, current, region_id in failures)
        recorded = entry["lineage"] if entry else {}
        rows.append(
            RegionStatus(
                region_id,
                state,
                reason,
                recorded.get("version"),
                recorded.get("code_version"),
                entry["buildings"]["rows"] if entry else None,
            )
        )
    return rows


def is_current(entry: Mapping[str, Any] | None, current: Mapping[str, Any]) -> bool:
    """Whether a ledger entry was made from the same inputs, code, version and configuration."""
    return entry is not None and entry["lineage"] == current


def _state(
    entry: Mapping[str, Any] | None, current: Mapping[str, Any], failed: bool
) -> tuple[State, str]:
    if entry is not None and is_current(entry, current):
        return "done", ""
    if failed:
        return "failed", "the last attempt failed"
    if entry is None:
        return "missing", "never computed"
    recorded = entry["lineage"]
    changed = [
        label
        for key, label in (
            ("version", "version"),
            ("code_version", "code"),
            ("configuration", "configuration"),
        )
        if recorded.get(key) != current.get(key)
    ]
    before, now = recorded.get("inputs", {}), current.get("inputs", {})
    changed += [
        f"input {name}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    return "stale", ("changed: " + ", ".join(changed)) if changed else "changed: package version"
