"""B2, C6: what DRBD says is understood, or refused in one way; what may be started on it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys import drbd as looks
from hasys.model import drbd
from hasys.model.drbd import Peer, Unreadable, Volume
from hasys.model.errors import HasysError
from hasys.resources.drbd import Drbd
from tests.lab.fake_drbd import FakeDrbd

PROC = """\
version: 8.4.11 (api:1/proto:86-101)
srcversion: 96ED19D4C144624490A9AB1
 0: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----
    ns:0 nr:90112 dw:90112 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:32768
\t[============>.......] sync'ed: 68.8% (32768/122880)K
\tfinish: 0:00:01 speed: 22,528 (22,528) K/sec
 1: cs:Unconfigured
 2: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C r-----
    ns:0 nr:0 dw:4 dr:1 al:1 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:4
"""
"""As DRBD 8.4.11 of Debian 12's kernel writes it."""

WORDS = st.sampled_from(
    ["UpToDate", "Inconsistent", "Outdated", "Diskless", "DUnknown", "Connected", "StandAlone", "SyncTarget", "Off"]
)
ROLES = st.sampled_from(["Primary", "Secondary", "Unknown"])
AMOUNTS = st.integers(0, 1 << 40)
PEERS = st.lists(st.builds(Peer, st.sampled_from(["n2", "n3"]), WORDS, ROLES, WORDS, AMOUNTS), max_size=3)
VOLUMES = st.builds(Volume, ROLES, WORDS, AMOUNTS, PEERS.map(tuple))


def told(volume: Volume, minor: int) -> str:
    """As drbdsetup of DRBD 9 writes it."""
    connections: list[dict[str, Any]] = []
    for peer in volume.peers:
        of: dict[str, Any] = {"volume": 1, "replication-state": peer.state, "peer-disk-state": peer.disk}
        of["out-of-sync"] = peer.out_of_sync
        state = "Connected" if peer.connected else peer.state
        connections.append({"name": peer.name, "connection-state": state, "peer-role": peer.role, "peer_devices": [of]})
    other = {"volume": 0, "minor": minor + 1, "disk-state": "Diskless"}
    device = {"volume": 1, "minor": minor, "disk-state": volume.disk, "size": volume.size}
    one = {"name": "r0", "role": volume.role, "devices": [other, device], "connections": connections}
    return json.dumps([{"name": "another"}, one])


def test_b2_what_drbd_8_says_of_each_device_is_understood() -> None:
    peer = Peer("", "SyncTarget", "Primary", "UpToDate", 32768)
    assert drbd.from_proc(PROC, 0, 131072) == Volume("Secondary", "Inconsistent", 131072, (peer,))
    assert drbd.from_proc(PROC, 1, 0) is None
    alone = drbd.from_proc(PROC, 2, 0)
    assert alone is not None
    assert (alone.primary, alone.peers[0].connected, alone.out_of_sync) == (True, False, 4)
    assert drbd.from_proc(PROC, 3, 0) is None
    assert drbd.major_version(PROC) == 8


@given(VOLUMES, st.integers(0, 1000))
def test_b2_what_drbd_9_says_of_a_device_is_understood_whatever_its_state(volume: Volume, minor: int) -> None:
    assert drbd.from_json(told(volume, minor), "r0", minor) == volume
    assert drbd.from_json(told(volume, minor), "r0", minor + 2) is None
    assert drbd.from_json(told(volume, minor), "r1", minor) is None


def test_a_connection_that_never_came_about_says_nothing_of_the_volume() -> None:
    connection = {"name": "n2", "connection-state": "Connecting", "peer-role": "Unknown", "peer_devices": []}
    one = {"name": "r0", "role": "Secondary", "connections": [connection]}
    one["devices"] = [{"volume": 0, "minor": 0, "disk-state": "UpToDate"}]
    volume = drbd.from_json(json.dumps([one]), "r0", 0)
    assert volume is not None
    assert volume.peers == (Peer("n2", "Connecting", "Unknown", "DUnknown", 0),)
    assert volume.refusal() == ""


@given(st.text(max_size=300))
def test_anything_else_is_refused_in_one_way(text: str) -> None:
    for parse in (
        lambda: drbd.major_version(text),
        lambda: drbd.from_proc(f" 0: cs:{text}", 0, 1),
        lambda: drbd.from_json(text, "r0", 0),
    ):
        try:
            parse()
        except Unreadable:
            continue


@given(VOLUMES)
def test_the_part_in_sync_is_a_percentage_and_what_is_promoted_is_up_to_date_alone_and_not_split(v: Volume) -> None:
    assert 0.0 <= v.in_sync <= 100.0
    assert (v.in_sync == 100.0) <= (v.out_of_sync == 0 or v.size > 0)
    if not v.refusal():
        assert v.disk == "UpToDate"
        assert all(peer.state != "StandAlone" for peer in v.peers)
        assert not any(peer.connected and peer.role == "Primary" for peer in v.peers)


def volume(disk: str = "UpToDate", state: str = "Connected", role: str = "Secondary") -> Volume:
    return Volume("Secondary", disk, 100, (Peer("n2", state, role, "UpToDate", 0),))


@pytest.mark.parametrize(
    ("seen", "refusal"),
    [
        (volume(), ""),
        (volume(state="WFConnection", role="Unknown"), ""),
        (volume(disk="Inconsistent", state="SyncTarget"), "the local disk is Inconsistent, not UpToDate"),
        (volume(disk="Outdated", state="Connecting"), "the local disk is Outdated, not UpToDate"),
        (volume(disk="Consistent", state="WFConnection"), "the local disk is Consistent, not UpToDate"),
        (volume(role="Primary"), "n2 is Primary"),
        (volume(state="StandAlone"), "StandAlone: DRBD gave the connection to n2 up: a split brain, or it was told to"),
    ],
)
def test_b2_nothing_starts_on_data_that_may_not_be_the_latest(seen: Volume, refusal: str) -> None:
    assert seen.refusal().startswith(refusal)
    assert bool(seen.refusal()) == bool(refusal)


# ---------------------------------------------------------------- a machine
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("version", [8, 9])
async def test_a_volume_is_seen_with_its_size_and_what_is_not_there_is_said(tmp_path: Path, version: int) -> None:
    fake = FakeDrbd(tmp_path / "drbd", version)
    here = Drbd(fake.kernel)
    fake.set(disk="Inconsistent", state="SyncTarget", peer_role="Primary", oos=16384)
    seen = await here.look("r0", "/dev/drbd0")
    assert (seen.in_sync, seen.disk, seen.trouble()) == (75.0, "Inconsistent", "the local disk is Inconsistent")
    fake.set(up=False)
    with pytest.raises(looks.Down, match="r0 is not up on this node: drbdadm up r0"):
        await here.look("r0", "/dev/drbd0")
    fake.kernel.proc.unlink()
    with pytest.raises(looks.Down, match="not in this node's kernel: modprobe drbd"):
        await here.look("r0", "/dev/drbd0")


async def test_tools_that_are_missing_and_devices_of_others_are_named(tmp_path: Path) -> None:
    fake = FakeDrbd(tmp_path / "drbd", 9)
    (tmp_path / "drbd" / "drbdsetup").unlink()
    with pytest.raises(HasysError, match="install drbd-utils on this node"):
        await Drbd(fake.kernel).look("r0", "/dev/drbd0")
    real = looks.Kernel(fake.kernel.proc)
    with pytest.raises(looks.Down, match=r"/dev/null is no device of DRBD: correct spec\.device"):
        await Drbd(real).look("r0", "/dev/null")


async def test_b2_a_volume_that_is_primary_where_it_must_not_be_steps_back_unless_it_is_in_use(tmp_path: Path) -> None:
    fake = FakeDrbd(tmp_path / "drbd")
    here = Drbd(fake.kernel)
    assert await here.stray("r0", "/dev/drbd0") == ""
    fake.set(role="Primary", held=True)
    assert await here.stray("r0", "/dev/drbd0") == (
        "r0 was Primary and stays so: drbdadm secondary r0: r0: State change failed: "
        "(-12) Device is held open by someone (exit status 11)"
    )
    fake.set(held=False)
    assert await here.stray("r0", "/dev/drbd0") == "r0 was Primary"
    assert fake.role == "Secondary"
    assert fake.calls == ["secondary r0"] * 2


async def test_a_question_that_is_given_up_at_any_moment_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = list[subprocess.Popen[bytes]]()

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    for moment in range(25):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Drbd()._run, ("sleep", "600"))
            for _ in range(moment):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert [one.pid for one in started if one.returncode is None] == [], f"given up after {moment} steps"
    assert len(started) > 10


async def test_tools_that_do_not_answer_are_ended_and_named() -> None:
    with pytest.raises(HasysError, match=r"^sleep did not answer within 0\.1 s$"):
        await Drbd()._run(("sleep", "600"), 0.1)


async def test_nothing_is_asked_beside_a_program_that_hangs_in_the_kernel() -> None:
    here = Drbd()
    here._hangs = await anyio.open_process(("sleep", "600"))  # as one that SIGKILL does not end
    with pytest.raises(HasysError, match=f"process {here._hangs.pid}"):
        await here._run(("true",))
    other = await anyio.open_process(("true",))
    await other.wait()
    await here._ended(other)  # it was asked before, and answers after
    with pytest.raises(HasysError, match=f"process {here._hangs.pid}"):
        await here._run(("true",))
    here._hangs.kill()
    await here._hangs.wait()
    assert await here._run(("echo", "x")) == (0, "x\n")
