"""Targets for what others write: another node on a shared disk, an earlier boot, other products, people, strangers."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from hasys.api import manifest
from hasys.api.auth import Authenticator
from hasys.api.errors import Denied, decode_faults
from hasys.cli import commandfiles
from hasys.cli.importing import hasys_v5, keepalived
from hasys.cli.seed import parse_member
from hasys.guard import arbiter, notes
from hasys.guard.client import notes_of
from hasys.lease.ballots import Ballots, Block, Claim, Look
from hasys.lease.wire import parse_secret
from hasys.model import drbd, mounts
from hasys.model.errors import ConfigRefused, Refused
from hasys.reconciler.witnessing import event_of
from hasys.resources import fence_agent
from hasys.telemetry.endpoint import REQUEST, Endpoint
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from tests.fuzz import samples, scratch
from tests.unit.guard.fakes import Bench, FakeDisk

_T = TypeVar("_T")
SEAT = arbiter.Seat(Path("/dev/sdx"), "c1", "n1", "n2")


# ---------------------------------------------------------------- the disk that decides between two nodes
def arbiter_area(data: bytes) -> None:
    """An area as it comes; or the content of one with the right checksum. What is taken for the other node's block can
    be kept, and is answered by a block that can be written."""
    area = data[1:]
    if data[:1] != b"\0":
        area = struct.pack(">8sII", b"hasysarb", len(area), zlib.crc32(area)) + area
    with suppress(arbiter.Torn, Refused):
        block = arbiter.decode(SEAT, area[: arbiter.AREA].ljust(arbiter.AREA, b"\0"))
        if block is None:
            return
        with suppress(Refused):  # written with more blanks than it came with, it may not fit
            assert arbiter.decode(SEAT, arbiter.encode("c1", block).ljust(arbiter.AREA, b"\0")) == block
        ballots = Ballots("n1", 1.0)
        ballots.looked(Look(None, 0.0, None, block), 0.0)
        for began in (1.0, 3.0):
            ballots.claim("web")
            written = ballots.write()
            assert written is not None
            arbiter.encode("c1", written)
            ballots.looked(Look(written, began, written, block), began)


def arbiter_seeds() -> list[bytes]:
    block = Block("n2", 7, 3, 2.5, {"web": Claim(3, owned=True), "db": Claim(2)})
    area = arbiter.encode("c1", block)
    return [b"\1" + area[16:], b"\0" + area, b"\0"]


# ---------------------------------------------------------------- what the guard of an earlier boot left
def guard_notes(data: bytes) -> None:
    """Whatever is written there, the guard of this boot starts, and what it has to say can be told and kept."""
    path = scratch.path("notes.json")
    path.write_bytes(data)
    disk = FakeDisk()
    bench = Bench(notes=notes.Notebook(disk, "second", notes.read(path)))
    bench.guard.start()
    told = json.loads(json.dumps(bench.guard.notes.to_json(), allow_nan=False))
    assert len(json.dumps(told)) < LONGEST_TOLD
    for note in notes_of({"notes": told}):
        event_of(note, "n1").SerializeToString()
    json.dumps(disk.content, allow_nan=False)
    bench.guard.notes.told(2**63 - 1)
    assert not bench.guard.notes.to_json()


LONGEST_TOLD = 2 * 1024 * 1024
"""Characters: half of the guard's longest answer, which has more to say than this."""


# ---------------------------------------------------------------- other products
def imported(data: bytes) -> None:
    """Strange settings are named, never refused; what is made of the others is a manifest or is refused as one."""
    text = data[1:].decode("utf-8", "replace")
    if data[:1] == b"k":
        made = keepalived.translate(text, ["n1=100", "n2"])
    else:
        made = hasys_v5.translate(text, hasys_v5.Wanted("web", ["n1", "n2"], "demo", "/dev/sdb1", "/srv"))
    written = made.manifest("f.conf")
    if not made.objects:
        assert all(line.startswith("#") for line in written.splitlines()), written
    with suppress(Refused):
        assert len(manifest.load([("made", written)]).objects) == len(made.objects)


# ---------------------------------------------------------------- DRBD
def drbd_status(data: bytes) -> None:
    """Both ways in which it tells of a volume; what is understood can be judged and told."""
    text = data.decode("utf-8", "replace")
    with suppress(drbd.Unreadable):
        drbd.major_version(text)
    with suppress(drbd.Unreadable):
        _told(drbd.from_proc(text, 0, 65536))
    with suppress(drbd.Unreadable):
        _told(drbd.from_json(text, "r0", 0))


def _told(volume: drbd.Volume | None) -> None:
    if volume is not None:
        assert 0.0 <= volume.in_sync <= 100.0
        told = f"{volume.refusal()}{volume.trouble()}"
        assert told.isprintable()
        assert len(told) < 500 * (1 + len(volume.peers))


# ---------------------------------------------------------------- the small ones
def small(data: bytes) -> None:
    """The decoders of a few lines each; the first byte names one."""
    _SMALL[data[0] % len(_SMALL)](data[1:]) if data else None


def _page_request(data: bytes) -> None:
    """What anybody sends to the port of the metrics."""
    reader = asyncio.StreamReader(REQUEST, loop=cast(Any, _NoLoop()))
    reader.feed_data(data)
    reader.feed_eof()
    answer = _at_once(Endpoint(_page, "", 0)._answer(reader))
    assert answer.startswith(b"HTTP/1.1 ")


def _caller(data: bytes) -> None:
    """A certificate's subject, and the caller that a store says to pass on."""
    subject, _, forwarded = data.partition(b"\n")
    with suppress(Denied):
        Authenticator("c1", {"n1": True, "o": False}).caller(subject, forwarded.decode("utf-8", "replace") or None)


def _faults(data: bytes) -> None:
    """What a server says beside a refusal."""
    for fault in decode_faults(data):
        str(fault.ref)


def _command_file(data: bytes) -> None:
    path = scratch.path("HA_MANUAL_FAILOVER.DAT")
    path.write_bytes(data)
    status = api_pb2.StatusResponse()
    status.groups.add(name="web", mode="Mirror", active="n1", nodes={"n1": "Active", "n2": "Standby"})
    for name, groups in commandfiles.taken(path.parent):
        for spec in commandfiles.operations(name, groups, "n1", status):
            spec.SerializeToString()
    assert not path.exists()


def _secrets(data: bytes) -> None:
    """The lines that a fence agent gets beside its options; and the key of leases."""
    path = scratch.path("node.secret")
    path.write_bytes(data)
    with suppress(fence_agent.Failed):
        fence_agent.secrets(path)
    with suppress(Refused):
        parse_secret(data)


def _member(data: bytes) -> None:
    """On the command line."""
    with suppress(ConfigRefused):
        parse_member(data.decode("utf-8", "replace"), "Voter")


def _mounts(data: bytes) -> None:
    """Names of mount points are those of whoever mounts."""
    found = mounts.parse(data.decode("utf-8", "surrogateescape"))
    mounts.below(found, "/srv")


_SMALL = (_page_request, _caller, _faults, _command_file, _secrets, _member, _mounts)


def small_seeds() -> list[bytes]:
    faults = api_pb2.Faults()
    faults.faults.add(key=pb.Key(kind="Delay", group="web", name="x"), field="spec", message="no")
    texts = (
        b"GET /metrics?a HTTP/1.1\r\nHost: n1\r\n\r\n",
        b"CN=n1,OU=node,O=hasys:c1\nadmin/bob",
        faults.SerializeToString(),
        b"web db\n",
        b"# of the switch\nlogin=hasys\npassword=x=y\n",
        b"n1=10.0.0.1:7411,[fd00::1]:7411",
        b"26 1 8:1 / /srv\\040x rw - ext4 /dev/sda1 rw\n",
    )
    return [bytes((number,)) + text for number, text in enumerate(texts)] + [b"\4" + b"ab" * 32]


class _NoLoop:
    """A stream that has everything needs no loop."""

    def get_debug(self) -> bool:
        return False


async def _page() -> bytes:
    return b"hasys_up 1\n"


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Its result; it must not wait: everything is there."""
    try:
        work.send(None)
    except StopIteration as e:
        return cast(_T, e.value)
    work.close()
    raise AssertionError("waits though nothing more can come")


def imported_seeds() -> list[bytes]:
    return [b"k" + samples.KEEPALIVED, b"h" + samples.HA_SYS]
