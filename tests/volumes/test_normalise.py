"""Spelling of Tibetan text, and the loop flag."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.volumes.normalise import (
    LOOP_THRESHOLD,
    loop_score,
    normalise,
    normalise_for_scoring,
)

TIBETAN = st.text(
    st.one_of(
        st.sampled_from("ཀགངཅཆཇཉཏདནཔབམཙར"),
        st.characters(min_codepoint=0x0F00, max_codepoint=0x0FDA),
        st.sampled_from(" \n\u200b༹"),
    ),
    max_size=20,
)


@pytest.mark.parametrize(
    ("composed", "sequence"),
    [
        (0x0F43, "གྷ"), (0x0F4D, "ཌྷ"), (0x0F52, "དྷ"), (0x0F57, "བྷ"), (0x0F5C, "ཛྷ"),
        (0x0F69, "ཀྵ"),
    ],
)  # fmt: skip
def test_composed_letters_are_decomposed(composed: int, sequence: str) -> None:
    assert normalise(chr(composed)) == unicodedata.normalize("NFD", sequence)


@pytest.mark.parametrize(
    "composed",
    [0x0F73, 0x0F75, 0x0F76, 0x0F78, 0x0F81, 0x0F93, 0x0F9D, 0x0FA2, 0x0FA7, 0x0FAC, 0x0FB9],
)
def test_composed_marks_are_decomposed_as_unicode_does(composed: int) -> None:
    text = "ཀ" + chr(composed)
    assert normalise(text) == unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("ༀ", "ཨོཾ"),
        ("ཧཱུྃ", "ཧཱུྃ"),
        ("ཧཱུྃ", "ཧཱུྃ"),
        ("ཀྷཾི", "ཀྷིཾ"),
        ("ཀུྱ", "ཀྱུ"),
        ("ཅ༹", "ཙ"),
        ("ཆུ༹", "ཚུ"),
        ("ཇི༹", "ཛི"),
        ("ཀ\u200b་\ufeffཁ", "ཀ་ཁ"),
        ("ཀ།  \tཁ\nག", "ཀ། ཁ\nག"),
        ("ཀླཱྀ", "ཀླཱྀ"),
        ("\u0f56\u0fb3\u0f71\u0f80", "\u0f56\u0fb3\u0f71\u0f80"),
        ("\u0f56\u0f79", "\u0f56\u0fb3\u0f71\u0f80"),
        ("\u0f56\u0f77", "\u0f56\u0fb2\u0f71\u0f80"),
    ],
)
def test_vectors(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("ཀ༌ཁ", "ཀ་ཁ"),
        ("ཀ༎", "ཀ།།"),
        ("༸", "༧"),
        ("ཀེེ", "ཀཻ"),
        ("ཀོོ", "ཀཽ"),
        ("ཧྰུྃ", "ཧཱུྃ"),
        ("ཀྰྱ", "ཀྰྱ"),
        ("ཪ", "ར"),
        ("ཪྙ", "ཪྙ"),
        ("a ཀ 1 ཁ\n", "ཀཁ"),
    ],
)
def test_foldings_for_scoring(text: str, scored: str) -> None:
    assert normalise_for_scoring(text) == scored


@given(TIBETAN)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(TIBETAN)
def test_canonically_equal_texts_become_one(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert normalise(decomposed) == normalise(unicodedata.normalize("NFC", text))


@given(TIBETAN)
def test_scoring_does_not_see_the_choice_of_spelling(text: str) -> None:
    assert normalise_for_scoring(normalise(text)) == normalise_for_scoring(text)


def test_loops_are_told_from_running_text() -> None:
    assert loop_score("ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ། " * 30) > 0.9
    running = "་".join(f"ཀ{chr(0x0F72 + i % 3)}{chr(0x0F40 + i % 29)}" for i in range(400))
    assert loop_score(running) < 1
    assert loop_score("ཀ་" * 19) == 0
    distinct = "་".join(chr(0x0F40 + i % 7) * (i + 1) for i in range(60))
    assert loop_score(distinct) == 0
    # 41 runs, of which 21 are distinct: the window has the period of the loop.
    assert loop_score("་".join(str(i % 21) for i in range(60))) == pytest.approx(1 - 21 / 41)
    assert LOOP_THRESHOLD == 0.5
