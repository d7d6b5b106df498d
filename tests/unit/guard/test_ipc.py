"""The socket itself, and who may ask what: real sockets, the guard's own loop, no kernel."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hasys.guard import ipc
from hasys.guard.desk import Desk
from hasys.guard.ipc import LOOK, Server
from hasys.guard.loop import Loop
from tests.unit.guard.fakes import Bench


class Table:
    """A desk with its server; ``peer`` connects to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bench = Bench()
        self.bench.guard.start()
        self.time = 0.0
        self.loop = Loop(lambda: self.time)
        self.desk = Desk(self.bench.guard, "demo-n1", Path("/cg/hasys.demo-n1"), [])
        self.server = Server(path, self.loop, self.desk)
        self.peers: list[socket.socket] = []

    def peer(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(2)
        sock.connect(str(self.path))
        self.peers.append(sock)
        self.loop.once()
        return sock

    def ask(self, sock: socket.socket, **message: Any) -> dict[str, Any]:
        return self.say(sock, json.dumps({"id": 1, **message}).encode() + b"\n")

    def say(self, sock: socket.socket, line: bytes) -> dict[str, Any]:
        sock.sendall(line)
        self.loop.once()
        answer: dict[str, Any] = json.loads(sock.recv(65536).partition(b"\n")[0])
        return answer

    def agent(self) -> socket.socket:
        sock = self.peer()
        assert self.ask(sock, op="hello", pid=os.getpid(), cgroup="/cg/hasys.demo-n1/agent")["ok"]
        return sock


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path / "guard.sock")
    yield made
    made.server.close()
    for sock in made.peers:
        sock.close()


def test_only_the_owner_may_connect(table: Table) -> None:
    assert table.path.stat().st_mode & 0o777 == 0o600


def test_without_hello_only_status_is_answered(table: Table) -> None:
    sock = table.peer()
    assert table.ask(sock, op="permit", group="web", epoch=1)["error"] == "say hello first"
    assert table.ask(sock, op="status")["instance"] == "demo-n1"


def test_a_process_cannot_speak_for_another(table: Table) -> None:
    assert "cannot speak for process 1" in table.ask(table.peer(), op="hello", pid=1, cgroup="")["error"]


@pytest.mark.parametrize("cgroup", ["/cg", "/cg/hasys.demo-n1", "/cg/hasys.demo-n1/agent/x", "/cg/hasys.demo-n2/agent"])
def test_no_other_cgroup_than_the_agents_is_taken_as_the_agents(table: Table, cgroup: str) -> None:
    answer = table.ask(table.peer(), op="hello", pid=os.getpid(), cgroup=cgroup)
    assert answer["error"] == f"{cgroup} is not /cg/hasys.demo-n1/agent"


def test_a_new_agent_takes_the_place_of_the_old_one(table: Table) -> None:
    old = table.agent()
    new = table.agent()
    assert old.recv(1) == b""
    assert table.ask(new, op="permit", group="web", epoch=1)["state"] == "pending"
    assert table.bench.guard.agent_here


def test_an_agent_that_hangs_up_is_not_here_any_more(table: Table) -> None:
    table.agent().close()
    table.loop.once()
    assert not table.bench.guard.agent_here


def test_a_line_that_is_no_request_costs_one_answer_and_nothing_else(table: Table) -> None:
    sock = table.agent()
    assert table.say(sock, b"nonsense\n") == {"id": 0, "ok": False, "error": "not a line of JSON", "code": "refused"}
    assert table.ask(sock, op="status")["ok"]


def test_a_line_without_an_end_is_cut_off_at_the_limit(table: Table) -> None:
    sock = table.peer()
    for piece in [b"x" * 16384] * 4 + [b"x"]:
        sock.sendall(piece)
        table.loop.once()
    assert b"line longer than 65536 bytes" in sock.recv(4096)
    assert sock.recv(1) == b""


def test_several_requests_in_one_piece_are_all_answered_in_order(table: Table) -> None:
    sock = table.agent()
    sock.sendall(
        b"".join(json.dumps({"id": n, "op": "permit", "group": "web", "epoch": n}).encode() + b"\n" for n in range(5))
    )
    table.loop.once()
    answers = [json.loads(line) for line in sock.recv(65536).splitlines()]
    assert [a["id"] for a in answers] == [0, 1, 2, 3, 4]


def test_a_peer_that_does_not_read_is_cut_off_and_the_guard_goes_on(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc, "MAX_UNSENT", 4096)
    deaf = table.agent()
    for _ in range(10_000):
        table.desk.push({"event": "revoked", "group": "web", "epoch": 1, "reason": "x" * 200})
    assert not table.bench.guard.agent_here
    assert table.ask(table.peer(), op="status")["ok"]
    deaf.close()


def test_a_removed_socket_file_returns_and_who_is_connected_stays(table: Table) -> None:
    agent = table.agent()
    shutil.rmtree(table.path.parent)
    table.time += LOOK
    table.loop.once()
    assert table.ask(table.peer(), op="status")["ok"]
    assert table.ask(agent, op="status")["agent"]["connected"]


def test_more_connections_than_the_limit_are_closed(table: Table) -> None:
    peers = [table.peer() for _ in range(ipc.MAX_CONNECTIONS + 1)]
    assert peers[-1].recv(1) == b""
    assert table.ask(peers[0], op="status")["ok"]


def test_a_cgroup_of_another_group_is_refused_before_anything_is_stored(table: Table) -> None:
    entry = {"kind": "cgroup", "path": "/cg/hasys.demo-n1/groups/db/x", "resource": "x"}
    answer = table.ask(table.agent(), op="plan", group="web", epoch=1, version=1, entries=[entry])
    assert answer["error"] == "/cg/hasys.demo-n1/groups/db/x is not below /cg/hasys.demo-n1/groups/web/"
    assert table.bench.store.saved.plans == {}


def test_a_blocked_release_names_its_blockers(table: Table) -> None:
    sock = table.agent()
    entry = {"kind": "address", "interface": "eth0", "address": "10.0.0.5/24", "resource": "ip"}
    assert table.ask(sock, op="plan", group="web", epoch=1, version=1, entries=[entry])["state"] == "pending"
    table.bench.machine.there.add("10.0.0.5")
    answer = table.ask(sock, op="release", group="web", epoch=1)
    assert (answer["code"], answer["error"]) == ("blocked", "ip: address 10.0.0.5 is still on eth0")


def test_hello_tells_a_new_agent_what_may_go_on(table: Table) -> None:
    sock = table.agent()
    table.bench.grant(web=(1, 1))
    assert table.ask(sock, op="plan", group="web", epoch=1, version=1, entries=[])["state"] == "permitted"
    again = table.ask(table.peer(), op="hello", pid=os.getpid(), cgroup="")
    assert again["permitted"] == [["web", 1]]
    assert again["plans"] == [{"group": "web", "epoch": 1, "version": 1, "entries": []}]
    assert again["lease"]["valid"] is True
