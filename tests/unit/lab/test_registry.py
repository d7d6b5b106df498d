"""Labs that start together clear away together."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from hasys.lab import registry


def test_what_a_dead_lab_left_is_removed_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "owner").write_text("1 0\n")
    removed: list[str] = []

    def remove(record: registry.Record) -> None:
        other = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)
        removed.append(record.id)

    monkeypatch.setattr(registry.Record, "remove", remove)
    assert registry.clear_stale() == removed == ["dead"]


def test_a_lab_that_closed_meanwhile_is_nobody_s_to_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    assert not registry.Record("gone").orphaned()
