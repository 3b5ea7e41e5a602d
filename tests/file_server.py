"""An HTTP server on loopback for tests of downloads."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves ``files`` by path, with ranges and entity tags.

    ``cuts`` holds, for the next answers, after how many bytes to break off; ``codes`` the status
    codes to answer with instead. ``requests`` are those for content, with their ranges; ``looks``
    those for headers alone. ``dates`` is the time of the last change that every answer tells.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.codes: list[int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.looks: list[str] = []
        self.tags = True
        self.dates = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self, head=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler, *, head: bool = False) -> None:
        wanted = request.headers.get("Range")
        if head:
            self.looks.append(request.path)
        else:
            self.requests.append((request.path, wanted))
        content = self.files.get(request.path)
        code = 200 if content is not None else 404
        if self.codes and not head:
            code = self.codes.pop(0)
        if code != 200 or content is None:
            request.send_response(code)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and request.headers.get("If-Range") in (tag, self.dates):
            found = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert found
            start = int(found[1])
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        body = content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if self.tags:
            request.send_header("ETag", tag)
        if self.dates:
            request.send_header("Last-Modified", self.dates)
        request.end_headers()
        if head:
            return
        if self.cuts:
            request.wfile.write(body[: self.cuts.pop(0)])
            request.close_connection = True
        else:
            request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
