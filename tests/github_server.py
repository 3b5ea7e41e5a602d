"""The part of the GitHub API that sensors use, on loopback, with its moods."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

TOKEN = "github_pat_TOKEN_THAT_NOBODY_MAY_SEE"
REPOSITORY = "owner/climate"
WHEN = "2026-03-01T12:00:00Z"


def sha(number: int) -> str:
    """A commit that stands for a number."""
    return hashlib.sha1(str(number).encode()).hexdigest()


def release(id_: int, tag: str, published: str | None = WHEN, **more: Any) -> dict[str, Any]:
    """A release as the API gives it."""
    return {
        "id": id_,
        "tag_name": tag,
        "name": f"Release {tag}",
        "body": "",
        "draft": published is None,
        "prerelease": False,
        "created_at": published or WHEN,
        "published_at": published,
        "assets": [],
        **more,
    }


def pull(number: int, head: str, *labels: str) -> dict[str, Any]:
    """A pull request as the API gives it."""
    return {
        "number": number,
        "state": "open",
        "title": f"Change {number}",
        "head": {"sha": head, "ref": f"change-{number}"},
        "base": {"ref": "main"},
        "labels": [{"id": 1, "name": label} for label in labels],
    }


@dataclass
class Asked:
    """A request and what became of it."""

    path: str
    etag: str | None
    token: str | None
    status: int


@dataclass
class GitHubServer:
    """Releases, branches and pull requests of one repository.

    ``moods`` are taken by the next requests, one each: a function that answers instead.
    """

    releases: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    heads: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Head of each branch, and when it was committed."""
    page_size: int | None = None
    """Items on a page, where the server gives fewer than it is asked for."""
    link_always: bool = True
    """Whether an answer without content names the next page too."""
    poll_interval: int | None = None
    quota: int = 5000
    moods: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answering: Callable[[str], None] = lambda path: None
    """Called with the path before an answer is sent."""
    answered: Callable[[str], None] = lambda path: None
    """Called with the path when an answer has been sent."""
    url: str = ""

    def push(self, head: str, when: str = WHEN, branch: str = "main") -> None:
        """Move a branch."""
        self.heads[branch] = (head, when)

    def statuses(self) -> list[int]:
        """Status of every answer, and forget them."""
        found = [one.status for one in self.asked]
        self.asked.clear()
        return found

    @contextmanager
    def running(self) -> Iterator[GitHubServer]:
        """Serve on a free port."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer._answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass  # Clients are killed on purpose.

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        asked = Asked(request.path, request.headers.get("If-None-Match"), token, 0)
        self.asked.append(asked)
        if self.moods:
            asked.status = -1
            self.moods.pop(0)(request)
            return
        status, content, headers = self._serve(request, asked)
        asked.status = status
        self.answering(request.path)
        respond(request, status, content, **headers)
        self.answered(request.path)

    def _serve(
        self, request: BaseHTTPRequestHandler, asked: Asked
    ) -> tuple[int, Any, dict[str, str]]:
        if asked.token != TOKEN:
            return 401, {"message": "Bad credentials"}, {}
        if self.quota <= 0:
            return 403, {"message": "API rate limit exceeded"}, limit(0, 30)
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = self._content(unquote(parts.path), query)
        if found is None:
            return 404, {"message": "Not Found"}, {}
        content, following = found
        body = json.dumps(content).encode()
        etag = f'W/"{hashlib.sha256(body + asked.token.encode()).hexdigest()}"'
        headers = {"ETag": etag, **limit(self.quota, 3600)}
        if self.poll_interval is not None:
            headers["X-Poll-Interval"] = str(self.poll_interval)
        unchanged = asked.etag == etag
        if following and (self.link_always or not unchanged):
            address = f"{self.url}{parts.path}?{urlencode({**query, 'page': following})}"
            headers["Link"] = f'<{address}>; rel="next", <{address}>; rel="last"'
        if unchanged:
            return 304, None, headers
        self.quota -= 1
        return 200, content, headers

    def _content(self, path: str, query: dict[str, str]) -> tuple[Any, int | None] | None:
        prefix = f"/repos/{REPOSITORY}/"
        if not path.startswith(prefix):
            return None
        what = path.removeprefix(prefix)
        if what == "releases":
            return self._page(self.releases, query)
        if what == "pulls":
            base = query["base"]
            return self._page([one for one in self.pulls if one["base"]["ref"] == base], query)
        branch = what.removeprefix("branches/")
        if branch not in self.heads:
            return None
        head, when = self.heads[branch]
        commit = {"sha": head, "commit": {"committer": {"name": "A", "date": when}}}
        return {"name": branch, "commit": commit, "protected": True}, None

    def _page(
        self, items: list[dict[str, Any]], query: dict[str, str]
    ) -> tuple[list[dict[str, Any]], int | None]:
        size = self.page_size or int(query.get("per_page", 30))
        page = int(query.get("page", 1))
        more = page * size < len(items)
        return items[(page - 1) * size : page * size], page + 1 if more else None


def limit(remaining: int, seconds: float) -> dict[str, str]:
    """Headers of the quota, which is full again in so many seconds."""
    return {
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(time.time() + seconds)),
    }


def respond(request: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
    """Send an answer."""
    body = b"" if content is None else json.dumps(content).encode()
    request.send_response_only(status)
    request.send_header("Date", formatdate(usegmt=True))
    for name, value in headers.items():
        request.send_header(name, value)
    if status != 304:
        request.send_header("Content-Type", "application/json; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
    request.wfile.flush()


Mood = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, message: str = "", **headers: str) -> Mood:
    """A mood: answer with this status."""

    def mood(request: BaseHTTPRequestHandler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        respond(request, status, {"message": message}, **named)

    return mood


def breaks_off(request: BaseHTTPRequestHandler) -> None:
    """A mood: promise more than is sent."""
    request.send_response_only(200)
    request.send_header("Content-Length", "1000")
    request.send_header("ETag", '"never whole"')
    request.end_headers()
    request.wfile.write(b'[{"id": 1, "tag_na')
    request.close_connection = True


def chatters(body: bytes) -> Mood:
    """A mood: send something that is not what the API promises."""

    def mood(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"nonsense"')
        request.end_headers()
        request.wfile.write(body)

    return mood


def hangs_up(request: BaseHTTPRequestHandler) -> None:
    """A mood: close the connection without an answer."""
    request.close_connection = True
