"""What a TensorFlow frozen graph says about its inputs.

Belongs here: finding nodes in the protocol buffer of a graph. Does not belong here: reading the
graph as a network, which OpenVINO does.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NODE, _NODE_NAME, _NODE_OP = 1, 1, 2


def placeholders_with_default(graph: bytes) -> list[str]:
    """Names of the inputs that have a default value, which a plain reader takes for constants.

    Raises:
        ValueError: ``graph`` is not a protocol buffer.
    """
    names = []
    for number, node in _fields(memoryview(graph)):
        if number == _NODE:
            parts = dict(_fields(node))
            if bytes(parts.get(_NODE_OP, b"")) == b"PlaceholderWithDefault":
                names.append(bytes(parts.get(_NODE_NAME, b"")).decode())
    return names


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that holds bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("the graph is cut off")
            yield key >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of wire type {kind} is in no graph")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("the graph is cut off")
