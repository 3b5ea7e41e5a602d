"""A Tesseract LSTM network as an OpenVINO model.

Belongs here: the graph of the layers that ``traineddata`` reads. Does not belong here: reading
files, compiling or running the model.

The graph takes a batch of lines of unequal width. The reversed layers turn each line about its own
width, so that a line's result does not depend on the padding behind it or on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from openvino import Dimension, Model, Node, PartialShape, Type
from openvino import opset15 as ops

from ocr_assets.volumes.traineddata import DENSE, Layer, Traineddata, TraineddataError

GRAPH_VERSION = 1
"""Raised when the graph of the same network changes, so that saved ones are not used again."""

INPUT_IMAGES, INPUT_WIDTHS, OUTPUT = "images", "widths", "log_probabilities"
"""Names of the model's inputs, float32 ``[line, height, x]`` and int32 ``[line]``, and of its
output, float32 ``[line, frame, character]``."""


@dataclass(frozen=True)
class _Plane:
    """Data on the way through the network: ``[line, y, x, channel]``, and valid ends of y and x.

    An end is an int32 node ``[line]``, or None where the axis is full in every line.
    """

    data: Node
    y_end: Node | None
    x_end: Node | None


def build_model(traineddata: Traineddata) -> Model:
    """The network with dynamic batch and width.

    A line of ``w`` pixels has its result in the first ``w // s`` frames, where ``s`` is
    :func:`frame_stride`; what follows belongs to padding.

    Raises:
        TraineddataError: the layers are put together in a way that does not read lines.
    """
    images = ops.parameter(
        PartialShape([Dimension(), Dimension(traineddata.height), Dimension()]), Type.f32
    )
    widths = ops.parameter(PartialShape([Dimension()]), Type.i32)
    images.set_friendly_name(INPUT_IMAGES)
    widths.set_friendly_name(INPUT_WIDTHS)
    try:
        plane = _layer(traineddata.network, _Plane(_unsqueeze(images, 3), None, widths))
    except _UnsupportedError as problem:
        raise TraineddataError(
            f"{traineddata.name}: network {traineddata.spec} cannot be read: {problem}; use a "
            "model with convolution, pooling, one-dimensional LSTM layers and a softmax"
        ) from None
    if plane.data.get_output_partial_shape(0)[1] != Dimension(1):
        raise TraineddataError(
            f"{traineddata.name}: network {traineddata.spec} does not end in one row of frames; "
            "use a model that reads lines of text"
        )
    # A sum of exponentials in 32 bits is safe after log-softmax has taken the maximum away.
    output = ops.log_softmax(ops.squeeze(plane.data, _ints(1)), -1)
    output.set_friendly_name(OUTPUT)
    model = Model([output], [images, widths], traineddata.name)
    model.inputs[0].set_names({INPUT_IMAGES})
    model.inputs[1].set_names({INPUT_WIDTHS})
    model.outputs[0].set_names({OUTPUT})
    return model


def frame_stride(network: Layer) -> int:
    """Width of a frame of the output in pixels of the input."""
    own = network.window[0] if network.kind == "Maxpool" else 1
    if network.kind == "Parallel" or network.kind == "ParBidiLSTM":
        return frame_stride(network.layers[0])
    return own * int(np.prod([frame_stride(layer) for layer in network.layers], dtype=np.int64))


class _UnsupportedError(Exception):
    """The network has a combination of layers that this converter does not know."""


def _layer(layer: Layer, plane: _Plane) -> _Plane:
    kind = layer.kind
    if kind == "Input":
        return plane
    if kind == "Series":
        return _series(layer, plane)
    if kind in {"Parallel", "ParBidiLSTM"}:
        parts = [_layer(inner, plane) for inner in layer.layers]
        return replace(parts[0], data=ops.concat([part.data for part in parts], 3))
    if kind in {"RTLReversed", "TTBReversed"}:
        axis = 2 if kind == "RTLReversed" else 1
        inner = _layer(_only(layer), _reverse(plane, axis))
        return _reverse(inner, axis)
    if kind == "XYTranspose":
        return _transpose(_layer(_only(layer), _transpose(plane)))
    if kind == "Maxpool":
        return _max_pool(layer, plane)
    if kind in {"LSTM", "SummLSTM"}:
        return _lstm(layer, plane)
    if kind in DENSE:
        return _dense(layer, plane)
    raise _UnsupportedError(f"layer {layer.name!r} of kind {kind!r} stands alone")


def _series(layer: Layer, plane: _Plane) -> _Plane:
    inner = _flat(layer)
    while inner:
        first = inner.pop(0)
        if first.kind != "Convolve":
            plane = _layer(first, plane)
            continue
        if not inner or inner[0].kind not in DENSE:
            raise _UnsupportedError(f"window {first.name!r} is not followed by its weights")
        dense = inner.pop(0)
        plane = _convolution(first, dense, plane)
        # The activations rise steadily, so that pooling first gives the same maxima; then there
        # are fewer of them to compute.
        if inner and inner[0].kind == "Maxpool":
            plane = _max_pool(inner.pop(0), plane)
        plane = replace(plane, data=_activation(dense.kind, plane.data))
    return plane


def _flat(layer: Layer) -> list[Layer]:
    if layer.kind != "Series":
        return [layer]
    return [innermost for inner in layer.layers for innermost in _flat(inner)]


def _only(layer: Layer) -> Layer:
    if len(layer.layers) != 1:
        raise _UnsupportedError(f"layer {layer.name!r} has {len(layer.layers)} layers inside")
    return layer.layers[0]


def _transpose(plane: _Plane) -> _Plane:
    return _Plane(ops.transpose(plane.data, _ints(0, 2, 1, 3)), plane.x_end, plane.y_end)


def _reverse(plane: _Plane, axis: int) -> _Plane:
    end = plane.x_end if axis == 2 else plane.y_end
    if end is None:
        shape = ops.shape_of(plane.data, Type.i32)
        end = ops.broadcast(ops.gather(shape, _ints(axis), _int(0)), ops.gather(
            shape, _ints(0), _int(0)))  # fmt: skip
    return replace(plane, data=ops.reverse_sequence(plane.data, end, 0, axis))


def _convolution(window: Layer, dense: Layer, plane: _Plane) -> _Plane:
    half_x, half_y = window.window
    # Columns of the weights run over x, then y, then the channel of the input.
    kernel = dense.weights[0][:, :-1].reshape(
        dense.outputs, 2 * half_x + 1, 2 * half_y + 1, window.inputs
    )
    # Outside the image Tesseract puts noise with a mean of zero; zero is what it stands for.
    data = ops.convolution(
        ops.transpose(plane.data, _ints(0, 3, 1, 2)),
        _floats(kernel.transpose(0, 3, 2, 1)),
        [1, 1],
        [half_y, half_x],
        [half_y, half_x],
        [1, 1],
    )
    data = ops.add(data, _floats(dense.weights[0][:, -1].reshape(1, -1, 1, 1)))
    return replace(plane, data=ops.transpose(data, _ints(0, 2, 3, 1)))


def _max_pool(layer: Layer, plane: _Plane) -> _Plane:
    scale_x, scale_y = layer.window
    data = ops.max_pool(
        ops.transpose(plane.data, _ints(0, 3, 1, 2)),
        [scale_y, scale_x], [1, 1], [0, 0], [0, 0], [scale_y, scale_x],
    ).output(0)  # fmt: skip
    return _Plane(
        ops.transpose(data, _ints(0, 2, 3, 1)),
        None if plane.y_end is None else ops.divide(plane.y_end, _int(scale_y)),
        None if plane.x_end is None else ops.divide(plane.x_end, _int(scale_x)),
    )


def _dense(layer: Layer, plane: _Plane) -> _Plane:
    weights = layer.weights[0]
    data = ops.matmul(plane.data, _floats(weights[:, :-1]), False, True)
    return replace(plane, data=_activation(layer.kind, ops.add(data, _floats(weights[:, -1]))))


def _activation(kind: str, data: Node) -> Node:
    # The softmax comes once, at the end of the graph.
    functions = {"Tanh": ops.tanh, "Logistic": ops.sigmoid, "Relu": ops.relu}
    return functions[kind](data) if kind in functions else data


def _lstm(layer: Layer, plane: _Plane) -> _Plane:
    """An LSTM along x, for each row on its own; one that sums up keeps the last x only."""
    states = layer.outputs
    cell, enter, forget, leave = layer.weights
    gates = np.stack([forget, enter, cell, leave]).reshape(1, 4 * states, -1)
    shape = ops.shape_of(plane.data)
    rows = ops.reshape(
        plane.data, ops.concat([_longs(-1), _dims(shape, 2), _longs(layer.inputs)], 0), False
    )
    rows_shape = ops.shape_of(rows)
    start = ops.broadcast(_float(0.0), ops.concat([_dims(rows_shape, 0), _longs(1, states)], 0))
    # Full length for every row: what follows a row's end never comes back into it.
    lengths = ops.broadcast(_dims(rows_shape, 1), _dims(rows_shape, 0))
    sequence = ops.lstm_sequence(
        rows, start, start, lengths,
        _floats(gates[:, :, : layer.inputs]),
        _floats(gates[:, :, layer.inputs : -1]),
        _floats(gates[:, :, -1]),
        states, "forward",
    )  # fmt: skip
    head = _dims(shape, 0, 1)
    if layer.kind == "LSTM":
        full = ops.concat([head, _dims(shape, 2), _longs(states)], 0)
        return replace(plane, data=ops.reshape(sequence.output(0), full, False))
    if plane.x_end is not None:
        raise _UnsupportedError(f"layer {layer.name!r} sums up along the line of text")
    summary = ops.reshape(sequence.output(1), ops.concat([head, _longs(1, states)], 0), False)
    return replace(plane, data=summary)


def _dims(shape: Node, *axes: int) -> Node:
    return ops.gather(shape, _longs(*axes), _int(0))


def _unsqueeze(data: Node, axis: int) -> Node:
    return ops.unsqueeze(data, _ints(axis))


def _float(value: float) -> Node:
    return ops.constant(np.float32(value))


def _floats(values: NDArray[np.float32]) -> Node:
    return ops.constant(np.ascontiguousarray(values, np.float32))


def _int(value: int) -> Node:
    return ops.constant(np.int32(value))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int32))


def _longs(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))
