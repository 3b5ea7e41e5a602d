"""Networks of the tiles wing: two slots, what each takes and gives, and whether a file keeps to it.

Belongs here: a network from a file (TensorFlow frozen graph, ONNX, OpenVINO IR) or from code, its
name and hash, the contract of its tensors, and calling it with arrays.
Does not belong here: the runtime that reads and compiles, and what inputs and outputs mean.

Sizes and tensor names come from the graph, never from the file's name:

* tree cover: float32 ``[n, 5, h, w, 17]`` and perhaps the number of quarters, an integer, to
  float32 ``[n, h - 2 b, w - 2 b, 1]``, where ``b`` is the border that the network loses;
* super-resolution: float32 ``[n, h, w, 10]`` and ``[n, h, w, 6]`` to float32 ``[n, h, w, 6]``, any
  height and width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from openvino import Model, PartialShape, Type

from ocr_assets.tiles import baseline
from ocr_assets.tiles.normalisation import CHANNELS, FRAMES

QUARTERS = FRAMES - 1
"""Frames that are a sequence in time, which a recurrent network may ask the number of."""

PUBLISHED_INPUT = 172
"""Pixels; the window of networks that take any size but look beyond a pixel's neighbourhood."""

ALL_BANDS, COARSE_BANDS = 10, 6

_PUBLISHED_OUTPUT = "conv2d/Sigmoid"

# An output of these alone depends on the input near it, so a tile may be predicted all at once.
_LOCAL = {
    "Abs", "Add", "AvgPool", "Broadcast", "Clamp", "Concat", "Constant", "Convert", "Convolution",
    "ConvolutionBackpropData", "Divide", "Elu", "Exp", "Gather", "Gelu", "GroupConvolution",
    "GroupConvolutionBackpropData", "HSigmoid", "HSwish", "Interpolate", "MaxPool",
    "Maximum", "Minimum", "Mish", "Multiply", "Negative", "Pad", "Parameter", "Power", "PRelu",
    "Relu", "Result", "ShapeOf", "Sigmoid", "Slice", "SoftPlus", "Split", "Sqrt", "Squeeze",
    "StridedSlice", "Subtract", "Swish", "Tanh", "Transpose", "Unsqueeze", "VariadicSplit",
}  # fmt: skip


SUFFIXES = (".pb", ".onnx", ".xml")
"""Of TensorFlow frozen graphs, ONNX files and OpenVINO IR."""


class NetworkError(ValueError):
    """A network that cannot be used; the message says what is wrong with which, and the mend."""


class Runner(Protocol):
    """A compiled network: arrays by input index to its only output."""

    def __call__(self, inputs: dict[int, NDArray[Any]], /) -> NDArray[np.float32]:
        """Run once; threads may call at the same time."""


class Runtime(Protocol):
    """What reads and compiles networks, such as ``resources.inference.Inference``.

    ``streams`` is the number of calls that run at the same time.
    """

    streams: int

    def read(self, path: Path, /) -> Model:
        """The graph of a file."""

    def runner(self, network: Model, path: Path, /) -> Runner:
        """Compile a graph; the path names it in errors."""


@dataclass(frozen=True)
class _Source:
    """A graph, and where it is from."""

    graph: Model
    name: str
    sha256: str
    path: Path

    def error(self, problem: str) -> NetworkError:
        return NetworkError(f"{self.path}: {problem}")


@dataclass
class TreeCoverNetwork:
    """A tree-cover network that is ready to run.

    Attributes:
        name: of the file, or of a built-in network.
        sha256: of all that decides its answer.
        input_size: pixels of a window's side, border included.
        border: pixels on each side of the input that have no output.
        whole_tile: whether a tile of any size gives at once what windows give.
        any_size: whether height and width are open at all.
        streams: calls that may run at the same time.
    """

    name: str
    sha256: str
    input_size: int
    border: int
    whole_tile: bool
    any_size: bool
    streams: int
    _source: _Source = field(repr=False)
    _runtime: Runtime = field(repr=False)
    _data: int = field(repr=False)
    _quarters: tuple[int, NDArray[Any]] | None = field(repr=False)
    _window: Runner = field(repr=False)
    _open: Runner | None = field(default=None, repr=False)

    @property
    def output_size(self) -> int:
        """Pixels of the side of a window's answer."""
        return self.input_size - 2 * self.border

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tree cover 0..1 of normalised features.

        Args:
            windows: float32 ``[n, 5, h, w, 17]``; side by side in one call they are no faster than
                one by one.

        Returns:
            float32 ``[n, h - 2 b, w - 2 b]``.

        Raises:
            NetworkError: the network is bound to windows of another size.
        """
        count, _, height, width, _ = windows.shape
        if (count, height, width) == (1, self.input_size, self.input_size):
            return self._run(self._window, windows)
        if self.any_size or (height, width) == (self.input_size, self.input_size):
            if self._open is None:
                self._open = self._runtime.runner(self._source.graph, self._source.path)
            return self._run(self._open, windows)
        raise self._source.error(
            f"the network takes {self.input_size} x {self.input_size} pixels, not "
            f"{height} x {width}"
        )

    def _run(self, runner: Runner, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs: dict[int, NDArray[Any]] = {self._data: windows}
        if self._quarters is not None:
            index, one = self._quarters
            inputs[index] = one if one.ndim == 0 else np.repeat(one, len(windows))
        return runner(inputs)[..., 0]


@dataclass(frozen=True)
class SuperResolutionNetwork:
    """A super-resolution network that is ready to run.

    Attributes:
        name: of the file, or of a built-in network.
        sha256: of all that decides its answer.
    """

    name: str
    sha256: str
    _run: Runner = field(repr=False)
    _bands: int = field(repr=False)

    def __call__(
        self, bands: NDArray[np.float32], coarse: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Sharpen the bands of 20 m.

        Args:
            bands: all ten at 10 m, the six coarse ones last, float32 ``[t, h, w, 10]``.
            coarse: those six, resampled bilinearly, float32 ``[t, h, w, 6]``.

        Returns:
            The six with the detail of 10 m, float32 ``[t, h, w, 6]``. Dates are run one by one,
            which bounds the memory.
        """
        sharp = np.empty_like(coarse)
        for date in range(len(bands)):
            one = slice(date, date + 1)
            inputs = {self._bands: bands[one], 1 - self._bands: coarse[one]}
            result = self._run({i: np.ascontiguousarray(x, np.float32) for i, x in inputs.items()})
            if result.shape != coarse[one].shape:
                raise ValueError(f"answer of {result.shape} for {coarse[one].shape}")
            sharp[one] = result
        return sharp


def load_tree_cover(path: Path | None, runtime: Runtime) -> TreeCoverNetwork:
    """The tree-cover network of a file, or :data:`baseline.GREENNESS` without one.

    Args:
        path: `*.pb` (TensorFlow frozen graph), `*.onnx`, or `*.xml` (OpenVINO IR).
        runtime: reads and compiles it.

    Raises:
        NetworkError: the file is not a network, or breaks the contract of this slot.
    """
    source = _built_in(baseline.GREENNESS) if path is None else _read(path, runtime)
    data, quarters = _tree_cover_inputs(source)
    shape = _dimensions(source.graph.inputs[data])
    any_size = shape[2] is None and shape[3] is None
    if not any_size and shape[2] != shape[3]:
        raise source.error(f"the input is {shape[2]} x {shape[3]} pixels; windows are square")
    size = PUBLISHED_INPUT if shape[2] is None else shape[2]
    _keep_output(source, 1)
    window = source.graph.clone()
    one = {data: [1, FRAMES, size, size, len(CHANNELS)]}
    if quarters is not None:
        one[quarters[0]] = list(quarters[1].shape)
    _reshape(source, window, one)
    network = TreeCoverNetwork(
        name=source.name,
        sha256=source.sha256,
        input_size=size,
        border=0,
        whole_tile=any_size and _is_local(source.graph),
        any_size=any_size,
        streams=runtime.streams,
        _source=source,
        _runtime=runtime,
        _data=data,
        _quarters=quarters,
        _window=runtime.runner(window, source.path),
    )
    output = network(np.zeros((1, FRAMES, size, size, len(CHANNELS)), np.float32)).shape
    side = output[-1]
    if output != (1, side, side) or side > size or (size - side) % 2:
        raise source.error(
            f"the output is {list(output)} for one window of {size} x {size} pixels, not a "
            "square within it; export the network channels last with one output"
        )
    return replace(network, border=(size - side) // 2)


def load_super_resolution(path: Path | None, runtime: Runtime) -> SuperResolutionNetwork:
    """The super-resolution network of a file, or :data:`baseline.BILINEAR` without one.

    Raises:
        NetworkError: the file is not a network, or breaks the contract of this slot.
    """
    source = _built_in(baseline.BILINEAR) if path is None else _read(path, runtime)
    found = {}
    for index, port in enumerate(source.graph.inputs):
        shape = _dimensions(port)
        if len(shape) == 4 and port.get_element_type() == Type.f32:
            found[shape[3]] = index
    if len(source.graph.inputs) != 2 or found.keys() != {ALL_BANDS, COARSE_BANDS}:
        raise source.error(
            f"super-resolution takes two float32 inputs, [n, h, w, {ALL_BANDS}] and "
            f"[n, h, w, {COARSE_BANDS}], but the network has {_inputs(source.graph)}; choose "
            "another file"
        )
    _keep_output(source, COARSE_BANDS)
    run = runtime.runner(source.graph, source.path)
    network = SuperResolutionNetwork(source.name, source.sha256, run, found[ALL_BANDS])
    # Two sizes, so that a network that is bound to one is found out before any work.
    for height, width in ((32, 40), (52, 36)):
        bands = np.zeros((1, height, width, ALL_BANDS), np.float32)
        try:
            network(bands, bands[..., :COARSE_BANDS])
        except (RuntimeError, ValueError) as error:
            raise source.error(
                f"the network does not turn {height} x {width} pixels into as many; export it "
                "with open height and width"
            ) from error
    return network


def _built_in(name: str) -> _Source:
    make = {
        baseline.GREENNESS: baseline.greenness_model,
        baseline.BILINEAR: baseline.bilinear_model,
    }[name]
    return _Source(make(), name, baseline.definition_hash(name), Path(name))


def _read(path: Path, runtime: Runtime) -> _Source:
    if path.suffix.lower() not in SUFFIXES:
        raise NetworkError(
            f"{path} is no network by its name: give a TensorFlow frozen graph (*.pb), an ONNX "
            "file (*.onnx) or OpenVINO IR (*.xml with its *.bin)"
        )
    try:
        digest = _sha256(path)
    except OSError as error:
        raise NetworkError(f"{error.filename} cannot be read: {error.strerror}") from error
    return _Source(runtime.read(path), path.name, digest, path)


def _sha256(path: Path) -> str:
    """Hash of the file; of OpenVINO IR, of its weights too."""
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix.lower() == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def _tree_cover_inputs(source: _Source) -> tuple[int, tuple[int, NDArray[Any]] | None]:
    """Index of the features, and of the number of quarters with its value if that is asked for."""
    integers = {Type.i32: np.int32, Type.i64: np.int64}
    data: list[int] = []
    quarters: list[tuple[int, NDArray[Any]]] = []
    others: list[int] = []
    for index, port in enumerate(source.graph.inputs):
        shape, kind = _dimensions(port), port.get_element_type()
        if kind == Type.f32 and len(shape) == 5:
            data.append(index)
        elif kind in integers and len(shape) <= 1:
            quarters.append((index, np.full([1] * len(shape), QUARTERS, integers[kind])))
        else:
            others.append(index)
    if len(data) != 1 or len(quarters) > 1 or others:
        raise source.error(
            f"a tree-cover network takes one float32 input [n, {FRAMES}, h, w, {len(CHANNELS)}] "
            f"and at most one integer, but this one has {_inputs(source.graph)}; choose another "
            "file"
        )
    shape = _dimensions(source.graph.inputs[data[0]])
    if shape[1] not in (FRAMES, None) or shape[4] != len(CHANNELS):
        raise source.error(
            f"the input is {_shown(shape)}, not [n, {FRAMES}, h, w, {len(CHANNELS)}]: four "
            f"quarters and the median, channels {', '.join(CHANNELS)}; choose another file"
        )
    return data[0], quarters[0] if quarters else None


def _keep_output(source: _Source, channels: int) -> None:
    """Drop the outputs that the slot does not ask for, such as those of training."""
    fitting = [
        port
        for port in source.graph.outputs
        if len(shape := _dimensions(port)) == 4
        and shape[3] in (channels, None)
        and port.get_element_type() == Type.f32
    ]
    published = [port for port in fitting if any(_PUBLISHED_OUTPUT in n for n in port.names)]
    if len(fitting) > 1 and len(published) == 1:
        fitting = published
    if len(fitting) != 1:
        found = ", ".join(
            f"{'/'.join(sorted(port.names))} {_shown(_dimensions(port))}"
            for port in source.graph.outputs
        )
        raise source.error(
            f"the network must have one float32 output [n, h, w, {channels}], but has {found}; "
            "export it channels last with that output alone"
        )
    for port in list(source.graph.outputs):
        if port != fitting[0]:
            source.graph.remove_result(port.get_node())


def _reshape(source: _Source, graph: Model, shapes: dict[int, list[int]]) -> None:
    wanted = {graph.inputs[index]: PartialShape(shape) for index, shape in shapes.items()}
    try:
        graph.reshape(wanted)
    except RuntimeError as error:
        raise source.error(
            f"the network does not take input of {' and '.join(map(_shown, shapes.values()))}; "
            "choose another file"
        ) from error


def _is_local(graph: Model) -> bool:
    return all(op.get_type_name() in _LOCAL for op in graph.get_ops())


def _dimensions(port: Any) -> list[int | None]:
    """Sides of a tensor, None where open; no sides for a scalar, or where even those are open."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return []
    return [None if side.is_dynamic else side.get_length() for side in shape]


def _shown(shape: list[Any]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _inputs(graph: Model) -> str:
    return ", ".join(
        f"{'/'.join(sorted(port.names)) or 'input'} {port.get_element_type().get_type_name()} "
        f"{_shown(_dimensions(port))}"
        for port in graph.inputs
    )
