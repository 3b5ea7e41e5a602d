"""Volumes whose lines a segmentation model marks, from a model folder to the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recognition_models import mask_bytes, write_model_folder
from volume_worlds import VolumeWorld, transcript

CLASSES = ["background", "image", "line", "margin", "caption"]
TYPES = """
[job_types.lines]
model = "bod"
line_model = "Marks"
line_mode = "line"
[job_types.layout]
model = "bod"
line_model = "Marks"
line_mode = "layout"
"""


@pytest.fixture
def world(tmp_path: Path, pages: Path) -> VolumeWorld:
    """A volume of one page, and a job type for each kind of segmentation model."""
    file = tmp_path / "types.toml"
    file.write_text(TYPES)
    made = VolumeWorld(tmp_path, {"job_types": file})
    made.volume("W1-I1", pages, "0002")
    return made


def put_model(world: VolumeWorld, network: bytes, **config: Any) -> None:
    write_model_folder(world.folder / "models" / "Marks", network, patch_size=256, **config)


@pytest.mark.parametrize(("job_type", "classes"), [("lines", []), ("layout", CLASSES)])
def test_marked_lines_are_read(
    world: VolumeWorld, pages: Path, job_type: str, classes: list[str]
) -> None:
    put_model(world, mask_bytes(256, len(classes) or 1), classes=classes)
    reading = world.read("W1-I1", job_type)
    assert reading.success, reading.error
    record = world.library.record(job_type, "W1-I1")
    assert record is not None
    assert (
        world.library.read_file(record, "volume.txt").decode() == transcript(pages, "0002") + "\f"
    )
    model = world.library.segmentation_model(world.library.job_type(job_type))
    assert model is not None
    assert record.lineage["configuration"]["line_model"] == model.sha256
    assert "volume_lines/Marks-" in reading.metadata("volume_lines")["path"]
    # The same page, but a model that sees no text on it: it is blank, and not read from before.
    put_model(world, mask_bytes(256, len(classes) or 1, marks=False), classes=classes)
    blank = world.read("W1-I1", job_type)
    assert blank.success, blank.error
    assert blank.metadata("volume_lines")["lines"] == 0
    assert blank.metadata("volume_text")["blank pages"] == 1


@pytest.mark.parametrize(
    ("job_type", "network", "classes", "reason"),
    [
        ("layout", mask_bytes(256, 1), [], "'layout', but the model 'Marks' is for 'line'"),
        ("lines", mask_bytes(256, 5), CLASSES, "'line', but the model 'Marks' is for 'layout'"),
        ("lines", mask_bytes(256, 3), [], "is (1, 3, 256, 256) for one tile, not (1, 1, 256, 256)"),
        ("lines", b"no network", [], "is not a network that OpenVINO reads"),
    ],
    ids=["not a layout model", "not a line model", "wrong number of classes", "corrupted"],
)
def test_segmentation_models_that_do_not_fit(
    world: VolumeWorld, job_type: str, network: bytes, classes: list[str], reason: str
) -> None:
    put_model(world, network, classes=classes)
    reading = world.read("W1-I1", job_type)
    assert not reading.success
    assert reason in reading.error
    assert world.library.record(job_type, "W1-I1") is None
