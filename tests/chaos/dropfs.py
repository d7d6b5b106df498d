"""Mount points on disks that can lose power: the kernel's FUSE protocol, as far as a store needs it. Root only.

Writes reach this process at once (no page cache in between), so exactly what was synced by fsync, fdatasync, and fsync
of the folder survives. ``python -m tests.chaos.dropfs FOLDER...`` mounts a disk on each; commands on standard input:

- ``off``: the power fails, at this instant for all of them; what is under way gets an error;
- ``on SEED``: mounted again with what survived; answers how many files had changed;
- ``lie``: from now on sync does nothing. The end of input unmounts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import select
import stat
import struct
import sys
from collections.abc import Callable

from tests.chaos.dropdisk import ROOT, Disk, File

_IN = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # length, error, unique
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")  # node, generation, two validities, their nanoseconds
_INIT = struct.Struct("<IIIIHHIIHHI28x")
_OPENED = struct.Struct("<QII")
_IO = struct.Struct("<QQIIQII")  # of read and write: handle, offset, size ...
DIRECT = 1
"""The kernel keeps no pages of such a file."""
MAX_WRITE = 1024 * 1024
MNT_DETACH = 2
(
    LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, RENAME, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR,
    READDIR, RELEASEDIR, FSYNCDIR, ACCESS, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, RENAME2,
) = (1, 2, 3, 4, 10, 12, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29, 30, 34, 35, 36, 38, 42, 45)  # fmt: skip
_SILENT = (FORGET, INTERRUPT, BATCH_FORGET, DESTROY)
_libc = ctypes.CDLL(None, use_errno=True)


class Mount:
    """One disk at one mount point."""

    def __init__(self, folder: str) -> None:
        self.disk = Disk()
        self.fd = -1
        self._folder = folder
        self._files: dict[int, File] = {}
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            INIT: self._init, LOOKUP: self._lookup, GETATTR: self._getattr, SETATTR: self._setattr,
            CREATE: self._create, OPEN: self._open, READ: self._read, WRITE: self._write,
            FSYNC: self._fsync, FSYNCDIR: self._fsyncdir,
            UNLINK: self._unlink, RENAME: self._rename, RENAME2: self._rename2, OPENDIR: self._open,
            READDIR: self._readdir, STATFS: self._statfs,
            **dict.fromkeys((FLUSH, RELEASE, RELEASEDIR, ACCESS), lambda node, body: b""),
        }  # fmt: skip

    def on(self) -> None:
        """Mount."""
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fd},rootmode=40700,user_id=0,group_id=0,default_permissions"
        if _libc.mount(b"dropfs", self._folder.encode(), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), f"mount {self._folder}")

    def off(self) -> None:
        """Nothing is answered any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            _libc.umount2(self._folder.encode(), MNT_DETACH)

    def serve(self) -> None:
        """Answer one request."""
        try:
            data = os.read(self.fd, MAX_WRITE + 4096)
        except OSError:  # taken back by who asked
            return
        _, opcode, unique, node, *_ = _IN.unpack_from(data)
        if opcode in _SILENT:
            return
        error, answer = 0, b""
        try:
            answer = self._answers[opcode](node, data[_IN.size :])
        except KeyError:
            error = -(errno.ENOENT if opcode in self._answers else errno.ENOSYS)
        os.write(self.fd, _OUT.pack(_OUT.size + len(answer), error, unique) + answer)

    # ------------------------------------------------------------ helpers
    def _attr(self, node: int) -> bytes:
        if node == ROOT:
            mode, size = stat.S_IFDIR | 0o700, 0
        else:
            mode, size = stat.S_IFREG | self._files[node].mode, len(self._files[node].content)
        return _ATTR.pack(node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _entry(self, file: File) -> bytes:
        self._files[file.number] = file
        return _ENTRY.pack(file.number, 0, 0, 0, 0, 0) + self._attr(file.number)

    # ------------------------------------------------------------ requests
    def _init(self, node: int, body: bytes) -> bytes:
        _, minor, readahead, _ = struct.unpack_from("<IIII", body)
        return _INIT.pack(7, min(minor, 31), readahead, 0, 16, 12, MAX_WRITE, 1, 0, 0, 0)

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self.disk.names[_name(body)])

    def _getattr(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attr(node)

    def _setattr(self, node: int, body: bytes) -> bytes:
        (valid,), (size,), (mode,) = (struct.unpack_from(f, body, at) for f, at in (("<I", 0), ("<Q", 16), ("<I", 68)))
        if valid & 8:
            self._files[node].truncate(size)
        if valid & 1 and node != ROOT:
            self._files[node].mode = stat.S_IMODE(mode)
        return self._getattr(node, body)

    def _create(self, node: int, body: bytes) -> bytes:
        (_, mode, umask, _) = struct.unpack_from("<IIII", body)
        made = self.disk.create(_name(body[16:]), stat.S_IMODE(mode) & ~umask)
        return self._entry(made) + _OPENED.pack(0, DIRECT, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        return _OPENED.pack(0, DIRECT, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        _, at, size, *_ = _IO.unpack_from(body)
        return bytes(self._files[node].content[at : at + size])

    def _write(self, node: int, body: bytes) -> bytes:
        _, at, size, *_ = _IO.unpack_from(body)
        self._files[node].write(at, body[_IO.size : _IO.size + size])
        return struct.pack("<II", size, 0)

    def _fsync(self, node: int, body: bytes) -> bytes:
        self.disk.sync(self._files[node])
        return b""

    def _fsyncdir(self, node: int, body: bytes) -> bytes:
        self.disk.sync_names()
        return b""

    def _unlink(self, node: int, body: bytes) -> bytes:
        self.disk.unlink(_name(body))
        return b""

    def _rename(self, node: int, body: bytes) -> bytes:
        return self._rename_from(body[8:])

    def _rename2(self, node: int, body: bytes) -> bytes:
        return self._rename_from(body[16:])

    def _rename_from(self, names: bytes) -> bytes:
        old, new, _ = names.split(b"\0", 2)
        self.disk.rename(old.decode(), new.decode())
        return b""

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, at, *_ = _IO.unpack_from(body)
        found = b""
        for serial, (name, file) in enumerate(sorted(self.disk.names.items()), 1):
            if serial > at:
                raw = name.encode()
                found += struct.pack("<QQII", file.number, serial, len(raw), stat.S_IFREG >> 12) + raw
                found += bytes(-len(found) % 8)
        return found

    def _statfs(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0)


def _name(body: bytes) -> str:
    return body.split(b"\0", 1)[0].decode()


def serve(folders: list[str]) -> None:
    """Until standard input ends."""
    mounts = [Mount(folder) for folder in folders]
    for mount in mounts:
        mount.on()
    print("mounted", flush=True)
    try:
        while True:
            by_fd = {mount.fd: mount for mount in mounts if mount.fd >= 0}
            ready, _, _ = select.select([0, *by_fd], [], [])
            for fd in ready:
                if fd:
                    by_fd[fd].serve()
            if 0 in ready and not _command(mounts, os.read(0, 100).decode().split()):
                return
    finally:
        for mount in mounts:
            mount.off()


def _command(mounts: list[Mount], words: list[str]) -> bool:
    """False: the end."""
    match words:
        case []:
            return False
        case ["off"]:
            for mount in mounts:
                mount.off()
            print("off", flush=True)
        case ["on", seed]:
            rng = random.Random(int(seed))
            changed = sum(mount.disk.lose_power(rng) for mount in mounts)
            for mount in mounts:
                mount.on()
            print(changed, flush=True)
        case ["lie"]:
            for mount in mounts:
                mount.disk.lies = True
            print("lying", flush=True)
    return True


if __name__ == "__main__":
    serve(sys.argv[1:])
