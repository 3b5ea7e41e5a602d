"""Descriptions of models, and what a wrong one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recognition_models import easter_config, write_model_folder

from ocr_assets.volumes.line_images import ThresholdedFrame
from ocr_assets.volumes.models import (
    ModelError,
    read_line_model,
    read_segmentation_model,
)


def test_an_easter_folder(tmp_path: Path) -> None:
    model = read_line_model(
        write_model_folder(tmp_path / "Wood", b"net", **easter_config(80, 3000, ["ཀ", "ཁྱ"]))
    )
    assert (model.name, model.architecture, model.encoding) == ("Wood", "Easter2", "unicode")
    assert model.preparation == ThresholdedFrame(80, 3000)
    assert (model.charset.size, model.charset.blank) == (3, 0)
    assert model.charset.spell([1, 2]) == [("ཀ", 0, 1), ("ཁྱ", 1, 2)]
    assert (model.contract.channel_axis, model.contract.width_first) == (False, False)
    assert model.contract.outputs == 3


def test_a_wylie_crnn_folder_with_a_blank_of_its_own(tmp_path: Path) -> None:
    config = easter_config(
        64, 2000, "-ka§", architecture="CRNN", encoder="wylie", squeeze_channel_dim="no",
        swap_hw="yes", add_blank="no", input_layer="image", output_layer="logits",
    )  # fmt: skip
    model = read_line_model(write_model_folder(tmp_path / "m", b"net", **config))
    assert model.encoding == "wylie"
    assert model.charset.size == 4
    assert model.charset.spell([1, 2, 3]) == [("k", 0, 1), ("a", 1, 2), ("§", 2, 3)]
    assert (model.contract.channel_axis, model.contract.width_first) == (True, True)
    assert (model.contract.input_name, model.contract.output_name) == ("image", "logits")


def test_the_hash_follows_configuration_and_network(tmp_path: Path) -> None:
    def sha256(network: bytes, width: int) -> str:
        config = easter_config(80, width, "ab")
        return read_line_model(write_model_folder(tmp_path / "m", network, **config)).sha256

    first = sha256(b"net", 3000)
    assert first == sha256(b"net", 3000)
    assert len({first, sha256(b"net", 3200), sha256(b"nets", 3000)}) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architecture": "Transformer"}, "'architecture': unknown value 'Transformer'"),
        ({"encoder": "acip"}, "'encoder': unknown value 'acip'; known: stack, wylie"),
        ({"encoder": None}, "'encoder': missing"),
        ({"input_width": None}, "'input_width': missing"),
        ({"input_height": "high"}, "'input_height': 'high' is not a number"),
        ({"input_height": 0}, "0 is not between 1 and"),
        ({"charset": []}, "neither a string nor a list"),
        ({"charset": ["a", ""]}, "an entry that is not text"),
        ({"charset": 85}, "neither a string nor a list"),
        ({"swap_hw": "maybe"}, "'swap_hw': unknown value 'maybe'; known: yes, no"),
        ({"add_blank": True}, "'add_blank': True is not text"),
        ({"onnx-model": "absent.onnx"}, "does not exist"),
        ({"onnx-model": "../model.onnx"}, "not the name of a file"),
    ],
)
def test_a_wrong_configuration_names_its_field(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = {**easter_config(80, 3000, "ab"), **changes}
    folder = write_model_folder(tmp_path / "m", b"net", **config)
    with pytest.raises(ModelError, match=problem) as raised:
        read_line_model(folder)
    assert "model_config.json" in str(raised.value)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model at"):
        read_line_model(tmp_path)
    (tmp_path / "model_config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_line_model(tmp_path)
    (tmp_path / "model_config.json").write_text(json.dumps(["a"]))
    with pytest.raises(ModelError, match="is not a JSON object"):
        read_line_model(tmp_path)
    pointer = b"version https://git-lfs.github.com/spec/v1\nsize 90467862\n"
    folder = write_model_folder(tmp_path / "m", pointer, **easter_config(80, 3000, "ab"))
    with pytest.raises(ModelError, match="Git LFS pointer"):
        read_line_model(folder)


def test_segmentation_folders(tmp_path: Path) -> None:
    line = read_segmentation_model(write_model_folder(tmp_path / "line", b"net", patch_size=512))
    assert (line.line_mode, line.patch_size, line.input_name) == ("line", 512, "input")
    classes = ["background", "image", "line", "margin", "caption"]
    layout = read_segmentation_model(
        write_model_folder(tmp_path / "layout", b"net", patch_size=512, classes=classes)
    )
    assert (layout.line_mode, layout.classes) == ("layout", tuple(classes))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"patch_size": 500}, "not a multiple of 32"),
        ({}, "'patch_size': missing"),
        ({"patch_size": 512, "classes": "line"}, "not a list of names"),
        ({"patch_size": 512, "classes": ["text"]}, "has no class 'line'"),
    ],
)
def test_wrong_segmentation_folders(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        read_segmentation_model(write_model_folder(tmp_path / "m", b"net", **config))
