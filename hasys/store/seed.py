"""What the first leader of a cluster writes, and what a leader keeps in step with its node.yaml and the clock."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType

from hasys.api.convert import duration, now, seconds, timing_message, timing_of
from hasys.api.kinds import Ref, copy, wrap
from hasys.config import Member, NodeConfig
from hasys.model import level
from hasys.model.timing import Timing
from hasys.store.directory import spec_of
from hasys.store.machine import Machine
from hasys.store.writing import cluster_event
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2


def seed(
    config: NodeConfig,
    machine: Machine,
    stores: tuple[Member, ...] | None = None,
    levels: Mapping[str, int] = MappingProxyType({}),
) -> store_pb2.Command | None:
    """The cluster object, and Node objects in step with the members; None: all is there. ``stores``: the members with a
    store as the log names them; None: node.yaml names them. Observers of node.yaml are added once, at the beginning.
    ``levels``: what the members that are heard understand; a new cluster begins with what all of them do."""
    command = store_pb2.Command(id=secrets.token_hex(8), actor="controller", time=now())
    if machine.cluster() is None:
        spec = pb.ClusterSpec(profile=config.profile, timing=timing_message(config.seed_timing()))
        status = pb.ClusterStatus(level=level.common(levels.values()))
        cluster = pb.Cluster(metadata=pb.Metadata(name=config.cluster), spec=spec, status=status)
        command.mutations.add(put_spec=wrap(cluster), expect_absent=True)
        event = cluster_event("ClusterCreated", name=config.cluster, profile=config.profile)
        command.mutations.add(record=event)
        for member in config.members:
            _add_member(command, member, machine)
        return command
    for member in config.voters if stores is None else stores:
        _add_member(command, member, machine)
    if stores is not None:
        _remove_others(command, {m.name for m in stores}, machine)
    return command if command.mutations else None


def _add_member(command: store_pb2.Command, member: Member, machine: Machine) -> None:
    stored = machine.get(Ref("Node", "", member.name))
    if stored is None:
        node = pb.Node(metadata=pb.Metadata(name=member.name), spec=spec_of(member))
        command.mutations.add(put_spec=wrap(node), expect_absent=True)
        return
    wanted = copy(stored)
    wanted.node.spec.CopyFrom(spec_of(member, drained=stored.node.spec.drained))
    if wanted != stored:
        command.mutations.add(put_spec=wanted, expect_version=stored.node.metadata.resource_version)
        command.mutations.add(record=cluster_event("MembersChanged", node=member.name))


def _remove_others(command: store_pb2.Command, stores: set[str], machine: Machine) -> None:
    """A member that was removed from the log goes from the objects too."""
    for obj in machine.list("Node"):
        name = obj.node.metadata.name
        if obj.node.spec.role != pb.NodeSpec.Observer and name not in stores:
            command.mutations.add(delete=pb.Key(kind="Node", name=name))
            command.mutations.add(record=cluster_event("MembersChanged", node=name))


def identify(config: NodeConfig, machine: Machine) -> store_pb2.Command | None:
    """Put the cluster id into the cluster's status, once."""
    cluster = machine.cluster()
    if cluster is None or cluster.status.cluster_id:
        return None
    wanted = pb.Cluster()
    wanted.CopyFrom(cluster)
    wanted.status.cluster_id = config.cluster_id
    return _status(wanted, cluster)


def lower_ttl_max(machine: Machine) -> store_pb2.Command | None:
    """The second write after a change of timings: the caller knows that grants with a larger TTL are over."""
    cluster = machine.cluster()
    if cluster is None or seconds(cluster.status.ttl_max) <= timing_of(cluster.spec).ttl:
        return None
    wanted = pb.Cluster()
    wanted.CopyFrom(cluster)
    wanted.status.ttl_max.CopyFrom(duration(timing_of(cluster.spec).ttl))
    return _status(wanted, cluster)


def raise_level(
    config: NodeConfig, machine: Machine, stores: tuple[Member, ...] | None, levels: Mapping[str, int]
) -> store_pb2.Command | None:
    """After an upgrade, once every member has told that it understands more than the cluster uses."""
    cluster = machine.cluster()
    if cluster is None or machine.level >= level.LEVEL:
        return None
    names = {m.name for m in (config.voters if stores is None else stores)}
    reached = level.common(levels.get(name, level.FIRST) for name in names)
    if reached <= machine.level:
        return None
    wanted = pb.Cluster()
    wanted.CopyFrom(cluster)
    wanted.status.level = reached
    command = _status(wanted, cluster)
    command.mutations.add(record=cluster_event("LevelRaised", name=cluster.metadata.name, level=str(reached)))
    return command


def _status(wanted: pb.Cluster, stored: pb.Cluster) -> store_pb2.Command:
    command = store_pb2.Command(id=secrets.token_hex(8), actor="controller", time=now())
    command.mutations.add(put_status=wrap(wanted), expect_version=stored.metadata.resource_version)
    return command


def timings(config: NodeConfig, machine: Machine) -> tuple[Timing, float]:
    """The timing in force and the largest TTL that may still run: from the store, before that from node.yaml."""
    cluster = machine.cluster()
    if cluster is None:
        timing = config.seed_timing()
        return timing, timing.ttl
    timing = timing_of(cluster.spec)
    return timing, max(timing.ttl, seconds(cluster.status.ttl_max))
