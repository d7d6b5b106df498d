"""A hasys cluster in a lab: made by ``hasys init``, run by ``hasys node run``, driven by commands from the client.

Nothing here knows the inside of hasys: a cluster is used as its operators use it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hasys.lab.feed import Status, StatusFeed, holds
from hasys.lab.lab import Lab
from hasys.lab.machine import Machine
from hasys.lab.shell import LabError, run, until

READY = 30.0
"""Seconds within which a whole cluster must be ready; far above what it takes, so that only a fault reaches it."""


class CommandFailed(LabError):
    """A hasys command ended with another exit status than 0."""

    def __init__(self, argv: Sequence[str], status: int, said: str) -> None:
        super().__init__(f"hasys {' '.join(argv)}: exit {status}: {said.strip()}")
        self.status = status
        self.said = said


class Cluster:
    """Nodes, a witness, and the command line."""

    def __init__(
        self,
        lab: Lab,
        *,
        nodes: Sequence[str] = ("n1", "n2"),
        witness: str | None = "w",
        observers: Sequence[str] = (),
        profile: str = "default",
        options: Sequence[str] = (),
    ) -> None:
        """``observers`` are nodes that do not vote; ``options``: more words for ``hasys init``."""
        self.lab = lab
        self.nodes = (*nodes, *observers)
        self.witness = witness
        self.folder = lab.record.data / "cluster"
        roles = {**dict.fromkeys(nodes, "node"), **({witness: "witness"} if witness else {})}
        self._roles = {**roles, **dict.fromkeys(observers, "observer")}
        self._hosts = {name: host for host, name in enumerate(self._roles, start=1)}
        self._feed: StatusFeed | None = None
        self._profile = profile
        self._init(profile, options)

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self._hosts)

    def machine(self, name: str) -> Machine:
        return self.lab.machines[name]

    # ------------------------------------------------------------------ life

    def start(self, *, pid1: bool = False, prefix: Sequence[str] = ()) -> None:
        """Switch every machine on; ``pid1``: ``hasys node run`` is PID 1 of its machine; ``prefix``: words before its
        command, as of env."""
        for name, host in self._hosts.items():
            role = "witness" if name == self.witness else "node"
            config = str(self.folder / name / "node.yaml")
            self.lab.machine(name, host, (*prefix, *hasys_command(), role, "run", "--config", config), pid1=pid1)

    def wait_ready(self, timeout: float = READY) -> Status:
        """Wait until there is a quorum and every member is ready; returns that status."""
        return self.wait(is_ready, timeout, "every member to be ready")

    def restore(self, timeout: float = READY) -> None:
        """After a fault: end silent losses, plug in cables, switch on what is off, and wait for every member."""
        self._repair()
        self.wait_ready(timeout)

    def settle(self, group: str, *, redundant: bool = True, timeout: float = 2 * READY) -> str:
        """As :meth:`restore`, and :meth:`wait_settled`."""
        self._repair()
        return self.wait_settled(group, redundant=redundant, timeout=timeout)

    def wait_settled(self, group: str, *, redundant: bool = True, timeout: float = 2 * READY) -> str:
        """Wait until one and the same status shows every member ready, the group running and, if ``redundant``, that
        another node could take over, and until every voter votes: the last fault may have been its store's, and a
        majority may need it at the next. Returns the group's Active node."""
        what = f"every member to be ready and {group} to " + ("be redundant" if redundant else "run")
        status = self.wait_now(
            lambda s: is_ready(s) and runs(s, group) and (not redundant or group_of(s, group)["redundant"]),
            timeout,
            what,
        )
        until(self._all_vote, timeout, "every voter to follow or to lead")
        return str(group_of(status, group)["active"])

    def _all_vote(self) -> bool:
        """No voter's store is away or behind."""
        try:
            members = json.loads(self.hasys("member", "list", "-o", "json"))["members"]
        except CommandFailed:  # no majority just now
            return False
        return all(m["state"] in ("Leader", "Follower") for m in members if m["role"] != "Observer")

    def _repair(self) -> None:
        self.lab.heal()
        for name in self.members:
            machine = self.machine(name)
            if machine.on:
                machine.cable(plugged=True)
            else:
                self.lab.power_on(name)

    def make_leader(self, wanted: str, group: str) -> None:
        """Kill the leader's store until ``wanted`` leads; then all is settled."""
        for _ in range(8):
            leader = self.wait(lambda s: s["cluster"]["leader"], 10, "a leader")["cluster"]["leader"]
            if leader == wanted:
                return
            self.machine(leader).kill("store")
            self.wait(lambda s, old=leader: s["cluster"]["leader"] not in ("", old), 10, "another leader")  # type: ignore[misc]
            self.wait_settled(group)
        raise LabError(f"{wanted} never led")

    # -------------------------------------------------------------- commands

    @property
    def client_settings(self) -> Path:
        return self.folder / "client" / "client.yaml"

    def command(self, *argv: str) -> list[str]:
        """A hasys command line for use on the client machine."""
        return [*hasys_command(), "--context", str(self.client_settings), *argv]

    def hasys(self, *argv: str, feed: str | None = None, timeout: float = 30.0) -> str:
        """Run a command on the client machine. Raises :class:`CommandFailed` with exit status and message."""
        full = self.lab.client.command(*self.command(*argv))
        try:
            done = subprocess.run(full, input=feed, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise LabError(f"hasys {' '.join(argv)}: no end after {timeout:g} s") from None
        if done.returncode:
            raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
        return done.stdout

    def on_node(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """A hasys command typed on one node, whatever comes of it; nobody answers its questions."""
        full = self.machine(name).command(*self.command(*argv))
        return subprocess.run(full, capture_output=True, text=True, timeout=40, check=False, stdin=subprocess.DEVNULL)

    def status(self) -> dict[str, Any]:
        """``hasys status -o json``."""
        found: dict[str, Any] = json.loads(self.hasys("status", "-o", "json"))
        return found

    def apply(self, manifest: str) -> str:
        """Apply manifests; returns what was printed."""
        return self.hasys("apply", "-f", "-", feed=manifest)

    def retime(self, figures: Mapping[str, str]) -> None:
        """Lay timings over the cluster's profile: ``{"ttl": "400ms"}``. Raises :class:`CommandFailed` when refused."""
        spec = {"profile": self._profile, "timing": dict(figures)}
        self.apply(
            json.dumps({"apiVersion": "hasys/v1", "kind": "Cluster", "metadata": {"name": "demo"}, "spec": spec})
        )

    def group(self, name: str) -> dict[str, Any]:
        """One group of the status. Raises :class:`KeyError`."""
        return group_of(self.status(), name)

    def wait_running(self, group: str, active: str | None = None, timeout: float = READY) -> str:
        """Wait until a group runs (on ``active``, if given) with all its resources; returns its Active node."""
        what = f"group {group} to run" + (f" on {active}" if active else "")
        status = self.wait_now(lambda s: runs(s, group, active), timeout, what)
        return str(group_of(status, group)["active"])

    def wait_redundant(self, group: str, timeout: float = READY) -> str:
        """Wait until a group runs and another node could take over; returns its Active node."""
        what = f"group {group} to run and to be redundant"
        status = self.wait_now(lambda s: runs(s, group) and group_of(s, group)["redundant"], timeout, what)
        return str(group_of(status, group)["active"])

    @property
    def feed(self) -> StatusFeed:
        """The status as it changes."""
        if self._feed is None:
            self._feed = StatusFeed(self.lab.client, self.command("status", "-w", "-o", "json", "--repeat"))
            self.lab.on_close(self._feed.close)
        return self._feed

    def wait(self, condition: Callable[[Status], object], timeout: float, what: str) -> Status:
        """Wait until a status meets ``condition``. Raises :class:`TimeoutError` with the end of every machine's log."""
        try:
            return self.feed.wait(condition, timeout, what)
        except TimeoutError as e:
            logs = "\n".join(f"--- log of {m}\n{self.machine(m).tail(15)}" for m in self.members)
            raise TimeoutError(f"{e}\n{logs}") from None

    def wait_now(self, condition: Callable[[Status], object], timeout: float, what: str) -> Status:
        """As :meth:`wait`, and the status is no older than the call.

        What the feed says is as old as a busy computer takes to hand it on, and what held before a fault may be what is
        waited for after it. So the feed only tells when to ask.
        """
        end = time.monotonic() + timeout
        while True:
            self.wait(condition, end - time.monotonic(), what)
            with suppress(CommandFailed):  # no majority just now
                status = self.status()
                if holds(condition, status):
                    return status

    def _init(self, profile: str, options: Sequence[str]) -> None:
        argv = [
            *hasys_command(),
            "init",
            "--cluster",
            "demo",
            "--profile",
            profile,
            "--out",
            str(self.folder),
            *options,
        ]
        for name, host in self._hosts.items():
            argv += [f"--{self._roles[name]}", f"{name}=10.77.0.{host},10.78.0.{host}"]
        run(*argv)


def hasys_command() -> list[str]:
    """How to start hasys with this very installation."""
    script = Path(sys.executable).with_name("hasys")
    return [str(script)] if script.exists() else [sys.executable, "-m", "hasys"]


def is_ready(status: Status) -> bool:
    """There is a majority, and every member is ready."""
    return bool(status["cluster"]["quorum"] and status["nodes"] and all(n["state"] == "Ready" for n in status["nodes"]))


def runs(status: Status, group: str, active: str | None = None) -> bool:
    """The group runs (on ``active``, if given) with all its resources. Raises :class:`KeyError`."""
    found = group_of(status, group)
    node = found.get("active")
    there = bool(node) and active in (None, node)
    return found["phase"] == "Running" and there and all(
        r["state"] == "Running" and r["node"] == node for r in found["resources"]
    )  # fmt: skip


def group_of(status: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One group of a status. Raises :class:`KeyError`."""
    for group in status["groups"]:
        if group["name"] == name:
            found: dict[str, Any] = group
            return found
    raise KeyError(f"status shows no group {name}")


def group_manifest(
    name: str = "web", nodes: Mapping[str, int] | None = None, failover: Mapping[str, Any] | None = None
) -> str:
    """A Mirror group; ``nodes`` is name -> priority, ``failover`` its settings of that name."""
    listed = ", ".join(f"{{name: {n}, priority: {p}}}" for n, p in (nodes or {"n1": 100, "n2": 50}).items())
    policy = f", failover: {json.dumps(failover)}" if failover else ""
    return f"---\napiVersion: hasys/v1\nkind: Group\nmetadata: {{name: {name}}}\nspec: {{nodes: [{listed}]{policy}}}\n"


def address_manifest(address: str, name: str = "web-ip", group: str = "web") -> str:
    """A virtual IP on the public network; ``address`` with prefix length."""
    return (
        f"---\napiVersion: hasys/v1\nkind: VirtualIP\nmetadata: {{name: {name}, group: {group}}}\n"
        f"spec: {{address: {address}, interface: eth0}}\n"
    )


def application_manifest(
    command: Sequence[str], name: str = "web-app", group: str = "web", extra: Mapping[str, Any] | None = None
) -> str:
    """A supervised program that starts after the group's address ``<group>-ip``; ``extra`` adds fields of its spec."""
    spec = {"after": [f"{group}-ip"], "run": {"command": list(command), "stopTimeout": "2s"}, **(extra or {})}
    return (
        f"---\napiVersion: hasys/v1\nkind: Application\nmetadata: {{name: {name}, group: {group}}}\n"
        f"spec: {json.dumps(spec)}\n"
    )


def disk_manifest(
    device: str, point: str, name: str = "data", group: str = "web", extra: Mapping[str, Any] | None = None
) -> str:
    """A shared disk; ``extra`` adds fields of its spec."""
    spec = {"device": device, "mountPoint": point, **(extra or {})}
    return (
        f"---\napiVersion: hasys/v1\nkind: SharedDisk\nmetadata: {{name: {name}, group: {group}}}\n"
        f"spec: {json.dumps(spec)}\n"
    )
