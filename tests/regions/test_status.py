"""Status of regions: the ledger decides what is done; reasons name what changed."""

from __future__ import annotations

from typing import Any

import pytest

from ocr_assets.regions.status import RegionStatus, is_current, region_status

CURRENT: dict[str, Any] = {
    "environment": "qa",
    "version": "v1.0.0",
    "package_version": "0.1.0",
    "code_version": "abc",
    "inputs": {"wind": "1", "burn": "2"},
    "configuration": {"method": "corrected"},
}


def entry(**changes: Any) -> dict[str, Any]:
    return {"lineage": {**CURRENT, **changes}, "buildings": {"rows": 7}}


def state_of(ledger: dict[str, Any], failed: tuple[str, ...] = ()) -> RegionStatus:
    (row,) = region_status(["y0_x0"], ledger, CURRENT, failed)
    return row


def test_done_with_what_it_was_computed_with() -> None:
    row = state_of({"y0_x0": entry()})
    assert row == RegionStatus("y0_x0", "done", "", "v1.0.0", "abc", 7)


def test_missing_and_failed() -> None:
    assert state_of({}) == RegionStatus("y0_x0", "missing", "never computed", None, None, None)
    assert state_of({}, ("y0_x0",)).state == "failed"
    assert state_of({}, ("y0_x1",)).state == "missing"


def test_a_failed_attempt_does_not_undo_what_is_done() -> None:
    assert state_of({"y0_x0": entry()}, ("y0_x0",)).state == "done"
    assert state_of({"y0_x0": entry(code_version="old")}, ("y0_x0",)).state == "failed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "v0.9.0"}, "changed: version"),
        ({"code_version": "old"}, "changed: code"),
        ({"configuration": {"method": "published"}}, "changed: configuration"),
        ({"inputs": {"wind": "0", "burn": "2"}}, "changed: input wind"),
        ({"inputs": {"burn": "2"}}, "changed: input wind"),
        ({"inputs": {"wind": "1", "burn": "2", "fuel": "3"}}, "changed: input fuel"),
        ({"package_version": "0.0.9"}, "changed: package version"),
        (
            {"version": "v0.9.0", "code_version": "old", "inputs": {}},
            "changed: version, code, input burn, input wind",
        ),
    ],
)
def test_stale_says_what_changed(changes: dict[str, Any], reason: str) -> None:
    row = state_of({"y0_x0": entry(**changes)})
    assert (row.state, row.reason) == ("stale", reason)
    assert row.version == changes.get("version", "v1.0.0")


def test_current_needs_an_entry_and_the_same_lineage() -> None:
    assert not is_current(None, CURRENT)
    assert is_current(entry(), CURRENT)
    assert not is_current(entry(environment="staging"), CURRENT)


def test_rows_come_in_the_order_asked_for() -> None:
    rows = region_status(["y1_x0", "y0_x0"], {"y0_x0": entry(), "y9_x9": entry()}, CURRENT)
    assert [(row.region_id, row.state) for row in rows] == [
        ("y1_x0", "missing"),
        ("y0_x0", "done"),
    ]
