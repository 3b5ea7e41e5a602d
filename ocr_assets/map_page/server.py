"""A small HTTP server for the map page: its files, its settings, and archives by byte range.

Belongs here: what a browser may ask for and how it is answered. Does not belong here: where an
archive is kept (a storage says so), what is in it, and how the page looks.

The server answers on loopback and knows its files by name: no path of a request ever reaches the
file system. Everything the page needs comes from here, so it works without any other address.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ocr_assets.map_page.ranges import UnsatisfiableRangeError, requested_range
from ocr_assets.map_page.subject import PageSubject
from resources.storage import ObjectInfo, Storage

ARCHIVE_NAMES = ("buildings", "building_centroids", "regions")
"""Archives that the page can show, by the name of their file without its suffix."""

_LOOPBACK = {"127.0.0.1", "localhost"}

_PAGE = Path(__file__).parent
_PAGE_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/map.js": ("map.js", "text/javascript; charset=utf-8"),
    "/layers.js": ("layers.js", "text/javascript; charset=utf-8"),
    "/panel.js": ("panel.js", "text/javascript; charset=utf-8"),
    "/pictures.js": ("pictures.js", "text/javascript; charset=utf-8"),
    "/pmtiles.js": ("pmtiles.js", "text/javascript; charset=utf-8"),
}
_LIBRARY_FILES = {
    "/library/maplibre-gl.js": ("maplibre-gl.js", "text/javascript; charset=utf-8"),
    "/library/maplibre-gl.css": ("maplibre-gl.css", "text/css; charset=utf-8"),
}

# MapLibre starts its workers from a blob and draws its own icons from data addresses.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_PIECE = 1 << 20

_PICTURE = re.compile(r"/pictures/([a-z0-9-]{1,40})/(\d{1,2})/(\d{1,8})/(\d{1,8})\.png", re.ASCII)


class MapPageError(RuntimeError):
    """The map page cannot be served."""


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """An archive under a key of a storage, read in pieces; a new one is noticed at once."""

    storage: Storage
    key: str

    def info(self) -> ObjectInfo | None:
        """Its size and entity tag now, None if it is gone."""
        return self.storage.head(self.key)

    def read_range(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on, or fewer at its end."""
        return self.storage.read_range(self.key, start, length)


class PictureSource(Protocol):
    """A raster that the map shows below everything else."""

    def describe(self) -> dict[str, Any]:
        """Title, bounds in degrees, highest zoom, and legend, for the page."""

    def piece(self, zoom: int, x: int, y: int) -> bytes | None:
        """PNG of a piece in the XYZ scheme; None where the raster is not.

        Raises:
            RasterioError: the raster is gone, or cannot be read.
        """


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What the page says about its data.

    Attributes:
        title: heading of the page.
        subject: what is shown.
        environment: deployment environment the archives belong to.
        version: version of the data, empty if there is none.
        attribution: sources of the data, one line each.
        notice: a warning shown above the map, such as that the data are synthetic; may be empty.
    """

    title: str
    subject: PageSubject
    environment: str
    version: str = ""
    attribution: tuple[str, ...] = ()
    notice: str = ""


class MapServer(ThreadingHTTPServer):
    """Serves the map page of some archives.

    Args:
        archives: name of the archive, one of :data:`ARCHIVE_NAMES`, to its bytes.
        settings: what the page says about them.
        pictures: rasters to show below them, by a short name.
        host: address to listen on, this machine only by default.
        port: 0 takes a free one; :attr:`url` says which.

    Raises:
        MapPageError: nothing to show, an unknown archive, or the map library is not installed.
        OSError: the address is taken.
    """

    daemon_threads = True

    def __init__(
        self,
        archives: Mapping[str, StoredArchive],
        settings: PageSettings,
        host: str = "127.0.0.1",
        port: int = 0,
        pictures: Mapping[str, PictureSource] | None = None,
    ) -> None:
        self.pictures = dict(pictures or {})
        if not archives and not self.pictures:
            raise MapPageError("there is no archive to show. Make the vector tiles first.")
        if unknown := sorted(set(archives) - set(ARCHIVE_NAMES)):
            raise MapPageError(
                f"no archive is called {unknown[0]!r}; known are {', '.join(ARCHIVE_NAMES)}."
            )
        self.archives = {f"/tiles/{name}.pmtiles": archives[name] for name in archives}
        shown = {name: f"tiles/{name}.pmtiles" for name in ARCHIVE_NAMES if name in archives}
        drawn = [
            {"id": name, "tiles": f"pictures/{name}/{{z}}/{{x}}/{{y}}.png", **source.describe()}
            for name, source in self.pictures.items()
        ]
        document = json.dumps(asdict(settings) | {"archives": shown, "pictures": drawn}).encode()
        self.documents = {"/config.json": (document, "application/json")}
        library = _library_folder()
        for folder, files in ((_PAGE, _PAGE_FILES), (library, _LIBRARY_FILES)):
            for address, (name, kind) in files.items():
                self.documents[address] = ((folder / name).read_bytes(), kind)
        self.loopback_only = host in _LOOPBACK
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that moves on drops its requests, which is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """Address of the page."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve in a thread while the context lasts; gives the address of the page."""
        thread = threading.Thread(target=partial(self.serve_forever, poll_interval=0.05))
        thread.start()
        try:
            yield self.url
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


def _library_folder() -> Path:
    """Where the Python package ``maplibre`` keeps MapLibre GL; it is not imported, only found."""
    package = importlib.util.find_spec("maplibre")
    for place in (package and package.submodule_search_locations) or []:
        folder = Path(place) / "srcjs"
        if all((folder / name).is_file() for name, _ in _LIBRARY_FILES.values()):
            return folder
    raise MapPageError("MapLibre GL was not found. Install the Python package 'maplibre'.")


class _Handler(BaseHTTPRequestHandler):
    server: MapServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks for hundreds of ranges a minute."""

    def version_string(self) -> str:
        return "ocr-map"

    def _answer(self, *, with_body: bool) -> None:
        if not self._host_allowed():
            self._refuse(HTTPStatus.FORBIDDEN, "This server answers to its own address only.")
            return
        address = unquote(urlsplit(self.path).path)
        if archive := self.server.archives.get(address):
            self._send_archive(archive, with_body)
        elif (found := _PICTURE.fullmatch(address)) and found[1] in self.server.pictures:
            self._send_piece(self.server.pictures[found[1]], *map(int, found.groups()[1:]))
        elif document := self.server.documents.get(address):
            content, kind = document
            # The page and its archives change with the installed version and with every run.
            self._head(HTTPStatus.OK, len(content), kind, {"Cache-Control": "no-cache"})
            if with_body:
                self.wfile.write(content)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing under this address.")

    def _host_allowed(self) -> bool:
        """Refuse foreign names that point to this machine: another site could read the data."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return not self.server.loopback_only or host in _LOOPBACK

    def _send_archive(self, archive: StoredArchive, with_body: bool) -> None:
        info = archive.info()
        if info is None:
            self._refuse(HTTPStatus.NOT_FOUND, "The archive is gone.")
            return
        size, etag = info.size, f'"{(info.etag or f"{info.size:x}").strip(chr(34))}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
        if etag in _tags(self.headers.get("If-None-Match", "")):
            self._head(HTTPStatus.NOT_MODIFIED, None, None, headers)
            return
        wanted = self.headers.get("Range")
        if self.headers.get("If-Range", etag) != etag:
            wanted = None
        try:
            part = requested_range(wanted, size)
        except UnsatisfiableRangeError:
            headers["Content-Range"] = f"bytes */{size}"
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, None, headers)
            return
        start, end = part or (0, size)
        if part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        self._head(status, end - start, "application/vnd.pmtiles", headers)
        while with_body and start < end:
            piece = archive.read_range(start, min(_PIECE, end - start))
            if not piece:
                # The archive became shorter: ending the connection tells the browser so.
                self.close_connection = True
                return
            self.wfile.write(piece)
            start += len(piece)

    def _send_piece(self, source: PictureSource, zoom: int, x: int, y: int) -> None:
        from rasterio.errors import RasterioError

        try:
            content = source.piece(zoom, x, y)
        except RasterioError:
            self._refuse(HTTPStatus.NOT_FOUND, "The picture is gone.")
            return
        if content is None:
            # The map takes this for an empty piece, without an error in the browser's log.
            self._head(HTTPStatus.NO_CONTENT, None, None, {"Cache-Control": "no-cache"})
            return
        self._head(HTTPStatus.OK, len(content), "image/png", {"Cache-Control": "no-cache"})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        content = f"{reason}\n".encode()
        self._head(status, len(content), "text/plain; charset=utf-8", {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(
        self, status: HTTPStatus, length: int | None, kind: str | None, more: Mapping[str, str]
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **more,
        }
        if kind:
            headers["Content-Type"] = kind
        if length is not None:
            headers["Content-Length"] = str(length)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
