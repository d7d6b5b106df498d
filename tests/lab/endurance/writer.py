"""Fills the store with objects, says so, and changes them for ever: ``writer.py CONTEXT COUNT``.

Runs on the client machine of the lab."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from hasys.api.client import Client, load_context
from hasys.v1 import objects_pb2 as pb

GROUP_SIZE = 1_000
"""As many members as one group may have."""
BATCH = 200
"""Objects of one write."""


def head(group: int) -> pb.Object:
    """A group that no node can take, for its address is on an interface that none has: it stays stopped."""
    made = pb.Object()
    made.group.metadata.name = f"ballast{group}"
    made.group.spec.nodes.add(name="n1", priority=10)
    made.group.spec.failover.mode = pb.Failover.Manual
    return made


def address(group: int) -> pb.Object:
    """On that interface."""
    made = pb.Object()
    made.virtual_ip.metadata.name, made.virtual_ip.metadata.group = "nowhere", f"ballast{group}"
    made.virtual_ip.spec.address = f"192.0.2.{group + 1}/32"
    made.virtual_ip.spec.interface.name = "nowhere0"
    return made


def delays(group: int, first: int, last: int, generation: int) -> list[pb.Object]:
    """One batch of objects."""
    made = []
    for number in range(first, last):
        one = pb.Object()
        one.delay.metadata.name, one.delay.metadata.group = f"d{number}", f"ballast{group}"
        one.delay.spec.duration.nanos = 1 + generation
        made.append(one)
    return made


async def main(context: Path, total: int) -> None:
    """Never ends."""
    async with Client(load_context(context)) as client:
        for generation in count():
            for group in range(total // GROUP_SIZE):
                if generation == 0:
                    await client.apply([head(group), address(group)], timeout=60)
                for first in range(1, GROUP_SIZE, BATCH):
                    await client.apply(delays(group, first, min(first + BATCH, GROUP_SIZE), generation), timeout=60)
            if generation == 0:
                print("there", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
