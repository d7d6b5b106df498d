"""Who holds the addresses: every machine asked by its own MAC address, every few milliseconds, all of it recorded.

Asked are ICMP echo in every round and, for IPv4, ARP in every second one: a machine that answers either has the
address on an interface and does not mute it. An answer is credited to the MAC that sent it. It runs at the observer's
port, which no silent drop affects: a machine that everybody else has lost is still seen.

Usage: ``python -m hasys.lab.watch RECORD INTERFACE IPV4 IPV6 --address A... --machine MAC...``
The record's ``target`` is address number x 256 + machine number, its ``kind`` is ECHO or WHO_HAS.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import select
import socket
import time
from contextlib import suppress

from hasys.lab.frames import ARP_TAGS, Asker, parse_mac
from hasys.lab.records import Pacer, Recorder, be_punctual

ECHO, WHO_HAS = 0, 1
PERIOD = 0.004
"""Seconds between rounds: two rounds and an answer fit into 10 ms."""

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23


class Watcher:
    """Asks all machines about all addresses; keeps what is still open for ``_MEMORY`` rounds."""

    _MEMORY = 64

    def __init__(self, asker: Asker, addresses: list[str], macs: list[bytes], recorder: Recorder) -> None:
        self._asker = asker
        self._addresses = addresses
        self._macs = macs
        self._recorder = recorder
        self._round = 0
        self._echoes: dict[int, int] = {}
        """Open echo questions: number -> target."""
        self._arps: dict[tuple[int, int], int] = {}
        """Open ARP questions: (target, tag) -> number."""

    def frames(self) -> list[bytes]:
        """The next round's questions, noted as sent now."""
        self._round += 1
        out = []
        for a, address in enumerate(self._addresses):
            for m, mac in enumerate(self._macs):
                target = a << 8 | m
                number = self._recorder.asked(time.monotonic_ns(), target, ECHO)
                self._echoes[number] = target
                out.append(self._asker.echo(mac, address, number))
                if self._round % 2 and ":" not in address:
                    tag = self._round // 2 % ARP_TAGS
                    self._arps[target, tag] = self._recorder.asked(time.monotonic_ns(), target, WHO_HAS)
                    out.append(self._asker.who_has(mac, address, tag))
        self._forget()
        return out

    def take(self, frame: bytes, received: int) -> None:
        """Note the answer in a frame, if it is one to us."""
        if len(frame) < 42 or frame[6:12] not in self._macs:
            return
        machine = self._macs.index(frame[6:12])
        echo = self._asker.echo_answer(frame)
        if echo is not None:
            self._credit(echo[1], self._target(echo[0], machine), received)
            return
        arp = self._asker.arp_answer(frame)
        if arp is not None:
            number = self._arps.pop((self._target(arp[0], machine), arp[1]), None)
            if number is not None:
                self._recorder.answered(number, received)

    def _credit(self, number: int, answering: int, received: int) -> None:
        if self._echoes.get(number) == answering:
            del self._echoes[number]
            self._recorder.answered(number, received)

    def _target(self, address: str, machine: int) -> int:
        return self._addresses.index(address) << 8 | machine if address in self._addresses else -1

    def _forget(self) -> None:
        limit = self._MEMORY * len(self._addresses) * len(self._macs)
        while len(self._echoes) > limit:
            del self._echoes[next(iter(self._echoes))]


def main() -> None:
    """Ask until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=int, help="number of the open file to record in")
    parser.add_argument("interface")
    parser.add_argument("ipv4", type=ipaddress.IPv4Address)
    parser.add_argument("ipv6", type=ipaddress.IPv6Address)
    parser.add_argument("--address", action="append", required=True)
    parser.add_argument("--machine", action="append", required=True, type=parse_mac)
    options = parser.parse_args()
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    link.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    link.bind((options.interface, _ETH_P_ALL))
    asker = Asker(link.getsockname()[4], options.ipv4, options.ipv6, os.getpid() & 0xFFFF)
    watcher = Watcher(asker, options.address, options.machine, Recorder(options.record))
    be_punctual(21)
    pacer = Pacer(PERIOD)
    while True:
        if pacer.due():
            for frame in watcher.frames():
                with suppress(OSError):  # the queue is full: a question without an answer
                    link.send(frame)
        if select.select([link], [], [], pacer.remaining())[0]:
            with suppress(BlockingIOError):
                while True:
                    watcher.take(link.recv(2048), time.monotonic_ns())


if __name__ == "__main__":
    main()
