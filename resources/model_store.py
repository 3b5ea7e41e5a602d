"""Recognition models on this machine: which there are, where from, and whether they are whole.

Belongs here: the catalogue of known models, finding, fetching and verifying them. Does not belong
here: what a model needs and gives (see ``ocr_assets.volumes.models``), running it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote

from ocr_assets.volumes.models import CONFIG_NAME, TRAINEDDATA_SUFFIX
from resources.atomic import write_atomic
from resources.downloads import DownloadError, download, read_url
from resources.manifest import sha256_file

HUB_URL = "https://huggingface.co"
TESSDATA_URL = "https://github.com/tesseract-ocr/tessdata_fast/raw/4.1.0"

TESSDATA_FOLDERS = (
    Path("/usr/share/tesseract-ocr/5/tessdata"),
    Path("/usr/share/tesseract-ocr/4.00/tessdata"),
    Path("/usr/share/tessdata"),
    Path("/usr/local/share/tessdata"),
    Path("/opt/homebrew/share/tessdata"),
)
"""Where system packages put `*.traineddata` files."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NEEDED_FILES = re.compile(r".*\.(json|onnx|onnx\.data|txt|md)|LICENSE.*", re.IGNORECASE)
_RECORD_SUFFIX = ".fetched.json"


class MissingModelError(LookupError):
    """A model that is not on this machine; the message says how to get it."""


class DamagedModelError(RuntimeError):
    """A model whose files are not those that were fetched."""


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that can be fetched by its name.

    ``sha256`` is that of a `*.traineddata` file; files of a hub repository are checked against the
    hashes that the hub lists. ``package`` is the Debian package that brings the model too.
    """

    name: str
    description: str
    licence: str
    url: str | None = None
    sha256: str | None = None
    package: str | None = None
    repository: str | None = None


CATALOGUE = (
    CatalogueEntry(
        "bod",
        "Printed Tibetan, Tesseract LSTM",
        "Apache-2.0",
        url=f"{TESSDATA_URL}/bod.traineddata",
        sha256="1aab1db8dae337dfc8fa0f94a1c137c47e4c7857c3e6b30093ec726cef912a0b",
        package="tesseract-ocr-bod",
    ),
    CatalogueEntry(
        "dzo",
        "Printed Dzongkha, Tesseract LSTM",
        "Apache-2.0",
        url=f"{TESSDATA_URL}/dzo.traineddata",
        sha256="364d244fad3f8d4438c9f7ee7642b9b876a4620cf76c0115619b979d6bfef1fa",
        package="tesseract-ocr-dzo",
    ),
    CatalogueEntry(
        "Woodblock-Stacks",
        "Woodblock prints, BDRC network of letter stacks",
        "see the repository's model card",
        repository="BDRC/Woodblock",
    ),
    CatalogueEntry(
        "PhotiLines",
        "Lines on a page, BDRC segmentation network",
        "see the repository's model card",
        repository="BDRC/PhotiLines_v2",
    ),
    CatalogueEntry(
        "Photi",
        "Page layout, BDRC segmentation network",
        "see the repository's model card",
        repository="BDRC/Photi-v2",
    ),
)


@dataclass(frozen=True)
class ModelStatus:
    """A model in a list: ``fetched`` into the store, found on the ``system``, or ``missing``."""

    name: str
    state: Literal["fetched", "system", "missing"]
    path: Path | None
    description: str
    licence: str


class ModelStore:
    """A folder of models, with those of system packages behind it.

    Args:
        root: the folder. A model is a folder or a `*.traineddata` file there, under its name.
        tessdata_folders: where else to look for `*.traineddata` files.
        hub_url: a model hub with the interface of Hugging Face.
    """

    def __init__(
        self,
        root: Path,
        *,
        tessdata_folders: tuple[Path, ...] = TESSDATA_FOLDERS,
        hub_url: str = HUB_URL,
    ) -> None:
        self._root = root
        self._tessdata_folders = tessdata_folders
        self._hub_url = hub_url.rstrip("/")

    def find(self, name: str) -> Path:
        """The folder or `*.traineddata` file of a model.

        Raises:
            MissingModelError: it is not on this machine.
        """
        found = self._locate(name)
        if found is None:
            raise MissingModelError(self._how_to_get(name))
        return found[0]

    def list(self) -> list[ModelStatus]:
        """The models of the catalogue, and others that were put into the store."""
        known = {entry.name: entry for entry in CATALOGUE}
        others: set[str] = set()
        if self._root.is_dir():
            for path in self._root.iterdir():
                if path.suffix == TRAINEDDATA_SUFFIX:
                    others.add(path.stem)
                elif (path / CONFIG_NAME).is_file():
                    others.add(path.name)
        statuses = []
        for name in [*known, *sorted(others - set(known))]:
            entry = known.get(name) or CatalogueEntry(name, "", "")
            found = self._locate(name)
            statuses.append(
                ModelStatus(
                    name,
                    found[1] if found else "missing",
                    found[0] if found else None,
                    entry.description,
                    entry.licence,
                )
            )
        return statuses

    def fetch(self, name: str, source: str | None = None) -> Path:
        """Bring a model into the store; one that is there already is fetched again.

        Args:
            name: the name to keep it under.
            source: a `*.traineddata` URL, a hub repository ``owner/name``, or a local folder or
                `*.traineddata` file. Without it, the catalogue says where from; a file of a system
                package with the right hash is copied rather than downloaded.

        Raises:
            MissingModelError: no source is given and the catalogue does not have the name.
            DownloadError: the source cannot be fetched or gives other bytes than expected.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a model name: use letters, digits, '.', '_' and '-'")
        if source is None:
            return self._fetch_known(name)
        if source.startswith(("http://", "https://")):
            if not source.endswith(TRAINEDDATA_SUFFIX):
                raise DownloadError(f"{source} does not end in {TRAINEDDATA_SUFFIX}")
            return self._fetch_file(name, source, None)
        local = Path(source)
        if local.exists():
            return self._copy(name, local)
        if _REPOSITORY.fullmatch(source):
            return self._fetch_repository(name, source)
        raise DownloadError(
            f"{source!r} is not a source: give a URL of a *{TRAINEDDATA_SUFFIX} file, a hub "
            "repository owner/name, or an existing local path"
        )

    def verify(self, name: str) -> dict[str, str]:
        """Compare a model's files with what was fetched, or with the catalogue.

        Returns:
            SHA-256 of each file by its name.

        Raises:
            MissingModelError: it is not on this machine.
            DamagedModelError: a file is missing or has other bytes.
        """
        path = self.find(name)
        found = _hashes(path)
        record = self._record(name)
        entry = next((entry for entry in CATALOGUE if entry.name == name), None)
        if path.is_relative_to(self._root) and record.is_file():
            expected: dict[str, str] = json.loads(record.read_text("utf-8"))["files"]
        elif entry is not None and entry.sha256 is not None:
            expected = {path.name: entry.sha256}
        else:
            expected = {}
        for file, sha256 in expected.items():
            if found.get(file) != sha256:
                raise DamagedModelError(
                    f"model {name!r}: {path if path.is_file() else path / file} has SHA-256 "
                    f"{found.get(file, 'none, it is missing')}, expected {sha256}; "
                    f"fetch the model again"
                )
        return found

    def _locate(self, name: str) -> tuple[Path, Literal["fetched", "system"]] | None:
        if not _NAME.fullmatch(name):
            return None
        folder = self._root / name
        if (folder / CONFIG_NAME).is_file():
            return folder, "fetched"
        file = self._root / f"{name}{TRAINEDDATA_SUFFIX}"
        if file.is_file():
            return file, "fetched"
        for tessdata in self._tessdata_folders:
            if (tessdata / file.name).is_file():
                return tessdata / file.name, "system"
        return None

    def _how_to_get(self, name: str) -> str:
        entry = next((entry for entry in CATALOGUE if entry.name == name), None)
        places = f"it is neither in {self._root} nor in a system folder of Tesseract"
        if entry is None:
            return (
                f"there is no model {name!r}: {places}; fetch it with "
                f"`ocr models fetch {name} --source URL-or-repository`, or copy a BDRC "
                f"model folder to {self._root / name}"
            )
        package = f", or install the package {entry.package}" if entry.package else ""
        return f"model {name!r} is missing: {places}; run `ocr models fetch {name}`{package}"

    def _fetch_known(self, name: str) -> Path:
        entry = next((entry for entry in CATALOGUE if entry.name == name), None)
        if entry is None:
            raise MissingModelError(self._how_to_get(name))
        if entry.repository is not None:
            return self._fetch_repository(name, entry.repository)
        for tessdata in self._tessdata_folders:
            file = tessdata / f"{name}{TRAINEDDATA_SUFFIX}"
            if file.is_file() and sha256_file(file) == entry.sha256:
                return self._copy(name, file)
        if entry.url is None:
            raise MissingModelError(self._how_to_get(name))
        return self._fetch_file(name, entry.url, entry.sha256)

    def _fetch_file(self, name: str, url: str, sha256: str | None) -> Path:
        target = self._root / f"{name}{TRAINEDDATA_SUFFIX}"
        found = download(url, target, sha256=sha256)
        self._write_record(name, url, {target.name: found})
        return target

    def _fetch_repository(self, name: str, repository: str) -> Path:
        """Fetch the files of a hub repository that a model needs; the configuration comes last."""
        listing = f"{self._hub_url}/api/models/{quote(repository)}/tree/main"
        try:
            files = [
                entry
                for entry in json.loads(read_url(listing))
                if entry["type"] == "file" and _NEEDED_FILES.fullmatch(entry["path"])
            ]
            files.sort(key=lambda entry: (entry["path"] == CONFIG_NAME, entry["path"]))
            expected = {
                entry["path"]: (entry.get("lfs", {}).get("oid"), int(entry["size"]))
                for entry in files
            }
        except (ValueError, KeyError, TypeError) as error:
            raise DownloadError(f"{listing} is not a list of files ({error})") from error
        if CONFIG_NAME not in expected:
            raise DownloadError(
                f"hub repository {repository} has no {CONFIG_NAME}; give the repository of a model "
                "that is ready to use"
            )
        folder = self._root / name
        found = {}
        for path, (sha256, size) in expected.items():
            if "/" in path or path.startswith("."):
                continue
            url = f"{self._hub_url}/{quote(repository)}/resolve/main/{quote(path)}"
            found[path] = download(url, folder / path, sha256=sha256, size=size)
        self._write_record(name, f"{self._hub_url}/{repository}", found)
        return folder

    def _copy(self, name: str, source: Path) -> Path:
        if source.is_file():
            target = self._root / f"{name}{TRAINEDDATA_SUFFIX}"
            pairs = [(source, target)]
        else:
            if not (source / CONFIG_NAME).is_file():
                raise DownloadError(f"{source} has no {CONFIG_NAME}, so it is not a model folder")
            target = self._root / name
            inside = sorted(path for path in source.iterdir() if path.is_file())
            inside.sort(key=lambda path: path.name == CONFIG_NAME)
            pairs = [(path, target / path.name) for path in inside]
        for original, copy in pairs:
            write_atomic(copy, partial(_pour, original), if_absent=False)
        self._write_record(name, str(source), _hashes(target))
        return target

    def _record(self, name: str) -> Path:
        return self._root / f"{name}{_RECORD_SUFFIX}"

    def _write_record(self, name: str, source: str, files: dict[str, str]) -> None:
        document: dict[str, Any] = {"source": source, "files": files}
        data = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
        write_atomic(self._record(name), lambda out: out.write(data), if_absent=False)


def _hashes(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    return {file.name: sha256_file(file) for file in files if not file.name.startswith(".")}


def _pour(source: Path, target: IO[bytes]) -> None:
    with source.open("rb") as file:
        shutil.copyfileobj(file, target)
