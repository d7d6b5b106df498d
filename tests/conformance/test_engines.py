"""The conformance suite: run for every engine in ``stages.STAGES``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

from hasys import store
from hasys.api.kinds import Ref, inner
from hasys.model.errors import Unavailable
from hasys.store.port import Applied, Engine
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse
from hasys.v1.store_pb2 import Command, Mutation, Outcome
from tests.conformance.stages import ENGINES, STAGES, Seat, Stage, leader, leading, until

pytestmark = pytest.mark.anyio
TIMEOUT = 10.0


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = STAGES[request.param](tmp_path)
    await stage.start()
    yield stage
    await stage.stop()


def group(name: str, *nodes: str) -> pb.Object:
    obj = pb.Object()
    obj.group.metadata.name = name
    for node in nodes or ("n1", "n2"):
        obj.group.spec.nodes.add(name=node)
    return obj


def command(name: str, *mutations: Mutation) -> bytes:
    return bytes(Command(id=name, actor="test", mutations=mutations).SerializeToString())


async def put(engine: Engine, name: str) -> Applied:
    return await engine.propose(command(f"put {name}", Mutation(put_spec=group(name))), timeout=TIMEOUT)


def outcome(applied: Applied) -> Outcome:
    return Outcome.FromString(applied.answer)


def names(seat: Seat) -> list[str]:
    return [obj.group.metadata.name for obj in seat.machine.list("Group")]


async def caught_up(stage: Stage, index: int) -> None:
    await until(stage, lambda: all(s.engine.status().applied >= index for s in stage.seats.values()))


# ---------------------------------------------------------------- proposals and objects
async def test_what_any_member_takes_is_applied_on_every_member_with_the_same_result(stage: Stage) -> None:
    seats = list(stage.seats.values())
    writes = [put(seats[i % len(seats)].engine, f"g{i}") for i in range(20)]
    results = await asyncio.gather(*writes)
    assert all(outcome(r).done for r in results)
    assert len({r.index for r in results}) == 20
    await caught_up(stage, max(r.index for r in results))
    assert {s.machine.snapshot() for s in seats} == {seats[0].machine.snapshot()}
    assert names(seats[0]) == sorted(f"g{i}" for i in range(20))


async def test_a_write_is_applied_here_when_its_answer_comes_and_later_ones_come_later(stage: Stage) -> None:
    for seat in stage.seats.values():
        first = await put(seat.engine, f"{seat.name}-a")
        assert f"{seat.name}-a" in names(seat)
        second = await put(seat.engine, f"{seat.name}-b")
        assert first.index < second.index
        found = seat.machine.get(Ref("Group", "", f"{seat.name}-b"))
        assert found is not None
        assert inner(found).metadata.resource_version == second.index


async def test_of_conditional_writes_that_race_one_is_done(stage: Stage) -> None:
    first = await put((await leading(stage)).engine, "web")
    rivals = [
        seat.engine.propose(
            command(f"rival {i}", Mutation(put_spec=group("web", f"n{i}"), expect_version=first.index)), timeout=TIMEOUT
        )
        for i, seat in enumerate([*stage.seats.values()] * 3)
    ]
    results = [outcome(r) for r in await asyncio.gather(*rivals)]
    assert sum(r.done for r in results) == 1
    assert {r.code for r in results if not r.done} == {"Conflict"}


async def test_a_command_that_comes_twice_is_done_once(stage: Stage) -> None:
    engine = (await leading(stage)).engine
    create = command("the same", Mutation(put_spec=group("web"), expect_absent=True))
    first = await engine.propose(create, timeout=TIMEOUT)
    again = await engine.propose(create, timeout=TIMEOUT)
    assert first.answer == again.answer
    assert outcome(again).done


async def test_the_engine_tells_how_far_it_has_applied(stage: Stage) -> None:
    seat = await leading(stage)
    told: list[int] = []
    seat.engine.on_applied(told.append)
    applied = await put(seat.engine, "web")
    await until(stage, lambda: bool(told) and told[-1] >= applied.index)
    assert told == sorted(told)
    assert seat.engine.status().applied >= applied.index


# ---------------------------------------------------------------- watches
async def test_a_watch_on_any_member_is_complete_and_in_order(stage: Stage) -> None:
    for seat in stage.seats.values():
        stream = seat.hub.watch(("Group",))
        await anext(stream)
        wanted = [f"{seat.name}-{i}" for i in range(10)]
        results = [await put(seat.engine, name) for name in wanted]
        seen: list[tuple[str, int]] = []
        async with asyncio.timeout(TIMEOUT):
            while len(seen) < 10:
                changes = (await anext(stream)).changes
                seen += [
                    (c.object.group.metadata.name, c.object.group.metadata.resource_version)
                    for c in changes
                    if c.type == WatchResponse.ADDED and c.object.group.metadata.name in wanted
                ]
        assert seen == list(zip(wanted, [r.index for r in results], strict=True))


# ---------------------------------------------------------------- without a majority
async def test_without_a_majority_nothing_is_taken_granted_or_confirmed(stage: Stage) -> None:
    await put((await leading(stage)).engine, "before")
    await stage.lose_majority()
    (seat,) = stage.seats.values()
    await until(stage, lambda: leader(stage) is None)
    with pytest.raises(Unavailable):
        await put_briefly(seat.engine, "after")
    with pytest.raises(Unavailable):
        await seat.engine.confirm(timeout=0.3)
    assert seat.engine.authority() is None
    assert not seat.engine.status().quorum
    assert names(seat) == ["before"]


async def put_briefly(engine: Engine, name: str) -> Applied:
    return await engine.propose(command(f"put {name}", Mutation(put_spec=group(name))), timeout=0.3)


# ---------------------------------------------------------------- evidence of authority
async def test_evidence_of_a_term_belongs_to_one_member_and_never_goes_back(stage: Stage) -> None:
    seat = await leading(stage)
    seen: dict[int, tuple[str, float, int]] = {}
    for i in range(30):
        await put(seat.engine, f"g{i}")
        for other in stage.seats.values():
            evidence = other.engine.authority()
            if evidence is None:
                continue
            name, t_q, applied = seen.get(evidence.term, (other.name, evidence.t_q, evidence.applied))
            assert name == other.name
            assert t_q <= evidence.t_q <= asyncio.get_running_loop().time()
            assert applied <= evidence.applied
            seen[evidence.term] = (name, evidence.t_q, evidence.applied)
    assert seen


async def test_a_later_leader_counts_no_proof_of_an_earlier_one_as_over(stage: Stage) -> None:
    """All members here share one clock, so their evidence can be compared."""
    seat = await leading(stage)
    await put(seat.engine, "web")
    earlier = seat.engine.authority()
    assert earlier is not None
    await stage.another_leader()
    later = (await leading(stage)).engine.authority()
    assert later is not None
    assert later.term > earlier.term
    assert later.silent_since >= earlier.t_q
    assert later.applied >= earlier.applied


async def test_a_leader_is_confirmed_and_a_follower_is_not(stage: Stage) -> None:
    seat = await leading(stage)
    await seat.engine.confirm(timeout=TIMEOUT)
    for other in stage.seats.values():
        if other is not seat:
            with pytest.raises(Unavailable):
                await other.engine.confirm(timeout=1.0)


async def test_a_change_of_leader_is_told(stage: Stage) -> None:
    told: list[str] = []
    for seat in stage.seats.values():
        seat.engine.on_change(lambda name=seat.name: told.append(name))  # type: ignore[misc]
    await stage.another_leader()
    assert set(stage.seats) <= set(told)


# ---------------------------------------------------------------- restarts
async def test_a_restart_of_all_keeps_everything_that_was_acknowledged(stage: Stage) -> None:
    results = [await put((await leading(stage)).engine, f"g{i}") for i in range(10)]
    term = max(s.engine.status().term for s in stage.seats.values())
    await stage.restart()
    seat = await leading(stage)
    assert names(seat) == [f"g{i}" for i in range(10)]
    again = await put(seat.engine, "after")
    assert again.index > max(r.index for r in results)
    assert seat.engine.status().term >= term


async def test_a_lost_leader_takes_no_acknowledged_write_along(stage: Stage) -> None:
    last = [await put((await leading(stage)).engine, f"g{i}") for i in range(10)][-1]
    await stage.another_leader()
    seat = await leading(stage)
    assert seat.machine.revision >= last.index
    assert names(seat) == [f"g{i}" for i in range(10)]


def test_every_engine_is_put_to_the_test() -> None:
    """An engine is a class below ``hasys.store`` that has what the port names; one that others extend is put to it
    through them."""
    needed = {name for name in vars(Engine) if not name.startswith("_")}
    modules = [import_module(found.name) for found in walk_packages(store.__path__, "hasys.store.")]
    classes = {c for module in modules for c in vars(module).values() if isinstance(c, type) and needed <= {*dir(c)}}
    engines = {c for c in classes if not vars(c).get("_is_protocol")}
    extended = {c for c in engines if any(c is not other and issubclass(other, c) for other in engines)}
    assert engines - extended == set(ENGINES.values())
    assert ENGINES.keys() == STAGES.keys()
