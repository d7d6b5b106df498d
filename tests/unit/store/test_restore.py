"""A backup begins a new history: nothing of the old one is taken for newer, and nothing is overwritten."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.config import Member, NodeConfig
from hasys.model.errors import Refused
from hasys.model.timing import PROFILES
from hasys.store.machine import Machine
from hasys.store.raft.engine import RaftEngine
from hasys.store.restore import JUMP, Backup, read_backup, restore, write_backup
from hasys.store.seed import seed
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from hasys.v1.api_pb2 import BackupHeader
from tests.certs import issue, make_ca
from tests.unit.store.test_store_process import free_ports

TERM, EPOCH = 7, 4


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    files = issue(make_ca(), tmp_path / "pki", "n1", ips=("127.0.0.1",))
    ports = free_ports(6)
    members = (
        Member("n1", "Voter", ("127.0.0.1",), *ports[:3]),
        Member("n2", "Voter", ("127.0.0.1",), *ports[3:]),
    )
    return NodeConfig(
        path=tmp_path / "node.yaml", cluster="demo", cluster_id="test-cluster", name="n1", members=members,
        profile="default", ca=files.ca, certificate=files.certificate, key=files.key, lease_secret=tmp_path / "x",
        node_secret=tmp_path / "x", data_dir=tmp_path / "data", run_dir=tmp_path / "run",
    )  # fmt: skip


def backup_of(config: NodeConfig) -> Backup:
    """A store with one group that ran on n2."""
    machine = Machine()
    command = seed(config, machine)
    assert command is not None
    machine.apply(10, command.SerializeToString())
    head = pb.Object()
    head.group.metadata.name = "web"
    head.group.spec.nodes.add(name="n2")
    status = pb.Object()
    status.CopyFrom(head)
    status.group.status.assignment.node, status.group.status.assignment.epoch = "n2", EPOCH
    mutations = [store_pb2.Mutation(put_spec=head), store_pb2.Mutation(put_status=status)]
    answer = machine.apply(11, store_pb2.Command(id=secrets.token_hex(4), mutations=mutations).SerializeToString())
    assert store_pb2.Outcome.FromString(answer).done
    data = machine.snapshot()
    header = BackupHeader(cluster="demo", cluster_id="test-cluster", resource_version=11, term=TERM, size=len(data))
    return Backup(header, data)


def test_a_backup_file_is_read_back_and_any_damage_is_noticed(config: NodeConfig) -> None:
    backup = backup_of(config)
    raw = write_backup(backup)
    assert read_backup(raw) == backup
    for at in (0, 9, 30, len(raw) // 2, len(raw) - 1):
        with pytest.raises(Refused):
            read_backup(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    for length in (0, 10, 50, len(raw) - 1):
        with pytest.raises(Refused):
            read_backup(raw[:length])


@pytest.mark.anyio
async def test_the_restored_member_leads_alone_and_everything_counts_as_newer(config: NodeConfig) -> None:
    assert restore(config, backup_of(config)) == ("n2",)
    machine = Machine()
    engine = RaftEngine(config, PROFILES["default"], machine, data_dir=config.data_dir)
    changed = asyncio.Event()
    engine.on_change(changed.set)
    task = asyncio.create_task(engine.run())
    async with asyncio.timeout(10):
        while engine.authority() is None:
            changed.clear()
            await changed.wait()
    status = engine.status()
    assert (status.voters, engine.learners()) == (("n1",), frozenset({"n2"}))
    assert status.term > TERM + JUMP
    assert machine.revision >= 11 + JUMP
    group = machine.group("web")
    assert group is not None
    assert (group.status.assignment.node, group.status.assignment.epoch) == ("", EPOCH + JUMP)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_folder_with_a_log_is_not_overwritten(config: NodeConfig) -> None:
    restore(config, backup_of(config))
    before = {f.name: f.read_bytes() for f in config.data_dir.iterdir()}
    with pytest.raises(Refused, match="is not empty"):
        restore(config, backup_of(config))
    assert {f.name: f.read_bytes() for f in config.data_dir.iterdir()} == before


def test_while_another_member_runs_nothing_is_restored(config: NodeConfig) -> None:
    with (
        socket.create_server(("127.0.0.1", config.member("n2").raft_port)),
        pytest.raises(Refused, match="n2 still runs"),
    ):
        restore(config, backup_of(config))
    assert not config.data_dir.exists()


def test_the_backup_of_another_cluster_is_refused(config: NodeConfig) -> None:
    with pytest.raises(Refused, match="another cluster"):
        restore(replace(config, cluster_id="other"), backup_of(config))


def test_an_observer_has_nothing_to_restore(config: NodeConfig) -> None:
    observer = replace(config.me, role="Observer")
    with pytest.raises(Refused, match="observer"):
        restore(replace(config, members=(observer, config.member("n2"))), backup_of(config))


def unreadable(what: str) -> store_pb2.Snapshot:
    """A state of the right form that no store could start with."""
    state = store_pb2.Snapshot(index=5)
    match what:
        case "index":
            state.index = 2**64 - 1
        case "epoch":
            state.objects.add().group.status.assignment.epoch = 2**64 - 1
        case "role":
            state.objects.add().node.spec.role = 77  # type: ignore[assignment]
            state.objects[0].node.metadata.name = "n2"
        case "kind":
            state.objects.add()
        case "floor":
            state.epoch_floor = 2**63
    return state


@pytest.mark.parametrize("what", ["index", "epoch", "role", "kind", "floor"])
def test_a_backup_with_the_right_checksum_that_no_store_could_start_with_is_refused_and_nothing_is_written(
    config: NodeConfig, what: str
) -> None:
    backup = Backup(backup_of(config).header, unreadable(what).SerializeToString())
    with pytest.raises(Refused, match="the backup's state cannot be read"):
        restore(config, read_backup(write_backup(backup)))
    assert not config.data_dir.exists() or not list(config.data_dir.iterdir())
