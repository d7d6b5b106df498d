"""``--wait``: until what was applied runs, or what was deleted is gone. The watch says when to look; nothing polls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hasys.api.kinds import MEMBER_KINDS, Ref, ref_of, resource
from hasys.cli.session import Cluster, within
from hasys.model.errors import Refused, TimedOut, Unavailable, Unknown
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_WATCHED = ("Group", *MEMBER_KINDS)

Known = dict[Ref, pb.Object]
Verdict = Callable[[Known], list[str]]
"""What is still missing, one line each; empty: done. Raises ``Refused`` when it cannot come true."""


async def until_running(cluster: Cluster, applied: Iterable[Ref], timeout: float) -> None:
    """Wait until every group and resource of ``applied`` runs as its present spec says."""
    wanted = tuple(applied)
    done = "applied; whether it runs"
    await _until(cluster, lambda known: [line for ref in wanted for line in missing(ref, known)], timeout, done)


async def until_gone(cluster: Cluster, deleted: Iterable[Ref], timeout: float) -> None:
    """Wait until no node can have any of ``deleted``."""
    wanted = tuple(deleted)
    done = "the deletion is stored; whether it is done"
    await _until(cluster, lambda known: [_still_there(ref, known) for ref in wanted if ref in known], timeout, done)


def _still_there(ref: Ref, known: Known) -> str:
    """What a deletion waits for: its node to stop it, and the node that had the group before to be out of it."""
    part, group = resource(known[ref]), known.get(Ref("Group", "", ref.group))
    where = f": {part.status.state or 'Stopped'} on {part.status.node}" if part and part.status.node else ""
    before = group.group.status.assignment.previous_node if group is not None else ""
    if before:
        where += f"{';' if where else ':'} {before} had the group before and may still have it"
    return f"{ref} is being deleted{where}"


def missing(ref: Ref, known: Known) -> list[str]:
    """Why this object does not run yet. Raises ``Refused`` when its group gave up on the present spec."""
    obj = known.get(ref)
    if obj is None:
        return [f"{ref} is not there"]
    if obj.HasField("group"):
        status = obj.group.status
        if status.phase == "Running":
            return []
        return [f"{ref} is {status.phase or 'Stopped'}{': ' if status.reason else ''}{status.reason}"]
    part = resource(obj)
    if part is None:
        return []
    current = part.status.observed_generation >= part.metadata.generation
    if current and part.status.state == "Failed":
        raise Refused(f"{ref} failed on {part.status.node}: {part.status.message}")
    if current and part.status.state == "Running":
        return []
    return [f"{ref} is {part.status.state or 'Stopped' if current else 'waiting for its node'}"]


async def _until(cluster: Cluster, verdict: Verdict, timeout: float, done: str) -> None:
    """``done`` says what was done before, and what is waited for. Raises ``TimedOut`` also when no server tells: the
    change was made, and no error may say that nothing changed."""
    known: Known = {}
    lines: list[str] = ["the first look"]

    async def follow() -> None:
        nonlocal lines
        synced = False
        try:
            async for answer in cluster.watch(_WATCHED):
                synced |= _learn(answer, known)
                if not synced:
                    continue
                lines = verdict(known)
                if not lines:
                    return
        except (Unavailable, Unknown) as silence:
            raise TimedOut(f"{done} cannot be seen: {silence}") from None

    await within(timeout, follow(), lambda: "still under way: " + "; ".join(lines))


def _learn(answer: api.WatchResponse, known: Known) -> bool:
    """Bring ``known`` up to date. True when the list is complete."""
    synced = False
    for change in answer.changes:
        if change.type == api.WatchResponse.SYNCED:
            synced = True
        elif change.type == api.WatchResponse.DELETED:
            known.pop(ref_of(change.object), None)
        elif change.object.WhichOneof("kind"):
            known[ref_of(change.object)] = change.object
    return synced
