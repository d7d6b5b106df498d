"""What the guard does with grants and plans: the one place where a lease becomes effects, or their end.

Everything runs in one thread. Order in every path: durable first, then the effect, then the word to others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from hasys.guard.alone import Alone
from hasys.guard.arbiter import Arbiter
from hasys.guard.fence import Fencing
from hasys.guard.gate import GateChanged, GateFailed
from hasys.guard.loop import Timer
from hasys.guard.notes import Notes
from hasys.guard.oaths import Oaths
from hasys.guard.parts import Parts, Refused
from hasys.guard.plan import Book, Stored
from hasys.guard.protocol import ADOPTED, Address, AddressEntry, CgroupEntry, Entry, MountEntry, Plan, StoreAt
from hasys.guard.tokens import Tokens
from hasys.lease.arbiter import ArbiterKeeper
from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.keeping import Effect, Extend, Ignored, LeaseChanged, OathTaken, Permit, Revoke
from hasys.lease.tokens import TokenKeeper
from hasys.lease.wire import DISK_NOTE, DatagramRefused, Grant, Health, Hint, decode, encode
from hasys.model import level
from hasys.model.networks import Trouble

LOOK_AGAIN = 10.0
"""Seconds between looks at the whole kernel state: events are hints, this is the truth."""
ASK_AGENT = 1.0
"""Seconds between pings of the agent."""
KEPT_FENCES = 16


class Guard:
    """Keeps the lease, opens the gate, fences. ``agent_here`` is set by whoever serves the socket."""

    def __init__(self, parts: Parts, book: Book) -> None:
        self.parts = parts
        self.book = book
        self.oaths = Oaths(self)
        self.notes = Notes(self, parts.notes)
        self.alone = Alone(self)
        self.tokens: Tokens | None = None
        if parts.tokens is not None and isinstance(parts.keeper, TokenKeeper):
            self.tokens = Tokens(self, parts.keeper, parts.tokens)
        self.arbiter: Arbiter | None = None
        if parts.arbiter is not None and isinstance(parts.keeper, ArbiterKeeper):
            self.arbiter = Arbiter(self, parts.keeper, parts.arbiter)
        self.agent_here = False
        self.fencings: list[Fencing] = []
        self.fences: deque[dict[str, Any]] = deque(maxlen=KEPT_FENCES)
        """The last finished ones, for status."""
        self.counts: Counter[str] = Counter()
        """Datagrams refused and grants ignored, by reason."""
        self.muted: set[str] = set()
        """Groups that began to release: silent until their next plan."""
        self.troubles = {"gate": parts.gateless}
        """What keeps the guard from being armed, by topic; empty texts do not."""
        self.agent_seen = parts.clock()
        """When the agent last showed that it works."""
        self.networks: tuple[Trouble, ...] | None = None  # as the agent last said; None: no agent has yet
        self.level = level.FIRST
        """What every store understands, as the agent last said: nothing else is said to them."""
        self._timer: Timer | None = None
        self._last_datagram, self._quiet, self._note = b"", "", ""
        parts.watchdog.held = lambda: bool(self.held())
        parts.watchdog.fencing = lambda: bool(self.fencings)
        parts.watchdog.lost = lambda why: self.apply(parts.keeper.give_up_all(why))

    # ---- life

    def start(self) -> None:
        """Gate what must be gated, fence what has no time left, then send the first keep-alive."""
        self.notes.start()
        self.sync_gate()
        self.oaths.start()
        if self.tokens is not None:
            self.tokens.start()
        for stored in tuple(self.book.plans.values()):
            if not stored.permitted:
                self.apply(
                    self.parts.keeper.plan(stored.plan.group, stored.plan.epoch, stored.plan.version, self.now())[1]
                )
        self.parts.watchdog.start()
        self.tick()
        self._look()
        self._ask_agent()
        self.alone.start()
        if self.arbiter is not None:
            self.arbiter.start()

    def now(self) -> float:
        return self.parts.clock()

    def tick(self) -> None:
        """Give up what has ended, send the keep-alive that is due, and say when to come back."""
        keeper, now = self.parts.keeper, self.now()
        self.apply(keeper.expire(now))
        now = self.now()
        if keeper.keepalive_due(now):
            message, targets = keeper.keepalive(now, self.health())
            self.parts.network.send(targets, encode(message, self.parts.key), now, everywhere=keeper.asked_all)
            self.apply(keeper.renew(now))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.parts.loop.at(keeper.next_wakeup(now), self.tick)

    def datagram(self, data: bytes, *, foreign: bool = False) -> bool:
        """One datagram from any network, ``foreign`` when another machine sent it; what is not a grant or a hint for
        this node is counted and forgotten. True for a grant that is news."""
        if data == self._last_datagram:
            return False  # the copy that came over the other network
        parts = self.parts
        try:
            message = decode(data, parts.cluster, lambda node: parts.key if node == parts.node else None)
        except DatagramRefused as e:
            self.counts[e.reason] += 1
            return False
        self._last_datagram = data
        if foreign:
            self.alone.heard()
        if isinstance(message, Grant):
            self.apply(parts.keeper.received(message, self.now()))
        elif isinstance(message, Hint):
            parts.keeper.hinted(message, self.now())
        self.tick()
        return isinstance(message, Grant)

    def health(self) -> Health:
        """What every keep-alive says about this guard."""
        stuck = (b for f in self.fencings if f.looks > 3 for b in f.blockers)
        message = "; ".join(filter(None, (*self.troubles.values(), self.parts.watchdog.refusal, *stuck)))
        return Health(
            not message,
            self.parts.watchdog.name,
            self.parts.loop.lag.worst,
            self.networks is not None and self.agent_here and self.now() - self.agent_seen < self.parts.agent_grace / 2,
            self.parts.version,
            "; ".join(filter(None, [message, self.arbiter.trouble if self.arbiter else "", self._note])),
            self.networks or (),
            self._note.startswith(DISK_NOTE) and self.level >= level.DISK_FAILED,
        )

    def networks_are(self, troubles: tuple[Trouble, ...]) -> None:
        """The agent's word; news travel at once."""
        if troubles != self.networks:
            self.networks = troubles
            self.parts.keeper.at_once(self.now())
            self.tick()

    # ---- effects of the lease

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry out what the keeper decided, in its order; revocations of one batch are one fence."""
        revoked: list[Revoke] = []
        for effect in effects:
            match effect:
                case Permit():
                    self._permit(effect)
                case Extend(until):
                    self._extend(until)
                case Revoke():
                    revoked.append(effect)
                case LeaseChanged(valid):
                    self.parts.push({"event": "lease", "valid": valid})
                case OathTaken(group, epoch):
                    if not self.save(self.oaths.taken(group)):
                        self.fence([(group, epoch)], self.troubles["plan"])
                case TokenTaken(group, epoch):
                    if self.tokens is not None and not self.tokens.taken(effect):
                        self.fence([(group, epoch)], self.troubles["plan"])
                case TokenDropped():
                    if self.tokens is not None:
                        self.tokens.dropped(effect)
                case Ignored(reason):
                    self.counts[reason] += 1
        if revoked:
            self.fence([(r.group, r.epoch) for r in revoked], revoked[0].reason)

    def held(self) -> frozenset[str]:
        """Groups of which something may be here."""
        return frozenset(group for group, stored in self.book.plans.items() if stored.permitted)

    def _permit(self, permit: Permit) -> None:
        stored = self.book.plans.get(permit.group)
        if stored is None or stored.plan.epoch != permit.epoch or permit.group in self.muted:
            return
        if not self._note_permit(permit, stored):
            self.fence([(permit.group, permit.epoch)], self.troubles["plan"])
            return
        if not self._hold(permit, [e.address for e in stored.plan.entries if isinstance(e, AddressEntry)]):
            return
        if permit.group != self._quiet:
            self.parts.push({"event": "permitted", "group": permit.group, "epoch": permit.epoch})

    def _note_permit(self, permit: Permit, stored: Stored) -> bool:
        """Durably: effects may start now; an oath of an older epoch is over. False when the disk refuses."""
        book = self.book if stored.permitted else self.book.with_permitted(permit.group)
        oath = book.oaths.get(permit.group)
        if oath is not None and oath.epoch < permit.epoch:
            book = self.oaths.ended(book, permit.group, f"{ADOPTED} as epoch {permit.epoch}")
        return book is self.book or self.save(book)

    def _hold(self, permit: Permit, addresses: list[str]) -> bool:
        """Let the addresses speak, repairing the gate once; a group for which that fails is fenced."""
        gate = self.parts.gate
        if gate is None:
            return True
        try:
            try:
                gate.hold(permit.group, addresses, permit.until)
            except GateChanged:
                self.repair(self.now())
                gate.hold(permit.group, addresses, permit.until)
        except GateFailed as e:
            self.fence([(permit.group, permit.epoch)], str(e))
            return False
        return True

    def _extend(self, until: Mapping[str, float]) -> None:
        if self.parts.gate is not None:
            failed = self.parts.gate.extend(until)
            if any(isinstance(e, GateChanged) for e in failed.values()):
                self.repair(self.now())
                failed = self.parts.gate.extend(until)
            held = self.parts.keeper.holdings()
            lost = [(group, held[group].epoch) for group in failed if group in held]
            if lost:
                self.fence(lost, "; ".join({str(e) for e in failed.values()}))
        if until.keys() >= self.held():
            self.parts.watchdog.granted()

    # ---- fencing

    def is_fencing(self, group: str) -> bool:
        return any(group == g.plan.group for f in self.fencings for g in f.groups)

    def fence(self, groups: Collection[tuple[str, int]], reason: str) -> None:
        """Give these groups up at these epochs, starting now, going on until nothing is left of them."""
        jobs = []
        for group, epoch in groups:
            if self.is_fencing(group):
                continue
            known = self.book.plans.get(group)
            given_up = Plan(group, epoch, known.plan.version if known else 0, known.entries if known else ())
            jobs.append(Stored(given_up, permitted=bool(known and known.permitted)))
        if not jobs:
            return
        agent = self.book.agent if any(j.permitted and j.entries for j in jobs) else None
        job = Fencing(tuple(jobs), agent, reason, self.now(), self._drop_from_gate, self.parts.machine)
        self.fencings.append(job)
        self.notes.look()
        self._step(job)
        for j in jobs:
            self.parts.push({"event": "revoked", "group": j.plan.group, "epoch": j.plan.epoch, "reason": reason})

    def _drop_from_gate(self, groups: Iterable[str]) -> None:
        if self.parts.gate is None:
            return
        try:
            self.parts.gate.drop(tuple(groups))
        except GateFailed:
            self.repair(self.now())  # what is not held is muted in a table made anew

    def _step(self, job: Fencing) -> None:
        if not job.step(self.parts.clock):
            self.notes.look()
            self.parts.loop.at(self.now() + job.pause, lambda: self._step(job))
            return
        book = self.book
        for stored in job.groups:
            book = self._given_up(book, stored.plan.group, stored.plan.epoch, job.reason)
        if not self.save(book):
            self.parts.loop.at(self.now() + job.pause, lambda: self._step(job))
            return
        self.fencings.remove(job)
        self.fences.append({
            "groups": [s.plan.group for s in job.groups],
            "reason": job.reason,
            "ms": {name: round(t * 1000, 3) for name, t in job.steps.items()},
        })  # fmt: skip
        self.notes.fenced(job)
        for stored in job.groups:
            self.apply(self.parts.keeper.released(stored.plan.group, stored.plan.epoch, self.now()))
        self.tick()

    def _given_up(self, book: Book, group: str, epoch: int, cause: str) -> Book:
        oath = book.oaths.get(group)
        if oath is not None and oath.epoch <= epoch:
            book = self.oaths.ended(book, group, cause)
        return book.without(group, epoch)

    # ---- the gate

    def sync_gate(self) -> None:
        """Bring table and chains to what plans and interfaces ask for now. Raises :class:`Refused`."""
        gate = self.parts.gate
        if gate is None:
            return
        wanted = frozenset(a.address for a in self.book.gated)
        dropped = gate.gated - wanted
        try:
            wanted |= frozenset(self.parts.machine.present(dropped))  # un-gated only once it is off its interface
            named, others = self._interfaces()
            if (wanted, named, others) != (gate.gated, gate.named, gate.others) or not gate.installed:
                gate.install(named, others, wanted)
            self.troubles["gate"] = ""
        except (GateFailed, OSError) as e:
            self.troubles["gate"] = str(e)
            raise Refused(str(e)) from None

    def repair(self, noticed: float) -> None:
        """Close the gate again after somebody else changed it; what cannot speak again in time is fenced."""
        gate = self.parts.gate
        if gate is None:
            return
        before = dict(gate.held)
        try:
            gate.repair(*self._interfaces(), noticed)
            self.troubles["gate"] = ""
        except (GateFailed, OSError) as e:
            self.troubles["gate"] = str(e)
        holdings = self.parts.keeper.holdings()
        lost = [(g, holdings[g].epoch) for g in before if g not in gate.held and g in holdings]
        if lost:
            self.fence(lost, self.troubles["gate"] or "the gate was removed and its time had come")

    def nft_changed(self) -> None:
        """Somebody else changed the table, or may have."""
        noticed = self.now()
        if self.parts.gate is not None and self.parts.gate.installed and not self.parts.gate.intact():
            self.repair(noticed)

    def links_changed(self) -> None:
        """Interfaces or addresses came or went."""
        try:
            self.sync_gate()
        except Refused:
            self.counts["gate not installed"] += 1

    def _look(self) -> None:
        self.links_changed()
        self.nft_changed()
        self.parts.loop.at(self.now() + LOOK_AGAIN, self._look)

    def _ask_agent(self) -> None:
        """Without an agent nobody repairs or stops anything: keep what runs for the grace time, then give it up."""
        self.parts.push({"event": "ping"})
        self._note = self.parts.note()
        gone = self.now() - self.agent_seen
        if gone > self.parts.agent_grace and self.held():
            self.apply(self.parts.keeper.give_up_all(f"the agent has not been heard for {gone:.1f} s"))
        self.parts.loop.at(self.now() + ASK_AGENT, self._ask_agent)

    def _interfaces(self) -> tuple[frozenset[str], frozenset[str]]:
        links = {link.name: link for link in self.parts.links.links()}
        named = frozenset(a.interface for a in self.book.gated if a.interface in links)
        others = frozenset(name for name, link in links.items() if not link.enslaved and name != "lo")
        return named, others - named

    # ---- the agent's side

    def plan(self, plan: Plan) -> str:
        """Store and gate a plan; ``permitted`` or ``pending``. Raises ``StaleEpoch``, ``Stale``, :class:`Refused`."""
        group = plan.group
        if self.is_fencing(group):
            raise Refused(f"group {group} is being fenced here: wait for its end")
        if self.parts.gate is None and any(isinstance(e, AddressEntry) for e in plan.entries):
            raise Refused(f"addresses cannot be gated here: {self.parts.gateless}")
        if self.parts.watchdog.refusal:
            raise Refused(self.parts.watchdog.refusal)
        before = self.book
        known = before.plans.get(group)
        if known is None or known.plan != plan or known.leftovers:
            self._replace_plan(plan, known)
        self.muted.discard(group)
        self._quiet = group
        try:
            state, effects = self.parts.keeper.plan(group, plan.epoch, plan.version, self.now())
            self.apply(effects)
        finally:
            self._quiet = ""
        return self.permitted(group, plan.epoch) if state == "permitted" else state

    def _replace_plan(self, plan: Plan, known: Stored | None) -> None:
        before = self.book
        dropped = [e for e in known.entries if e not in plan.entries] if known else []
        gone = [e for e in dropped if not self._is_there(e)]
        book = before.with_plan(plan, gone)
        self.remember(book)
        try:
            self.sync_gate()
            if self.parts.gate is not None:
                kept = {e.address for e in plan.entries if isinstance(e, AddressEntry)}
                self.parts.gate.mute({e.address for e in dropped if isinstance(e, AddressEntry)} - kept)
        except (Refused, GateFailed) as e:
            self.save(before)
            raise Refused(str(e)) from None

    def set_gate(self, addresses: frozenset[Address]) -> None:
        """The full set of addresses that must be gated beside those of plans. Raises :class:`Refused`."""
        if addresses != self.book.gate:
            self.remember(replace(self.book, gate=addresses))
        self.sync_gate()

    def set_stores(self, stores: Collection[StoreAt], understood: int) -> None:
        """The members changed, or their level: keep-alives go to these from now on. Not kept: the agent says it to each
        guard anew, and until then node.yaml's serve. Whoever is asked, only a store that knows this node's key can
        answer."""
        self.level = understood
        self.parts.network.set_stores(stores)
        self.parts.keeper.stores = tuple(store.name for store in stores)

    def remember(self, book: Book) -> None:
        """Make a changed book durable. Raises :class:`Refused`."""
        if not self.save(book):
            raise Refused(self.troubles["plan"])

    def permitted(self, group: str, epoch: int) -> str:
        """``permitted`` or ``pending``, asked right before an effect. Raises ``Stale``."""
        if self.is_fencing(group) or group in self.muted:
            return "pending"
        return self.parts.keeper.permitted(group, epoch, self.now())

    def release(self, group: str, epoch: int) -> list[str]:
        """Confirm that nothing is left, durably; returns what is, by name. Raises :class:`Refused`."""
        if self.is_fencing(group):
            return [f"group {group} is being fenced: {', '.join(self.blockers(group))}"]
        known = self.book.plans.get(group)
        if known is not None and known.plan.epoch <= epoch:
            self.muted.add(group)
            self._drop_from_gate([group])
            left = [_name(e) for e in known.entries if self._is_there(e)]
            if left:
                return left
        self.remember(self._given_up(self.book, group, epoch, "it was stopped in order"))
        self.muted.discard(group)
        self.apply(self.parts.keeper.released(group, epoch, self.now()))
        self.tick()
        return []

    def blockers(self, group: str) -> list[str]:
        return [b for f in self.fencings if any(g.plan.group == group for g in f.groups) for b in f.blockers]

    def _is_there(self, entry: Entry) -> bool:
        if isinstance(entry, CgroupEntry):
            return self.parts.machine.populated(entry.path)
        if isinstance(entry, MountEntry):
            return self.parts.machine.mounted(entry)
        return bool(self.parts.machine.present([entry.address]))

    def save(self, book: Book) -> bool:
        """Make the book durable, then true; False when the disk refuses."""
        try:
            self.parts.store.save(book)
        except OSError as e:
            self.troubles["plan"] = f"the plan cannot be stored: {e.strerror}"
            return False
        self.troubles["plan"] = ""
        self.book = book
        self.notes.look()
        return True


def _name(entry: Entry) -> str:
    if isinstance(entry, AddressEntry):
        return f"{entry.resource}: address {entry.address} is still on {entry.interface}"
    if isinstance(entry, MountEntry):
        return f"{entry.resource}: {entry.device} is still mounted on {entry.path}"
    return f"{entry.resource}: processes are still in {entry.path}"
