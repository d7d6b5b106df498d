"""Fencing: the order, what is repeated, and that what cannot die is named."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hasys.guard.fence import Fencing
from hasys.guard.plan import Agent, Stored
from hasys.guard.protocol import AddressEntry, CgroupEntry, MountEntry, Plan

AGENT = Agent(7, 99, "/cg/agent")
GROUP = Stored(
    Plan("web", 1, 1, (AddressEntry("eth0", "10.0.0.1", "ip"), CgroupEntry("/cg/web", "app"))), permitted=True
)


class FakeMachine:
    """A kernel in which dying takes as many looks as told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.lives = {"agent": 1, "10.0.0.1": 1, "/cg/web": 1}
        self.error: OSError | None = None

    def kill_agent(self, agent: Agent) -> None:
        self._kill("agent")

    def agent_alive(self, agent: Agent) -> bool:
        return self.lives["agent"] > 0

    def remove_addresses(self, addresses: Iterable[str]) -> None:
        if self.error:
            raise self.error
        for a in addresses:
            self._kill(a)

    def present(self, addresses: Iterable[str]) -> list[str]:
        return [a for a in addresses if self.lives.get(a, 0) > 0]

    def kill_cgroup(self, path: str) -> None:
        self._kill(path)

    def populated(self, path: str) -> bool:
        return self.lives[path] > 0

    def unmount(self, entry: MountEntry) -> None:
        self._kill(entry.path)

    def mounted(self, entry: MountEntry) -> bool:
        return self.lives.get(entry.path, 0) > 0

    def mute(self, groups: Iterable[str]) -> None:
        self.log.append("mute " + ",".join(groups))

    def _kill(self, what: str) -> None:
        if self.lives.get(what, 0) > 0:
            self.log.append(f"kill {what}")
            self.lives[what] -= 1


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def fencing(machine: FakeMachine, agent: Agent | None = AGENT) -> Fencing:
    return Fencing((GROUP,), agent, "lease ended", 100.0, machine.mute, machine)


def test_the_agent_dies_first_then_the_address_is_muted_and_removed_then_processes_die(machine: FakeMachine) -> None:
    job = fencing(machine)
    assert job.step(lambda: 100.5)
    assert machine.log == ["kill agent", "mute web", "kill 10.0.0.1", "kill /cg/web"]
    assert job.steps == {"agent": 0.5, "muted": 0.5, "addresses": 0.5, "processes": 0.5, "mounts": 0.5}


def test_an_agent_that_does_not_die_at_once_delays_nothing_but_the_end(machine: FakeMachine) -> None:
    machine.lives["agent"] = 2
    job = fencing(machine)
    assert not job.step(lambda: 100.0)
    assert machine.log == ["kill agent", "mute web", "kill 10.0.0.1", "kill /cg/web"]
    assert job.blockers == ["agent (process 7) does not die"]
    assert job.step(lambda: 100.1)
    assert job.steps["agent"] == pytest.approx(0.1)


def test_the_successor_of_a_dead_agent_is_left_alone(machine: FakeMachine) -> None:
    machine.lives["/cg/web"] = 2
    job = fencing(machine)
    assert not job.step(lambda: 100.0)
    machine.lives["agent"] = 1  # the supervisor started another one in the same cgroup
    assert job.step(lambda: 100.1)
    assert machine.lives["agent"] == 1


def test_what_cannot_die_is_named_and_the_fence_goes_on(machine: FakeMachine) -> None:
    machine.lives["/cg/web"] = 1000
    job = fencing(machine)
    for n in range(20):
        assert not job.step(lambda n=n: 100.0 + n)  # type: ignore[misc]
    assert job.blockers == ["processes in /cg/web do not die"]
    assert job.pause == 0.1


def test_an_error_of_one_step_does_not_stop_the_later_ones(machine: FakeMachine) -> None:
    machine.error = OSError(105, "No buffer space available")
    job = fencing(machine)
    assert not job.step(lambda: 100.0)
    assert job.blockers == ["addresses: No buffer space available"]
    assert machine.log[-1] == "kill /cg/web"
    machine.error = None
    assert job.step(lambda: 100.0)


def test_an_agent_that_began_nothing_is_not_killed(machine: FakeMachine) -> None:
    assert fencing(machine, agent=None).step(lambda: 100.0)
    assert machine.lives["agent"] == 1


def test_a_mount_goes_last_and_the_job_waits_until_it_is_gone(machine: FakeMachine) -> None:
    disk = MountEntry("/dev/sdb1", "/srv/data", "disk")
    stored = Stored(Plan("web", 1, 1, (disk, *GROUP.plan.entries)), permitted=True)
    machine.lives["/srv/data"] = 2
    job = Fencing((stored,), AGENT, "lease ended", 100.0, machine.mute, machine)
    assert not job.step(lambda: 100.0)
    assert machine.log == ["kill agent", "mute web", "kill 10.0.0.1", "kill /cg/web", "kill /srv/data"]
    assert not job.step(lambda: 100.1)
    assert job.blockers == ["/dev/sdb1 on /srv/data is not unmounted yet"]
    assert job.step(lambda: 100.2)
    assert job.steps["mounts"] == pytest.approx(0.2)
