"""A client that writes without end: ``python -m tests.matrix.writer CONTEXT NODE...`` prints each number once the write
of it was acknowledged. The number is the label of one resource."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hasys.api.client import Client, load_context
from hasys.model.errors import HasysError
from tests.chaos.writers import delay, group

NAME = "ledger"
ATTEMPT = 3.0
"""Seconds after which a write is given up; it may have happened."""


async def write(context: Path, nodes: list[str]) -> None:
    """Until killed."""
    async with Client(load_context(context)) as client:
        await client.apply([group(nodes=nodes)])
        seq = 0
        while True:
            seq += 1
            try:
                await client.apply([delay(NAME, seq)], timeout=ATTEMPT)
            except HasysError:
                continue  # whether it happened is open
            print(seq, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2:]))
