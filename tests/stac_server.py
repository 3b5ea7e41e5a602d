"""A STAC API and the files of its scenes over HTTP on loopback, in a process of its own.

It serves a local folder of imagery, and misbehaves as it is told. GDAL holds the interpreter while
it reads, so a server in the process of the test would never answer.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

BUCKET = "imagery"
"""Files are also objects of buckets of this name, for readers of ``s3://``."""


class StacServer:
    """The server as a test sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the STAC server did not start"

    def serve(self, folder: Path, *faults: dict[str, Any], **behaviour: Any) -> str:
        """Start over with a folder and faults; returns the address of the API.

        A fault has ``match``, a regular expression of paths, and may have ``times`` (how often it
        happens, always if missing), ``status``, ``retry_after``, ``seconds`` to wait, ``body`` to
        answer with, ``cut``: how many bytes of the answer are sent.

        Behaviour: ``lie`` (see :func:`lying`), ``page`` (items of a page at most), ``s3`` (items
        have ``s3://`` addresses), ``token`` (needed to read files), ``life`` of a token in
        seconds, ``requester_pays`` (files are read only by requesters that pay).
        """
        self._post("/_control", {"folder": str(folder), "faults": faults, **behaviour})
        return self.url

    def change(self, **behaviour: Any) -> None:
        """Change the behaviour from now on."""
        self._post("/_control", behaviour)

    @property
    def requests(self) -> list[str]:
        """Method and path of each request since the start, those of tests themselves aside."""
        with urlopen(f"{self.url}/_requests", timeout=30) as response:
            found: list[str] = json.load(response)
        return found

    def _post(self, path: str, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        with urlopen(Request(self.url + path, data=data, method="POST"), timeout=30):
            pass

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(timeout=10)


class State:
    """What the server does, shared by its threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.starts = 0
        self.set({"folder": "/nowhere"})

    def set(self, document: dict[str, Any]) -> None:
        with self.lock:
            if "folder" in document:
                self.behaviour: dict[str, Any] = {}
                self.requests: list[str] = []
                self.tokens = 0
                # GDAL remembers files by address, so each start has addresses of its own.
                self.starts += 1
            self.behaviour |= document

    def fault(self, path: str) -> dict[str, Any]:
        """The fault that happens now."""
        with self.lock:
            for fault in self.behaviour.get("faults", ()):
                if re.search(fault["match"], path) and fault.get("times", 1) > 0:
                    if "times" in fault:
                        fault["times"] -= 1
                    return dict(fault)
        return {}


STATE = State()


def lying(lie: str | None, page: Any, item: dict[str, Any]) -> Any:
    """A page of items as a service gives it that does not keep to the interface."""
    if lie == "no list":
        return {"message": "welcome"}
    if lie == "list":
        return [page]
    if lie == "other collection":
        item["collection"] = "landsat-c2-l2"
    elif lie == "other time":
        item["properties"]["datetime"] = "1999-05-05T10:00:00Z"
    elif lie == "no time":
        item["properties"]["datetime"] = None
    elif lie == "no assets":
        item["assets"] = []
    elif lie == "no geometry":
        item["geometry"] = None
    elif lie == "metres":
        item["geometry"]["coordinates"] = [[[5e5, 5e6], [6e5, 5e6], [6e5, 6e6], [5e5, 5e6]]]
    elif lie == "local file":
        for asset in item["assets"].values():
            asset["href"] = "/etc/passwd"
    elif lie == "bad links":
        page["links"] = [{"href": 5}]
    return page


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """A search, or a word of the test."""
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/_control":
            STATE.set(document)
            self._send(b"{}")
        elif self._allowed():
            self._send(json.dumps(self._search(document)).encode())

    def do_GET(self) -> None:
        """A token, a file, or a word of the test."""
        parts = urlsplit(self.path)
        if parts.path == "/_requests":
            self._send(json.dumps(STATE.requests).encode())
        elif not self._allowed():
            pass
        elif parts.path.startswith("/token/"):
            self._send(json.dumps(self._token()).encode())
        else:
            self._file(parts.path, parse_qs(parts.query))

    do_HEAD = do_GET  # noqa: N815

    def _allowed(self) -> bool:
        """Whether the request goes on; a fault may have answered it."""
        with STATE.lock:
            STATE.requests.append(f"{self.command} {self.path}")
        fault = self.fault = STATE.fault(self.path)
        time.sleep(fault.get("seconds", 0))
        if "status" not in fault and "body" not in fault:
            return True
        headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
        self._send(fault.get("body", "").encode(), fault.get("status", 200), headers)
        return False

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            cut = getattr(self, "fault", {}).get("cut")
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

    def _token(self) -> dict[str, str]:
        with STATE.lock:
            STATE.tokens += 1
            token = STATE.behaviour["token"] = f"sig={STATE.tokens}"
            expires = time.gmtime(time.time() + STATE.behaviour.get("life", 3600))
        return {"token": token, "msft:expiry": time.strftime("%Y-%m-%dT%H:%M:%SZ", expires)}

    def _search(self, query: dict[str, Any]) -> Any:
        behaviour = STATE.behaviour
        (collection,) = query["collections"]
        items = json.loads(Path(behaviour["folder"], f"{collection}.json").read_text())["features"]
        if "datetime" in query:
            first, last = query["datetime"].split("/")
            items = [item for item in items if first <= item["properties"]["datetime"] <= last]
        west, south, east, north = bounds(query["intersects"]["coordinates"])
        items = [
            item
            for item in items
            if item["bbox"][0] <= east
            and item["bbox"][2] >= west
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
        ]
        start = query.get("token", 0)
        limit = min(query["limit"], behaviour.get("page", 1000))
        page = {"type": "FeatureCollection", "features": items[start : start + limit], "links": []}
        forever = behaviour.get("lie") == "forever"
        if start + limit < len(items) or forever:
            following = 0 if forever else start + limit
            page["links"] = [
                {
                    "rel": "next",
                    "href": f"http://{self.headers['Host']}/search",
                    "method": "POST",
                    "body": {**query, "token": following},
                }
            ]
        root = f"http://{self.headers['Host']}/files-{STATE.starts}"
        if behaviour.get("s3"):
            root = f"s3://{BUCKET}-{STATE.starts}"
        for item in page["features"]:
            for asset in item["assets"].values():
                asset["href"] = f"{root}/{asset['href']}"
        if not page["features"]:
            return page
        return lying(behaviour.get("lie"), page, page["features"][-1])

    def _file(self, path: str, query: dict[str, list[str]]) -> None:
        behaviour = STATE.behaviour
        token = behaviour.get("token")
        if token is not None and [token.removeprefix("sig=")] != query.get("sig"):
            self._send(b"<Error><Code>AuthenticationFailed</Code></Error>", 403)
            return
        if behaviour.get("requester_pays") and (
            self.headers.get("x-amz-request-payer") != "requester"
            or "Authorization" not in self.headers
        ):
            self._send(
                b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
                403,
                {"Content-Type": "application/xml"},
            )
            return
        place = Path(behaviour["folder"], re.sub(rf"^/(files|{BUCKET})-\d+/", "", path))
        if not place.is_file():
            self._send(b"", 404)
            return
        content = place.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"Accept-Ranges": "bytes"}
        if not wanted:
            self._send(content, 200, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            self._send(b"", 416, {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, headers)


def bounds(coordinates: Any) -> tuple[float, float, float, float]:
    """Bounding box of nested coordinates."""
    if isinstance(coordinates[0], int | float):
        x, y = coordinates[:2]
        return x, y, x, y
    boxes = [bounds(part) for part in coordinates]
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


class Server(ThreadingHTTPServer):
    """Takes no notice of clients that have gone."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing if it was the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> None:
    """Serve until the process is ended."""
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
