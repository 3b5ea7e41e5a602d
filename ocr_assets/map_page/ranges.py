"""The ``Range`` header of HTTP.

Belongs here: which bytes a header asks for (RFC 9110, section 14). Does not belong here: sending
them.
"""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*", re.ASCII)


class UnsatisfiableRangeError(ValueError):
    """A range that lies wholly outside what there is."""


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end (not included) of the single range that ``header`` asks for.

    None means the whole: no header, another unit, several ranges, or a header that makes no
    sense, which a server is to ignore.

    Raises:
        UnsatisfiableRangeError: the range begins at or after ``size``, or is an empty suffix.
    """
    match = _RANGE.fullmatch(header or "")
    if not match:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size
        if last:
            if int(last) < start:
                return None
            end = min(int(last) + 1, size)
    if start >= end:
        raise UnsatisfiableRangeError(f"bytes {header} of {size}")
    return start, end
