"""Reading Tesseract models: what is read, and what each kind of damage says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from recognition_models import layer, matrix, plumbing, traineddata_bytes

from ocr_assets.volumes.traineddata import (
    TraineddataError,
    parse_traineddata,
    read_traineddata,
)

INPUT = layer("Input", 12, 1, struct.pack("<iiiii", 1, 12, 0, 1, 0))
UNICHARS = [" ", "a", "b"]


def softmax(inputs: int = 1, outputs: int = 4, *, int8: bool = False) -> bytes:
    values = np.random.default_rng(1).normal(size=(outputs, inputs + 1))
    return layer("Softmax", inputs, outputs, matrix(values, int8=int8)[0])


def small_network(*, int8: bool = False) -> bytes:
    return plumbing("Series", 12, 4, INPUT, softmax(int8=int8))


@pytest.mark.parametrize("int8", [False, True])
def test_weights_come_out_as_they_were_stored(int8: bool) -> None:
    values = np.random.default_rng(1).normal(size=(4, 2))
    read = parse_traineddata(
        traineddata_bytes(small_network(int8=int8), UNICHARS, blank=3, int8=int8), "x.traineddata"
    )
    dense = read.network.layers[1]
    np.testing.assert_allclose(dense.weights[0], matrix(values, int8=int8)[1], rtol=1e-6)
    assert dense.weights[0].dtype == np.float32
    assert read.clipped is int8
    assert (read.height, read.spec, read.version) == (12, "[spec]", "test:1")
    assert read.charset.blank == 3
    assert read.charset.spell([0, 2, 1]) == [(" ", 0, 1), ("b", 1, 2), ("a", 2, 3)]


def test_learning_rates_of_single_layers_are_skipped() -> None:
    network = plumbing("Series", 12, 4, INPUT, softmax(), rates=3)
    read = parse_traineddata(traineddata_bytes(network, UNICHARS, blank=3), "x.traineddata")
    assert [inner.kind for inner in read.network.layers] == ["Input", "Softmax"]


def test_characters_spelled_by_several_outputs() -> None:
    codes = [[0], [1], [1, 2], [3]]
    read = parse_traineddata(
        traineddata_bytes(small_network(), [" ", "a", "ab", "x"], blank=3, codes=codes),
        "x.traineddata",
    )
    # The longest code wins; the blank's own entry never comes out.
    assert read.charset.spell([1, 1, 2, 0, 2]) == [("a", 0, 1), ("ab", 1, 3), (" ", 3, 4)]


def test_special_entries_have_no_text() -> None:
    read = parse_traineddata(
        traineddata_bytes(small_network(), [" ", "Joined", "|Broken|0|1"], blank=3), "x.traineddata"
    )
    assert read.charset.spell([1, 2, 0]) == [(" ", 2, 3)]


def test_a_two_dimensional_lstm_is_refused() -> None:
    states, inputs = 3, 1
    cell = matrix(np.ones((states, inputs + 2 * states + 1)), int8=False)[0]
    lstm = layer("LSTM", inputs, states, struct.pack("<i", inputs + 2 * states) + cell)
    network = plumbing("Series", 12, 4, INPUT, lstm)
    with pytest.raises(TraineddataError, match="two-dimensional LSTM"):
        parse_traineddata(traineddata_bytes(network, UNICHARS, blank=3), "x.traineddata")


@pytest.mark.parametrize("kind", ["TensorFlow", "LSTMSoftmax", "Reconfig", "Novelty"])
def test_layers_outside_the_family_are_named(kind: str) -> None:
    network = plumbing("Series", 12, 4, INPUT, layer(kind, 1, 4))
    with pytest.raises(TraineddataError, match=f"of kind '{kind}'"):
        parse_traineddata(traineddata_bytes(network, UNICHARS, blank=3), "x.traineddata")


@pytest.mark.parametrize(("height", "channels"), [(0, 1), (1, 1), (48, 3)])
def test_input_that_is_not_a_grey_line_is_refused(height: int, channels: int) -> None:
    odd = layer("Input", 12, 1, struct.pack("<iiiii", 1, height, 0, channels, 0))
    with pytest.raises(TraineddataError, match="only grey lines of a fixed height"):
        parse_traineddata(
            traineddata_bytes(plumbing("Series", 12, 4, odd, softmax()), UNICHARS, blank=3), "x"
        )


def test_every_truncation_is_an_error_that_names_the_file() -> None:
    whole = traineddata_bytes(small_network(), UNICHARS, blank=3)
    for size in range(len(whole) - len("test:1")):
        with pytest.raises(TraineddataError, match=r"x\.traineddata"):
            parse_traineddata(whole[:size], "x.traineddata")


@pytest.mark.parametrize(
    ("components", "problem"),
    [
        ({17: None}, "no LSTM network"),
        ({22: None}, "character set inside the network"),
        ({21: b"7\n a 0\n"}, "announces '7' entries"),
        ({21: b"words\n"}, "announces 'words' entries"),
        ({22: struct.pack("<I", 3)}, "wanted"),
    ],
)
def test_damaged_components(components: dict[int, bytes | None], problem: str) -> None:
    codes = [[0], [1], [2]]
    data = traineddata_bytes(small_network(), UNICHARS, blank=3, codes=codes, components=components)
    with pytest.raises(TraineddataError, match=problem):
        parse_traineddata(data, "x.traineddata")


def test_codes_beyond_the_networks_outputs_are_refused() -> None:
    data = traineddata_bytes(small_network(), UNICHARS, blank=3, codes=[[0], [1], [9]])
    with pytest.raises(TraineddataError, match=r"'b' is spelled by outputs \(9,\)"):
        parse_traineddata(data, "x.traineddata")
    with pytest.raises(TraineddataError, match="the blank is output 8"):
        parse_traineddata(traineddata_bytes(small_network(), UNICHARS, blank=8), "x.traineddata")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraineddataError, match="zip archive"):
        parse_traineddata(b"PK\x03\x04rest", "x.traineddata")
    with pytest.raises(TraineddataError, match="which no"):
        parse_traineddata(b"not a model at all", "x.traineddata")
    with pytest.raises(TraineddataError, match="cannot read"):
        read_traineddata(tmp_path / "absent.traineddata")
