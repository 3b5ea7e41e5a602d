"""Networks from files of three formats, their contracts, and the published topologies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from frozen_graphs import frozen_graph, placeholder, super_resolution_graph, tree_cover_graph
from network_graphs import super_resolution_model, tree_cover_model
from openvino import Model, save_model
from recognition_models import node, onnx_bytes

from ocr_assets.tiles.frozen_graph import placeholders_with_default
from ocr_assets.tiles.networks import NetworkError, load_super_resolution, load_tree_cover
from ocr_assets.tiles.tree_cover import predict_tree_cover
from resources.inference import Inference

WINDOWS = np.random.default_rng(0).uniform(-1, 1, (3, 5, 172, 172, 17)).astype(np.float32)


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Inference:
    return Inference(tmp_path_factory.mktemp("inference"))


def onnx_tree_cover(
    side: int | str = 172, channels: int = 17, first: bool = False, rank: int = 5
) -> bytes:
    """Sigmoid of channel 0 of the median frame, without a border of 7 pixels."""
    shape = ["N", 5, side, side, channels][:rank]
    channel_axis = 1 if first else 3
    return onnx_bytes(
        [
            node("Slice", ["features", "starts", "ends", "axes"], "part"),
            node("Squeeze", ["part", "gone"], "plane"),
            node("Unsqueeze", ["plane", "added"], "restored"),
            node("Sigmoid", ["restored"], "cover"),
        ],
        {"features": shape},
        {"cover": ["N", "H", "W", "C"]},
        {
            "starts": np.array([4, 7, 7, 0], np.int64),
            "ends": np.array([5, -7, -7, 1], np.int64),
            "axes": np.array([1, 2, 3, 4], np.int64),
            "gone": np.array([1, 4], np.int64),
            "added": np.array([channel_axis], np.int64),
        },
    )


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_a_frozen_graph_takes_any_number_of_windows(inference: Inference, tmp_path: Path) -> None:
    # The name says nothing of the size that the graph has.
    path = write(tmp_path, "predict_graph-158.pb", tree_cover_graph())
    network = load_tree_cover(path, inference)
    assert (network.input_size, network.output_size, network.border) == (172, 158, 7)
    assert not network.whole_tile
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert network.name == "predict_graph-158.pb"
    # The length of the sequence is fed: with another one than 4, the answer would be smaller.
    means = [cv2.blur(window[4, :, :, 0], (15, 15))[7:-7, 7:-7] for window in WINDOWS]
    answer = network(WINDOWS)
    np.testing.assert_allclose(answer, sigmoid(np.stack(means)), atol=1e-5)
    np.testing.assert_allclose(network(WINDOWS[1:2])[0], answer[1], atol=1e-6)


def test_sizes_come_from_the_graph(inference: Inference, tmp_path: Path) -> None:
    path = write(tmp_path, "predict_graph-172.pb", tree_cover_graph(size=76, kernel=13))
    network = load_tree_cover(path, inference)
    assert (network.input_size, network.output_size, network.border) == (76, 64, 6)
    with pytest.raises(NetworkError, match=r"takes 76 x 76 pixels, not 172 x 172"):
        network(WINDOWS)


@pytest.mark.parametrize(("side", "whole"), [(172, False), ("S", True)])
def test_an_onnx_network_may_take_the_tile_whole(
    inference: Inference, tmp_path: Path, side: int | str, whole: bool
) -> None:
    path = write(tmp_path, "network.onnx", onnx_tree_cover(side))
    network = load_tree_cover(path, inference)
    assert (network.whole_tile, network.any_size) == (whole, whole)
    assert (network.input_size, network.border) == (172, 7)
    expected = sigmoid(WINDOWS[:2, 4, 7:-7, 7:-7, 0])
    np.testing.assert_allclose(network(WINDOWS[:2]), expected, atol=1e-6)
    if whole:
        odd = np.ascontiguousarray(WINDOWS[:1, :, :60, :100])
        np.testing.assert_allclose(network(odd)[0], expected[0, :46, :86], atol=1e-6)


def saved(model: Model, folder: Path) -> Path:
    save_model(model, folder / "network.xml", compress_to_fp16=False)
    return folder / "network.xml"


def test_the_published_topology(inference: Inference, tmp_path: Path) -> None:
    path = saved(tree_cover_model(), tmp_path)
    network = load_tree_cover(path, inference)
    assert (network.input_size, network.output_size) == (172, 158)
    # Its normalisation looks at a whole window.
    assert not network.whole_tile
    both = path.read_bytes() + path.with_suffix(".bin").read_bytes()
    assert network.sha256 == hashlib.sha256(both).hexdigest()
    answer = network(WINDOWS[:1])
    assert answer.shape == (1, 158, 158)
    assert 0.01 < answer.std() < 0.5
    np.testing.assert_array_equal(answer, network(WINDOWS[:1]))


def test_a_tile_is_predicted_by_the_published_topology(tmp_path: Path) -> None:
    path = saved(tree_cover_model(), tmp_path)
    features = np.random.default_rng(2).uniform(0, 0.5, (5, 158, 170, 17)).astype(np.float32)
    one, two = (
        predict_tree_cover(features, load_tree_cover(path, Inference(tmp_path / "cache", streams)))
        for streams in (1, 2)
    )
    # Windows that run at the same time make no difference.
    np.testing.assert_array_equal(one, two)
    assert one.shape == (158, 170)
    assert len(np.unique(one)) > 10


def test_group_norms_forbid_the_whole_tile_even_where_size_is_open(
    inference: Inference, tmp_path: Path
) -> None:
    network = load_tree_cover(saved(tree_cover_model(None), tmp_path), inference)
    assert network.any_size
    assert not network.whole_tile


def test_the_published_super_resolution(inference: Inference, tmp_path: Path) -> None:
    network = load_super_resolution(saved(super_resolution_model(), tmp_path), inference)
    bands = np.random.default_rng(1).uniform(0, 0.5, (2, 40, 50, 10)).astype(np.float32)
    sharp = network(bands, bands[..., 4:])
    assert sharp.shape == (2, 40, 50, 6)
    change = np.abs(sharp - bands[..., 4:])
    assert 0.001 < change.mean() < 1
    # The radius of seven convolutions of 3 x 3 is 6 or 7 pixels: farther off nothing changes.
    other = bands.copy()
    other[0, 20, 25] += 0.3
    rows, columns = np.nonzero(np.abs(network(other, other[..., 4:]) - sharp)[0].max(axis=-1))
    assert (rows.min(), rows.max()) == (14, 26)
    assert (columns.min(), columns.max()) == (19, 31)


def test_super_resolution_from_a_frozen_graph(inference: Inference, tmp_path: Path) -> None:
    path = write(tmp_path, "superresolve_graph.pb", super_resolution_graph())
    network = load_super_resolution(path, inference)
    bands = np.random.default_rng(1).uniform(0, 0.5, (2, 33, 28, 10)).astype(np.float32)
    sharp = network(bands, bands[..., 4:])
    # Mirrored edges: a mirrored image has the mirrored answer only with a mirrored kernel, but a
    # date's answer does not depend on the others.
    np.testing.assert_array_equal(network(bands[1:], bands[1:, ..., 4:])[0], sharp[1])
    assert np.abs(sharp - bands[..., 4:]).max() < 1
    assert np.abs(sharp - bands[..., 4:]).mean() > 0.01


def test_without_weights_there_are_clearly_named_networks(inference: Inference) -> None:
    cover, sharpen = load_tree_cover(None, inference), load_super_resolution(None, inference)
    assert (cover.name, sharpen.name) == ("baseline-greenness", "bilinear")
    assert cover.whole_tile
    assert (cover.input_size, cover.output_size) == (172, 158)
    bands = np.random.default_rng(1).uniform(0, 0.5, (2, 9, 7, 10)).astype(np.float32)
    np.testing.assert_array_equal(sharpen(bands, bands[..., 4:]), bands[..., 4:])


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.pb", lambda: tree_cover_graph(channels=16), r"input is \[\?, 5, 172, 172, 16\]"),
        ("a.pb", super_resolution_graph, "takes one float32 input"),
        ("a.pb", lambda: tree_cover_graph()[:-300], "not a network that OpenVINO reads"),
        ("a.pb", lambda: b"this is no graph", "not a network that OpenVINO reads"),
        ("a.pb", lambda: frozen_graph(placeholder("x", (-1, 5, 9, 9, 17))), r"a\.pb"),
        ("a.onnx", lambda: b"this is no network", "not a network that OpenVINO reads"),
        ("a.onnx", lambda: onnx_tree_cover(channels=13), r"channels B2, B3, B4, B8"),
        ("a.onnx", lambda: onnx_tree_cover(rank=4), r"a\.onnx"),
        ("a.onnx", lambda: onnx_tree_cover(first=True), "channels last"),
        ("a.h5", lambda: b"", "give a TensorFlow frozen graph"),
    ],
)
def test_a_broken_contract_is_one_clear_error(
    inference: Inference, tmp_path: Path, name: str, data: Callable[[], bytes], problem: str
) -> None:
    path = write(tmp_path, name, data())
    with pytest.raises(ValueError, match=problem) as raised:
        load_tree_cover(path, inference)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (tree_cover_graph, "two float32 inputs"),
        (lambda: onnx_sharpener(10, 6, 6), None),
        (lambda: onnx_sharpener(6, 10, 6), None),
        (lambda: onnx_sharpener(10, 6, 6, side=110), "open height and width"),
        (lambda: onnx_sharpener(10, 5, 5), "two float32 inputs"),
    ],
)
def test_the_contract_of_super_resolution(
    inference: Inference, tmp_path: Path, data: Callable[[], bytes], problem: str | None
) -> None:
    made = data()
    path = write(tmp_path, "a.onnx" if data is not tree_cover_graph else "a.pb", made)
    if problem is None:
        bands = np.random.default_rng(1).uniform(0, 0.5, (1, 9, 7, 10)).astype(np.float32)
        sharp = load_super_resolution(path, inference)(bands, bands[..., 4:])
        np.testing.assert_allclose(sharp, bands[..., 4:] / (1 + np.exp(-bands[..., 4:])), rtol=1e-5)
        return
    with pytest.raises(NetworkError, match=problem):
        load_super_resolution(path, inference)


def onnx_sharpener(first: int, second: int, given: int, side: int | str = "S") -> bytes:
    """Six bands times their own sigmoid, and an input that is not used but there."""
    shapes = {"a": ["N", side, side, first], "b": ["N", side, side, second]}
    coarse, other = ("b", "a") if second == given else ("a", "b")
    return onnx_bytes(
        [
            node("Sigmoid", [coarse], "gate"),
            node("Mul", [coarse, "gate"], "sharp"),
            node("ReduceMax", [other], "most", axes=[3], keepdims=1),
            node("Sub", ["most", "most"], "nothing"),
            node("Add", ["sharp", "nothing"], "answer"),
        ],
        shapes,
        {"answer": ["N", "H", "W", given]},
        {},
    )


def test_a_file_that_is_not_there(inference: Inference, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"none\.pb cannot be read: No such file"):
        load_tree_cover(tmp_path / "none.pb", inference)
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(NetworkError, match=r"a\.bin cannot be read: No such file"):
        load_tree_cover(tmp_path / "a.xml", inference)


def test_placeholders_with_a_default_are_found() -> None:
    graph = tree_cover_graph()
    assert placeholders_with_default(graph) == ["PlaceholderWithDefault"]
    assert placeholders_with_default(super_resolution_graph()) == []
    for cut in (b"\x0a\xff\x01abc", b"\x0b", b"\xff" * 11):
        with pytest.raises(ValueError, match="graph"):
            placeholders_with_default(cut)
