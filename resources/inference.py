"""Networks under OpenVINO: loading, checking and running them on the CPU.

Belongs here: everything that touches the OpenVINO runtime. Does not belong here: what goes into a
network and what its output means.

Networks run in 32-bit arithmetic, so that a model gives the same text on every machine's CPU as
far as rounding allows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import CompiledModel, Core, InferRequest, Model, PartialShape, Type, save_model
from openvino.frontend import FrontEndManager

from ocr_assets.tiles.frozen_graph import placeholders_with_default
from ocr_assets.volumes.lstm_graph import GRAPH_VERSION, build_model
from ocr_assets.volumes.models import LineModel, ModelError, SegmentationModel
from ocr_assets.volumes.traineddata import Traineddata

# OpenVINO makes its table of number types at first use, and gives Python's lock away meanwhile: two
# threads that run their first network at once would wait for each other for ever (2026.4).
Type.f32.to_dtype()

# A batch of three can hardly be mistaken for one of the other axes.
_PROBE_LINES = 3
_PROBE_WIDTH = 240

# OpenVINO keeps what it prepares for each shape of input, about a megabyte for a line recogniser.
# Batches of lines come in thousands of shapes, and its own limit would let them fill the memory.
_KEPT_SHAPES = 32


class Inference:
    """The OpenVINO runtime, with a folder for what it has converted and compiled.

    Args:
        cache: folder for converted networks and compiled models; it may be emptied at any time.
        streams: calls that run at the same time, each on one thread.
    """

    def __init__(self, cache: Path, streams: int = 1) -> None:
        if streams < 1:
            raise ValueError(f"{streams} streams run nothing; give 1 or more")
        self._cache = cache
        self.streams = streams
        self._core = Core()
        cache.mkdir(parents=True, exist_ok=True)
        self._core.set_property({"CACHE_DIR": str(cache / "compiled")})

    def line_network(self, model: LineModel) -> LineNetwork:
        """Load the network of a line model and check that it keeps the model's contract.

        Raises:
            ModelError: the file is not a network, or takes or gives something else.
        """
        if model.traineddata is not None:
            compiled = self._compile(self._converted(model.traineddata), model.path)
            return LineNetwork(model, compiled, self.streams)
        network = self.read(model.path)
        contract = model.contract
        port = _only_input(network, contract.input_name, model.path)
        shape: list[int] = [contract.input_height, contract.input_width or -1]
        if contract.width_first:
            shape.reverse()
        if contract.channel_axis:
            shape.insert(0, 1)
        _reshape(network, port, [-1, *shape], model.path)
        _require_output(network, contract.output_name, model.path)
        return LineNetwork(model, self._compile(network, model.path), self.streams)

    def mask_network(self, model: SegmentationModel) -> MaskNetwork:
        """Load a segmentation network and check that it keeps the model's contract.

        Raises:
            ModelError: the file is not a network, or takes or gives something else.
        """
        network = self.read(model.path)
        port = _only_input(network, model.input_name, model.path)
        _reshape(network, port, [-1, 3, model.patch_size, model.patch_size], model.path)
        _require_output(network, model.output_name, model.path)
        return MaskNetwork(model, self._compile(network, model.path))

    def runner(self, network: Model, path: Path) -> Callable[[dict[int, Any]], NDArray[np.float32]]:
        """Compile a network whose contract was checked; ``path`` names it in errors.

        Returns:
            A function from arrays by input index to the only output, which threads may share.

        Raises:
            ModelError: the network cannot be compiled for this CPU.
        """
        return _Requests(self._compile(network, path)).run

    def read(self, path: Path) -> Model:
        """Read an ONNX file, OpenVINO IR or a TensorFlow frozen graph (`*.pb`).

        Raises:
            ModelError: the file is not a network.
        """
        try:
            if path.suffix.lower() == ".pb":
                return _read_frozen_graph(path)
            return self._core.read_model(path)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{path} is not a network that OpenVINO reads ({_first_line(error)}); get the "
                "model again"
            ) from error

    def _compile(self, network: Model, path: Path) -> CompiledModel:
        try:
            return self._core.compile_model(
                network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "INFERENCE_NUM_THREADS": self.streams,
                    "NUM_STREAMS": self.streams,
                    "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_SHAPES,
                },
            )
        except RuntimeError as error:
            raise ModelError(
                f"{path} cannot be compiled for this CPU ({_first_line(error)}); export the model "
                "again"
            ) from error

    def _converted(self, traineddata: Traineddata) -> Model:
        """The network as OpenVINO model files, written at first use."""
        stem = f"{traineddata.sha256[:32]}-{GRAPH_VERSION}"
        path = self._cache / "converted" / f"{stem}.xml"
        if not path.is_file():
            network = build_model(traineddata)
            network.set_rt_info(traineddata.sha256, "source_sha256")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                save_model(network, Path(folder) / path.name, compress_to_fp16=False)
                # The file that is looked for appears last.
                for name in (f"{stem}.bin", f"{stem}.xml"):
                    os.replace(Path(folder) / name, path.parent / name)
        return self.read(path)


class LineNetwork:
    """A line model that is ready to run; see :class:`ocr_assets.volumes.recognise.LineNetwork`."""

    def __init__(self, model: LineModel, compiled: CompiledModel, streams: int) -> None:
        self._model = model
        self._requests = _Requests(compiled)
        self.streams = streams
        self._line_axis, self._output_axis = 0, 2
        self._gives_probabilities = False
        if model.traineddata is None:
            self._probe()

    def __call__(
        self, images: NDArray[np.float32], widths: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Log-probabilities float32 ``[line, frame, output]`` of ``images`` ``[line, y, x]``."""
        if self._model.traineddata is not None:
            return self._requests.run({0: images, 1: widths})
        scores = np.moveaxis(self._run(images), (self._line_axis, self._output_axis), (0, 2))
        if self._gives_probabilities:
            return np.log(np.maximum(scores, np.float32(1e-30)))
        peak = scores.max(axis=2, keepdims=True)
        scores = scores - peak
        return scores - np.log(np.exp(scores).sum(axis=2, keepdims=True))

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        contract = self._model.contract
        if contract.width_first:
            images = images.transpose(0, 2, 1)
        if contract.channel_axis:
            images = images[:, None]
        return self._requests.run({0: np.ascontiguousarray(images)})

    def _probe(self) -> None:
        """Find out the order of the output's axes, and what its numbers are."""
        contract = self._model.contract
        width = contract.input_width or _PROBE_WIDTH
        try:
            scores = self._run(np.ones((_PROBE_LINES, contract.input_height, width), np.float32))
        except RuntimeError as error:
            raise ModelError(
                f"{self._model.path} does not run on {_PROBE_LINES} lines of "
                f"{contract.input_height} x {width} ({_first_line(error)}); check input_height, "
                "input_width, squeeze_channel_dim and swap_hw, and export with a dynamic batch axis"
            ) from error
        axes = [
            (line, output)
            for line, output in ((0, 1), (0, 2), (1, 2))
            if scores.ndim == 3
            and scores.shape[line] == _PROBE_LINES
            and scores.shape[output] == contract.outputs
        ]
        if not axes:
            raise ModelError(
                f"{self._model.path}: output {contract.output_name!r} is {scores.shape} for "
                f"{_PROBE_LINES} lines, but the character set with its blank needs an axis of "
                f"{contract.outputs}; check charset and add_blank in the model's configuration"
            )
        self._line_axis, self._output_axis = axes[0]
        sums = scores.sum(axis=self._output_axis)
        self._gives_probabilities = bool(scores.min() >= 0 and np.allclose(sums, 1, atol=1e-3))


class MaskNetwork:
    """A segmentation model that is ready to run."""

    def __init__(self, model: SegmentationModel, compiled: CompiledModel) -> None:
        self._model = model
        self._requests = _Requests(compiled)
        size = model.patch_size
        expected = (1, len(model.classes) or 1, size, size)
        found = self(np.zeros((1, 3, size, size), np.float32)).shape
        if found != expected:
            raise ModelError(
                f"{model.path}: output {model.output_name!r} is {found} for one tile, not "
                f"{expected}; check patch_size and classes in the model's configuration"
            )

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores float32 ``[tile, class, y, x]`` of ``tiles`` ``[tile, 3, y, x]``."""
        return self._requests.run({0: tiles})


class _Requests:
    """Inference requests of a compiled model, as many as run at the same time.

    A request holds its buffers, so that it is worth handing on from thread to thread.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self._compiled = compiled
        self._idle: list[InferRequest] = []

    def run(self, inputs: dict[int, NDArray[Any]]) -> NDArray[np.float32]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer(inputs, share_inputs=True)
        output = np.array(request.get_output_tensor(0).data, np.float32)
        self._idle.append(request)
        return output


def _read_frozen_graph(path: Path) -> Model:
    """A TensorFlow graph with every placeholder as an input.

    ``read_model`` takes a placeholder with a default for a constant, and what follows from its
    length, such as the number of items in a batch, is then fixed.
    """
    names = placeholders_with_default(path.read_bytes())
    front_end = FrontEndManager().load_by_framework("tf")
    loaded = front_end.load(str(path))
    optional = [loaded.get_place_by_tensor_name(f"{name}:0") for name in names]
    loaded.override_all_inputs([*loaded.get_inputs(), *optional])
    return front_end.convert(loaded)


def _only_input(network: Model, name: str, path: Path) -> Any:
    for port in network.inputs:
        if name in port.names and len(network.inputs) == 1:
            return port
    found = [sorted(port.names) for port in network.inputs]
    raise ModelError(
        f"{path}: the network must have one input, {name!r}, but has {found}; correct input_layer "
        "in the model's configuration"
    )


def _require_output(network: Model, name: str, path: Path) -> None:
    """Keep the output called ``name`` alone."""
    for port in network.outputs:
        if name in port.names:
            for other in list(network.outputs):
                if other != port:
                    network.remove_result(other.get_node())
            return
    found = [sorted(port.names) for port in network.outputs]
    raise ModelError(
        f"{path}: the network has no output {name!r}, but {found}; correct output_layer in the "
        "model's configuration"
    )


def _reshape(network: Model, port: Any, shape: list[int], path: Path) -> None:
    try:
        network.reshape({port: PartialShape(shape)})
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the network cannot take input of shape {shape}, -1 being any number "
            f"({_first_line(error)}); check input_height, input_width, patch_size, "
            "squeeze_channel_dim and swap_hw in the model's configuration"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (informative or lines or [type(error).__name__])[0]
