"""One guard on a machine of its own, an imitated leader and a client that asks with real packets.

Two network namespaces joined by a cable: ``node`` (10.77.0.1, fd77::1 on eth0) and ``peer`` (10.77.0.2, fd77::2). The
leader is a thread of the test with a socket in ``peer``; it grants what :attr:`Leader.groups` says, or nothing when
told to be silent. The agent is the test itself, but a fence kills the cgroup that it names, where it is not.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from hasys.guard.cgroup import base, kill, mount, populated, remove
from hasys.lease.wire import DatagramRefused, Grant, KeepAlive, decode, encode

T = TypeVar("T")
CLUSTER, KEY = "rig", bytes(range(32))
TTL = 1.0
NODE4, PEER4, NODE6, PEER6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
VIP4, VIP6 = "10.77.0.100", "fd77::100"
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace that lives as long as its keeper process."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        self.pid = self._keeper.pid
        until(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != own, "namespace")

    def run(self, command: str) -> str:
        """A shell command inside; its output. Raises ``CalledProcessError``."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "sh", "-ec", command], check=True, capture_output=True, text=True
        ).stdout

    def mac(self, interface: str = "eth0") -> str:
        """(Not from /sys: that shows the network namespace in which it was mounted.)"""
        return self.run(f"ip -o link show {interface}").split("link/ether ")[1].split()[0]

    def spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["nsenter", "-t", str(self.pid), "-n", *argv])

    def inside(self, make: Callable[[], T]) -> T:
        """Call in a thread that is inside: sockets made there stay there."""
        result: list[T] = []

        def work() -> None:
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            if _libc.setns(fd, 0):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(fd)
            result.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return result[0]

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


class Leader:
    """Answers keep-alives with grants, like a store that leads without any doubt."""

    def __init__(self, peer: Namespace) -> None:
        self.groups: dict[str, tuple[int, int]] = {}
        """Group -> (epoch, version) to grant."""
        self.granting = True
        self.term = 1
        self.last: KeepAlive | None = None
        self._version = 1
        self._closing = False
        self._socket = peer.inside(_udp)
        self._from: tuple[str, int] | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def grant(self, groups: dict[str, tuple[int, int]]) -> None:
        """From now on; pushed at once, as a store does when a group becomes permitted."""
        self._version += 1
        self.groups = groups
        if self.last is not None and self._from is not None and self.granting:
            self._socket.sendto(self._answer(self.last), self._from)

    @property
    def guard_address(self) -> tuple[str, int]:
        """Where the guard's datagrams come from."""
        until(lambda: self._from is not None, "keep-alive")
        assert self._from is not None
        return self._from

    def wait_released(self, group: str, epoch: int) -> None:
        until(lambda: self.last is not None and (group, epoch) in self.last.released, f"release of {group}")

    def _answer(self, k: KeepAlive) -> bytes:
        named = tuple((g, e, v) for g, (e, v) in self.groups.items())
        return encode(
            Grant(CLUSTER, "n2", self.term, k.node, k.seq, k.nonce, self._version, 0.0, TTL, named, keepalive=0.08), KEY
        )

    def _serve(self) -> None:
        while not self._closing:
            try:
                data, sender = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            try:
                message = decode(data, CLUSTER, lambda _: KEY)
            except DatagramRefused:
                continue
            assert isinstance(message, KeepAlive)
            self.last, self._from = message, sender
            if self.granting:
                self._socket.sendto(self._answer(message), sender)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()


class Talk:
    """A blocking client of the guard's socket, for tests."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        until(lambda: path.exists() and self._socket.connect_ex(str(path)) == 0, "guard socket")
        self._file = self._socket.makefile("rwb", buffering=0)
        self._id = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer, refusals included; events on the way are kept."""
        self._id += 1
        self._file.write(json.dumps({"id": self._id, "op": op, **fields}).encode() + b"\n")
        while True:
            message = self._next()
            if message.get("id") == self._id:
                return message

    def wait_event(self, **fields: Any) -> dict[str, Any]:
        """The next event with these fields."""
        while True:
            for event in self.events:
                if all(event.get(k) == v for k, v in fields.items()):
                    self.events.remove(event)
                    return event
            self._next()

    def _next(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise EOFError("the guard closed the connection")
        message: dict[str, Any] = json.loads(line)
        if message.get("event") == "ping":
            self._file.write(b'{"id":0,"op":"alive"}\n')
        elif "event" in message:
            self.events.append(message)
        return message

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Rig:
    """A node with a guard, its leader, and the cable between them."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.instance = f"rig{os.getpid()}-n1"
        self.node, self.peer = Namespace(), Namespace()
        self.node.run("ip link set lo up")
        self.peer.run(f"ip link set lo up; ip link add eth0 type veth peer name eth0 netns {self.node.pid}")
        for ns, v4, v6 in ((self.node, NODE4, NODE6), (self.peer, PEER4, PEER6)):
            ns.run(
                f"sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up;"
                f"ip addr add {v4}/24 dev eth0; ip -6 addr add {v6}/64 dev eth0 nodad"
            )
        root = mount()
        assert root is not None, "no cgroup v2 hierarchy is mounted"
        self.cgroups = base(root, self.instance)
        (self.cgroups / "agent").mkdir(parents=True)
        self.config = self._write_config()
        self.leader = Leader(self.peer)
        self.guard: subprocess.Popen[bytes] | None = None
        self.talks: list[Talk] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def _write_config(self) -> Path:
        for name in ("ca.crt", "node.crt", "node.key", "lease.secret", "node.secret"):
            (self.tmp / name).write_text(KEY.hex())
            (self.tmp / name).chmod(0o600)
        members = [
            {"name": "n1", "role": "Voter", "addresses": [NODE4]},
            {"name": "n2", "role": "Voter", "addresses": [PEER4]},
        ]
        path = self.tmp / "node.yaml"
        cluster, _, _ = self.instance.rpartition("-")
        run_dir = str(self.tmp / "run")
        raw = {"cluster": cluster, "clusterId": CLUSTER, "node": "n1", "members": members, "runDir": run_dir}
        path.write_text(json.dumps(raw))  # JSON is YAML
        return path

    def start_guard(self, *, looks: bool = True) -> Talk:
        """Start it and be its agent. Without ``looks`` it never looks by itself whether somebody changed its gate: what
        it knows of that the kernel told it."""
        (self.tmp / "run" / "guard.sock").unlink(missing_ok=True)
        self.guard = self.spawn_guard(looks=looks)
        return self.agent()

    def spawn_guard(self, *, looks: bool = True) -> subprocess.Popen[bytes]:
        code = "import sys; from hasys.config import load; from hasys.guard.main import run; run(load(sys.argv[1]))"
        if not looks:
            code = f"from hasys.guard import core; core.LOOK_AGAIN = 1e6; {code}"
        return self.node.spawn(sys.executable, "-c", code, str(self.config))

    def process_in(self, cgroup: Path) -> subprocess.Popen[bytes]:
        """A process that only SIGKILL ends."""
        cgroup.mkdir(parents=True, exist_ok=True)
        script = f"echo $$ > {cgroup}/cgroup.procs; trap '' TERM INT HUP; exec sleep infinity"
        process = subprocess.Popen(["sh", "-c", script])
        until(lambda: populated(cgroup), "process in its cgroup")
        self.processes.append(process)
        return process

    def agent(self) -> Talk:
        talk = Talk(self.tmp / "run" / "guard.sock")
        self.talks.append(talk)
        hello = talk.ask("hello", pid=os.getpid(), cgroup=str(self.cgroups / "agent"))
        assert hello["ok"], hello
        return talk

    def serve(self, talk: Talk, epoch: int = 1) -> None:
        """Group web with both addresses, permitted and on the interface."""
        self.leader.grant({"web": (epoch, 1)})
        reply = talk.ask("plan", group="web", epoch=epoch, version=1, entries=ENTRIES)
        assert reply["ok"], reply
        self.add_addresses()
        if reply["state"] == "pending":
            talk.wait_event(event="permitted", group="web", epoch=epoch)

    def add_addresses(self) -> None:
        self.node.run(f"ip addr replace {VIP4}/24 dev eth0; ip -6 addr replace {VIP6}/64 dev eth0 nodad")

    def static_neighbours(self) -> None:
        """The peer knows the node's MAC for both virtual addresses: asks it without ARP or neighbour discovery."""
        mac = self.node.mac()
        for address in (VIP4, VIP6):
            self.peer.run(f"ip neigh replace {address} lladdr {mac} dev eth0 nud permanent")

    def listen(self, port: int) -> socket.socket:
        """A TCP server in the node that greets everybody."""
        server = self.node.inside(
            lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        return server

    def signal(self, number: int) -> None:
        assert self.guard is not None
        self.guard.send_signal(number)

    def close(self) -> None:
        if self.guard is not None:
            self.guard.kill()
            self.guard.wait()
        for talk in self.talks:
            talk.close()
        kill(self.cgroups)
        for process in self.processes:
            process.wait()
        remove(self.cgroups)
        self.leader.close()
        self.node.close()
        self.peer.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, a: type[BaseException] | None, b: BaseException | None, c: TracebackType | None) -> None:
        self.close()


ENTRIES = [
    {"kind": "address", "interface": "eth0", "address": VIP4, "resource": "web-ip"},
    {"kind": "address", "interface": "eth0", "address": VIP6, "resource": "web-ip6"},
]


class Pinger:
    """Asks one address every few milliseconds from a namespace and records which questions it answered."""

    def __init__(self, ns: Namespace, address: str, period: float = 0.005) -> None:
        self._sent: list[float] = []
        """When each question left, by its number."""
        self._answered: set[int] = set()
        self._address = address
        self._period = period
        self._v6 = ":" in address
        self._socket = ns.inside(self._open)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._ask, self._listen)]
        for t in self._threads:
            t.start()

    def _open(self) -> socket.socket:
        if self._v6:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sock.settimeout(0.2)
        return sock

    def _ask(self) -> None:
        while not self._stop.wait(self._period):
            packet = self._question(len(self._sent))
            self._sent.append(time.monotonic())
            try:
                self._socket.sendto(packet, (self._address, 0))
            except OSError:
                continue

    def _question(self, number: int) -> bytes:
        """An echo request; the kernel fills in the checksum of IPv6 alone."""
        packet = struct.pack(">BBHHH", 128 if self._v6 else 8, 0, 0, 0x4841, number)
        if self._v6:
            return packet
        checksum = 0xFFFF - sum(struct.unpack(">4H", packet)) % 0xFFFF
        return struct.pack(">BBHHH", 8, 0, checksum, 0x4841, number)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                data, (sender, *_) = self._socket.recvfrom(2048)
            except OSError:
                continue
            reply = data if self._v6 else data[20:]
            if sender == self._address and reply[0] == (129 if self._v6 else 0):
                self._answered.add(int.from_bytes(reply[6:8], "big"))

    def wait_answer(self) -> None:
        begun = time.monotonic()
        until(lambda: self.last_answered() > begun, f"an answer of {self._address}")

    def longest_loss(self) -> float:
        """Seconds from the first to the last of questions in a row that were never answered, up to the newest answer.
        When this process itself pauses it asks nothing, and so loses nothing."""
        longest, first = 0.0, None
        for number, sent in enumerate(self._sent[min(self._answered) : max(self._answered)], min(self._answered)):
            if number in self._answered:
                first = None
                continue
            first = sent if first is None else first
            longest = max(longest, sent - first)
        return longest

    def quiet_for(self, seconds: float) -> bool:
        """Whether nothing answers for so long, from now on."""
        begun = time.monotonic()
        time.sleep(seconds)
        return self.last_answered() < begun  # the answer to an earlier question may be read late

    def last_answered(self) -> float:
        """When the newest question that was answered left: then, or after, the address spoke."""
        return self._sent[max(self._answered)] if self._answered else 0.0

    def close(self) -> None:
        self._stop.set()
        for t in self._threads:
            t.join()
        self._socket.close()


def until(condition: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Wait for it; an ``AssertionError`` names what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.002)


@contextmanager
def pinging(ns: Namespace, *addresses: str) -> Iterator[list[Pinger]]:
    """Pingers for the block."""
    pingers = [Pinger(ns, a) for a in addresses]
    try:
        yield pingers
    finally:
        for p in pingers:
            p.close()


def reaches(ns: Namespace, address: str, port: int, seconds: float = 0.3) -> bool:
    """Whether a TCP service greets a client in the namespace."""

    def connect() -> bool:
        try:
            with socket.create_connection((address, port), timeout=seconds) as s:
                s.settimeout(seconds)
                return s.recv(16) == b"hello"
        except OSError:
            return False

    return ns.inside(connect)


def _greet(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"hello")


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((PEER4, 7413))
    sock.settimeout(0.1)
    return sock


STOP, CONT, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL
