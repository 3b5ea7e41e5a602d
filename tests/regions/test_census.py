"""Census shapefiles as tables: every row accounted for, in order of code, in the right states."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pyarrow.parquet as pq
import pytest
import shapely
from published_inputs import blocks, outlines, shapefile, tiger_files, zipped

from ocr_assets.geoparquet import lineage_of
from ocr_assets.regions.census import (
    CONTIGUOUS,
    NATION_BOX,
    STATE_NAMES,
    UnknownStateError,
    state_codes,
    write_outlines,
)
from ocr_assets.regions.geographies import GeographyError, Level, read_geographies
from ocr_assets.vector import VectorFileError

STATES = ("08", "56")
PATHS: dict[Level, tuple[str, ...]] = {
    "block": tuple(f"TIGER2025/TABBLOCKSUFX/tl_2025_{code}_tabblocksufx.zip" for code in STATES),
    "tract": tuple(f"TIGER2024/TRACT/tl_2024_{code}_tract.zip" for code in STATES),
    "county": ("TIGER2024/COUNTY/tl_2024_us_county.zip",),
    "state": ("GENZ2024/shp/cb_2024_us_state_500k.zip",),
    "nation": ("GENZ2024/shp/cb_2024_us_nation_5m.zip",),
}


def zips(folder: Path, level: Level) -> list[Path]:
    made = []
    for path in PATHS[level]:
        made.append(folder / Path(path).name)
        made[-1].write_bytes(tiger_files()[path])
    return made


@pytest.mark.parametrize(
    ("level", "codes", "read"),
    [
        ("block", sorted(blocks()), 8),
        ("tract", sorted({geoid[:11] for geoid in blocks()}), 4),
        ("county", ["08013", "56021"], 3),
        ("state", ["08", "56"], 3),
        ("nation", ["US"], 1),
    ],
)
def test_every_level(tmp_path: Path, level: Level, codes: list[str], read: int) -> None:
    target = tmp_path / "out.parquet"
    report = write_outlines(zips(tmp_path, level), level, STATES, target, {"made": "up"})
    assert report.to_dict() == {
        "read": read,
        "elsewhere": read - len(codes),
        "written": len(codes),
    }
    assert pq.read_table(target)["GEOID"].to_pylist() == codes
    assert lineage_of(target) == {"made": "up"}
    # The table is one that the graph reads.
    table = read_geographies(target, level)
    assert table["GEOID"].to_pylist() == codes
    if level == "county":
        assert table["NAME"].to_pylist() == ["Boulder", "Laramie"]
    if level == "state":
        assert table["STUSPS"].to_pylist() == ["CO", "WY"]


def test_outlines_and_columns_stay(tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    write_outlines(zips(tmp_path, "block"), "block", STATES, target, {})
    frame = geopandas.read_parquet(target)
    assert frame.crs.to_epsg() == 4326
    assert [*frame.columns] == ["GEOID", "ALAND", "geometry"]
    for geoid, shape in zip(frame["GEOID"], frame.geometry, strict=True):
        assert shape.equals_exact(blocks()[geoid].normalize(), 1e-12) or shape.equals(
            blocks()[geoid]
        )
    assert sorted(frame["ALAND"]) == sorted([1000, 1001, 1002, 1003] * 2)


def test_states_keep_three_columns_and_the_nation_is_cut(tmp_path: Path) -> None:
    write_outlines(zips(tmp_path, "state"), "state", CONTIGUOUS, tmp_path / "s.parquet", {})
    assert pq.read_schema(tmp_path / "s.parquet").names == [
        "GEOID",
        "STUSPS",
        "NAME",
        "geometry",
        "bbox",
    ]
    write_outlines(zips(tmp_path, "nation"), "nation", CONTIGUOUS, tmp_path / "n.parquet", {})
    (nation,) = geopandas.read_parquet(tmp_path / "n.parquet").geometry
    assert nation.bounds == NATION_BOX


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        target = tmp_path / f"{name}.parquet"
        write_outlines(zips(tmp_path, "block"), "block", STATES, target, {})
        made.append(target.read_bytes())
    assert made[0] == made[1]


def broken(folder: Path, frame: geopandas.GeoDataFrame) -> list[Path]:
    path = folder / "broken.zip"
    path.write_bytes(shapefile(frame, "broken", folder))
    return [path]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    box = shapely.box(-105, 40, -104, 41)
    target = tmp_path / "out.parquet"
    wrong = broken(tmp_path, outlines({"0801": box}))
    with pytest.raises(GeographyError, match=r"broken\.zip holds 1 codes that are no county codes"):
        write_outlines(wrong, "county", STATES, target, {})
    frame = outlines({"08013": box}).to_crs(5070)
    projected = broken(tmp_path / "projected", frame)
    with pytest.raises(VectorFileError, match="expected longitude and latitude"):
        write_outlines(projected, "county", STATES, target, {})
    unnamed = broken(tmp_path / "unnamed", outlines({"08013": box}).rename(columns={"GEOID": "X"}))
    with pytest.raises(VectorFileError, match="has no column 'GEOID'"):
        write_outlines(unnamed, "county", STATES, target, {})
    half = tmp_path / "half.zip"
    half.write_bytes(zipped({"a.shp": b"nothing"}))
    with pytest.raises(VectorFileError, match=r"half\.zip"):
        write_outlines([half], "county", STATES, target, {})
    assert not target.exists()


def test_states_by_code_abbreviation_and_name() -> None:
    assert state_codes(["Wyoming", "co", "06", "district of columbia", "WY"]) == (
        "06",
        "08",
        "11",
        "56",
    )
    assert state_codes([]) == ()
    for unknown in ("Alaska", "HI", "72", "Colorada"):
        with pytest.raises(UnknownStateError, match="is not a contiguous state"):
            state_codes([unknown])


def test_the_contiguous_states() -> None:
    assert len(CONTIGUOUS) == 49
    assert STATE_NAMES["06"] == "California"
    assert STATE_NAMES["44"] == "Rhode Island"
    assert STATE_NAMES["56"] == "Wyoming"
