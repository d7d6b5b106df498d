"""A disk in memory that forgets at a power cut what no sync has promised to keep."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


class PowerCut(Exception):
    """The machine died in the middle of a disk job."""


@dataclass
class _File:
    content: bytes = b""
    synced: bytes = b""
    overwritten: list[tuple[int, bytes]] = field(default_factory=list)
    """Since the last sync; each of them may be lost alone."""


class SimulatedDisk:
    """Implements ``hasys.store.raft.disk.Disk``. ``fuse``: operations until the machine dies."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._kept_names: list[dict[str, _File]] = [{}]
        """What the folder may look like after a power cut: the last synced state, then one more for each change."""
        self.fuse: int | None = None
        self.operations = 0

    def _burn(self) -> None:
        self.operations += 1
        if self.fuse is not None:
            if self.fuse == 0:
                raise PowerCut
            self.fuse -= 1

    def read(self, name: str) -> bytes | None:
        file = self._names.get(name)
        return None if file is None else file.content

    def create(self, name: str, data: bytes) -> None:
        self._burn()
        self._names = {**self._names, name: _File(content=data)}
        self._kept_names.append(self._names)

    def append(self, name: str, data: bytes) -> None:
        self._burn()
        self._names[name].content += data

    def overwrite(self, name: str, at: int, data: bytes) -> None:
        self._burn()
        file = self._names[name]
        file.content = _put(file.content, at, data)
        file.overwritten.append((at, data))

    def sync(self, name: str) -> None:
        self._burn()
        file = self._names[name]
        file.synced = file.content
        file.overwritten.clear()

    def rename(self, old: str, new: str) -> None:
        self._burn()
        names = dict(self._names)
        names[new] = names.pop(old)
        self._names = names
        self._kept_names.append(names)

    def sync_names(self) -> None:
        self._burn()
        self._kept_names = [self._names]

    def power_cut(self, rng: random.Random) -> None:
        """Keep what was synced; of the rest keep some beginning, maybe with a damaged end."""
        self.fuse = None
        names = dict(rng.choice(self._kept_names))
        for file in {id(f): f for f in names.values()}.values():
            file.content = _torn(file, rng)
            file.synced = file.content
            file.overwritten.clear()
        self._names = names
        self._kept_names = [names]

    def wipe(self) -> None:
        """The machine came back with a new disk."""
        self.__init__()  # type: ignore[misc]

    def damage(self, name: str, at: int) -> None:
        """Flip one byte that had been synced."""
        file = self._names[name]
        content = bytearray(file.content)
        content[at] ^= 0xFF
        file.content = file.synced = bytes(content)


def _put(content: bytes, at: int, data: bytes) -> bytes:
    assert at + len(data) <= len(content)
    return content[:at] + data + content[at + len(data) :]


def _torn(file: _File, rng: random.Random) -> bytes:
    if file.overwritten:
        return _partly_overwritten(file, rng)
    assert file.content.startswith(file.synced) or not file.synced
    tail = file.content[len(file.synced) :]
    kept = bytearray(tail[: rng.randint(0, len(tail))])
    if kept and rng.random() < 0.5:
        hole = rng.randrange(len(kept))
        kept[hole : hole + 512] = bytes(len(kept[hole : hole + 512]))
    return file.synced + bytes(kept)


def _partly_overwritten(file: _File, rng: random.Random) -> bytes:
    """The disk wrote some of them, in any order; the last one may be garbage."""
    content = file.synced
    for at, data in file.overwritten:
        if rng.random() < 0.5:
            content = _put(content, at, data)
    at, data = file.overwritten[-1]
    return _put(content, at, rng.randbytes(len(data))) if rng.random() < 0.2 else content
