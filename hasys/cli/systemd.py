"""systemd on this machine: is it there, and a unit of ours started by it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hasys.model.errors import Refused, TimedOut

BOOTED = Path("/run/systemd/system")
"""There while systemd is the init of this machine: sd_booted(3)."""
PATIENCE = 90.0
"""Seconds until a started node must serve."""


def runs() -> bool:
    """Does systemd run this machine?"""
    return BOOTED.is_dir()


def enable_and_start(unit: str) -> None:
    """Start it now and at each boot; returns when all of it says that it is ready. Raises ``Refused`` with systemd's
    words, ``TimedOut`` naming where to look."""
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", unit)
    _systemctl("is-active", "--quiet", unit)


def _systemctl(*words: str) -> None:
    look = f"look at: systemctl status {words[-1]}; journalctl -b -u {words[-1]}"
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise TimedOut(f"systemctl {' '.join(words)} is still under way after {PATIENCE:g} s; {look}") from None
    except OSError as e:
        raise Refused(f"systemctl: {e.strerror}") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise Refused(f"systemctl {' '.join(words)} failed: {said}; {look}")
