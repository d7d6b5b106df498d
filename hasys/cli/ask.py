"""``hasys init`` on a terminal: what the options did not say is asked, one by one, each answer checked at once by the
same rules. Nothing is written here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import click

from hasys.cli.seed import Seed, check_arbiter, check_label, check_members, parse_member, plan
from hasys.config import ARBITER, POLICIES, Member
from hasys.model.errors import ConfigRefused
from hasys.model.timing import PROFILES

_Answer = TypeVar("_Answer")

_POLICIES = {
    "safe": "a lost node stops nothing and starts nothing; an operator moves its groups",
    "arbiter": "a lock on a shared disk decides which node goes on without the other",
    "alone-allowed": "the other node takes over, and both serve while only the link between them is cut",
}
"""In one line each; docs/two-nodes.md has the whole."""

_GROUP = """\
# The first group of cluster {cluster}: hasys apply -f {file} --wait
apiVersion: hasys/v1
kind: Group
metadata: {{name: {group}}}
spec:
  nodes: [{nodes}]
---
apiVersion: hasys/v1
kind: VirtualIP
metadata: {{name: {group}-ip, group: {group}}}
spec: {{address: {address}, interface: {interface}}}
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options said, and then the answers; None and empty: not yet."""

    cluster: str | None = None
    members: tuple[Member, ...] = ()
    profile: str | None = None
    policy: str = ""
    arbiter: str = ""
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class FirstGroup:
    """A group with one address, to begin with."""

    name: str
    address: str
    interface: str

    def manifest(self, seed: Seed) -> str:
        """The group on every server, the first named one preferred."""
        servers = [m.name for m in seed.members if m.runs_groups]
        nodes = [f"{{name: {name}, priority: {100 - 10 * n}}}" for n, name in enumerate(servers[:10])]
        return _GROUP.format(
            cluster=seed.cluster, file=self.file, group=self.name, nodes=", ".join(nodes), address=self.address,
            interface=self.interface,
        )  # fmt: skip

    @property
    def file(self) -> str:
        """Its name in the folder of the cluster."""
        return f"{self.name}.yaml"


def ask_for_cluster(wanted: Wanted, refuse: Callable[[Seed, Path], None]) -> tuple[Seed, Path, FirstGroup | None]:
    """The cluster that options and answers describe, the folder for it, and its first group, after a yes.
    ``refuse`` raises when that folder cannot be used."""
    if any(m.runs_groups for m in wanted.members):
        plan(wanted.cluster or "demo", wanted.members, wanted.profile or "default", wanted.policy, wanted.arbiter)
    click.echo("A new cluster. Enter takes what stands in brackets; Ctrl-C leaves, nothing is written before the end.")
    cluster = wanted.cluster or _until_right("Name of the cluster", lambda t: check_label("cluster", t), "demo")
    members = wanted.members if any(m.runs_groups for m in wanted.members) else _ask_members(wanted.members)
    policy = wanted.policy or _ask_policy(members)
    arbiter = wanted.arbiter or _ask_arbiter(policy)
    profile = wanted.profile or _ask_profile()
    seed = plan(cluster, members, profile, policy, arbiter)
    first = _ask_first_group(members)

    def usable(folder: Path) -> Path:
        refuse(seed, folder)
        if first and (folder / first.file).exists():
            raise ConfigRefused(f"{folder / first.file} exists: nothing is overwritten; choose another folder")
        return folder

    out = wanted.out or _until_right("Folder to write to", lambda text: usable(Path(text)), f"./{cluster}")
    usable(out)
    _sum_up(seed, out, first)
    click.confirm("Write it", default=True, abort=True)
    return seed, out, first


def _ask_members(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """``members``: a witness that was given as an option."""
    count = click.prompt("How many servers run the service", type=click.IntRange(2 if members else 1, 99), default=2)
    for i in range(count):
        members = (*members, _ask_member(f"n{i + 1}", "Voter", members))
    if sum(m.votes for m in members) % 2 == 0:
        click.echo("A witness is a small third machine that only votes: without it, two servers cannot tell a dead")
        click.echo("peer from a cut cable. Two without one keep what they hold, and an operator moves it.")
        if count != 2 or click.confirm("Is there a witness", default=True):
            members = (*members, _ask_member("w", "Witness", members))
    return members


def _ask_member(proposal: str, role: str, others: Sequence[Member]) -> Member:
    what = "witness" if role == "Witness" else "server"

    def named(text: str) -> str:
        check_members([*others, Member(check_label(what, text), role, ())])
        return text

    def placed(text: str) -> Member:
        member = parse_member(f"{name}={text}", role)
        check_members([*others, member])
        return member

    name = _until_right(f"Name of the {what}", named, proposal)
    member = _until_right(f"Address of {name} (IP, or IP:PORT)", placed)
    if len(member.addresses) > 1:
        return member

    def second(text: str) -> Member:
        if text == "none":
            return member
        member_there = placed(text)  # a port stands at the first one
        return placed_with(replace(member, addresses=(*member.addresses, *member_there.addresses)))

    def placed_with(both: Member) -> Member:
        if len(set(both.addresses)) != len(both.addresses):
            raise ConfigRefused(f"{name}: the same address twice: give one per network")
        check_members([*others, both])
        return both

    return _until_right(f"Address of {name} on the second network, for heartbeats", second, "none")


def _ask_policy(members: Sequence[Member]) -> str:
    """Of two that vote alone."""
    if len(members) != 2 or not all(m.votes and m.runs_groups for m in members):
        return ""
    for name in POLICIES:
        click.echo(f"  {name}: {_POLICIES.get(name, 'see docs/two-nodes.md')}")
    policy = click.prompt("Policy of the two servers", type=click.Choice(list(POLICIES)), default=POLICIES[0])
    return str(policy)


def _ask_arbiter(policy: str) -> str:
    if policy != ARBITER:
        return ""
    click.echo("The shared disk: 128 KiB, zeros at first, the same one for both (docs/two-nodes.md).")
    return _until_right("Path of the disk, as in /dev/disk/by-id/...", lambda path: check_arbiter(policy, path))


def _ask_profile() -> str:
    click.echo("Timings: default (failover about 1.1 s), fast (about 0.6 s, quiet networks), wan (distant sites).")
    return str(click.prompt("Timing profile", type=click.Choice(list(PROFILES)), default="default"))


def _ask_first_group(members: Sequence[Member]) -> FirstGroup | None:
    taken = {address: m.name for m in members for address in m.addresses}

    def address(text: str) -> str:
        if text == "none":
            return text
        host = text.partition("/")[0]
        if host in taken:
            raise ConfigRefused(f"{host} is {taken[host]}'s own: the virtual one moves, give a free one")
        _check(FirstGroup("service", text, "eth0"))
        return text

    virtual = _until_right("First virtual IP, as in 10.0.0.100/24 (where clients find the service)", address, "none")
    if virtual == "none":
        return None
    _warn_of_another_network(virtual, members)
    interface = _until_right(
        "Interface that gets it", lambda t: _check(FirstGroup("service", virtual, t)).interface, "eth0"
    )
    name = _until_right(
        "Name of the group that has it", lambda t: _check(FirstGroup(t, virtual, interface)).name, "service"
    )
    return FirstGroup(name, virtual, interface)


def _check(first: FirstGroup) -> FirstGroup:
    """By the rules of manifests. Raises :class:`ConfigRefused` with the first fault."""
    from hasys.api.kinds import wrap  # large, and not needed to answer the other questions
    from hasys.api.validation import check_alone
    from hasys.v1 import objects_pb2 as pb

    group = pb.Group(metadata=pb.Metadata(name=first.name), spec=pb.GroupSpec(nodes=[pb.GroupNode(name="n1")]))
    address = pb.VirtualIP(metadata=pb.Metadata(name=f"{first.name}-ip", group=first.name))
    address.spec.address, address.spec.interface.name = first.address, first.interface
    for fault in [*check_alone(wrap(group)), *check_alone(wrap(address))]:
        raise ConfigRefused(f"{fault.field}: {fault.message}")
    return first


def _warn_of_another_network(virtual: str, members: Sequence[Member]) -> None:
    network = ipaddress.ip_interface(virtual).network
    outside = [m.name for m in members if m.runs_groups and ipaddress.ip_address(m.addresses[0]) not in network]
    if outside:
        click.echo(f"  look: {', '.join(outside)}: no address in {network}; clients must reach it all the same")


def _sum_up(seed: Seed, out: Path, first: FirstGroup | None) -> None:
    click.echo(f"\nCluster {seed.cluster}, to be written to {out}:")
    for member in seed.members:
        port = f" port {member.api_port}"
        click.echo(f"  {member.role.lower():8} {member.name:12} {', '.join(member.addresses)}{port}")
    click.echo(f"  profile  {seed.profile}" + (f", policy {seed.policy}" if seed.policy else ""))
    if first:
        click.echo(f"  group    {first.name:12} {first.address} on {first.interface} ({out / first.file})")


def _until_right(prompt: str, check: Callable[[str], _Answer], default: str | None = None) -> _Answer:
    while True:
        try:
            return check(click.prompt(prompt, default=default).strip())
        except ConfigRefused as fault:
            click.echo(f"  {fault}")
