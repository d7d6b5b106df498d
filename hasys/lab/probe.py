"""What a client sees: one question per period to an address (ICMP echo) or a web server (GET), each recorded.

A process of its own with real-time priority, so that a busy test does not blur it. It runs in the client machine, whose
kernel is a real client: it learns a moved address from gratuitous ARP like any other.

Usage: ``python -m hasys.lab.probe RECORD (icmp|http) ADDRESS[/PORT] --period SECONDS``
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import select
import socket
import struct
import time
from contextlib import suppress

from hasys.lab.records import Pacer, Recorder, be_punctual
from hasys.lab.shell import in_netns

_GIVE_UP = 1.0
"""Seconds after which a GET without an answer is abandoned."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(kind: int, ident: int, number: int) -> bytes:
    """An echo request whose payload is the question's number. ICMPv6 checksums are the kernel's work."""
    payload = struct.pack("!Q", number)
    head = struct.pack("!BBHHH", kind, 0, 0, ident, number & 0xFFFF)
    return head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:] + payload


def reach(netns: str, address: str, timeout: float) -> bool:
    """One echo request from a network namespace: was it answered within ``timeout`` seconds?"""
    v6 = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    ident = int.from_bytes(os.urandom(2), "big")
    with in_netns(netns, lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as s:
        deadline = time.monotonic() + timeout
        try:
            s.sendto(echo_request(128 if v6 else 8, ident, 1), (address, 0))
            while (left := deadline - time.monotonic()) > 0:
                s.settimeout(left)
                data = s.recv(512)
                message = data if v6 else data[(data[0] & 15) * 4 :]
                if message[0] == (129 if v6 else 0) and message[4:6] == ident.to_bytes(2, "big"):
                    return True
        except OSError:  # no route, no neighbour, or the time was up
            pass
    return False


class EchoProbe:
    """ICMP echo through a raw socket; IPv4 or IPv6."""

    def __init__(self, address: str, recorder: Recorder) -> None:
        self._v6 = ipaddress.ip_address(address).version == 6
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self._v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._to = (address, 0)
        self._ident = os.getpid() & 0xFFFF
        self._request, self._reply = (128, 129) if self._v6 else (8, 0)
        self._recorder = recorder
        self._open: set[int] = set()

    def ask(self) -> None:
        number = self._recorder.asked(time.monotonic_ns())
        self._open.add(number)
        with suppress(OSError):  # no neighbour, no buffer: a question that stays without an answer
            self._socket.sendto(echo_request(self._request, self._ident, number), self._to)

    def listen(self, timeout: float) -> None:
        """Take answers for at most ``timeout`` seconds."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return
        with suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(512)
                self._take(data if self._v6 else data[(data[0] & 15) * 4 :], sender[0], time.monotonic_ns())

    def _take(self, message: bytes, sender: str, received: int) -> None:
        if len(message) < 16 or message[0] != self._reply or sender != self._to[0]:
            return
        ident, number = struct.unpack("!4xH2xQ", message[:16])
        if ident == self._ident and number in self._open:
            self._open.remove(number)
            self._recorder.answered(number, received)


class HttpProbe:
    """One GET per period, each over a connection of its own, all in one thread."""

    def __init__(self, address: str, port: int, recorder: Recorder) -> None:
        self._to = (address, port)
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._recorder = recorder
        self._open: dict[int, tuple[socket.socket, int, int]] = {}
        self._poll = select.epoll()

    def ask(self) -> None:
        now = time.monotonic_ns()
        number = self._recorder.asked(now)
        for fd, (_, _, since) in list(self._open.items()):
            if now - since > _GIVE_UP * 1e9:
                self._close(fd)
        s = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        s.connect_ex(self._to)
        self._open[s.fileno()] = (s, number, now)
        self._poll.register(s, select.EPOLLOUT)

    def listen(self, timeout: float) -> None:
        """Move connections on for at most ``timeout`` seconds."""
        for fd, events in self._poll.poll(timeout):
            s, number, _ = self._open[fd]
            try:
                self._step(s, fd, number, events)
            except OSError:
                self._close(fd)

    def _step(self, s: socket.socket, fd: int, number: int, events: int) -> None:
        if events & select.EPOLLOUT:
            s.send(f"GET / HTTP/1.0\r\nHost: {self._to[0]}\r\n\r\n".encode())
            self._poll.modify(fd, select.EPOLLIN)
            return
        if s.recv(4096).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
            self._recorder.answered(number, time.monotonic_ns())
        self._close(fd)

    def _close(self, fd: int) -> None:
        s, _, _ = self._open.pop(fd)
        with suppress(OSError):
            self._poll.unregister(fd)
        s.close()


def main() -> None:
    """Ask until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=int, help="number of the open file to record in")
    parser.add_argument("mode", choices=("icmp", "http"))
    parser.add_argument("target", help="address, or address/port for http")
    parser.add_argument("--period", type=float, default=0.005, help="seconds")
    options = parser.parse_args()
    address, _, port = options.target.partition("/")
    recorder = Recorder(options.record)
    probe = EchoProbe(address, recorder) if options.mode == "icmp" else HttpProbe(address, int(port or 80), recorder)
    be_punctual(20)
    pacer = Pacer(options.period)
    while True:
        if pacer.due():
            probe.ask()
        probe.listen(pacer.remaining())


if __name__ == "__main__":
    main()
