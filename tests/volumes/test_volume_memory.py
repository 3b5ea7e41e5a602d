"""A volume is read in memory that does not grow with its pages: lines, text and all documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Reads volumes of as many pages as asked for, all alike in what is on them, and tells the peak
# after each; the recogniser alone is missing.
_VOLUMES = r"""
import io, re, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ocr_assets.volumes.archive import ImageEntry, VolumeId, VolumeManifest
from ocr_assets.volumes.documents import VolumeDocuments, write_bundle
from ocr_assets.volumes.found_lines import FoundLines, FoundLinesWriter
from ocr_assets.volumes.reading import LineFinder, volume_lines, volume_text
from ocr_assets.volumes.recognise import RecognisedLine, Syllable

page = np.zeros((2400, 1800), bool)
for y in range(150, 2200, 110):
    for x in range(120, 1650, 48):
        page[y : y + 8, x : x + 36] = page[y : y + 45, x + 26 : x + 32] = True
        page[y + 20 : y + 26, x + 4 : x + 30] = page[y : y + 20, x + 3 : x + 9] = True
file = io.BytesIO()
Image.fromarray(~page).save(file, "TIFF", compression="group4")

class Source:
    def read(self, image):
        # Each its own file, so that none is known from another.
        return file.getvalue() + image.name.encode()

def read(images):
    syllable = Syllable("ka ", 0.9, 0.0, 20.0)
    return [RecognisedLine("ka " * 5, 0.9, (syllable,) * 5) for _ in images]

def read_volume(folder, count):
    images = tuple(ImageEntry(f"{n:04}.tif", etag=f"{n:032x}") for n in range(count))
    manifest = VolumeManifest(VolumeId("W1", "I1"), "abcdef", "0" * 32, images)
    (folder / "lines").mkdir(parents=True)
    with FoundLinesWriter(folder / "lines", {}) as writer:
        for found in volume_lines(Source(), manifest, LineFinder()):
            writer.write(found)
    about = VolumeDocuments("test", manifest, "memory", "wylie", "bo", {})
    bundle = write_bundle(folder / "b", volume_text(FoundLines(folder / "lines"), read), about)
    assert bundle.quality.pages == count and bundle.quality.lines >= 15 * count, bundle.quality

for count in map(int, sys.argv[2:]):
    read_volume(Path(sys.argv[1], str(count)), count)
    # Peak of this process alone: ru_maxrss would count what the parent held before the fork.
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))
"""


@pytest.mark.end_to_end
def test_memory_does_not_grow_with_the_pages(tmp_path: Path) -> None:
    """The 48 pages more would take 210 MB decoded, and their lines 100 MB."""
    command = [sys.executable, "-c", _VOLUMES, str(tmp_path), "24", "72"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    short, long = (int(line) / 1024 for line in done.stdout.split())
    assert long < short + 70, "more than row groups that wait to be written"
    assert long < 800
