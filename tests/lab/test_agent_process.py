"""The agent as a process, between a real API and a guard that obeys: what it does, how fast, what its death does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.v1 import objects_pb2 as pb
from tests.lab.network import ip, own_network
from tests.lab.standin import NODE, Node, node

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


def group(name: str = "web", node: str = NODE, epoch: int = 1, **more: object) -> pb.Group:
    return pb.Group(
        metadata=pb.Metadata(name=name),
        spec=pb.GroupSpec(nodes=[pb.GroupNode(name=NODE), pb.GroupNode(name="n2")]),
        status=pb.GroupStatus(assignment=pb.Assignment(node=node, epoch=epoch, **more)),  # type: ignore[arg-type]
    )


def vip(name: str = "ip", address: str = "10.9.0.100/24", group: str = "web") -> pb.VirtualIP:
    spec = pb.VirtualIPSpec(address=address, interface=pb.Interface(name="eth0"))
    return pb.VirtualIP(metadata=pb.Metadata(name=name, group=group), spec=spec)


def app(name: str = "app", after: str = "ip", group: str = "web") -> pb.Application:
    spec = pb.ApplicationSpec(run=pb.Run(command=["sleep", "600"]), after=[after] if after else [])
    spec.restart.start_time.FromMilliseconds(100)
    return pb.Application(metadata=pb.Metadata(name=name, group=group), spec=spec)


async def running(n: Node) -> int:
    """Group web runs; returns the program's process number."""
    n.put(group(), vip(), app())
    n.guard.permit("web", 1)
    await n.start_agent()
    await n.until_state("Application", "app", "Running")
    (pid,) = n.base.pids_of("web", "app")
    return pid


async def test_a_group_is_brought_up_and_reported(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        await running(n)
        assert " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0")
        status = n.status("VirtualIP", "ip")
        assert (status.node, status.epoch, status.state) == (NODE, 1, "Running")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_runs_outlives_the_agent_and_is_adopted_by_the_next(tmp_path: Path, number: int) -> None:
    async with node(tmp_path) as n:
        pid = await running(n)
        await n.stop_agent(number)
        assert n.base.pids_of("web", "app") == [pid]
        assert " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0")
        await n.start_agent()
        await n.until(lambda: len(n.guard.agents) == 2, "hello of the second agent")
        os.kill(pid, signal.SIGKILL)  # it is watched again: its death is noticed
        await n.until(lambda: n.base.pids_of("web", "app") not in ([], [pid]), "the restart of the program")


async def test_the_old_node_of_a_switchover_releases_an_address_in_milliseconds(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        n.put(group(), vip())
        n.guard.permit("web", 1)
        await n.start_agent()
        await n.until_state("VirtualIP", "ip", "Running")
        begun = time.monotonic()
        n.put(group(node="n2", epoch=2, previous_node=NODE, previous_epoch=1))
        await n.until(lambda: "web" in n.guard.released, "the release")
        assert n.guard.released["web"][0] == 1
        assert n.guard.released["web"][1] - begun < 0.1
        assert " 10.9.0.100/24 " not in ip("address", "show", "dev", "eth0")


async def test_the_new_node_of_a_switchover_has_the_address_in_place_before_the_permit(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        n.put(group(node="n2"), vip())
        await n.start_agent()
        await n.until(lambda: n.guard.gated, "the agent to know of the address")
        begun = time.monotonic()
        n.put(group(epoch=2, previous_node="n2", previous_epoch=1))
        await n.until(lambda: " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0"), "the address, muted")
        assert time.monotonic() - begun < 0.2
        assert n.status("VirtualIP", "ip").state != "Running"
        n.guard.permit("web", 2)
        assert await n.until_state("VirtualIP", "ip", "Running") < 0.2


async def test_an_address_added_on_the_standby_by_hand_is_removed_within_a_second(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        n.put(group(node="n2"), vip())
        await n.start_agent()
        await n.until(lambda: n.guard.gated, "the agent to know of the address")
        ip("address", "add", "10.9.0.100/32", "dev", "eth0")
        assert await n.until(lambda: " 10.9.0.100/32 " not in ip("address", "show", "dev", "eth0"), "removed") < 1


async def test_a_deleted_resource_goes_and_the_store_forgets_it(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        await running(n)
        async with n.cluster.stack:
            client = await n.cluster.client()
            await client.delete(n.ref("Application", "app"))
            await n.until(lambda: n.cluster.machine.get(n.ref("Application", "app")) is None, "the purge")
        assert n.base.pids_of("web", "app") == []
        assert " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0")


async def test_an_agent_without_a_store_leaves_everything_as_it_is(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        pid = await running(n)
        for member in n.cluster.members.values():
            await member.stop()
        os.kill(pid, signal.SIGKILL)
        await n.until(lambda: n.base.pids_of("web", "app") not in ([], [pid]), "the restart of the program")
        assert " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0")


@pytest.mark.slow
async def test_thirty_two_groups_of_three_resources_run_within_seconds(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        await n.start_agent()
        await n.until(lambda: n.guard.agents, "hello")
        names = [f"g{i}" for i in range(32)]
        for i, name in enumerate(names):
            n.guard.permit(name, 1)
            n.put(group(name), vip("ip", f"10.9.1.{i}/32", name), app("a", "ip", name), app("b", "a", name))

        def all_run() -> bool:
            found = [
                (k, r, g) for g in names for k, r in (("VirtualIP", "ip"), ("Application", "a"), ("Application", "b"))
            ]
            return all(n.status(*one).state == "Running" for one in found)

        took = await n.until(all_run, "96 resources", within=15)
        assert took < 10
