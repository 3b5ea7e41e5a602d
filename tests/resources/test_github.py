"""The GitHub client against a server that speaks the API: what is got, and what each failure is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

import pytest
from github_server import (
    REPOSITORY,
    TOKEN,
    GitHubServer,
    Mood,
    breaks_off,
    chatters,
    hangs_up,
    limit,
    release,
    respond,
    says,
)
from pydantic import SecretStr

from resources import github as github_module
from resources.github import (
    LONGEST_WAIT,
    DamagedAnswerError,
    GitHub,
    GitHubError,
    GitHubServerError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
    UnreachableError,
)


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer().running() as running:
        yield running


@pytest.fixture
def github(server: GitHubServer) -> Iterator[GitHub]:
    with GitHub(server.url, SecretStr(TOKEN)) as client:
        yield client


def releases(github: GitHub) -> str:
    return github.address("repos", *REPOSITORY.split("/"), "releases", per_page=100)


def test_an_answer_and_its_tag(server: GitHubServer, github: GitHub) -> None:
    server.releases = [release(1, "v1.0.0")]
    page = github.get(releases(github))
    assert [item["tag_name"] for item in page.content] == ["v1.0.0"]
    assert (page.next_url, page.poll_seconds, page.unchanged) == (None, 0.0, False)
    assert server.asked[0].token == TOKEN


def test_what_has_not_changed_costs_nothing(server: GitHubServer, github: GitHub) -> None:
    server.releases = [release(1, "v1.0.0")]
    first = github.get(releases(github))
    quota = server.quota
    again = github.get(releases(github), first.etag)
    assert (again.unchanged, again.etag, server.quota) == (True, first.etag, quota)
    server.releases.insert(0, release(2, "v1.1.0"))
    changed = github.get(releases(github), first.etag)
    assert [item["id"] for item in changed.content] == [2, 1]
    assert server.statuses() == [200, 304, 200]


def test_addresses_are_quoted(github: GitHub, server: GitHubServer) -> None:
    address = github.address("repos", "a", "b", "branches", "x/../y?z", page=2)
    assert address == f"{server.url}/repos/a/b/branches/x%2F..%2Fy%3Fz?page=2"


@pytest.mark.parametrize("link_always", [True, False], ids=["linked", "304 without link"])
def test_pages_are_followed(server: GitHubServer, github: GitHub, link_always: bool) -> None:
    server.link_always = link_always
    server.page_size = 2
    server.releases = [release(id_, f"v1.0.{id_}") for id_ in range(5)]
    pages = list(github.pages(releases(github), {}, 10))
    assert [item["id"] for page in pages for item in page.content] == [0, 1, 2, 3, 4]
    known = {page.url: (page.etag, page.next_url) for page in pages}
    server.releases[4] = release(9, "v2.0.0")
    again = list(github.pages(releases(github), known, 10))
    assert [page.unchanged for page in again] == [True, True, False]
    assert [page.url for page in again] == [page.url for page in pages]
    assert again[2].content[0]["id"] == 9


def test_pages_are_bounded(server: GitHubServer, github: GitHub) -> None:
    server.page_size = 1
    server.releases = [release(id_, f"v1.0.{id_}") for id_ in range(4)]
    pages = github.pages(releases(github), {}, 3)
    assert [next(pages).content[0]["id"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DamagedAnswerError, match="more than 3 pages"):
        next(pages)


def test_the_token_goes_to_the_api_only(server: GitHubServer, github: GitHub) -> None:
    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        respond(request, 200, [], Link='<https://example.org/repos?page=2>; rel="next"')

    server.moods = [elsewhere]
    with pytest.raises(DamagedAnswerError, match=r"said to be at example\.org"):
        list(github.pages(releases(github), {}, 3))
    with pytest.raises(ValueError, match=r"example\.org is not the API"):
        github.get("https://example.org/x")
    with GitHubServer().running() as other:
        other.releases = [release(1, "v1.0.0")]
        target = releases(GitHub(other.url.replace("127.0.0.1", "localhost"), None))
        server.moods = [says(301, Location=target)]
        with pytest.raises(UnauthorizedError):
            github.get(releases(github))
        assert [one.token for one in other.asked] == [None]


def test_a_netrc_does_not_replace_the_token(
    server: GitHubServer, github: GitHub, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    github.get(releases(github))
    assert server.asked[0].token == TOKEN


@pytest.mark.parametrize(
    ("mood", "error", "message"),
    [
        (says(401), UnauthorizedError, "set OCR_GITHUB_TOKEN"),
        (says(403, "Resource not accessible"), UnauthorizedError, "may not read"),
        (says(404), NotFoundError, "check OCR_GITHUB_REPOSITORY"),
        (says(500), GitHubServerError, "answers 500"),
        (says(502), GitHubServerError, "answers 502"),
        (says(418), DamagedAnswerError, "answers 418"),
        (breaks_off, DamagedAnswerError, "broke off"),
        (chatters(b"<html>"), DamagedAnswerError, "not JSON"),
        (chatters(b"\xff\xfe\x00"), DamagedAnswerError, "not JSON"),
        (chatters(b""), DamagedAnswerError, "not JSON"),
        (chatters(b"null"), DamagedAnswerError, "is empty"),
        (hangs_up, UnreachableError, "cannot be reached"),
    ],
    ids=lambda value: getattr(value, "__name__", None) if isinstance(value, type) else None,
)
def test_each_failure_has_its_error(
    server: GitHubServer, github: GitHub, mood: Mood, error: type[GitHubError], message: str
) -> None:
    # A connection that is closed before the answer is tried once more by the library below.
    server.moods = [mood] * (2 if mood is hangs_up else 1)
    with pytest.raises(error, match=message) as caught:
        github.get(releases(github))
    assert TOKEN not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("mood", "seconds"),
    [
        (lambda: says(403, "API rate limit exceeded", **limit(0, 90)), 90),
        (lambda: says(429, Retry_After="7"), 7),
        (lambda: says(403, "You have exceeded a secondary rate limit"), 60),
        (lambda: says(403, Retry_After="30"), 30),
        (lambda: says(403, Retry_After=formatdate(time.time() + 120, usegmt=True)), 120),
        (lambda: says(429, Retry_After="100000000"), LONGEST_WAIT),
        (lambda: says(429, Retry_After="soon"), 60),
    ],
    ids=["quota", "429", "secondary", "Retry-After", "date", "for ever", "nonsense"],
)
def test_a_limit_says_when_to_come_again(
    server: GitHubServer, github: GitHub, mood, seconds: float
) -> None:
    server.moods = [mood()]
    before = time.time()
    with pytest.raises(RateLimitedError, match="rate limited until 20") as caught:
        github.get(releases(github))
    assert caught.value.until == pytest.approx(before + seconds, abs=30)
    assert caught.value.until > before


def test_the_servers_clock_may_be_wrong(server: GitHubServer, github: GitHub) -> None:
    def an_hour_ahead(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(403)
        request.send_header("Date", formatdate(time.time() + 3600, usegmt=True))
        request.send_header("X-RateLimit-Remaining", "0")
        request.send_header("X-RateLimit-Reset", str(int(time.time() + 3600 + 300)))
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.moods = [an_hour_ahead]
    with pytest.raises(RateLimitedError) as caught:
        github.get(releases(github))
    assert caught.value.until == pytest.approx(time.time() + 300, abs=30)


def test_when_the_quota_is_used_up_nothing_more_is_asked(
    server: GitHubServer, github: GitHub
) -> None:
    server.releases = [release(1, "v1.0.0")]
    server.moods = [lambda request: respond(request, 200, [], **limit(0, 600))]
    assert github.get(releases(github)).content == []
    with pytest.raises(RateLimitedError) as caught:
        github.get(releases(github))
    assert caught.value.until == pytest.approx(time.time() + 600, abs=30)
    assert len(server.asked) == 1


def test_the_pause_that_the_server_wants(server: GitHubServer, github: GitHub) -> None:
    server.poll_interval = 120
    assert github.get(releases(github)).poll_seconds == 120.0


def test_nobody_is_there() -> None:
    with (
        GitHub("http://127.0.0.1:9", SecretStr(TOKEN)) as client,
        pytest.raises(UnreachableError, match=r"127\.0\.0\.1 cannot be reached"),
    ):
        client.get(client.address("x"))


def test_time_and_size_are_bounded(server: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        GitHub(server.url, SecretStr(TOKEN), budget=0.0) as late,
        pytest.raises(UnreachableError, match="no time left"),
    ):
        late.get(releases(late))
    assert server.asked == []
    monkeypatch.setattr(github_module, "MOST_BYTES", 1000)
    server.releases = [release(1, "v1.0.0", body="x" * 2000)]
    with (
        GitHub(server.url, SecretStr(TOKEN)) as client,
        pytest.raises(DamagedAnswerError, match="more than 1000 bytes"),
    ):
        client.get(releases(client))
