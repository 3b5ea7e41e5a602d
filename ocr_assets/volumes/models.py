"""Descriptions of recognition models: what a model file needs and gives.

Belongs here: reading model folders and `*.traineddata` files into one description for each kind
of model, and checking what can be checked without running the network. Does not belong here:
running networks, and where models are kept or fetched from.

Two kinds of model read lines of text: `*.traineddata` files of Tesseract, and folders in the form
of the Buddhist Digital Resource Center (BDRC), with a `model_config.json` and an ONNX network. A
third kind, also a BDRC folder, marks lines on a page.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ocr_assets.volumes.charset import Charset, CharsetError
from ocr_assets.volumes.line_images import ContrastStretch, Preparation, ThresholdedFrame
from ocr_assets.volumes.lstm_graph import INPUT_IMAGES, OUTPUT, frame_stride
from ocr_assets.volumes.traineddata import Traineddata, read_traineddata
from ocr_assets.volumes.wylie import Encoding

CONFIG_NAME = "model_config.json"
TRAINEDDATA_SUFFIX = ".traineddata"

TRAINEDDATA = "tesseract-lstm"
ARCHITECTURES = ("Easter2", "Easter2b", "Easter2-Vit", "Easter2-Attention", "CRNN")
"""Families of networks that a BDRC folder may hold."""

_ENCODERS: dict[str, Encoding] = {"stack": "unicode", "wylie": "wylie"}
_LARGEST_SIDE = 20_000


class ModelError(ValueError):
    """A model that cannot be used; the message says what is wrong with which file, and the mend."""


@dataclass(frozen=True)
class Contract:
    """What the network of a line model takes and gives.

    Attributes:
        input_name, output_name: names of the tensors.
        input_height, input_width: of a prepared line in pixels; no width where any will do.
        channel_axis: the input has an axis of length one after the line axis.
        width_first: the input's axes are ``x, y`` instead of ``y, x``.
        outputs: number of outputs for each frame, the blank included.
    """

    input_name: str
    output_name: str
    input_height: int
    input_width: int | None
    channel_axis: bool
    width_first: bool
    outputs: int


@dataclass(frozen=True)
class LineModel:
    """A model that reads lines of text.

    Attributes:
        name: what the user calls it.
        architecture: family of the network.
        path: file that holds the network, ONNX or `*.traineddata`.
        sha256: of all that decides the model's results.
        encoding: of the text that it gives.
        charset: its outputs.
        preparation: how it wants its lines.
        contract: what its network takes and gives.
        frame_width: pixels of the prepared line in each frame; None where the frames share the
            whole width evenly.
    """

    name: str
    architecture: str
    path: Path
    sha256: str
    encoding: Encoding
    charset: Charset
    preparation: Preparation
    contract: Contract
    frame_width: int | None
    traineddata: Traineddata | None = None


@dataclass(frozen=True)
class SegmentationModel:
    """A model that marks lines on square tiles of a page.

    ``classes`` names its outputs; without classes its only output is the mask of lines.
    """

    name: str
    path: Path
    sha256: str
    patch_size: int
    classes: tuple[str, ...]
    input_name: str
    output_name: str

    @property
    def line_mode(self) -> Literal["line", "layout"]:
        """``layout`` where the model tells several classes apart, else ``line``."""
        return "layout" if self.classes else "line"


def read_line_model(path: Path, name: str | None = None) -> LineModel:
    """Describe the line model in a BDRC folder or a `*.traineddata` file.

    Raises:
        ModelError: there is no model, or its description is incomplete or contradicts itself.
        TraineddataError: the `*.traineddata` file is damaged or of another kind.
    """
    if path.suffix == TRAINEDDATA_SUFFIX:
        return _traineddata_model(path, name or path.stem)
    config = _Config.read(path)
    try:
        return _folder_model(path, name or path.name, config)
    except CharsetError as error:
        raise ModelError(f"{config.path}: {error}") from error


def read_segmentation_model(path: Path, name: str | None = None) -> SegmentationModel:
    """Describe the segmentation model in a BDRC folder.

    Raises:
        ModelError: there is no model, or its description is incomplete or contradicts itself.
    """
    config = _Config.read(path)
    patch_size = config.integer("patch_size")
    if patch_size % 32 or not 64 <= patch_size <= 4096:
        raise config.error("patch_size", f"{patch_size} is not a multiple of 32 from 64 to 4096")
    classes = config.values.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(entry, str) for entry in classes):
        raise config.error("classes", "not a list of names")
    if classes and "line" not in classes:
        raise config.error("classes", f"{classes} has no class 'line'")
    network = config.network()
    return SegmentationModel(
        name or path.name,
        network,
        config.sha256(network),
        patch_size,
        tuple(classes),
        config.text("input_layer", "input"),
        config.text("output_layer", "output"),
    )


def _traineddata_model(path: Path, name: str) -> LineModel:
    traineddata = read_traineddata(path)
    return LineModel(
        name=name,
        architecture=TRAINEDDATA,
        path=path,
        sha256=traineddata.sha256,
        encoding="unicode",
        charset=traineddata.charset,
        preparation=ContrastStretch(traineddata.height, traineddata.clipped),
        contract=Contract(
            INPUT_IMAGES, OUTPUT, traineddata.height, None, False, False, traineddata.charset.size
        ),
        frame_width=frame_stride(traineddata.network),
        traineddata=traineddata,
    )


def _folder_model(folder: Path, name: str, config: _Config) -> LineModel:
    architecture = config.choice("architecture", ARCHITECTURES)
    encoding = _ENCODERS[config.choice("encoder", tuple(_ENCODERS))]
    height, width = config.integer("input_height"), config.integer("input_width")
    for key, side in (("input_height", height), ("input_width", width)):
        if not 1 <= side <= _LARGEST_SIDE:
            raise config.error(key, f"{side} is not between 1 and {_LARGEST_SIDE}")
    characters = config.values.get("charset")
    if not isinstance(characters, str | list) or not characters:
        raise config.error("charset", "neither a string nor a list of characters")
    if not all(isinstance(character, str) and character for character in characters):
        raise config.error("charset", "has an entry that is not text")
    # Without a blank of its own the character set begins with what stands for it.
    entries = list(characters) if config.switch("add_blank") else list(characters)[1:]
    network = config.network()
    charset = Charset.from_characters(entries)
    return LineModel(
        name=name,
        architecture=architecture,
        path=network,
        sha256=config.sha256(network),
        encoding=encoding,
        charset=charset,
        preparation=ThresholdedFrame(height, width),
        contract=Contract(
            input_name=config.text("input_layer", "input"),
            output_name=config.text("output_layer", "output"),
            input_height=height,
            input_width=width,
            channel_axis=not config.switch("squeeze_channel_dim"),
            width_first=config.switch("swap_hw"),
            outputs=charset.size,
        ),
        frame_width=None,
    )


@dataclass(frozen=True)
class _Config:
    """A `model_config.json`, with errors that name the file and the field."""

    path: Path
    data: bytes
    values: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> _Config:
        path = folder / CONFIG_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"there is no model at {folder}: {path.name} cannot be read ({error.strerror}); "
                f"name a folder with {CONFIG_NAME} and a network, or a *{TRAINEDDATA_SUFFIX} file"
            ) from error
        try:
            values = json.loads(data)
        except ValueError as error:
            raise ModelError(f"{path} is not JSON ({error}); get the model again") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path} is not a JSON object; get the model again")
        return cls(path, data, values)

    def error(self, key: str, problem: str) -> ModelError:
        return ModelError(f"{self.path}: field {key!r}: {problem}; correct the field")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"{value!r} is not text" if key in self.values else "missing")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise self.error(key, f"unknown value {value!r}; known: {', '.join(choices)}")
        return value

    def integer(self, key: str) -> int:
        value = self.values.get(key)
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"{value!r} is not a number" if key in self.values else "missing")
        return value

    def switch(self, key: str) -> bool:
        return self.choice(key, ("yes", "no")) == "yes"

    def network(self) -> Path:
        name = self.text("onnx-model")
        path = self.path.parent / name
        if Path(name).name != name:
            raise self.error("onnx-model", f"{name!r} is not the name of a file in the folder")
        if not path.is_file():
            raise self.error("onnx-model", f"{path} does not exist")
        if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
            raise self.error(
                "onnx-model", f"{path} is a Git LFS pointer, not a network; run `git lfs pull`"
            )
        return path

    def sha256(self, network: Path) -> str:
        digest = hashlib.sha256(hashlib.sha256(self.data).digest())
        with network.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()
