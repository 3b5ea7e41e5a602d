"""A Slack-compatible webhook on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "SECRET_OF_THE_WEBHOOK"


@dataclass
class WebhookServer:
    """Keeps what it is told; ``answers`` are the next statuses, with headers."""

    told: list[dict[str, Any]] = field(default_factory=list)
    """Messages that were taken."""
    refused: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def text(self) -> str:
        """All that the messages say."""
        return "\n".join(
            "\n".join([message["text"], *(block["text"]["text"] for block in message["blocks"])])
            for message in self.told
        )

    @contextmanager
    def running(self) -> Iterator[WebhookServer]:
        """Serve on a free port, under an address that is secret."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers = outer.answers.pop(0) if outer.answers else (200, {})
                if status == 200:
                    outer.told.append(body)
                else:
                    outer.refused += 1
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/services/{SECRET}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
