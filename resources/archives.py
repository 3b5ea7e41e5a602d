"""Files inside zip archives.

Belongs here: finding a member and having it as a file of its own, whole or not at all. Does not
belong here: what the files hold.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from resources.atomic import write_atomic

_BLOCK = 8 << 20


class ArchiveError(ValueError):
    """An archive that is damaged, or has not the one member that is wanted."""


def extracted(archive: Path, ending: str, folder: Path) -> str:
    """The one member of a zip whose name ends in ``ending``, as a path that GDAL opens.

    It is extracted into ``folder`` once, under a name with its checksum, and checked on the way. A
    member whose compression Python does not know (Deflate64) is left where it is, and the path
    leads into the archive.

    Raises:
        ArchiveError: the archive is damaged, or no member or several have that ending.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            member = _member(archive, opened, ending)
            name = PurePosixPath(member.filename)
            target = folder / f"{name.stem}-{member.CRC:08x}{name.suffix}"
            if target.is_file() and target.stat().st_size == member.file_size:
                return str(target)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with opened.open(member) as source:
                    write_atomic(
                        target,
                        lambda file: shutil.copyfileobj(source, file, _BLOCK),
                        if_absent=False,
                    )
            except NotImplementedError:
                return f"/vsizip/{{{archive}}}/{member.filename}"
            return str(target)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArchiveError(
            f"{archive} is not a whole zip archive ({error}); delete it and download it again"
        ) from error


def _member(archive: Path, opened: zipfile.ZipFile, ending: str) -> zipfile.ZipInfo:
    found = [
        info
        for info in opened.infolist()
        if not info.is_dir()
        and (info.filename == ending or info.filename.endswith(_at_border(ending)))
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(info.filename for info in opened.infolist()[:10])
    raise ArchiveError(
        f"{archive} has {len(found)} members that end in {ending!r}, expected one; it has {names}"
    )


def _at_border(ending: str) -> str:
    """An ending that begins at the border of a folder, or is a suffix like ``.tif``."""
    return ending if ending.startswith((".", "/")) else f"/{ending}"
