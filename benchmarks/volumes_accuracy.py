"""Character error rate of a job type on pages with transcripts.

    python benchmarks/volumes_accuracy.py FOLDER [--type printed-unicode] [--tesseract]

FOLDER holds images and a UTF-8 transcript of the same name with the suffix .txt beside each. The
first line of a transcript is passed over if it names the image. Text and transcript are compared
after the normalisation for scoring. Without a folder there is nothing to measure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from ocr_assets.volume_library import VolumeLibrary
from ocr_assets.volumes.archive import VolumeId, is_image_name
from ocr_assets.volumes.local_volumes import ImageFolder
from ocr_assets.volumes.normalise import normalise_for_scoring
from ocr_assets.volumes.reading import volume_lines, volume_text
from ocr_assets.volumes.results import FailedPage
from ocr_assets.volumes.scoring import edit_distance
from resources.settings import load_settings


def transcript(image: Path) -> str:
    """The known text of an image."""
    lines = image.with_suffix(".txt").read_text("utf-8-sig").splitlines()
    if lines and image.stem in re.sub(r"\s", "", lines[0]):
        lines = lines[1:]
    return "\n".join(lines)


def read_by_tesseract(image: Path, model: str) -> str:
    """The same page, read by the `tesseract` command."""
    command = ["tesseract", str(image), "-", "-l", model, "--psm", "6"]
    # Its threads wait for each other busily, which costs minutes on a machine with other work.
    alone = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(
        command, env=alone, capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout


def report(name: str, errors: int, characters: int, confidence: float | None = None) -> None:
    """Print a line of the table."""
    rate = errors / characters if characters else 0.0
    sure = "" if confidence is None else f"  confidence {confidence:.3f}"
    print(f"{name:40} {errors:6d} of {characters:7d}  {rate:7.2%}{sure}")


def main() -> None:
    """Read the pages and print errors for each of them and overall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--type", default="printed-unicode")
    parser.add_argument("--tesseract", action="store_true", help="also measure the command")
    arguments = parser.parse_args()
    if arguments.folder is None:
        print("skipped: give a folder of images with transcripts")
        return
    images = {
        path.name: path
        for path in sorted(arguments.folder.iterdir())
        if is_image_name(path.name) and path.with_suffix(".txt").is_file()
    }
    if not images:
        print(f"skipped: {arguments.folder} has no images with transcripts")
        return
    library = VolumeLibrary(load_settings())
    job_type = library.job_type(arguments.type)
    source = ImageFolder(arguments.folder, VolumeId("W0", "I0"))
    started = time.process_time()
    texts: dict[str, str] = {}
    confidence: dict[str, float | None] = {}
    found = volume_lines(source, source.manifest(), library.finder(job_type))
    for page in volume_text(found, library.reader(job_type)):
        if isinstance(page, FailedPage):
            print(f"{page.image}: failed at {page.stage}: {page.reason}")
            continue
        texts[page.image] = "\n".join(filter(None, (texts.get(page.image), page.text)))
        confidence[page.image] = page.confidence
    seconds = time.process_time() - started
    errors = characters = 0
    for name, path in images.items():
        known = normalise_for_scoring(transcript(path))
        wrong = edit_distance(known, normalise_for_scoring(texts.get(name, "")))
        report(name, wrong, len(known), confidence.get(name))
        errors, characters = errors + wrong, characters + len(known)
    report(f"all {len(images)} pages", errors, characters)
    print(f"{seconds / len(images):.2f} CPU-seconds a page, the first use of the models included")
    if arguments.tesseract and shutil.which("tesseract"):
        errors = 0
        for path in images.values():
            known = normalise_for_scoring(transcript(path))
            read = normalise_for_scoring(read_by_tesseract(path, job_type.model))
            errors += edit_distance(known, read)
        report("tesseract command, psm 6", errors, characters)


if __name__ == "__main__":
    main()
