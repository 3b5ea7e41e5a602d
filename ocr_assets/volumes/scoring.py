"""How far a text is from the known one.

Belongs here: edit distance and error rates. Does not belong here: spelling (see ``normalise``).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ocr_assets.volumes.normalise import normalise_for_scoring


def edit_distance(reference: str, hypothesis: str) -> int:
    """Insertions, deletions and substitutions that turn one text into the other (Levenshtein)."""
    return int(_edit_distance(_code_points(reference), _code_points(hypothesis)))


def character_error_rate(reference: str, hypothesis: str) -> float:
    """Edit distance after :func:`normalise_for_scoring`, per character of the reference.

    An empty reference gives 0 for an empty hypothesis, else the hypothesis' length.
    """
    wanted, found = normalise_for_scoring(reference), normalise_for_scoring(hypothesis)
    return edit_distance(wanted, found) / max(1, len(wanted))


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@njit(cache=True)
def _edit_distance(reference, hypothesis):  # type: ignore[no-untyped-def]
    row = np.arange(len(hypothesis) + 1)
    for i in range(len(reference)):
        diagonal = row[0]
        row[0] = i + 1
        for j in range(len(hypothesis)):
            changed = diagonal + (reference[i] != hypothesis[j])
            diagonal = row[j + 1]
            row[j + 1] = min(changed, diagonal + 1, row[j] + 1)
    return row[-1]
