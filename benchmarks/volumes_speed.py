"""Speed of reading a volume against the `tesseract` command, on the same pages in the same run.

    python benchmarks/volumes_speed.py FOLDER [--repeat 3] [--memory-pages 600]

Ours is the whole pipeline: files to published artefacts, by `ocr volumes run` in a process of its
own, with everything that it imports and loads. CPU-seconds are those of the processes; pages per
second are wall time. With --memory-pages the pages are repeated up to that number and the highest
resident memory is printed too.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ocr_assets.volumes.archive import is_image_name

VOLUME = "W0SPEED-I0SPEED"


def spent() -> float:
    """CPU-seconds of the finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(command: list[str], variables: dict[str, str] | None = None) -> tuple[float, float]:
    """CPU-seconds and wall seconds of a command."""
    before, started = spent(), time.perf_counter()
    subprocess.run(
        command, env={**os.environ, **(variables or {})}, check=True, capture_output=True
    )
    return spent() - before, time.perf_counter() - started


def read_ours(images: list[Path], folder: Path, count: int) -> tuple[float, float]:
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
    return timed([ocr, "volumes", "run", VOLUME], variables)


def main() -> None:
    """Measure both and print the ratio."""
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
        cpu, wall = read_ours(images, folder, count)
        ours = cpu / count
        print(f"ours:      {ours:.3f} CPU-seconds a page, {count / wall:.2f} pages a second")
        if shutil.which("tesseract"):
            theirs, theirs_wall = 0.0, 0.0
            for image in images:
                command = ["tesseract", str(image), "-", "-l", "bod", "--psm", "6"]
                one, one_wall = timed(command, {"OMP_THREAD_LIMIT": "1"})
                theirs, theirs_wall = theirs + one, theirs_wall + one_wall
            theirs /= len(images)
            print(
                f"tesseract: {theirs:.3f} CPU-seconds a page, "
                f"{len(images) / theirs_wall:.2f} pages a second on one thread"
            )
            print(f"{theirs / ours:.1f} times fewer CPU-seconds")
        if arguments.memory_pages:
            read_ours(images, folder, arguments.memory_pages)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(f"highest resident memory of {arguments.memory_pages} pages: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
