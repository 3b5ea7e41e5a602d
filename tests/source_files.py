"""The files of this checkout, for tests that read them."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

MODULES = sorted(
    path
    for package in ("ocr_assets", "resources", "sensors")
    for path in (REPOSITORY / package).rglob("*.py")
)
"""Source files of the product."""

TEST_MODULES = sorted((REPOSITORY / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    """A file relative to the checkout."""
    return path.relative_to(REPOSITORY).as_posix()
