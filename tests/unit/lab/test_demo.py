"""What the demo says when it cannot run."""

from __future__ import annotations

import os

import pytest

from hasys.lab import demo


def test_without_root_the_demo_says_in_one_line_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.run() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "needs root" in said
