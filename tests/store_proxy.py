"""A proxy on loopback before an object store: it notes signatures, and holds a request back."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class StoreProxy:
    """Forwards GET and HEAD requests.

    ``signed`` tells of each request whether it was. A GET whose path holds ``held`` is answered
    once ``release`` is set; ``waiting`` is set when the first one is there.
    """

    def __init__(self, upstream: str) -> None:
        self.signed: list[bool] = []
        self.held: str | None = None
        self.waiting, self.release = threading.Event(), threading.Event()
        outer, target = self, urlsplit(upstream)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.signed.append("Authorization" in self.headers)
                if outer.held and self.command == "GET" and outer.held in self.path:
                    outer.waiting.set()
                    outer.release.wait(timeout=300)
                assert target.hostname is not None
                connection = http.client.HTTPConnection(target.hostname, target.port)
                connection.request(self.command, self.path, headers=dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = answer.headers.get("Content-Length", str(len(data)))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(data)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
