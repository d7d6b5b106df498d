"""C6: state and amount of a replicated volume, and the gate of A15 that asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.monitors.replication import ReplicationCheck
from hasys.v1 import monitors_pb2 as mpb
from tests.lab.fake_drbd import FakeDrbd
from tests.unit.monitors.test_checks import FakeMachine, Real

pytestmark = pytest.mark.anyio

GATE = mpb.ReplicationMonitor(volume="data", in_sync=95, disconnected_allowed=True)
STATE = mpb.ReplicationMonitor(volume="data")
CUT = {"state": "WFConnection", "peer_disk": "DUnknown"}
SPLIT = {"state": "StandAlone", "peer_disk": "DUnknown"}
AMOUNT = mpb.ReplicationMonitor(volume="data", in_sync=1, out_of_sync=1 << 20)


@pytest.mark.parametrize(
    ("spec", "changes", "trouble", "value"),
    [
        (STATE, {}, "", 100.0),
        (STATE, CUT, "not connected to the other node (WFConnection)", 100.0),
        (STATE, SPLIT, "not connected to the other node (StandAlone)", 100.0),
        (STATE, {"disk": "Diskless"}, "the local disk is Diskless", 100.0),
        (STATE, {"state": "SyncSource", "peer_disk": "Inconsistent", "oos": 655},
         "the disk of the other node is Inconsistent", 99.0005),
        (GATE, {}, "", 100.0),
        (GATE, {"state": "SyncTarget", "disk": "Inconsistent", "oos": 3276}, "", 95.0012),
        (GATE, {"state": "SyncTarget", "disk": "Inconsistent", "oos": 3277}, "less than 95 % in sync", 94.9997),
        (GATE, CUT, "", 100.0),
        (GATE, {"disk": "Outdated", "state": "WFConnection"}, "the local disk is Outdated", 100.0),
        (AMOUNT, {"oos": 1024}, "", 98.4375),
        (AMOUNT, {"oos": 1025}, "more than 1048576 bytes out of sync", 98.436),
    ],
)  # fmt: skip
async def test_c6_and_a15_a_volume_is_judged_by_disk_connection_and_amount(
    tmp_path: Path, spec: mpb.ReplicationMonitor, changes: dict[str, object], trouble: str, value: float
) -> None:
    fake = FakeDrbd(tmp_path / "drbd")
    fake.set(**changes)
    found = await ReplicationCheck(spec, Real(), FakeMachine(), "web", fake.kernel).look()
    assert found.trouble == trouble
    assert found.value == pytest.approx(value, abs=1e-3)
    assert found.unit == "%"


async def test_c6_with_drbd_9_the_peer_has_a_name_and_the_event_has_the_figures(tmp_path: Path) -> None:
    fake = FakeDrbd(tmp_path / "drbd", 9)
    fake.set(state="SyncTarget", disk="Inconsistent", peer_role="Primary", oos=32768)
    found = await ReplicationCheck(STATE, Real(), FakeMachine(), "web", fake.kernel).look()
    assert found.trouble == "the local disk is Inconsistent"
    assert found.detail == (
        "50.00 % in sync, 32768 KiB are not; here: Secondary, Inconsistent; n2: SyncTarget, Primary, UpToDate"
    )


async def test_a_volume_that_the_group_does_not_have_is_trouble() -> None:
    spec = mpb.ReplicationMonitor(volume="gone")
    assert (await ReplicationCheck(spec, Real(), FakeMachine(), "web").look()).trouble == (
        "the group has no replicated volume gone"
    )
