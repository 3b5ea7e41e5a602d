"""The `ocr` command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; every expected failure ends in one clear line and status 1."""
    from ocr_assets.cli.app import app, explain

    try:
        app(standalone_mode=True)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"ocr: {line}", file=sys.stderr)  # noqa: T201 - the command's one line of failure
        sys.exit(1)
