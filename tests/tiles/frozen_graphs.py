"""TensorFlow frozen graphs for tests, as protocol buffers written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recognition_models import _field, _varint

_TYPES = {"float32": 1, "int32": 3}


def _shape(sides: Sequence[int]) -> bytes:
    return b"".join(_field(2, _field(1, side)) for side in sides)


def _value(value: Any) -> bytes:
    """An attribute: a type by its name, a shape as a tuple, numbers as a list, or a tensor."""
    if isinstance(value, str) and value in _TYPES:
        return _field(6, _TYPES[value])
    if isinstance(value, str):
        return _field(2, value)
    if isinstance(value, tuple):
        return _field(7, _shape(value))
    if isinstance(value, list):
        return _field(1, _field(3, b"".join(map(_varint, value))))
    array: NDArray[Any] = value
    kind = _field(1, _TYPES[array.dtype.name])
    return _field(8, kind + _field(2, _shape(array.shape)) + _field(4, array.tobytes()))


def tensor_node(op: str, name: str, *inputs: str, **attributes: Any) -> bytes:
    """A node of a graph; attribute ``T`` is float32 unless given, or None for a node without."""
    attributes = {"T": "float32", **attributes}
    body = _field(1, name) + _field(2, op) + b"".join(_field(3, item) for item in inputs)
    for key, value in sorted(attributes.items()):
        if value is not None:
            body += _field(5, _field(1, key) + _field(2, _value(value)))
    return _field(1, body)


def constant(name: str, values: Any, kind: str = "float32") -> bytes:
    """A constant tensor."""
    array = np.asarray(values, kind)
    return tensor_node("Const", name, T=None, dtype=kind, value=array)


def placeholder(name: str, shape: tuple[int, ...], kind: str = "float32") -> bytes:
    """An input; -1 is an open side."""
    return tensor_node("Placeholder", name, T=None, dtype=kind, shape=shape)


def frozen_graph(*nodes: bytes) -> bytes:
    """The whole file."""
    return b"".join(nodes) + _field(4, _field(1, 1087))


def tree_cover_graph(channels: int = 17, size: int = 172, kernel: int = 15) -> bytes:
    """The tensors of the published tree-cover network around one convolution.

    Tree cover is sigmoid(mean over the kernel of channel 0 of the median frame * quarters / 4).
    """
    weights = np.zeros((kernel, kernel, channels, 1), np.float32)
    weights[:, :, 0] = 1 / kernel**2
    return frozen_graph(
        placeholder("Placeholder", (-1, 5, size, size, channels)),
        constant("length", [4], "int32"),
        tensor_node(
            "PlaceholderWithDefault", "PlaceholderWithDefault", "length",
            T=None, dtype="int32", shape=(-1,),
        ),
        constant("begin", [0, 4, 0, 0, 0], "int32"),
        constant("sides", [-1, 1, -1, -1, -1], "int32"),
        tensor_node("Slice", "frame", "Placeholder", "begin", "sides", Index="int32"),
        tensor_node("Squeeze", "median", "frame", squeeze_dims=[1]),
        tensor_node("Cast", "number", "PlaceholderWithDefault", T=None, SrcT="int32",
                    DstT="float32"),
        constant("column", [-1, 1, 1, 1], "int32"),
        tensor_node("Reshape", "numbers", "number", "column", Tshape="int32"),
        constant("quarter", np.float32(0.25)),
        tensor_node("Mul", "share", "numbers", "quarter"),
        tensor_node("Mul", "weighted", "median", "share"),
        constant("kernel", weights),
        tensor_node("Conv2D", "conv2d/Conv2D", "weighted", "kernel", strides=[1, 1, 1, 1],
                    padding="VALID", data_format="NHWC"),
        tensor_node("Sigmoid", "conv2d/Sigmoid", "conv2d/Conv2D"),
    )  # fmt: skip


def super_resolution_graph(seed: int = 0) -> bytes:
    """The published operations once each: mirrored edges, two convolutions, skip, tanh, sum."""
    rng = np.random.default_rng(seed)

    def convolution(name: str, data: str, inputs: int, outputs: int) -> list[bytes]:
        weights = rng.normal(0, 0.1, (3, 3, inputs, outputs)).astype(np.float32)
        return [
            tensor_node("MirrorPad", f"{name}/pad", data, "edges", Tpaddings="int32",
                        mode="REFLECT"),
            constant(f"{name}/kernel", weights),
            tensor_node("Conv2D", f"{name}/Conv2D", f"{name}/pad", f"{name}/kernel",
                        strides=[1, 1, 1, 1], padding="VALID", data_format="NHWC"),
            constant(f"{name}/bias", rng.normal(0, 0.1, outputs)),
            tensor_node("BiasAdd", name, f"{name}/Conv2D", f"{name}/bias", data_format="NHWC"),
        ]  # fmt: skip

    return frozen_graph(
        placeholder("Placeholder", (-1, -1, -1, 10)),
        placeholder("Placeholder_1", (-1, -1, -1, 6)),
        constant("edges", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32"),
        *convolution("first", "Placeholder", 10, 8),
        tensor_node("Relu", "Relu", "first"),
        *convolution("second", "Relu", 8, 8),
        constant("tenth", np.float32(0.1)),
        tensor_node("Mul", "Mul", "second", "tenth"),
        tensor_node("AddV2", "Add", "Mul", "Relu"),
        *convolution("last", "Add", 8, 6),
        tensor_node("Tanh", "Tanh", "last"),
        tensor_node("AddV2", "Add_2", "Tanh", "Placeholder_1"),
        tensor_node("Identity", "Identity", "Add_2"),
    )
