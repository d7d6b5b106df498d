"""What a certificate of a lower role may not do, on the leader and by way of a follower."""

from __future__ import annotations

import inspect
import re

import pytest

from hasys.api.errors import Denied
from hasys.api.kinds import Ref
from hasys.api.server import maintenance
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.cluster import Cluster
from tests.unit.store.build import group

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("server", ["n1", "n2"])
@pytest.mark.parametrize("name", ["n2", "n3"])
async def test_a_members_certificate_changes_and_deletes_nothing(served: Cluster, server: str, name: str) -> None:
    """Also a witness's (n3 here): its certificate is a node's, and it may read and report for itself alone."""
    client = await served.client("node", name, server)
    with pytest.raises(Denied, match="may not apply"):
        await client.apply([group()])
    with pytest.raises(Denied, match="may not delete"):
        await client.delete(Ref("Node", "", "n1"))
    with pytest.raises(Denied, match="may not report for node 'n1'"):
        await client.report("n1", events=[pb.Event(reason="Started")])
    assert served.machine.group("web") is None


@pytest.mark.parametrize("server", ["n1", "n2"])
async def test_a_members_certificate_asks_for_no_operation_about_another_node(served: Cluster, server: str) -> None:
    client = await served.client("node", "n3", server)
    for kind in (pb.OperationSpec.Drain, pb.OperationSpec.FenceConfirm, pb.OperationSpec.Failover):
        spec = pb.OperationSpec(type=kind, node="n1", group="web")
        with pytest.raises(Denied):
            await client.create_operation(spec)
    assert served.machine.list("Operation") == []


def test_every_rpc_of_maintenance_that_changes_or_reads_all_asks_for_an_administrator() -> None:
    for name, method in inspect.getmembers(maintenance.Maintenance, inspect.iscoroutinefunction):
        if not name.startswith("_") and name != "list_members":  # everybody may know the members
            assert re.search(r"must_be_admin\(", inspect.getsource(method)), name


async def test_a_members_certificate_never_speaks_an_operators_word(served: Cluster) -> None:
    """That a node is off, or whose data count: only people know, also about the node that asks."""
    client = await served.client("node", "n3", "n1")
    for kind in (pb.OperationSpec.FenceConfirm, pb.OperationSpec.Resolve):
        with pytest.raises(Denied, match="administrator"):
            await client.create_operation(pb.OperationSpec(type=kind, node="n3", group="web", reason="x"))
    forced = pb.OperationSpec(type=pb.OperationSpec.Failover, node="n3", group="web", force=True)
    with pytest.raises(Denied, match="administrator"):
        await client.create_operation(forced)


async def test_a_members_certificate_runs_no_command_not_even_on_its_own_node(served: Cluster) -> None:
    client = await served.client("node", "n3", "n1")
    for node in ("n1", "n3"):
        with pytest.raises(Denied, match="run commands"):
            await client.create_operation(pb.OperationSpec(type=pb.OperationSpec.Run, node=node, command=["true"]))
        restart = pb.OperationSpec(type=pb.OperationSpec.RestartProcess, node=node, role="guard")
        with pytest.raises(Denied, match="restart processes"):
            await client.create_operation(restart)
    assert served.machine.list("Operation") == []
