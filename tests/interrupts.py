"""Interrupts as a process takes them that a person starts."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """Undo what a shell does to what it starts in the background: to have it ignore interrupts.

    Every process started from here would inherit that, and could not be ended by one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
