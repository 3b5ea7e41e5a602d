"""Wylie both ways."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocr_assets.volumes.normalise import normalise_for_scoring
from ocr_assets.volumes.wylie import convert, to_unicode, to_wylie

PAIRS = [
    ("bkra shis bde legs/", "བཀྲ་ཤིས་བདེ་ལེགས།"),
    ("ga&", "ག྅"),
    ("oM ma Ni pad+me hU~M/", "ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ།"),
    ("//", "༎"),
    ("@#/_/", "༄༅། །"),
    ("g.yag", "གཡག"),
    ("pa'ang", "པའང"),
]


@pytest.mark.parametrize(("wylie", "tibetan"), PAIRS)
def test_vectors_both_ways(wylie: str, tibetan: str) -> None:
    assert to_unicode(wylie) == tibetan
    assert to_wylie(tibetan) == wylie


@pytest.mark.parametrize(
    ("wylie", "tibetan"),
    [
        ("pa'ng", "པའང"),
        ("pa'm", "པའམ"),
        ("be\u2019u'i'o", "བེའུའིའོ"),
        ("@#/ /", "༄༅། །"),
        ("bde§legs§", "བདེ་ལེགས་"),
    ],
)
def test_spellings_read_but_not_written(wylie: str, tibetan: str) -> None:
    assert to_unicode(wylie) == tibetan


def test_lenient_spellings() -> None:
    assert to_unicode("mNyon mNges gTso rDza padma", lenient=True) == "མཉོན་མངེས་གཙོ་རྫ་པདྨ"
    # What EWTS itself writes in capitals stays.
    strict = "oM ma Ni Ta Tha k+Sha hU~M"
    assert to_unicode(strict, lenient=True) == to_unicode(strict)


def test_conversion_names_an_unknown_encoding() -> None:
    assert convert("bde§legs", "wylie", "wylie") == "bde legs"
    assert convert("བདེ", "unicode", "unicode") == "བདེ"
    with pytest.raises(ValueError, match="unknown encoding 'acip'"):
        convert("x", "acip", "unicode")  # type: ignore[arg-type]


def test_real_transcripts_come_back(shared_data: Path) -> None:
    folder = shared_data / "volumes" / "lines" / "lhasa-kanjur-lines" / "transcriptions"
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text("utf-8").strip()
        assert normalise_for_scoring(to_unicode(to_wylie(text))) == normalise_for_scoring(text)


def test_threads_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as pool:
        for wylie, tibetan in PAIRS:
            assert set(pool.map(to_unicode, [wylie] * 40)) == {tibetan}
