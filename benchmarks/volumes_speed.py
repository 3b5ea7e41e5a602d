"""Speed of reading a volume against the `tesseract` command, on the same pages in the same run.

    python benchmarks/volumes_speed.py FOLDER [--repeat 3] [--memory-pages 600]

Ours is the whole pipeline: files to published artefacts, by `ocr volumes run` in a process of its
own, with everything that it imports and loads. The command is run once for each page as it comes,
with its own choice of threads, and once on one thread: its threads wait for each other busily, so
that it needs less CPU on one. CPU-seconds are those of the processes, in user and in system mode;
pages per second are wall time.

With --memory-pages the pages are repeated up to that number and the highest resident memory of the
process is printed too, in megabytes of 1,000,000 bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ocr_assets.volumes.archive import is_image_name

VOLUME = "W0SPEED-I0SPEED"
LONGEST = 3600
"""Seconds after which a process is taken to hang."""

TESSERACT = {
    "page segmentation as it chooses, threads as it chooses": (["--psm", "3"], {}),
    "one block of text, threads as it chooses": (["--psm", "6"], {}),
    "one block of text, one thread": (["--psm", "6"], {"OMP_THREAD_LIMIT": "1"}),
}
"""Ways to run the command: options and variables."""


@dataclass(frozen=True)
class Spent:
    """What a finished process needed."""

    cpu: float
    wall: float
    peak_mb: float


def run(command: list[str], variables: dict[str, str]) -> Spent:
    """Run a command to its end; one that fails or hangs ends the benchmark."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=said
        )
        limit = threading.Timer(LONGEST, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            tail = said.read().decode(errors="replace")[-2000:]
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    cpu = usage.ru_utime + usage.ru_stime
    return Spent(cpu, time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6)


def read_ours(images: list[Path], folder: Path, count: int) -> Spent:
    """Read ``count`` pages, images again and again with names of their own."""
    source = folder / f"scans{count}" / VOLUME
    source.mkdir(parents=True)
    for number in range(count):
        image = images[number % len(images)]
        # Another byte at the end: an image of its own, not one that is known already.
        data = image.read_bytes() + number.to_bytes(4, "big")
        (source / f"{number:04}{image.suffix}").write_bytes(data)
    variables = {
        "OCR_STORAGE_ROOT": str(folder / f"root{count}"),
        "OCR_VOLUMES_SOURCE": str(source.parent),
        "DAGSTER_HOME": str(folder / "home"),
    }
    ocr = str(Path(sys.executable).with_name("ocr"))
    return run([ocr, "volumes", "run", VOLUME], variables)


def read_by_tesseract(images: list[Path], options: list[str], variables: dict[str, str]) -> Spent:
    """All pages by the command; the times of its processes added up."""
    all_spent = [
        run(["tesseract", str(image), "-", "-l", "bod", *options], variables) for image in images
    ]
    return Spent(
        sum(one.cpu for one in all_spent),
        sum(one.wall for one in all_spent),
        max(one.peak_mb for one in all_spent),
    )


def main() -> None:
    """Measure both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--repeat", type=int, default=3, help="times that each page is read")
    parser.add_argument("--memory-pages", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder is None:
        print("skipped: give a folder of images")
        return
    images = [path for path in sorted(arguments.folder.iterdir()) if is_image_name(path.name)]
    with tempfile.TemporaryDirectory(prefix="ocr-speed-") as name:
        folder = Path(name)
        read_ours(images, folder, 1)  # converts and compiles what is cached from then on
        count = arguments.repeat * len(images)
        spent = read_ours(images, folder, count)
        ours = spent.cpu / count
        print(f"{count} pages, {len(images)} different ones, load {os.getloadavg()[0]:.1f}")
        print(f"ours: {ours:.3f} CPU-seconds a page, {count / spent.wall:.2f} pages a second")
        if shutil.which("tesseract"):
            for way, (options, variables) in TESSERACT.items():
                theirs = read_by_tesseract(images, options, variables)
                cpu = theirs.cpu / len(images)
                print(
                    f"tesseract, {way}: {cpu:.3f} CPU-seconds a page, "
                    f"{len(images) / theirs.wall:.2f} pages a second, {cpu / ours:.1f} times ours"
                )
        if arguments.memory_pages:
            spent = read_ours(images, folder, arguments.memory_pages)
            print(
                f"{arguments.memory_pages} pages: {spent.peak_mb:.0f} MB of memory at most, "
                f"{spent.cpu / arguments.memory_pages:.3f} CPU-seconds a page"
            )


if __name__ == "__main__":
    main()
