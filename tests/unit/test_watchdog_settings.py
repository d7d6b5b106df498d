"""``watchdog`` of node.yaml, and what ``hasys doctor`` says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hasys.cli import machine
from hasys.cli.machine import BAD, GOOD, WARN
from hasys.config import Watchdog, load
from hasys.model.errors import ConfigRefused

MEMBER = "cluster: c\nclusterId: c1\nnode: n1\nmembers:\n- {name: n1, addresses: [127.0.0.1]}\n"


def settings(folder: Path, written: str, profile: str = "default") -> Watchdog:
    for secret in ("node.key", "node.secret"):
        (folder / secret).touch(mode=0o600)
    (folder / "node.yaml").write_text(f"{MEMBER}profile: {profile}\n{written}\n")
    return load(folder).watchdog


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", Watchdog("off")),
        ("watchdog: off", Watchdog("off")),
        ("watchdog: auto", Watchdog("auto")),
        ("watchdog: required", Watchdog("required", Path("/dev/watchdog"), 10)),
        (
            "watchdog: {mode: required, device: /dev/watchdog1, timeout: 1m}",
            Watchdog("required", Path("/dev/watchdog1"), 60),
        ),
        ("watchdog: {mode: off}", Watchdog("off")),
    ],
)
def test_the_words_of_the_document_are_understood(tmp_path: Path, written: str, expected: Watchdog) -> None:
    assert settings(tmp_path, written) == expected


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("watchdog: on", "watchdog.mode: True: use one of off, auto, required"),
        ("watchdog: {device: /dev/watchdog}", "watchdog.mode: None: use one of"),
        ("watchdog: {mode: [auto]}", "watchdog.mode: ['auto']: use one of"),
        ("watchdog: {mode: auto, petted: 1s}", "watchdog.petted: unknown field"),
        ("watchdog: {mode: auto, device: watchdog0}", "watchdog.device: 'watchdog0' is no device"),
        ("watchdog: {mode: auto, timeout: 2.5s}", "watchdog.timeout: 2.5s: use whole seconds, from 2s"),
        ("watchdog: {mode: auto, timeout: 1s}", "twice the lease of this profile"),
        ("watchdog: {mode: auto, timeout: soon}", "'soon' is no duration"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(tmp_path: Path, written: str, why: str) -> None:
    with pytest.raises(ConfigRefused, match=re.escape(why)):
        settings(tmp_path, written)


def test_a_long_lease_needs_a_patient_watchdog(tmp_path: Path) -> None:
    with pytest.raises(ConfigRefused, match="from 10s"):
        settings(tmp_path, "watchdog: {mode: auto, timeout: 9s}", "wan")


@pytest.mark.parametrize(("mode", "state"), [("off", GOOD), ("auto", WARN), ("required", BAD)])
def test_doctor_finds_that_there_is_none(tmp_path: Path, mode: str, state: str) -> None:
    finding = machine.watchdog(Watchdog(mode, tmp_path / "watchdog"))
    assert finding.state == state
    assert state == GOOD or "modprobe" in finding.mend


def test_doctor_does_not_arm_the_one_that_is_there() -> None:
    """Any device will do: it is looked at, never opened."""
    finding = machine.watchdog(Watchdog("required", Path("/dev/null")))
    assert finding.state == GOOD
    assert finding.found == "required: a watchdog at /dev/null, 10 s"
