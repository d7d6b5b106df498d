"""The agent hands the members of today to the guard and to its own client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import anyio
import pytest

from hasys.api import kinds
from hasys.config import Member
from hasys.guard.client import GuardGone
from hasys.guard.protocol import StoreAt
from hasys.model.errors import Refused
from hasys.model.level import FIRST, LEVEL
from hasys.reconciler.cache import Cache
from hasys.reconciler.lastknown import LastKnown, read
from hasys.reconciler.members import Members
from hasys.reconciler.ports import Batch
from hasys.store.directory import spec_of
from hasys.v1 import objects_pb2 as pb

pytestmark = pytest.mark.anyio

N1 = Member("n1", "Voter", ("10.0.0.1", "10.1.0.1"))
N2 = Member("n2", "Voter", ("10.0.0.2", "10.1.0.2"))
W = Member("w", "Witness", ("fd00::3",), api_port=8411, lease_port=8413)
EYE = Member("eye", "Observer", ("10.0.0.5",))


class Guard:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.session, self.connected = 1, True
        self.told: list[tuple[StoreAt, ...]] = []
        self.level = 0
        self.fails: Exception | None = None

    async def stores(self, stores: Iterable[StoreAt], level: int) -> None:
        self.level = level
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails
        self.told.append(tuple(stores))


def obj(member: Member) -> pb.Object:
    return kinds.wrap(pb.Node(metadata=pb.Metadata(name=member.name), spec=spec_of(member)))


class World:
    """The cache of an agent on n2, its guard, its client's servers."""

    def __init__(self) -> None:
        self.cache, self.guard = Cache(), Guard()
        self.servers: list[Sequence[str]] = []
        self.members = Members(self.cache, self.guard, self.servers.append, N2)

    async def hear(self, *here: Member, gone: Sequence[Member] = ()) -> None:
        self.cache.take(Batch([*((obj(m), False) for m in here), *((obj(m), True) for m in gone)], synced=True))
        await self.look()

    async def look(self) -> None:
        self.members.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.members.run)
            await anyio.sleep(5.0)  # of virtual time: all that is due has happened
            tasks.cancel_scope.cancel()


async def test_guard_and_client_learn_the_stores_the_own_one_first() -> None:
    world = World()
    await world.hear(N1, N2, W, EYE)
    assert [store.name for store in world.guard.told[-1]] == ["n2", "n1", "w"]
    assert world.guard.told[-1][2] == StoreAt("w", ("fd00::3",), 8413)
    assert world.servers == [("10.0.0.2:7411", "10.1.0.2:7411", "10.0.0.1:7411", "10.1.0.1:7411", "[fd00::3]:8411")]


async def test_a_replaced_store_is_dialled_no_more_and_what_did_not_change_is_not_repeated() -> None:
    world = World()
    await world.hear(N1, N2, W)
    await world.hear(EYE)
    assert len(world.guard.told) == len(world.servers) == 1
    await world.hear(Member("w2", "Witness", ("10.0.0.9",)), gone=[W])
    assert [store.name for store in world.guard.told[-1]] == ["n2", "n1", "w2"]
    assert "10.0.0.9:7411" in world.servers[-1]
    assert "[fd00::3]:8411" not in world.servers[-1]


async def test_a_new_guard_is_told_anew() -> None:
    world = World()
    await world.hear(N1, N2, W)
    world.guard.session += 1
    await world.look()
    assert len(world.guard.told) == 2


async def test_a_guard_that_went_meanwhile_is_told_when_it_is_back() -> None:
    world = World()
    world.guard.fails = GuardGone("guard: connection lost")
    await world.hear(N1, N2, W)
    assert len(world.guard.told) == 1


async def test_a_guard_of_an_older_version_keeps_those_of_node_yaml(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.guard.fails = Refused("guard: op: 'stores' is unknown")
    await world.hear(N1, N2, W)
    assert world.guard.told == []
    assert "keeps the stores of node.yaml" in caplog.text
    assert len(world.servers) == 1


async def test_an_empty_list_is_never_told() -> None:
    world = World()
    await world.hear(EYE)
    assert world.guard.told == []
    assert world.servers == []


async def test_the_members_are_among_what_is_kept_on_disk(tmp_path: Path) -> None:
    cache, again = Cache(), Cache()
    cache.take(Batch([(obj(N1), False), (obj(W), False)], synced=True))
    path = tmp_path / "last-known"
    path.write_bytes(LastKnown(path, cache)._content())
    kept = read(path)
    assert kept is not None
    again.take(kept)
    assert again.nodes == cache.nodes


async def test_the_guard_is_told_what_every_store_understands() -> None:
    world = World()
    await world.hear(N1, N2, W)
    assert world.guard.level == FIRST
    cluster = pb.Cluster(metadata=pb.Metadata(name="demo"), status=pb.ClusterStatus(level=LEVEL))
    world.cache.take(Batch([(kinds.wrap(cluster), False)]))
    await world.look()
    assert world.guard.level == LEVEL
    assert len(world.guard.told) == 2
