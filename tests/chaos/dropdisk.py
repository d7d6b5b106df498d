"""The memory of a disk that loses power: what was synced stays; of the rest any pages, and any first changes of names.

Pure: no mount, no process. ``dropfs`` puts it behind a real mount point.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PAGE = 4096
ROOT = 1


@dataclass(eq=False)
class File:
    """Content as programs see it, and as it was when it was synced last."""

    number: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""

    def write(self, at: int, data: bytes) -> None:
        """Also beyond the end."""
        self.truncate(max(len(self.content), at + len(data)))
        self.content[at : at + len(data)] = data

    def truncate(self, size: int) -> None:
        """Cut, or make longer with zeros."""
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))

    def lose(self, rng: random.Random) -> None:
        """The power fails: each page is the old one or the new one, the length is the old one or some newer one."""
        new, old = bytes(self.content), self.synced
        if new == old:
            return
        size = rng.choice((len(old), len(new), rng.randint(min(len(old), len(new)), max(len(old), len(new)))))
        kept = bytearray(size)
        for at in range(0, size, PAGE):
            source = rng.choice((old, new))[at : min(at + PAGE, size)]
            kept[at : at + len(source)] = source
        self.content, self.synced = kept, bytes(kept)


class Disk:
    """One flat folder."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self._kept: list[dict[str, File]] = [{}]
        """The synced state of the names, then the state after each change since."""
        self._next = ROOT + 1
        self.lies = False
        """Sync does nothing: to see whether a test would notice."""

    def create(self, name: str, mode: int) -> File:
        """A new empty file."""
        made = File(self._next, mode)
        self._next += 1
        self._rename({**self.names, name: made})
        return made

    def rename(self, old: str, new: str) -> None:
        """Raises KeyError."""
        names = dict(self.names)
        names[new] = names.pop(old)
        self._rename(names)

    def unlink(self, name: str) -> None:
        """Raises KeyError."""
        names = dict(self.names)
        del names[name]
        self._rename(names)

    def _rename(self, names: dict[str, File]) -> None:
        self.names = names
        self._kept.append(names)

    def sync(self, file: File) -> None:
        """The content of the file stays."""
        if not self.lies:
            file.synced = bytes(file.content)

    def sync_names(self) -> None:
        """The names stay."""
        if not self.lies:
            self._kept = [self.names]

    def lose_power(self, rng: random.Random) -> int:
        """Forget; answers how many files are not what programs last saw."""
        seen = {name: bytes(file.content) for name, file in self.names.items()}
        self.names = dict(rng.choice(self._kept))
        self._kept = [self.names]
        for file in {id(f): f for f in self.names.values()}.values():
            file.lose(rng)
        now = {name: bytes(file.content) for name, file in self.names.items()}
        return sum(seen.get(name) != now.get(name) for name in seen.keys() | now.keys())
