"""Keys of stored objects and the errors of storage, shared by every kind of store.

Belongs here: what a valid key is, and the exceptions callers may catch. Does not belong here: any
access to a store.
"""

from __future__ import annotations

import re

# The object layer hides names of this form in listings, so files in the making have such a name.
HIDDEN_NAME = re.compile(r".*#\d+", re.DOTALL)


class StorageError(RuntimeError):
    """Storage could not do what was asked; the message names the place and the mend."""


class MissingObjectError(StorageError):
    """There is no object under the key."""


class ObjectExistsError(StorageError):
    """A write that must not replace anything found an object under its key."""


class InvalidKeyError(ValueError):
    """A key or root that is not safe or not of the right form."""


def join_key(*parts: str) -> str:
    """Join key parts by ``/`` and check the result; empty parts at the ends are left out.

    Raises:
        InvalidKeyError: the key is empty, absolute, holds an empty, ``.`` or ``..`` part, a
            backslash or a control character, or ends in ``#`` and digits.
    """
    key = "/".join(part for part in parts if part)
    names = key.split("/")
    if (
        any(name in ("", ".", "..") for name in names)
        or any(character == "\\" or not character.isprintable() for character in key)
        or HIDDEN_NAME.fullmatch(names[-1])
    ):
        raise InvalidKeyError(
            f"{key!r} is not a valid key: write names joined by '/', none of them empty, '.' or "
            "'..', without backslashes or control characters, not ending in '#' and digits"
        )
    return key
