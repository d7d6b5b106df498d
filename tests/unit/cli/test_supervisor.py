"""``hasys node run`` with tiny children: what ends, what goes on, in which order. Real processes, no sleeps."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.cli.ears import SILENCE, Ear
from hasys.processes import AlreadyRuns, Identity, RoleLock

pytestmark = pytest.mark.slow

_PATIENCE = 20.0
"""Seconds until something that should be printed counts as missing."""


class Node:
    """One supervisor process; its printed lines are what the tests wait for."""

    def __init__(self, run_dir: Path, more: dict[str, dict[str, float]], modes: dict[str, list[str]]) -> None:
        roles = ["store", "guard", "agent"]
        named = {name.replace("_", "-"): mode for name, mode in modes.items()}
        settings = json.dumps({"run_dir": str(run_dir), "roles": roles, "modes": named, "more": more})
        command = [sys.executable, "-m", "tests.unit.cli.supervised", settings]
        self.run_dir = run_dir
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self._unread = b""

    def expect(self, text: str) -> str:
        """Read what is printed until a line contains the text; that line."""
        deadline = time.monotonic() + _PATIENCE
        seen = []
        while (line := self._line(deadline)) is not None:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not printed, but: {seen}")

    def expect_hellos(self, *roles: str) -> None:
        """Read until the first line of each of these children, in any order."""
        waiting = set(roles)
        while waiting:
            waiting.discard(self.expect("hello from").rsplit(" ", 1)[1])

    def _line(self, deadline: float) -> str | None:
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(descriptor, 65536) if ready else b""
            if not data:
                return None
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def journal(self) -> list[str]:
        return (self.run_dir / "journal").read_text().splitlines()

    def pid(self, role: str) -> int:
        holder = RoleLock(self.run_dir, role).holder()
        assert holder is not None, f"nobody has the role {role}"
        return holder.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(_PATIENCE)

    def clean_up(self) -> None:
        for role in ("supervisor", "store", "guard", "agent"):
            holder = RoleLock(self.run_dir, role).holder()
            if holder:
                os.kill(holder.pid, signal.SIGKILL)
        self.process.wait(_PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


class Nodes:
    """Starts nodes in one run directory and clears them away."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.started: list[Node] = []

    def start(self, more: dict[str, dict[str, float]] | None = None, **modes: list[str]) -> Node:
        """``more``: further settings of roles, by role."""
        node = Node(self.run_dir, more or {}, modes)
        self.started.append(node)
        return node

    def running(self, **modes: list[str]) -> Node:
        """A node whose three children have all printed their first line."""
        node = self.start(None, **modes)
        node.expect_hellos("store", "guard", "agent")
        return node


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path / "run")
    yield nodes
    for node in nodes.started:
        node.clean_up()


def test_children_are_stopped_in_reverse_after_the_hand_over(nodes: Nodes) -> None:
    node = nodes.running(hand_over=["ends"])
    node.send(signal.SIGTERM)
    assert node.wait() == 0
    order = [line for line in node.journal() if "asked" in line or "hand-over" in line]
    assert [line.split(" ")[0] for line in order] == ["hand-over", "hand-over", "agent", "guard", "store"]
    assert order[1] == "hand-over ended"


def test_a_killed_child_is_started_again(nodes: Nodes) -> None:
    node = nodes.running()
    before = node.pid("store")
    os.kill(before, signal.SIGKILL)
    node.expect("ended by SIGKILL")
    node.expect("hello from store")
    assert node.pid("store") != before
    assert [RoleLock(node.run_dir, role).starts() for role in ("store", "guard")] == [2, 1]


def test_a_child_that_has_ended_before_anybody_looks_was_started_and_has_ended() -> None:
    """Its exit status can still be told, and it counts once."""
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Identity.of(child.pid) is None
    found = Identity.of_child(child.pid)
    assert found.pid == child.pid
    assert not found.alive
    child.wait()


def test_a_child_that_keeps_ending_is_started_ever_more_slowly(nodes: Nodes) -> None:
    node = nodes.start(store=["ends"])
    assert "again" not in node.expect("with status 3")
    assert "again in 0.2 s" in node.expect("with status 3")
    assert "again in 0.5 s" in node.expect("with status 3")


def test_no_child_waits_longer_than_its_role_allows(nodes: Nodes) -> None:
    node = nodes.start({"agent": {"longest_wait": 0.1}}, agent=["ends"])
    assert "again" not in node.expect("agent: pid")
    for _ in range(3):
        assert "again in 0.1 s" in node.expect("with status 3")


def test_the_children_outlive_a_killed_supervisor_and_the_next_one_adopts_them(nodes: Nodes) -> None:
    first = nodes.running()
    pids = {role: first.pid(role) for role in ("store", "guard", "agent")}
    first.send(signal.SIGKILL)
    first.wait()
    second = nodes.start()
    for role, pid in pids.items():
        second.expect(f"{role}: adopted pid {pid}")
    assert {role: second.pid(role) for role in pids} == pids
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    assert [line for line in second.journal() if "asked" in line] == [
        "agent asked to stop", "guard asked to stop", "store asked to stop",
    ]  # fmt: skip


def test_an_adopted_child_that_ends_is_replaced(nodes: Nodes) -> None:
    first = nodes.running()
    first.send(signal.SIGKILL)
    first.wait()
    second = nodes.start()
    second.expect("agent: adopted")
    os.kill(second.pid("guard"), signal.SIGKILL)
    second.expect("guard: started")
    second.expect("hello from guard")


def test_a_second_supervisor_is_refused_while_the_first_lives(nodes: Nodes) -> None:
    nodes.running()
    second = nodes.start()
    assert second.wait() != 0
    assert "runs already" in second.expect("AlreadyRuns")


def test_a_child_that_does_not_stop_is_killed_after_its_grace(nodes: Nodes) -> None:
    node = nodes.running(guard=["stubborn"])
    node.send(signal.SIGTERM)
    node.expect("guard: did not stop in time, killed")
    assert node.wait() == 0


def test_the_second_interrupt_ends_a_hand_over_that_hangs(nodes: Nodes) -> None:
    node = nodes.running(hand_over=[])
    node.send(signal.SIGINT)
    node.expect("handing the groups over")
    node.send(signal.SIGINT)
    node.expect("stopping at once")
    assert node.wait() == 0
    assert Identity.of(node.process.pid) is None
    assert RoleLock(node.run_dir, "store").holder() is None


def test_a_terminal_that_is_not_read_stops_nobody(nodes: Nodes) -> None:
    node = nodes.running()
    pipe_and_more = 3 * 65536
    with (node.run_dir / "store.log").open("a") as log:
        log.write(("y" * 99 + "\n") * (pipe_and_more // 100))
    os.kill(node.pid("agent"), signal.SIGKILL)
    pidfd = os.pidfd_open(node.pid("guard"))
    os.kill(node.pid("guard"), signal.SIGKILL)
    assert select.select([pidfd], [], [], _PATIENCE)[0]
    os.close(pidfd)
    node.expect_hellos("guard", "agent")  # read only now: what could not be printed was kept


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that a service of Type=notify speaks to; it wants a sign of life each 0.1 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(_PATIENCE)
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        yield listener


def _heard(listener: socket.socket, word: bytes) -> set[bytes]:
    """What is said before the word."""
    before = set()
    while (said := listener.recv(100)) != word:
        before.add(said)
    return before


def test_systemd_hears_that_the_node_is_ready_when_every_child_is(nodes: Nodes, systemd: socket.socket) -> None:
    node = nodes.start({"guard": {"vital": True}}, agent=["waits"])
    assert systemd.recv(100) == b"WATCHDOG=1"  # the guard's signs of life; the agent is not ready
    node.expect_hellos("store", "guard", "agent")
    os.kill(node.pid("agent"), signal.SIGUSR1)
    assert _heard(systemd, b"READY=1") <= {b"WATCHDOG=1"}
    node.send(signal.SIGTERM)
    assert _heard(systemd, b"STOPPING=1") <= {b"WATCHDOG=1"}


def test_adopted_children_go_on_to_be_heard(nodes: Nodes, systemd: socket.socket) -> None:
    first = nodes.start({"guard": {"vital": True}})
    _heard(systemd, b"READY=1")
    first.send(signal.SIGKILL)
    first.wait()
    nodes.start({"guard": {"vital": True}}).expect("guard: adopted")
    _heard(systemd, b"READY=1")


def test_a_vital_child_that_hangs_is_not_called_alive(tmp_path: Path) -> None:
    ear = Ear(tmp_path / "guard.notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as child:
        child.connect(ear.environment["NOTIFY_SOCKET"])
        ear.listen(100.0, runs=True)
        assert not ear.alive(100.0)
        child.send(b"READY=1")
        child.send(b"WATCHDOG=1\nSTATUS=fine")
        ear.listen(101.0, runs=True)
        assert (ear.ready, ear.alive(101.0 + SILENCE - 0.1), ear.alive(101.0 + SILENCE)) == (True, True, False)
        ear.ended()
        assert not ear.alive(101.0)
    ear.close()
    assert not ear.path.exists()


def test_where_no_socket_can_be_a_child_that_runs_counts_as_alive(tmp_path: Path) -> None:
    ear = Ear(tmp_path / ("x" * 120))
    assert "NOTIFY_SOCKET" not in ear.environment
    ear.listen(5.0, runs=True)
    assert ear.alive(5.0)
    ear.listen(6.0, runs=False)
    assert not ear.alive(6.0)


def test_a_role_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hasys.processes import RoleLock\n"
        "RoleLock(Path(sys.argv[1]), 'agent').take(); print('held', flush=True); sys.stdin.read()"
    )
    lock = RoleLock(tmp_path, "agent")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert lock.holder() == Identity.of(other.pid)
        with pytest.raises(AlreadyRuns, match=f"pid {other.pid}"):
            lock.take()
        other.kill()
        other.wait()
        assert lock.holder() is None
    lock.take()
    assert lock.holder() == Identity.of(os.getpid())
