"""Character sets of line recognisers: from network outputs to text.

Belongs here: which text an output stands for, also where several outputs together spell one
character. Does not belong here: decoding of probabilities (see ``ctc``), scripts and encodings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


class CharsetError(ValueError):
    """A character set that does not fit its network."""


@dataclass(frozen=True)
class Charset:
    """The outputs of a network, by number.

    Attributes:
        size: number of outputs, the blank included.
        blank: the output that stands for nothing and separates repetitions.
        codes: for each text, which outputs in order spell it. Mostly one output each.
    """

    size: int
    blank: int
    codes: Mapping[tuple[int, ...], str]

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.codes), default=0)

    @classmethod
    def from_codes(cls, codes: Mapping[tuple[int, ...], str], *, size: int, blank: int) -> Charset:
        """A checked character set; raises :class:`CharsetError` if outputs are out of range."""
        if not 0 <= blank < size:
            raise CharsetError(f"the blank is output {blank}, but the network has {size} outputs")
        for code, text in codes.items():
            if not code or not all(0 <= output < size for output in code) or blank in code:
                raise CharsetError(
                    f"{text!r} is spelled by outputs {code}, but the network has {size} outputs "
                    f"and output {blank} is the blank"
                )
        return cls(size, blank, dict(codes))

    @classmethod
    def from_characters(cls, characters: Sequence[str], *, blank: int = 0) -> Charset:
        """One output for each of ``characters`` in order, with the blank put in at ``blank``."""
        outputs = [output for output in range(len(characters) + 1) if output != blank]
        return cls.from_codes(
            {(output,): text for output, text in zip(outputs, characters, strict=True)},
            size=len(characters) + 1,
            blank=blank,
        )

    def spell(self, outputs: Sequence[int]) -> list[tuple[str, int, int]]:
        """Texts of a sequence of outputs without blanks, as ``(text, first, stop)``.

        ``first`` and ``stop`` bound the piece of ``outputs`` that spells the text. The longest
        code wins; an output that begins no code is left out.
        """
        longest = self._longest
        found = []
        start = 0
        while start < len(outputs):
            for stop in range(min(start + longest, len(outputs)), start, -1):
                text = self.codes.get(tuple(outputs[start:stop]))
                if text is not None:
                    if text:
                        found.append((text, start, stop))
                    start = stop
                    break
            else:
                start += 1
        return found
