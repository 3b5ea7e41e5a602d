"""`ocr regions compare`: a published version against an unpublished one of other inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pandas as pd
import pyarrow.parquet as pq
from sample_worlds import Outcome, World

Ocr = Callable[..., Outcome]

FIRST, SECOND = {"OCR_VERSION": "1.0.0"}, {"OCR_VERSION": "1.1.0"}


def test_what_changed_between_two_versions(ocr: Ocr, world: World, tmp_path: Path) -> None:
    assert ocr("run", "-r", "y1_x1", "-r", "y1_x2", "--summary-stats", **FIRST).status == 0
    assert ocr("deploy", "publish", **FIRST).status == 0
    world.doctor_raster("scott-et-al-2024-30m-4326", lambda dataset: dataset * 0.5)
    assert ocr("run", "-r", "y1_x1", "--summary-stats", **SECOND).status == 0

    table, picture = tmp_path / "changes.parquet", tmp_path / "map.png"
    done = ocr("regions", "compare", "1.0.0", "v1.1.0", "-o", str(table), "--picture", str(picture))
    assert done.status == 0, done.err
    assert done.out.startswith("fire, qa: v1.1.0 minus v1.0.0")
    told = json.loads(ocr("regions", "compare", "latest", "1.1.0", "--json", "--all").out)
    assert (told["before"], told["after"]) == ("v1.0.0", "v1.1.0")
    changes = {(row["geography"], row["variable"]): row for row in told["changes"]}

    # Burn probability stays where both versions have it; the second region is gone.
    burn, risk = changes["pixel", "bp_2011"], changes["pixel", "rps_2011"]
    assert (burn["changed"], burn["mean_difference"]) == (0, 0)
    assert burn["removed"] > 0
    assert 0 < risk["changed"] <= risk["compared"]
    assert risk["place"] == "y1_x1"
    before = world.deployment(version="1.0.0").regions.dataset(at="v1.0.0")["rps_2011"]
    window = world.deployment().regions.regions["y1_x1"]
    expected = float(before[window].mean(dtype="f8"))
    assert abs(risk["mean_difference"] + expected / 2) < 1e-6 * expected
    assert changes["nation", "building_count"]["mean_difference"] < 0

    rows = pq.read_table(table).to_pandas()
    assert (rows["changed"] + rows["added"] + rows["removed"] > 0).all()
    regions = rows[rows["geography"] == "region"]
    assert set(regions["place"]) == {"y1_x1", "y1_x2"}
    assert set(rows["geography"]) == {"region", "block", "tract", "county", "state", "nation"}
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[0] > 400

    same = ocr("regions", "compare", "1.0.0", "1.0.0", "-o", str(tmp_path / "none.csv"))
    assert "0 of " in same.out
    assert list(pd.read_csv(tmp_path / "none.csv").columns) == rows.columns.tolist()

    bad = ocr("regions", "compare", "1.0.0", "1.1.0", "-o", str(tmp_path / "changes.xlsx"))
    assert (bad.status, ".csv or .parquet" in bad.err) == (1, True)
    nothing = ocr("regions", "compare", "1.0.0", "2.0.0")
    assert nothing.status == 1
    assert "v1.0.0 and v2.0.0 have nothing in common to compare" in nothing.err
    wrong = ocr("regions", "compare", "1.0.0", "newest")
    assert "is not a version like 1.2.3" in wrong.err
