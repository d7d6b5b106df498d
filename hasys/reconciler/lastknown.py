"""The last known objects on disk: what an operator's oath runs when there is no store to read.

A copy of the cache below the data directory, replaced as a whole, at most once a second. Never authority: the guard
decides what may run, and from this copy only what an operator swore to is touched at all.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import anyio
from anyio import to_thread
from google.protobuf.message import DecodeError

from hasys.api import kinds
from hasys.config import NodeConfig
from hasys.reconciler.cache import Cache
from hasys.reconciler.ports import Batch
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

LINGER = 1.0
"""Seconds to collect changes before they are written."""


def path_of(config: NodeConfig) -> Path:
    """Where a node keeps it."""
    return config.data_dir / "last-known"


def read(path: Path) -> Batch | None:
    """What was kept; None when there is nothing that can be read."""
    try:
        answer = api_pb2.ListResponse.FromString(path.read_bytes())
    except (OSError, DecodeError):
        return None
    return Batch([(obj, False) for obj in answer.objects], synced=True)


class LastKnown:
    """Keeps the copy up to date while the cache follows the store."""

    def __init__(self, path: Path, cache: Cache) -> None:
        self._path = path
        self._cache = cache
        self._news = anyio.Event()

    def changed(self) -> None:
        """The cache differs from what was written."""
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled. A full disk is said and costs nothing else."""
        while True:
            await self._news.wait()
            await anyio.sleep(LINGER)
            self._news = anyio.Event()
            if not self._cache.synced or self._cache.stale:
                continue
            data = self._content()
            try:
                await to_thread.run_sync(_replace, self._path, data)
            except OSError as e:
                log.warning("%s: last known objects not kept: %s", self._path, e.strerror)

    def _content(self) -> bytes:
        answer = api_pb2.ListResponse()
        for node in self._cache.nodes.values():
            answer.objects.append(kinds.wrap(node))
        for fencing in self._cache.fencings.values():  # how long it is waited for, and no password of its agent
            kept = pb.Fencing(metadata=fencing.metadata, spec=pb.FencingSpec(wait=fencing.spec.wait))
            answer.objects.append(kinds.wrap(kept))
        for group in self._cache.groups.values():
            answer.objects.append(kinds.wrap(group))
            for resource in self._cache.resources(group.metadata.name).values():
                answer.objects.append(kinds.wrap(resource))
        return answer.SerializeToString()


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.rename(path)
