"""Fixtures for what talks to storage."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from resources.storage import Storage

if TYPE_CHECKING:
    from resources.icechunk_store import RegionStore


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage: a local folder, then an S3 bucket under a prefix."""
    if request.param == "local":
        return Storage(str(tmp_path / "root"))
    bucket: Storage = request.getfixturevalue("s3_bucket")
    return bucket.child("some/prefix")


@pytest.fixture
def store(storage: Storage) -> RegionStore:
    """An initialised, empty store of regions."""
    from region_stores import make_template

    from resources.icechunk_store import RegionStore

    store = RegionStore(storage.child("region-risk"), "qa")
    store.initialize(make_template())
    return store


class FlakyServer:
    """Stands before the S3 server and answers, forwards, or loses requests as ``fault`` says.

    ``fault(method, path)`` returns None to forward, ``"refuse"`` to answer 503 without forwarding,
    or ``"lose"`` to forward and then close the connection without an answer.
    """

    def __init__(self, upstream: str) -> None:
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        outer, target = self, urlsplit(upstream)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                fault = outer.fault(self.command, self.path)
                if fault == "refuse":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                assert target.hostname is not None
                connection = http.client.HTTPConnection(target.hostname, target.port)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if fault == "lose":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def flaky_server(s3_server: str) -> Iterator[FlakyServer]:
    """A server before the S3 server whose faults a test decides."""
    flaky = FlakyServer(s3_server)
    yield flaky
    flaky.server.shutdown()
    flaky.server.server_close()
