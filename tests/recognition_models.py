"""Small recognition models for tests: made of known weights, in the form of real ones.

The graphs do no learning: each character is a band of ink at a height of its own, so that a line
drawn by :func:`draw_line` has one right reading.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# --- ONNX, as protocol buffers written by hand ---------------------------------------------------

_FLOAT, _INT64 = 1, 7


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: NDArray[Any]) -> bytes:
    kind = _FLOAT if array.dtype == np.float32 else _INT64
    dims = b"".join(_field(1, side) for side in array.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(
        _field(1, _field(1, side) if isinstance(side, int) else _field(2, side)) for side in shape
    )
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, item) for item in value) + _field(20, 7)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    """A node of a graph with one output."""
    return (
        b"".join(_field(1, name) for name in inputs)
        + _field(2, output)
        + _field(4, kind)
        + b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())
    )


def onnx_bytes(
    nodes: Sequence[bytes],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """A model in ONNX format, operator set 13; axes with a name are dynamic."""
    graph = (
        b"".join(_field(1, item) for item in nodes)
        + _field(2, "graph")
        + b"".join(_field(5, _tensor(name, array)) for name, array in constants.items())
        + b"".join(_field(11, _value(name, shape)) for name, shape in inputs.items())
        + b"".join(_field(12, _value(name, shape)) for name, shape in outputs.items())
    )
    return _field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph)


# --- Models of BDRC's contracts ------------------------------------------------------------------

BAND = 6
"""Height in pixels of the band of ink that is a character."""


def _band_weights(height: int, characters: int) -> NDArray[np.float32]:
    """``[output, y]``: the blank answers to nothing, each character to ink (-1) in its band."""
    weights = np.zeros((characters + 1, height), np.float32)
    for index in range(characters):
        weights[index + 1, index * BAND : (index + 1) * BAND] = -1
    return weights


def easter_bytes(height: int, width: int, characters: int, batch: int | str = "N") -> bytes:
    """Input (N, H, W), output (N, characters + 1, W / 4), raw scores."""
    kernel = np.repeat(_band_weights(height, characters)[:, :, None], 4, axis=2) / 4
    return onnx_bytes(
        [node("Conv", ["input", "kernel"], "output", kernel_shape=[4], strides=[4])],
        {"input": [batch, height, width]},
        {"output": [batch, characters + 1, "T"]},
        {"kernel": np.ascontiguousarray(kernel, np.float32)},
    )


def crnn_bytes(height: int, width: int, characters: int, ending: str = "LogSoftmax") -> bytes:
    """Input (N, 1, W, H), output (N, W, characters + 1) after ``ending``."""
    return onnx_bytes(
        [
            node("Squeeze", ["input", "axes"], "columns"),
            node("MatMul", ["columns", "weights"], "scores"),
            node(ending, ["scores"], "output", axis=2),
        ],
        {"input": ["N", 1, width, height]},
        {"output": ["N", width, characters + 1]},
        {
            "axes": np.array([1], np.int64),
            "weights": np.ascontiguousarray(_band_weights(height, characters).T),
        },
    )


def mask_bytes(size: int, classes: int, *, marks: bool = True) -> bytes:
    """Input (N, 3, size, size), output (N, classes, size, size): class 2, or the one, is ink.

    Without ``marks`` it is nowhere.
    """
    kernel = np.zeros((classes, 3, 1, 1), np.float32)
    bias = np.zeros(classes, np.float32)
    ink = 2 if classes > 1 else 0
    kernel[ink], bias[ink] = (-10, 15) if marks else (0, -15)
    return onnx_bytes(
        [node("Conv", ["input", "kernel", "bias"], "output", kernel_shape=[1, 1])],
        {"input": ["N", 3, size, size]},
        {"output": ["N", classes, size, size]},
        {"kernel": kernel, "bias": bias},
    )


def write_model_folder(folder: Path, network: bytes, **config: Any) -> Path:
    """A BDRC model folder with the fields of ``config``; a field of None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(network)
    fields = {"onnx-model": "model.onnx", **config}
    (folder / "model_config.json").write_text(
        json.dumps({name: value for name, value in fields.items() if value is not None}), "utf-8"
    )
    return folder


def easter_config(height: int, width: int, charset: Any, **changes: Any) -> dict[str, Any]:
    """The fields of an Easter2 model."""
    return {
        "architecture": "Easter2",
        "version": "1.0",
        "input_width": width,
        "input_height": height,
        "input_layer": "input",
        "output_layer": "output",
        "encoder": "stack",
        "charset": charset,
        "squeeze_channel_dim": "yes",
        "swap_hw": "no",
        "add_blank": "yes",
        **changes,
    }


def draw_line(height: int, characters: Sequence[int], step: int = 16) -> NDArray[np.uint8]:
    """A line image: each character a band of ink of ``step - 8`` pixels, then 8 of paper."""
    image = np.full((height, step * len(characters)), 255, np.uint8)
    for place, index in enumerate(characters):
        image[index * BAND : (index + 1) * BAND, place * step : (place + 1) * step - 8] = 0
    return image


# --- Tesseract's container -----------------------------------------------------------------------


def layer(
    kind: str, inputs: int, outputs: int, body: bytes = b"", flags: int = 0, name: str | None = None
) -> bytes:
    """A serialized layer."""
    return (
        struct.pack("<b", 0)
        + _text(kind)
        + struct.pack("<bbiiii", 0, 0, flags, inputs, outputs, 0)
        + _text(kind.lower() if name is None else name)
        + body
    )


def plumbing(kind: str, inputs: int, outputs: int, *inner: bytes, rates: int = 0) -> bytes:
    """A layer of layers, with ``rates`` learning rates that a reader has to skip."""
    body = struct.pack("<I", len(inner)) + b"".join(inner)
    if rates:
        body += struct.pack(f"<I{rates}f", rates, *[0.001] * rates)
    return layer(kind, inputs, outputs, body, flags=64 if rates else 0)


def matrix(values: NDArray[np.float64], *, int8: bool) -> tuple[bytes, NDArray[np.float64]]:
    """A serialized weight matrix, and the values it has after rounding."""
    rows, columns = values.shape
    if not int8:
        return struct.pack("<Bii", 128, rows, columns) + bytes(8) + values.tobytes(), values
    scales = np.abs(values).max(axis=1) / 127
    steps = np.round(values / scales[:, None]).astype(np.int8)
    data = struct.pack("<Bii", 129, rows, columns) + bytes(1) + steps.tobytes()
    data += struct.pack("<I", rows) + scales.tobytes()
    return data, steps * scales[:, None]


def traineddata_bytes(
    network: bytes,
    unichars: Sequence[str],
    *,
    blank: int,
    codes: Sequence[Sequence[int]] | None = None,
    int8: bool = False,
    components: Mapping[int, bytes | None] | None = None,
) -> bytes:
    """A whole `*.traineddata` file; ``components`` replaces or removes parts by their number."""
    flags = int(int8) | (64 if codes is not None else 0)
    lstm = network + _text("[spec]") + struct.pack("<iiii", flags, 1, 1, blank) + bytes(12)
    unicharset = f"{len(unichars)}\n" + "".join(
        f"{'NULL' if text == ' ' else text} 0 Common 0\n" for text in unichars
    )
    recoder = b""
    for code in codes or [[index] for index in range(len(unichars))]:
        recoder += struct.pack(f"<bi{len(code)}i", 1, len(code), *code)
    parts: dict[int, bytes | None] = {
        17: lstm,
        21: unicharset.encode(),
        22: struct.pack("<I", len(unichars)) + recoder,
        23: b"test:1",
        **(components or {}),
    }
    data, offsets = b"", []
    for index in range(24):
        part = parts.get(index)
        offsets.append(-1 if part is None else 4 + 24 * 8 + len(data))
        data += part or b""
    return struct.pack("<I24q", 24, *offsets) + data


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()
