"""Keeps aside what a node did without a majority and what did not become the cluster's history (docs/two-nodes.md).

The store never learns more of it than two events: what the other node did counts. What was written here meanwhile lies
where the programs put it; this says from when to when, why, and what ran, so that somebody can look for it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hasys.api import kinds
from hasys.api.render import dump, to_json
from hasys.guard.client import OathReport
from hasys.reconciler import lastknown
from hasys.v1 import objects_pb2 as pb

HEADING = "# {group} ran on {node} beside the history that counts. What was written meanwhile lies on {node}'s disks.\n"


class Aside:
    """One file per time without a majority that ended in giving the group up."""

    def __init__(self, folder: Path, last_known: Path, node: str) -> None:
        self._folder = folder
        self._last_known = last_known
        """Objects as this node knew them: what ran."""
        self._node = node

    def path(self, ended: OathReport) -> Path:
        """Where it lies."""
        stamp = datetime.datetime.fromtimestamp(ended.time, datetime.UTC)
        return self._folder / f"{ended.group}-{stamp:%Y%m%dT%H%M%SZ}.yaml"

    def write(self, ended: OathReport) -> None:
        """Durably. Raises ``OSError``; may take as long as the disk does."""
        content = HEADING.format(group=ended.group, node=self._node) + dump(self._content(ended))
        _write(self.path(ended), content)

    def _content(self, ended: OathReport) -> Mapping[str, Any]:
        since = {"from": _time(ended.since), "cause": ended.why} if ended.since else {}
        known = lastknown.read(self._last_known)
        objects = [obj for obj, _ in known.changes if _of(obj, ended.group)] if known else []
        return {
            "group": ended.group,
            "node": self._node,
            "epoch": ended.epoch,
            **since,
            "to": _time(ended.time),
            "end": ended.cause,
            "objects": [to_json(obj, status=False) for obj in objects],
        }


def _of(obj: pb.Object, group: str) -> bool:
    metadata = kinds.metadata(obj)
    return metadata.group == group or (obj.WhichOneof("kind") == "group" and metadata.name == group)


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
