"""The agent's connection to the guard. One connection is one hello: when it ends, everything is asked anew.

async with connect(config.guard_socket) as guard:
    known = await guard.hello(os.getpid(), "/sys/fs/cgroup/hasys.demo-n1/agent")
    state = await guard.plan(Plan("web", 7, 120, (AddressEntry("eth0", "10.77.0.100", "web-ip"),)))
    async for event in guard.events:
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from hasys.guard import protocol
from hasys.guard.protocol import PERMITTED, Address, AddressEntry, CgroupEntry, Plan, StoreAt
from hasys.model.errors import Refused, TimedOut, Unavailable
from hasys.model.networks import Trouble

__all__ = [
    "Address",
    "AddressEntry",
    "CgroupEntry",
    "GuardClient",
    "GuardEvent",
    "GuardGone",
    "LeaseChanged",
    "Permitted",
    "Plan",
    "ReleaseBlocked",
    "Revoked",
    "Stale",
    "connect",
]

MAX_EVENTS = 1024
"""Events that wait for the agent; one more means that it no longer reads, and the connection is given up."""


class GuardGone(Unavailable):
    """No guard answers on the socket: start nothing, connect again."""


class Stale(Refused):
    """An older epoch than the guard has seen or released: read the assignment again."""


class ReleaseBlocked(Refused):
    """Something of the group still runs or is still on the interface; the text names it."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """Effects of this group, epoch and planned version may start; its addresses are un-muted already."""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """The guard undoes, or has undone, everything of the group at this epoch: touch nothing of it again."""

    group: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """The node's lease began or ended."""

    valid: bool


@dataclass(frozen=True, slots=True)
class SwornTo:
    """The group is held here by an operator's oath at this epoch; ``leaving``: stop it in order, then release."""

    group: str
    epoch: int
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class OathEnded:
    """The oath of this epoch is over: the assignment counts again."""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class OathReport:
    """An oath began or ended: to be told to the store, then to be confirmed by :meth:`GuardClient.told`."""

    serial: int
    time: float
    """Wall clock."""
    group: str
    epoch: int
    begun: bool
    cause: str
    since: float = 0.0
    """Of an end: when it had begun; 0: not known."""
    why: str = ""
    """Of an end: why it had begun."""


@dataclass(frozen=True, slots=True)
class Note:
    """What the guard did, or found after a reset: to be told to the store, then confirmed by
    :meth:`GuardClient.noted`."""

    serial: int
    time: float
    """Wall clock."""
    reason: str
    """Of the catalogue of events."""
    groups: str
    epoch: int
    cause: str


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """There is another :class:`Note`."""


GuardEvent: TypeAlias = Permitted | Revoked | LeaseChanged | SwornTo | OathEnded | NoteTaken


@dataclass(frozen=True, slots=True)
class Known:
    """What the guard knew when the agent connected: for adoption."""

    instance: str
    lease_valid: bool
    lease_epoch: int
    remaining_ms: int
    plans: tuple[Plan, ...]
    """Stored plans, without a word whether anything of them still runs."""
    permitted: tuple[tuple[str, int], ...]
    """(group, epoch) that may act now."""
    released: tuple[tuple[str, int], ...]
    """(group, epoch): at this epoch and below nothing will be permitted again."""
    oaths: tuple[SwornTo, ...] = ()
    reports: tuple[OathReport, ...] = ()
    notes: tuple[Note, ...] = ()
    tokens: frozenset[str] = frozenset()
    """Groups that this node held last and may hold though no store answers (hasys.lease.tokens)."""


class GuardClient:
    """Requests may overlap. Each raises :class:`GuardGone` when the connection ends, ``TimedOut`` after ``timeout``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout
        self._waiting: dict[int, _Waiter] = {}
        self._next_id = 1
        self._gone: str | None = None
        self._send_events, self.events = anyio.create_memory_object_stream[GuardEvent](MAX_EVENTS)

    events: MemoryObjectReceiveStream[GuardEvent]
    """Ends when the connection does."""

    async def hello(self, pid: int, cgroup: str, networks: tuple[Trouble, ...] | None = None) -> Known:
        """Introduce the agent; the guard kills ``cgroup`` first when it fences."""
        r = _with_oaths(await self._ask(protocol.Hello(pid, cgroup, networks)))
        lease = r["lease"]
        return Known(
            r["instance"],
            lease["valid"],
            lease["epoch"],
            lease["remaining_ms"],
            tuple(protocol.plan_from_json(p) for p in r["plans"]),
            tuple((g, e) for g, e in r["permitted"]),
            tuple((g, e) for g, e in r["released"]),
            tuple(SwornTo(o["group"], o["epoch"], o["leaving"]) for o in r["oaths"]),
            reports_of(r),
            notes_of(r),
            frozenset(r.get("tokens", ())),
        )

    async def networks(self, troubles: tuple[Trouble, ...]) -> None:
        """Every interface that is not well: the stores hear of it at once."""
        await self._ask(protocol.Networks(troubles))

    async def gate(self, addresses: Iterable[Address]) -> None:
        """Set the full set of gated addresses: all groups that this node is a candidate for, Standby included.

        Returns when the kernel has them. An address that a plan names stays gated though it is not in the set.
        """
        await self._ask(protocol.Gate(tuple(addresses)))

    async def plan(self, plan: Plan) -> bool:
        """Store what is about to be done; True when it is permitted already, else wait for :class:`Permitted`.

        Replaces the group's earlier plan. Addresses of the plan may be put on their interface from now on (muted until
        permitted), processes only when permitted. Raises :class:`Stale` for an epoch below one planned or released.
        """
        return bool((await self._ask(plan))["state"] == PERMITTED)

    async def permit(self, group: str, epoch: int) -> bool:
        """Ask right before an effect: may it happen now?"""
        return bool((await self._ask(protocol.Permit(group, epoch)))["state"] == PERMITTED)

    async def release(self, group: str, epoch: int) -> None:
        """Confirm that nothing of the group is left here. Raises :class:`ReleaseBlocked` naming what is."""
        await self._ask(protocol.Release(group, epoch))

    async def swear(self, group: str, epoch: int, cause: str) -> int:
        """Root: hold the group by an operator's oath, at this epoch or a higher one, which is returned. Raises
        ``Refused`` while a leader answers."""
        return int((await self._ask(protocol.Swear(group, epoch, cause)))["epoch"])

    async def forswear(self, group: str, cause: str) -> None:
        """Root: stop holding it by an oath. Raises ``Refused`` when it is not."""
        await self._ask(protocol.Forswear(group, cause))

    async def told(self, serial: int) -> None:
        """The store knows of every report up to this one."""
        await self._ask(protocol.Told(serial))

    async def noted(self, serial: int) -> None:
        """The store knows of every note up to this one."""
        await self._ask(protocol.Noted(serial))

    async def stores(self, stores: Iterable[StoreAt], level: int) -> None:
        """Where keep-alives go from now on, and what all of these understand. Raises ``Refused`` where the guard's
        version does not know this."""
        await self._ask(protocol.Stores(tuple(stores), level))

    async def standby(self, groups: Mapping[str, protocol.StoodBy]) -> None:
        """Two nodes: what this node would run in its Active's place. Raises ``Refused`` where the guard's version does
        not know this."""
        await self._ask(protocol.Standby(groups))

    async def status(self) -> dict[str, Any]:
        """Everything the guard knows, for people."""
        return _with_oaths(await self._ask(protocol.Status()))

    async def _ask(self, request: protocol.Request) -> dict[str, Any]:
        if self._gone is not None:
            raise GuardGone(self._gone)
        id, waiter = self._next_id, _Waiter()
        self._next_id += 1
        self._waiting[id] = waiter
        try:
            with anyio.fail_after(self._timeout):
                await self._send(id, request)
                await waiter.done.wait()
        except TimeoutError:
            what = type(request).__name__.lower()
            raise TimedOut(f"guard: no answer to {what} within {self._timeout:g} s: is it stopped?") from None
        except ConnectionError:
            raise GuardGone("guard: connection lost") from None
        finally:
            del self._waiting[id]
        if waiter.reply is None:
            raise GuardGone(self._gone or "guard: connection lost")
        return _checked(waiter.reply)

    async def _send(self, id: int, request: protocol.Request) -> None:
        self._writer.write(protocol.encode({"id": id, **protocol.request_to_json(request)}))
        await self._writer.drain()

    async def _read(self) -> None:
        """Sort what arrives until the connection ends."""
        try:
            while True:
                line = await self._reader.readuntil(b"\n")
                raw = protocol.parse_object(line, protocol.MAX_ANSWER)
                if raw.get("event") == "ping":  # answered here: it proves that this event loop turns
                    await self._send(0, protocol.Alive())
                else:
                    self._take(raw)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._end("guard: connection lost")
        except anyio.WouldBlock:
            self._end(f"guard: {MAX_EVENTS} events were not read")
        except (protocol.BadMessage, asyncio.LimitOverrunError, KeyError, TypeError) as e:
            self._end(f"guard: answer not understood: {e}")

    def _take(self, raw: dict[str, Any]) -> None:
        match raw.get("event"):
            case None:
                waiter = self._waiting.get(raw["id"])
                if waiter is not None:
                    waiter.reply = raw
                    waiter.done.set()
            case "permitted":
                self._send_events.send_nowait(Permitted(raw["group"], raw["epoch"]))
            case "revoked":
                self._send_events.send_nowait(Revoked(raw["group"], raw["epoch"], raw["reason"]))
            case "lease":
                self._send_events.send_nowait(LeaseChanged(raw["valid"]))
            case "oath":
                self._send_events.send_nowait(SwornTo(raw["group"], raw["epoch"], raw["leaving"]))
            case "oath-ended":
                self._send_events.send_nowait(OathEnded(raw["group"], raw["epoch"]))
            case "note":
                self._send_events.send_nowait(NoteTaken())
            case _:
                pass  # a newer guard may say more; what matters is read again on each connection

    def _end(self, why: str) -> None:
        self._gone = why
        for waiter in self._waiting.values():
            waiter.done.set()
        self._send_events.close()


class _Waiter:
    """One request on its way."""

    __slots__ = ("done", "reply")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.reply: dict[str, Any] | None = None


def _with_oaths(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer to hello or status; a guard of a version without oaths, not yet restarted by an upgrade, has none."""
    return {"oaths": [], "reports": [], **answer}


def reports_of(answer: dict[str, Any]) -> tuple[OathReport, ...]:
    """The reports in an answer to hello or status."""
    return tuple(
        OathReport(
            r["serial"],
            r["time"],
            r["group"],
            r["epoch"],
            r["begun"],
            r["cause"],
            r.get("since", 0.0),
            r.get("why", ""),
        )
        for r in answer["reports"]
    )


def notes_of(answer: dict[str, Any]) -> tuple[Note, ...]:
    """The notes in an answer to hello or status; an older guard has none."""
    return tuple(
        Note(n["serial"], n["time"], n["reason"], n["groups"], n["epoch"], n["cause"]) for n in answer.get("notes", ())
    )


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if reply.get("ok") is True:
        return reply
    text = f"guard: {reply.get('error', 'refused')}"
    match reply.get("code"):
        case "stale":
            raise Stale(text)
        case "blocked":
            raise ReleaseBlocked(text)
        case _:
            raise Refused(text)


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Drop the connection at the end of the block, whatever a guard that does not read has left in it."""
    try:
        yield
    finally:
        writer.transport.abort()
        with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def connect(socket: Path, *, timeout: float = 5.0) -> AsyncIterator[GuardClient]:
    """A connection to the guard, closed at the end of the block. ``timeout`` in seconds, per request.

    Raises :class:`GuardGone` when nobody listens.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket, limit=protocol.MAX_ANSWER)
    except OSError as e:
        raise GuardGone(f"guard: {socket}: {e.strerror or e}: is 'hasys guard run' running?") from None
    client = GuardClient(reader, writer, timeout)
    failure: Exception | None = None
    async with _closing(writer), anyio.create_task_group() as tasks:
        tasks.start_soon(client._read)
        try:
            yield client
        except Exception as e:  # carried around the task group, which would wrap it in a group of exceptions
            failure = e
        finally:
            client._end("guard: connection closed")
            client.events.close()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
