"""``--wait``: what still is missing, and when waiting is hopeless."""

from __future__ import annotations

import pytest

from hasys.api.kinds import Ref, wrap
from hasys.cli.waiting import missing, until_gone, until_running
from hasys.model.errors import HasysError, NoMajority, Refused, TimedOut, Unknown, Unreached
from tests.unit.cli.fake import FakeCluster, gone, now, web_group, web_ip

GROUP, ADDRESS = Ref("Group", "", "web"), Ref("VirtualIP", "web", "web-ip")

pytestmark = pytest.mark.anyio


async def test_it_ends_when_group_and_resources_run() -> None:
    cluster = FakeCluster()
    cluster.put(web_group("Starting"), web_ip("Starting"))
    cluster.changes = [now(web_ip()), now(web_group())]
    await until_running(cluster, [GROUP, ADDRESS], 5.0)


async def test_a_state_of_the_earlier_spec_does_not_count() -> None:
    cluster = FakeCluster()
    cluster.put(web_group(), web_ip("Running", generation=2, observed=1))
    with pytest.raises(TimedOut, match="VirtualIP/web-ip is waiting for its node"):
        await until_running(cluster, [GROUP, ADDRESS], 0.01)


async def test_a_resource_that_failed_on_the_present_spec_ends_the_wait() -> None:
    cluster = FakeCluster()
    cluster.put(web_group("Failed"), web_ip("Failed", message="no interface eth7"))
    with pytest.raises(Refused, match="failed on n1: no interface eth7"):
        await until_running(cluster, [ADDRESS, GROUP], 5.0)


async def test_a_timeout_names_the_group_and_its_reason() -> None:
    cluster = FakeCluster()
    cluster.put(web_group("Blocked", "no node is ready"))
    with pytest.raises(TimedOut, match="Group/web is Blocked: no node is ready"):
        await until_running(cluster, [GROUP], 0.01)


async def test_deleted_is_when_the_object_is_gone() -> None:
    cluster = FakeCluster()
    cluster.put(web_ip())
    with pytest.raises(TimedOut, match="VirtualIP/web-ip is being deleted"):
        await until_gone(cluster, [ADDRESS], 0.01)
    cluster.changes = [gone(web_ip())]
    await until_gone(cluster, [ADDRESS], 5.0)


async def test_a_deletion_that_is_late_names_the_node_that_may_still_have_it() -> None:
    cluster = FakeCluster()
    group = web_group()
    group.status.assignment.previous_node = "n2"
    cluster.put(group, web_ip("Stopped"))
    expected = "is being deleted: Stopped on n1; n2 had the group before and may still have it"
    with pytest.raises(TimedOut, match=expected):
        await until_gone(cluster, [ADDRESS], 0.01)


async def test_an_object_that_is_not_there_is_said_so() -> None:
    assert missing(ADDRESS, {GROUP: wrap(web_group())}) == ["VirtualIP/web-ip is not there"]


@pytest.mark.parametrize("silence", [NoMajority("no majority"), Unreached("no server"), Unknown("connection reset")])
async def test_a_wait_that_sees_nothing_says_that_the_change_was_made(silence: HasysError) -> None:
    cluster = FakeCluster(watch_fails=silence)
    with pytest.raises(TimedOut, match=f"applied; whether it runs cannot be seen: {silence}"):
        await until_running(cluster, [GROUP], 5.0)
    with pytest.raises(TimedOut, match=f"the deletion is stored; whether it is done cannot be seen: {silence}"):
        await until_gone(cluster, [GROUP], 5.0)
