"""Jobs: their lists of volumes, and states that follow from attempts and artefacts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_assets.volumes.archive import VolumeId
from ocr_assets.volumes.ledger import (
    MAX_ATTEMPTS,
    Attempt,
    Job,
    JobState,
    Task,
    TaskState,
    VolumeListError,
    default_job_key,
    job_state,
    parse_volume_file,
    parse_volumes,
    task,
    throughput,
)

OUTCOMES = st.sampled_from(("succeeded", "failed", "canceled"))


def attempt(
    outcome: str, start: float = 0.0, end: float = 1.0, *, terminal: bool = False
) -> Attempt:
    return Attempt("W1-I1", outcome, start, end, "why" if outcome == "failed" else "", terminal)


def state(*outcomes: str, status: str | None = None, terminal: bool = False) -> TaskState:
    attempts = [attempt(outcome, terminal=terminal) for outcome in outcomes]
    return task("W1-I1", attempts, status, 3, 0).state  # type: ignore[arg-type]


def test_comments_blank_lines_and_doubles() -> None:
    text = "\ufeff# all\n\nW1-I1  # the first\nW2,I2\n  W1 I1\n"
    assert parse_volume_file(text, "f") == [VolumeId("W1", "I1"), VolumeId("W2", "I2")]


def test_a_bad_line_is_named_by_its_number() -> None:
    with pytest.raises(VolumeListError, match=r"list\.txt, line 3: .*W22084-I0886"):
        parse_volume_file("# x\nW1-I1\nnothing\n", "list.txt")


def test_a_list_in_one_argument() -> None:
    assert list(map(str, parse_volumes("W1-I1, W2-I2,,W1-I1"))) == ["W1-I1", "W2-I2"]
    with pytest.raises(VolumeListError, match="volume 2 of the list"):
        parse_volumes("W1-I1,I2")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_a_list_without_volumes_is_refused(text: str) -> None:
    with pytest.raises(VolumeListError, match="no volume"):
        parse_volume_file(text, "f")


def test_the_key_comes_from_what_is_asked() -> None:
    one, other = VolumeId("W1", "I1"), VolumeId("W2", "I2")
    assert default_job_key("t", [one, other]) == default_job_key("t", [other, one])
    assert default_job_key("t", [one]) != default_job_key("u", [one])
    with pytest.raises(ValueError, match="not a job key"):
        Job("../x", "t", (), 0.0)


def test_states_of_a_volume() -> None:
    assert state() is TaskState.pending
    assert state("canceled") is TaskState.pending
    assert state("running") is TaskState.running
    assert state("succeeded", status="success") is TaskState.done
    assert state("succeeded", status="partial") is TaskState.partial
    assert state("failed") is TaskState.retryable_failed
    assert state("failed", terminal=True) is TaskState.terminal_failed
    assert state("failed", "succeeded", status="success") is TaskState.done
    # What was read before does not hide that the last attempt failed.
    assert state("succeeded", "failed", status="success") is TaskState.retryable_failed
    # Somebody deleted the artefacts.
    assert state("succeeded", status=None) is TaskState.pending


def test_attempts_are_bounded() -> None:
    assert state(*["failed"] * (MAX_ATTEMPTS - 1)) is TaskState.retryable_failed
    assert state(*["failed"] * MAX_ATTEMPTS) is TaskState.terminal_failed
    assert state(*["failed"] * MAX_ATTEMPTS, "succeeded", "failed") is TaskState.retryable_failed


@given(st.lists(OUTCOMES), st.sampled_from((None, "success", "partial", "failed")))
def test_no_history_loops(outcomes: list[str], status: str | None) -> None:
    """After enough failures in a row nothing is tried any more, whatever was before."""
    assert state(*outcomes, *["failed"] * MAX_ATTEMPTS, status=status) is TaskState.terminal_failed
    found = state(*outcomes, status=status)
    if outcomes and outcomes[-1] == "succeeded" and status == "success":
        assert found is TaskState.done
    assert found is not TaskState.running


def tasks(*states: TaskState, pages: int | None = 10) -> list[Task]:
    return [Task(f"W{i}-I1", state, 1, pages) for i, state in enumerate(states)]


def test_states_of_a_job() -> None:
    pending, running, done = TaskState.pending, TaskState.running, TaskState.done
    failed, partial = TaskState.terminal_failed, TaskState.partial
    assert job_state(tasks(pending, pending), canceled=False) is JobState.created
    assert job_state(tasks(done, pending), canceled=False) is JobState.running
    assert job_state(tasks(done, TaskState.retryable_failed), canceled=False) is JobState.running
    assert job_state(tasks(done, partial), canceled=False) is JobState.completed
    assert job_state(tasks(done, failed), canceled=False) is JobState.failed
    assert job_state(tasks(done, pending), canceled=True) is JobState.canceled
    # Volumes that are being read are finished first.
    assert job_state(tasks(done, running), canceled=True) is JobState.running


def test_throughput_counts_time_with_work_once() -> None:
    all_tasks = tasks(TaskState.done, TaskState.done, TaskState.pending)
    attempts = [
        Attempt("W0-I1", "succeeded", 0.0, 10.0),
        Attempt("W1-I1", "succeeded", 5.0, 15.0),  # overlaps the first
        Attempt("W2-I1", "failed", 20.0, 90.0),
    ]
    speed = throughput(all_tasks, attempts)
    assert (speed.pages, speed.seconds) == (20, 15.0)
    assert speed.pages_per_second == pytest.approx(20 / 15)
    assert speed.remaining_pages == 10
    assert speed.remaining_seconds == pytest.approx(7.5)


def test_volumes_of_unknown_length_count_as_the_mean() -> None:
    mixed = [*tasks(TaskState.done), Task("W9-I9", TaskState.pending, 0)]
    assert throughput(mixed, [Attempt("W0-I1", "succeeded", 0.0, 5.0)]).remaining_pages == 10
    nothing = throughput([Task("W9-I9", TaskState.pending, 0)], [])
    assert (nothing.remaining_pages, nothing.remaining_seconds) == (None, None)
    assert nothing.pages_per_second is None
