"""Decoding of connectionist temporal classification (CTC): from log-probabilities to outputs.

Belongs here: greedy and prefix-beam decoding of one line, and where in the line each output lies.
Does not belong here: characters and text (see ``charset``), running networks.

Throughout, ``log_probabilities`` is float32 ``[frame, output]``, the natural logarithm of
probabilities that sum to one in each frame, and ``blank`` is the output for nothing. References:
Graves et al. 2006 (CTC); Hannun et al. 2014, arXiv:1408.2873 (prefix beam search).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

_NEVER = np.float32(-1e30)


@dataclass(frozen=True)
class DecodedOutputs:
    """The outputs read from a line, without blanks.

    Attributes:
        outputs: int32 ``[n]``.
        start, stop: int32 ``[n]``, the half-open run of frames in which each output is said.
        log_confidence: float32 ``[n]``, the log-probability of each output at its surest frame.
        log_probability: of the whole reading, all alignments that were followed taken together
            (beam) or the best one alone (greedy).
    """

    outputs: NDArray[np.int32]
    start: NDArray[np.int32]
    stop: NDArray[np.int32]
    log_confidence: NDArray[np.float32]
    log_probability: float


def decode_greedy(log_probabilities: NDArray[np.float32], blank: int) -> DecodedOutputs:
    """The most probable output of each frame, repetitions merged, blanks left out."""
    if not len(log_probabilities):
        return _nothing()
    best = log_probabilities.argmax(axis=1)
    score = log_probabilities[np.arange(len(best)), best]
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    stops = np.append(starts[1:], len(best))
    said = best[starts] != blank
    peaks = np.maximum.reduceat(score, starts)
    return DecodedOutputs(
        best[starts][said].astype(np.int32),
        starts[said].astype(np.int32),
        stops[said].astype(np.int32),
        peaks[said].astype(np.float32),
        float(score.sum()),
    )


def decode_beam(
    log_probabilities: NDArray[np.float32],
    blank: int,
    *,
    beam: int = 16,
    least: float = -5.0,
) -> DecodedOutputs:
    """Prefix beam search: the most probable reading over all its alignments.

    Args:
        log_probabilities: float32 ``[frame, output]``.
        blank: number of the blank output.
        beam: number of prefixes kept after each frame.
        least: outputs below this log-probability in a frame are not followed there. The blank
            always is.

    Raises:
        ValueError: the beam is smaller than one.
    """
    if beam < 1:
        raise ValueError(f"a beam of {beam} keeps nothing; give 1 or more")
    if not len(log_probabilities):
        return _nothing()
    scores = np.ascontiguousarray(log_probabilities, np.float32)
    outputs, log_probability = _prefix_beam(scores, blank, beam, np.float32(least))
    start, stop = align(scores, outputs, blank)
    peaks = _peaks(scores, outputs, start, stop)
    return DecodedOutputs(outputs, start, stop, peaks, float(log_probability))


def align(
    log_probabilities: NDArray[np.float32], outputs: NDArray[np.int32], blank: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The most probable alignment of known outputs, as first and stop frame of each.

    Raises:
        ValueError: there are too few frames to say all outputs, with blanks between repetitions.
    """
    repetitions = int((outputs[1:] == outputs[:-1]).sum())
    if len(outputs) + repetitions > len(log_probabilities):
        raise ValueError(
            f"{len(outputs)} outputs with {repetitions} repetitions do not fit into "
            f"{len(log_probabilities)} frames"
        )
    if not len(outputs):
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    scores = np.ascontiguousarray(log_probabilities, np.float32)
    return _best_alignment(scores, np.ascontiguousarray(outputs, np.int32), blank)


def _nothing() -> DecodedOutputs:
    none = np.zeros(0, np.int32)
    return DecodedOutputs(none, none, none, np.zeros(0, np.float32), 0.0)


@njit(cache=True, nogil=True)
def _log_add(a, b):  # type: ignore[no-untyped-def]
    if a < b:
        a, b = b, a
    if b <= _NEVER:
        return a
    return a + np.log1p(np.exp(b - a))


@njit(cache=True, nogil=True)
def _prefix_beam(scores, blank, beam, least):  # type: ignore[no-untyped-def]
    """Outputs of the best prefix and its log-probability.

    Prefixes are nodes of a tree, each knowing its last output, its parent, its first child and its
    next sibling. For the nodes of the beam, ``ended`` and ``said`` are the log-probabilities of
    the alignments that end in a blank and in the node's output.
    """
    frames, size = scores.shape
    capacity = 1024
    output = np.full(capacity, -1, np.int32)
    parent = np.full(capacity, -1, np.int32)
    child = np.full(capacity, -1, np.int32)
    sibling = np.full(capacity, -1, np.int32)
    ended = np.full(capacity, _NEVER, np.float64)
    said = np.full(capacity, _NEVER, np.float64)
    next_ended = np.full(capacity, _NEVER, np.float64)
    next_said = np.full(capacity, _NEVER, np.float64)
    listed = np.full(capacity, -1, np.int32)
    nodes = 1
    ended[0] = 0.0
    kept = np.zeros(1, np.int32)
    followed = np.empty(size, np.int32)
    for t in range(frames):
        count = 0
        for k in range(size):
            if k != blank and scores[t, k] >= least:
                followed[count] = k
                count += 1
        need = nodes + len(kept) * count
        if need > capacity:
            grown = max(need, 2 * capacity)
            output = _grown(output, grown, -1)
            parent = _grown(parent, grown, -1)
            child = _grown(child, grown, -1)
            sibling = _grown(sibling, grown, -1)
            listed = _grown(listed, grown, -1)
            ended = _grown(ended, grown, _NEVER)
            said = _grown(said, grown, _NEVER)
            next_ended = _grown(next_ended, grown, _NEVER)
            next_said = _grown(next_said, grown, _NEVER)
            capacity = grown
        found = np.empty(len(kept) * (count + 1), np.int32)
        total = 0
        for node in kept:
            either = _log_add(ended[node], said[node])
            if listed[node] != t:
                listed[node] = t
                found[total] = node
                total += 1
            next_ended[node] = _log_add(next_ended[node], either + scores[t, blank])
            if output[node] >= 0:
                # The same output again without a blank between does not make the prefix longer.
                again = said[node] + scores[t, output[node]]
                next_said[node] = _log_add(next_said[node], again)
            for i in range(count):
                k = followed[i]
                longer = child[node]
                while longer >= 0 and output[longer] != k:
                    longer = sibling[longer]
                if longer < 0:
                    longer = nodes
                    nodes += 1
                    output[longer] = k
                    parent[longer] = node
                    sibling[longer] = child[node]
                    child[node] = longer
                before = ended[node] if k == output[node] else either
                if before <= _NEVER:
                    continue
                if listed[longer] != t:
                    listed[longer] = t
                    found[total] = longer
                    total += 1
                next_said[longer] = _log_add(next_said[longer], before + scores[t, k])
        found = found[:total]
        for node in kept:
            ended[node] = _NEVER
            said[node] = _NEVER
        rank = np.empty(total, np.float64)
        for i in range(total):
            node = found[i]
            ended[node] = next_ended[node]
            said[node] = next_said[node]
            next_ended[node] = _NEVER
            next_said[node] = _NEVER
            rank[i] = -_log_add(ended[node], said[node])
        # A stable order makes ties, and so results, the same everywhere.
        order = np.argsort(rank, kind="mergesort")
        if total > beam:
            for i in order[beam:]:
                ended[found[i]] = _NEVER
                said[found[i]] = _NEVER
            order = order[:beam]
        kept = found[order]
    best = kept[0]
    log_probability = _log_add(ended[best], said[best])
    length = 0
    node = best
    while output[node] >= 0:
        length += 1
        node = parent[node]
    result = np.empty(length, np.int32)
    node = best
    while output[node] >= 0:
        length -= 1
        result[length] = output[node]
        node = parent[node]
    return result, log_probability


@njit(cache=True, nogil=True)
def _grown(array, capacity, fill):  # type: ignore[no-untyped-def]
    grown = np.full(capacity, fill, array.dtype)
    grown[: len(array)] = array
    return grown


@njit(cache=True, nogil=True)
def _best_alignment(scores, outputs, blank):  # type: ignore[no-untyped-def]
    """Viterbi over blank, first output, blank, second output, ... , blank."""
    frames = len(scores)
    places = 2 * len(outputs) + 1
    best = np.full(places, _NEVER, np.float64)
    came = np.zeros((frames, places), np.int8)
    best[0] = scores[0, blank]
    best[1] = scores[0, outputs[0]]
    for t in range(1, frames):
        for place in range(places - 1, -1, -1):
            k = blank if place % 2 == 0 else outputs[place // 2]
            value = best[place]
            step = 0
            if place >= 1 and best[place - 1] > value:
                value = best[place - 1]
                step = 1
            if (
                place >= 3
                and place % 2 == 1
                and outputs[place // 2] != outputs[place // 2 - 1]
                and best[place - 2] > value
            ):
                value = best[place - 2]
                step = 2
            best[place] = value + scores[t, k]
            came[t, place] = step
    place = places - 1 if best[places - 1] > best[places - 2] else places - 2
    start = np.zeros(len(outputs), np.int32)
    stop = np.zeros(len(outputs), np.int32)
    for t in range(frames - 1, -1, -1):
        if place % 2 == 1:
            start[place // 2] = t
            if stop[place // 2] == 0:
                stop[place // 2] = t + 1
        place -= came[t, place]
    return start, stop


@njit(cache=True, nogil=True)
def _peaks(scores, outputs, start, stop):  # type: ignore[no-untyped-def]
    peaks = np.empty(len(outputs), np.float32)
    for i in range(len(outputs)):
        peaks[i] = scores[start[i] : stop[i], outputs[i]].max()
    return peaks
