"""Reading line recognisers from Tesseract `*.traineddata` files.

Belongs here: the container's component table, the serialized LSTM network, its character set and
its recoder (Tesseract 4 and newer, 8-bit and float weights). Does not belong here: running the
network (see ``lstm_graph``), dictionaries, and the older recogniser without a network.

Format: the sources of Tesseract 5 (``tessdatamanager``, ``network``, ``weightmatrix``,
``unicharset``, ``unicharcompress``). All numbers are little endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_assets.volumes.charset import Charset, CharsetError

# Places in the component table.
_LSTM, _UNICHARSET, _RECODER, _VERSION = 17, 21, 22, 23
_MOST_COMPONENTS = 1000

# In the order of their numbers.
_KINDS = (
    "Invalid",
    "Input",
    "Convolve",
    "Maxpool",
    "Parallel",
    "Replicated",
    "ParBidiLSTM",
    "DepParUDLSTM",
    "Par2dLSTM",
    "Series",
    "Reconfig",
    "RTLReversed",
    "TTBReversed",
    "XYTranspose",
    "LSTM",
    "SummLSTM",
    "Logistic",
    "LinLogistic",
    "LinTanh",
    "Tanh",
    "Relu",
    "Linear",
    "Softmax",
    "SoftmaxNoCTC",
    "LSTMSoftmax",
    "LSTMBinarySoftmax",
    "TensorFlow",
)

PLUMBING = frozenset({"Series", "Parallel", "ParBidiLSTM", "RTLReversed", "TTBReversed",
                      "XYTranspose"})  # fmt: skip
"""Kinds of layer that only lead data through other layers."""

DENSE = frozenset({"Tanh", "Logistic", "Relu", "Linear", "Softmax", "SoftmaxNoCTC"})
"""Kinds of layer with one weight matrix, applied to each position."""

RECURRENT = frozenset({"LSTM", "SummLSTM"})
"""Kinds of layer with the four matrices of a one-dimensional LSTM."""

_LAYER_RATES_FLAG = 64
_INT8_FLAG, _DOUBLE_FLAG = 1, 128
_INT8_NETWORK_FLAG, _RECODED_FLAG = 1, 64
_MOST_LAYERS, _DEEPEST = 10_000, 32


class TraineddataError(ValueError):
    """A file that is not a usable `*.traineddata`; the message says what is wrong and the mend."""


@dataclass(frozen=True)
class Layer:
    """One layer of the network, with the layers inside it.

    Attributes:
        kind: Tesseract's name of the layer type, e.g. ``LSTM``.
        name: the layer's own name, for messages.
        inputs, outputs: number of channels.
        layers: layers inside, in order.
        weights: float32 matrices ``(outputs, inputs + 1)``, the last column being the bias; one
            for a dense layer; cell input, input gate, forget gate and output gate for an LSTM,
            whose columns are ``[input | recurrent | bias]``.
        window: ``(x, y)`` half sizes of a ``Convolve``, or scales of a ``Maxpool``.
        height: line height in pixels of an ``Input``.
    """

    kind: str
    name: str
    inputs: int
    outputs: int
    layers: tuple[Layer, ...] = ()
    weights: tuple[NDArray[np.float32], ...] = field(default=(), repr=False)
    window: tuple[int, int] = (0, 0)
    height: int = 0


@dataclass(frozen=True)
class Traineddata:
    """A line recogniser: network, character set, and what its input must look like.

    ``height`` is the line height in pixels that the network takes. ``clipped`` tells that it was
    made for 8-bit arithmetic, so that its input is cut to -1...1.
    """

    name: str
    version: str
    spec: str
    sha256: str
    network: Layer
    charset: Charset
    height: int
    clipped: bool


def read_traineddata(path: Path) -> Traineddata:
    """Read a `*.traineddata` file.

    Raises:
        TraineddataError: the file is missing, damaged, has no LSTM, or has a network of a kind
            that this reader does not know.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraineddataError(
            f"cannot read {path} ({error.strerror}); name an existing *.traineddata file"
        ) from error
    return parse_traineddata(data, path.name)


def parse_traineddata(data: bytes, name: str) -> Traineddata:
    """Parse the bytes of a `*.traineddata` file called ``name``; see :func:`read_traineddata`."""
    components = _components(data, name)
    if _LSTM not in components:
        raise TraineddataError(
            f"{name} has no LSTM network (a model of Tesseract 3 or of page orientation); "
            "use a model of Tesseract 4 or newer"
        )
    reader = _Reader(components[_LSTM], f"{name}, lstm component")
    network = _read_layer(reader)
    inner_charset = _UNICHARSET not in components or _RECODER not in components
    if inner_charset:
        raise TraineddataError(
            f"{name} keeps its character set inside the network, as training checkpoints do; "
            "stop the training with lstmtraining --stop_training to get a finished model"
        )
    spec = reader.text()
    flags, _iteration, _samples, blank = reader.values("iiii")
    unichars = _read_unicharset(components[_UNICHARSET], name)
    codes = (
        _read_recoder(_Reader(components[_RECODER], f"{name}, recoder"), len(unichars))
        if flags & _RECODED_FLAG
        else [(index,) for index in range(len(unichars))]
    )
    try:
        charset = Charset.from_codes(
            {code: text for code, text in zip(codes, unichars, strict=True) if code != (blank,)},
            size=network.outputs,
            blank=blank,
        )
    except CharsetError as error:
        raise TraineddataError(f"{name}: {error}") from error
    return Traineddata(
        name=name,
        version=components.get(_VERSION, b"").decode("utf-8", "replace").strip(),
        spec=spec,
        sha256=hashlib.sha256(data).hexdigest(),
        network=network,
        charset=charset,
        height=_input_layer(network, name).height,
        clipped=bool(flags & _INT8_NETWORK_FLAG),
    )


class _Reader:
    """Takes values from bytes, and says where they end too early."""

    def __init__(self, data: bytes, place: str) -> None:
        self._data = data
        self._offset = 0
        self.place = place

    def error(self, problem: str) -> TraineddataError:
        return TraineddataError(
            f"{self.place}: {problem} at byte {self._offset}; the file is damaged or of an "
            "unknown version, get it again"
        )

    def take(self, size: int) -> bytes:
        if size < 0 or self._offset + size > len(self._data):
            raise self.error(f"{size} bytes wanted, {len(self._data) - self._offset} left")
        self._offset += size
        return self._data[self._offset - size : self._offset]

    def values(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def value(self, form: str) -> Any:
        return self.values(form)[0]

    def text(self) -> str:
        return self.take(self.value("I")).decode("utf-8", "replace")

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype)


def _components(data: bytes, name: str) -> dict[int, bytes]:
    """The parts of the container by their place in its table."""
    if data[:2] == b"PK":
        raise TraineddataError(
            f"{name} is a zip archive of components; repack it with combine_tessdata"
        )
    reader = _Reader(data, f"{name}, component table")
    count = reader.value("I")
    if not 0 < count <= _MOST_COMPONENTS:
        raise reader.error(f"{count} components announced, which no *.traineddata file has,")
    offsets = reader.values(f"{count}q")
    present = [(offset, index) for index, offset in enumerate(offsets) if offset >= 0]
    ends = [offset for offset, _ in present[1:]] + [len(data)]
    found = {}
    for (start, index), end in zip(present, ends, strict=True):
        if not start <= end <= len(data):
            raise reader.error(f"component {index} at {start} to {end} of {len(data)} bytes")
        found[index] = data[start:end]
    return found


def _read_layer(reader: _Reader, depth: int = 0) -> Layer:
    if depth > _DEEPEST:
        raise reader.error("layers nested too deep")
    number = reader.value("b")
    if number:
        kind = _KINDS[number] if 0 < number < len(_KINDS) else f"type {number}"
    else:
        kind = reader.text()
    _training, _backward = reader.values("bb")
    flags, inputs, outputs, _count = reader.values("iiii")
    name = reader.text()
    if kind == "Input":
        _batch, height, _width, channels, _loss = reader.values("iiiii")
        if height < 2 or channels != 1:
            raise TraineddataError(
                f"{reader.place}: the network takes images of height {height} with {channels} "
                "channels; only grey lines of a fixed height can be read"
            )
        return Layer(kind, name, inputs, outputs, height=height)
    if kind in {"Convolve", "Maxpool"}:
        window = reader.values("ii")
        if min(window) < (kind == "Maxpool") or max(window) > 100:
            raise reader.error(f"layer {name!r} with a window of {window}")
        return Layer(kind, name, inputs, outputs, window=window)
    if kind in PLUMBING:
        count = reader.value("I")
        if count > _MOST_LAYERS:
            raise reader.error(f"layer {name!r} with {count} layers inside")
        layers = tuple(_read_layer(reader, depth + 1) for _ in range(count))
        if flags & _LAYER_RATES_FLAG:
            reader.array("<f4", reader.value("I"))
        return Layer(kind, name, inputs, outputs, layers)
    if kind in RECURRENT:
        return _read_lstm(reader, kind, name, inputs, outputs)
    if kind in DENSE:
        weights = _read_weights(reader)
        if weights.shape != (outputs, inputs + 1):
            raise reader.error(f"layer {name!r} with a matrix of {weights.shape}")
        return Layer(kind, name, inputs, outputs, weights=(weights,))
    raise TraineddataError(
        f"{reader.place}: layer {name!r} is of kind {kind!r}, which is not of the family of "
        "networks that can be read (convolution, pooling, one-dimensional LSTM, softmax)"
    )


def _read_lstm(reader: _Reader, kind: str, name: str, inputs: int, outputs: int) -> Layer:
    columns = reader.value("i")
    cell_input = _read_weights(reader)
    states = cell_input.shape[0]
    if columns == inputs + 2 * states:
        raise TraineddataError(
            f"{reader.place}: layer {name!r} is a two-dimensional LSTM, which cannot be read; "
            "use a model with one-dimensional layers"
        )
    weights = (cell_input, *(_read_weights(reader) for _ in range(3)))
    if states != outputs or any(w.shape != (states, inputs + states + 1) for w in weights):
        raise reader.error(f"LSTM layer {name!r} with matrices of {[w.shape for w in weights]}")
    return Layer(kind, name, inputs, outputs, weights=weights)


def _read_weights(reader: _Reader) -> NDArray[np.float32]:
    mode = reader.value("B")
    if not mode & _DOUBLE_FLAG:
        raise reader.error("weights in the form of a test version of Tesseract 4,")
    rows, columns = reader.values("ii")
    if not (0 < rows <= 1 << 20 and 0 < columns <= 1 << 20):
        raise reader.error(f"matrix of {rows} x {columns}")
    if not mode & _INT8_FLAG:
        reader.take(8)  # The value of cells without one, which no matrix has.
        return reader.array("<f8", rows * columns).reshape(rows, columns).astype(np.float32)
    reader.take(1)
    steps = reader.array("i1", rows * columns).reshape(rows, columns)
    scales = reader.array("<f8", reader.value("I"))
    if len(scales) < rows:
        raise reader.error(f"{len(scales)} scales for {rows} rows")
    return (steps * scales[:rows, None]).astype(np.float32)


def _read_unicharset(data: bytes, name: str) -> list[str]:
    """The texts of the character set, by number; special entries have none."""
    lines = data.decode("utf-8", "replace").split("\n")
    if not lines[0].strip().isdigit() or len(lines) <= int(lines[0]):
        raise TraineddataError(
            f"{name}: the character set announces {lines[0][:20]!r} entries and has "
            f"{len(lines) - 1}; the file is damaged, get it again"
        )
    texts = [line.split(" ")[0] for line in lines[1 : 1 + int(lines[0])]]
    special = {"NULL": " ", "Joined": "", "|Broken|0|1": ""}
    return [special.get(text, text) for text in texts]


def _read_recoder(reader: _Reader, size: int) -> list[tuple[int, ...]]:
    """For each entry of the character set, the outputs that spell it, in order."""
    count = reader.value("I")
    if count != size:
        raise reader.error(f"codes of {count} characters for a character set of {size}")
    codes = []
    for _ in range(count):
        _normalized, length = reader.values("bi")
        if not 0 < length <= 9:
            raise reader.error(f"code of length {length}")
        codes.append(reader.values(f"{length}i"))
    return codes


def _input_layer(network: Layer, name: str) -> Layer:
    first = network
    while first.kind == "Series" and first.layers:
        first = first.layers[0]
    if first.kind != "Input":
        raise TraineddataError(
            f"{name}: the network begins with {first.kind!r}, not its input; get the file again"
        )
    return first
