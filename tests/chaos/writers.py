"""Clients that write all the time and remember what was acknowledged; and the check that nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from hasys.api.client import Client, Context
from hasys.model.errors import HasysError
from hasys.v1 import objects_pb2 as pb

GROUP = "g"
LABEL = "seq"
ATTEMPT = 3.0
"""Seconds after which a write is given up; it may have happened."""


def group(name: str = GROUP, nodes: Sequence[str] = ("n1", "n2", "n3"), **labels: str) -> pb.Object:
    """A group without resources: nobody needs to run for it."""
    spec = pb.GroupSpec(nodes=[pb.GroupNode(name=node) for node in nodes])
    return pb.Object(group=pb.Group(metadata=pb.Metadata(name=name, labels=labels), spec=spec))


def delay(name: str, seq: int) -> pb.Object:
    """A small resource whose label says which write it is from."""
    meta = pb.Metadata(name=name, group=GROUP, labels={LABEL: str(seq)})
    return pb.Object(delay=pb.Delay(metadata=meta, spec=pb.DelaySpec(duration=Duration(seconds=1))))


@dataclass
class Ledger:
    """By object: the newest write that was tried, and that was acknowledged."""

    tried: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    writes: int = 0
    """Acknowledged, all objects together."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def lost(self, before: dict[str, int], found: dict[str, int]) -> list[str]:
        """What a read that began after ``before`` was acknowledged should have shown, and did not."""
        faults = [
            f"{name}: write {seq} was acknowledged, the store has {found.get(name, 'nothing')}"
            for name, seq in before.items()
            if found.get(name, -1) < seq
        ]
        faults += [
            f"{name}: the store has {seq}, which nobody wrote"
            for name, seq in found.items()
            if seq > self.tried.get(name, -1)
        ]
        return faults


async def write_for_ever(client: Client, ledger: Ledger, names: Sequence[str]) -> None:
    """Write one object after the other, each with a growing number."""
    seq = 0
    while True:
        seq += 1
        for name in names:
            ledger.tried[name] = seq
            try:
                await client.apply([delay(name, seq)], timeout=ATTEMPT)
            except HasysError:
                continue  # whether it happened is open: the next number tells
            ledger.acknowledged[name] = seq
            ledger.writes += 1
            ledger.news.set()


async def read_all(context: Context, timeout: float) -> dict[str, int]:
    """What the store has, by object."""
    async with Client(context) as client:
        answer = await client.list("Delay", GROUP, timeout=timeout)
    return {o.delay.metadata.name: int(o.delay.metadata.labels[LABEL]) for o in answer.objects}
