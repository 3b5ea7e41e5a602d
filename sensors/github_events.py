"""What happened in a GitHub repository since the last look, each event once.

Belongs here: the cursor, which answers of the API are events, and what each is called. Does not
belong here: what a deployment consists of, or Dagster.

A look is a function of the cursor and of what GitHub says. Repeated from an old cursor it finds the
same events under the same identities, so a tick that was never stored is simply taken again, and a
run key made from the identity keeps a repeated one from running twice.

Identities are made from what is deployed: a release is its tag and number, so that editing its
notes or attaching files to it later is no new event, but moving it to another tag is; a push is a
branch and its head; a pull request is its number and head. Pushes between two looks are one event,
that of the newest head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from resources.github import DamagedAnswerError, GitHub, Page, PassingError
from resources.settings import Settings, SettingsError

Kind = Literal["release", "push", "pull_request"]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]

EVENTS_AT_ONCE = 20
"""Events of one look; the others come with the next."""

MOST_PAGES, PAGE_SIZE = 10, 100
_SEEN_AT_MOST = 2000
"""Releases that the cursor remembers; of older ones the run keys know."""


class CursorError(ValueError):
    """The cursor of a sensor is not one of ours; the message names the mend."""


class _Read(BaseModel):
    """What is read of an answer; the API may say more."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Release(_Read):
    id: int
    tag_name: Annotated[str, Field(min_length=1, max_length=255)]
    draft: bool
    prerelease: bool
    created_at: Annotated[AwareDatetime, Field(strict=False)]
    published_at: Annotated[AwareDatetime, Field(strict=False)] | None = None

    @property
    def when(self) -> datetime:
        return self.published_at or self.created_at


class _Label(_Read):
    name: str


class _Head(_Read):
    sha: Sha


class _PullRequest(_Read):
    number: int
    head: _Head
    labels: list[_Label]


class _Committer(_Read):
    date: Annotated[AwareDatetime, Field(strict=False)]


class _Authorship(_Read):
    committer: _Committer


class _Commit(_Read):
    sha: Sha
    commit: _Authorship


class _Branch(_Read):
    commit: _Commit


class Event(BaseModel):
    """Something that is deployed once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    identity: str
    ref: str
    """Tag, branch, or number of the pull request."""
    commit: str = ""
    version: str | None = None
    """Semantic version that a release names."""


class KnownPage(BaseModel):
    """A page of a list as it was: so a page that has not changed need not be sent again."""

    model_config = ConfigDict(extra="forbid")

    etag: str | None
    next_url: str | None = None
    heads: dict[str, str] = Field(default_factory=dict)
    """Head of each pull request of the page that asks for a deployment, by its number."""


class Cursor(BaseModel):
    """What a sensor remembers from one tick to the next."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1] = 1
    repository: str
    rules: str
    """Settings that decide what counts: under others, unchanged pages have to be read again."""
    since: AwareDatetime
    """What happened before is no event."""
    wait_until: float = 0.0
    """GitHub asked not to be asked before; seconds since 1970."""
    pages: dict[str, KnownPage] = Field(default_factory=dict)
    seen: list[str] = Field(default_factory=list)
    """Identities of releases that are done with."""
    pending: list[Event] = Field(default_factory=list)
    """Releases that were seen, more than fit into one look."""
    heads: dict[str, str] = Field(default_factory=dict)
    """Head of the branch, by its name."""
    launched: dict[str, str] = Field(default_factory=dict)
    """Head for which each pull request was launched, by its number."""

    @classmethod
    def read(cls, text: str | None, settings: Settings, now: float) -> Cursor:
        """The cursor that a tick stored, or a fresh one for a first tick or another repository.

        Raises:
            CursorError: it is damaged, or of a later version.
        """
        rules = settings.model_dump_json(
            include={"github_branch", "github_labels", "github_drafts", "github_prereleases"}
        )
        fresh = cls(
            repository=str(settings.github_repository),
            rules=rules,
            since=settings.github_since or datetime.fromtimestamp(now, UTC),
        )
        if not text:
            return fresh
        try:
            cursor = cls.model_validate_json(text)
        except ValidationError as error:
            raise CursorError(
                f"the cursor is not one of this version ({error.error_count()} problems): reset "
                "it in the UI; what ran already does not run again"
            ) from None
        if cursor.repository != fresh.repository:
            return fresh
        since = settings.github_since or cursor.since
        if (cursor.rules, cursor.since) == (rules, since):
            return cursor
        return cursor.model_copy(update={"rules": rules, "since": since, "pages": {}})

    def waiting(self, until: float) -> Cursor:
        """The same, to be taken up again at that time."""
        return self.model_copy(update={"wait_until": max(self.wait_until, until)})


@dataclass(frozen=True)
class Look:
    """What a look at GitHub found."""

    events: list[Event]
    """To be launched now, and remembered by :attr:`cursor`."""
    cursor: Cursor
    wanted: frozenset[str] | None
    """Identities that still hold of those that come and go; None if not all of them are known."""
    problem: PassingError | None = None
    """Why the look ended early."""
    remarks: list[str] = field(default_factory=list)
    """What was passed over, and why."""
    poll_seconds: float = 0.0


def look_at_releases(github: GitHub, cursor: Cursor, settings: Settings) -> Look:
    """Releases that were published."""
    url = github.address("repos", *cursor.repository.split("/"), "releases", per_page=PAGE_SIZE)
    walk = _Walk(github, url, cursor, lambda page: [*_items(page, _Release)])
    seen = dict.fromkeys(cursor.seen)
    pending = {event.identity: event for event in cursor.pending}
    remarks = []
    found = [release for releases in walk.read.values() for release in releases]
    for release in sorted(found, key=lambda release: (release.when, release.id)):
        identity = f"release/{cursor.repository}@{release.tag_name}#{release.id}"
        if identity in seen or identity in pending or not _counts(release, cursor, settings):
            continue
        version = _semantic_version(release.tag_name, settings)
        if version is None:
            remarks.append(f"release {release.tag_name!r} is not a semantic version")
            seen[identity] = None
            continue
        pending[identity] = Event(
            kind="release", identity=identity, ref=release.tag_name, version=version
        )
    events = list(pending.values())[:EVENTS_AT_ONCE]
    seen |= dict.fromkeys(event.identity for event in events)
    after = walk.cursor.model_copy(
        update={
            "seen": list(seen)[-_SEEN_AT_MOST:],
            "pending": list(pending.values())[EVENTS_AT_ONCE:],
        }
    )
    return Look(events, after, None, walk.problem, remarks, walk.poll_seconds)


def look_at_branch(github: GitHub, cursor: Cursor, settings: Settings) -> Look:
    """The newest push to the branch."""
    branch = settings.github_branch
    url = github.address("repos", *cursor.repository.split("/"), "branches", branch)
    walk = _Walk(github, url, cursor, lambda page: _valid(page, _Branch))
    found = next(iter(walk.read.values()), None)
    before = cursor.heads.get(branch)
    head = found.commit.sha if found else before
    events = []
    if found and head != before and (before or _is_new(found, cursor)):
        identity = _push_identity(cursor.repository, branch, found.commit.sha)
        events.append(Event(kind="push", identity=identity, ref=branch, commit=found.commit.sha))
    if head is None:
        return Look(events, walk.cursor, None, walk.problem, poll_seconds=walk.poll_seconds)
    wanted = frozenset({_push_identity(cursor.repository, branch, head)})
    return Look(
        events,
        walk.cursor.model_copy(update={"heads": {branch: head}}),
        None if walk.problem else wanted,
        walk.problem,
        poll_seconds=walk.poll_seconds,
    )


def look_at_pull_requests(github: GitHub, cursor: Cursor, settings: Settings) -> Look:
    """Open pull requests to the branch that have one of the labels."""
    url = github.address(
        "repos",
        *cursor.repository.split("/"),
        "pulls",
        state="open",
        base=settings.github_branch,
        sort="created",
        direction="asc",
        per_page=PAGE_SIZE,
    )
    labels = set(settings.github_labels)

    def heads(page: Page) -> dict[str, str]:
        return {
            str(item.number): item.head.sha
            for item in _items(page, _PullRequest)
            if labels & {label.name for label in item.labels}
        }

    walk = _Walk(github, url, cursor, heads)
    pages = dict(walk.cursor.pages)
    for page_url, read in walk.read.items():
        pages[page_url] = pages[page_url].model_copy(update={"heads": read})
    wanted: dict[str, str] = {}
    for page_url in walk.urls:
        wanted |= pages[page_url].heads
    new = {number: sha for number, sha in wanted.items() if cursor.launched.get(number) != sha}
    now = dict(list(new.items())[:EVENTS_AT_ONCE])
    complete = walk.problem is None
    # Of a list that is not known to its end, what was not found may still be there.
    before = {
        number: sha for number, sha in cursor.launched.items() if number in wanted or not complete
    }
    events = [
        Event(
            kind="pull_request",
            identity=_pull_identity(cursor.repository, number, sha),
            ref=number,
            commit=sha,
        )
        for number, sha in now.items()
    ]
    after = walk.cursor.model_copy(update={"pages": pages, "launched": before | now})
    identities = frozenset(
        _pull_identity(cursor.repository, number, sha) for number, sha in wanted.items()
    )
    return Look(
        events,
        after,
        identities if complete else None,
        walk.problem,
        poll_seconds=walk.poll_seconds,
    )


class _Walk[T]:
    """The pages of a list up to its end, or up to a problem that will pass."""

    def __init__(self, github: GitHub, url: str, cursor: Cursor, read: Callable[[Page], T]) -> None:
        self.urls: list[str] = []
        self.read: dict[str, T] = {}
        """What the pages say that have changed, by address."""
        self.problem: PassingError | None = None
        self.poll_seconds = 0.0
        pages: dict[str, KnownPage] = {}
        known = {url: (page.etag, page.next_url) for url, page in cursor.pages.items()}
        try:
            for page in github.pages(url, known, MOST_PAGES):
                if not page.unchanged:
                    self.read[page.url] = read(page)
                old = cursor.pages.get(page.url)
                pages[page.url] = KnownPage(
                    etag=page.etag,
                    next_url=page.next_url,
                    heads=old.heads if old and page.unchanged else {},
                )
                self.urls.append(page.url)
                self.poll_seconds = max(self.poll_seconds, page.poll_seconds)
        except PassingError as error:
            self.problem = error
            pages = cursor.pages | pages
        self.cursor = cursor.model_copy(update={"pages": pages, "wait_until": 0.0})


def _items[M: _Read](page: Page, model: type[M]) -> Iterator[M]:
    if not isinstance(page.content, list):
        raise DamagedAnswerError("a list was expected")
    for item in page.content:
        yield _checked(item, model)


def _valid[M: _Read](page: Page, model: type[M]) -> M:
    return _checked(page.content, model)


def _checked[M: _Read](item: Any, model: type[M]) -> M:
    try:
        return TypeAdapter(model).validate_python(item)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedAnswerError(
            f"an answer is not of the form that the API promises: {where}: {first['msg']}"
        ) from None


def _counts(release: _Release, cursor: Cursor, settings: Settings) -> bool:
    """Whether a release is meant to be deployed."""
    if release.draft and not settings.github_drafts:
        return False
    if release.prerelease and not settings.github_prereleases:
        return False
    return release.when >= cursor.since


def _is_new(branch: _Branch, cursor: Cursor) -> bool:
    """Whether the head that a first look finds came after the beginning of all events."""
    return branch.commit.commit.committer.date >= cursor.since


def _semantic_version(tag: str, settings: Settings) -> str | None:
    try:
        return settings.changed(version=tag).version
    except SettingsError:
        return None


def _push_identity(repository: str, branch: str, sha: str) -> str:
    return f"push/{repository}@{branch}/{sha}"


def _pull_identity(repository: str, number: str, sha: str) -> str:
    return f"pull_request/{repository}#{number}@{sha}"
