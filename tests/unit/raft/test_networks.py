"""Which networks a member says it has lost: only what has been so for a while, and only of members it still reaches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from hasys.config import Member, NodeConfig
from hasys.model.level import FIRST, LEVEL
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.links import PROTOCOL, Receiver
from hasys.store.raft.transport import SETTLED, Callbacks, Transport
from hasys.store.raft.transport import Path as NetworkPath
from hasys.v1 import raft_pb2

pytestmark = pytest.mark.anyio

LONG = 2 * SETTLED


class Reach:
    """A transport of n1 whose connections are set by hand."""

    def __init__(self) -> None:
        members = [Member(f"n{i}", "Voter", (f"10.77.0.{i}", f"10.78.0.{i}")) for i in (1, 2, 3)]
        nowhere = Path("/nonexistent")
        config = NodeConfig(
            path=nowhere, cluster="c", cluster_id="c", name="n1", members=tuple(members), profile="default",
            ca=nowhere, certificate=nowhere, key=nowhere, lease_secret=nowhere, node_secret=nowhere,
            data_dir=nowhere, run_dir=nowhere,
        )  # fmt: skip
        ignore = cast(Any, lambda *_: None)
        callbacks = Callbacks(message=ignore, connected=ignore, disconnected=ignore, closed=ignore, failed=ignore)
        self.transport = Transport(config, cast(Any, None), callbacks)
        self.transport.set_members(members)
        for name in ("n2", "n3"):
            for network in (0, 1):
                self.set(name, network, True)

    def path(self, name: str, network: int) -> NetworkPath:
        return self.transport.peers[name].paths[network]

    def set(self, name: str, network: int, open: bool, ago: float = LONG) -> None:
        path = self.path(name, network)
        path.open, path.changed = open, asyncio.get_running_loop().time() - ago


async def test_nothing_is_lost_while_every_network_carries() -> None:
    assert Reach().transport.cut() == {"n1": (), "n2": (), "n3": ()}


async def test_one_members_cable_is_that_members_loss() -> None:
    reach = Reach()
    reach.set("n2", 1, False)
    assert reach.transport.cut() == {"n1": (), "n2": ("10.78.0.2",), "n3": ()}


async def test_a_network_on_which_nobody_is_reached_may_be_our_own_cable_and_is_said_so() -> None:
    reach = Reach()
    reach.set("n2", 1, False)
    reach.set("n3", 1, False)
    assert reach.transport.cut() == {"n1": ("10.78.0.1",), "n2": ("10.78.0.2",), "n3": ("10.78.0.3",)}


@pytest.mark.parametrize("open", [True, False])
async def test_of_a_member_whose_connections_have_just_changed_nothing_is_known(open: bool) -> None:
    reach = Reach()
    reach.set("n2", 1, open, ago=SETTLED / 2)
    assert reach.transport.cut() == {"n1": (), "n3": ()}


async def test_of_a_member_that_is_lost_no_network_is() -> None:
    reach = Reach()
    reach.set("n2", 0, False)
    reach.set("n2", 1, False)
    assert reach.transport.cut() == {"n1": (), "n3": ()}


class Taking:
    """A sender that takes everything."""

    def send(self, data: bytes, *, bulk: bool) -> bool:
        return True


@pytest.mark.parametrize("quiet", [True, False])
async def test_only_a_message_that_asks_for_an_answer_makes_a_silent_path_suspect(quiet: bool) -> None:
    """Who answers a heartbeat each second, as an observer does, would be dialled anew again and again."""
    reach = Reach()
    path = reach.path("n2", 0)
    path.sender = cast(Any, Taking())
    beat = raft_pb2.Message(heartbeat=raft_pb2.Heartbeat(round=7, quiet=quiet))
    reach.transport.send(Outgoing("n2", beat, network=0))
    assert bool(path.sent) is not quiet


async def test_without_anybody_nothing_is_said_of_ourselves() -> None:
    reach = Reach()
    for name in ("n2", "n3"):
        for network in (0, 1):
            reach.set(name, network, False)
    assert reach.transport.cut() == {}


class Heard:
    """A connection from another member."""

    network = 0

    def __init__(self, name: str) -> None:
        self.name = name


async def test_what_a_member_understands_is_known_while_it_is_heard() -> None:
    transport = Reach().transport
    assert transport.levels() == {"n1": LEVEL}
    newer, older = (cast(Receiver, Heard(name)) for name in ("n2", "n3"))
    for receiver, told in ((newer, LEVEL + 1), (older, 0)):
        transport.greeted(receiver, hello(receiver.name, told))
    assert transport.levels() == {"n1": LEVEL, "n2": LEVEL + 1, "n3": FIRST}, "who says none is an older one"
    transport.gone(older)
    assert transport.levels() == {"n1": LEVEL, "n2": LEVEL + 1}


def hello(name: str, told: int) -> raft_pb2.Hello:
    return raft_pb2.Hello(cluster_id="c", name=name, protocol=PROTOCOL, blank=True, level=told)
