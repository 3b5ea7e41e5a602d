"""Edit distance and error rates."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.volumes.scoring import character_error_rate, edit_distance


@given(st.text("ཀཁག་", max_size=7), st.text("ཀཁག་", max_size=7))
def test_edit_distance_equals_its_definition(first: str, second: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (first[i - 1] != second[j - 1]),
        )

    assert edit_distance(first, second) == distance(len(first), len(second))


def test_character_error_rate() -> None:
    assert character_error_rate("བཀྲ་ཤིས", "བཀྲ་ཤས") == pytest.approx(1 / 7)
    assert character_error_rate("བཀྲ་ཤིས།", " བཀྲ་ཤིས །\n") == 0
    assert character_error_rate("", "ཀཁ") == 2
    assert character_error_rate("", "") == 0
