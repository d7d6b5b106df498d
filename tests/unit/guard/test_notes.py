"""What a guard writes down before it may be reset, and what the guard of the next boot makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hasys.guard import notes, tokens
from hasys.guard.loop import Loop
from hasys.guard.plan import Agent, Book
from hasys.guard.protocol import AddressEntry, CgroupEntry, Plan
from tests.unit.guard.fakes import Bench, FakeDisk

IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
APP = CgroupEntry("/cg/groups/web/web-app", "web-app")
PLAN = Plan("web", 5, 7, (IP, APP))


def boot(disk: FakeDisk, boot: str = "first", *, mode: str = "off", barked: bool = False) -> Bench:
    """A guard of this boot of the machine, which finds what the disk has."""
    bench = Bench(Book(agent=Agent(7, 99, "/cg/agent")), mode=mode, notes=disk.book(boot, barked=barked))
    bench.guard.start()
    return bench


def hold(bench: Bench) -> None:
    bench.grant(web=(5, 7))
    assert bench.guard.plan(PLAN) == "permitted"
    bench.machine.there |= {IP.address, APP.path}


def told(bench: Bench) -> list[tuple[str, str]]:
    return [(r["reason"], r["cause"]) for r in bench.guard.notes.to_json()]


def test_what_is_held_is_written_down_as_soon_as_it_is_permitted() -> None:
    disk = FakeDisk()
    bench = boot(disk)
    assert disk.content["held"] == {}
    hold(bench)
    assert disk.content["held"] == {"web": 5}


def test_a_machine_that_lost_power_while_it_held_something_says_so_after_the_boot() -> None:
    disk = FakeDisk()
    hold(boot(disk))
    again = boot(disk, "second")
    assert told(again) == [("NodeWentDown", "it lost power or was reset while it held web (epoch 5)")]
    assert disk.content["held"] == {}


def test_a_machine_that_went_down_with_nothing_held_has_nothing_to_say() -> None:
    disk = FakeDisk()
    bench = boot(disk)
    hold(bench)
    bench.machine.there.clear()
    bench.guard.release("web", 5)
    assert told(boot(disk, "second")) == []


def test_a_new_guard_of_the_same_boot_is_no_reset() -> None:
    disk = FakeDisk()
    hold(boot(disk))
    assert told(boot(disk)) == []


def test_a_frozen_machine_with_a_watchdog_may_have_been_reset_by_it() -> None:
    disk = FakeDisk()
    hold(boot(disk, mode="required"))
    (found,) = told(boot(disk, "second", mode="required"))
    assert found[0] == "NodeWentDown"
    assert found[1].endswith("its watchdog (watchdog 10s) was armed")


def test_a_watchdog_that_can_say_that_it_barked_is_believed() -> None:
    disk = FakeDisk()
    hold(boot(disk, mode="required"))
    (found,) = told(boot(disk, "second", mode="required", barked=True))
    assert found == (
        "NodeFencedItself", "its watchdog (watchdog 10s) reset it while it held web (epoch 5)",
    )  # fmt: skip


def test_a_fence_that_does_not_end_is_on_the_disk_before_the_watchdog_resets_the_machine() -> None:
    disk = FakeDisk()
    bench = boot(disk, mode="required")
    hold(bench)
    bench.machine.immortal.add(APP.path)
    bench.loop.advance(9.0)  # the lease has ended; the watchdog has not barked
    assert bench.device.barks > bench.loop.time
    (reason, cause), *_ = told(boot(disk, "second", mode="required"))
    assert reason == "NodeFencedItself"
    assert "web (epoch 5)" in cause
    assert "processes in /cg/groups/web/web-app do not die" in cause
    assert "its watchdog (watchdog 10s) was armed" in cause


def test_a_fence_is_told_with_the_time_of_each_step_in_the_order_of_the_design() -> None:
    disk = FakeDisk()
    bench = boot(disk)
    hold(bench)
    bench.loop.advance(2.0)
    ((reason, cause),) = told(bench)
    assert reason == "GuardFenced"
    steps = [word for word in ("agent", "muted", "addresses", "processes", "mounts") if f"{word} 0.0 ms" in cause]
    assert steps == ["agent", "muted", "addresses", "processes", "mounts"]
    assert sorted(steps, key=lambda word: cause.index(f"{word} 0.0 ms")) == steps
    assert bench.events("note")


def test_what_is_not_told_yet_survives_the_boot_and_is_told_once() -> None:
    disk = FakeDisk()
    bench = boot(disk)
    hold(bench)
    bench.loop.advance(2.0)
    again = boot(disk, "second")
    assert [reason for reason, _ in told(again)] == ["GuardFenced"]
    again.guard.notes.told(again.guard.notes.to_json()[-1]["serial"])
    assert told(again) == []
    assert told(boot(disk, "third")) == []


def test_a_disk_that_hangs_delays_no_fence() -> None:
    disk = FakeDisk(hangs=True)
    bench = boot(disk)
    hold(bench)
    bench.loop.advance(2.0)
    assert not bench.machine.there
    assert not bench.guard.fencings


def test_a_note_that_could_not_be_written_is_written_later() -> None:
    disk = FakeDisk()
    bench = boot(disk)
    disk.error = OSError(28, "No space left on device")
    hold(bench)
    disk.error = None
    bench.advance(notes.AGAIN + 0.1, web=(5, 7))
    assert disk.content["held"] == {"web": 5}
    assert bench.guard.counts["note not written"]


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"held": [], "fencing": {}, "reports": [{}], "boot": 7}'])
def test_a_damaged_note_is_no_reason_not_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "guard.notes").write_text(text)
    disk = FakeDisk()
    disk.content = dict(notes.read(tmp_path / "guard.notes"))
    assert told(boot(disk)) == []


@pytest.mark.parametrize(
    "strange",
    [
        {"fencing": [{"groups": {"web": 5}, "reason": 7, "blockers": 5}]},
        {"fencing": [{"groups": [], "blockers": None}]},
        {"held": {"web": 10**30}},
        {"held": {"web": -1}},
        {"held": {"web": True}},
        {"held": {"\ud800\n": 5}},
        {"held": {f"g{i}" * 50: 1 for i in range(1000)}},
    ],
)
def test_a_strange_note_of_an_earlier_boot_is_told_in_a_way_that_can_be_passed_on(strange: dict[str, Any]) -> None:
    disk = FakeDisk()
    disk.content = {"boot": "first", "held": {}, "watchdog": "none", "fencing": [], "reports": [], **strange}
    for report in boot(disk, "second").guard.notes.to_json():
        assert 0 <= report["epoch"] < 2**63
        assert len(report["groups"]) + len(report["cause"]) < 5000
        assert report["groups"].isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"serial": float("inf")}, {"serial": 10**30}, {"serial": -1}, {"serial": True}, {"serial": 1.5},
        {"epoch": 10**30}, {"epoch": -1}, {"time": float("nan")}, {"time": 1e300}, {"time": -1.0}, {"time": 10**400},
        {"cause": "a\nb"}, {"groups": "\ud800"}, {"cause": "x" * 9999}, {"groups": "x" * 9999},
        {"reason": "x" * 9999},
    ],
)  # fmt: skip
def test_an_earlier_report_that_could_not_be_passed_on_is_left(wrong: dict[str, Any]) -> None:
    right = {"serial": 9, "time": 1.5, "reason": "GuardFenced", "groups": "web (epoch 5)", "epoch": 5, "cause": "why"}
    disk = FakeDisk()
    disk.content = {"boot": "first", "reports": [{**right, **wrong}, right]}
    assert boot(disk).guard.notes.to_json() == [right]


def test_the_note_is_synced_to_the_disk_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "data" / "guard.notes"
    loop, written = Loop(lambda: 0.0), threading.Event()
    disk = tokens.Disk(file, loop)
    content: Mapping[str, Any] = {"boot": "b", "held": {"web": 5}, "reports": [{"cause": "é"}]}
    disk.put(content, lambda error: written.set() if error is None else None)
    while not written.is_set():
        loop.once()
    assert notes.read(file) == content
    assert json.loads(file.read_bytes()) == content
