"""The OpenVINO graph of a Tesseract network against a plain NumPy forward pass."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from openvino import Core
from recognition_models import layer, matrix, plumbing, traineddata_bytes

from ocr_assets.volumes.lstm_graph import build_model, frame_stride
from ocr_assets.volumes.traineddata import (
    Layer,
    Traineddata,
    TraineddataError,
    parse_traineddata,
    read_traineddata,
)

TESSDATA = Path("/usr/share/tesseract-ocr/5/tessdata")

# --- The reference: one line at a time, straight from the layers' definitions --------------------


def forward(part: Layer, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a layer to ``[y, x, channel]``."""
    match part.kind:
        case "Input":
            return x
        case "Series":
            for inner in part.layers:
                x = forward(inner, x)
            return x
        case "Parallel" | "ParBidiLSTM":
            return np.concatenate([forward(inner, x) for inner in part.layers], axis=2)
        case "RTLReversed":
            return forward(part.layers[0], x[:, ::-1])[:, ::-1]
        case "TTBReversed":
            return forward(part.layers[0], x[::-1])[::-1]
        case "XYTranspose":
            return forward(part.layers[0], x.swapaxes(0, 1)).swapaxes(0, 1)
        case "Convolve":
            half_x, half_y = part.window
            height, width, _ = x.shape
            padded = np.pad(x, ((half_y, half_y), (half_x, half_x), (0, 0)))
            return np.concatenate(
                [
                    padded[dy : dy + height, dx : dx + width]
                    for dx in range(2 * half_x + 1)
                    for dy in range(2 * half_y + 1)
                ],
                axis=2,
            )
        case "Maxpool":
            by_x, by_y = part.window
            height, width = x.shape[0] // by_y, x.shape[1] // by_x
            blocks = x[: height * by_y, : width * by_x].reshape(height, by_y, width, by_x, -1)
            return blocks.max(axis=(1, 3))
        case "LSTM" | "SummLSTM":
            rows = np.stack([lstm(part, row) for row in x])
            return rows[:, -1:] if part.kind == "SummLSTM" else rows
        case _:
            scores = x @ part.weights[0][:, :-1].T.astype(float) + part.weights[0][:, -1]
            return {
                "Tanh": np.tanh,
                "Logistic": sigmoid,
                "Relu": lambda s: np.maximum(s, 0),
                "Linear": lambda s: s,
                "Softmax": lambda s: np.exp(s) / np.exp(s).sum(axis=2, keepdims=True),
            }[part.kind](scores)


def lstm(part: Layer, row: NDArray[np.float64]) -> NDArray[np.float64]:
    cell = said = np.zeros(part.outputs)
    out = []
    for x in row:
        source = np.concatenate([x, said, [1.0]])
        entering, enter, forget, leave = (w.astype(float) @ source for w in part.weights)
        cell = cell * sigmoid(forget) + np.tanh(entering) * sigmoid(enter)
        said = np.tanh(cell) * sigmoid(leave)
        out.append(said)
    return np.array(out)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


# --- Random networks of the family ---------------------------------------------------------------


class Builder:
    """Serialized layers with random weights."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.random = np.random.default_rng(7)

    def weights(self, rows: int, columns: int) -> bytes:
        return matrix(self.random.normal(size=(rows, columns)) * 0.7, int8=self.int8)[0]

    def dense(self, kind: str, inputs: int, outputs: int) -> bytes:
        return layer(kind, inputs, outputs, self.weights(outputs, inputs + 1))

    def lstm(self, inputs: int, outputs: int, kind: str = "LSTM") -> bytes:
        columns = inputs + outputs + 1
        gates = b"".join(self.weights(outputs, columns) for _ in range(4))
        return layer(kind, inputs, outputs, struct.pack("<i", inputs + outputs) + gates)

    def convolution(self, kind: str, inputs: int, outputs: int, half_x: int, half_y: int) -> bytes:
        stacked = inputs * (2 * half_x + 1) * (2 * half_y + 1)
        window = layer("Convolve", inputs, stacked, struct.pack("<ii", half_x, half_y))
        return plumbing("Series", inputs, outputs, window, self.dense(kind, stacked, outputs))


def pool(channels: int, by_x: int, by_y: int) -> bytes:
    return layer("Maxpool", channels, channels, struct.pack("<ii", by_x, by_y))


def line_input(height: int) -> bytes:
    return layer("Input", height, 1, struct.pack("<iiiii", 1, height, 0, 1, 0))


def usual(make: Builder) -> bytes:
    """The shape of the published models, smaller."""
    return plumbing(
        "Series", 12, 5, line_input(12), make.convolution("Tanh", 1, 4, 1, 1), pool(4, 3, 3),
        plumbing("XYTranspose", 4, 6, make.lstm(4, 6, "SummLSTM")), make.lstm(6, 7),
        plumbing("RTLReversed", 7, 7, make.lstm(7, 7)), make.lstm(7, 8),
        make.dense("Softmax", 8, 5),
    )  # fmt: skip


def unusual(make: Builder) -> bytes:
    """Every other layer of the family, in an uneven window and a second pooling."""
    both_ways = plumbing(
        "ParBidiLSTM", 4, 6, make.lstm(4, 3), plumbing("RTLReversed", 4, 3, make.lstm(4, 3))
    )
    upwards = plumbing(
        "XYTranspose", 6, 5, plumbing("RTLReversed", 6, 5, make.lstm(6, 5, "SummLSTM"))
    )
    return plumbing(
        "Series", 12, 5, line_input(12), make.convolution("Relu", 1, 4, 2, 1), pool(4, 2, 1),
        both_ways, plumbing("TTBReversed", 6, 6, make.lstm(6, 6)), pool(6, 2, 2), upwards,
        make.dense("Logistic", 5, 4), make.dense("Linear", 4, 4), make.dense("Softmax", 4, 5),
    )  # fmt: skip


def run(
    traineddata: Traineddata, images: NDArray[np.float32], widths: NDArray[np.int32]
) -> NDArray[np.float32]:
    compiled = Core().compile_model(
        build_model(traineddata), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(compiled({"images": images, "widths": widths})[0])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("network", "stride"), [(usual, 3), (unusual, 4)])
def test_graph_equals_a_plain_forward_pass(network, stride: int, int8: bool) -> None:
    data = traineddata_bytes(network(Builder(int8=int8)), ["a", "b", "c", "d"], blank=4, int8=int8)
    traineddata = parse_traineddata(data, "random.traineddata")
    assert frame_stride(traineddata.network) == stride
    random = np.random.default_rng(3)
    widths = np.array([40, 25, 13, 4], np.int32)
    images = random.uniform(-1, 1, (4, 12, 40)).astype(np.float32)
    for image, width in zip(images, widths, strict=True):
        image[:, width:] = 0
    result = run(traineddata, images, widths)
    for image, width, log_probabilities in zip(images, widths, result, strict=True):
        expected = forward(traineddata.network, image[:, :width, None].astype(float))
        frames = width // stride
        assert expected.shape == (1, frames, 5)
        np.testing.assert_allclose(np.exp(log_probabilities[:frames]), expected[0], atol=2e-5)


@pytest.mark.parametrize("language", ["bod", "dzo", "eng"])
def test_graph_of_a_published_model_equals_the_forward_pass(language: str) -> None:
    path = TESSDATA / f"{language}.traineddata"
    if not path.is_file():
        pytest.skip(f"{path} is not installed (package tesseract-ocr-{language})")
    traineddata = read_traineddata(path)
    random = np.random.default_rng(5)
    widths = np.array([90, 41], np.int32)
    images = random.uniform(-1, 1, (2, traineddata.height, 90)).astype(np.float32)
    images[1, :, 41:] = 0
    result = run(traineddata, images, widths)
    for image, width, log_probabilities in zip(images, widths, result, strict=True):
        expected = forward(traineddata.network, image[:, :width, None].astype(float))[0]
        found = np.exp(log_probabilities[: width // 3])
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_layers_in_an_order_that_reads_no_lines_are_refused() -> None:
    make = Builder(int8=False)
    window = layer("Convolve", 1, 9, struct.pack("<ii", 1, 1))
    wrong = {
        "not followed by its weights": plumbing(
            "Series", 12, 5, line_input(12), window, pool(9, 3, 3)
        ),
        "sums up along the line": plumbing(
            "Series", 12, 5, line_input(12), make.lstm(1, 5, "SummLSTM")
        ),
        "does not end in one row": plumbing(
            "Series", 12, 5, line_input(12), make.dense("Softmax", 1, 5)
        ),
    }
    for problem, network in wrong.items():
        data = traineddata_bytes(network, ["a", "b", "c", "d"], blank=4)
        with pytest.raises(TraineddataError, match=problem):
            build_model(parse_traineddata(data, "random.traineddata"))
