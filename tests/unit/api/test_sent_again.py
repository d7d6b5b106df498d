"""A client that got no answer sends its request again: it is done once, and nobody is told that it was not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.api.auth import ADMIN, NODE, REQUEST, Caller, request_of
from hasys.api.errors import Invalid
from hasys.api.kinds import Ref, copy
from hasys.api.server.calls import Call
from hasys.model.errors import Conflict, TimedOut, Unknown
from hasys.store.port import Applied
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from tests.unit.api.cluster import Cluster
from tests.unit.store.build import group

pytestmark = pytest.mark.anyio


class Others:
    """Writes of other clients, committed at once."""

    def __init__(self, cluster: Cluster) -> None:
        self._engine, self._count = cluster.members["n1"].engine, 0

    def write(self, *mutations: store_pb2.Mutation) -> None:
        self._count += 1
        command = store_pb2.Command(id=f"other-{self._count}", actor="other", mutations=mutations)
        answer = self._engine.apply_now(command.SerializeToString()).answer
        assert store_pb2.Outcome.FromString(answer).done


def lose_first_answer(cluster: Cluster, then: Callable[[], None] = lambda: None, *, done: bool = True) -> None:
    """The next proposal is committed (if ``done``), its answer is lost, and something else happens."""
    engine = cluster.members["n1"].engine
    original = engine.propose

    async def propose(command: bytes, *, timeout: float) -> Applied:
        setattr(engine, "propose", original)  # noqa: B010  (a method)
        if done:
            await original(command, timeout=timeout)
        then()
        raise Unknown("the leader changed before it answered: the change may have been made")

    setattr(engine, "propose", propose)  # noqa: B010


def labelled(name: str, value: str) -> pb.Object:
    obj = group(name)
    obj.group.metadata.labels["value"] = value
    return obj


def value_of(cluster: Cluster, name: str) -> str:
    stored = cluster.machine.group(name)
    assert stored is not None
    return stored.metadata.labels["value"]


async def test_a_conditional_write_whose_answer_was_lost_is_told_as_done(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([labelled("web", "old")])
    wanted = copy(await client.get("Group", "web"))
    wanted.group.metadata.labels["value"] = "new"
    lose_first_answer(cluster)
    answer = await client.apply([wanted])
    assert [result.action for result in answer.results] == ["configured"]
    assert answer.resource_version == (await client.get("Group", "web")).group.metadata.resource_version
    assert value_of(cluster, "web") == "new"


async def test_a_write_through_a_follower_is_known_when_it_is_sent_again(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n2", follow_leader=False)
    lose_first_answer(cluster)
    assert (await client.apply([group("web")])).results[0].action == "created"


async def test_what_others_wrote_after_it_stays(cluster: Cluster) -> None:
    client, others = await cluster.client(), Others(cluster)
    await client.apply([labelled("web", "old")])
    lose_first_answer(cluster, lambda: others.write(store_pb2.Mutation(put_spec=labelled("web", "theirs"))))
    await client.apply([labelled("web", "mine")])
    assert value_of(cluster, "web") == "theirs"


async def test_what_others_created_after_a_deletion_stays(cluster: Cluster) -> None:
    client, others = await cluster.client(), Others(cluster)
    await client.apply([group("web")])
    theirs = store_pb2.Mutation(put_spec=labelled("web", "theirs"), expect_absent=True)
    lose_first_answer(cluster, lambda: others.write(theirs))
    await client.delete(Ref("Group", "", "web"))
    assert value_of(cluster, "web") == "theirs"


async def test_it_was_done_though_it_would_be_refused_now(cluster: Cluster) -> None:
    client, others = await cluster.client(), Others(cluster)
    await client.apply([group("web")])
    delay = pb.Object()
    delay.delay.metadata.name, delay.delay.metadata.group = "d", "web"
    delay.delay.spec.duration.seconds = 1
    gone = store_pb2.Mutation(delete=pb.Key(kind="Group", name="web"))
    lose_first_answer(cluster, lambda: others.write(gone))
    assert (await client.apply([delay])).results[0].key.name == "d"


async def test_a_refusal_after_a_lost_attempt_does_not_say_that_nothing_changed(cluster: Cluster) -> None:
    """The first one may still be under way, to another leader."""
    client, others = await cluster.client(), Others(cluster)
    await client.apply([labelled("web", "old")])
    wanted = copy(await client.get("Group", "web"))
    wanted.group.metadata.labels["value"] = "new"
    theirs = store_pb2.Mutation(put_spec=labelled("web", "theirs"))
    lose_first_answer(cluster, lambda: others.write(theirs), done=False)
    with pytest.raises(TimedOut, match=r"may have been done.*changed since version"):
        await client.apply([wanted])


async def test_events_of_a_report_are_recorded_once(cluster: Cluster) -> None:
    client = await cluster.client("node", "n1")
    lose_first_answer(cluster)
    await client.report("n1", events=[pb.Event(type="Normal", reason="X", message="m")])
    assert len([e for e in cluster.machine.list("Event") if e.event.message == "m"]) == 1


async def test_two_requests_are_two_however_equal_they_are(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([labelled("web", "a")])
    await client.apply([labelled("web", "b")])
    await client.apply([labelled("web", "a")])
    assert value_of(cluster, "web") == "a"


async def test_a_version_named_for_an_unchanged_object_holds_when_the_others_are_committed(cluster: Cluster) -> None:
    client, others = await cluster.client(), Others(cluster)
    await client.apply([labelled("a", "old"), labelled("b", "old")])
    unchanged = copy(await client.get("Group", "a"))
    engine = cluster.members["n1"].engine
    original = engine.propose

    async def propose(command: bytes, *, timeout: float) -> Applied:
        setattr(engine, "propose", original)  # noqa: B010
        others.write(store_pb2.Mutation(put_spec=labelled("a", "theirs")))  # committed just before ours
        return await original(command, timeout=timeout)

    setattr(engine, "propose", propose)  # noqa: B010
    with pytest.raises(Conflict):
        await client.apply([unchanged, labelled("b", "new")])
    assert value_of(cluster, "b") == "old"


async def test_what_one_request_changes_does_not_break_its_own_conditions(cluster: Cluster) -> None:
    """A step that comes to a group changes the group's version."""
    client = await cluster.client()
    await client.apply([group("web")])
    unchanged = copy(await client.get("Group", "web"))
    delay = pb.Object()
    delay.delay.metadata.name, delay.delay.metadata.group = "d", "web"
    delay.delay.spec.duration.seconds = 1
    assert [r.action for r in (await client.apply([delay, unchanged])).results] == ["created", "unchanged"]


@given(st.lists(st.tuples(st.sampled_from(["x", REQUEST]), st.text() | st.binary()), max_size=4))
def test_a_number_that_no_client_gives_is_refused(metadata: list[tuple[str, str | bytes]]) -> None:
    number = next((value for key, value in metadata if key == REQUEST), "")
    if number and not (isinstance(number, str) and len(number) <= 40 and set(number) <= set("0123456789abcdef")):
        with pytest.raises(Invalid, match=REQUEST):
            request_of(metadata)
    elif number:
        assert request_of(metadata) == number


def test_nobody_gets_the_answer_of_another_caller_by_its_number() -> None:
    calls = [Call(Caller(role, name), None, request="a1") for role, name in ((ADMIN, "a"), (ADMIN, "b"), (NODE, "a"))]
    assert len({call.id for call in calls}) == 3
    assert all(call.id for call in calls)


def test_a_request_without_a_number_has_none() -> None:
    assert request_of(None) == request_of([]) == ""
    assert request_of([("a", "b"), (REQUEST, "0af1")]) == "0af1"
