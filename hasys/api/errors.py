"""Our errors as gRPC statuses and back. The text is one clear line per fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from hasys.api.kinds import Ref
from hasys.model.errors import Conflict, HasysError, NoMajority, NotFound, Refused, TimedOut, Unavailable, Unknown
from hasys.model.lines import one_line
from hasys.v1 import api_pb2

FAULTS = "hasys-faults-bin"
"""Trailing metadata: the faults of a refused input, as ``hasys.v1.Faults``."""
NOTHING_CHANGED = "hasys-nothing-changed"
"""Trailing metadata of UNAVAILABLE: the server is sure that the request was not done."""
NO_MAJORITY = "hasys-no-majority"
"""Trailing metadata of UNAVAILABLE: there has been no leader for a while, trying again soon will not help."""

_DETAILS = 4_000
"""Longest status text in bytes: it travels in HTTP/2 trailers, which others limit to 8 KiB."""
_FAULT_BYTES = 2_500


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input."""

    ref: Ref
    field: str
    """Manifest spelling: ``spec.nodes[1].name``."""
    message: str
    """What is wrong; how to mend it."""

    def __str__(self) -> str:
        return one_line(f"{self.ref}: {self.field}: {self.message}" if self.field else f"{self.ref}: {self.message}")


class Invalid(Refused):
    """The input is wrong: ``faults`` says where. Nothing changed."""

    def __init__(self, faults: Sequence[Fault], text: str = "") -> None:
        super().__init__(text or "\n".join(map(str, faults)))
        self.faults = tuple(faults)


class Denied(Refused):
    """The caller may not do this."""


class TooLarge(Refused):
    """Over a limit: the text says which."""


class Relist(Refused):
    """The watch cannot go on from that version: list again."""


_CODES: tuple[tuple[type[HasysError], grpc.StatusCode], ...] = (
    (Invalid, grpc.StatusCode.INVALID_ARGUMENT),
    (Denied, grpc.StatusCode.PERMISSION_DENIED),
    (TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Relist, grpc.StatusCode.OUT_OF_RANGE),
    (Conflict, grpc.StatusCode.ABORTED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (TimedOut, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Unknown, grpc.StatusCode.UNKNOWN),
)
"""Most special first."""

Trailing = tuple[tuple[str, str | bytes], ...]


def to_status(error: HasysError) -> tuple[grpc.StatusCode, str, Trailing]:
    """Code, text and trailing metadata that tell a client of this error."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    trailing: list[tuple[str, str | bytes]] = []
    if isinstance(error, Unavailable):
        trailing.append((NOTHING_CHANGED, "1"))
    if isinstance(error, NoMajority):
        trailing.append((NO_MAJORITY, "1"))
    if isinstance(error, Invalid) and error.faults:
        trailing.append((FAULTS, _encode_faults(error.faults)))
    return code, _shorten(str(error)), tuple(trailing)


def from_status(error: grpc.aio.AioRpcError) -> HasysError:
    """The error that a server's answer stands for. A broken connection is :class:`Unknown`: the request may have been
    done."""
    code, text = error.code(), error.details() or "no reason given"
    pairs: Any = error.trailing_metadata() or ()
    trailing: dict[str, str | bytes] = dict(pairs)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return Invalid(decode_faults(trailing.get(FAULTS)), text)
        case grpc.StatusCode.UNAVAILABLE:
            if NO_MAJORITY in trailing:
                return NoMajority(text)
            return Unavailable(text) if NOTHING_CHANGED in trailing else Unknown(text)
        case grpc.StatusCode.UNAUTHENTICATED:
            return Denied(text)
        case grpc.StatusCode.ALREADY_EXISTS | grpc.StatusCode.UNIMPLEMENTED:
            return Refused(text)
    kind = next((kind for kind, known in _CODES if known is code), Unknown)
    return kind(text)


def _shorten(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= _DETAILS:
        return data.decode("utf-8")
    kept = data[:_DETAILS].decode("utf-8", "ignore").rpartition("\n")[0] or data[:_DETAILS].decode("utf-8", "ignore")
    left = text.count("\n") - kept.count("\n")
    return f"{kept}\n... and {left} more" if left else f"{kept} ..."


def _encode_faults(faults: Sequence[Fault]) -> bytes:
    message, size = api_pb2.Faults(), 0
    for fault in faults:
        entry = api_pb2.Fault(key=fault.ref.key(), field=fault.field, message=fault.message)
        size += entry.ByteSize() + 4
        if size > _FAULT_BYTES:
            break
        message.faults.append(entry)
    return message.SerializeToString()


def decode_faults(data: str | bytes | None) -> list[Fault]:
    """What a server says beside its refusal; nothing when it cannot be read: the refusal itself says enough."""
    if not isinstance(data, bytes):
        return []
    try:
        message = api_pb2.Faults.FromString(data)
    except DecodeError:
        return []
    return [Fault(Ref.of_key(entry.key), entry.field, entry.message) for entry in message.faults]
