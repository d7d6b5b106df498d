"""What the group reconciler does, seen from outside: guard, kernel, reports."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hasys.api import kinds
from hasys.guard.protocol import AddressEntry, MountEntry, Plan
from hasys.model.mounts import Mount
from hasys.reconciler.cache import Cache
from hasys.reconciler.ports import Batch
from hasys.reconciler.runtime import RESYNC
from hasys.resources.addresses import Held
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import World, app, deleting, group, vip, world

pytestmark = pytest.mark.anyio


async def settle(seconds: float = 0.05) -> None:
    """Let virtual time pass."""
    await anyio.sleep(seconds)


async def running(w: World) -> None:
    """Group web with an address and a program after it, running at epoch 1."""
    w.put(group(), vip(), app(after=["ip"]))
    w.permit("web", 1)
    await settle(3)
    assert w.running == {"app"}
    w.take_log()
    w.cluster.reports.clear()


async def test_an_address_is_planned_before_it_is_added_and_announced_only_when_permitted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(version=7), vip())
        await settle()
        assert w.log == ["gate 10.0.0.9", "plan web@1 v7: ip", "add 10.0.0.9 eth0"]
        assert w.announced == []
        assert w.cluster.reports == []
        w.permit("web", 1)
        await settle()
        assert w.announced == ["10.0.0.9"]
        assert w.cluster.said("ip") == ["Running"]


async def test_a_permit_is_acted_upon_without_any_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), vip())
        await settle(1.23)
        w.permit("web", 1)
        await anyio.sleep(0.000001)
        assert w.announced == ["10.0.0.9"]


async def test_a_standby_gates_the_address_and_does_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group("n2", 4), vip())
        await settle(60)
        assert w.log == ["gate 10.0.0.9"]


async def test_an_address_after_a_program_is_not_added_before_the_program_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), app("db"), vip(after=["db"]))
        await settle(2)
        assert w.held == []
        w.permit("web", 1)
        await settle(0.5)
        assert w.held == []
        assert w.cluster.said("ip") == ["Stopped: waiting for db"]
        await settle(1)
        assert w.held == ["10.0.0.9"]


async def test_programs_start_only_when_permitted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), app())
        await settle(10)
        assert "start app" not in w.log
        w.permit("web", 1)
        await settle()
        assert "start app" in w.log


async def test_independent_branches_start_side_by_side_and_the_join_after_both(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), app("a"), app("b"), app("c", after=["a", "b"]))
        w.permit("web", 1)
        await settle(0.5)
        assert {"start a", "start b"} <= set(w.log)
        assert "start c" not in w.log
        await settle(0.6)
        assert "start c" in w.log


async def test_a_switchover_stops_in_reverse_order_and_then_releases(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1))
        await settle(2)
        assert w.log == ["stop app", "remove 10.0.0.9 eth0", "release web@1"]
        assert w.cluster.said("ip")[-1] == "Stopped"


async def test_a_group_of_addresses_is_released_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), vip())
        w.permit("web", 1)
        await settle()
        w.take_log()
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1))
        await anyio.sleep(0.000001)
        assert w.log == ["remove 10.0.0.9 eth0", "release web@1"]


async def test_a_program_that_refuses_to_stop_is_named_and_nothing_is_released(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.stubborn.add("app")
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1))
        await settle(5)
        assert w.log == []
        assert w.cluster.said("app")[-1] == "Stopping: process 7 does not end"


async def test_a_revoked_holder_kills_instead_of_asking(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.stubborn.add("app")
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1))
        await settle(5)
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1, revoked=True))
        await settle(1)
        assert w.log == ["kill app", "remove 10.0.0.9 eth0", "release web@1"]


async def test_a_blocked_release_is_named_and_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.guard.blocker = "guard: 10.0.0.9 is still on eth0"
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1))
        await settle(2)
        assert w.cluster.said("ip")[-1] == "Stopping: guard: 10.0.0.9 is still on eth0"
        w.guard.blocker = ""
        await settle(1)
        assert w.guard.floors == {"web": 1}


async def test_an_address_put_on_the_standby_by_hand_is_removed_with_an_event(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group("n2", 4), vip())
        await settle(1)
        w.addresses.held.add(Held("eth1", "10.0.0.9", 32))
        w.runtime.wake("web")
        await settle()
        assert w.held == []
        assert w.cluster.events() == ["ForeignAddressRemoved"]


async def test_an_address_deleted_by_hand_is_put_back_and_announced(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), vip())
        w.permit("web", 1)
        await settle(100.5)
        w.announced.clear()
        w.addresses.held.clear()
        w.addresses.tell()
        await settle()
        assert w.held == ["10.0.0.9"]
        assert w.announced == ["10.0.0.9"]
        assert w.cluster.events() == ["GroupPermitted", "ResourceStarted", "DriftRepaired"]


async def test_a_new_agent_adopts_what_runs_and_touches_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.running.add("app")
        w.addresses.held.add(Held("eth0", "10.0.0.9", 24))
        w.permit("web", 1)
        w.put(group(), vip(), app(after=["ip"]))
        await settle()
        assert w.log == ["gate 10.0.0.9", "plan web@1 v1: ip app"]
        assert w.cluster.said("app") == ["Running"]


async def test_a_new_agent_of_a_leaving_node_stops_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.running.add("app")
        w.addresses.held.add(Held("eth0", "10.0.0.9", 24))
        w.put(group("n2", 2, previous_node="n1", previous_epoch=1), vip(), app(after=["ip"]))
        await settle(3)
        assert w.log == ["gate 10.0.0.9", "stop app", "remove 10.0.0.9 eth0", "release web@1"]


async def test_nothing_is_done_without_a_guard(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.guard.connected = False
        w.put(group(), vip())
        await settle(10)
        assert w.log == []


async def test_the_plan_is_told_again_to_a_guard_that_came_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.guard.session += 1
        w.runtime.wake_all()
        await settle()
        assert w.log == ["gate 10.0.0.9", "plan web@1 v1: ip app"]


async def test_a_failed_start_holds_up_what_comes_after_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.broken["a"] = "exit status 1"
        w.put(group(), app("a"), app("b", after=["a"]), app("c"))
        w.permit("web", 1)
        await settle(5)
        assert w.running == {"c"}
        assert w.cluster.said("a")[-1] == "Failed: exit status 1"
        assert w.cluster.said("b")[-1] == "Stopped: not started: a failed"


async def test_a_tolerated_failure_lets_the_flow_go_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.broken["a"] = "exit status 1"
        w.put(group(), app("a", tolerated=True), app("b", after=["a"]))
        w.permit("web", 1)
        await settle(5)
        assert w.running == {"b"}


async def test_a_retry_starts_only_what_failed_and_reports_everything_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.broken["a"] = "exit status 1"
        w.put(group(), app("a"), app("b", after=["a"]), app("c"))
        w.permit("web", 1)
        await settle(5)
        w.take_log()
        w.cluster.reports.clear()
        w.broken.clear()
        w.put(group(attempt=1))
        await settle(5)
        assert w.log == ["start a", "start b"]
        assert w.cluster.said("c") == ["Running"]


async def test_a_retry_of_one_step_leaves_other_failures_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.broken.update(a="exit status 1", b="exit status 1")
        w.put(group(), app("a"), app("b"))
        w.permit("web", 1)
        await settle(5)
        w.take_log()
        w.put(group(attempt=1, retry_step="b"))
        await settle(5)
        assert w.log == ["start b"]


async def test_a_changed_program_is_restarted_and_only_that(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group(version=2), app(after=["ip"], command="y"))
        await settle(5)
        assert [line for line in w.log if not line.startswith("plan")] == ["stop app", "start app"]
        assert w.running == {"app"}


async def test_a_changed_arrow_restarts_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group(version=2), app(after=[]))
        await settle(5)
        assert w.log == ["plan web@1 v2: ip app"]


async def test_an_address_moves_to_another_interface(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.addresses.links["eth1"] = w.addresses.links["eth0"]
        w.put(group(), vip())
        w.permit("web", 1)
        await settle()
        w.put(group(version=2), vip(interface="eth1"))
        await settle(1)
        assert {h.interface for h in w.addresses.held} == {"eth1"}


async def test_a_changed_announce_interval_does_not_take_the_address_away(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), vip())
        w.permit("web", 1)
        await settle(5)
        w.take_log()
        changed = vip()
        changed.spec.announce_interval.FromSeconds(2)
        w.put(group(version=2), changed)
        w.announced.clear()
        await settle(9.5)
        assert w.log == ["plan web@1 v2: ip"]
        assert len(w.announced) > 4


async def test_a_deleted_resource_is_stopped_then_unplanned_then_reported_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group(version=2), deleting(app(after=["ip"])))
        await settle(3)
        assert w.log == ["plan web@1 v2: ip app", "stop app", "plan web@1 v2: ip"]
        last = [s for r in w.cluster.reports for ref, s in r.statuses.items() if ref.name == "app"][-1]
        assert last.gone


async def test_a_group_without_a_node_is_stopped_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group("", 2, previous_node="n1", previous_epoch=1))
        await settle(3)
        assert w.log == ["stop app", "remove 10.0.0.9 eth0", "release web@1"]


async def test_a_group_that_vanished_from_the_store_is_cleaned_up(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.drop(group())
        await settle(3)
        assert (w.held, w.running) == ([], set())
        assert w.guard.plans == {}


async def test_an_assignment_that_is_older_than_the_guards_plan_undoes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.guard.plans["web"] = w.guard.plans["web"].__class__("web", 9, 1, w.guard.plans["web"].entries)
        w.put(group("n2", 5))
        await settle(RESYNC)
        assert w.log == []
        assert w.running == {"app"}


async def test_the_same_node_at_a_newer_epoch_starts_anew(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        w.put(group("n1", 2, previous_node="n1", previous_epoch=1, revoked=True))
        w.permit("web", 2)
        await settle(3)
        assert "kill app" in w.log
        assert w.log.index("kill app") < w.log.index("start app")
        assert w.running == {"app"}


async def test_no_event_is_reported_twice_when_the_store_is_away(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.cluster.failing = 3
        w.put(group("n2", 4), vip())
        w.addresses.held.add(Held("eth1", "10.0.0.9", 32))
        await settle(10)
        assert w.cluster.events() == ["ForeignAddressRemoved"]


async def test_what_a_fence_took_down_is_reported_and_waits_for_a_newer_epoch(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.guard.floors["web"] = 1
        w.put(group(), vip())
        w.permit("web", 1)
        await settle(100)
        assert w.log == ["gate 10.0.0.9"]
        assert w.cluster.events() == ["Fenced"]
        assert w.cluster.said("ip") == ["Stopped: the guard gave up epoch 1: its lease ended or was revoked"]
        w.put(group(epoch=2))
        w.permit("web", 2)
        await settle()
        assert w.cluster.said("ip")[-1] == "Running"


async def test_the_history_tells_start_failure_and_adoption(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.running.add("a")
        w.broken["c"] = "exit status 1"
        w.put(group(), app("a"), app("b"), app("c"))
        w.permit("web", 1)
        await settle(5)
        assert sorted(w.cluster.events()) == ["ResourceAdopted", "ResourceFailed", "ResourceStarted"]


async def test_a_resource_deleted_and_made_again_is_not_the_same_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await running(w)
        again = app(after=["ip"])
        again.metadata.uid = "another"
        w.put(group(version=2), again)
        await settle(5)
        assert [line for line in w.log if not line.startswith("plan")] == ["stop app", "start app"]


async def test_a_new_agent_removes_what_was_deleted_while_no_agent_was_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.guard.plans["web"] = Plan("web", 1, 1, (AddressEntry("eth0", "10.0.0.8", "old"),))
        w.addresses.held |= {Held("eth0", "10.0.0.8", 24), Held("eth0", "10.0.0.9", 24)}
        w.put(group(version=2), vip())
        w.permit("web", 1)
        await settle()
        assert w.held == ["10.0.0.9"]
        assert w.log == ["gate 10.0.0.9", "remove 10.0.0.8 eth0", "plan web@1 v2: ip"]


async def test_changes_within_one_batch_count_in_their_order(tmp_path: Path) -> None:
    cache = Cache()
    one = kinds.wrap(vip())
    cache.take(Batch([(one, False), (one, True)]))
    assert cache.resources("web") == {}
    cache.take(Batch([(one, True), (one, False)]))
    assert set(cache.resources("web")) == {"ip"}


async def test_a_shared_disk_that_was_mounted_by_hand_on_a_standby_is_unmounted_unless_it_is_in_use(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        data = pb.SharedDisk(metadata=pb.Metadata(name="data", group="web"))
        data.spec.device, data.spec.mount_point = "/dev/sdb1", "/srv/data"
        w.mounts.mounted = [Mount("8:9", "/srv/data", "/dev/sdb1", True)]
        w.mounts.users["/srv/data"] = "process 9 (bash)"
        w.put(group("n2", 4), data)
        await settle(2 * RESYNC)
        assert w.mounts.mounted != []
        assert w.cluster.events() == ["ForeignMount"]
        w.mounts.users.clear()
        await settle(RESYNC + 1)
        assert w.mounts.mounted == []
        assert w.cluster.events() == ["ForeignMount", "ForeignMount"]


async def test_b2_a_volume_that_a_fence_left_primary_is_demoted_on_the_node_without_the_group(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        data = pb.ReplicatedVolume(metadata=pb.Metadata(name="data", group="web"))
        data.spec.drbd_resource, data.spec.device, data.spec.mount_point = "r0", "/dev/drbd0", "/srv/data"
        w.drbd.held = True
        w.drbd.primary.add("r0")
        w.mounts.mounted = [Mount("8:10", "/srv/data", "/dev/drbd0", True)]
        w.put(group("n2", 4), data)
        await settle(2 * RESYNC)
        assert w.mounts.mounted == []
        assert w.cluster.events() == ["ForeignMount", "ForeignPrimary"]
        w.drbd.held = False
        await settle(RESYNC + 1)
        assert w.drbd.primary == set()
        assert w.cluster.events() == ["ForeignMount", "ForeignPrimary", "ForeignPrimary"]


async def test_what_an_earlier_agent_mounted_goes_before_the_group_is_released(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.guard.plans["web"] = Plan("web", 1, 1, (MountEntry("/dev/sdb1", "/srv/data", "data"),))
        w.mounts.mounted = [Mount("8:9", "/srv/data", "/dev/sdb1", True)]
        w.mounts.users["/srv/data"] = "process 9 (bash)"
        w.put(group("n2", 2), vip())
        await settle()
        assert w.log[-3:] == ["kill process 9 (bash)", "unmount /srv/data", "release web@1"]
