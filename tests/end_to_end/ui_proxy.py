"""The example of a proxy before the UI, run by a real nginx."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from engines import free_port, wait_until

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
HOST = "ocr.example.org"
USER, PASSWORD = "anna", "correct horse"
FOLDERS = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/sbin", str(Path(sys.prefix, "nginx", "usr", "sbin")))
)


@dataclass
class Proxy:
    """A running nginx, and who trusts its certificate."""

    port: int
    trust: ssl.SSLContext

    def socket(self) -> ssl.SSLSocket:
        """A connection to it as a browser makes one, by its name."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.trust.wrap_socket(plain, server_hostname=HOST)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = HTTPSConnection(HOST, self.port, context=self.trust)
        connection.sock = self.socket()
        kind = {"Content-Type": "application/json"}
        connection.request("POST" if body is not None else "GET", path, body, {**kind, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def answers(self) -> bool:
        """Whether it has started."""
        try:
            return bool(self.ask("/")[0])
        except ConnectionError:
            return False


def authorization(password: str) -> dict[str, str]:
    """What a browser sends for a password."""
    told = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return {"Authorization": f"Basic {told}"}


def adapted(folder: Path, port: int, target: str) -> str:
    """The example with the places of this test, each of which it has once."""
    text = EXAMPLE.read_text()
    for there, here in {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/ocr.example.org.pem": str(folder / "certificate.pem"),
        "/etc/ssl/private/ocr.example.org.key": str(folder / "certificate.key"),
        "/etc/nginx/ocr.htpasswd": str(folder / "ocr.htpasswd"),
        "http://127.0.0.1:3000;": f"{target};",
    }.items():
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    return text


@contextmanager
def proxy_before(target: str, folder: Path) -> Iterator[Proxy]:
    """The example before a UI at this address, with its files in a folder of its own."""
    nginx, openssl = shutil.which("nginx", path=FOLDERS), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("no nginx or openssl is installed (Debian packages of these names)")
    if subprocess.run([nginx, "-v"], capture_output=True).returncode:
        pytest.skip(f"{nginx} does not start here")
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    key = ["-keyout", folder / "certificate.key", "-out", folder / "certificate.pem"]
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subprocess.run([*request, *subject, *key], check=True, capture_output=True)
    passwords = [openssl, "passwd", "-6", "-stdin"]
    hashed = subprocess.run(passwords, input=PASSWORD, check=True, capture_output=True, text=True)
    (folder / "ocr.htpasswd").write_text(f"{USER}:{hashed.stdout}")
    port = free_port()
    (folder / "site.conf").write_text(adapted(folder, port, target))
    (folder / "nginx.conf").write_text(around(folder))
    command = [nginx, "-p", str(folder), "-e", "errors.log", "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command)
    try:
        made = Proxy(port, ssl.create_default_context(cafile=str(folder / "certificate.pem")))
        wait_until("nginx", made.answers)
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)


def around(folder: Path) -> str:
    """What nginx needs beside the example to run without touching the machine."""
    temporary = (
        f"{name}_temp_path {folder / name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    lines = [
        # Its workers may be nobody, who cannot read the folder of a test.
        "user root;" if os.getuid() == 0 else "",
        "daemon off;",
        f"pid {folder / 'pid'};",
        f"error_log {folder / 'errors.log'};",
        "events {}",
        "http {",
        f"access_log {folder / 'access.log'};",
        *temporary,
        f"include {folder / 'site.conf'};",
        "}",
    ]
    return "\n".join(lines)
