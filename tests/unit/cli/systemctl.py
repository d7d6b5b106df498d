"""A systemctl for tests, on a machine that seems to be run by systemd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class FakeSystemctl:
    """A systemctl that keeps what it is asked, and fails at one word."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._asked, self._folder = folder / "asked", folder
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr("hasys.cli.systemd.BOOTED", folder)
        self.fails_at("never")

    def fails_at(self, word: str) -> None:
        """When asked for this."""
        program = self._folder / "systemctl"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{self._asked}\n[ "$1" != {word} ] || {{ echo no way >&2; exit 1; }}\n'
        )
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        """What it was asked so far."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []
