"""From line images to text: with networks of known weights, and with real models on real lines."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recognition_models import (
    crnn_bytes,
    draw_line,
    easter_bytes,
    easter_config,
    write_model_folder,
)

from ocr_assets.volumes.models import LineModel, read_line_model
from ocr_assets.volumes.normalise import normalise_for_scoring
from ocr_assets.volumes.recognise import recognise_lines
from ocr_assets.volumes.scoring import edit_distance
from resources.inference import Inference, LineNetwork

BOD = Path("/usr/share/tesseract-ocr/5/tessdata/bod.traineddata")

CHARACTERS = ["བ", "དེ", "་", "ལེ", "གས", "།", " "]
HEIGHT = 48


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Inference:
    return Inference(tmp_path_factory.mktemp("inference"))


@pytest.fixture(scope="module")
def stacks(
    tmp_path_factory: pytest.TempPathFactory, inference: Inference
) -> tuple[LineModel, LineNetwork]:
    folder = write_model_folder(
        tmp_path_factory.mktemp("stacks"),
        easter_bytes(HEIGHT, 480, len(CHARACTERS)),
        **easter_config(HEIGHT, 480, CHARACTERS),
    )
    model = read_line_model(folder)
    return model, inference.line_network(model)


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_text_syllables_and_places(stacks, decoder: str) -> None:
    model, network = stacks
    image = draw_line(HEIGHT, [1, 2, 3, 4, 5])
    (line,) = recognise_lines([image], model, network, decoder=decoder)
    assert line.text == "དེ་ལེགས།"
    assert [syllable.text for syllable in line.syllables] == ["དེ་", "ལེགས།"]
    first, second = line.syllables
    # Characters are 16 pixels apart, ink in the first 8.
    assert first.x_start == pytest.approx(0, abs=5)
    assert first.x_end == second.x_start == pytest.approx(28, abs=5)
    assert second.x_end == pytest.approx(76, abs=8)
    assert 0.5 < line.confidence <= 1


def test_lines_keep_their_order_whatever_their_width(stacks) -> None:
    model, network = stacks
    drawn = [[1] * n for n in (9, 2, 17, 1, 5)]
    lines = recognise_lines([draw_line(HEIGHT, d) for d in drawn], model, network)
    assert [line.text for line in lines] == ["དེ" * len(d) for d in drawn]


def test_a_line_of_another_size_is_read_alike(stacks) -> None:
    model, network = stacks
    image = draw_line(HEIGHT, [1, 2, 3, 4, 5])
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    (line,) = recognise_lines([large], model, network)
    (small,) = recognise_lines([image], model, network)
    assert line.text == small.text
    for one, other in zip(line.syllables, small.syllables, strict=True):
        assert one.x_end == pytest.approx(3 * other.x_end, abs=6)


def test_blanks_at_the_ends_are_dropped_and_inside_stay_with_their_syllable(stacks) -> None:
    model, network = stacks
    (line,) = recognise_lines([draw_line(HEIGHT, [6, 1, 5, 6, 4, 6])], model, network)
    assert [syllable.text for syllable in line.syllables] == ["དེ། ", "གས"]
    assert line.text == "དེ། གས"


def test_a_blank_line_has_no_text_and_no_confidence(stacks) -> None:
    model, network = stacks
    (line,) = recognise_lines([np.full((50, 300), 255, np.uint8)], model, network)
    assert (line.text, line.confidence, line.syllables) == ("", 0.0, ())


def test_stacks_can_be_written_in_wylie(stacks) -> None:
    model, network = stacks
    image = draw_line(HEIGHT, [1, 2, 3, 4, 5])
    (line,) = recognise_lines([image], model, network, encoding="wylie")
    assert line.text == "de legs/"
    assert [syllable.text for syllable in line.syllables] == ["de ", "legs/"]


@pytest.mark.parametrize("ending", ["LogSoftmax", "Softmax"])
def test_a_wylie_crnn_is_read_as_unicode(tmp_path: Path, inference: Inference, ending: str) -> None:
    config = easter_config(
        HEIGHT, 480, "bdels§/", architecture="CRNN", encoder="wylie", squeeze_channel_dim="no",
        swap_hw="yes",
    )  # fmt: skip
    model = read_line_model(
        write_model_folder(tmp_path / "m", crnn_bytes(HEIGHT, 480, 7, ending), **config)
    )
    image = draw_line(HEIGHT, [1, 2, 5, 4, 2, 6])
    network = inference.line_network(model)
    (line,) = recognise_lines([image], model, network)
    assert line.text == "དེ་སེ།"
    assert [syllable.text for syllable in line.syllables] == ["དེ་", "སེ།"]
    (line,) = recognise_lines([image], model, network, encoding="wylie")
    assert line.text == "de se/"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 60, 3), np.uint8),
        np.zeros((40, 60), np.float32),
        np.zeros((0, 60), np.uint8),
    ],
)
def test_what_is_no_line_image_is_named(stacks, image) -> None:
    with pytest.raises(ValueError, match="line 1 is"):
        recognise_lines([draw_line(HEIGHT, [1]), image], *stacks)


def test_one_pixel_lines_do_no_harm(stacks) -> None:
    lines = recognise_lines([np.zeros((1, 1), np.uint8), draw_line(HEIGHT, [1])], *stacks)
    assert lines[1].text == "དེ"


# --- The published Tibetan model -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tibetan(inference: Inference) -> tuple[LineModel, LineNetwork]:
    if not BOD.is_file():
        pytest.skip(f"{BOD} is not installed (package tesseract-ocr-bod)")
    model = read_line_model(BOD)
    return model, inference.line_network(model)


@pytest.fixture(scope="module")
def woodblock_lines(shared_data: Path) -> list[tuple[np.ndarray, str]]:
    folder = shared_data / "volumes" / "lines" / "lhasa-kanjur-lines"
    pairs = []
    for path in sorted((folder / "lines").glob("*.jpg")):
        transcript = folder / "transcriptions" / f"{path.stem}.txt"
        if transcript.is_file():
            image = np.asarray(Image.open(path).convert("L"))
            pairs.append((image, transcript.read_text("utf-8")))
    return pairs


def test_printed_line_of_a_real_page(shared_data: Path, tibetan) -> None:
    folder = shared_data / "volumes" / "pages"
    with Image.open(folder / "ngb_v05_out_0292.tif") as page:
        image = np.asarray(page.crop((354, 1120, 8394, 1329)).convert("L"))
    # The first line of a transcript is a label.
    transcript = (folder / "ngb_v05_out_0292.txt").read_text("utf-8-sig").split("\n")[1:]
    wanted = normalise_for_scoring([line for line in transcript if line.strip()][5])
    (line,) = recognise_lines([image], *tibetan)
    assert len(wanted) > 150
    assert edit_distance(wanted, normalise_for_scoring(line.text)) <= 3
    assert line.confidence > 0.95


def test_woodblock_lines(tibetan, woodblock_lines) -> None:
    assert len(woodblock_lines) == 10
    lines = recognise_lines([image for image, _ in woodblock_lines], *tibetan)
    errors = characters = 0
    for (image, transcript), line in zip(woodblock_lines, lines, strict=True):
        wanted = normalise_for_scoring(transcript)
        errors += edit_distance(wanted, normalise_for_scoring(line.text))
        characters += len(wanted)
        assert "".join(syllable.text for syllable in line.syllables) == line.text
        edges = [(s.x_start, s.x_end) for s in line.syllables]
        assert all(start < end for start, end in edges)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
        assert edges[0][0] >= 0
        assert edges[-1][1] <= image.shape[1]
    # The model has never seen woodblock prints; it reads about two characters of three.
    assert errors / characters < 0.38


def test_a_line_is_read_alike_alone_and_among_others(tibetan, woodblock_lines) -> None:
    images = [image for image, _ in woodblock_lines]
    images = [images[0][:, :400], images[1], images[2][:, :900], images[3]]
    together = recognise_lines(images, *tibetan, decoder="greedy")
    alone = [recognise_lines([image], *tibetan, decoder="greedy")[0] for image in images]
    assert [line.text for line in together] == [line.text for line in alone]


def test_streams_give_the_same_text(tmp_path: Path, tibetan, woodblock_lines) -> None:
    model, network = tibetan
    images = [image for image, _ in woodblock_lines] * 2
    two = Inference(tmp_path, streams=2).line_network(model)
    assert recognise_lines(images, model, two) == recognise_lines(images, model, network)
