"""Networks for tests and benchmarks of the tiles wing: published topologies with random weights.

The topologies are those of the published tree-cover and super-resolution networks, so that the
contract and the speed are those of the real ones. What they answer means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, PartialShape, Type
from openvino import opset15 as ops

FRAMES, CHANNELS = 5, 17
GROUPS = 8


def tree_cover_model(size: int | None = 172, batch: int = -1, seed: int = 0) -> Model:
    """Random weights in the published topology: ``[?, 5, n, n, 17]`` to ``[?, n-14, n-14, 1]``.

    A bidirectional convolutional GRU reads the four quarters, a convolution the median frame; a
    U-shaped network of two levels follows. ``size`` of None leaves height and width open.
    """
    rng = np.random.default_rng(seed)
    side = -1 if size is None else size
    frames = ops.parameter(PartialShape([batch, FRAMES, side, side, CHANNELS]), Type.f32)
    lengths = ops.parameter(PartialShape([batch]), Type.i32)
    data = ops.transpose(frames, _ints(0, 1, 4, 2, 3))
    quarters = [_frame(data, index) for index in range(4)]
    onward = _gru(rng, quarters)
    # Sequence lengths turn the quarters around, as the published graph does.
    turned = ops.reverse_sequence(_slice(data, 1, 0, 4), lengths, 0, 1)
    backward = _gru(rng, [_frame(turned, index) for index in range(4)])
    median = _block(rng, _frame(data, 4), CHANNELS, 64, "reflect")
    fine = _block(rng, ops.concat([onward, backward, median], 1), 128, 64, "reflect")
    middle = _block(rng, _pool(fine), 64, 128, "valid")
    coarse = _block(rng, _pool(middle), 128, 256, "valid")
    up = _block(rng, _enlarge(coarse), 256, 128, "reflect")
    up = _block(rng, ops.concat([up, _crop(middle, 2)], 1), 256, 128, "reflect")
    up = _block(rng, _enlarge(up), 128, 64, "reflect")
    up = _block(rng, ops.concat([up, _crop(fine, 6)], 1), 128, 64, "valid")
    cover = ops.sigmoid(_convolution(rng, up, 64, 1, 1))
    output = ops.transpose(cover, _ints(0, 2, 3, 1))
    return _model(output, [frames, lengths], ["Placeholder:0", "PlaceholderWithDefault:0"],
                  "conv2d/Sigmoid:0")  # fmt: skip


def super_resolution_model(seed: int = 0, scale: float = 1.0) -> Model:
    """Random weights in the published topology: two residual blocks, radius of 6 pixels."""
    rng = np.random.default_rng(seed)
    bands = ops.parameter(PartialShape([-1, -1, -1, 10]), Type.f32)
    bilinear = ops.parameter(PartialShape([-1, -1, -1, 6]), Type.f32)
    data = ops.transpose(bands, _ints(0, 3, 1, 2))
    data = ops.relu(_padded_convolution(rng, data, 10, 32))
    for _ in range(2):
        inner = ops.relu(_padded_convolution(rng, data, 32, 32))
        inner = _padded_convolution(rng, inner, 32, 32)
        data = ops.add(ops.multiply(inner, _float(0.1)), data)
    change = ops.tanh(_padded_convolution(rng, data, 32, 6))
    change = ops.multiply(ops.transpose(change, _ints(0, 2, 3, 1)), _float(scale))
    return _model(ops.add(change, bilinear), [bands, bilinear],
                  ["Placeholder:0", "Placeholder_1:0"], "Add_2:0")  # fmt: skip


def _model(output: Node, inputs: list[Node], names: Sequence[str], output_name: str) -> Model:
    model = Model([output], inputs, "random_weights")
    for port, name in zip(model.inputs, names, strict=True):
        port.set_names({name})
    model.outputs[0].set_names({output_name})
    return model


def _gru(rng: np.random.Generator, frames: list[Node]) -> Node:
    """The last state of a convolutional GRU with 32 channels, zoneout at its expected value."""
    units = 32
    gates_weights = _weights(rng, 2 * units, CHANNELS + units, 3)
    gates_norm = _affine(rng, 2 * units)
    state_weights = _weights(rng, units, CHANNELS + units, 3)
    state_norm = _affine(rng, units)
    squeeze = _weights(rng, units // 2, units, 1)
    excite = _weights(rng, units, units // 2, 1)
    state: Node = ops.multiply(_slice(ops.concat([frames[0], frames[0]], 1), 1, 0, 32), _float(0))
    for frame in frames:
        gates = _conv(_reflect(ops.concat([frame, state], 1)), gates_weights)
        gates = ops.sigmoid(_group_norm(gates, gates_norm, 2 * units))
        reset, update = _slice(gates, 1, 0, units), _slice(gates, 1, units, 2 * units)
        candidate = _conv(
            _reflect(ops.concat([frame, ops.multiply(reset, state)], 1)), state_weights
        )
        candidate = ops.tanh(_group_norm(candidate, state_norm, units))
        pooled = ops.reduce_mean(candidate, _ints(2, 3), True)
        gate = ops.sigmoid(_conv(ops.relu(_conv(pooled, squeeze)), excite))
        candidate = ops.multiply(candidate, gate)
        fresh = ops.add(ops.multiply(update, state),
                        ops.multiply(ops.subtract(_float(1), update), candidate))  # fmt: skip
        state = ops.add(ops.multiply(state, _float(0.25)), ops.multiply(fresh, _float(0.75)))
    return state


def _block(rng: np.random.Generator, data: Node, inputs: int, outputs: int, edge: str) -> Node:
    if edge == "reflect":
        data = _reflect(data)
    data = _conv(data, _weights(rng, outputs, inputs, 3))
    return ops.swish(_group_norm(data, _affine(rng, outputs), outputs))


def _group_norm(data: Node, affine: tuple[Node, Node], channels: int) -> Node:
    shape = ops.shape_of(data, Type.i32)
    grouped = ops.reshape(data, _ints(0, GROUPS, -1), True)
    normal = ops.mvn(grouped, _ints(2), True, 1e-5, "inside_sqrt")
    return ops.add(ops.multiply(ops.reshape(normal, shape, False), affine[0]), affine[1])


def _affine(rng: np.random.Generator, channels: int) -> tuple[Node, Node]:
    scale = rng.uniform(0.5, 1.5, (1, channels, 1, 1))
    shift = rng.normal(0, 0.1, (1, channels, 1, 1))
    return _floats(scale), _floats(shift)


def _weights(rng: np.random.Generator, outputs: int, inputs: int, side: int) -> Node:
    values = rng.normal(size=(outputs, inputs, side, side))
    if side > 1:
        # Standardised weights: mean 0 and variance 1 / fan-in in each output.
        values -= values.mean(axis=(1, 2, 3), keepdims=True)
        values /= values.std(axis=(1, 2, 3), keepdims=True)
    return _floats(values / np.sqrt(inputs * side * side))


def _convolution(
    rng: np.random.Generator, data: Node, inputs: int, outputs: int, side: int
) -> Node:
    return _conv(data, _weights(rng, outputs, inputs, side))


def _padded_convolution(rng: np.random.Generator, data: Node, inputs: int, outputs: int) -> Node:
    return _conv(_reflect(data), _weights(rng, outputs, inputs, 3))


def _conv(data: Node, weights: Node) -> Node:
    return ops.convolution(data, weights, [1, 1], [0, 0], [0, 0], [1, 1])


def _reflect(data: Node) -> Node:
    return ops.pad(data, _ints(0, 0, 1, 1), _ints(0, 0, 1, 1), "reflect")


def _pool(data: Node) -> Node:
    return ops.max_pool(data, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _enlarge(data: Node) -> Node:
    return ops.interpolate(
        data, _floats(np.array([2, 2])), "nearest", "scales",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=_ints(2, 3),
    )  # fmt: skip


def _crop(data: Node, margin: int) -> Node:
    return ops.slice(data, _ints(margin, margin), _ints(-margin, -margin), _ints(1, 1), _ints(2, 3))


def _frame(data: Node, index: int) -> Node:
    return ops.squeeze(_slice(data, 1, index, index + 1), _ints(1))


def _slice(data: Node, axis: int, start: int, stop: int) -> Node:
    return ops.slice(data, _ints(start), _ints(stop), _ints(1), _ints(axis))


def _float(value: float) -> Node:
    return ops.constant(np.float32(value))


def _floats(values: NDArray[np.float64]) -> Node:
    return ops.constant(np.ascontiguousarray(values, np.float32))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int32))
