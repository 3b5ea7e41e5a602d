"""Tibetan text in one spelling: for output, and for scoring.

Belongs here: canonical order and decomposition of Tibetan marks, foldings that scoring allows, and
the flag of repeated loops. Does not belong here: encodings (see ``wylie``), error rates.
"""

from __future__ import annotations

import re
import unicodedata

# Code points that Unicode spells as a sequence, or advises against.
_DECOMPOSED = str.maketrans(
    {
        0x0F00: "\u0f68\u0f7c\u0f7e",
        0x0F43: "\u0f42\u0fb7",
        0x0F4D: "\u0f4c\u0fb7",
        0x0F52: "\u0f51\u0fb7",
        0x0F57: "\u0f56\u0fb7",
        0x0F5C: "\u0f5b\u0fb7",
        0x0F69: "\u0f40\u0fb5",
        0x0F73: "\u0f71\u0f72",
        0x0F75: "\u0f71\u0f74",
        0x0F76: "\u0fb2\u0f80",
        0x0F77: "\u0fb2\u0f71\u0f80",
        0x0F78: "\u0fb3\u0f80",
        0x0F79: "\u0fb3\u0f71\u0f80",
        0x0F81: "\u0f71\u0f80",
        0x0F93: "\u0f92\u0fb7",
        0x0F9D: "\u0f9c\u0fb7",
        0x0FA2: "\u0fa1\u0fb7",
        0x0FA7: "\u0fa6\u0fb7",
        0x0FAC: "\u0fab\u0fb7",
        0x0FB9: "\u0f90\u0fb5",
    }
)

_INVISIBLE = re.compile("[\ufeff\u200b\u200c\u200d\u2060]")
_SPACES = re.compile(r"[^\S\n]+")
_STACK = re.compile(
    "[\u0f40-\u0f6c\u0f88-\u0f8c]"
    "[\u0f18\u0f19\u0f35\u0f37\u0f39\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc\u0fc6]+"
)

# The order of marks on a base: subjoined letters, the flag of the last of them, vowels below, marks
# below, vowels above, marks above, marks at the right.
_SUBJOINED, _FLAG, _BELOW, _BELOW_MARK, _ABOVE, _ABOVE_MARK, _RIGHT = range(7)
_CLASS = {
    0x0F39: _FLAG,
    **dict.fromkeys(range(0x0F8D, 0x0FBD), _SUBJOINED),
    **dict.fromkeys((0x0F71, 0x0F74, 0x0F75), _BELOW),
    **dict.fromkeys((0x0F18, 0x0F19, 0x0F35, 0x0F37, 0x0F84, 0x0FC6), _BELOW_MARK),
    **dict.fromkeys((0x0F72, 0x0F7A, 0x0F7B, 0x0F7C, 0x0F7D, 0x0F80), _ABOVE),
    **dict.fromkeys((0x0F7E, 0x0F82, 0x0F83, 0x0F86, 0x0F87), _ABOVE_MARK),
    0x0F7F: _RIGHT,
}

# The flag on these letters makes another letter.
_FLAGGED = {
    "\u0f45\u0f39": "\u0f59",
    "\u0f46\u0f39": "\u0f5a",
    "\u0f47\u0f39": "\u0f5b",
    "\u0f95\u0f39": "\u0fa9",
    "\u0f96\u0f39": "\u0faa",
    "\u0f97\u0f39": "\u0fab",
}

_LOOKALIKES = str.maketrans({0x0F0C: "\u0f0b", 0x0F0E: "\u0f0d\u0f0d", 0x0F38: "\u0f27"})
_DOUBLE_VOWELS = {"\u0f7a\u0f7a": "\u0f7b", "\u0f7c\u0f7c": "\u0f7d"}

LOOP_THRESHOLD = 0.5
"""Text with a loop score at or above this is flagged."""
_LOOP_WINDOW = 20
_DELIMITERS = re.compile("[\\s\u0f0b-\u0f11\u0f14]+")


def normalise(text: str) -> str:
    """Text for output: one spelling for what looks and reads the same.

    Deprecated and composed code points are decomposed, marks put in order, the flag forms of
    tsa, tsha and dza folded, invisible characters removed, and runs of blanks made one. Line breaks
    stay. Applying it twice changes nothing.
    """
    # Flags are folded before canonical order can set them apart from their letters, and after.
    text = _unflagged(_INVISIBLE.sub("", text))
    text = unicodedata.normalize("NFC", text.translate(_DECOMPOSED))
    text = _unflagged(_STACK.sub(lambda found: _ordered(found[0]), text))
    return _SPACES.sub(" ", text)


def normalise_for_scoring(text: str) -> str:
    """Tibetan characters alone, with what only looks different by choice of code point folded.

    On top of :func:`normalise`: tsheg, shad and the numeral seven in one form each, doubled vowel
    signs as one sign, ra with and without fixed form, subjoined and vowel `'a` by position; then
    everything outside the Tibetan block, spaces too, is dropped.
    """
    text = normalise(text).translate(_LOOKALIKES)
    for double, single in _DOUBLE_VOWELS.items():
        text = text.replace(double, single)
    # Subjoined 'a that ends a stack is the long vowel.
    text = re.sub("\u0fb0(?![\u0f8d-\u0fbc])", "\u0f71", text)
    text = re.sub("\u0f6a(?![\u0f8d-\u0fbc])", "\u0f62", text)
    return "".join(character for character in text if "\u0f00" <= character <= "\u0fff")


def loop_score(text: str) -> float:
    """Share of repetition among runs of 20 syllables: 0 for running text, towards 1 for a loop.

    One minus distinct runs over all runs; 0 for text of fewer than 20 syllables. Syllables are
    what lies between tsheg, shad and blanks.
    """
    syllables = [part for part in _DELIMITERS.split(text) if part]
    runs = len(syllables) - _LOOP_WINDOW + 1
    if runs < 1:
        return 0.0
    distinct = {tuple(syllables[i : i + _LOOP_WINDOW]) for i in range(runs)}
    return 1.0 - len(distinct) / runs


def _unflagged(text: str) -> str:
    for flagged, letter in _FLAGGED.items():
        text = text.replace(flagged, letter)
    return text


def _ordered(stack: str) -> str:
    return stack[0] + "".join(sorted(stack[1:], key=_place))


def _place(mark: str) -> tuple[int, int]:
    # Subjoined letters are read from the top down, so they keep their order.
    place = _CLASS[ord(mark)]
    return place, 0 if place == _SUBJOINED else ord(mark)
