"""Error terms against published figures, and the tables that two of them come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ocr_assets.tiles.zonal_errors import (
    ErrorTableError,
    Interval,
    Terms,
    read_error_table,
    share,
    shift_error,
    small_site_error,
)


@pytest.mark.parametrize(
    ("area", "tree_cover", "expected"),
    [
        (0.3, 5, 0.72772),
        (0.3, 25, 0.6672),
        (0.3, 60, 0.391133),
        (0.5, 60, 0.391133),
        (0.51, 60, 0),
        (0.51, 5, 0),
        (0.3, 10, 0.36386),
        (0.3, 40, 0.417),
    ],
)
def test_small_sites(area: float, tree_cover: float, expected: float) -> None:
    assert share(small_site_error(area, tree_cover), tree_cover) == pytest.approx(
        expected, abs=5e-7
    )


@pytest.mark.parametrize(
    ("interval", "tree_cover", "expected"),
    [
        # Of forest and cropland only the differences are published.
        (Interval(0.9, 0.95, 0.9464882100, 0.9049889050), 50, (7.02358e-5, 9.97781e-5)),
        (Interval(0.5, 0.8, 0.792186186, 0.547364336), 20, (3.906907e-4, 2.3682168e-3)),
    ],
)
def test_intervals(interval: Interval, tree_cover: float, expected: tuple[float, float]) -> None:
    found = share(interval.lower, tree_cover), share(interval.upper, tree_cover)
    assert found == pytest.approx(expected, rel=1e-5)


def test_terms_are_combined() -> None:
    cover = 50.0
    terms = Terms(
        shift=0.1 * cover,
        small_site=0.2 * cover,
        land_cover=(0.05 * cover, 0.06 * cover),
        region=(0.03 * cover, 0.04 * cover),
    )
    below, above = terms.combined()
    assert above == pytest.approx(6.652067, abs=5e-7)
    assert below == pytest.approx(6.304760, abs=5e-7)
    assert (below + above) / 2 == pytest.approx(6.478414, abs=5e-7)
    assert Terms().combined() == (0, 0)
    assert Terms(region=(3, 4)).combined() == (3, 4)


def test_shift_is_the_root_mean_square_change() -> None:
    shifted = np.array([22, 18, 20, 20, 24, 16, 20, 20], float)
    assert shift_error(20, shifted) == pytest.approx(np.sqrt(40 / 8))
    shifted[0] = np.nan
    assert shift_error(20, shifted) == pytest.approx(np.sqrt(36 / 7))
    assert shift_error(20, np.full(8, np.nan)) is None
    assert share(2.0, 0.0) is None
    assert share(None, 5.0) is None


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "land_cover.csv"
    path.write_text(
        "\ufeffclass,n,p_lower95,p_upper95,r_lower95,r_upper95\n forest ,12,0.9,0.95,0.94,0.96\n"
        "2,3,0.1,0.2,0.3,0.4\n",
        "utf-8",
    )
    assert read_error_table(path) == {
        "forest": Interval(0.9, 0.95, 0.94, 0.96),
        "2": Interval(0.1, 0.2, 0.3, 0.4),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no column 'class'"),
        ("class,p_lower95,p_upper95,r_lower95\n", "has no column 'r_upper95'"),
        ("class,p_lower95,p_upper95,r_lower95,r_upper95\na,1,2,3,x\n", "line 2: a bound of 'a'"),
        ("class,p_lower95,p_upper95,r_lower95,r_upper95\na,1,2,3\n", "line 2: a bound of 'a'"),
        ("class,p_lower95,p_upper95,r_lower95,r_upper95\na,1,2,3,nan\n", "is not a number"),
        ("class,p_lower95,p_upper95,r_lower95,r_upper95\na,1,2,3,4\na,1,2,3,4\n", "'a' twice"),
        ("class,p_lower95,p_upper95,r_lower95,r_upper95\n,1,2,3,4\n", "without a class"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ErrorTableError, match=problem) as raised:
        read_error_table(path)
    assert "table.csv" in str(raised.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ErrorTableError, match="cannot read the error table"):
        read_error_table(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"class\xff\xfe,\x00")
    with pytest.raises(ErrorTableError, match="cannot read the error table"):
        read_error_table(tmp_path / "binary.csv")
