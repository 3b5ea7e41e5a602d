"""Tibetan script and extended Wylie (EWTS), both ways.

Belongs here: conversion of text between Unicode and the Extended Wylie Transliteration Scheme of
the Tibetan and Himalayan Library. Does not belong here: the spelling of Unicode text (see
``normalise``).

The rules are those of the ``pyewts`` package. On top of them come the lenient spellings that real
transcripts have, and the section sign that recognisers trained on Wylie say for a tsheg.
"""

from __future__ import annotations

import re
import threading
from typing import Literal

from pyewts import pyewts

Encoding = Literal["unicode", "wylie"]
ENCODINGS: tuple[Encoding, ...] = ("unicode", "wylie")

_TSHEG_SIGN = "\u00a7"
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})

# Capital letters that no EWTS spelling has, and the first letter of a syllable's root written as a
# capital, as many transcripts do: mNyon, gTso, rDza. The capitals that EWTS does have (T, D, N, Sh,
# and the vowels A, I, U) stay where they stand alone.
_FOREIGN_CAPITALS = re.compile("[BCGJKLPVWZ]")
_ROOT_CAPITAL = re.compile("(?<![A-Za-z+.'])([bdglmrs'])(Ny|Ng|Tsh|Ts|Th|Dz|D|T|N)(?=[aeiouwyr])")

# Written everywhere without the plus that its stack would need.
_PADMA = re.compile("(?<![A-Za-z+])padm(?=[aeiou])")

_converters = threading.local()


def to_unicode(text: str, *, lenient: bool = False) -> str:
    """Wylie to Tibetan script. Text between square brackets stays as it is.

    Args:
        text: EWTS; ``§`` counts as the space, that is as a tsheg.
        lenient: also take a capital that marks the root letter of a syllable (``mNyon``), which
            EWTS would read as a retroflex letter or not at all, and ``padma`` without its plus.
    """
    text = text.replace(_TSHEG_SIGN, " ").translate(_APOSTROPHES)
    if lenient:
        text = _ROOT_CAPITAL.sub(lambda found: found[1] + found[2].lower(), text)
        text = _FOREIGN_CAPITALS.sub(lambda found: found[0].lower(), text)
        text = _PADMA.sub("pad+m", text)
    return str(_converter().toUnicode(text))


def to_wylie(text: str) -> str:
    """Tibetan script to Wylie. What is not Tibetan comes out between square brackets."""
    return str(_converter().toWylie(text))


def convert(text: str, source: Encoding, target: Encoding) -> str:
    """Text from one encoding in another.

    Raises:
        ValueError: an encoding is not one of :data:`ENCODINGS`.
    """
    for encoding in (source, target):
        if encoding not in ENCODINGS:
            raise ValueError(f"unknown encoding {encoding!r}; use one of {', '.join(ENCODINGS)}")
    if source == target:
        return text.replace(_TSHEG_SIGN, " ") if source == "wylie" else text
    return to_unicode(text) if source == "wylie" else to_wylie(text)


def _converter() -> pyewts:
    # A converter keeps its state between calls, so each thread has its own.
    if not hasattr(_converters, "own"):
        _converters.own = pyewts()
    return _converters.own
