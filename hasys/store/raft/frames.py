"""Bytes of the journal file and of the snapshot file: what is written, and what can be trusted when it is read back.

Journal: a header with a random salt, then batches. One batch is one group commit, and the next is written only after
the sync of the one before. So after a power cut at most the last batch can be damaged: a damaged batch with a whole one
behind it is corruption, not a torn tail. The salt, in every checksum, keeps a client's bytes from looking like a batch.

Marks: a small file of slots beside the journal. Each names a journal by its salt, and the serial number of its newest
batch that was announced as durable; so a journal that lacks announced batches at its end is told from a torn tail.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass

JOURNAL_MAGIC = b"hasysjr1"
SNAPSHOT_MAGIC = b"hasyssn1"
SALT_SIZE = 8
_HEADER = struct.Struct(">8s8sI")  # magic, salt, checksum of both
_BATCH = struct.Struct(">IIQ")  # length of the payload, checksum, serial number
_MARK = struct.Struct(">8sQI")  # salt, serial number, checksum of both
MARK_SECTOR = 512
"""Bytes from slot to slot: a write of one, torn by a power cut, leaves the others alone."""
MARK_SLOTS = 4
_SNAPSHOT = struct.Struct(">8sIQQQ")  # magic, checksum of all that follows, index, term, length


class Corrupt(Exception):
    """Data that was once synced cannot be read back: this member has lost part of its memory."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """The state machine after entry ``index``."""

    index: int
    term: int
    data: bytes


def new_salt() -> bytes:
    return os.urandom(SALT_SIZE)


@dataclass(frozen=True, slots=True)
class Mark:
    """The journal with that salt had ``serial`` batches when they were last announced as durable."""

    slot: int
    salt: bytes
    serial: int


def mark(salt: bytes, serial: int) -> bytes:
    """One slot of the file of marks."""
    fields = salt + struct.pack(">Q", serial)
    return _MARK.pack(salt, serial, zlib.crc32(fields))


def fresh_marks(salt: bytes) -> bytes:
    """A file of marks whose slot 0 says that nothing of the journal with that salt was announced yet."""
    return mark(salt, 0).ljust(MARK_SLOTS * MARK_SECTOR, b"\0")


def read_marks(data: bytes) -> list[Mark]:
    """The slots that can be read. One that was being written at a power cut cannot; another then names the journal."""
    found: list[Mark] = []
    for slot in range(min(MARK_SLOTS, len(data) // MARK_SECTOR)):
        salt, serial, checksum = _MARK.unpack_from(data, slot * MARK_SECTOR)
        if checksum == zlib.crc32(salt + struct.pack(">Q", serial)):
            found.append(Mark(slot, salt, serial))
    return found


def salt_of(data: bytes) -> bytes:
    """The salt in the header of a journal."""
    return data[len(JOURNAL_MAGIC) : len(JOURNAL_MAGIC) + SALT_SIZE]


def journal_header(salt: bytes) -> bytes:
    return _HEADER.pack(JOURNAL_MAGIC, salt, zlib.crc32(JOURNAL_MAGIC + salt))


def batch(salt: bytes, serial: int, payload: bytes) -> bytes:
    """One group commit as bytes of the file."""
    return _BATCH.pack(len(payload), _checksum(salt, serial, payload), serial) + payload


def read_journal(data: bytes) -> list[bytes]:
    """The payloads of every whole batch; a torn tail is left out. Raises :class:`Corrupt`."""
    if len(data) < _HEADER.size:
        raise Corrupt("the journal has no header")
    magic, salt, checksum = _HEADER.unpack_from(data)
    if magic != JOURNAL_MAGIC or checksum != zlib.crc32(magic + salt):
        raise Corrupt("the journal's header is damaged")
    payloads: list[bytes] = []
    at = _HEADER.size
    while at < len(data):
        payload = _batch_at(data, at, salt, len(payloads) + 1)
        if payload is None:
            _refuse_damage_before_whole_batches(data, at, salt, len(payloads) + 1)
            break
        payloads.append(payload)
        at += _BATCH.size + len(payload)
    if not payloads:
        raise Corrupt("the journal's first batch, written with the file, is damaged")
    return payloads


def _batch_at(data: bytes, at: int, salt: bytes, serial: int) -> bytes | None:
    if at + _BATCH.size > len(data):
        return None
    length, checksum, found = _BATCH.unpack_from(data, at)
    start = at + _BATCH.size
    if found != serial or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if checksum == _checksum(salt, serial, payload) else None


def _refuse_damage_before_whole_batches(data: bytes, damaged: int, salt: bytes, serial: int) -> None:
    """Look for the next batch behind the damage. Its serial number is known, so few places need a checksum."""
    wanted = struct.pack(">Q", serial + 1)
    at = data.find(wanted, damaged + 1)
    while at != -1:
        start = at - (_BATCH.size - len(wanted))
        if start > damaged and _batch_at(data, start, salt, serial + 1) is not None:
            raise Corrupt(f"the journal is damaged at byte {damaged}, before data that was synced later")
        at = data.find(wanted, at + 1)


def _checksum(salt: bytes, serial: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(salt + struct.pack(">Q", serial)))


def snapshot_file(snapshot: SnapshotFile) -> bytes:
    fields = struct.pack(">QQQ", snapshot.index, snapshot.term, len(snapshot.data))
    checksum = zlib.crc32(snapshot.data, zlib.crc32(fields))
    return _SNAPSHOT.pack(SNAPSHOT_MAGIC, checksum, snapshot.index, snapshot.term, len(snapshot.data)) + snapshot.data


def read_snapshot(data: bytes) -> SnapshotFile:
    """Raises :class:`Corrupt`: a snapshot is replaced atomically, so damage is never a torn write."""
    if len(data) < _SNAPSHOT.size:
        raise Corrupt("the snapshot is too short")
    magic, checksum, index, term, length = _SNAPSHOT.unpack_from(data)
    body = data[_SNAPSHOT.size :]
    fields = struct.pack(">QQQ", index, term, length)
    if magic != SNAPSHOT_MAGIC or len(body) != length or checksum != zlib.crc32(body, zlib.crc32(fields)):
        raise Corrupt("the snapshot is damaged")
    return SnapshotFile(index, term, body)
