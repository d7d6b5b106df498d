"""Members of different versions in one cluster: what a newer one adds, and what an older one does not know to say."""

from __future__ import annotations

from enum import Enum

from hasys.v1 import raft_pb2 as pb

UNKNOWN_FIELDS = b"\x82\x3f\x05later" + b"\xf8\x3f\x01"
"""Fields 1008 (bytes) and 1023 (a number), of a version to come."""


class Dialect(Enum):
    """How a member writes its messages."""

    PRESENT = "present"
    NEWER = "newer"
    OLDER = "older"

    def encode(self, message: pb.Message) -> bytes:
        if self is Dialect.NEWER:
            return bytes(message.SerializeToString()) + UNKNOWN_FIELDS
        if self is Dialect.OLDER:
            return _without_news(message)
        return bytes(message.SerializeToString())


def _without_news(message: pb.Message) -> bytes:
    """Leave out what the first version lacked: its absence must only cost time."""
    body = message.WhichOneof("body")
    if body not in ("heartbeat", "heartbeat_answer", "vote_request", "vote"):
        return bytes(message.SerializeToString())
    older = pb.Message.FromString(message.SerializeToString())
    older.heartbeat.ClearField("quiet") if body == "heartbeat" else None
    older.heartbeat_answer.ClearField("received") if body == "heartbeat_answer" else None
    older.vote_request.ClearField("handed_over") if body == "vote_request" else None
    older.vote.ClearField("silence") if body == "vote" else None
    return bytes(older.SerializeToString())
