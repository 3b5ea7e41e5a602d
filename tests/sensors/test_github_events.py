"""Which events are found in what GitHub says: each once, in whatever order, from any old cursor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from github_server import (
    REPOSITORY,
    TOKEN,
    WHEN,
    GitHubServer,
    breaks_off,
    chatters,
    pull,
    release,
    says,
    sha,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from resources.github import DamagedAnswerError, GitHub, GitHubServerError, RateLimitedError
from resources.settings import Settings
from sensors.github_events import (
    EVENTS_AT_ONCE,
    Cursor,
    CursorError,
    Look,
    look_at_branch,
    look_at_pull_requests,
    look_at_releases,
)

START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
Looking = Callable[..., Look]


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer().running() as running:
        yield running


def settings_of(server: GitHubServer, **more: Any) -> Settings:
    return Settings(
        storage_root="/nowhere",
        github_repository=REPOSITORY,
        github_token=SecretStr(TOKEN),
        github_api_url=server.url,
        **more,
    )


def take(
    look: Looking, server: GitHubServer, cursor: str | None = None, **settings: Any
) -> tuple[list[str], str, Look]:
    """A look as a tick takes it: the identities that it found, and the cursor that it stores."""
    values = settings_of(server, **settings)
    with GitHub(values.github_api_url, values.github_token) as github:
        found = look(github, Cursor.read(cursor, values, START), values)
    return [event.identity for event in found.events], found.cursor.model_dump_json(), found


def named(id_: int, tag: str) -> str:
    return f"release/{REPOSITORY}@{tag}#{id_}"


# --- releases


def test_a_release_is_found_once(server: GitHubServer) -> None:
    server.releases = [release(7, "v1.2.3")]
    found, cursor, look = take(look_at_releases, server)
    assert found == [named(7, "v1.2.3")]
    assert (look.events[0].version, look.events[0].ref) == ("1.2.3", "v1.2.3")
    assert take(look_at_releases, server, cursor)[0] == []
    assert server.statuses() == [200, 304]


def test_an_edited_release_is_no_new_event_but_another_tag_is(server: GitHubServer) -> None:
    server.releases = [release(7, "v1.2.3")]
    _, cursor, _ = take(look_at_releases, server)
    server.releases = [release(7, "v1.2.3", body="now with notes", assets=[{"digest": "sha256:1"}])]
    found, cursor, _ = take(look_at_releases, server, cursor)
    assert (found, server.statuses()) == ([], [200, 200])
    server.releases = [release(7, "v1.2.4")]
    assert take(look_at_releases, server, cursor)[0] == [named(7, "v1.2.4")]


def test_what_was_published_before_the_first_look_is_no_event(server: GitHubServer) -> None:
    server.releases = [release(1, "v1.0.0", "2026-02-28T23:59:59Z"), release(2, "v1.1.0")]
    assert take(look_at_releases, server)[0] == [named(2, "v1.1.0")]
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found, _, _ = take(look_at_releases, server, github_since=since)
    assert found == [named(1, "v1.0.0"), named(2, "v1.1.0")]


def test_the_first_look_counts_even_if_it_fails(server: GitHubServer) -> None:
    server.moods = [says(500)]
    found, cursor, look = take(look_at_releases, server)
    assert found == []
    assert isinstance(look.problem, GitHubServerError)
    server.releases = [release(2, "v1.1.0")]
    values = settings_of(server)
    later = Cursor.read(cursor, values, START + 1e6)
    assert later.since == datetime.fromtimestamp(START, UTC)


def test_drafts_and_prereleases_follow_their_settings(server: GitHubServer) -> None:
    server.releases = [
        release(3, "v1.2.0-rc.1", prerelease=True),
        release(2, "v1.1.0", None),
        release(1, "v1.0.0"),
    ]
    assert take(look_at_releases, server)[0] == [named(1, "v1.0.0")]
    _, cursor, _ = take(look_at_releases, server)
    found, cursor, _ = take(look_at_releases, server, cursor, github_prereleases=True)
    assert found == [named(3, "v1.2.0-rc.1")]
    found, cursor, _ = take(
        look_at_releases, server, cursor, github_prereleases=True, github_drafts=True
    )
    assert found == [named(2, "v1.1.0")]
    # Published at last: it was deployed when it was a draft.
    server.releases[1] = release(2, "v1.1.0")
    assert take(look_at_releases, server, cursor)[0] == []


def test_a_prerelease_that_becomes_a_release_is_an_event(server: GitHubServer) -> None:
    server.releases = [release(3, "v1.2.0", prerelease=True)]
    found, cursor, _ = take(look_at_releases, server)
    assert found == []
    server.releases = [release(3, "v1.2.0")]
    assert take(look_at_releases, server, cursor)[0] == [named(3, "v1.2.0")]


def test_a_tag_that_is_no_version_is_told_once(server: GitHubServer) -> None:
    server.releases = [release(1, "nightly"), release(2, "v1"), release(3, "1.0.0")]
    found, cursor, look = take(look_at_releases, server)
    assert found == [named(3, "1.0.0")]
    assert look.remarks == [
        "release 'nightly' is not a semantic version",
        "release 'v1' is not a semantic version",
    ]
    server.releases.append(release(4, "1.1.0"))
    found, _, look = take(look_at_releases, server, cursor)
    assert (found, look.remarks) == ([named(4, "1.1.0")], [])


def test_more_than_fit_into_one_look_come_with_the_next(server: GitHubServer) -> None:
    count = EVENTS_AT_ONCE + 3
    server.releases = [release(id_, f"v1.0.{id_}") for id_ in range(count)]
    first, cursor, _ = take(look_at_releases, server)
    second, cursor, _ = take(look_at_releases, server, cursor)
    assert [len(first), len(second)] == [EVENTS_AT_ONCE, 3]
    assert first + second == [named(id_, f"v1.0.{id_}") for id_ in range(count)]
    assert take(look_at_releases, server, cursor)[0] == []
    assert server.statuses() == [200, 304, 304]


@pytest.mark.parametrize(
    ("mood", "problem"),
    [
        (says(500), GitHubServerError),
        (says(429, Retry_After="60"), RateLimitedError),
        (breaks_off, DamagedAnswerError),
        (chatters(b"[{}]"), DamagedAnswerError),
        (chatters(b'{"message": "hello"}'), DamagedAnswerError),
        (chatters(b'[{"id": "7"}]'), DamagedAnswerError),
    ],
    ids=["500", "429", "truncated", "empty item", "no list", "wrong type"],
)
def test_pages_before_a_problem_count(
    server: GitHubServer, mood: Any, problem: type[Exception]
) -> None:
    server.page_size = 1
    server.releases = [release(2, "v1.1.0"), release(1, "v1.0.0")]
    passed: list[bool] = []

    def second_page_fails(path: str) -> None:
        if not passed and "page=2" not in path:
            passed.append(True)
            server.moods = [mood]

    server.answering = second_page_fails
    found, cursor, look = take(look_at_releases, server)
    assert found == [named(2, "v1.1.0")]
    assert isinstance(look.problem, problem)
    found, cursor, look = take(look_at_releases, server, cursor)
    assert (found, look.problem) == ([named(1, "v1.0.0")], None)
    assert server.statuses() == [200, -1, 304, 200]


RELEASES = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([WHEN, "2026-03-02T00:00:00Z"])),
    unique_by=lambda pair: pair[0],
    max_size=30,
)


@hypothesis_settings(max_examples=25)
@given(
    states=st.lists(RELEASES, min_size=1, max_size=5),
    size=st.integers(3, 12),
    lost=st.sets(st.integers(0, 4)),
    seed=st.randoms(use_true_random=False),
)
def test_every_release_once_whatever_happens(
    states: list[list[tuple[int, str]]], size: int, lost: set[int], seed: Any
) -> None:
    """Lists that grow, shrink, reorder; several at the same moment; ticks that are never stored."""
    with GitHubServer().running() as server:
        server.page_size = size
        cursor: str | None = None
        launched: list[str] = []
        ever: set[str] = set()
        for index, state in enumerate(states):
            server.releases = [release(id_, f"v1.{id_}.0", when) for id_, when in state]
            seed.shuffle(server.releases)
            ever |= {named(id_, f"v1.{id_}.0") for id_, _ in state}
            if index in lost:  # the daemon was killed before it stored this tick
                first = take(look_at_releases, server, cursor)
                assert take(look_at_releases, server, cursor)[:2] == first[:2]
            found, cursor, look = take(look_at_releases, server, cursor)
            launched += found
            while look.cursor.pending:
                found, cursor, look = take(look_at_releases, server, cursor)
                launched += found
        assert sorted(launched) == sorted(ever)


# --- pushes


def pushed(number: int) -> str:
    return f"push/{REPOSITORY}@main/{sha(number)}"


def test_each_new_head_is_an_event(server: GitHubServer) -> None:
    server.push(sha(1))
    found, cursor, look = take(look_at_branch, server)
    assert found == [pushed(1)], "committed after the first look began"
    assert look.wanted == {pushed(1)}
    assert take(look_at_branch, server, cursor)[0] == []
    server.push(sha(2), "2020-01-01T00:00:00Z")
    found, cursor, look = take(look_at_branch, server, cursor)
    assert (found, look.wanted) == ([pushed(2)], {pushed(2)})
    assert (look.events[0].commit, look.events[0].ref) == (sha(2), "main")
    assert server.statuses() == [200, 304, 200]


def test_a_head_from_before_is_where_it_begins(server: GitHubServer) -> None:
    server.push(sha(1), "2026-02-28T00:00:00Z")
    found, cursor, look = take(look_at_branch, server)
    assert (found, look.wanted) == ([], {pushed(1)})
    server.push(sha(2), "2026-02-28T00:00:00Z")
    assert take(look_at_branch, server, cursor)[0] == [pushed(2)]


def test_another_branch_begins_anew(server: GitHubServer) -> None:
    server.push(sha(1))
    server.push(sha(2), "2026-02-01T00:00:00Z", branch="release/2")
    _, cursor, _ = take(look_at_branch, server)
    found, cursor, _ = take(look_at_branch, server, cursor, github_branch="release/2")
    assert found == []
    server.push(sha(3), "2026-02-01T00:00:00Z", branch="release/2")
    found, _, _ = take(look_at_branch, server, cursor, github_branch="release/2")
    assert found == [f"push/{REPOSITORY}@release/2/{sha(3)}"]


def test_labels_that_change_are_no_push(server: GitHubServer) -> None:
    server.push(sha(1), "2026-02-28T00:00:00Z")
    _, cursor, _ = take(look_at_branch, server)
    server.push(sha(2), "2026-02-28T00:00:00Z")
    found, _, _ = take(look_at_branch, server, cursor, github_labels=("other",))
    assert found == [pushed(2)]


def test_a_problem_stops_no_deployment(server: GitHubServer) -> None:
    server.push(sha(1))
    _, cursor, _ = take(look_at_branch, server)
    server.moods = [says(503)]
    found, cursor, look = take(look_at_branch, server, cursor)
    assert (found, look.wanted) == ([], None)
    server.push(sha(2))
    assert take(look_at_branch, server, cursor)[0] == [pushed(2)]


# --- pull requests


def asked(number: int, head: int) -> str:
    return f"pull_request/{REPOSITORY}#{number}@{sha(head)}"


def test_a_labelled_pull_request_and_each_new_commit(server: GitHubServer) -> None:
    server.pulls = [pull(1, sha(1), "e2e"), pull(2, sha(2)), pull(3, sha(3), "QA/QC", "bug")]
    found, cursor, look = take(look_at_pull_requests, server)
    assert found == [asked(1, 1), asked(3, 3)]
    assert look.wanted == {asked(1, 1), asked(3, 3)}
    assert take(look_at_pull_requests, server, cursor)[0] == []
    server.pulls[0] = pull(1, sha(9), "e2e")
    found, cursor, look = take(look_at_pull_requests, server, cursor)
    assert (found, look.wanted) == ([asked(1, 9)], {asked(1, 9), asked(3, 3)})
    server.pulls[1] = pull(2, sha(2), "e2e")
    found, cursor, _ = take(look_at_pull_requests, server, cursor)
    assert found == [asked(2, 2)]


def test_closed_or_without_label_it_is_wanted_no_more(server: GitHubServer) -> None:
    server.pulls = [pull(1, sha(1), "e2e"), pull(2, sha(2), "e2e")]
    _, cursor, _ = take(look_at_pull_requests, server)
    server.pulls = [pull(2, sha(2))]
    found, cursor, look = take(look_at_pull_requests, server, cursor)
    assert (found, look.wanted) == ([], frozenset())
    assert json.loads(cursor)["launched"] == {}
    server.pulls = [pull(1, sha(1), "e2e")]
    found, _, look = take(look_at_pull_requests, server, cursor)
    assert (found, look.wanted) == ([asked(1, 1)], {asked(1, 1)})


def test_other_branches_are_not_asked_for(server: GitHubServer) -> None:
    other = pull(1, sha(1), "e2e")
    other["base"]["ref"] = "release/2"
    server.pulls = [other]
    assert take(look_at_pull_requests, server)[0] == []
    assert take(look_at_pull_requests, server, github_branch="release/2")[0] == [asked(1, 1)]


def test_labels_follow_their_setting(server: GitHubServer) -> None:
    server.pulls = [pull(1, sha(1), "deploy")]
    found, cursor, _ = take(look_at_pull_requests, server)
    assert found == []
    # The page has not changed, but what it means has.
    assert take(look_at_pull_requests, server, cursor, github_labels=("deploy",))[0] == [
        asked(1, 1)
    ]


def test_what_was_not_seen_of_a_broken_list_is_still_wanted(server: GitHubServer) -> None:
    server.page_size = 1
    server.pulls = [pull(1, sha(1), "e2e"), pull(2, sha(2), "e2e")]
    found, cursor, _ = take(look_at_pull_requests, server)
    assert found == [asked(1, 1), asked(2, 2)]

    def second_page_fails(path: str) -> None:
        server.moods = [says(500)] if "page=2" not in path else []

    server.answering = second_page_fails
    found, cursor, look = take(look_at_pull_requests, server, cursor)
    assert (found, look.wanted) == ([], None)
    server.answering = lambda path: None
    found, cursor, look = take(look_at_pull_requests, server, cursor)
    assert (found, look.wanted) == ([], {asked(1, 1), asked(2, 2)})


def test_many_pull_requests_come_over_several_looks(server: GitHubServer) -> None:
    count = EVENTS_AT_ONCE + 5
    server.pulls = [pull(number, sha(number), "e2e") for number in range(count)]
    first, cursor, _ = take(look_at_pull_requests, server)
    second, cursor, look = take(look_at_pull_requests, server, cursor)
    assert [len(first), len(second)] == [EVENTS_AT_ONCE, 5]
    assert set(first + second) == look.wanted
    assert take(look_at_pull_requests, server, cursor)[0] == []
    assert server.statuses() == [200, 304, 304]


PULLS = st.dictionaries(
    st.integers(1, 12), st.tuples(st.integers(1, 3), st.booleans()), max_size=12
)


@hypothesis_settings(max_examples=25)
@given(
    states=st.lists(PULLS, min_size=1, max_size=6),
    size=st.integers(2, 5),
    lost=st.sets(st.integers(0, 5)),
)
def test_what_is_launched_follows_what_is_open(
    states: list[dict[int, tuple[int, bool]]], size: int, lost: set[int]
) -> None:
    """After each stored tick exactly the heads that are newly asked for were launched."""
    with GitHubServer().running() as server:
        server.page_size = size
        cursor: str | None = None
        before: set[str] = set()
        for index, state in enumerate(states):
            server.pulls = [
                pull(number, sha(head), *(["e2e"] if labelled else []))
                for number, (head, labelled) in sorted(state.items())
            ]
            wanted = {asked(number, head) for number, (head, labelled) in state.items() if labelled}
            if index in lost:
                again = take(look_at_pull_requests, server, cursor)
                assert take(look_at_pull_requests, server, cursor)[:2] == again[:2]
            found, cursor, look = take(look_at_pull_requests, server, cursor)
            assert set(found) == wanted - before
            assert len(found) == len(set(found))
            assert look.wanted == wanted
            before = wanted


# --- cursor


def test_a_cursor_of_another_repository_begins_anew(server: GitHubServer) -> None:
    server.releases = [release(7, "v1.2.3")]
    _, cursor, _ = take(look_at_releases, server)
    values = settings_of(server).model_copy(update={"github_repository": "owner/other"})
    fresh = Cursor.read(cursor, values, START + 5)
    assert (fresh.repository, fresh.seen, fresh.since.timestamp()) == ("owner/other", [], START + 5)


@pytest.mark.parametrize("text", ["{", "[]", '{"v": 2, "repository": "a/b"}', "null", '{"v": 1}'])
def test_a_cursor_that_is_not_ours_is_an_error(server: GitHubServer, text: str) -> None:
    with pytest.raises(CursorError, match="reset it in the UI"):
        Cursor.read(text, settings_of(server), START)


def test_the_cursor_holds_no_secret(server: GitHubServer) -> None:
    server.releases = [release(7, "v1.2.3")]
    assert TOKEN not in take(look_at_releases, server)[1]
