"""Serves the socket: checks who asks and what, turns requests into calls of the guard, refusals into answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hasys.guard import cgroup
from hasys.guard.core import Guard
from hasys.guard.fence import start_time
from hasys.guard.ipc import Connection, Refusal
from hasys.guard.parts import Refused
from hasys.guard.plan import Agent, StaleEpoch
from hasys.guard.protocol import (
    Alive,
    CgroupEntry,
    Forswear,
    Gate,
    Hello,
    Networks,
    Noted,
    Permit,
    Plan,
    Release,
    Request,
    Standby,
    Status,
    Stores,
    Swear,
    Told,
    plan_to_json,
)
from hasys.lease.keeping import Stale
from hasys.model import errors

_SERVICE = re.compile(r"(?!hasys)[A-Za-z0-9][A-Za-z0-9_.@:-]*\.service")


class Desk:
    """One agent at a time; anybody of the same user may ask for status, root may swear."""

    def __init__(self, guard: Guard, instance: str, base: Path | None, hardening: list[str], config: str = "") -> None:
        self._guard = guard
        self._config = config
        """Path of node.yaml, for tools that found the socket."""
        self._instance = instance
        self._base = base
        """The node's cgroup: nothing outside of it is ever killed. None: no cgroup v2 here."""
        self._hardening = hardening
        self._agent: Connection | None = None

    def push(self, event: Mapping[str, Any]) -> None:
        """Tell the agent, if it is connected."""
        if self._agent is not None:
            self._agent.push(event)

    def closed(self, connection: Connection) -> None:
        """The peer has gone; the grace time of the agent begins."""
        if connection is self._agent:
            self._agent = None
            self._guard.agent_here = False

    def request(self, connection: Connection, request: Request) -> Mapping[str, Any] | None:
        """Answer one request. Raises :class:`Refusal`."""
        if connection is self._agent:
            self._guard.agent_seen = self._guard.now()
        elif isinstance(request, Swear | Forswear):
            if connection.uid != 0:
                raise Refusal("only root may swear")
        elif not isinstance(request, Hello | Status):
            raise Refusal("say hello first")
        try:
            return self._answer(connection, request)
        except (Stale, StaleEpoch) as e:
            raise Refusal(str(e), "stale") from None
        except (Refused, errors.Refused) as e:
            raise Refusal(str(e)) from None

    def _answer(self, connection: Connection, request: Request) -> Mapping[str, Any] | None:
        guard = self._guard
        match request:
            case Hello():
                return self._hello(connection, request)
            case Gate(addresses):
                guard.set_gate(frozenset(addresses))
                return {}
            case Stores(stores, level):
                guard.set_stores(stores, level)
                return {}
            case Plan():
                self._check_cgroups(request)
                return {"state": guard.plan(request)}
            case Permit(group, epoch):
                return {"state": guard.permitted(group, epoch)}
            case Release(group, epoch):
                left = guard.release(group, epoch)
                if left:
                    raise Refusal("; ".join(left), "blocked")
                return {}
            case Networks(troubles):
                guard.networks_are(troubles)
                return {}
            case Status():
                return self.status()
            case Swear(group, epoch, cause):
                return {"epoch": guard.oaths.swear(group, epoch, cause)}
            case Forswear(group, cause):
                guard.oaths.forswear(group, cause)
                return {}
            case Standby(groups):
                guard.alone.standbys = groups
                return {}
            case Told(serial):
                guard.oaths.told(serial)
                return {}
            case Noted(serial):
                guard.notes.told(serial)
                return {}
            case Alive():
                return None

    def _hello(self, connection: Connection, hello: Hello) -> Mapping[str, Any]:
        guard = self._guard
        if hello.pid != connection.pid:
            raise Refusal(f"process {connection.pid} cannot speak for process {hello.pid}")
        if hello.cgroup:
            self._check_below(hello.cgroup, "agent")
            if cgroup.contains_me(hello.cgroup):
                raise Refusal(f"{hello.cgroup}: the guard itself runs there and would kill itself")
        if self._agent is not None and self._agent is not connection:
            self._agent.close()
        self._agent = connection
        guard.agent_here, guard.agent_seen = True, guard.now()
        if hello.networks is not None:
            guard.networks_are(hello.networks)
        guard.remember(replace(guard.book, agent=Agent(hello.pid, start_time(hello.pid), hello.cgroup)))
        valid, remaining, epoch = guard.parts.keeper.lease(guard.now())
        plans = guard.book.plans
        return {
            "instance": self._instance,
            "lease": {"valid": valid, "epoch": epoch, "remaining_ms": int(remaining * 1000)},
            "plans": [plan_to_json(s.plan) for s in plans.values()],
            "permitted": [[g, s.plan.epoch] for g, s in plans.items() if self._permitted(g, s.plan.epoch)],
            "released": [[g, e] for g, e in guard.book.floors.items()],
            "tokens": dict(guard.book.tokens),
            "notes": guard.notes.to_json(),
            **guard.oaths.to_json(),
        }

    def _permitted(self, group: str, epoch: int) -> bool:
        try:
            return self._guard.permitted(group, epoch) == "permitted"
        except Stale:
            return False

    def _check_cgroups(self, plan: Plan) -> None:
        for entry in plan.entries:
            if isinstance(entry, CgroupEntry) and not self._is_service(entry.path):
                self._check_below(entry.path, f"groups/{plan.group}/")

    def _is_service(self, path: str) -> bool:
        """The cgroup of a service of systemd, which SystemdUnit puts there; hasys's own are none."""
        if self._base is None:
            return False
        slice_, _, unit = path.rpartition("/")
        return slice_ == f"{self._base.parent}/system.slice" and bool(_SERVICE.fullmatch(unit))

    def _check_below(self, path: str, part: str) -> None:
        if self._base is None:
            raise Refusal("no cgroup v2 hierarchy is mounted here: processes could not be fenced")
        wanted = f"{self._base}/{part}"
        if not (path == wanted or (wanted.endswith("/") and path.startswith(wanted))):
            raise Refusal(f"{path} is not {'below ' if wanted.endswith('/') else ''}{wanted}")

    def status(self) -> Mapping[str, Any]:
        """Everything, for people and tests."""
        guard = self._guard
        parts, now = guard.parts, guard.now()
        valid, remaining, epoch = parts.keeper.lease(now)
        health = guard.health()
        return {
            "instance": self._instance,
            "armed": health.armed,
            "message": health.message,
            "lease": {"valid": valid, "epoch": epoch, "remaining_ms": int(remaining * 1000)},
            "leader": parts.keeper.leader,
            "stores": list(parts.keeper.stores),
            "groups": self._groups(now),
            "released": dict(guard.book.floors),
            "gate": self._gate(),
            "tokens": dict(guard.book.tokens),
            **({"arbiter": guard.arbiter.to_json()} if guard.arbiter is not None else {}),
            "watchdog": parts.watchdog.name,
            "watchdog_missing": parts.watchdog.missing,
            "lag_ms": round(parts.loop.lag.worst * 1000, 3),
            "hardening": self._hardening,
            "networks": [{"interface": t.interface, "fault": t.fault.name, "text": t.text} for t in health.networks],
            "agent": {"connected": guard.agent_here, "silent_ms": int((now - guard.agent_seen) * 1000)},
            "fencing": [
                {"groups": [s.plan.group for s in f.groups], "reason": f.reason, "blockers": list(f.blockers)}
                for f in guard.fencings
            ],
            "fences": list(guard.fences),
            "config": self._config,
            "notes": guard.notes.to_json(),
            **guard.oaths.to_json(),
            "counts": dict(guard.counts),
        }

    def _groups(self, now: float) -> list[dict[str, Any]]:
        holdings = self._guard.parts.keeper.holdings()
        found = []
        for group in sorted({*self._guard.book.plans, *holdings}):
            stored, held = self._guard.book.plans.get(group), holdings.get(group)
            found.append({
                "group": group,
                "planned": [stored.plan.epoch, stored.plan.version] if stored else None,
                "named": [held.epoch, held.version] if held else None,
                "remaining_ms": max(0, int((held.until - now) * 1000)) if held and held.until > now else 0,
                "permitted": stored is not None and self._permitted(group, stored.plan.epoch),
            })  # fmt: skip
        return found

    def _gate(self) -> dict[str, Any]:
        gate = self._guard.parts.gate
        if gate is None:
            return {"kind": "none", "message": self._guard.parts.gateless}
        return {
            "kind": "netdev",
            "table": gate.table,
            "gated": sorted(gate.gated),
            "live": sorted(a for addresses in gate.held.values() for a in addresses),
            "interfaces": sorted(gate.named),
            "overslept": gate.counts.overslept,
            "reinstalled": gate.counts.reinstalled,
            "last_open_ms": round(gate.counts.last_open * 1000, 3),
            "longest_open_ms": round(gate.counts.longest_open * 1000, 3),
        }
