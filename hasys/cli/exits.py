"""Exit statuses. They are part of the contract: scripts depend on them."""

from __future__ import annotations

from hasys.model.errors import HasysError, Unknown, Unreached

DONE = 0
REFUSED = 1
"""Refused or failed; one line on stderr says why."""
USAGE = 2
"""Wrong usage of the command line."""
UNREACHED = 3
"""No server answered; nothing changed. (One that answers "there is no majority" has refused.)"""
TIMED_OUT = 4
"""The deadline passed, or the answer was lost: it may be done, or be under way; the line says what is known."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""


def status_of(error: HasysError) -> int:
    """The exit status that tells a script what it may do next."""
    if isinstance(error, Unknown):
        return TIMED_OUT
    if isinstance(error, Unreached):
        return UNREACHED
    return REFUSED
