"""Loading networks, and the contracts they have to keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recognition_models import (
    crnn_bytes,
    easter_bytes,
    easter_config,
    layer,
    mask_bytes,
    matrix,
    plumbing,
    traineddata_bytes,
    write_model_folder,
)

from ocr_assets.volumes.models import ModelError, read_line_model, read_segmentation_model
from resources.inference import Inference

HEIGHT, WIDTH = 24, 64
CHARSET = "abc"


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Inference:
    return Inference(tmp_path_factory.mktemp("inference"))


def load(inference: Inference, folder: Path, network: bytes, **changes: Any):
    config = easter_config(HEIGHT, WIDTH, changes.pop("charset", CHARSET), **changes)
    return inference.line_network(read_line_model(write_model_folder(folder, network, **config)))


CRNN = {"architecture": "CRNN", "squeeze_channel_dim": "no", "swap_hw": "yes"}


@pytest.mark.parametrize("ending", ["LogSoftmax", "Softmax", "Identity"])
def test_scores_of_any_kind_become_log_probabilities(
    inference: Inference, tmp_path: Path, ending: str
) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (5, HEIGHT, WIDTH)).astype(np.float32)
    widths = np.full(5, WIDTH, np.int32)
    crnn = load(inference, tmp_path / "a", crnn_bytes(HEIGHT, WIDTH, 3, "LogSoftmax"), **CRNN)
    other = load(inference, tmp_path / "b", crnn_bytes(HEIGHT, WIDTH, 3, ending), **CRNN)
    result = other(images, widths)
    assert result.shape == (5, WIDTH, 4)
    np.testing.assert_allclose(np.exp(result).sum(axis=2), 1, atol=1e-4)
    np.testing.assert_allclose(result, crnn(images, widths), atol=1e-3)


def test_output_axes_are_found(inference: Inference, tmp_path: Path) -> None:
    images = np.ones((2, HEIGHT, WIDTH), np.float32)
    # Ink in the band of the second character, in one frame of four pixels.
    images[1, 6:12, 20:24] = -1
    network = load(inference, tmp_path / "m", easter_bytes(HEIGHT, WIDTH, 3))
    result = network(images, np.full(2, WIDTH, np.int32))
    assert result.shape == (2, WIDTH // 4, 4)
    assert result[1].argmax(axis=1).tolist() == [0] * 5 + [2] + [0] * 10
    assert not result[0].argmax(axis=1).any()


def test_a_fixed_batch_is_made_dynamic(inference: Inference, tmp_path: Path) -> None:
    network = load(inference, tmp_path / "m", easter_bytes(HEIGHT, WIDTH, 3, batch=1))
    images = np.ones((7, HEIGHT, WIDTH), np.float32)
    assert network(images, np.full(7, WIDTH, np.int32)).shape == (7, WIDTH // 4, 4)


@pytest.mark.parametrize(
    ("network", "changes", "problem"),
    [
        (b"this is no network", {}, "not a network that OpenVINO reads"),
        (easter_bytes(HEIGHT, WIDTH, 3)[:-200], {}, "not a network|cannot be compiled"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"charset": "ab"}, "needs an axis of 3"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"charset": "abcd"}, "needs an axis of 5"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"add_blank": "no"}, "needs an axis of 3"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"input_layer": "image"}, "one input, 'image'"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"output_layer": "logits"}, "no output 'logits'"),
        (easter_bytes(HEIGHT, WIDTH, 3), CRNN, "cannot take input of shape"),
        (easter_bytes(HEIGHT, WIDTH, 3), {"input_height": 30}, "cannot take input of shape"),
        (crnn_bytes(HEIGHT, WIDTH, 3), {}, "cannot take input of shape"),
        (crnn_bytes(HEIGHT, WIDTH, 3), {**CRNN, "swap_hw": "no"}, "cannot take input|does not run"),
    ],
)
def test_a_broken_contract_is_one_clear_error(
    inference: Inference, tmp_path: Path, network: bytes, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem) as raised:
        load(inference, tmp_path / "m", network, **changes)
    assert "model.onnx" in str(raised.value)
    assert "\n" not in str(raised.value)


def small_traineddata() -> bytes:
    values = np.random.default_rng(0).normal(size=(4, 2))
    sizes = np.array([1, 12, 0, 1, 0], "<i4").tobytes()
    summary = np.array([2], "<i4").tobytes() + b"".join(
        matrix(np.random.default_rng(i).normal(size=(1, 3)), int8=False)[0] for i in range(4)
    )
    network = plumbing(
        "Series", 12, 4, layer("Input", 12, 1, sizes),
        plumbing("XYTranspose", 1, 1, layer("SummLSTM", 1, 1, summary)),
        layer("Softmax", 1, 4, matrix(values, int8=False)[0]),
    )  # fmt: skip
    return traineddata_bytes(network, [" ", "a", "b"], blank=3)


def test_a_traineddata_network_is_converted_once(tmp_path: Path) -> None:
    path = tmp_path / "small.traineddata"
    path.write_bytes(small_traineddata())
    model = read_line_model(path)
    cache = tmp_path / "cache"
    images = np.random.default_rng(1).uniform(-1, 1, (2, 12, 30)).astype(np.float32)
    widths = np.array([30, 30], np.int32)
    first = Inference(cache).line_network(model)(images, widths)
    converted = sorted((cache / "converted").iterdir())
    assert [file.suffix for file in converted] == [".bin", ".xml"]
    assert all(file.stem.startswith(model.sha256[:32]) for file in converted)
    before = [file.stat().st_mtime_ns for file in converted]
    again = Inference(cache).line_network(model)(images, widths)
    np.testing.assert_array_equal(first, again)
    assert [file.stat().st_mtime_ns for file in converted] == before
    assert model.sha256 in converted[1].read_text("utf-8")
    assert any((cache / "compiled").iterdir())


def test_results_stay_when_the_network_is_called_again(
    inference: Inference, tmp_path: Path
) -> None:
    network = load(inference, tmp_path / "m", easter_bytes(HEIGHT, WIDTH, 3))
    white = np.ones((1, HEIGHT, WIDTH), np.float32)
    first = network(white, np.array([WIDTH], np.int32))
    kept = first.copy()
    network(-white, np.array([WIDTH], np.int32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("classes", [[], ["background", "image", "line", "margin", "caption"]])
def test_segmentation_networks(inference: Inference, tmp_path: Path, classes: list[str]) -> None:
    count = len(classes) or 1
    folder = write_model_folder(
        tmp_path / "m", mask_bytes(64, count), patch_size=64, classes=classes
    )
    network = inference.mask_network(read_segmentation_model(folder))
    tiles = np.ones((3, 3, 64, 64), np.float32)
    tiles[1, :, 10:20] = 0
    scores = network(tiles)
    assert scores.shape == (3, count, 64, 64)
    np.testing.assert_array_equal(scores[1, 2 if classes else 0] > 0, tiles[1, 0] == 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": ["line", "margin"]}, r"not \(1, 2, 64, 64\)"),
        ({"input_layer": "image"}, "one input, 'image'"),
        ({"output_layer": "mask"}, "no output 'mask'"),
    ],
)
def test_broken_segmentation_contracts(
    inference: Inference, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    folder = write_model_folder(tmp_path / "m", mask_bytes(64, 1), patch_size=64, **changes)
    with pytest.raises(ModelError, match=problem):
        inference.mask_network(read_segmentation_model(folder))


def test_no_streams_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 streams"):
        Inference(tmp_path, streams=0)


def test_threads_may_run_their_first_network_at_once() -> None:
    """A run begins with the type of its input; in a process of its own, as first use counts."""
    script = """
import faulthandler, sys, threading
from openvino import Type
import resources.inference
faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(16)
def first():
    barrier.wait()
    Type.f32.to_dtype()
threads = [threading.Thread(target=first) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
