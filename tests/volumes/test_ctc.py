"""CTC decoding against brute force over every alignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ocr_assets.volumes.ctc import align, decode_beam, decode_greedy

BLANK = 1


def scores(seed: int, frames: int, outputs: int, sharpness: float = 2.0) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).normal(size=(frames, outputs)) * sharpness
    return (raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))).astype(np.float32)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    merged = [output for output, _ in itertools.groupby(path)]
    return tuple(output for output in merged if output != BLANK)


def readings(table: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Probability of every reading, summed over all its alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(table.shape[1]), repeat=len(table)):
        probability = float(np.exp(sum(table[t, k] for t, k in enumerate(path))))
        key = collapsed(path)
        found[key] = found.get(key, 0.0) + probability
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 4), st.sampled_from([0.5, 2, 4]))
def test_a_wide_beam_finds_the_most_probable_reading(
    seed: int, frames: int, outputs: int, sharpness: float
) -> None:
    table = scores(seed, frames, outputs, sharpness)
    every = readings(table)
    best = max(every.values())
    decoded = decode_beam(table, BLANK, beam=10_000, least=-1e9)
    assert every[tuple(decoded.outputs.tolist())] == pytest.approx(best, rel=1e-4)
    assert np.exp(decoded.log_probability) == pytest.approx(best, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 4))
def test_greedy_reads_the_most_probable_alignment(seed: int, frames: int, outputs: int) -> None:
    table = scores(seed, frames, outputs)
    decoded = decode_greedy(table, BLANK)
    assert tuple(decoded.outputs.tolist()) == collapsed(tuple(table.argmax(axis=1).tolist()))
    assert decoded.log_probability == pytest.approx(float(table.max(axis=1).sum()), rel=1e-5)
    for output, start, stop, peak in zip(
        decoded.outputs, decoded.start, decoded.stop, decoded.log_confidence, strict=True
    ):
        assert (table[start:stop].argmax(axis=1) == output).all()
        assert peak == table[start:stop, output].max()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.lists(st.sampled_from([0, 2]), max_size=4))
def test_alignment_is_the_most_probable_of_all(seed: int, frames: int, outputs: list[int]) -> None:
    table = scores(seed, frames, 3)
    wanted = np.array(outputs, np.int32)
    possible = [
        path
        for path in itertools.product(range(3), repeat=frames)
        if collapsed(path) == tuple(outputs)
    ]
    if not possible:
        with pytest.raises(ValueError, match="do not fit"):
            align(table, wanted, BLANK)
        return
    start, stop = align(table, wanted, BLANK)
    said = np.full(frames, BLANK)
    for output, a, b in zip(outputs, start, stop, strict=True):
        assert a < b
        said[a:b] = output
    assert collapsed(tuple(said.tolist())) == tuple(outputs)
    best = max(sum(table[t, k] for t, k in enumerate(path)) for path in possible)
    assert sum(table[t, k] for t, k in enumerate(said)) == pytest.approx(best, abs=1e-4)


def test_a_reading_with_many_alignments_beats_the_best_single_alignment() -> None:
    # Of four alignments, "blank blank" is the surest alone, but three read one "0".
    table = np.log(np.array([[0.4, 0.6], [0.4, 0.6]], np.float32))
    assert decode_greedy(table, BLANK).outputs.tolist() == []
    assert decode_beam(table, BLANK).outputs.tolist() == [0]


def test_repetition_needs_a_blank_between() -> None:
    certain = np.full((5, 3), np.log(1e-6), np.float32)
    for frame, output in enumerate([0, 0, BLANK, 0, 2]):
        certain[frame, output] = 0.0
    for decoded in (decode_greedy(certain, BLANK), decode_beam(certain, BLANK)):
        assert decoded.outputs.tolist() == [0, 0, 2]
        assert decoded.start.tolist() == [0, 3, 4]
        assert decoded.stop.tolist() == [2, 4, 5]


def test_beam_on_a_long_line_agrees_with_greedy_where_all_is_sure() -> None:
    random = np.random.default_rng(0)
    table = np.full((1200, 500), -12.0, np.float32)
    table[
        np.arange(1200), np.where(random.random(1200) < 0.5, BLANK, random.integers(0, 500, 1200))
    ] = -0.01
    assert (
        decode_beam(table, BLANK).outputs.tolist() == decode_greedy(table, BLANK).outputs.tolist()
    )


def test_no_frames_read_nothing_and_no_beam_is_an_error() -> None:
    nothing = np.zeros((0, 3), np.float32)
    assert decode_greedy(nothing, BLANK).outputs.tolist() == []
    assert decode_beam(nothing, BLANK).outputs.tolist() == []
    with pytest.raises(ValueError, match="keeps nothing"):
        decode_beam(scores(0, 3, 3), BLANK, beam=0)
