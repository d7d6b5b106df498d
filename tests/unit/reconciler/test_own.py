"""C11: one of hasys's own processes is restarted by its operator, in virtual time."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import anyio
import pytest

from hasys.model.errors import Refused
from hasys.monitors.own import processes
from hasys.processes import Identity, RoleLock
from hasys.reconciler.own import GRACE, PATIENCE, Own

pytestmark = pytest.mark.anyio


def _living(pid: int) -> Identity:
    identity = Identity.of(pid)
    assert identity is not None
    return identity


OLD, NEW = _living(os.getpid()), _living(os.getppid())
"""Two processes that live as long as the test."""


class Node:
    """A run directory; at ``fatal`` the old guard ends and a new one takes the role."""

    def __init__(self, run_dir: Path, fatal: signal.Signals | None) -> None:
        self.run_dir, self._fatal = run_dir, fatal
        self.sent: list[tuple[float, signal.Signals]] = []
        self.record("supervisor", OLD)
        self.record("guard", OLD, starts=3)

    def record(self, role: str, identity: Identity, starts: int = 1) -> None:
        record = {"pid": identity.pid, "startTime": identity.start_time, "starts": starts}
        (self.run_dir / f"{role}.pid").write_text(json.dumps(record))

    def send(self, process: Identity, number: signal.Signals) -> None:
        assert process == OLD
        self.sent.append((anyio.current_time(), number))
        if number is self._fatal:
            self.record("guard", NEW, starts=4)

    async def restart(self, role: str = "guard") -> str:
        return await Own(self.run_dir, self.send).restart(role)


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)


async def test_it_is_asked_to_stop_and_the_next_one_is_told(tmp_path: Path) -> None:
    node = Node(tmp_path, signal.SIGTERM)
    assert await node.restart() == f"pid {OLD.pid} ended, pid {NEW.pid} took over"
    assert [number for _, number in node.sent] == [signal.SIGTERM]


async def test_one_that_hangs_is_killed_after_its_grace(tmp_path: Path) -> None:
    node = Node(tmp_path, signal.SIGKILL)
    begun = anyio.current_time()
    await node.restart()
    assert [number for _, number in node.sent] == [signal.SIGTERM, signal.SIGKILL]
    assert node.sent[1][0] - begun == pytest.approx(GRACE, abs=0.1)


async def test_when_no_new_one_comes_that_is_said(tmp_path: Path) -> None:
    node = Node(tmp_path, None)
    begun = anyio.current_time()
    with pytest.raises(Refused, match=f"no new guard runs after {PATIENCE:g} s"):
        await node.restart()
    assert anyio.current_time() - begun == pytest.approx(PATIENCE)


async def test_what_does_not_run_cannot_be_restarted(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no store runs here"):
        await Node(tmp_path, signal.SIGTERM).restart("store")


async def test_what_nobody_would_start_again_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, signal.SIGTERM)
    (tmp_path / "supervisor.pid").unlink()
    with pytest.raises(Refused, match="nothing would start the guard again"):
        await node.restart()
    assert node.sent == []
    monkeypatch.setenv("INVOCATION_ID", "x")  # systemd keeps it running
    await node.restart()


def test_the_processes_of_a_node_are_told_with_pid_uptime_restarts_and_memory(tmp_path: Path) -> None:
    node = Node(tmp_path, None)
    supervisor, store, guard = processes(tmp_path, ("store", "guard"))
    assert (supervisor.role, supervisor.pid, supervisor.restarts) == ("supervisor", OLD.pid, 0)
    assert (store.role, store.pid, store.memory) == ("store", 0, 0)
    assert (guard.role, guard.pid, guard.restarts) == ("guard", OLD.pid, 2)
    assert guard.memory > 1 << 20
    assert 0 <= guard.uptime.seconds < 86_400
    node.record("supervisor", Identity(OLD.pid, OLD.start_time + 1))  # the pid of another one by now
    assert [one.role for one in processes(tmp_path, ("guard",))] == ["guard"]


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"pid": "x"}', '{"pid": -1, "startTime": 0}'])
def test_a_record_that_cannot_be_read_is_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "guard.pid").write_text(content)
    lock = RoleLock(tmp_path, "guard")
    assert (lock.recorded(), lock.starts()) == (None, 0)
