"""The guard process: puts the parts together, hardens itself, and serves until it is told to stop.

It stops without fencing: what is held then ends in the kernel at the end of its lease. A planned stop hands over first.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import hasys
from hasys.config import NodeConfig
from hasys.files import private_folder
from hasys.guard import arbiter, cgroup, notes, realtime, tokens
from hasys.guard.core import Guard
from hasys.guard.desk import Desk
from hasys.guard.elements import Elements
from hasys.guard.fence import LinuxMachine
from hasys.guard.gate import Gate
from hasys.guard.ipc import Server
from hasys.guard.loop import Loop
from hasys.guard.netlink import NftEvents, Route, RouteEvents
from hasys.guard.network import Network
from hasys.guard.nft import Nft, NftError, NftMissing
from hasys.guard.parts import Parts
from hasys.guard.plan import Book, Damaged, PlanFile
from hasys.guard.ruleset import table_name
from hasys.guard.watchdog import WatchdogKeeper
from hasys.lease.arbiter import ArbiterKeeper
from hasys.lease.keeping import Keeper, KeeperState, Oath, Planned
from hasys.lease.tokens import TokenKeeper
from hasys.lease.wire import parse_secret
from hasys.model.errors import Refused
from hasys.model.lines import Speaker, json_line, one_line
from hasys.notify import ALIVE, READY, Notifier

COLLECT = 60.0
"""Seconds between garbage collections, otherwise off. What lives from the start is frozen, so they are short."""
LONGEST_NOTE = 500
"""Characters of what another process asks the guard to say."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Process:
    """Everything that one guard process owns."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.clock = time.monotonic
        self.loop = Loop(self.clock)
        self.file = PlanFile(config.run_dir)
        self.route = Route()
        self.gate, self.ports, self.gateless = _open_gate(config.instance)
        root = cgroup.mount()
        self.base = cgroup.base(root, config.instance) if root else None
        book = self._load()
        self.network = Network(config, self.loop, lambda data, foreign: self.guard.datagram(data, foreign=foreign))
        self.guard = Guard(self._parts(book), book)
        self.desk = Desk(self.guard, config.instance, self.base, [])

    def _load(self) -> Book:
        """What an earlier guard promised to undo. When that cannot be read, everything of this node is undone now."""
        try:
            self._check_kept()
            return self.file.load()
        except Damaged as e:
            self._say(f"{e}: fencing everything of this node")
            if self.gate is not None:
                self.gate.adopt({})
                machine = LinuxMachine(self.route)
                machine.remove_addresses(self.gate.gated)
            if self.base is not None:
                for part in ("agent", "groups"):
                    cgroup.kill(self.base / part)
            self.file.save(Book())
            return Book()

    def _check_kept(self) -> None:
        """No file is right on a machine that has nothing of ours. Raises :class:`Damaged` when there is something:
        an earlier guard kept a plan, and somebody removed it."""
        if self.file.exists():
            return
        if self.gate is not None:
            self.gate.adopt({})
        gated = self.gate is not None and self.gate.gated
        if gated or (self.base is not None and cgroup.populated(self.base / "groups")):
            raise Damaged(f"{self.config.run_dir}: the plan was removed while something of it is left")

    def _parts(self, book: Book) -> Parts:
        config = self.config
        permitted = {g: s for g, s in book.plans.items() if s.permitted}
        remaining: Mapping[str, float] = {}
        if self.gate is not None:
            remaining = self.gate.adopt({g: [a.address for a in s.addresses] for g, s in permitted.items()})
        disk, seat = None, arbiter.seat_of(config)
        keeper_class: Callable[..., Keeper] = Keeper
        if config.policy:
            kept = {**tokens.load(config.tokens), **book.tokens}
            disk = tokens.Disk(config.tokens, self.loop)
            keeper_class = functools.partial(
                TokenKeeper if seat is None else functools.partial(ArbiterKeeper, met=book.met),
                tokens=kept,
                taken=[group for group, oath in book.oaths.items() if oath.by_policy],
                policy=config.policy,
            )
        keeper = keeper_class(
            config.cluster_id,
            config.name,
            [m.name for m in config.voters],
            config.seed_timing(),
            f"{BOOT_ID.read_text().strip()}.{time.monotonic_ns()}",
            lambda: int.from_bytes(os.urandom(8), "big"),
            keeper_state(book),
            remaining,
        )
        return Parts(
            cluster=config.cluster_id,
            node=config.name,
            key=parse_secret(config.node_secret.read_bytes()),
            version=hasys.__version__,
            agent_grace=config.seed_timing().agent_grace,
            clock=self.clock,
            loop=self.loop,
            keeper=keeper,
            gate=self.gate,
            gateless=self.gateless,
            machine=LinuxMachine(self.route),
            links=self.route,
            store=self.file,
            network=self.network,
            watchdog=WatchdogKeeper(config.watchdog, self.loop, config.seed_timing().ttl / 2),
            push=lambda event: self.desk.push(event),
            tokens=disk,
            arbiter=arbiter.Disk(seat, self.loop, self.clock) if seat is not None else None,
            notes=notes.Notebook(
                tokens.Disk(config.guard_notes, self.loop),
                BOOT_ID.read_text().strip(),
                notes.read(config.guard_notes),
                notes.barked(config.watchdog.device),
            ),
            note=lambda: read_note(config.store_trouble),
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._stop_on_signals()
        routes = RouteEvents()
        self.loop.reader(routes.fileno(), lambda: self.guard.links_changed() if routes.drain() else None)
        if self.gate is not None:
            changes = NftEvents(self.gate.table, self.ports)
            self.loop.reader(changes.fileno(), lambda: self.guard.nft_changed() if changes.drain() else None)
        self.network.open(self.clock())
        missing = realtime.harden()
        self.desk = Desk(self.guard, self.config.instance, self.base, missing, str(self.config.path))
        self.guard.start()
        server = Server(self.config.guard_socket, self.loop, self.desk)
        self._collect()
        self._show_life(Notifier.from_environment())
        watchdog = self.guard.parts.watchdog
        self._say(f"guard of {self.config.instance} runs" + "".join(f"; {line}" for line in missing))
        if watchdog.missing:
            self._say(
                f"watchdog not armed: {watchdog.missing}" + (": this node runs no group" if watchdog.refusal else "")
            )
        self.loop.run()
        server.close()
        self.network.close()
        if said := watchdog.stop():
            self._say(said)
        held = sorted(self.guard.parts.keeper.holdings())
        self._say(
            "guard stops"
            + (f"; the kernel mutes what is held at the end of its lease: {', '.join(held)}" if held else "")
        )

    def _stop_on_signals(self) -> None:
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.loop.stop())
        self.loop.reader(wake.fileno(), lambda: _empty(wake))
        self._signals = (wake, woken)

    def _say(self, line: str) -> None:
        """One line of log."""
        shown = f"guard: {one_line(line)}"
        if self.config.log.form == "json":
            shown = json_line(time.time(), "INFO", "guard", line, speaker=Speaker("guard", self.config.name))
        print(shown, file=sys.stderr, flush=True)  # noqa: T201

    def _show_life(self, listener: Notifier, word: str = READY) -> None:
        """To systemd or our supervisor: this loop turns."""
        listener.say(word)
        if listener.period:
            self.loop.at(self.clock() + listener.period, lambda: self._show_life(listener, ALIVE))

    def _collect(self) -> None:
        gc.collect()
        self.loop.at(self.clock() + COLLECT, self._collect)


def keeper_state(book: Book) -> KeeperState:
    """What the keeper must know of the book. Under an oath, what runs belongs to the oath's epoch, whatever the agent
    planned since: an epoch that no grant has named must not be reported as held."""
    oaths = book.oaths
    plans = {
        g: Planned(oaths[g].epoch if g in oaths else s.plan.epoch, s.plan.version)
        for g, s in book.plans.items()
        if s.permitted
    }
    return KeeperState(dict(book.floors), plans, {g: Oath(o.epoch, o.start, o.free) for g, o in oaths.items()})


def run(config: NodeConfig) -> None:
    """The guard of this node, until it is stopped. Raises :class:`hasys.model.errors.Refused` when it cannot serve."""
    private_folder(config.run_dir)
    lock = os.open(config.run_dir / "guard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"{config.run_dir}: another guard of this node is running") from None
    Process(config).run()


def read_note(path: Path) -> str:
    """The one line of a file that is there only while something is wrong; "" when nothing is."""
    try:
        return one_line(path.read_text("utf-8", "replace")[:LONGEST_NOTE].strip())
    except OSError:
        return ""


def _empty(sock: socket.socket) -> None:
    sock.recv(64)


def _open_gate(instance: str) -> tuple[Gate | None, tuple[int, ...], str]:
    """The gate, its netlink ports, or why there is none: shown in status, and addresses are then refused."""
    table = table_name(instance)
    try:
        nft, elements = Nft(), Elements(table)
        gate = Gate(nft, elements, table, time.monotonic)
        gate.probe()
    except (NftMissing, NftError, OSError) as e:
        return None, (), f"{e}: the gate needs nftables with the netdev egress hook (Linux 5.16)"
    return gate, (nft.port, elements.port), ""
