"""libnftables in this process, through ctypes: one command buffer in, one transaction, text or an error out.

For the structure of the table; elements go through :mod:`hasys.guard.elements`. A child process per change would cost
milliseconds and could be starved. API: ``libnftables(3)``.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat

LIBRARY = "libnftables.so.1"
STATELESS, TERSE = 1 << 2, 1 << 11
"""Output flags of nftables/libnftables.h: no timers and counters; no elements of sets."""


class NftError(Exception):
    """The transaction was refused as a whole; ``missing`` when because something that it names does not exist."""

    def __init__(self, text: str, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


class NftMissing(Exception):
    """No usable libnftables on this machine."""


class Nft:
    """One libnftables context. Not thread-safe. Opens its netlink socket in the namespace of its creation."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            lib = ctypes.CDLL(library)
        except OSError as e:
            raise NftMissing(f"{library}: {e}: install the package libnftables1") from None
        lib.nft_ctx_new.restype = ctypes.c_void_p
        lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
            getattr(lib, name).restype = ctypes.c_char_p
        lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._lib = lib
        before = _open_sockets()
        self._ctx = lib.nft_ctx_new(0)
        if not self._ctx:
            raise NftMissing("libnftables could not open its socket: not permitted, or no nf_tables in the kernel")
        lib.nft_ctx_buffer_output(self._ctx)
        lib.nft_ctx_buffer_error(self._ctx)
        self.run("list tables netdev")  # the socket gets its port with the first request
        self.port = _netlink_port(_open_sockets() - before)
        """Netlink port of this context: changes that it makes are told apart in events by it. 0: not known."""

    def run(self, commands: str, *, flags: int = 0) -> str:
        """Run the commands as one transaction and return what they print. Raises :class:`NftError`."""
        self._lib.nft_ctx_output_set_flags(self._ctx, flags)
        failed = self._lib.nft_run_cmd_from_buffer(self._ctx, commands.encode())
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._ctx) or b""
        error: bytes = self._lib.nft_ctx_get_error_buffer(self._ctx) or b""
        if failed:
            text = _first_line(error.decode(errors="replace")) or "refused without a reason"
            raise NftError(text, missing="No such file or directory" in text)
        return output.decode(errors="replace")

    def close(self) -> None:
        """Free the context; nothing in the kernel changes."""
        self._lib.nft_ctx_free(self._ctx)
        self._ctx = None


def _first_line(text: str) -> str:
    """The message itself, without the quoted command and its underlining."""
    lines = [line for line in text.splitlines() if "Error: " in line]
    return lines[0][lines[0].index("Error: ") + len("Error: ") :].strip() if lines else text.strip()[:200]


def _open_sockets() -> set[int]:
    return {int(fd) for fd in os.listdir("/proc/self/fd") if _is_socket(int(fd))}


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False  # the descriptor of the directory listing itself, closed by now


def _netlink_port(descriptors: set[int]) -> int:
    """The port of the netlink socket among these; libnftables has no call that tells it."""
    for fd in descriptors:
        with socket.socket(fileno=os.dup(fd)) as s:
            if s.family == socket.AF_NETLINK:
                return int(s.getsockname()[0])
    return 0
