"""Every decoder of bytes that come from outside, each as a function that may only refuse in its documented way.

A target takes any bytes. It returns when they were accepted or refused as documented, and raises for anything else:
that is a finding. What a checksum or a MAC would stop is also tried behind it: the first byte chooses.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.message import DecodeError

from hasys import config
from hasys.api import client, manifest, rules
from hasys.api.auth import Caller
from hasys.api.errors import TooLarge
from hasys.api.server.reports import plan_report
from hasys.api.validation import check_objects
from hasys.guard import notes, protocol, tokens
from hasys.guard import plan as guard_plan
from hasys.lease import wire
from hasys.model import arp
from hasys.model.errors import ConfigRefused, Refused
from hasys.model.timing import PROFILES
from hasys.monitors import ears, ping
from hasys.processes import RoleLock
from hasys.reconciler import lastknown
from hasys.resources.records import Records
from hasys.store.machine import Machine
from hasys.store.raft import frames, journal
from hasys.store.raft.core import Core
from hasys.store.raft.foundation import SafetyViolated
from hasys.store.raft.links import BadPeer, FrameReader, Receiver, ReceiverOwner, frame
from hasys.store.restore import Backup, advanced, read_backup, write_backup
from hasys.v1 import api_pb2, raft_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb
from tests.fuzz import foreign, rpcs, samples, scratch
from tests.sim.raft_disk import SimulatedDisk

KEY = b"k" * 32
SALT = b"saltsalt"


@dataclass(frozen=True, slots=True)
class Target:
    """``run`` tries one input; ``seeds`` are valid ones to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


# ---------------------------------------------------------------- consensus
def raft_frames(data: bytes) -> None:
    """A stream that arrives in two parts, cut at a place that the first byte names: a greeting, then messages."""
    cut = data[0] if data else 0
    owner = _Greeted()
    receiver = Receiver(owner)
    receiver.connection_made(_Connected())
    for part in (data[1 : 1 + cut], data[1 + cut :]):
        receiver.data_received(part)
    assert owner.messages == 0 or owner.greetings == 1


class _Greeted(ReceiverOwner):
    """Takes everybody."""

    def __init__(self) -> None:
        self.greetings = self.messages = 0

    def check_member(self, name: str) -> None:
        pass

    def greeted(self, receiver: Receiver, hello: raft_pb2.Hello) -> int:
        self.greetings += 1
        return 0

    def message(self, peer: str, message: raft_pb2.Message, network: int) -> None:
        self.messages += 1

    def gone(self, receiver: Receiver) -> None:
        pass

    def refused(self, transport: asyncio.BaseTransport | None, why: Exception) -> None:
        pass


class _Connected(asyncio.Transport):
    """The connection of a node, by its certificate."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        names = ((("organizationalUnitName", "node"),), (("commonName", "n2"),))
        return {"subject": names} if name == "peercert" else default

    def abort(self) -> None:
        pass


def raft_messages(data: bytes) -> None:
    """Whatever other members say, this one goes on, or ends because two of them contradict each other. The stream is
    frames, from n2 and n3 in turn; the disk is fast."""
    disk = SimulatedDisk()
    core = Core(
        "n1", ("n1", "n2", "n3"), timing=PROFILES["default"], opened=journal.open_journal(disk), machine=Machine(),
        now=1.0,
    )  # fmt: skip
    now = 1.0
    with suppress(SafetyViolated):
        for serial, message in enumerate(_messages(data[:20_000])):
            now += 0.05
            core.receive(now, f"n{2 + serial % 2}", message)
            core.advance(now)
            core.take_outgoing()
            job = core.take_job(now)
            if job is not None:
                job.run()
                core.persisted(now, job)


def _messages(data: bytes) -> list[raft_pb2.Message]:
    """Those in front of the first one that cannot be read."""
    found: list[raft_pb2.Message] = []
    with suppress(BadPeer, DecodeError):
        found.extend(raft_pb2.Message.FromString(body) for body in FrameReader().feed(data))
    return found


def journal_file(data: bytes) -> None:
    """As a file; or as the content of a batch with the right checksum, and a mark that belongs to it."""
    content, marks = data[1:], frames.fresh_marks(SALT)
    if data[:1] != b"\0":
        content = frames.journal_header(SALT) + frames.batch(SALT, 1, data[1:])
    disk = SimulatedDisk()
    disk.create(journal.JOURNAL, content)
    disk.create(journal.MARKS, marks)
    opened = journal.open_journal(disk)
    assert opened.lost or opened.started
    while (job := opened.journal.take_job()) is not None:
        job.run()
        opened.journal.done(job)
    again = journal.open_journal(disk)
    assert not again.lost, again.lost
    assert again.journal.items == opened.journal.items


def snapshot_file(data: bytes) -> None:
    """As a file; or as the state in a file with the right checksum."""
    with suppress(frames.Corrupt):
        frames.read_snapshot(data)
    machine = Machine()
    with suppress(ValueError):
        machine.restore(7, data)
        kept = machine.snapshot()
        machine.restore(7, kept)
        assert machine.snapshot() == kept


# ---------------------------------------------------------------- leases, guard
def lease_datagram(data: bytes) -> None:
    """As it comes; or with the MAC of a member."""
    datagram = data[1:]
    if data[:1] != b"\0":
        datagram += hmac.digest(KEY, datagram, "sha256")[: wire.MAC_LENGTH]
    with suppress(wire.DatagramRefused):
        message = wire.decode(datagram, "demo", lambda node: KEY if node == "n1" else None)
        again = wire.decode(wire.encode(message, KEY), "demo", lambda node: KEY)
        # durations may be a microsecond off, to the safe side
        assert (type(again), again.node, again.seq, again.nonce) == (
            type(message), message.node, message.seq, message.nonce,
        )  # fmt: skip


def guard_line(data: bytes) -> None:
    """A request of the agent; what is accepted reads the same when it is written again."""
    with suppress(protocol.BadMessage):
        number, request = protocol.parse_request(data)
        written = protocol.encode({"id": number, **protocol.request_to_json(request)})
        assert protocol.parse_request(written) == (number, request)


def guard_book(data: bytes) -> None:
    """The file in which the guard keeps what it must undo."""
    with suppress(guard_plan.Damaged):
        _scratch("plan.json").write_bytes(data)
        guard_plan.PlanFile(_scratch("plan.json").parent).load()


def claims(data: bytes) -> None:
    """What anybody on the link sends: ARP, neighbour advertisements, answers to pings."""
    for told in (arp.read(data), ears.advertised(data)):
        if told is not None:
            ipaddress.ip_address(told.address)
    for version in (4, 6):
        ping.answers(data, version, 7)


# ---------------------------------------------------------------- manifests, requests
def manifests(data: bytes) -> None:
    """What users write; what is accepted can be printed and read again."""
    text = data.decode("utf-8", "replace")
    try:
        found = manifest.load([("f.yaml", text)]).objects
    except Refused:
        return
    for obj in found:
        rules.fill_defaults(obj)  # they are printed
    printed = "---\n".join(manifest.to_yaml(obj) for obj in found)
    assert manifest.load([("g.yaml", printed)]).objects == found, printed


def request(data: bytes) -> None:
    """An Apply or a Report, and then the command that it becomes."""
    machine = _machine()
    with suppress(DecodeError, TooLarge):
        if data[:1] == b"\0":
            report = api_pb2.ReportRequest.FromString(data[1:])
            _, mutations = plan_report(report, Caller("node", report.node), machine)
        else:
            objects = api_pb2.ApplyRequest.FromString(data[1:]).objects
            for obj in objects:
                rules.fill_defaults(obj)
            if check_objects(objects, machine):
                return
            mutations = [store_pb2.Mutation(put_spec=obj) for obj in objects]
        machine.apply(1000, store_pb2.Command(id="x", mutations=mutations).SerializeToString())


def calls(data: bytes) -> None:
    """The same and the other calls, through their services."""
    _calls()(data)


@cache
def _calls() -> Callable[[bytes], None]:
    return rpcs.calls(_machine(), _config())


def command(data: bytes) -> None:
    """What stands in the log: applying it never raises, and the state can be kept and brought back."""
    machine = _machine()
    machine.apply(1000, data)
    copied = Machine()
    copied.restore(1000, machine.snapshot())
    assert copied.snapshot() == machine.snapshot()


# ---------------------------------------------------------------- files
def node_yaml(data: bytes) -> None:
    """Written by hasys, edited by people."""
    path = _scratch("node.yaml")
    path.write_bytes(data)
    with suppress(ConfigRefused):
        config.load(path)


def client_yaml(data: bytes) -> None:
    """The same."""
    path = _scratch("client.yaml")
    path.write_bytes(data)
    with suppress(ConfigRefused):
        client.load_context(path)


def backup_file(data: bytes) -> None:
    """As a file; or as the state in one with the right checksum. What is accepted a store can start with."""
    header = api_pb2.BackupHeader(cluster_id="c1", term=3)
    raw = data[1:] if data[:1] == b"\0" else write_backup(Backup(header, data[1:]))
    with suppress(Refused):
        backup = read_backup(raw)
        state = advanced(backup, _config())
        Machine().restore(state.index, state.SerializeToString())


def kept_files(data: bytes) -> None:
    """What the processes of a node keep beside the log, each read as whichever it might be."""
    path = _scratch("r/kept.json")
    path.write_bytes(data)
    lastknown.read(path)
    notes.read(path)
    path.with_suffix(".pid").write_bytes(data)
    RoleLock(path.parent, "kept").recorded()
    Records(_scratch("r").parent).read("r", "kept")
    with suppress(Refused):
        tokens.load(path)


@cache
def _config() -> config.NodeConfig:
    _scratch("backup.yaml").write_text(yaml.safe_dump(samples.NODE))
    return config.load(_scratch("backup.yaml"))


def _scratch(name: str) -> Path:
    _prepare(scratch.path(""))
    return scratch.path(name)


@cache
def _prepare(folder: Path) -> None:
    """Beside node.yaml lie files that nobody else may read; a target that runs beside this one made them, or we do.
    Once per folder: tests of another module may come in between, and then there is a new one."""
    for name in ("node.key", "node.secret"):
        Path(folder, name).touch(mode=0o600)
    Path(folder, "r").mkdir(exist_ok=True)


def _machine() -> Machine:
    """A small cluster to write to."""
    machine = Machine()
    machine.restore(0, _state())
    return machine


@cache
def _state() -> bytes:
    machine = Machine()
    objects = _objects()
    nodes = [pb.Object(node=pb.Node(metadata=pb.Metadata(name=name))) for name in ("n1", "n2")]
    for serial, obj in enumerate([*nodes, *objects], 1):
        one = store_pb2.Command(id=str(serial), mutations=[store_pb2.Mutation(put_spec=obj)])
        machine.apply(serial, one.SerializeToString())
    return machine.snapshot()


# ---------------------------------------------------------------- seeds
def _objects() -> list[pb.Object]:
    return list(manifest.load([("f", samples.MANIFEST)]).objects)


def _command_seeds() -> list[bytes]:
    objects = _objects()
    mutations = [store_pb2.Mutation(put_spec=obj) for obj in objects]
    mutations.append(store_pb2.Mutation(delete=pb.Key(kind="Group", name="web")))
    mutations.append(store_pb2.Mutation(record=pb.Event(reason="Started", message="x")))
    return [store_pb2.Command(id="a", mutations=[one]).SerializeToString() for one in mutations]


def _request_seeds() -> list[bytes]:
    objects = _objects()
    status = api_pb2.StatusReport(
        key=pb.Key(kind="Delay", group="web", name="pause"), status=pb.ResourceStatus(state="Running", epoch=1)
    )
    return [
        b"\1" + api_pb2.ApplyRequest(objects=objects).SerializeToString(),
        b"\0" + api_pb2.ReportRequest(node="n1", statuses=[status], events=[pb.Event(reason="x")]).SerializeToString(),
    ]


def _journal_seeds() -> list[bytes]:
    records = [
        raft_pb2.Record(base=raft_pb2.Base(index=1, term=0)),
        raft_pb2.Record(standing=raft_pb2.Standing(incarnation=1, voting=True)),
        raft_pb2.Record(ballot=raft_pb2.Ballot(term=2, voted_for="n1")),
        raft_pb2.Record(entry=raft_pb2.LogEntry(index=2, term=2, command=b"\0x")),
        raft_pb2.Record(truncate=2),
    ]
    payload = raft_pb2.Batch(records=records).SerializeToString()
    return [b"\1" + payload, b"\0" + frames.journal_header(SALT) + frames.batch(SALT, 1, payload)]


def _snapshot_seeds() -> list[bytes]:
    return [_state(), frames.snapshot_file(frames.SnapshotFile(5, 1, b"state"))]


def _node_yaml_seeds() -> list[bytes]:
    return [yaml.safe_dump(samples.NODE).encode()]


def _backup_seeds() -> list[bytes]:
    header = api_pb2.BackupHeader(cluster="demo", cluster_id="c1", term=3)
    return [b"\1" + _state(), b"\0" + write_backup(Backup(header, _state()))]


def _last_known() -> bytes:
    objects = _objects()
    return bytes(api_pb2.ListResponse(objects=objects).SerializeToString())


TARGETS = {
    "frames": Target(raft_frames, lambda: [b"\3" + frame(raft_pb2.Hello(protocol=1, name="n2")) + samples.stream()]),
    "raft": Target(raft_messages, lambda: [samples.stream()]),
    "journal": Target(journal_file, _journal_seeds),
    "snapshot": Target(snapshot_file, _snapshot_seeds),
    "lease": Target(lease_datagram, lambda: samples.datagrams(KEY)),
    "guard": Target(guard_line, lambda: samples.GUARD_LINES),
    "book": Target(guard_book, lambda: samples.BOOKS),
    "manifest": Target(manifests, lambda: [samples.MANIFEST.encode()]),
    "request": Target(request, _request_seeds),
    "rpc": Target(calls, lambda: rpcs.seeds(_objects())),
    "command": Target(command, _command_seeds),
    "node-yaml": Target(node_yaml, _node_yaml_seeds),
    "client-yaml": Target(client_yaml, lambda: [samples.CLIENT_YAML]),
    "claims": Target(claims, lambda: samples.CLAIMS),
    "backup": Target(backup_file, _backup_seeds),
    "kept": Target(kept_files, lambda: [_last_known(), *samples.KEPT]),
    "notes": Target(foreign.guard_notes, lambda: samples.NOTES),
    "arbiter": Target(foreign.arbiter_area, foreign.arbiter_seeds),
    "import": Target(foreign.imported, foreign.imported_seeds),
    "drbd": Target(foreign.drbd_status, lambda: samples.DRBD),
    "small": Target(foreign.small, foreign.small_seeds),
}
"""By the name that ``make fuzz`` takes."""
