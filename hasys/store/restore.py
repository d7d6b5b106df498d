"""The store from a backup: the file, and a data folder in which a new history begins.

The restored member is the only voter; the other members of the backup are learners, and vote again once they have
copied the log with empty data folders. What they hold from before belongs to another history and is refused (see
``Membership.history``).

Term, log index and epochs jump far ahead of anything that was written after the backup: guards, agents and clients that
saw the lost future then take nothing of the restored past for older than what they know.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from hasys.config import Member, NodeConfig
from hasys.model.errors import Refused
from hasys.store.directory import member_of
from hasys.store.machine import Machine
from hasys.store.raft.disk import Folder
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import JOURNAL, MARKS, SNAPSHOT, Journal
from hasys.store.raft.membership import Membership, pack_snapshot
from hasys.v1 import store_pb2
from hasys.v1.api_pb2 import BackupHeader

MAGIC = b"hasysbk1"
_LENGTH = struct.Struct(">I")
DIGEST = 32
JUMP = 1_000_000_000
"""Log entries, terms and epochs that a lost future can have had at most."""
LARGEST = 2**62
"""Term, log entry or epoch."""
KNOCK = 0.5
"""Seconds that another member gets to answer before it counts as stopped."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup file."""

    header: BackupHeader
    data: bytes


def write_backup(backup: Backup) -> bytes:
    """The bytes of the file: magic, header, data, and the checksum of all of them."""
    header = backup.header.SerializeToString()
    body = MAGIC + _LENGTH.pack(len(header)) + header + backup.data
    return body + hashlib.sha256(body).digest()


def read_backup(raw: bytes) -> Backup:
    """The reverse. Raises ``Refused`` for what is no backup, cut or damaged."""
    start = len(MAGIC) + _LENGTH.size
    if not raw.startswith(MAGIC) or len(raw) < start + DIGEST:
        raise Refused("this is no backup of hasys")
    body = raw[:-DIGEST]
    if hashlib.sha256(body).digest() != raw[-DIGEST:]:
        raise Refused("the backup is damaged or cut: its checksum does not fit")
    (length,) = _LENGTH.unpack_from(raw, len(MAGIC))
    try:
        header = BackupHeader.FromString(body[start : start + length])
    except DecodeError:
        raise Refused("the backup's header cannot be read") from None
    return Backup(header, body[start + length :])


def restore(config: NodeConfig, backup: Backup) -> tuple[str, ...]:
    """Fill the empty data folder of this stopped member; returns the names of the other members. Raises
    ``Refused`` with the reason, OSError."""
    if not config.me.votes:
        raise Refused(f"{config.name} is an observer and has no store: restore on a voter or the witness")
    if backup.header.cluster_id != config.cluster_id:
        raise Refused(f"the backup is of another cluster ({backup.header.cluster}, {backup.header.cluster_id})")
    state = advanced(backup, config)
    running = _who_answers(members_of(state, config), config.name)
    if running:
        raise Refused(
            f"{running} still runs: stop hasys on every member first, the restored store begins a new history"
        )
    folder = Folder(config.data_dir)
    try:
        if not folder.lock():
            raise Refused(f"{config.data_dir} is in use: stop hasys here first")
        for name in (JOURNAL, SNAPSHOT, MARKS):
            if folder.read(name) is not None:
                raise Refused(f"{config.data_dir} is not empty ({name}): move it away first, nothing is overwritten")
        _write(config, backup, state, folder)
        return tuple(m.name for m in members_of(state, config) if m.name != config.name)
    finally:
        folder.close()


def advanced(backup: Backup, config: NodeConfig) -> store_pb2.Snapshot:
    """The state to begin with: the backup's, above everything that anybody has seen. Raises ``Refused`` when a store
    could not start with it."""
    try:
        state = store_pb2.Snapshot.FromString(backup.data)
        _advance(state)
        Machine().restore(state.index, state.SerializeToString())
        Membership(members_of(state, config)).encode()
    except (DecodeError, ValueError) as e:
        raise Refused(f"the backup's state cannot be read: {e}") from None
    if max(backup.header.term, state.index, state.epoch_floor) > LARGEST:
        raise Refused("the backup's state cannot be read: it counts further than any cluster can have come")
    return state


def _advance(state: store_pb2.Snapshot) -> None:
    state.index += JUMP
    state.epoch_floor += JUMP
    for obj in state.objects:
        if obj.HasField("group"):  # who runs it is decided anew, above every epoch that anybody has seen
            old = obj.group.status.assignment
            epoch, stopped = old.epoch + JUMP, old.stopped
            old.Clear()
            old.epoch, old.stopped, old.cause = epoch, stopped, "restored from a backup"
        elif obj.HasField("node"):
            obj.node.status.fence_confirmed = False
            obj.node.status.ClearField("fence_boot_id")


def _who_answers(members: Iterable[Member], own: str) -> str:
    """The name of another member whose store listens; empty when all are silent."""
    for member in members:
        for address in member.addresses if member.name != own else ():
            try:
                socket.create_connection((address, member.raft_port), timeout=KNOCK).close()
            except OSError:
                continue
            return member.name
    return ""


def members_of(state: store_pb2.Snapshot, config: NodeConfig) -> tuple[Member, ...]:
    """The members with a store: those of the backup, which may be newer than node.yaml, and this one in any case."""
    nodes = (member_of(obj.node) for obj in state.objects if obj.HasField("node"))
    stores = tuple(m for m in nodes if m.votes and m.name != config.name)
    return (config.me, *stores)


def _write(config: NodeConfig, backup: Backup, state: store_pb2.Snapshot, folder: Folder) -> None:
    members = members_of(state, config)
    learners = frozenset(m.name for m in members if m.name != config.name)
    membership = Membership(members, learners, secrets.randbits(63) | 1)
    term = backup.header.term + JUMP
    data = pack_snapshot(membership, state.SerializeToString(deterministic=True))
    journal = Journal(folder, secrets.randbits(64), voting=True)
    journal.ballot(term, "")
    journal.install(SnapshotFile(state.index, term, data))
    job = journal.take_job()
    assert job is not None
    job.run()
