"""The disk that decides between two nodes: where the blocks lie, and the thread that writes and reads them.

Layout: two areas for the node whose name comes first, two for the other; a write goes to the area that the last one did
not go to, so a write that the power cut leaves the one before. An area holds a header (magic, length, checksum), the
cluster's id and the block as JSON; zeros are a disk that nobody used yet, anything else is not ours and is refused.
Always past the page cache (O_DIRECT, O_DSYNC): another machine must see it. A disk may hang: the guard goes on without.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import queue
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hasys.config import NodeConfig
from hasys.guard.loop import Loop
from hasys.lease.arbiter import ROUNDS, ArbiterKeeper
from hasys.lease.ballots import Block, Claim, Look
from hasys.model.errors import Refused

if TYPE_CHECKING:
    from hasys.guard.core import Guard

AREA = 32 * 1024
"""Bytes of one area; a multiple of every block size."""
AREAS = 4
SIZE = AREA * AREAS
"""Bytes that must be there."""
_HEADER = struct.Struct(">8sII")
_MAGIC = b"hasysarb"
_STACK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose areas are whose. Both nodes must say the same."""

    path: Path
    cluster: str
    """Its id: a disk of another cluster is refused."""
    node: str
    other: str

    def areas(self, node: str) -> tuple[int, int]:
        """Offsets in bytes."""
        first = 2 * sorted((self.node, self.other)).index(node)
        return first * AREA, (first + 1) * AREA


def seat_of(config: NodeConfig) -> Seat | None:
    """None: no disk decides."""
    if config.arbiter is None:
        return None
    other = next(m.name for m in config.members if m.name != config.name)
    return Seat(config.arbiter, config.cluster_id, config.name, other)


class File:
    """The open disk. Every call may take as long as the disk does and raises ``OSError`` or ``Refused``; so does
    the constructor."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._buffer = mmap.mmap(-1, AREA)  # aligned, as O_DIRECT wants it
        try:
            self._fd = os.open(seat.path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC | os.O_CLOEXEC)
        except OSError as e:
            why = "takes no direct I/O: use a block device" if e.errno == errno.EINVAL else e.strerror
            raise Refused(f"{seat.path}: {why}") from None

    def close(self) -> None:
        os.close(self._fd)

    def write(self, block: Block) -> None:
        """Durable, and seen by every later read of any machine, when it returns."""
        data = encode(self._seat.cluster, block)
        self._buffer[:] = data.ljust(AREA, b"\0")
        offset = self._seat.areas(block.node)[block.seq % 2]
        if os.pwritev(self._fd, [self._buffer], offset) != AREA:
            raise OSError(5, "the disk took less than a whole block")

    def read(self, node: str) -> Block | None:
        """The newest whole block of a node; None: it never wrote one."""
        found: list[Block] = []
        torn = 0
        for offset in self._seat.areas(node):
            if os.preadv(self._fd, [self._buffer], offset) != AREA:
                raise Refused(f"{self._seat.path}: smaller than {SIZE} bytes")
            try:
                block = decode(self._seat, bytes(self._buffer))
            except Torn:
                torn += 1
                continue
            if block is None:
                continue
            if block.node != node:
                raise Refused(f"{self._seat.path}: not understood: {block.node} where {node} writes")
            found.append(block)
        if torn == len(self._seat.areas(node)):
            raise Refused(f"{self._seat.path}: both areas of {node} are damaged: {wipe(self._seat.path)}")
        return max(found, key=lambda b: b.seq, default=None)


class Torn(Exception):
    """A write was cut by the power."""


def wipe(path: Path) -> str:
    """How to begin anew; only while both nodes are stopped."""
    return f"stop both nodes, then: dd if=/dev/zero of={path} bs={AREA} count={AREAS} conv=fsync,notrunc"


def encode(cluster: str, block: Block) -> bytes:
    """One area. Raises ``Refused`` when it does not fit."""
    claims = {group: [claim.ballot, claim.owned] for group, claim in block.claims.items()}
    content = json.dumps([cluster, block.node, block.seq, block.top, block.life, claims]).encode()
    if _HEADER.size + len(content) > AREA:
        raise Refused(f"{len(claims)} groups do not fit on the arbiter's disk")
    return _HEADER.pack(_MAGIC, len(content), zlib.crc32(content)) + content


def decode(seat: Seat, area: bytes) -> Block | None:
    """The block of an area; None: never written. Raises :class:`Torn`, ``Refused`` for what is not ours."""
    magic, length, check = _HEADER.unpack_from(area)
    if magic != _MAGIC:
        if not any(area):
            return None
        raise Refused(f"{seat.path}: holds something else: if it may be lost, {wipe(seat.path)}")
    content = area[_HEADER.size : _HEADER.size + length]
    if zlib.crc32(content) != check:
        raise Torn
    try:
        cluster, node, seq, top, life, claims = json.loads(content)
        found = {str(g): Claim(_number(ballot), bool(owned)) for g, (ballot, owned) in claims.items()}
        block = Block(str(node), _number(seq), _number(top), float(life), found)
        if not 0 <= block.life < math.inf or not all(text.isprintable() for text in (block.node, *found)):
            raise ValueError("a time or a name that nobody has")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise Refused(f"{seat.path}: not understood: {e}") from None
    if cluster != seat.cluster:
        raise Refused(f"{seat.path}: is of another cluster: if it may be lost, {wipe(seat.path)}")
    return block


def _number(value: Any) -> int:
    """A count that can still grow. Raises ``ValueError``, ``TypeError``."""
    if not 0 <= value < 1 << 63:
        raise ValueError("a number that nobody counts to")
    return int(value)


class Port(Protocol):
    """Does one round, then calls. A fence device could stand behind the same port."""

    def put(self, block: Block | None, done: Callable[[Look | Refused], None]) -> None: ...


class Disk:
    """Rounds in a thread of its own, one at a time; the answer comes in the guard's."""

    def __init__(self, seat: Seat, loop: Loop, clock: Callable[[], float]) -> None:
        self._seat, self._clock = seat, clock
        self._file: File | None = None
        self._asked: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Look | Refused] = queue.SimpleQueue()
        self._calls: list[Callable[[Look | Refused], None]] = []
        self._wake, self._woken = socket.socketpair()
        loop.reader(self._woken.fileno(), self._finished)
        size = threading.stack_size(_STACK)
        threading.Thread(target=self._run, name="arbiter", daemon=True).start()
        threading.stack_size(size)

    def put(self, block: Block | None, done: Callable[[Look | Refused], None]) -> None:
        """Write the block, if there is one, and read both."""
        self._calls.append(done)
        self._asked.put(block)

    def _run(self) -> None:
        while True:
            block = self._asked.get()
            try:
                self._answers.put(self._round(block))
            except (OSError, Refused) as e:
                if self._file is not None:
                    self._file.close()
                    self._file = None
                self._answers.put(e if isinstance(e, Refused) else Refused(f"{self._seat.path}: {e.strerror}"))
            self._wake.send(b"x")

    def _round(self, block: Block | None) -> Look:
        if self._file is None:
            self._file = File(self._seat)
        if block is not None:
            self._file.write(block)
        began = self._clock()
        return Look(block, began, self._file.read(self._seat.node), self._file.read(self._seat.other))

    def _finished(self) -> None:
        self._woken.recv(1)
        self._calls.pop(0)(self._answers.get())


class Arbiter:
    """Round after round, as long as the guard runs. One per guard, in its thread."""

    def __init__(self, guard: Guard, keeper: ArbiterKeeper, port: Port) -> None:
        self._guard, self._keeper, self._port = guard, keeper, port
        self.trouble = ""
        """Why the disk decides nothing now; "" when it does."""
        self._begun = 0.0

    def start(self) -> None:
        """The first round, and those after it."""
        self._begun = self._guard.now()
        self._port.put(self._keeper.round(self._begun), self._done)
        self._guard.parts.loop.at(self._begun + self._pause, self._overdue)

    def to_json(self) -> dict[str, Any]:
        """For status: what this node claims, and whether it would take anything over."""
        ballots = self._keeper.ballots
        return {
            "trouble": self.trouble,
            "met": self._keeper.met,
            "locks": {group: "owned" if claim.owned else "claimed" for group, claim in ballots.claims.items()},
            "others": sorted(ballots.other.claims) if ballots.other is not None else [],
        }

    @property
    def _pause(self) -> float:
        return self._keeper.ballots.life / ROUNDS

    def _overdue(self) -> None:
        """A round that does not end is said; the next one begins after it."""
        now = self._guard.now()
        if now - self._begun > self._keeper.ballots.life:
            self.trouble = "arbiter: the disk does not answer"
        self._guard.parts.loop.at(now + self._pause, self._overdue)

    def _done(self, answer: Look | Refused) -> None:
        guard = self._guard
        if isinstance(answer, Refused):
            self.trouble = f"arbiter: {answer}"
        else:
            self.trouble = ""
            guard.apply(self._keeper.looked(answer, guard.now()))
            guard.alone.look()
            guard.tick()
        guard.parts.loop.at(max(guard.now(), self._begun + self._pause), self._again)

    def _again(self) -> None:
        self._begun = self._guard.now()
        self._port.put(self._keeper.round(self._begun), self._done)
